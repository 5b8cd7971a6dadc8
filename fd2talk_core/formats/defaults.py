"""What the command line and the nodes offer of files, without the import of torch that ``--help`` need not
wait for.
"""

from __future__ import annotations

from typing import Literal, get_args

MeshFile = Literal["ply", "obj"]
MESH_FILES: tuple[str, ...] = get_args(MeshFile)
"""What a mesh sequence is made of."""

USD_ENDINGS = (".usdc", ".usd", ".usda")
"""The last is text."""

VMC_PORT = 39539
"""On which receivers of the VMC protocol listen."""

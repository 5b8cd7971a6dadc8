"""What the command line offers of motion, without the import of torch that ``--help`` need not wait for."""

from __future__ import annotations

from typing import Literal

MissingPolicy = Literal["error", "hold", "interpolate"]
"""What to do with frames of a driving video that show no face."""
MISSING_POLICIES: tuple[MissingPolicy, ...] = ("error", "hold", "interpolate")

"""The nodes of FD2Talk; one file a topic.

What needs diffusers is imported when a node runs: the host starts as quickly with this pack as without it.
"""

from __future__ import annotations

from comfy_api.v0_0_2 import ComfyExtension, io

from . import (
    audio,
    dubbing,
    frames,
    host,
    lip_keys,
    meshes,
    motion,
    preview,
    provenance,
    reference,
    sequence_editing,
    sequence_files,
    sequence_making,
    tracking,
)
from .types import hold_sockets


class FD2TalkExtension(ComfyExtension):
    """What :func:`comfy_entrypoint` gives to the host."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        host.register_folders()
        topics = (
            *(audio, motion, reference, frames, dubbing, preview, meshes, provenance),
            *(sequence_files, sequence_editing, sequence_making, lip_keys, tracking),
        )
        return [hold_sockets(node) for topic in topics for node in topic.NODES]

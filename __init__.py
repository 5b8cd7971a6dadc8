"""FD2Talk for ComfyUI: the host takes the nodes from :func:`comfy_entrypoint`; nothing happens at import."""

from __future__ import annotations

WEB_DIRECTORY = "./web"

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]


async def comfy_entrypoint():
    """The extension object that ComfyUI takes the node classes from."""
    from .nodes import FD2TalkExtension

    return FD2TalkExtension()

"""FD2Talk for ComfyUI: the host takes the nodes from :func:`comfy_entrypoint`; nothing happens at import."""

from __future__ import annotations

WEB_DIRECTORY = "./web"

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]


async def comfy_entrypoint():
    """The extension object that ComfyUI takes the node classes from.

    Raises:
        RuntimeError: when the host is older than the version of its API that the nodes are written for.
    """
    try:
        from .nodes import FD2TalkExtension
    except ImportError as error:
        if not (error.name or "").startswith("comfy_api"):
            raise
        raise RuntimeError(
            "FD2Talk needs ComfyUI 0.3.75 or newer: update ComfyUI, then start it again."
        ) from error
    return FD2TalkExtension()

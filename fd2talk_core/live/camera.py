"""The live avatar as a virtual camera, which any program for calls can choose. It has no sound of its own.

Needs the package of the extra ``camera``, and OBS on Windows and macOS, or v4l2loopback on Linux.
"""

from __future__ import annotations

from ..errors import FD2TalkError
from .avatar import LiveAvatar, LiveFrame

INSTALL = "install it by: pip install 'fd2talk[camera]', or pip install pyvirtualcam"


class CameraSink:
    """
    Args:
        avatar: whose frames are shown; each is given by calling this.

    Raises:
        FD2TalkError: when pyvirtualcam is not installed, or there is no virtual camera.
    """

    def __init__(self, avatar: LiveAvatar) -> None:
        try:
            import pyvirtualcam
        except ImportError as error:
            raise FD2TalkError(f"A virtual camera needs the package pyvirtualcam; {INSTALL}.") from error
        height, width = avatar.still.shape[:2]
        try:
            self.camera = pyvirtualcam.Camera(width, height, avatar.fps)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise FD2TalkError(
                f"There is no virtual camera ({reason}): install OBS on Windows and macOS, or load "
                "v4l2loopback on Linux."
            ) from error
        self.camera.send(avatar.still.numpy())

    def __call__(self, frame: LiveFrame) -> None:
        if frame.frame is not None:
            self.camera.send(frame.frame.numpy())

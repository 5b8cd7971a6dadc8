"""Motion to VTuber software: OSC messages of the VMC protocol over UDP, one bundle after another.

Open Sound Control 1.0 (Wright 2002) as far as it is needed: strings, 32-bit integers and floats, and bundles.
VMC (protocol.vmc.info) names a blendshape by ``/VMC/Ext/Blend/Val`` and a bone by ``/VMC/Ext/Bone/Pos``.
Blendshapes have ARKit's names with a capital (``JawOpen``), as avatars for "perfect sync" have them. Unity's
axes are left-handed: an avatar looks along +z, and x points to its own right.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import closing

from torch import Tensor

from ..checks import check_whole, checked
from ..errors import FD2TalkError
from ..files import reason_of
from ..motion.coefficients import CoefficientSequence
from ..progress import Callback
from .defaults import VMC_PORT
from .gltf import METRES, quaternions

PACKET = 1400
"""Bytes: what an Ethernet carries in one piece."""
NECK = 0.1
"""Metres from a neck's bone to the head's: VMC sends places with turns."""

Argument = str | int | float


def osc_message(address: str, *arguments: Argument) -> bytes:
    """A message: address, types, arguments, each a multiple of four bytes."""
    tags, content = ",", b""
    for argument in arguments:
        if isinstance(argument, str):
            tags, content = f"{tags}s", content + _padded(argument)
        elif isinstance(argument, int):
            tags, content = f"{tags}i", content + struct.pack(">i", argument)
        else:
            tags, content = f"{tags}f", content + struct.pack(">f", argument)
    return _padded(address) + _padded(tags) + content


def _padded(text: str) -> bytes:
    """A string with at least one zero behind it."""
    content = text.encode("ascii", "replace") + b"\0"
    return content + b"\0" * (-len(content) % 4)


def osc_bundles(messages: list[bytes], size: int = PACKET) -> Iterator[bytes]:
    """Messages in as few bundles as fit into packets of a size, to be done as soon as they come."""
    start = b"#bundle\0" + struct.pack(">Q", 1)
    bundle = start
    for message in messages:
        if len(bundle) + 4 + len(message) > size and len(bundle) > len(start):
            yield bundle
            bundle = start
        bundle += struct.pack(">i", len(message)) + message
    yield bundle


def vmc_frame(
    weights: dict[str, float], turn: Tensor | None, shift: Tensor | None, seconds: float
) -> list[bytes]:
    """The messages of one frame.

    Args:
        weights: blendshapes by ARKit's names.
        turn: ``[4]`` quaternion (x, y, z, w) of the head in our axes.
        shift: ``[3]`` metres in our axes.
        seconds: since the start.
    """
    messages = [osc_message("/VMC/Ext/OK", 1), osc_message("/VMC/Ext/T", float(seconds))]
    if turn is not None and shift is not None:
        x, y, z, w = turn.tolist()
        right, up, forward = shift.tolist()
        # seen from the viewer x points to the right, which is the avatar's left
        place = (-right, up + NECK, forward, x, -y, -z, w)
        messages.append(osc_message("/VMC/Ext/Bone/Pos", "Head", *place))
    for name, weight in weights.items():
        messages.append(osc_message("/VMC/Ext/Blend/Val", name[:1].upper() + name[1:], float(weight)))
    if weights:
        messages.append(osc_message("/VMC/Ext/Blend/Apply"))
    return messages


@checked
def stream_vmc(
    expression: CoefficientSequence | None,
    pose: CoefficientSequence | None,
    host: str = "127.0.0.1",
    port: int = VMC_PORT,
    *,
    callback: Callback | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Play a motion in real time to a VMC receiver; a frame that is late is left out, so that it keeps time.

    Args:
        expression: F frames of named coefficients, or None.
        pose: F frames at the same rate, or None.
        host, port: of the receiver. UDP tells no one whether it listens.
        callback: ``(done, total, None)`` after each frame; what it raises ends the stream.
        clock, sleep: of the time that is kept, in seconds.

    Returns:
        how many frames were sent.

    Raises:
        FD2TalkError: when there is no motion, its two parts differ, the coefficients have no names, or the
            receiver's address is none.
    """
    check_whole(port, "The port", 1, 65535)
    motion = expression or pose
    if motion is None:
        raise FD2TalkError("There is no motion to stream: give an expression, a pose, or both.")
    if expression and pose and (expression.num_frames, expression.fps) != (pose.num_frames, pose.fps):
        raise FD2TalkError(
            f"The expression has {expression.num_frames} frames at {expression.fps:g} fps and the pose "
            f"{pose.num_frames} at {pose.fps:g}: retime one of them."
        )
    if expression and not expression.names:
        raise FD2TalkError(
            f"The coefficients of {expression.face_model!r} have no names, so no avatar knows them."
        )
    names = expression.names if expression else ()
    values = expression.values.clamp(0, 1).tolist() if expression else [[]] * motion.num_frames
    turns = quaternions(pose.values[:, :3]) if pose else None
    shifts = pose.values[:, 3:] * METRES if pose else None
    sent = 0
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sender:
        start = clock()
        for index in range(motion.num_frames):
            due = start + index / motion.fps
            if clock() > due + 1 / motion.fps and index + 1 < motion.num_frames:
                continue
            if (wait := due - clock()) > 0:
                sleep(wait)
            weights = dict(zip(names, values[index], strict=True))
            turn, shift = (None if part is None else part[index] for part in (turns, shifts))
            try:
                for bundle in osc_bundles(vmc_frame(weights, turn, shift, index / motion.fps)):
                    sender.sendto(bundle, (host, port))
            except (OSError, UnicodeError) as error:
                raise FD2TalkError(
                    f"Nothing can be sent to {host!r}, port {port} ({reason_of(error)})."
                ) from error
            sent += 1
            if callback is not None:
                callback(index + 1, motion.num_frames, None)
    return sent

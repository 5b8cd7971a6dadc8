"""A motion over the VMC protocol, received on this machine and read by the OSC specification."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.names import ARKIT_NAMES
from fd2talk_core.face.rotations import rotation_matrix
from fd2talk_core.formats.gltf import METRES
from fd2talk_core.formats.osc import NECK, PACKET, osc_message, stream_vmc
from fd2talk_core.motion.coefficients import CoefficientSequence
from fd2talk_core.motion.editing import idle_motion

FPS = 50.0


def messages(packet: bytes) -> Iterator[tuple]:
    """Address and arguments of each message of a bundle: a reader of its own."""
    assert len(packet) <= PACKET and packet[:16] == b"#bundle\0" + struct.pack(">Q", 1)
    at = 16
    while at < len(packet):
        (size,) = struct.unpack_from(">i", packet, at)
        assert size % 4 == 0
        piece, at = packet[at + 4 : at + 4 + size], at + 4 + size

        def text() -> str:
            nonlocal piece
            end = piece.index(b"\0")
            told, piece = piece[:end].decode(), piece[(end // 4 + 1) * 4 :]
            return told

        found, kinds = [text()], text()
        assert kinds[0] == ","
        for kind in kinds[1:]:
            if kind == "s":
                found.append(text())
            else:
                found.append(struct.unpack_from(f">{kind}", piece)[0])
                piece = piece[4:]
        assert piece == b""
        yield tuple(found)


class Clock:
    """Time that passes only while one sleeps, and ``late`` seconds at one frame."""

    def __init__(self, late_at: int = -1) -> None:
        self.now, self.sleeps, self.late_at = 100.0, [], late_at

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds + (0.07 if len(self.sleeps) == self.late_at else 0)


@pytest.fixture
def receiver() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        bound.bind(("127.0.0.1", 0))
        bound.settimeout(5)
        yield bound


def received(receiver: socket.socket) -> list[dict]:
    """Frames by the time that they say: weights by name, and the head."""
    receiver.setblocking(False)
    frames: list[dict] = []
    while True:
        try:
            packet = receiver.recv(65536)
        except BlockingIOError:
            return frames
        for address, *given in messages(packet):
            if address == "/VMC/Ext/T":
                frames.append({"time": given[0], "weights": {}, "applied": False})
            elif address == "/VMC/Ext/Bone/Pos":
                frames[-1]["head"] = given
            elif address == "/VMC/Ext/Blend/Val":
                frames[-1]["weights"][given[0]] = given[1]
            elif address == "/VMC/Ext/Blend/Apply":
                frames[-1]["applied"] = True
            else:
                assert (address, given) == ("/VMC/Ext/OK", [1])


def face(frames: int) -> CoefficientSequence:
    values = torch.rand(frames, 52, generator=torch.Generator().manual_seed(1))
    return CoefficientSequence("expression", values, FPS, "anny-arkit52", ARKIT_NAMES)


def test_every_frame_arrives_whole_and_in_time(receiver: socket.socket) -> None:
    expression, pose, clock = face(10), idle_motion(10, FPS, seed=3, amount=8), Clock()
    port = receiver.getsockname()[1]
    assert stream_vmc(expression, pose, port=port, clock=clock, sleep=clock.sleep) == 10
    frames = received(receiver)
    assert [frame["time"] for frame in frames] == pytest.approx(
        [index / FPS for index in range(10)], abs=1e-6
    )
    assert clock.now - 100 == pytest.approx(9 / FPS)
    for index, frame in enumerate(frames):
        assert frame["applied"] and len(frame["weights"]) == 52
        for name, value in zip(ARKIT_NAMES, expression.values[index].tolist(), strict=True):
            assert frame["weights"][name[0].upper() + name[1:]] == pytest.approx(value, abs=1e-6)
        bone, right, up, forward, x, y, z, w = frame["head"]
        assert bone == "Head"
        # a rotation by this quaternion in mirrored axes is ours, mirrored
        ours, mirror = rotation_matrix(pose.values[index : index + 1, :3])[0].numpy(), np.diag([-1, 1, 1])
        theirs = np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
            ]
        )
        np.testing.assert_allclose(theirs, mirror @ ours @ mirror, atol=1e-5)
        shift = (mirror @ pose.values[index, 3:].numpy()) * METRES + [0, NECK, 0]
        np.testing.assert_allclose([right, up, forward], shift, atol=1e-6)


def test_late_frames_are_left_out_so_that_the_rest_is_in_time(receiver: socket.socket) -> None:
    clock = Clock(late_at=3)
    sent = stream_vmc(face(12), None, port=receiver.getsockname()[1], clock=clock, sleep=clock.sleep)
    times = [round(frame["time"] * FPS) for frame in received(receiver)]
    assert len(times) == sent < 12 and times[:4] == [0, 1, 2, 3] and times[-1] == 11
    assert clock.now - 100 == pytest.approx(11 / FPS)


def test_what_cannot_be_streamed_is_told() -> None:
    with pytest.raises(FD2TalkError, match="no motion to stream"):
        stream_vmc(None, None)
    with pytest.raises(FD2TalkError, match="port is 0"):
        stream_vmc(face(2), None, port=0)
    with pytest.raises(FD2TalkError, match="have no names"):
        stream_vmc(face(2).replace(names=()), None)
    with pytest.raises(FD2TalkError, match="retime one"):
        stream_vmc(face(2), idle_motion(3, FPS))
    with pytest.raises(FD2TalkError, match="Nothing can be sent to"):
        stream_vmc(face(2), None, host="no such host.invalid")
    assert osc_message("/a", "abc", 1) == b"/a\0\0,si\0abc\0\0\0\0\1"

"""The video file: exactly the frames written, the sound from 0, nothing left behind by a failure."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from fd2talk_core.coefficients import frame_count
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.video import VideoWriter


def read(path: Path) -> tuple[list[float], np.ndarray, float]:
    """Frame times, the decoded sound [C, N], and its first instant."""
    with av.open(str(path)) as file:
        times = [frame.time for frame in file.decode(video=0)]
    with av.open(str(path)) as file:
        pieces = [(frame.time, frame.to_ndarray()) for frame in file.decode(audio=0)]
    return times, np.concatenate([samples for _, samples in pieces], axis=1), pieces[0][0]


@pytest.mark.parametrize("fps", [1, 12, 23.976, 24, 25, 29.97, 30, 50, 60, 120])
def test_every_rate_keeps_frames_and_time(tmp_path: Path, fps: float) -> None:
    samples, rate = 16_000 * 3 + 123, 16_000
    count = frame_count(Fraction(samples, rate), fps)
    with VideoWriter(tmp_path / "v.mp4", fps, (torch.zeros(1, samples), rate)) as writer:
        writer.write(torch.rand(count, 32, 32, 3))
    times, _, start = read(tmp_path / "v.mp4")
    assert len(times) == count and times[0] == 0 and start == 0
    assert times[-1] == pytest.approx((count - 1) / fps, abs=1e-3)


@pytest.mark.parametrize(
    ("rate", "channels"), [(16_000, 1), (22_050, 1), (44_100, 2), (48_000, 6), (96_000, 8)]
)
def test_sound_comes_back_as_it_went_in(tmp_path: Path, rate: int, channels: int) -> None:
    time = torch.arange(rate) / rate
    tone = (0.4 * torch.sin(2 * torch.pi * 220 * time)).expand(channels, -1)
    with VideoWriter(tmp_path / "v.mp4", 25, (tone, rate)) as writer:
        writer.write(torch.rand(25, 32, 32, 3))
    _, sound, _ = read(tmp_path / "v.mp4")
    middle = slice(rate // 4, rate // 2)
    assert sound.shape[0] == (channels if channels <= 6 else 2)
    # an AAC copy of a tone that stands in time with the original: a shift by 1 ms would correlate by 0.19
    assert np.corrcoef(sound[0, middle], tone[0, middle])[0, 1] > 0.99


def test_chunks_are_the_same_as_one_piece_and_odd_sizes_work(tmp_path: Path) -> None:
    frames = torch.rand(7, 33, 35, 3)
    with VideoWriter(tmp_path / "a.mp4", 25) as writer:
        writer.write(frames)
    with VideoWriter(tmp_path / "b.mp4", 25) as writer:
        for frame in frames:
            writer.write(frame[None])
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_a_failure_leaves_no_half_file(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    with pytest.raises(KeyboardInterrupt), VideoWriter(path, 25) as writer:
        writer.write(torch.rand(2, 32, 32, 3))
        raise KeyboardInterrupt
    assert not path.exists()
    with pytest.raises(FD2TalkError, match="No frame was written"), VideoWriter(path, 25):
        pass
    assert not path.exists()


def test_wrong_shape_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(FD2TalkError, match=r"\[2, 3, 32, 32\]"),
        VideoWriter(tmp_path / "v.mp4", 25) as writer,
    ):
        writer.write(torch.rand(2, 3, 32, 32))

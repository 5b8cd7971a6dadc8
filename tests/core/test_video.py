"""The video file: exactly the frames written, the sound from 0, nothing left behind by a failure."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.formats.video import VideoWriter
from fd2talk_core.timing import frame_count


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


@pytest.mark.parametrize("channels", [9, 12, 16])
def test_no_channel_is_lost(tmp_path: Path, channels: int) -> None:
    """Each channel alone is heard: as a tone of its own in the mean of all."""
    rate = 48_000
    pitches = 300 * torch.arange(1, channels + 1)
    sound = 0.8 * torch.sin(2 * torch.pi * pitches[:, None] * torch.arange(rate) / rate)
    with VideoWriter(tmp_path / "v.mp4", 25, (sound, rate)) as writer:
        writer.write(torch.rand(25, 32, 32, 3))
    _, heard, _ = read(tmp_path / "v.mp4")
    spectrum = np.abs(np.fft.rfft(heard[0, :rate])) / (rate / 2)
    assert heard.shape[0] == 1
    assert np.allclose(spectrum[pitches.numpy()], 0.8 / channels, rtol=0.2)


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
    with pytest.raises(KeyboardInterrupt), VideoWriter(path, 25) as writer:  # noqa: PT012
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


@pytest.mark.slow
def test_picture_and_sound_are_together_in_the_tenth_minute(tmp_path: Path) -> None:
    """A flash and a click every minute, for ten minutes at 30 frames per second."""
    fps, rate, minutes = 30, 22_050, 10
    sound = torch.zeros(1, minutes * 60 * rate)
    path = tmp_path / "long.mp4"
    for minute in range(minutes):
        sound[:, minute * 60 * rate : minute * 60 * rate + rate // 50] = 0.9
    with VideoWriter(path, fps, (sound, rate)) as writer:
        for _ in range(minutes):
            frames = torch.zeros(60 * fps, 32, 32, 3)
            frames[0] = 1
            writer.write(frames)
    with av.open(str(path)) as file:
        flashes = [
            frame.time for frame in file.decode(video=0) if frame.to_ndarray(format="gray").mean() > 128
        ]
    assert flashes == pytest.approx([60.0 * minute for minute in range(minutes)], abs=1e-6)
    loud = []
    with av.open(str(path)) as file:
        for part in file.decode(audio=0):
            samples = abs(part.to_ndarray()).max(axis=0)
            loud += [part.time + at / part.sample_rate for at in (samples > 0.3).nonzero()[0]]
    clicks = [time for before, time in zip([-2, *loud], loud, strict=False) if time - before > 1]
    assert len(clicks) == minutes
    assert max(abs(click - flash) for click, flash in zip(clicks, flashes, strict=True)) < 1 / fps

"""Reading a video file a frame at a time, as upright pictures."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import cached_property
from itertools import islice
from pathlib import Path

import av
import numpy as np
import torch
from torch import Tensor

from ..checks import check_amount, check_number, checked
from ..errors import FD2TalkError
from ..files import check_path, reason_of, shown_path
from ..imaging import MAX_PIXELS
from ..media import open_media
from ..timing import check_fps


class VideoFrames:
    """The frames of a video, in order; each iteration reads the file again and holds one frame at a time.

    Args:
        source: a file, or one in memory.
        start: seconds from which frames are given.
        duration: seconds of frames; 0 is up to the end.

    Attributes:
        fps: the file's average frame rate, to a thousandth (29.97, 23.976).
        num_frames: how many there are, by the file's own account.
        width, height: pixels, as stored (before a phone's rotation is undone).

    Raises:
        FD2TalkError: when it is not a video that can be read.
    """

    @checked
    def __init__(self, source: Path | str | io.BytesIO, start: float = 0.0, duration: float = 0.0) -> None:
        self.source = source if isinstance(source, io.BytesIO) else check_path(source, "The video")
        self.start = check_number(start, "The start of the video in seconds", 0)
        self.duration = check_number(duration, "The duration of the video in seconds", 0)
        with self._open() as container:
            if not container.streams.video:
                raise FD2TalkError(f"{self.name} holds no pictures: a video is needed.")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise FD2TalkError(f"{self.name} holds pictures in a coding that is not known.")
            rate = stream.average_rate or stream.guessed_rate
            if not rate:
                raise FD2TalkError(f"{self.name} does not say its frame rate.")
            self.fps = round(float(rate), 3)
            self.width, self.height = stream.width, stream.height
            pixels = f"{self.name} has {{}} pixels a frame"
            check_amount(self.width * self.height, MAX_PIXELS, pixels, "make it smaller")
            whole = stream.frames or round((container.duration or 0) / av.time_base * float(rate))
        self.num_frames = whole
        if start or duration:
            left = max(whole - round(start * self.fps), 0)
            self.num_frames = min(left, round(duration * self.fps)) if duration else left

    @property
    def name(self) -> str:
        """What a message calls the video."""
        return (
            "The video"
            if isinstance(self.source, io.BytesIO)
            else f"The file '{shown_path(self.source.name)}'"
        )

    def __iter__(self) -> Iterator[Tensor]:
        """``[H, W, 3]`` uint8, turned upright."""
        with self._open() as container:
            first: Fraction | float | None = None
            for frame in container.decode(video=0):
                first = frame.time if first is None else first
                time = (frame.time or 0.0) - (first or 0.0)
                if time < self.start:
                    continue
                if self.duration and time >= self.start + self.duration:
                    return
                yield _upright(frame)

    def span(self, first: int = 0, stop: int | None = None, fps: float | None = None) -> Iterator[Tensor]:
        """Frames at a steady rate, whatever the file's own: frame i is the one that is shown at
        ``(i + 0.5) / fps``.

        Args:
            first: the number of the first; a file is read from the last key frame before it.
            stop: the number after the last; None goes on to the end.
            fps: the steady rate; None is the file's average.

        Yields:
            ``[H, W, 3]`` uint8, turned upright.
        """
        rate = self.fps if fps is None else float(check_fps(fps))
        if self.duration:
            whole = round(self.duration * rate)
            stop = whole if stop is None else min(stop, whole)
        if first and not self._reaches(first, rate):
            yield from islice(self.span(0, stop, rate), first, None)
            return
        with self._open() as container:
            number = first
            held: av.VideoFrame | None = None
            picture: Tensor | None = None
            ends = 0.0
            for frame in self._decoded(container, first, rate):
                begins = frame.time - self._origin
                while held is not None and (number + 0.5) / rate < begins:
                    if stop is not None and number >= stop:
                        return
                    picture = _upright(held) if picture is None else picture
                    yield picture
                    number += 1
                held, picture = frame, None
                lasts = frame.duration * (frame.time_base or 0) if frame.duration else 0
                ends = begins + (float(lasts) or 1 / self.fps)
            while held is not None and (number + 0.5) / rate < ends and (stop is None or number < stop):
                picture = _upright(held) if picture is None else picture
                yield picture
                number += 1

    def _decoded(
        self, container: av.container.InputContainer, first: int, rate: float
    ) -> Iterator[av.VideoFrame]:
        """Frames from the last key frame before number ``first`` at the steady rate."""
        if first:
            seconds = self._origin + first / rate
            container.seek(int(seconds * av.time_base), backward=True)
        return container.decode(video=0)

    def _reaches(self, first: int, rate: float) -> bool:
        """Whether the file, asked for number ``first``, begins no later: some have no index to seek by."""
        with self._open() as container:
            frame = next(self._decoded(container, first, rate), None)
            return frame is not None and frame.time - self._origin <= (first + 0.5) / rate

    @cached_property
    def _origin(self) -> float:
        """The time that number 0 at the steady rate begins at, in the file's own clock."""
        with self._open() as container:
            frame = next(container.decode(video=0), None)
            return self.start + (0.0 if frame is None else float(frame.time or 0.0))

    @contextmanager
    def _open(self) -> Iterator[av.container.InputContainer]:
        try:
            with open_media(self.source) as container:
                yield container
        except (av.FFmpegError, OSError) as error:
            raise FD2TalkError(f"{self.name} is not a video that can be read: {reason_of(error)}") from error


def _upright(frame: av.VideoFrame) -> Tensor:
    pixels = frame.to_ndarray(format="rgb24")
    if quarters := round(frame.rotation / 90) % 4:
        pixels = np.rot90(pixels, quarters)
    return torch.from_numpy(np.ascontiguousarray(pixels))

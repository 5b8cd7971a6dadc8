"""Reading a video file a frame at a time, as upright pictures."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
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
                pixels = frame.to_ndarray(format="rgb24")
                if quarters := round(frame.rotation / 90) % 4:
                    pixels = np.rot90(pixels, quarters)
                yield torch.from_numpy(np.ascontiguousarray(pixels))

    @contextmanager
    def _open(self) -> Iterator[av.container.InputContainer]:
        try:
            with open_media(self.source) as container:
                yield container
        except (av.FFmpegError, OSError) as error:
            raise FD2TalkError(f"{self.name} is not a video that can be read: {reason_of(error)}") from error

"""Pasting one clip into another: the frames of a second speaker go into those of the first."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable

import torch
from torch import Tensor

from ..errors import FD2TalkError
from .reference import Reference


class Background:
    """What frames are pasted into in place of the portrait's picture, taken in order and held no longer than
    needed.

    Args:
        background: ``[1 or F, H, W, 3]``, or an iterable of F pictures ``[H, W, 3]``, float in 0..1 or uint8.
        reference: whose picture has the size that is needed.
        num_frames: F, when it is known.

    Raises:
        FD2TalkError: at once when a batch has another number of pictures, else when a picture is of another
            size or there are too few.
    """

    def __init__(
        self, background: Tensor | Iterable[Tensor], reference: Reference, num_frames: int | None
    ) -> None:
        self.height, self.width = reference.picture.shape[:2]
        self.total: int | str = num_frames if num_frames is not None else "more"
        if isinstance(background, Tensor) and len(background) == 1:
            background = itertools.repeat(background[0])
        elif isinstance(background, Tensor) and num_frames is not None and len(background) != num_frames:
            raise FD2TalkError(self._wrong_length(len(background)))
        self.pictures = iter(background)
        self.held: deque[Tensor] = deque()
        self.first = 0

    def take(self, start: int, stop: int) -> Tensor:
        """``[stop - start, H, W, 3]``; start never goes back, but a batch that failed can be taken again."""
        while self.first < start and self.held:
            self.held.popleft()
            self.first += 1
        while self.first + len(self.held) < stop:
            picture = next(self.pictures, None)
            if picture is None:
                raise FD2TalkError(self._wrong_length(self.first + len(self.held)))
            self.held.append(self._fitted(picture))
        return torch.stack([self.held[index] for index in range(stop - start)])

    def _fitted(self, picture: Tensor) -> Tensor:
        picture = picture.float() / 255 if picture.dtype == torch.uint8 else picture.cpu().float()
        height, width = picture.shape[:2]
        # a video file has even sides: the writer repeated the last row or column of an odd picture
        if (height - self.height, width - self.width) not in (
            (down, across) for down in {0, self.height % 2} for across in {0, self.width % 2}
        ):
            raise FD2TalkError(
                f"The background is {width} x {height} pixels, but the portrait's picture is {self.width} x "
                f"{self.height}: use frames that were made from the same picture."
            )
        return picture[: self.height, : self.width, :3]

    def _wrong_length(self, given: int) -> str:
        return (
            f"The background has {given} frames, but the clip has {self.total}: make both from recordings of "
            "one length (add silence to the shorter one)."
        )

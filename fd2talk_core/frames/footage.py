"""A filmed video, as dubbing reads it: in parts, forward and backward."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Footage(Protocol):
    """A video whose frames can be read in parts."""

    @property
    def fps(self) -> float:
        """Frames per second."""
        ...

    def span(self, first: int, stop: int | None = None) -> Iterator[Tensor]:
        """Frames ``[H, W, 3]``, uint8 or float in 0..1, from one number up to another, or to the end."""
        ...


@dataclass(frozen=True, eq=False)
class PictureFootage:
    """Footage that is in memory: pictures ``[F, H, W, 3]``."""

    pictures: Tensor
    fps: float

    def span(self, first: int, stop: int | None = None) -> Iterator[Tensor]:
        """See :class:`Footage`."""
        return iter(self.pictures[first:stop])

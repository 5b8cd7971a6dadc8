"""A clip made in parts, by several processes or machines, and joined: the same frames and the same sound."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from fractions import Fraction

from .checks import check_fields
from .errors import FD2TalkError
from .formats.video import GROUP
from .timing import check_fps

TAG = "fd2talk_segment"
"""Of a part's file: which it is."""
BLOCK = 64
"""Frames that parts begin at a multiple of: frames are made in batches of so many or of a divisor of it, and
what a frame becomes depends on its batch by a rounding. Long parts begin with a group of the encoder's."""


@dataclass(frozen=True)
class Segment:
    """One part of a clip.

    Attributes:
        index: from 1.
        count: how many parts there are.
        frames: of the whole clip.

    Raises:
        FD2TalkError: when there is no such part, or the clip is too short for so many.
    """

    index: int
    count: int
    frames: int

    def __post_init__(self) -> None:
        check_fields(self)
        if not 1 <= self.index <= self.count:
            raise FD2TalkError(f"The segment is {self.index}/{self.count}, but one like 2/4 is needed.")
        if self.frames <= (self.count - 1) * BLOCK:
            most = max(1, -(-self.frames // BLOCK))
            raise FD2TalkError(
                f"The clip has {self.frames} frames, which {most} segments at most can be made of, "
                f"not {self.count}."
            )

    @property
    def range(self) -> range:
        """The frames of this part."""
        step = GROUP if self.frames > (self.count - 1) * GROUP else BLOCK
        steps = math.ceil(self.frames / step)
        start, stop = (steps * at // self.count * step for at in (self.index - 1, self.index))
        return range(start, min(stop, self.frames))

    def samples(self, fps: float, sample_rate: int, total: int) -> range:
        """The samples that are heard with them; the last part has all that are left."""
        rate = Fraction(sample_rate) / check_fps(fps)
        start, stop = (min(total, math.floor(frame * rate)) for frame in (self.range.start, self.range.stop))
        return range(start, total if self.index == self.count else stop)

    def tags(self) -> dict[str, str]:
        """What the part's file says of it."""
        return {TAG: json.dumps(asdict(self))}


def parse_segment(text: str) -> tuple[int, int]:
    """``"2/4"`` to (2, 4).

    Raises:
        FD2TalkError: when it is nothing of that kind.
    """
    index, slash, count = text.partition("/")
    if not slash or not index.strip().isdecimal() or not count.strip().isdecimal():
        raise FD2TalkError(f"The segment is {text!r}, but one like 2/4 is needed.")
    return int(index), int(count)

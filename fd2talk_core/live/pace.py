"""How long drawing takes, learned from what it took."""

from __future__ import annotations

from dataclasses import dataclass

TRUST = 0.25
"""Share of the latest call in what drawing is expected to take."""
WORTH = 0.9
"""What a frame of several takes, in what one alone takes, over which several are not drawn together."""


@dataclass
class Pace:
    """Seconds by frame, of calls that draw one and of those that draw several: a call costs something
    whatever is drawn, so on a processor several take half as long each.

    Attributes:
        alone, together: 0 until one was seen.
    """

    alone: float = 0.0
    together: float = 0.0

    def saw(self, frames: int, seconds: float) -> None:
        """A call drew so many frames in so many seconds."""
        kind, took = "alone" if frames == 1 else "together", seconds / frames
        before = getattr(self, kind) or took
        setattr(self, kind, before + TRUST * (took - before))

    def expected(self, frames: int) -> float:
        """Seconds that a call takes; 0 when none was seen."""
        return frames * (self.alone if frames == 1 else self.together or self.alone)

    def share(self, most: int, workers: int, wanted: float) -> int:
        """Frames that a call shall draw for each to take ``wanted`` seconds when so many workers draw: one
        where that suffices or more do not help, since those that wait for others come later.
        """
        suffices = self.alone <= workers * wanted
        return 1 if suffices or self.expected(most) > WORTH * most * self.alone else most

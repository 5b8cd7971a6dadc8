"""The timing contract: a clip of some seconds has round(seconds * fps) frames."""

from __future__ import annotations

import math
from fractions import Fraction

from .checks import check_number, check_type
from .errors import FD2TalkError

MAX_FRAMES = 1_000_000
"""Of a clip: eleven hours at 25 fps. Two frames at a rate of nearly nothing last for years."""


def frame_count(duration: Fraction | float, fps: float) -> int:
    """Number of video frames of a clip: ``round(duration * fps)``.

    Args:
        duration: seconds, exact when given as ``Fraction(samples, sample_rate)``.
        fps: frames per second, over 0 and at most 120 (23.976 is taken as the decimal it is written as).

    Raises:
        FD2TalkError: when fps is out of range.
    """
    return round(Fraction(check_number(duration, "The duration in seconds", 0)) * check_fps(fps))


def check_fps(fps: float) -> Fraction:
    """The frame rate as an exact fraction, or one sentence on why it cannot be one."""
    check_type(fps, "fps", float)
    if not math.isfinite(fps) or not 0 < fps <= 120:
        raise FD2TalkError(f"fps is {fps}, but a frame rate over 0 and at most 120 is needed.")
    return Fraction(str(float(fps)))

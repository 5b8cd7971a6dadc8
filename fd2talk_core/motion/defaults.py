"""What the command line offers of motion, without the import of torch that ``--help`` need not wait for."""

from __future__ import annotations

from typing import Literal, get_args

MissingPolicy = Literal["error", "hold", "interpolate"]
"""What to do with frames of a driving video that show no face."""
MISSING_POLICIES: tuple[MissingPolicy, ...] = ("error", "hold", "interpolate")

LongerPolicy = Literal["loop", "hold", "cut", "error"]
ShorterPolicy = Literal["cut", "rest", "error"]
LONGER_POLICIES: tuple[str, ...] = get_args(LongerPolicy)
SHORTER_POLICIES: tuple[str, ...] = get_args(ShorterPolicy)
"""What is done where new words are longer or shorter than the video that is dubbed."""

Between = Literal["voice", "keys"]
BETWEEN: tuple[str, ...] = get_args(Between)
"""What rules between two lip keys: the voice's own mouth, or a smooth curve from key to key."""
REACH = 0.2
"""Seconds over which a lip key fades into the voice."""

NEUTRAL = "neutral"
STYLES: tuple[str, ...] = (NEUTRAL, "happy", "sad", "angry", "surprised")
"""Moods that a face may speak in. A checkpoint says which of them it has learned; each moves neutrally."""

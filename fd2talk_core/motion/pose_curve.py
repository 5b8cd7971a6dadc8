"""Head motion drawn by hand: a few points in time for each angle and shift, and a smooth curve through."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..checks import checked, shown
from ..errors import FD2TalkError
from ..face.names import OPEN_FACE_MODEL, POSE_NAMES
from ..timing import check_fps
from .coefficients import CoefficientSequence
from .editing import MAX_FRAMES

MAX_POINTS = 10_000
LIMITS = dict.fromkeys(POSE_NAMES[:3], 180.0) | dict.fromkeys(POSE_NAMES[3:], 10.0)
"""Degrees, and face-model units."""

Keyframes = Mapping[str, Sequence[tuple[float, float]]]
"""Name of a pose coefficient to points of seconds and a value: degrees, or face-model units for shifts."""


@checked
def parse_keyframes(text: str) -> dict[str, list[tuple[float, float]]]:
    """``{"yaw": [[0, 0], [1.5, 20]]}`` as JSON: seconds, then degrees (or face-model units for x, y, z).

    Returns:
        Points in the order of time; names without points are left out.

    Raises:
        FD2TalkError: naming what is not as it should be.
    """
    try:
        given = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise FD2TalkError(f"The keyframes are not JSON ({error}); write for example {_EXAMPLE}.") from error
    if not isinstance(given, dict):
        raise FD2TalkError(f"The keyframes are not an object by name; write for example {_EXAMPLE}.")
    unknown = [name for name in given if name not in POSE_NAMES]
    if unknown:
        raise FD2TalkError(f"A pose has no {unknown[0]!r}; its keyframes are of {', '.join(POSE_NAMES)}.")
    return {name: _points(name, given[name]) for name in POSE_NAMES if given.get(name)}


_EXAMPLE = '{"yaw": [[0, 0], [1.5, 20]]}'


def _points(name: str, given: object) -> list[tuple[float, float]]:
    if not isinstance(given, list) or len(given) > MAX_POINTS:
        raise FD2TalkError(f"The keyframes of {name} are not a list of at most {MAX_POINTS} points.")
    points = []
    for number, point in enumerate(given, start=1):
        fits = isinstance(point, list) and len(point) == 2 and all(_is_number(value) for value in point)
        if not fits:
            raise FD2TalkError(
                f"Point {number} of {name} is {str(point)[:40]}, but [seconds, value] is needed."
            )
        time, value = map(float, point)
        if time < 0 or abs(value) > LIMITS[name]:
            raise FD2TalkError(
                f"Point {number} of {name} is {value:g} at {time:g} s, but a value of at most "
                f"{LIMITS[name]:g} either way, at 0 s or later, is needed."
            )
        points.append((time, value))
    points.sort()
    for (before, _), (after, _) in itertools.pairwise(points):
        if before == after:
            raise FD2TalkError(f"{name} has two points at {after:g} s.")
    return points


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e9


@checked
def pose_from_keyframes(
    keyframes: Keyframes, num_frames: int, fps: float, face_model: str = OPEN_FACE_MODEL
) -> CoefficientSequence:
    """A pose sequence through the points; before the first and after the last of a name it is held.

    Args:
        keyframes: as :func:`parse_keyframes` gives them.
        num_frames: F.

    Raises:
        FD2TalkError: when fps or the number of frames is out of range.
    """
    check_fps(fps)
    if not 1 <= num_frames <= MAX_FRAMES:
        raise FD2TalkError(f"The clip would have {num_frames} frames, but 1 to {MAX_FRAMES} are needed.")
    time = (torch.arange(num_frames, dtype=torch.float64) + 0.5) / fps
    values = torch.zeros(num_frames, len(POSE_NAMES), dtype=torch.float64)
    for name, points in keyframes.items():
        column = POSE_NAMES.index(name)
        curve = monotone_cubic(torch.tensor(points, dtype=torch.float64), time)
        values[:, column] = torch.deg2rad(curve) if column < 3 else curve
    return CoefficientSequence("pose", values, fps, face_model, POSE_NAMES)


@checked
def sample_curve(
    curve: object, name: str, span: float, num_frames: int, fps: float
) -> dict[str, list[tuple[float, float]]]:
    """Keyframes of one coefficient, a point for each frame, from a curve that lasts as long as the clip.

    Args:
        curve: has ``interp(x)``, x from 0 at the clip's start to 1 at its end; 0.5 is rest, 1 is the span, 0
            the span the other way. Newer hosts' CURVE is one.
        name: of the coefficient.
        span: degrees, or face-model units for shifts.

    Raises:
        FD2TalkError: when it is no such curve, or leads beyond what a pose can hold.
    """
    if name not in POSE_NAMES:
        raise FD2TalkError(f"A pose has no {name!r}; a curve moves one of {', '.join(POSE_NAMES)}.")
    interp = getattr(curve, "interp", None)
    if not callable(interp):
        raise FD2TalkError(f"The curve is {shown(curve)}, but one from a curve node is needed.")
    given = [interp((frame + 0.5) / num_frames) for frame in range(num_frames)]
    if not all(_is_number(height) for height in given):
        raise FD2TalkError("The curve gives values that are not numbers.")
    values = [(2 * float(height) - 1) * span for height in given]
    if (highest := max(map(abs, values))) > LIMITS[name]:
        raise FD2TalkError(
            f"The curve moves {name} by {highest:g}, but at most {LIMITS[name]:g} either way is possible: "
            "make its span smaller."
        )
    return {name: [((frame + 0.5) / fps, value) for frame, value in enumerate(values)]}


def monotone_cubic(points: Tensor, time: Tensor) -> Tensor:
    """A smooth curve that never goes beyond its points (Fritsch and Butland 1984), level at both ends.

    Args:
        points: ``[N, 2]`` float64, times (rising) and values.
        time: ``[F]`` float64.

    Returns:
        ``[F]``; held before the first point and after the last.
    """
    at, value = points.T.contiguous()
    if len(at) == 1:
        return value.expand(len(time)).clone()
    gap = at.diff()
    slope = value.diff() / gap
    tangent = torch.zeros_like(value)
    before, after = slope[:-1], slope[1:]
    near, far = 2 * gap[1:] + gap[:-1], gap[1:] + 2 * gap[:-1]
    # the weighted harmonic mean of the two slopes; a point higher or lower than both beside it is level
    turns = before * after <= 0
    mean = (near + far) / (near / torch.where(turns, 1, before) + far / torch.where(turns, 1, after))
    tangent[1:-1] = torch.where(turns, 0, mean)
    left = (torch.searchsorted(at, time.contiguous(), right=True) - 1).clamp(0, len(at) - 2)
    width = gap[left]
    s = ((time - at[left]) / width).clamp(0, 1)
    return (
        value[left] * (1 + 2 * s) * (1 - s) ** 2
        + value[left + 1] * s**2 * (3 - 2 * s)
        + width * (tangent[left] * s * (1 - s) ** 2 - tangent[left + 1] * s**2 * (1 - s))
    )

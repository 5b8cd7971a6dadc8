"""Motion as curves with names that an artist knows: opening of the mouth, turns of the head, blinks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import FD2TalkError
from ..face.model import FaceModel
from ..face.names import POSE_NAMES
from .coefficients import CoefficientSequence

POINTS = 480
"""Most points of a curve: about two a pixel of a node."""
MOVES = 0.02
"""A blendshape that stays within so much of itself is not worth a curve."""

SUMMARIES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "blinks": (("eyeBlinkLeft", "eyeBlinkRight"), ()),
    "brows": (("browInnerUp", "browOuterUpLeft", "browOuterUpRight"), ("browDownLeft", "browDownRight")),
    "smile": (("mouthSmileLeft", "mouthSmileRight"), ("mouthFrownLeft", "mouthFrownRight")),
}
"""Name of a curve, and the blendshapes whose mean it is, less the mean of the others."""
MOUTH_OPENING = "mouth opening"


@dataclass(frozen=True)
class Curve:
    """One number over time.

    Attributes:
        name: what is shown, such as ``yaw`` or ``jawOpen``.
        unit: ``mm``, ``°``, ``cm`` or nothing for the share of a blendshape.
        values: ``[F]``.
    """

    name: str
    unit: str
    values: Tensor


def motion_curves(
    expression: CoefficientSequence | None, pose: CoefficientSequence | None, face_model: FaceModel | None
) -> list[Curve]:
    """The curves of a clip: the mouth, the head, the blinks first, then each blendshape that moves.

    Args:
        expression: F frames of β, or None.
        pose: F frames of p, or None.
        face_model: whose lips the opening of the mouth is measured on; left out where the expression is of
            another one, or when None.
    """
    curves: list[Curve] = []
    if expression and face_model and expression.face_model == face_model.name:
        curves.append(Curve(MOUTH_OPENING, "mm", mouth_opening(expression, face_model)))
    if pose:
        for name, values in zip(POSE_NAMES[:3], pose.values.T, strict=False):
            curves.append(Curve(name, "°", values * (180 / math.pi)))
    if expression and expression.names:
        column = {name: expression.values[:, index] for index, name in enumerate(expression.names)}
        for name, (plus, minus) in SUMMARIES.items():
            if all(part in column for part in (*plus, *minus)):
                curves.append(Curve(name, "", _mean(column, plus) - _mean(column, minus)))
        for name, values in column.items():
            if values.max() - values.min() > MOVES:
                curves.append(Curve(name, "", values))
    if pose:
        # a unit of the face model is a decimetre
        for name, values in zip(POSE_NAMES[3:], pose.values.T[3:], strict=True):
            curves.append(Curve(name, "cm", values * 10))
    return curves


def _mean(column: dict[str, Tensor], names: Sequence[str]) -> Tensor:
    return sum((column[name] for name in names), torch.zeros(())) / max(len(names), 1)


@torch.no_grad()
def mouth_opening(expression: CoefficientSequence, face_model: FaceModel) -> Tensor:
    """``[F]`` mm: the gap between the inner lips of the mean face. A unit is a decimetre."""
    pairs = face_model.inner_lip_pairs
    rows = expression.values @ face_model.expression_basis[:, pairs.reshape(-1)].flatten(1)
    lips = (face_model.mean[pairs.reshape(-1)].flatten() + rows).view(len(rows), *pairs.shape, 3)
    return (lips[:, :, 0] - lips[:, :, 1]).norm(dim=-1).mean(dim=-1) * 100


def thin_out(values: Tensor, points: int = POINTS) -> tuple[Tensor, Tensor]:
    """Fewer points and no peak less: the lowest and highest of each stretch of frames, in their order.

    Args:
        values: ``[C, F]``, curves of one clip.
        points: at most so many are left.

    Returns:
        ``[N]`` frame numbers, the same for all curves, and ``[C, N]`` values.

    Raises:
        FD2TalkError: when fewer than two points are asked for.
    """
    if points < 2:
        raise FD2TalkError(f"A curve of {points} points was asked for, but at least 2 are needed.")
    count = values.shape[1]
    if count <= points:
        return torch.arange(count), values
    length = math.ceil(2 * count / points)
    buckets = math.ceil(count / length)
    # the last stretch is filled up with its last value, which is neither lower nor higher than its own
    filled = torch.cat([values, values[:, -1:].expand(-1, buckets * length - count)], dim=1)
    stretches = filled.view(len(values), buckets, length)
    (low, at_low), (high, at_high) = stretches.min(dim=2), stretches.max(dim=2)
    rising = at_low <= at_high
    pairs = torch.stack([torch.where(rising, low, high), torch.where(rising, high, low)], dim=2)
    starts = torch.arange(buckets) * length
    frames = torch.stack([starts + (length - 1) // 4, starts + 3 * (length - 1) // 4], dim=1)
    return frames.reshape(-1).clamp(max=count - 1), pairs.reshape(len(values), -1)


def describe(curves: Sequence[Curve], num_frames: int, fps: float) -> dict:
    """Curves for a page, in nothing but JSON's own types.

    Returns:
        ``{"fps", "frames", "duration", "times": [N seconds], "curves": [{"name", "unit", "values": [N]}]}``.
    """
    values = torch.stack([curve.values for curve in curves]) if curves else torch.zeros(0, num_frames)
    frames, thinned = thin_out(values)
    return {
        "fps": float(fps),
        "frames": num_frames,
        "duration": num_frames / fps,
        "times": [round((frame + 0.5) / fps, 4) for frame in frames.tolist()],
        "curves": [
            {"name": curve.name, "unit": curve.unit, "values": [round(value, 4) for value in row]}
            for curve, row in zip(curves, thinned.tolist(), strict=True)
        ],
    }

"""Brows that move as people's do, in place of the asset's face units.

MakeHuman's move the skin right above the lids furthest, and the brow itself by two millimetres at most: a
brow that was raised took its lid's crease along and stayed where it was. In films of people who talk brows
rise by up to 9 mm, and what lies between them and the lids goes along less and less, down to the crease.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fd2talk_core.face.fitting import BROWS
from fd2talk_core.face.lids import LOWER_RIMS, UPPER_RIMS
from fd2talk_core.face.model import FaceModel
from fd2talk_core.face.rasterizer import vertex_normals
from fd2talk_core.imaging import smoothstep

Knots = tuple[tuple[float, float], ...]

INNER_RISE, OUTER_RISE, FALL = 0.09, 0.08, 0.06
"""Decimetres by which coefficients of 1 move the inner part up, the outer part up, and all of it down."""
FROWN = 0.2
"""Of the fall, by which a brow that is drawn down comes nearer to the other one."""

BELOW = ((0.25, 0.0), (0.42, 0.06), (0.64, 0.3), (0.82, 0.65), (1.0, 0.93))
"""How far the skin goes along between the upper lid's rim (0) and the brow's lower edge (1)."""
ABOVE = ((0.0, 1.0), (0.06, 0.75), (0.2, 0.33), (0.29, 0.1), (0.38, 0.0))
"""And by decimetres over its upper edge, up to where hair begins."""

INNER_END = (0.10, 0.42)
"""Decimetres from the face's middle where the inner part begins to fade, and where it ends."""
OUTER_START, OUTER_END = (0.06, 0.36), (0.45, 0.80)
"""Where the outer part begins and is whole, begins to fade, and ends: on the temple."""
FRONT = (0.45, 0.70)
"""Decimetres before the pivot: skin further back does not move."""
MOVED = ("skin", "scalp", "eyelids", "ears")


def with_human_brows(model: FaceModel) -> FaceModel:
    """The same heads with other shapes for the five units of the brows."""
    rise, towards = _rise(model), _upward(model)
    x = model.mean[:, 0]
    aside = x.abs()
    inner = 1 - _ramp(aside, INNER_END)
    outer = _ramp(aside, OUTER_START) * (1 - _ramp(aside, OUTER_END))
    shapes = {"browInnerUp": INNER_RISE * (rise * inner)[:, None] * towards}
    for name, side in (("Left", 1.0), ("Right", -1.0)):
        own = _ramp(side * x, (-0.04, 0.06))
        shapes[f"browOuterUp{name}"] = OUTER_RISE * (rise * outer * own)[:, None] * towards
        fall = FALL * rise * own * torch.maximum(inner, 0.6 * outer)
        down = -fall[:, None] * towards
        down[:, 0] -= side * FROWN * fall
        shapes[f"browDown{name}"] = down
    basis = model.expression_basis.clone()
    for name, shape in shapes.items():
        basis[model.expression_names.index(name)] = shape
    return model.with_expressions(basis)


def _rise(model: FaceModel) -> Tensor:
    """``[V]`` in 0..1: how far each place goes along with the brow below or above it."""
    x, y, z = model.mean.unbind(-1)
    places = model.landmarks(model.mean[None])[0, :, :2]
    rim = height_at(x.abs(), places[[*UPPER_RIMS[0], LOWER_RIMS[0][0], LOWER_RIMS[0][-1]]])
    lower, upper = (height_at(x.abs(), places[list(edge)]) for edge in (BROWS[5:10], BROWS[:5]))
    below = curve((y - rim) / (lower - rim), BELOW)
    within = torch.lerp(below, torch.ones_like(below), ((y - lower) / (upper - lower)).clamp(0, 1))
    along = torch.where(y < upper, within, curve(y - upper, ABOVE))
    parts = torch.tensor([model.part_names.index(name) for name in MOVED])
    moved = torch.zeros_like(along)
    moved[model.triangles[torch.isin(model.triangle_parts, parts)].unique()] = 1
    return along * moved * _ramp(z, FRONT)


def _upward(model: FaceModel) -> Tensor:
    """``[V, 3]``: the way up along the surface."""
    normals = vertex_normals(model.mean[None], model.triangles)[0]
    up = torch.tensor([0.0, 1.0, 0.0])
    return F.normalize(up - normals * normals[:, 1:2], dim=-1)


def height_at(aside: Tensor, points: Tensor) -> Tensor:
    """``[V]``: height of a line through points ``[n, 2]`` of one side, at distances from the middle."""
    from_middle = points[points[:, 0].abs().argsort()]
    return interpolated(aside, from_middle[:, 0].abs(), from_middle[:, 1])


def curve(at: Tensor, knots: Knots) -> Tensor:
    """A line through knots, each a place and a value."""
    return interpolated(at, *torch.tensor(knots).unbind(-1))


def interpolated(at: Tensor, places: Tensor, values: Tensor) -> Tensor:
    """A line through values at rising places."""
    return torch.from_numpy(np.interp(at.numpy(), places.numpy(), values.numpy())).float()


def _ramp(at: Tensor, ends: tuple[float, float]) -> Tensor:
    """From 0 at the first end to 1 at the second."""
    return smoothstep((at - ends[0]) / (ends[1] - ends[0]))

"""Lips that part as people's do, in place of the asset's face units.

MakeHuman's mouths open to a point: the lower lip hangs down in the middle, and stays up beside it. In films
of three people who talk, lips part in a broad arch, and nearly the same one: 0.97 of the middle's gap at a
quarter of the way to the corners, 0.86 at half of it, 0.4 at five sixths. Lips that are rounded do, too.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fd2talk_core.face.model import FaceModel
from fd2talk_core.face.parts import named_part
from fd2talk_core.imaging import smoothstep

from .brows import Knots, curve, height_at, interpolated

ARCHED = {"jawOpen": 1.0, "mouthFunnel": 0.6}
"""The units that part lips to a point, and by how much of what they do the middle shall part: lips that are
rounded come forward and together more than they part, and followed real ones better so."""

CORNERS = (78, 308)
LOWER = (95, 88, 178, 87, 14, 317, 402, 318, 324), (146, 91, 181, 84, 17, 314, 405, 321, 375)
UPPER = (191, 80, 81, 82, 13, 312, 311, 310, 415), (185, 40, 39, 37, 0, 267, 269, 270, 409)
"""MediaPipe's landmarks along the inner and the outer edge of a lip."""

LOWER_ARCHES: tuple[Knots, Knots] = (
    ((0.1, 1.0), (0.28, 0.97), (0.52, 0.86), (0.7, 0.66), (0.84, 0.41), (1.0, 0.0)),
    ((0.11, 1.0), (0.33, 0.95), (0.61, 0.81), (0.8, 0.59), (0.93, 0.31), (1.0, 0.0)),
)
UPPER_ARCHES: tuple[Knots, Knots] = (
    ((0.09, 1.0), (0.28, 0.97), (0.51, 0.87), (0.7, 0.69), (0.85, 0.42), (1.0, 0.0)),
    ((0.09, 1.0), (0.3, 0.94), (0.58, 0.87), (0.79, 0.7), (0.92, 0.43), (1.0, 0.0)),
)
"""Of each edge, how far it moves up or down from the corners' height, by how far its middle does, between the
middle (0) and a corner (1)."""

TEETH_FOLLOW = 0.9
"""How far lower teeth go with the jaw, by how far the lip before them does."""

REACH = 0.25, 0.12
"""Decimetres below the lower lip and above the upper one over which skin goes along less and less."""
LINING = 0.12
"""The same behind the lips, where the mouth's inside is."""
THINNEST = 0.02
"""Decimetres that a lip is taken to be thick at least: at its corners it has no thickness."""


def with_arched_lips(model: FaceModel) -> FaceModel:
    """The same heads with other shapes for the units that part lips, and lower teeth that an opening jaw
    takes along nearly as far as the lip before them: MakeHuman's fill an open mouth from below.
    """
    basis = model.expression_basis.clone()
    index = model.expression_names.index
    lower = _of_the_lower_lip(model)
    for name, share in ARCHED.items():
        shape = basis[index(name)]
        change = torch.zeros_like(shape)
        change[:, 1] = _arch(model, shape, share, lower)
        if name == "jawOpen":
            # it swings: what goes further down goes further back
            middle = _at(model, shape, LOWER[0])[len(LOWER[0]) // 2]
            change[:, 2] = change[:, 1] * lower * (middle[2] / middle[1])
            # and what shuts the lips of an open jaw undoes all that
            basis[index("mouthClose")] -= change
        shape += change
    jaw = basis[index("jawOpen")]
    lip = _at(model, jaw, LOWER[0])[len(LOWER[0]) // 2, 1]
    teeth = model.triangles[named_part(model, "lower_teeth")].unique()
    front = teeth[model.mean[teeth, 2] > model.mean[teeth, 2].quantile(0.9)]
    jaw[teeth, 1] *= TEETH_FOLLOW * lip / jaw[front, 1].mean()
    return model.with_expressions(basis)


def _arch(model: FaceModel, shape: Tensor, share: float, lower: Tensor) -> Tensor:
    """``[V]``: by how much more a shape ``[V, 3]`` is to move upwards.

    Args:
        share: of what the shape does to the lips' middle, how much it shall do.
        lower: ``[V]``, see :func:`_of_the_lower_lip`.
    """
    places = model.landmarks(model.mean[None])[0]
    height = _at(model, shape, CORNERS)[:, 1].mean()
    width = places[list(CORNERS), 0].abs().mean()
    x, y, _ = model.mean.unbind(-1)
    aside = x.abs() / width
    change = torch.zeros_like(x)
    for lip, arches, sign, reach, own in zip(
        (LOWER, UPPER), (LOWER_ARCHES, UPPER_ARCHES), (-1, 1), REACH, (lower, 1 - lower), strict=True
    ):
        lacking = []
        for edge, arch in zip(lip, arches, strict=True):
            moved = _at(model, shape, edge)[:, 1]
            at = places[list(edge), 0].abs() / width
            over = share * (moved[len(edge) // 2] - height)
            missing = height + over * curve(at, arch) - moved
            # both sides are the mirror of each other but for the landmarks' noise
            half = [(part + part.flip(0))[: len(edge) // 2 + 1] / 2 for part in (at, missing)]
            knots = (
                F.pad(part.flip(0), (0, 1), value=end) for part, end in zip(half, (1.0, 0.0), strict=True)
            )
            lacking.append(interpolated(aside, *knots))
        inner, outer = (height_at(x.abs(), places[list(edge)]) for edge in lip)
        thick = (sign * (outer - inner)).clamp_min(THINNEST)
        outwards = sign * (y - inner)
        amount = torch.lerp(*lacking, (outwards / thick).clamp(0, 1))
        amount = amount * smoothstep(1 - (outwards - thick) / reach) * own
        change += torch.where(aside < 1, amount, 0)
    return change * _goes_along(model)


def _of_the_lower_lip(model: FaceModel) -> Tensor:
    """``[V]``: 1 on what goes with the lower lip, 0 on what goes with the upper one. Where lips touch,
    heights do not tell.
    """

    def moves(unit: str) -> Tensor:
        index = model.expression_names.index
        both = sum(model.expression_basis[index(f"{unit}{side}")] for side in ("Left", "Right"))
        return both.norm(dim=-1)

    down, up = moves("mouthLowerDown"), moves("mouthUpperUp")
    return down / (down + up).clamp_min(1e-4)


def _goes_along(model: FaceModel) -> Tensor:
    """``[V]`` in 0..1: 1 on lips and skin, less and less behind the lips."""
    along = torch.zeros(len(model.mean))

    def of(name: str) -> Tensor:
        return model.triangles[named_part(model, name)].unique()

    lining, lips = of("mouth_interior"), of("lips")
    behind = torch.cdist(model.mean[lining], model.mean[lips]).amin(dim=1)
    along[lining] = smoothstep(1 - behind / LINING)
    along[lips] = along[of("skin")] = 1
    return along


def _at(model: FaceModel, shape: Tensor, places: tuple[int, ...]) -> Tensor:
    """``[n, 3]``: by how much a shape moves landmarks."""
    at_rest, moved = model.landmarks(torch.stack([model.mean, model.mean + shape]))
    return (moved - at_rest)[list(places)]

"""Lids that stop where they meet.

Eq. 1 is linear: a blink that shuts one person's eyes drives another's upper lid past the lower one, and an
eye's corners shut before its middle does. Skin stops there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from .model import FaceModel
from .state import FaceState

BLINKS = ("eyeBlinkRight", "eyeBlinkLeft")

# fmt: off
UPPER_RIMS = ((246, 161, 160, 159, 158, 157, 173), (466, 388, 387, 386, 385, 384, 398))
LOWER_RIMS = ((33, 7, 163, 144, 145, 153, 154, 155, 133), (263, 249, 390, 373, 374, 380, 381, 382, 362))
# fmt: on
"""MediaPipe's landmarks on the rims of the right and the left eye, the lower ones with the eye's corners."""

OVERLAP = 0.012
"""Face-model units (1.2 mm) by which the lids of a shut eye overlap, so that no slit is left."""

_LEAST_FALL = 1e-3
"""Face-model units, of a blink that moves a lid at all: another face model's may not."""


@dataclass(frozen=True, eq=False)
class _Eye:
    """One eye of a face model, J points on its upper rim.

    Attributes:
        corners: ``[J + K, 3]`` vertices around the points of the upper and the lower rim.
        weights: ``[J, 3 (J + K)]``: times the corners' heights, the gap below each point of the upper rim.
        falls: ``[J]``, by how much a whole blink makes that smaller.
        vertices: ``[w]``, which a blink moves.
        blink: ``[w, 3]``, and where to.
        columns: ``[w, J]``, which of the upper rim's points stand over each of them; rows add up to 1.
    """

    corners: Tensor
    weights: Tensor
    falls: Tensor
    vertices: Tensor
    blink: Tensor
    columns: Tensor

    @classmethod
    def of(cls, face_model: FaceModel, side: int) -> _Eye:
        """Of the right (0) or the left eye (1)."""
        upper, lower = list(UPPER_RIMS[side]), list(LOWER_RIMS[side])
        blink = face_model.expression_basis[face_model.expression_names.index(BLINKS[side])]
        at_rest, moved = face_model.landmarks(torch.stack([face_model.mean, blink]))
        below = _between(at_rest[upper, 0], at_rest[lower, 0])
        gap = torch.cat([torch.eye(len(upper)), -below], dim=1)
        points = upper + lower
        by_corner = gap[:, :, None] * face_model.mediapipe_barycentric[points]
        vertices = (blink.abs().amax(dim=1) > 0).nonzero()[:, 0]
        return cls(
            corners=face_model.triangles[face_model.mediapipe_triangles[points]],
            weights=by_corner.flatten(1),
            falls=-(gap @ moved[points, 1]).clamp(max=-_LEAST_FALL),
            vertices=vertices,
            blink=blink[vertices],
            columns=_between(face_model.mean[vertices, 0], at_rest[upper, 0]),
        )

    def whole(self, shapes: Tensor) -> Tensor:
        """``[B]``: the blink that shuts the middle of this eye of shapes ``[B, V, 3]``."""
        return (self._gaps(shapes) / self.falls)[:, len(self.falls) // 2].clamp_min(0)

    def excess(self, shapes: Tensor) -> Tensor:
        """``[B, J]``: the part of a blink by which lids of shapes ``[B, V, 3]`` go past each other."""
        return (-OVERLAP - self._gaps(shapes)).clamp_min(0) / self.falls

    def _gaps(self, shapes: Tensor) -> Tensor:
        """``[B, J]``: how far the upper rim's points stand over the lower rim."""
        return shapes[:, self.corners, 1].flatten(1) @ self.weights.mT


def stop_lids(face_model: FaceModel, shapes: Tensor) -> Tensor:
    """Shapes ``[B, V, 3]`` of Eq. 1 whose upper lids go no further down than the lower ones; those of a face
    model whose expressions are not ARKit's as they are.
    """
    if not set(BLINKS) <= set(face_model.expression_names):
        return shapes
    for eye in _eyes(face_model):
        excess = eye.excess(shapes)
        if excess.any():
            shapes = shapes.clone()
            shapes[:, eye.vertices] -= (excess @ eye.columns.mT)[..., None] * eye.blink
    return shapes


def rims_of_lids(face_model: FaceModel) -> Tensor:
    """``[n, 3]``: points along the rims of both eyes of the mean face."""
    points = face_model.landmarks(face_model.mean[None])[0]
    return torch.cat([points[list(rim)] for rim in UPPER_RIMS + LOWER_RIMS])


def shut_lids(face_model: FaceModel, identity: Tensor, expression: Tensor, closed: Tensor) -> Tensor:
    """Expressions ``[F, D_β]`` whose lids ``[F, 2]``, right and left, are at least so far closed, 0..1; the
    same for a face model whose expressions are not ARKit's.
    """
    names = face_model.expression_names
    if not set(BLINKS) <= set(names):
        return expression
    expression = expression.clone()
    for side, (blink, eye) in enumerate(zip(BLINKS, _eyes(face_model), strict=True)):
        share = closed[:, side]
        column, wide = names.index(blink), names.index(blink.replace("Blink", "Wide"))
        expression[:, wide] *= 1 - share
        opened = expression.clone()
        opened[:, column] = 0
        whole = eye.whole(face_model(identity[None], opened))
        expression[:, column] = torch.maximum(expression[:, column], share * whole).clamp(max=1)
    return expression


def shape_of(face_model: FaceModel, person: FaceState, expression: Tensor) -> Tensor:
    """``[F, V, 3]``: a person's shape with other expressions ``[F, D_β]``, lids stopped."""
    shapes = stop_lids(face_model, face_model(person.identity[None], expression))
    return shapes if person.offsets is None else shapes + person.offsets.to(shapes)


@lru_cache(maxsize=4)  # a portrait's view and its close-ups ask for the same one
@torch.inference_mode(False)  # what is kept may be used by those who differentiate
@torch.no_grad()
def portrait_shape(face_model: FaceModel, portrait: FaceState) -> Tensor:
    """``[1, V, 3]``: a portrait's own shape, its lids stopped; to be read, not written to."""
    return shape_of(face_model, portrait, portrait.expression[None])


@lru_cache(maxsize=4)
def _eyes(face_model: FaceModel) -> tuple[_Eye, _Eye]:
    return _Eye.of(face_model, 0), _Eye.of(face_model, 1)


def _between(places: Tensor, points: Tensor) -> Tensor:
    """``[w, J]``: weights of linear interpolation at ``[w]`` between points ``[J]``, in any order; beyond
    them of the last one.
    """
    order = points.argsort()
    known = points[order]
    after = torch.searchsorted(known, places.contiguous()).clamp(1, len(known) - 1)
    share = ((places - known[after - 1]) / (known[after] - known[after - 1])).clamp(0, 1)
    weights = places.new_zeros(len(places), len(known))
    rows = torch.arange(len(places))
    weights[rows, order[after - 1]] = 1 - share
    weights[rows, order[after]] = share
    return weights

"""Where a portrait shows clothes: they stay with the shoulders while the head above them moves.

No network that ships knows clothes. But a face is known in its picture, and the person's matte. So skin is
followed from the face down the throat by its colour, and hair from the head downwards by its own; what is
left of the person below the head is what they wear. Where that is in doubt, as where long hair falls over a
coat of its colour, it is taken for hair, which goes with the head.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..imaging import (
    distance_to,
    grow_by_colour,
    largest_around,
    mean_around,
    pixel_centers,
    push_pull,
    resize,
)
from .lids import portrait_shape
from .model import FaceModel, apply_pose, project
from .parts import named_part
from .rasterizer import rasterize
from .rotations import upright
from .state import FaceState

_SIZE = 128
"""Pixels a side on which they are looked for; lengths below are half widths of the picture."""

_FACE, _SURE = 0.06, 0.12
"""From the mesh's edge on inwards all is the face, and surely tells the colour of skin."""

_TINT, _LIGHT = 0.1, (0.2, 1.6)
"""Sum of the differences of three chromaticities up to which a pixel is skin as the face beside it is, and
the brightness by the face's that it may have: a throat lies in the chin's shadow."""

_DARK = 0.15
"""Added to the sum of a pixel's channels before they are divided by it: what is dark has no tint."""

_LIKE_SKIN, _LIKE_HAIR = 0.06, 0.07
"""Mean difference of the channels (of 0..1) up to which a pixel belongs to what is beside it."""

_CREASES = 6
"""Pixels that skin is followed into folds and shadows."""

_SPECK = 2
"""Pixels around a place, of which most are clothes where it is."""

_SHOULDERS, _THICK = 0.25, 4
"""From the head on, where clothes are begun to be looked for, and pixels around a place that are all clothes
there: what is nearer or thinner hangs together with them, or is the shadow of hair."""


@torch.no_grad()
def find_clothes(face_model: FaceModel, face: FaceState, crop: Tensor, matte: Tensor) -> Tensor | None:
    """How far from clothes the places of a portrait are.

    Args:
        face_model: of the coefficients.
        face: fitted to the crop.
        crop: ``[1, 3, S, S]`` in 0..1.
        matte: ``[1, 1, S, S]`` in 0..1, where that shows its person.

    Returns:
        ``[1, 1, 128, 128]`` half widths: 0 in clothes. None where none are seen, and for a face model that
        does not name its parts.
    """
    if not {"skin", "scalp", "ears", "neck"} <= set(face_model.part_names):
        return None
    seen = project(apply_pose(portrait_shape(face_model, face), face.pose[None]), face_model.camera)
    raster = rasterize(seen, face_model.triangles, _SIZE, cull_back_faces=True)
    neck, scalp, skin, ears = (
        raster.look_up(named_part(face_model, name), False)[:, None]
        for name in ("neck", "scalp", "skin", "ears")
    )
    head = raster.covered[:, None] & ~neck
    picture = resize(crop.float(), _SIZE)
    person = resize(matte.float(), _SIZE) > 0.5
    beside = person & ~head
    low = beside & _below_the_ears(face_model, face, seen)[None, None]

    depth = distance_to(~(head & ~scalp & ~ears)[:, 0])[:, None] * (2 / _SIZE)
    sure = (skin & (depth > _SURE)).float()
    throat = low & _of_tint(picture, push_pull(picture * sure, sure))
    is_skin = grow_by_colour(picture, (skin & (depth > _FACE)) | throat, low, _LIKE_SKIN, _CREASES)
    is_hair = grow_by_colour(picture, (person & scalp) | (beside & ~low), beside, _LIKE_HAIR)

    clothes = low & ~is_skin & ~is_hair
    for _ in range(2):
        clothes = clothes & (mean_around(clothes.float(), _SPECK) > 0.5)
    away = distance_to(head[:, 0])[:, None] * (2 / _SIZE)
    thick = ~largest_around((~clothes).float(), _THICK).bool()
    clothes = grow_by_colour(picture, thick & (away > _SHOULDERS), clothes, math.inf)
    return distance_to(clothes[:, 0])[:, None] * (2 / _SIZE) if clothes.any() else None


def _below_the_ears(face_model: FaceModel, face: FaceState, seen: Tensor) -> Tensor:
    """``[n, n]`` bool: what lies lower in the head's own upright than its lower ear does."""
    up = upright(face.pose)
    ears = face_model.triangles[named_part(face_model, "ears")].unique()
    return pixel_centers(_SIZE, seen) @ up < (seen[0, ears, :2] @ up).amin()


def _of_tint(picture: Tensor, skin: Tensor) -> Tensor:
    """``[1, 1, n, n]`` bool: where a picture has the tint of skin, lit or in shadow."""
    tints = [part / (part.sum(dim=1, keepdim=True) + _DARK) for part in (picture, skin)]
    light = picture.mean(dim=1, keepdim=True) / skin.mean(dim=1, keepdim=True).clamp_min(1e-3)
    near = (tints[0] - tints[1]).abs().sum(dim=1, keepdim=True) < _TINT
    return near & (light > _LIGHT[0]) & (light < _LIGHT[1])

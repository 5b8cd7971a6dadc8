"""Where a portrait's face ends: the mesh's sides are drawn in to the skin's edge, its skull to the person's.

Coefficients fit a face to its landmarks, of which cheeks and jaw have few, so the mesh reaches over the
sides of many a face by a few of the picture's pixels. At rest nobody sees it. In a turn those pixels, the
wall or the dark under the hair, lie across the cheek. So skin is grown from the midst of the face to where
the colour changes, and the vertices beside it are moved there, along the picture: the portrait's and those of
all frames, so that a portrait at rest stays as it is.

A skull has no landmarks at all. Where hair lies close, the fitted one is higher than the person, and what a
turn brings out of it would be a dome of hair that the portrait does not have. And ears that hair hides are
laid flat: hair before an ear does not go as the ear behind it does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ..imaging import distance_to, grow_by_colour, mean_around, push_pull, resize, smoothstep
from .model import FaceModel, apply_pose, project, unpose
from .parts import below_the_eyes, named_part, part_kinds, under_hair
from .rasterizer import Raster, rasterize, vertex_normals
from .state import FaceState

_SIZE = 128
"""Pixels a side on which skin is looked for; lengths below are half widths of the picture."""

_SURE = 0.12
"""From the mesh's edge on inwards all is the face, and tells the colour of skin."""

_LIKE_BESIDE, _LIKE_WITHIN = 0.09, 0.3
"""Mean difference of the channels (of 0..1) up to which a pixel is skin as the skin beside it, and as the
midst of the face: light falls off smoothly over a cheek, and its edge is a step."""

_MARGIN = 0.01
"""By which the mesh ends within the skin: a picture's edge is a pixel or two wide."""

_MOST = 0.08
"""By which the mesh is drawn in at most, where the wall is beside the skin."""

_MOST_TO_HAIR, _HAIR = 0.025, 0.035
"""The same where it is the person, and the distance, averaged along a cheek, from which on nothing is done
there: that is no misfit but hair before the cheek, which goes with it."""

_CHEEK = 15
"""Pixels up and down a cheek over which that is averaged."""

_SKULL_FITS, _MATTE_FAILS = 0.1, 0.2
"""Half widths that a skull reaches over the person, up to which it is drawn in, and from which on the matte
is taken to have missed some hair."""

_REACH = 0.2
"""From the mesh's edge inwards, over which what is drawn in is spread."""

_SPREAD = 2
"""Pixels over which neighbouring places along the edge are smoothed, twice."""

_SOON = 4.0
"""Below the eyes' middle, by the height from there to the lips, how soon the sides are drawn in."""

_EAR_LIKE_SKIN, _EAR_SEEN = 0.15, 0.4
"""Mean difference of the channels up to which a pixel of an ear is like the skin beside it, and the share of
those from which on the ear is seen: 0.64 to 0.81 of bare ears are so, 0.03 to 0.25 of those under hair."""

_LEAST_OF_EAR = 8
"""Pixels that an ear has at least, for its colours to tell anything."""

_SKULL_BEGINS = 0.3
"""Face-model units over which a skull comes to be drawn in."""

_THROAT = (-0.8, -0.4)
"""Upward part of the normal, up to which a place is the throat's, and from which on the jaw's."""


@torch.no_grad()
def fit_outline(face_model: FaceModel, face: FaceState, crop: Tensor, matte: Tensor) -> Tensor | None:
    """How the mesh is to be changed for its sides to end where the face ends in its picture.

    Args:
        face_model: of the coefficients.
        face: as fitted; its own offsets are not looked at.
        crop: ``[S, S, 3]`` in 0..1, the picture that it was fitted to.
        matte: ``[S, S]`` in 0..1, where that shows its person.

    Returns:
        ``[V, 3]``, to be added to the mesh of the coefficients before it is posed; None for a face model that
        does not name its parts.
    """
    if not {"skin", "scalp", "ears", "neck"} <= set(face_model.part_names):
        return None
    posed = apply_pose(face_model(face.identity[None], face.expression[None]), face.pose[None])
    seen = project(posed, face_model.camera)
    raster = rasterize(seen, face_model.triangles, _SIZE, cull_back_faces=True)
    scalp, ears, neck = (
        raster.look_up(named_part(face_model, name), False) for name in ("scalp", "ears", "neck")
    )
    within = raster.covered & ~scalp & ~ears
    from_edge = _depth(within)
    picture = resize(crop.movedim(-1, 0)[None].float(), _SIZE)
    skin = _skin(picture, within, from_edge)

    band = (within & ~neck & (from_edge < _REACH))[:, None].float()
    over = (from_edge - _depth(skin)).clamp_min(0)[:, None] * band
    cheek = band * (raster.look_up(below_the_eyes(face_model), 0.0) > 0)[:, None]
    along_cheek = _mean_by(over, cheek, _CHEEK)
    hair = _mean_by(resize(matte[None, None].float(), _SIZE), cheek * ~skin[:, None], _CHEEK)
    over = _mean_by(over, band, _SPREAD, _SPREAD) + _MARGIN
    before_hair = smoothstep((_HAIR - along_cheek) / (_HAIR - _MOST_TO_HAIR))
    over = torch.lerp(over.clamp_max(_MOST), over.clamp_max(_MOST_TO_HAIR) * before_hair, hair)
    sides = _drawn_in(over, band, from_edge, seen) * _sides(face_model)[:, None]
    skull = _drawn_in(*_over_the_person(face_model, raster, ears, matte), seen) * _skull(face_model)[:, None]
    # along the picture: what lies a unit deep moves by more units for the same pixels
    shift = (sides + skull) * sides.new_tensor([1.0, -1.0])
    moved = posed + F.pad(seen[0, :, 2:] / face_model.camera.focal * shift, (0, 1))
    beside = (skin & ~neck)[:, None].float()
    unlike = _difference(picture, push_pull(picture * beside, beside))[:, 0]
    for ear in _ears(face_model):
        shown = unlike[raster.look_up(ear.triangles, False)]
        if len(shown) >= _LEAST_OF_EAR and (shown < _EAR_LIKE_SKIN).float().mean() < _EAR_SEEN:
            moved[0, ear.inner] = ear.flat @ moved[0, ear.rim]
    return (unpose(moved, face.pose[None]) - unpose(posed, face.pose[None]))[0]


def _over_the_person(
    face_model: FaceModel, raster: Raster, ears: Tensor, matte: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """By how much a skull reaches over its person, where that is known, and how far from the head's edge, as
    :func:`_drawn_in` takes them.
    """
    head = raster.covered & ~ears
    from_edge = _depth(head)
    person = resize(matte[None, None].float(), _SIZE)[:, 0] > 0.5
    over = (from_edge - _depth(head & person)).clamp_min(0)[:, None]
    over = over * smoothstep((_MATTE_FAILS - over) / (_MATTE_FAILS - _SKULL_FITS))
    band = (head & (from_edge < _REACH) & raster.look_up(under_hair(face_model), False))[:, None].float()
    return _mean_by(over, band, _SPREAD, _SPREAD), band, from_edge


@dataclass(frozen=True, eq=False)
class _Ear:
    """One ear of a face model.

    Attributes:
        triangles: ``[T]`` bool.
        rim, inner: vertices that it shares with the head, and its others.
        flat: ``[inner, rim]``, from the rim to where the others lie in an ear that is a piece of the head.
    """

    triangles: Tensor
    rim: Tensor
    inner: Tensor
    flat: Tensor


@lru_cache(maxsize=4)
@torch.inference_mode(False)
def _ears(face_model: FaceModel) -> tuple[_Ear, ...]:
    ears, triangles = named_part(face_model, "ears"), face_model.triangles
    middles = face_model.mean[triangles].mean(dim=1)[:, 0]
    made = []
    for side in (middles < 0, middles > 0):
        own = ears & side
        vertices = triangles[own].unique()
        shared = torch.isin(vertices, triangles[~own].unique())
        if not shared.any():
            continue
        # each vertex in the middle of its neighbours
        place = torch.full((len(face_model.mean),), -1)
        place[vertices] = torch.arange(len(vertices))
        corners = place[triangles[own]]
        beside = torch.zeros(len(vertices), len(vertices), dtype=torch.float64)
        for one, other in ((0, 1), (1, 2), (2, 0)):
            beside[corners[:, one], corners[:, other]] = 1
            beside[corners[:, other], corners[:, one]] = 1
        pull = torch.diag(beside.sum(dim=1)) - beside
        flat = torch.linalg.solve(pull[~shared][:, ~shared], -pull[~shared][:, shared])
        made.append(_Ear(own, vertices[shared], vertices[~shared], flat.float()))
    return tuple(made)


def _drawn_in(over: Tensor, band: Tensor, from_edge: Tensor, seen: Tensor) -> Tensor:
    """``[V, 2]`` half widths by which vertices are moved away from an edge.

    Args:
        over: ``[1, 1, n, n]``, by how much at the edge beside a place.
        band: ``[1, 1, n, n]`` in 0..1, where that is known.
        from_edge: ``[1, n, n]``, see :func:`_depth`.
        seen: ``[1, V, 3]``, the vertices on the screen.
    """
    down, across = torch.gradient(from_edge, dim=(1, 2))
    inward = torch.stack([across, down], dim=1)
    inward = F.normalize(mean_around(mean_around(inward, _SPREAD), _SPREAD), dim=1)
    field = push_pull(over * inward * band, band)  # and on, for vertices that lie behind the edge
    field = field * smoothstep(1 - from_edge / _REACH)[:, None]
    return F.grid_sample(field, seen[:, None, :, :2], padding_mode="border", align_corners=False)[0, :, 0].mT


def _skin(picture: Tensor, within: Tensor, from_edge: Tensor) -> Tensor:
    """``[1, n, n]`` bool: what of a mesh ``within`` shows skin in a picture ``[1, 3, n, n]``."""
    sure = (within & (from_edge > _SURE))[:, None]
    shown = push_pull(picture * sure, sure.to(picture))
    like = within[:, None] & (_difference(picture, shown) < _LIKE_WITHIN)
    return grow_by_colour(picture, sure, like, _LIKE_BESIDE, round(_SURE * _SIZE / 2) + 1)[:, 0]


def _difference(picture: Tensor, other: Tensor) -> Tensor:
    return (picture - other).abs().mean(dim=1, keepdim=True)


def _depth(part: Tensor) -> Tensor:
    """``[1, n, n]`` half widths from the edge of a part (bool) inwards, under 0 outside of it."""
    inside, outside = (distance_to(side) for side in (~part, part))
    return (inside.clamp_max(_SIZE) - outside.clamp_max(_SIZE)) * (2 / _SIZE)


def _mean_by(planes: Tensor, weight: Tensor, *reaches: int) -> Tensor:
    """Means of ``[1, 1, n, n]`` by weights ``[1, 1, n, n]`` over so many pixels around, and again; 0
    where there are none.
    """
    sums = torch.cat([planes * weight, weight])
    for reach in reaches:
        sums = mean_around(sums, reach)
    return sums[:1] / sums[1:].clamp_min(1e-6)


@lru_cache(maxsize=4)
@torch.inference_mode(False)
def _sides(face_model: FaceModel) -> Tensor:
    """``[V]`` in 0..1: 1 on cheeks and jaw, 0 above the eyes' middle, on ears and the throat."""
    mean, triangles = face_model.mean, face_model.triangles
    weight, count, height = torch.zeros(3, len(mean), device=mean.device)
    weight[triangles[named_part(face_model, "skin")].unique()] = 1
    below = (_SOON * below_the_eyes(face_model)).clamp_max(1)
    kinds = part_kinds(face_model)
    outer = (kinds == kinds.max()).to(weight)
    for corner in triangles.unbind(dim=1):
        count.index_add_(0, corner, outer)
        height.index_add_(0, corner, outer * below)
    upward = vertex_normals(mean[None], triangles)[0, :, 1]
    not_throat = smoothstep((upward - _THROAT[0]) / (_THROAT[1] - _THROAT[0]))
    return weight * height / count.clamp_min(1) * not_throat


@lru_cache(maxsize=4)
@torch.inference_mode(False)
def _skull(face_model: FaceModel) -> Tensor:
    """``[V]`` in 0..1: 1 on the skull, less close above the eyes' middle and close behind the eyes, 0 on all
    else.
    """
    mean, triangles = face_model.mean, face_model.triangles
    weight = torch.zeros(len(mean), device=mean.device)
    skull = triangles[under_hair(face_model) & ~named_part(face_model, "ears")].unique()
    above = mean[skull, 1] - mean[skull, 1].amin()
    behind = mean[skull, 2].amax() - mean[skull, 2]
    weight[skull] = smoothstep(torch.stack([above, behind]) / _SKULL_BEGINS).prod(dim=0)
    return weight

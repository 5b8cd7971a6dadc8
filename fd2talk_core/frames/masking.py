"""What a network that paints mouths into a film may see of a frame (DiffTalk Sec. 3.2).

All but the mouth: its region is grey, and the landmarks that it is told are those above it. The region goes
by whose face it is and where it looks, not by what the lips do, of which its shape would tell.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..face.model import FaceModel, apply_pose, project
from ..face.rasterizer import rasterize
from ..imaging import averaged, largest_around, resize
from .lower_face import heights_of_nose

REGION_SIZE = 128
"""Pixels a side that the region is drawn with."""

ROOM = 3
"""Of those pixels, by which it is wider than the mesh: fits err."""

GREY = 0.5

OPEN = "jawOpen"
"""The expression in which a mouth needs most room."""

MOVED = 0.1
"""Of how far a jaw goes, what is taken to go with it."""


def mouth_triangles(face_model: FaceModel) -> Tensor:
    """``[T]`` bool: what lies under the base of the nose and goes with the jaw; of a face model that names no
    jaw, all that lies there.
    """
    _, base = heights_of_nose(face_model)
    under = face_model.mean[face_model.triangles].mean(dim=1)[:, 1] < base
    names = list(face_model.expression_names)
    if OPEN not in names:
        return under
    moved = face_model.expression_basis[names.index(OPEN)].norm(dim=-1)
    return under & (moved[face_model.triangles].amax(dim=1) > MOVED * moved.amax())


def shown_landmarks(face_model: FaceModel) -> Tensor:
    """Numbers of the landmarks that are told: those above the base of the nose on the mean face."""
    _, base = heights_of_nose(face_model)
    return (face_model.landmarks(face_model.mean[None])[0, :, 1] > base).nonzero()[:, 0]


@torch.no_grad()
def masked_landmarks(face_model: FaceModel, identity: Tensor, expression: Tensor, pose: Tensor) -> Tensor:
    """l: ``[F, 2 L]``, u and v of the landmarks that are told, for α ``[F, D_α]``, β and p."""
    posed = apply_pose(face_model(identity, expression), pose)
    places = project(face_model.landmarks(posed), face_model.camera)[..., :2]
    return places[:, shown_landmarks(face_model)].flatten(1)


@torch.no_grad()
def mouth_region(face_model: FaceModel, identity: Tensor, pose: Tensor, size: int) -> Tensor:
    """``[F, 1, size, size]`` in 0..1, where mouth and chin of α ``[F, D_α]`` can be in pose ``[F, 6]``."""
    names = list(face_model.expression_names)
    opened = torch.zeros(1, face_model.expression_dim)
    if OPEN in names:
        opened[:, names.index(OPEN)] = 1
    lower = mouth_triangles(face_model)
    region = torch.zeros(len(pose), 1, REGION_SIZE, REGION_SIZE)
    for expression in (torch.zeros_like(opened), opened):
        posed = apply_pose(face_model(identity, expression.expand(len(pose), -1)), pose)
        raster = rasterize(project(posed, face_model.camera), face_model.triangles, REGION_SIZE)
        region = torch.maximum(region, raster.look_up(lower, False)[:, None].float())
    return region_at(largest_around(region, ROOM), size)


def region_at(region: Tensor, size: int) -> Tensor:
    """A region at another size, ``[F, 1, size, size]``."""
    return averaged(region, size) if size <= region.shape[-1] else resize(region, size)


def without_mouth(pictures: Tensor, region: Tensor) -> Tensor:
    """Pictures ``[F, 3, S, S]`` with their mouths grey, by a region ``[F, 1, S, S]``."""
    return torch.lerp(pictures, torch.full_like(pictures, GREY), region.to(pictures))

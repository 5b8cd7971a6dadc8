"""Parts of the face model's surface: what kind each triangle is of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..imaging import smoothstep
from .model import FaceModel
from .names import EYE_PARTS, MOUTH_PARTS

ASIDE = (0.5, 0.8)
"""Of a unit normal, its part to the side from where skin counts as a cheek, to where it is one."""


def part_kinds(face_model: FaceModel) -> Tensor:
    """``[T]``: 0..3 the parts of the mouth's inside, 4 eyeballs, 5 all else."""
    names = {name: index for index, name in enumerate(MOUTH_PARTS)} | dict.fromkeys(
        EYE_PARTS, len(MOUTH_PARTS)
    )
    table = [names.get(name, len(MOUTH_PARTS) + 1) for name in face_model.part_names]
    device = face_model.triangles.device
    if not table:
        # a converted face model knows no parts: all of it is skin
        return torch.full((len(face_model.triangles),), len(MOUTH_PARTS) + 1, device=device)
    return torch.tensor(table, device=device)[face_model.triangle_parts]


def below_the_eyes(face_model: FaceModel) -> Tensor:
    """``[T]`` in 0..1: 0 above the eyes' middle, 1 below the lips', in between linear by height. 1 everywhere
    where the face model names no parts.
    """
    height = face_model.mean[face_model.triangles].mean(dim=1)[:, 1]
    kinds = part_kinds(face_model)
    eyes, lips = kinds == len(MOUTH_PARTS), named_part(face_model, "lips")
    if not (eyes.any() and lips.any()):
        return torch.ones_like(height)
    top, bottom = height[eyes].mean(), height[lips].mean()
    return ((top - height) / (top - bottom)).clamp(0, 1)


def under_hair(face_model: FaceModel) -> Tensor:
    """``[T]`` bool: above the eyes' middle and behind them, where a head has hair, a cap, or skin that a turn
    hardly changes. None where the face model names no parts.
    """
    above = below_the_eyes(face_model) == 0
    if not above.any():
        return above
    depth = face_model.mean[face_model.triangles].mean(dim=1)[:, 2]
    return above & (depth < depth[part_kinds(face_model) == len(MOUTH_PARTS)].min())


def cheeks(face_model: FaceModel) -> Tensor:
    """``[T]`` in 0..1: skin at the sides of the face that hair does not cover, further back than the eyes'
    middle, by how far it faces aside. 0 everywhere where the face model names no parts.
    """
    corners = face_model.mean[face_model.triangles]
    depth, eyes = corners.mean(dim=1)[:, 2], part_kinds(face_model) == len(MOUTH_PARTS)
    skin = named_part(face_model, "skin") & ~under_hair(face_model)
    if not (skin.any() and eyes.any()):
        return torch.zeros_like(depth)
    first, second, third = corners.unbind(dim=1)
    normal = F.normalize(torch.linalg.cross(second - first, third - first), dim=-1)
    least, most = ASIDE
    aside = smoothstep((normal[:, 0].abs() - least) / (most - least))
    return aside * (skin & (depth < depth[eyes].mean()))


def named_part(face_model: FaceModel, name: str) -> Tensor:
    """``[T]`` bool. None where the face model has no part of that name."""
    if name not in face_model.part_names:
        return torch.zeros_like(face_model.triangle_parts, dtype=torch.bool)
    return face_model.triangle_parts == face_model.part_names.index(name)

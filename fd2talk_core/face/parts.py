"""Parts of the face model's surface: what kind each triangle is of, and what colour a preview gives it."""

from __future__ import annotations

import torch
from torch import Tensor

from .model import FaceModel
from .names import EYE_PARTS, MOUTH_PARTS
from .rasterizer import CLAY


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


PAINT = {
    "lips": (0.72, 0.50, 0.46),
    "mouth_interior": (0.42, 0.18, 0.18),
    "tongue": (0.70, 0.38, 0.36),
    "upper_teeth": (0.95, 0.94, 0.90),
    "lower_teeth": (0.95, 0.94, 0.90),
    "left_eye": (0.93, 0.93, 0.92),
    "right_eye": (0.93, 0.93, 0.92),
    "left_iris": (0.28, 0.36, 0.42),
    "right_iris": (0.28, 0.36, 0.42),
    "left_pupil": (0.03, 0.03, 0.03),
    "right_pupil": (0.03, 0.03, 0.03),
    "eyelashes": (0.20, 0.16, 0.14),
}
"""Colours of the parts whose motion one looks for; the rest is clay."""


def paint_of(face_model: FaceModel) -> Tensor:
    """``[T, 3]``: the colour of each triangle."""
    colors = torch.tensor([PAINT.get(name, CLAY) for name in face_model.part_names] or [CLAY])
    return colors[face_model.triangle_parts.cpu()]

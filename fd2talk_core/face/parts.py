"""Parts of the face model's surface: what kind each triangle is of."""

from __future__ import annotations

import torch
from torch import Tensor

from .model import FaceModel
from .names import EYE_PARTS, MOUTH_PARTS


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

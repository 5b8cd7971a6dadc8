"""The neck, between a head that turns and shoulders that stay."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from ..imaging import smoothstep
from .model import FaceModel, apply_pose

NECK_LENGTH = 0.7
"""Face-model units from the head's lower edge over which the neck passes from following the head to the
shoulders.
"""


def pose_on_body(face_model: FaceModel, vertices: Tensor, pose: Tensor, body_pose: Tensor) -> Tensor:
    """A head that turns on shoulders that do not: linear blend skinning along the neck.

    Args:
        vertices: ``[B, V, 3]``, of Eq. 1.
        pose: ``[B, 6]``, p, which the head follows.
        body_pose: ``[B or 1, 6]``, which the shoulders follow.

    Returns:
        ``[B, V, 3]``.
    """
    weight = head_weight(face_model).to(vertices)[:, None]
    body = apply_pose(vertices, body_pose.expand(vertices.shape[0], -1))
    return body + weight * (apply_pose(vertices, pose) - body)


@lru_cache(maxsize=4)
def head_weight(face_model: FaceModel) -> Tensor:
    """``[V]``: 1 on the head, down the neck to 0 on the shoulders; all 1 if the model names no neck."""
    weight = torch.ones(len(face_model.mean), device=face_model.mean.device)
    if "neck" not in face_model.part_names:
        return weight
    is_neck = face_model.triangle_parts == face_model.part_names.index("neck")
    head, neck = face_model.triangles[~is_neck].unique(), face_model.triangles[is_neck].unique()
    neck = neck[~torch.isin(neck, head)]
    down = torch.cdist(face_model.mean[neck], face_model.mean[head]).amin(dim=1) / NECK_LENGTH
    weight[neck] = smoothstep(1 - down)
    return weight

"""The neck, between a head that turns and shoulders that stay."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from ..imaging import smoothstep
from .model import FaceModel, apply_pose
from .parts import named_part

NECK_LENGTH = 0.7
"""Face-model units from the head's lower edge over which the neck passes from following the head to the
shoulders.
"""

JAW = (-0.2, -0.1)
"""Height in face-model units over the straight line from the ears to the chin, up to which all is throat and
neck, and from which on jaw and head: a jaw is bent, and reaches a little under that line.
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


@lru_cache(maxsize=4)
@torch.inference_mode(False)
def above_the_jaw(face_model: FaceModel) -> Tensor:
    """``[V]`` in 0..1: 1 on the head, 0 on throat and neck; all 1 if the model names no ears or no skin."""
    mean = face_model.mean
    ears, skin = (
        mean[face_model.triangles[named_part(face_model, name)].unique()] for name in ("ears", "skin")
    )
    if not (len(ears) and len(skin)):
        return torch.ones(len(mean), device=mean.device)
    lobe, chin = ears[ears[:, 1].argmin()], skin[(skin[:, 2] - skin[:, 1]).argmax()]
    forward = ((mean[:, 2] - lobe[2]) / (chin[2] - lobe[2])).clamp(0, 1)
    above = mean[:, 1] - torch.lerp(lobe[1], chin[1], forward)
    return smoothstep((above - JAW[0]) / (JAW[1] - JAW[0]))

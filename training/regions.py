"""Where in a picture the face, its mouth and its eyes are, by the face model."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fd2talk_core.face.model import FaceModel, apply_pose, project


def face_region(
    face_model: FaceModel, identity: Tensor, expression: Tensor, pose: Tensor, size: int
) -> Tensor:
    """The face in each picture: the convex hull of its landmarks, ``[F, 1, size, size]`` bool."""
    vertices = apply_pose(face_model(identity, expression), pose)
    return _hulls(project(face_model.landmarks(vertices), face_model.camera), size)


def mouth_and_eyes(
    face_model: FaceModel, identity: Tensor, expression: Tensor, pose: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """The mouth with its lips and the eyes with their lids in each picture: convex hulls, each
    ``[F, 1, size, size]`` bool.
    """
    places = project(apply_pose(face_model(identity, expression), pose), face_model.camera)

    def vertices_of(part: str) -> Tensor:
        return face_model.triangles[face_model.triangle_parts == face_model.part_names.index(part)].unique()

    lids = vertices_of("eyelids")
    left, right = (lids[side] for side in (face_model.mean[lids, 0] > 0, face_model.mean[lids, 0] < 0))
    mouth, *eyes = (_hulls(places[:, part], size) for part in (vertices_of("lips"), left, right))
    return mouth, eyes[0] | eyes[1]


def _hulls(points: Tensor, size: int) -> Tensor:
    """Convex hulls of points ``[F, n, 2 or 3]`` on the screen, ``[F, 1, size, size]`` bool."""
    from scipy.spatial import ConvexHull
    from skimage.draw import polygon

    places = ((points[..., :2] + 1) * (size / 2) - 0.5).double().numpy()
    masks = np.zeros((len(places), 1, size, size), dtype=bool)
    for mask, points_xy in zip(masks, places, strict=True):
        corners = points_xy[ConvexHull(points_xy).vertices]
        mask[0][polygon(corners[:, 1], corners[:, 0], (size, size))] = True
    return torch.from_numpy(masks)

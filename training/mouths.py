"""Mouths of the face model: which vertices move, how wide they open, how two of them compare."""

from __future__ import annotations

import torch
from torch import Tensor

from fd2talk_core.face.model import FaceModel

from .measures import correlation, lip_error


def mouth_basis(face_model: FaceModel) -> Tensor:
    """``[D_β, M, 3]``: what each expression coefficient adds to the mouth's vertices (Eq. 1 is linear)."""
    size = face_model.expression_dim
    identity = torch.zeros(size + 1, face_model.identity_dim)
    vertices = face_model.mouth_vertices_of(identity, torch.cat([torch.zeros(1, size), torch.eye(size)]))
    return vertices[1:] - vertices[:1]


def mouth_opening(face_model: FaceModel, identity: Tensor, expression: Tensor) -> Tensor:
    """``[F]`` distance between the inner lips, in face-model units, for ``[D_α]`` and ``[F, D_β]``."""
    vertices = face_model(identity.expand(expression.shape[0], -1), expression)
    return face_model.mouth_opening(vertices)


def compare_mouths(
    face_model: FaceModel, basis: Tensor, identity: Tensor, expression: Tensor, truth: Tensor
) -> tuple[list[Tensor], float, float]:
    """How one person's mouth moves beside how it should, both ``[F, D_β]``.

    Args:
        basis: of :func:`mouth_basis`.

    Returns:
        both openings ``[F]``, their correlation, and the lip error.
    """
    openings = [mouth_opening(face_model, identity, values) for values in (expression, truth)]
    mouth, true_mouth = (torch.einsum("fc,cmx->fmx", values, basis) for values in (expression, truth))
    return openings, correlation(*openings), lip_error(mouth, true_mouth, torch.zeros_like(true_mouth[0]))

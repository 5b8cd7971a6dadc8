"""FaceTalk's facial smoothing (Sec. 4, Eq. 11 to 15): deformations fade with distance from the mouth."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import check_number
from .model import FaceModel
from .names import EYE_PARTS, MOUTH_PARTS

SIGMA = (0.6, 0.6, 0.6)
"""Σ of Eq. 12 in face-model units: the chin keeps three quarters of what it does, the shoulders nothing."""
CENTRES = ("lips", *MOUTH_PARTS, "eyelids", "eyelashes", *EYE_PARTS)
"""What moves as before; the rest by its distance from these."""


def smoothing_weights(face_model: FaceModel) -> Tensor:
    """w of Eq. 14, ``[V]``: 1 where a Gaussian (Eq. 12, 13) is highest, 0 where it is lowest.

    FaceTalk's Gaussian has one centre, in the mouth (Eq. 11), so that lips lose some of their motion and lids
    no longer shut. Here every vertex of mouth and eyes is a centre, and the nearest one counts.
    """
    parts = [face_model.part_names.index(name) for name in CENTRES if name in face_model.part_names]
    still = face_model.triangles[torch.isin(face_model.triangle_parts, torch.tensor(parts))].unique()
    centres = face_model.mean[still if len(still) else face_model.mouth_vertices]
    sigma = face_model.mean.new_tensor(SIGMA)
    distance = torch.cdist(face_model.mean / sigma, centres / sigma)
    # Eq. 13's constant factor goes out in Eq. 14
    weight = torch.exp(-0.5 * distance.amin(dim=1).square())
    return (weight - weight.min()) / (weight.max() - weight.min())


def smooth_deformations(face_model: FaceModel, amount: float) -> FaceModel:
    """The face model whose expressions move mouth and eyes as before, cheeks less, and neck hardly (Eq. 15).

    The deformation of Eq. 1 is linear in β, so what is multiplied is its basis: whatever shows a face model
    (preview, glTF, mesh sequences) takes the result, and coefficients stay what they are.

    Args:
        amount: 0 gives the model back, 1 is Eq. 15.

    Raises:
        FD2TalkError: when the amount is not in 0..1.
    """
    if check_number(amount, "The smoothing", 0, 1) == 0:
        return face_model
    kept = 1 - amount * (1 - smoothing_weights(face_model))
    return face_model.with_expressions(face_model.expression_basis * kept[:, None])

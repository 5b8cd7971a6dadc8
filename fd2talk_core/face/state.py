"""What a face is like at one moment, in the coefficients of a face model (FD2Talk Eq. 1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import FD2TalkError


@dataclass(frozen=True, eq=False)
class FaceState:
    """A person with an expression and a pose: all that motion needs to know of a portrait.

    Attributes:
        identity: ``[D_α]``, α.
        expression: ``[D_β]``, β.
        pose: ``[6]``, p: pitch, yaw, roll in radians, then face-model units.
        face_model: name of the face model whose coefficients these are.
        offsets: ``[V, 3]`` face-model units, which are added to the mesh of the coefficients so that it ends
            where the picture's face does, see :func:`fd2talk_core.face.outline.fit_outline`; None for none.

    Raises:
        FD2TalkError: when a part has another shape or holds a value that is not finite.
    """

    identity: Tensor
    expression: Tensor
    pose: Tensor
    face_model: str
    offsets: Tensor | None = None

    def __post_init__(self) -> None:
        for name, fits in (
            ("identity", self.identity.ndim == 1),
            ("expression", self.expression.ndim == 1),
            ("pose", self.pose.shape == (6,)),
            ("offsets", self.offsets is None or (self.offsets.ndim == 2 and self.offsets.shape[1] == 3)),
        ):
            value = getattr(self, name)
            if value is None:
                continue
            if not fits:
                raise FD2TalkError(
                    f"The face's {name} has the shape {tuple(value.shape)}, which does not fit."
                )
            if not torch.isfinite(value).all():
                raise FD2TalkError(f"The face's {name} holds values that are not numbers.")

"""A portrait in motion: the clip that is to be rendered.

It says once how the motion is applied to the portrait (relative or absolute), and gives the mesh and the
correspondence of any frames to all who need them: the UNet's condition, the portrait's detail, the close-ups
and the head mask. What belongs to the portrait alone is computed once a clip.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import RLock

import torch
from torch import Tensor

from ..errors import FD2TalkError
from ..face.lids import shape_of
from ..face.model import FaceModel, default_face_model
from ..face.skinning import pose_on_body
from ..face.state import FaceState
from ..metering import stage
from ..motion.coefficients import CoefficientSequence, MotionMode, apply_to_portrait
from .correspondence import Correspondence, PortraitView, correspond, view_resolution

MESHES_KEPT = 64
"""Frames whose mesh is remembered: more than are denoised together and then decoded a few at a time."""

FIELD_SIZE = 128
"""Cells a side of the correspondence: the displacement is smooth but where a jaw ends before the neck. A
power of 2, as what continues it beyond the mesh halves its cells again and again."""

FIELDS_KEPT = 40
"""Frames that have been aligned and are yet to be blended, whose correspondence (1 MB) is remembered: those
of one batch of latents while the next is made."""


class PortraitMotion:
    """F frames of one person, as they are to be rendered.

    Args:
        portrait: α, β and p of the portrait.
        expression: ``[F, D_β]``, β of the frames, already applied to the portrait.
        pose: ``[F, 6]``, p of the frames, already applied to the portrait.
        face_model: that gives the mesh. Another one than the portrait's is refused when a mesh is needed.

    Attributes:
        first: number of frame 0 in the whole clip; not 0 for a part.
    """

    def __init__(self, portrait: FaceState, expression: Tensor, pose: Tensor, face_model: FaceModel) -> None:
        self.portrait = portrait
        self.expression, self.pose = expression.cpu(), pose.cpu()
        self._face_model = face_model
        self.first = 0
        self._whole: PortraitMotion | None = None
        self._views: dict[int, PortraitView] = {}
        self._meshes: OrderedDict[int, Tensor] = OrderedDict()
        self._fields: OrderedDict[int, Correspondence] = OrderedDict()
        self._lock = RLock()  # frames are made side by side

    @classmethod
    def of(
        cls,
        portrait: FaceState,
        expression: CoefficientSequence,
        pose: CoefficientSequence,
        mode: MotionMode = "relative",
        face_model: FaceModel | None = None,
    ) -> PortraitMotion:
        """Apply a motion to a portrait.

        Args:
            expression, pose: F frames each, at one frame rate.
            mode: see :func:`fd2talk_core.motion.coefficients.apply_to_portrait`.
            face_model: whose coefficients these are; None takes the one that ships.

        Raises:
            FD2TalkError: when the two do not fit each other or the portrait.
        """
        for name, other in (("expression", expression.face_model), ("pose", pose.face_model)):
            if other and other != portrait.face_model:
                raise FD2TalkError(
                    f"The {name} belongs to the face model {other!r}, but the portrait was fitted with "
                    f"{portrait.face_model!r}: they must be the same."
                )
        face_model = face_model or default_face_model()
        applied = apply_to_portrait(expression, pose, portrait.expression, portrait.pose, mode, face_model)
        return cls(portrait, *applied, face_model)

    def part(self, frames: range) -> PortraitMotion:
        """Some successive frames as a clip of their own, which come out as they do in the whole."""
        rows = slice(frames.start, frames.stop)
        made = PortraitMotion(self.portrait, self.expression[rows], self.pose[rows], self._face_model)
        made.first = self.first + frames.start
        made._whole = self if self._whole is None else self._whole
        made._views, made._lock = self._views, self._lock
        return made

    @property
    def num_frames(self) -> int:
        return len(self.pose)

    @property
    def face_model(self) -> FaceModel:
        """The face model that gives the mesh.

        Raises:
            FD2TalkError: when the portrait was fitted with another one.
        """
        if self._face_model.name != self.portrait.face_model:
            raise FD2TalkError(
                f"The mesh is of the face model {self._face_model.name!r}, but the portrait was fitted with "
                f"{self.portrait.face_model!r}: they must be the same."
            )
        return self._face_model

    def coefficients(self, frames: Sequence[int]) -> Tensor:
        """``[n, D_β + 6]``, what φ₁ is given of some frames."""
        chosen = list(frames)
        return torch.cat([self.expression[chosen], self.pose[chosen]], dim=1)

    @property
    def whole_length(self) -> int:
        """Frames of the clip that this is a part of; its own, if it is none."""
        return self.num_frames if self._whole is None else self._whole.num_frames

    def coefficients_of_whole(self, frames: range) -> Tensor:
        """``[n, D_β + 6]``, of frames of the clip that this is a part of."""
        return (self if self._whole is None else self._whole).coefficients(frames)

    def first_alike(self) -> list[int]:
        """For each frame, the first one with the same motion."""
        seen: dict[bytes, int] = {}
        rows = torch.cat([self.expression, self.pose], dim=1).numpy()
        return [seen.setdefault(row.tobytes(), frame) for frame, row in enumerate(rows)]

    @torch.no_grad()
    def mesh(self, frames: Sequence[int]) -> Tensor:
        """``[n, V, 3]``: the mesh in some frames. The shoulders stay where the portrait has them."""
        with self._lock:
            for frame in frames:
                if frame not in self._meshes:
                    self._meshes[frame] = self._posed(frame)
            meshes = [self._meshes[frame] for frame in frames]
            for frame in frames:
                self._meshes.move_to_end(frame)
            while len(self._meshes) > MESHES_KEPT:
                self._meshes.popitem(last=False)
        return torch.stack(meshes)

    def forget(self, frames: Sequence[int]) -> None:
        """What is remembered of frames whose motion is no longer what it was."""
        with self._lock:
            for frame in frames:
                self._meshes.pop(frame, None)
                self._fields.pop(frame, None)

    def _posed(self, frame: int) -> Tensor:
        """``[V, 3]``, one frame at a time: the rounding of a matrix product depends on how many rows it has,
        and what a frame becomes must not depend on its batch.
        """
        shape = shape_of(self.face_model, self.portrait, self.expression[frame, None])
        return pose_on_body(self.face_model, shape, self.pose[frame, None], self.portrait.pose[None])[0]

    @stage("correspondence")
    def field(self, frames: Sequence[int], *, again: bool = False) -> Correspondence:
        """The correspondence of some frames at :data:`FIELD_SIZE`.

        Args:
            again: whether it will be asked for once more, so that it is worth remembering.
        """
        with self._lock:
            take = self._fields.get if again else self._fields.pop
            known = {frame: take(frame, None) for frame in dict.fromkeys(frames)}
        missing = [frame for frame in known if known[frame] is None]
        if missing:
            known.update(zip(missing, self.correspondence(missing, FIELD_SIZE).each(), strict=True))
        if again:
            with self._lock:
                self._fields.update((frame, known[frame]) for frame in missing)
                while len(self._fields) > FIELDS_KEPT:
                    self._fields.popitem(last=False)
        return Correspondence.join([known[frame] for frame in frames])

    @stage("correspondence")
    def correspondence(self, frames: Sequence[int], size: int, supersample: int = 1) -> Correspondence:
        """Where some frames' places lie in the portrait; size and supersample as in :func:`correspond`."""
        view = self.portrait_view(view_resolution(size * supersample))
        pose = self.pose[list(frames)]
        return correspond(self.face_model, view, self.mesh(frames), pose, size, supersample=supersample)

    def portrait_view(self, resolution: int) -> PortraitView:
        """What the portrait shows of the mesh, drawn once a resolution."""
        with self._lock:
            if resolution not in self._views:
                self._views[resolution] = PortraitView.of(self.face_model, self.portrait, resolution)
            return self._views[resolution]

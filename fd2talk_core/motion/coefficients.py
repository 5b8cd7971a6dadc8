"""Expression and pose sequences: the motion that passes from the audio to the frames (FD2Talk Sec. 3.1).

Frame ``i`` of a sequence at ``fps`` stands for the instant ``(i + 0.5) / fps``, so a clip of ``duration``
seconds has the same extent at every frame rate, and resampling neither drops its tail nor shifts its mouth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ..checks import check_fields, check_tensor, shown
from ..errors import FD2TalkError
from ..face.model import FaceModel
from ..face.names import MOUTH_NAMES, POSE_NAMES
from ..face.rotations import euler_angles, interpolate_pose, rotation_matrix
from ..imaging import smoothstep
from ..timing import MAX_FRAMES, check_fps

MotionMode = Literal["relative", "absolute"]

SAME_MOUTH = (0.012, 0.03)
"""Mean distance of two mouths' vertices in face-model units (1.2 and 3 mm): under the first it is what two
fits of one face differ by, over the second one mouth is open and the other shut, or smiles."""


LARGEST_VALUE = 1e4
"""Of a coefficient: weights of blendshapes are about 1, of a Basel model's components tens."""


@dataclass(frozen=True)
class CoefficientSequence:
    """Expression β or pose p over time.

    Attributes:
        kind: ``"expression"`` or ``"pose"``.
        values: ``[F, D]`` float32 on the CPU. Expression: D_β of the face model. Pose: D_p = 6, rotation as
            pitch, yaw, roll in radians (intrinsic x-y-z) and translation in face-model units.
        fps: frames per second.
        face_model: name of the face model that the expression belongs to (and whose units a pose is in).
        names: one name a coefficient, where the face model has names.
        rest: ``[D_β]``, the expression from which a person moved whose motion was recorded; None for motion
            that was made, which moves from a neutral face.

    Raises:
        FD2TalkError: when the values are empty, not finite or of the wrong shape.
    """

    kind: Literal["expression", "pose"]
    values: Tensor
    fps: float
    face_model: str
    names: tuple[str, ...] = ()
    rest: Tensor | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.kind not in ("expression", "pose"):
            raise FD2TalkError(f"A sequence is of kind 'expression' or 'pose', not {self.kind!r}.")
        check_fps(self.fps)
        values = check_tensor(self.values, f"The {self.kind} sequence").detach().to("cpu", torch.float32)
        shape = tuple(values.shape)
        if values.ndim != 2 or 0 in shape:
            raise FD2TalkError(
                f"The {self.kind} sequence has shape {shape}, but [frames, coefficients] is needed."
            )
        if self.kind == "pose" and shape[1] != len(POSE_NAMES):
            raise FD2TalkError(f"The pose sequence has {shape[1]} columns, but 6 are needed: {POSE_NAMES}.")
        if self.names and len(self.names) != shape[1]:
            raise FD2TalkError(
                f"The {self.kind} sequence has {shape[1]} columns but {len(self.names)} names."
            )
        if not torch.isfinite(values).all():
            frame = int((~torch.isfinite(values)).any(dim=1).nonzero()[0])
            raise FD2TalkError(
                f"The {self.kind} sequence holds a value that is not a number at frame {frame}."
            )
        if (largest := values.abs().amax(dim=1)).max() > LARGEST_VALUE:
            frame = int((largest > LARGEST_VALUE).nonzero()[0])
            raise FD2TalkError(
                f"The {self.kind} sequence holds {largest[frame]:g} at frame {frame}, but nothing over "
                f"{LARGEST_VALUE:g} moves a face: is it another unit, or not motion at all?"
            )
        object.__setattr__(self, "values", values)
        if self.rest is not None:
            rest = self.rest.detach().to("cpu", torch.float32)
            if rest.shape != values.shape[1:] or not torch.isfinite(rest).all():
                raise FD2TalkError(
                    f"The rest of the {self.kind} sequence has the shape {tuple(rest.shape)}, but "
                    f"{tuple(values.shape[1:])} finite numbers are needed."
                )
            object.__setattr__(self, "rest", rest)

    @property
    def num_frames(self) -> int:
        return self.values.shape[0]

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.num_frames / self.fps

    def replace(self, **changes: object) -> CoefficientSequence:
        """A copy with some fields changed, validated again."""
        return replace(self, **changes)

    def resample(self, fps: float, num_frames: int) -> CoefficientSequence:
        """The same motion seen at another frame rate; ends are held, rotations move on the sphere.

        Args:
            fps: the new frame rate.
            num_frames: the new length F, see :func:`frame_count`.
        """
        if not 1 <= num_frames <= MAX_FRAMES:
            raise FD2TalkError(
                f"The clip would have {shown(num_frames)} frames at {fps} fps, but 1 to {MAX_FRAMES:,} are "
                "possible."
            )
        if fps == self.fps and num_frames == self.num_frames:
            return self
        # float64, since a position late in an hour of video must still resolve a thousandth of a frame
        position = (torch.arange(num_frames, dtype=torch.float64) + 0.5) * (self.fps / float(fps)) - 0.5
        position = position.clamp(0, self.num_frames - 1)
        return self.replace(values=self.at(position), fps=fps)

    def at(self, position: Tensor) -> Tensor:
        """``[n, D]``, the motion at ``[n]`` places between frames, from 0 to F - 1."""
        left = position.floor().long().clamp(max=max(self.num_frames - 2, 0))
        right = (left + 1).clamp(max=self.num_frames - 1)
        weight = (position - left).to(torch.float32)[:, None]
        mix = interpolate_pose if self.kind == "pose" else torch.lerp
        return mix(self.values[left], self.values[right], weight)


def mouth_mask(names: Sequence[str], size: int) -> Tensor:
    """``[size]`` bool: the coefficients that shape the mouth.

    A face model without names (a converted BFM) mixes mouth and brows in every component: all of it counts.
    """
    if not names:
        return torch.ones(size, dtype=torch.bool)
    return torch.tensor([name in MOUTH_NAMES for name in names], dtype=torch.bool)


def start_at_pose(values: Tensor, pose: Tensor) -> Tensor:
    """Replay a head motion from another starting pose (DAWN's pose relative to the source, Δρ).

    Args:
        values: ``[F, 6]``, any motion.
        pose: ``[6]``, where frame 0 is put. Later frames keep their turn and shift relative to frame 0.
    """
    rotation = rotation_matrix(values[:, :3])
    # the turn since frame 0 is taken in the camera's axes: a nod stays a nod however the portrait looks
    turn = rotation @ rotation[0].mT
    moved = euler_angles(turn @ rotation_matrix(pose[:3]))
    return torch.cat([moved, values[:, 3:] - values[0, 3:] + pose[3:]], dim=1)


def blend_over_rest(
    values: Tensor, portrait: Tensor, names: Sequence[str], rest: Tensor | None = None
) -> Tensor:
    """Play an expression over a portrait's own resting face; the mouth stays as the audio wants it.

    Motion that was made moves from a neutral face: each weight is the larger of the two, so it starts from
    the portrait's raised brow or squint, still reaches a full blink, never leaves [0, 1], and applied twice
    (by ExpDiT for a preview, then by the sampler) it is the same. Motion that was recorded moves from a
    person's own face, and takes the portrait's as far from its own: a brow that the portrait has drawn down
    can rise. Its weights may leave [0, 1]: cut there, lips and lids that were fitted a little open in the
    portrait would not follow small movements at all.

    Args:
        values: ``[F, D_β]``.
        portrait: ``[D_β]``, the portrait's fitted expression.
        names: coefficient names; without them the expression is returned as it is.
        rest: ``[D_β]``, of motion that was recorded.
    """
    keep = mouth_mask(names, values.shape[1])
    if rest is None:
        return torch.where(keep, values, torch.maximum(values, portrait.clamp(0, 1)))
    return torch.where(keep, values, values + portrait - rest)


def apply_to_portrait(
    expression: CoefficientSequence,
    pose: CoefficientSequence,
    portrait_expression: Tensor,
    portrait_pose: Tensor,
    mode: MotionMode = "relative",
    face_model: FaceModel | None = None,
) -> tuple[Tensor, Tensor]:
    """The coefficients that the frames are rendered with.

    Args:
        expression, pose: F frames each, at one frame rate.
        portrait_expression: ``[D_β]`` fitted to the portrait.
        portrait_pose: ``[6]`` fitted to the portrait.
        mode: ``"relative"`` lets the clip start where the portrait looks; ``"absolute"`` is the paper's.
        face_model: whose mouth tells whether a recorded person's starts as the portrait's does; it then
            starts just there, see :data:`SAME_MOUTH`. Without it every mouth is absolute.

    Returns:
        expression ``[F, D_β]`` and pose ``[F, 6]``.

    Raises:
        FD2TalkError: when the two differ in length or frame rate, or the expression is of another size.
    """
    if expression.kind != "expression" or pose.kind != "pose":
        raise FD2TalkError(
            f"An expression and a pose are needed, but a {expression.kind} and a {pose.kind} were given."
        )
    if expression.num_frames != pose.num_frames:
        raise FD2TalkError(
            f"The expression has {expression.num_frames} frames and the pose {pose.num_frames}: "
            "retime one of them so that both have the same number."
        )
    if expression.fps != pose.fps:
        raise FD2TalkError(
            f"The expression runs at {expression.fps:g} fps and the pose at {pose.fps:g}: "
            "retime one of them so that both have the same rate."
        )
    if expression.values.shape[1] != portrait_expression.shape[-1]:
        raise FD2TalkError(
            f"The expression has {expression.values.shape[1]} coefficients "
            f"(face model {expression.face_model}), "
            f"but the portrait was fitted with {portrait_expression.shape[-1]}."
        )
    if mode == "absolute":
        return expression.values, pose.values
    if mode != "relative":
        raise FD2TalkError(f"The motion mode is {mode!r}, but 'relative' or 'absolute' is needed.")
    portrait = portrait_expression.cpu()
    values = expression.values
    if expression.rest is not None and face_model is not None:
        mouth = (portrait - expression.rest) * mouth_mask(expression.names, len(portrait))
        values = values + mouth * _same_mouth(mouth, face_model)
    return (
        blend_over_rest(values, portrait, expression.names, expression.rest),
        start_at_pose(pose.values, portrait_pose.cpu()),
    )


def _same_mouth(difference: Tensor, face_model: FaceModel) -> Tensor:
    """1 when mouths that differ by ``[D_β]`` are the same as far as a fit can tell, 0 when they are not."""
    basis = face_model.expression_basis[:, face_model.mouth_vertices].cpu()
    distance = torch.einsum("d,dmx->mx", difference, basis).norm(dim=-1).mean()
    near, far = SAME_MOUTH
    return smoothstep((far - distance) / (far - near))

"""Expression and pose of a clip, sampled from its audio by diffusion (FD2Talk Sec. 3.2)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ..audio.features import AudioFeatures
from ..checks import check_number, checked, shown
from ..errors import FD2TalkError
from ..face.names import ARKIT_NAMES, POSE_NAMES
from ..face.rotations import (
    axis_angle_to_matrix,
    euler_angles,
    matrix_to_axis_angle,
    mean_rotation,
    rotation_matrix,
)
from ..face.state import FaceState
from ..metering import stage
from ..networks.diffusion import ddim_sample, frame_noise
from ..networks.motion_transformer import MotionTransformer
from ..networks.pose_blink import BLINK_NAMES, PoseBlinkNetwork
from ..progress import Callback
from .breathing import add_breath, add_brows, breath_between, brow_lift
from .coefficients import CoefficientSequence, blend_over_rest, mouth_mask, start_at_pose
from .defaults import NEUTRAL


@checked
@stage("motion")
def sample_motion(
    model: MotionTransformer | PoseBlinkNetwork,
    audio: AudioFeatures,
    *,
    seed: int,
    kind: Literal["expression", "pose"] | None = None,
    steps: int | None = None,
    guidance: float = 1.0,
    intensity: float = 1.0,
    portrait: FaceState | None = None,
    style: str = NEUTRAL,
    style_strength: float = 1.0,
    first_frame: int = 0,
    mouth_alone: bool = False,
    callback: Callback | None = None,
) -> CoefficientSequence:
    """Expression or pose for a clip, by DDIM from noise that depends on the seed and the frame index alone.
    Where the audio says that nobody speaks, the face breathes and its brows move
    (:mod:`fd2talk_core.motion.breathing`).

    Args:
        model: of kind ``"expression"`` or ``"pose"``, or ``"joint"`` where ``kind`` is given. Of a
            :class:`~fd2talk_core.networks.pose_blink.PoseBlinkNetwork` the pose is given; it knows neither
            steps nor guidance.
        audio: features on the network's own frame grid.
        seed: any integer; the two halves of a joint network belong together if sampled with the same one.
        kind: what is wanted; a joint network has both.
        steps: 1 to 1000; None takes the checkpoint's own.
        guidance: w of x̃₀ = w · conditional + (1 - w) · unconditional (FaceTalk Eq. 10). At 1 the
            unconditional half is not computed, so it costs nothing.
        intensity: an expression is scaled from rest (0 is a resting face), a pose about the clip's mean (0
            holds the head still).
        portrait: the face to start from: a pose begins where it looks, an expression plays over its upper
            face.
        style: the mood that the face speaks in, one of the checkpoint's own; ``"neutral"`` is what every
            checkpoint does.
        style_strength: 0 is neutral, 1 the whole style.
        first_frame: number of the first feature's frame, where the audio is a part of something longer: noise
            goes by the frame's number.
        mouth_alone: take no further steps for what the sound leaves free, where only the mouth is wanted.
        callback: ``(done, total, None)`` after each step.

    Returns:
        F frames at ``audio.fps``. Blendshape weights lie in [0, 1].

    Raises:
        FD2TalkError: for a network of another kind, a style that it has not learned, a value out of range,
            features of another encoder or frame rate, or a portrait of another face model.
    """
    if kind is not None and model.config.kind == "joint":
        both = sample_joint_motion(
            model,
            audio,
            seed=seed,
            steps=steps,
            guidance=guidance,
            intensity=intensity,
            portrait=portrait,
            style=style,
            style_strength=style_strength,
            first_frame=first_frame,
            callback=callback,
        )
        return both[("expression", "pose").index(kind)]
    if kind is not None and model.config.kind != kind:
        raise FD2TalkError(
            f"This checkpoint predicts the {model.config.kind}: choose one that predicts the {kind}."
        )
    if model.config.kind == "joint":
        raise FD2TalkError("This checkpoint predicts expression and pose together: use sample_joint_motion.")
    if isinstance(model, PoseBlinkNetwork):
        if steps not in (None, 1) or guidance != 1:
            raise FD2TalkError(
                "This pose checkpoint decodes in one pass (PBNet): leave steps at the recommended number and "
                "guidance at 1."
            )
        return sample_pose_and_blinks(
            model,
            audio,
            seed=seed,
            intensity=intensity,
            portrait=portrait,
            first_frame=first_frame,
            callback=callback,
        )[0]
    values = _sample_native(
        model,
        audio,
        seed,
        steps,
        guidance,
        first_frame,
        callback,
        mouth_alone,
        style=style_amounts(model, style, style_strength),
    )
    return _finish(model, model.config.kind, values, audio, seed, intensity, portrait)


@checked
@torch.no_grad()
def sample_pose_and_blinks(
    model: PoseBlinkNetwork,
    audio: AudioFeatures,
    *,
    seed: int,
    intensity: float = 1.0,
    portrait: FaceState | None = None,
    first_frame: int = 0,
    callback: Callback | None = None,
) -> tuple[CoefficientSequence, Tensor]:
    """Head pose and lids for a clip, decoded from a code that depends on seed and frame index (DAWN Eq. 9).

    Args:
        seed, intensity, portrait, first_frame, callback: as :func:`sample_motion`; the motion is that of a
            head that starts as the portrait does.

    Returns:
        the pose, F frames at ``audio.fps``, and the weights of both lids ``[F, 2]`` in 0..1.

    Raises:
        FD2TalkError: as :func:`sample_motion`.
    """
    _check_audio(model, audio)
    frames = range(first_frame, first_frame + audio.num_native_frames)
    noise = frame_noise(seed, frames, (model.config.latent_dim,), "per_frame")
    state = torch.zeros(1, len(POSE_NAMES) + len(BLINK_NAMES))
    if portrait is not None:
        lids = [ARKIT_NAMES.index(name) for name in BLINK_NAMES]
        state = torch.cat([portrait.pose, portrait.expression[lids].clamp(0, 1)])[None].cpu()
    start = model.normalize(state.to(model.device, model.dtype))
    heard = audio.features[None].to(start)
    states = model.denormalize(start[:, None] + model.decode(noise[None].to(start), start, heard))
    states = states[0].float().cpu()
    if callback is not None:
        callback(1, 1, None)
    pose = _finish(model, "pose", states[:, : len(POSE_NAMES)], audio, seed, intensity, portrait)
    blinks = CoefficientSequence(
        "expression", states[:, len(POSE_NAMES) :].clamp(0, 1), audio.native_fps, model.config.face_model
    )
    return pose, blinks.resample(audio.fps, audio.num_frames).values


def take_blinks(
    expression: CoefficientSequence,
    model: MotionTransformer | PoseBlinkNetwork,
    audio: AudioFeatures,
    seed: int,
) -> CoefficientSequence:
    """An expression with the lids that belong to a pose; that itself where the pose's network has none."""
    if not isinstance(model, PoseBlinkNetwork) or not set(BLINK_NAMES) <= set(expression.names):
        return expression
    values = expression.values.clone()
    values[:, [expression.names.index(name) for name in BLINK_NAMES]] = sample_pose_and_blinks(
        model, audio, seed=seed
    )[1]
    return expression.replace(values=values)


@checked
def sample_joint_motion(
    model: MotionTransformer,
    audio: AudioFeatures,
    *,
    seed: int,
    steps: int | None = None,
    guidance: float = 1.0,
    intensity: float = 1.0,
    portrait: FaceState | None = None,
    style: str = NEUTRAL,
    style_strength: float = 1.0,
    first_frame: int = 0,
    callback: Callback | None = None,
) -> tuple[CoefficientSequence, CoefficientSequence]:
    """Expression and pose from the one network of the paper's ablation; see :func:`sample_motion`."""
    if model.config.kind != "joint":
        raise FD2TalkError(f"This checkpoint predicts the {model.config.kind} alone: use sample_motion.")
    amounts = style_amounts(model, style, style_strength)
    values = _sample_native(model, audio, seed, steps, guidance, first_frame, callback, style=amounts)
    expression, pose = values[:, : -len(POSE_NAMES)], values[:, -len(POSE_NAMES) :]
    return (
        _finish(model, "expression", expression, audio, seed, intensity, portrait),
        _finish(model, "pose", pose, audio, seed, intensity, portrait),
    )


def style_amounts(model: MotionTransformer, style: str, strength: float) -> Tensor | None:
    """``[1, S]``, the strength of each style of a network; None for neutral, which takes no part of it.

    Raises:
        FD2TalkError: for a style that the network has not learned, or a strength outside 0..1.
    """
    check_number(strength, "style_strength", 0, 1)
    if style == NEUTRAL:
        return None
    learned = list(model.config.styles)
    if style not in learned:
        known = ", ".join([NEUTRAL, *learned])
        raise FD2TalkError(
            f"This {model.config.kind} checkpoint has not learned the style {shown(style)}: choose one of "
            f"{known}, or other weights."
        )
    amounts = torch.zeros(1, len(learned))
    amounts[0, learned.index(style)] = strength
    return amounts if strength else None


def _check_audio(model: MotionTransformer | PoseBlinkNetwork, audio: AudioFeatures) -> None:
    """Refuse features of another encoder or frame rate."""
    config = model.config
    if audio.features.shape[1] != config.audio_dim:
        raise FD2TalkError(
            f"The audio features of {audio.encoder!r} have {audio.features.shape[1]} channels, but this "
            f"{config.kind} checkpoint was trained on {config.audio_dim}: choose the encoder that it was "
            "trained with."
        )
    if audio.native_fps != config.native_fps:
        raise FD2TalkError(
            f"The audio features are at {audio.native_fps:g} fps, but this {config.kind} checkpoint was "
            f"trained at {config.native_fps:g}."
        )


@torch.no_grad()
def _sample_native(
    model: MotionTransformer,
    audio: AudioFeatures,
    seed: int,
    steps: int | None,
    guidance: float,
    first_frame: int,
    callback: Callback | None,
    mouth_alone: bool = False,
    style: Tensor | None = None,
) -> Tensor:
    """Coefficients ``[F_native, D]`` in their units, on the CPU."""
    config = model.config
    _check_audio(model, audio)
    if not 0 <= guidance <= 100:
        raise FD2TalkError(f"guidance is {guidance}, but a number from 0 to 100 is needed.")
    shape = (config.coefficient_dim,)
    numbers = range(first_frame, first_frame + audio.num_native_frames)
    noise = frame_noise(seed, numbers, shape, "per_frame")
    heard = model.project_audio(audio.features[None].to(model.device, model.dtype))
    unheard = model.project_audio(model.null_audio.expand(1, 1, -1))
    if style is not None:
        style = style.to(heard)

    def denoise(sample: Tensor, timestep: Tensor) -> Tensor:
        if guidance == 1:
            return model(sample, timestep, projected_audio=heard, style=style)
        unconditional = model(sample, timestep, projected_audio=unheard, style=style)
        if guidance == 0:
            return unconditional
        conditional = model(sample, timestep, projected_audio=heard, style=style)
        return guidance * conditional + (1 - guidance) * unconditional

    steps = config.recommended_steps if steps is None else steps
    mouth = _mouth(model)
    # what is no number of steps, the sampler refuses
    in_two = not mouth_alone and isinstance(steps, int) and 0 < steps < config.free_steps and not mouth.all()
    total = steps + config.free_steps if in_two else steps

    def run(steps: int, before: int) -> Tensor:
        def report(done: int, _: int, __: Tensor | None) -> None:
            if callback is not None:
                callback(before + done, total, None)

        start = noise[None].to(model.device, model.dtype)
        return ddim_sample(denoise, start, steps=steps, callback=report)

    training = model.training
    if training:  # which asks every layer, as often as a live avatar listens
        model.train(False)
    try:
        sample = run(steps, 0)
        if in_two:
            sample = torch.where(mouth.to(sample.device), sample, run(config.free_steps, steps))
    finally:
        if training:
            model.train(True)
    return model.denormalize(sample)[0].float().cpu()


def _mouth(model: MotionTransformer) -> Tensor:
    """``[D]`` bool: what the sound decides."""
    config = model.config
    pose_dim = 0 if config.kind == "expression" else len(POSE_NAMES)
    expression_dim = config.coefficient_dim - pose_dim
    mouth = mouth_mask(config.coefficient_names, expression_dim) if expression_dim else torch.zeros(0)
    return torch.cat([mouth.bool(), torch.zeros(pose_dim, dtype=torch.bool)])


def _finish(
    model: MotionTransformer | PoseBlinkNetwork,
    kind: Literal["expression", "pose"],
    values: Tensor,
    audio: AudioFeatures,
    seed: int,
    intensity: float,
    portrait: FaceState | None,
) -> CoefficientSequence:
    """Breath, intensity, the video's frame rate, and the portrait's own rest, in that order."""
    if not 0 <= intensity <= 10:
        raise FD2TalkError(f"intensity is {intensity}, but a number from 0 to 10 is needed.")
    face_model = model.config.face_model
    if portrait is not None and face_model and portrait.face_model != face_model:
        raise FD2TalkError(
            f"The portrait was fitted with the face model {portrait.face_model!r}, but this {kind} "
            f"checkpoint was trained for {face_model!r}."
        )
    names = POSE_NAMES if kind == "pose" else tuple(model.config.coefficient_names)
    if audio.spoken is not None:
        breath, lips, rest = breath_between(audio.spoken, audio.native_fps, seed)
        values = add_breath(kind, values, names, breath, lips)
        if kind == "expression":
            times = (torch.arange(len(values), dtype=torch.float64) + 0.5) / audio.native_fps
            values = add_brows(values, names, rest * brow_lift(times, seed))
    if kind == "pose":
        values = scale_head_motion(values, intensity)
    else:
        values = values * intensity
        if names and set(names) <= set(ARKIT_NAMES):
            values = values.clamp(0, 1)
    native = CoefficientSequence(kind, values, audio.native_fps, face_model, names)
    sequence = native.resample(audio.fps, audio.num_frames)
    if portrait is None:
        return sequence
    if kind == "pose":
        return sequence.replace(values=start_at_pose(sequence.values, portrait.pose.cpu()))
    return sequence.replace(values=blend_over_rest(sequence.values, portrait.expression.cpu(), names))


def scale_head_motion(values: Tensor, intensity: float) -> Tensor:
    """Scale a head motion about its mean pose: turns along their axes, shifts along their lines.

    Args:
        values: ``[F, 6]`` poses.
        intensity: 0 holds the mean pose, 1 changes nothing.
    """
    if intensity == 1:
        return values
    rotation = rotation_matrix(values[:, :3])
    center = mean_rotation(rotation)
    turn = matrix_to_axis_angle(center.mT @ rotation) * intensity
    angles = euler_angles(center @ axis_angle_to_matrix(turn))
    shift = values[:, 3:].mean(dim=0)
    return torch.cat([angles, shift + (values[:, 3:] - shift) * intensity], dim=1)

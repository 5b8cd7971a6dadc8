"""Set B: real portraits speak, and what comes out is looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from fd2talk_core.audio.resampling import SAMPLE_RATE
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.fitting import fit_landmarks
from fd2talk_core.face.landmarks import Face, FaceLandmarker
from fd2talk_core.face.model import FaceModel, apply_pose, project
from fd2talk_core.face.names import ARKIT_NAMES
from fd2talk_core.frames.correspondence import reference_flow, warp_reference
from fd2talk_core.frames.reference import Reference, encode_reference
from fd2talk_core.motion.coefficients import apply_to_portrait

from ..drawing import save_grid
from ..face_model import INNER_LIPS
from ..measures import (
    angle_error,
    correlation,
    ssim,
)
from ..mouths import mouth_opening
from ..regions import face_region
from .identity import PACKAGE, SAME_PERSON
from .table import Row
from .weights import Weights

Describe = Callable[[Tensor, Tensor], Tensor]
"""Pictures ``[n, 3, H, W]`` in 0..1 and landmarks ``[n, 478, 2]`` in pixels to descriptors ``[n, E]``."""


TAKE_SECONDS = 4.0
"""What a portrait speaks of a recording, where nothing else is asked for."""


def score_portraits(
    weights: Weights,
    portraits: Sequence[tuple[str, Tensor]],
    speech: Sequence[Tensor],
    pictures_folder: Path,
    seconds: float = TAKE_SECONDS,
    takes: int = 3,
    describe: Describe | None = None,
) -> list[Row]:
    """Real portraits speak; the landmarker looks at what comes out.

    Args:
        portraits: names and pictures ``[H, W, 3]``.
        speech: waveforms ``[N]`` at 16 kHz, taken in turn.
        seconds: of each that are spoken.
        takes: how many each portrait speaks; what is seen of a jaw differs by a tenth from one to the next.
        describe: gives descriptors of faces, see :class:`~training.scorecard.identity.FaceDescriptor`.
    """
    landmarker = FaceLandmarker()
    names, missing, spoken, rows, own = [], [], [], [], []
    for number, (name, image) in enumerate(portraits):
        try:
            reference = encode_reference(image, weights.autoencoder, landmarker, weights.face_model)
        except FD2TalkError:
            missing.append(name)
            continue
        names.append(name)
        if describe is not None:
            crop = reference.crop[None]
            own.append(describe_faces(describe, crop.movedim(-1, 1), landmarker.detect_video(crop)))
        for take in range(takes):
            waveform = speech[(number + take * len(portraits)) % len(speech)][: round(seconds * SAMPLE_RATE)]
            frames, seen = portrait_take(weights, reference, waveform, landmarker, take, describe)
            spoken.append(seen)
            if take == 0:
                chosen = torch.linspace(0, len(frames) - 1, 6).round().long()
                rows.append(torch.cat([reference.crop.movedim(-1, 0)[None], frames[chosen]]))
    if not rows:
        return [Row("B portraits: face found in the output", None, 1.0, note=f"no face found in {missing}")]
    save_grid(rows, pictures_folder / "B-portraits.png")
    upper = torch.tensor([take.upper_face for take in spoken])
    jaw = [take.jaw_open for take in spoken if take.jaw_open is not None]
    gaps = [take.lip_gap for take in spoken if take.lip_gap is not None]
    angles = [take.angles for take in spoken if take.angles is not None]
    by_axis = torch.stack(angles).mean(dim=0).tolist() if angles else []
    note = f"{', '.join(names)}" + (f"; no face in {', '.join(missing)}" if missing else "")
    return [
        Row(
            "B portraits: face found in the output",
            float(torch.cat([take.found for take in spoken]).float().mean()),
            1.0,
            note=note,
        ),
        Row(
            "B portraits: jawOpen seen against ours",
            fmean(jaw) if jaw else None,
            0.8,
            note=f"{len(jaw)} takes: {' '.join(f'{value:.2f}' for value in jaw)}",
        ),
        Row(
            "B portraits: gap of the lips seen against ours",
            fmean(gaps) if gaps else None,
            note="by the landmarks, from which the row above is guessed",
        ),
        Row(
            "B portraits: head angles, mean error (°)",
            fmean(by_axis) if by_axis else None,
            5.0,
            "low",
            ", ".join(
                f"{name} {value:.1f}" for name, value in zip(("pitch", "yaw", "roll"), by_axis, strict=False)
            ),
        ),
        identity_row(names, own, [take.descriptors for take in spoken]),
        Row(
            "B upper face: SSIM with the portrait moved by our mesh",
            float(upper.mean()),
            note=", ".join(
                f"{name} {value:.2f}"
                for name, value in zip(names, upper.view(-1, takes).mean(dim=1).tolist(), strict=True)
            ),
        ),
    ]


def identity_row(names: Sequence[str], own: Sequence[Tensor], shown: Sequence[Tensor | None]) -> Row:
    """How far the frames are from their portrait, and from the nearest other one.

    Args:
        own: descriptors ``[1 or 0, E]`` of the portraits; none at all without a descriptor.
        shown: those ``[n, E]`` of the frames of every take, as many takes a portrait.
    """
    name = "B identity: distance of face descriptors"
    if not own:
        return Row(name, None, SAME_PERSON, "low", f"needs {PACKAGE} (MIT): run once with --fetch-descriptor")
    takes = len(shown) // len(names)
    near, others, notes = [], [], []
    for number, (person, mine) in enumerate(zip(names, own, strict=True)):
        frames = torch.cat(list(shown[number * takes : (number + 1) * takes]))
        if not len(mine) or not len(frames):
            notes.append(f"{person} –")
            continue
        distance = torch.cdist(frames, mine)[:, 0]
        near.append(distance)
        notes.append(f"{person} {float(distance.mean()):.2f}")
        rest = [theirs for other, theirs in enumerate(own) if other != number and len(theirs)]
        if rest:
            others.append(torch.cdist(frames, torch.cat(rest)).amin(dim=1))
    note = ", ".join(notes)
    if others:
        note += f"; to the nearest other portrait {float(torch.cat(others).mean()):.2f}"
    return Row(name, float(torch.cat(near).mean()) if near else None, SAME_PERSON, "low", note)


def describe_faces(describe: Describe, frames: Tensor, faces: Iterable[Face | None]) -> Tensor:
    """Descriptors ``[n, E]`` of the frames ``[F, 3, H, W]`` in which a face was found."""
    seen = [
        (frame, face.landmarks[:, :2]) for frame, face in zip(frames, faces, strict=True) if face is not None
    ]
    if not seen:
        return torch.zeros(0, 1)
    images, landmarks = (torch.stack(part) for part in zip(*seen, strict=True))
    return describe(images, landmarks)


@dataclass(frozen=True, eq=False)
class PortraitTake:
    """What was seen of a portrait that spoke.

    Attributes:
        found: in which frames the landmarker found a face, ``[F]`` bool.
        upper_face: :func:`upper_face_similarity`.
        jaw_open: correlation of the blendshape that the landmarker sees with ours; None, as the angles, where
            it found too few faces.
        lip_gap: correlation of the gap that it sees between the lips with ours.
        angles: mean error of pitch, yaw and roll in degrees, ``[3]``.
        descriptors: of every fifth frame, :func:`describe_faces`; None without a descriptor.
    """

    found: Tensor
    upper_face: float
    jaw_open: float | None
    lip_gap: float | None
    angles: Tensor | None
    descriptors: Tensor | None


def portrait_take(
    weights: Weights,
    reference: Reference,
    waveform: Tensor,
    landmarker: FaceLandmarker,
    seed: int,
    describe: Describe | None = None,
) -> tuple[Tensor, PortraitTake]:
    """Let a portrait speak, and look. Also returns the frames, ``[F, 3, S, S]``."""
    features = weights.audio_encoder.encode(waveform, SAMPLE_RATE, 25.0)
    expression, pose = weights.sequences(features, seed)
    frames = weights.talk(reference, expression, pose, "relative")
    wanted = apply_to_portrait(expression, pose, reference.expression, reference.pose, "relative")
    faces = list(landmarker.detect_video(frames.movedim(1, -1)))
    found = torch.tensor([face is not None for face in faces])
    jaw_open = lip_gap = angles = None
    if found.sum() >= 8:
        landmarks = torch.stack([face.landmarks[:, :2] for face in faces if face is not None])
        blendshapes = torch.stack([face.blendshapes for face in faces if face is not None])
        fit = fit_landmarks(
            landmarks / frames.shape[-1] * 2 - 1,
            weights.face_model,
            blendshapes,
            identity=reference.identity,
        )
        jaw = ARKIT_NAMES.index("jawOpen")
        expression, pose = (values[found] for values in wanted)
        jaw_open = correlation(blendshapes[:, jaw], expression[:, jaw])
        upper_lip, lower_lip = (landmarks[:, point] for point in INNER_LIPS[0])
        opening = mouth_opening(weights.face_model, reference.identity, expression)
        lip_gap = correlation((upper_lip - lower_lip).norm(dim=-1), opening)
        angles = torch.tensor([angle_error(fit.pose[:, i : i + 1], pose[:, i : i + 1]) for i in range(3)])
    upper_face = upper_face_similarity(weights, reference, frames, *wanted)
    descriptors = describe_faces(describe, frames[::5], faces[::5]) if describe is not None else None
    return frames, PortraitTake(found, upper_face, jaw_open, lip_gap, angles, descriptors)


@torch.no_grad()
def upper_face_similarity(
    weights: Weights, reference: Reference, frames: Tensor, expression: Tensor, pose: Tensor
) -> float:
    """SSIM of the upper face, eyes to brow, with the portrait moved to each frame's pose by the mesh."""
    size = frames.shape[-1]
    values = []
    for part in torch.arange(len(frames)).split(8):
        flow = reference_flow(
            weights.face_model,
            reference.identity,
            reference.expression,
            reference.pose,
            expression[part],
            pose[part],
            size,
            supersample=1,
        )
        moved = warp_reference(reference.crop.movedim(-1, 0)[None], flow.grid)
        region = upper_face_region(weights.face_model, reference.identity, expression[part], pose[part], size)
        # closed lids hide what the portrait shows, so only surface that both see counts
        visible = flow.masks[:, 1:2] > 0.5
        values.append(ssim(frames[part], moved, region & visible))
    return float(torch.cat(values).mean())


def upper_face_region(
    face_model: FaceModel, identity: Tensor, expression: Tensor, pose: Tensor, size: int
) -> Tensor:
    """The face above the tip of the nose, ``[F, 1, size, size]`` bool."""
    count = len(pose)
    region = face_region(face_model, identity.expand(count, -1), expression, pose, size)
    points = project(
        face_model.landmarks(apply_pose(face_model(identity.expand(count, -1), expression), pose)),
        face_model.camera,
    )
    nose_tip = ((points[:, 1, 1] + 1) * (size / 2)).view(-1, 1, 1, 1)
    return region & (torch.arange(size).view(1, 1, -1, 1) < nose_tip)

"""Real talking clips: the first frame and the sound go in; does the made mouth move as the real one did?"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from fd2talk_core.audio.reading import read_audio
from fd2talk_core.audio.resampling import to_mono_16k
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.landmarks import FaceLandmarker
from fd2talk_core.face.model import FaceModel, apply_pose, project
from fd2talk_core.face.state import FaceState
from fd2talk_core.formats.video_frames import VideoFrames
from fd2talk_core.frames.reference import encode_reference
from fd2talk_core.motion.coefficients import CoefficientSequence, apply_to_portrait
from fd2talk_core.motion.editing import smooth
from fd2talk_core.motion.sampling import sample_motion
from fd2talk_core.pipeline import FD2TalkPipeline

from ..sources import fingerprint, save_whole
from .motion import frame_energy
from .synchrony import Synchrony, lip_gap, lip_gaps, shift_in_time, synchrony
from .weights import Weights

ENDINGS = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi")

Measured = TypeVar("Measured")

Motion = tuple[CoefficientSequence, CoefficientSequence]
"""Expression and pose."""


@dataclass(frozen=True)
class MotionSettings:
    """What can be set without training.

    Attributes:
        guidance, intensity: as :func:`~fd2talk_core.motion.sampling.sample_motion` takes them; of the
            expression.
        steps: sampling steps of the expression; 0 takes the checkpoint's own.
        smooth: standard deviation in seconds of a Gaussian over the made expression.
        shift: seconds by which the made expression comes later; negative: earlier.
    """

    guidance: float = 1.0
    intensity: float = 1.0
    steps: int = 0
    smooth: float = 0.0
    shift: float = 0.0

    @classmethod
    def parse(cls, text: str) -> MotionSettings:
        """``"guidance=2,shift=-0.04"``; what is not named keeps its default.

        Raises:
            FD2TalkError: naming what is no setting or no number.
        """
        known = {field.name: type(field.default) for field in fields(cls)}
        values = {}
        for part in text.split(","):
            name, _, value = part.partition("=")
            name = name.strip()
            if name not in known:
                raise FD2TalkError(
                    f"{part!r} is no setting; write NAME=VALUE with one of {', '.join(known)}."
                )
            try:
                values[name] = known[name](value)
            except ValueError:
                raise FD2TalkError(f"{part!r} gives {name} no number.") from None
        return cls(**values)

    def __str__(self) -> str:
        changed = [
            f"{field.name}={getattr(self, field.name):g}"
            for field in fields(self)
            if getattr(self, field.name) != field.default
        ]
        return ",".join(changed) or "default"


@dataclass(frozen=True, eq=False)
class TalkingClip:
    """A real clip, as far as it is measured.

    Attributes:
        name: of its file.
        fps: frames per second.
        portrait: ``[H, W, 3]`` uint8, the first frame.
        lips: ``[F]``, :func:`~training.scorecard.synchrony.lip_gap` of each frame, nan without a face.
        audio: ``(waveform [C, N], sample_rate)``.
    """

    name: str
    fps: float
    portrait: Tensor
    lips: np.ndarray
    audio: tuple[Tensor, int]

    @cached_property
    def waveform(self) -> Tensor:
        """``[N]`` at 16 kHz."""
        return to_mono_16k(*self.audio)

    @property
    def loudness(self) -> np.ndarray:
        """``[F]``, the loudness of each frame: a mouth that hears nothing but that."""
        return frame_energy(self.waveform, len(self.lips), self.fps).double().numpy()


def read_clip(
    path: Path, landmarker: FaceLandmarker, seconds: float | None = None, cache: Path | None = None
) -> TalkingClip:
    """Frames, lips and sound of a clip, cut to ``seconds`` where given.

    Args:
        cache: folder in which the lips are kept between runs, under a name that stands for the file's bytes.

    Raises:
        FD2TalkError: when it is no video, has no sound, or shows no face in its first frame or most others.
    """
    waveform, rate = read_audio(path)
    video = VideoFrames(path, duration=seconds or 0.0)
    kept = cache / f"{fingerprint(path.read_bytes(), seconds)}.safetensors" if cache else None
    if kept and kept.is_file():
        lips = load_file(kept)["lips"]
    else:
        faces = landmarker.detect_video(iter(video))
        lips = torch.from_numpy(lip_gaps(None if face is None else face.landmarks for face in faces))
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            save_whole({"lips": lips}, kept)
    found = int((~lips.isnan()).sum())
    if found < max(10, len(lips) // 2):
        raise FD2TalkError(f"{path.name} shows a face in {found} of {len(lips)} frames: too few to measure.")
    if lips[0].isnan():
        raise FD2TalkError(f"{path.name} shows no face in its first frame, which would be the portrait.")
    samples = round(len(lips) / video.fps * rate)
    return TalkingClip(path.name, video.fps, next(iter(video)), lips.numpy(), (waveform[:, :samples], rate))


def list_clips(folder: Path) -> list[Path]:
    """The videos of a folder, by name.

    Raises:
        FD2TalkError: when there is no such folder or no video in it.
    """
    if not folder.is_dir():
        raise FD2TalkError(f"There is no folder {folder}: give one that holds talking clips.")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS)
    if not found:
        raise FD2TalkError(f"{folder} holds no video ({', '.join(ENDINGS)}): give a folder of talking clips.")
    return found


def measure_each(
    folder: Path, measurements: Iterable[tuple[str, Callable[[], Measured]]]
) -> tuple[list[Measured], list[str]]:
    """What can be measured of a folder's clips, and a line for each that cannot.

    Args:
        measurements: what is measured, in words, and how.

    Raises:
        FD2TalkError: when nothing can be.
    """
    found, left_out = [], []
    for what, measure in measurements:
        try:
            found.append(measure())
        except FD2TalkError as error:
            left_out.append(f"{what} left out: {error}")
    if not found:
        raise FD2TalkError(f"No clip in {folder} can be measured. {' '.join(left_out)}")
    return found, left_out


def keep_scores(out: Path, name: str, clips: Sequence[Any], text: str) -> str:
    """Write ``NAME.json`` and ``NAME.txt``, and return the text."""
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps([asdict(clip) for clip in clips], indent=2), "utf-8")
    (out / f"{name}.txt").write_text(text + "\n", "utf-8")
    return text


class ClipBench:
    """The clips of a folder, and what a set of weights makes of them.

    Args:
        render: read the made lips from rendered frames, by the landmarker that read the real ones. Without,
            they are read from the mesh, projected as the frames would show it, which costs no frame.
    """

    def __init__(self, weights: Weights, clips: Sequence[TalkingClip], render: bool = False) -> None:
        self.weights, self.clips, self.render = weights, tuple(clips), render
        self.landmarker = FaceLandmarker()
        self._features = [weights.audio_encoder.encode(*clip.audio, clip.fps) for clip in self.clips]
        self._motion: dict[tuple[int, int, MotionSettings], Motion] = {}

    @cached_property
    def _portraits(self) -> list[FaceState]:
        return [
            encode_reference(
                clip.portrait, self.weights.autoencoder, self.landmarker, self.weights.face_model
            ).face
            for clip in self.clips
        ]

    @cached_property
    def _pipeline(self) -> FD2TalkPipeline:
        weights = self.weights
        return FD2TalkPipeline(
            weights.audio_encoder,
            weights.expression,
            weights.pose,
            weights.autoencoder,
            weights.unet,
            weights.face_model,
            self.landmarker,
        )

    def motion(self, number: int, seed: int, settings: MotionSettings) -> Motion:
        """Expression and pose of a clip. What is sampled is kept: smoothing and shifting cost nothing."""
        sampled = replace(settings, smooth=0.0, shift=0.0)
        key = (number, seed, sampled)
        if key not in self._motion:
            features = self._features[number]
            self._motion[key] = (
                sample_motion(
                    self.weights.expression,
                    features,
                    kind="expression",
                    seed=seed,
                    steps=sampled.steps or None,
                    guidance=sampled.guidance,
                    intensity=sampled.intensity,
                ),
                sample_motion(self.weights.pose, features, kind="pose", seed=seed),
            )
        expression, pose = self._motion[key]
        expression = smooth(expression, settings.smooth)
        moved = shift_in_time(expression.values, settings.shift * expression.fps)
        return expression.replace(values=moved), pose

    def made_lips(self, number: int, motion: Motion) -> np.ndarray:
        """``[F]``: the gap of the lips that a motion gives."""
        if not self.render:
            return mesh_lips(self._portraits[number], *motion, self.weights.face_model)
        clip = self.clips[number]
        video = self._pipeline(clip.portrait, clip.audio, motion=motion, detail=self.weights.detail)
        frames = (frame for chunk in video.chunks for frame in chunk)
        return lip_gaps(
            None if face is None else face.landmarks for face in self.landmarker.detect_video(frames)
        )

    def score(self, settings: MotionSettings, seeds: int) -> list[list[Synchrony]]:
        """For each clip, the synchrony of each seed."""
        return [
            [self.follow(number, self.motion(number, seed, settings)) for seed in range(seeds)]
            for number in range(len(self.clips))
        ]

    def follow(self, number: int, motion: Motion) -> Synchrony:
        """How a clip's mouth is followed by that of a motion."""
        clip = self.clips[number]
        return synchrony(clip.lips, self.made_lips(number, motion), clip.fps)

    def loudness(self) -> list[Synchrony]:
        """For each clip, what loudness alone would score as a mouth."""
        return [synchrony(clip.lips, clip.loudness, clip.fps) for clip in self.clips]


@torch.no_grad()
def mesh_lips(
    portrait: FaceState, expression: CoefficientSequence, pose: CoefficientSequence, face_model: FaceModel
) -> np.ndarray:
    """``[F]``: :func:`~training.scorecard.synchrony.lip_gap` of a portrait in motion, from the landmarks of
    its mesh as the camera sees them.
    """
    values, poses = apply_to_portrait(expression, pose, portrait.expression, portrait.pose)
    gaps = []
    for part in torch.arange(len(values)).split(256):
        shape = face_model(portrait.identity.expand(len(part), -1), values[part])
        points = project(apply_pose(face_model.landmarks(shape), poses[part]), face_model.camera)
        gaps.append(lip_gap(points[..., :2]))
    return torch.cat(gaps).double().numpy()


def mean(scores: Sequence[Sequence[Synchrony]], name: str) -> float:
    """The mean of a field of :class:`Synchrony` over clips and seeds."""
    return fmean(getattr(one, name) for clip in scores for one in clip)


def gain(
    scores: Sequence[Sequence[Synchrony]], default: Sequence[Sequence[Synchrony]], name: str = "r"
) -> tuple[float, float]:
    """The mean gain of a field over the default with the same clips and seeds, and its standard error.

    Seeds of a clip share their sound, so the error is that of the clips' means and of the seeds in them,
    whichever is larger.
    """
    by_clip = np.array(
        [
            [getattr(one, name) - getattr(other, name) for one, other in zip(*pair, strict=True)]
            for pair in zip(scores, default, strict=True)
        ]
    )
    errors = [
        values.std(ddof=1) / len(values) ** 0.5
        for values in (by_clip.mean(axis=1), by_clip.ravel())
        if len(values) > 1
    ]
    return float(by_clip.mean()), float(max(errors, default=float("nan")))

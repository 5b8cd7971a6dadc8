"""A talking clip, made again from its first frame and its sound, or its own motion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fd2talk_core.audio.reading import has_sound, read_audio
from fd2talk_core.audio.resampling import SAMPLE_RATE, to_mono_16k
from fd2talk_core.checks import check_number, check_whole
from fd2talk_core.errors import FD2TalkError, NoFaceError
from fd2talk_core.face.crop import CropTransform
from fd2talk_core.face.landmarks import FaceLandmarker, check_picture
from fd2talk_core.face.model import FaceModel
from fd2talk_core.formats.video_frames import VideoFrames
from fd2talk_core.frames.reference import encode_reference
from fd2talk_core.motion.coefficients import CoefficientSequence
from fd2talk_core.motion.tracking import FaceTrack, follow_face, read_motion

from ..scorecard.weights import Weights

FPS = 25.0
"""All papers' frame rate, and SyncNet's."""


@dataclass(frozen=True)
class MakingOptions:
    """How clips are made.

    Attributes:
        seconds: of each clip, from its start.
        driven: by the clip's own motion in place of its sound.
        seed: of the motion whose frames are measured.
        seeds: motions sampled for the diversity of expressions; 1 leaves that column out.
    """

    seconds: float = 10.0
    driven: bool = False
    seed: int = 0
    seeds: int = 3

    def __post_init__(self) -> None:
        check_number(self.seconds, "--seconds", 0, 3600, over=True)
        check_whole(self.seed, "--seed", 0, 2**63 - 1)
        check_whole(self.seeds, "--seeds", 1, 1000)


@dataclass(frozen=True, eq=False)
class Seen:
    """What is read off frames.

    Attributes:
        landmarks: ``[F, 478, 2]`` pixels; a frame without a face has those of the nearest that has one.
        found: ``[F]`` bool.
        expression: ``[F, D_β]``. pose: ``[F, 6]``.
    """

    landmarks: Tensor
    found: Tensor
    expression: Tensor
    pose: Tensor

    @property
    def boxes(self) -> Tensor:
        """``[F, 4]`` left, top, right, bottom around the landmarks."""
        return torch.cat([self.landmarks.amin(dim=1), self.landmarks.amax(dim=1)], dim=1)

    @classmethod
    def of(cls, frames: Tensor, landmarker: FaceLandmarker, face_model: FaceModel) -> Seen | None:
        """Of frames ``[F, 3, H, W]`` in 0..1 at :data:`FPS`; None when none shows a face."""
        try:
            track = follow_face(frames.movedim(1, -1).unbind(), landmarker)
        except NoFaceError:
            return None
        motion = read_motion(track, FPS, face_model, missing="hold")
        return cls(_held(track), track.found, motion.expression.values, motion.pose.values)


@dataclass(frozen=True, eq=False)
class MadeClip:
    """A clip and what was made of it; F frames at :data:`FPS`, both in the portrait's crop.

    Attributes:
        real, made: ``[F, 3, S, S]`` in 0..1, in steps of 1/255 as videos hold them.
        inside: ``[1, 1, S, S]`` bool, what of the crop lies in the video; beyond, its edge goes on.
        real_seen, made_seen: what is read off them; None where no made frame shows a face.
        asked: ``[F, D_β]``, the expression that the frames were made with.
        expressions: ``[K, F, D_β]``, sampled with K seeds; None where the clip is driven.
        waveform: ``[N]`` at 16 kHz, None for a silent clip.
    """

    name: str
    real: Tensor
    made: Tensor
    inside: Tensor
    real_seen: Seen
    made_seen: Seen | None
    asked: Tensor
    expressions: Tensor | None
    waveform: Tensor | None


def read_frames(path: Path, seconds: float) -> list[Tensor]:
    """The start of a video at :data:`FPS`: of each instant (i + 0.5) / FPS the frame that is shown, ``[H, W,
    3]`` uint8.
    """
    video = VideoFrames(path, duration=seconds)
    frames = list(video.span())
    if not frames:
        raise FD2TalkError(f"{path.name} has no frames.")
    count = max(1, round(len(frames) / video.fps * FPS))
    return [frames[min(int((i + 0.5) / FPS * video.fps), len(frames) - 1)] for i in range(count)]


def make_clip(weights: Weights, path: Path, options: MakingOptions, landmarker: FaceLandmarker) -> MadeClip:
    """Make one clip again, and read both.

    Raises:
        FD2TalkError: when it is no video, shows no face, or has no sound to be driven by.
    """
    pictures = [check_picture(frame) for frame in read_frames(path, options.seconds)]
    waveform = None
    if has_sound(path):
        sound, rate = read_audio(path)
        sound = sound[:, : round(len(pictures) / FPS * rate)]
        waveform = to_mono_16k(sound, rate)
    elif not options.driven:
        raise FD2TalkError(f"{path.name} has no sound to speak with; --driven needs none.")
    reference = encode_reference(pictures[0], weights.autoencoder, landmarker, weights.face_model)
    expressions = None
    if options.driven:
        motion = read_motion(follow_face(pictures, landmarker), FPS, weights.face_model, missing="hold")
        expression, pose = motion.expression, motion.pose
    else:
        features = weights.audio_encoder.encode(waveform[None], SAMPLE_RATE, FPS)
        sampled = [weights.sequences(features, options.seed + number) for number in range(options.seeds)]
        expression, pose = sampled[0]
        expressions = torch.stack([one.values for one, _ in sampled])
    count = min(len(pictures), len(expression.values))
    expression, pose = (_first(part, count) for part in (expression, pose))
    made = _as_stored(weights.talk(reference, expression, pose, "relative"))
    crops = (reference.crop_transform.to_crop(picture).movedim(-1, 0) for picture in pictures[:count])
    real = _as_stored(torch.stack(list(crops)))
    real_seen = Seen.of(real, landmarker, weights.face_model)
    if real_seen is None:
        raise FD2TalkError(f"No face was found in the portrait's crop of {path.name}.")
    return MadeClip(
        path.stem,
        real,
        made,
        _inside(reference.crop_transform, pictures[0]),
        real_seen,
        Seen.of(made, landmarker, weights.face_model),
        expression.values,
        None if expressions is None else expressions[:, :count],
        waveform,
    )


def _first(sequence: CoefficientSequence, count: int) -> CoefficientSequence:
    return sequence.replace(values=sequence.values[:count])


def _inside(transform: CropTransform, picture: Tensor) -> Tensor:
    height, width = picture.shape[:2]
    centres = torch.arange(transform.size) + 0.5
    rows, columns = torch.meshgrid(centres, centres, indexing="ij")
    x, y = transform.points_to_picture(torch.stack([columns, rows], dim=-1)).unbind(-1)
    return ((x >= 0) & (y >= 0) & (x <= width) & (y <= height))[None, None]


def _as_stored(frames: Tensor) -> Tensor:
    return (frames.clamp(0, 1) * 255).round() / 255


def _held(track: FaceTrack) -> Tensor:
    seen = track.found.long().cumsum(0) - 1
    return track.landmarks[seen.clamp_min(0)]

"""Clips of one film: one person, one shot, a face in a crop that stands still, α, β and p of every frame.

The crop is that of the first-order motion model's preparation of VoxCeleb: one square a clip, around where
the head usually stands, and a clip ends where the head has left the place that it began in. Its framing is
that of the face model's camera, as that of every portrait.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import av
import torch
from torch import Tensor

from fd2talk_core.audio.features import NATIVE_FPS
from fd2talk_core.audio.reading import has_sound, read_audio
from fd2talk_core.audio.resampling import SAMPLE_RATE, to_mono_16k
from fd2talk_core.checks import check_number, check_whole
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.crop import CropTransform
from fd2talk_core.face.landmarks import Face, FaceLandmarker
from fd2talk_core.face.model import FaceModel, apply_pose, project
from fd2talk_core.face.names import ARKIT_NAMES, POSE_NAMES
from fd2talk_core.files import check_input, shown_path
from fd2talk_core.formats.deep3d import read_deep3d
from fd2talk_core.imaging import to_bytes
from fd2talk_core.media import open_media
from fd2talk_core.motion.coefficients import CoefficientSequence
from fd2talk_core.motion.editing import smooth
from fd2talk_core.motion.filming import numbered_by_shot
from fd2talk_core.motion.tracking import (
    SMOOTH_EXPRESSION,
    SMOOTH_POSE,
    FaceFitter,
    FaceTrack,
    face_look,
    lips_shut,
    with_closures,
)
from fd2talk_core.networks.checkpoint import LARGEST_RESOLUTION

from .films import Film, Pictures, open_film
from .synchrony import SyncFilter, Timing

REASONS = {
    "unreadable": "the file cannot be read",
    "no_face": "no face is seen",
    "short": "the face stays in place for too short a time",
    "several": "another face is beside it",
    "small": "the head is too small",
    "cut_off": "the face reaches beyond the picture",
    "poor_fit": "the face model does not fit",
    "no_coefficients": "its coefficients were not brought",
    "out_of_sync": "the lips do not go with the sound",
}
"""Why material is dropped, and what a report calls it."""

LEFT_PLACE = 0.25
"""Overlap (intersection over union) of the face's box with the clip's first, under which the clip ends."""

BESIDE, BESIDE_SHARE = 0.4, 0.25
"""Another face counts from this part of the followed one's size on, seen in this part of the looks."""
LOOK_EVERY, LOOK_FACE = 25, 96
"""How often others are looked for, in frames, and how large the followed face is in what is looked at."""

OUTSIDE_SHARE, OUTSIDE_AREA = 0.1, 0.65
"""Frames whose landmarks reach beyond the picture, and area of the crop beyond it, that are too many."""

FIT_ERROR = 0.06
"""Landmark error of a fit, in half widths of the crop, that is worth nothing; good ones have 0.01."""

SILENCE = 1e-3
"""Peak of a waveform that is none."""

SPARE_SECONDS = 0.12
"""By which sound may end before its pictures."""


@dataclass(frozen=True)
class CutSettings:
    """What a clip must be.

    Attributes:
        size: side of the crops in pixels.
        min_seconds: the shortest clip.
        max_frames: the longest clip; more is another clip.
        min_quality: mean quality of a clip's frames, see :class:`Clip`.
        pictures: frames of each clip that stage two learns from: the first, and others spread evenly.
        sync_weights: folder of weights whose lip expert hears whether lips go with the sound; empty: not
            asked.
        min_sync: confidence that it needs.
        sound: False leaves the sound of the films alone, so that they serve stage two only.
        coefficients: folder of Deep3D's coefficients that take the place of ours, ``PLACE.mat`` for each film
            with a row for each frame at the native rate; empty: ours.
        face_model: file of the face model that they are of.
    """

    size: int = 256
    min_seconds: float = 2.0
    max_frames: int = 1024
    min_quality: float = 0.5
    pictures: int = 24
    sync_weights: str = ""
    min_sync: float = 0.05
    sound: bool = True
    coefficients: str = ""
    face_model: str = ""

    def __post_init__(self) -> None:
        check_whole(self.size, "--size", 32, LARGEST_RESOLUTION)
        check_number(self.min_seconds, "--min-seconds", 0.2, 60)
        check_whole(self.max_frames, "--max-frames", self.min_frames, 100_000)
        check_number(self.min_quality, "--min-quality", 0, 1)
        check_whole(self.pictures, "--pictures", 2, 10_000)
        check_number(self.min_sync, "--min-sync", -1, 1)
        if bool(self.coefficients) != bool(self.face_model):
            raise FD2TalkError("--coefficients and --face-model belong together: give both, or neither.")

    @property
    def min_frames(self) -> int:
        return math.ceil(self.min_seconds * NATIVE_FPS)


@dataclass(frozen=True, eq=False)
class Clip:
    """One person in F frames at the native rate.

    Attributes:
        first: number of its first frame in the film.
        square: centre x, y and side in pixels of the film's pictures.
        identity: ``[D_α]``. expression: ``[F, D_β]``. pose: ``[F, 6]``, in the crop.
        quality: ``[F]`` in 0..1: how surely a frame shows a face, times how closely the model fits it, times
            how like itself the mouth looks.
        waveform: ``[640 F]`` at 16 kHz, or None for a silent clip.
        timing: what the lip expert hears, or None where it was not asked.
    """

    first: int
    square: tuple[float, float, float]
    identity: Tensor
    expression: Tensor
    pose: Tensor
    quality: Tensor
    waveform: Tensor | None
    timing: Timing | None

    @property
    def num_frames(self) -> int:
        return len(self.pose)

    def shown(self, picture: Tensor, size: int) -> Tensor:
        """The crop ``[size, size, 3]`` uint8 of a picture of the film."""
        return cropped(picture, self.square, size)


def cropped(picture: Tensor, square: tuple[float, float, float], size: int) -> Tensor:
    """``[H, W, 3]`` uint8 to the crop ``[size, size, 3]`` uint8 of a square (centre x, y, side)."""
    crop = CropTransform.of_square(*square, size).to_crop(picture.float() / 255)
    return to_bytes(crop[None])[0]


@dataclass(frozen=True)
class Dropped:
    """Material that is left out.

    Attributes:
        reason: one of :data:`REASONS`.
        first, frames: which part of the film.
        told: the number that decided, in words; empty where there is none.
    """

    reason: str
    first: int
    frames: int
    told: str = ""


def cut_film(film: Film, settings: CutSettings, tools: Tools) -> Iterator[Clip | Dropped]:
    """What a film holds, in order."""
    try:
        pictures = open_film(film)
        sound = _sound(film) if settings.sound else None
        found = False
        for part in _parts(pictures, settings, tools.landmarker):
            found = True
            if isinstance(part, Dropped):
                yield part
                continue
            result = _fitted(part, sound, settings, tools)
            if settings.coefficients and isinstance(result, Clip):
                result = with_brought(result, film, Path(settings.coefficients), tools.labels)
            yield result
    except FD2TalkError as error:
        yield Dropped("unreadable", 0, 0, str(error))
        return
    if not found:
        yield Dropped("unreadable", 0, 0, "It holds no pictures.")


@dataclass(frozen=True, eq=False)
class Tools:
    """What cutting needs and a process makes once.

    Attributes:
        face_model: is fitted.
        labels: the face model of the coefficients that are kept; the same, unless they are brought.
    """

    landmarker: FaceLandmarker
    face_model: FaceModel
    sync: SyncFilter | None
    labels: FaceModel


def with_brought(clip: Clip, film: Film, folder: Path, face_model: FaceModel) -> Clip | Dropped:
    """A clip with the coefficients that a user has brought for its film.

    Raises:
        FD2TalkError: when they are broken, too few, or of another size than the face model's.
    """
    path = folder / Path(film.place).with_suffix(".mat")
    if not path.exists():
        return Dropped("no_coefficients", clip.first, clip.num_frames)
    try:
        brought = read_deep3d(check_input(path, "file of coefficients"))
    except FD2TalkError as error:
        raise FD2TalkError(f"Of {shown_path(path.name)}: {error}") from error
    if brought.identity is None or brought.expression is None or brought.pose is None:
        raise FD2TalkError(f"{shown_path(path.name)} has no identity: full rows of 257 numbers are needed.")
    rows = slice(clip.first, clip.first + clip.num_frames)
    expression, pose = brought.expression[rows].float(), brought.pose[rows].float()
    identity = brought.identity[rows].float().mean(dim=0)
    if len(pose) < clip.num_frames:
        raise FD2TalkError(
            f"{shown_path(path.name)} has {len(brought.pose)} rows, but a clip ends at frame {rows.stop}."
        )
    if (len(identity), expression.shape[1]) != (face_model.identity_dim, face_model.expression_dim):
        raise FD2TalkError(f"{shown_path(path.name)} is of another face model than {face_model.name!r}.")
    return replace(clip, identity=identity, expression=expression, pose=pose)


@dataclass(eq=False)
class _Part:
    """Frames in a row with one face, as they are gathered.

    Attributes:
        sides: height and width of the pictures.
        faces, looks: of the frames.
        beside: of each look around, whether another face was seen.
    """

    first: int
    sides: tuple[int, int]
    faces: list[Face] = field(default_factory=list)
    looks: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    beside: list[bool] = field(default_factory=list)

    def track(self) -> FaceTrack:
        looks = iter(self.looks)
        return FaceTrack.of_faces(self.faces, lambda face: next(looks))


def _parts(
    pictures: Pictures, settings: CutSettings, landmarker: FaceLandmarker
) -> Iterator[_Part | Dropped]:
    """Stretches of one shot in which one face stays in place, and those that are too short or show none."""
    number = 0
    for _, shot in groupby(numbered_by_shot(pictures.span(fps=NATIVE_FPS)), key=itemgetter(0)):
        part: _Part | None = None
        empty = 0
        for picture, face in _faces(map(itemgetter(1), shot), landmarker):
            if part is not None and (face is None or _ended(part, face, settings)):
                yield _long_enough(part, settings)
                part = None
            if face is None:
                empty += 1
            elif empty:
                yield Dropped("no_face", number - empty, empty)
                empty = 0
            if face is not None:
                part = part or _Part(number, (picture.shape[0], picture.shape[1]))
                if len(part.faces) % LOOK_EVERY == 0:
                    part.beside.append(_has_company(picture, face, landmarker))
                part.faces.append(face)
                part.looks.append(face_look(picture, face))
            number += 1
        if part is not None:
            yield _long_enough(part, settings)
        if empty:
            yield Dropped("no_face", number - empty, empty)


def _faces(frames: Iterator[Tensor], landmarker: FaceLandmarker) -> Iterator[tuple[Tensor, Face | None]]:
    """Every picture of a shot with the face that is followed in it."""
    seen: list[Tensor] = []

    def remembered() -> Iterator[Tensor]:
        for frame in frames:
            seen[:] = [frame]
            yield frame

    for face in landmarker.detect_video(remembered()):
        yield seen[0], face


def _ended(part: _Part, face: Face, settings: CutSettings) -> bool:
    return len(part.faces) >= settings.max_frames or _overlap(part.faces[0], face) < LEFT_PLACE


def _overlap(one: Face, other: Face) -> float:
    """Intersection over union of two boxes."""
    (a, b, c, d), (e, f, g, h) = one.box_xyxy, other.box_xyxy
    shared = max(0.0, min(c, g) - max(a, e)) * max(0.0, min(d, h) - max(b, f))
    return shared / max(one.area + other.area - shared, 1e-9)


def _long_enough(part: _Part, settings: CutSettings) -> _Part | Dropped:
    frames = len(part.faces)
    if frames < settings.min_frames:
        return Dropped("short", part.first, frames, f"{frames / NATIVE_FPS:.2f} s")
    return part


def _has_company(picture: Tensor, face: Face, landmarker: FaceLandmarker) -> bool:
    """Whether another face of some size is in the picture; small ones need not be looked for."""
    side = math.sqrt(face.area)
    scale = max(min(1.0, LOOK_FACE / side), 64 / min(picture.shape[:2]))
    if scale < 1:
        small = torch.nn.functional.interpolate(
            picture.movedim(-1, 0)[None].float() / 255,
            scale_factor=scale,
            mode="bilinear",
            antialias=True,
            align_corners=False,
        )
        picture = small[0].movedim(0, -1).clamp(0, 1)
    scale = min(scale, 1.0)
    others = (
        other
        for other in landmarker.detect(picture)
        if math.dist(other.centre, [place * scale for place in face.centre]) > 0.5 * side * scale
    )
    return any(math.sqrt(other.area) > BESIDE * side * scale for other in others)


def _fitted(part: _Part, sound: Tensor | None, settings: CutSettings, tools: Tools) -> Clip | Dropped:
    """The clip of a stretch, or why it is left out."""
    first, frames = part.first, len(part.faces)
    if sum(part.beside) > BESIDE_SHARE * len(part.beside):
        return Dropped("several", first, frames, f"in {sum(part.beside)} of {len(part.beside)} looks")
    beyond = _beyond(part)
    if beyond > OUTSIDE_SHARE:
        return Dropped("cut_off", first, frames, f"in {beyond:.0%} of the frames")
    track = part.track()
    fitter = FaceFitter(track, tools.face_model)
    left, top, right, bottom = fitter.transform.box
    square = ((left + right) / 2, (top + bottom) / 2, right - left)
    if square[2] < settings.size / 2:
        return Dropped("small", first, frames, f"{square[2]:.0f} px for a crop of {settings.size}")
    height, width = part.sides
    inside = max(0.0, min(right, width) - max(left, 0)) * max(0.0, min(bottom, height) - max(top, 0))
    if 1 - inside / square[2] ** 2 > OUTSIDE_AREA:
        return Dropped("cut_off", first, frames, f"{1 - inside / square[2] ** 2:.0%} of the crop")

    expression, pose = fitter.fit(track)
    likeness = fitter.likeness(track, expression, pose)
    expression = fitter.with_lips(track, expression, pose)
    quality = _quality(track, part, fitter, expression, pose) * likeness_share(likeness)
    mean = float(quality.mean())
    if mean < settings.min_quality:
        return Dropped("poor_fit", first, frames, f"quality {mean:.2f}")
    expression, pose = _smoothed(expression, pose, lips_shut(track.landmarks), tools.face_model)

    heard = None if sound is None else _span(sound, first, frames, settings.min_frames)
    if heard is not None:
        count = len(heard) * int(NATIVE_FPS) // SAMPLE_RATE
        expression, pose, quality = expression[:count], pose[:count], quality[:count]
    timing = None
    if heard is not None and tools.sync is not None:
        timing = tools.sync.listen(expression, heard)
        if timing.confidence < settings.min_sync:
            return Dropped("out_of_sync", first, frames, str(timing))
    return Clip(first, square, fitter.identity, expression, pose, quality, heard, timing)


def _beyond(part: _Part) -> float:
    """Part of the frames in which the face reaches beyond the picture."""
    height, width = part.sides
    boxes = torch.tensor([face.box_xyxy for face in part.faces])
    margin = 0.02 * (boxes[:, 2:] - boxes[:, :2]).amax(dim=1)
    low, high = boxes[:, :2].amin(dim=1) < -margin, boxes[:, 2:] - torch.tensor([width, height])
    return float((low | (high.amax(dim=1) > margin)).float().mean())


def likeness_share(likeness: Tensor) -> Tensor:
    """``[F]`` in 0..1: how like itself a mouth looks beside how it usually does."""
    return (likeness / likeness.median().clamp_min(1e-3)).clamp(0, 1)


def _quality(track: FaceTrack, part: _Part, fitter: FaceFitter, expression: Tensor, pose: Tensor) -> Tensor:
    """``[F]``: the landmarker's score, times how near the fitted model's points lie to the landmarks."""
    wanted = fitter.transform.points_to_ndc(track.landmarks)
    errors = []
    for rows in torch.arange(len(pose)).split(64):
        errors.append(
            landmark_error(fitter.face_model, fitter.identity, expression[rows], pose[rows], wanted[rows])
        )
    scores = torch.tensor([face.score for face in part.faces])
    return scores * (1 - torch.cat(errors) / FIT_ERROR).clamp(0, 1)


def landmark_error(
    face_model: FaceModel, identity: Tensor, expression: Tensor, pose: Tensor, landmarks: Tensor
) -> Tensor:
    """``[F]``: root mean square distance of the model's points from landmarks ``[F, 468 or 478, 2]``, in half
    widths of the crop.
    """
    points = face_model.landmarks(apply_pose(face_model(identity[None], expression), pose))
    places = project(points, face_model.camera)[..., :2]
    return (places - landmarks[:, : places.shape[1]]).square().sum(dim=-1).mean(dim=-1).sqrt()


def _smoothed(expression: Tensor, pose: Tensor, shut: Tensor, face_model: FaceModel) -> tuple[Tensor, Tensor]:
    """As a driving video is, whose lips are shut as far as ``[F]`` says."""
    name = face_model.name
    of_face = CoefficientSequence("expression", expression, NATIVE_FPS, name, ARKIT_NAMES)
    of_head = CoefficientSequence("pose", pose, NATIVE_FPS, name, POSE_NAMES)
    values = with_closures(expression, smooth(of_face, SMOOTH_EXPRESSION).values, shut).clamp(0, 1)
    return values, smooth(of_head, SMOOTH_POSE).values


def _sound(film: Film) -> Tensor | None:
    """The film's sound at 16 kHz from its first picture on; None where it has none, or is silent."""
    if film.path.is_dir() or not has_sound(film.path):
        return None
    waveform = to_mono_16k(*read_audio(film.path))
    late = round(_sound_begins(film.path) * SAMPLE_RATE)
    waveform = waveform[-late:] if late < 0 else torch.cat([torch.zeros(late), waveform])
    return waveform if len(waveform) and waveform.abs().max() > SILENCE else None


def _sound_begins(path: Path) -> float:
    """Seconds from the first picture to the first sample; under 0 where the sound begins first."""
    times = []
    for kind in ("audio", "video"):
        try:
            with open_media(path) as container:
                frame = next(container.decode(**{kind: 0}), None)
        except (av.FFmpegError, OSError) as error:
            raise FD2TalkError(f"{path.name} cannot be decoded ({error}).") from error
        times.append(0.0 if frame is None else float(frame.time or 0.0))
    return times[0] - times[1]


def _span(sound: Tensor, first: int, frames: int, least: int) -> Tensor | None:
    """The sound of some frames; where it ends before them, that of whole frames; None of too few."""
    step = SAMPLE_RATE // int(NATIVE_FPS)
    part = sound[first * step : (first + frames) * step]
    missing = frames * step - len(part)
    if missing <= SPARE_SECONDS * SAMPLE_RATE:
        part = torch.nn.functional.pad(part, (0, missing))
    part = part[: len(part) // step * step]
    return part.clone() if len(part) >= least * step and part.abs().max() > SILENCE else None


def settings_words(settings: CutSettings) -> dict[str, object]:
    """For a file: another run must have the same."""
    return {entry.name: getattr(settings, entry.name) for entry in fields(settings)}

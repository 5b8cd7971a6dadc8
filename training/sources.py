"""What the stages learn from: stretches of speech with their motion, and labelled pictures.

Labels are held in memory. Pictures and sound stay in their shards until they are asked for, so that a set
may be larger than the memory; any can be asked for at once, so what a run sees depends on its step alone.

The stages know nothing of how the shards were made; this is the one place that reads them.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import shutil
import tarfile
import wave
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save_file
from torch import Tensor

from fd2talk_core.audio.encoder import AudioEncoder
from fd2talk_core.audio.features import NATIVE_FPS, AudioFeatures
from fd2talk_core.audio.resampling import SAMPLE_RATE, to_mono_16k
from fd2talk_core.checks import check_number, check_type
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.model import FaceModel, default_face_model
from fd2talk_core.files import check_input, reason_of, replacing
from fd2talk_core.imaging import open_picture
from fd2talk_core.motion.coefficients import LARGEST_VALUE, CoefficientSequence
from fd2talk_core.networks.checkpoint import in_set
from fd2talk_core.timing import frame_count
from fd2talk_core.waveforms import as_float, check_sample_rate

from .corpus.shards import Stored, find_samples

WAV_HEADER = 4096
"""Bytes of a WAV file within which its samples begin."""

SPARE_FRAMES = 3
"""By which a recording and its motion may differ: its last frame may be cut, or half heard."""


@dataclass(frozen=True, eq=False)
class SpeechClip:
    """A recording and the motion of the head that speaks it, frame for frame.

    Attributes:
        name: unique in its set.
        sound: ``[N]`` at 16 kHz; float in -1..1, or PCM that may still lie in its shard.
        phonemes: ``(name, start, end)`` in seconds, in order.
        expression: ``[F, D_β]``.
        pose: ``[F, 6]``.
        identity: ``[D_α]``.
        fps: of the motion.
        features: ``[F, D_a]`` float16, once an encoder has been run.
        encoder: its name.
        style, style_strength: how it is said, such as ``"happy"``, and how much so, 0..1; empty where nothing
            was stated.
    """

    name: str
    sound: Tensor
    phonemes: tuple[tuple[str, float, float], ...]
    expression: Tensor
    pose: Tensor
    identity: Tensor
    fps: float
    features: Tensor | None = None
    encoder: str = ""
    style: str = ""
    style_strength: float = 0.0

    @property
    def num_frames(self) -> int:
        return self.expression.shape[0]

    @property
    def waveform(self) -> Tensor:
        """``[N]`` float32 in -1..1."""
        return as_float(self.sound)

    def coefficients(self, kind: str) -> Tensor:
        """What a motion network learns: ``expression``, ``pose``, or ``joint``, which is both in a row."""
        return torch.cat([self.expression, self.pose], dim=1) if kind == "joint" else getattr(self, kind)

    def first(self, seconds: float) -> SpeechClip:
        """The beginning of the clip; its phonemes are those that start in it."""
        frames = min(self.num_frames, round(seconds * self.fps))
        return replace(
            self,
            sound=self.sound[: round(frames / self.fps * SAMPLE_RATE)],
            phonemes=tuple(p for p in self.phonemes if p[1] < frames / self.fps),
            expression=self.expression[:frames],
            pose=self.pose[:frames],
            features=None if self.features is None else self.features[:frames],
        )

    def audio_features(self) -> AudioFeatures:
        """The features in the form that the samplers take."""
        duration = Fraction(self.num_frames) / Fraction(str(self.fps))
        return AudioFeatures(self.features.float(), duration, self.fps, self.encoder, self.fps)


@dataclass(frozen=True)
class Windows:
    """All windows of ``frames`` frames over clips; every window is as likely as another."""

    clips: tuple[SpeechClip, ...]
    frames: int
    ends: Tensor

    def __len__(self) -> int:
        return int(self.ends[-1])

    def draw(self, generator: torch.Generator) -> tuple[SpeechClip, int]:
        """A clip and the first frame of a window in it."""
        return self[int(torch.randint(len(self), (), generator=generator))]

    def __getitem__(self, number: int) -> tuple[SpeechClip, int]:
        clip, first = self.place(torch.tensor(number))
        return self.clips[int(clip)], int(first)

    def place(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """The clips of windows, by number, and their first frames in them; shaped as ``numbers``."""
        clips = torch.searchsorted(self.ends, numbers, right=True)
        before = torch.cat([self.ends.new_zeros(1), self.ends])
        return clips, numbers - before[clips]


@dataclass(frozen=True)
class SpeechSet:
    """Clips at one frame rate."""

    clips: tuple[SpeechClip, ...]

    @property
    def fps(self) -> float:
        return self.clips[0].fps

    @property
    def seconds(self) -> float:
        return sum(clip.num_frames for clip in self.clips) / self.fps

    def windows(self, frames: int) -> Windows:
        """Raises FD2TalkError when no clip is long enough."""
        clips = tuple(clip for clip in self.clips if clip.num_frames >= frames)
        if not clips:
            longest = max(clip.num_frames for clip in self.clips)
            raise FD2TalkError(
                f"A training clip has {frames} frames, but the longest recording in the data has {longest}; "
                "set a smaller number of frames, or use longer recordings."
            )
        counts = torch.tensor([clip.num_frames - frames + 1 for clip in clips])
        return Windows(clips, frames, counts.cumsum(0))

    def with_features(self, encoder: AudioEncoder, folder: Path | None = None) -> SpeechSet:
        """The clips with the encoder's features.

        Args:
            folder: features are kept there between runs, under a name that stands for what the encoder is and
                what it hears.
        """
        key = fingerprint(
            encoder.state_dict(),
            encoder.do_normalize,
            *encoder.bands,
            *(part for clip in self.clips for part in (clip.sound, clip.num_frames, clip.fps)),
        )
        path = folder / f"features-{key}.safetensors" if folder else None
        if path and path.exists():
            found = read_kept(path)
            features = [found.get(str(i)) for i in range(len(self.clips))]
            for clip, feature in zip(self.clips, features, strict=True):
                shape = (clip.num_frames, encoder.feature_dim)
                if feature is None or feature.shape != shape or not torch.isfinite(feature).all():
                    raise FD2TalkError(
                        f"{path} lacks the features of {clip.name}; delete it to make it anew."
                    )
        else:
            features = [_features(encoder, clip) for clip in self.clips]
            if path:
                save_whole({str(i): f for i, f in enumerate(features)}, path)
                # read back, they lie in the file and not in the memory
                found = read_kept(path)
                features = [found[str(i)] for i in range(len(features))]
        clips = zip(self.clips, features, strict=True)
        return SpeechSet(tuple(replace(c, features=f, encoder=encoder.name) for c, f in clips))


def _features(encoder: AudioEncoder, clip: SpeechClip) -> Tensor:
    found = encoder.encode(clip.sound[None], SAMPLE_RATE, clip.fps).features
    # a recording may be a few samples shorter than its last frame
    if found.shape[0] < clip.num_frames:
        found = torch.cat([found, found[-1:].expand(clip.num_frames - found.shape[0], -1)])
    return found[: clip.num_frames].half()


@dataclass(frozen=True, eq=False)
class PictureSet:
    """Labelled pictures of people.

    Attributes:
        encoded: N square pictures as files (PNG, JPEG or WebP), in the memory or in a shard.
        person: ``[N]``, pictures with one number are of one person in one setting, and can be each other's
            reference; all pictures of a person are neighbours.
        identity: ``[N, D_α]``.
        expression: ``[N, D_β]``.
        pose: ``[N, 6]``.
        clips: the recording that each picture belongs to, and its frame in it, where it has one.
    """

    encoded: tuple[bytes | Stored, ...]
    person: Tensor
    identity: Tensor
    expression: Tensor
    pose: Tensor
    clips: tuple[tuple[str, int] | None, ...] = ()

    def __len__(self) -> int:
        return len(self.encoded)

    def read(self, index: int) -> Tensor:
        """``[3, H, W]`` uint8."""
        try:
            content = self.encoded[index]
            content = content.read() if isinstance(content, Stored) else content
            with open_picture(io.BytesIO(content)) as picture:
                pixels = np.array(picture.convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:
            raise FD2TalkError(
                f"Picture {index} of the data cannot be read ({reason_of(error)}); make its shard again."
            ) from error
        if pixels.shape[0] != pixels.shape[1]:
            raise FD2TalkError(
                f"Picture {index} of the data has {pixels.shape[:2]} pixels, but is no square."
            )
        return torch.from_numpy(pixels).permute(2, 0, 1)

    @property
    def size(self) -> int:
        return self.read(0).shape[-1]

    def people(self) -> list[range]:
        """The indices of each person who has at least two pictures."""
        _, counts = torch.unique_consecutive(self.person, return_counts=True)
        ends = counts.cumsum(0).tolist()
        ranges = [range(end - count, end) for end, count in zip(ends, counts.tolist(), strict=True)]
        return [r for r in ranges if len(r) > 1]


def fingerprint(*content: Mapping[str, Tensor] | Tensor | bytes | Stored | str | int | float | None) -> str:
    """A short name for content, which changes when any part of it does: weights, tensors, files, words."""
    digest = hashlib.sha256()
    for part in content:
        part = part.read() if isinstance(part, Stored) else part
        if isinstance(part, Mapping):
            data = fingerprint(*(x for item in sorted(part.items()) for x in item)).encode()
        elif isinstance(part, Tensor):
            array = part.detach().cpu().contiguous()
            digest.update(f"{array.dtype} {list(array.shape)}".encode())
            flat = array.flatten()
            if flat.numel() == 1:  # whose stride may be any, and count as contiguous
                flat = flat.clone(memory_format=torch.contiguous_format)
            data = flat.view(torch.uint8)
            data = data.numpy().data
        else:
            data = part if isinstance(part, bytes) else repr(part).encode()
        # with its length, so that no two parts can be cut elsewhere and be the same
        digest.update(f"{type(part).__name__} {len(data)} ".encode())
        digest.update(data)
    return digest.hexdigest()[:12]


def save_whole(tensors: dict[str, Tensor], path: Path) -> None:
    """A safetensors file that appears whole or not at all."""
    with replacing(path) as partial:
        save_file(tensors, partial)


def read_kept(path: Path) -> dict[str, Tensor]:
    """What :func:`save_whole` has written.

    Raises:
        FD2TalkError: when the file cannot be read, or has been cut short.
    """
    try:
        return load_file(check_input(path, "file"))
    except (OSError, SafetensorError) as error:
        raise FD2TalkError(
            f"{path} cannot be read ({reason_of(error)}); delete it to make it anew."
        ) from error


Kept = TypeVar("Kept")


def kept_between_runs(make: Callable[[], Kept], kind: type[Kept], cache: Path, key: str) -> Kept:
    """What ``make`` makes, read from a file beside ``cache`` if a run has made it before.

    Args:
        kind: its dataclass, all of whose attributes are tensors.
        cache: folder and beginning of the file's name.
        key: stands for all that it is made of; files of other keys are removed.
    """
    path = cache.with_name(f"{cache.name}-{key}.safetensors")
    if path.exists():
        try:
            return kind(**read_kept(path))
        except TypeError as error:
            raise FD2TalkError(f"{path} lacks a part ({error}); delete it to make it anew.") from error
    made = make()
    for old in cache.parent.glob(f"{cache.name}-*.safetensors"):
        old.unlink()
    save_whole({name: value.contiguous() for name, value in vars(made).items()}, path)
    return made


def face_model_of(section: Mapping[str, Any]) -> FaceModel:
    """The face model that a configuration's ``face_model`` names, or the one that ships."""
    return FaceModel.load(section["face_model"]) if section.get("face_model") else default_face_model()


def need_weights(weights: Path, network: str, module: str) -> Path:
    """The checkpoint of an earlier stage in a weights folder, see :func:`in_set`.

    Raises:
        FD2TalkError: saying which stage makes it, or that two files could be meant.
    """
    path = in_set(weights, network)
    if path is None:
        raise FD2TalkError(
            f"{weights / network}.safetensors does not exist; make it first with python -m {module}."
        )
    return path


def copy_weights(source: Path, target: Path, networks: Iterable[str]) -> None:
    """Put networks of a weights folder into another, where they are not there already.

    What the first lacks is left out.
    """
    target.mkdir(parents=True, exist_ok=True)
    for network in networks:
        path = in_set(source, network)
        if path is None or (target / path.name).exists():
            continue
        if path.is_dir():
            shutil.copytree(path, target / path.name)
        else:
            with replacing(target / path.name) as partial:
                shutil.copyfile(path, partial)


# ---- the shards --------------------------------------------------------------------------------------------


def find_shards(data: Path, pattern: str) -> Iterator[tuple[str, dict[str, Stored]]]:
    """Samples of all shards of a folder, in order: key and where the members are, by extension.

    Raises:
        FD2TalkError: when there is no such folder or shard, or one cannot be read.
    """
    if not data.is_dir():
        raise FD2TalkError(f"There is no data folder {data}; make one with python -m training.corpus.")
    paths = sorted(data.rglob(pattern))
    if not paths:
        raise FD2TalkError(f"{data} holds no shards {pattern}; make them with python -m training.corpus.")
    for path in paths:
        try:
            yield from find_samples(path)
        except (tarfile.TarError, OSError, EOFError) as error:
            raise FD2TalkError(
                f"The shard {path} cannot be read ({reason_of(error)}); make it again."
            ) from error


def is_held_out(key: str) -> bool:
    """Samples of the held-out set say so; where a set names none, every tenth person by a hash of the name
    is.
    """
    return key.rpartition("/")[2].startswith("heldout")


def _split(keys: Sequence[str]) -> list[bool]:
    held_out = [is_held_out(key) for key in keys]
    if any(held_out):
        return held_out
    return [int(hashlib.sha256(key.encode()).hexdigest(), 16) % 10 == 0 for key in keys]


def load_speech(data: Path, face_model: FaceModel) -> tuple[SpeechSet, SpeechSet, str]:
    """The speech in a folder of shards, for training and held out, and what it is in words.

    Raises:
        FD2TalkError: when there is none, or it is of another face model.
    """
    clips = [speech_clip(key, members) for key, members in find_shards(data, "clips-*.tar")]
    for clip in clips:
        _check_width(clip.name, clip.expression, clip.identity, face_model, data)
    parts = _parted(clips, _split([clip.name for clip in clips]), data)
    train, held_out = (SpeechSet(tuple(part)) for part in parts)
    return train, held_out, f"{train.seconds / 3600:.2f} h of speech in {len(train.clips)} recordings"


def speech_clip(key: str, members: dict[str, Stored]) -> SpeechClip:
    """A sample of ``clips-*.tar``.

    Raises:
        FD2TalkError: naming it, when it is broken or lacks a part.
    """
    try:
        about = json.loads(members["json"].read())
        arrays = load(members["safetensors"].read())
        sound, sample_rate = _stored_wav(members["wav"])
        fps = float(about["fps"])
        expression, pose = _motion_in(arrays, fps)
        identity = _identity_in(arrays)
        phonemes = tuple((str(n), float(a), float(b)) for n, a, b in about.get("phonemes", ()))
        _check_times(phonemes)
        style = check_type(about.get("style", ""), "its style", str)
        strength = check_number(
            about.get("style_strength", 1.0 if style else 0.0), "its style_strength", 0, 1
        )
        heard = frame_count(Fraction(sound.shape[0], sample_rate), fps)
        if abs(heard - len(expression)) > SPARE_FRAMES:
            raise FD2TalkError(f"its wav lasts {heard} frames, but its motion {len(expression)}")
    except _BROKEN_SAMPLE as error:
        raise FD2TalkError(
            f"The recording {key} in the data is broken or lacks a part ({_reason(error)})."
        ) from error
    if fps != NATIVE_FPS:
        frames = max(1, frame_count(Fraction(sound.shape[0], sample_rate), NATIVE_FPS))
        expression, pose = (
            CoefficientSequence(kind, values, fps, "").resample(NATIVE_FPS, frames).values
            for kind, values in (("expression", expression), ("pose", pose))
        )
    mono = sound if sample_rate == SAMPLE_RATE else to_mono_16k(sound, sample_rate)
    labels = {"style": style, "style_strength": float(strength)}
    return SpeechClip(key, mono, phonemes, expression, pose, identity, NATIVE_FPS, **labels)


_BROKEN_SAMPLE = (
    *(KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError, EOFError),
    *(SafetensorError, wave.Error, OSError),
)
"""What readers raise for members that are none: FD2TalkError among them, as it is a ValueError."""


def _reason(error: Exception) -> str:
    """What is wrong with a sample, as part of a sentence."""
    if isinstance(error, KeyError):
        return f"no {error.args[0]!r}"
    return str(error).rstrip(".") or type(error).__name__


def _motion_in(arrays: Mapping[str, Tensor], fps: float) -> tuple[Tensor, Tensor]:
    """Expression ``[F, D_β]`` and pose ``[F, 6]`` of a sample, held to what motion is."""
    expression, pose = (
        CoefficientSequence(kind, _real(arrays, kind), fps, "").values for kind in ("expression", "pose")
    )
    if len(expression) != len(pose):
        raise FD2TalkError(f"its expression has {len(expression)} rows, but its pose {len(pose)}")
    return expression, pose


def _identity_in(arrays: Mapping[str, Tensor]) -> Tensor:
    """α, ``[D_α]``."""
    identity = _real(arrays, "alpha")
    if identity.ndim != 1 or not identity.abs().max() < LARGEST_VALUE:
        raise FD2TalkError(f"its alpha has the shape {tuple(identity.shape)}, or is no finite numbers")
    return identity


def _real(arrays: Mapping[str, Tensor], name: str) -> Tensor:
    if not arrays[name].is_floating_point() or not arrays[name].numel():
        raise FD2TalkError(f"its {name} is {arrays[name].dtype} of {tuple(arrays[name].shape)}")
    return arrays[name].float()


def _check_times(phonemes: Sequence[tuple[str, float, float]]) -> None:
    for name, start, end in phonemes:
        if not 0 <= start <= end < math.inf:
            raise FD2TalkError(f"its phoneme {name!r} goes from {start} to {end} s")


def _stored_wav(member: Stored) -> tuple[Tensor, int]:
    """A 16-bit PCM file: ``[N]`` and its sample rate. Mono is left where it lies, as int16; several channels
    are averaged, float32 in -1..1.
    """
    buffer = io.BytesIO(member.read(WAV_HEADER))
    with wave.open(buffer) as file:
        begins = buffer.tell()  # it has read up to the samples
        if file.getsampwidth() != 2:
            raise ValueError(f"{8 * file.getsampwidth()}-bit sound instead of 16-bit")
        channels, sample_rate = file.getnchannels(), check_sample_rate(file.getframerate())
        count = channels * file.getnframes()
    if not 0 < 2 * count <= member.size - begins:
        raise ValueError(f"its wav holds {member.size - begins} bytes of {2 * count}")
    # nothing is written to the mapped file, but torch takes no array that forbids it
    mapped = np.memmap(member.path, "<i2", "c", member.offset + begins, (count,))
    if channels == 1:
        return torch.from_numpy(mapped), sample_rate
    return torch.from_numpy(mapped.reshape(-1, channels).mean(axis=1, dtype=np.float32) / 32768), sample_rate


@dataclass(frozen=True, eq=False)
class Video:
    """A recording whose every frame is a picture.

    Attributes:
        clip: its sound and motion.
        frames: numbers of its frames in a set of pictures.
    """

    clip: SpeechClip
    frames: range


@dataclass(frozen=True, eq=False)
class VideoSet:
    """Talking videos.

    Attributes:
        videos: each of one person.
        pictures: all frames of all of them.
    """

    videos: tuple[Video, ...]
    pictures: PictureSet

    @property
    def speech(self) -> SpeechSet:
        """Sound and motion of the videos, in their order."""
        return SpeechSet(tuple(video.clip for video in self.videos))

    def with_features(self, encoder: AudioEncoder, folder: Path | None = None) -> VideoSet:
        """As :meth:`SpeechSet.with_features`."""
        heard = self.speech.with_features(encoder, folder).clips
        videos = zip(self.videos, heard, strict=True)
        return replace(self, videos=tuple(replace(video, clip=clip) for video, clip in videos))


def load_videos(data: Path, face_model: FaceModel) -> tuple[VideoSet, VideoSet, str]:
    """The videos in a folder of shards, for training and held out, and what they are in words. Silent ones
    are left out.

    Raises:
        FD2TalkError: when there are none, they are of another face model, or are not at 25 frames a second.
    """
    found = []
    for key, members in find_shards(data, "videos-*.tar"):
        if "wav" not in members:
            continue
        clip, person = speech_clip(key, members), _person(key, members)
        _check_labels(person, face_model, data)
        if clip.num_frames != len(person.encoded):
            raise FD2TalkError(
                f"The video {key} in {data} has {len(person.encoded)} pictures, but {clip.num_frames} frames "
                f"at {NATIVE_FPS:g} a second."
            )
        found.append((clip, person))
    parts = _parted(found, _split([person.name for _, person in found]), data)
    train, held_out = (_filmed(part) for part in parts)
    return train, held_out, f"{len(train.pictures)} frames of {len(train.videos)} talking videos"


def _filmed(samples: Sequence[tuple[SpeechClip, _Person]]) -> VideoSet:
    videos, first = [], 0
    for clip, _ in samples:
        videos.append(Video(clip, range(first, first + clip.num_frames)))
        first += clip.num_frames
    return VideoSet(tuple(videos), _joined([person for _, person in samples]))


def load_pictures(data: Path, face_model: FaceModel) -> tuple[PictureSet, PictureSet, str]:
    """The pictures in a folder of shards, for training and held out, and what they are in words. Where there
    are none, the frames of its videos.

    Raises:
        FD2TalkError: when there are none, or they are of another face model.
    """
    frames, videos = "frames-*.tar", "videos-*.tar"
    only_videos = not any(data.rglob(frames)) and any(data.rglob(videos))
    people = [_person(key, members) for key, members in find_shards(data, videos if only_videos else frames)]
    for person in people:
        _check_labels(person, face_model, data)
    train, held_out = (
        _joined(part) for part in _parted(people, _split([person.name for person in people]), data)
    )
    return train, held_out, f"{len(train)} pictures of {len(train.people())} people"


@dataclass(frozen=True, eq=False)
class _Person:
    name: str
    encoded: tuple[Stored, ...]
    identity: Tensor
    expression: Tensor
    pose: Tensor
    clips: tuple[tuple[str, int] | None, ...]
    face_model: str | None


def _person(key: str, members: dict[str, Stored]) -> _Person:
    try:
        about = json.loads(members["json"].read())
        arrays = load(members["safetensors"].read())
        expression, pose = _motion_in(arrays, NATIVE_FPS)
        files = {name.partition(".")[0]: data for name, data in members.items() if name[:1].isdigit()}
        encoded = tuple(files[str(i)] for i in range(len(expression)))
        identity = _identity_in(arrays).expand(len(expression), -1)
        clip, frames = about.get("clip"), about.get("clip_frames")
        clips = tuple((str(clip), int(f)) for f in frames) if clip and frames else (None,) * len(encoded)
        if len(clips) != len(encoded):
            raise FD2TalkError(f"its json names {len(clips)} clip_frames for {len(encoded)} pictures")
    except _BROKEN_SAMPLE as error:
        raise FD2TalkError(
            f"The pictures {key} in the data are broken or lack a part ({_reason(error)})."
        ) from error
    return _Person(key, encoded, identity, expression, pose, clips, about.get("face_model"))


def _check_labels(person: _Person, face_model: FaceModel, data: Path) -> None:
    _check_width(person.name, person.expression, person.identity[0], face_model, data)
    if person.face_model not in (None, face_model.digest):
        raise FD2TalkError(
            f"The pictures {person.name} in {data} were labelled with another version of the face model "
            f"{face_model.name!r}, whose mesh does not lie on them; make them anew."
        )


def _joined(people: Sequence[_Person]) -> PictureSet:
    counts = torch.tensor([len(person.encoded) for person in people])
    return PictureSet(
        tuple(data for person in people for data in person.encoded),
        torch.repeat_interleave(torch.arange(len(people)), counts),
        torch.cat([person.identity for person in people]),
        torch.cat([person.expression for person in people]),
        torch.cat([person.pose for person in people]),
        tuple(place for person in people for place in person.clips),
    )


def _parted(samples: Sequence, held_out: Sequence[bool], data: Path) -> tuple[list, list]:
    parts = (
        [s for s, held in zip(samples, held_out, strict=True) if not held],
        [s for s, held in zip(samples, held_out, strict=True) if held],
    )
    for part, name in zip(parts, ("training", "held-out"), strict=True):
        if not part:
            raise FD2TalkError(f"{data} has no {name} samples among {len(samples)}; add more data.")
    return parts


def _check_width(name: str, expression: Tensor, identity: Tensor, face_model: FaceModel, data: Path) -> None:
    found, wanted = (
        (expression.shape[-1], identity.shape[-1]),
        (face_model.expression_dim, face_model.identity_dim),
    )
    if found != wanted:
        raise FD2TalkError(
            f"{name} in {data} has {found[0]} expression and {found[1]} identity coefficients, but the face "
            f"model {face_model.name!r} has {wanted[0]} and {wanted[1]}; convert the data, or use its model."
        )

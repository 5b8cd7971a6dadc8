"""Pictures of people: a few instants each for training the frame networks, or every frame of a clip."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load

from fd2talk_core.face.names import ARKIT_NAMES

from .appearance import Look, anatomy, random_look
from .clips import random_identity, stream
from .finish import develop
from .motion import FPS, Style, synthesise
from .phonemes import PHONEMES, Phone
from .render import Person, draw
from .scenery import Place, random_place
from .shards import ShardWriter, encode_arrays, encode_json, encode_picture, read_samples
from .wardrobe import Wardrobe

IDENTITIES_PER_SHARD = 32
_JAW = ARKIT_NAMES.index("jawOpen")


def random_motion(rng: np.random.Generator, seconds: float = 6.0) -> tuple[np.ndarray, np.ndarray]:
    """Motion without a voice, wider than speech: expression [F, 52] and pose [F, 6]."""
    phones, moment = [], 0.0
    while moment < seconds:
        length = rng.uniform(0.05, 0.2)
        phones.append(Phone(PHONEMES[int(rng.integers(len(PHONEMES)))], moment, moment + length))
        moment += length
    frames = int(moment * FPS)
    hum = 0.1 * rng.standard_normal(int(moment * 16000)).astype(np.float32)
    expression, pose = synthesise(phones, hum, 16000, frames, Style.random(rng), rng)
    extra = rng.uniform(0, 0.8, expression.shape) * (rng.random(expression.shape) < 0.06)
    expression = np.clip(expression * rng.uniform(0.7, 1.5) + extra, 0, 1)
    limits = np.array([0.32, 0.45, 0.22, 0.15, 0.15, 0.6])
    pose = limits * np.tanh(pose * rng.uniform(1.0, 2.5) / limits)
    return expression.astype(np.float32), pose.astype(np.float32)


def _instants(expression: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """``count`` frames: some with the mouth wide, some with it shut, the rest anywhere."""
    frames = len(expression)
    chosen = rng.choice(frames, count, replace=frames < count)
    if count > 2:
        order = np.argsort(expression[:, _JAW])
        chosen[-1] = order[-1 - int(rng.integers(max(1, frames // 8)))]
        chosen[0] = order[int(rng.integers(max(1, frames // 4)))]
    return chosen


def _clip_index(folder: Path) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Key, expression and pose of the clips that were made before."""
    found = []
    for path in sorted(folder.glob("clips-*.tar")):
        for key, members in read_samples(path):
            arrays = load(members["safetensors"])
            found.append((key, arrays["expression"], arrays["pose"]))
    return found


def _labelled_by() -> str:
    """What tells a later version of the face model that its α and β are others."""
    return anatomy().model.digest


def photograph(
    person: Person,
    place: Place,
    expression: np.ndarray,
    pose: np.ndarray,
    size: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """[S, S, 3] uint8 of a person in a place, for β [D_β] and p [6]."""
    return develop(draw(person, place, expression, pose, size), place, rng)


def _look(dressed: float, rng: np.random.Generator) -> Look:
    """Of one of whom the share ``dressed`` wears hair and clothes out of the wardrobe."""
    return random_look(rng, Wardrobe() if dressed and rng.random() < dressed else None)


def write_frame_shard(
    path: Path, first: int, count: int, frames: int, size: int, seed: int, split: str, dressed: float = 0.0
) -> int:
    """Write ``frames`` pictures of each of ``count`` people; returns how many pictures that is.

    Two thirds of the people do what a clip in the same folder does (if there are any), the others move more
    widely.
    """
    clips = _clip_index(path.parent)
    with ShardWriter(path) as shard:
        for index in range(first, first + count):
            rng = stream(seed, split, 2, index)
            look, place, identity = _look(dressed, rng), random_place(size, rng), random_identity(rng)
            person = Person(look, identity)
            from_clip = bool(clips) and rng.random() < 0.67
            key, expression, pose = clips[index % len(clips)] if from_clip else ("", *random_motion(rng))
            chosen = _instants(expression, frames, rng)
            members = {
                f"{n}.jpg": encode_picture(photograph(person, place, expression[i], pose[i], size, rng))
                for n, i in enumerate(chosen)
            }
            members["safetensors"] = encode_arrays(
                alpha=identity, expression=expression[chosen], pose=pose[chosen]
            )
            about = {"clip": key, "clip_frames": chosen.tolist()} if from_clip else {"clip": None}
            members["json"] = encode_json({**about, "finish": place.finish, "face_model": _labelled_by()})
            shard.write(f"{split}-person{index:06d}", members)
    return count * frames


def write_video_shard(path: Path, number: int, size: int, seed: int, split: str, dressed: float = 0.0) -> int:
    """Write every frame of one clip of the same folder, with its sound; returns the number of frames."""
    clips = [sample for shard in sorted(path.parent.glob("clips-*.tar")) for sample in read_samples(shard)]
    key, speech = clips[number % len(clips)]
    arrays = load(speech["safetensors"])
    rng = stream(seed, split, 3, number)
    person, place = Person(_look(dressed, rng), arrays["alpha"]), random_place(size, rng)
    motion = list(zip(arrays["expression"], arrays["pose"], strict=True))
    members = {
        f"{n}.jpg": encode_picture(photograph(person, place, e, p, size, rng))
        for n, (e, p) in enumerate(motion)
    }
    about = json.loads(speech["json"])
    about.update(
        clip=key, clip_frames=list(range(len(motion))), finish=place.finish, face_model=_labelled_by()
    )
    members.update(wav=speech["wav"], safetensors=speech["safetensors"], json=encode_json(about))
    with ShardWriter(path) as shard:
        shard.write(f"{split}-video{number:06d}", members)
    return len(motion)

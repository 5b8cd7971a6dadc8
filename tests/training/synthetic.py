"""A world small enough to learn within a test: tones for phonemes, a jaw that follows them, shaded heads.

Written in the shards' format, so that the stages read it as they read any data.
"""

from __future__ import annotations

import io
import json
import tarfile
import wave
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load, save

from fd2talk_core.face.model import apply_pose, default_face_model, project
from fd2talk_core.face.names import ARKIT_NAMES
from fd2talk_core.face.rasterizer import shade

TONES = {"sil": 0.0, "aa": 300.0, "b": 700.0, "iy": 1500.0}
JAW = {"sil": 0.0, "aa": 0.7, "b": 0.02, "iy": 0.25}


def write_shard(path: Path, samples: dict[str, dict[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for key, members in samples.items():
            for extension, data in members.items():
                header = tarfile.TarInfo(f"{key}.{extension}")
                header.size = len(data)
                tar.addfile(header, io.BytesIO(data))


def clip_members(seed: int, seconds: float = 4.0) -> dict[str, bytes]:
    """A recording whose pitch says the phoneme, and the jaw that says it too."""
    rng = np.random.default_rng(seed)
    names = [n for n in TONES if n != "sil"]
    phonemes, time = [], 0.0
    while time < seconds:
        name = names[rng.integers(len(names))] if time else "sil"
        end = min(seconds, time + rng.uniform(0.1, 0.3))
        phonemes.append([name, round(time, 4), round(end, 4)])
        time = phonemes[-1][2]
    instants = np.arange(round(seconds * 16000)) / 16000
    which = np.searchsorted([p[1] for p in phonemes], instants, side="right") - 1
    frequency = np.array([TONES[p[0]] for p in phonemes])[which]
    waveform = 0.3 * np.sin(2 * np.pi * np.cumsum(frequency) / 16000) + 0.01 * rng.standard_normal(
        len(instants)
    )
    frames = round(seconds * 25)
    middle = (np.arange(frames) + 0.5) / 25
    spoken = np.searchsorted([p[1] for p in phonemes], middle, side="right") - 1
    expression = torch.zeros(frames, len(ARKIT_NAMES))
    jaw = np.convolve([JAW[phonemes[i][0]] for i in spoken], [0.25, 0.5, 0.25], mode="same")
    expression[:, ARKIT_NAMES.index("jawOpen")] = torch.tensor(jaw, dtype=torch.float32)
    pose = torch.zeros(frames, 6)
    pose[:, 1] = 0.2 * torch.sin(torch.tensor(middle) * 3 + float(rng.uniform(0, 6)))
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes((waveform.clip(-1, 1) * 32767).astype("<i2").tobytes())
    arrays = {"alpha": torch.zeros(80), "expression": expression, "pose": pose}
    about = {"fps": 25.0, "phonemes": phonemes, "text": "", "speaker": "tone", "engine": "sine"}
    return {"wav": buffer.getvalue(), "safetensors": save(arrays), "json": json.dumps(about).encode()}


def person_members(seed: int, pictures: int = 3, size: int = 64, clip: str = "") -> dict[str, bytes]:
    """Shaded heads of one random person in random poses, jaws and a colour of their own."""
    generator = torch.Generator().manual_seed(seed)
    face_model = default_face_model()
    identity = torch.randn(face_model.identity_dim, generator=generator)
    expression = torch.zeros(pictures, len(ARKIT_NAMES))
    expression[:, ARKIT_NAMES.index("jawOpen")] = torch.rand(pictures, generator=generator)
    pose = torch.zeros(pictures, 6)
    pose[:, :3] = (torch.rand(pictures, 3, generator=generator) - 0.5) * 0.5
    members = pictures_of(identity, expression, pose, 0.3 + 0.7 * torch.rand(1, 3, generator=generator), size)
    arrays = {"alpha": identity, "expression": expression, "pose": pose}
    about = {"clip": clip, "clip_frames": [10 * i for i in range(pictures)]} if clip else {}
    return {**members, "safetensors": save(arrays), "json": json.dumps(about).encode()}


def pictures_of(
    identity: torch.Tensor, expression: torch.Tensor, pose: torch.Tensor, colour: torch.Tensor, size: int
) -> dict[str, bytes]:
    """One person's head ``[D_α]`` in every β ``[n, D_β]`` and p ``[n, 6]``, as JPEGs."""
    face_model = default_face_model()
    vertices = apply_pose(face_model(identity[None], expression), pose)
    frames = shade(
        vertices,
        project(vertices, face_model.camera),
        face_model.triangles,
        size,
        colors=colour.expand(len(face_model.triangles), 3),
        supersample=1,
    )
    members = {}
    for number, frame in enumerate(frames):
        buffer = io.BytesIO()
        Image.fromarray((frame * 255).byte().numpy()).save(buffer, "JPEG", quality=92)
        members[f"{number}.jpg"] = buffer.getvalue()
    return members


def video_members(seed: int, seconds: float = 1.0, size: int = 64) -> dict[str, bytes]:
    """A recording with a picture of every frame."""
    members = clip_members(seed, seconds)
    arrays = load(members["safetensors"])
    generator = torch.Generator().manual_seed(seed)
    colour = 0.3 + 0.7 * torch.rand(1, 3, generator=generator)
    pictures = pictures_of(arrays["alpha"], arrays["expression"], arrays["pose"], colour, size)
    about = json.loads(members["json"]) | {"clip": f"{seed}", "clip_frames": list(range(len(pictures)))}
    return {**members, **pictures, "json": json.dumps(about).encode()}


def write_videos(folder: Path, videos: int = 3, size: int = 64) -> Path:
    """A data folder with nothing but talking videos."""
    for split, first, count in (("train", 0, videos), ("heldout", 1000, 1)):
        made = {f"{split}-video{i:04d}": video_members(first + i, size=size) for i in range(count)}
        write_shard(folder / split / "videos-000000.tar", made)
    return folder


def write_data(folder: Path, clips: int = 8, people: int = 10, size: int = 64) -> Path:
    """A data folder with training and held-out shards of both kinds; every third person belongs to no
    recording, as in our own corpus.
    """
    for split, first, clip_count, people_count in (
        ("train", 0, clips, people),
        ("heldout", 1000, max(2, clips // 4), max(2, people // 4)),
    ):
        speech = {f"{split}-clip{i:04d}": clip_members(first + i) for i in range(clip_count)}
        write_shard(folder / split / "clips-000000.tar", speech)
        frames = {
            f"{split}-person{i:04d}": person_members(
                first + i,
                size=size,
                clip="" if i % 3 == 2 else f"{split}-clip{i % clip_count:04d}",
            )
            for i in range(people_count)
        }
        write_shard(folder / split / "frames-000000.tar", frames)
    return folder

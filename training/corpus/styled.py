"""``python -m training.corpus.styled DATA --out STYLED``: a corpus whose faces feel something as they speak.

Sound, phonemes and head stay as they are; the face gets one of :data:`~training.corpus.emotions.EMOTIONS`,
whose name and strength stand in ``KEY.json`` as ``style`` and ``style_strength``. Nothing is spoken anew, so
an hour of speech takes seconds.
"""

from __future__ import annotations

import argparse
import json
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fd2talk_core.audio.resampling import SAMPLE_RATE
from fd2talk_core.checks import check_whole
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.names import ARKIT_NAMES
from fd2talk_core.terminal import run_command

from ..sources import SpeechClip, find_shards, speech_clip
from .emotions import EMOTIONS, with_emotion
from .motion import FPS
from .phonemes import PHONEMES, Phone
from .shards import ShardWriter, Stored, encode_arrays, encode_json

LEAST_STRENGTH = 0.2
"""Below it nobody could tell which emotion it is."""


def style_of(key: str, seed: int) -> tuple[str, float, np.random.Generator]:
    """The emotion of a recording, its strength, and the random numbers that show it: by name and seed."""
    rng = np.random.default_rng([seed, zlib.crc32(key.encode())])
    emotion = tuple(EMOTIONS)[int(rng.integers(len(EMOTIONS)))]
    return emotion, round(float(rng.uniform(LEAST_STRENGTH, 1.0)), 3), rng


def styled(key: str, members: dict[str, Stored], seed: int) -> dict[str, bytes]:
    """A recording's members with an emotion in its face.

    Raises:
        FD2TalkError: when it is labelled already, or is no recording of the corpus's.
    """
    clip, about = speech_clip(key, members), json.loads(members["json"].read())
    if clip.style:
        raise FD2TalkError(f"{key} is {clip.style!r} already; give a corpus without styles.")
    names = {name for name, _, _ in clip.phonemes}
    if about["fps"] != FPS or clip.expression.shape[1] != len(ARKIT_NAMES) or not names <= set(PHONEMES):
        raise FD2TalkError(f"{key} was not made by python -m training.corpus, whose rules these are.")
    emotion, strength, rng = style_of(key, seed)
    expression = emotional(clip, emotion, strength, rng)
    arrays = {"alpha": clip.identity, "expression": expression, "pose": clip.pose}
    return {
        "wav": members["wav"].read(),
        "safetensors": encode_arrays(**{name: values.numpy() for name, values in arrays.items()}),
        "json": encode_json({**about, "style": emotion, "style_strength": strength}),
    }


def emotional(clip: SpeechClip, emotion: str, strength: float, rng: np.random.Generator) -> Tensor:
    """``[F, 52]``: :func:`~training.corpus.emotions.with_emotion` of a recording in a shard."""
    phones = [Phone(*phoneme) for phoneme in clip.phonemes]
    sound = clip.waveform.double().numpy()
    values = with_emotion(clip.expression.numpy(), phones, sound, SAMPLE_RATE, emotion, strength, rng)
    return torch.from_numpy(values)


def make(data: Path, out: Path, seed: int) -> str:
    """Write a shard for each of the corpus's, under the same name; those that are there are kept."""
    check_whole(seed, "--seed", 0, 2**63 - 1)
    shards = sorted(data.rglob("clips-*.tar")) if data.is_dir() else []
    if not shards:
        raise FD2TalkError(f"{data} holds no shards clips-*.tar; make them with python -m training.corpus.")
    count = 0
    for path in shards:
        target = out / path.relative_to(data)
        if target.exists():
            continue
        with ShardWriter(target) as shard:
            for key, members in find_shards(path.parent, path.name):
                shard.write(key, styled(key, members, seed))
                count += 1
    return f"{count} recordings with {', '.join(EMOTIONS)} in {out}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.corpus.styled", description="Give a corpus's faces feelings, labelled."
    )
    parser.add_argument("data", type=Path, help="folder of shards clips-*.tar without styles")
    parser.add_argument("--out", type=Path, required=True, help="folder for the labelled shards")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    return run_command(lambda: make(given.data, given.out, given.seed), prefix="error: ")


if __name__ == "__main__":
    raise SystemExit(main())

"""Speech clips: a voice says something into a microphone, and a face moves with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fd2talk_core.timing import frame_count

from . import speech
from .augment import SAMPLE_RATE, Recording, record
from .motion import FPS, Style, synthesise
from .phonemes import Phone
from .shards import ShardWriter, encode_arrays, encode_json, encode_wav
from .texts import passage

CLIPS_PER_SHARD = 64
_SPLIT = {"train": 0, "heldout": 1}


@dataclass(frozen=True)
class Clip:
    """Speech with its motion at :data:`~training.corpus.motion.FPS`.

    Attributes:
        recording: what was heard.
        expression: ``[F, 52]``. pose: ``[F, 6]``. identity: ``[D_α]``.
    """

    key: str
    recording: Recording
    expression: np.ndarray
    pose: np.ndarray
    identity: np.ndarray
    text: str
    engine: str
    speaker: str

    def members(self) -> dict[str, bytes]:
        """The files of this clip in a shard."""
        about = {
            "fps": FPS,
            "duration": [self.recording.duration.numerator, self.recording.duration.denominator],
            "phonemes": [[p.name, round(p.start, 6), round(p.end, 6)] for p in self.recording.phones],
            "text": self.text,
            "engine": self.engine,
            "speaker": self.speaker,
        }
        return {
            "wav": encode_wav(self.recording.waveform, SAMPLE_RATE),
            "safetensors": encode_arrays(alpha=self.identity, expression=self.expression, pose=self.pose),
            "json": encode_json(about),
        }


def stream(seed: int, split: str, *path: int) -> np.random.Generator:
    """The random numbers of one thing in the corpus: they depend on nothing else in it."""
    return np.random.default_rng([seed, _SPLIT[split], *path])


def random_identity(rng: np.random.Generator, size: int = 80) -> np.ndarray:
    """[size] identity coefficients α ~ N(0, 1), no further out than 2.5."""
    return np.clip(rng.standard_normal(size), -2.5, 2.5).astype(np.float32)


def make_clip(index: int, seed: int, split: str, engines: Sequence[str] | None = None) -> Clip:
    """Clip ``index`` of a corpus. Piper's part of a shard depends on the order within the shard."""
    rng = stream(seed, split, 1, index)
    voices = speech.voices(heldout=split == "heldout", engines=engines)
    weights = np.array([voice.weight for voice in voices])
    voice = voices[int(rng.choice(len(voices), p=weights / weights.sum()))]
    text = passage(rng, int(rng.integers(6, 30)), heldout=split == "heldout")
    rate, pitch = float(np.exp(rng.uniform(-0.22, 0.2))), float(np.exp(rng.normal(0, 0.3)))
    utterance = speech.speak(voice, text, rate=rate, pitch=pitch, seed=int(rng.integers(1000)))
    recording = record(_with_pauses(utterance, rng), rng)
    frames = max(1, frame_count(recording.duration, FPS))
    style = Style.random(rng)
    expression, pose = synthesise(recording.phones, recording.clean, SAMPLE_RATE, frames, style, rng)
    return Clip(
        key=f"{split}-clip{index:06d}",
        recording=recording,
        expression=expression,
        pose=pose,
        identity=random_identity(rng),
        text=text,
        engine=voice.engine,
        speaker=voice.name,
    )


def _with_pauses(utterance: speech.Utterance, rng: np.random.Generator) -> speech.Utterance:
    """Silence of random length before and after, so that a shut mouth is seen often enough."""
    head, tail = (round(seconds * utterance.sample_rate) for seconds in rng.exponential(0.25, 2))
    shift = head / utterance.sample_rate
    waveform = np.pad(utterance.waveform, (head, tail))
    end = len(waveform) / utterance.sample_rate
    phones = [Phone(p.name, p.start + shift, p.end + shift) for p in utterance.phones]
    phones = [Phone("sil", 0.0, shift), *phones, Phone("sil", phones[-1].end, end)]
    joined = speech.join_repeats(phones)
    return speech.Utterance(waveform, utterance.sample_rate, tuple(joined), utterance.text, utterance.voice)


def write_clip_shard(
    path: Path, first: int, count: int, seed: int, split: str, engines: Sequence[str] | None = None
) -> float:
    """Write clips ``first`` .. ``first + count - 1`` and return their seconds of speech."""
    speech.forget_sessions()
    seconds = 0.0
    with ShardWriter(path) as shard:
        for index in range(first, first + count):
            clip = make_clip(index, seed, split, engines)
            shard.write(clip.key, clip.members())
            seconds += float(clip.recording.duration)
    return seconds

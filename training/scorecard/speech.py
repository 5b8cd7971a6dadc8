"""Set C: real speech with its words. Is the mouth shut and open where it must be, beyond chance?"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from fd2talk_core.audio.reading import read_audio
from fd2talk_core.audio.resampling import SAMPLE_RATE, to_mono_16k
from fd2talk_core.errors import FD2TalkError

from ..corpus.phonemes import merge_ipa
from ..measures import (
    BILABIALS,
    OPEN_VOWELS,
    LipClosure,
    lip_closure,
)
from ..mouths import mouth_opening
from .table import Row
from .weights import Weights

TEST_SPEECH = Path("/usr/share/pocketsphinx/test/data")
"""Where Debian's pocketsphinx-testdata puts real speech with its words."""


@dataclass(frozen=True, eq=False)
class SpokenText:
    """A recording and what is said in it.

    Attributes:
        waveform: ``[N]`` at 16 kHz.
        language: as eSpeak NG and Whisper name it.
    """

    name: str
    waveform: Tensor
    text: str
    language: str = "en"


def read_spoken_texts(folder: Path) -> list[SpokenText]:
    """Recordings whose words stand in a ``*transcription`` file beside them, as ``words (NAME)``."""
    found = []
    for listing in sorted(folder.rglob("*transcription")):
        for line in listing.read_text(encoding="utf-8").splitlines():
            text, _, name = line.strip().rpartition("(")
            path = listing.parent / f"{name.rstrip(')')}.wav"
            if path.is_file():
                words = text.replace("<s>", "").replace("</s>", "").strip()
                found.append(SpokenText(path.stem, to_mono_16k(*read_audio(path)), words))
    return found


Phonemes = tuple[tuple[str, float, float], ...]
"""``(phoneme, start, end)`` in seconds; lower-case ARPAbet without stress."""


SoundLengths = Sequence[tuple[str, float]]
"""Sounds in order, and the length of each in any unit."""


@dataclass(frozen=True)
class TimedWord:
    """A word, when it was said in seconds, and the sounds in it where the aligner knows them."""

    text: str
    start: float
    end: float
    phonemes: Phonemes = ()


ESPEAK_VOICES = {"en": "en-us", "fr": "fr-fr"}
"""eSpeak NG's voices whose name is not that of the language."""


@cache
def word_sounds(word: str, language: str) -> SoundLengths:
    """The sounds of a word as eSpeak NG reads it, and their lengths in letters of its IPA."""
    voice = ESPEAK_VOICES.get(language, language)
    try:
        told = subprocess.run(
            ["espeak-ng", "-q", "--ipa", "-v", voice, "--", word], capture_output=True, check=True, text=True
        ).stdout
    except FileNotFoundError:
        raise FD2TalkError("The sounds of words need eSpeak NG: apt-get install espeak-ng") from None
    except subprocess.CalledProcessError as error:
        raise FD2TalkError(f"eSpeak NG cannot read {language!r}: {error.stderr.strip()}") from None
    letters = "".join(re.sub(r"\(.*?\)", "", told).split())
    phones = merge_ipa((letter, i, i + 1) for i, letter in enumerate(letters))
    return tuple((phone.name, phone.end - phone.start) for phone in phones if phone.name != "sil")


def align_words(spoken: SpokenText) -> list[TimedWord]:
    """Words and the pauses between them (whose text is in brackets, ``<sil>``) with their phonemes, by
    pocketsphinx's forced alignment. Words that its dictionary lacks are read by eSpeak NG.
    """
    from pocketsphinx import Decoder

    decoder = Decoder(lm=None, samprate=SAMPLE_RATE, loglevel="FATAL")
    for word in sorted(set(spoken.text.split())):
        if decoder.lookup_word(word) is None:
            sounds = (name for name, _ in word_sounds(word, spoken.language))
            decoder.add_word(word, " ".join("AH" if name == "ax" else name.upper() for name in sounds), True)
    pcm = (spoken.waveform.clamp(-1, 1) * 32767).short().numpy().tobytes()
    # first the words, then the phonemes in them
    for prepare in (lambda: decoder.set_align_text(spoken.text), decoder.set_alignment):
        prepare()
        decoder.start_utt()
        decoder.process_raw(pcm, full_utt=True)
        decoder.end_utt()
    rate = 100.0
    words = []
    for word in decoder.get_alignment():
        phones = tuple(
            (phone.name.lower().rstrip("012"), phone.start / rate, (phone.start + phone.duration) / rate)
            for phone in word
        )
        words.append(TimedWord(word.name, phones[0][1], phones[-1][2], phones))
    return words


def align_phonemes(spoken: SpokenText) -> Phonemes:
    """The phonemes of :func:`align_words`, pauses included."""
    return tuple(phone for word in align_words(spoken) for phone in word.phonemes)


def score_real_speech(
    weights: Weights, texts: Sequence[SpokenText], pictures_folder: Path, seeds: int = 4, draws: int = 200
) -> list[Row]:
    """Real voices: is the mouth shut at p, b, m, and open at open vowels, more often than at any time?

    Over all seeds, as a few recordings have few of them; what is random is the same for each seed, since the
    seeds' mouths are much alike.
    """
    found: list[LipClosure] = []
    chance: list[list[LipClosure]] = [[] for _ in range(draws)]
    curves = []
    identity = torch.zeros(weights.face_model.identity_dim)
    for number, spoken in enumerate(texts):
        phonemes = align_phonemes(spoken)
        asked = [phone for phone in phonemes if phone[0] in (*BILABIALS, *OPEN_VOWELS)]
        features = weights.audio_encoder.encode(spoken.waveform, SAMPLE_RATE, 25.0)
        for seed in range(seeds):
            expression, _ = weights.sequences(features, seed)
            opening = mouth_opening(weights.face_model, identity, expression.values)
            if seed == 0:
                curves.append((spoken, opening, phonemes))
            found.append(lip_closure(opening, expression.fps, asked))
            generator = torch.Generator().manual_seed(number)
            drawn = chance_closures(opening, expression.fps, asked, generator, draws)
            for draw, closure in zip(chance, drawn, strict=True):
                draw.append(closure)
    _draw_speech(curves[:6], pictures_folder / "C-speech.png")
    rows = []
    for name, share in (("lips shut at p, b, m", closed_share), ("open at open vowels", opened_share)):
        reached, count = share(found)
        told = z_score(reached, [share(draw)[0] for draw in chance])
        note = (
            f"{reached:.2f} of {count // seeds} with {seeds} seeds; "
            f"random windows of the same clips: {told.chance:.2f} ± {told.deviation:.2f}"
        )
        rows.append(Row(f"C real speech: {name} (z)", told.z, 3.0, note=note))
    return rows


@dataclass(frozen=True)
class ZScore:
    """A figure in standard deviations over its chance."""

    z: float
    chance: float
    deviation: float


def z_score(value: float, by_chance: Sequence[float]) -> ZScore:
    """How far a figure lies over what chance gives; 0 where chance always gives the figure itself."""
    values = torch.tensor(by_chance, dtype=torch.float64)
    chance, deviation = float(values.mean()), float(values.std())
    difference = value - chance
    z = difference / deviation if deviation > 1e-12 else (0.0 if abs(difference) < 1e-9 else float("inf"))
    return ZScore(z, chance, deviation)


def closed_share(found: Sequence[LipClosure]) -> tuple[float, int]:
    """The share of all closures that were shut, and how many there were."""
    count = sum(one.closures for one in found)
    return sum(one.closed * one.closures for one in found if one.closures) / max(count, 1), count


def opened_share(found: Sequence[LipClosure]) -> tuple[float, int]:
    """The share of all open vowels that were open, and how many there were."""
    count = sum(one.openings for one in found)
    return sum(one.opened * one.openings for one in found if one.openings) / max(count, 1), count


def chance_closures(
    opening: Tensor,
    fps: float,
    phonemes: Sequence[tuple[str, float, float]],
    generator: torch.Generator,
    draws: int = 20,
) -> list[LipClosure]:
    """What the same mouth scores if the same phonemes came at random times of the clip."""
    duration = len(opening) / fps
    lengths = torch.tensor([end - start for _, start, end in phonemes])
    room = (duration - lengths).clamp_min(0)
    results = []
    for _ in range(draws):
        starts = (torch.rand(len(phonemes), generator=generator) * room).tolist()
        moved = [
            (name, start, start + end - begin)
            for (name, begin, end), start in zip(phonemes, starts, strict=True)
        ]
        results.append(lip_closure(opening, fps, moved))
    return results


def real_speech_rows(weights: Weights, texts: Sequence[SpokenText], folder: Path, out: Path) -> list[Row]:
    """The rows of set C, or one that says what is missing."""
    if not texts:
        return [
            Row(
                "C real speech",
                None,
                note=f"no transcribed speech in {folder}; Debian's pocketsphinx-testdata has some",
            )
        ]
    try:
        return score_real_speech(weights, texts, out)
    except ModuleNotFoundError as error:
        return [
            Row(
                "C real speech", None, note=f"needs the Python package {error.name}: pip install {error.name}"
            )
        ]


def _draw_speech(curves: Sequence, picture: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 2.2 * len(curves)), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, (spoken, opening, phonemes) in zip(
        figure.subplots(len(curves), 1, squeeze=False)[:, 0], curves, strict=True
    ):
        axis.plot((torch.arange(len(opening)) + 0.5) / 25, opening)
        for name, start, end in phonemes:
            if name in BILABIALS:
                axis.axvspan(start, end, color="C3", alpha=0.25)
            elif name in OPEN_VOWELS:
                axis.axvspan(start, end, color="C2", alpha=0.15)
            if name != "sil":
                axis.text((start + end) / 2, float(opening.max()), name, fontsize=6, ha="center")
        axis.set_title(f"{spoken.text}  (red: lips must meet, green: must open)", fontsize=8)
    figure.savefig(picture, dpi=80)

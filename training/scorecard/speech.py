"""Set C: real speech with its words. Is the mouth shut and open where it must be?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fd2talk_core.audio.reading import read_audio
from fd2talk_core.audio.resampling import SAMPLE_RATE, to_mono_16k

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
    """A recording and what is said in it."""

    name: str
    waveform: Tensor
    text: str


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


def align_phonemes(spoken: SpokenText) -> tuple[tuple[str, float, float], ...]:
    """``(phoneme, start, end)`` in seconds, lower-case ARPAbet without stress, by pocketsphinx's forced
    alignment.
    """
    from pocketsphinx import Decoder

    decoder = Decoder(lm=None, samprate=SAMPLE_RATE, loglevel="FATAL")
    pcm = (spoken.waveform.clamp(-1, 1) * 32767).short().numpy().tobytes()
    # first the words, then the phonemes in them
    for prepare in (lambda: decoder.set_align_text(spoken.text), decoder.set_alignment):
        prepare()
        decoder.start_utt()
        decoder.process_raw(pcm, full_utt=True)
        decoder.end_utt()
    rate = 100.0
    phones = []
    for word in decoder.get_alignment():
        for phone in word:
            name = phone.name.lower().rstrip("012")
            phones.append((name, phone.start / rate, (phone.start + phone.duration) / rate))
    return tuple(phones)


def score_real_speech(
    weights: Weights, texts: Sequence[SpokenText], pictures_folder: Path, seeds: int = 4
) -> list[Row]:
    """Real voices: is the mouth shut at p, b, m, and open at open vowels? Averaged over seeds, as a few
    recordings have few of them.
    """
    found: list[LipClosure] = []
    chance: list[LipClosure] = []
    curves = []
    identity = torch.zeros(weights.face_model.identity_dim)
    generator = torch.Generator().manual_seed(0)
    for spoken in texts:
        phonemes = align_phonemes(spoken)
        features = weights.audio_encoder.encode(spoken.waveform, SAMPLE_RATE, 25.0)
        for seed in range(seeds):
            expression, _ = weights.sequences(features, seed)
            opening = mouth_opening(weights.face_model, identity, expression.values)
            if seed == 0:
                curves.append((spoken, opening, phonemes))
            found.append(lip_closure(opening, expression.fps, phonemes))
            chance += chance_closures(opening, expression.fps, phonemes, generator)
    _draw_speech(curves[:6], pictures_folder / "C-speech.png")
    (shut, closures), (opened, openings) = closed_share(found), opened_share(found)
    elsewhere = "random windows of the same clips"
    return [
        Row(
            "C real speech: lips shut at p, b, m",
            shut,
            0.80,
            note=f"{closures // seeds} of them, {seeds} seeds; {elsewhere}: {closed_share(chance)[0]:.2f}",
        ),
        Row(
            "C real speech: open at open vowels",
            opened,
            0.80,
            note=f"{openings // seeds} of them, {seeds} seeds; {elsewhere}: {opened_share(chance)[0]:.2f}",
        ),
    ]


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

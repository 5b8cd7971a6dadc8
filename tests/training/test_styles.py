"""Emotions of the corpus leave the words alone, and the style stage learns them without touching the rest."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

sys.path[:0] = [str(Path(__file__).parent)]

import synthetic  # noqa: E402

from fd2talk_core import configs  # noqa: E402
from fd2talk_core.errors import FD2TalkError  # noqa: E402
from fd2talk_core.face.model import default_face_model  # noqa: E402
from fd2talk_core.face.names import ARKIT_NAMES  # noqa: E402
from fd2talk_core.motion.defaults import NEUTRAL, STYLES  # noqa: E402
from fd2talk_core.motion.sampling import sample_motion  # noqa: E402
from fd2talk_core.networks.checkpoint import SHIPPED, CheckpointInfo, save_checkpoint  # noqa: E402
from training import style  # noqa: E402
from training.corpus.emotions import EMOTIONS, with_emotion  # noqa: E402
from training.corpus.motion import FPS, Style, closures, frame_instants, speaking, synthesise  # noqa: E402
from training.corpus.phonemes import Phone  # noqa: E402
from training.corpus.shards import read_samples  # noqa: E402
from training.corpus.styled import emotional  # noqa: E402
from training.corpus.styled import main as styled_command  # noqa: E402
from training.mouths import mouth_opening  # noqa: E402
from training.scorecard.__main__ import main as scorecard  # noqa: E402
from training.scorecard.styles import score_faces, styles_table  # noqa: E402
from training.sources import load_speech  # noqa: E402

WORDS = ("sil", "m", "aa", "b", "iy", "f", "uw", "p", "ae", "sil", "b", "ow", "m", "ay", "v", "aa", "sil")
RATE = 16_000


def spoken() -> tuple[list[Phone], np.ndarray, np.ndarray]:
    """Phones, a sound that grows and sinks, and the neutral motion."""
    ends = np.cumsum([0.5 if name == "sil" else 0.14 for name in WORDS])
    phones = [Phone(n, s, e) for n, s, e in zip(WORDS, [0.0, *ends[:-1]], ends, strict=True)]
    instants = np.arange(round(ends[-1] * RATE)) / RATE
    waveform = 0.3 * np.sin(2 * np.pi * 150 * instants) * np.clip(np.sin(4 * instants), 0, 1)
    frames = round(ends[-1] * FPS)
    rng = np.random.default_rng(0)
    return phones, waveform, synthesise(phones, waveform, RATE, frames, Style.random(rng), rng)[0]


def felt(emotion: str, strength: float, seed: int = 1) -> np.ndarray:
    phones, waveform, neutral = spoken()
    return with_emotion(neutral, phones, waveform, RATE, emotion, strength, np.random.default_rng(seed))


def of(values: np.ndarray, name: str) -> np.ndarray:
    """The mean of both sides, ``[F]``."""
    return values[:, [index for index, other in enumerate(ARKIT_NAMES) if other.startswith(name)]].mean(
        axis=1
    )


@pytest.mark.parametrize("emotion", EMOTIONS)
def test_an_emotion_grows_with_its_strength_and_lips_still_close(emotion: str) -> None:
    phones, _, neutral = spoken()
    none, half, full = (felt(emotion, strength) for strength in (0.0, 0.5, 1.0))
    assert np.array_equal(none, neutral)
    assert full.dtype == np.float32 and full.min() >= 0 and full.max() <= 1
    assert np.array_equal(full, felt(emotion, 1.0)) and not np.array_equal(full, felt(emotion, 1.0, seed=2))
    for name, (most, _) in EMOTIONS[emotion].raises.items():
        if most < 0.3 or name == "mouthPress":
            continue
        means = [float(of(values, name).mean()) for values in (none, half, full)]
        assert means[0] < means[1] < means[2] and means[2] - means[0] > 0.5 * most - 0.1, name
        # it comes and goes
        assert of(full - none, name).std() > 0.02, name
    face = default_face_model()
    identity = torch.zeros(face.identity_dim)
    openings = [mouth_opening(face, identity, torch.from_numpy(v)).numpy() for v in (none, full)]
    shut = closures(phones, frame_instants(len(full)))[0] > 0.99
    assert shut.sum() >= 5
    # a millimetre of a mouth that opens by more than ten
    assert (openings[1] - openings[0])[shut].max() < 0.01
    said = speaking(phones, frame_instants(len(full))) > 0
    assert np.corrcoef(*(opening[said] for opening in openings))[0, 1] > 0.95


def test_the_networks_styles_are_the_corpuss_emotions() -> None:
    assert set(EMOTIONS) == set(STYLES) - {NEUTRAL}
    with pytest.raises(FD2TalkError, match="The emotion is 'bored'"):
        felt("bored", 1.0)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings with and without styles, and small networks that know none."""
    folder = tmp_path_factory.mktemp("styles")
    synthetic.write_data(folder / "data", clips=12, people=1, size=32)
    assert styled_command([str(folder / "data"), "--out", str(folder / "styled")]) == 0
    (folder / "weights").mkdir()
    shutil.copy(SHIPPED / "tiny" / "audio_encoder.safetensors", folder / "weights")
    network = configs.build("expression", "tiny", num_layers=1, hidden_size=32, condition_dim=32, num_heads=2)
    info = CheckpointInfo(face_model="anny-arkit52", native_fps=25.0, steps=1, trained_on="a seed")
    save_checkpoint(network, folder / "weights" / "expression.safetensors", info)
    return folder


def test_a_corpus_gets_labelled_feelings_and_keeps_all_else(world: Path, capsys) -> None:
    pairs = []
    for path in sorted((world / "data").rglob("clips-*.tar")):
        there = world / "styled" / path.relative_to(world / "data")
        pairs += zip(read_samples(path), read_samples(there), strict=True)
    labels = [json.loads(styled["json"]) for _, (_, styled) in pairs]
    for ((key, plain), (same, styled)), label in zip(pairs, labels, strict=True):
        assert key == same and plain["wav"] == styled["wav"]
        assert label["style"] in EMOTIONS and 0.2 <= label["style_strength"] <= 1
        assert json.loads(plain["json"]).items() <= label.items()
    assert len({label["style"] for label in labels}) > 1
    loaded = load_speech(world / "styled", default_face_model())[0].clips
    assert {(clip.style, clip.style_strength) for clip in loaded} <= {
        (label["style"], label["style_strength"]) for label in labels
    }
    # what is there is kept; what is labelled is not labelled again
    assert styled_command([str(world / "data"), "--out", str(world / "styled")]) == 0
    assert capsys.readouterr().out.startswith("0 recordings")
    assert styled_command([str(world / "styled"), "--out", str(world / "twice")]) == 2
    assert "already" in capsys.readouterr().err and not list(world.glob("twice/**/*.tar"))
    assert styled_command([str(world / "weights"), "--out", str(world / "twice")]) == 2


def test_styles_are_learned_and_nothing_else_changes(world: Path) -> None:
    weights = world / "learned"
    shutil.copytree(world / "weights", weights)
    line = ["--config", "smoke", "--data", str(world / "styled"), "--weights", str(weights)]
    line += ["--runs", str(world / "runs"), "--steps", "80", "--set", "train.log_every=1"]
    assert style.main([*line, "--set", "train.learning_rate=0.02"]) == 0
    lines = (world / "runs" / "default" / "style" / "losses.jsonl").read_text().splitlines()
    losses = [record["loss"] for record in map(json.loads, lines) if "loss" in record]
    assert sum(losses[-20:]) < 0.9 * sum(losses[:20])

    before, after = (load_file(path / "expression.safetensors") for path in (world / "weights", weights))
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert {name.partition(".")[0] for name in after.keys() - before.keys()} == {"style"}
    plain, styled = (
        configs.load_network("expression", path / "expression.safetensors")
        for path in (world / "weights", weights)
    )
    assert styled.info.trained_on.startswith("a seed; styles: ") and styled.info.steps == 1
    clip = load_speech(world / "styled", default_face_model())[1]
    clip = clip.with_features(style_encoder(weights)).clips[0].audio_features()
    neutral = [sample_motion(network, clip, seed=0).values for network in (plain, styled)]
    assert torch.equal(*neutral)
    moved = [
        sample_motion(styled, clip, seed=0, style=name).values - neutral[0] for name in styled.config.styles
    ]
    assert all(change.abs().max() > 0.05 for change in moved)
    # it goes on with the styles that it has
    assert style.main([*line, "--run", "on", "--steps", "2"]) == 0


def style_encoder(weights: Path):
    return configs.load_network("audio_encoder", weights / "audio_encoder.safetensors")


def test_what_teaches_no_style_is_told(world: Path, capsys) -> None:
    line = ["--config", "smoke", "--weights", str(world / "weights"), "--runs", str(world / "refused")]
    assert style.main([*line, "--data", str(world / "data")]) == 2
    assert "holds no recordings with a style" in capsys.readouterr().err
    assert style.main([*line, "--data", str(world / "styled"), "--start", str(world / "weights")]) == 2
    assert "leave --start out" in capsys.readouterr().err


# --- the scorecard ---------------------------------------------------------------------------------


def test_the_scorecard_knows_a_copy_of_the_truth_from_a_face_that_stays_neutral(world: Path) -> None:
    clips = load_speech(world / "data", default_face_model())[0].clips[:4]
    rng = [np.random.default_rng(number) for number in range(len(clips))]
    truth = {NEUTRAL: [clip.expression for clip in clips]}
    for name in EMOTIONS:
        truth[name] = [emotional(clip, name, 1.0, one) for clip, one in zip(clips, rng, strict=True)]
    copied = score_faces(default_face_model(), clips, truth, truth)
    for score in copied:
        assert score.likeness == pytest.approx(1) and score.taken_for[score.style] == 1 == score.truth_known
        assert all(made == true and moves == sways for _, made, true, moves, sways in score.raised.values())
        assert score.follows > 0.9 and abs(score.gap) < 1.5
    still = score_faces(default_face_model(), clips, dict.fromkeys(truth, truth[NEUTRAL]), truth)
    for score in still:
        assert score.taken_for[NEUTRAL] == 1 and score.gap == 0 and score.follows == pytest.approx(1)
        assert score.likeness == pytest.approx(0 if score.style != NEUTRAL else 1)
    assert "taken for what they are: 0.20 (chance 0.20)" in styles_table(still)
    # a mouth that stands open by a tenth of jawOpen is seen at p, b, m
    open_mouth = [clip.expression.clone() for clip in clips]
    for one in open_mouth:
        one[:, ARKIT_NAMES.index("jawOpen")] += 0.1
    gaping = score_faces(default_face_model(), clips, {**truth, "sad": open_mouth}, truth)
    assert next(score for score in gaping if score.style == "sad").gap > 2


def test_what_the_scorecard_cannot_measure_is_told(world: Path, capsys) -> None:
    weights = str(SHIPPED / "tiny")
    assert scorecard(["--weights", weights, "--styles", "--out", str(world / "card")]) == 2
    assert "give their folder with --data" in capsys.readouterr().err

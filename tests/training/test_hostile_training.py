"""Bad data, settings and states are told where they are read, by file, member and value."""

from __future__ import annotations

import io
import json
import sys
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, load_file, save, save_file

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from synthetic import clip_members, person_members, write_shard  # noqa: E402
from toy_stage import ToyStage  # noqa: E402

from fd2talk_core import configs  # noqa: E402
from fd2talk_core.errors import FD2TalkError  # noqa: E402
from fd2talk_core.face.model import default_face_model  # noqa: E402
from training.corpus.__main__ import main as corpus_command  # noqa: E402
from training.sources import load_pictures, load_speech  # noqa: E402
from training.stages.motion import MotionOptions  # noqa: E402
from training.stages.motion import main as motion_command  # noqa: E402
from training.trainer import (  # noqa: E402
    TrainSettings,
    load_section,
    stage_options,
    subsection,
    train,
    train_settings,
)
from training.trainer.settings import apply_overrides  # noqa: E402

Members = dict[str, bytes]
NAN, INF = float("nan"), float("inf")


def arrays(**changes: torch.Tensor | None) -> Callable[[Members], None]:
    """Other tensors in a sample; None takes one away."""

    def change(members: Members) -> None:
        held = {**load(members["safetensors"]), **changes}
        members["safetensors"] = save({name: value for name, value in held.items() if value is not None})

    return change


def about(**changes: Any) -> Callable[[Members], None]:
    def change(members: Members) -> None:
        members["json"] = json.dumps({**json.loads(members["json"]), **changes}).encode()

    return change


def member(name: str, content: bytes | None) -> Callable[[Members], None]:
    def change(members: Members) -> None:
        if content is None:
            del members[name]
        else:
            members[name] = content

    return change


def cut(name: str, share: float) -> Callable[[Members], None]:
    def change(members: Members) -> None:
        members[name] = members[name][: int(len(members[name]) * share)]

    return change


def sound(seconds: float, rate: int = 16_000, width: int = 2) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, width, rate, 0, "NONE", ""))
        file.writeframes(bytes(round(seconds * rate) * width))
    return buffer.getvalue()


FRAMES = 50
MOTION = {
    "pose of 5 columns": (arrays(pose=torch.zeros(FRAMES, 5)), "pose sequence has 5 columns"),
    "no pose": (arrays(pose=None), "no 'pose'"),
    "NaN": (arrays(expression=torch.full((FRAMES, 52), NAN)), "not a number at frame 0"),
    "infinite": (arrays(pose=torch.full((FRAMES, 6), INF)), "not a number at frame 0"),
    "huge": (arrays(pose=torch.full((FRAMES, 6), 1e20)), "1e\\+20 at frame 0"),
    "empty": (arrays(expression=torch.zeros(0, 52)), "expression is torch.float32 of \\(0, 52\\)"),
    "flat": (arrays(expression=torch.zeros(FRAMES)), "expression sequence has shape"),
    "whole numbers": (arrays(pose=torch.zeros(FRAMES, 6, dtype=torch.int64)), "pose is torch.int64"),
    "complex": (arrays(pose=torch.zeros(FRAMES, 6, dtype=torch.complex64)), "pose is torch.complex64"),
    "another length": (arrays(pose=torch.zeros(FRAMES - 1, 6)), "50 rows, but its pose 49"),
    "other widths": (arrays(expression=torch.zeros(FRAMES, 64)), "64 expression and 80 identity"),
    "alpha of NaN": (arrays(alpha=torch.full((80,), NAN)), "alpha"),
    "alpha of two axes": (arrays(alpha=torch.zeros(2, 80)), "alpha"),
    "a short alpha": (arrays(alpha=torch.zeros(7)), "7 identity"),
    "no json": (member("json", None), "no 'json'"),
    "json that is none": (member("json", b"{"), "broken or lack"),
    "a list as json": (member("json", b"[1]"), "broken or lack"),
    "deep json": (member("json", b"[" * 100_000), "broken or lack"),
    "json of no text": (member("json", b"\xff\xfe"), "broken or lack"),
    "no tensors": (member("safetensors", b"x"), "broken or lack"),
    "cut tensors": (cut("safetensors", 0.5), "broken or lack"),
}
CLIPS = MOTION | {
    "short coefficients": (
        arrays(expression=torch.zeros(20, 52), pose=torch.zeros(20, 6)),
        "wav lasts 50 frames, but its motion 20",
    ),
    "a cut wav": (cut("wav", 0.5), "its wav holds"),
    "a wav of nothing": (member("wav", sound(0)), "its wav holds 0 bytes"),
    "a wav of 8 bits": (member("wav", sound(2, width=1)), "8-bit sound"),
    "a wav of 10 MHz": (member("wav", sound(0.001, 10_000_000)), "sample rate is 10000000"),
    "no wav": (member("wav", None), "no 'wav'"),
    "another sound": (member("wav", b"OggS"), "broken or lack"),
    "fps of NaN": (about(fps=NAN), "fps is nan"),
    "fps in words": (about(fps="fast"), "broken or lack"),
    "no fps": (about(fps=0), "fps is 0"),
    "times backwards": (about(phonemes=[["aa", 2, 1]]), "'aa' goes from 2.0 to 1.0"),
    "times of NaN": (about(phonemes=[["aa", NAN, 1]]), "'aa' goes from nan"),
    "times in words": (about(phonemes=[["aa", "x", 1]]), "broken or lack"),
    "phonemes that are none": (about(phonemes=5), "broken or lack"),
}
PEOPLE = {name: case for name, case in MOTION.items() if name != "another length"} | {
    "fewer pictures": (member("2.jpg", None), "no '2'"),
    "places in words": (about(clip="a", clip_frames=["x"] * 3), "broken or lack"),
    "too few places": (about(clip="a", clip_frames=[1]), "1 clip_frames for 3 pictures"),
}


def shortened(members: Members) -> None:
    """Motion of a recording's length as that of three pictures."""
    try:
        held = load(members["safetensors"])
    except SafetensorError:
        return
    for name in ("expression", "pose"):
        if name in held and len(held[name]) == FRAMES:
            held[name] = held[name][:3].contiguous()
    members["safetensors"] = save(held)


@pytest.mark.parametrize("case", CLIPS)
def test_a_bad_recording_is_named(tmp_path: Path, case: str) -> None:
    change, words = CLIPS[case]
    members = clip_members(1, seconds=2.0)
    change(members)
    good = {"heldout-a": clip_members(2, seconds=2.0), "train-a": clip_members(3, seconds=2.0)}
    write_shard(tmp_path / "clips-000000.tar", {**good, "train-bad": members})
    with pytest.raises(FD2TalkError, match=f"(?s)train-bad.*({words})"):
        load_speech(tmp_path, default_face_model())


@pytest.fixture(scope="module")
def person() -> Members:
    return person_members(1)


@pytest.mark.parametrize("case", PEOPLE)
def test_bad_pictures_are_named(tmp_path: Path, person: Members, case: str) -> None:
    change, words = PEOPLE[case]
    members = dict(person)
    change(members)
    shortened(members)
    samples = {"heldout-a": person, "train-a": person, "train-bad": members}
    write_shard(tmp_path / "frames-000000.tar", samples)
    with pytest.raises(FD2TalkError, match=f"(?s)train-bad.*({words})"):
        load_pictures(tmp_path, default_face_model())


@pytest.mark.parametrize("content", [b"x", b"", None])
def test_a_picture_that_is_none_is_told_when_it_is_read(
    tmp_path: Path, person: Members, content: bytes
) -> None:
    members = {**person, "1.jpg": person["1.jpg"][:200] if content is None else content}
    write_shard(tmp_path / "frames-000000.tar", {"heldout-a": person, "train-a": members})
    train_set, _, _ = load_pictures(tmp_path, default_face_model())
    with pytest.raises(FD2TalkError, match="Picture 1 of the data cannot be read"):
        train_set.read(1)


@pytest.mark.parametrize("content", [b"", b"x" * 2000, None])
def test_a_shard_that_is_none_is_told(tmp_path: Path, content: bytes | None) -> None:
    write_shard(tmp_path / "clips-000000.tar", {"train-a": clip_members(1, seconds=2.0)})
    whole = (tmp_path / "clips-000000.tar").read_bytes()
    (tmp_path / "clips-000000.tar").write_bytes(whole[:70_000] if content is None else content)
    with pytest.raises(FD2TalkError, match=r"clips-000000\.tar|train-a"):
        load_speech(tmp_path, default_face_model())


# Settings


BAD_SETTINGS = {
    "steps": ["10", 1.5, 0, None, True, [1], {}],
    "batch_size": ["8", 0, -1, 2.5],
    "learning_rate": ["1e-3", 0, -1, NAN, INF, None],
    "ema": ["x", 2, -1, NAN],
    "minutes": ["5", -1, NAN],
    "optimizer": [5, "sgd", None],
    "precision": [True, "fp8"],
    "workers": [-1, "2"],
    "tensorboard": ["yes", 1],
    "seed": ["a", -1, 1.5, 2**80],
    "clip": ["1", NAN],
}


@pytest.mark.parametrize("name", BAD_SETTINGS)
def test_a_setting_of_another_type_is_named(name: str) -> None:
    for value in BAD_SETTINGS[name]:
        with pytest.raises(FD2TalkError, match=f"^{name}"):
            train_settings({"train": {name: value}})


@pytest.mark.parametrize("value", [5, "x", [1], [["steps", 1]], {1: 2}])
def test_a_section_of_another_form_is_named(value: object) -> None:
    with pytest.raises(FD2TalkError, match="train is"):
        train_settings({"train": value})
    with pytest.raises(FD2TalkError, match="network is"):
        subsection({"network": value}, "network")


@pytest.mark.parametrize("value", ["x", None, [1], NAN, True])
@pytest.mark.parametrize("name", ["frames", "visited", "drop_audio"])
def test_an_option_of_a_stage_is_named(name: str, value: object) -> None:
    if value is NAN and name == "drop_audio":
        value = "nan"
    with pytest.raises(FD2TalkError, match=name):
        stage_options({name: value}, MotionOptions())


@pytest.mark.parametrize(
    "text", ["", "5", "[1]", "a: [", "motion: 5", "motion: {train: 5}\nsize: [1]", "[" * 50_000, "\udcff"]
)
def test_a_configuration_of_another_form_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture, text: str
) -> None:
    (tmp_path / "a.yaml").write_bytes(text.encode("utf-8", "surrogateescape"))
    line = ["--config", str(tmp_path / "a.yaml"), "--data", "nowhere", "--weights", str(tmp_path / "weights")]
    assert motion_command([*line, "--runs", str(tmp_path / "runs")]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and "Traceback" not in told and told.count("\n") == 1


@pytest.mark.parametrize(
    "text",
    ["steps", "=5", "train.=5", "train.steps.more=5", "train.steps=[", "a..b=1", "train=[" + "[" * 50_000],
)
def test_an_override_of_another_form_is_told(text: str) -> None:
    with pytest.raises(FD2TalkError):
        apply_overrides({**load_section("tiny", "motion"), "train": {"steps": 1}}, [text])


@pytest.mark.parametrize(
    "options",
    [
        ["--threads", "1000000"],
        ["--threads", "0"],
        ["--steps", "0"],
        ["--minutes", "nan"],
        ["--seed", "-1"],
        ["--set", "train.steps=many"],
        ["--set", "train=5"],
        ["--set", "frames=x"],
        ["--set", "network=5"],
        ["--set", "network.hidden_size=wide"],
        ["--runs", "{file}"],
        ["--data", "{file}"],
        ["--weights", "{file}"],
    ],
)
def test_the_command_line_of_a_stage_shows_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture, options: list[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    line = ["--data", str(tmp_path), "--weights", str(tmp_path / "weights"), "--runs", str(tmp_path / "runs")]
    threads = torch.get_num_threads()
    assert motion_command([*line, *(option.format(file=file) for option in options)]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and told.count("\n") == 1 and torch.get_num_threads() == threads


def test_a_network_of_other_settings_is_named() -> None:
    for changes in (
        {"hidden_size": "wide"},
        {"nothing": 1},
        {"num_layers": None},
        {"kind": 5},
        {"num_heads": 0},
    ):
        with pytest.raises(FD2TalkError, match="network 'expression' cannot be built"):
            configs.build("expression", "tiny", **changes)


@pytest.mark.parametrize(
    "options",
    [["--size", "100000"], ["--workers", "0"], ["--clips", "-1"], ["--frames", "0"], ["--seed", "-5"]],
)
def test_a_corpus_of_other_sizes_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture, options: list[str]
) -> None:
    assert corpus_command(["--out", str(tmp_path / "a"), *options]) == 2
    assert options[0] in capsys.readouterr().err and not (tmp_path / "a").exists()


# States


SETTINGS = TrainSettings(steps=4, batch_size=2, log_every=1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("run")
    train(ToyStage(), SETTINGS, folder / "run", folder / "weights")
    return (folder / "run" / "state.safetensors").read_bytes()


def facts(**changes: Any) -> Callable[[dict, dict], None]:
    return lambda _, stated: stated.update(changes)


def tensor(part: str, change: Callable[[torch.Tensor], torch.Tensor | None]) -> Callable[[dict, dict], None]:
    """Change the first tensor of a part, or take it away."""

    def changed(tensors: dict, _: dict) -> None:
        name = next(name for name in sorted(tensors) if name.startswith(part))
        value = change(tensors.pop(name))
        if value is not None:
            tensors[name] = value

    return changed


STATES = {
    "NaN weights": tensor("model.", lambda value: value * NAN),
    "NaN average": tensor("ema.", lambda value: value * NAN),
    "NaN moments": tensor("optimizer.exp", lambda value: value * NAN),
    "no average": tensor("ema.", lambda value: None),
    "a shape": tensor("ema.", lambda value: torch.zeros(3, 3, 3)),
    "a moment's shape": tensor("optimizer.exp", lambda value: torch.zeros(3, 3, 3)),
    "another parameter": lambda tensors, _: tensors.update({"optimizer.exp_avg.other": torch.zeros(1)}),
    "another weight": lambda tensors, _: tensors.update({"ema.other": torch.zeros(1)}),
    "steps in words": facts(step="many"),
    "steps under 0": facts(step=-1),
    "seconds of NaN": facts(seconds=NAN),
    "metrics in words": facts(best_metrics={"fit": "good"}),
    "metrics of a list": facts(best_metrics=[1]),
    "another stage": facts(stage="motion"),
    "another fact": facts(more=1),
}


@pytest.mark.parametrize("case", STATES)
def test_a_bad_state_is_named(tmp_path: Path, finished: bytes, case: str) -> None:
    path = tmp_path / "run" / "state.safetensors"
    path.parent.mkdir()
    path.write_bytes(finished)
    with safe_open(path, framework="pt") as file:
        stated = json.loads(file.metadata()["state"])
    tensors = load_file(path)
    STATES[case](tensors, stated)
    save_file(tensors, path, {"state": json.dumps(stated)})
    with pytest.raises(FD2TalkError, match=r"state\.safetensors"):
        train(ToyStage(), SETTINGS, path.parent, tmp_path / "weights")
    assert not (tmp_path / "weights").exists()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_state_cut_short_is_named(tmp_path: Path, finished: bytes, share: float) -> None:
    path = tmp_path / "run" / "state.safetensors"
    path.parent.mkdir()
    path.write_bytes(finished[: int(len(finished) * share)])
    with pytest.raises(FD2TalkError, match=r"state\.safetensors"):
        train(ToyStage(), SETTINGS, path.parent, tmp_path / "weights")


def test_features_kept_between_runs_are_held_to_their_clips(tmp_path: Path) -> None:
    write_shard(
        tmp_path / "clips-000000.tar",
        {name: clip_members(number, seconds=1.0) for number, name in enumerate(("heldout-a", "train-a"))},
    )
    speech, _, _ = load_speech(tmp_path, default_face_model())
    encoder = configs.build("audio_encoder", "tiny")
    speech.with_features(encoder, tmp_path)
    (path,) = tmp_path.glob("features-*.safetensors")
    whole, features = path.read_bytes(), load_file(path)
    for broken in (
        whole[: len(whole) // 2],
        save({"0": features["0"][:-1].contiguous()}),
        save({"0": features["0"] * np.nan}),
        save({"1": features["0"]}),
    ):
        path.write_bytes(broken)
        with pytest.raises(FD2TalkError, match=rf"{path.name}.*delete it"):
            speech.with_features(encoder, tmp_path)
    path.write_bytes(whole)
    assert torch.equal(speech.with_features(encoder, tmp_path).clips[0].features, features["0"])

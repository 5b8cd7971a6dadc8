"""The loop: what it learns, that a kill costs nothing, that processes share one run, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import toy_stage  # noqa: E402
from toy_stage import ToyStage  # noqa: E402

from fd2talk_core.errors import FD2TalkError  # noqa: E402
from training.trainer import (  # noqa: E402
    Trainer,
    TrainSettings,
    load_section,
    sample_seed,
    schedule,
    stage_main,
    train,
    train_settings,
)

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
TOY = [str(Path(__file__).with_name("toy_stage.py"))]


def losses(folder: Path) -> dict[int, float]:
    lines = (folder / "run" / "losses.jsonl").read_text().splitlines()
    return {r["step"]: r["loss"] for r in map(json.loads, lines) if "loss" in r}


def run_toy(folder: Path, *arguments: str, launcher: tuple[str, ...] = ()) -> str:
    command = [sys.executable, *launcher, *TOY, str(folder), *arguments]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    toy_stage.main([str(folder)])
    return folder


def test_learns_and_writes_its_results(uninterrupted: Path) -> None:
    curve = losses(uninterrupted)
    assert list(curve) == list(range(1, 61))
    assert sum(list(curve.values())[-5:]) < 0.5 * sum(list(curve.values())[:5])
    report = json.loads((uninterrupted / "run" / "report.json").read_text())
    assert report["steps"] == 60 and report["samples_per_second"] > 0 and 0 <= report["waiting"] <= 1
    assert (uninterrupted / "run" / "curves.png").stat().st_size > 1000
    with safe_open(uninterrupted / "weights" / "net.safetensors", framework="pt") as file:
        assert file.metadata()["trained_on"].startswith("a sine; seed 0, 60 steps of 8")


def test_kill_and_resume_give_the_same_run(uninterrupted: Path, tmp_path: Path) -> None:
    command = [sys.executable, *TOY, str(tmp_path), "--pause", "0.03"]
    killed = subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    state = tmp_path / "run" / "state.safetensors"
    deadline = time.monotonic() + 60
    while not state.exists() or len(losses(tmp_path)) < 15:
        assert killed.poll() is None and time.monotonic() < deadline, (
            "the run ended before it could be killed"
        )
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    with safe_open(state, framework="pt") as file:
        saved = json.loads(file.metadata()["state"])["step"]
    assert 0 < saved < 60
    toy_stage.main([str(tmp_path)])
    assert losses(tmp_path) == pytest.approx(losses(uninterrupted), rel=1e-4)
    expected = load_file(uninterrupted / "weights" / "net.safetensors")
    for name, value in load_file(tmp_path / "weights" / "net.safetensors").items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5)


def test_two_processes_train_as_one_and_one_goes_on_for_them(tmp_path: Path) -> None:
    """Two processes for 30 steps, each batch in two parts, and one process for the rest."""
    launcher = ("-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29617")
    two = ("--dropout", "0", "--steps", "30", "--accumulate", "2")
    assert "2 × " in run_toy(tmp_path / "two", *two, launcher=launcher)
    toy_stage.main([str(tmp_path / "one"), "--dropout", "0", "--steps", "30"])
    expected = load_file(tmp_path / "one" / "weights" / "net.safetensors")
    for name, value in load_file(tmp_path / "two" / "weights" / "net.safetensors").items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-4)
    for folder in ("one", "two"):
        toy_stage.main([str(tmp_path / folder), "--dropout", "0", "--steps", "40"])
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=2e-3)
    expected = load_file(tmp_path / "one" / "weights" / "net.safetensors")
    for name, value in load_file(tmp_path / "two" / "weights" / "net.safetensors").items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-4)


def test_data_workers_change_nothing(uninterrupted: Path, tmp_path: Path) -> None:
    toy_stage.main([str(tmp_path), "--workers", "1"])
    assert losses(tmp_path) == pytest.approx(losses(uninterrupted), rel=1e-6)


def test_parts_of_a_batch_give_its_gradient(tmp_path: Path) -> None:
    curves = []
    for parts in (1, 4):
        settings = TrainSettings(steps=6, batch_size=8, accumulate=parts, log_every=1)
        train(ToyStage(dropout=0.0), settings, tmp_path / str(parts) / "run", tmp_path / "weights")
        curves.append(losses(tmp_path / str(parts)))
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)
    with pytest.raises(FD2TalkError, match="8, which 1 processes, each in 3 parts, cannot share equally"):
        Trainer(ToyStage(), TrainSettings(batch_size=8, accumulate=3), tmp_path)


def test_compiled_networks_train_as_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the backend that runs what was traced as it is: no compiler of C is needed."""
    compiled, original = [], torch.nn.Module.compile

    def traced(network: torch.nn.Module) -> None:
        compiled.append(network)
        original(network, backend="eager")

    monkeypatch.setattr(torch.nn.Module, "compile", traced)
    for choice in (False, True):
        settings = TrainSettings(steps=3, batch_size=4, log_every=1, compile=choice)
        train(ToyStage(dropout=0.0), settings, tmp_path / str(choice) / "run", tmp_path / "weights")
    assert len(compiled) == 1
    assert losses(tmp_path / "True") == pytest.approx(losses(tmp_path / "False"), rel=1e-5)


def test_time_budget_ends_the_run_and_the_schedule(tmp_path: Path) -> None:
    settings = TrainSettings(steps=10**6, minutes=1 / 60, batch_size=4, log_every=1)
    report = train(ToyStage(pause=0.005), settings, tmp_path / "run", tmp_path / "weights")
    lines = (tmp_path / "run" / "losses.jsonl").read_text().splitlines()
    steps = [record for record in map(json.loads, lines) if "rate" in record]
    rates, seconds = ([record[name] for record in steps] for name in ("rate", "seconds"))
    # it stops at the first step that ends after the budget, however slow the machine is
    assert report.steps == len(steps) and seconds[-2] <= 1 <= seconds[-1] + 0.01
    assert rates[-1] < 0.05 * settings.learning_rate < 0.5 * max(rates)


@pytest.mark.parametrize("slow", ["data", "step"])
def test_waiting_for_data_is_measured_and_told(tmp_path: Path, slow: str) -> None:
    class SlowData(ToyStage):
        def sample(self, index: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
            time.sleep(0.05)
            return super().sample(index, generator)

    stage = SlowData() if slow == "data" else ToyStage(pause=0.1)
    report = train(stage, TrainSettings(steps=4, batch_size=2), tmp_path / "run", tmp_path / "weights")
    assert (report.waiting > 0.5) == (slow == "data")
    assert ("more train.workers would shorten it" in str(report)) == (report.waiting > 0.1)


def test_best_weights_are_kept(tmp_path: Path) -> None:
    class Worsening(ToyStage):
        scores = iter([1.0, 5.0, 2.0, 2.0])

        def validate(self, folder: Path | None) -> dict[str, float]:
            return {"fit": next(self.scores)}

    stage = Worsening()
    trainer = Trainer(stage, TrainSettings(steps=15, batch_size=4, validate_every=5), tmp_path)
    kept = {}

    original = trainer.validate

    def spy(folder: Path | None) -> dict[str, float]:
        metrics = original(folder)
        kept[metrics["fit"]] = {k: v.clone() for k, v in trainer.ema.items()}
        return metrics

    trainer.validate = spy
    assert trainer.run().metrics == {"fit": 5.0}
    trainer.export(tmp_path / "weights", "")
    for name, value in load_file(tmp_path / "weights" / "net.safetensors").items():
        torch.testing.assert_close(value, kept[5.0]["net." + name])


def test_exploding_loss_is_a_sentence(tmp_path: Path) -> None:
    class Exploding(ToyStage):
        def forward(self, batch: dict) -> dict:
            return {"loss": super().forward(batch)["loss"] * float("nan")}

    with pytest.raises(FD2TalkError, match="lower learning_rate"):
        train(Exploding(), TrainSettings(steps=3, log_every=1), tmp_path / "run", tmp_path / "weights")


@pytest.mark.parametrize("steps", [40, 6])
def test_a_broken_state_is_never_saved(tmp_path: Path, steps: int) -> None:
    """Between two lines of the log, where nobody looks at the loss, and at the end, before it is measured."""

    class Exploding(ToyStage):
        batches = 0

        def forward(self, batch: dict) -> dict:
            self.batches += 1
            return {"loss": super().forward(batch)["loss"] * (float("nan") if self.batches == 6 else 1)}

    settings = TrainSettings(steps=steps, batch_size=4, log_every=1000, save_seconds=0)
    with pytest.raises(FD2TalkError, match="lower learning_rate .*goes on from .*state.safetensors"):
        train(Exploding(), settings, tmp_path / "run", tmp_path / "weights")
    assert not (tmp_path / "weights").exists()
    state = tmp_path / "run" / "state.safetensors"
    with safe_open(state, framework="pt") as file:
        assert json.loads(file.metadata()["state"])["step"] == 5
        facts = file.metadata()
    tensors = load_file(state)
    assert all(torch.isfinite(value).all() for value in tensors.values())
    report = train(ToyStage(), settings, tmp_path / "run", tmp_path / "weights")
    assert report.steps == steps and report.metrics["fit"] > -10

    # one that an earlier version left behind
    tensors["ema.net.0.bias"][0] = float("nan")
    save_file(tensors, state, facts)
    with pytest.raises(FD2TalkError, match="not a number in ema.net.0.bias; delete it"):
        train(ToyStage(), settings, tmp_path / "run", tmp_path / "weights")


def test_another_networks_state_is_refused(tmp_path: Path) -> None:
    settings = TrainSettings(steps=2, batch_size=4)
    train(ToyStage(), settings, tmp_path / "run", tmp_path / "weights")

    class Other(ToyStage):
        name = "other"

    with pytest.raises(FD2TalkError, match="another stage"):
        train(Other(), settings, tmp_path / "run", tmp_path / "weights")
    (tmp_path / "run" / "state.safetensors").write_bytes(b"not a state")
    with pytest.raises(FD2TalkError, match="cannot be read"):
        train(ToyStage(), settings, tmp_path / "run", tmp_path / "weights")


def test_schedule_rises_then_falls() -> None:
    values = [schedule(i / 100, 0.1, 0.01) for i in range(101)]
    assert values[0] == 0 and max(values) == values[10] == pytest.approx(1)
    assert values[:11] == sorted(values[:11]) and values[10:] == sorted(values[10:], reverse=True)
    assert values[-1] == pytest.approx(0.01)


def test_sample_seeds_do_not_collide() -> None:
    seeds = {sample_seed(seed, index) for seed in range(4) for index in range(-2000, 2000)}
    assert len(seeds) == 4 * 4000


def test_settings_and_configs_refuse_with_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(FD2TalkError, match="no setting 'stepz'"):
        train_settings({"train": {"stepz": 3}})
    with pytest.raises(FD2TalkError, match="no configuration nowhere"):
        load_section("nowhere", "unet")
    (tmp_path / "bad.yaml").write_text("unet: [")
    with pytest.raises(FD2TalkError, match="not valid YAML"):
        load_section(tmp_path / "bad.yaml", "unet")
    (tmp_path / "empty.yaml").write_text("unet: {}")
    with pytest.raises(FD2TalkError, match="no section 'motion'"):
        load_section(tmp_path / "empty.yaml", "motion")

    (tmp_path / "near.yaml").write_text("like: far.yaml\nunet: {steps: 3, train: {steps: 5}}")
    (tmp_path / "far.yaml").write_text("like: smoke\nunet: {network: {context_dim: 16}}")
    section, smoke = load_section(tmp_path / "near.yaml", "unet"), load_section("smoke", "unet")
    assert section["steps"] == 3 and section["network"] == smoke["network"] | {"context_dim": 16}
    assert section["train"] == smoke["train"] | {"steps": 5}
    assert load_section(tmp_path / "near.yaml", "motion") == load_section("smoke", "motion")
    (tmp_path / "far.yaml").write_text("like: near.yaml")
    with pytest.raises(FD2TalkError, match="near.yaml is like itself"):
        load_section(tmp_path / "near.yaml", "unet")

    def build(*_: object) -> None:
        raise AssertionError("must not get this far")

    arguments = ["--data", str(tmp_path), "--weights", str(tmp_path), "--config"]
    assert stage_main("unet", build, "", [*arguments, "nowhere"]) == 2
    assert "error: There is no configuration" in capsys.readouterr().err

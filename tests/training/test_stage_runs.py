"""Every stage, not only the loop: killed with signal 9 and started again, and shared by two processes."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

sys.path[:0] = [str(Path(__file__).parent)]

import stage_process  # noqa: E402
import synthetic  # noqa: E402

STEPS = 6
# small and short: what is compared is two runs, not what they reach
SMALL = {
    "audio_encoder": ["train.batch_size=4", "seconds=0.5", "held_out_clips=1"],
    "lip_expert": ["train.batch_size=8"],
    "motion": ["train.batch_size=4", "held_out_clips=1", "held_out_seconds=1.0"],
    "autoencoder": ["train.batch_size=4", "crop=32", "held_out_pairs=2"],
    "unet": ["train.batch_size=4", "pictures=8", "held_out_pairs=2"],
    "blend": ["train.batch_size=4", "pictures=8", "held_out_pairs=2", "train.learning_rate=3.0e-4"],
}
STAGES = list(SMALL)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    synthetic.write_data(folder / "data", clips=3, people=4, size=64)
    return folder


def arguments(world: Path, stage: str, run: str) -> list[str]:
    """The stage's command line, over weights of its own that begin as those of the uninterrupted runs."""
    weights = world / f"weights-{run}"
    if run != "one" and not weights.exists():
        shutil.copytree(world / "weights-one", weights)
    line = ["--config", "smoke", "--data", world / "data", "--weights", weights, "--runs", world / "runs"]
    line += ["--run", run, "--steps", STEPS]
    for change in ("train.log_every=1", "train.save_seconds=0", *SMALL[stage]):
        line += ["--set", change]
    return [str(word) for word in line]


def finish(*processes) -> None:
    for process in processes:
        process.join(240)
        assert process.exitcode == 0, process


def losses(world: Path, stage: str, run: str) -> dict[int, float]:
    lines = (world / "runs" / run / stage / "losses.jsonl").read_text().splitlines()
    return {record["step"]: record["loss"] for record in map(json.loads, lines) if "loss" in record}


def state(world: Path, stage: str, run: str, part: str = "model") -> tuple[int, dict[str, torch.Tensor]]:
    """Steps done and the weights as trained, or another part of the state, at full precision."""
    path = world / "runs" / run / stage / "state.safetensors"
    with safe_open(path, framework="pt") as file:
        step = json.loads(file.metadata()["state"])["step"]
    return step, {k[len(part) + 1 :]: v for k, v in load_file(path).items() if k.startswith(f"{part}.")}


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_run_goes_on_as_if_it_had_not_been(world: Path, stage: str) -> None:
    # each stage leaves in weights-one what the next one needs
    whole = stage_process.start(stage, arguments(world, stage, "one"))
    finish(whole)
    killed = stage_process.start(stage, arguments(world, stage, "killed"), kill_at=4)
    killed.join(240)
    assert killed.exitcode == -signal.SIGKILL
    assert state(world, stage, "killed")[0] == 3  # the fourth step is lost, and made again
    finish(stage_process.start(stage, arguments(world, stage, "killed")))
    expected = losses(world, stage, "one")
    assert list(expected) == list(range(1, STEPS + 1))
    assert losses(world, stage, "killed") == pytest.approx(expected, rel=1e-4)
    weights = state(world, stage, "killed")[1]
    for name, value in state(world, stage, "one")[1].items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_give_what_one_gives(world: Path, stage: str) -> None:
    assert (world / "runs" / "one" / stage).exists(), "runs after the test above"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    line = arguments(world, stage, "two")
    finish(*[stage_process.start(stage, line, RANK=str(r), LOCAL_RANK=str(r), **common) for r in range(2)])
    report = json.loads((world / "runs" / "two" / stage / "report.json").read_text())
    assert report["device"].startswith("2 × ")
    assert losses(world, stage, "two") == pytest.approx(losses(world, stage, "one"), rel=0.02)
    # Adam moves a weight of no gradient as far as any other, whichever way rounding points, so that weights
    # of equal runs differ. Their averaged gradients do not; those of runs that share nothing differ by more
    # than their norm
    one, two = (state(world, stage, run, "optimizer.exp_avg")[1] for run in ("one", "two"))
    apart = sum(float((one[name] - two[name]).square().sum()) for name in one)
    assert one and apart < 0.1**2 * sum(float(value.square().sum()) for value in one.values())

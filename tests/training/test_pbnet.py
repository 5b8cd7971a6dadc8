"""PBNet's stage learns by its three losses, and writes what PoseDiT's place takes."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

sys.path[:0] = [str(Path(__file__).parent)]

import synthetic  # noqa: E402

from fd2talk_core import configs  # noqa: E402
from fd2talk_core.networks.checkpoint import SHIPPED  # noqa: E402
from fd2talk_core.networks.pose_blink import PoseBlinkNetwork  # noqa: E402
from training import pbnet  # noqa: E402
from training.stages.pose_blink import LIDS, _Reversed, build, states_of  # noqa: E402
from training.trainer import load_section  # noqa: E402
from training.trainer.settings import apply_overrides  # noqa: E402


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    synthetic.write_data(folder / "data", clips=3, people=1, size=32)
    (folder / "weights").mkdir()
    shutil.copy(SHIPPED / "tiny" / "audio_encoder.safetensors", folder / "weights")
    return folder


def test_it_learns_and_writes_a_pose_checkpoint(world: Path) -> None:
    line = ["--config", "smoke", "--data", str(world / "data"), "--weights", str(world / "weights")]
    line += ["--runs", str(world / "runs"), "--steps", "60", "--set", "train.log_every=1"]
    assert pbnet.main(line) == 0
    lines = (world / "runs" / "default" / "pbnet" / "losses.jsonl").read_text().splitlines()
    records = [record for record in map(json.loads, lines) if "loss" in record]
    rebuilt = [record["reconstruction_loss"] for record in records]
    assert sum(rebuilt[-10:]) < 0.5 * sum(rebuilt[:10])
    assert {"kl_loss", "adversarial_loss"} <= records[0].keys()
    loaded = configs.load_network("pose", world / "weights" / "pose.safetensors")
    assert isinstance(loaded, PoseBlinkNetwork) and loaded.info.trained_on != "nothing"


def test_the_discriminator_and_what_hides_from_it_pull_apart(world: Path, tmp_path: Path) -> None:
    section = apply_overrides(load_section("smoke", "pbnet"), ["kl_weight=0", "adversarial_weight=1"])
    stage, _ = build(section, world / "data", world / "weights", 0, tmp_path)
    clip = stage.speech.clips[0]
    assert states_of(clip).shape == (clip.num_frames, 8)
    assert torch.equal(states_of(clip)[:, 6:], clip.expression[:, LIDS])
    batch = stage.batch(range(2), lambda index: torch.Generator().manual_seed(index))
    told = stage.networks["discriminator"]
    change = torch.randn(2, 50, 8, requires_grad=True)
    told(_Reversed.apply(change), batch["audio"]).sum().backward()
    reversed_gradient, change.grad = change.grad, None
    told(change, batch["audio"]).sum().backward()
    torch.testing.assert_close(reversed_gradient, -change.grad)
    stage(batch)["adversarial_loss"].backward()
    assert all(value.grad.abs().max() > 0 for value in told.parameters())
    assert any(value.grad is not None for value in stage.networks["pose"].decoder.parameters())

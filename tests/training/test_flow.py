"""DAWN's two stages: what moves between two pictures, then how it moves through a clip."""

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
from fd2talk_core.errors import FD2TalkError  # noqa: E402
from fd2talk_core.face.model import default_face_model  # noqa: E402
from fd2talk_core.networks.checkpoint import SHIPPED, load_checkpoint  # noqa: E402
from fd2talk_core.networks.latent_flow import FlowPredictor, LatentFlowUNet  # noqa: E402
from training import flow, latent_flow  # noqa: E402
from training.held_out import measure_frames  # noqa: E402
from training.scorecard.cost import score_cost  # noqa: E402
from training.scorecard.weights import Weights  # noqa: E402
from training.sources import load_pictures, load_videos  # noqa: E402
from training.stages.flow import FlowOptions, build  # noqa: E402
from training.trainer import load_section  # noqa: E402
from training.trainer.settings import apply_overrides  # noqa: E402

SIZE = 64


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos, and weights whose latent flow generator has been trained."""
    folder = tmp_path_factory.mktemp("world")
    synthetic.write_videos(folder / "data", size=SIZE)
    shutil.copytree(SHIPPED / "tiny", folder / "weights")
    assert latent_flow.main([*line(folder), "--steps", "40"]) == 0
    return folder


def line(folder: Path) -> list[str]:
    given = ["--config", "smoke", "--data", str(folder / "data"), "--weights", str(folder / "weights")]
    return [*given, "--runs", str(folder / "runs"), "--set", "train.log_every=1"]


def records(folder: Path, stage: str) -> list[dict]:
    lines = (folder / "runs" / "default" / stage / "losses.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if "loss" in record]


def test_the_generator_learns_what_moves_and_the_decoder_to_show_it(world: Path) -> None:
    losses = records(world, "latent_flow")
    for name in ("latent_loss", "rec_loss"):
        found = [record[name] for record in losses]
        assert sum(found[-8:]) < 0.8 * sum(found[:8])
    predictor = load_checkpoint(world / "weights" / "flow_predictor.safetensors", FlowPredictor)
    assert predictor.info.resolution == SIZE
    own, shipped = (
        configs.load_network("autoencoder", folder / "autoencoder.safetensors").state_dict()
        for folder in (world / "weights", SHIPPED / "tiny")
    )
    changed = {name.split(".")[0] for name, value in own.items() if not torch.equal(value, shipped[name])}
    assert changed == {"decoder"}


@pytest.mark.parametrize("hears", [True, False])
def test_the_diffusion_learns_and_its_set_speaks(world: Path, hears: bool, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    shutil.copytree(world / "weights", weights)
    given = [*line(world), "--steps", "40", "--set", f"hears={str(hears).lower()}"]
    given[given.index("--weights") + 1] = str(weights)
    given[given.index("--runs") + 1] = str(tmp_path / "runs")
    assert flow.main(given) == 0
    losses = [record["loss"] for record in records(tmp_path, "flow")]
    assert sum(losses[-8:]) < 0.8 * sum(losses[:8])
    made = configs.load_network("unet", weights / "unet.safetensors")
    assert isinstance(made, LatentFlowUNet) and made.hears == hears and made.info.steps == 4
    metrics = json.loads((tmp_path / "runs" / "default" / "flow" / "report.json").read_text())["metrics"]
    assert {"psnr", "hidden", "flicker", "best_psnr", "copy_psnr"} <= metrics.keys()
    if hears:
        with pytest.raises(FD2TalkError, match="training.evaluate"):
            Weights.load(weights)
    else:
        measured = Weights.load(weights)
        videos, _, _ = load_videos(world / "data", measured.face_model)
        from training.held_out import picture_reference

        reference = picture_reference(measured.autoencoder, measured.face_model, videos.pictures, 0)
        size, work, _ = score_cost(measured, reference, seconds=0.2)
        assert size.value > 1 and "UNet" in work.note and "reference encoder" not in work.note


def test_first_short_clips_from_their_first_frame_then_longer_ones_from_any(
    world: Path, tmp_path: Path
) -> None:
    """DAWN Sec. 3.5."""
    changes = ["frames=6", "longer_from=9", "longer_to=12", "longer_after=4", "noise_mode=per_frame"]
    section = apply_overrides(load_section("smoke", "flow"), changes)
    stage, words = build(section, world / "data", world / "weights", 0, tmp_path)
    assert words == "75 frames of 3 talking videos"

    def batch(first: int) -> dict[str, torch.Tensor]:
        return stage.batch(range(first, first + 2), lambda index: torch.Generator().manual_seed(index))

    short = batch(0)
    assert short["frames"].shape[:2] == (2, 6)
    assert torch.equal(short["source"], short["frames"][:, 0]) and not short["change"][:, 0].any()
    assert not torch.equal(short["noise"][:, 0], short["noise"][:, 1])
    longer = [batch(first) for first in range(4, 24, 2)]
    assert {len(one["frames"][0]) for one in longer} <= set(range(9, 13))
    assert any(not torch.equal(one["source"], one["frames"][:, 0]) for one in longer)
    # lips lie in the face, and the face in the picture
    assert 0 < float(stage.lips.float().mean()) < float(stage.faces.float().mean()) < 1
    with pytest.raises(FD2TalkError, match="two numbers in order"):
        FlowOptions(longer_from=40, longer_to=30)


def test_videos_are_pictures_where_there_are_no_others(world: Path, tmp_path: Path) -> None:
    face_model = default_face_model()
    train, held_out, words = load_pictures(world / "data", face_model)
    assert (len(train), len(held_out), words) == (75, 25, "75 pictures of 3 people")
    videos, _, _ = load_videos(world / "data", face_model)
    assert [video.frames for video in videos.videos] == [range(25), range(25, 50), range(50, 75)]
    members = synthetic.video_members(0)
    members.pop("24.jpg")
    synthetic.write_shard(tmp_path / "videos-000000.tar", {"train-video0": members})
    with pytest.raises(FD2TalkError, match="video0"):
        load_videos(tmp_path, face_model)


def test_an_error_that_stays_does_not_flicker() -> None:
    truth = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    everywhere = torch.ones(5, 1, 16, 16, dtype=torch.bool)
    some = everywhere.clone()
    some[:2] = False
    held = measure_frames(truth + 0.1, truth, everywhere, everywhere, some)
    assert held.flicker < 1e-3 and abs(held.psnr - 20) < 1e-3 and abs(held.hidden - 20) < 1e-3
    turns = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0]).view(5, 1, 1, 1)
    turning = measure_frames(truth + 0.1 * turns, truth, everywhere, everywhere, everywhere)
    assert abs(turning.flicker - 51) < 1e-2 and abs(turning.psnr - 20) < 1e-3

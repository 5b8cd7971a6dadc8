"""The recipe of some minutes: what it has, how it is shared, and that it goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from training import gpu
from training.gpu import WAVES, Clock, last_value, part_of, report_text, stage_minutes


def test_the_clock_goes_on_over_starts(tmp_path: Path) -> None:
    now = [100.0]
    clock = Clock(2.0, tmp_path / "clock.json", lambda: now[0])
    now[0] += 30
    assert clock.spent == pytest.approx(0.5) and clock.left == pytest.approx(1.5)
    clock.keep()
    now[0] = 5.0  # another process, another origin
    again = Clock(2.0, tmp_path / "clock.json", lambda: now[0])
    assert again.spent == pytest.approx(0.5)
    now[0] += 600
    assert again.left == 0


def test_the_corpus_grows_in_waves_until_its_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, made = [0.0], []

    def make_corpus(run: object, section: dict) -> None:
        made.append(section["train"])
        now[0] += 50

    monkeypatch.setattr(gpu, "make_corpus", make_corpus)
    section = {"size_px": 64, "train": {"identities": 80, "frames": 5, "clips": 160}, "heldout": {"clips": 4}}
    # a fifth of 15 minutes is 180 s: three waves of 50 s, and a fourth would not fit
    assert gpu.grow_corpus(None, section, Clock(15, tmp_path / "clock.json", lambda: now[0])) == 3
    assert made[0] == {"identities": 10, "frames": 5, "clips": 20} and made[-1]["clips"] == 60
    assert part_of(section["train"], WAVES) == section["train"]
    assert part_of({"clips": 3, "videos": 0}, 1) == {"clips": 1, "videos": 0}


def test_stages_share_what_is_left() -> None:
    stages = ["motion", "autoencoder", "unet"]
    assert stage_minutes("unet", stages, 10) == pytest.approx(9)
    assert stage_minutes("motion", stages, 10) == pytest.approx(9 * 0.2 / 0.72)


def test_a_stage_that_was_stopped_gets_its_share_on_top_of_what_it_has_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = gpu.Run("smoke", "smoke", tmp_path, tmp_path, tmp_path / "weights", 0, 1, 1)
    given = {}

    class Video:
        num_frames = 10

        def save(self, path: Path) -> Path:
            return path

    class Pipeline:
        @classmethod
        def from_pretrained(cls, name: str) -> Pipeline:
            return cls()

        def to(self, device: str) -> Pipeline:
            return self

        def __call__(self, *_: object) -> Video:
            return Video()

    def train_stage(run: object, stage: str, minutes: float | None) -> dict:
        given[stage] = minutes
        return {"steps": 1, "seconds": 60, "samples_per_second": 1.0, "waiting": 0.0, "metrics": {}}

    monkeypatch.setattr(gpu, "make_corpus", lambda *_: None)
    monkeypatch.setattr(gpu, "train_stage", train_stage)
    monkeypatch.setattr(gpu, "FD2TalkPipeline", Pipeline)
    for stage, record in (("motion", {"seconds": 90, "loss": 1.0}), ("unet", {})):
        (run.folder / stage).mkdir(parents=True)
        (run.folder / stage / "losses.jsonl").write_text(json.dumps(record))
    (run.folder / "lip_expert").mkdir()
    (run.folder / "lip_expert" / "report.json").write_text("{}")
    text = gpu.recipe(run, 10.0, tmp_path, tmp_path)
    assert given["lip_expert"] is None
    left = 10 * 0.9
    assert given["motion"] == pytest.approx(1.5 + left * 0.2 / 0.82, rel=0.01)
    assert given["unet"] == pytest.approx(left * 0.32 / 0.42, rel=0.01)
    assert "10 frames" in text and (run.folder / "report.txt").read_text().strip() == text


def test_the_report_tells_losses_frames_and_sizes(tmp_path: Path) -> None:
    run = gpu.Run("gpu", "gpu", tmp_path, tmp_path, tmp_path / "weights", 0, 1, 1)
    folder = run.folder / "unet"
    folder.mkdir(parents=True)
    lines = [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}, {"step": 2, "held_out": {}}]
    (folder / "losses.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert last_value(folder / "losses.jsonl", "loss", 0.0) == 0.25
    assert last_value(folder / "none.jsonl", "seconds", 0.0) == 0.0
    run.weights.mkdir()
    (run.weights / "unet.safetensors").write_bytes(b"0" * (gpu.LARGE + 1))
    (run.weights / "pose.safetensors").write_bytes(b"0")
    report = {
        "steps": 9,
        "seconds": 60,
        "samples_per_second": 3.0,
        "waiting": 0.02,
        "metrics": {"psnr": 21.5},
    }
    text = report_text(run, {"unet": report}, 2, 3.0, "talking.mp4: 50 frames, 9.00 per second")
    assert "loss 0.25 after 9 steps" in text and "psnr 21.5" in text and "waiting 2%" in text
    assert "50 frames, 9.00 per second" in text and "corpus 2/8" in text
    (large,) = [line for line in text.splitlines() if "unet.safetensors" in line]
    assert "over 16 MiB" in large and "pose.safetensors: 0.0 MiB" in text


def test_no_time_is_refused_in_a_sentence(capsys: pytest.CaptureFixture) -> None:
    assert gpu.main(["--minutes", "0"]) == 2
    assert "--minutes is 0" in capsys.readouterr().err

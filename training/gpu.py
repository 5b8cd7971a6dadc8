"""``python -m training.gpu --minutes N``: from nothing to a talking video within N minutes of one GPU.

The corpus is made by the processor for a part of the time, then the stages share what is left; each stage
decays to its end within its share. What is done is kept, and so is the time it took: after a stop the same
command goes on with the minutes that are left. On a processor it does the same with less.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fd2talk_core.checks import check_number, check_whole
from fd2talk_core.files import replacing
from fd2talk_core.networks.checkpoint import NETWORKS, in_set
from fd2talk_core.pipeline import FD2TalkPipeline
from fd2talk_core.terminal import run_command

from .everything import ROOT, Run, make_corpus, train_stage
from .stages import STAGES
from .trainer import has_section, load_section

CORPUS_SHARE = 0.2
SHARES = {
    "audio_encoder": 0.15,
    "lip_expert": 0.03,
    "motion": 0.2,
    "autoencoder": 0.2,
    "unet": 0.32,
    "blend": 0.1,
}
"""Of the time that the corpus leaves."""
SPARE = 0.1
"""Part of a stage's share that reading data, encoding and measuring may take."""
LEAST = 0.05
"""Minutes of training that a stage gets when the time is over."""
WAVES = 8
"""In so many steps the corpus grows to what the configuration names."""
LARGE = 16 * 2**20
"""Bytes over which a file of weights is said to be too large to go into a repository."""


@dataclass(frozen=True, eq=False)
class Clock:
    """Minutes that a run has, over all its starts.

    Attributes:
        minutes: in all.
        kept: the file in which those of earlier starts stand.
        now: seconds, of any origin.
    """

    minutes: float
    kept: Path
    now: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        before = json.loads(self.kept.read_text(encoding="utf-8"))["seconds"] if self.kept.exists() else 0.0
        object.__setattr__(self, "_started", self.now() - before)

    @property
    def spent(self) -> float:
        """Minutes."""
        return (self.now() - self._started) / 60

    @property
    def left(self) -> float:
        """Minutes, not under 0."""
        return max(0.0, self.minutes - self.spent)

    def keep(self) -> None:
        """Remember what is spent, for a start after this one."""
        with replacing(self.kept) as partial:
            partial.write_text(json.dumps({"seconds": self.spent * 60}), encoding="utf-8")


def grow_corpus(run: Run, section: Mapping[str, Any], clock: Clock) -> int:
    """Make the corpus in waves, as long as the next one will probably end within its part of the time.

    Returns:
        how many of :data:`WAVES` there are.
    """
    budget = CORPUS_SHARE * clock.minutes
    for wave in range(1, WAVES + 1):
        began = clock.spent
        make_corpus(run, {**section, "train": part_of(section["train"], wave)})
        clock.keep()
        took = clock.spent - began
        if clock.spent + took > budget:
            return wave
    return WAVES


def part_of(amounts: Mapping[str, int], wave: int) -> dict[str, int]:
    """The amounts of a wave: people and clips grow, what each has stays."""
    growing = ("identities", "clips", "videos")
    return {
        name: max(1, round(value * wave / WAVES)) if name in growing and value else value
        for name, value in amounts.items()
    }


def stage_minutes(stage: str, stages: list[str], left: float) -> float:
    """What a stage may train, of the minutes left for it and those after it."""
    later = stages[stages.index(stage) :]
    return (1 - SPARE) * left * SHARES[stage] / sum(SHARES[name] for name in later)


def recipe(run: Run, minutes: float, portrait: Path, speech: Path) -> str:
    """Corpus, stages, a video, and the report as text."""
    run.folder.mkdir(parents=True, exist_ok=True)
    clock = Clock(minutes, run.folder / "clock.json")
    waves = grow_corpus(run, load_section(run.config, "corpus"), clock)
    stages = [stage for stage in STAGES if has_section(run.config, stage)]
    reports = {}
    for stage in stages:
        folder = run.folder / stage
        budget = None
        if not (folder / "report.json").exists():
            # a stopped one goes on from what it has trained; with no time left it writes what it has
            trained = last_value(folder / "losses.jsonl", "seconds", 0.0) / 60
            budget = trained + max(LEAST, stage_minutes(stage, stages, clock.left))
        reports[stage] = train_stage(run, stage, budget)
        clock.keep()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipeline = FD2TalkPipeline.from_pretrained(str(run.weights.resolve())).to(device)
    began = time.monotonic()
    video = pipeline(portrait, speech)
    place = video.save(run.folder / "talking.mp4")
    rate = video.num_frames / (time.monotonic() - began)
    clock.keep()
    text = report_text(
        run, reports, waves, clock.spent, f"{place}: {video.num_frames} frames, {rate:.2f} per second"
    )
    with replacing(run.folder / "report.txt") as partial:
        partial.write_text(text + "\n", encoding="utf-8")
    return text


def report_text(
    run: Run, reports: Mapping[str, Mapping[str, Any]], waves: int, spent: float, video: str
) -> str:
    """Losses, held-out measures, frames, and the sizes of the weights."""
    lines = [f"{run.config}: {spent:.1f} minutes, corpus {waves}/{WAVES} of its full size"]
    for stage, report in reports.items():
        loss = last_value(run.folder / stage / "losses.jsonl", "loss", math.nan)
        measures = ", ".join(f"{name} {value:.4g}" for name, value in report["metrics"].items())
        lines.append(
            f"{stage}: loss {loss:.4g} after {report['steps']} steps in {report['seconds'] / 60:.1f} min, "
            f"{report['samples_per_second']:.1f} samples/s, waiting {report['waiting']:.0%}; "
            f"held out: {measures}"
        )
    lines.append(video)
    for network in NETWORKS:
        path = in_set(run.weights, network)
        if path is not None and path.is_file():
            size = path.stat().st_size
            note = f" (over {LARGE // 2**20} MiB: keep it out of a repository)" if size > LARGE else ""
            lines.append(f"{path}: {size / 2**20:.1f} MiB{note}")
    return "\n".join(lines)


def last_value(log: Path, name: str, default: float) -> float:
    """A value in the last line of a run's log that has it."""
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    values = [record[name] for record in map(json.loads, lines) if name in record]
    return values[-1] if values else default


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.gpu", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--minutes", type=float, required=True, help="for everything, over all starts of a run"
    )
    parser.add_argument(
        "--config", default="gpu", help="gpu: the paper's form at 128 px; tiny: what ships; or a YAML file"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where run folders are kept")
    parser.add_argument("--run", help="name of the folder under runs/; the configuration's by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes that make the corpus"
    )
    parser.add_argument("--portrait", type=Path, default=ROOT / "example_inputs" / "portrait.png")
    parser.add_argument("--speech", type=Path, default=ROOT / "example_inputs" / "speech.wav")
    given = parser.parse_args(arguments)

    def work() -> str:
        check_number(given.minutes, "--minutes", 0, over=True)
        check_whole(given.workers, "--workers", 1, 1024)
        name = given.run or Path(given.config).stem
        folder = given.runs / name
        run = Run(
            config=given.config,
            name=name,
            runs=given.runs,
            data=folder / "data",
            weights=folder / "weights",
            seed=check_whole(given.seed, "--seed", 0, 2**63 - 1),
            processes=1,
            workers=given.workers,
        )
        return recipe(run, given.minutes, given.portrait, given.speech)

    return run_command(work, prefix="error: ")


if __name__ == "__main__":
    raise SystemExit(main())

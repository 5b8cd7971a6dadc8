"""``python -m training.student``: networks that need 4, 2 or 1 steps, out of ones that were trained for many.

Each student learns from the one before it, the first from the teacher; see :mod:`training.stages.student`.
What comes out is a weights folder for each number of steps, whose checkpoints recommend it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.files import replacing
from fd2talk_core.networks.checkpoint import NETWORKS
from fd2talk_core.terminal import run_command

from .scorecard.table import aligned
from .sources import copy_weights
from .stages.student import MEASURED_STEPS, Interval, StudentMotion, StudentUNet
from .trainer import TrainSettings, load_section, train, train_settings
from .trainer.command import run_folder, set_threads
from .trainer.settings import apply_overrides

STUDENTS = {"unet": StudentUNet, "motion": StudentMotion}
TRAINED = {"unet": ("unet",), "motion": ("expression", "pose")}
SHOWN = {"unet": ("psnr", "ssim"), "motion": ("mouth_correlation", "lip_error", "pose_range")}
"""Measures of the table, beside the teacher's."""


@dataclass(frozen=True)
class Distillation:
    """What is distilled, and where.

    Attributes:
        stage: ``unet`` or ``motion``.
        teacher: weights folder.
        data: shards, as the stage reads them.
        out: receives a weights folder ``STAGE-N`` for a student of N steps, and runs.
    """

    stage: str
    teacher: Path
    data: Path
    out: Path

    def weights(self, steps: int) -> Path:
        """The folder of a student."""
        return self.out / f"{self.stage}-{steps}"


def distill(
    given: Distillation,
    section: dict[str, Any],
    students: Sequence[int],
    teacher_steps: int,
    settings: TrainSettings,
) -> str:
    """Train the students in order, each from the one before, and tell what they reach; done ones are kept.

    Raises:
        FD2TalkError: before anything is trained, when steps are not multiples of the next ones.
    """
    chain = list(pairwise([teacher_steps, *students]))
    for before, steps in chain:
        Interval(steps, before)
    reports: dict[int, dict[str, Any]] = {}
    teacher, reached = given.teacher, None
    shared = run_folder(
        given.out / "runs" / given.stage
    )  # what is computed from the data serves all students
    for before, steps in chain:
        weights = given.weights(steps)
        folder = run_folder(given.out / "runs" / f"{given.stage}-{steps}")
        report = folder / "report.json"
        if not report.exists():
            # with the student itself the folder is a whole set
            copy_weights(given.teacher, weights, [n for n in NETWORKS if n not in TRAINED[given.stage]])
            build = import_module(f".stages.{given.stage}", __package__).build
            stage, words = build(section, given.data, given.teacher, settings.seed, shared)
            stage.start_from(teacher)
            student = STUDENTS[given.stage](stage, steps, before, reached)
            words += f"; distilled to {steps} steps from {before}"
            train(student, settings, folder, weights, words)
        reports[steps] = json.loads(report.read_text(encoding="utf-8"))
        teacher = weights
        mark = "teacher_"
        metrics = reports[steps]["metrics"]
        reached = {name.removeprefix(mark): value for name, value in metrics.items() if name.startswith(mark)}
    text = students_table(given.stage, reports)
    with replacing(given.out / f"{given.stage}.txt") as partial:
        partial.write_text(text + "\n", encoding="utf-8")
    return text


def students_table(stage: str, reports: dict[int, dict[str, Any]]) -> str:
    """A line a student, and one for the teacher in 50 steps."""
    lines = [("steps", *SHOWN[stage], "trained")]
    first = next(iter(reports.values()))["metrics"]
    teacher = (first.get(f"teacher_{name}", float("nan")) for name in SHOWN[stage])
    lines.append((f"{MEASURED_STEPS} (first teacher)", *(f"{value:.3f}" for value in teacher), ""))
    for steps, report in reports.items():
        values = (f"{report['metrics'][name]:.3f}" for name in SHOWN[stage])
        lines.append((str(steps), *values, f"{report['steps']} steps, {report['seconds'] / 60:.1f} min"))
    return "\n".join(aligned(lines))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.student", description=__doc__.splitlines()[0])
    parser.add_argument("--stage", choices=tuple(STUDENTS), required=True, help="what is distilled")
    parser.add_argument("--teacher", type=Path, required=True, help="weights folder to learn from")
    parser.add_argument("--data", type=Path, required=True, help="folder of shards")
    parser.add_argument("--out", type=Path, required=True, help="for a weights folder a student, and runs")
    parser.add_argument("--config", default="tiny", help="the one that the teacher was trained with")
    parser.add_argument("--students", type=int, nargs="+", default=[4, 2, 1], metavar="STEPS")
    parser.add_argument("--teacher-steps", type=int, default=16, help="that the first student learns to save")
    parser.add_argument("--minutes", type=float, help="time budget of each student")
    parser.add_argument("--steps", type=int, help="optimiser steps of each student, at most")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--threads", type=int, help="processor threads, all of them by default")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="override, e.g. train.batch_size=8"
    )
    given = parser.parse_args(arguments)
    return run_command(lambda: _distill(given), prefix="error: ")


def _distill(given: argparse.Namespace) -> str:
    section = apply_overrides(load_section(given.config, given.stage), given.set)
    settings = train_settings(section, minutes=given.minutes, steps=given.steps, seed=given.seed)
    if given.threads is not None:
        set_threads(given.threads)
    torch.manual_seed(settings.seed)
    if not given.teacher.is_dir():
        raise FD2TalkError(f"There is no weights folder {given.teacher} to learn from.")
    what = Distillation(given.stage, given.teacher, given.data, given.out)
    return distill(what, section, given.students, given.teacher_steps, settings)


if __name__ == "__main__":
    raise SystemExit(main())

"""What a run writes down: a line a record, its curves, and a report at the end."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class RunReport:
    """What a finished run says of itself.

    Attributes:
        steps, seconds: of the whole run, resumed parts included.
        samples_per_second: while training in this process, validation and saving excluded.
        waiting: part of that time spent waiting for data.
        device_use: processor time over time times threads on a CPU; on a GPU, its driver's utilisation.
        metrics: held-out measures of the weights that were written.
    """

    stage: str
    steps: int
    seconds: float
    samples_per_second: float
    waiting: float
    device_use: float
    device: str
    metrics: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        """One line; it says what to do where more than a tenth of the time was spent waiting."""
        late = " (more train.workers would shorten it)" if self.waiting > 0.1 else ""
        measures = ", ".join(f"{name} {value:.4g}" for name, value in self.metrics.items())
        return (
            f"{self.stage}: {self.steps} steps in {self.seconds / 60:.1f} min on {self.device}; "
            f"{self.samples_per_second:.1f} samples/s, waiting for data {self.waiting:.1%}{late}, "
            f"device use {self.device_use:.0%}; held out: {measures or 'not measured'}"
        )


class RunLog:
    """``losses.jsonl``, one line a record, and its curves as ``curves.png``."""

    def __init__(self, folder: Path, step: int, main: bool, tensorboard: bool) -> None:
        self.path, self.main = folder / "losses.jsonl", main
        self.writer = None
        if not main:
            return
        if self.path.exists():
            # what came after the saved state will be trained, and written, again
            kept = [line for line in self.path.read_text().splitlines() if _step_of(line) <= step]
            self.path.write_text("".join(line + "\n" for line in kept if step))
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step)

    def write(self, record: dict[str, Any]) -> None:
        if not self.main:
            return
        with open(self.path, "a") as file:
            file.write(json.dumps(record) + "\n")
        if self.writer is not None:
            for key, value in {**record, **record.get("held_out", {})}.items():
                if isinstance(value, float) and key != "seconds":
                    self.writer.add_scalar(
                        ("held_out/" if "held_out" in record else "") + key, value, record["step"]
                    )

    def draw(self) -> None:
        if self.main and self.path.exists():
            draw_curves(self.path, self.path.with_name("curves.png"))


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except ValueError:  # the last line of a killed run may be half a line
        return math.inf


def draw_curves(losses: Path, picture: Path) -> None:
    """One panel for each loss and each held-out measure of a ``losses.jsonl``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    curves: dict[str, list[tuple[int, float]]] = {}
    for line in losses.read_text().splitlines():
        record = json.loads(line)
        values = {f"held out: {k}": v for k, v in record.get("held_out", {}).items()}
        values |= {k: v for k, v in record.items() if k not in ("step", "seconds", "held_out")}
        for name, value in values.items():
            curves.setdefault(name, []).append((record["step"], value))
    if not curves:
        return
    columns = min(3, len(curves))
    rows = math.ceil(len(curves) / columns)
    figure = Figure(figsize=(4.5 * columns, 3 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, (name, points) in zip(
        figure.subplots(rows, columns, squeeze=False).flat, curves.items(), strict=False
    ):
        steps, values = zip(*points, strict=True)
        axis.plot(steps, values, marker="." if len(steps) < 30 else "", linewidth=1)
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("step", fontsize=8)
        axis.grid(alpha=0.3)
        if "loss" in name and min(values) > 0:
            axis.set_yscale("log")
    figure.savefig(picture, dpi=80)

"""``python -m training.everything --config tiny``: from nothing to a weights folder and a talking video.

Corpus, the stages in order, the scorecard, a video. Each part is the command that a user would type, run
in a process of its own; what is done already is kept, so the same command goes on where a stopped one was.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.networks.checkpoint import NETWORKS, in_set
from fd2talk_core.terminal import run_command

from .stages import STAGES
from .trainer import has_section, load_section

ROOT = Path(__file__).parent.parent
STYLE = "style"
"""The stage that adds styles to a trained expression network."""


@dataclass(frozen=True)
class Run:
    """Where a run keeps its things, and how it is launched.

    Attributes:
        config: name or path of the configuration.
        name: of the run.
        runs: folder of runs.
        data, weights: folders that are filled.
        seed: of the corpus and of every stage.
        processes: training processes, one a GPU.
        workers: processes that make the corpus.
        takes: recordings that each portrait of the scorecard speaks.
        seconds: of each of them; None is the scorecard's own.
    """

    config: str
    name: str
    runs: Path
    data: Path
    weights: Path
    seed: int
    processes: int
    workers: int
    takes: int = 3
    seconds: float | None = None

    @property
    def folder(self) -> Path:
        return self.runs / self.name

    @property
    def styled_data(self) -> Path:
        """The corpus's recordings, said in styles."""
        return self.folder / "styled"


def command(*arguments: object) -> None:
    """Run a part with the same Python.

    Raises:
        FD2TalkError: when it fails; it has told why itself.
    """
    line = [sys.executable, "-m", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    print("$ python -m", " ".join(map(str, arguments)), flush=True)
    done = subprocess.run(line, env=environment, check=False)
    # what is stopped ends by the signal, or tells its number as a shell does
    number = done.returncode - 128 if done.returncode > 128 else -done.returncode
    if number > 0:
        name = signal.Signals(number).name
        raise FD2TalkError(
            f"python -m {arguments[0]} was ended from outside ({name}); "
            "the same command goes on where it was."
        )
    if done.returncode:
        raise FD2TalkError(f"python -m {arguments[0]} failed; what it said stands above.")


def make_corpus(run: Run, section: Mapping[str, Any]) -> None:
    """Training and held-out shards, unless they are there."""
    for split in ("train", "heldout"):
        amounts = dict(section[split])
        options = [text for name, value in amounts.items() for text in (f"--{name.replace('_', '-')}", value)]
        command(
            "training.corpus",
            *("--out", run.data / split),
            *("--split", split),
            *("--size", section["size_px"]),
            *("--seed", run.seed),
            *("--workers", run.workers),
            *options,
        )


def train_stage(run: Run, stage: str, minutes: float | None, data: Path | None = None) -> dict[str, Any]:
    """Train a stage, on other data than the run's if some is given, and return its report; a finished one is
    only read.
    """
    report = run.folder / stage / "report.json"
    if not report.exists():
        launcher = ()
        if run.processes > 1:
            # after "--", because its options could otherwise be taken for abbreviations of the launcher's
            launcher = ("torch.distributed.run", "--nproc_per_node", run.processes, "-m", "--")
        budget = () if minutes is None else ("--minutes", minutes)
        command(
            *launcher,
            f"training.{stage}",
            *("--config", run.config),
            *("--data", data or run.data),
            *("--weights", run.weights),
            *("--runs", run.runs),
            *("--run", run.name),
            *("--seed", run.seed),
            *budget,
        )
    return json.loads(report.read_text())


def speak(run: Run, portrait: Path, speech: Path) -> Path:
    """The weights' first words."""
    from fd2talk_core.pipeline import FD2TalkPipeline

    video = FD2TalkPipeline.from_pretrained(str(run.weights.resolve()))(portrait, speech)
    return video.save(run.folder / "talking.mp4")


def write_card(run: Run, reports: Mapping[str, Mapping[str, Any]]) -> None:
    """``README.md`` of the weights folder: how they were made, and what they reach."""
    lines = [
        f"# Weights `{run.weights.name}`",
        "",
        f"Made by `python -m training.everything --config {run.config} --seed {run.seed}` from a corpus that",
        "the same command makes: synthetic voices, and heads of the open face model.",
        "",
        "| stage | trained on | samples a second | held out |",
        "| --- | --- | --- | --- |",
    ]
    for stage, report in reports.items():
        measures = ", ".join(f"{name} {value:.3g}" for name, value in report["metrics"].items())
        lines.append(
            f"| {stage} | {report['trained_on']} | {report['samples_per_second']:.1f} | {measures} |"
        )
    scorecard = run.weights / "scorecard" / "scorecard.txt"
    if scorecard.exists():
        lines += ["", "## Scorecard", "", "```", scorecard.read_text(encoding="utf-8").rstrip(), "```"]
    (run.weights / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def everything(run: Run, minutes: Mapping[str, float], portrait: Path, speech: Path) -> None:
    """All parts in order."""
    started = time.monotonic()
    make_corpus(run, load_section(run.config, "corpus"))
    # a wav2vec 2.0 that the user put there is taken as it is
    found = in_set(run.weights, "audio_encoder")
    given = {"audio_encoder"} if found and found.is_dir() else set()
    # the paper's plain form has no blend
    stages = [s for s in STAGES if s not in given and has_section(run.config, s)]
    reports = {stage: train_stage(run, stage, minutes.get(stage)) for stage in stages}
    missing = [network for network in NETWORKS if in_set(run.weights, network) is None]
    if missing:
        raise FD2TalkError(
            f"{run.weights} lacks {missing[0]}.safetensors although its stage has a report in {run.folder}; "
            "delete that report, or choose another --run name."
        )
    # a joint network learns no styles
    if has_section(run.config, STYLE) and (run.weights / "expression.safetensors").is_file():
        command("training.corpus.styled", run.data, "--out", run.styled_data, "--seed", run.seed)
        reports[STYLE] = train_stage(run, STYLE, minutes.get(STYLE), run.styled_data)
    video = speak(run, portrait, speech)
    spoken = ("--takes", run.takes, *(() if run.seconds is None else ("--seconds", run.seconds)))
    command("training.scorecard", "--weights", run.weights, "--data", run.data, *spoken)
    write_card(run, reports)
    print(f"{video} after {(time.monotonic() - started) / 60:.1f} min; weights in {run.weights}", flush=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.everything",
        description="From nothing to a weights folder and a talking video.",
    )
    parser.add_argument("--config", default="tiny", help="smoke, tiny, or a YAML file")
    parser.add_argument("--run", help="name under runs/; the configuration's by default")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--data", type=Path, help="folder for the corpus; RUN/data by default")
    parser.add_argument("--weights", type=Path, help="folder for the weights; RUN/weights by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1, help="training processes, one a GPU")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes that make the corpus"
    )
    parser.add_argument(
        "--minutes", action="append", default=[], metavar="STAGE=MINUTES", help="time budgets"
    )
    parser.add_argument(
        "--takes", type=int, default=3, help="recordings that each portrait of the scorecard speaks"
    )
    parser.add_argument("--seconds", type=float, help="of each of these recordings that is spoken")
    parser.add_argument("--portrait", type=Path, default=ROOT / "example_inputs" / "portrait.png")
    parser.add_argument("--speech", type=Path, default=ROOT / "example_inputs" / "speech.wav")
    given = parser.parse_args(arguments)
    name = given.run or Path(given.config).stem
    folder = given.runs / name

    def work() -> None:
        minutes = dict(_budget(text) for text in given.minutes)
        run = Run(
            config=given.config,
            name=name,
            runs=given.runs,
            data=given.data or folder / "data",
            weights=given.weights or folder / "weights",
            seed=given.seed,
            processes=given.processes,
            workers=given.workers,
            takes=given.takes,
            seconds=given.seconds,
        )
        everything(run, minutes, given.portrait, given.speech)

    return run_command(work, prefix="error: ")


def _budget(text: str) -> tuple[str, float]:
    stage, _, value = text.partition("=")
    try:
        if stage in (*STAGES, STYLE):
            return stage, float(value)
    except ValueError:
        pass
    raise FD2TalkError(
        f"--minutes takes STAGE=MINUTES with a stage of {', '.join([*STAGES, STYLE])}, not {text!r}."
    )


if __name__ == "__main__":
    raise SystemExit(main())

"""The command line that all stages have."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from fd2talk_core.checks import check_whole
from fd2talk_core.files import writing
from fd2talk_core.terminal import run_command

from .devices import on_processor
from .loop import train
from .settings import apply_overrides, load_section, train_settings

MOST_THREADS = 1024
"""Of a processor; a million would end the process without a word."""


def stage_main(name: str, build: Any, description: str, arguments: list[str] | None = None) -> int:
    """The command line of a stage.

    Args:
        build: ``build(section, data_folder, weights_folder, seed, run_folder) -> (Stage, words)``; what it
            computes from the data it may keep in the run folder, where the other processes then find it.
    """
    parser = argparse.ArgumentParser(prog=f"python -m training.{name}", description=description)
    parser.add_argument(
        "--config", default="tiny", help="a YAML file, or the name of one in training/configs"
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of shards")
    parser.add_argument(
        "--weights", type=Path, required=True, help="folder of checkpoints: read from, written to"
    )
    parser.add_argument(
        "--start", type=Path, metavar="DIR", help="begin with the checkpoints in this folder, not at random"
    )
    parser.add_argument("--minutes", type=float, help="time budget; the schedule decays to its end")
    parser.add_argument("--steps", type=int, help="optimiser steps at most")
    parser.add_argument("--seed", type=int)
    parser.add_argument(
        "--run", default="default", help="name of the folder under runs/ that holds the state"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where run folders are kept")
    parser.add_argument("--threads", type=int, help="processor threads, all of them by default")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="override, e.g. train.batch_size=8"
    )
    given = parser.parse_args(arguments)
    return run_command(lambda: _train(name, build, given), prefix="error: ")


def _train(name: str, build: Any, given: argparse.Namespace) -> None:
    section = apply_overrides(load_section(given.config, name), given.set)
    settings = train_settings(section, minutes=given.minutes, steps=given.steps, seed=given.seed)
    if given.threads is not None:
        set_threads(given.threads)
    torch.manual_seed(settings.seed)
    folder = run_folder(given.runs / given.run / name)
    with PartialState(cpu=on_processor()).main_process_first():
        stage, words = build(section, given.data, given.weights, settings.seed, folder)
        if given.start:
            stage.start_from(given.start)
            words += "; started from earlier weights"
    train(stage, settings, folder, given.weights, words)


def set_threads(threads: int) -> None:
    """Processor threads of all that follows.

    Raises:
        FD2TalkError: when it is no number of threads.
    """
    torch.set_num_threads(check_whole(threads, "--threads", 1, MOST_THREADS))


def run_folder(folder: Path) -> Path:
    """The folder of a run, made where there is none.

    Raises:
        FD2TalkError: when it cannot be.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder

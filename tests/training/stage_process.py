"""A stage or another command in a process of its own, forked from a server that has everything imported: what
a launcher and a ``kill -9`` do, without the seconds that each import takes.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import multiprocessing
import os
import signal
import sys
from multiprocessing import forkserver
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULES = [
    *(
        f"training.{name}"
        for name in ("audio_encoder", "lip_expert", "motion", "autoencoder", "unet", "blend")
    ),
    "training.prepare.__main__",
    "training.corpus.clips",
    "training.corpus.pictures",
    "training.scorecard.__main__",
    "training.style",
    "ai_edge_litert.interpreter",
    "transformers.models.wav2vec2.modeling_wav2vec2",
    "matplotlib.backends.backend_agg",
    "kornia.metrics",
    "scipy.spatial",
    "skimage.draw",
]


def preload() -> None:
    """Called in the server by importing this module there."""
    sys.path.insert(0, str(ROOT))
    for name in MODULES:
        importlib.import_module(name)


def run(stage: str, arguments: list[str], environment: dict[str, str], kill_at: int) -> None:
    """The stage's command line; with ``kill_at`` the process is killed within that step, after its gradient
    and before anything is saved of it.
    """
    assert "stage_process_preloaded" in sys.modules, "the server has imported nothing"
    import torch

    os.environ.update(environment)
    torch.set_num_threads(1)
    if kill_at:
        from training.trainer import Trainer

        update = Trainer.update_ema

        def kill(self: Trainer) -> None:
            if self.step == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            update(self)

        Trainer.update_ema = kill
    sys.exit(importlib.import_module(f"training.{stage}").main(arguments))


def run_command(module: str, arguments: list[str], log: Path) -> None:
    """``python -m MODULE ARGUMENTS``; what it says and the processor time that it took, its children's
    included, are added to files.
    """
    import torch

    from training.corpus import __main__ as corpus

    torch.set_num_threads(1)
    corpus.get_context = lambda _: multiprocessing.get_context("fork")  # its workers have the imports, too
    package = importlib.util.find_spec(module).submodule_search_locations is not None
    command = importlib.import_module(f"{module}.__main__" if package else module).main
    with log.open("a", encoding="utf-8") as said, contextlib.redirect_stdout(said):
        try:
            sys.exit(command(arguments))
        finally:
            with log.with_suffix(".seconds").open("a", encoding="utf-8") as spent:
                spent.write(f"{sum(os.times()[:4])}\n")


def context() -> multiprocessing.context.BaseContext:
    """Of processes that begin with the imports done."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["stage_process_preloaded"])
    # some versions of Python let the server look along PYTHONPATH alone, and say nothing where what is to be
    # imported is not found there
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *([before] if before else [])])
    try:
        forkserver.ensure_running()
    finally:
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before
    return found


def start(stage: str, arguments: list[str], kill_at: int = 0, **environment: str):
    """A started process."""
    process = context().Process(target=run, args=(stage, arguments, environment, kill_at))
    process.start()
    return process

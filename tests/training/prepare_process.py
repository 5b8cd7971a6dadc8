"""``training.prepare`` in a process of its own that is killed at a certain file, or not at all."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from fd2talk_core.face.model import default_face_model
from training.prepare import cutting, parts
from training.prepare.__main__ import main
from training.prepare.cutting import Clip, Dropped


def cheap_cut(film, settings, tools, frames: int = 2) -> Iterator[Clip | Dropped]:
    """Two clips and one that is dropped, without a face to be looked for."""
    seed = int(film.key[:6], 16)
    for first in (0, frames):
        values = torch.Generator().manual_seed(seed + first)
        expression, pose = (torch.rand(frames, n, generator=values) * 0.3 for n in (52, 6))
        sound = torch.randn(640 * frames, generator=values) * 0.1
        square = (32.0, 32.0, 64.0)
        identity = torch.randn(80, generator=values)
        yield Clip(first, square, identity, expression, pose, torch.ones(frames), sound, None)
    yield Dropped("short", 0, 2)


def run(source: Path, out: Path, kill_at: int) -> None:
    """Prepare films; the process kills itself before its n-th finished file takes its place."""
    torch.set_num_threads(1)
    parts.cut_film = cheap_cut
    parts._tools = lambda *_: cutting.Tools(None, default_face_model(), None, default_face_model())
    left, rename = kill_at, Path.replace

    def counted(path: Path, target: Path) -> Path:
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(path, target)

    Path.replace = counted
    line = ["--dataset", "folder", "--in", source, "--out", out, "--size", "64", "--pictures", "2"]
    sys.exit(main([*map(str, line), "--workers", "1"]))

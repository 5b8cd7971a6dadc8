"""``python scripts/example_inputs.py``: draw the examples of ``example_inputs/`` that are this pack's own.

People of the training corpus, which nobody has to be asked for: two in one picture, one in a driving video;
and a head motion in a file. Needs the packages of the ``training`` extra.
"""

from __future__ import annotations

import math
import re
import sys
from dataclasses import replace
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

from fd2talk_core.formats.sequences import save_motion  # noqa: E402
from fd2talk_core.formats.video import VideoWriter  # noqa: E402
from fd2talk_core.motion.editing import idle_motion  # noqa: E402
from scripts.environment import ROOT  # noqa: E402
from training.corpus.appearance import random_look  # noqa: E402
from training.corpus.pictures import photograph, random_identity, random_motion  # noqa: E402
from training.corpus.render import Person  # noqa: E402
from training.corpus.scenery import random_place  # noqa: E402

FOLDER = ROOT / "example_inputs"
LEFT, RIGHT, DRIVER = 11, 13, 22
"""Seeds of people who look friendly."""
FPS = 25.0
REST = np.zeros(52, np.float32), np.zeros(6, np.float32)


def person(seed: int, size: int) -> tuple[Person, object, np.random.Generator]:
    """Somebody, somewhere."""
    rng = np.random.default_rng([7, seed])
    look, place, identity = random_look(rng), random_place(size, rng), random_identity(rng)
    return Person(look, identity), place, rng


def two_people(size: int = 512) -> Image.Image:
    """Two people side by side before one wall, which is mirrored between them."""
    left, place, rng = person(LEFT, size)
    right, _, _ = person(RIGHT, size)
    mirrored = replace(place, background=place.background[:, ::-1].copy())
    halves = [
        photograph(somebody, wall, *REST, size, rng) for somebody, wall in ((left, place), (right, mirrored))
    ]
    return Image.fromarray(np.concatenate(halves, axis=1))


def driving_video(path: Path, frames: int = 100, size: int = 256) -> None:
    """Somebody talks and moves for four seconds, without sound."""
    somebody, place, rng = person(DRIVER, size)
    expression, pose = random_motion(rng)
    with VideoWriter(path, FPS) as writer:
        for shown in zip(expression[:frames], pose[:frames], strict=True):
            picture = photograph(somebody, place, *shown, size, rng)
            writer.write(torch.from_numpy(picture)[None].float() / 255)


def nods_and_turns(path: Path, frames: int = 150) -> None:
    """A drifting head that nods twice, turns to each side, and nods again."""
    time = (torch.arange(frames) + 0.5) / FPS

    def bump(centre: float, width: float) -> torch.Tensor:
        return torch.exp(-(((time - centre) / width) ** 2))

    idle = idle_motion(frames, FPS, 3, 0.6, 1.0)
    values = idle.values.clone()
    values[:, 0] += math.radians(9) * (bump(0.9, 0.16) + 0.8 * bump(1.45, 0.16) + 0.6 * bump(5.2, 0.2))
    values[:, 1] += math.radians(14) * (bump(2.9, 0.42) - bump(4.1, 0.42))
    values[:, 2] += math.radians(5) * bump(2.9, 0.5)
    save_motion(path, None, idle.replace(values=values))
    # four digits are a 200th of a degree, and can be read
    text = path.read_text(encoding="utf-8")
    path.write_text(
        re.sub(r"-?\d+\.\d{5,}", lambda number: f"{float(number[0]):.4f}", text), encoding="utf-8"
    )


if __name__ == "__main__":
    two_people().save(FOLDER / "two_people.png", optimize=True)
    driving_video(FOLDER / "driving.mp4")
    nods_and_turns(FOLDER / "nods_and_turns.json")

"""``python scripts/compare_checkouts.py OTHER``: do two checkouts make the same frames, and which is faster?

Both make the example portrait speak with a fixed seed, each in a process of its own and in turn, so that both
meet the same load. Prints the largest difference of any pixel in steps of 1/255, and the seconds of each
round with the median of their ratios. For a change that is to leave pictures as they are:
``git worktree add ../before COMMIT``, then this.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent

RENDER = """
import json, sys, time
import numpy as np, torch
sys.path.insert(0, sys.argv[1])
from fd2talk_core import FD2TalkPipeline
options = json.loads(sys.argv[3])
examples = sys.argv[1] + "/example_inputs/"
pipeline = FD2TalkPipeline.from_pretrained("tiny")
start = time.perf_counter()
video = pipeline(examples + "portrait.png", examples + "speech.wav", seed=0, **options)
frames = np.concatenate([(chunk * 255).round().to(torch.uint8).numpy() for chunk in video.chunks])
print(json.dumps(time.perf_counter() - start))
np.save(sys.argv[2], frames)
"""


def render(root: Path, target: Path, options: dict, threads: int) -> float:
    """Frames of a checkout into an ``.npy`` file ``[F, H, W, 3]``; returns the seconds they took."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": ""}
    command = [sys.executable, "-c", RENDER, str(root), str(target), json.dumps(options)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True, cwd=root)
    return float(done.stdout.splitlines()[-1])


def difference(here: np.ndarray, other: np.ndarray) -> tuple[int, float]:
    """The largest difference of two clips ``[F, H, W, 3]`` uint8, and the share of values that differ."""
    most, changed = 0, 0
    for ours, theirs in zip(here, other, strict=True):
        step = np.abs(ours.astype(np.int16) - theirs.astype(np.int16))
        most, changed = max(most, int(step.max())), changed + int((step > 0).sum())
    return most, changed / here.size


def main() -> int:
    parser = argparse.ArgumentParser(prog="python scripts/compare_checkouts.py", description=__doc__)
    parser.add_argument("other", type=Path, help="a checkout of an earlier commit")
    parser.add_argument("--detail", type=float, action="append", help="strengths to compare; 1 and 0")
    parser.add_argument("--crop", action="store_true", help="crops instead of whole pictures")
    parser.add_argument("--rounds", type=int, default=1, help="times that each is run")
    parser.add_argument("--threads", type=int, default=1, help="of torch; rounding depends on their number")
    options = parser.parse_args()
    largest = 0
    for detail in options.detail or [1.0, 0.0]:
        seconds: list[tuple[float, float]] = []
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder) / f"{name}.npy" for name in ("here", "other")]
            roots = (ROOT, options.other.resolve())
            asked = {"detail": detail, "paste_back": not options.crop}
            for number in range(options.rounds):
                # each goes first in every other round: what runs first finds colder caches
                order = (0, 1) if number % 2 else (1, 0)
                took = {index: render(roots[index], files[index], asked, options.threads) for index in order}
                seconds.append((took[0], took[1]))
            here, other = (np.load(file, mmap_mode="r") for file in files)
            if here.shape != other.shape:
                raise SystemExit(f"Frames differ in shape: {here.shape} and {other.shape}.")
            most, changed = difference(here, other)
        largest = max(largest, most)
        ratios = [ours / theirs for ours, theirs in seconds]
        print(
            f"detail {detail:g}: {len(here)} frames, largest difference {most}/255, {changed:.1e} of values"
        )
        print(
            "  seconds here and there:", ", ".join(f"{ours:.1f} / {theirs:.1f}" for ours, theirs in seconds)
        )
        print(f"  ratio: {statistics.median(ratios):.2f}", flush=True)
    return 0 if largest <= 1 else 1


if __name__ == "__main__":
    sys.exit(main())

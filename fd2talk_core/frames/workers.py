"""Frames made side by side on a processor's cores.

What a frame becomes depends on no other frame, so each thread makes frames of its own, with one core for
torch: most of its operations on a frame are too small to be shared among cores.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from threading import local
from typing import TypeVar

import torch

Item = TypeVar("Item")
Made = TypeVar("Made")

_END = object()


def worker_count(device: torch.device) -> int:
    """Threads for frames: as many as torch may use of a processor's cores, one for any other device."""
    return torch.get_num_threads() if device.type == "cpu" else 1


def side_by_side(
    work: Callable[[Item], Made],
    items: Iterable[Item],
    workers: int,
    beforehand: Callable[[], None] = lambda: None,
) -> Iterator[Made]:
    """What is made of each item, in their order; one result more than there are workers is held at most.

    Args:
        work: must not depend on what is made of other items.
        items: read in the caller's thread.
        workers: threads; with one, all is done in the caller's.
        beforehand: what must have been done before any work, while the first item is still being read.
    """
    if workers == 1:
        beforehand()
        yield from map(work, items)
        return
    with _threads(workers) as submit:
        ready = submit(beforehand)

        def work_then(item: Item) -> Made:
            ready.result()
            return work(item)

        pending: deque[Future] = deque()
        for item in items:
            pending.append(submit(work_then, item))
            if len(pending) > workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def one_ahead(items: Iterator[Item], workers: int) -> Iterator[Item]:
    """The items, of which the next is being made while one is worked on; with one worker, as they come."""
    if workers == 1:
        yield from items
        return
    with _threads(1) as submit:
        following = submit(next, items, _END)
        while (item := following.result()) is not _END:
            following = submit(next, items, _END)
            yield item


@dataclass
class _Cores:
    """What a thread had for torch before it had others work, and how many pools it has now."""

    count: int = 0
    pools: int = 0


class _OfThread(local):
    def __init__(self) -> None:
        self.cores = _Cores()


_OF_THREAD = _OfThread()


@contextmanager
def _threads(count: int) -> Iterator[Callable[..., Future]]:
    """A function that calls another in one of so many threads, in the caller's context."""
    # who stops early may leave this to be ended by another thread
    cores, inference = _OF_THREAD.cores, torch.is_inference_mode_enabled()

    def call(work: Callable, *arguments: object) -> object:
        with torch.inference_mode(inference):
            return work(*arguments)

    if not cores.pools:
        cores.count = torch.get_num_threads()
    cores.pools += 1
    pool = ThreadPoolExecutor(count, "frames", torch.set_num_threads, (1,))
    # the caller, too: helpers of its own would wait for work on the cores that others need
    torch.set_num_threads(1)
    try:
        yield lambda work, *arguments: pool.submit(copy_context().run, call, work, *arguments)
    finally:
        pool.shutdown(cancel_futures=True)
        cores.pools -= 1
        if not cores.pools:  # whichever is left last: who stops early leaves the outer one first
            # threads that are yet to start take the number that was set last, by whichever thread
            torch.set_num_threads(cores.count)

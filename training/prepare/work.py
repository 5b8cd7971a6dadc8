"""Many tasks on all cores, or on many machines by Ray; their functions know of neither."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import TypeVar

from fd2talk_core.errors import FD2TalkError

Task = TypeVar("Task")
Result = TypeVar("Result")


def work_through(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int, ray: str | None = None
) -> Iterator[Result]:
    """Results as they come, in any order.

    Args:
        function: of a module, so that another process finds it.
        workers: processes of this machine.
        ray: None, or the address of a Ray cluster, ``local`` for one on this machine with as many workers.
            Its machines must see the same folders.

    Raises:
        FD2TalkError: when Ray is asked for but not installed, or a worker is killed; and what the function
            raises.
    """
    if not tasks:
        return
    # the workers are the parallelism
    os.environ["OMP_NUM_THREADS"] = "1"
    if ray is not None:
        yield from _by_ray(function, tasks, workers, ray)
    elif workers == 1:
        yield from map(function, tasks)
    else:
        context = get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent) as pool:
            futures = [pool.submit(function, task) for task in tasks]
            try:
                for future in as_completed(futures):
                    yield future.result()
            except BrokenProcessPool as error:
                raise FD2TalkError(
                    "A worker was ended from outside, as systems do that run out of memory: the same command "
                    "goes on where it was; give fewer --workers."
                ) from error
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


def _end_with_parent() -> None:
    """A worker whose parent was killed would go on, and then wait for ever."""
    parent = parent_process()
    if parent is not None:

        def watch() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()


def _by_ray(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int, address: str
) -> Iterator[Result]:
    try:
        import ray
    except ModuleNotFoundError as error:
        raise FD2TalkError('--ray needs Ray: pip install "fd2talk[ray]", or leave it out.') from error
    local = {"num_cpus": workers, "include_dashboard": False} if address == "local" else {}
    ray.init(address=address, log_to_driver=False, **local)
    try:
        remote = ray.remote(num_cpus=1)(function)
        waiting = [remote.remote(task) for task in tasks]
        while waiting:
            done, waiting = ray.wait(waiting)
            try:
                yield ray.get(done[0])
            except ray.exceptions.RayTaskError as error:
                raise error.as_instanceof_cause() from error
    finally:
        ray.shutdown()

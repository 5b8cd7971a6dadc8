"""What each stage of the method costs, for those who ask; without a meter, stages cost nothing."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock, local

_METER: ContextVar[StageMeter | None] = ContextVar("meter", default=None)


class StageMeter:
    """Adds up by how much a counter rises in each stage; of a stage within a stage, in the inner one.

    Args:
        read: the counter, such as the processor seconds of the calling thread.

    Attributes:
        totals: by stage, in the counter's unit.
    """

    def __init__(self, read: Callable[[], float]) -> None:
        self.read = read
        self.totals: dict[str, float] = defaultdict(float)
        self._lock, self._thread = Lock(), local()

    @contextmanager
    def listening(self) -> Iterator[StageMeter]:
        """Count the stages that the caller runs, in whichever thread."""
        token = _METER.set(self)
        try:
            yield self
        finally:
            _METER.reset(token)

    @contextmanager
    def within(self, name: str) -> Iterator[None]:
        """What passes belongs to a stage."""
        stages = self._thread.__dict__.setdefault("stages", [])
        self._count(stages)
        stages.append(name)
        try:
            yield
        finally:
            self._count(stages)
            stages.pop()

    def _count(self, stages: list[str]) -> None:
        """Give what has passed in this thread since the last time to the innermost of its stages."""
        now, before = self.read(), getattr(self._thread, "before", 0.0)
        self._thread.before = now
        if stages:
            with self._lock:
                self.totals[stages[-1]] += now - before


@contextmanager
def stage(name: str) -> Iterator[None]:
    """What is done in this context, or in a function that this decorates, is a stage of the method."""
    meter = _METER.get()
    if meter is None:
        yield
    else:
        with meter.within(name):
            yield


def peak_megabytes() -> float | None:
    """The most memory that this process has held; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows has none
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6

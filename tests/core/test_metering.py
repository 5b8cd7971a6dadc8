"""Stages and what they cost."""

from __future__ import annotations

import threading
from contextvars import copy_context

from fd2talk_core.metering import StageMeter, stage


class Counter:
    def __init__(self) -> None:
        self.value = 0.0

    def __call__(self) -> float:
        return self.value


def test_a_stage_within_a_stage_counts_for_itself() -> None:
    counter = Counter()
    with StageMeter(counter).listening() as meter:
        counter.value += 100
        for _ in range(2):
            with stage("outer"):
                counter.value += 1
                with stage("inner"):
                    counter.value += 10
                counter.value += 2
    with stage("outer"):
        counter.value += 1000
    assert meter.totals == {"outer": 6, "inner": 20}


def test_a_stage_that_fails_is_counted_and_left() -> None:
    counter = Counter()

    @stage("broken")
    def fail() -> None:
        counter.value += 3
        raise ValueError

    with StageMeter(counter).listening() as meter:
        for _ in range(2):
            try:
                fail()
            except ValueError:
                counter.value += 50
    assert meter.totals == {"broken": 6}


def test_threads_count_for_the_meter_of_their_caller() -> None:
    def work() -> None:
        with stage("work"):
            counter.value += 1

    counter = Counter()
    with StageMeter(counter).listening() as meter:
        for _ in range(3):
            thread = threading.Thread(target=copy_context().run, args=(work,))
            thread.start()
            thread.join()
    assert meter.totals == {"work": 3}

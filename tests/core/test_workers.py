"""Frames side by side: the same frames in the same order, whatever the number of threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar

import pytest
import torch

from fd2talk_core.frames.workers import one_ahead, side_by_side, worker_count


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("workers", [1, 3])
def test_results_keep_their_order(workers: int) -> None:
    def work(item: int) -> int:
        time.sleep(0.02 if item % 3 == 0 else 0)
        return item * item

    assert list(side_by_side(work, range(10), workers)) == [item * item for item in range(10)]


def test_items_are_worked_on_at_the_same_time() -> None:
    meeting = threading.Barrier(2, timeout=30)
    assert len(list(side_by_side(lambda _: meeting.wait(), range(4), 2))) == 4


def test_no_more_is_made_than_is_asked_for() -> None:
    taken = []

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    results = side_by_side(lambda item: item, items(), 2)
    assert next(results) == 0 and len(taken) == 3
    results.close()
    assert len(taken) == 3


def test_an_error_comes_in_its_place() -> None:
    def work(item: int) -> int:
        if item == 2:
            raise ValueError("broken")
        return item

    results = side_by_side(work, range(5), 2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="broken"):
        next(results)


def test_the_next_item_is_made_while_one_is_used() -> None:
    made = threading.Event()

    def items() -> Iterator[str]:
        yield "first"
        made.set()
        yield "second"

    ahead = one_ahead(items(), 2)
    assert next(ahead) == "first" and made.wait(30)
    assert list(ahead) == ["second"]
    made.clear()
    assert next(one_ahead(items(), 1)) == "first" and not made.is_set()


def test_threads_work_as_their_caller_does_with_a_core_each(three_threads: None) -> None:
    caller: ContextVar[str] = ContextVar("caller")
    caller.set("host")

    def work(_: int) -> tuple[str, bool, int]:
        return caller.get(), torch.is_inference_mode_enabled(), torch.get_num_threads()

    with torch.inference_mode():
        assert list(side_by_side(work, range(3), 2)) == [("host", True, 1)] * 3
    assert list(side_by_side(work, range(3), 2)) == [("host", False, 1)] * 3
    seen = []
    fresh = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    fresh.start()
    fresh.join()
    assert torch.get_num_threads() == 3 and seen == [3]


def test_only_a_processor_has_cores_to_share(three_threads: None) -> None:
    assert worker_count(torch.device("cpu")) == 3
    assert worker_count(torch.device("cuda")) == 1


@pytest.mark.parametrize("taken", [1, 6])
def test_the_caller_has_its_cores_back_whether_all_was_taken_or_not(three_threads: None, taken: int) -> None:
    def items() -> Iterator[int]:
        yield from one_ahead(iter(range(6)), 2)

    results = side_by_side(lambda item: item, items(), 2)
    assert [next(results) for _ in range(taken)] == list(range(taken))
    assert torch.get_num_threads() == 1
    results.close()
    del results
    assert torch.get_num_threads() == 3


def test_one_who_stops_early_may_leave_the_end_to_another_thread(three_threads: None) -> None:
    results = side_by_side(lambda item: item, range(6), 2)
    next(results)
    other = threading.Thread(target=results.close)
    other.start()
    other.join()
    torch.set_num_threads(3)
    assert list(side_by_side(lambda item: torch.get_num_threads(), range(2), 2)) == [1, 1]
    assert torch.get_num_threads() == 3


def test_what_must_be_done_beforehand_is_done_while_the_first_item_is_read() -> None:
    meeting, done = threading.Barrier(2, timeout=30), []

    def items() -> Iterator[int]:
        meeting.wait()
        yield from range(3)

    def beforehand() -> None:
        meeting.wait()
        time.sleep(0.05)
        done.append(True)

    assert list(side_by_side(lambda item: (item, *done), items(), 2, beforehand)) == [
        (0, True), (1, True), (2, True)]  # fmt: skip
    assert list(side_by_side(lambda item: len(done), range(1), 1, lambda: done.append(True))) == [2]

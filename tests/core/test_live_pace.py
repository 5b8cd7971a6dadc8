"""How many frames a live avatar draws at once."""

from __future__ import annotations

from itertools import pairwise

import pytest

from fd2talk_core.live.pace import Pace


def seen(alone: float, together: float = 0.0) -> Pace:
    pace = Pace()
    pace.saw(1, alone)
    if together:
        pace.saw(4, 4 * together)
    return pace


def test_nothing_is_known_before_anything_was_seen() -> None:
    assert Pace().expected(1) == Pace().expected(4) == 0 and Pace().share(4, 1, 0.04) == 1


@pytest.mark.parametrize(
    ("alone", "together", "workers", "share"),
    [
        (0.03, 0.02, 1, 1),  # fast enough: none waits for another
        (0.07, 0.035, 2, 1),
        (0.10, 0.05, 2, 4),
        (0.10, 0.05, 1, 4),  # not fast enough either, but more pictures than one at a time
        (0.07, 0.07, 1, 1),  # no faster together
        (0.07, 0.0, 1, 1),  # nobody has tried
    ],
)
def test_several_are_drawn_together_where_that_helps(
    alone: float, together: float, workers: int, share: int
) -> None:
    assert seen(alone, together).share(4, workers, 0.036) == share


def test_what_calls_take_is_learned_for_one_and_for_several() -> None:
    pace = seen(0.1, 0.05)
    assert pace.expected(1) == pytest.approx(0.1) and pace.expected(3) == pytest.approx(0.15)
    one = [pace.expected(1)]
    for _ in range(20):
        pace.saw(1, 0.02)
        one.append(pace.expected(1))
    assert all(after < before for before, after in pairwise(one)) and one[-1] == pytest.approx(0.02, abs=1e-3)
    assert pace.expected(4) == pytest.approx(0.2)

"""How two processes share the tests: ``scripts/test.py`` starts pytest-xdist with what is arranged here."""

from __future__ import annotations

import os
from typing import Any

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # before torch is imported, here and in child processes: threads that spin for a core take it from others
    os.environ.setdefault("OMP_NUM_THREADS", "1")

LONGEST = (
    "tests/host",
    "tests/training/test_everything.py",
    "tests/core/test_pipeline.py",
    "tests/core/test_long_audio.py",
    "tests/core/test_output.py",
    "tests/training/test_stage_runs.py",
    "tests/training/test_trainer.py",
)
"""Begun first, so that no process is left with a long one while the other has nothing to do."""
OWN_HOST = "tests/host/test_first_minute.py"


def shared(nodeid: str) -> str:
    """Tests of one such name run in one process: a file's, and all that ask the host started for them."""
    path = nodeid.partition("::")[0]
    return "tests/host" if path.startswith("tests/host/") and path != OWN_HOST else path


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class LoadShared(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return shared(nodeid)

    return LoadShared(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        rank = {name: place for place, name in enumerate(LONGEST)}
        items.sort(key=lambda item: rank.get(shared(item.nodeid), len(rank)))

"""The linter, so that the whole repository keeps one form; its rules stand in pyproject.toml."""

from __future__ import annotations

import subprocess
import sys

import pytest

from scripts.environment import ROOT


@pytest.mark.parametrize("arguments", [["check"], ["format", "--check"]], ids=["rules", "form"])
def test_ruff_has_nothing_to_say(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *arguments, "--no-cache", "."],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr

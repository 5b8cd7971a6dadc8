"""Linter, spelling and types, so that the whole repository keeps one form; rules stand in pyproject.toml."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.environment import ROOT


def run(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, encoding="utf-8")


@pytest.mark.parametrize("arguments", [["check"], ["format", "--check"]], ids=["rules", "form"])
def test_ruff_has_nothing_to_say(arguments: list[str]) -> None:
    done = run("ruff", *arguments, "--no-cache", ".")
    assert done.returncode == 0, done.stdout + done.stderr


def test_words_are_spelled_as_dictionaries_do() -> None:
    done = run("codespell_lib", ".")
    assert done.returncode == 0, done.stdout + done.stderr


def test_types_fit() -> None:
    # the interpreter that runs the tests has the packages, wherever its environment lies
    done = run("basedpyright", "--level", "error", "--pythonpath", sys.executable)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("0 errors"), done.stdout

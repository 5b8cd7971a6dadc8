"""The benchmark that users run, and the table that it puts into the README."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fd2talk_core.benchmark import BEGIN, END, PICTURES, STAGES, load_results, main, put_table, table
from fd2talk_core.errors import FD2TalkError

ROOT = Path(__file__).parents[2]


def test_it_says_what_each_stage_costs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = tmp_path / "benchmark.json"
    document = tmp_path / "README.md"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    options = ["--seconds", "0.2", "--pictures", "512", "--threads", "1", "--devices", "cpu"]
    assert main([*options, "--json", str(found), "--readme", str(document)]) == 0
    (result,) = load_results(found)
    assert result.frames == 5 and list(result.core_seconds) == list(STAGES)
    assert result.gflop["decoder"] > result.gflop["blend"] > 1 and "video and rest" not in result.gflop
    assert result.gflop["close-ups"] < 1e-3, "no network, but lips are turned back to the head"
    # a thread alone: what its stages take is what the frame takes, but for waiting
    assert 0.05 * result.frame_seconds < sum(result.core_seconds.values()) < 1.5 * result.frame_seconds
    assert result.real_time_factor == pytest.approx(25 * result.frame_seconds)
    assert PICTURES["512"] in capsys.readouterr().out
    text = document.read_text(encoding="utf-8")
    assert text == f"before\n{BEGIN}\n\n{table([result])}\n\n{END}\nafter\n"
    assert json.loads(found.read_text(encoding="utf-8"))["version"]


def test_a_missing_portrait_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--portrait", "nobody.png"]) == 2
    assert "nobody.png" in capsys.readouterr().err


def test_a_document_without_a_place_for_the_table_is_left_alone(tmp_path: Path) -> None:
    document = tmp_path / "README.md"
    document.write_text("nothing\n", encoding="utf-8")
    with pytest.raises(FD2TalkError, match="no place for the table"):
        put_table(document, "table")
    assert document.read_text(encoding="utf-8") == "nothing\n"


def test_the_table_in_the_readme_is_of_the_measurements_kept() -> None:
    results = load_results(ROOT / "docs" / "benchmark.json")
    assert {result.setting.picture for result in results} == set(PICTURES)
    assert f"{BEGIN}\n\n{table(results)}\n\n{END}" in (ROOT / "README.md").read_text(encoding="utf-8")

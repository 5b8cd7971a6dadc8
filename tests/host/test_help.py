"""The help pages against the nodes that they explain: every input named, in both languages, and mistakes."""

from __future__ import annotations

import json
import re
import urllib.request

import pytest

from scripts.comfyui import PACK_NAME, ComfyUIServer
from scripts.environment import ROOT

pytestmark = pytest.mark.host

MISTAKES = {"en": "Common mistake", "zh": "常见错误"}


@pytest.fixture(scope="module")
def nodes(comfyui: ComfyUIServer) -> dict[str, dict]:
    everything = comfyui.get("/object_info")
    return {name: info for name, info in everything.items() if info["category"].startswith("FD2Talk")}


@pytest.mark.parametrize("language", MISTAKES)
def test_each_page_names_every_input_and_what_goes_wrong(nodes: dict, language: str) -> None:
    lacking = {}
    for name, info in nodes.items():
        page = (ROOT / "web" / "docs" / name / f"{language}.md").read_text(encoding="utf-8")
        inputs = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
        unnamed = [key for key in inputs if not re.search(rf"\*\*{key}\*\*", page)]
        if unnamed or MISTAKES[language] not in page:
            lacking[name] = unnamed or "common mistakes"
    assert not lacking


def test_there_is_no_page_without_a_node_and_each_picture_is_served(
    nodes: dict, comfyui: ComfyUIServer
) -> None:
    """A page's pictures are fetched from ``docs/``, as the help panel does, not from the page's folder."""
    folders = {path.name: path for path in (ROOT / "web" / "docs").iterdir() if path.is_dir()}
    assert folders.keys() == nodes.keys()
    named = {
        (page.name, picture)
        for folder in folders.values()
        for page in folder.glob("*.md")
        for picture in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    }
    assert {page for page, _ in named} == {"en.md", "zh.md"}
    for _, picture in named:
        with urllib.request.urlopen(f"{comfyui.url}/extensions/{PACK_NAME}/docs/{picture}") as answer:
            assert answer.headers["Content-Type"] == "image/png" and len(answer.read()) > 1000, picture
    files = {str(path.relative_to(path.parents[1])) for path in (ROOT / "web" / "docs").glob("*/*.png")}
    assert files == {picture for _, picture in named}, "no picture without a page"


def test_chinese_names_every_node_and_input(nodes: dict) -> None:
    told = json.loads((ROOT / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))
    for name, info in nodes.items():
        inputs = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
        assert told[name]["display_name"] and told[name]["description"]
        assert inputs.keys() <= told[name]["inputs"].keys(), name
        assert all(
            told[name]["inputs"][key]["name"] and told[name]["inputs"][key]["tooltip"] for key in inputs
        )

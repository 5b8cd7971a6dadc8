"""Names that the documents mention exist: dotted names are imported, paths and links are looked up."""

from __future__ import annotations

import re
from importlib import import_module

import pytest

from scripts.environment import ROOT

DOCUMENTS = [
    "docs/architecture.md",
    "docs/training_diary.md",
    "docs/deviations.md",
    "fd2talk_core/weights/tiny/README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "README.md",
    "training/README.md",
]
DOTTED = re.compile(r"`((?:fd2talk_core|training|scripts)(?:\.\w+)+)`")
PLACE = re.compile(r"`((?:fd2talk_core|nodes|training|scripts|tests|docs|web|workflows)/[\w./]*)`")
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)")


def resolve(name: str) -> object:
    """Import the longest module in a dotted name and walk the attributes that follow it."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: object = import_module(".".join(parts[:end]))
        except ModuleNotFoundError as error:
            if not ".".join(parts[:end]).startswith(error.name or "?"):
                raise  # the module is there, but something that it imports is not
            continue
        for part in parts[end:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(name)


def test_a_name_that_is_nowhere_is_noticed() -> None:
    for name in ("fd2talk_core.nowhere", "fd2talk_core.timing.nothing"):
        with pytest.raises((ModuleNotFoundError, AttributeError)):
            resolve(name)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_names_and_paths_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    for name in sorted(set(DOTTED.findall(text))):
        assert resolve(name) is not None, name
    missing = [place for place in PLACE.findall(text) if not (ROOT / place).exists()]
    missing += [link for link in LINK.findall(text) if not (ROOT / document).parent.joinpath(link).exists()]
    assert missing == []


def test_the_architecture_names_every_equation_and_room() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    table = text.partition("## The paper's equations")[2]
    numbers = {int(n) for row in re.findall(r"^\| ([\d, ]+) \|", table, re.MULTILINE) for n in row.split(",")}
    assert numbers == set(range(1, 17))
    rooms = {path.parent.name for path in (ROOT / "fd2talk_core").glob("*/__init__.py")} - {"configs"}
    assert rooms == set(re.findall(r"^\| `fd2talk_core/(\w+)/`", text, re.MULTILINE))

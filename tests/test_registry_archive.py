"""What the registry's archive holds: the files that git tracks without those that ``.comfyignore`` names."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter

import pytest
from PIL import Image

from scripts.environment import ROOT
from tests.host.conftest import unavailable

SHIPPED = {"fd2talk_core", "nodes", "web", "locales", "workflows", "subgraphs", "example_inputs"}
LEFT_OUT = {"tests", "training", "scripts", "docs", ".ci", ".github"}


def tracked(*options: str) -> set[str]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", *options], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(listed.stdout.split("\0")) - {""}


@pytest.fixture(scope="module")
def archive() -> set[str]:
    """Paths in the archive: ``comfy node pack`` reads ``.comfyignore`` as git reads its own ignore files."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        unavailable("The registry's archive is made from a git checkout, which this is not")
    return tracked() - tracked("--ignored", "--exclude-from=.comfyignore")


def test_all_that_a_user_needs_is_in_and_what_developers_need_is_out(archive: set[str]) -> None:
    everything = tracked()
    by_folder = [Counter(path.split("/")[0] for path in paths) for paths in (everything, archive)]
    for folder in SHIPPED:
        assert by_folder[0][folder] == by_folder[1][folder] > 0, folder
    assert not LEFT_OUT & by_folder[1].keys() and by_folder[0].keys() >= LEFT_OUT
    top = {path for path in archive if "/" not in path}
    assert top == {
        *("__init__.py", "pyproject.toml", "requirements.txt", ".comfyignore", ".gitignore"),
        *("README.md", "LICENSE", "CHANGELOG.md", "SECURITY.md"),
    }


def test_help_pages_graphs_and_weights_are_counted(archive: set[str]) -> None:
    for pattern, least in {
        "web/docs/*/en.md": 26,
        "web/docs/*/zh.md": 26,
        "web/docs/*/*.png": 2,
        "workflows/*.json": 7,
        "workflows/*.jpg": 7,
        "workflows/api/*.json": 7,
        "fd2talk_core/weights/**/*.safetensors": 6,
        "fd2talk_core/weights/**/*.task": 1,
    }.items():
        files = {path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern)}
        assert len(files) >= least and files <= archive, pattern


def test_the_registrys_pictures_are_in_the_archive_and_of_its_shapes(archive: set[str]) -> None:
    """A square icon of up to 400 pixels, and a banner of 21:9."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    sizes = {}
    for name in ("Icon", "Banner"):
        path = re.search(rf'^{name} = ".+/main/(\S+)"', text, re.M)[1]
        assert path in archive
        with Image.open(ROOT / path) as picture:
            sizes[name] = picture.size
    assert sizes["Icon"][0] == sizes["Icon"][1] <= 400
    assert sizes["Banner"][0] * 9 == sizes["Banner"][1] * 21

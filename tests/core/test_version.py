"""One version number: pyproject.toml states it, the package reads it there or in its own metadata."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import fd2talk_core

ROOT = Path(__file__).resolve().parents[2]


def imported_version(folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", "import fd2talk_core; print(fd2talk_core.__version__)"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def package_in(folder: Path) -> None:
    (folder / "fd2talk_core").mkdir()
    shutil.copy(ROOT / "fd2talk_core/__init__.py", folder / "fd2talk_core")


def test_the_package_has_the_version_of_pyproject() -> None:
    stated = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert [fd2talk_core.__version__] == stated
    assert not re.search(r"\d+\.\d+\.\d+", (ROOT / "fd2talk_core/__init__.py").read_text("utf-8"))


def test_a_copy_of_the_repository_reads_the_file_next_to_the_package(tmp_path: Path) -> None:
    package_in(tmp_path)
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "fd2talk"\nversion = "9.8.7"\n')
    assert imported_version(tmp_path) == "9.8.7"


def test_a_wheel_reads_its_metadata_and_no_stranger_s_file(tmp_path: Path) -> None:
    package_in(tmp_path)
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "another"\nversion = "1.2.3"\n')
    (tmp_path / "fd2talk-9.8.7.dist-info").mkdir()
    metadata = "Metadata-Version: 2.1\nName: fd2talk\nVersion: 9.8.7\n"
    (tmp_path / "fd2talk-9.8.7.dist-info/METADATA").write_text(metadata)
    assert imported_version(tmp_path) == "9.8.7"


def test_the_changelog_tells_of_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert re.search(rf"^## \[{re.escape(fd2talk_core.__version__)}\]", changelog, re.MULTILINE)

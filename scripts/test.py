"""``python scripts/test.py [pytest arguments]``: install what is needed, then run every test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)

from scripts.environment import ROOT, install_debian_packages, prepare  # noqa: E402


def main() -> int:
    python = prepare("training", "test")
    install_debian_packages()
    return subprocess.run([python, "-m", "pytest", *sys.argv[1:]], cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())

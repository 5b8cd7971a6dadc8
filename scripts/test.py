"""``python scripts/test.py [pytest arguments]``: install what is needed, then run every test.

Two processes share the tests as ``tests/conftest.py`` arranges it; ``-n 0`` runs them in one.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)

from scripts.environment import ROOT, install_debian_packages, prepare  # noqa: E402

SHARED = ("-n", "2", "--dist", "loadscope", "--no-loadscope-reorder")


def main() -> int:
    python = prepare("training", "evaluate", "test")
    install_debian_packages()
    return subprocess.run([python, "-m", "pytest", *SHARED, *sys.argv[1:]], cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())

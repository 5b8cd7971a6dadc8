"""What the fork server of :mod:`stage_process` imports before it is asked for a process."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent)]

import stage_process  # noqa: E402

stage_process.preload()

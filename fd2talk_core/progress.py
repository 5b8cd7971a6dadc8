"""How long work tells that it goes on, and is stopped."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Callback = Callable[[int, int, Tensor | None], None]
"""``callback(done, total, preview_x0)`` after each step; raising inside stops the loop (interruption)."""

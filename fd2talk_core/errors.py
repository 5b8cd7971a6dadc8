"""The one error that the core raises for bad input."""

from __future__ import annotations


class FD2TalkError(ValueError):
    """Bad input, told in one sentence to the artist who gave it: what came, what was expected, what to do."""

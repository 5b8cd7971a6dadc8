"""The errors that the core raises for bad input."""

from __future__ import annotations

LONGEST = 1500
"""Letters of a sentence: a value in it may be of any length."""


class FD2TalkError(ValueError):
    """Bad input, told in one sentence to the artist who gave it: what came, what was expected, what to do.

    The sentence is one line that any terminal can print, whatever the value is that it quotes.
    """

    def __init__(self, sentence: object = "") -> None:
        text = str(sentence).encode("utf-8", "backslashreplace").decode()
        text = "".join(letter if letter.isprintable() else " " for letter in text)
        super().__init__(text if len(text) <= LONGEST else f"{text[:1000]} ... {text[-400:]}")


class NoFaceError(FD2TalkError):
    """No frame of a film shows the face that was asked for."""

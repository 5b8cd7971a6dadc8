"""Values from outside, held to what is expected of them: a widget, a wire or a file may give anything.

Each function gives the value back, or one sentence that names it, says what came and what is needed.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Iterable
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from .errors import FD2TalkError


def check_number(
    value: Any, what: str, low: float = -math.inf, high: float = math.inf, *, over: bool = False
) -> float:
    """A finite number from ``low`` to ``high``; words are none, nor are True and False.

    Args:
        over: ``low`` itself is too little.

    Raises:
        FD2TalkError: for anything else.
    """
    fits = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or not low <= value <= high or (over and value == low):
        raise _refusal(value, what, f"a number{_range(low, high, over)}")
    return value


def check_whole(value: Any, what: str, low: float = -math.inf, high: float = math.inf) -> int:
    """A whole number from ``low`` to ``high``, of whatever type of number.

    Raises:
        FD2TalkError: for anything else.
    """
    whole = isinstance(value, Integral) or (isinstance(value, Real) and float(value).is_integer())
    if isinstance(value, bool) or not whole or not low <= value <= high:
        raise _refusal(value, what, f"a whole number{_range(low, high, False)}")
    return int(value)


def check_choice(value: Any, what: str, options: Iterable[str]) -> str:
    """One of a few words.

    Raises:
        FD2TalkError: for anything else.
    """
    options = list(options)
    if value not in options:
        raise _refusal(value, what, " or ".join(map(repr, options)))
    return value


def check_flag(value: Any, what: str) -> bool:
    """True or False, or 1 or 0.

    Raises:
        FD2TalkError: for anything else, such as the word ``no``, which would count as true.
    """
    if not isinstance(value, Integral) or value not in (0, 1):
        raise _refusal(value, what, "True or False")
    return bool(value)


def check_tensor(value: Any, what: str) -> Tensor:
    """A tensor of real numbers; numpy's arrays and lists are none.

    Raises:
        FD2TalkError: for anything else.
    """
    if not isinstance(value, Tensor):
        raise _refusal(type(value).__name__, what, "a tensor", quoted=False)
    if value.is_complex() or value.is_quantized or value.layout != torch.strided:
        raise _refusal(value.dtype, what, "a plain tensor of real numbers")
    return value


def check_text(value: Any, what: str) -> str:
    """A word.

    Raises:
        FD2TalkError: for anything else.
    """
    if not isinstance(value, str):
        raise _refusal(value, what, "a text")
    return value


def check_callback(value: Any, what: str) -> Callable | None:
    """Something to be called, or nothing.

    Raises:
        FD2TalkError: for anything else.
    """
    if value is not None and not callable(value):
        raise _refusal(value, what, "a function, or none,")
    return value


def check_amount(amount: float, most: float, what: str, remedy: str) -> None:
    """Refuse what would take the machine, before memory is taken for it.

    Args:
        what: such as ``"portrait.png has {} pixels"``, with a place for the amount.
        remedy: what to do, in words.

    Raises:
        FD2TalkError: when the amount is over the most.
    """
    if amount > most:
        raise FD2TalkError(f"{what.format(f'{amount:,.0f}')}, but at most {most:,.0f} are taken: {remedy}.")


def shown(value: Any) -> str:
    """A value in a sentence, however large it is."""
    try:
        return reprlib.repr(value).encode("utf-8", "backslashreplace").decode()
    except Exception:  # a stranger's object may fail at anything
        return f"a {type(value).__name__}"


def _refusal(value: Any, what: str, needed: str, quoted: bool = True) -> FD2TalkError:
    return FD2TalkError(f"{what} is {shown(value) if quoted else value}, but {needed} is needed.")


def _range(low: float, high: float, over: bool) -> str:
    start = f"over {low:g}" if over else f"{low:g}"
    if math.isinf(low) and math.isinf(high):
        return ""
    if math.isinf(high):
        return f" {start}" if over else f" of at least {start}"
    return f" {start} and at most {high:g}" if over else f" from {start} to {high:g}"

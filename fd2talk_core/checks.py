"""Values from outside, held to what is expected of them: a widget, a wire or a file may give anything.

Each function gives the value back, or one sentence that names it, says what came and what is needed.
"""

from __future__ import annotations

import functools
import inspect
import math
import os
import reprlib
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

from .errors import FD2TalkError

if TYPE_CHECKING:
    from torch import Tensor


def check_number(
    value: Any, what: str, low: float = -math.inf, high: float = math.inf, *, over: bool = False
) -> float:
    """A finite number from ``low`` to ``high``; words are none, nor are True and False.

    Args:
        over: ``low`` itself is too little.

    Raises:
        FD2TalkError: for anything else.
    """
    fits = _is_number(value) and _is_finite(value) and low <= value <= high
    if not fits or (over and value == low):
        raise _refusal(value, what, f"a number{_range(low, high, over)}")
    return value


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # a whole number beyond any float
        return False


def check_whole(value: Any, what: str, low: float = -math.inf, high: float = math.inf) -> int:
    """A whole number from ``low`` to ``high``, of whatever type of number.

    Raises:
        FD2TalkError: for anything else.
    """
    if not _PLAIN[int][0](value) or not low <= value <= high:
        raise _refusal(value, what, f"a whole number{_range(low, high, False)}")
    return int(value)


def check_choice(value: Any, what: str, options: Iterable[str]) -> str:
    """One of a few words.

    Raises:
        FD2TalkError: for anything else.
    """
    options = list(options)
    if not isinstance(value, str) or value not in options:
        raise _refusal(value, what, " or ".join(map(repr, options)))
    return value


def check_tensor(value: Any, what: str) -> Tensor:
    """A tensor of real numbers; numpy's arrays and lists are none.

    Raises:
        FD2TalkError: for anything else.
    """
    import torch  # here, since a command that only tells its options should not wait for it

    if not isinstance(value, torch.Tensor):
        raise _refusal(type(value).__name__, what, "a tensor", quoted=False)
    if value.is_complex() or value.is_quantized or value.layout != torch.strided:
        raise _refusal(value.dtype, what, "a plain tensor of real numbers")
    return value


def check_device(name: Any) -> str:
    """The name of something that networks can run on, here and now.

    Raises:
        FD2TalkError: when there is none of that name, or torch cannot use it.
    """
    import torch

    check_type(name, "The device", str)
    try:
        usable = torch.zeros(1, device=name).cpu().numel() == 1
    except (RuntimeError, AssertionError, NotImplementedError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FD2TalkError(
            f"The device {shown(name)} cannot be used ({reason}): cpu works on every machine."
        ) from error
    if not usable:
        raise FD2TalkError(f"The device {shown(name)} holds no numbers: cpu works on every machine.")
    return name


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


# Types


Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def checked(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """A function that is called from outside: arguments of another type than its annotations are refused.

    A number is no word, a word is no list of words, and True is no number; where a whole number is wanted,
    4.0 is one. Which words a choice has, the function says itself.
    """
    signature = inspect.signature(function)
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    single = {name for name, parameter in signature.parameters.items() if parameter.kind not in several}

    @functools.wraps(function)
    def wrapper(*arguments: Arguments.args, **named: Arguments.kwargs) -> Result:
        hints = _hints(function)
        for name, value in signature.bind(*arguments, **named).arguments.items():
            if name in hints and name in single:
                check_type(value, name, hints[name])
        return function(*arguments, **named)

    return wrapper


def check_fields(made: Any) -> None:
    """As :func:`checked`, for the fields of a dataclass, in its ``__post_init__``.

    Raises:
        FD2TalkError: for a field of another type than its annotation.
    """
    hints = _hints(type(made))
    for field in fields(made):
        check_type(getattr(made, field.name), field.name, hints[field.name])


def check_type(value: Any, what: str, hint: Any) -> Any:
    """A value of the type that an annotation asks for.

    Raises:
        FD2TalkError: for one of another.
    """
    if not _is_of(value, hint):
        raise _refusal(value, what, _words(hint))
    return value


@functools.cache
def _hints(annotated: Any) -> dict[str, Any]:
    return typing.get_type_hints(annotated)


def _is_of(value: Any, hint: Any) -> bool:
    kind, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or isinstance(hint, TypeVar):
        return True
    if kind in (typing.Union, types.UnionType):
        return any(_is_of(value, option) for option in inner)
    if kind is Literal:
        return any(isinstance(value, type(option)) for option in inner)
    if hint is None or hint is types.NoneType:
        return value is None
    if hint in _PLAIN:
        return _PLAIN[hint][0](value)
    if kind is None:
        return isinstance(value, hint)
    if kind is _CALLABLE:
        return callable(value)
    if not isinstance(value, kind) or isinstance(value, str):
        return False
    if issubclass(kind, Mapping):
        return all(_is_of(key, inner[0]) and _is_of(held, inner[1]) for key, held in value.items())
    if kind is tuple and inner[-1] is not Ellipsis:
        return len(value) == len(inner) and all(map(_is_of, value, inner))
    # what is read once must not be read here
    return not isinstance(value, Sequence) or all(_is_of(held, inner[0]) for held in value)


def _words(hint: Any) -> str:
    kind, inner = typing.get_origin(hint), typing.get_args(hint)
    if kind in (typing.Union, types.UnionType):
        options = dict.fromkeys(_words(option) for option in inner if option is not types.NoneType)
        if {Path, str} <= set(inner):
            options.pop(_words(str))
        return " or ".join(options)
    if kind is Literal:
        return " or ".join(map(repr, inner))
    if hint in _PLAIN:
        return _PLAIN[hint][1]
    if kind is _CALLABLE:
        return "a function"
    if kind is not None and issubclass(kind, Mapping):
        return f"{_words(inner[1])} by name"
    if kind is tuple and inner[-1] is not Ellipsis:
        return f"a tuple of {', '.join(map(_words, inner))}"
    if kind is not None:
        return f"a list of which each is {_words(inner[0])}"
    name = getattr(hint, "__name__", str(hint))
    return f"{'an' if name[0] in 'AEIO' else 'a'} {name}"


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


_CALLABLE = typing.get_origin(Callable[[], None])
_PLAIN: dict[Any, tuple[Callable[[Any], bool], str]] = {
    float: (_is_number, "a number"),
    int: (
        lambda value: _is_number(value) and (isinstance(value, Integral) or float(value).is_integer()),
        "a whole number",
    ),
    bool: (lambda value: isinstance(value, bool), "True or False"),
    str: (lambda value: isinstance(value, str), "a text"),
    Path: (lambda value: isinstance(value, os.PathLike), "the name of a file"),
    object: (lambda value: True, "anything"),
}
"""How a value of a type is told from others, and what a message calls the type."""


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

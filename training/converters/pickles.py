"""Arrays out of a pickle file without executing it.

A pickle is a program that may call anything. Here its instructions are read by :mod:`pickletools`, which only
lists them; names and calls become inert notes, and of those nothing but numpy arrays and scipy's sparse
matrices are understood. Everything else stays a note, or is refused where its place is needed.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fd2talk_core.errors import FD2TalkError

MOST_INSTRUCTIONS = 5_000_000
MOST_DENSE = 1 << 28
"""Numbers of a sparse matrix written out."""

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING BINBYTES "
    "SHORT_BINBYTES BINBYTES8 BYTEARRAY8 UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8".split()
)
_IGNORED = frozenset(("PROTO", "FRAME"))
_RECONSTRUCT = {f"numpy.{core}.multiarray _reconstruct" for core in ("core", "_core")}
_KINDS = frozenset("biuf")
_BROKEN = (ValueError, IndexError, TypeError, AttributeError, OverflowError, RecursionError, struct.error)
"""What bytes that are no data lead to; UnicodeError and FD2TalkError are of the first."""


@dataclass(eq=False)
class Note:
    """What a pickle would call: the name, the arguments, and the state that it would then set."""

    name: str
    arguments: tuple[Any, ...] = ()
    state: Any = None
    entries: list[Any] = field(default_factory=list)


class _Mark:
    """Where a group of values begins on the stack."""


def read_notes(content: bytes) -> Any:
    """What a pickle holds, with notes in the place of objects.

    Raises:
        FD2TalkError: when it is none, cut short, or has an instruction that data need not.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        for number, (code, argument, _) in enumerate(pickletools.genops(content)):
            if number > MOST_INSTRUCTIONS:
                raise FD2TalkError("it has too many instructions for a model")
            if code.name == "STOP":
                return stack.pop()
            _follow(code.name, argument, stack, memo)
    except (*_BROKEN, KeyError) as error:
        told = error if isinstance(error, FD2TalkError) else "it is corrupt, cut short, or no pickle"
        raise FD2TalkError(str(told)) from error
    raise FD2TalkError("it is cut short")


def _since_mark(stack: list[Any]) -> list[Any]:
    group = []
    while not isinstance(stack[-1], _Mark):
        group.append(stack.pop())
    stack.pop()
    return group[::-1]


def _follow(name: str, argument: Any, stack: list[Any], memo: dict[int, Any]) -> None:
    """One instruction; none of them calls anything."""
    if name in _VALUES:
        stack.append(argument)
    elif name in _CONSTANTS:
        stack.append(_CONSTANTS[name])
    elif name in _IGNORED:
        pass
    elif name == "MARK":
        stack.append(_Mark())
    elif name in ("EMPTY_LIST", "EMPTY_DICT", "EMPTY_TUPLE"):
        stack.append({"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}[name]())
    elif name in ("TUPLE", "LIST"):
        stack.append(tuple(_since_mark(stack)) if name == "TUPLE" else _since_mark(stack))
    elif name == "DICT":
        stack.append(_paired(_since_mark(stack)))
    elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
        count = int(name[-1])
        stack[-count:] = [tuple(stack[-count:])]
    elif name in ("APPEND", "APPENDS"):
        values = _since_mark(stack) if name == "APPENDS" else [stack.pop()]
        (stack[-1].entries if isinstance(stack[-1], Note) else stack[-1]).extend(values)
    elif name in ("SETITEM", "SETITEMS"):
        pairs = _since_mark(stack) if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
        if isinstance(stack[-1], Note):
            stack[-1].entries.extend(pairs)
        else:
            stack[-1].update(_paired(pairs))
    elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
        memo[int(argument)] = stack[-1]
    elif name == "MEMOIZE":
        memo[len(memo)] = stack[-1]
    elif name in ("GET", "BINGET", "LONG_BINGET"):
        stack.append(memo[int(argument)])
    elif name == "GLOBAL":
        stack.append(Note(argument))
    elif name == "STACK_GLOBAL":
        last, module = stack.pop(), stack.pop()
        stack.append(Note(f"{module} {last}"))
    elif name in ("REDUCE", "NEWOBJ"):
        arguments, called = stack.pop(), stack.pop()
        stack.append(Note(called.name, tuple(arguments)))
    elif name == "BUILD":
        state = stack.pop()
        if not isinstance(stack[-1], Note):
            raise FD2TalkError("it sets the state of what is no object")
        stack[-1].state = state
    elif name == "POP":
        stack.pop()
    else:
        raise FD2TalkError(f"it has the instruction {name}, which data need not")


def _paired(values: list[Any]) -> dict[Any, Any]:
    return dict(zip(values[::2], values[1::2], strict=True))


def array_of(value: Any, name: str) -> np.ndarray:
    """The numbers that a note stands for.

    Args:
        value: from :func:`read_notes`: of a numpy array, of a compressed sparse column matrix of scipy, or of
            an object that holds an array as ``x`` or ``r`` (chumpy's).
        name: what a message calls it.

    Raises:
        FD2TalkError: for anything else.
    """
    if isinstance(value, (list, tuple)):
        try:
            return np.asarray(value, dtype=np.float64)
        except _BROKEN as error:
            raise FD2TalkError(f"its {name} is no array of numbers") from error
    if isinstance(value, Note):
        if value.name in _RECONSTRUCT and isinstance(value.state, tuple):
            return _numpy_array(value.state, name)
        state = value.state if isinstance(value.state, Mapping) else {}
        state = {_text(key): held for key, held in state.items()}
        # Python 2 names the attribute of a sparse matrix's shape with an underscore
        if {"data", "indices", "indptr"} <= state.keys():
            return _sparse(state, name)
        for held in (state.get("x"), state.get("r")):
            if isinstance(held, Note) and held.name in _RECONSTRUCT:
                return array_of(held, name)
    raise FD2TalkError(f"its {name} is no array of numbers")


def _numpy_array(state: tuple[Any, ...], name: str) -> np.ndarray:
    """From ``(version, shape, type, Fortran order, bytes)``, as numpy's ``__setstate__`` has it."""
    try:
        _, shape, kind, fortran, content = state
        dtype = _dtype(kind)
        if isinstance(content, Note) and content.name == "_codecs encode":
            content = content.arguments[0]  # how older protocols say bytes
        content = content.encode("latin-1") if isinstance(content, str) else content
        if not isinstance(content, (bytes, bytearray)):
            raise ValueError("no bytes")
        flat = np.frombuffer(content, dtype)
        return flat.reshape(tuple(int(side) for side in shape), order="F" if fortran else "C").copy()
    except _BROKEN as error:
        raise FD2TalkError(f"its {name} is no plain array of numbers") from error


def _dtype(note: Any) -> np.dtype:
    """Numbers alone: no objects, no structures."""
    kind = _text(note.arguments[0])
    if note.name != "numpy dtype" or kind[0] not in _KINDS or not kind[1:].isdigit():
        raise ValueError(f"arrays of {kind}")
    order = _text(note.state[1]) if isinstance(note.state, tuple) and len(note.state) > 1 else "|"
    return np.dtype((order if order in "<>" else "") + kind)


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _sparse(state: Mapping[str, Any], name: str) -> np.ndarray:
    """A compressed sparse column matrix, written out."""
    shape = state.get("_shape", state.get("shape"))
    try:
        data, rows, starts = (array_of(state[key], name) for key in ("data", "indices", "indptr"))
        height, width = (int(side) for side in shape)
        counts = np.diff(starts)
        if not 0 <= height * width <= MOST_DENSE or counts.min() < 0 or counts.sum() != len(rows):
            raise ValueError("no such matrix")
        columns = np.repeat(np.arange(width), counts)
        dense = np.zeros((height, width))
        dense[rows, columns] = data
        return dense
    except _BROKEN as error:
        raise FD2TalkError(f"its {name} is no sparse matrix of numbers") from error

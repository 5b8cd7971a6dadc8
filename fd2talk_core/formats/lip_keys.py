"""Files of lip keys, as animators and trackers write them: JSON and CSV.

JSON: ``{"keys": [{"time": 0.4, "upper": [0, 0.1], "lower": [0, -0.3]}, ...]}``, offsets from the shut mouth
at rest in mouth's widths, x to the picture's right, y up. With ``"rest": {"left": [310, 420], ...}`` the keys
hold places in a picture instead, y down, as a tracker gives them; ``left`` and ``right`` at rest give the
width. With ``"fps"``, keys may say ``"frame"`` in place of ``"time"``; the first frame is 0.

CSV: a column ``time`` (seconds), and ``NAME_x``, ``NAME_y`` for each point. A row whose time is ``rest`` says
where the points rest. An empty cell, and a point that a JSON key leaves out or a ``null``, says nothing.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..checks import check_amount, check_number, checked, shown
from ..errors import FD2TalkError
from ..files import check_input, reason_of, shown_path
from ..motion.lip_keys import LIP_POINTS, MAX_KEYS, LipKeys
from ..timing import check_fps

ENDINGS = (".json", ".csv")
MAX_BYTES = 64 << 20
LARGEST = 1e9
"""Seconds, frames and pixels."""
_EXAMPLE = '{"keys": [{"time": 0.4, "upper": [0, 0.05], "lower": [0, -0.3]}]}'

Place = tuple[float, float]
Row = Mapping[str, Place]
"""Where some points are; a coordinate that is not said is not a number."""


@checked
def load_lip_keys(path: Path | str) -> LipKeys:
    """Read a file of lip keys.

    Raises:
        FD2TalkError: naming the file, and what is wrong with it.
    """
    path = check_input(path, "lip key file")
    readers = {".json": parse_lip_keys, ".csv": _parse_csv}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise FD2TalkError(
            f"{shown_path(path.name)} has the ending {path.suffix!r}, but lip keys are of "
            f"{' or '.join(ENDINGS)}."
        )
    try:
        check_amount(path.stat().st_size, MAX_BYTES, "it has {} bytes", "cut it")
        return reader(path.read_text(encoding="utf-8-sig"))
    except FD2TalkError as error:
        raise FD2TalkError(f"{shown_path(path.name)}: {error}") from error
    except UnicodeDecodeError as error:
        raise FD2TalkError(f"{shown_path(path.name)}: it is not text.") from error
    except OSError as error:
        raise FD2TalkError(f"{shown_path(path.name)}: {reason_of(error)}.") from error


@checked
def parse_lip_keys(text: str) -> LipKeys:
    """Lip keys as JSON, see above.

    Raises:
        FD2TalkError: naming what is not as it should be.
    """
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FD2TalkError(f"The lip keys are not JSON; write for example {_EXAMPLE}.") from error
    keys = given.get("keys") if isinstance(given, dict) else None
    if not isinstance(keys, list) or not keys or not all(isinstance(key, dict) for key in keys):
        raise FD2TalkError(f"The lip keys hold no list of keys; write for example {_EXAMPLE}.")
    check_amount(len(keys), MAX_KEYS, "The lip track has {} keys", "cut it")
    timed = [(_time(key, number, given.get("fps")), key) for number, key in enumerate(keys, start=1)]
    rows = [
        (time, {name: _place(key[name], f"{shown(name)} at {time:g} s") for name in key.keys() - _TIMES})
        for time, key in timed
    ]
    rest = given.get("rest")
    if rest is not None and not isinstance(rest, dict):
        raise FD2TalkError("The rest of the lip keys is no object of places by name.")
    return _keys(
        rows, rest and {name: _place(place, f"{shown(name)} at rest") for name, place in rest.items()}
    )


_TIMES = {"time", "frame"}


def _time(key: Mapping[str, Any], number: int, fps: Any) -> float:
    if len(_TIMES & key.keys()) != 1:
        raise FD2TalkError(f"Lip key {number} has no time, or two: give 'time' in seconds, or 'frame'.")
    if "time" in key:
        return _number(key["time"], f"The time of lip key {number}", 0)
    if fps is None:
        raise FD2TalkError(f"Lip key {number} says a frame, but the keys' 'fps' is missing.")
    return (_number(key["frame"], f"The frame of lip key {number}", 0) + 0.5) / float(check_fps(fps))


def _number(given: Any, what: str, low: float = -LARGEST) -> float:
    return float(check_number(given, what, low, LARGEST))


def _place(given: Any, what: str) -> Place:
    if given is None:
        return math.nan, math.nan
    if not isinstance(given, Sequence) or isinstance(given, str) or len(given) != 2:
        raise FD2TalkError(f"The place of {what} is {shown(given)}, but [x, y] is needed.")
    x, y = (math.nan if one is None else _number(one, f"The place of {what}") for one in given)
    return x, y


def _parse_csv(text: str) -> LipKeys:
    try:
        lines = list(csv.DictReader(text.splitlines()))
    except csv.Error as error:
        raise FD2TalkError(f"it is no table ({error}).") from error
    columns = list(lines[0]) if lines else []
    names = [column[:-2] for column in columns if column and column.endswith("_x")]
    if not names or "time" not in columns or any(f"{name}_y" not in columns for name in names):
        raise FD2TalkError("its first line needs the columns time, and NAME_x and NAME_y of each point.")
    check_amount(len(lines), MAX_KEYS + 1, "The lip track has {} lines", "cut it")
    rows, rest = [], None
    for number, line in enumerate(lines, start=2):
        row = {name: (_cell(line[f"{name}_x"], number), _cell(line[f"{name}_y"], number)) for name in names}
        if (line["time"] or "").strip().lower() == "rest":
            rest = row
        else:
            rows.append((check_number(_cell(line["time"], number), f"The time in line {number}", 0), row))
    return _keys(rows, rest)


def _cell(text: str | None, number: int) -> float:
    if not (text or "").strip():
        return math.nan
    try:
        return float(text or "")
    except ValueError as error:
        raise FD2TalkError(f"line {number} has {shown(text)} where a number is needed.") from error


def _keys(rows: Sequence[tuple[float, Row]], rest: Row | None) -> LipKeys:
    """Keys in the order of time, as offsets from rest in mouth's widths."""
    rows = sorted(rows, key=lambda row: row[0])
    points = [name for name in LIP_POINTS if any(name in row for _, row in rows)]
    unknown = sorted({name for _, row in rows for name in row} - LIP_POINTS.keys())
    if unknown:
        raise FD2TalkError(f"Lips have no point {shown(unknown[0])}; points are {', '.join(LIP_POINTS)}.")
    nothing = (math.nan, math.nan)
    offsets = torch.tensor(
        [[row.get(name, nothing) for name in points] for _, row in rows], dtype=torch.float64
    ).reshape(len(rows), len(points), 2)
    if rest is not None:
        places = [rest.get(name) for name in ("left", "right", *points)]
        if any(place is None or any(map(math.isnan, place)) for place in places):
            raise FD2TalkError("The rest needs the places of left, right, and every point that has keys.")
        at_rest = torch.tensor(places, dtype=torch.float64)
        width = float((at_rest[0] - at_rest[1]).norm())
        if width == 0:
            raise FD2TalkError("At rest the corners of the mouth lie in one place.")
        # a picture's y points down
        offsets = (offsets - at_rest[2:]) / width * torch.tensor([1.0, -1.0], dtype=torch.float64)
    return LipKeys(tuple(time for time, _ in rows), tuple(points), offsets)

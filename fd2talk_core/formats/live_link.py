"""Face capture of an iPhone: the CSV that Epic's Live Link Face app writes and reads (61 values a line).

The columns are found by name. Values are ARKit's 52 blendshapes, then the head's and the eyes' yaw, pitch and
roll in radians. The angles follow ARKit's face axes, which are ours (x to the picture's right, y up, z to the
viewer), so signs agree: positive pitch looks down, positive yaw turns to the picture's right, positive roll
tilts the crown to the picture's left. Their order does not: Unreal's rotator turns by yaw, then pitch, then
roll (intrinsic y-x-z), ours is intrinsic x-y-z, so the rotation is decomposed again. The app stores no head
position; ours is then 0. (Of a phone held sideways, users report mirrored pitch and yaw.)

A timecode is ``HH:MM:SS:FF.fff``: frames of the clock (60 a second in the app, whatever the camera's rate)
with a fraction. The clock's rate is not written in the file; it follows from how FF wraps at the full second.
"""

from __future__ import annotations

import csv
import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from ..errors import FD2TalkError
from ..face.names import ARKIT_NAMES, GAZE
from ..face.rotations import euler_angles, interpolate_pose, rotation_matrix
from ..timing import check_fps

# fmt: off
HEADER = (
    "Timecode", "BlendShapeCount", "EyeBlinkLeft", "EyeLookDownLeft", "EyeLookInLeft", "EyeLookOutLeft",
    "EyeLookUpLeft", "EyeSquintLeft", "EyeWideLeft", "EyeBlinkRight", "EyeLookDownRight", "EyeLookInRight",
    "EyeLookOutRight", "EyeLookUpRight", "EyeSquintRight", "EyeWideRight", "JawForward", "JawRight",
    "JawLeft", "JawOpen", "MouthClose", "MouthFunnel", "MouthPucker", "MouthRight", "MouthLeft",
    "MouthSmileLeft", "MouthSmileRight", "MouthFrownLeft", "MouthFrownRight", "MouthDimpleLeft",
    "MouthDimpleRight", "MouthStretchLeft", "MouthStretchRight", "MouthRollLower", "MouthRollUpper",
    "MouthShrugLower", "MouthShrugUpper", "MouthPressLeft", "MouthPressRight", "MouthLowerDownLeft",
    "MouthLowerDownRight", "MouthUpperUpLeft", "MouthUpperUpRight", "BrowDownLeft", "BrowDownRight",
    "BrowInnerUp", "BrowOuterUpLeft", "BrowOuterUpRight", "CheekPuff", "CheekSquintLeft",
    "CheekSquintRight", "NoseSneerLeft", "NoseSneerRight", "TongueOut",
    "HeadYaw", "HeadPitch", "HeadRoll", "LeftEyeYaw", "LeftEyePitch", "LeftEyeRoll",
    "RightEyeYaw", "RightEyePitch", "RightEyeRoll",
)
# fmt: on
"""As the app writes it (jaw and mouth go right before left, unlike ARKit's own order)."""

BLENDSHAPE_COUNT = len(HEADER) - 2
HEAD = ("headyaw", "headpitch", "headroll")
CLOCK_RATE = 60
"""Frames of the app's clock a second."""
MAX_GAP_SECONDS = 60.0
MAX_FRAMES = 500_000
"""More than two hours at 60 fps."""

_TIMECODE = re.compile(r"(\d{1,3}):(\d{1,2}):(\d{1,2})[:;](\d{1,3}(?:\.\d+)?)")
_COMMON_RATES = (23.976, 24.0, 25.0, 29.97, 30.0, 48.0, 50.0, 59.94, 60.0, 90.0, 100.0, 119.88, 120.0)


@dataclass(frozen=True)
class LiveLinkTake:
    """A take on an even frame grid.

    Attributes:
        expression: ``[F, 52]`` in :data:`~fd2talk_core.face.names.ARKIT_NAMES` order.
        pose: ``[F, 6]``.
        fps: frames per second.
    """

    expression: Tensor
    pose: Tensor
    fps: float


def read_live_link(path: Path, fps: float | None = None) -> LiveLinkTake:
    """Read a take.

    Lines in which the phone lost the face (a blendshape count of 0) are filled from their neighbours, and
    frames that the phone dropped are interpolated, so that the take keeps its length.

    Args:
        fps: one line is one frame at this rate, whatever the timecodes say; None follows the timecodes.

    Raises:
        FD2TalkError: with the number of the bad line.
    """
    clock: list[tuple[int, float]] = []
    shapes: list[list[float] | None] = []
    for seconds, frames, values in _lines(path):
        clock.append((seconds, frames))
        shapes.append(values)
    found = [index for index, values in enumerate(shapes) if values is not None]
    if not found:
        raise FD2TalkError("the phone saw no face in any of its lines." if shapes else "it holds no frames.")
    table = torch.tensor([shapes[index] for index in found], dtype=torch.float64)
    expression, pose = table[:, : len(ARKIT_NAMES)], _to_pose(table[:, len(ARKIT_NAMES) :])
    if fps is None:
        times = _seconds(clock)
        fps = _frame_rate(times)
        count = round((times[-1] - times[0]) * fps) + 1
        if count > MAX_FRAMES:
            raise FD2TalkError(f"its timecodes span {count:,} frames, but at most {MAX_FRAMES:,} are read.")
        grid = torch.arange(count, dtype=torch.float64)
        rows = torch.tensor([(times[index] - times[0]) * fps for index in found], dtype=torch.float64)
        # the clock is written in thousandths of a frame: that much is its rounding, not the phone's
        rows = torch.where((rows - rows.round()).abs() < 0.02, rows.round(), rows)
    else:
        grid = torch.arange(len(shapes), dtype=torch.float64)
        rows = torch.tensor(found, dtype=torch.float64)
    return LiveLinkTake(*_at(grid, rows, expression, pose), fps)


def write_live_link(path: Path, expression: Tensor | None, pose: Tensor | None, fps: float) -> None:
    """Write a take that starts at 00:00:00:00.

    Args:
        expression: ``[F, 52]`` in ARKit's order, or None for a resting face.
        pose: ``[F, 6]``, or None for a still head. The translation has no column and is left out.
        fps: frames per second, which the timecodes carry.
    """
    check_fps(fps)
    count = len(pose if expression is None else expression)
    expression = torch.zeros(count, len(ARKIT_NAMES)) if expression is None else expression
    angles = _from_pose(torch.zeros(count, 6) if pose is None else pose)
    gaze = _gaze(expression)
    columns = {name.lower(): expression[:, index].tolist() for index, name in enumerate(ARKIT_NAMES)}
    columns |= {name: angles[:, index].tolist() for index, name in enumerate(HEAD)}
    columns |= {name: values.tolist() for name, values in gaze.items()}
    ordered = [columns[name.lower()] for name in HEADER[2:]]
    clock = CLOCK_RATE if fps <= CLOCK_RATE else 2 * CLOCK_RATE
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        for frame in range(count):
            values = [f"{column[frame]:.9g}" for column in ordered]
            writer.writerow([_timecode(frame / fps, clock), BLENDSHAPE_COUNT, *values])


# Lines


def _lines(path: Path) -> Iterator[tuple[int, float, list[float] | None]]:
    """Whole seconds, clock frames, and the 52 shapes and 3 head angles of each line (None: no face)."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        number = 0
        try:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            columns = _columns(header)
            for fields in reader:
                number = reader.line_num
                if any(field.strip() for field in fields):
                    yield _line(fields, len(header), columns, number)
        except UnicodeDecodeError as error:
            raise FD2TalkError(f"line {number + 1} or later: it is not text in UTF-8.") from error
        except csv.Error as error:
            raise FD2TalkError(f"line {number + 1}: {error}.") from error


def _columns(header: list[str]) -> list[tuple[int, str]]:
    """Where each value stands in a line."""
    places: dict[str, int] = {}
    for index, name in enumerate(header):
        if places.setdefault(name.strip().lower(), index) != index and name.strip():
            raise FD2TalkError(f"line 1: the column {name.strip()!r} is there twice.")
    if "timecode" not in places:
        raise FD2TalkError("line 1: there is no column 'Timecode'; is this a CSV of the Live Link Face app?")
    missing = [name for name in ARKIT_NAMES if name.lower() not in places]
    if missing:
        raise FD2TalkError(
            f"line 1: {len(missing)} of ARKit's 52 blendshapes are missing, such as {missing[0]!r}."
        )
    wanted = ["timecode", "blendshapecount", *(name.lower() for name in ARKIT_NAMES), *HEAD]
    return [(places[name], header[places[name]].strip()) if name in places else (-1, name) for name in wanted]


def _line(
    fields: list[str], width: int, columns: list[tuple[int, str]], number: int
) -> tuple[int, float, list[float] | None]:
    timecode = fields[columns[0][0]].strip() if columns[0][0] < len(fields) else ""
    match = _TIMECODE.fullmatch(timecode)
    if match is None:
        raise FD2TalkError(
            f"line {number}: the timecode is {timecode[:40]!r}, but HH:MM:SS:FF.fff is needed."
        )
    hours, minutes, seconds = (int(part) for part in match.groups()[:3])
    count_at = columns[1][0]
    lost = 0 <= count_at < len(fields) and fields[count_at].strip() == "0"
    if not lost and len(fields) != width:
        raise FD2TalkError(f"line {number}: it has {len(fields)} values, but the header names {width}.")
    values = None if lost else [_number(fields, index, name, number) for index, name in columns[2:]]
    return hours * 3600 + minutes * 60 + seconds, float(match[4]), values


def _number(fields: list[str], index: int, name: str, line: int) -> float:
    if index < 0:  # a file without head rotation
        return 0.0
    text = fields[index].strip()
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or abs(value) > 1e6:
        raise FD2TalkError(f"line {line}: {name} is {text[:40]!r}, but a number is needed.")
    return value


# Time


def _timecode(seconds: float, clock: int) -> str:
    ticks = round(seconds * clock * 1000)
    whole, frames = divmod(ticks, clock * 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}:{frames // 1000:02}.{frames % 1000:03}"


def _seconds(clock: list[tuple[int, float]]) -> list[float]:
    """Instants of the lines; a take may run past midnight."""
    days, before, whole = 0, clock[0][0], []
    for seconds, _ in clock:
        if seconds < before - 12 * 3600:
            days += 24 * 3600
        before = seconds
        whole.append(seconds + days)
    rate = _clock_rate(whole, [frames for _, frames in clock])
    times = [seconds + frames / rate for seconds, (_, frames) in zip(whole, clock, strict=True)]
    for index in range(1, len(times)):
        if not 0 < times[index] - times[index - 1] < MAX_GAP_SECONDS:
            raise FD2TalkError(
                f"line {index + 2}: its timecode is {times[index] - times[index - 1]:+.3f} s from the line "
                "before; set fps to take one line as one frame."
            )
    return times


def _clock_rate(whole: list[int], frames: list[float]) -> int:
    """Clock frames in a second, from the step over a full second and the steps within one."""
    lines = list(zip(whole, frames, strict=True))
    pairs = list(itertools.pairwise(lines))
    within = [later[1] - earlier[1] for earlier, later in pairs if later[0] == earlier[0]]
    across = [earlier[1] - later[1] for earlier, later in pairs if later[0] == earlier[0] + 1]
    highest = math.floor(max(frames))
    if within and across:
        return max(round(median(across) + median(within)), highest + 1)
    if highest == 0:
        return CLOCK_RATE
    if not across and highest < CLOCK_RATE:
        raise FD2TalkError("it is too short for its timecodes to tell the frame rate; set fps.")
    return CLOCK_RATE if highest < CLOCK_RATE else 2 * CLOCK_RATE


def _frame_rate(times: list[float]) -> float:
    """The rate of the lines, rounded to a common one where the clock cannot tell the two apart."""
    if len(times) < 2:
        raise FD2TalkError("it has a single line, which tells no frame rate; set fps.")
    step = median(later - earlier for earlier, later in itertools.pairwise(times))
    # over the whole take the clock's rounding fades, but only frames that were not dropped may be counted
    count = sum(round((later - earlier) / step) for earlier, later in itertools.pairwise(times))
    fps = count / (times[-1] - times[0])
    tolerance = max(4e-5, 1e-3 / (count * step * CLOCK_RATE)) * fps
    candidates = (*_COMMON_RATES, float(round(fps)), round(fps, 1), round(fps, 2))
    fps = next((rate for rate in candidates if abs(rate - fps) < tolerance), fps)
    check_fps(fps)
    return fps


def _at(grid: Tensor, rows: Tensor, expression: Tensor, pose: Tensor) -> tuple[Tensor, Tensor]:
    """Lines that lie at ``rows`` (in frames), read at every frame of ``grid``."""
    right = torch.searchsorted(rows, grid).clamp(max=len(rows) - 1)
    left = torch.where(rows[right] <= grid, right, (right - 1).clamp(min=0))
    span = (rows[right] - rows[left]).clamp(min=1e-9)
    weight = ((grid - rows[left]) / span).clamp(0, 1)[:, None]
    weight = torch.where((right == left)[:, None], torch.zeros_like(weight), weight)
    return (
        torch.lerp(expression[left], expression[right], weight),
        interpolate_pose(pose[left], pose[right], weight),
    )


# Angles


def _to_pose(angles: Tensor) -> Tensor:
    """``[F, 3]`` HeadYaw, HeadPitch, HeadRoll to ``[F, 6]``."""
    yaw, pitch, roll = angles.unbind(-1)
    zero = torch.zeros_like(yaw)
    turn = rotation_matrix(torch.stack([zero, yaw, zero], -1))
    rest = rotation_matrix(torch.stack([pitch, zero, roll], -1))
    return torch.cat([euler_angles(turn @ rest), torch.zeros_like(angles)], dim=1)


def _from_pose(pose: Tensor) -> Tensor:
    """``[F, 6]`` to ``[F, 3]`` HeadYaw, HeadPitch, HeadRoll: R = Ry(yaw) Rx(pitch) Rz(roll)."""
    rotation = rotation_matrix(pose[:, :3].double())
    pitch = -rotation[:, 1, 2].clamp(-1, 1).asin()
    yaw = torch.atan2(rotation[:, 0, 2], rotation[:, 2, 2])
    roll = torch.atan2(rotation[:, 1, 0], rotation[:, 1, 1])
    return torch.stack([yaw, pitch, roll], dim=-1)


def _gaze(expression: Tensor) -> dict[str, Tensor]:
    """The eyes' columns that belong to the eyeLook blendshapes; a reader that drives eye bones needs them."""
    look = {
        f"{way}{side}": turn * expression[:, ARKIT_NAMES.index(f"eyeLook{way}{side}")]
        for way, turn in GAZE.items()
        for side in ("Left", "Right")
    }
    columns = {}
    for side, outward in (("Left", 1.0), ("Right", -1.0)):
        columns[f"{side.lower()}eyeyaw"] = outward * (look[f"Out{side}"] - look[f"In{side}"])
        columns[f"{side.lower()}eyepitch"] = look[f"Down{side}"] - look[f"Up{side}"]
        columns[f"{side.lower()}eyeroll"] = torch.zeros(len(expression))
    return columns

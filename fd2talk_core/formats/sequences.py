"""Motion on disk: expression and pose sequences as safetensors, npz, JSON, Live Link Face CSV and Deep3D
.mat.

====================  =====  ================================================================================
ending                ways   what a round trip keeps
====================  =====  ================================================================================
``.safetensors``      both   every value, bit for bit
``.npz``              both   every value, bit for bit
``.json``             both   every value, bit for bit: a float32 is written with the 9 digits that it needs
``.csv``              both   ARKit expressions bit for bit, head angles within 1e-5 rad, fps; no translation
``.mat``              in     see :mod:`fd2talk_core.formats.deep3d`
====================  =====  ================================================================================

Files come from strangers. Nothing in them is executed, every size is checked before it is allocated, and
whatever is wrong is told in one sentence that names the file.
"""

from __future__ import annotations

import io
import json
import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..checks import check_amount, checked
from ..errors import FD2TalkError
from ..face.names import ARKIT_NAMES, OPEN_FACE_MODEL, POSE_NAMES
from ..files import check_input, check_output, check_path, reason_of, replacing, shown_path
from ..motion.coefficients import CoefficientSequence
from ..timing import check_fps
from .deep3d import read_deep3d
from .live_link import read_live_link, write_live_link

FORMAT = "fd2talk-sequence"
FORMAT_VERSION = 1
KINDS = ("expression", "pose")
MAX_BYTES = 512 << 20
MAX_TEXT_BYTES = {".json": 64 << 20, ".csv": 256 << 20}
MAX_VALUES = 128 << 20
"""Numbers of a sequence: 40 minutes of a thousand coefficients at 50 fps."""

NPZ_MEMBERS = (
    *KINDS,
    *("version", "fps", "names", "rest", "face_model"),
    *(f"{kind}_face_model" for kind in KINDS),
)
"""What is unpacked of an archive."""

_BROKEN_ARCHIVE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)
"""What Python's zip reader raises for damaged, encrypted or unknown content."""

Kind = Literal["expression", "pose"]


@dataclass(frozen=True)
class MotionFile:
    """What a file holds.

    Attributes:
        expression, pose: a sequence each, or None where the file has none.
        source: the file's name, for messages.
    """

    expression: CoefficientSequence | None
    pose: CoefficientSequence | None
    source: str

    def require(self, kind: Kind) -> CoefficientSequence:
        """The sequence of a kind.

        Raises:
            FD2TalkError: when the file holds none; it says what the file does hold.
        """
        sequence = getattr(self, kind)
        if sequence is None:
            other = KINDS[1 - KINDS.index(kind)]
            raise FD2TalkError(
                f"{self.source} holds no {kind}, only {_article(other)} {other}: use the {other} of this "
                f"file, or load another file for the {kind}."
            )
        return sequence


@checked
def load_motion(path: Path | str, fps: float | None = None) -> MotionFile:
    """Read all that a file holds.

    Args:
        path: a file whose ending is one of :data:`READERS`.
        fps: frames per second for a file that does not say (``.mat``, a bare ``.npz``); given for a file that
            does, it overrides it: the frames stay, the clip gets longer or shorter.

    Raises:
        FD2TalkError: when the file is missing, too large, corrupt, of another format, without a frame rate,
            or holds values that are not finite; the sentence names the file, and the line of a CSV.
    """
    path = check_path(path, "The motion file")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise FD2TalkError(
            f"{shown_path(path.name)} has the ending {path.suffix!r}, "
            f"but a motion file is one of {', '.join(READERS)}."
        )
    with _blame(path):
        if fps is not None:
            check_fps(fps)
        _check_size(path)
        expression, pose = reader(path, fps)
        if expression is None and pose is None:
            raise FD2TalkError("it holds neither an expression nor a pose.")
    return MotionFile(expression, pose, path.name)


@checked
def load_sequence(
    path: Path | str, kind: Kind | None = None, fps: float | None = None
) -> CoefficientSequence:
    """Read one sequence.

    Args:
        kind: which of the two; None takes the only one there is.

    Raises:
        FD2TalkError: as :func:`load_motion`, and when the kind is not in the file or was not said but is
            needed.
    """
    motion = load_motion(path, fps)
    if kind is None:
        if motion.expression is not None and motion.pose is not None:
            raise FD2TalkError(f"{motion.source} holds an expression and a pose: say which kind to load.")
        kind = "pose" if motion.expression is None else "expression"
    return motion.require(kind)


@checked
def save_motion(
    path: Path | str,
    expression: CoefficientSequence | None = None,
    pose: CoefficientSequence | None = None,
) -> None:
    """Write an expression, a pose or both into one file; an old file goes only once the new one is whole.

    Args:
        path: ends in one of :data:`WRITERS`.

    Raises:
        FD2TalkError: when there is nothing to save, a kind is in the wrong place, the two run at different
            frame rates, or the format cannot hold them.
    """
    path = check_path(path, "The motion file")
    writer = WRITERS.get(path.suffix.lower())
    if writer is None:
        raise FD2TalkError(
            f"{path.name} has the ending {path.suffix!r}, but motion is saved as one of {', '.join(WRITERS)}."
        )
    for kind, sequence in (("expression", expression), ("pose", pose)):
        if sequence is not None and sequence.kind != kind:
            raise FD2TalkError(
                f"{path.name} cannot be saved: the {kind} given is {_article(sequence.kind)} {sequence.kind}."
            )
    sequences = [sequence for sequence in (expression, pose) if sequence is not None]
    if not sequences:
        raise FD2TalkError(f"{path.name} cannot be saved: connect an expression, a pose or both.")
    if len({sequence.fps for sequence in sequences}) > 1:
        raise FD2TalkError(
            f"{path.name} cannot be saved: the expression runs at {sequences[0].fps:g} fps and the pose at "
            f"{sequences[1].fps:g}, and a file has one rate; retime one of them, or save two files."
        )
    check_output(path, tuple(WRITERS))
    with replacing(path) as partial, _blame(path):
        writer(partial, expression, pose)


@checked
def save_sequence(path: Path | str, sequence: CoefficientSequence) -> None:
    """Write one sequence, see :func:`save_motion`."""
    save_motion(path, **{sequence.kind: sequence})


# safetensors: tensors "expression" and "pose"; all else in the header


def _read_safetensors(path: Path, fps: float | None) -> Pair:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = file.metadata() or {}
            found = [kind for kind in KINDS if kind in file.keys()]  # noqa: SIM118, not a dict
            for kind in found:
                _check_count(math.prod(file.get_slice(kind).get_shape()))
            values = {kind: file.get_tensor(kind) for kind in found}
    except SafetensorError as error:
        raise FD2TalkError(f"it is not a safetensors file ({reason_of(error)}).") from error
    if header.get("format") != FORMAT:
        raise FD2TalkError("its header does not say that it is a motion sequence; is it a checkpoint?")
    _check_version(header.get("version"))
    fps = _frame_rate(header.get("fps"), fps)
    try:
        names = json.loads(header.get("expression.names", "[]"))
    except (ValueError, RecursionError) as error:
        raise FD2TalkError("the names in its header are not JSON.") from error
    if not isinstance(names, list):
        raise FD2TalkError("the names in its header are not a list.")
    try:
        rest = json.loads(header.get("expression.rest", "null"))
    except (ValueError, RecursionError) as error:
        raise FD2TalkError("the rest in its header is not JSON.") from error
    own = {"expression": (names, rest), "pose": (POSE_NAMES, None)}
    return _pair(
        (kind, tensor, fps, header.get(f"{kind}.face_model"), *own[kind]) for kind, tensor in values.items()
    )


def _write_safetensors(
    path: Path, expression: CoefficientSequence | None, pose: CoefficientSequence | None
) -> None:
    sequences = [sequence for sequence in (expression, pose) if sequence is not None]
    header = {"format": FORMAT, "version": str(FORMAT_VERSION), "fps": repr(float(sequences[0].fps))}
    header["kind"] = " ".join(sequence.kind for sequence in sequences)
    for sequence in sequences:
        header[f"{sequence.kind}.face_model"] = sequence.face_model
        header[f"{sequence.kind}.names"] = json.dumps(sequence.names)
        if sequence.rest is not None:
            header[f"{sequence.kind}.rest"] = _json_numbers(sequence.rest)
    # not its save_file, whose files only their owner may read, whatever the umask says
    path.write_bytes(save({sequence.kind: sequence.values.contiguous() for sequence in sequences}, header))


# npz: arrays "expression" and "pose", and small ones for what a header would hold


def _read_npz(path: Path, fps: float | None) -> Pair:
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            members = {name: info for name, info in members.items() if name in NPZ_MEMBERS}
            unpacked = sum(info.file_size for info in members.values())
            check_amount(unpacked / 2**20, MAX_BYTES >> 20, "it would unpack to {} MB", "cut the motion")
            arrays = {name: _read_npy(archive, info) for name, info in members.items()}
    except FD2TalkError:
        raise
    except _BROKEN_ARCHIVE as error:
        raise FD2TalkError(f"it is not an npz file ({reason_of(error)}).") from error
    _check_version(_text(arrays.get("version"), str(FORMAT_VERSION)))
    fps = _frame_rate(_text(arrays.get("fps"), None), fps)
    names = [str(name) for name in arrays.get("names", np.array([], "U")).ravel()]
    return _pair(
        (
            kind,
            arrays[kind],
            fps,
            _text(arrays.get(f"{kind}_face_model"), _text(arrays.get("face_model"), None)),
            names if kind == "expression" else POSE_NAMES,
            arrays.get("rest") if kind == "expression" else None,
        )
        for kind in KINDS
        if kind in arrays
    )


def _read_npy(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    """One array of the archive; what its header promises is held to what the member really has."""
    name = info.filename
    with archive.open(info) as member:
        content = member.read(info.file_size + 1)
    if len(content) > info.file_size:
        raise FD2TalkError(f"its member {name!r} unpacks to more than it says.")
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = read_header(stream)
    except (ValueError, KeyError, SyntaxError, TypeError) as error:
        raise FD2TalkError(f"its member {name!r} is not a numpy array.") from error
    if dtype.hasobject:
        raise FD2TalkError(f"its member {name!r} holds Python objects, which are never loaded.")
    count = math.prod(shape)
    if dtype.itemsize == 0 and count:
        raise FD2TalkError(f"its member {name!r} has elements of no size.")
    if count * dtype.itemsize != len(content) - stream.tell():
        raise FD2TalkError(f"its member {name!r} is cut short or too long for its shape {shape}.")
    array = np.frombuffer(content, dtype, count, stream.tell()) if count else np.empty(0, dtype)
    return array.reshape(shape, order="F" if fortran else "C")


def _write_npz(path: Path, expression: CoefficientSequence | None, pose: CoefficientSequence | None) -> None:
    sequences = [sequence for sequence in (expression, pose) if sequence is not None]
    arrays: dict[str, np.ndarray] = {
        "version": np.array(FORMAT_VERSION),
        "fps": np.array(float(sequences[0].fps)),
    }
    for sequence in sequences:
        arrays[sequence.kind] = sequence.values.numpy()
        arrays[f"{sequence.kind}_face_model"] = np.array(sequence.face_model)
    if expression is not None and expression.names:
        arrays["names"] = np.array(expression.names)
    if expression is not None and expression.rest is not None:
        arrays["rest"] = expression.rest.numpy()
    with open(path, "wb") as file:
        np.savez_compressed(file, **arrays)


# JSON: for eyes and text editors


def _read_json(path: Path, fps: float | None) -> Pair:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise FD2TalkError("it is not text in UTF-8.") from error
    except json.JSONDecodeError as error:
        raise FD2TalkError(f"line {error.lineno}: {error.msg} (column {error.colno}).") from error
    except (RecursionError, ValueError) as error:
        raise FD2TalkError(f"its JSON is nested too deeply or its numbers are too long ({error}).") from error
    if not isinstance(content, dict):
        raise FD2TalkError(
            f"it holds {_json_name(content)}, but an object with fps, expression, pose is needed."
        )
    if content.get("format", FORMAT) != FORMAT:
        raise FD2TalkError(f"its format is {content['format']!r}, but {FORMAT!r} is needed.")
    _check_version(content.get("version", FORMAT_VERSION))
    fps = _frame_rate(content.get("fps"), fps)
    return _pair(_json_sequence(content, kind, fps) for kind in KINDS if content.get(kind) is not None)


def _json_sequence(content: dict[str, Any], kind: str, fps: float) -> Columns:
    entry: Any = content[kind]
    if isinstance(entry, list):
        entry = {"values": entry}
    if not isinstance(entry, dict) or not isinstance(entry.get("values"), list):
        raise FD2TalkError(f'its {kind!r} needs "values": one list of numbers a frame.')
    rows = entry["values"]
    width = len(rows[0]) if rows and isinstance(rows[0], list) else 0
    for frame, row in enumerate(rows):
        if not isinstance(row, list) or any(type(value) not in (int, float) for value in row):
            raise FD2TalkError(f"its {kind} at frame {frame} is not a list of numbers.")
        if len(row) != width:
            raise FD2TalkError(f"its {kind} has {len(row)} values at frame {frame}, but {width} before it.")
    names = entry.get("names", [])
    if not isinstance(names, list) or any(not isinstance(name, str) for name in names):
        raise FD2TalkError(f"the names of its {kind} are not a list of words.")
    face_model = entry.get("face_model", content.get("face_model"))
    try:
        values = np.array(rows, dtype=np.float64)
    except OverflowError as error:
        raise FD2TalkError(f"its {kind} holds a number beyond all floats.") from error
    if kind == "pose":
        return kind, values, fps, face_model, POSE_NAMES, None
    return kind, values, fps, face_model, names, entry.get("rest")


def _write_json(path: Path, expression: CoefficientSequence | None, pose: CoefficientSequence | None) -> None:
    sequences = [sequence for sequence in (expression, pose) if sequence is not None]
    with open(path, "w", encoding="utf-8") as file:
        file.write(f'{{\n"format": "{FORMAT}",\n"version": {FORMAT_VERSION},\n')
        file.write(f'"fps": {json.dumps(float(sequences[0].fps))}')
        for sequence in sequences:
            file.write(f',\n"{sequence.kind}": {{\n"face_model": {json.dumps(sequence.face_model)},\n')
            names = sequence.names or (POSE_NAMES if sequence.kind == "pose" else ())
            file.write(f'"names": {json.dumps(names)},\n')
            if sequence.rest is not None:
                file.write(f'"rest": {_json_numbers(sequence.rest)},\n')
            file.write('"values": [\n')
            file.write(",\n".join(map(_json_numbers, sequence.values)))
            file.write("\n]}")
        file.write("\n}\n")


def _json_numbers(values: Tensor) -> str:
    """A float32 vector bit for bit."""
    return "[" + ", ".join(f"{value:.9g}" for value in values.tolist()) + "]"


# Live Link Face CSV and Deep3D .mat: the formats of others


def _read_csv(path: Path, fps: float | None) -> Pair:
    take = read_live_link(path, fps)
    return _pair(
        [
            ("expression", take.expression, take.fps, OPEN_FACE_MODEL, ARKIT_NAMES, None),
            ("pose", take.pose, take.fps, OPEN_FACE_MODEL, POSE_NAMES, None),
        ]
    )


def _write_csv(path: Path, expression: CoefficientSequence | None, pose: CoefficientSequence | None) -> None:
    if expression is not None and set(expression.names) != set(ARKIT_NAMES):
        raise FD2TalkError(
            f"Live Link Face CSV holds ARKit's 52 blendshapes, but the expression is of the face model "
            f"{expression.face_model!r}; save it as safetensors, npz or JSON."
        )
    if expression is not None and pose is not None and expression.num_frames != pose.num_frames:
        raise FD2TalkError(
            f"the expression has {expression.num_frames} frames and the pose {pose.num_frames}, but a CSV "
            "has one line for both; retime one of them."
        )
    arkit = None
    if expression is not None:
        arkit = expression.values[:, [expression.names.index(name) for name in ARKIT_NAMES]]
    write_live_link(path, arkit, None if pose is None else pose.values, (expression or pose).fps)


def _read_mat(path: Path, fps: float | None) -> Pair:
    coefficients = read_deep3d(path)
    fps = _frame_rate(None, fps)
    columns: list[Columns] = []
    if coefficients.expression is not None:
        columns.append(("expression", coefficients.expression, fps, coefficients.face_model, (), None))
    if coefficients.pose is not None:
        columns.append(("pose", coefficients.pose, fps, OPEN_FACE_MODEL, POSE_NAMES, None))
    return _pair(columns)


Pair = tuple[CoefficientSequence | None, CoefficientSequence | None]
Columns = tuple[str, "Tensor | np.ndarray", float, "str | None", Iterable[str], Any]
"""Kind, values, fps, face model, names and rest of a sequence that has not been checked yet."""

READERS: dict[str, Callable[[Path, float | None], Pair]] = {
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
    ".json": _read_json,
    ".csv": _read_csv,
    ".mat": _read_mat,
}
WRITERS: dict[str, Callable[[Path, CoefficientSequence | None, CoefficientSequence | None], None]] = {
    ".safetensors": _write_safetensors,
    ".npz": _write_npz,
    ".json": _write_json,
    ".csv": _write_csv,
}


def _pair(columns: Iterable[Columns]) -> Pair:
    """The sequences of a file, each validated."""
    found: dict[str, CoefficientSequence] = {}
    for kind, values, fps, face_model, names, rest in columns:
        if not isinstance(values, Tensor):
            if values.dtype.kind not in "fiu":
                raise FD2TalkError(f"its {kind} is made of {values.dtype}, but numbers are needed.")
            values = torch.from_numpy(np.array(values, dtype=np.float64, order="C"))
        if values.is_complex() or values.dtype == torch.bool:
            raise FD2TalkError(f"its {kind} is made of {values.dtype}, but real numbers are needed.")
        names = tuple(names)
        if any(not isinstance(name, str) for name in names):
            raise FD2TalkError(f"the names of its {kind} are not words.")
        if kind == "pose" or (not face_model and set(names) == set(ARKIT_NAMES)):
            face_model = face_model or OPEN_FACE_MODEL
        if not isinstance(face_model, str) or not face_model:
            raise FD2TalkError(
                f'it does not say which face model its expression belongs to; write "face_model" into it, '
                f"{OPEN_FACE_MODEL!r} for ARKit's 52 blendshapes."
            )
        _check_count(values.numel())
        found[kind] = CoefficientSequence(kind, values, fps, face_model, names, _rest(rest))
    return found.get("expression"), found.get("pose")


def _rest(stated: Any) -> Tensor | None:
    if stated is None:
        return None
    try:
        return torch.from_numpy(np.array(stated, dtype=np.float32))
    except (TypeError, ValueError, OverflowError) as error:
        raise FD2TalkError("its rest is not a list of numbers.") from error


def _frame_rate(stated: Any, given: float | None) -> float:
    """The frame rate given, else the file's own."""
    if given is not None:
        return float(given)
    if stated is None:
        raise FD2TalkError("it does not say its frame rate; set fps.")
    try:
        fps = float(stated)
    except (TypeError, ValueError, OverflowError) as error:
        raise FD2TalkError(f"its fps is {str(stated)[:40]!r}, but a number is needed.") from error
    check_fps(fps)
    return fps


def _check_version(version: Any) -> None:
    if str(version) != str(FORMAT_VERSION):
        raise FD2TalkError(
            f"its format version is {str(version)[:40]}, but this release reads version {FORMAT_VERSION}."
        )


def _check_count(count: int) -> None:
    if count > MAX_VALUES:
        raise FD2TalkError(f"it holds {count:,} numbers, but at most {MAX_VALUES:,} are read.")


def _check_size(path: Path) -> None:
    check_input(path, "motion file")
    limit = MAX_TEXT_BYTES.get(path.suffix.lower(), MAX_BYTES)
    size = path.stat().st_size
    if size > limit:
        raise FD2TalkError(
            f"it has {size / 2**20:.0f} MB, but at most {limit >> 20} MB of {path.suffix} are read; "
            "longer motion fits into safetensors."
        )
    if size == 0:
        raise FD2TalkError("it is empty.")


@contextmanager
def _blame(path: Path):
    """Give every error of reading and writing the file's name."""
    try:
        yield
    except FD2TalkError as error:
        raise FD2TalkError(f"{shown_path(path.name)}: {error}") from error
    except OSError as error:
        raise FD2TalkError(f"{shown_path(path.name)}: {reason_of(error)}.") from error


def _text(array: np.ndarray | None, default: str | None) -> str | None:
    """The only element of a small array, as text."""
    return default if array is None or array.size != 1 else str(array.ravel()[0])


def _json_name(value: Any) -> str:
    return {list: "a list", str: "a word", type(None): "nothing"}.get(type(value), "a number")


def _article(kind: str) -> str:
    return "an" if kind == "expression" else "a"

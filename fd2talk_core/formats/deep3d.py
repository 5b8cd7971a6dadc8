"""Coefficients of Deep3DFaceRecon, SadTalker and DreamTalk: MATLAB 5 files with parameters of the Basel Face
Model.

Of a full row of 257 (Deng et al., "Accurate 3D Face Reconstruction with Weakly-Supervised Learning"):
identity 0–79, expression 80–143, texture 144–223, rotation 224–226, light 227–253, translation 254–256; more
columns are the crop's. SadTalker's ``coeff_3dmm`` has 70 or 73: expression 0–63, rotation 64–66, translation
67–69, crop. DreamTalk keeps full rows or the 64 of the expression under ``coeff``.

The 64 expression coefficients are weights of the Basel model's own basis, which may not be redistributed.
They stay
its: they are marked ``bfm-64`` and every network for another face model refuses them. The head pose is common
geometry (axes and the unit of 10 cm agree with ours); Deep3D turns by R = Rz Ry Rx, decomposed again here.

The reader below knows plain numeric arrays and nothing else: no structs, no objects, nothing that could run.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import FD2TalkError
from ..face.rotations import euler_angles, rotation_matrix

BFM_FACE_MODEL = "bfm-64"
NUM_EXPRESSION = 64
FULL_ROW = 257
MAX_BYTES = 512 << 20

_ROW_NAMES = ("coeff_3dmm", "full_3dmm", "coeff", "coeffs", "coefficients")
_NUMBER_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_NUMBER_CLASSES = range(6, 16)
_MATRIX, _COMPRESSED = 14, 15


@dataclass(frozen=True)
class Deep3DCoefficients:
    """What a file holds.

    Attributes:
        expression: ``[F, 64]`` of the Basel Face Model, or None.
        pose: ``[F, 6]`` in our convention, or None.
        face_model: whose the expression is.
        identity: ``[F, 80]`` of the Basel Face Model, where the file has full rows.
    """

    expression: Tensor | None
    pose: Tensor | None
    face_model: str = BFM_FACE_MODEL
    identity: Tensor | None = None


def read_deep3d(path: Path) -> Deep3DCoefficients:
    """Read the coefficients of a clip, one row a frame.

    Raises:
        FD2TalkError: when the file is not MATLAB 5, or holds none of the known arrays.
    """
    arrays = dict(numeric_arrays(path))
    if {"exp", "angle"} & set(arrays):
        return _parts(arrays.get("exp"), arrays.get("angle"), arrays.get("trans"))
    name = next((name for name in _ROW_NAMES if name in arrays), None)
    if name is None:
        held = ", ".join(sorted(arrays)[:8]) or "no arrays of numbers"
        raise FD2TalkError(
            f"it holds {held}, but one of {', '.join(_ROW_NAMES)} or exp, angle, trans is needed."
        )
    rows = _rows(name, arrays[name])
    width = rows.shape[1]
    if width >= FULL_ROW:
        parts = _parts(rows[:, 80:144], rows[:, 224:227], rows[:, 254:257])
        return replace(parts, identity=torch.from_numpy(rows[:, :80].copy()))
    if width in (70, 73):
        return _parts(rows[:, :64], rows[:, 64:67], rows[:, 67:70])
    if width == NUM_EXPRESSION:
        return _parts(rows, None, None)
    raise FD2TalkError(f"its {name!r} has {width} columns, but 64, 70, 73 or at least {FULL_ROW} are needed.")


def _parts(
    expression: np.ndarray | None, angles: np.ndarray | None, translation: np.ndarray | None
) -> Deep3DCoefficients:
    parts = {"exp": expression, "angle": angles, "trans": translation}
    rows = {name: torch.from_numpy(_rows(name, part)) for name, part in parts.items() if part is not None}
    for name, width in (("exp", NUM_EXPRESSION), ("angle", 3), ("trans", 3)):
        if name in rows and rows[name].shape[1] != width:
            raise FD2TalkError(f"its {name!r} has {rows[name].shape[1]} columns, but {width} are needed.")
    if len({len(part) for part in rows.values()}) > 1:
        counts = ", ".join(f"{name} {len(part)}" for name, part in rows.items())
        raise FD2TalkError(f"its parts differ in their number of frames: {counts}.")
    pose = None
    if "angle" in rows:
        shift = rows.get("trans", torch.zeros_like(rows["angle"]))
        pose = torch.cat([_our_angles(rows["angle"]), shift], dim=1)
    return Deep3DCoefficients(rows.get("exp"), pose)


def _rows(name: str, array: np.ndarray) -> np.ndarray:
    if array.ndim != 2 or 0 in array.shape:
        raise FD2TalkError(f"its {name!r} has shape {array.shape}, but [frames, coefficients] is needed.")
    if not np.isfinite(array).all():
        frame = int(np.argwhere(~np.isfinite(array))[0, 0])
        raise FD2TalkError(f"its {name!r} holds a value that is not a number at frame {frame}.")
    return np.ascontiguousarray(array, dtype=np.float64)


def _our_angles(angles: Tensor) -> Tensor:
    """``[F, 3]`` pitch, yaw, roll of R = Rz Ry Rx to those of R = Rx Ry Rz."""
    pitch, yaw, roll = angles.unbind(-1)
    zero = torch.zeros_like(pitch)
    x = rotation_matrix(torch.stack([pitch, zero, zero], -1))
    y = rotation_matrix(torch.stack([zero, yaw, zero], -1))
    z = rotation_matrix(torch.stack([zero, zero, roll], -1))
    return euler_angles(z @ y @ x)


# MATLAB 5 (MathWorks, "MAT-File Format", level 5)


def numeric_arrays(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Name and values of every real numeric array at the top of a MATLAB 5 file; all else is passed over.

    Raises:
        FD2TalkError: when the file is of another format, cut short, or its arrays unpack to more than 512 MB.
    """
    content = Path(path).read_bytes()
    if content[:8] == b"\x89HDF\r\n\x1a\n" or content[:10] == b"MATLAB 7.3":
        raise FD2TalkError("it is a MATLAB 7.3 file (HDF5); save it with the option -v7.")
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if len(content) < 128 or order is None:
        raise FD2TalkError("it is not a MATLAB 5 file.")
    try:
        yield from _arrays(memoryview(content)[128:], order)
    except FD2TalkError:
        raise
    except (struct.error, ValueError, zlib.error, IndexError, OverflowError) as error:
        raise FD2TalkError(f"it is corrupt or cut short ({error}).") from error


def _arrays(content: memoryview, order: str) -> Iterator[tuple[str, np.ndarray]]:
    left = MAX_BYTES  # of all arrays together
    for kind, data in _elements(content, order):
        if kind == _COMPRESSED:
            unpacked = zlib.decompressobj().decompress(data, left + 1)
            if len(unpacked) > left:
                raise FD2TalkError(f"its arrays unpack to more than {MAX_BYTES >> 20} MB.")
            left -= len(unpacked)
            kind, data = next(_elements(memoryview(unpacked), order), (0, memoryview(b"")))
        if kind == _MATRIX and len(data):
            named = _matrix(data, order)
            if named is not None:
                yield named


def _elements(content: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Type and bytes of each data element."""
    at = 0
    while at + 8 <= len(content):
        kind, size = struct.unpack_from(f"{order}II", content, at)
        if kind >> 16:  # a small element: size and type share a word, and the data is the next one
            kind, size, start, after = kind & 0xFFFF, kind >> 16, at + 4, at + 8
            if size > 4:
                raise ValueError("a small element of more than 4 bytes")
        else:
            start, after = at + 8, at + 8 + size
            after += 0 if kind == _COMPRESSED else -size % 8
        if start + size > len(content):
            raise ValueError("an element reaches past the end")
        yield kind, content[start : start + size]
        at = after


def _matrix(data: memoryview, order: str) -> tuple[str, np.ndarray] | None:
    parts = _elements(data, order)
    _, flags = next(parts, (0, b""))
    (word,) = struct.unpack_from(f"{order}I", flags)
    if word & 0xFF not in _NUMBER_CLASSES or word & 0x0800:  # cells, structs, objects; complex numbers
        return None
    _, sizes = next(parts, (0, b""))
    shape = struct.unpack(f"{order}{len(sizes) // 4}i", sizes)
    _, name = next(parts, (0, b""))
    kind, values = next(parts, (9, b""))
    if kind not in _NUMBER_TYPES:
        raise ValueError(f"numbers of the unknown type {kind}")
    numbers = np.frombuffer(values, np.dtype(order + _NUMBER_TYPES[kind]))
    if min(shape, default=0) < 0 or math.prod(shape) != len(numbers):
        raise ValueError(f"{len(numbers)} numbers for the shape {shape}")
    return bytes(name).decode("ascii", "replace"), numbers.reshape(shape, order="F")

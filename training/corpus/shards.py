"""WebDataset tar shards whose bytes depend on nothing but their content.

``frames-*.tar`` hold pictures of one person each: ``KEY.0.jpg`` .. ``KEY.{K-1}.jpg``, ``KEY.safetensors``
(alpha ``[D_α]``, expression ``[K, D_β]``, pose ``[K, 6]``) and ``KEY.json``. ``clips-*.tar`` hold speech:
``KEY.wav`` (16 kHz, mono, 16 bit), ``KEY.safetensors`` (alpha, expression ``[F, D_β]``, pose ``[F, 6]``) and
``KEY.json`` (fps, phonemes as ``[name, start, end]`` in seconds, text, speaker, engine).
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import wave
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import save

from fd2talk_core.files import replacing


class ShardWriter:
    """Writes one tar, which appears under its name only when it is whole."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> ShardWriter:
        with ExitStack() as stack:
            partial = stack.enter_context(replacing(self.path, alone=True))
            self._tar = stack.enter_context(tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT))
            self._stack = stack.pop_all()
        return self

    def write(self, key: str, members: Mapping[str, bytes]) -> None:
        """Add one sample: its members are named by their extensions."""
        for extension, data in members.items():
            header = tarfile.TarInfo(f"{key}.{extension}")
            header.size, header.mode = len(data), 0o644
            self._tar.addfile(header, io.BytesIO(data))

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, trace)


@dataclass(frozen=True)
class Stored:
    """Bytes that stay in a file until they are asked for.

    Attributes:
        path: the file.
        offset, size: where in it they lie.
    """

    path: Path
    offset: int
    size: int

    def read(self, most: int | None = None) -> bytes:
        """All of them, or the first ones.

        Raises:
            OSError: when the file has gone or become shorter.
        """
        size = self.size if most is None else min(most, self.size)
        with open(self.path, "rb") as file:
            # before memory is taken for what a header claims
            if not 0 <= self.offset <= self.offset + size <= os.fstat(file.fileno()).st_size:
                raise OSError(f"{self.path.name} has become shorter")
            file.seek(self.offset)
            return file.read(size)


def read_samples(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """The samples of a shard in order, as key and members by extension."""
    for key, members in find_samples(path):
        yield key, {extension: member.read() for extension, member in members.items()}


def find_samples(path: Path) -> Iterator[tuple[str, dict[str, Stored]]]:
    """As :func:`read_samples`, but where the members are, so that a set may be larger than the memory."""
    key, members = "", {}
    with tarfile.open(path, "r:") as tar:
        for header in tar:
            if not header.isfile():
                continue
            name, _, extension = header.name.partition(".")
            if members and name != key:
                yield key, members
                members = {}
            key = name
            members[extension] = Stored(path, header.offset_data, header.size)
    if members:
        yield key, members


def encode_json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


def encode_arrays(**arrays: np.ndarray) -> bytes:
    return save({name: np.ascontiguousarray(array) for name, array in sorted(arrays.items())})


def encode_picture(pixels: np.ndarray, quality: int = 95) -> bytes:
    """[H, W, 3] uint8 as a JPEG without colour subsampling."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def encode_wav(waveform: np.ndarray, sample_rate: int) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes((np.clip(waveform, -1, 1) * 32767).astype("<i2").tobytes())
    return buffer.getvalue()

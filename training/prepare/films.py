"""How the datasets lie on a disk: which films there are, and which person each shows."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fd2talk_core.audio.features import NATIVE_FPS
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.files import reason_of, shown_path
from fd2talk_core.formats.video_frames import VideoFrames
from fd2talk_core.imaging import open_picture

VIDEO_ENDINGS = frozenset((".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".flv"))
PICTURE_ENDINGS = frozenset((".png", ".jpg", ".jpeg", ".webp"))


@dataclass(frozen=True)
class Film:
    """One file of a dataset, or one folder of pictures.

    Attributes:
        path: where it lies.
        place: the path below the dataset's folder, with slashes.
        person: whom it shows; all films of one name stay on one side of the split.
    """

    path: Path
    place: str
    person: str

    @property
    def key(self) -> str:
        """A name that no other film has, of letters that a shard and a file system take.

        The distinguishing part comes first: unfinished files are told apart by their first letters.
        """
        words = re.sub(r"[^A-Za-z0-9]+", "-", Path(self.place).with_suffix("").as_posix()).strip("-")
        return f"{hashlib.sha256(self.place.encode()).hexdigest()[:10]}-{words[-40:].strip('-')}"


class Pictures(Protocol):
    """What a film's frames are read from."""

    def span(self, first: int = 0, stop: int | None = None, fps: float | None = None) -> Iterator[Tensor]:
        """Upright frames ``[H, W, 3]`` uint8 at a steady rate, from one number up to another."""
        ...


class PictureFolder:
    """A film that is a folder of numbered pictures, as VFHQ comes; it is taken to run at the native rate."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURE_ENDINGS)

    def span(self, first: int = 0, stop: int | None = None, fps: float | None = None) -> Iterator[Tensor]:
        """See :class:`Pictures`; at another rate than the native one, pictures are repeated or left out."""
        step = NATIVE_FPS / (fps or NATIVE_FPS)
        number = first
        while (stop is None or number < stop) and (place := int((number + 0.5) * step)) < len(self.paths):
            yield self._read(self.paths[place])
            number += 1

    @staticmethod
    def _read(path: Path) -> Tensor:
        try:
            with open(path, "rb") as file, open_picture(file) as picture:
                return torch.from_numpy(np.array(picture.convert("RGB")))
        except (OSError, SyntaxError, ValueError) as error:
            raise FD2TalkError(f"{shown_path(path.name)} cannot be read ({reason_of(error)}).") from error


def open_film(film: Film) -> Pictures:
    """The film's frames.

    Raises:
        FD2TalkError: when it is none that can be read.
    """
    return PictureFolder(film.path) if film.path.is_dir() else VideoFrames(film.path)


def find_films(folder: Path, dataset: str) -> list[Film]:
    """All films of a dataset, in the order of their places.

    Args:
        folder: where the dataset lies.
        dataset: one of :data:`DATASETS`.

    Raises:
        FD2TalkError: when there is no such folder, or no film in it.
    """
    if not folder.is_dir():
        raise FD2TalkError(f"There is no folder {shown_path(folder)}.")
    person_of, of_pictures = DATASETS[dataset]
    places = {p for p in folder.rglob("*") if p.suffix.lower() in VIDEO_ENDINGS and p.is_file()}
    if of_pictures:
        pictures = (p for p in folder.rglob("*") if p.suffix.lower() in PICTURE_ENDINGS)
        places |= {p.parent for p in pictures if p.parent != folder}
    films = []
    for path in sorted(places):
        place = path.relative_to(folder).as_posix()
        films.append(Film(path, place, person_of(place)))
    if not films:
        raise FD2TalkError(f"{shown_path(folder)} holds no films ({', '.join(sorted(VIDEO_ENDINGS))}).")
    return films


def _of_hdtf(place: str) -> str:
    """``WDA_AdamSchiff0_000.mp4`` and ``WDA_AdamSchiff1_002.mp4`` show one person; each ``RD_Radio9`` is
    another.
    """
    name = re.sub(r"(_\d+)+$", "", Path(place).stem)
    return name if name.startswith("RD_") else re.sub(r"\d+$", "", name)


def _of_vfhq(place: str) -> str:
    """``Clip+VIDEO+P0+C1+F100-200``: person 0 of a video of YouTube."""
    found = re.search(r"Clip\+(.+?\+P\d+)\+C\d+", place)
    return found[1] if found else _of_folder(place)


def _of_voxceleb(place: str) -> str:
    """``id10001/VIDEO/00001.mp4``, or ``id10001#VIDEO#001#002.mp4`` as the first-order motion model cuts."""
    found = re.search(r"(?:^|/)(id\d+)(?:/|#)", place)
    return found[1] if found else _of_folder(place)


def _of_folder(place: str) -> str:
    """The folder that a film lies in; a film that lies in none is a person by itself."""
    first, slash, _ = place.partition("/")
    return first if slash else Path(place).stem


DATASETS: dict[str, tuple[Callable[[str], str], bool]] = {
    "hdtf": (_of_hdtf, False),
    "vfhq": (_of_vfhq, True),
    "voxceleb": (_of_voxceleb, False),
    "folder": (_of_folder, False),
}
"""By name: who a film shows, from its place, and whether folders of pictures are films."""

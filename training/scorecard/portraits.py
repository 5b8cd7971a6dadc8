"""Set B of the scorecard: portraits of people whom no corpus has, out of packages that carry them.

A photograph of an astronaut ships with this pack, matplotlib carries one of Grace Hopper, and Debian's
``gcompris-qt-data`` the Mona Lisa, as a puzzle. The two photographs are works of the United States
government, the painting is of 1503: all three are in the public domain. Anyone may add a folder of others.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.imaging import read_image

EXAMPLES = Path(__file__).parents[2] / "example_inputs"
PAINTINGS = Path("/usr/share/gcompris-qt/rcc/paintings.rcc")
"""Where Debian's gcompris-qt-data puts its paintings, cut into pieces."""

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def portraits(folder: Path | None = None, paintings: Path = PAINTINGS) -> list[tuple[str, Tensor]]:
    """The portraits at hand: names and pictures ``[H, W, 3]`` in 0..1.

    Args:
        folder: of further pictures.

    Raises:
        FD2TalkError: when the folder has none.
    """
    paths = [EXAMPLES / "portrait.png"]
    try:
        import matplotlib

        paths += [Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"]
    except ImportError:
        pass  # the training extra brings matplotlib; without it there is one portrait less
    found = [(path.stem, read_image(path)) for path in paths if path.exists()]
    if paintings.exists():
        found.append(("mona_lisa", puzzle(paintings, "Mona Lisa")))
    if folder is not None:
        others = (
            sorted(p for p in folder.glob("*") if p.suffix.lower() in _SUFFIXES) if folder.is_dir() else []
        )
        if not others:
            raise FD2TalkError(f"{folder} holds no portraits (png, jpg, jpeg or webp).")
        found += [(path.stem, read_image(path)) for path in others]
    return found


def puzzle(path: Path, title: str) -> Tensor:
    """A painting of GCompris's puzzle activity, put together: ``[H, W, 3]`` in 0..1.

    Raises:
        FD2TalkError: when the file has no such painting.
    """
    files = read_qt_resources(path.read_bytes(), path)
    for name, content in files.items():
        text = content.decode("utf-8", "ignore") if "/board/" in name else ""
        if title not in text:
            continue
        width, height = (int(re.search(rf'"{side}"\s*:\s*(\d+)', text)[1]) for side in ("width", "height"))
        whole = Image.new("RGBA", (width, height))
        pieces = re.findall(
            r'"pixmapfile"\s*:\s*"(\S+webp)",\s*"x"\s*:\s*"([\d.]+)",\s*"y"\s*:\s*"([\d.]+)"', text
        )
        for piece, x, y in pieces:
            with Image.open(io.BytesIO(files[f"{name.rpartition('/board/')[0]}/{piece}"])) as image:
                corner = float(x) * width - image.width / 2, float(y) * height - image.height / 2
                # pieces overlap by their knobs, so a rounded place leaves no gap
                whole.alpha_composite(
                    image.convert("RGBA"), (max(round(corner[0]), 0), max(round(corner[1]), 0))
                )
        picture = whole.crop(whole.getbbox()).convert("RGB")
        return torch.from_numpy(np.array(picture, dtype=np.float32) / 255)
    raise FD2TalkError(f"{path} holds no painting called {title!r}.")


def read_qt_resources(content: bytes, path: Path) -> dict[str, bytes]:
    """The files in a Qt resource file (``rcc -binary``), by their path.

    A header (magic, version, and where the tree, the data and the names begin), then a tree of fixed-size
    nodes: a directory has a range of children, a file an offset into the data, where its size stands first.

    Raises:
        FD2TalkError: when it is none, or is cut short, or packed in a way that is not read here.
    """
    if content[:4] != b"qres":
        raise FD2TalkError(f"{path} is not a Qt resource file.")
    try:
        version, tree, data, names = struct.unpack_from(">4i", content, 4)
        node_size = 14 if version < 2 else 22
        found: dict[str, bytes] = {}

        def name_at(offset: int) -> str:
            (length,) = struct.unpack_from(">H", content, names + offset)
            return content[names + offset + 6 : names + offset + 6 + 2 * length].decode("utf-16-be")

        waiting, seen = [(0, "")], set()
        while waiting:
            number, folder = waiting.pop()
            if number in seen:
                raise FD2TalkError(f"{path} is broken (a folder that is its own parent).")
            seen.add(number)
            at = tree + number * node_size
            name, flags = struct.unpack_from(">iH", content, at)
            here = f"{folder}/{name_at(name)}" if number else ""
            if flags & 2:
                count, first = struct.unpack_from(">ii", content, at + 6)
                waiting += [(child, here) for child in range(first, first + count)]
                continue
            if flags & ~1:
                raise FD2TalkError(f"{path}: {here} is packed in a way that is not read here.")
            start = data + struct.unpack_from(">i", content, at + 10)[0]
            (size,) = struct.unpack_from(">I", content, start)
            member = content[start + 4 : start + 4 + size]
            found[here] = zlib.decompress(member[4:]) if flags & 1 else member
    except (struct.error, zlib.error, UnicodeDecodeError) as error:
        raise FD2TalkError(f"{path} is broken ({error}).") from error
    return found

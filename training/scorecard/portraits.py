"""Set B of the scorecard: portraits of people whom no corpus has, all in the public domain.

A photograph of an astronaut ships with this pack and matplotlib carries one of Grace Hopper, both works of
the United States government; the painting beside this file is of the 1670s (see ``NOTICE.md``). Anyone may
add a folder of others.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.imaging import read_image

EXAMPLES = Path(__file__).parents[2] / "example_inputs"
PAINTING = Path(__file__).with_name("baciccio_woman.jpg")

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def portraits(folder: Path | None = None) -> list[tuple[str, Tensor]]:
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
    paths += [PAINTING]
    found = [(path.stem, read_image(path)) for path in paths if path.exists()]
    if folder is not None:
        others = (
            sorted(p for p in folder.glob("*") if p.suffix.lower() in _SUFFIXES) if folder.is_dir() else []
        )
        if not others:
            raise FD2TalkError(f"{folder} holds no portraits (png, jpg, jpeg or webp).")
        found += [(path.stem, read_image(path)) for path in others]
    return found

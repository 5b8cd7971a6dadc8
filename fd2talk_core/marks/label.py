"""The visible label: a line of text in a corner of every frame."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..errors import FD2TalkError
from .defaults import CORNERS, LABEL_SIZE, LARGEST_LABEL

LONGEST = 120
"""Letters of a label."""
SHADE = 0.55
"""How much of the dark ground behind the letters is seen."""


@dataclass(frozen=True)
class Label:
    """What is written, and where.

    Attributes:
        text: one line.
        corner: one of :data:`~fd2talk_core.marks.defaults.CORNERS`.
        size: height of a letter as a share of the picture's shorter side.
        font: a font file; empty takes Pillow's own, which has Latin letters.

    Raises:
        FD2TalkError: when one of them cannot be used, or the font lacks one of the letters.
    """

    text: str
    corner: str = CORNERS[0]
    size: float = LABEL_SIZE
    font: str = ""

    def __post_init__(self) -> None:
        if not self.text.strip() or not self.text.isprintable() or len(self.text) > LONGEST:
            raise FD2TalkError(
                f"The label is {self.text[:LONGEST]!r}, but one line of 1 to {LONGEST} letters is needed."
            )
        if self.corner not in CORNERS:
            raise FD2TalkError(f"label_corner is {self.corner!r}, but one of {', '.join(CORNERS)} is needed.")
        if not 0 < self.size <= LARGEST_LABEL:
            raise FD2TalkError(
                f"label_size is {self.size}, but a share of the picture over 0 and up to {LARGEST_LABEL} is "
                "needed."
            )
        lacking = _lacking(self.text, self.font)
        if lacking:
            raise FD2TalkError(
                f"The label's font has no {lacking!r}: write the label in other letters, or name a font that "
                "has them as label_font in the marks' settings."
            )

    @classmethod
    def of(cls, text: str, corner: str, size: float, font: str = "") -> Label | None:
        """A label, or None for an empty text."""
        return cls(text, corner, size, font) if text else None

    def add_to(self, frames: Tensor) -> Tensor:
        """Frames ``[n, H, W, 3]`` in 0..1 with the label; those given are left as they are."""
        drawn, (top, left) = self._drawn(frames.shape[1], frames.shape[2])
        frames = frames.clone()
        place = frames[:, top : top + drawn.shape[0], left : left + drawn.shape[1]]
        opacity = drawn[..., 1:].to(frames)
        place.mul_(1 - opacity).add_(drawn[..., :1].to(frames) * opacity)
        return frames

    @lru_cache(maxsize=4)  # noqa: B019  labels are small, and few are alive
    def _drawn(self, height: int, width: int) -> tuple[Tensor, tuple[int, int]]:
        """``[h, w, 2]``, grey and opacity in 0..1, and where its top left corner lies."""
        letters = max(self.size * min(height, width), 6)
        font = _font(self.font, letters)
        bounds = font.getbbox(self.text)
        if bounds[2] - bounds[0] + letters > width:
            # a long label is written smaller rather than cut
            letters = max(letters * width / (bounds[2] - bounds[0] + letters), 6)
            font = _font(self.font, letters)
            bounds = font.getbbox(self.text)
        margin = round(letters * 0.35)
        size = (
            min(round(bounds[2] - bounds[0]) + 2 * margin, width),
            min(round(bounds[3] - bounds[1]) + 2 * margin, height),
        )
        mask = Image.new("L", size)
        ImageDraw.Draw(mask).text((margin - bounds[0], margin - bounds[1]), self.text, fill=255, font=font)
        grey = torch.from_numpy(np.asarray(mask, dtype=np.float32) / 255)
        drawn = torch.stack([grey, SHADE + (1 - SHADE) * grey], dim=-1)
        vertical, horizontal = self.corner.split(" ")
        top = 0 if vertical == "top" else height - size[1]
        left = 0 if horizontal == "left" else width - size[0]
        return drawn, (top, left)


def _font(path: str, size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    if not path:
        return ImageFont.load_default(size)
    try:
        return ImageFont.truetype(path, size)
    except OSError as error:
        raise FD2TalkError(f"The label's font {path!r} cannot be read ({error}).") from error


def _lacking(text: str, path: str) -> str:
    """The letters that a font draws as it draws what no font has."""
    font = _font(path, 24)
    unknown = bytes(font.getmask("\U0010ffff"))
    return "".join(letter for letter in dict.fromkeys(text) if bytes(font.getmask(letter)) == unknown)

"""What a turn brings out, with a texture that is not drawn out.

Close hair ends at the skull's edge, so there the portrait has little room for what a turn brings out, as it
has for the side of a cheek: drawn out over it, strands and pores become ribs. What is smooth can be drawn
out. What is fine of hair is taken from further in, as large as it is there; a cheek does without.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from kornia.filters import gaussian_blur2d
from torch import Tensor

from ..imaging import pixel_centers, resize

FINE = 0.03
"""Half widths, the deviation of the Gaussian that tells what is smooth: some strands, some pores."""

EDGE = 0.2
"""Deviation of colours (of 0..1) from which what changes counts as an edge, a cap's or a collar's, and not as
fine: that is drawn out, lest it be blurred and shown twice.
"""

_LEAST = 1e-3


@dataclass(frozen=True, eq=False)
class Texture:
    """A portrait in two: ``[1, 6, N, N]``, what can be drawn out, smooth but for edges, and what that lacks
    of it. Beyond its person it lacks nothing.
    """

    layers: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, portrait: Tensor, matte: Tensor) -> Texture:
        """
        Args:
            portrait: ``[1, 3, N, N]``.
            matte: ``[1, 1, S, S]`` in 0..1, where it shows its person.
        """
        person = resize(matte, portrait.shape[-1])
        # the wall is no part of hair
        square = portrait.square().mean(dim=1, keepdim=True)
        known = torch.cat([portrait * person, square * person, person], dim=1)
        deviation = FINE * portrait.shape[-1] / 2
        reach = 2 * round(1.5 * deviation) + 1
        blurred = gaussian_blur2d(known, (reach, reach), (deviation, deviation))
        smooth, square = (blurred[:, :4] / blurred[:, 4:].clamp_min(_LEAST)).split([3, 1], dim=1)
        variance = (square - smooth.square().mean(dim=1, keepdim=True)).clamp_min(0)
        fine = person * EDGE**2 / (EDGE**2 + variance) * (portrait - smooth)
        return cls(torch.cat([portrait - fine, fine], dim=1))

    def add_to(self, moved: Tensor, pixels: Tensor, drawn_out: Tensor) -> None:
        """The moved portrait, in place, where it would be drawn out.

        Args:
            moved: ``[1, 3, N, N]``.
            pixels: ``[2, N, N]``, its displacement, half widths and heights.
            drawn_out: ``[4, n, n]``, of its cells: what is to be added to that for what is fine, how far the
                portrait is drawn out in 0..1, and how far what is fine counts there in 0..1.
        """
        size, cells = moved.shape[-1], drawn_out.shape[-1]
        spans = []
        for dim in (0, 1):
            there = drawn_out[2].any(dim=1 - dim).nonzero()
            if not len(there):
                return
            # enlarged smoothly they reach to the next cells' centres
            first, last = max(0, int(there[0]) - 1), min(cells, int(there[-1]) + 2)
            spans.append(slice(first * size // cells, -(-last * size // cells)))
        rows, columns = spans
        place = (..., rows, columns)
        centres = pixel_centers(size, pixels)[None, rows, columns]
        of_cells = F.grid_sample(
            drawn_out[None].to(pixels), centres, padding_mode="border", align_corners=False
        )
        further, share, grain = of_cells.split([2, 1, 1], dim=1)
        grid = centres + pixels[place].movedim(0, -1)
        places = grid, grid + further.movedim(1, -1)
        smooth, fine = (
            F.grid_sample(layer, at.to(layer), padding_mode="border", align_corners=False)
            for layer, at in zip(self.layers.split(3, dim=1), places, strict=True)
        )
        moved[place].lerp_(torch.addcmul(smooth, fine, grain.to(fine)), share.to(moved))

"""Finding a pixel mark: where its grid lies, what it says, and how probably chance would look like it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from ..progress import Callback
from .payload import CHECK_BITS, CODED_BITS, MarkPayload
from .pixels import CHIPS, OVERSAMPLING, ChipLayout, chip_values, front_end, luminance

LEAST_SHARE = 0.62
"""Of the marked picture's width and height that must be left."""
FOUND_BELOW = 1e-6
"""A mark counts as found when chance gives one no more often."""
PLACES_READ = 6
"""How many of the likeliest places of the grid are read."""
FRAMES_READ = 64


@dataclass(frozen=True)
class MarkFinding:
    """What the search found.

    Attributes:
        payload: what the mark says; None where none could be read.
        false_alarm: an upper bound of the probability that a video without a mark gives this.
        score: the synchronisation's correlation in standard deviations of what other places give.
        share: width and height of the picture as shares of the marked one; less than 1 after a crop.
        frames: how many were looked at.
    """

    payload: MarkPayload | None
    false_alarm: float
    score: float
    share: tuple[float, float]
    frames: int

    @property
    def found(self) -> bool:
        """Whether there is a mark, readable or not."""
        return self.false_alarm < FOUND_BELOW


@dataclass(frozen=True)
class _Place:
    """Where the grid may lie: the picture's size and top left corner in cells of the marked one, [y, x]."""

    share: tuple[float, float]
    corner: tuple[float, float]
    score: float


@torch.no_grad()
def find_mark(frames: Iterable[Tensor], callback: Callback | None = None) -> MarkFinding:
    """Look for a mark in frames ``[H, W, 3]``, uint8 or in 0..1, of one clip; one at a time is held.

    Args:
        frames: the more, the surer.
        callback: called many times with the stages done and to do; what it raises stops the search.
    """
    stages = 1 + 3 * len(CHIPS)

    def tell(done: int) -> None:
        if callback is not None:
            callback(done, stages, None)

    sums = dict.fromkeys(CHIPS, 0.0)
    count = 0
    for frame in frames:
        levels = luminance(frame[None]) * (1.0 if frame.dtype == torch.uint8 else 255.0)
        for chips in CHIPS:
            sums[chips] = sums[chips] + front_end(levels, chips)[0]
        count += 1
        tell(0)
    best = MarkFinding(None, 1.0, 0.0, (1.0, 1.0), count)
    if not count:
        return best
    searches = [_Search(chips, sums[chips] / count) for chips in CHIPS]
    tries = trials = 0
    done = 0
    for stage in range(3):
        for search in searches:
            done += 1
            places, searched = search.places(stage, partial(tell, done))
            trials += searched
            for place in places:
                tries += 1
                place = search.refine(place)
                payload = MarkPayload.decode(search.soft_bits(place))
                alarm = min(1.0, trials * _tail(place.score))
                if payload is not None:
                    alarm *= tries * 2.0**-CHECK_BITS
                if alarm < best.false_alarm or payload is not None:
                    best = MarkFinding(payload, alarm, place.score, place.share, count)
                if payload is not None:
                    return best
    return best


def spread_out(frames: Iterable[Tensor], count: int, most: int = FRAMES_READ) -> Iterator[Tensor]:
    """At most about so many frames of a clip of ``count``, evenly apart."""
    return islice(frames, 0, None, max(1, count // most))


@torch.no_grad()
def whole_picture_chances(frame: Tensor) -> list[float]:
    """For one picture ``[H, W, 3]`` in 0..1, searched as it stands: how probably chance gives the score that
    each grid gives. For unmarked pictures these are spread evenly over 0..1 if the statistics hold.
    """
    chances = []
    for chips in CHIPS:
        (place,), trials = _Search(chips, front_end(luminance(frame[None]) * 255, chips)[0]).places(0)
        chances.append(-math.expm1(trials * math.log1p(-_tail(place.score))))
    return chances


def _tail(score: float) -> float:
    """P(X > score) of a standard normal X."""
    return 0.5 * math.erfc(score / math.sqrt(2))


class _Search:
    """One layout looked for in one clip's mean front end ``[2N, 2N]``."""

    def __init__(self, chips: int, cells: Tensor) -> None:
        self.layout = ChipLayout.of(chips)
        self.cells = cells
        self.side = OVERSAMPLING * chips
        template = self.layout.synchronisation.repeat_interleave(OVERSAMPLING, 0)
        self.template = template.repeat_interleave(OVERSAMPLING, 1)
        self.spectrum = torch.fft.rfft2(self.template).conj()
        # at the far edge of a picture that is placed by its corner, half a chip is lost at most
        step = 1.0 / chips
        self.shares = [1 - step * n for n in range(math.ceil((1 - LEAST_SHARE) / step) + 1)]

    def places(self, stage: int, tell: Callable[[], None] = lambda: None) -> tuple[list[_Place], int]:
        """The likeliest places, and how many were compared: of the whole picture, of crops with its ratio of
        width to height, of all crops.
        """
        if stage == 0:
            pairs = [(1.0, 1.0)]
        elif stage == 1:
            pairs = [(share, share) for share in self.shares[1:]]
        else:
            pairs = [(down, across) for down in self.shares for across in self.shares if down != across]
        found, searched = [], 0
        for start in range(0, len(pairs), 32):
            tell()
            some = pairs[start : start + 32]
            down = torch.stack([self._placing(share, 0.0) for share, _ in some])
            across = torch.stack([self._placing(share, 0.0) for _, share in some])
            patches = down @ self.cells @ across.transpose(1, 2)
            surfaces = torch.fft.irfft2(torch.fft.rfft2(patches) * self.spectrum, s=(self.side, self.side))
            surfaces /= surfaces.std(dim=(1, 2), keepdim=True)
            for pair, surface in zip(some, surfaces, strict=True):
                # the picture's own frame cannot reach beyond the grid, but for rounding
                free = [min(int((1 - share) * self.side) + 2, self.side) for share in pair]
                # a picture at corner c shows the template from c on: the surface has it at -c
                back = surface.flip(0, 1).roll((1, 1), (0, 1))[: free[0], : free[1]]
                searched += back.numel()
                score, index = back.flatten().max(0)
                corner = (float(index // free[1]), float(index % free[1]))
                found.append(_Place(pair, corner, float(score)))
        return sorted(found, key=lambda place: -place.score)[:PLACES_READ], searched

    def _placing(self, share: float, corner: float) -> Tensor:
        """``[2N, 2N]`` weights of picture cells in grid cells, linear; 0 outside of the picture."""
        grid = torch.arange(self.side) + 0.5
        source = (grid - corner) / share - 0.5
        weights = (1 - (source[:, None] - torch.arange(self.side)).abs()).clamp_min(0)
        inside = (source > -0.5) & (source < self.side - 0.5)
        return weights * inside[:, None]

    def _on_grid(self, place: _Place) -> Tensor:
        down, across = (self._placing(s, c) for s, c in zip(place.share, place.corner, strict=True))
        return down @ self.cells @ across.T

    def _match(self, values: list[float]) -> float:
        """How well the synchronisation fits at a corner and a size, ``[y, x, height, width]``."""
        cells = self._on_grid(_Place((values[2], values[3]), (values[0], values[1]), 0.0))
        spread = cells.square().sum().sqrt()
        return float((cells * self.template).sum() / spread)

    def refine(self, place: _Place) -> _Place:
        """The best place within a cell: of its corner, then of its size. The score stays the search's own,
        whose chance is known.
        """
        values = [*place.corner, *place.share]
        best = self._match(values)
        for step in (0.5, 0.25):
            for index, by in enumerate((step, step, 2 * step / self.side, 2 * step / self.side)):
                for sign in (-1, 1):
                    moved = [*values[:index], values[index] + sign * by, *values[index + 1 :]]
                    if (now := self._match(moved)) > best:
                        best, values = now, moved
        return _Place((values[2], values[3]), (values[0], values[1]), place.score)

    def soft_bits(self, place: _Place) -> np.ndarray:
        """``[CODED_BITS]``, what the chips say of each coded bit."""
        values = chip_values(self._on_grid(place)[None])[0] * self.layout.signs
        carrying = self.layout.bits >= 0
        sums = torch.zeros(CODED_BITS).index_add_(0, self.layout.bits[carrying], values[carrying])
        return sums.numpy()

"""The mark in the pixels: a spread-spectrum pattern in the luminance, the same in every frame of a clip.

A grid of chips covers the picture. Every chip has a pseudo-random sign and belongs either to the
synchronisation, by which the grid is found again in a part of the picture, or to one bit of the coded
payload, which turns it over. The grid is as wide and high as the picture, so resizing leaves it where it is.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .payload import CODED_BITS, MarkPayload

CHIPS = (80, 128)
"""Chips a side, for pictures whose shorter side is below and from :data:`FINE_FROM` pixels on."""
FINE_FROM = 400
SYNCHRONISATION_SHARE = 0.22
OVERSAMPLING = 2
"""Cells of the front end on one chip."""
LUMINANCE = (0.299, 0.587, 0.114)

STRENGTH = (1.5, 1.65)
"""Least and largest amplitude of a chip, in levels of 255: in an even place, and in a busy one. A detector
looks at each place against its neighbourhood, so that an even place says more than a busy one."""
PER_ACTIVITY = 0.1
"""Levels of amplitude for each level of the picture's own local deviation."""
DARK = (0.7, 64.0)
"""A black place takes this share of the amplitude, one from so many levels on takes all: the eye sees more in
the dark."""
LEAST_PSNR = 45.5
"""dB; where the amplitudes would make it lower, all are reduced."""
PREDISTORTION = (0.6, 1.8)
"""How far the amplitude of one bit's chips is changed against what the picture itself says of that bit."""


@dataclass(frozen=True)
class ChipLayout:
    """Where the chips of synchronisation and payload lie.

    Attributes:
        signs: ``[N, N]`` of -1 and 1.
        bits: ``[N, N]``, which coded bit a chip carries; -1 in the synchronisation.
    """

    signs: Tensor
    bits: Tensor

    @classmethod
    @lru_cache(maxsize=len(CHIPS))
    def of(cls, chips: int) -> ChipLayout:
        """The layout with so many chips a side; the same on every machine and in every version of numpy."""
        count = chips * chips
        stream = hashlib.shake_256(f"fd2talk mark 1, {chips} chips".encode()).digest(9 * count)
        order = np.frombuffer(stream[: 8 * count], dtype="<u8").argsort(kind="stable")
        bits = np.full(count, -1)
        carrying = order[int(SYNCHRONISATION_SHARE * count) :]
        bits[carrying] = np.arange(len(carrying)) % CODED_BITS
        signs = np.frombuffer(stream[8 * count :], dtype=np.uint8) & 1
        return cls(
            torch.from_numpy(signs.reshape(chips, chips).astype(np.float32) * 2 - 1),
            torch.from_numpy(bits.reshape(chips, chips)),
        )

    def chips(self, payload: MarkPayload) -> Tensor:
        """``[N, N]`` of -1 and 1 that say this payload."""
        sent = torch.from_numpy(payload.encode()).float()
        return self.signs * torch.where(self.bits < 0, 1.0, sent[self.bits.clamp_min(0)])

    @property
    def synchronisation(self) -> Tensor:
        """``[N, N]``, the chips by which the grid is found; 0 in the payload's."""
        return self.signs * (self.bits < 0)


def chips_for(height: int, width: int) -> int:
    """Chips a side of a picture's grid."""
    return CHIPS[min(height, width) >= FINE_FROM]


def luminance(frames: Tensor) -> Tensor:
    """``[n, H, W]`` of frames ``[n, H, W, 3]``, in their own unit."""
    return frames.float() @ torch.tensor(LUMINANCE, device=frames.device)


def _blur(pictures: Tensor, sigma: float) -> Tensor:
    """Gaussian of ``[n, h, w]``, the border repeated."""
    radius = max(int(3 * sigma), 1)
    taps = torch.exp(-torch.arange(-radius, radius + 1, dtype=torch.float32).square() / (2 * sigma**2))
    taps = (taps / taps.sum()).to(pictures)
    padded = F.pad(pictures[:, None], (radius,) * 4, mode="replicate")
    across = F.conv2d(padded, taps.view(1, 1, 1, -1))
    return F.conv2d(across, taps.view(1, 1, -1, 1))[:, 0]


def _resized(pictures: Tensor, size: tuple[int, int], mode: str = "bilinear") -> Tensor:
    shrinks = size[0] < pictures.shape[-2] or size[1] < pictures.shape[-1]
    return F.interpolate(pictures[:, None], size=size, mode=mode, align_corners=False, antialias=shrinks)[
        :, 0
    ]


def front_end(levels: Tensor, chips: int) -> Tensor:
    """What a detector looks at: luminance ``[n, H, W]`` in levels of 255 becomes ``[n, 2N, 2N]``, each place
    against its neighbourhood and over that neighbourhood's variance, as a matched filter weighs it.
    """
    side = OVERSAMPLING * chips
    cells = _resized(levels, (side, side))
    fine = cells - _blur(cells, 0.6 * OVERSAMPLING)
    spread = _blur(fine.square(), 0.8 * OVERSAMPLING)
    return (fine / (spread + 0.5)).clamp(-0.9, 0.9)


def chip_values(cells: Tensor) -> Tensor:
    """``[..., 2N, 2N]`` of the front end to one value a chip, ``[..., N, N]``."""
    return F.avg_pool2d(cells[None], OVERSAMPLING)[0]


class PixelMark:
    """One clip's mark. The pattern is made from the first frame and then added to every frame.

    Args:
        payload: what it says.
    """

    def __init__(self, payload: MarkPayload) -> None:
        self.payload = payload
        self.pattern: Tensor | None = None

    @torch.no_grad()
    def add_to(self, frames: Tensor) -> Tensor:
        """Frames ``[n, H, W, 3]`` in 0..1, marked; the first one seen decides how strong and where."""
        if self.pattern is None:
            self.pattern = mark_pattern(frames[:1], self.payload)[..., None].repeat(1, 1, 3)
        return torch.add(frames, self.pattern.to(frames)).clamp_(0, 1)


@torch.no_grad()
def mark_pattern(frame: Tensor, payload: MarkPayload) -> Tensor:
    """``[H, W]``, what is added to R, G and B of a clip that begins with this frame ``[1, H, W, 3]``."""
    levels = luminance(frame) * 255
    size = (levels.shape[1], levels.shape[2])
    layout = ChipLayout.of(chips_for(*size))
    wanted = layout.chips(payload)
    strength = _strength(levels, len(wanted))
    pattern = _limited(_drawn(wanted, size) * strength)
    for _ in range(2):
        # what picture and pattern say together of each bit is brought to the mean of all bits
        said = chip_values(front_end((levels + pattern).clamp(0, 255), len(wanted)))[0] * wanted
        groups = layout.bits.flatten() + 1
        sums = torch.zeros(CODED_BITS + 1).index_add_(0, groups, said.flatten())
        means = sums / torch.bincount(groups, minlength=CODED_BITS + 1)
        typical = means[1:].mean().clamp_min(1e-3)
        lacking = ((typical - means) / typical)[groups].view_as(wanted)
        gain = (1 + lacking).clamp(*PREDISTORTION)
        pattern = _limited(_drawn(wanted * gain, size) * strength)
    return pattern[0] / 255


def _strength(levels: Tensor, chips: int) -> Tensor:
    """``[1, H, W]``, amplitude in levels of 255: more where the picture is busy and hides it."""
    side = OVERSAMPLING * chips
    cells = _resized(levels, (side, side))
    activity = _blur((cells - _blur(cells, OVERSAMPLING)).square(), 1.5 * OVERSAMPLING).sqrt()
    strength = (STRENGTH[0] + PER_ACTIVITY * activity).clamp_max(STRENGTH[1])
    strength = strength * (DARK[0] + (1 - DARK[0]) * _blur(cells, OVERSAMPLING) / DARK[1]).clamp_max(1)
    return _resized(strength, (levels.shape[1], levels.shape[2]))


def _drawn(chips: Tensor, size: tuple[int, int]) -> Tensor:
    """``[1, H, W]`` of chips ``[N, N]``, without what is coarser than a few of them."""
    fine = chips[None] - 0.8 * _blur(chips[None], 1.5)
    return _resized(fine, size, "bicubic")


def _limited(pattern: Tensor) -> Tensor:
    """No stronger than :data:`LEAST_PSNR` allows."""
    most = 255 * 10 ** (-LEAST_PSNR / 20)
    return pattern * (most / pattern.square().mean().sqrt()).clamp_max(1)

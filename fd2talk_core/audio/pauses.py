"""When somebody speaks in a recording, by how loud it is beside itself."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from .front import BLOCK, DIGITAL_SILENCE, QUIET_SHARE, block_powers
from .resampling import SAMPLE_RATE

LOUD_SHARE = 0.95
"""Of the blocks that are less loud than the loud ones."""
CHANGING = 10.0
"""Where the loud blocks have less than so many times the power of the quiet ones, nobody speaks."""
OVER_QUIET = 4.0
"""Times the power of the quiet blocks (6 dB) that speech has."""
UNDER_LOUD = (1e-3, 1e-2)
"""Of the loud blocks' power: speech never has less than the first (30 dB), and always has with the second."""
PAUSE_SECONDS = 0.35
"""A shorter silence is that of a consonant, or between two words."""


def spoken_frames(waveform: Tensor, num_frames: int, fps: float) -> Tensor:
    """In which frames somebody speaks, silences within a phrase included.

    Args:
        waveform: ``[N]`` mono at 16 kHz.
        num_frames: F; frame i lasts from i / fps to (i + 1) / fps.

    Returns:
        ``[F]`` bool; none at all in silence and in noise that hardly changes.
    """
    powers = block_powers(waveform.cpu())
    sounding = powers[powers > DIGITAL_SILENCE]
    if not len(sounding):
        return torch.zeros(num_frames, dtype=torch.bool)
    quiet, loud = sounding.quantile(QUIET_SHARE), sounding.quantile(LOUD_SHARE)
    if len(sounding) == len(powers) and loud < CHANGING * quiet:
        return torch.zeros(num_frames, dtype=torch.bool)
    least = (OVER_QUIET * quiet).clamp(UNDER_LOUD[0] * loud, UNDER_LOUD[1] * loud)
    heard = torch.zeros(num_frames)
    block = (torch.arange(len(powers)) + 0.5) * BLOCK / SAMPLE_RATE
    frame = (block * fps).long().clamp(max=num_frames - 1)
    heard.scatter_reduce_(0, frame, (powers >= least).float(), "amax")
    return _filled(heard > 0, math.ceil(PAUSE_SECONDS * fps))


def _filled(spoken: Tensor, least: int) -> Tensor:
    """Without the silences of under ``least`` frames that speech is on both sides of."""
    filled = spoken.clone()
    frames = spoken.nonzero().flatten().tolist()
    for before, after in pairwise(frames):
        if after - before <= least:
            filled[before:after] = True
    return filled

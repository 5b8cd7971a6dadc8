"""Band levels: how the spectrum tilts and swells, which a list of phonemes does not tell.

Lips that are rounded or nearly shut damp what lies above the first formant, and lips that part let it through
(Fant 1960, "Acoustic theory of speech production"); most of a speaking face is in the spectrum (Yehia et al.
1998, "Quantitative association of vocal-tract and facial behavior"). An encoder trained to name phonemes
learns to disregard just that, so it may be given beside its features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from .resampling import SAMPLE_RATE

_WINDOW = 1024
_FLOOR = 1e-4
"""Of the loud moments' power: what lies below is taken for noise."""

_LOUD = 0.95
"""Part of all moments that are less loud than the loud ones."""

_AROUND_SECONDS = 1.5
"""What is usual is the mean over this much speech around a moment."""

_PIECE = 512
"""Moments that are transformed together."""


def band_levels(waveform: Tensor, edges: Sequence[float], first: int, step: int, count: int) -> Tensor:
    """How loud each band is beside what is usual around.

    Args:
        waveform: ``[N]`` mono at 16 kHz.
        edges: ascending, in Hz; B + 1 of them bound B bands.
        first, step, count: the moments are at the samples first + step * i, for i under ``count``.

    Returns:
        ``[count, B]`` natural logarithms of each band's power, less their mean over the speech of 1.5 s
        around; 0 in silence.
    """
    power = torch.cat(
        [
            _powers(waveform, edges, first + step * low, step, min(_PIECE, count - low))
            for low in range(0, count, _PIECE)
        ]
    )
    total = power.sum(dim=1, keepdim=True)
    floor = _FLOOR * total.quantile(_LOUD) + 1e-12
    speech = ((total + floor).log() - floor.log()).div(2).clamp(0, 1)
    levels = (power + floor).log()
    around = round(_AROUND_SECONDS * SAMPLE_RATE / step) // 2
    usual = _moving_sum(speech * levels, around) / (_moving_sum(speech, around) + 1e-6)
    return (speech * (levels - usual)).float()


def _powers(waveform: Tensor, edges: Sequence[float], first: int, step: int, count: int) -> Tensor:
    """``[count, B]`` of the sound under a Hann window around each moment, float64."""
    start = first - _WINDOW // 2
    stop = start + step * (count - 1) + _WINDOW
    piece = waveform[max(start, 0) : max(stop, 0)]
    missing = max(min(-start, stop - start), 0)
    piece = functional.pad(piece, (missing, stop - start - missing - len(piece)))
    window = torch.hann_window(_WINDOW, periodic=False)
    spectrum = torch.fft.rfft(piece.unfold(0, _WINDOW, step) * window).abs().square()
    frequencies = torch.fft.rfftfreq(_WINDOW, 1 / SAMPLE_RATE)
    bands = torch.bucketize(frequencies, torch.tensor(edges), right=True)
    shares = functional.one_hot(bands, len(edges) + 1).double()[:, 1:-1]
    return spectrum.double() @ shares


def _moving_sum(values: Tensor, around: int) -> Tensor:
    """``[n, c]``: sums over ``around`` rows on either side, as many as there are."""
    sums = functional.pad(values.double().cumsum(dim=0), (0, 0, 1, 0))
    rows = torch.arange(len(values))
    return sums[(rows + around + 1).clamp(max=len(values))] - sums[(rows - around).clamp(min=0)]

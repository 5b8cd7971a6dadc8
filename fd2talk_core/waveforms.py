"""Waveforms, as several rooms need them: what one may be, and PCM as floating point."""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import check_tensor, check_whole
from .errors import FD2TalkError

SAMPLE_RATES = (1000, 384_000)
"""Hz, lowest and highest: the filters that resample to 16 kHz, and what they give, grow with the ratio."""


def check_waveform(waveform: Tensor, sample_rate: int) -> Tensor:
    """The waveform as ``[C, N]``, or one sentence on what is wrong with it.

    Args:
        waveform: ``[N]``, ``[C, N]`` or ``[1, C, N]``, float in -1..1 or PCM integers.
        sample_rate: Hz.

    Raises:
        FD2TalkError: for another shape or type, a rate out of :data:`SAMPLE_RATES`, or no samples.
    """
    check_sample_rate(sample_rate)
    waveform = check_tensor(waveform, "The audio")
    if waveform.ndim == 3 and waveform.shape[0] == 1:
        waveform = waveform[0]
    if waveform.ndim == 1:
        waveform = waveform[None]
    if waveform.ndim != 2:
        raise FD2TalkError(
            f"The audio has shape {tuple(waveform.shape)}, but one clip of [channels, samples] is needed."
        )
    if 0 in waveform.shape:
        raise FD2TalkError(f"The audio is empty (shape {tuple(waveform.shape)}): give at least one sample.")
    if waveform.dtype == torch.bool:
        raise FD2TalkError(f"The audio is of type {waveform.dtype}, but float or integer samples are needed.")
    return waveform


def check_sample_rate(sample_rate: float) -> int:
    """A sample rate that sound has.

    Raises:
        FD2TalkError: when it is no whole number of Hz in :data:`SAMPLE_RATES`.
    """
    low, high = SAMPLE_RATES
    return check_whole(sample_rate, "The audio's sample rate", low, high)


def as_float(waveform: Tensor) -> Tensor:
    """Samples as float in -1..1: PCM integers are scaled by what their type holds."""
    if waveform.is_floating_point():
        return waveform
    span = torch.iinfo(waveform.dtype)
    middle = 128 if waveform.dtype == torch.uint8 else 0
    return ((waveform.double() - middle) / (span.max - middle + 1)).float()

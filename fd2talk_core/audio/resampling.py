"""Any waveform as the 16 kHz mono that wav2vec 2.0 hears, in pieces of bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import FD2TalkError
from ..waveforms import as_float, check_waveform

SAMPLE_RATE = 16_000
"""Of every wav2vec 2.0 model."""

RESAMPLE_SECONDS = 10


def mono_samples(waveform: Tensor, start: int, stop: int) -> Tensor:
    """Samples ``start..stop`` as mono float32, zeros beyond either end."""
    length = waveform.shape[1]
    piece = waveform[:, max(start, 0) : max(min(stop, length), 0)].detach().cpu()
    piece = as_float(piece)
    if not torch.isfinite(piece).all():
        bad = int((~torch.isfinite(piece)).any(dim=0).nonzero()[0]) + max(start, 0)
        raise FD2TalkError(
            f"The audio holds a value that is not a finite number at sample {bad}: export it again."
        )
    mono = piece.float().mean(dim=0)
    before, after = min(max(-start, 0), stop - start), min(max(stop - length, 0), stop - start)
    return functional.pad(mono, (before, after)) if before or after else mono


def to_mono_16k(waveform: Tensor, sample_rate: int) -> Tensor:
    """Average the channels and resample to 16 kHz.

    Args:
        waveform: ``[N]``, ``[C, N]`` or ``[1, C, N]``; float in -1..1 or PCM integers, which are scaled to
            it.
        sample_rate: Hz, any whole number.

    Returns:
        ``[ceil(N * 16000 / sample_rate)]`` float32 on the CPU; sample n stands for the instant n / 16000.

    Raises:
        FD2TalkError: for empty audio, a value that is not finite, or a sample rate that sound has not.
    """
    waveform = check_waveform(waveform, sample_rate)
    resampler = BandlimitedResampler(int(sample_rate), SAMPLE_RATE)
    total = -(-waveform.shape[1] * SAMPLE_RATE // int(sample_rate))
    out = torch.empty(total)
    step = max(1, RESAMPLE_SECONDS * SAMPLE_RATE // resampler.outputs) * resampler.outputs
    for start in range(0, total, step):
        piece = resampler(lambda a, b: mono_samples(waveform, a, b), start, min(step, total - start))
        out[start : start + piece.shape[0]] = piece
    return out


class BandlimitedResampler:
    """Windowed-sinc resampling by a rational factor (Smith, Digital Audio Resampling), any piece at a time.

    Output n lies at input position n · orig / new. Outputs come in blocks that all lie alike relative to
    their input, so one filter bank serves all blocks as one matrix product.

    Args:
        orig, new: sample rates, Hz.
        zeros: zero crossings of the sinc on either side; 16 with the Kaiser window gives a stop band of -80
            dB.
        rolloff: cut-off relative to the lower Nyquist frequency.
        beta: of the Kaiser window.
    """

    PHASES = 160
    """Outputs per matrix product: enough to be one product, few enough that their inputs overlap."""

    def __init__(
        self, orig: int, new: int, zeros: int = 16, rolloff: float = 0.94, beta: float = 8.6
    ) -> None:
        divisor = math.gcd(orig, new)
        self.inputs, self.outputs = orig // divisor, new // divisor
        repeat = max(1, self.PHASES // self.outputs)
        self.inputs, self.outputs = self.inputs * repeat, self.outputs * repeat
        self.banks = [] if orig == new else [self._bank(p, zeros, rolloff, beta) for p in self._groups()]

    def _groups(self) -> Iterator[range]:
        for first in range(0, self.outputs, self.PHASES):
            yield range(first, min(first + self.PHASES, self.outputs))

    def _bank(self, phases: range, zeros: int, rolloff: float, beta: float) -> tuple[range, int, Tensor]:
        """The outputs of a block that it makes, its first input, and its filters ``[inputs, outputs]``."""
        cutoff = rolloff * min(1.0, self.outputs / self.inputs)
        reach = zeros / cutoff
        position = torch.tensor([p * self.inputs / self.outputs for p in phases], dtype=torch.float64)
        first = math.floor(position[0].item() - reach)
        last = math.ceil(position[-1].item() + reach)
        distance = torch.arange(first, last + 1, dtype=torch.float64)[:, None] - position
        taper = torch.special.i0(beta * (1 - (distance / reach) ** 2).clamp(min=0).sqrt())
        filters = torch.where(distance.abs() <= reach, torch.sinc(cutoff * distance) * taper, 0.0)
        # each filter sums to 1, so that a constant stays itself at every phase
        return phases, first, (filters / filters.sum(dim=0)).float()

    def __call__(self, read: Any, start: int, count: int) -> Tensor:
        """Outputs ``start .. start + count``.

        Args:
            read: ``(first, last) -> [last - first]`` input samples, which may lie beyond the ends.
            start: a multiple of ``self.outputs``.
        """
        if not self.banks:
            return read(start, start + count)
        blocks = -(-count // self.outputs)
        origin = start // self.outputs * self.inputs
        low = min(first for _, first, _ in self.banks)
        high = max(first + filters.shape[0] for _, first, filters in self.banks)
        samples = read(origin + low, origin + (blocks - 1) * self.inputs + high)
        out = torch.empty(blocks, self.outputs)
        for phases, first, filters in self.banks:
            windows = samples[first - low :].unfold(0, filters.shape[0], self.inputs)[:blocks]
            out[:, phases.start : phases.stop] = windows @ filters
        return out.flatten()[:count]

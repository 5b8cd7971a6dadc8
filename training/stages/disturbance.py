"""What stands between a voice and an ear, drawn anew for every training sample: rooms, lines, voices."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fd2talk_core.audio.resampling import SAMPLE_RATE


def uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def in_room(waveform: Tensor, generator: torch.Generator) -> Tensor:
    """``[N]`` heard with an exponentially decaying tail of 0.1 to 0.7 s; the direct sound stays in place."""
    decay = uniform(0.1, 0.7, generator)
    time = torch.arange(1, round(decay * SAMPLE_RATE)) / SAMPLE_RATE
    tail = torch.randn(len(time), generator=generator) * (-6.9 * time / decay).exp()
    tail[: round(uniform(0.001, 0.012, generator) * SAMPLE_RATE)] = 0
    tail *= uniform(0.2, 1.0, generator) / tail.norm().clamp_min(1e-6)
    size = len(waveform) + len(tail)
    spectrum = torch.fft.rfft(waveform, size) * torch.fft.rfft(torch.cat([torch.ones(1), tail]), size)
    return torch.fft.irfft(spectrum, size)[: len(waveform)]


def over_line(waveform: Tensor, generator: torch.Generator) -> Tensor:
    """``[N]`` through a telephone or a cheap microphone: a band, and in half of the cases 8-bit μ-law steps
    (ITU-T G.711).
    """
    frequency = torch.fft.rfftfreq(len(waveform), 1 / SAMPLE_RATE)
    low, high = uniform(60, 400, generator), uniform(2800, 7000, generator)
    passed = torch.sigmoid((frequency - low) / 30) * torch.sigmoid((high - frequency) / 100)
    heard = torch.fft.irfft(torch.fft.rfft(waveform) * passed, len(waveform))
    if torch.rand((), generator=generator) < 0.5:
        return heard
    peak = heard.abs().amax().clamp_min(1e-6)
    coded = (heard / peak).sign() * (255 * (heard / peak).abs()).log1p() / math.log(256)
    coded = (coded * 127).round() / 127
    return peak * coded.sign() * ((coded.abs() * math.log(256)).expm1() / 255)


def among(waveform: Tensor, other: Tensor, decibels: float) -> Tensor:
    """``[N]`` with another sound, ``decibels`` under it by their root mean squares."""
    return waveform + other * (waveform.std() / other.std().clamp_min(1e-4) * 10 ** (-decibels / 20))

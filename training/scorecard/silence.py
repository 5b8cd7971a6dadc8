"""What a mouth does while nobody speaks: it stays shut in a room's noise."""

from __future__ import annotations

import torch
from torch import Tensor

from fd2talk_core.audio.resampling import SAMPLE_RATE

from .table import Row
from .weights import Weights

LEVELS = (-60.0, -50.0, -40.0)
"""Decibels to full scale."""

SECONDS, FPS = 6.0, 25.0

LARGEST_JAW = 0.02
"""Mean of jawOpen, which is 0.16 in the example's speech."""


def pink_noise(decibels: float, seconds: float, seed: int = 0) -> Tensor:
    """``[N]`` samples of noise that falls by 3 dB an octave from 20 Hz on, as a room's does."""
    count = round(seconds * SAMPLE_RATE)
    white = torch.fft.rfft(torch.randn(count, generator=torch.Generator().manual_seed(seed)))
    pink = torch.fft.irfft(white / torch.fft.rfftfreq(count, 1 / SAMPLE_RATE).clamp(min=20).sqrt(), count)
    return pink / pink.std() * 10 ** (decibels / 20)


def silence_rows(weights: Weights, seeds: int = 2) -> list[Row]:
    """How wide the jaw stands open, on average, in noise of :data:`LEVELS` and in digital silence."""
    if "jawOpen" not in weights.face_model.expression_names:
        return [Row("jawOpen in noise", None, note=f"{weights.face_model.name} has no jawOpen")]
    silence = _jaw(weights, torch.zeros(round(SECONDS * SAMPLE_RATE)), seeds)
    beside = f"pink noise, mean of {SECONDS:g} s and {seeds} seeds; digital silence {silence:.3f}"
    return [
        Row(
            f"jawOpen in noise of {level:g} dB",
            _jaw(weights, pink_noise(level, SECONDS), seeds),
            LARGEST_JAW,
            best="low",
            note=beside,
        )
        for level in LEVELS
    ]


def _jaw(weights: Weights, sound: Tensor, seeds: int) -> float:
    features = weights.audio_encoder.encode(sound, SAMPLE_RATE, FPS)
    column = weights.face_model.expression_names.index("jawOpen")
    jaws = [weights.sequences(features, seed)[0].values[:, column].mean() for seed in range(seeds)]
    return float(torch.stack(jaws).mean())

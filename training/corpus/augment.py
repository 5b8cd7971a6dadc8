"""Other speakers, rooms and microphones out of one synthetic voice; phone times follow exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import torch
from scipy import signal
from torch import Tensor

from .phonemes import Phone
from .speech import Utterance

SAMPLE_RATE = 16000
_STFT_WINDOW, _STFT_HOP = 512, 128


@dataclass(frozen=True)
class Recording:
    """Speech as a microphone took it: ``waveform`` [N] and ``clean`` [N] (the same without room, noise and
    band), both float32 at 16 kHz."""

    waveform: np.ndarray
    clean: np.ndarray
    phones: tuple[Phone, ...]

    @property
    def duration(self) -> Fraction:
        return Fraction(len(self.waveform), SAMPLE_RATE)


def record(utterance: Utterance, rng: np.random.Generator) -> Recording:
    """The utterance at 16 kHz by a random throat, in a random room, through a random microphone."""
    factor = float(np.exp(rng.uniform(np.log(0.86), np.log(1.16)))) if rng.random() < 0.7 else 1.0
    clean, phones = _resample(utterance, factor)
    if rng.random() < 0.6:
        factor = float(np.exp(rng.uniform(np.log(0.88), np.log(1.14))))
        clean = shift_formants(torch.from_numpy(clean), factor).numpy()
    clean = 0.3 * clean / max(1e-4, float(np.sqrt(np.mean(clean**2))) * 3.0)
    wet = _room(clean, rng) if rng.random() < 0.5 else clean
    wet = _band(wet, rng) if rng.random() < 0.35 else wet
    wet = _noise(wet, rng) if rng.random() < 0.75 else wet
    gain = float(np.exp(rng.uniform(np.log(0.25), np.log(1.6))))
    wet = np.tanh(wet * gain) if rng.random() < 0.3 else wet * gain
    peak = float(np.abs(wet).max(initial=1e-6))
    wet = wet * min(1.0, 0.98 / peak)
    return Recording(wet.astype(np.float32), clean.astype(np.float32), phones)


def _resample(utterance: Utterance, factor: float) -> tuple[np.ndarray, tuple[Phone, ...]]:
    """To 16 kHz, played ``factor`` times as fast (and as high). Times scale by the ratio of the sampling
    rates, which is rational, so that they stay exact."""
    ratio = Fraction(SAMPLE_RATE, utterance.sample_rate) / Fraction(factor).limit_denominator(40)
    ratio = ratio.limit_denominator(500)
    waveform = signal.resample_poly(utterance.waveform, ratio.numerator, ratio.denominator).astype(np.float32)
    scale = float(ratio) * utterance.sample_rate / SAMPLE_RATE
    end = len(waveform) / SAMPLE_RATE
    phones = [
        replace(p, start=min(p.start * scale, end), end=min(p.end * scale, end)) for p in utterance.phones
    ]
    phones[-1] = replace(phones[-1], end=end)
    return waveform, tuple(p for p in phones if p.end > p.start)


def shift_formants(waveform: Tensor, factor: float, colour: Tensor | None = None) -> Tensor:
    """Move the spectral envelope by ``factor`` and leave pitch and time alone (cepstral envelope,
    overlap-add).

    Args:
        waveform: ``[N]`` float32 at 16 kHz.
        colour: ``[B]`` dB to add to the envelope, at frequencies evenly spaced on the mel scale up to 8 kHz.
    """
    window = torch.hann_window(_STFT_WINDOW)
    spectrum = torch.stft(
        waveform, _STFT_WINDOW, _STFT_HOP, window=window, pad_mode="constant", return_complex=True
    ).mT
    cepstrum = torch.fft.irfft((spectrum.abs() / window.sum() + 1e-5).log())
    lifter = 30
    cepstrum[:, lifter : -lifter + 1] = 0
    envelope = torch.fft.rfft(cepstrum).real
    bins = torch.arange(envelope.shape[1])
    source = (bins / factor).clamp(max=bins[-1])
    low = source.long()
    high = (low + 1).clamp(max=bins[-1])
    change = (torch.lerp(envelope[:, low], envelope[:, high], source - low) - envelope).clamp(-4, 4)
    if colour is not None:
        mel = (bins * (SAMPLE_RATE / _STFT_WINDOW / 700)).log1p()
        place = mel / mel[-1] * (len(colour) - 1)
        low = place.long().clamp(max=len(colour) - 2)
        change += torch.lerp(colour[low], colour[low + 1], place - low) * (math.log(10) / 20)
    shifted = (spectrum * change.exp()).mT
    return torch.istft(shifted, _STFT_WINDOW, _STFT_HOP, window=window, length=waveform.shape[0])


def _room(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An exponentially decaying tail behind the direct sound, which stays where it is."""
    decay = rng.uniform(0.05, 0.5)
    length = int(decay * SAMPLE_RATE)
    time = np.arange(length) / SAMPLE_RATE
    tail = rng.standard_normal(length) * np.exp(-6.9 * time / decay)
    tail[: int(rng.uniform(0.001, 0.01) * SAMPLE_RATE)] = 0
    tail *= rng.uniform(0.1, 0.7) / np.sqrt(np.sum(tail**2) + 1e-9)
    return waveform + signal.fftconvolve(waveform, tail)[: len(waveform)]


def _band(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    low, high = rng.uniform(60, 350), rng.uniform(3000, 7600)
    filters = signal.butter(3, [low, high], "bandpass", fs=SAMPLE_RATE, output="sos")
    return signal.sosfiltfilt(filters, waveform)


def coloured_noise(length: int, exponent: float, rng: np.random.Generator) -> np.ndarray:
    """[length] noise of unit variance whose power falls as 1/f^exponent."""
    spectrum = np.fft.rfft(rng.standard_normal(length))
    frequency = np.fft.rfftfreq(length, 1 / SAMPLE_RATE)
    noise = np.fft.irfft(spectrum / np.maximum(frequency, 30.0) ** (exponent / 2), length)
    return noise / (noise.std() + 1e-9)


def _noise(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    level = np.sqrt(np.mean(waveform**2)) * 10 ** (-rng.uniform(8, 40) / 20)
    noise = level * coloured_noise(len(waveform), rng.uniform(0, 2), rng)
    if rng.random() < 0.3:
        time = np.arange(len(waveform)) / SAMPLE_RATE
        noise += level * np.sin(2 * np.pi * rng.choice([50.0, 60.0, 100.0, 120.0]) * time)
    return waveform + noise

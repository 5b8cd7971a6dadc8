"""Sounds to give to the host, and what came out of it, read by PyAV alone."""

from __future__ import annotations

import wave
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from torch import Tensor


def speech(seconds: float, rate: int = 16000) -> Tensor:
    """``[N]``: a buzz with moving formants and pauses, so that shifts in time show in a correlation."""
    time = torch.arange(round(seconds * rate), dtype=torch.float64) / rate
    pitch = 120 + 30 * torch.sin(2 * torch.pi * 1.7 * time)
    phase = 2 * torch.pi * torch.cumsum(pitch, 0) / rate
    formant = 4 + 3 * torch.sin(2 * torch.pi * 2.3 * time)
    voice = sum(torch.sin(k * phase) / (1 + (k - formant) ** 2) for k in range(1, 12))
    loudness = torch.sin(2 * torch.pi * 2 * time).clamp_min(0) ** 0.5
    return (0.3 * voice * loudness).float()


def write_wav(path: Path, waveform: Tensor, rate: int) -> None:
    """``[N]`` or ``[C, N]`` in -1..1 as 16-bit PCM."""
    channels = waveform.reshape(-1, waveform.shape[-1]) if waveform.numel() else waveform.reshape(1, 0)
    samples = (channels.clamp(-1, 1) * 32767).round().to(torch.int16).T.contiguous().numpy()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels.shape[0])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())


@dataclass(frozen=True)
class Played:
    """A video file, as a player sees it.

    Attributes:
        frames: ``[F, H, W, 3]`` uint8.
        frame_times: seconds at which each is shown.
        sound: ``[C, N]``, or None.
        sound_rate: samples a second.
        sound_start: seconds at which the first sample is played.
    """

    frames: np.ndarray
    frame_times: list[Fraction]
    sound: np.ndarray | None
    sound_rate: int
    sound_start: Fraction


def play(path: Path) -> Played:
    """Decode a whole video file."""
    with av.open(str(path)) as container:
        decoded = list(container.decode(video=0))
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in decoded])
        times = [frame.pts * frame.time_base for frame in decoded]
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return Played(frames, times, None, 0, Fraction(0))
        rate = container.streams.audio[0].rate
        pieces = list(container.decode(audio=0))
        start = pieces[0].pts * pieces[0].time_base
        sound = np.concatenate([piece.to_ndarray() for piece in pieces], axis=1)
    return Played(frames, times, sound, rate, start)


def lag(heard: np.ndarray, given: np.ndarray) -> tuple[int, float]:
    """Samples by which ``heard [N]`` comes after ``given [N]``, and the correlation there."""
    size = 1 << (len(heard) + len(given)).bit_length()
    product = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(given, size)), size)
    shift = int(np.argmax(product))
    shift = shift - size if shift > size // 2 else shift
    scale = np.linalg.norm(heard) * np.linalg.norm(given)
    return shift, float(product.max() / scale)

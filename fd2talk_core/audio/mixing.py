"""The sound of a dubbed video: the new voice as long as the pictures, the video's own sound underneath."""

from __future__ import annotations

from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import FD2TalkError
from ..timing import check_fps, frame_count
from ..waveforms import check_waveform
from .resampling import RESAMPLE_SECONDS, BandlimitedResampler, mono_samples

Sound = tuple[Tensor, int]
"""``(waveform [C, N] in -1..1, sample_rate)``."""


def dubbed_sound(
    voice: Sound, num_frames: int, fps: float, own: Sound | None = None, level: float = 0.0
) -> Sound:
    """The sound of a dubbed video.

    Args:
        voice: what is said. A voice of so many frames stays as it is, sample for sample; another is cut, or
            silence added.
        num_frames, fps: of the video.
        own: the video's own sound, None for a silent video. It is mixed in as one channel.
        level: its loudness beside its own, 0..1; the sum is kept within -1..1.

    Raises:
        FD2TalkError: when the level is out of range, or a waveform is none.
    """
    if not 0 <= level <= 1:
        raise FD2TalkError(f"The level of the original sound is {level}, but a number from 0 to 1 is needed.")
    waveform, rate = check_waveform(*voice), int(voice[1])
    if frame_count(Fraction(waveform.shape[1], rate), fps) != num_frames:
        wanted = round(Fraction(num_frames) / check_fps(fps) * rate)
        waveform = F.pad(waveform[:, :wanted], (0, max(wanted - waveform.shape[1], 0)))
    if own is None or not level:
        return waveform, rate
    mixed = torch.stack([mono_samples(channel[None], 0, len(channel)) for channel in waveform])
    under, under_rate = check_waveform(*own), int(own[1])
    resampler = BandlimitedResampler(under_rate, rate)
    total = min(mixed.shape[1], -(-under.shape[1] * rate // under_rate))
    step = max(1, RESAMPLE_SECONDS * rate // resampler.outputs) * resampler.outputs
    for start in range(0, total, step):
        piece = resampler(lambda a, b: mono_samples(under, a, b), start, min(step, total - start))
        mixed[:, start : start + len(piece)] += level * piece
    return mixed.clamp_(-1, 1), rate

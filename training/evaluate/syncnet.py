"""SyncNet: are mouth and sound in time? (Chung & Zisserman, "Out of time", 2016)

LSE-D and LSE-C are Wav2Lip's names (Prajwal et al. 2020) for its smallest mean distance and its confidence.
The network and the arithmetic are those of github.com/joonson/syncnet_python; the face's square is found by
this pack's landmarker in place of S3FD.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fd2talk_core.audio.resampling import SAMPLE_RATE
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.landmarks import Square, sample_square

from .files import SYNCNET, fill, read_state

FPS = 25.0
WINDOW = 5
"""Frames of a window; four steps of the sound's coefficients each."""
SHIFT = 15
"""Largest offset that is looked at, in frames."""
CROP = 0.4
"""By how much the crop is larger than the face's box, on each side, as a share of the half box."""
SIZE = 224


@dataclass(frozen=True)
class SyncScores:
    """What SyncNet says of a clip.

    Attributes:
        offset: frames by which the sound comes earlier than the mouth, as the authors' program prints it.
        distance: smallest mean distance over the offsets, LSE-D.
        confidence: median less smallest, LSE-C.
    """

    offset: int
    distance: float
    confidence: float


class SyncNet(nn.Module):
    """Both halves of the network, with the names of the published file."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_block(nn.Conv2d(1, 64, 3, 1, 1)),
            nn.MaxPool2d(1, 1),
            *_block(nn.Conv2d(64, 192, 3, 1, 1)),
            nn.MaxPool2d(3, (1, 2)),
            *_block(nn.Conv2d(192, 384, 3, padding=1)),
            *_block(nn.Conv2d(384, 256, 3, padding=1)),
            *_block(nn.Conv2d(256, 256, 3, padding=1)),
            nn.MaxPool2d(3, 2),
            *_block(nn.Conv2d(256, 512, (5, 4))),
        )
        self.netcnnlip = nn.Sequential(
            *_block(nn.Conv3d(3, 96, (5, 7, 7), (1, 2, 2))),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_block(nn.Conv3d(96, 256, (1, 5, 5), (1, 2, 2), (0, 1, 1))),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            *_block(nn.Conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1))),
            *_block(nn.Conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1))),
            *_block(nn.Conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1))),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_block(nn.Conv3d(256, 512, (1, 6, 6))),
        )
        self.netfcaud, self.netfclip = (
            nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1024))
            for _ in range(2)
        )

    @classmethod
    def load(cls, folder: Path) -> SyncNet:
        """Raises FD2TalkError when the weights are missing."""
        path = SYNCNET.need(folder)
        return fill(cls(), read_state(path), path)

    @torch.no_grad()
    def embed_mouths(self, faces: Tensor, batch: int = 16) -> Tensor:
        """Faces ``[F, 3, 224, 224]`` in 0..1, red first, to ``[F - 5, 1024]``."""
        pixels = (faces * 255).round().flip(1)  # the network was trained on what OpenCV reads
        windows = pixels.unfold(0, WINDOW, 1)[: len(faces) - WINDOW].movedim(-1, 2)
        return torch.cat([self.netfclip(self.netcnnlip(part).flatten(1)) for part in windows.split(batch)])

    @torch.no_grad()
    def embed_sound(self, waveform: Tensor, count: int) -> Tensor:
        """Sound ``[N]`` at 16 kHz to ``[count, 1024]``, one a frame at 25 fps."""
        coefficients = mfcc(waveform)
        windows = coefficients.unfold(1, 4 * WINDOW, 4)[:, :count].movedim(1, 0)[:, None]
        return self.netfcaud(self.netcnnaud(windows).flatten(1))

    def score(self, faces: Tensor, waveform: Tensor) -> SyncScores:
        """Of a clip at 25 frames per second.

        Raises:
            FD2TalkError: when it is shorter than a window.
        """
        frames = min(len(faces), len(waveform) * int(FPS) // SAMPLE_RATE)
        if frames <= WINDOW:
            raise FD2TalkError(f"SyncNet looks at {WINDOW} frames at a time, but the clip has {frames}.")
        mouths = self.embed_mouths(faces[:frames])
        sound = self.embed_sound(waveform, len(mouths))
        count = min(len(mouths), len(sound))
        return sync_scores(mouths[:count], sound[:count])


def sync_scores(mouths: Tensor, sound: Tensor, shift: int = SHIFT) -> SyncScores:
    """Offset, LSE-D and LSE-C of embeddings ``[n, E]``: mean distances, with zeros beyond the ends."""
    padded = F.pad(sound, (0, 0, shift, shift))
    # as the authors' pairwise_distance, whose small ε is inside the norm
    means = torch.stack(
        [
            F.pairwise_distance(mouths, padded[start : start + len(mouths)]).mean()
            for start in range(2 * shift + 1)
        ]
    )
    best = int(means.argmin())
    return SyncScores(shift - best, float(means[best]), float(means.median() - means[best]))


def mfcc(waveform: Tensor) -> Tensor:
    """``[N]`` at 16 kHz in -1..1 to ``[13, steps of 10 ms]``, as the authors compute them, from 16-bit
    samples.
    """
    from python_speech_features import mfcc as coefficients

    samples = (waveform.clamp(-1, 1) * 32767).round().to(torch.int16).numpy()
    return torch.from_numpy(coefficients(samples, SAMPLE_RATE).T.astype(np.float32))


def face_squares(frames: Tensor, boxes: Tensor) -> Tensor:
    """The crops that SyncNet takes, ``[F, 3, 224, 224]``, from frames ``[F, 3, H, W]`` and boxes ``[F, 4]``
    in pixels.

    As the authors' ``run_pipeline.py``: places and sizes by a median over 13 frames, with room below the
    chin.
    """
    from scipy.signal import medfilt

    left, top, right, bottom = boxes.double().unbind(1)
    half = torch.maximum(bottom - top, right - left) / 2
    kernel = min(13, len(boxes) - (len(boxes) + 1) % 2)
    half, x, y = (
        torch.from_numpy(medfilt(values.numpy(), kernel)).float()
        for values in (half, (left + right) / 2, (top + bottom) / 2)
    )
    side = 2 * half * (1 + CROP)
    # from half above the centre to half (1 + 2 CROP) below it
    squares = zip(frames, x.tolist(), (y + half * CROP).tolist(), side.tolist(), strict=True)
    return torch.stack([sample_square(frame, Square(u, v, width), SIZE) for frame, u, v, width in squares])


def _block(convolution: nn.Module) -> tuple[nn.Module, nn.Module, nn.Module]:
    norm = nn.BatchNorm3d if isinstance(convolution, nn.Conv3d) else nn.BatchNorm2d
    return convolution, norm(convolution.out_channels), nn.ReLU()

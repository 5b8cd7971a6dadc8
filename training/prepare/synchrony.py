"""Whether lips go with a sound, by the lip expert (FD2Talk Eq. 10): SyncNet's offset and confidence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fd2talk_core.audio.encoder import AudioEncoder
from fd2talk_core.audio.features import NATIVE_FPS
from fd2talk_core.audio.resampling import SAMPLE_RATE
from fd2talk_core.face.model import FaceModel
from fd2talk_core.networks.checkpoint import load_checkpoint
from fd2talk_core.networks.lip_expert import LipExpert, sync_over_clip

from ..mouths import mouth_basis
from ..sources import need_weights

REACH = 15
"""Frames either way in which the best offset is looked for, as SyncNet does."""
NEAR = 5
"""Frames of offset within which lips are taken to go with the sound, if a little late."""


@dataclass(frozen=True)
class Timing:
    """What the lip expert hears (Chung and Zisserman 2016, "Out of time").

    Attributes:
        confidence: highest P_sync within :data:`NEAR` frames, over the median of all offsets.
        offset: frames by which the sound is late there.
    """

    confidence: float
    offset: int

    def __str__(self) -> str:
        return f"confidence {self.confidence:.3f} at {self.offset:+d} frames"


class SyncFilter:
    """The lip expert of a weights folder, and the audio encoder that it was trained on.

    Raises:
        FD2TalkError: when the folder lacks one of them, or they are of another face model.
    """

    def __init__(self, weights: Path, face_model: FaceModel) -> None:
        path = need_weights(weights, "audio_encoder", "training.audio_encoder")
        self.encoder = AudioEncoder.from_pretrained(path)
        expert = need_weights(weights, "lip_expert", "training.lip_expert")
        self.expert = load_checkpoint(expert, LipExpert, face_model.name)
        self.basis = mouth_basis(face_model)

    @torch.no_grad()
    def listen(self, expression: Tensor, waveform: Tensor) -> Timing:
        """How ``[F, D_β]`` goes with ``[N]`` samples at 16 kHz."""
        features = self.encoder.encode(waveform[None], SAMPLE_RATE, NATIVE_FPS).features
        frames = min(len(features), len(expression))
        mouth = torch.einsum("fc,cmx->fmx", expression[:frames], self.basis)
        return timing_of(self.expert, mouth, features[:frames])


def timing_of(expert: LipExpert, mouth: Tensor, audio: Tensor) -> Timing:
    """:class:`Timing` of mouth motion ``[F, M, 3]`` and features ``[F, D_a]``."""
    frames = len(mouth)
    reach = max(0, min(REACH, frames - 2 * expert.config.frames))
    scores = []
    for shift in range(-reach, reach + 1):
        here, there = (
            slice(max(0, -shift), frames - max(0, shift)),
            slice(max(0, shift), frames - max(0, -shift)),
        )
        scores.append(float(sync_over_clip(expert, mouth[None, here], audio[None, there]).mean()))
    near = range(max(0, reach - NEAR), min(2 * reach, reach + NEAR) + 1)
    best = max(near, key=scores.__getitem__)
    return Timing(scores[best] - float(torch.tensor(scores).median()), best - reach)

"""What Whisper's encoder hears, as a target for a small encoder (Gandhi et al. 2023, "Distil-Whisper").

The teacher has heard hundreds of thousands of hours of real people. Its states at 50 Hz are reduced to their
main components, which the student's features must tell by a linear layer that is thrown away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from fd2talk_core.audio.resampling import SAMPLE_RATE

from .sources import SpeechSet, fingerprint, save_whole

LONGEST = 29.0
"""Seconds that the teacher hears at once; of a longer clip the last state is held."""
HOP = SAMPLE_RATE // 50
"""Samples between two states; number j stands for sample ``j * HOP``."""
_FRAMES = 3000
"""Of the spectrogram that the teacher takes: 30 s."""
_GAP = 0.4
"""Seconds of silence between clips that are heard at once."""


def states(waveforms: Sequence[Tensor]) -> list[np.ndarray]:
    """The encoder's states of recordings, each ``[n, 512]`` float16; several are heard at once."""
    found: list[np.ndarray] = [np.empty(0)] * len(waveforms)
    waiting: list[tuple[int, int]] = []
    filled = 0
    gap, longest = round(_GAP * SAMPLE_RATE) // HOP * HOP, round(LONGEST * SAMPLE_RATE)
    for number, waveform in enumerate(waveforms):
        size = -(-min(len(waveform), longest) // HOP) * HOP
        if waiting and filled + size > longest:
            _hear(waveforms, waiting, found)
            waiting, filled = [], 0
        waiting.append((number, filled))
        filled += size + gap
    if waiting:
        _hear(waveforms, waiting, found)
    return found


def _hear(waveforms: Sequence[Tensor], places: list[tuple[int, int]], found: list[np.ndarray]) -> None:
    from .scorecard import whisper

    model = whisper.load_model()
    joined = np.zeros(30 * SAMPLE_RATE, np.float32)
    for number, start in places:
        part = waveforms[number][: round(LONGEST * SAMPLE_RATE)].float().numpy()
        joined[start : start + len(part)] = part[: len(joined) - start]
    heard = np.array(model.encode(model.feature_extractor(joined)[..., :_FRAMES]))[0]
    for number, start in places:
        length = -(-min(len(waveforms[number]), round(LONGEST * SAMPLE_RATE)) // HOP)
        found[number] = heard[start // HOP : start // HOP + length].astype(np.float16)


@dataclass(frozen=True, eq=False)
class Teacher:
    """The main components of the teacher's states on a set of speech.

    Attributes:
        lessons: by the clip's name, ``[n, components]`` float16 of zero mean and unit mean variance.
    """

    lessons: dict[str, Tensor]

    @property
    def size(self) -> int:
        return next(iter(self.lessons.values())).shape[-1]

    @classmethod
    def of(cls, speech: SpeechSet, components: int = 64, kept: Path | None = None) -> Teacher:
        """Let the teacher hear all clips.

        Args:
            kept: a folder where the lessons stay between runs.

        Raises:
            FD2TalkError: when Whisper's packages are missing.
        """
        key = fingerprint(components, *(part for clip in speech.clips for part in (clip.name, clip.sound)))
        path = kept / f"lessons-{key}.safetensors" if kept else None
        if path and path.exists():
            return cls(load_file(path))
        heard = states([clip.waveform for clip in speech.clips])
        sample = np.concatenate([one[::7] for one in heard]).astype(np.float32)
        mean = sample.mean(axis=0)
        _, scale, axes = np.linalg.svd(sample - mean, full_matrices=False)
        # whitened, but for a floor: small components are heard through noise
        deviation = scale[:components] / len(sample) ** 0.5
        turn = axes[:components].T / np.maximum(deviation, 0.3 * deviation[0])
        lessons = ((one.astype(np.float32) - mean) @ turn for one in heard)
        named = {
            clip.name: torch.from_numpy(lesson).half()
            for clip, lesson in zip(speech.clips, lessons, strict=True)
        }
        if path:
            save_whole(named, path)
        return cls(named)

    def at(self, name: str, instants: Tensor) -> Tensor:
        """``[n, components]`` at samples of a clip, linear between states, the last held."""
        lesson = self.lessons[name].float()
        place = (instants / HOP).clamp(0, len(lesson) - 1)
        left = place.long().clamp(max=max(len(lesson) - 2, 0))
        right = (left + 1).clamp(max=len(lesson) - 1)
        return torch.lerp(lesson[left], lesson[right], (place - left)[:, None])

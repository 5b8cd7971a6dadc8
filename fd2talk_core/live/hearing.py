"""Audio features of speech that is still coming in (FD2Talk Sec. 3.2), heard through a window."""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from torch import Tensor
from torch.nn import functional

from ..audio.encoder import AudioEncoder
from ..audio.features import NATIVE_FPS, AudioFeatures
from ..audio.front import BLOCK, block_powers, noise_floor
from ..audio.resampling import SAMPLE_RATE, BandlimitedResampler
from ..timing import frame_count

SAMPLES = round(SAMPLE_RATE / NATIVE_FPS)
"""Of a frame of the motion networks."""

CONTEXT = 50
"""Frames that the encoder hears before those that are asked for."""

TYPICAL_LEVEL = 0.06
"""Root mean square of speech, of full scale: what a voice is taken to have before it has been heard."""
TYPICAL_SECONDS = 0.5
"""How much of the voice counts as much as :data:`TYPICAL_LEVEL`."""
LEVEL_SECONDS = 60
"""Of a voice that are remembered: its level may change."""


class StreamResampler:
    """Sound that comes in pieces at another rate; the same samples as of the whole at once.

    Args:
        orig, new: sample rates, Hz.
    """

    def __init__(self, orig: int, new: int) -> None:
        self.orig, self.new = orig, new
        self._resample = BandlimitedResampler(orig, new)
        banks = self._resample.banks
        self._before = max((-first for _, first, _ in banks), default=0)
        self._after = max((first + len(filters) for _, first, filters in banks), default=0)
        self._held, self._held_from = torch.empty(0), 0
        self._came = self._given = 0

    def push(self, samples: Tensor) -> Tensor:
        """``[n]`` more samples; ``[m]`` of those at the new rate that nothing to come can change."""
        self._came += len(samples)
        if self.orig == self.new:
            return samples
        self._held = torch.cat([self._held, samples])
        step, outputs = self._resample.inputs, self._resample.outputs
        done = self._given // outputs
        blocks = max(0, (self._came - self._after) // step + 1 - done)
        made = self._make(blocks * outputs)
        kept = max(0, (done + blocks) * step - self._before)
        self._held, self._held_from = self._held[max(0, kept - self._held_from) :], max(kept, self._held_from)
        return made

    def finish(self) -> Tensor:
        """The last samples, ``ceil(came * new / orig)`` in all; what comes next is another recording."""
        total = -(-self._came * self.new // self.orig)
        last = torch.empty(0) if self.orig == self.new else self._make(total - self._given)
        self._held, self._held_from, self._came, self._given = torch.empty(0), 0, 0, 0
        return last

    def _make(self, count: int) -> Tensor:
        if count <= 0:
            return torch.empty(0)

        def read(start: int, stop: int) -> Tensor:
            low, high = start - self._held_from, stop - self._held_from
            piece = self._held[max(low, 0) : max(high, 0)]
            before = min(max(-low, 0), stop - start)
            return functional.pad(piece, (before, stop - start - before - len(piece)))

        made = self._resample(read, self._given, count)
        self._given += count
        return made


class VoiceLevel:
    """Mean and variance of a voice, as far as it has been heard: an encoder was trained on recordings that
    were normalised as a whole. Noise that nobody speaks in is not taken for a quiet voice
    (:func:`~fd2talk_core.audio.front.noise_floor`)."""

    def __init__(self) -> None:
        self._count = self._sum = self._squares = 0.0
        self._rest, self._powers = torch.empty(0), torch.empty(0)  # samples of no whole block yet; of blocks

    def add(self, samples: Tensor) -> None:
        """``[n]`` samples at 16 kHz."""
        double = samples.double()
        self._count += len(samples)
        self._sum += float(double.sum())
        self._squares += float(double.square().sum())
        waiting = torch.cat([self._rest, samples])
        self._rest = waiting[len(waiting) // BLOCK * BLOCK :]
        remembered = LEVEL_SECONDS * SAMPLE_RATE // BLOCK
        self._powers = torch.cat([self._powers, block_powers(waiting)])[-remembered:]
        if (fade := LEVEL_SECONDS * SAMPLE_RATE / max(self._count, 1)) < 1:
            self._count, self._sum, self._squares = (
                fade * total for total in (self._count, self._sum, self._squares)
            )

    @property
    def value(self) -> tuple[float, float]:
        """Mean and variance. Between what is typical and what was heard, levels are mixed in decibels: of a
        quiet voice little is heard, but it is not taken to be loud for long."""
        if not self._count:
            return 0.0, TYPICAL_LEVEL**2
        mean = self._sum / self._count
        variance = max(self._squares / self._count - mean**2, 1e-10)
        typical = TYPICAL_SECONDS * SAMPLE_RATE
        share = self._count / (self._count + typical)
        level = math.exp(share * math.log(variance) + (1 - share) * math.log(TYPICAL_LEVEL**2))
        return mean * share, max(level, float(noise_floor(self._powers)))


class SpeechFeatures:
    """What the motion networks hear of one utterance. Memory does not grow with its length.

    Args:
        encoder: gives the features.
        level: of the voice, which further utterances go on with.

    Attributes:
        total: frames of the whole utterance, once it has ended.
    """

    def __init__(self, encoder: AudioEncoder, level: VoiceLevel) -> None:
        self.encoder, self.level = encoder, level
        self.total: int | None = None
        self._samples, self._samples_from = torch.empty(0), 0  # the latter in frames
        self._known: Tensor | None = None
        self._known_from = 0

    def push(self, samples: Tensor) -> None:
        """``[n]`` samples at 16 kHz."""
        self.level.add(samples)
        self._samples = torch.cat([self._samples, samples])

    def finish(self, duration: Fraction) -> None:
        """No more comes: the utterance lasted so many seconds."""
        self.total = max(1, frame_count(duration, NATIVE_FPS))

    @property
    def num_frames(self) -> int:
        """Frames of the motion networks that have been heard."""
        return self._samples_from + len(self._samples) // SAMPLES if self.total is None else self.total

    def window(self, start: int, frame: int, stop: int) -> AudioFeatures:
        """Features of the frames ``start..stop``.

        Args:
            frame: the first one that is new; those before it are what they were, if they are still known.
        """
        low = max(frame - CONTEXT, self._samples_from)
        heard = self._samples[(low - self._samples_from) * SAMPLES :]
        if stop != self.total:
            heard = heard[: (stop - low) * SAMPLES]
        features = self.encoder.to_frames(self.encoder.encode_16k(heard, level=self.level.value), stop - low)
        if self._known is None:
            self._known, self._known_from = features, low
        else:
            self._known = torch.cat([self._known[: frame - self._known_from], features[frame - low :]])
        forgotten = max(0, start - self._known_from)
        self._known, self._known_from = self._known[forgotten:], self._known_from + forgotten
        first = max(0, frame - CONTEXT - self._samples_from)
        self._samples, self._samples_from = self._samples[first * SAMPLES :], self._samples_from + first
        duration = Fraction(stop - start) / Fraction(NATIVE_FPS)
        return AudioFeatures(self._known[start - self._known_from :], duration, NATIVE_FPS, self.encoder.name)

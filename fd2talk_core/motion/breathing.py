"""What moves in a face while it says nothing: breath and brows.

People at rest breathe 12 to 18 times a minute and take about 40 % of that time to breathe in; before a
phrase they breathe in quickly and deeper, in about half a second (Conrad & Schönle 1979, "Speech and
respiration"; Grosjean & Collins 1979, "Breathing, pausing and reading"). The chest's wall moves by 3 to 5 mm
(De Groote et al. 1997, "Chest wall motion during tidal breathing"); the head is taken to rise by a third of
that, to tilt back by a third of a degree, and the nostrils to widen a little. At rest breath goes through the
nose and lips stay shut; before a phrase they part. Brows move a few times a minute. These amounts are chosen.

Everything is a function of time and the seed. Frame i is the instant (i + 0.5) / fps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..face.names import POSE_NAMES
from ..imaging import smoothstep

RATE = (12.0, 18.0)
"""Breaths a minute; each seed has its own."""
INHALING = 0.4
"""Of a breath at rest."""
DEEPER = 2.0
"""The breath before a phrase, beside one at rest."""
INHALE_SECONDS = (0.25, 0.9)
"""That it takes, at least (in a shorter pause nobody breathes) and at most."""
READY_SECONDS = 0.12
"""Before a phrase is heard, when the breath is over: lips that begin with a p are shut by then."""
SETTLE_SECONDS = (0.3, 0.8)
"""After a phrase: from when and until when rest comes back."""

HEAD = {"pitch": -math.radians(0.35), "y": 0.012}
"""At the top of a breath at rest: back, and 1.2 mm up."""
NOSTRILS = {"noseSneerLeft": 0.04, "noseSneerRight": 0.04}
"""At the same; the shape lifts the nose's wings."""
LIPS = {"jawOpen": 0.05, "mouthLowerDownLeft": 0.02, "mouthLowerDownRight": 0.02}
"""In the middle of the breath before a phrase: lips part by 2 mm."""

BROW_SECONDS = 9.0
"""A brow moves once in so long a stretch."""
BROW = {"browInnerUp": 1.0, "browOuterUpLeft": 0.7, "browOuterUpRight": 0.7}
BROW_LIFT = (0.05, 0.22)
"""Least and most that it is lifted."""


def quiet_breath(times: Tensor, seed: int) -> Tensor:
    """``[F]``, how full the chest is at ``[F]`` seconds: 0 to about 1, where nobody speaks."""
    rate, phase, wave, depth = _drawn(seed, 4, stream=0)
    rate = (RATE[0] + (RATE[1] - RATE[0]) * rate) / 60
    turns = 2 * math.pi * (rate * times.double() / 5.3 + wave)
    # no breath is quite as long and as deep as the one before
    within = (rate * times.double() + phase + 0.12 * turns.sin()) % 1
    rising, falling = within / INHALING, (1 - within) / (1 - INHALING)
    full = 0.5 - 0.5 * torch.cos(math.pi * torch.minimum(rising, falling))
    return full * (0.85 + 0.15 * torch.sin(turns * 1.7 + 2 * math.pi * depth))


def brow_lift(times: Tensor, seed: int) -> Tensor:
    """``[F]``, how far the brows are lifted at ``[F]`` seconds, where nobody speaks."""
    lift = torch.zeros(len(times), dtype=torch.float64)
    if not len(times):
        return lift
    first, last = (int(float(times[end]) // BROW_SECONDS) for end in (0, -1))
    for stretch in range(first, last + 1):
        height, moment, held = _drawn(seed, 3, stream=1 + stretch)
        since = times.double() - stretch * BROW_SECONDS
        rise = 0.5 + moment * (BROW_SECONDS - 4.0)
        fall = rise + 0.4 + 0.4 + 1.6 * held
        gone = smoothstep((since - rise) / 0.4) - smoothstep((since - fall) / 0.7)
        lift += (BROW_LIFT[0] + (BROW_LIFT[1] - BROW_LIFT[0]) * height) * gone
    return lift


def breath_between(spoken: Tensor, fps: float, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Breath in the pauses of a clip.

    Args:
        spoken: ``[F]`` bool, in which frames somebody speaks.

    Returns:
        ``[F]`` each: how full the chest is, of which how far through parted lips, and how much a face is at
        rest. All are 0 while somebody speaks.
    """
    times = (torch.arange(len(spoken), dtype=torch.float64) + 0.5) / fps
    rest, inhaled, parted = (torch.zeros(len(spoken), dtype=torch.float64) for _ in range(3))
    for first, stop in _pauses(spoken):
        frames = slice(first, stop)
        begin, end = first / fps, stop / fps
        gone = torch.ones(stop - first, dtype=torch.float64)
        if first:
            since = (times[frames] - begin - SETTLE_SECONDS[0]) / (SETTLE_SECONDS[1] - SETTLE_SECONDS[0])
            gone = smoothstep(since)
        if stop < len(spoken):
            over = end - READY_SECONDS
            length = min(INHALE_SECONDS[1], over - begin - (SETTLE_SECONDS[0] if first else 0.0))
            if length < INHALE_SECONDS[0]:
                continue
            share = ((times[frames] - over + length) / length).clamp(0, 1)
            gone = gone * (1 - smoothstep(2 * share))
            # shallower where there is less time; lips are back before the first sound
            depth = min(1.0, length / INHALE_SECONDS[1])
            inhaled[frames] = DEEPER * depth * smoothstep(share / 0.6) * smoothstep((1 - share) / 0.4)
            nearer_end = 2.5 * torch.minimum(share, 1 - share)
            parted[frames] = depth * smoothstep(nearer_end)
        rest[frames] = gone
    return rest * quiet_breath(times, seed) + inhaled, parted, rest


def add_breath(kind: str, values: Tensor, names: Sequence[str], breath: Tensor, lips: Tensor) -> Tensor:
    """A motion with breath in it.

    Args:
        kind: ``"expression"`` or ``"pose"``.
        values: ``[F, D]``.
        names: of an expression's coefficients; what is not among them stays.
        breath: ``[F]``, how full the chest is.
        lips: ``[F]``, how far it is filled through parted lips.
    """
    if kind == "pose":
        return _added(values, POSE_NAMES, HEAD, breath)
    return _added(_added(values, names, NOSTRILS, breath), names, LIPS, lips)


def add_brows(values: Tensor, names: Sequence[str], lift: Tensor) -> Tensor:
    """An expression ``[F, D_β]`` whose brows are lifted by ``[F]``."""
    return _added(values, names, BROW, lift)


def _added(values: Tensor, names: Sequence[str], amounts: dict[str, float], by: Tensor) -> Tensor:
    changed = values.clone()
    for name, amount in amounts.items():
        if name in names:
            changed[:, list(names).index(name)] += (amount * by).to(changed)
    return changed


def _pauses(spoken: Tensor) -> list[tuple[int, int]]:
    """First frames of pauses and the ones after their last."""
    edges = torch.cat([torch.ones(1), spoken.float(), torch.ones(1)]).diff()
    return list(
        zip((edges < 0).nonzero().flatten().tolist(), (edges > 0).nonzero().flatten().tolist(), strict=True)
    )


def _drawn(seed: int, count: int, stream: int) -> list[float]:
    """Numbers from 0 to 1 that hang on a seed and on which stream of them is asked for."""
    mixed = (seed * 0x9E3779B97F4A7C15 + (stream + 1) * 0xBF58476D1CE4E5B9) & (2**63 - 1)
    return torch.rand(count, generator=torch.Generator().manual_seed(mixed), dtype=torch.float64).tolist()

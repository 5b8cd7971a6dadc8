"""How well one mouth follows another: plain functions of curves.

The definitions are those of talking-head judges that read both videos by landmarks: the gap between the inner
lips over the height of the face, less its mean over the second around, so that neither the distance to the
camera nor a slow smile counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

UPPER_LIP, LOWER_LIP = (13, 82, 312), (14, 87, 317)
FOREHEAD, CHIN = 10, 152
"""MediaPipe's landmarks across the lips' gap, and from top to bottom of the face."""

MAX_LAG = 4
"""Frames either way in which the best lag is looked for."""

FIRST_SHIFT, SHIFT_STEP = 15, 3
"""Circular shifts that stand for chance, in frames."""


@dataclass(frozen=True)
class Synchrony:
    """How one mouth follows another.

    Attributes:
        r: correlation at the best lag within :data:`MAX_LAG` frames, nan where one of them does not move.
        lag: that lag in frames; positive: the made mouth is late.
        r_at_zero: correlation without a lag.
        ratio: how far the made mouth moves by how far the real one does (standard deviations).
        chance: what ``r`` is on average when one curve is shifted circularly against the other. It is over
            0, as the best of nine lags is taken there too.
        chance_deviation: standard deviation of that.
        null_deviation: standard deviation of the correlation without a lag under the same shifts.
    """

    r: float
    lag: int
    r_at_zero: float
    ratio: float
    chance: float
    chance_deviation: float
    null_deviation: float


def lip_gap(landmarks: Tensor) -> Tensor:
    """``[..., 478 or 468, 2 or 3]`` landmarks to the gap between the inner lips by the face's height,
    ``[...]``.
    """
    gaps = (landmarks[..., UPPER_LIP, :] - landmarks[..., LOWER_LIP, :]).norm(dim=-1).mean(dim=-1)
    return gaps / (landmarks[..., FOREHEAD, :] - landmarks[..., CHIN, :]).norm(dim=-1)


def lip_gaps(faces: Iterable[Tensor | None]) -> np.ndarray:
    """``[F]`` gaps of the landmarks ``[478, 2 or 3]`` of each frame; nan where there is no face."""
    return np.array([np.nan if face is None else float(lip_gap(face[:, :2])) for face in faces])


def without_drift(values: np.ndarray, fps: float) -> np.ndarray:
    """A curve ``[F]`` less its mean over the second around each frame; what is nan takes the mean of all."""
    values = np.where(np.isnan(values), np.nanmean(values), values)
    size = int(fps) | 1
    padded = np.pad(values, size // 2, mode="edge")
    return values - np.convolve(padded, np.ones(size) / size, "valid")


def lagged_correlations(real: np.ndarray, made: np.ndarray, max_lag: int = MAX_LAG) -> dict[int, float]:
    """Pearson's correlation of two curves ``[F]`` at each lag in frames; positive: ``made`` is late."""
    count = len(real)
    return {
        lag: _correlation(real[max(0, -lag) : count - max(0, lag)], made[max(0, lag) : count - max(0, -lag)])
        for lag in range(-max_lag, max_lag + 1)
    }


def synchrony(real: np.ndarray, made: np.ndarray, fps: float, max_lag: int = MAX_LAG) -> Synchrony:
    """How a made mouth follows the real one, both ``[F]`` and possibly nan; the longer is cut.

    Chance is nan for clips of under 60 frames, which have too few shifts.
    """
    count = min(len(real), len(made))
    real, made = without_drift(real[:count], fps), without_drift(made[:count], fps)
    by_lag = lagged_correlations(real, made, max_lag)
    lag = max(by_lag, key=lambda key: -2.0 if np.isnan(by_lag[key]) else by_lag[key])
    shifts = range(FIRST_SHIFT, count - FIRST_SHIFT, SHIFT_STEP) if count > 60 else ()
    rolled = [lagged_correlations(real, np.roll(made, shift), max_lag) for shift in shifts]
    best = [max(values.values()) for values in rolled] or [float("nan")]
    plain = [values[0] for values in rolled] or [float("nan")]
    spread = real.std()
    return Synchrony(
        r=by_lag[lag],
        lag=lag,
        r_at_zero=by_lag[0],
        ratio=float(made.std() / spread) if spread > 0 else float("nan"),
        chance=float(np.mean(best)),
        chance_deviation=float(np.std(best)),
        null_deviation=float(np.std(plain)),
    )


def shift_in_time(values: Tensor, frames: float) -> Tensor:
    """A motion ``[F, D]`` that comes ``frames`` later (earlier where negative); ends are held."""
    count = len(values)
    position = (torch.arange(count, dtype=torch.float64) - frames).clamp(0, count - 1)
    left = position.floor().long().clamp(max=max(count - 2, 0))
    right = (left + 1).clamp(max=count - 1)
    weight = (position - left).to(values)[:, None]
    return torch.lerp(values[left], values[right], weight)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if len(a) < 10 or a.std() == 0 or b.std() == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])

"""From light to a finished picture: the camera's curve, its faults, and looks that are not photographs."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from .noise import blur, smoothstep
from .scenery import Place


def develop(light: np.ndarray, place: Place, rng: np.random.Generator) -> np.ndarray:
    """[S, S, 3] linear light to [S, S, 3] uint8. ``rng`` draws what differs from frame to frame: the
    sensor's grain.
    """
    picture = np.clip(light * place.exposure * place.white, 0, None)
    # A shoulder in place of clipping.
    picture = np.where(picture > 0.75, 0.75 + 0.25 * np.tanh((picture - 0.75) / 0.35), picture)
    picture = picture ** (1 / place.gamma)
    grey = (picture @ np.full(3, 1 / 3, np.float32))[..., None]  # four times as fast as its mean
    picture = grey + place.saturation * (picture - grey)
    if place.vignette:
        rows, columns = np.indices(picture.shape[:2]) / picture.shape[0] - 0.5
        picture = picture * (1 - place.vignette * (rows**2 + columns**2))[..., None]
    picture = blur(picture, place.softness)
    picture = _FINISHES[place.finish](np.clip(picture, 0, 1).astype(np.float32), place)
    if place.grain:
        picture = picture + place.grain * rng.standard_normal(picture.shape, dtype=np.float32)
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)


def _photo(picture: np.ndarray, place: Place) -> np.ndarray:
    return picture


def _oil(picture: np.ndarray, place: Place) -> np.ndarray:
    """Kuwahara's filter: each pixel takes the mean of the calmest of four windows around it."""
    radius = 2 + round(2 * place.strength)
    mean = ndimage.uniform_filter(picture, (radius, radius, 1))
    square = ndimage.uniform_filter(picture.mean(-1) ** 2, radius)
    variance = square - ndimage.uniform_filter(picture.mean(-1), radius) ** 2
    half = max(1, radius // 2)
    size = len(picture)
    padded_variance = np.pad(variance, half, mode="edge")
    padded_mean = np.pad(mean, ((half, half), (half, half), (0, 0)), mode="edge")
    corners = [(dy, dx) for dy in (0, 2 * half) for dx in (0, 2 * half)]
    variances = np.stack([padded_variance[y : y + size, x : x + size] for y, x in corners])
    means = np.stack([padded_mean[y : y + size, x : x + size] for y, x in corners])
    calmest = variances.argmin(0)
    return np.take_along_axis(means, calmest[None, ..., None], 0)[0]


def _poster(picture: np.ndarray, place: Place) -> np.ndarray:
    """Few flat tones with soft steps."""
    levels = 5 + round(5 * (1 - place.strength))
    scaled = blur(picture, 0.8) * levels
    low = np.floor(scaled)
    return (low + smoothstep((scaled - low - 0.35) / 0.3)) / levels


def _sketch(picture: np.ndarray, place: Place) -> np.ndarray:
    """Dark lines where tone changes, over pale colour."""
    grey = picture.mean(-1)
    lines = np.hypot(ndimage.sobel(blur(grey, 0.7), 0), ndimage.sobel(blur(grey, 0.7), 1))
    paper = 0.55 * picture + 0.45 * (0.5 + 0.5 * grey[..., None])
    return np.clip(paper * (1 - place.strength * np.clip(1.5 * lines, 0, 0.9))[..., None], 0, 1)


def _canvas(picture: np.ndarray, place: Place) -> np.ndarray:
    """Paint on a weave that stays where it is."""
    painted = _oil(picture, place)
    return painted * (1 + 0.04 * place.strength * place.grain_map[: len(picture), : len(picture)])[..., None]


_FINISHES = {"photo": _photo, "oil": _oil, "poster": _poster, "sketch": _sketch, "canvas": _canvas}

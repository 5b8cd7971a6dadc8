"""Light, background and camera of a random place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .appearance import linear
from .noise import blur, coloured, patch, pick, pink


@dataclass(frozen=True, eq=False)
class Place:
    """Fixed in the world while the head moves.

    Attributes:
        background: ``[S, S, 3]`` linear.
        lights: ``[L, 3]`` unit vectors towards the lights, the first of which casts shadows; colours ``[L,
        3]``. sky, ground: ambient light from above and below.
        shadow: how dark the shadow is, 0..1.
        exposure, gamma, white: the camera's. grain: its noise, in 0..1 of the finished picture. vignette:
        0..1. finish: the look of the finished picture. strength: of that finish.
    """

    background: np.ndarray
    lights: np.ndarray
    colours: np.ndarray
    sky: np.ndarray
    ground: np.ndarray
    shadow: float
    exposure: float
    gamma: float
    white: np.ndarray
    saturation: float
    grain: float
    softness: float
    vignette: float
    finish: str
    strength: float
    grain_map: np.ndarray


def random_place(size: int, rng: np.random.Generator) -> Place:
    """Somewhere, lit somehow, drawn or photographed by someone."""
    lights, colours = _lights(rng)
    warmth = rng.normal(0, 0.08)
    ambient = rng.uniform(0.12, 0.6)
    flat = rng.random() < 0.08
    return Place(
        background=_background(size, rng),
        lights=lights,
        colours=colours * (0.15 if flat else 1.0),
        sky=((0.9 if flat else ambient) * rng.normal(1, 0.08, 3)).astype(np.float32),
        ground=((0.8 if flat else ambient * rng.uniform(0.3, 0.9)) * rng.normal(1, 0.08, 3)).astype(
            np.float32
        ),
        shadow=rng.uniform(0.3, 0.95),
        exposure=float(np.exp(rng.normal(0.05, 0.22))),
        gamma=rng.uniform(1.9, 2.5),
        white=np.array([1 + warmth, 1.0, 1 - warmth], np.float32),
        saturation=0.0 if rng.random() < 0.05 else rng.uniform(0.7, 1.25),
        grain=rng.uniform(0, 0.012) if rng.random() < 0.4 else 0.0,
        softness=rng.uniform(0.3, 0.9) if rng.random() < 0.3 else 0.0,
        vignette=rng.uniform(0, 0.5) if rng.random() < 0.3 else 0.0,
        finish=pick(
            rng, "photo", "oil", "poster", "sketch", "canvas", weights=(0.80, 0.08, 0.04, 0.03, 0.05)
        ),
        strength=rng.uniform(0.4, 1.0),
        grain_map=pink((size, size), rng, 0.4),
    )


def _lights(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    count = int(rng.integers(1, 4))
    across = rng.uniform(-1.3, 1.3, count) * np.array([1.0, 1.0, 2.2])[:count]
    up = rng.uniform(-0.15, 1.1, count)
    directions = np.stack([np.sin(across) * np.cos(up), np.sin(up), np.cos(across) * np.cos(up)], -1)
    power = rng.uniform(0.5, 1.1, count) * np.array([1.0, 0.5, 0.5])[:count]
    tint = rng.normal(1, 0.08, (count, 3)) if rng.random() < 0.85 else rng.uniform(0.3, 1.3, (count, 3))
    return directions.astype(np.float32), (power[:, None] * tint).astype(np.float32)


def _background(size: int, rng: np.random.Generator) -> np.ndarray:
    kind = pick(rng, "plain", "gradient", "noise", "photo", "room", weights=(0.12, 0.2, 0.15, 0.33, 0.2))
    shape = (size, size)
    rows, columns = np.indices(shape, np.float32) / size - 0.5
    if kind == "plain":
        picture = np.broadcast_to(rng.uniform(0.03, 0.97, 3), (*shape, 3)).astype(np.float32)
    elif kind == "gradient":
        turn = rng.uniform(0, 2 * np.pi)
        ramp = (np.cos(turn) * rows + np.sin(turn) * columns + 0.5)[..., None]
        if rng.random() < 0.4:
            ramp = np.clip(1.6 * np.hypot(rows, columns), 0, 1)[..., None]
        picture = rng.uniform(0.02, 0.95, 3) * ramp + rng.uniform(0.02, 0.95, 3) * (1 - ramp)
    elif kind == "noise":
        picture = coloured(shape, rng, rng.uniform(0.9, 1.8))
    elif kind == "photo":
        picture = patch(shape, rng)
    else:
        picture = _room(rows, columns, rng)
    if kind in ("photo", "room") and rng.random() < 0.75:
        picture = blur(picture, rng.uniform(1, 9) * size / 256)
    picture = picture + rng.uniform(0, 0.03) * pink(shape, rng, 1.2)[..., None]
    return linear(np.clip(picture, 0.005, 1) * 255).astype(np.float32)


def _room(rows: np.ndarray, columns: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A wall with rectangles on it: windows, shelves, frames, doors."""
    picture = np.empty((*rows.shape, 3), np.float32)
    picture[:] = rng.uniform(0.2, 0.95, 3)
    picture[rows > rng.uniform(0.2, 0.6)] = rng.uniform(0.1, 0.8, 3)
    for _ in range(int(rng.integers(2, 12))):
        middle, half = rng.uniform(-0.6, 0.6, 2), rng.uniform(0.02, 0.3, 2)
        inside = (np.abs(rows - middle[0]) < half[0]) & (np.abs(columns - middle[1]) < half[1])
        picture[inside] = rng.uniform(0.02, 1, 3)
        if rng.random() < 0.5:
            inner = (np.abs(rows - middle[0]) < 0.8 * half[0]) & (np.abs(columns - middle[1]) < 0.8 * half[1])
            picture[inner] = rng.uniform(0.02, 1, 3)
    shade = 1 + rng.normal(0, 0.4) * columns + rng.normal(0, 0.3) * rows
    return np.clip(picture * shade[..., None], 0, 1)

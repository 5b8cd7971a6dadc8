"""Fields of numbers that pictures are painted with: 1/f noise, natural-image patches, blurs. Arrays are
float32.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import fft, ndimage

# Photographs that scikit-image distributes and that show no person; nearly all are CC0 or public domain, and
# all are used only as grain: warped, recoloured and mixed.
_PHOTOGRAPHS = (
    "brick.png", "chelsea.png", "coffee.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png",
    "moon.png", "motorcycle_left.png", "retina.jpg", "rocket.jpg",
)  # fmt: skip


@functools.lru_cache(maxsize=1)
def photographs() -> tuple[np.ndarray, ...]:
    """[H, W, 3] in 0..1 each; empty where scikit-image's sample pictures are not installed."""
    try:
        import skimage.data
    except ImportError:
        return ()
    folder = Path(skimage.data.__file__).parent
    found = []
    for name in _PHOTOGRAPHS:
        path = folder / name
        if path.exists():
            with Image.open(path) as picture:
                picture = picture.convert("RGB")
                picture.thumbnail((640, 640))
                found.append(np.asarray(picture, np.float32) / 255)
    return tuple(found)


_BANK_SIZE = 4


@functools.lru_cache(maxsize=192)
def _bank(shape: tuple[int, int], exponent: float, stretch: float, number: int) -> np.ndarray:
    rows, columns = shape
    rng = np.random.default_rng([rows, columns, round(100 * exponent), round(100 * stretch), number])
    spectrum = fft.rfft2(rng.standard_normal(shape, dtype=np.float32))
    f = np.hypot(np.fft.fftfreq(rows)[:, None] * rows * stretch, np.fft.rfftfreq(columns)[None] * columns)
    f[0, 0] = np.inf
    noise = fft.irfft2(spectrum / f.astype(np.float32) ** exponent, shape)
    return noise / (noise.std() + 1e-9)


def pink(
    shape: tuple[int, int], rng: np.random.Generator, exponent: float = 1.0, stretch: float = 1.0
) -> np.ndarray:
    """Periodic noise of unit variance whose amplitude falls as 1/f^exponent; ``stretch`` > 1 makes it streaks
    along the columns (the first axis).

    A field of a small bank, shifted and mirrored: making each anew was half the time that a person took.
    """
    exponent, stretch = round(5 * exponent) / 5, float(2 ** round(np.log2(stretch)))
    field = _bank(shape, exponent, stretch, int(rng.integers(_BANK_SIZE)))
    if rng.random() < 0.5:
        field = field[:, ::-1]
    sign = np.float32(rng.choice((-1, 1)))
    return sign * np.roll(field, (int(rng.integers(shape[0])), int(rng.integers(shape[1]))), (0, 1))


def coloured(shape: tuple[int, int], rng: np.random.Generator, exponent: float = 1.2) -> np.ndarray:
    """[H, W, 3] in 0..1: three correlated noises around a random colour."""
    layers = np.stack([pink(shape, rng, exponent) for _ in range(3)], -1)
    mix = np.eye(3) * rng.uniform(0.1, 0.7) + rng.uniform(0.2, 0.6)
    return np.clip(rng.uniform(0.15, 0.8, 3) + 0.12 * layers @ mix, 0, 1).astype(np.float32)


def patch(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """[H, W, 3] in 0..1: a mirrored, recoloured crop of a photograph, or noise where there is none."""
    pictures = photographs()
    if not pictures or rng.random() < 0.15:
        return coloured(shape, rng, rng.uniform(0.6, 1.6))
    picture = pictures[int(rng.integers(len(pictures)))]
    height, width = picture.shape[:2]
    scale = rng.uniform(0.35, 1.0)
    rows, columns = max(16, int(height * scale)), max(16, int(width * scale))
    top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
    crop = picture[top : top + rows, left : left + columns]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    if rng.random() < 0.3:
        crop = crop.transpose(1, 0, 2)
    if rng.random() < 0.4:
        crop = crop[..., rng.permutation(3)]
    if rng.random() < 0.15:
        crop = 1 - crop
    return resize(crop, shape)


def resize(picture: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """[h, w, 3] in 0..1 to [H, W, 3]."""
    image = Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8))
    return np.asarray(image.resize(shape[::-1], Image.Resampling.BILINEAR), np.float32) / 255


def blur(field: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur over the first two axes; wide ones on a coarser grid."""
    if sigma <= 0:
        return field
    step = int(sigma // 3)
    if step > 1:
        rows, columns = field.shape[:2]
        coarse = blur(field[: rows - rows % step, : columns - columns % step][::step, ::step], sigma / step)
        zoom = (rows / coarse.shape[0], columns / coarse.shape[1], *([1] * (field.ndim - 2)))
        return ndimage.zoom(coarse, zoom, order=1, mode="nearest", grid_mode=True)
    return ndimage.gaussian_filter(
        field, (sigma, sigma, *([0] * (field.ndim - 2))), mode="nearest", truncate=3
    )


def smoothstep(x: np.ndarray) -> np.ndarray:
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def pick(rng: np.random.Generator, *options: object, weights: tuple[float, ...] | None = None):
    """One of the options."""
    p = None if weights is None else np.array(weights) / sum(weights)
    return options[int(rng.choice(len(options), p=p))]

"""Pictures and masks, as several rooms need them: reading, resampling, filling. Knows no face."""

from __future__ import annotations

import math
import warnings
from functools import lru_cache, reduce
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from .checks import check_amount
from .errors import FD2TalkError
from .files import check_input, reason_of, shown_path


def mean_around(planes: Tensor, reach: int, *, padded: bool = False) -> Tensor:
    """``[..., h, w]``: means over so many cells on either side, above and below.

    Args:
        padded: whether zeros lie beyond the edge; otherwise what lies there does not count.
    """
    # a row after a row: on a processor pooling takes five to thirty times as long
    for dim in (-1, -2):
        length = planes.shape[dim]
        sums = planes.clone()
        for step in range(1, min(reach, length - 1) + 1):
            sums.narrow(dim, step, length - step).add_(planes.narrow(dim, 0, length - step))
            sums.narrow(dim, 0, length - step).add_(planes.narrow(dim, step, length - step))
        window = 2 * reach + 1
        planes = sums.div_(window)
        at_edges = () if padded else {*range(min(reach, length)), *range(max(0, length - reach), length)}
        for cell in at_edges:
            counted = min(cell, reach) + 1 + min(length - 1 - cell, reach)
            planes.narrow(dim, cell, 1).mul_(window / counted)
    return planes


def largest_around(planes: Tensor, reach: int) -> Tensor:
    """``[..., h, w]``: the largest value within so many cells on either side, above and below; as
    :func:`mean_around` for speed. Not to be differentiated.
    """
    for dim in (-1, -2):
        length = planes.shape[dim]
        largest = planes.clone()
        for step in range(1, min(reach, length - 1) + 1):
            for into, of in ((step, 0), (0, step)):
                part = largest.narrow(dim, into, length - step)
                torch.maximum(part, planes.narrow(dim, of, length - step), out=part)
        planes = largest
    return planes


def shrink(planes: Tensor, factor: int) -> Tensor:
    """``[..., h / factor, w / factor]``: means of square blocks; as :func:`mean_around` for speed."""
    rows = (planes[..., row::factor, :] for row in range(factor))
    planes = reduce(torch.add, rows)
    columns = (planes[..., column::factor] for column in range(factor))
    return reduce(torch.add, columns) / factor**2


def averaged(planes: Tensor, size: int) -> Tensor:
    """``[F, C, size, size]``: means over what each cell covers of square planes at least as large."""
    factor, rest = divmod(planes.shape[-1], size)
    return F.adaptive_avg_pool2d(planes, size) if rest else shrink(planes, factor)


def soften(mask: Tensor) -> Tensor:
    """``[..., h, w]``: the mean over a cell and those around it."""
    return mean_around(mask, 1)


def length_of(vectors: Tensor) -> Tensor:
    """``[F, 1, h, w]`` of ``[F, 2, h, w]``; a norm over planes takes a processor twenty times as long."""
    return torch.hypot(*vectors.split(1, dim=1))


def widen(mask: Tensor) -> Tensor:
    """``[..., h, w]``: a cell more all around, with a soft edge."""
    return soften(largest_around(mask, 1))


def smoothstep(x: Tensor) -> Tensor:
    """0 up to 0, 1 from 1 on, and between them without a corner."""
    x = x.clamp(0, 1)
    return x * x * (3 - 2 * x)


def pixel_centers(size: int | tuple[int, int], like: Tensor) -> Tensor:
    """``[h, w, 2]``, (u, v) of every pixel's centre."""
    height, width = (size, size) if isinstance(size, int) else size
    v = (torch.arange(height, device=like.device, dtype=like.dtype) * 2 + 1) / height - 1
    u = (torch.arange(width, device=like.device, dtype=like.dtype) * 2 + 1) / width - 1
    return torch.stack(torch.meshgrid(u, v, indexing="xy"), dim=-1)


def resize(pictures: Tensor, size: int) -> Tensor:
    """``[F, C, size, size]`` of square pictures or masks, bilinear; averaged where that is smaller."""
    if pictures.shape[-1] == size:
        return pictures
    shrinks = pictures.shape[-1] > size
    return F.interpolate(pictures, size=(size, size), mode="bilinear", align_corners=False, antialias=shrinks)


def displace(pictures: Tensor, displacement: Tensor) -> Tensor:
    """Pictures ``[F, C, H, W]`` moved: each place shows what lies ``[F, 2, h, w]`` half widths and heights
    from it. A displacement of another size is enlarged; beyond the border the nearest pixel is repeated.
    """
    if displacement.shape[-2:] != pictures.shape[-2:]:
        displacement = F.interpolate(
            displacement, size=pictures.shape[-2:], mode="bilinear", align_corners=False
        )
    grid = pixel_centers(pictures.shape[-2:], displacement) + displacement.movedim(1, -1)
    return F.grid_sample(
        pictures, grid.to(pictures), mode="bilinear", padding_mode="border", align_corners=False
    )


_ROWS = 32
"""Of a picture that are turned into bytes together."""


def to_bytes(frames: Tensor) -> Tensor:
    """Frames ``[n, H, W, 3]`` in 0..1 as uint8."""
    pixels = torch.empty(frames.shape, dtype=torch.uint8)
    # a few rows at a time: what lies between stays in the processor's cache
    for given, made in zip(frames.split(_ROWS, dim=1), pixels.split(_ROWS, dim=1), strict=True):
        made.copy_(given.clamp(0, 1).mul_(255).round_())
    return pixels


_BAND = 32
"""Rows of a product with a banded matrix that are computed together."""


def push_pull(values: Tensor, weight: Tensor, gain: float = 1.0) -> Tensor:
    """Fill holes smoothly from coarser and coarser averages (normalised convolution on a pyramid).

    Args:
        values: ``[F, C, n, n]``, already multiplied by the weight.
        weight: ``[F, 1, n, n]`` in 0..1.
        gain: of the weights from level to level. 2 is for what is known along lines, which have half the
            share of cells twice as large: else what is farther away would count beside them.
    """
    levels = [torch.cat([values, weight], dim=1)]
    while min(levels[-1].shape[-2:]) > 1 and not bool((levels[-1][:, -1] >= 1).all()):
        even = not any(side % 2 for side in levels[-1].shape[-2:])
        level = shrink(levels[-1], 2) if even else F.avg_pool2d(levels[-1], 2, ceil_mode=True)
        if gain != 1:
            level = level * (1 / level[:, -1:].clamp_min(1e-6)).clamp_max(gain)
        levels.append(level)
    *finer, coarsest = levels
    filled = coarsest[:, :-1] / coarsest[:, -1:].clamp_min(1e-6)
    for level in reversed(finer):
        own, share = level[:, :-1] / level[:, -1:].clamp_min(1e-6), level[:, -1:]
        above = F.interpolate(filled, size=level.shape[-2:], mode="bilinear", align_corners=False)
        filled = torch.lerp(above, own, share)
    return filled


def grow_by_colour(
    picture: Tensor, part: Tensor, allowed: Tensor, like: float, steps: int | None = None
) -> Tensor:
    """A part of a picture and what goes on from it in its colour, pixel by pixel.

    Args:
        picture: ``[F, C, n, n]``.
        part, allowed: ``[F, 1, n, n]`` bool, where it begins, and where it may go.
        like: mean difference of the channels from what of the part is beside a pixel, under which the pixel
            is added.
        steps: pixels that it goes; None for as far as it can.

    Returns:
        ``[F, 1, n, n]`` bool.
    """
    part = part.clone()
    while steps is None or steps > 0:
        own = part.to(picture)
        share = soften(own)
        beside = soften(picture * own) / share.clamp_min(1e-6)
        near = (picture - beside).abs().mean(dim=1, keepdim=True) < like
        grown = part | (allowed & (share > 0) & near)
        if bool((grown == part).all()):
            break
        part, steps = grown, None if steps is None else steps - 1
    return part


def distance_to(mask: Tensor) -> Tensor:
    """Exact Euclidean distance, in cells, to the nearest cell that is set: ``[F, n, m]`` bool to float.

    Infinite where a picture has no such cell. Columns and rows are taken one after the other, since the
    nearest cell's squared distance is a minimum over rows of (distance along the row)² + (distance between
    the rows)².
    """
    height, width = mask.shape[-2:]
    across = torch.arange(width, device=mask.device, dtype=torch.float32)
    # the last cell before a place that is set, and the first one after it
    before = torch.where(mask, across, -torch.inf).cummax(dim=-1).values
    after = torch.where(mask, across, torch.inf).flip(-1).cummin(dim=-1).values.flip(-1)
    along_row = torch.minimum(across - before, after - across)
    down = torch.arange(height, device=mask.device, dtype=torch.float32)
    between = (down[:, None] - down).square()
    return (along_row.square()[:, None] + between[None, :, :, None]).amin(dim=2).sqrt()


def resample(images: Tensor, start: tuple[float, ...], step: float, size: tuple[int, int]) -> Tensor:
    """Axis-aligned resampling by Keys' cubic convolution (a = -1/2), widened by ``step`` where it shrinks.

    Args:
        images: ``[..., H, W, C]``.
        start: y and x of the result's top left corner, in source pixels.
        step: source pixels a result pixel.
        size: height and width of the result.

    Returns:
        ``[..., *size, C]``; beyond the border the nearest pixel is repeated.
    """
    (rows, top), (columns, left) = (
        _cubic_weights(size[axis], images.shape[axis - 3], start[axis], step) for axis in (0, 1)
    )
    region = images[..., top : top + rows.shape[1], left : left + columns.shape[1], :]
    planes = region.movedim(-1, -3).mT.contiguous()  # whole planes make two plain matrix products
    across = _banded_product(columns.to(planes), planes).mT.contiguous()
    return _banded_product(rows.to(planes), across).movedim(-3, -1)


def _banded_product(matrix: Tensor, planes: Tensor) -> Tensor:
    """``[n, m]`` by ``[..., m, w]``, where any few rows of the matrix are 0 in most columns."""
    parts = []
    for rows in matrix.split(_BAND):
        used = rows.any(dim=0).nonzero()
        part = slice(int(used[0]), int(used[-1]) + 1)
        parts.append(rows[:, part] @ planes[..., part, :])
    return torch.cat(parts, dim=-2)


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # what is kept may be used by those who differentiate
def _cubic_weights(size: int, source: int, start: float, step: float) -> tuple[Tensor, int]:
    """Weights ``[size, n]`` on the source pixels from the one returned beside them; each row sums to 1.

    All frames of a clip ask for the same.
    """
    spread = max(1.0, step)
    centres = start + (torch.arange(size, dtype=torch.float64) + 0.5) * step
    first = torch.floor(centres - 2 * spread)
    taps = first[:, None] + torch.arange(math.ceil(4 * spread) + 2)
    distance = ((taps + 0.5 - centres[:, None]) / spread).abs()
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = torch.where(distance < 1, near, torch.where(distance < 2, far, torch.zeros_like(far)))
    index = taps.clamp(0, source - 1).long()
    low, high = int(index.min()), int(index.max())
    dense = torch.zeros(size, high - low + 1, dtype=torch.float64)
    dense.scatter_add_(1, index - low, weights)
    return (dense / dense.sum(dim=1, keepdim=True)).float(), low


PICTURE_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow's names of formats that hold pixels; others (EPS) are programs, which Pillow lets others run."""


MAX_PIXELS = 50_000_000
"""Of a picture: a camera's 48 megapixels. As float32 that is 600 MB, and a file of 50 KB can ask for it."""
_DEEP_GREY = ("F", "I", "I;16", "I;16B", "I;16L", "I;16N")
"""Pillow's grey modes of more than 8 bits, whose white its own conversion to RGB takes to be 255."""


def open_picture(source: Path | str | BinaryIO) -> Image.Image:
    """A picture of one of :data:`PICTURE_FORMATS`, whatever its name ends in: all files of users pass here.

    Raises:
        OSError: when it is of another format, or none.
        FD2TalkError: when its header says that it is larger than :data:`MAX_PIXELS`; nothing is unpacked.
    """
    Image.init()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the bound below is lower
        picture = Image.open(source, formats=[name for name in PICTURE_FORMATS if name in Image.OPEN])
    name = shown_path(Path(picture.filename).name) if picture.filename else "The picture"
    check_amount(picture.width * picture.height, MAX_PIXELS, f"{name} has {{}} pixels", "make it smaller")
    return picture


def read_image(path: Path | str) -> Tensor:
    """A picture file as ``[H, W, 3]`` in 0..1, turned upright as its EXIF orientation says.

    Whole numbers of a grey picture are those of 16 bits; floating-point ones lie in 0..1.

    Raises:
        FD2TalkError: naming the file, when it is none that can be read.
    """
    from PIL import ImageOps

    path = check_input(path, "picture")
    try:
        with open_picture(path) as picture:
            upright = ImageOps.exif_transpose(picture)
            pixels = _grey(upright) if upright.mode in _DEEP_GREY else _colours(upright)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        if isinstance(error, FD2TalkError):
            raise
        raise FD2TalkError(
            f"{shown_path(path.name)} cannot be read as a picture ({reason_of(error)})."
        ) from error
    return pixels


def _colours(picture: Image.Image) -> Tensor:
    """``[H, W, 3]`` in 0..1, in one copy of that size."""
    return torch.from_numpy(np.array(picture.convert("RGB"))).float().div_(255)


def _grey(picture: Image.Image) -> Tensor:
    """A grey picture of more than 8 bits."""
    values = torch.from_numpy(np.asarray(picture).astype(np.float32))
    if not torch.isfinite(values).all():
        raise ValueError("it holds values that are not numbers")
    low, high, white = float(values.min()), float(values.max()), 1 if picture.mode == "F" else 65535
    if not -0.01 * white <= low <= high <= 1.01 * white:
        raise ValueError(f"its values go from {low:g} to {high:g}, but 0 to {white} is needed")
    return (values / white).clamp(0, 1)[..., None].expand(-1, -1, 3).contiguous()

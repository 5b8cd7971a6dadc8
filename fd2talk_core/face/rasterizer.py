"""Drawing triangle meshes in plain torch: no compiler, no graphics library, the same picture on every
machine.

Screen coordinates (u, v) run from -1 (left, top) to 1 (right, bottom) and pixel centres lie at (2 i + 1) / n
- 1, as for :func:`torch.nn.functional.grid_sample` without aligned corners. Depth grows away from the viewer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import FD2TalkError

CANDIDATES_AT_ONCE = 1 << 18
"""Pairs of a triangle and a pixel tried together; bounds the memory to about 100 bytes times this."""

PIXELS_AT_ONCE = 1 << 16
"""Whose weights are computed together: so many stay in a processor's cache."""

CLAY = (0.78, 0.74, 0.70)
"""Colour of what has no other."""

_EDGE_TOLERANCE = 1e-6
_SPAN_SLACK = 0.01
"""Pixels; far more than rounding can shift an edge."""


@dataclass(frozen=True, eq=False)
class Raster:
    """What each pixel of B pictures sees.

    Attributes:
        triangle: ``[B, H, W]`` int64, the nearest triangle, -1 where there is none.
        barycentric: ``[B, H, W, 3]``, perspective-correct weights of the triangle's corners, 0 where there is
            none.
        depth: ``[B, H, W]``, infinite where there is none.
    """

    triangle: Tensor
    barycentric: Tensor
    depth: Tensor

    @property
    def covered(self) -> Tensor:
        """``[B, H, W]`` bool."""
        return self.triangle >= 0

    def look_up(self, values: Tensor, missing: bool | float) -> Tensor:
        """Values of triangles ``[T]`` or ``[B, T]`` at the pixels, ``[B, H, W]``; ``missing`` where there is
        none.
        """
        seen = self.triangle.clamp_min(0).flatten(1)
        found = values.index_select(0, seen.reshape(-1)) if values.ndim == 1 else values.gather(1, seen)
        return torch.where(self.covered, found.view(self.triangle.shape), missing)

    def interpolate(self, attributes: Tensor, triangles: Tensor) -> Tensor:
        """Attributes of vertices at the pixels.

        Args:
            attributes: ``[B or 1, V, C]``.
            triangles: ``[T, 3]``.

        Returns:
            ``[B, H, W, C]``, 0 where there is no triangle.
        """
        batch, height, width = self.triangle.shape
        seen = self.triangle.reshape(-1)
        weights = self.barycentric.movedim(-1, 0).reshape(3, -1)
        # a number at a time: small rows one after the other take a processor four times as long
        tables = [
            [plane.index_select(1, corner).reshape(-1) for corner in triangles.unbind(1)]
            for plane in attributes.unbind(-1)
        ]
        found = attributes.new_zeros(attributes.shape[-1], len(seen))
        for hit in (seen >= 0).nonzero().squeeze(1).split(PIXELS_AT_ONCE):
            which = seen.index_select(0, hit)
            if attributes.shape[0] > 1:
                frame = torch.div(hit, height * width, rounding_mode="floor")
                which = which + frame * len(triangles)
            shares = weights.index_select(1, hit)
            for table, made in zip(tables, found, strict=True):
                terms = (
                    corner.index_select(0, which) * share for corner, share in zip(table, shares, strict=True)
                )
                made.index_copy_(0, hit, sum(terms))
        return found.view(-1, batch, height, width).movedim(0, -1)


@torch.no_grad()
def rasterize(
    vertices: Tensor, triangles: Tensor, size: int | tuple[int, int], *, cull_back_faces: bool = False
) -> Raster:
    """The nearest triangle at every pixel centre.

    Every triangle is tried on the pixels of its own bounding box and the nearest hit is kept (a z-buffer);
    the work grows with the number of such pairs, which for a head is a few times the covered pixels.

    Args:
        vertices: ``[B, V, 3]``: u, v and depth, as a camera projects them. What is not before the viewer
            (depth not over 0) is not drawn.
        triangles: ``[T, 3]``, counter-clockwise seen from outside.
        size: pixels, H = W or (H, W).
        cull_back_faces: leave out triangles seen from inside.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if vertices.ndim != 3 or vertices.shape[-1] != 3 or min(height, width) < 1:
        raise FD2TalkError(
            f"Vertices [B, V, 3] and a size over 0 are needed, not {tuple(vertices.shape)} and {size}."
        )
    x, y, depth = vertices.float().unbind(-1)
    screen = torch.stack([(x + 1) * (width / 2) - 0.5, (y + 1) * (height / 2) - 0.5, depth])
    planes, box, keep = _set_up(screen, triangles, height, width, cull_back_faces)
    winner = _nearest(planes, box, keep, height, width)
    return _resolve(winner, planes, height, width)


def _set_up(
    screen: Tensor, triangles: Tensor, height: int, width: int, cull_back_faces: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Planes ``[9, B, T]``, boxes ``[4, B, T]`` (left, top, columns, rows) and which can be seen ``[B, T]``,
    of vertices ``[3, B, V]``. Here and below one number of all stands together, and not all of one: that is
    what a processor is fast with.
    """
    (x0, y0, z0), (x1, y1, z1), (x2, y2, z2) = (
        screen.index_select(2, corner) for corner in triangles.unbind(1)
    )
    # from the first corner, so that small triangles far from the origin keep their precision
    ax, ay, bx, by = x1 - x0, y1 - y0, x2 - x0, y2 - y0
    area = ax * by - bx * ay
    inverse = torch.where(area == 0, 0, 1 / area)
    nearness = [1 / depth for depth in (z0, z1, z2)]
    planes = torch.stack(
        [
            x0,
            y0,
            by * inverse,
            -bx * inverse,
            -ay * inverse,
            ax * inverse,
            nearness[0],
            nearness[1] - nearness[0],
            nearness[2] - nearness[0],
        ]
    )
    left = torch.minimum(torch.minimum(x0, x1), x2).sub(_EDGE_TOLERANCE).ceil().clamp(0, width)
    right = torch.maximum(torch.maximum(x0, x1), x2).add(_EDGE_TOLERANCE).floor().clamp(-1, width - 1)
    top = torch.minimum(torch.minimum(y0, y1), y2).sub(_EDGE_TOLERANCE).ceil().clamp(0, height)
    bottom = torch.maximum(torch.maximum(y0, y1), y2).add(_EDGE_TOLERANCE).floor().clamp(-1, height - 1)
    columns, rows = right - left + 1, bottom - top + 1
    # v points down, so that a counter-clockwise triangle has a negative area on the screen
    faces = area < 0 if cull_back_faces else area != 0
    before = torch.minimum(torch.minimum(z0, z1), z2) > 0
    keep = faces & before & (columns > 0) & (rows > 0)
    return planes, torch.stack([left, top, columns, rows]).nan_to_num(0).int(), keep


def _nearest(planes: Tensor, box: Tensor, keep: Tensor, height: int, width: int) -> Tensor:
    """``[B H W]`` int64: nearness and triangle of the nearest hit in one sortable number, -1 for none."""
    batch, count = keep.shape
    winner = torch.full((batch * height * width,), -1, dtype=torch.int64, device=planes.device)
    drawn = keep.reshape(-1).nonzero().squeeze(1)
    if drawn.numel() == 0:
        return winner
    planes, box = (part.flatten(1).index_select(1, drawn) for part in (planes, box))
    pairs = (box[2] * box[3]).long()
    ends = pairs.cumsum(0)
    limits = torch.arange(CANDIDATES_AT_ONCE, int(ends[-1]) + CANDIDATES_AT_ONCE, CANDIDATES_AT_ONCE)
    cuts = torch.searchsorted(ends, limits.to(ends), right=True).clamp_min(1).unique_consecutive().tolist()
    start = 0
    for stop in (cut for cut in cuts if cut > start):
        part = slice(start, stop)
        _draw(winner, planes[:, part], box[:, part], drawn[part], count, height, width)
        start = stop
    if start < drawn.numel():
        part = slice(start, None)
        _draw(winner, planes[:, part], box[:, part], drawn[part], count, height, width)
    return winner


def _draw(
    winner: Tensor,
    planes: Tensor,
    box: Tensor,
    drawn: Tensor,
    count: int,
    height: int,
    width: int,
) -> None:
    """Try triangles on the pixels of their boxes and keep the nearest hits in ``winner``."""
    owner, y = _spread(box[3])
    x0, y0, second_x, second_y, third_x, third_y = planes[:6].index_select(1, owner)
    left, top, columns = box[:3].index_select(1, owner)
    y += top
    dy = y - y0
    second_left, third_left = dy * second_y, dy * third_y
    first, length = _span(left, columns, x0, second_left, second_x, third_left, third_x)
    row, x = _spread(length)
    x += first.index_select(0, row)
    spans = (x0, second_left, second_x, third_left, third_x)
    start, second, second_step, third, third_step = (part.index_select(0, row) for part in spans)
    dx = x - start
    second, third = dx * second_step + second, dx * third_step + third
    hit = (
        (torch.minimum(torch.minimum(second, third), 1 - second - third) >= -_EDGE_TOLERANCE)
        .nonzero()
        .squeeze(1)
    )
    row, x, second, third = (part.index_select(0, hit) for part in (row, x, second, third))
    which, y = owner.index_select(0, row), y.index_select(0, row)
    near, near_second, near_third = planes[6:].index_select(1, which)
    nearness = near + second * near_second + third * near_third
    frame = torch.div(drawn, count, rounding_mode="floor")
    pixel = (frame.index_select(0, which) * height + y) * width + x
    # positive floats sort as their bits do; of equal depths the triangle of the lowest number wins
    order = (nearness.clamp_min(0).contiguous().view(torch.int32).long() << 32) | (
        count - 1 - (drawn - frame * count).index_select(0, which)
    )
    winner.scatter_reduce_(0, pixel, order, "amax")


def _spread(lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Whose each of the sum of lengths ``[N]`` is, and its place there: (2, 1) to (0, 0, 1) and (0, 1, 0)."""
    lengths = lengths.long()
    owner = torch.repeat_interleave(torch.arange(lengths.numel(), device=lengths.device), lengths)
    place = torch.arange(owner.numel(), device=lengths.device) - (lengths.cumsum(0) - lengths).index_select(
        0, owner
    )
    return owner, place.int()


def _span(
    left: Tensor,
    columns: Tensor,
    x0: Tensor,
    second: Tensor,
    second_step: Tensor,
    third: Tensor,
    third_step: Tensor,
) -> tuple[Tensor, Tensor]:
    """First column and number of columns in which all weights of a row can be positive, with some slack.

    The weights grow by a step a pixel, from what they are at ``x0``; what lies outside, about half of the
    box, need not be tried pixel by pixel.
    """
    least, most = left.float(), (left + columns - 1).float()
    low, high = least, most
    for weight, step in (
        (second, second_step),
        (third, third_step),
        (1 - second - third, -second_step - third_step),
    ):
        crossing = x0 - weight / step
        low = torch.where(step > 0, torch.maximum(low, crossing - _SPAN_SLACK), low)
        high = torch.where(step < 0, torch.minimum(high, crossing + _SPAN_SLACK), high)
    # a step too small for its crossing to be a number leaves the whole row to be tried
    low = torch.where(low.isfinite(), low, least).ceil().int()
    high = torch.where(high.isfinite(), high, most).floor().int()
    return low, (high - low + 1).clamp_min(0)


def _resolve(winner: Tensor, planes: Tensor, height: int, width: int) -> Raster:
    _, batch, count = planes.shape
    triangle = torch.where(winner < 0, -1, count - 1 - (winner & 0xFFFFFFFF))
    barycentric = planes.new_zeros(3, winner.numel())
    depth = planes.new_full((winner.numel(),), torch.inf)
    planes = planes.flatten(1)
    for hit in (triangle >= 0).nonzero().squeeze(1).split(PIXELS_AT_ONCE):
        line = torch.div(hit, width, rounding_mode="floor")
        frame = torch.div(line, height, rounding_mode="floor")
        x, y = hit - line * width, line - frame * height
        chosen = planes.index_select(1, frame * count + triangle.index_select(0, hit))
        x0, y0, second_x, second_y, third_x, third_y, near, near_second, near_third = chosen
        dx, dy = x - x0, y - y0
        second = dx * second_x + dy * second_y
        third = dx * third_x + dy * third_y
        nearness = near + second * near_second + third * near_third
        corners = (1 - second - third) * near, second * (near + near_second), third * (near + near_third)
        for weights, corner in zip(barycentric, corners, strict=True):
            weights.index_copy_(0, hit, corner / nearness)
        depth.index_copy_(0, hit, 1 / nearness)
    return Raster(
        triangle.view(batch, height, width),
        barycentric.view(3, batch, height, width).movedim(0, -1),
        depth.view(batch, height, width),
    )


def vertex_normals(vertices: Tensor, triangles: Tensor) -> Tensor:
    """Unit normals, the mean of the adjacent triangles' weighted by area, ``[B, V, 3]``."""
    corner = vertices[:, triangles]
    faces = torch.linalg.cross(corner[:, :, 1] - corner[:, :, 0], corner[:, :, 2] - corner[:, :, 0])
    normals = torch.zeros_like(vertices)
    for index in range(3):
        normals.index_add_(1, triangles[:, index], faces)
    return F.normalize(normals, dim=-1)


@torch.no_grad()
def shade(
    vertices: Tensor,
    projected: Tensor,
    triangles: Tensor,
    size: int | tuple[int, int],
    *,
    colors: Tensor | None = None,
    background: tuple[float, float, float] = (0.11, 0.12, 0.14),
    supersample: int = 2,
) -> Tensor:
    """A clay-like preview: smooth normals, a key light from the upper left, a weak fill from the right.

    The light is computed at the vertices and blended over the triangles: a pixel costs three products.

    Args:
        vertices: ``[B, V, 3]``, posed; x right, y up, z to the viewer.
        projected: ``[B, V, 3]``, the same vertices as u, v, depth.
        triangles: ``[T, 3]``, counter-clockwise seen from outside.
        size: pixels, H = W or (H, W).
        colors: ``[T, 3]`` in 0..1, for example of the parts; clay grey without.
        background: the colour behind.
        supersample: samples by pixel and side, averaged.

    Returns:
        ``[B, H, W, 3]`` in 0..1.
    """
    height, width = (size, size) if isinstance(size, int) else size
    raster = rasterize(
        projected, triangles, (height * supersample, width * supersample), cull_back_faces=True
    )
    normals = vertex_normals(vertices, triangles)
    light = torch.full_like(normals[..., 0], 0.25)
    for direction, strength in (((-0.5, 0.6, 0.8), 0.62), ((0.8, 0.1, 0.5), 0.22)):
        toward = F.normalize(normals.new_tensor(direction), dim=0)
        light = light + strength * (normals @ toward).clamp_min(0)
    pictures = _paint(raster, light, triangles, colors, normals.new_tensor(background))
    if supersample == 1:
        return pictures
    return F.avg_pool2d(pictures.permute(0, 3, 1, 2), supersample).permute(0, 2, 3, 1)


def _paint(
    raster: Raster, light: Tensor, triangles: Tensor, colors: Tensor | None, background: Tensor
) -> Tensor:
    """``[B, H, W, 3]`` in 0..1 of light ``[B, V]`` on what is seen, over the background ``[3]``."""
    triangle = raster.triangle.reshape(-1)
    hit = (triangle >= 0).nonzero().squeeze(1)
    seen, frame = triangle[hit], torch.div(hit, raster.triangle[0].numel(), rounding_mode="floor")
    corners = (triangles[seen] + (frame * light.shape[1])[:, None]).unbind(1)
    weights = raster.barycentric.reshape(-1, 3)[hit].unbind(1)
    flat = light.reshape(-1)
    shine = sum(flat[corner] * weight for corner, weight in zip(corners, weights, strict=True))
    paint = light.new_tensor(CLAY) if colors is None else colors.to(light)[seen]
    pictures = background.expand(len(triangle), 3).clone()
    pictures[hit] = (paint * shine[:, None]).clamp(0, 1)
    return pictures.view(*raster.triangle.shape, 3)

"""Putting moving crops back into the whole picture: where they differ from it, and with a soft edge."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import FD2TalkError
from ..face.crop import CropTransform
from ..imaging import largest_around, length_of, mean_around, resize, smoothstep, soften
from .correspondence import Correspondence, nearness
from .reference import Reference

_VISIBLE_DISPLACEMENT = (0.25, 1.0)  # crop pixels, from none to all of the frame
_HAIR, _FADE = 0.45, 0.15  # half widths around the mesh that are pasted, and over which that ends
_COARSE = 48  # cells a side that tell how far from the mesh a place is


def paste_back(
    frames: Tensor,
    reference: Reference,
    *,
    feather: float = 0.08,
    mask: Tensor | None = None,
    background: Tensor | None = None,
) -> Tensor:
    """Put moving crops back into the whole picture.

    Args:
        frames: ``[F, S, S, 3]`` float in 0..1.
        reference: whose picture and crop they are of.
        feather: width of the soft edge as a share of the crop's side; a side where the crop meets the
            picture's border needs none and has none.
        mask: optional ``[F or 1, m, m]`` in 0..1 over the crop (see :func:`head_mask`): where it is 0 the
            picture stays as it is, in its full resolution.
        background: optional ``[F or 1, H, W, 3]`` to be put into in place of the reference's own picture,
            such as the frames in which another person of the same picture speaks.

    Returns:
        ``[F, H, W, 3]``; pixels outside the crop are the picture's or the background's own.

    Raises:
        FD2TalkError: when frames, reference and background differ in size, or feather is out of range.
    """
    picture, transform = reference.picture, reference.crop_transform
    if frames.ndim != 4 or frames.shape[1:] != reference.crop.shape:
        raise FD2TalkError(
            f"The frames are {tuple(frames.shape)}, but [frames, {transform.size}, {transform.size}, 3] "
            "is needed to paste them back: use the reference that the frames were made with."
        )
    if not 0 <= feather <= 0.5:
        raise FD2TalkError(f"feather is {feather}, but a share of the crop between 0 and 0.5 is needed.")
    height, width = picture.shape[:2]
    left, top, right, bottom = rectangle = transform.covered(height, width)
    if background is None:
        background = picture[None]
    if len(background) not in (1, len(frames)) or background.shape[1:] != picture.shape:
        needed = _size_of(picture.expand(len(frames), -1, -1, -1))
        raise FD2TalkError(
            f"The background is {_size_of(background)}, but {needed} (or 1 such picture) is needed: as many "
            "and as large as what is pasted into it."
        )
    whole = background.to(frames).expand(frames.shape[0], -1, -1, -1).clone()
    if right > left and bottom > top:
        weight = _edge_weight(transform, height, width, feather).to(frames)[None, ..., None]
        if mask is not None:
            fitted = F.interpolate(mask[:, None].to(frames), size=(transform.size,) * 2, mode="bilinear")
            weight = weight * transform.to_picture(fitted.movedim(1, -1), rectangle).clamp(0, 1)
        region = whole[:, top:bottom, left:right]
        moved = transform.to_picture(frames, rectangle).clamp_(0, 1)
        region.add_(
            moved.sub_(region).mul_(weight)
        )  # in place: a frame of a large picture is tens of megabytes
    return whole


@torch.no_grad()
def head_mask(reference: Reference, flow: Correspondence) -> Tensor:
    """Where each frame can differ from the portrait, for :func:`paste_back`: the head, and what it moves.

    The fitted mesh in the frame, and every place near it that the correspondence between mesh and portrait
    displaces by a visible part of a pixel; so hair and neck follow the head, and a background that stays is
    the picture's own. A decoder's blend knows better what is hair: this is for those that have none.

    Args:
        reference: the portrait.
        flow: of F frames, see :func:`fd2talk_core.frames.correspondence.reference_flow`.

    Returns:
        ``[F, m, m]`` in 0..1, of the flow's size; all 1 when the portrait's face was not found.
    """
    size = flow.grid.shape[1]
    if not reference.face_found:
        return torch.ones(len(flow.grid), size, size)
    displaced = length_of(flow.displacement)[:, 0] * (reference.crop_transform.size / 2)
    least, most = _VISIBLE_DISPLACEMENT
    # what goes along may begin from one cell to the next
    moved = soften(((displaced - least) / (most - least)).clamp(0, 1))
    return torch.maximum(moved * _near(flow.masks[:, :1]), _widened(flow.masks[:, 0]))


def _near(covered: Tensor) -> Tensor:
    """``[F, m, m]``: 1 up to :data:`_HAIR` from the mesh ``[F, 1, m, m]``, and 0 where that has faded."""
    size = covered.shape[-1]
    coarse = F.max_pool2d(covered, max(1, size // _COARSE), ceil_mode=True)
    return resize(nearness(coarse > 0, _HAIR, _FADE), size)[:, 0]


def _widened(covered: Tensor) -> Tensor:
    """``[F, m, m]`` grown by a 24th of the crop's side, of which the outer half fades."""
    reach = max(1, round(covered.shape[-1] / 24))
    fade = reach // 2
    grown = F.pad(largest_around(covered[:, None], reach), (fade,) * 4, mode="replicate")
    height, width = covered.shape[-2:]
    return mean_around(grown, fade)[:, 0, fade : fade + height, fade : fade + width]


def _size_of(pictures: Tensor) -> str:
    """``20 pictures of 640 x 480``."""
    count, height, width = pictures.shape[:3]
    return f"{count} picture{'s' if count > 1 else ''} of {width} x {height}"


def _edge_weight(transform: CropTransform, height: int, width: int, feather: float) -> Tensor:
    """``[h, w]`` over what the crop covers: 1 inside, falling smoothly to 0 at the crop's edge."""
    left, top, right, bottom = transform.covered(height, width)
    edges = transform.box
    soft = max(feather * (edges[2] - edges[0]), 1e-6)

    def ramp(first: int, last: int, low: float, high: float, limit: int) -> Tensor:
        pixels = torch.arange(first, last) + 0.5
        # An edge of the crop that the picture does not show, or shows as its own border, leaves no seam.
        from_low = pixels - low if low > 0.5 else torch.full_like(pixels, math.inf)
        from_high = high - pixels if high < limit - 0.5 else torch.full_like(pixels, math.inf)
        share = torch.minimum(from_low, from_high) / soft
        return smoothstep(share)

    columns = ramp(left, right, edges[0], edges[2], width)
    rows = ramp(top, bottom, edges[1], edges[3], height)
    return rows[:, None] * columns

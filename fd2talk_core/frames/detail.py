"""The portrait's fine detail, which no latent of a small autoencoder keeps, moved along with the head.

The mesh says where each place of a frame lies in the portrait. Wherever the frame shows what the portrait
shows, the portrait itself is moved there and laid over the decoded frame. Where it does not (the mouth's
inside, lids that open, a cheek that was turned away), the frame stays as it was decoded; so it does where it
disagrees with the portrait as the same autoencoder shows it. It is no part of the paper; strength 0 leaves it
out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..face.crop import CropTransform
from ..face.model import FaceModel, apply_pose, project
from ..face.rasterizer import rasterize
from ..imaging import distance_to, pixel_centers, smoothstep, soften, widen
from ..networks.autoencoder import FrameAutoencoder
from ..networks.unet import named_masks
from .correspondence import Correspondence, unstretched, untorn, warp_reference
from .reference import Reference

LARGEST_SIDE = 768
"""Side in pixels of the finest crop that detail is added to: more costs as much as rendering the frame."""

AGREEMENT = 0.15
"""Mean difference of brightness between a frame and the moved portrait, both as the autoencoder shows them,
at which the detail has faded to 1/e: there the frame shows something else, such as clothes that did not
follow."""

STRETCHED = (0.1, 0.3)
"""A portrait's pixels by a frame's pixel: at the lower, a place is not taken from the portrait."""

STRETCHED_RIM = (0.55, 0.9)
"""The same next to the edge of cheeks and neck: the mesh's edge there is not quite the person's, so what it
finds may be the background."""

RIM, RIM_SIZE = 0.12, 96
"""How far from the mesh's edge that is, in half widths of the crop, and cells a side that tell it."""

_NEIGHBOURHOOD = 9
"""Pixels of the autoencoder's picture, odd, over which that difference is averaged."""


@dataclass(frozen=True, eq=False)
class PortraitDetail:
    """A portrait and its reconstruction, ready to be moved.

    Attributes:
        reference: the portrait, its crop as fine as the picture is but for :data:`LARGEST_SIDE`.
        layers: ``[1, 6, N, N]``: the crop, and its reconstruction enlarged to the same size.
        rim: ``[1, 1, n, n]``: 1 at the edge of the portrait's cheeks and neck, 0 from :data:`RIM` on.
        strength: 0..1, how far the decoded frame gives way.
    """

    reference: Reference
    layers: Tensor
    rim: Tensor
    strength: float

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        autoencoder: FrameAutoencoder,
        reference: Reference,
        face_model: FaceModel,
        strength: float,
        fine: bool = True,
    ) -> PortraitDetail:
        """
        Args:
            autoencoder: the one that made the reference's latent.
            face_model: of the reference's coefficients.
            fine: take the crop anew, as fine as the picture is, for frames that are pasted back into it;
                otherwise stay at the autoencoder's resolution.
        """
        if fine:
            reference = _finer(reference)
        latent = reference.latent[None].to(autoencoder.device, autoencoder.dtype)
        shown = autoencoder.decode(latent, latent).float().cpu().clamp(0, 1)
        crop = reference.crop.movedim(-1, 0)[None]
        shown = _resize(shown, crop.shape[-1])
        return cls(reference, torch.cat([crop, shown], dim=1), _rim(reference, face_model), strength)

    def add_to(self, frames: Tensor, flow: Correspondence) -> Tensor:
        """
        Args:
            frames: ``[F, S, S, 3]``, decoded.
            flow: of the same frames.

        Returns:
            ``[F, N, N, 3]`` in 0..1, crops of :attr:`reference`.
        """
        size = self.layers.shape[-1]
        side = frames.shape[1]
        moved = warp_reference(self.layers, flow.grid)
        portrait, shown = moved[:, :3], moved[:, 3:]
        frames = frames.movedim(-1, 1)
        difference = (frames - _resize(shown, side)).abs().mean(dim=1, keepdim=True)
        difference = F.avg_pool2d(difference, _NEIGHBOURHOOD, 1, _NEIGHBOURHOOD // 2, count_include_pad=False)
        trust = (-(difference / AGREEMENT).square()).exp() * _resize(self._shows_the_portrait(flow), side)
        frames = _resize(frames, size)
        frames = frames + self.strength * _resize(trust, size) * (portrait - frames)
        return frames.clamp(0, 1).movedim(1, -1)

    def _shows_the_portrait(self, flow: Correspondence) -> Tensor:
        """``[F, 1, h, w]`` in 0..1: off the mesh, or where the portrait sees the mesh's surface, and not too
        much aslant. Eyes and mouths that the portrait hides are kept clear of by a cell more, since lids and
        lips lie around them.
        """
        named = named_masks(flow.masks)
        near = F.max_pool2d(torch.maximum(named["mouth"], named["eyes"]), 5, stride=1, padding=2)
        seen = 1 - torch.maximum(soften(named["hidden"]), widen(named["hidden"]) * near)
        rim = F.grid_sample(
            self.rim.expand(len(flow.grid), -1, -1, -1), flow.grid, mode="bilinear", align_corners=False
        )
        rim = rim * named["coverage"]
        bounds = (low + rim * (high - low) for low, high in zip(STRETCHED, STRETCHED_RIM, strict=True))
        return seen * unstretched(flow.grid, *bounds) * untorn(flow.grid)


def _finer(reference: Reference) -> Reference:
    left, top, right, bottom = reference.crop_transform.box
    size = min(round(right - left), LARGEST_SIDE)
    if size <= reference.crop_transform.size:
        return reference
    transform = CropTransform.of_square((left + right) / 2, (top + bottom) / 2, right - left, size)
    return replace(reference, crop=transform.to_crop(reference.picture), crop_transform=transform)


def _rim(reference: Reference, face_model: FaceModel) -> Tensor:
    """:attr:`PortraitDetail.rim`. Above the nose the mesh ends within hair or a hat, which move with it."""
    shape = face_model(reference.identity[None], reference.expression[None])
    posed = apply_pose(shape, reference.pose[None])
    raster = rasterize(project(posed, face_model.camera), face_model.triangles, RIM_SIZE)
    distance = distance_to(~raster.covered) * (2 / RIM_SIZE)
    nose_tip = project(face_model.landmarks(posed), face_model.camera)[:, 1, 1]  # v of MediaPipe's point 1
    below = pixel_centers(RIM_SIZE, nose_tip)[..., 1] > nose_tip
    return ((1 - smoothstep(distance / RIM)) * (raster.covered & below))[:, None]


def _resize(pictures: Tensor, size: int) -> Tensor:
    if pictures.shape[-1] == size:
        return pictures
    return F.interpolate(pictures, size=(size, size), mode="bilinear", antialias=pictures.shape[-1] > size)

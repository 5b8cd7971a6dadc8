"""What the UNet is given with the noisy latent: the portrait, moved to the frame by the mesh."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..face.model import FaceModel
from ..face.palette import hidden_mouth_colours
from ..imaging import shrink
from .correspondence import Correspondence, reference_flow, warp_reference

if TYPE_CHECKING:
    from ..networks.unet import FrameUNet


Corresponder = Callable[[int, int], Correspondence]
"""``(size, supersample)`` to the correspondence of the frames at hand."""


@torch.no_grad()
def align_portrait(
    unet: FrameUNet, latent: Tensor, crop: Tensor, correspondence: Corresponder
) -> Tensor | None:
    """What a UNet is given with the noisy latents, by its ``reference_alignment``.

    Args:
        latent: x, ``[1 or F, d, h, w]``.
        crop: the portrait, ``[1 or F, 3, H, W]`` in 0..1; only looked at for ``"warp_image"``.
        correspondence: of the frames.

    Returns:
        ``[F, d + 5, h, w]`` on the UNet's device: the moved reference's latent and the masks. None for
        ``"none"``.
    """
    if unet.config.reference_alignment == "none":
        return None
    if unet.config.reference_alignment == "warp":
        return unet.align(*move_latent(latent, correspondence(latent.shape[-1], 2)))
    # half the picture's resolution: displacements are smooth but at the lips, and drawing is what costs
    flow = correspondence(crop.shape[-1] // 2, 1)
    return unet.align(*move_picture(shrink(crop, unet.crop_encoder.patch_size), flow))


def align_reference(
    unet: FrameUNet,
    face_model: FaceModel,
    latent: Tensor,
    crop: Tensor,
    identity: Tensor,
    reference_expression: Tensor,
    reference_pose: Tensor,
    expression: Tensor,
    pose: Tensor,
) -> Tensor | None:
    """:func:`align_portrait` from coefficients, of frames that may each show another person: what training
    needs.

    Args:
        latent: x, ``[d, h, w]`` or ``[F, d, h, w]``.
        crop: the portrait, ``[3, H, W]`` or ``[F, 3, H, W]`` in 0..1.
        identity, reference_expression, reference_pose, expression, pose: as :func:`reference_flow`.
    """
    coefficients = (identity, reference_expression, reference_pose, expression, pose)
    latent, crop = (part if part.ndim == 4 else part[None] for part in (latent, crop))

    def correspondence(size: int, supersample: int) -> Correspondence:
        return reference_flow(face_model, *coefficients, size, supersample=supersample)

    return align_portrait(unet, latent, crop, correspondence)


def move_latent(latent: Tensor, flow: Correspondence) -> tuple[Tensor, Tensor]:
    """The portrait's latent ``[F, d, h, w]``, moved, and empty where a mouth opens; and the masks."""
    moved = warp_reference(latent, flow.grid.to(latent.device))
    hidden = flow.hidden_mouth.sum(dim=1, keepdim=True)
    return moved * (1 - hidden).to(moved), flow.masks


def move_picture(crop: Tensor, flow: Correspondence) -> tuple[Tensor, Tensor]:
    """The portrait ``[F, 3, H, W]``, moved, and painted where a mouth opens; and the masks."""
    moved = warp_reference(crop, flow.grid.to(crop.device))
    return paint_mouth(moved, flow.hidden_mouth.to(crop.device)), flow.masks


def paint_mouth(pictures: Tensor, hidden_mouth: Tensor) -> Tensor:
    """Paint the inside of the mouth where the portrait hides it; else an opening mouth would be filled with
    lips.

    Args:
        pictures: ``[F, 3, H, W]``.
        hidden_mouth: ``[F, 4, h, w]``, of a :class:`Correspondence`.
    """
    shares = hidden_mouth.to(pictures)
    paint = torch.einsum("fkhw,kc->fchw", shares, hidden_mouth_colours().to(pictures))
    both = torch.cat([paint, shares.sum(dim=1, keepdim=True)], dim=1)
    both = F.interpolate(both, size=pictures.shape[-2:], mode="bilinear", align_corners=False)
    return pictures * (1 - both[:, 3:]) + both[:, :3]

"""Frames mixed of the moved portrait, the portrait as it stands, and what the latents show (FD2Talk Eq. 13).

The decoder's blend says which, pixel by pixel, at the latents' resolution
(:class:`fd2talk_core.networks.blend.PortraitBlend`); here it is applied to the portrait at its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import FD2TalkError
from ..face.clothes import find_clothes
from ..face.crop import CropTransform
from ..face.matte import person_matte
from ..face.model import FaceModel
from ..imaging import displace, resize
from ..metering import stage
from ..networks.autoencoder import FrameAutoencoder
from ..networks.blend import Blend, PortraitBlend
from ..networks.precision import fast_math
from .correspondence import Correspondence, EnlargedDisplacement, room_in_hair
from .reference import Reference
from .texture import Texture

LARGEST_SIDE = 768
"""Side in pixels of the finest crop that is moved: more costs as much as rendering the frame."""

_LEAST_COVER = 1e-3


@dataclass(frozen=True, eq=False)
class BlendedPortrait:
    """A portrait ready to be moved.

    Attributes:
        blend: the decoder's.
        reference: the portrait, its crop as fine as the picture is but for :data:`LARGEST_SIDE`.
        portrait: ``[1, 3, N, N]``, that crop, where the blend computes.
        coarse: ``[1, 3, S, S]``, the crop as the latents have it.
        matte: ``[1, 1, S, S]``, where it shows its person.
        hair: ``[1, 3, S, S]``, how far it reaches, see :func:`room_in_hair`.
        texture: of the portrait.
        clothes: ``[1, 1, n, n]``, how far its places are from clothes, see :func:`find_clothes`; or None.
        looked_at: what the blend needs of the crop and its matte.
        strength: 0..1, how far the latents' pictures give way.
        pasted: whether the crops are pasted back into a picture.
    """

    blend: PortraitBlend
    reference: Reference
    portrait: Tensor
    coarse: Tensor
    matte: Tensor
    hair: Tensor
    texture: Texture
    clothes: Tensor | None
    looked_at: Tensor
    strength: float
    pasted: bool

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        autoencoder: FrameAutoencoder,
        reference: Reference,
        face_model: FaceModel,
        strength: float,
        pasted: bool = True,
    ) -> BlendedPortrait:
        """
        Args:
            autoencoder: the one that made the reference's latent.
            face_model: of the reference's coefficients.
            pasted: the crops go back into the picture: take the crop anew, as fine as that is; otherwise stay
                at the autoencoder's resolution.

        Raises:
            FD2TalkError: when the autoencoder has no blend.
        """
        blend = autoencoder.portrait_blend
        if blend is None:
            raise FD2TalkError("This autoencoder has no blend, so the portrait's own detail cannot be used.")
        shown = _finer(reference) if pasted else reference
        portrait, coarse = (
            part.crop.movedim(-1, 0)[None].float().to(autoencoder.device) for part in (shown, reference)
        )
        matte = person_matte(reference.crop)[None, None].to(coarse)
        with fast_math(autoencoder.device):
            looked_at = blend.look_at(coarse, matte)
        clothes = None
        if reference.face_found:
            clothes = find_clothes(face_model, reference.face, coarse.cpu(), matte.cpu())
        hair = room_in_hair(matte)
        texture = Texture.of(portrait, matte)
        return cls(blend, shown, portrait, coarse, matte, hair, texture, clothes, looked_at, strength, pasted)

    @stage("blend")
    @torch.no_grad()
    def add_to(self, frames: Tensor, flow: Correspondence) -> Tensor:
        """
        Args:
            frames: ``[F, S, S, 3]``, what the latents show.
            flow: of the same frames.

        Returns:
            ``[F, N, N, 4]`` in 0..1: crops of :attr:`reference`, and how far they cover what they are pasted
            into. That is all of it where they are not pasted; else the portrait as it stands is left out, and
            the picture, or what is given in its place, shows through.
        """
        made = frames.movedim(-1, 1).to(self.coarse)
        flow, stays = flow.within_hair(self.hair).with_still(self.clothes)
        with fast_math(made.device):
            blend = self.blend(
                self.coarse,
                self.matte,
                made,
                flow.displacement.to(made),
                flow.masks.to(made),
                self.looked_at,
            ).standing(stays)
        enlarged = flow.shifted(blend.shift).enlarged(self.portrait.shape[-1])
        mixed = made.new_empty(len(made), 4, *self.portrait.shape[-2:])
        # frame by frame: what is as large as the picture stays in a processor's cache
        for frame, planes in enumerate(mixed):
            self._mix(made[frame, None], blend.of_frame(frame), enlarged, frame, planes)
        return mixed.movedim(1, -1).cpu()

    def _mix(
        self, made: Tensor, blend: Blend, enlarged: EnlargedDisplacement, frame: int, planes: Tensor
    ) -> None:
        """One frame and its cover, into ``[4, N, N]``."""
        pixels = enlarged.pixels[frame].to(planes)
        moved = displace(self.portrait, pixels[None])
        if (drawn_out := enlarged.drawn_out[frame]) is not None:
            self.texture.add_to(moved, pixels, drawn_out)
        front, of_still = blend.front(moved)
        enlarged.smooth(frame, front[0])
        if self.strength < 1:
            front = torch.lerp(resize(made, front.shape[-1]), front, self.strength)
        of_still = self.strength * of_still
        if self.pasted:
            cover = 1 - of_still[0]
            front = front / cover.clamp_min(_LEAST_COVER)
            planes[3:] = cover
        else:
            front = torch.addcmul(front, of_still, self.portrait)
            planes[3:] = 1
        torch.clamp(front[0], 0, 1, out=planes[:3])


def _finer(reference: Reference) -> Reference:
    left, top, right, bottom = reference.crop_transform.box
    size = min(round(right - left), LARGEST_SIDE)
    if size <= reference.crop_transform.size:
        return reference
    transform = CropTransform.of_square((left + right) / 2, (top + bottom) / 2, right - left, size)
    return replace(reference, crop=transform.to_crop(reference.picture), crop_transform=transform)

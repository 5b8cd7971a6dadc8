"""Mouths of filmed frames, painted by a UNet that is given the rest of the frame (DiffTalk Sec. 3.2, 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import FD2TalkError
from ..face.crop import CropTransform
from ..face.model import FaceModel
from ..imaging import soften
from ..networks.autoencoder import FrameAutoencoder
from ..networks.checkpoint import resolution_of
from ..networks.diffusion import ddim_sample, frame_noise
from ..networks.precision import fast_math
from ..networks.unet import FilmedFrames, FrameUNet
from .denoising import recommended_steps
from .lower_face import FilmedFrame
from .masking import (
    REGION_SIZE,
    masked_landmarks,
    mouth_region,
    region_at,
    shown_landmarks,
    without_mouth,
)


class PaintedMouth:
    """One person's lower face, ready to be painted into other frames; used as
    :class:`~fd2talk_core.frames.lower_face.LowerFace` is.

    Args:
        unet: with a masked input.
        autoencoder: of its set.
        face_model: of the coefficients.
        identity: ``[D_α]``.
        clear: the frame that shows the inside of the person's mouth best: z_r, which is the same for all.
        seed: of the noise, one map for all frames.

    Raises:
        FD2TalkError: when the UNet is of another kind, or was trained with another face model.
    """

    @torch.no_grad()
    def __init__(
        self,
        unet: FrameUNet,
        autoencoder: FrameAutoencoder,
        face_model: FaceModel,
        identity: Tensor,
        clear: FilmedFrame,
        seed: int = 0,
    ) -> None:
        check_paints(unet)
        landmarks = len(shown_landmarks(face_model))
        if unet.config.landmarks != landmarks:
            raise FD2TalkError(
                f"This UNet was trained with {unet.config.landmarks} landmarks, but the face model "
                f"{face_model.name!r} has {landmarks} outside the mouth."
            )
        self.unet, self.autoencoder, self.face_model = unet, autoencoder, face_model
        self.identity, self.seed = identity[None], seed
        self.size = resolution_of(unet)
        self.reference = self._encode(self._crop(clear))

    @torch.no_grad()
    def make(self, frame: FilmedFrame, expression: Tensor, strength: float = 1.0) -> Tensor:
        """The frame ``[H, W, 3]`` with the lower face of another expression ``[D_β]``.

        Args:
            strength: 0..1, of what is painted.
        """
        unet, pose = self.unet, frame.pose[None]
        crop = self._crop(frame)
        drawn = mouth_region(self.face_model, self.identity, pose, REGION_SIZE)
        region = region_at(drawn, self.size)
        told = masked_landmarks(self.face_model, self.identity, frame.expression[None], pose)
        own, masked = self._encode(crop), self._encode(without_mouth(crop, region))
        filmed = FilmedFrames(masked, told.to(masked))
        coefficients = torch.cat([expression[None], pose], dim=1).to(own)
        cache = unet.make_cache(coefficients, self.reference, filmed)
        cells = region_at(drawn, own.shape[-1]).to(own)

        def denoise(sample: Tensor, timestep: Tensor) -> Tensor:
            with fast_math(unet.device):
                made = unet(sample, timestep, None, self.reference, None, cache, filmed).to(sample)
            # Sec. 3.3: what is not masked is known, and only the mouth is denoised
            return torch.lerp(own, made, cells)

        noise = frame_noise(self.seed, [0], own.shape[1:], "shared").to(own)
        latent = ddim_sample(denoise, noise, steps=recommended_steps(unet))
        with fast_math(self.autoencoder.device):
            painted = self.autoencoder.decode(latent, self.reference)
        weight = strength * _faded(region)
        return self._pasted(frame, painted.float().cpu(), weight)

    def _transform(self, frame: FilmedFrame) -> CropTransform:
        return CropTransform.of_square(*frame.square.tolist(), self.size)

    def _crop(self, frame: FilmedFrame) -> Tensor:
        """``[1, 3, S, S]``."""
        return self._transform(frame).to_crop(frame.picture[None]).movedim(-1, 1).clamp(0, 1)

    def _encode(self, crop: Tensor) -> Tensor:
        return self.autoencoder.encode(crop.to(self.autoencoder.device, self.autoencoder.dtype))

    def _pasted(self, frame: FilmedFrame, painted: Tensor, weight: Tensor) -> Tensor:
        """The frame, with the painted crop ``[1, 3, S, S]`` over it by its weight ``[1, 1, S, S]``."""
        transform, picture = self._transform(frame), frame.picture.clone()
        height, width = picture.shape[:2]
        left, top, right, bottom = rectangle = transform.covered(height, width)
        if right > left and bottom > top:
            shown, share = (
                transform.to_picture(part.movedim(1, -1), rectangle)[0].clamp(0, 1)
                for part in (painted, weight)
            )
            region = picture[top:bottom, left:right]
            region.lerp_(shown, share.expand_as(region))
        return picture


def check_paints(unet: object) -> None:
    """Raises FD2TalkError for a network that does not paint mouths into films."""
    if not isinstance(unet, FrameUNet) or not unet.config.masked_input:
        raise FD2TalkError(
            "This set's UNet makes whole frames of a portrait. To paint mouths into a film takes one that "
            "was trained with unet.network.masked_input; without, the film's own lower face is moved."
        )


def _faded(region: Tensor) -> Tensor:
    """A mouth's region with a soft edge, all of it within."""
    inner = 1 - torch.nn.functional.max_pool2d(1 - region, 9, stride=1, padding=4)
    return soften(soften(inner))

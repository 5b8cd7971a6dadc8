"""Frames of a portrait whose motion is not known before they are due: all stages, kept ready."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import FD2TalkError
from ..face.model import FaceModel
from ..face.state import FaceState
from ..frames.decoding import FrameDecoder
from ..frames.denoising import ClipDenoiser, recommended_steps
from ..frames.portrait_motion import PortraitMotion
from ..frames.reference import Reference
from ..imaging import to_bytes
from ..networks.autoencoder import FrameAutoencoder
from ..networks.latent_flow import LatentFlowUNet
from ..networks.unet import FrameUNet
from .motion import Rows

ROWS_HELD = 128
"""Frames whose motion is remembered: more than are drawn at a time."""


class HeldMotion(PortraitMotion):
    """A portrait in motion without end: the motion of the frames that are being drawn, under numbers that
    come round again."""

    def __init__(self, portrait: FaceState, face_model: FaceModel) -> None:
        expression = torch.zeros(ROWS_HELD, len(portrait.expression))
        super().__init__(portrait, expression, torch.zeros(ROWS_HELD, 6), face_model)
        self._following = 0

    def hold(self, rows: Rows) -> list[int]:
        """Remember frames, in the place of those that came first; returns their numbers."""
        with self._lock:
            numbers = [(self._following + index) % ROWS_HELD for index in range(rows.count)]
            self._following = (self._following + rows.count) % ROWS_HELD
            self.expression[numbers], self.pose[numbers] = rows.expression, rows.pose
            self.forget(numbers)
        return numbers


class _Denoiser(ClipDenoiser):
    """One that makes any frames asked for."""

    @torch.no_grad()
    def ready(self) -> _Denoiser:
        self._portrait_cache = self.unet.reference_keys_values(self.latent)
        return self

    def latents_of(self, frames: list[int]) -> Tensor:
        """``[n, d, h, w]``"""
        return self._denoise(frames, self._portrait_cache)


class _Decoder(FrameDecoder):
    """One that makes any frames asked for."""

    def ready(self) -> _Decoder:
        self._look_at_portrait()
        return self

    def pictures_of(self, frames: list[int], latents: Tensor) -> Tensor:
        """``[n, H, W, 3]``"""
        return self._draw(frames, latents).pictures


@dataclass(frozen=True)
class PortraitDrawer:
    """Draws any frames of one portrait; several threads may do so at once.

    Attributes:
        motion: of the portrait.
        mark: marks frames.
    """

    motion: HeldMotion
    mark: Callable[[Tensor], Tensor]
    denoiser: _Denoiser
    decoder: _Decoder

    @classmethod
    def of(
        cls,
        unet: FrameUNet | LatentFlowUNet,
        autoencoder: FrameAutoencoder,
        reference: Reference,
        face_model: FaceModel,
        mark: Callable[[Tensor], Tensor],
        *,
        seed: int,
        steps: int | None,
        paste_back: bool,
        detail: float,
    ) -> PortraitDrawer:
        """Look at the portrait once, for all frames to come."""
        if isinstance(unet, LatentFlowUNet) or unet.config.progressive:
            raise FD2TalkError(
                "This set's frames are made from those around them, so it cannot draw a live avatar: "
                "choose a set whose UNet makes each frame for itself."
            )
        motion = HeldMotion(reference.face, face_model)
        steps = recommended_steps(unet) if steps is None else steps
        denoiser = _Denoiser(unet, reference, motion, seed, steps, 0.0, "shared", None)
        moving = motion if unet.takes_overlay else None
        decoder = _Decoder(autoencoder, reference, moving, paste_back, None, detail)
        return cls(motion, mark, denoiser.ready(), decoder.ready())

    def draw(self, rows: Rows) -> Tensor:
        """``[n, H, W, 3]`` uint8, marked; the first picture that is drawn decides on the mark."""
        frames = self.motion.hold(rows)
        return to_bytes(self.mark(self.decoder.pictures_of(frames, self.denoiser.latents_of(frames))))

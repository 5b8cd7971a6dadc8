"""Held-out pictures as portraits, what they hide of a frame, and how near made frames come to the truth."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fd2talk_core.face.crop import CropTransform
from fd2talk_core.face.model import FaceModel
from fd2talk_core.face.state import FaceState
from fd2talk_core.frames.correspondence import reference_flow, warp_reference
from fd2talk_core.frames.decoding import decode_frames
from fd2talk_core.frames.denoising import sample_latents
from fd2talk_core.frames.portrait_motion import PortraitMotion
from fd2talk_core.frames.reference import Reference
from fd2talk_core.imaging import push_pull
from fd2talk_core.networks.autoencoder import FrameAutoencoder
from fd2talk_core.networks.latent_flow import LatentFlowUNet
from fd2talk_core.networks.unet import FrameUNet, named_masks

from .measures import psnr, ssim
from .regions import face_region, mouth_and_eyes
from .sources import PictureSet, VideoSet


@torch.no_grad()
def moved_and_hidden(
    face_model: FaceModel, reference: Reference, expression: Tensor, pose: Tensor
) -> tuple[Tensor, Tensor]:
    """The portrait as the mesh moves it, ``[F, 3, S, S]``, what it does not show filled from around; and
    ``[F, 1, S, S]`` bool, what that is: surface that it hides, and what is behind its head.
    """
    size = reference.crop.shape[0]
    own = reference.identity, reference.expression, reference.pose
    flow = reference_flow(face_model, *own, expression, pose, size)
    before = reference_flow(face_model, *own, *(part[None] for part in own[1:]), size)
    named = named_masks(flow.masks)
    left = before.masks[:, :1] * (1 - named["coverage"])
    hidden = torch.maximum(named["hidden"], left)
    moved = warp_reference(reference.crop.movedim(-1, 0)[None], flow.grid)
    filled = push_pull(moved * (1 - hidden), 1 - hidden)
    return torch.where(hidden > 0.5, filled, moved).clamp(0, 1), hidden > 0.5


@torch.no_grad()
def picture_reference(
    autoencoder: FrameAutoencoder, face_model: FaceModel, pictures: PictureSet, index: int
) -> Reference:
    """A labelled picture as a portrait whose coefficients are known."""
    crop = pictures.read(index).float() / 255
    size = crop.shape[-1]
    return Reference(
        latent=autoencoder.encode(crop[None].to(autoencoder.device))[0].cpu(),
        face=FaceState(
            pictures.identity[index],
            pictures.expression[index],
            pictures.pose[index],
            face_model.name,
        ),
        crop=crop.movedim(0, -1),
        crop_transform=CropTransform.of_square(size / 2, size / 2, size, size),
        picture=crop.movedim(0, -1),
        face_found=True,
    )


@dataclass(frozen=True)
class VideoMeasures:
    """Made frames beside the filmed ones.

    Attributes:
        psnr, ssim: on the face, in dB and up to 1.
        mouth: PSNR on the mouth, in dB.
        hidden: PSNR in the places that the portrait does not show, in dB.
        flicker: how much a frame's error changes up to the next frame, on average, in 255ths; an error that
            stays does not flicker.
    """

    psnr: float
    ssim: float
    mouth: float
    hidden: float
    flicker: float


def measure_frames(made: Tensor, truth: Tensor, face: Tensor, mouth: Tensor, hidden: Tensor) -> VideoMeasures:
    """Of successive frames.

    Args:
        made, truth: ``[F, 3, S, S]`` in 0..1.
        face, mouth, hidden: ``[F, 1, S, S]`` bool, see :func:`~training.regions.face_region`,
            :func:`~training.regions.mouth_and_eyes` and :func:`moved_and_hidden`.
    """
    some = hidden.flatten(1).any(dim=1)
    error = made - truth
    return VideoMeasures(
        psnr=float(psnr(made, truth, face).mean()),
        ssim=float(ssim(made, truth, face).mean()),
        mouth=float(psnr(made, truth, mouth).mean()),
        hidden=float(psnr(made[some], truth[some], hidden[some]).mean()),
        flicker=float(255 * error.diff(dim=0).abs().mean()),
    )


@dataclass(frozen=True, eq=False)
class HeldOutVideo:
    """The first frames of a held-out video, whose first is the portrait.

    Attributes:
        truth: ``[F, 3, S, S]`` in 0..1.
        face, mouth, hidden: ``[F, 1, S, S]`` bool.
        expression, pose: ``[F, D_β]`` and ``[F, 6]``.
        heard: ``[F, D_a]``; None where no encoder has heard it.
    """

    truth: Tensor
    face: Tensor
    mouth: Tensor
    hidden: Tensor
    expression: Tensor
    pose: Tensor
    heard: Tensor | None

    @classmethod
    def of(
        cls,
        videos: VideoSet,
        number: int,
        frames: int,
        autoencoder: FrameAutoencoder,
        face_model: FaceModel,
    ) -> tuple[HeldOutVideo, Reference]:
        """The frames of a video of a set, and its first as a portrait."""
        pictures, video = videos.pictures, videos.videos[number]
        shown = list(video.frames[:frames])
        reference = picture_reference(autoencoder, face_model, pictures, shown[0])
        labels = (pictures.identity[shown], pictures.expression[shown], pictures.pose[shown])
        _, hidden = moved_and_hidden(face_model, reference, *labels[1:])
        features = video.clip.features
        made = cls(
            truth=torch.stack([pictures.read(index) for index in shown]).float() / 255,
            face=face_region(face_model, *labels, pictures.size),
            mouth=mouth_and_eyes(face_model, *labels, pictures.size)[0],
            hidden=hidden,
            expression=labels[1],
            pose=labels[2],
            heard=None if features is None else features[:frames].float(),
        )
        return made, reference

    def measure(self, made: Tensor) -> VideoMeasures:
        """Made frames ``[F, 3, S, S]`` in 0..1 beside the true ones."""
        return measure_frames(made, self.truth, self.face, self.mouth, self.hidden)

    def made_by(
        self,
        unet: FrameUNet | LatentFlowUNet,
        autoencoder: FrameAutoencoder,
        reference: Reference,
        face_model: FaceModel,
        *,
        detail: float,
    ) -> Tensor:
        """The frames as a set's networks make them from the portrait and the video's own motion (and sound),
        ``[F, 3, S, S]``.
        """
        motion = PortraitMotion(reference.face, self.expression, self.pose, face_model)
        latents = sample_latents(unet, reference, motion, heard=self.heard, seed=0)
        overlaid = motion if unet.takes_overlay else None
        frames = decode_frames(
            autoencoder, latents, reference, motion=overlaid, paste_back=False, detail=detail
        )
        return frames.movedim(-1, 1)

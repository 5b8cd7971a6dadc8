"""The networks that are scored, and what they say and show."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fd2talk_core import configs
from fd2talk_core.audio.encoder import AudioEncoder
from fd2talk_core.audio.features import AudioFeatures
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.model import FaceModel, default_face_model
from fd2talk_core.frames.conditioning import align_portrait
from fd2talk_core.frames.decoding import DEFAULT_DETAIL, decode_frames
from fd2talk_core.frames.denoising import corresponder, sample_latents
from fd2talk_core.frames.portrait_motion import PortraitMotion
from fd2talk_core.frames.reference import Reference
from fd2talk_core.motion.coefficients import CoefficientSequence
from fd2talk_core.motion.sampling import sample_joint_motion, sample_motion, take_blinks
from fd2talk_core.networks.checkpoint import load_checkpoint
from fd2talk_core.networks.latent_flow import LatentFlowUNet
from fd2talk_core.networks.lip_expert import LipExpert

from ..sources import need_weights


@dataclass(frozen=True, eq=False)
class Weights:
    """The networks of a weights folder.

    Attributes:
        detail: strength of the portrait's own detail in what they show,
            see :func:`~fd2talk_core.frames.decoding.iter_decoded_frames`.
    """

    audio_encoder: AudioEncoder
    expression: torch.nn.Module
    pose: torch.nn.Module
    autoencoder: torch.nn.Module
    unet: torch.nn.Module
    lip_expert: LipExpert | None
    face_model: FaceModel
    folder: Path
    detail: float = DEFAULT_DETAIL

    @classmethod
    def load(cls, folder: Path, detail: float = DEFAULT_DETAIL) -> Weights:
        """Raises FD2TalkError naming a file that is missing or does not fit, files of two trainings, or a
        detail not in 0..1.
        """
        if not 0 <= detail <= 1:
            raise FD2TalkError(f"detail is {detail:g}, but a strength from 0 to 1 is needed.")
        face_model = default_face_model()
        networks = {
            name: configs.load_network(
                name, need_weights(folder, name, "training.everything"), face_model.name
            )
            for name in ("expression", "pose", "autoencoder", "unet")
        }
        if isinstance(networks["unet"], LatentFlowUNet) and networks["unet"].hears:
            raise FD2TalkError(
                f"The frames of {folder} are made from sound, and the scorecard's pictures have none: "
                "measure it with python -m training.evaluate, or train the UNet with hears: false."
            )
        encoder = AudioEncoder.from_pretrained(need_weights(folder, "audio_encoder", "training.everything"))
        path = folder / "lip_expert.safetensors"
        expert = load_checkpoint(path, LipExpert, face_model.name) if path.exists() else None
        return cls(
            encoder, **networks, lip_expert=expert, face_model=face_model, folder=folder, detail=detail
        )

    def sequences(
        self, features: AudioFeatures, seed: int
    ) -> tuple[CoefficientSequence, CoefficientSequence]:
        """Sampled expression and pose."""
        if self.expression.config.kind == "joint":
            return sample_joint_motion(self.expression, features, seed=seed)
        expression, pose = (
            sample_motion(network, features, kind=kind, seed=seed)
            for kind, network in (("expression", self.expression), ("pose", self.pose))
        )
        return take_blinks(expression, self.pose, features, seed), pose

    def talk(
        self,
        reference: Reference,
        expression: CoefficientSequence,
        pose: CoefficientSequence,
        mode: str,
        with_unet: bool = True,
    ) -> Tensor:
        """Frames ``[F, 3, S, S]`` in 0..1 of the crop."""
        motion = PortraitMotion.of(reference.face, expression, pose, mode, self.face_model)
        if with_unet:
            latents = sample_latents(self.unet, reference, motion, seed=0)
        else:
            latents = self.without_unet(reference, motion)
        frames = decode_frames(
            self.autoencoder,
            latents,
            reference,
            motion=motion if self.unet.takes_overlay else None,
            paste_back=False,
            detail=self.detail,
        )
        return frames.movedim(-1, 1)

    @torch.no_grad()
    def without_unet(self, reference: Reference, motion: PortraitMotion) -> Tensor:
        """``[F, d, h, w]``: what the UNet is given with the noise and changes; the portrait's own latent for
        one that is given none.
        """
        frames = range(motion.num_frames)
        if isinstance(self.unet, LatentFlowUNet):
            return _held(reference, motion)
        latent = reference.latent[None].to(self.unet.device, self.unet.dtype)
        moved = align_portrait(
            self.unet,
            latent,
            reference.crop.movedim(-1, 0)[None],
            corresponder(self.unet, motion, frames),
        )
        if moved is None:
            return _held(reference, motion)
        return moved[:, : latent.shape[1]].float().cpu()


def _held(reference: Reference, motion: PortraitMotion) -> Tensor:
    """The portrait's latent in every frame."""
    return reference.latent[None].expand(motion.num_frames, -1, -1, -1).contiguous()

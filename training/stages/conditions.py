"""What the frame UNet is conditioned on: encoded and aligned references, and estimated motion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fd2talk_core.audio.encoder import AudioEncoder
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.model import FaceModel
from fd2talk_core.frames.conditioning import align_reference
from fd2talk_core.frames.masking import masked_landmarks, mouth_region, without_mouth
from fd2talk_core.networks.autoencoder import FrameAutoencoder
from fd2talk_core.networks.checkpoint import load_checkpoint
from fd2talk_core.networks.diffusion import TRAIN_STEPS, add_noise, make_scheduler
from fd2talk_core.networks.motion_transformer import MotionTransformer
from fd2talk_core.networks.unet import FrameUNet

from ..sources import PictureSet, load_speech, need_weights


@dataclass(frozen=True)
class FitErrors:
    """Standard deviations of what a fit gets wrong.

    Attributes:
        identity: in α.
        expression: in β.
        pose: in p, radians and face-model units.
    """

    identity: float = 0.0
    expression: float = 0.0
    pose: float = 0.0

    def apply(
        self,
        identity: Tensor,
        reference: tuple[Tensor, Tensor],
        frame: tuple[Tensor, Tensor],
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Coefficients as a user has them: fitted to the reference, and changed from there by a motion. So
        both pictures share one error.

        Args:
            identity: ``[n, D_α]``.
            reference, frame: β ``[n, D_β]`` and p ``[n, 6]``.

        Returns:
            α, β and p of the references, β and p of the frames.
        """
        (beta, pose), (frame_beta, frame_pose) = reference, frame
        errors = (
            deviation * torch.randn(values.shape, generator=generator)
            for deviation, values in (
                (self.identity, identity),
                (self.expression, beta),
                (self.pose, pose),
            )
        )
        of_alpha, of_beta, of_pose = errors
        return (
            identity + of_alpha,
            beta + of_beta,
            pose + of_pose,
            frame_beta + of_beta,
            frame_pose + of_pose,
        )


@torch.no_grad()
def encode_pictures(
    pictures: PictureSet,
    autoencoder: FrameAutoencoder,
    used: Tensor,
    batch: int = 8,
    change: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """Latents ``[N, d, h, w]`` float16 of a set's pictures; zeros for those that are not ``used``.

    Args:
        change: of numbers and pictures ``[n, 3, S, S]``, what is encoded in their place.
    """
    from tqdm import tqdm

    device = next(autoencoder.parameters()).device
    latents = torch.zeros(0)
    for part in tqdm(used.split(batch), desc="encoding pictures", mininterval=2.0):
        images = torch.stack([pictures.read(int(i)) for i in part]).to(device).float() / 255
        if change is not None:
            images = change(part, images)
        encoded = autoencoder.encode(images).half().cpu()
        if not len(latents):
            latents = torch.zeros(len(pictures), *encoded.shape[1:], dtype=torch.float16)
        latents[part] = encoded
    return latents


@torch.no_grad()
def encode_masked(
    pictures: PictureSet, autoencoder: FrameAutoencoder, face_model: FaceModel, used: Tensor, batch: int = 8
) -> tuple[Tensor, Tensor]:
    """What a film would show of pictures whose mouths are to be painted: latents without the mouths
    ``[N, d, h, w]`` float16, and landmarks outside them ``[N, 2 L]``; zeros for those that are not ``used``.
    """

    def masked(numbers: Tensor, images: Tensor) -> Tensor:
        labels = pictures.identity[numbers], pictures.pose[numbers]
        region = mouth_region(face_model, *labels, images.shape[-1])
        return without_mouth(images, region.to(images))

    latents = encode_pictures(pictures, autoencoder, used, batch, masked)
    told = masked_landmarks(
        face_model, pictures.identity[used], pictures.expression[used], pictures.pose[used]
    )
    landmarks = torch.zeros(len(pictures), told.shape[1])
    landmarks[used] = told
    return latents, landmarks


@torch.no_grad()
def align_pairs(
    unet: FrameUNet,
    face_model: FaceModel,
    pictures: PictureSet,
    latents: Tensor,
    reference: Tensor,
    frame: Tensor,
    motion: Tensor,
    errors: FitErrors,
    generator: torch.Generator,
) -> Tensor:
    """The aligned reference of pairs of pictures, as the sampler would make it.

    Args:
        latents: ``[N, d, h, w]``, of all pictures.
        reference, frame: ``[n]``, numbers of pictures.
        motion: ``[N, D_β + 6]``, what each picture is conditioned on.
        errors: of the fits.

    Returns:
        ``[n, d + k, h, w]`` float16 on the CPU.
    """
    crops = torch.zeros(1, 3, 1, 1)
    if unet.config.reference_alignment == "warp_image":
        crops = torch.stack([pictures.read(int(i)) for i in reference]).float() / 255
    expression, pose = motion[frame].split([motion.shape[1] - 6, 6], dim=1)
    fitted = errors.apply(
        pictures.identity[reference],
        (pictures.expression[reference], pictures.pose[reference]),
        (expression, pose),
        generator,
    )
    aligned = align_reference(unet, face_model, latents[reference].float(), crops, *fitted)
    return aligned.half().cpu()


@torch.no_grad()
def estimate_motion(
    pictures: PictureSet, data: Path, weights: Path, face_model: FaceModel, folder: Path, seed: int
) -> tuple[Tensor, int]:
    """β̃₀ and p̃₀ of every picture that is a frame of a recording: one denoising step from the recording's own
    noised coefficients (FD2Talk Sec. 3.4.2).

    The timestep is drawn for each picture; the estimates still match the frames, and err as the networks err.
    A picture of no recording keeps its true coefficients: there is nothing to estimate them from.

    Returns:
        ``[N, D_β + 6]``, and how many of the N are estimates.

    Raises:
        FD2TalkError: when no picture belongs to a recording, or one to a recording that is not in the data.
    """
    places = [(number, *place) for number, place in enumerate(pictures.clips) if place is not None]
    if not places:
        raise FD2TalkError(
            "condition is 'estimated', which needs pictures that are frames of a recording, but the pictures "
            "in the data have none; set condition: true."
        )
    encoder = AudioEncoder.from_pretrained(need_weights(weights, "audio_encoder", "training.audio_encoder"))
    paths = {need_weights(weights, kind, "training.motion") for kind in ("expression", "pose")}
    networks = [load_checkpoint(path, MotionTransformer) for path in sorted(paths)]
    speech = load_speech(data, face_model)[0].with_features(encoder, folder)
    clips = {clip.name: clip for clip in speech.clips}
    scheduler = make_scheduler()
    generator = torch.Generator().manual_seed(seed)
    estimates = torch.cat([pictures.expression, pictures.pose], dim=1)
    for number, name, frame in places:
        if name not in clips:
            raise FD2TalkError(f"A picture belongs to the recording {name!r}, which is not in the data.")
        clip = clips[name]
        if not 0 <= frame < clip.num_frames:
            raise FD2TalkError(
                f"A picture is frame {frame} of the recording {name!r}, which has {clip.num_frames} frames."
            )
        start = max(0, min(frame - 12, clip.num_frames - 25))
        part = slice(start, start + 25)
        timestep = torch.randint(TRAIN_STEPS, (1,), generator=generator)
        rows = []
        for network in networks:
            x0 = network.normalize(clip.coefficients(network.config.kind)[part])
            noise = torch.randn(x0.shape, generator=generator)
            noisy = add_noise(x0[None], noise[None], timestep, scheduler)
            estimate = network(noisy, timestep, clip.features[part][None].float())
            rows.append(network.denormalize(estimate)[0, frame - start])
        estimates[number] = torch.cat(rows)
    return estimates, len(places)


def load_autoencoder(weights: Path) -> FrameAutoencoder:
    """The frozen autoencoder of a weights folder."""
    return load_checkpoint(need_weights(weights, "autoencoder", "training.autoencoder"), FrameAutoencoder)

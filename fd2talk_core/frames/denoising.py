"""Denoising: motion and a portrait become latents, one a frame (FD2Talk Sec. 3.3, Eq. 5).

Frames are made in batches that fit the memory and handed on as they are done, so that the length of a clip
costs no memory. What a frame becomes depends on the seed, its number and its motion alone, never on its
batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..checks import checked
from ..errors import FD2TalkError
from ..metering import stage
from ..networks.diffusion import NoiseMode, ddim_sample, frame_noise, sampling_timesteps
from ..networks.latent_flow import LatentFlowUNet
from ..networks.precision import fast_math
from ..networks.unet import ConditionCache, FrameUNet
from ..progress import Callback
from .batches import free_memory, in_batches
from .conditioning import Corresponder, align_portrait
from .flow_denoising import STRETCH, FlowDenoiser
from .portrait_motion import PortraitMotion
from .reference import Reference

DEFAULT_STEPS = 8
"""For a network that recommends no number of steps."""

LARGEST_BATCH = {"cpu": 16, "cuda": 64, "mps": 16}
"""Frames denoised together at most: beyond these nothing is gained."""

_MEMORY_SHARE = 0.25
_LIVE_MAPS = 40
"""Maps of the UNet's finest level that are alive at once, skips and attention included (measured, rounded
up).
"""


def sample_latents(
    unet: FrameUNet | LatentFlowUNet, reference: Reference, motion: PortraitMotion, **options: object
) -> Tensor:
    """The latents of a whole clip, ``[F, d, h, w]`` float32 on the CPU; arguments as :func:`iter_latents`."""
    # filled as chunks come: joining them at the end would hold the clip twice
    latents = torch.empty(motion.num_frames, *reference.latent.shape)
    done = 0
    for chunk in iter_latents(unet, reference, motion, **options):
        latents[done : done + len(chunk)] = chunk
        done += len(chunk)
    return latents


@checked
def iter_latents(
    unet: FrameUNet | LatentFlowUNet,
    reference: Reference,
    motion: PortraitMotion,
    *,
    heard: Tensor | None = None,
    seed: int,
    steps: int | None = None,
    eta: float = 0.0,
    noise_mode: NoiseMode = "shared",
    frames_per_batch: int | None = None,
    callback: Callback | None = None,
) -> Iterator[Tensor]:
    """The latents of a clip in order, a few frames at a time.

    Frames that have the same motion as an earlier one are not denoised again where all frames share their
    noise: they would come out the same.

    Args:
        unet: θ_unet; or a network that makes all frames of a clip together (DAWN), which looks at the frames
            around each and so makes none twice.
        reference: the portrait.
        motion: of the portrait.
        heard: ``[F, D_a]``, audio features of each frame of the whole clip
            (:meth:`~fd2talk_core.audio.features.AudioFeatures.on_frames`), for a network that wants them
            beside the motion.
        seed: of the noise.
        steps: DDIM steps; None takes what the checkpoint recommends.
        eta: 0 is DDIM, 1 is DDPM.
        noise_mode: ``"shared"``: every frame starts from one noise (and with eta is given one ε a step), so
            that frames that are made one by one do not flicker; ``"per_frame"``: the paper's.
        frames_per_batch: None goes by the memory at hand. When memory runs out, the batch is halved. Frames
            that are made together are handed on so many at a time.
        callback: called after each denoising step with the steps done and to do, counted over frames, and x̃₀
            of the frames at work.

    Returns:
        an iterator of ``[n, d, h, w]`` float32 on the CPU.

    Raises:
        FD2TalkError: at once, when the inputs do not fit each other or an argument is out of range.
    """
    steps = recommended_steps(unet) if steps is None else steps
    sampling_timesteps(steps)
    if not 0 <= eta <= 1:
        raise FD2TalkError(f"eta is {eta}, but a number from 0 (deterministic) to 1 is needed.")
    if frames_per_batch is not None and frames_per_batch < 1:
        raise FD2TalkError(f"frames_per_batch is {frames_per_batch}, but at least 1 is needed.")
    if reference.latent.shape[0] != unet.config.latent_channels:
        raise FD2TalkError(
            f"The reference's latent has {reference.latent.shape[0]} channels and the UNet was made for "
            f"{unet.config.latent_channels}: encode the portrait with the autoencoder of the UNet's set."
        )
    _check_face_model(unet, motion)
    if isinstance(unet, LatentFlowUNet):
        together = FlowDenoiser(unet, reference, motion, heard, seed, steps, eta, noise_mode, callback)
        return together.latents(frames_per_batch or STRETCH)
    if unet.config.masked_input:
        raise FD2TalkError(
            "This UNet paints mouths into filmed frames and makes none of a portrait: dub a video with it."
        )
    if unet.config.progressive and motion.first:
        raise FD2TalkError(
            "This set makes each frame from the one before it, so a part of a clip cannot be made alone."
        )
    denoiser = ClipDenoiser(unet, reference, motion, seed, steps, eta, noise_mode, callback)
    return denoiser.latents(frames_per_batch or automatic_batch(unet, reference.latent.shape))


def recommended_steps(unet: FrameUNet | LatentFlowUNet) -> int:
    """DDIM steps where nobody names a number."""
    return getattr(getattr(unet, "info", None), "steps", 0) or DEFAULT_STEPS


class ClipDenoiser:
    """One clip on its way through the UNet; arguments as :func:`iter_latents`."""

    def __init__(
        self,
        unet: FrameUNet,
        reference: Reference,
        motion: PortraitMotion,
        seed: int,
        steps: int,
        eta: float,
        noise_mode: NoiseMode,
        callback: Callback | None,
    ) -> None:
        self.unet, self.motion = unet, motion
        self.latent = reference.latent[None].to(unet.device, unet.dtype)
        self.crop = reference.crop.movedim(-1, 0)[None]
        self.seed, self.steps, self.eta, self.noise_mode = seed, steps, eta, noise_mode
        self.callback = callback
        self.steps_done = self.steps_to_do = 0

    def latents(self, batch: int) -> Iterator[Tensor]:
        """``[n, d, h, w]`` at a time. Frames alike are denoised once, and kept as long as one is to come."""
        if self.unet.config.progressive:
            yield from self._one_after_another(batch)
            return
        alike = self.motion.first_alike() if self.noise_mode == "shared" else range(self.motion.num_frames)
        distinct = [frame for frame, first in enumerate(alike) if frame == first]
        last_use = {first: frame for frame, first in enumerate(alike)}
        self.steps_done, self.steps_to_do = 0, self.steps * len(distinct)
        with torch.no_grad():
            reference_cache = self.unet.reference_keys_values(self.latent)
        ready: dict[int, Tensor] = {}
        following = 0
        for frames, made in in_batches(distinct, batch, lambda part: self._denoise(part, reference_cache)):
            ready.update(zip(frames, made, strict=True))
            while following < len(alike) and alike[following] in ready:
                chunk = []
                while following < len(alike) and alike[following] in ready and len(chunk) < batch:
                    source = alike[following]
                    chunk.append(ready[source])
                    if last_use[source] == following:
                        del ready[source]
                    following += 1
                yield torch.stack(chunk)

    @torch.no_grad()
    def _one_after_another(self, batch: int) -> Iterator[Tensor]:
        """``[n, d, h, w]`` at a time, each frame with the one before it in the portrait's place."""
        self.steps_done, self.steps_to_do = 0, self.steps * self.motion.num_frames
        reference, made = self.latent, []
        for frame in range(self.motion.num_frames):
            made.append(self._denoise([frame], self.unet.reference_keys_values(reference), reference))
            reference = made[-1].to(self.latent)
            if len(made) == batch or frame == self.motion.num_frames - 1:
                yield torch.cat(made)
                made = []

    @torch.no_grad()
    def _denoise(self, frames: Sequence[int], reference_cache: tuple, latent: Tensor | None = None) -> Tensor:
        """``[n, d, h, w]``; φ₂'s keys and values are the clip's, φ₁'s are made once a frame. The reference
        is the portrait's latent, or another ``[1, d, h, w]``.
        """
        unet, latent = self.unet, self.latent if latent is None else latent
        coefficients = self.motion.coefficients(frames).to(latent)
        cache = ConditionCache(unet.motion_keys_values(coefficients), reference_cache)
        with stage("alignment"):
            warped = align_portrait(unet, latent, self.crop, corresponder(unet, self.motion, frames))

        numbers = [self.motion.first + frame for frame in frames]

        def noise(step: int | None = None) -> Tensor:
            return frame_noise(self.seed, numbers, latent.shape[1:], self.noise_mode, step)

        def report(step: int, _: int, preview: Tensor | None) -> None:
            if self.callback is not None:
                self.callback(self.steps_done + step * len(frames), self.steps_to_do, preview)

        def denoise(sample: Tensor, timestep: Tensor) -> Tensor:
            with stage("UNet"), fast_math(unet.device):
                return unet(sample, timestep, None, latent, warped, cache)

        made = ddim_sample(
            denoise,
            noise().to(latent),
            steps=self.steps,
            eta=self.eta,
            noise_fn=noise,
            callback=report,
        )
        self.steps_done += self.steps * len(frames)
        return made.float().cpu()


def corresponder(unet: FrameUNet, motion: PortraitMotion, frames: Sequence[int]) -> Corresponder:
    """What :func:`~fd2talk_core.frames.conditioning.align_portrait` asks of some frames of a clip."""
    if unet.config.reference_alignment == "warp_image":
        # the blend asks for the same, as finely
        return lambda size, supersample: motion.field(frames, again=unet.takes_overlay)
    return lambda size, supersample: motion.correspondence(frames, size, supersample)


def automatic_batch(unet: FrameUNet, latent_shape: Sequence[int]) -> int:
    """Frames to denoise together, by the memory at hand."""
    device = unet.device
    _, height, width = latent_shape
    finest = height * width * unet.config.block_out_channels[0] * unet.dtype.itemsize
    fitting = int(free_memory(device) * _MEMORY_SHARE / (finest * _LIVE_MAPS))
    return max(1, min(fitting, LARGEST_BATCH.get(device.type, 16)))


def _check_face_model(unet: FrameUNet | LatentFlowUNet, motion: PortraitMotion) -> None:
    made_for, fitted = getattr(getattr(unet, "info", None), "face_model", ""), motion.portrait.face_model
    if made_for and made_for != fitted:
        raise FD2TalkError(
            f"The UNet was trained for the face model {made_for!r}, but the portrait was fitted with "
            f"{fitted!r}: they must be the same."
        )
    if isinstance(unet, LatentFlowUNet) or unet.config.reference_alignment != "none":
        motion.face_model  # noqa: B018  says at once when there is no mesh of this face model

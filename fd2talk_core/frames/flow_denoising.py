"""All frames at once: the flow of the portrait's latent, over stretches of a clip (DAWN Sec. 3.3, 3.6).

Frames see one another as far as the network's window reaches. So a stretch is denoised together with as many
frames before and after it, which are then left out: the length of a clip costs no memory, and a part of a
clip comes out as it does in the whole.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..errors import FD2TalkError
from ..face.model import FaceModel
from ..imaging import averaged
from ..metering import stage
from ..networks.diffusion import NoiseMode, ddim_sample, frame_noise
from ..networks.latent_flow import PLANES, LatentFlowUNet
from ..networks.pose_blink import BLINK_NAMES
from ..networks.precision import fast_math
from ..progress import Callback
from .correspondence import SMALLEST_VIEW, PortraitView
from .portrait_motion import PortraitMotion
from .reference import Reference

STRETCH = 64
"""Frames that are denoised for good together; of the whole clip, they begin at multiples of it."""


class FlowDenoiser:
    """One clip on its way through a :class:`~fd2talk_core.networks.latent_flow.LatentFlowUNet`; arguments as
    :func:`~fd2talk_core.frames.denoising.iter_latents`.
    """

    def __init__(
        self,
        network: LatentFlowUNet,
        reference: Reference,
        motion: PortraitMotion,
        heard: Tensor | None,
        seed: int,
        steps: int,
        eta: float,
        noise_mode: NoiseMode,
        callback: Callback | None,
    ) -> None:
        self.network, self.motion = network, motion
        self.latent = reference.latent[None].to(network.device, network.dtype)
        self.seed, self.steps, self.eta, self.noise_mode = seed, steps, eta, noise_mode
        self.callback = callback
        size = self.latent.shape[-1]
        self.face = face_mask(motion.portrait_view(SMALLEST_VIEW), size).to(self.latent)
        portrait = torch.cat([motion.portrait.expression, motion.portrait.pose])[None]
        self.start = states_of(portrait, network, motion.face_model)
        self.heard = _check_heard(network, heard, motion)
        self.steps_done = self.steps_to_do = 0

    def latents(self, batch: int) -> Iterator[Tensor]:
        """``[n, d, h, w]`` at a time, at most ``batch`` of them."""
        shown = range(self.motion.first, self.motion.first + self.motion.num_frames)
        starts = range(shown.start - shown.start % STRETCH, shown.stop, STRETCH)
        stretches = [range(start, min(start + STRETCH, self.motion.whole_length)) for start in starts]
        self.steps_to_do = self.steps * sum(map(len, stretches))
        for stretch in stretches:
            made = self._denoise(stretch)
            inside = slice(max(shown.start - stretch.start, 0), shown.stop - stretch.start)
            yield from made[inside].split(batch)

    @torch.no_grad()
    def _denoise(self, stretch: range) -> Tensor:
        """``[n, d, h, w]`` of successive frames of the whole clip."""
        network, latent = self.network, self.latent
        reach = network.config.attention_window
        seen = range(max(stretch.start - reach, 0), min(stretch.stop + reach, self.motion.whole_length))
        states = states_of(self.motion.coefficients_of_whole(seen), network, self.motion.face_model)
        change = (states - self.start)[None].to(latent)
        heard = None if self.heard is None else self.heard[None, seen.start : seen.stop].to(latent)

        def noise(step: int | None = None) -> Tensor:
            shape = (PLANES, *latent.shape[-2:])
            return frame_noise(self.seed, seen, shape, self.noise_mode, step)[None]

        def report(step: int, _: int, preview: Tensor | None) -> None:
            if self.callback is not None:
                shown = None if preview is None else network.latents(preview[0, :1], latent)
                self.callback(self.steps_done + step * len(stretch), self.steps_to_do, shown)

        def denoise(sample: Tensor, timestep: Tensor) -> Tensor:
            with stage("UNet"), fast_math(network.device):
                return network(sample, timestep, change, latent, self.face, heard).to(sample)

        planes = ddim_sample(
            denoise, noise().to(latent), steps=self.steps, eta=self.eta, noise_fn=noise, callback=report
        )
        self.steps_done += self.steps * len(stretch)
        first = stretch.start - seen.start
        return network.latents(planes[0, first : first + len(stretch)], latent).float().cpu()


def face_mask(view: PortraitView, size: int) -> Tensor:
    """``[1 or F, 1, size, size]`` in 0..1: where a portrait shows its face, as DAWN's mask does."""
    return averaged(view.raster.covered[:, None].float(), size)


def states_of(coefficients: Tensor, network: LatentFlowUNet, face_model: FaceModel) -> Tensor:
    """ρ ``[F, D_ρ]`` of {β, p} ``[F, D_β + 6]``, as a network has it.

    Raises:
        FD2TalkError: when the face model has no lids for a network that is told them.
    """
    if network.config.states == "motion":
        return coefficients
    names = list(face_model.expression_names)
    if not set(BLINK_NAMES) <= set(names):
        raise FD2TalkError(
            f"This network is told how far the lids are shut, but the face model {face_model.name!r} has no "
            f"{' and '.join(BLINK_NAMES)}."
        )
    lids = coefficients[:, [names.index(name) for name in BLINK_NAMES]]
    return torch.cat([coefficients[:, len(names) :], lids], dim=1)


def _check_heard(network: LatentFlowUNet, heard: Tensor | None, motion: PortraitMotion) -> Tensor | None:
    """What a network takes of the sound, ``[F, D_a]`` of the whole clip."""
    if not network.hears:
        return None
    if heard is None:
        raise FD2TalkError(
            "These frames are made from the sound beside the motion: give the audio features of the voice."
        )
    if heard.shape != (motion.whole_length, network.config.audio_dim):
        raise FD2TalkError(
            f"The audio features have shape {tuple(heard.shape)}, but the motion has {motion.whole_length} "
            f"frames and this network was trained with {network.config.audio_dim} features of each: take the "
            "sound of the motion and the audio encoder of the network's set."
        )
    return heard

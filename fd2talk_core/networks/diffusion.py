"""Diffusion whose networks predict the signal x₀ (FD2Talk Eq. 2, 3, 5), shared by motion and frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from ..errors import FD2TalkError
from ..progress import Callback

if TYPE_CHECKING:
    from diffusers import DDIMScheduler

TRAIN_STEPS = 1000
"""T of FD2Talk Eq. 2. The paper's t in 1..T is index t - 1 here, as in diffusers."""


Denoiser = Callable[[Tensor, Tensor], Tensor]
"""``denoise(x_t, t) -> x0`` with ``t`` a 0-dim int64 tensor on the device of ``x_t``."""

NoiseMode = Literal["shared", "per_frame"]


def make_scheduler() -> DDIMScheduler:
    """The noise schedule of every network: DDPM's linear β from 1e-4 to 0.02 over T = 1000.

    ``trailing`` spacing starts sampling at T itself however few the steps: there x_T is the pure noise that
    it is drawn as, while diffusers' default (``leading``) would call four steps' first x at t = 750, where
    training showed the network a signal. ᾱ₀ = 1 makes the last step return x̃₀ without noise. Nothing is
    clipped: coefficients and latents are normalised, not bounded.
    """
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=TRAIN_STEPS,
        beta_schedule="linear",
        beta_start=1e-4,
        beta_end=0.02,
        prediction_type="sample",
        timestep_spacing="trailing",
        set_alpha_to_one=True,
        clip_sample=False,
    )


def add_noise(x0: Tensor, noise: Tensor, timesteps: Tensor, scheduler: DDIMScheduler | None = None) -> Tensor:
    """FD2Talk Eq. 2: x_t = sqrt(ᾱ_t) x₀ + sqrt(1 - ᾱ_t) ε.

    Args:
        x0, noise: ``[B, ...]``.
        timesteps: ``[B]`` int64, 0..T-1.
        scheduler: from :func:`make_scheduler`; give one to a training loop to spare making it at each step.
    """
    return (scheduler or make_scheduler()).add_noise(x0, noise, timesteps)


def diffusion_loss(
    denoise: Callable[[Tensor, Tensor], Tensor],
    x0: Tensor,
    *,
    scheduler: DDIMScheduler | None = None,
    timesteps: Tensor | None = None,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
    weights: Tensor | None = None,
    reduction: Literal["mean", "sample", "none"] = "mean",
) -> tuple[Tensor, Tensor, Tensor]:
    """FD2Talk Eq. 3 (and 8, 9, 16): the L2 error of x̃₀ = θ(x_t, t) with x_t from Eq. 2.

    Args:
        denoise: ``(x_t [B, ...], t [B] int64) -> x0 [B, ...]``.
        x0: ``[B, ...]`` clean signal, normalised. The error is taken at its precision, whatever that of the
            network.
        scheduler: as in :func:`add_noise`.
        timesteps: ``[B]``, drawn uniformly from 0..T-1 where not given.
        noise: like ``x0``, drawn from N(0, 1) where not given.
        generator: on the CPU; both draws come from it.
        weights: broadcast to ``x0``, what the squared error of each element counts.
        reduction: ``"sample"`` averages within each sample, ``"none"`` keeps every element.

    Returns:
        the loss (a scalar, ``[B]``, or like ``x0``), x̃₀, and the timesteps.
    """
    if timesteps is None:
        timesteps = torch.randint(0, TRAIN_STEPS, (x0.shape[0],), generator=generator)
    timesteps = timesteps.to(x0.device)
    if noise is None:
        noise = torch.randn(x0.shape, generator=generator).to(x0)
    prediction = denoise(add_noise(x0, noise, timesteps, scheduler), timesteps).to(x0.dtype)
    loss = (prediction - x0).square()
    if weights is not None:
        loss = loss * weights
    if reduction == "sample":
        loss = loss.flatten(1).mean(dim=1)
    elif reduction == "mean":
        loss = loss.mean()
    return loss, prediction, timesteps


def sampling_timesteps(steps: int) -> list[int]:
    """The timesteps of a ``steps``-step run from T down, ending with -1, which stands for the clean signal.

    Raises:
        FD2TalkError: when steps is not in 1..1000.
    """
    if isinstance(steps, bool) or int(steps) != steps or not 1 <= steps <= TRAIN_STEPS:
        raise FD2TalkError(f"steps is {steps}, but a whole number from 1 to {TRAIN_STEPS} is needed.")
    scheduler = make_scheduler()
    scheduler.set_timesteps(int(steps))
    # diffusers counts down in floats, which for some step counts yields one timestep too many
    return [*scheduler.timesteps.tolist()[: int(steps)], -1]


def ddim_step(
    scheduler: DDIMScheduler,
    x0: Tensor,
    timestep: int,
    previous: int,
    sample: Tensor,
    *,
    eta: float = 0.0,
    noise: Tensor | None = None,
) -> Tensor:
    """FD2Talk Eq. 5: from x_t to the less noisy x at ``previous`` (-1: the clean signal).

    σ_t = eta · sqrt((1 - ᾱ_prev) / (1 - ᾱ_t)) · sqrt(1 - ᾱ_t / ᾱ_prev), DDIM's; ``noise`` is ε, needed when
    eta > 0.
    """
    # diffusers derives the previous timestep as t - T // num_inference_steps, which misses its own timesteps
    # wherever the step count does not divide T; as the exact fraction T / stride it hits them
    scheduler.num_inference_steps = Fraction(TRAIN_STEPS, timestep - previous)
    return scheduler.step(x0, timestep, sample, eta=eta, variance_noise=noise).prev_sample


@torch.no_grad()
def ddim_sample(
    denoise: Denoiser,
    noise: Tensor,
    *,
    steps: int,
    eta: float = 0.0,
    noise_fn: Callable[[int], Tensor] | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Denoise x_T to x₀ (FD2Talk Sec. 3.1.2, Eq. 5).

    Args:
        denoise: ``(x_t, t) -> x0``; called once a step.
        noise: x_T, any shape.
        steps: 1 to 1000.
        eta: 0 is deterministic DDIM, 1 adds as much noise a step as DDPM.
        noise_fn: ``step index -> ε`` shaped like ``noise``; needed when eta > 0, so that the caller decides
            what the noise depends on (see :func:`frame_noise`).
        callback: after each step, with x̃₀ as the preview.

    Raises:
        FD2TalkError: for steps or eta out of range.
    """
    if not 0 <= eta <= 1:
        raise FD2TalkError(f"eta is {eta}, but a number from 0 (deterministic) to 1 is needed.")
    if eta > 0 and noise_fn is None:
        raise FD2TalkError(f"eta is {eta}, so a noise_fn is needed to draw the noise of each step.")
    timesteps = sampling_timesteps(steps)
    scheduler = make_scheduler()
    sample = noise
    for index, (timestep, previous) in enumerate(pairwise(timesteps)):
        x0 = denoise(sample, torch.tensor(timestep, device=sample.device))
        # σ is 0 at the last step (ᾱ₀ = 1), so its noise need not be drawn
        extra = noise_fn(index).to(sample) if noise_fn and eta > 0 and previous >= 0 else None
        sample = ddim_step(
            scheduler, x0, timestep, previous, sample, eta=eta if extra is not None else 0.0, noise=extra
        )
        if callback is not None:
            callback(index + 1, len(timesteps) - 1, x0)
    return sample


_MASK64 = (1 << 64) - 1


def _mix(value: int) -> int:
    """SplitMix64's finaliser: neighbouring seeds and frames give unrelated generators."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK64
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK64
    return value ^ (value >> 31)


def _map(seed: int, frame: int, step: int | None, shape: Sequence[int]) -> Tensor:
    key = _mix(_mix(_mix(int(seed) & _MASK64) ^ frame) ^ (0 if step is None else step + 1))
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(key))


def frame_noise(
    seed: int,
    frame_indices: Sequence[int],
    shape: Sequence[int],
    mode: NoiseMode = "per_frame",
    step: int | None = None,
) -> Tensor:
    """Noise of the frames named, on the CPU: it depends on nothing but the seed, the frame and the step.

    Args:
        seed: any integer.
        frame_indices: indices in the clip, n of them.
        shape: of one frame.
        mode: ``"shared"`` gives every frame the same map, which keeps frames that are denoised one by one
            from flickering; ``"per_frame"`` is the paper's independent noise.
        step: None for x_T, else the index of the sampling step that ε of Eq. 5 is drawn for.

    Returns:
        ``[n, *shape]``; a shared map is expanded, not copied.

    Raises:
        FD2TalkError: for another mode.
    """
    if mode == "shared":
        return _map(seed, 0, step, shape).expand(len(frame_indices), *shape)
    if mode != "per_frame":
        raise FD2TalkError(f"The noise mode is {mode!r}, but 'shared' or 'per_frame' is needed.")
    if not len(frame_indices):
        return torch.zeros(0, *shape)
    return torch.stack([_map(seed, int(index), step, shape) for index in frame_indices])

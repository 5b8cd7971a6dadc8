"""Few steps: a student learns to go in one step where its teacher goes in several.

Progressive distillation (Salimans & Ho 2022) for networks that predict x₀: the student's step from t ends
where its teacher's over the same interval end. Sampling is deterministic, so a student of one step still
makes of each noise what its teacher would, not the mean of all that could be.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from fd2talk_core.checks import check_whole
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.networks.diffusion import TRAIN_STEPS, add_noise, make_scheduler, sampling_timesteps

from .motion import MotionStage
from .unet import UNetStage

Denoise = Callable[[Tensor, Tensor], Tensor]
"""``(x_t [B, ...], t [B]) -> x0``."""

MEASURED_STEPS = 50
"""Of the teacher that students are held against: the paper's number."""


class Interval:
    """The steps of a student, and the teacher's within each.

    Args:
        steps: of the student.
        teacher_steps: a multiple of them.
    """

    def __init__(self, steps: int, teacher_steps: int) -> None:
        check_whole(steps, "The student's steps", 1, TRAIN_STEPS)
        check_whole(teacher_steps, "The teacher's steps", steps, TRAIN_STEPS)
        if teacher_steps % steps:
            raise FD2TalkError(
                f"A student of {steps} steps cannot follow a teacher of {teacher_steps}: give a multiple."
            )
        self.steps, self.substeps = steps, teacher_steps // steps
        times = sampling_timesteps(teacher_steps)
        self.times = torch.tensor(times)
        self.starts = self.times[: -1 : self.substeps]
        self.scheduler = make_scheduler()
        # ᾱ by timestep, with that of -1, the clean signal, at the end, where Python's index -1 finds it
        self.signal = torch.cat([self.scheduler.alphas_cumprod, torch.ones(1)])

    def draw(self, generator: torch.Generator) -> Tensor:
        """A timestep at which the student's steps start, 0-dim."""
        return self.starts[torch.randint(self.steps, (), generator=generator)]

    def target(self, teacher: Denoise, x0: Tensor, noise: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """What the student is shown, and what it should answer.

        Args:
            teacher: is asked ``substeps`` times.
            x0, noise: ``[B, ...]``.
            start: ``[B]``, of :meth:`draw`.

        Returns:
            x_t, and the x̃₀ by which one DDIM step (Eq. 5, η = 0) from there ends where the teacher's do.
        """
        first = (self.starts.to(start) == start[:, None]).int().argmax(dim=1) * self.substeps
        times = self.times.to(start)
        begin = add_noise(x0, noise, start, self.scheduler)
        sample = begin
        for step in range(self.substeps):
            now, then = times[first + step], times[first + step + 1]
            sample = self.step(sample, teacher(sample, now), now, then)
        a, s = self._scales(start, x0)
        b, r = self._scales(times[first + self.substeps], x0)
        return begin, (sample - r / s * begin) / (b - r / s * a)

    def step(self, sample: Tensor, x0: Tensor, now: Tensor, then: Tensor) -> Tensor:
        """Eq. 5 with η = 0 for samples ``[B, ...]`` that stand at different timesteps ``[B]``."""
        a, s = self._scales(now, sample)
        b, r = self._scales(then, sample)
        return b * x0 + r / s * (sample - a * x0)

    def _scales(self, times: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        signal = self.signal.to(like)[times].reshape(-1, *[1] * (like.ndim - 1))
        return signal.sqrt(), (1 - signal).clamp_min(0).sqrt()


class StudentUNet(UNetStage):
    """A UNet that makes frames in few steps.

    Args:
        stage: whose network has the teacher's weights; it is trained, its copy teaches.
        reached: what the first teacher of a chain measures in :data:`MEASURED_STEPS`; None where this is it.
    """

    def __init__(
        self, stage: UNetStage, steps: int, teacher_steps: int, reached: dict[str, float] | None = None
    ) -> None:
        options = replace(stage.options, steps=steps)
        shared = (stage.autoencoder, stage.pairs, stage.held_out, stage.held_out_pictures, stage.face_model)
        super().__init__(stage.networks["unet"], *shared, options)
        self.interval = Interval(steps, teacher_steps)
        self.teacher = _frozen(stage.networks["unet"])
        self.reached = reached

    def sample(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        return {**super().sample(index, generator), "timestep": self.interval.draw(generator)}

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        with torch.no_grad():
            teacher = self.denoiser(self.teacher, batch)
            shown, wanted = self.interval.target(teacher, batch["frame"], batch["noise"], batch["timestep"])
        error = (self.denoiser(self.networks["unet"], batch)(shown, batch["timestep"]) - wanted).square()
        weights = self._weights(batch)
        return {"loss": (error if weights is None else error * weights).mean()}

    def validate(self, folder: Path | None) -> dict[str, float]:
        """Those of the stage, and what the first teacher reaches in :data:`MEASURED_STEPS`."""
        if self.reached is None:
            own, options = self.networks["unet"], self.options
            self.networks["unet"], self.options = self.teacher, replace(options, steps=MEASURED_STEPS)
            self.reached = super().validate(None)
            self.networks["unet"], self.options = own, options
        found = super().validate(folder)
        teacher = {f"teacher_{name}": self.reached[name] for name in ("psnr", "ssim")}
        return {**found, **teacher, "psnr_loss": self.reached["psnr"] - found["psnr"]}


class StudentMotion(MotionStage):
    """ExpDiT and PoseDiT that make motion in few steps, in every style that their teachers know.

    Args:
        stage: whose networks have the teachers' weights; they are trained, their copies teach.
        reached: as of :class:`StudentUNet`.
    """

    def __init__(
        self, stage: MotionStage, steps: int, teacher_steps: int, reached: dict[str, float] | None = None
    ) -> None:
        networks = dict(stage.networks.items())
        shared = (stage.expert, stage.speech, stage.held_out, stage.face_model, stage.options)
        kept = {kind: (n.coefficient_mean.clone(), n.coefficient_std.clone()) for kind, n in networks.items()}
        super().__init__(networks, *shared)
        for kind, (mean, deviation) in kept.items():  # the teachers', not those of this data
            networks[kind].set_normalization(mean, deviation)
        self.style_words = stage.style_words
        self.in_styles = bool(self.styles)  # the teachers show any, whatever the recordings are said in
        for network in networks.values():
            if network.config.styles:
                network.style.requires_grad_(True)
        self.interval = Interval(steps, teacher_steps)
        self.teachers = nn.ModuleDict({kind: _frozen(network) for kind, network in networks.items()})
        for network in networks.values():
            network.register_to_config(recommended_steps=steps, free_steps=0)
        for network in self.teachers.values():
            network.register_to_config(recommended_steps=MEASURED_STEPS, free_steps=0)
        self.reached = reached

    def sample(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        sample = super().sample(index, generator)
        if self.styles:
            sample["style"] = drawn_style(len(self.styles), generator)
        return {**sample, **{f"{kind}_timestep": self.interval.draw(generator) for kind in self.networks}}

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        losses = {}
        for kind, network in self.networks.items():
            with torch.no_grad():
                shown, wanted = self.interval.target(
                    self.denoiser(self.teachers[kind], batch),
                    network.normalize(self._target(kind, batch)),
                    batch[f"{kind}_noise"],
                    batch[f"{kind}_timestep"],
                )
            answer = self.denoiser(network, batch)(shown, batch[f"{kind}_timestep"])
            losses[f"{kind}_loss"] = (answer - wanted).square().mean()
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}

    def validate(self, folder: Path | None) -> dict[str, float]:
        """Those of the stage, and what the first teachers reach in :data:`MEASURED_STEPS`."""
        if self.reached is None:
            own, self.networks = self.networks, self.teachers
            self.reached = super().validate(None)
            self.networks = own
        found = super().validate(folder)
        teacher = {f"teacher_{name}": self.reached[name] for name in found if "true" not in name}
        return {**found, **teacher}


def drawn_style(count: int, generator: torch.Generator) -> Tensor:
    """``[count]``: one of the styles, with any strength; none in half of the cases."""
    amounts = torch.zeros(count)
    if torch.rand((), generator=generator) < 0.5:
        chosen = torch.randint(count, (), generator=generator)
        amounts[chosen] = torch.rand((), generator=generator)
    return amounts


def _frozen(network: nn.Module) -> nn.Module:
    return deepcopy(network).requires_grad_(False)

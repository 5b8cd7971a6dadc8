"""ExpDiT learns styles: how a face moves that is happy, sad, angry or surprised while it speaks.

Only what styles add is trained: scales and shifts of the layers' states (FiLM, Perez et al. 2018) and a small
feed-forward of each style's own, in proportion to its strength. Every other weight stays as it was, so that a
face without a style moves as before, to the bit.
Recordings say how they are said: the members ``style`` and ``style_strength`` of ``KEY.json``
(``python -m training.corpus.styled`` makes such from the corpus).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fd2talk_core import configs
from fd2talk_core.audio.encoder import AudioEncoder
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.model import FaceModel
from fd2talk_core.motion.coefficients import mouth_mask
from fd2talk_core.motion.defaults import NEUTRAL
from fd2talk_core.motion.sampling import sample_motion
from fd2talk_core.networks.checkpoint import save_checkpoint
from fd2talk_core.networks.diffusion import diffusion_loss, sampling_timesteps
from fd2talk_core.networks.motion_transformer import MotionTransformer

from ..corpus.motion import closures, frame_instants
from ..corpus.phonemes import Phone
from ..mouths import compare_mouths
from ..sources import SpeechSet, face_model_of, load_speech, need_weights
from ..trainer import Stage, stage_main, stage_options
from .motion import STYLES_TOLD, MotionOptions, MotionStage, with_styles


@dataclass(frozen=True)
class StyleOptions:
    """The section ``style`` of a configuration.

    Attributes:
        frames, drop_audio, mouth_weight, smallest_std, visited, held_out_clips, held_out_seconds: as in
            :class:`~training.stages.motion.MotionOptions`. ``visited`` timesteps are those of the recommended
            steps and those of the free ones, half of each.
        closure_weight: weight of the mouth's coefficients at p, b, m and f, v relative to other sounds: a
            feeling must not keep lips apart, and by how little they are matters there.
    """

    frames: int = 50
    drop_audio: float = 0.15
    mouth_weight: float = 3.0
    smallest_std: float = 0.02
    visited: float = 0.8
    closure_weight: float = 6.0
    held_out_clips: int = 32
    held_out_seconds: float = 6.0


class StyleStage(MotionStage):
    """Eq. 8 on recordings that are said in a style.

    Args:
        network: with the styles to learn; the rest of it is frozen.
        speech, held_out: with audio features; those without a style are left out.
    """

    name, score = "style", "style_likeness"

    def __init__(
        self,
        network: MotionTransformer,
        speech: SpeechSet,
        held_out: SpeechSet,
        face_model: FaceModel,
        options: StyleOptions,
    ) -> None:
        shared = {name: value for name, value in vars(options).items() if name != "closure_weight"}
        motion = MotionOptions(**shared, sync_weight=0.0)
        super().__init__({"expression": network}, None, speech, held_out, face_model, motion)
        network.requires_grad_(False)
        network.style.requires_grad_(True)
        config = network.config
        mouth = sampling_timesteps(config.recommended_steps)[:-1]
        free = sampling_timesteps(config.free_steps)[:-1] if config.free_steps else mouth
        self.visited = {"expression": torch.tensor(mouth * len(free) + free * len(mouth))}
        # what hardly moves in a neutral face would outweigh all else: each counts by how it moves here
        values = torch.cat([clip.expression for clip in speech.clips])
        self.deviation = values.std(dim=0).clamp(min=options.smallest_std)
        weights = self.weights * (network.coefficient_std / self.deviation).square()
        self.weights = weights / weights.mean()
        self.closure_weight = options.closure_weight
        mouth_of = mouth_mask(face_model.expression_names, len(self.weights)).float()
        self.register_buffer("mouth", mouth_of, persistent=False)

    def sample(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        clip, start = self.windows.draw(generator)
        times = frame_instants(self.options.frames) + start / clip.fps
        near = [Phone(*p) for p in clip.phonemes if p[2] > times[0] - 0.2 and p[1] < times[-1] + 0.2]
        shut = np.maximum(*closures(near, times))
        return {**self.window(clip, start, generator), "shut": torch.from_numpy(shut).float()}

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        network = self.networks["expression"]
        error, *_ = diffusion_loss(
            self.denoiser(network, batch),
            network.normalize(batch["expression"]),
            scheduler=self.scheduler,
            timesteps=batch["expression_timestep"],
            noise=batch["expression_noise"],
            reduction="none",
        )
        at_closures = 1 + (self.closure_weight - 1) * batch["shut"][..., None] * self.mouth
        return {"loss": (error * self.weights * at_closures).mean()}

    def _set_normalization(self) -> None:
        """It stays what the network was trained with."""

    def validate(self, folder: Path | None) -> dict[str, float]:
        """``style_likeness`` is 1 where a clip's mean face is that of the truth, 0 where it is no nearer than
        the neutral one is; ``style_reached`` how far it goes on the way there.
        """
        options, network = self.options, self.networks["expression"]
        wanted, made, correlations = [], [], []
        for seed, clip in enumerate(self.held_out.clips[: options.held_out_clips]):
            clip = clip.first(options.held_out_seconds)
            neutral, styled = (
                sample_motion(
                    network,
                    clip.audio_features(),
                    seed=seed,
                    style=style,
                    style_strength=clip.style_strength,
                ).values
                for style in (NEUTRAL, clip.style)
            )
            means = [
                values.mean(dim=0) / self.deviation.cpu() for values in (neutral, styled, clip.expression)
            ]
            made.append(means[1] - means[0])
            wanted.append(means[2] - means[0])
            correlations.append(
                compare_mouths(
                    self.face_model, self.mouth_basis.cpu(), clip.identity, styled, clip.expression
                )[1]
            )
        change, truth = torch.stack(made), torch.stack(wanted)
        return {
            "style_likeness": 1 - float((change - truth).norm() / truth.norm()),
            "style_reached": float((change * truth).sum() / truth.square().sum()),
            "mouth_correlation": sum(correlations) / len(correlations),
        }

    def export(self, weights: Path, trained_on: str) -> None:
        network = self.networks["expression"]
        before = network.info
        words = f"{before.trained_on}{STYLES_TOLD}{trained_on}"
        save_checkpoint(network, weights / "expression.safetensors", replace(before, trained_on=words))

    def start_from(self, weights: Path) -> None:
        raise FD2TalkError(
            "Styles are learned by the expression network of --weights, whose other parts stay: leave "
            "--start out."
        )


def in_styles(speech: SpeechSet, styles: Sequence[str] | None = None) -> SpeechSet:
    """The recordings that are said in one of these styles, or in any."""
    return SpeechSet(
        tuple(
            clip
            for clip in speech.clips
            if clip.style not in ("", NEUTRAL)
            and clip.style_strength > 0
            and (styles is None or clip.style in styles)
        )
    )


def build(section: dict, data: Path, weights: Path, seed: int, folder: Path) -> tuple[Stage, str]:
    """The stage from its configuration, labelled data, and the weights of the stages before it."""
    options = stage_options(section, StyleOptions())
    face_model = face_model_of(section)
    encoder = AudioEncoder.from_pretrained(need_weights(weights, "audio_encoder", "training.audio_encoder"))
    path = need_weights(weights, "expression", "training.motion")
    network = configs.load_network("expression", path, face_model.name)
    if network.config.kind != "expression":
        raise FD2TalkError(f"{path} predicts expression and pose together, which learns no styles.")
    train, held_out, words = load_speech(data, face_model)
    train = in_styles(train)
    styles = sorted({clip.style for clip in train.clips})
    held_out = in_styles(held_out, styles)
    if not styles or not held_out.clips:
        raise FD2TalkError(
            f"{data} holds no recordings with a style to learn from; make them with "
            "python -m training.corpus.styled."
        )
    train, held_out = train.with_features(encoder, folder), held_out.with_features(encoder, folder)
    network = with_styles(network, styles)
    return StyleStage(network, train, held_out, face_model, options), f"{', '.join(styles)}, {words}"


def main(arguments: list[str] | None = None) -> int:
    return stage_main("style", build, __doc__.splitlines()[0], arguments)

"""Stage 3: ExpDiT and PoseDiT learn motion from audio (FD2Talk Sec. 3.4.1, Eq. 8, 9, 11, 12).

Both transformers are trained side by side on the same clips. The audio encoder and the lip expert are frozen;
audio features are computed once and stay in memory. With ``joint`` one network predicts both (the paper's
ablation).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fd2talk_core import configs
from fd2talk_core.audio.encoder import AudioEncoder
from fd2talk_core.audio.features import AudioFeatures
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.model import FaceModel
from fd2talk_core.motion.defaults import NEUTRAL
from fd2talk_core.motion.sampling import sample_joint_motion, sample_motion
from fd2talk_core.networks.checkpoint import CheckpointInfo, load_checkpoint, save_checkpoint
from fd2talk_core.networks.diffusion import diffusion_loss, make_scheduler, sampling_timesteps
from fd2talk_core.networks.lip_expert import LipExpert, sync_loss_over_clip
from fd2talk_core.networks.motion_transformer import MotionTransformer

from ..drawing import draw_motion
from ..measures import pose_range
from ..mouths import compare_mouths, mouth_basis
from ..sources import SpeechClip, SpeechSet, face_model_of, load_speech, need_weights
from ..trainer import Stage, draw_timestep, stage_main, stage_options, subsection


@dataclass(frozen=True)
class MotionOptions:
    """The section ``motion`` of a configuration.

    Attributes:
        frames: length of a training clip (25 in the paper).
        drop_audio: part of the clips trained without audio, for classifier-free guidance.
        exp_weight, pose_weight, sync_weight: λ_exp, λ_pose, λ_sync of Eq. 12. λ_sync = 0 is the paper's
            ablation.
        mouth_weight: weight of the mouth's coefficients in Eq. 8 relative to the others.
        smallest_std: coefficients that move less than this over the data are normalised as if they moved this
            much, so that Eq. 8 does not spend itself on a cheek that never moves.
        joint: one network for both.
        visited: part of the timesteps drawn from those that sampling in the recommended steps visits;
            the rest are uniform as in the paper, so that any number of steps can be sampled.
        held_out_clips, held_out_seconds: what the validation samples.
    """

    frames: int = 25
    drop_audio: float = 0.15
    exp_weight: float = 1.0
    pose_weight: float = 1.0
    sync_weight: float = 0.1
    mouth_weight: float = 1.0
    smallest_std: float = 0.02
    joint: bool = False
    visited: float = 0.0
    held_out_clips: int = 16
    held_out_seconds: float = 6.0

    def __post_init__(self) -> None:
        if not 0 <= self.visited <= 1:
            raise FD2TalkError(f"visited is {self.visited}, but a part from 0 to 1 is needed.")


class MotionStage(Stage):
    """Eq. 12 over random clips.

    Args:
        networks: by kind, ``expression`` and ``pose``, or ``joint``.
        expert: frozen, or None when λ_sync is 0.
        speech, held_out: with audio features.
        face_model: of the coefficients.
    """

    name, score = "motion", "mouth_correlation"

    def __init__(
        self,
        networks: dict[str, MotionTransformer],
        expert: LipExpert | None,
        speech: SpeechSet,
        held_out: SpeechSet,
        face_model: FaceModel,
        options: MotionOptions,
    ) -> None:
        super().__init__(networks)
        self.expert = expert
        self.speech, self.held_out, self.face_model, self.options = speech, held_out, face_model, options
        self.scheduler = make_scheduler()
        # Eq. 1 is linear, so the mouth's motion is one matrix times β
        self.register_buffer("mouth_basis", mouth_basis(face_model), persistent=False)
        names = face_model.expression_names
        from fd2talk_core.motion.coefficients import mouth_mask

        weights = 1 + (options.mouth_weight - 1) * mouth_mask(names, self.mouth_basis.shape[0]).float()
        self.register_buffer("weights", weights / weights.mean(), persistent=False)
        self.windows = speech.windows(options.frames)
        self.styles = next(iter(networks.values())).config.styles
        self.visited = {
            kind: torch.tensor(sampling_timesteps(network.config.recommended_steps)[:-1])
            for kind, network in networks.items()
        }
        self._set_normalization()

    def _set_normalization(self) -> None:
        for kind, network in self.networks.items():
            values = torch.cat([clip.coefficients(kind) for clip in self.speech.clips])
            std = values.std(dim=0)
            floor = torch.full_like(std, self.options.smallest_std)
            if kind != "expression":
                floor[-6:] = self.options.smallest_std / 10
            network.set_normalization(values.mean(dim=0), torch.maximum(std, floor))

    def sample(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        return self.window(*self.windows.draw(generator), generator)

    def window(self, clip: SpeechClip, start: int, generator: torch.Generator) -> dict[str, Tensor]:
        """The sample of a clip from a frame on."""
        part = slice(start, start + self.options.frames)
        sample = {
            "expression": clip.expression[part],
            "pose": clip.pose[part],
            "audio": clip.features[part].float(),
            "drop": torch.rand((), generator=generator) < self.options.drop_audio,
            "style": style_of(clip, self.styles),
        }
        for kind, network in self.networks.items():
            shape = (self.options.frames, network.config.coefficient_dim)
            sample[f"{kind}_noise"] = torch.randn(shape, generator=generator)
            sample[f"{kind}_timestep"] = draw_timestep(self.visited[kind], self.options.visited, generator)
        return sample

    def denoiser(
        self, network: MotionTransformer, batch: dict[str, Tensor]
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """``(x_t, t) -> x0`` by a network, with a batch's sound."""
        style = batch["style"] if network.config.styles else None
        return lambda noisy, t: network(noisy, t, batch["audio"], batch["drop"], style=style)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        options, losses = self.options, {}
        loss = torch.zeros((), device=self.mouth_basis.device)
        for kind, network in self.networks.items():
            error, estimate, _ = diffusion_loss(
                self.denoiser(network, batch),
                network.normalize(self._target(kind, batch)),
                scheduler=self.scheduler,
                timesteps=batch[f"{kind}_timestep"],
                noise=batch[f"{kind}_noise"],
                reduction="none",
            )
            if kind != "pose":
                size = self.weights.shape[0]
                losses["expression_loss"] = (error[..., :size] * self.weights).mean()
                loss = loss + options.exp_weight * losses["expression_loss"]
                if options.sync_weight and self.expert is not None:
                    expression = network.denormalize(estimate)[..., :size]
                    # without audio there is nothing to be in time with
                    losses["sync_loss"] = self._sync_loss(expression, batch["audio"], ~batch["drop"])
                    loss = loss + options.sync_weight * losses["sync_loss"]
            if kind != "expression":
                losses["pose_loss"] = error[..., -6:].mean()
                loss = loss + options.pose_weight * losses["pose_loss"]
        return {"loss": loss, **losses}

    def _target(self, kind: str, batch: dict[str, Tensor]) -> Tensor:
        return torch.cat([batch["expression"], batch["pose"]], dim=-1) if kind == "joint" else batch[kind]

    def _sync_loss(self, expression: Tensor, audio: Tensor, heard: Tensor) -> Tensor:
        """L_sync of the clips with audio; a batch without any has none."""
        mouth = torch.einsum("bfc,cmx->bfmx", expression, self.mouth_basis)
        if not heard.any():
            return mouth.sum() * 0
        return sync_loss_over_clip(self.expert, mouth[heard], audio[heard])

    def grown(self, earlier: nn.Module, network: nn.Module) -> dict[str, Tensor]:
        """Styles are taught after this stage: what an earlier network knows of them does not fit another."""
        given = earlier.state_dict()
        if network.config.styles:
            return given
        return {name: value for name, value in given.items() if not name.startswith("style.")}

    def validate(self, folder: Path | None) -> dict[str, float]:
        options = self.options
        rows, correlations, errors, ranges, true_ranges = [], [], [], [], []
        for index, clip in enumerate(self.held_out.clips[: options.held_out_clips]):
            clip = clip.first(options.held_out_seconds)
            expression, pose = sample_clip(self.networks, clip.audio_features(), seed=index)
            openings, likeness, error = compare_mouths(
                self.face_model, self.mouth_basis.cpu(), clip.identity, expression, clip.expression
            )
            correlations.append(likeness)
            errors.append(error)
            ranges.append(pose_range(pose))
            true_ranges.append(pose_range(clip.pose))
            rows.append((openings, pose, clip.pose))
        if folder is not None:
            draw_motion(rows[:6], folder / "motion.png")
        count = len(rows)
        return {
            "mouth_correlation": sum(correlations) / count,
            "lip_error": sum(errors) / count,
            "pose_range": sum(ranges) / count,
            "true_pose_range": sum(true_ranges) / count,
        }

    def export(self, weights: Path, trained_on: str) -> None:
        for kind, network in self.networks.items():
            info = CheckpointInfo(
                face_model=self.face_model.name,
                native_fps=network.config.native_fps,
                steps=network.config.recommended_steps,
                trained_on=trained_on,
            )
            save_checkpoint(network, weights / f"{kind}.safetensors", info)


def style_of(clip: SpeechClip, styles: Sequence[str]) -> Tensor:
    """``[S]``: how far a recording is said in each of the styles; zeros for one without a label.

    Raises:
        FD2TalkError: when it is said in another one.
    """
    amounts = torch.zeros(len(styles))
    if styles and clip.style not in ("", NEUTRAL):
        if clip.style not in styles:
            raise FD2TalkError(
                f"The recording {clip.name} is said {clip.style!r}, but the network has the styles "
                f"{', '.join(styles)}."
            )
        amounts[list(styles).index(clip.style)] = clip.style_strength
    return amounts


def sample_clip(networks: Any, features: AudioFeatures, seed: int) -> tuple[Tensor, Tensor]:
    """Expression ``[F, D_β]`` and pose ``[F, 6]`` with the networks' own number of steps."""
    if "joint" in networks:
        expression, pose = sample_joint_motion(networks["joint"], features, seed=seed)
    else:
        expression = sample_motion(networks["expression"], features, seed=seed)
        pose = sample_motion(networks["pose"], features, seed=seed)
    return expression.values, pose.values


def build(section: dict, data: Path, weights: Path, seed: int, folder: Path) -> tuple[MotionStage, str]:
    """The stage from its configuration, a data folder and the weights of the stages before it."""
    options = stage_options(section, MotionOptions())
    for kind in ("expression", "pose") if options.joint else ("joint",):
        if (weights / f"{kind}.safetensors").exists():
            raise FD2TalkError(
                f"{weights} holds {kind}.safetensors already, and beside what joint: "
                f"{str(options.joint).lower()} makes, nobody could tell which motion is meant; give another "
                "--weights folder, or move that file out of it."
            )
    face_model = face_model_of(section)
    encoder = AudioEncoder.from_pretrained(need_weights(weights, "audio_encoder", "training.audio_encoder"))
    expert = None
    if options.sync_weight:
        path = need_weights(weights, "lip_expert", "training.lip_expert")
        expert = load_checkpoint(path, LipExpert, face_model.name)
        if expert.config.audio_dim != encoder.feature_dim:
            raise FD2TalkError(
                f"The lip expert in {weights} was trained on another audio encoder; train it again with "
                "python -m training.lip_expert."
            )
    train, held_out, words = load_speech(data, face_model)
    train, held_out = train.with_features(encoder, folder), held_out.with_features(encoder, folder)
    common = {
        "audio_dim": encoder.feature_dim,
        "native_fps": train.fps,
        "face_model": face_model.name,
        **subsection(section, "network"),
    }
    expression = {
        "coefficient_dim": face_model.expression_dim,
        "coefficient_names": face_model.expression_names,
    }
    size = section["size"]
    if options.joint:
        expression["coefficient_dim"] += 6
        networks = {"joint": configs.build("expression", size, seed, **common, **expression, kind="joint")}
    else:
        networks = {
            "expression": configs.build("expression", size, seed, **common, **expression),
            "pose": configs.build("pose", size, seed + 1, **common),
        }
    return MotionStage(networks, expert, train, held_out, face_model, options), words


def main(arguments: list[str] | None = None) -> int:
    return stage_main("motion", build, __doc__.splitlines()[0], arguments)

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
from torch import Tensor

from fd2talk_core import configs
from fd2talk_core.audio.encoder import AudioEncoder
from fd2talk_core.audio.features import AudioFeatures
from fd2talk_core.checks import check_whole
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.model import FaceModel
from fd2talk_core.face.names import ARKIT_NAMES
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

STYLES_TOLD = "; styles: "
"""In the words of a checkpoint, before what its styles were trained on."""


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
        amplitude: each training clip's expression is scaled by a factor drawn from 1 - amplitude to
            1 + amplitude, so that one sound goes with more than one motion (FaceTalk Eq. 8); 0 for none.
        longer_from, longer_to: lengths between which that of each batch is drawn once ``longer_after``
            samples of the run have been seen (DAWN Sec. 3.5: short clips first, then longer ones of random
            length); 0 for none. Samples are steps times the batch size.
        longer_after: samples of ``frames`` frames before that.
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
    amplitude: float = 0.0
    longer_from: int = 0
    longer_to: int = 0
    longer_after: int = 0

    def __post_init__(self) -> None:
        for name in ("visited", "amplitude"):
            if not 0 <= getattr(self, name) <= 1:
                raise FD2TalkError(f"{name} is {getattr(self, name)}, but a part from 0 to 1 is needed.")
        if (self.longer_from or self.longer_to) and not self.frames <= self.longer_from <= self.longer_to:
            raise FD2TalkError(
                f"longer_from and longer_to are {self.longer_from} and {self.longer_to}, but rising lengths "
                f"of at least {self.frames} frames are needed, or 0 for both."
            )
        check_whole(self.longer_after, "longer_after", 0)


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
        self.bounded = bool(names) and set(names) <= set(ARKIT_NAMES)
        self.windows = speech.windows(options.frames)
        if options.longer_to:
            speech.windows(options.longer_to)  # says at once if no recording is as long
        self.style_words: dict[str, str] = {}
        self._look_for_styles()
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

    def _look_for_styles(self) -> None:
        """Which styles the networks have, and whether these recordings teach any."""
        self.styles = next(iter(self.networks.values())).config.styles
        amounts = (style_of(clip, self.styles) for clip in self.speech.clips)
        self.in_styles = bool(self.styles) and any(bool(amount.any()) for amount in amounts)

    def batch(
        self, indices: Sequence[int], generator_of: Callable[[int], torch.Generator]
    ) -> dict[str, Tensor]:
        options = self.options
        if options.longer_to and indices[0] >= options.longer_after:
            lengths = (options.longer_from, options.longer_to + 1)
            length = int(torch.randint(*lengths, (), generator=generator_of(indices[0])))
            self.windows = self.speech.windows(length)
        elif self.windows.frames != options.frames:
            self.windows = self.speech.windows(options.frames)
        return super().batch(indices, generator_of)

    def sample(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        return self.window(*self.windows.draw(generator), generator)

    def window(self, clip: SpeechClip, start: int, generator: torch.Generator) -> dict[str, Tensor]:
        """The sample of a clip from a frame on."""
        frames = self.windows.frames
        part = slice(start, start + frames)
        expression = clip.expression[part]
        if self.options.amplitude:
            factor = 1 + self.options.amplitude * (2 * torch.rand((), generator=generator) - 1)
            expression = expression * factor
            if self.bounded:
                expression = expression.clamp(0, 1)
        sample = {
            "expression": expression,
            "pose": clip.pose[part],
            "audio": clip.features[part].float(),
            "drop": torch.rand((), generator=generator) < self.options.drop_audio,
            "style": style_of(clip, self.styles),
        }
        for kind, network in self.networks.items():
            shape = (frames, network.config.coefficient_dim)
            sample[f"{kind}_noise"] = torch.randn(shape, generator=generator)
            sample[f"{kind}_timestep"] = draw_timestep(self.visited[kind], self.options.visited, generator)
        return sample

    def denoiser(
        self, network: MotionTransformer, batch: dict[str, Tensor]
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """``(x_t, t) -> x0`` by a network, with a batch's sound."""
        style = batch["style"] if network.config.styles and self.in_styles else None
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

    def start_from(self, weights: Path) -> None:
        """As of every stage. Styles that the earlier networks have learned are kept: as they are where no
        recording here is said in one, else they learn on.
        """
        for kind, network in self.networks.items():
            path = weights / f"{kind}.safetensors"
            if not path.is_file():
                continue  # which the stage says in its own words
            earlier = load_checkpoint(path, type(network))
            learned = list(earlier.config.styles)
            if learned and list(network.config.styles) not in ([], learned):
                raise FD2TalkError(
                    f"{path} has learned the styles {', '.join(learned)}, but this stage's {kind} is to have "
                    f"{', '.join(network.config.styles)}."
                )
            if learned:
                self.networks[kind] = with_styles(network, learned, earlier.config.style_rank)
                _, mark, told = earlier.info.trained_on.partition(STYLES_TOLD)
                self.style_words[kind] = mark + told
        super().start_from(weights)
        self._look_for_styles()
        if self.styles and not self.in_styles:
            for network in self.networks.values():
                if network.config.styles:
                    network.style.requires_grad_(False)

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
                trained_on=trained_on + self.style_words.get(kind, ""),
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


def with_styles(
    network: MotionTransformer, styles: Sequence[str], rank: int | None = None
) -> MotionTransformer:
    """A network that can learn these styles, and else is the same; itself, where it knows them already.

    Args:
        rank: width of each style's feed-forward; None leaves it.

    Raises:
        FD2TalkError: when it has learned others.
    """
    learned = list(network.config.styles)
    if learned == list(styles):
        return network
    if learned:
        raise FD2TalkError(
            f"The expression network has learned the styles {', '.join(learned)}, but the data has "
            f"{', '.join(styles)}: start from one without styles."
        )
    arguments = {name: value for name, value in network.config.items() if not name.startswith("_")}
    arguments |= {"styles": list(styles), "style_rank": rank or network.config.style_rank}
    grown = MotionTransformer.from_config(arguments)
    grown.load_state_dict({**grown.state_dict(), **network.state_dict()})
    grown.info = getattr(network, "info", None)
    return grown.train(False)


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

"""PBNet learns pose and blinks from audio, in place of PoseDiT (DAWN Sec. 3.4, Eq. 8, 9).

Three losses: Δρ rebuilt (L_rec, a mean squared error), the code close to a standard normal (L_KL), and a
discriminator that must not tell what is rebuilt from what people did (L_GAN, Isola et al. 2016). The
discriminator is trained by the same optimiser, behind a reversed gradient (Ganin et al. 2016): what makes it
better at telling makes the network better at hiding.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fd2talk_core.audio.encoder import AudioEncoder
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.model import FaceModel, default_face_model
from fd2talk_core.face.names import ARKIT_NAMES
from fd2talk_core.motion.sampling import sample_pose_and_blinks
from fd2talk_core.networks.checkpoint import CheckpointInfo, save_checkpoint
from fd2talk_core.networks.pose_blink import BLINK_NAMES, STATE_DIM, PoseBlinkNetwork, divergence

from ..measures import blink_rate, likeness, pose_diversity, pose_range
from ..sources import SpeechClip, SpeechSet, load_speech, need_weights
from ..trainer import Stage, seeded_network, stage_main, stage_options, subsection

LIDS = [ARKIT_NAMES.index(name) for name in BLINK_NAMES]
SMALLEST_STD = 0.002
"""As the pose's in :class:`training.stages.motion.MotionOptions`."""


@dataclass(frozen=True)
class PoseBlinkOptions:
    """The section ``pbnet`` of a configuration.

    Attributes:
        frames: length of a training clip (200 in DAWN).
        kl_weight, adversarial_weight: of L_KL and L_GAN beside L_rec; DAWN states none. 0 leaves one out.
        held_out_clips, held_out_seconds, held_out_seeds: what the validation samples.
    """

    frames: int = 200
    kl_weight: float = 0.01
    adversarial_weight: float = 0.05
    held_out_clips: int = 16
    held_out_seconds: float = 10.0
    held_out_seeds: int = 3

    def __post_init__(self) -> None:
        if self.kl_weight < 0 or self.adversarial_weight < 0:
            raise FD2TalkError("A weight of a loss is negative, but 0 or more is needed.")


class Discriminator(nn.Module):
    """Whether Δρ is a person's, by overlapping windows of some second: ``[B, F, 8 + D_a]`` to ``[B, F']``."""

    def __init__(self, audio_dim: int, width: int = 64) -> None:
        super().__init__()
        sizes = (STATE_DIM + audio_dim, width, 2 * width)
        self.layers = nn.Sequential(
            *(
                layer
                for before, after in itertools.pairwise(sizes)
                for layer in (nn.Conv1d(before, after, 5, stride=2, padding=2), nn.LeakyReLU(0.2))
            ),
            nn.Conv1d(sizes[-1], 1, 5, padding=2),
        )

    def forward(self, change: Tensor, audio: Tensor) -> Tensor:
        return self.layers(torch.cat([change, audio], dim=-1).mT)[:, 0]


class _Reversed(torch.autograd.Function):
    """The identity, whose gradient comes back with the other sign."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -gradient


def states_of(clip: SpeechClip) -> Tensor:
    """ρ of every frame, ``[F, 8]``: pose, then lids."""
    return torch.cat([clip.pose, clip.expression[:, LIDS]], dim=1)


class PoseBlinkStage(Stage):
    """L_rec + λ_KL L_KL + λ_GAN L_GAN over random clips.

    Args:
        network: is trained, and written as ``pose``.
        speech, held_out: with audio features.
    """

    name, score = "pbnet", "likeness"

    def __init__(
        self,
        network: PoseBlinkNetwork,
        speech: SpeechSet,
        held_out: SpeechSet,
        face_model: FaceModel,
        options: PoseBlinkOptions,
        seed: int,
    ) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            discriminator = Discriminator(network.config.audio_dim)
        super().__init__({"pose": network, "discriminator": discriminator})
        self.speech, self.held_out, self.face_model, self.options = speech, held_out, face_model, options
        self.windows = speech.windows(options.frames)
        states = torch.cat([states_of(clip) for clip in speech.clips])
        network.set_normalization(states.mean(dim=0), states.std(dim=0).clamp(min=SMALLEST_STD))

    def sample(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        clip, first = self.windows.draw(generator)
        part = slice(first, first + self.options.frames)
        states = states_of(clip)[part]
        # any frame may be the portrait's, as in the second stage of DAWN Sec. 3.5
        source = torch.randint(len(states), (), generator=generator)
        latent = (self.options.frames, self.networks["pose"].config.latent_dim)
        return {
            "states": states,
            "start": states[source],
            "audio": clip.features[part].float(),
            "noise": torch.randn(latent, generator=generator),
        }

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        network, options = self.networks["pose"], self.options
        start = network.normalize(batch["start"])
        change = network.normalize(batch["states"]) - start[:, None]
        rebuilt, mean, log_deviation = network(start, change, batch["audio"], batch["noise"])
        losses = {
            "reconstruction_loss": F.mse_loss(rebuilt, change),
            "kl_loss": divergence(mean, log_deviation),
        }
        loss = losses["reconstruction_loss"] + options.kl_weight * losses["kl_loss"]
        if options.adversarial_weight:
            told = self.networks["discriminator"]
            real, made = told(change, batch["audio"]), told(_Reversed.apply(rebuilt), batch["audio"])
            losses["adversarial_loss"] = 0.5 * (
                F.binary_cross_entropy_with_logits(real, torch.ones_like(real))
                + F.binary_cross_entropy_with_logits(made, torch.zeros_like(made))
            )
            loss = loss + options.adversarial_weight * losses["adversarial_loss"]
        return {"loss": loss, **losses}

    def validate(self, folder: Path | None) -> dict[str, float]:
        """``likeness`` is how near variety over time, variety over seeds and blinks come to people's, 1 at
        best: a VAE that rebuilds well may still sample badly.
        """
        options, found = self.options, []
        for clip in self.held_out.clips[: options.held_out_clips]:
            clip = clip.first(options.held_out_seconds)
            samples = [
                sample_pose_and_blinks(self.networks["pose"], clip.audio_features(), seed=seed)
                for seed in range(options.held_out_seeds)
            ]
            poses = torch.stack([pose.values for pose, _ in samples])
            blinks = [blink_rate(lids[:, 0], clip.fps) for _, lids in samples]
            true = (pose_range(clip.pose), blink_rate(clip.expression[:, LIDS[0]], clip.fps))
            found.append((pose_range(poses[0]), pose_diversity(poses), sum(blinks) / len(blinks), *true))
        reach, diversity, blinks, true_reach, true_blinks = torch.tensor(found).mean(dim=0).tolist()
        pairs = ((reach, true_reach), (diversity, true_reach), (blinks, true_blinks))
        return {
            "likeness": likeness(pairs),
            "pose_range": reach,
            "true_pose_range": true_reach,
            "pose_diversity": diversity,
            "blinks": blinks,
            "true_blinks": true_blinks,
        }

    def checkpoints(self) -> dict[str, nn.Module]:
        return {"pose": self.networks["pose"]}

    def export(self, weights: Path, trained_on: str) -> None:
        network = self.networks["pose"]
        info = CheckpointInfo(
            face_model=self.face_model.name,
            native_fps=network.config.native_fps,
            steps=1,
            trained_on=trained_on,
        )
        save_checkpoint(network, weights / "pose.safetensors", info)


def build(section: dict, data: Path, weights: Path, seed: int, folder: Path) -> tuple[PoseBlinkStage, str]:
    """The stage from its configuration, a data folder and the audio encoder of a weights folder."""
    options = stage_options(section, PoseBlinkOptions())
    face_model = default_face_model()
    encoder = AudioEncoder.from_pretrained(need_weights(weights, "audio_encoder", "training.audio_encoder"))
    train, held_out, words = load_speech(data, face_model)
    train, held_out = train.with_features(encoder, folder), held_out.with_features(encoder, folder)
    arguments = {
        "hidden_size": 128,
        "condition_dim": 128,
        **subsection(section, "network"),
        "audio_dim": encoder.feature_dim,
        "native_fps": train.fps,
        "face_model": face_model.name,
    }
    network = seeded_network(PoseBlinkNetwork, arguments, seed, "pbnet")
    return PoseBlinkStage(network, train, held_out, face_model, options, seed), words


def main(arguments: list[str] | None = None) -> int:
    return stage_main("pbnet", build, __doc__.splitlines()[0], arguments)

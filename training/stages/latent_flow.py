"""DAWN's latent flow generator learns what moves between two pictures of a person (DAWN Sec. 3.2, Eq. 3–5).

Nobody tells it: from a pair of pictures it reads a flow and a blocking map off, by which the latent of one
becomes the other's, and the decoder learns to fill what is blocked. The encoder stays as it is, so latents
are made once. DAWN compares decoded pictures alone; decoding them is what costs here, so the latents are
compared too, and of a batch only some pictures are decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.model import FaceModel
from fd2talk_core.networks.autoencoder import FrameAutoencoder, autoencoder_loss
from fd2talk_core.networks.checkpoint import CheckpointInfo, resolution_of, save_checkpoint
from fd2talk_core.networks.latent_flow import FlowPredictor, moved_by_flow

from ..drawing import save_grid
from ..measures import psnr, ssim
from ..regions import face_region
from ..sources import PictureSet, face_model_of, fingerprint, kept_between_runs, load_pictures
from ..trainer import Stage, seeded_network, stage_main, stage_options, subsection
from .autoencoder import draw_pair
from .conditions import encode_pictures, load_autoencoder
from .perceptual import perceptual_features

NETWORK = "flow_predictor"


@dataclass(frozen=True)
class LatentFlowOptions:
    """The section ``latent_flow`` of a configuration.

    Attributes:
        decoded: pictures of a batch that are decoded and compared as pictures (L_rec of Eq. 5).
        rec_weight, per_weight: of L_rec's squared error and of its features' (as FD2Talk Eq. 13, 14).
        latent_weight: of the squared error of latents, over all of the batch; 0 is DAWN's.
        train_decoder: whether the decoder learns to fill what is blocked, as DAWN's does.
        held_out_pairs: what the validation looks at.
    """

    decoded: int = 4
    rec_weight: float = 1.0
    per_weight: float = 1.0
    latent_weight: float = 1.0
    train_decoder: bool = True
    held_out_pairs: int = 32

    def __post_init__(self) -> None:
        if self.decoded < 1 and self.latent_weight <= 0:
            raise FD2TalkError("Nothing is compared: set decoded or latent_weight over 0.")


@dataclass(frozen=True, eq=False)
class Latents:
    """``[N, d, h, w]`` float16, of the pictures of a set."""

    latents: Tensor


class LatentFlowStage(Stage):
    """L_LFG over pairs of pictures.

    Args:
        predictor: 𝓟, is trained.
        autoencoder: whose decoder is trained, too, if the options say so.
        latents, held_out_latents: of the pictures.
        features: φ of the perceptual loss.
    """

    name, score = "latent_flow", "psnr"

    def __init__(
        self,
        predictor: FlowPredictor,
        autoencoder: FrameAutoencoder,
        pictures: PictureSet,
        held_out: PictureSet,
        latents: Tensor,
        held_out_latents: Tensor,
        features: nn.Module,
        face_model: FaceModel,
        options: LatentFlowOptions,
    ) -> None:
        autoencoder.requires_grad_(False)
        autoencoder.decoder.requires_grad_(options.train_decoder)
        super().__init__({NETWORK: predictor, "autoencoder": autoencoder})
        self.pictures, self.held_out, self.options = pictures, held_out, options
        self.latents, self.held_out_latents = latents, held_out_latents
        self.features, self.face_model = features, face_model
        self.people, self.held_out_people = pictures.people(), held_out.people()

    def batch(
        self, indices: Sequence[int], generator_of: Callable[[int], torch.Generator]
    ) -> dict[str, Tensor]:
        pairs = [draw_pair(self.people, generator_of(index)) for index in indices]
        source, driving = torch.tensor(pairs).unbind(1)
        batch = {"source": self.latents[source].float(), "driving": self.latents[driving].float()}
        shown = driving[: self.options.decoded].tolist()
        if shown:
            batch["frame"] = torch.stack([self.pictures.read(index) for index in shown]).float() / 255
        return batch

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        options, source = self.options, batch["source"]
        moved = moved_by_flow(source, self.networks[NETWORK](source, batch["driving"]).float())
        losses = {"latent_loss": F.mse_loss(moved, batch["driving"])}
        loss = options.latent_weight * losses["latent_loss"]
        if "frame" in batch:
            frame = batch["frame"]
            some = slice(0, len(frame))
            decoded = self.networks["autoencoder"].decode(moved[some], source[some], clamp=False).float()
            pictures, losses["rec_loss"], losses["per_loss"] = autoencoder_loss(
                frame, decoded, self.features, rec_weight=options.rec_weight, per_weight=options.per_weight
            )
            loss = loss + pictures
        return {"loss": loss, **losses}

    @torch.no_grad()
    def validate(self, folder: Path | None) -> dict[str, float]:
        predictor, autoencoder = self.networks[NETWORK], self.networks["autoencoder"]
        device = predictor.device
        measured: dict[str, list[Tensor]] = {name: [] for name in ("psnr", "ssim", "copy_psnr", "best_psnr")}
        rows = []
        for number in range(self.options.held_out_pairs):
            person = self.held_out_people[number % len(self.held_out_people)]
            # across a video, neighbours are one picture nearly
            first = person[(number * 7) % len(person)]
            second = person[(number * 7 + len(person) // 2) % len(person)]
            source, driving = (self.held_out_latents[i].float().to(device)[None] for i in (first, second))
            planes = predictor(source, driving).float()
            made, best = (
                autoencoder.decode(latent, source).float().cpu()
                for latent in (moved_by_flow(source, planes), driving)
            )
            portrait, frame = (self.held_out.read(i).float()[None] / 255 for i in (first, second))
            at = slice(second, second + 1)
            labels = (self.held_out.identity[at], self.held_out.expression[at], self.held_out.pose[at])
            region = face_region(self.face_model, *labels, frame.shape[-1])
            measured["psnr"].append(psnr(made, frame, region))
            measured["ssim"].append(ssim(made, frame, region))
            measured["copy_psnr"].append(psnr(portrait, frame, region))
            measured["best_psnr"].append(psnr(best, frame, region))
            if number < 8:
                blocking = F.interpolate(planes[:, 2:].cpu(), size=frame.shape[-1]).expand_as(frame)
                rows.append(torch.cat([portrait, frame, made, best, blocking]))
        if folder is not None:
            save_grid(rows, folder / "pairs.png")
        return {name: float(torch.cat(values).mean()) for name, values in measured.items()}

    def export(self, weights: Path, trained_on: str) -> None:
        predictor, autoencoder = self.networks[NETWORK], self.networks["autoencoder"]
        info = CheckpointInfo(resolution=self.pictures.size, trained_on=trained_on)
        save_checkpoint(predictor, weights / f"{NETWORK}.safetensors", info)
        if self.options.train_decoder:
            own = CheckpointInfo(
                face_model=self.face_model.name,
                resolution=resolution_of(autoencoder),
                trained_on=f"{trained_on}; its decoder, for latents that a flow has moved",
            )
            save_checkpoint(autoencoder, weights / "autoencoder.safetensors", own)


def encoded(pictures: PictureSet, autoencoder: FrameAutoencoder, cache: Path) -> Tensor:
    """``[N, d, h, w]`` float16, read from beside ``cache`` if a run has made them before."""
    key = fingerprint(autoencoder.encoder.state_dict(), *pictures.encoded)
    numbers = torch.arange(len(pictures))
    made = kept_between_runs(
        lambda: Latents(encode_pictures(pictures, autoencoder, numbers)), Latents, cache, key
    )
    return made.latents


def build(section: dict, data: Path, weights: Path, seed: int, folder: Path) -> tuple[LatentFlowStage, str]:
    """The stage from its configuration, a data folder and the autoencoder of a weights folder."""
    options = stage_options(section, LatentFlowOptions())
    face_model = face_model_of(section)
    autoencoder = load_autoencoder(weights)
    train, held_out, words = load_pictures(data, face_model)
    arguments = {
        **subsection(section, "network"),
        "latent_channels": autoencoder.config.latent_channels,
    }
    predictor = seeded_network(FlowPredictor, arguments, seed, "latent_flow")
    latents = [
        encoded(pictures, autoencoder, folder / name)
        for pictures, name in ((train, "latents"), (held_out, "held-out"))
    ]
    features = perceptual_features()
    stage = LatentFlowStage(predictor, autoencoder, train, held_out, *latents, features, face_model, options)
    return stage, words


def main(arguments: list[str] | None = None) -> int:
    return stage_main("latent_flow", build, __doc__.splitlines()[0], arguments)

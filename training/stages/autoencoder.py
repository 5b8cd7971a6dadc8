"""Stage 4: the frame autoencoder (FD2Talk Sec. 3.4.2, Eq. 13, 14, 15)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fd2talk_core import configs
from fd2talk_core.networks.autoencoder import FrameAutoencoder, autoencoder_loss
from fd2talk_core.networks.checkpoint import CheckpointInfo, save_checkpoint

from ..converters.autoencoder import start_from_pretrained
from ..drawing import save_grid
from ..measures import psnr, ssim
from ..sources import PictureSet, face_model_of, load_pictures
from ..trainer import Stage, stage_main, stage_options, subsection
from .conditions import load_autoencoder
from .perceptual import perceptual_features


@dataclass(frozen=True)
class AutoencoderOptions:
    """The section ``autoencoder`` of a configuration.

    Attributes:
        rec_weight, per_weight: λ_rec, λ_per of Eq. 15.
        perceptual: a safetensors file with VGG-16's weights; empty for features that need no file.
        crop: side of the training crops, 0 for whole pictures. The compact network sees a bounded
            neighbourhood, so crops teach it the same and vary more.
        latent_noise: noise added to latents in training, in standard deviations of the latent: what is finer
            cannot carry information, and the decoder forgives as much error of the UNet.
        colour: strength of random changes of colour, the same for both pictures.
        held_out_pairs: what the validation looks at.
        pretrained: a KL or VQ autoencoder of diffusers or latent diffusion to begin with (a safetensors file,
            or a folder with one); empty for random weights. It must be of the network's size.
        teacher: a weights folder whose autoencoder's latents this one's are to be, so that the UNet that was
            trained on those goes on working; empty for latents of its own.
        teacher_weight: of the mean squared difference of the two's latents.
    """

    rec_weight: float = 10.0
    per_weight: float = 1.0
    perceptual: str = ""
    crop: int = 128
    latent_noise: float = 0.1
    colour: float = 0.3
    held_out_pairs: int = 32
    pretrained: str = ""
    teacher: str = ""
    teacher_weight: float = 10.0


class AutoencoderStage(Stage):
    """Eq. 15 over pairs of pictures of one person.

    Args:
        autoencoder: is trained.
        pictures, held_out: at least two a person.
        features: φ of Eq. 14.
        teacher: an autoencoder whose latents are to be kept to.
    """

    name, score = "autoencoder", "psnr"

    def __init__(
        self,
        autoencoder: FrameAutoencoder,
        pictures: PictureSet,
        held_out: PictureSet,
        features: nn.Module,
        options: AutoencoderOptions,
        face_model_name: str = "",
        teacher: FrameAutoencoder | None = None,
    ) -> None:
        super().__init__({"autoencoder": autoencoder.to(memory_format=torch.channels_last)})
        self.teacher = None if teacher is None else teacher.requires_grad_(False)
        self.pictures, self.held_out, self.options = pictures, held_out, options
        self.features, self.face_model_name = features, face_model_name
        self.people, self.held_out_people = pictures.people(), held_out.people()

    def sample(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        first, second = draw_pair(self.people, generator)
        pair = torch.stack([self.pictures.read(first), self.pictures.read(second)]).float() / 255
        if self.options.crop and self.options.crop < pair.shape[-1]:
            pair = random_crop(pair, self.options.crop, generator)
        pair = random_colour(pair, self.options.colour, generator)
        noise_seed = torch.randint(2**62, (), generator=generator)
        return {"reference": pair[0], "frame": pair[1], "noise_seed": noise_seed}

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        options, frame = self.options, batch["frame"]
        both = torch.cat([batch["reference"], frame]).contiguous(memory_format=torch.channels_last)
        latents = self.networks["autoencoder"].encode(both)
        decoded = self._decode(latents, batch["noise_seed"]).float()
        loss, rec, per = autoencoder_loss(
            frame, decoded, self.features, rec_weight=options.rec_weight, per_weight=options.per_weight
        )
        losses = {"rec_loss": rec, "per_loss": per}
        if self.teacher is not None:
            losses["latent_loss"] = F.mse_loss(latents.float(), self.teacher.encode(both).float())
            loss = loss + options.teacher_weight * losses["latent_loss"]
        return {"loss": loss, **losses}

    def _decode(self, latents: Tensor, noise_seeds: Tensor) -> Tensor:
        """Of latents ``[2 B, d, h, w]``, the references' before the frames', with noise."""
        network, strength = self.networks["autoencoder"], self.options.latent_noise
        count = len(noise_seeds)
        if not strength:
            return network.decode(latents[count:], latents[:count], clamp=False)
        deviation = latents.detach().float().std(dim=(0, 2, 3), keepdim=True)
        noise = (
            torch.stack(
                [
                    torch.randn((2, *latents.shape[1:]), generator=torch.Generator().manual_seed(int(seed)))
                    for seed in noise_seeds
                ]
            )
            .transpose(0, 1)
            .flatten(0, 1)
        )
        latents = latents + noise.to(latents) * (strength * deviation).to(latents)
        return network.decode(latents[count:], latents[:count], clamp=False)

    @torch.no_grad()
    def validate(self, folder: Path | None) -> dict[str, float]:
        network = self.networks["autoencoder"]
        device = next(network.parameters()).device
        ratios, similarities, rows = [], [], []
        for number in range(min(self.options.held_out_pairs, 4 * len(self.held_out_people))):
            people = self.held_out_people[number % len(self.held_out_people)]
            first, second = people[0], people[1 + (number // len(self.held_out_people)) % (len(people) - 1)]
            reference, frame = (self.held_out.read(i).float().to(device)[None] / 255 for i in (first, second))
            latents = network.encode(torch.cat([reference, frame]))
            decoded = network.decode(latents[1:], latents[:1])
            ratios.append(psnr(decoded, frame))
            similarities.append(ssim(decoded, frame))
            if number < 6:
                error = (4 * (decoded - frame).abs()).clamp(0, 1)
                rows.append(torch.cat([reference, frame, decoded, error]).cpu())
        if folder is not None:
            save_grid(rows, folder / "reconstructions.png")
        return {"psnr": float(torch.cat(ratios).mean()), "ssim": float(torch.cat(similarities).mean())}

    @torch.no_grad()
    def set_statistics(self, count: int = 256) -> None:
        """Make the latents of the training pictures zero-mean and unit-variance by channel."""
        network = self.networks["autoencoder"]
        device = next(network.parameters()).device
        step = max(1, len(self.pictures) // count)
        chosen = range(0, len(self.pictures), step)
        latents = [network.encode(self.pictures.read(i).float().to(device)[None] / 255) for i in chosen]
        values = torch.cat(latents).transpose(0, 1).flatten(1).double()
        network.set_latent_statistics(values.mean(dim=1).float(), values.std(dim=1).float())

    def grown(self, earlier: nn.Module, network: nn.Module) -> dict[str, Tensor]:
        """An earlier network may have had more blocks on a level, of which the first are taken, and a blend,
        which is a later stage's.
        """
        return {
            "encoder.latent_mean": earlier.latent_mean,
            "encoder.latent_std": earlier.latent_std,
            **_of_fewer_blocks(earlier.encoder.layers, network.encoder.layers, "encoder.layers."),
            **_of_fewer_blocks(earlier.decoder, network.decoder, "decoder."),
        }

    def export(self, weights: Path, trained_on: str) -> None:
        if self.teacher is None:
            self.set_statistics()
        info = CheckpointInfo(
            face_model=self.face_model_name, resolution=self.pictures.size, trained_on=trained_on
        )
        save_checkpoint(self.networks["autoencoder"], weights / "autoencoder.safetensors", info)


def _of_fewer_blocks(earlier: nn.Module, network: nn.Module, prefix: str) -> dict[str, Tensor]:
    """What half of a compact autoencoder takes from an earlier one; where the two differ in more than their
    numbers of blocks, all that the earlier one has.
    """
    if not isinstance(earlier, nn.Sequential) or not isinstance(network, nn.Sequential):
        return {f"{prefix}{name}": value for name, value in earlier.state_dict().items()}
    given, left = {}, list(earlier)
    for place, layer in enumerate(network):
        if not any(True for _ in layer.parameters()):
            continue
        while left and type(left[0]) is not type(layer):
            left.pop(0)
        if left:
            taken = left.pop(0).state_dict()
            given |= {f"{prefix}{place}.{name}": value for name, value in taken.items()}
    return given


def draw_pair(people: list[range], generator: torch.Generator) -> tuple[int, int]:
    """Two different pictures of one person."""
    person = people[int(torch.randint(len(people), (), generator=generator))]
    first = int(torch.randint(len(person), (), generator=generator))
    other = int(torch.randint(len(person) - 1, (), generator=generator))
    return person[first], person[other + (other >= first)]


def random_crop(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """One place for all images ``[n, 3, H, W]``."""
    top, left = (int(torch.randint(side - size + 1, (), generator=generator)) for side in images.shape[-2:])
    return images[..., top : top + size, left : left + size]


def random_colour(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """One change of contrast, brightness, tint and channel order for all images ``[n, 3, H, W]`` in 0..1."""
    if not strength:
        return images
    draw = torch.rand(9, generator=generator) * 2 - 1
    if draw[0] > 0.6:
        images = images[:, torch.randperm(3, generator=generator)]
    gain = (1 + strength * draw[1]) * (1 + 0.5 * strength * draw[2:5])
    images = (images - 0.5) * gain[:, None, None] + 0.5 + 0.5 * strength * draw[5]
    return images.clamp(0, 1) ** float(2 ** (strength * draw[6]))


def build(section: dict, data: Path, weights: Path, seed: int, folder: Path) -> tuple[AutoencoderStage, str]:
    """The stage from its configuration and a data folder."""
    options = stage_options(section, AutoencoderOptions())
    train, held_out, words = load_pictures(data, face_model_of(section))
    network = configs.build("autoencoder", section["size"], seed, **subsection(section, "network"))
    if options.pretrained:
        start_from_pretrained(network, Path(options.pretrained))
        words += f"; started from {Path(options.pretrained).name}"
    features = perceptual_features(options.perceptual)
    teacher = None
    if options.teacher:
        teacher = load_autoencoder(Path(options.teacher))
        words += f"; the latents are those of {Path(options.teacher).name}"
    return AutoencoderStage(network, train, held_out, features, options, teacher=teacher), words


def main(arguments: list[str] | None = None) -> int:
    return stage_main("autoencoder", build, __doc__.splitlines()[0], arguments)

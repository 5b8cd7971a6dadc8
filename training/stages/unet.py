"""Stage 5: the diffusion UNet learns to make frames (FD2Talk Sec. 3.4.2, Eq. 16).

The autoencoder is frozen, so every picture is encoded once, and so is, for every pair of a reference and a
frame, the reference moved by the mesh's correspondence. Both stay in memory at half precision; a step then
costs the UNet alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fd2talk_core import configs
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.model import FaceModel
from fd2talk_core.frames.masking import shown_landmarks
from fd2talk_core.networks.autoencoder import FrameAutoencoder
from fd2talk_core.networks.checkpoint import CheckpointInfo, save_checkpoint
from fd2talk_core.networks.diffusion import (
    TRAIN_STEPS,
    NoiseMode,
    ddim_sample,
    diffusion_loss,
    frame_noise,
    make_scheduler,
    sampling_timesteps,
)
from fd2talk_core.networks.unet import RESIDUAL_REGIONS, FilmedFrames, FrameUNet, named_masks

from ..drawing import save_grid
from ..measures import psnr, ssim
from ..regions import face_region
from ..sources import PictureSet, face_model_of, fingerprint, kept_between_runs, load_pictures
from ..trainer import Stage, draw_timestep, stage_main, stage_options, subsection
from .conditions import (
    FitErrors,
    align_pairs,
    encode_masked,
    encode_pictures,
    estimate_motion,
    load_autoencoder,
)


@dataclass(frozen=True)
class UNetOptions:
    """The section ``unet`` of a configuration; the UNet's own form stands in its ``network``.

    Attributes:
        condition: ``true`` coefficients of the frame, or ``estimated``: one denoising step by the motion
            networks from the clip's own noised coefficients (the paper's β̃₀ and p̃₀). Pictures of no
            recording keep the true ones.
        references: references tried for every picture.
        reference: ``any`` other picture of the person, or the ``first`` of a clip, as in the paper.
        noise_mode: of the frames that validation samples: one map ``shared`` by all, or one ``per_frame``.
        pictures: how many of the data's pictures are used, 0 for all.
        steps: sampling steps that the checkpoint recommends and the validation takes.
        visited: part of the timesteps drawn from those that sampling in ``steps`` steps visits; the rest are
            uniform.
        reference_noise: noise on the reference latent and its warped form, in standard deviations, so that
            the network does not trust every detail of them.
        identity_error, expression_error, pose_error: of the fits by which references are moved, see
            :class:`~training.stages.conditions.FitErrors`.
        face_weight, mouth_eyes_weight, hidden_weight: how much more the error counts in cells that the face
            covers, further in those of the mouth's inside and the eyeballs, where the reference cannot just
            be moved, and in those of surface that the reference does not show. They need alignment, whose
            masks say where that is.
        residual_region: of the checkpoint, see :class:`~fd2talk_core.networks.unet.FrameUNet`; the network
            learns to change everything, since what it learns beside the face also serves in it.
        held_out_pairs: what the validation looks at.
    """

    condition: str = "true"
    references: int = 2
    reference: str = "any"
    noise_mode: str = "shared"
    pictures: int = 0
    steps: int = 6
    visited: float = 0.5
    reference_noise: float = 0.0
    identity_error: float = 0.0
    expression_error: float = 0.0
    pose_error: float = 0.0
    face_weight: float = 0.0
    mouth_eyes_weight: float = 0.0
    hidden_weight: float = 0.0
    residual_region: str = "everywhere"
    held_out_pairs: int = 48

    def __post_init__(self) -> None:
        if self.residual_region not in RESIDUAL_REGIONS:
            names = ", ".join(RESIDUAL_REGIONS)
            raise FD2TalkError(f"residual_region is {self.residual_region!r}, but it is one of: {names}.")
        for name, options in (("reference", ("any", "first")), ("noise_mode", ("shared", "per_frame"))):
            if getattr(self, name) not in options:
                raise FD2TalkError(
                    f"{name} is {getattr(self, name)!r}, but it is one of: {', '.join(options)}."
                )
        if self.condition not in ("true", "estimated"):
            raise FD2TalkError(f"condition is {self.condition!r}, but it is one of: true, estimated.")

    @property
    def errors(self) -> FitErrors:
        """Of the fits."""
        return FitErrors(self.identity_error, self.expression_error, self.pose_error)


@dataclass(frozen=True, eq=False)
class EncodedPairs:
    """Pairs of a reference and a frame of one person, as the UNet meets them.

    Attributes:
        latents: ``[N, d, h, w]`` float16, of the pictures.
        motion: ``[N, D_m]``, the condition of each picture as a frame.
        reference, frame: ``[P]``, numbers of pictures.
        warped: ``[P, d + k, h, w]`` float16, or empty without alignment.
        masked: ``[N, d, h, w]`` float16, of the pictures without their mouths, or empty without a masked
            input.
        landmarks: ``[N, 2 L]``, of the pictures, outside their mouths; as well.
    """

    latents: Tensor
    motion: Tensor
    reference: Tensor
    frame: Tensor
    warped: Tensor
    masked: Tensor
    landmarks: Tensor

    def __len__(self) -> int:
        return len(self.reference)

    def pair(self, index: int) -> dict[str, Tensor]:
        """One pair in float32."""
        pair = {
            "frame": self.latents[self.frame[index]].float(),
            "reference": self.latents[self.reference[index]].float(),
            "motion": self.motion[self.frame[index]],
        }
        if self.warped.numel():
            pair["warped"] = self.warped[index].float()
        if self.masked.numel():
            pair["masked"] = self.masked[self.frame[index]].float()
            pair["landmarks"] = self.landmarks[self.frame[index]]
        return pair


class UNetStage(Stage):
    """Eq. 16 over encoded pairs.

    Args:
        unet: is trained.
        autoencoder: frozen; decodes for the validation.
        pairs, held_out: encoded.
        held_out_pictures: that ``held_out`` was made of.
    """

    name, score = "unet", "psnr"

    def __init__(
        self,
        unet: FrameUNet,
        autoencoder: FrameAutoencoder,
        pairs: EncodedPairs,
        held_out: EncodedPairs,
        held_out_pictures: PictureSet,
        face_model: FaceModel,
        options: UNetOptions,
    ) -> None:
        super().__init__({"unet": unet.to(memory_format=torch.channels_last)})
        self.pairs, self.held_out, self.options = pairs, held_out, options
        self.autoencoder = autoencoder
        self.held_out_pictures, self.face_model = held_out_pictures, face_model
        self.scheduler = make_scheduler()
        self.visited = torch.tensor(sampling_timesteps(options.steps)[:-1])
        self.truth: tuple[Tensor, Tensor, Tensor] | None = None

    def sample(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        sample = self.pairs.pair(int(torch.randint(len(self.pairs), (), generator=generator)))
        sample["noise"] = torch.randn(sample["frame"].shape, generator=generator)
        sample["timestep"] = draw_timestep(self.visited, self.options.visited, generator)
        if self.options.reference_noise:
            noise = torch.randn(sample["frame"].shape, generator=generator) * self.options.reference_noise
            sample["reference"] = sample["reference"] + noise
            if "warped" in sample:
                sample["warped"] = torch.cat(
                    [sample["warped"][: len(noise)] + noise, sample["warped"][len(noise) :]]
                )
        return sample

    def denoiser(self, unet: FrameUNet, batch: dict[str, Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        """``(x_t, t) -> x0`` by a UNet, with a batch's conditions."""

        def denoise(noisy: Tensor, timestep: Tensor) -> Tensor:
            return unet(
                noisy.contiguous(memory_format=torch.channels_last),
                timestep,
                motion=batch["motion"],
                reference_latent=batch["reference"],
                warped=batch.get("warped"),
                filmed=filmed_of(batch),
            )

        return denoise

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        frame, t = batch["frame"], batch["timestep"]
        error, _, _ = diffusion_loss(
            self.denoiser(self.networks["unet"], batch),
            frame,
            scheduler=self.scheduler,
            timesteps=t,
            noise=batch["noise"],
            weights=self._weights(batch),
            reduction="sample",
        )
        late = t < TRAIN_STEPS // 2
        losses = {"loss": error.mean()}
        # how well it refines, and how well it guesses from noise: two different curves
        for name, part in (("low_noise_loss", late), ("high_noise_loss", ~late)):
            if part.any():
                losses[name] = error[part].mean()
        return losses

    def _weights(self, batch: dict[str, Tensor]) -> Tensor | None:
        """Of the cells, ``[B, 1, h, w]`` with mean 1 over a picture."""
        options = self.options
        shares = (options.face_weight, options.mouth_eyes_weight, options.hidden_weight)
        if "warped" not in batch or not any(shares):
            return None
        masks = named_masks(batch["warped"][:, batch["frame"].shape[1] :])
        parts = (masks["coverage"], torch.maximum(masks["mouth"], masks["eyes"]), masks["hidden"])
        weights = 1 + sum(share * part[:, 0] for share, part in zip(shares, parts, strict=True))
        return (weights / weights.mean(dim=(1, 2), keepdim=True))[:, None]

    @torch.no_grad()
    def sample_frames(self, indices: list[int]) -> Tensor:
        """Sampled latents of held-out pairs, ``[n, d, h, w]``."""
        return sample_pairs(
            self.networks["unet"],
            [self.held_out.pair(i) for i in indices],
            self.options.steps,
            self.options.noise_mode,
        )

    def _held_out_truth(self) -> tuple[Tensor, Tensor, Tensor]:
        """References, true frames and face regions of the held-out pairs, uint8 and bool; made once."""
        if self.truth is None:
            pictures, pairs = self.held_out_pictures, self.held_out
            references = torch.stack([pictures.read(int(i)) for i in pairs.reference])
            frames = torch.stack([pictures.read(int(i)) for i in pairs.frame])
            at = pairs.frame
            region = face_region(
                self.face_model,
                pictures.identity[at],
                pictures.expression[at],
                pictures.pose[at],
                pictures.size,
            )
            self.truth = references, frames, region
        return self.truth

    @torch.no_grad()
    def validate(self, folder: Path | None) -> dict[str, float]:
        references, frames, regions = self._held_out_truth()
        device = self.networks["unet"].device
        measured: dict[str, list[Tensor]] = {
            name: []
            for name in ("psnr", "ssim", "copy_psnr", "copy_ssim", "latent_error", "warp_latent_error")
        }
        rows = []
        for start in range(0, len(self.held_out), 8):
            indices = list(range(start, min(start + 8, len(self.held_out))))
            latents = self.sample_frames(indices)
            pairs = [self.held_out.pair(i) for i in indices]
            reference = torch.stack([pair["reference"] for pair in pairs]).to(device)
            target = torch.stack([pair["frame"] for pair in pairs]).to(device)
            decoded = self.autoencoder.decode(latents, reference).cpu()
            true, source = frames[indices].float() / 255, references[indices].float() / 255
            region = regions[indices]
            measured["psnr"].append(psnr(decoded, true, region))
            measured["ssim"].append(ssim(decoded, true, region))
            measured["copy_psnr"].append(psnr(source, true, region))
            measured["copy_ssim"].append(ssim(source, true, region))
            measured["latent_error"].append((latents - target).square().mean(dim=(1, 2, 3)).cpu())
            shown = [source, true, decoded]
            if "warped" in pairs[0]:
                moved = torch.stack([pair["warped"][: target.shape[1]] for pair in pairs]).to(device)
                measured["warp_latent_error"].append((moved - target).square().mean(dim=(1, 2, 3)).cpu())
                shown.append(self.autoencoder.decode(moved, reference).cpu())
            shown.append((4 * (decoded - true).abs() * region).clamp(0, 1))
            if len(rows) < 8:
                rows += [torch.stack(parts) for parts in zip(*shown, strict=True)][:2]
        if folder is not None:
            save_grid(rows, folder / "frames.png")
        metrics = {name: float(torch.cat(values).mean()) for name, values in measured.items() if values}
        return {**metrics, "gain": metrics["psnr"] - metrics["copy_psnr"]}

    def export(self, weights: Path, trained_on: str) -> None:
        info = CheckpointInfo(
            face_model=self.face_model.name,
            resolution=self.held_out_pictures.size,
            steps=self.options.steps,
            trained_on=trained_on,
        )
        self.networks["unet"].register_to_config(residual_region=self.options.residual_region)
        save_checkpoint(self.networks["unet"], weights / "unet.safetensors", info)


@torch.no_grad()
def sample_pairs(
    unet: FrameUNet, pairs: list[dict[str, Tensor]], steps: int, noise_mode: NoiseMode = "shared"
) -> Tensor:
    """What a UNet makes of pairs as :meth:`EncodedPairs.pair` gives them, ``[n, d, h, w]``."""
    batch = {name: torch.stack(values).to(unet.device) for name, values in _columns(pairs).items()}
    filmed = filmed_of(batch)
    cache = unet.make_cache(batch["motion"], batch["reference"], filmed)
    noise = frame_noise(0, range(len(pairs)), batch["reference"].shape[1:], noise_mode).to(unet.device)

    def denoise(sample: Tensor, timestep: Tensor) -> Tensor:
        return unet(
            sample,
            timestep,
            reference_latent=batch["reference"],
            warped=batch.get("warped"),
            cache=cache,
            filmed=filmed,
        )

    return ddim_sample(denoise, noise, steps=steps)


def filmed_of(batch: dict[str, Tensor]) -> FilmedFrames | None:
    """What a batch says of frames whose mouths are to be painted."""
    return FilmedFrames(batch["masked"], batch["landmarks"]) if "masked" in batch else None


def _columns(rows: list[dict[str, Tensor]]) -> dict[str, list[Tensor]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def choose_pairs(
    pictures: PictureSet, references: int, seed: int, limit: int = 0, reference: str = "any"
) -> tuple[Tensor, Tensor]:
    """For every picture, up to ``references`` others of the same person, at random.

    Args:
        reference: ``first`` takes the person's first picture instead, and that one for no frame.
        limit: pictures used as frames at most, spread evenly over the people; 0 for all.

    Returns:
        numbers of the references and of the frames, ``[P]`` each.
    """
    generator = torch.Generator().manual_seed(seed)
    first = reference == "first"
    frames = [(index, person) for person in pictures.people() for index in person[first:]]
    if limit and limit < len(frames):
        chosen = torch.randperm(len(frames), generator=generator)[:limit].sort().values
        frames = [frames[int(i)] for i in chosen]
    pairs = []
    for index, person in frames:
        others = [person[0]] if first else [i for i in person if i != index]
        for choice in torch.randperm(len(others), generator=generator)[:references].tolist():
            pairs.append((others[choice], index))
    reference, frame = torch.tensor(pairs).unbind(1)
    return reference, frame


@torch.no_grad()
def encode_pairs(
    pictures: PictureSet,
    reference: Tensor,
    frame: Tensor,
    motion: Tensor,
    unet: FrameUNet,
    autoencoder: FrameAutoencoder,
    face_model: FaceModel,
    errors: FitErrors,
    seed: int,
    batch: int = 8,
) -> EncodedPairs:
    """Encode the pictures that occur in pairs, and the references as they are moved to the frames.

    Args:
        reference, frame: ``[P]``, numbers of pictures.
        motion: ``[N, D_m]``, the condition of every picture.
    """
    from tqdm import tqdm

    latents = encode_pictures(pictures, autoencoder, torch.cat([reference, frame]).unique(), batch)
    warped = torch.zeros(0)
    if unet.config.reference_alignment != "none":
        parts = []
        generator = torch.Generator().manual_seed(seed)
        numbers = torch.arange(len(reference))
        for part in tqdm(numbers.split(batch), desc="moving references", mininterval=2.0):
            parts.append(
                align_pairs(
                    *(unet, face_model, pictures, latents, reference[part], frame[part], motion),
                    errors,
                    generator,
                )
            )
        warped = torch.cat(parts)
    masked = landmarks = torch.zeros(0)
    if unet.config.masked_input:
        masked, landmarks = encode_masked(pictures, autoencoder, face_model, frame.unique(), batch)
    return EncodedPairs(latents, motion, reference, frame, warped, masked, landmarks)


def prepare_pairs(
    pictures: PictureSet,
    motion: Tensor,
    unet: FrameUNet,
    autoencoder: FrameAutoencoder,
    face_model: FaceModel,
    options: UNetOptions,
    seed: int,
    cache: Path,
    limit: int,
) -> EncodedPairs:
    """:func:`encode_pairs` of a set, read from ``cache`` if a run has made it before."""
    reference, frame = choose_pairs(pictures, options.references, seed, limit, options.reference)
    key = fingerprint(
        autoencoder.state_dict(),
        unet.config.reference_alignment,
        *(("masked",) if unet.config.masked_input else ()),
        face_model.digest,
        repr(options.errors),
        *(motion, reference, frame, pictures.identity, pictures.expression, pictures.pose),
        *pictures.encoded,
    )
    return kept_between_runs(
        lambda: encode_pairs(
            pictures, reference, frame, motion, unet, autoencoder, face_model, options.errors, seed
        ),
        EncodedPairs,
        cache,
        key,
    )


def build_unet(
    section: dict, face_model: FaceModel, autoencoder: FrameAutoencoder, size: int, seed: int
) -> FrameUNet:
    """An untrained UNet that fits the face model and the autoencoder."""
    config = {**configs.load_config("unet", section["size"]), **subsection(section, "network")}
    config |= {
        "latent_channels": autoencoder.config.latent_channels,
        "sample_size": size // autoencoder.downsample_factor,
        "motion_dim": face_model.expression_dim + 6,
        # the checkpoint's own region is written when it is exported
        "residual_region": "everywhere",
    }
    if config.get("reference_alignment") == "warp_image":
        config["reference_encoder"] = {k: v for k, v in autoencoder.config.items() if not k.startswith("_")}
    else:
        config["reference_encoder"] = None
    if config.get("reference_alignment") == "none":
        config["alignment_channels"] = 0
    if config.get("masked_input"):
        config["landmarks"] = len(shown_landmarks(face_model))
    unet = configs.build("unet", section["size"], seed, **config)
    if unet.config.reference_alignment == "warp_image":
        unet.set_reference_encoder(autoencoder.encoder)
    return unet


def build(section: dict, data: Path, weights: Path, seed: int, folder: Path) -> tuple[UNetStage, str]:
    """The stage from its configuration, a data folder and the weights of the stages before it."""
    options = stage_options(section, UNetOptions())
    face_model = face_model_of(section)
    autoencoder = load_autoencoder(weights)
    train, held_out, words = load_pictures(data, face_model)
    unet = build_unet(section, face_model, autoencoder, train.size, seed)
    aligned = unet.config.predict_residual and unet.config.reference_alignment != "none"
    if options.residual_region == "hidden" and not aligned:
        raise FD2TalkError(
            "residual_region is 'hidden', which needs predict_residual and a reference_alignment; set "
            "residual_region: everywhere."
        )
    motion = torch.cat([train.expression, train.pose], dim=1)
    if options.condition == "estimated":
        motion, estimated = estimate_motion(train, data, weights, face_model, folder, seed)
        words += f", conditions of {estimated} estimated"
    # the held-out frames are compared with the truth, so their motion is the truth
    true = torch.cat([held_out.expression, held_out.pose], dim=1)
    common = (unet, autoencoder, face_model, options, seed)
    pairs = prepare_pairs(train, motion, *common, folder / "pairs", options.pictures)
    validation = prepare_pairs(held_out, true, *common, folder / "held-out", options.held_out_pairs)
    validation = first_pairs(validation, options.held_out_pairs)
    return UNetStage(unet, autoencoder, pairs, validation, held_out, face_model, options), words


def first_pairs(pairs: EncodedPairs, count: int) -> EncodedPairs:
    """Every n-th pair, ``count`` in all."""
    chosen = torch.linspace(0, len(pairs) - 1, min(count, len(pairs))).round().long()
    return EncodedPairs(
        pairs.latents,
        pairs.motion,
        pairs.reference[chosen],
        pairs.frame[chosen],
        pairs.warped[chosen] if pairs.warped.numel() else pairs.warped,
        pairs.masked,
        pairs.landmarks,
    )


def main(arguments: list[str] | None = None) -> int:
    return stage_main("unet", build, __doc__.splitlines()[0], arguments)

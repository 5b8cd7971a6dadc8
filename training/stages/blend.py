"""Stage 6: the decoder learns where a frame's pixels come from (FD2Talk Eq. 13, DAWN Eq. 3 and 4).

Encoder, decoder and UNet are frozen. For every pair of a reference and a frame the UNet makes the frame as it
would for a user: with a face that was fitted to the reference, which errs as fits do. The mesh's displacement
and the UNet's picture stay in memory; a step then costs the blend alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fd2talk_core import configs
from fd2talk_core.face.matte import person_matte
from fd2talk_core.face.model import FaceModel
from fd2talk_core.frames.conditioning import align_portrait
from fd2talk_core.frames.correspondence import reference_flow, room_in_hair
from fd2talk_core.frames.portrait_motion import FIELD_SIZE
from fd2talk_core.imaging import resize, soften
from fd2talk_core.networks.autoencoder import FrameAutoencoder, perceptual_loss
from fd2talk_core.networks.blend import SOURCES, Blend
from fd2talk_core.networks.checkpoint import load_checkpoint, save_checkpoint
from fd2talk_core.networks.unet import FrameUNet

from ..drawing import save_grid
from ..measures import psnr, ssim
from ..sources import PictureSet, face_model_of, fingerprint, kept_between_runs, load_pictures, need_weights
from ..trainer import Stage, stage_main, stage_options, subsection
from .autoencoder import random_colour
from .conditions import FitErrors, load_autoencoder
from .perceptual import perceptual_features
from .unet import choose_pairs, sample_pairs

_BLEND_WORDS = "; blend: "
"""In what a checkpoint says of its training, between the autoencoder's and the blend's."""


@dataclass(frozen=True)
class BlendOptions:
    """The section ``blend`` of a configuration; the blend's own form stands in its ``network``.

    Attributes:
        references: references tried for every picture.
        pictures: how many of the data's pictures are frames, 0 for all.
        identity_error, expression_error, pose_error: standard deviations of a fit's errors in α, in β and in
            p (radians, face-model units), which reference and frame share: the frame's coefficients are the
            fitted ones, changed by a motion.
        difference_weight, structure_weight, perceptual_weight: of the mean absolute difference, of 1 - SSIM,
            and of L_per (Eq. 14).
        face_weight: how much more the difference counts where the mesh is.
        contrast_weight: of the difference in fine contrast around a place, whose strands and pores need not
            lie where the true ones do: the other terms like soft hair better than strands a little beside.
        made_weight: of the share that the latents' colours have: where they and the portrait are equally
            right, the portrait is to be shown, which is finer than training sees.
        colour: strength of random changes of colour, the same for all pictures of a pair.
        perceptual: a safetensors file with VGG-16's weights; empty for features that need no file.
        held_out_pairs: what the validation looks at.
    """

    references: int = 1
    pictures: int = 0
    identity_error: float = 0.4
    expression_error: float = 0.04
    pose_error: float = 0.025
    difference_weight: float = 5.0
    structure_weight: float = 0.5
    perceptual_weight: float = 1.0
    contrast_weight: float = 25.0
    face_weight: float = 2.0
    made_weight: float = 0.1
    colour: float = 0.2
    perceptual: str = ""
    held_out_pairs: int = 48

    @property
    def errors(self) -> FitErrors:
        """Of the fits."""
        return FitErrors(self.identity_error, self.expression_error, self.pose_error)


@dataclass(frozen=True, eq=False)
class MadePairs:
    """Pairs of a reference and a frame of one person, with what the networks make of them.

    Attributes:
        reference, frame: ``[P]``, numbers of pictures.
        mattes: ``[N, 1, S, S]`` uint8, of the pictures that are references.
        made: ``[P, 3, S, S]`` uint8, the UNet's frames.
        displacement: ``[P, 2, m, m]`` float16; masks: ``[P, 5, m, m]`` uint8, of the correspondence.
    """

    reference: Tensor
    frame: Tensor
    mattes: Tensor
    made: Tensor
    displacement: Tensor
    masks: Tensor

    def __len__(self) -> int:
        return len(self.reference)

    def pair(self, index: int, pictures: PictureSet) -> dict[str, Tensor]:
        """One pair in float32."""
        reference = int(self.reference[index])
        return {
            "portrait": pictures.read(reference).float() / 255,
            "frame": pictures.read(int(self.frame[index])).float() / 255,
            "matte": self.mattes[reference].float() / 255,
            "made": self.made[index].float() / 255,
            "displacement": self.displacement[index].float(),
            "masks": self.masks[index].float() / 255,
        }


class BlendStage(Stage):
    """The blend, trained on the picture that results.

    Args:
        autoencoder: its blend is trained, the rest is frozen.
        pictures, held_out_pictures: that the pairs are of.
        features: φ of Eq. 14.
    """

    name, score = "blend", "psnr"

    def __init__(
        self,
        autoencoder: FrameAutoencoder,
        pictures: PictureSet,
        pairs: MadePairs,
        held_out_pictures: PictureSet,
        held_out: MadePairs,
        features: nn.Module,
        options: BlendOptions,
    ) -> None:
        autoencoder.requires_grad_(False)
        blend = autoencoder.portrait_blend.requires_grad_(True).to(memory_format=torch.channels_last)
        super().__init__({"blend": blend})
        self.autoencoder = autoencoder
        self.pictures, self.pairs = pictures, pairs
        self.held_out_pictures, self.held_out = held_out_pictures, held_out
        self.features, self.options = features, options

    def sample(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        number = int(torch.randint(len(self.pairs), (), generator=generator))
        pair = self.pairs.pair(number, self.pictures)
        shown = torch.stack([pair.pop(name) for name in ("portrait", "frame", "made")])
        shown = random_colour(shown, self.options.colour, generator)
        pair |= dict(zip(("portrait", "frame", "made"), shown, strict=True))
        if torch.rand((), generator=generator) < 0.5:
            pair = {name: value.flip(-1) for name, value in pair.items()}
            pair["displacement"][0].neg_()
        return pair

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        options, frame = self.options, batch["frame"]
        blend = self._blend(batch)
        portrait = batch["portrait"]
        moved = blend.moved(portrait, batch["displacement"])
        front, of_still = blend.front(moved)
        shown = front + of_still * portrait
        weight = 1 + options.face_weight * resize(batch["masks"][:, :1], frame.shape[-1])
        difference = ((shown - frame).abs() * (weight / weight.mean(dim=(1, 2, 3), keepdim=True))).mean()
        structure = _dissimilarity(shown, frame)
        sources = (moved, portrait, blend.colours)
        contrast = (_shared_contrast(blend.weights, sources) - _fine_contrast(frame)).abs().mean()
        per = perceptual_loss(frame, shown, self.features)
        loss = (
            options.difference_weight * difference
            + options.structure_weight * structure
            + options.perceptual_weight * per
            + options.contrast_weight * contrast
            + options.made_weight * blend.weights[:, SOURCES.index("made")].mean()
        )
        return {
            "loss": loss,
            "difference": difference,
            "structure": structure,
            "contrast": contrast,
            "per_loss": per,
        }

    def _blend(self, batch: dict[str, Tensor]) -> Blend:
        names = ("portrait", "matte", "made", "displacement", "masks")
        return self.networks["blend"](*(batch[name] for name in names))

    @torch.no_grad()
    def validate(self, folder: Path | None) -> dict[str, float]:
        device = next(self.networks.parameters()).device
        measured: dict[str, list[Tensor]] = {}
        rows = []
        for number in range(len(self.held_out)):
            pair = self.held_out.pair(number, self.held_out_pictures)
            pair = {name: value[None].to(device) for name, value in pair.items()}
            frame = pair["frame"]
            blend = self._blend(pair)
            shown = blend.picture(pair["portrait"], pair["displacement"]).clamp(0, 1)
            face = resize(pair["masks"][:, :1], frame.shape[-1])
            values = {
                "psnr": psnr(shown, frame),
                "ssim": ssim(shown, frame),
                "face_psnr": psnr(shown, frame, face),
                "face_ssim": ssim(shown, frame, face),
                "contrast": (_fine_contrast(shown) / _fine_contrast(frame).mean()).mean(dim=(1, 2, 3)),
                "made_psnr": psnr(pair["made"], frame),
                "made_ssim": ssim(pair["made"], frame),
                **{
                    f"share_{name}": share.mean(dim=(1, 2))
                    for name, share in zip(SOURCES, blend.weights.unbind(1), strict=True)
                },
            }
            for name, value in values.items():
                measured.setdefault(name, []).append(value.cpu())
            if number % 6 == 0:
                row = [pair["portrait"], frame, pair["made"], shown, resize(blend.weights, frame.shape[-1])]
                rows.append(torch.cat(row).cpu())
        if folder is not None:
            save_grid(rows, folder / "blends.png")
        return {name: float(torch.cat(values).mean()) for name, values in measured.items()}

    def checkpoints(self) -> dict[str, nn.Module]:
        """The blend is a part of the autoencoder's file."""
        return {"autoencoder": self.autoencoder}

    def grown(self, earlier: nn.Module, network: nn.Module) -> dict[str, Tensor]:
        """An earlier blend may have painted, which this one leaves to the diffusion, and had no shift."""
        given, own = earlier.state_dict(), network.state_dict()
        for name in ("weight", "bias"):
            last, move = f"portrait_blend.last.{name}", f"portrait_blend.move.{name}"
            if last in given and len(given[last]) > len(own[last]):
                given[last] = given[last][: len(own[last])]
            if move in own:
                given.setdefault(move, own[move])
        return given

    def export(self, weights: Path, trained_on: str) -> None:
        info = self.autoencoder.info
        rest = info.trained_on.partition(_BLEND_WORDS)[0]
        info = replace(info, trained_on=f"{rest}{_BLEND_WORDS}{trained_on}")
        save_checkpoint(self.autoencoder, weights / "autoencoder.safetensors", info)


def _dissimilarity(shown: Tensor, truth: Tensor, window: int = 7) -> Tensor:
    """1 - SSIM (Wang et al. 2004) over square windows, which cost less than Gaussian ones."""

    def mean(values: Tensor) -> Tensor:
        return F.avg_pool2d(values, window, stride=2)

    a, b = mean(shown), mean(truth)
    spread = mean(shown.square()) - a.square() + mean(truth.square()) - b.square()
    shared = mean(shown * truth) - a * b
    first, second = 0.01**2, 0.03**2
    similarity = (2 * a * b + first) * (2 * shared + second)
    return 1 - (similarity / ((a.square() + b.square() + first) * (spread + second))).mean()


def _fine_contrast(pictures: Tensor) -> Tensor:
    """``[B, 1, h, w]``: the root mean square, in windows, of what is finer than three pixels."""
    grey = pictures.mean(dim=1, keepdim=True)
    return (_pooled((grey - soften(grey)).square()) + 1e-6).sqrt()


def _shared_contrast(weights: Tensor, sources: Sequence[Tensor]) -> Tensor:
    """``[B, 1, h, w]``: the fine contrast of :data:`SOURCES` ``[B, 3, S, S]``, by their shares at any size.
    That of the mixed picture would reward pixels that are taken in turn from two sources.
    """
    shares = resize(weights, sources[0].shape[-1]).split(1, dim=1)
    return sum(_pooled(share) * _fine_contrast(source) for share, source in zip(shares, sources, strict=True))


def _pooled(planes: Tensor, window: int = 9) -> Tensor:
    return F.avg_pool2d(planes, window, stride=2)


@torch.no_grad()
def make_pairs(
    pictures: PictureSet,
    unet: FrameUNet,
    autoencoder: FrameAutoencoder,
    face_model: FaceModel,
    options: BlendOptions,
    seed: int,
    limit: int,
    batch: int = 4,
) -> MadePairs:
    """What the networks make of up to ``limit`` pictures as frames, each with references of its person.

    Args:
        limit: 0 for all.
    """
    from tqdm import tqdm

    reference, frame = choose_pairs(pictures, options.references, seed, limit)
    size = pictures.size
    mattes = torch.zeros(len(pictures), 1, size, size, dtype=torch.uint8)
    made, displacements, masks = [], [], []
    device, steps = unet.device, unet.info.steps
    generator = torch.Generator().manual_seed(seed)
    for part in tqdm(torch.arange(len(reference)).split(batch), desc="making frames", mininterval=2.0):
        sources, targets = reference[part], frame[part]
        crops = torch.stack([pictures.read(int(i)) for i in sources]).float() / 255
        for source, crop in zip(sources.tolist(), crops, strict=True):
            if not mattes[source].any():
                mattes[source, 0] = _bytes(person_matte(crop.movedim(0, -1)))
        face = options.errors.apply(
            pictures.identity[sources],
            (pictures.expression[sources], pictures.pose[sources]),
            (pictures.expression[targets], pictures.pose[targets]),
            generator,
        )
        flow = reference_flow(face_model, *face, FIELD_SIZE)
        latents = autoencoder.encode(crops.to(device))
        warped = align_portrait(unet, latents, crops, lambda *_: flow)  # noqa: B023  is called at once
        motion = torch.cat([face[3], face[4]], dim=1)
        rows = [
            {"reference": x, "motion": m, "warped": w}
            for x, m, w in zip(latents, motion.to(device), warped, strict=True)
        ]
        frames = sample_pairs(unet, rows, steps)
        made.append(_bytes(autoencoder.decode(frames, latents).cpu()))
        hair = room_in_hair(mattes[sources].float() / 255)
        displacements.append(flow.within_hair(hair).displacement.half())
        masks.append(_bytes(flow.masks))
    return MadePairs(
        reference,
        frame,
        mattes,
        torch.cat(made),
        torch.cat(displacements),
        torch.cat(masks),
    )


def _bytes(values: Tensor) -> Tensor:
    return (values.clamp(0, 1) * 255).round().to(torch.uint8)


def prepare_pairs(
    pictures: PictureSet,
    unet: FrameUNet,
    autoencoder: FrameAutoencoder,
    face_model: FaceModel,
    options: BlendOptions,
    seed: int,
    cache: Path,
    limit: int,
) -> MadePairs:
    """:func:`make_pairs` of a set, read from ``cache`` if a run has made it before."""
    key = fingerprint(
        autoencoder.encoder.state_dict(),
        autoencoder.decoder.state_dict(),
        unet.state_dict(),
        face_model.digest,
        *(seed, limit, options.references, repr(options.errors)),
        *pictures.encoded,
    )
    return kept_between_runs(
        lambda: make_pairs(pictures, unet, autoencoder, face_model, options, seed, limit),
        MadePairs,
        cache,
        key,
    )


def with_blend(autoencoder: FrameAutoencoder, section: dict, seed: int) -> FrameAutoencoder:
    """The autoencoder with an untrained blend, also where it has one: ``--start`` begins with that."""
    config = {k: v for k, v in autoencoder.config.items() if not k.startswith("_")}
    whole = configs.build(
        "autoencoder", section["size"], seed, **{**config, "blend": subsection(section, "network")}
    )
    for part in ("encoder", "decoder"):
        getattr(whole, part).load_state_dict(getattr(autoencoder, part).state_dict())
    whole.info = autoencoder.info
    return whole


def build(section: dict, data: Path, weights: Path, seed: int, folder: Path) -> tuple[BlendStage, str]:
    """The stage from its configuration, a data folder and the weights of the stages before it."""
    options = stage_options(section, BlendOptions())
    face_model = face_model_of(section)
    autoencoder = with_blend(load_autoencoder(weights), section, seed)
    unet = load_checkpoint(need_weights(weights, "unet", "training.unet"), FrameUNet)
    train, held_out, words = load_pictures(data, face_model)
    common = (unet, autoencoder, face_model, options, seed)
    pairs = prepare_pairs(train, *common, folder / "pairs", options.pictures)
    validation = prepare_pairs(held_out, *common, folder / "held-out", options.held_out_pairs)
    features = perceptual_features(options.perceptual)
    stage = BlendStage(autoencoder, train, pairs, held_out, validation, features, options)
    return stage, words


def main(arguments: list[str] | None = None) -> int:
    return stage_main("blend", build, __doc__.splitlines()[0], arguments)

"""Set A, pictures: held-out people speak the coefficients of their other pictures; and flicker at rest."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from fd2talk_core.face.crop import CropTransform
from fd2talk_core.face.model import FaceModel
from fd2talk_core.face.names import ARKIT_NAMES, POSE_NAMES
from fd2talk_core.face.state import FaceState
from fd2talk_core.frames.correspondence import reference_flow, warp_reference
from fd2talk_core.frames.reference import Reference
from fd2talk_core.imaging import push_pull
from fd2talk_core.motion.coefficients import CoefficientSequence
from fd2talk_core.networks.unet import named_masks

from ..drawing import save_grid
from ..measures import (
    flicker,
    psnr,
    ssim,
)
from ..regions import face_region, mouth_and_eyes
from ..sources import PictureSet
from .table import Row
from .weights import Weights

SHOWN = ("made", "without the UNet", "the portrait moved, its gaps filled smoothly", "the portrait itself")
"""What is compared with the truth; the first is what a user sees."""

REGIONS = ("on the face", "of the mouth", "of the eyes", "where the portrait shows nothing")


def score_frames(
    weights: Weights, pictures: PictureSet, pictures_folder: Path, people: int = 64
) -> list[Row]:
    """Held-out people: the first picture of each speaks the coefficients of the others, against their
    pictures.
    """
    measured: dict[str, list[Tensor]] = {name: [] for name in SHOWN}
    rows = []
    for number, person in enumerate(pictures.people()[:people]):
        reference = picture_reference(weights, pictures, person[0])
        targets = list(person[1:])
        expression = CoefficientSequence(
            "expression", pictures.expression[targets], 25.0, weights.face_model.name, ARKIT_NAMES
        )
        pose = CoefficientSequence("pose", pictures.pose[targets], 25.0, weights.face_model.name, POSE_NAMES)
        frames, unpainted = (
            weights.talk(reference, expression, pose, "absolute", with_unet) for with_unet in (True, False)
        )
        truth = torch.stack([pictures.read(i) for i in targets]).float() / 255
        labels = (pictures.identity[targets], pictures.expression[targets], pictures.pose[targets])
        filled, hidden = moved_and_hidden(weights.face_model, reference, *labels[1:])
        regions = (
            face_region(weights.face_model, *labels, pictures.size),
            *mouth_and_eyes(weights.face_model, *labels, pictures.size),
            hidden,
        )
        still = reference.crop.movedim(-1, 0).expand_as(truth)
        for name, shown in zip(SHOWN, (frames, unpainted, filled, still), strict=True):
            # a frame whose region is empty has no value
            values = [
                measure(shown, truth, region).masked_fill(~region.flatten(1).any(dim=1), torch.nan)
                for region in regions
                for measure in (psnr, ssim)
            ]
            measured[name].append(torch.stack(values, dim=1))
        if number < 8:
            shown = (
                still[0],
                truth[0],
                frames[0],
                unpainted[0],
                (4 * (frames[0] - truth[0]).abs()).clamp(0, 1),
            )
            rows.append(torch.stack(shown))
    save_grid(rows, pictures_folder / "A-frames.png")
    means = {
        name: torch.cat(values).nanmean(dim=0).view(len(REGIONS), 2) for name, values in measured.items()
    }
    made, *others = SHOWN
    ratio, copied = (float(means[name][0, 0]) for name in (made, SHOWN[-1]))
    table = [Row("A frames: PSNR over copying (dB)", ratio - copied, 5)]
    targets = {"PSNR on the face": 25.0, "SSIM on the face": 0.85}
    for place, region in enumerate(REGIONS):
        for kind, measure in enumerate(("PSNR", "SSIM")):
            name, digits = f"{measure} {region}", 2 if measure == "PSNR" else 3
            note = "; ".join(f"{other}: {float(means[other][place, kind]):.{digits}f}" for other in others)
            value = _known(means[made][place, kind])
            unit = " (dB)" if measure == "PSNR" else ""
            table.append(Row(f"A frames: {name}{unit}", value, targets.get(name), note=note))
    with_unet, without = (means[name][-1, 0] for name in SHOWN[:2])
    table.append(Row("A frames: what the UNet adds there (dB)", _known(with_unet - without), 3))
    return table


def _known(value: Tensor) -> float | None:
    """None where no frame had such a place."""
    return None if value.isnan() else float(value)


@torch.no_grad()
def moved_and_hidden(
    face_model: FaceModel, reference: Reference, expression: Tensor, pose: Tensor
) -> tuple[Tensor, Tensor]:
    """The portrait as the mesh moves it, ``[F, 3, S, S]``, what it does not show filled from around; and
    ``[F, 1, S, S]`` bool, what that is: surface that it hides, and what is behind its head.
    """
    size = reference.crop.shape[0]
    own = reference.identity, reference.expression, reference.pose
    flow = reference_flow(face_model, *own, expression, pose, size)
    before = reference_flow(face_model, *own, *(part[None] for part in own[1:]), size)
    named = named_masks(flow.masks)
    left = before.masks[:, :1] * (1 - named["coverage"])
    hidden = torch.maximum(named["hidden"], left)
    moved = warp_reference(reference.crop.movedim(-1, 0)[None], flow.grid)
    filled = push_pull(moved * (1 - hidden), 1 - hidden)
    return torch.where(hidden > 0.5, filled, moved).clamp(0, 1), hidden > 0.5


@torch.no_grad()
def picture_reference(weights: Weights, pictures: PictureSet, index: int) -> Reference:
    """A labelled picture as a portrait whose coefficients are known."""
    crop = pictures.read(index).float() / 255
    size = crop.shape[-1]
    return Reference(
        latent=weights.autoencoder.encode(crop[None])[0],
        face=FaceState(
            pictures.identity[index],
            pictures.expression[index],
            pictures.pose[index],
            weights.face_model.name,
        ),
        crop=crop.movedim(0, -1),
        crop_transform=CropTransform.of_square(size / 2, size / 2, size, size),
        picture=crop.movedim(0, -1),
        face_found=True,
    )


def score_flicker(weights: Weights, reference: Reference, frames: int = 12) -> list[Row]:
    """Hold still but for a tremor too small to see, so that every frame is made anew."""
    generator = torch.Generator().manual_seed(0)
    tremor = 1e-4 * torch.randn(frames, len(reference.expression), generator=generator)
    names = weights.face_model.expression_names
    expression = CoefficientSequence(
        "expression", (reference.expression + tremor).clamp(0, 1), 25.0, weights.face_model.name, names
    )
    shake = 1e-4 * torch.randn(frames, 6, generator=generator)
    pose = CoefficientSequence("pose", reference.pose + shake, 25.0, weights.face_model.name, POSE_NAMES)
    made = weights.talk(reference, expression, pose, "absolute")
    return [Row("flicker where nothing moves (255ths)", flicker(made), 1.0, "low")]

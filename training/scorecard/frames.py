"""Set A, pictures: held-out people speak the coefficients of their other pictures; and flicker at rest."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from fd2talk_core.face.names import ARKIT_NAMES, POSE_NAMES
from fd2talk_core.frames.reference import Reference
from fd2talk_core.motion.coefficients import CoefficientSequence

from ..drawing import save_grid
from ..held_out import moved_and_hidden, picture_reference
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
        reference = picture_reference(weights.autoencoder, weights.face_model, pictures, person[0])
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

"""Set A, pictures: held-out people speak the coefficients of their other pictures; and flicker at rest."""

from __future__ import annotations

from pathlib import Path

import torch

from fd2talk_core.face.crop import CropTransform
from fd2talk_core.face.names import ARKIT_NAMES, POSE_NAMES
from fd2talk_core.face.state import FaceState
from fd2talk_core.frames.reference import Reference
from fd2talk_core.motion.coefficients import CoefficientSequence

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


def score_frames(
    weights: Weights, pictures: PictureSet, pictures_folder: Path, people: int = 64
) -> list[Row]:
    """Held-out people: the first picture of each speaks the coefficients of the others, against their
    pictures.
    """
    made, copied, rows = [], [], []
    for number, person in enumerate(pictures.people()[:people]):
        reference = picture_reference(weights, pictures, person[0])
        targets = list(person[1:])
        expression = CoefficientSequence(
            "expression", pictures.expression[targets], 25.0, weights.face_model.name, ARKIT_NAMES
        )
        pose = CoefficientSequence("pose", pictures.pose[targets], 25.0, weights.face_model.name, POSE_NAMES)
        frames = weights.talk(reference, expression, pose, "absolute")
        truth = torch.stack([pictures.read(i) for i in targets]).float() / 255
        labels = (pictures.identity[targets], pictures.expression[targets], pictures.pose[targets])
        face = face_region(weights.face_model, *labels, pictures.size)
        regions = (face, *mouth_and_eyes(weights.face_model, *labels, pictures.size))
        still = reference.crop.movedim(-1, 0).expand_as(truth)
        for shown, measured in ((frames, made), (still, copied)):
            likeness = [ssim(shown, truth, region) for region in regions]
            measured.append(torch.stack([psnr(shown, truth, face), *likeness], dim=1))
        if number < 8:
            rows.append(
                torch.stack([still[0], truth[0], frames[0], (4 * (frames[0] - truth[0]).abs()).clamp(0, 1)])
            )
    save_grid(rows, pictures_folder / "A-frames.png")
    (ratio, *likeness), (copy_ratio, *copy_likeness) = (
        torch.cat(values).mean(dim=0).tolist() for values in (made, copied)
    )
    table = [
        Row("A frames: PSNR on the face (dB)", ratio, 25, note=f"copying the reference: {copy_ratio:.2f}"),
        Row("A frames: PSNR over copying (dB)", ratio - copy_ratio, 5),
    ]
    for name, target, value, copy in zip(
        ("on the face", "of the mouth", "of the eyes"),
        (0.85, None, None),
        likeness,
        copy_likeness,
        strict=True,
    ):
        note = f"copying the reference: {copy:.3f}"
        table.append(Row(f"A frames: SSIM {name}", value, target, note=note))
    return table


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

"""Colours of the face model's parts, where no picture gives them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .model import FaceModel
from .names import MOUTH_PARTS
from .rasterizer import CLAY

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class MouthColours:
    """A part of the mouth's inside, three times.

    Attributes:
        preview: on the bare mesh of a motion preview, where everything is to be told apart.
        hidden: under the lips of a moved portrait. The UNet corrects the tone, and was trained on these.
        lit: in a close-up of a face of mean brightness, before lips and depth shade it; teeth as bright as
            the skin or a little more, as photographs have them.
    """

    preview: Colour
    hidden: Colour
    lit: Colour


MOUTH: dict[str, MouthColours] = {
    "mouth_interior": MouthColours((0.42, 0.18, 0.18), (0.22, 0.08, 0.08), (0.34, 0.17, 0.15)),
    "upper_teeth": MouthColours((0.95, 0.94, 0.90), (0.72, 0.68, 0.62), (0.80, 0.75, 0.67)),
    "lower_teeth": MouthColours((0.95, 0.94, 0.90), (0.62, 0.57, 0.52), (0.76, 0.71, 0.64)),
    "tongue": MouthColours((0.70, 0.38, 0.36), (0.52, 0.24, 0.24), (0.66, 0.38, 0.37)),
}
LIT_GUMS: Colour = (0.58, 0.36, 0.39)
"""As :attr:`MouthColours.lit`; gums are no part of the mesh, but painted on the teeth's edge."""

LIT_EYE: tuple[Colour, Colour, Colour] = ((0.06, 0.05, 0.05), (0.32, 0.22, 0.16), (0.66, 0.62, 0.60))
"""Pupil, iris and white as :attr:`MouthColours.lit`, of an eye that nobody sees: most people's are brown, and
the white stands in the lids' shadow."""

PREVIEW: dict[str, Colour] = {
    "lips": (0.72, 0.50, 0.46),
    **{name: colours.preview for name, colours in MOUTH.items()},
    "left_eye": (0.93, 0.93, 0.92),
    "right_eye": (0.93, 0.93, 0.92),
    "left_iris": (0.28, 0.36, 0.42),
    "right_iris": (0.28, 0.36, 0.42),
    "left_pupil": (0.03, 0.03, 0.03),
    "right_pupil": (0.03, 0.03, 0.03),
    "eyelashes": (0.20, 0.16, 0.14),
}
"""The parts whose motion one looks for; the rest is clay."""


def hidden_mouth_colours() -> Tensor:
    """``[4, 3]``, by :data:`fd2talk_core.face.names.MOUTH_PARTS`."""
    return torch.tensor([MOUTH[part].hidden for part in MOUTH_PARTS])


def lit_mouth_colours() -> Tensor:
    """``[5, 3]``, by :data:`fd2talk_core.face.names.MOUTH_PARTS`, then gums."""
    return torch.tensor([*(MOUTH[part].lit for part in MOUTH_PARTS), LIT_GUMS])


def lit_eye_colours() -> Tensor:
    """``[3, 3]``: pupil, iris and white."""
    return torch.tensor(LIT_EYE)


def preview_colours(face_model: FaceModel) -> Tensor:
    """``[T, 3]``: the colour of each triangle in a preview."""
    colours = torch.tensor([PREVIEW.get(name, CLAY) for name in face_model.part_names] or [CLAY])
    return colours[face_model.triangle_parts.cpu()]

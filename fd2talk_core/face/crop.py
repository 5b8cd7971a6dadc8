"""The square around a head that the networks see, framed as the face model's camera frames it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..imaging import resample
from .fitting import FaceFit, fit_landmarks
from .landmarks import (
    Face,
    Square,
)
from .model import FaceModel

Box = tuple[float, float, float, float]

_FRAMING_ROUNDS = 4

_SETTLED = 1e-3  # of the crop's side: a reframing smaller than this changes nothing that can be seen


@dataclass(frozen=True, eq=False)
class CropTransform:
    """Where the square crop lies in the picture.

    Attributes:
        matrix: ``[2, 3]``, takes a picture pixel (x, y, 1) to a crop pixel; a scale and a shift, no turn.
        size: side of the crop in pixels.
    """

    matrix: Tensor
    size: int

    @classmethod
    def of_square(cls, x: float, y: float, side: float, size: int) -> CropTransform:
        """The crop of ``size`` pixels that shows the square of ``side`` picture pixels around (x, y)."""
        scale = size / side
        shift = [size / 2 - scale * x, size / 2 - scale * y]
        matrix = torch.tensor([[scale, 0.0, shift[0]], [0.0, scale, shift[1]]], dtype=torch.float64)
        return cls(matrix, size)

    @property
    def scale(self) -> float:
        """Crop pixels a picture pixel."""
        return float(self.matrix[0, 0])

    @property
    def box(self) -> Box:
        """Left, top, right, bottom of the crop in the picture; it may reach outside."""
        left, top = (-self.matrix[:, 2] / self.scale).tolist()
        return left, top, left + self.size / self.scale, top + self.size / self.scale

    def points_to_crop(self, points: Tensor) -> Tensor:
        """Picture pixels ``[..., 2]`` as crop pixels."""
        return (points.double() * self.scale + self.matrix[:, 2]).to(points)

    def points_to_ndc(self, points: Tensor) -> Tensor:
        """Picture pixels ``[..., 2]`` as (u, v) in -1..1 over the crop."""
        return self.points_to_crop(points) * (2 / self.size) - 1

    def points_to_picture(self, points: Tensor) -> Tensor:
        """Crop pixels ``[..., 2]`` as picture pixels."""
        return ((points.double() - self.matrix[:, 2]) / self.scale).to(points)

    def to_crop(self, picture: Tensor) -> Tensor:
        """``[..., H, W, 3]`` to ``[..., size, size, 3]``."""
        left, top, _, _ = self.box
        step = 1 / self.scale
        return resample(picture, (top, left), step, (self.size, self.size))

    def to_picture(self, frames: Tensor, rectangle: tuple[int, int, int, int]) -> Tensor:
        """The part of the picture in a rectangle, as the crops show it.

        Args:
            frames: ``[..., size, size, 3]``.
            rectangle: left, top, right, bottom in whole picture pixels.

        Returns:
            ``[..., bottom - top, right - left, 3]``.
        """
        left, top, right, bottom = rectangle
        x, y = self.points_to_crop(torch.tensor([left, top], dtype=torch.float64)).tolist()
        return resample(frames, (y, x), self.scale, (bottom - top, right - left))

    def covered(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Left, top, right, bottom, in whole pixels, of what the crop shows of a picture."""
        left, top, right, bottom = self.box
        left, top = max(0, math.floor(left)), max(0, math.floor(top))
        return left, top, max(left, min(width, math.ceil(right))), max(top, min(height, math.ceil(bottom)))


def frame_head(
    face: Face, face_model: FaceModel, margin: float = 1.0, size: int = 256
) -> tuple[CropTransform, FaceFit]:
    """The crop whose fitted head stands where the camera looks, and the fit in it.

    A head fitted at t in one crop is brought to t = 0 by moving the crop to where its pivot is seen and by
    scaling it with its depth; the perspective changes a little with that, so it is done again until it
    settles.
    """
    left, top, right, bottom = face.box_xyxy
    square = Square((left + right) / 2, (top + bottom) / 2, 2 * max(right - left, bottom - top))
    for _ in range(_FRAMING_ROUNDS):
        fit = _fit_in(square, face, face_model)
        moved = _recentred(square, fit.pose[0], face_model)
        change = max(abs(moved.x - square.x), abs(moved.y - square.y), abs(moved.side - square.side))
        square = moved
        if change < _SETTLED * square.side:
            break
    square = Square(square.x, square.y, square.side * margin)
    return CropTransform.of_square(square.x, square.y, square.side, size), _fit_in(square, face, face_model)


def _fit_in(square: Square, face: Face, face_model: FaceModel) -> FaceFit:
    centre = torch.tensor([square.x, square.y])
    ndc = (face.landmarks[:, :2] - centre) * (2 / square.side)
    return fit_landmarks(ndc[None], face_model, face.blendshapes[None])


def _recentred(square: Square, pose: Tensor, face_model: FaceModel) -> Square:
    camera = face_model.camera
    x, y, z = pose[3:].tolist()
    depth = camera.distance - z
    half = square.side / 2
    return Square(
        square.x + half * camera.focal * x / depth,
        square.y - half * camera.focal * y / depth,
        square.side * camera.distance / depth,
    )

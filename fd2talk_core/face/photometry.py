"""A face's own look, looked for in other pictures of it: the photometric term of a fit.

Landmarks are placed by what faces look like in general, to a few pixels. One person's skin, lips and lids in
one picture say where the same places lie in the next picture far more closely: the mesh's surface takes their
brightness along, and pose and expression are moved until it lies on the same brightness (Lucas and Kanade
1981; Thies et al. 2016, Face2Face, Eq. 2). Brightness is taken relative to what is around it, so that light
may change, and from coarse to fine, so that it is found from some way off.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from kornia.filters import gaussian_blur2d
from torch import Tensor

from .model import FaceModel, apply_pose, project, projection_slopes
from .rasterizer import rasterize
from .rotations import rotation_matrix

LOOK_SIZE = 128
"""Pixels a side of the square that is kept of a frame."""

SURFACES = ("skin", "lips", "eyelids", "ears")
"""Parts that keep their look while they move. Eyeballs turn, hair and neck do not follow the mesh."""

SAMPLED_SIZE = 112
"""Pixels a side of the raster whose covered pixels are the surface's samples."""

LEVELS = (40, 80, 128)
"""Pixels a side of a look, from coarse to fine."""

BRIGHTNESS_SIGMA = 0.1
"""Of brightness, in standard deviations of what is around it."""
INDEPENDENT_SAMPLES = 300
"""Neighbours repeat each other's errors: together the samples count as so many."""
OUTLIER = 0.7
"""Difference of brightness from which on a sample shows something else (Geman and McClure)."""

SURROUNDINGS = 0.1
"""Standard deviation of the Gaussian that says what is around, as a share of the look's side."""
LEAST_CONTRAST = 0.03
"""Of brightness in 0..1, under which there is nothing but noise."""

LIKENESS_LEVEL = 40
"""Pixels a side of a look in which a face is compared with itself."""
MOUTH_HALF_WIDTH, MOUTH_HEIGHTS = 0.3, (-0.55, -0.08)
"""Face-model units of a person's shape in which lips lie, and the skin next to them."""

ASLANT = (0.15, 0.5)
"""Cosine between surface and camera, from where a sample is not seen to where it counts."""


@dataclass(frozen=True, eq=False)
class Looks:
    """Squares of n pictures, each around a face.

    Attributes:
        brightness: ``[n, LOOK_SIZE, LOOK_SIZE]`` uint8.
        squares: ``[n, 3]``: centre x, y and side, in the units of the fit (half widths of its crop).
    """

    brightness: Tensor
    squares: Tensor

    def __len__(self) -> int:
        return len(self.brightness)

    def __getitem__(self, frames: slice | list[int]) -> Looks:
        return Looks(self.brightness[frames], self.squares[frames])


class PhotometricTerm:
    """What a surface's look in one picture says of β and p in others.

    Args:
        face_model: the surface.
        identity: ``[D_α]``.
        expression, pose: ``[D_β]`` and ``[6]`` in the picture whose look is taken.
        look: of that one picture.
    """

    @torch.no_grad()
    def __init__(
        self, face_model: FaceModel, identity: Tensor, expression: Tensor, pose: Tensor, look: Looks
    ) -> None:
        self.face_model, self.look = face_model, look
        neutral = face_model(identity[None], torch.zeros_like(expression)[None])[0]
        posed = apply_pose(face_model(identity[None], expression[None]), pose[None])
        raster = rasterize(
            project(posed, face_model.camera), face_model.triangles, SAMPLED_SIZE, cull_back_faces=True
        )
        parts = torch.tensor([face_model.part_names.index(name) for name in SURFACES])
        kept = raster.look_up(torch.isin(face_model.triangle_parts, parts), False)
        self.corners = face_model.triangles[raster.triangle[kept]]
        self.barycentric = raster.barycentric[kept]
        self.shape = self._at_samples(neutral)
        self.expression_basis = torch.stack([self._at_samples(part) for part in face_model.expression_basis])
        first, second, third = (neutral[self.corners[:, corner]] for corner in range(3))
        self.normals = F.normalize(torch.linalg.cross(second - first, third - first), dim=-1)
        _, placed, rotation = self._pose(expression[None], pose[None])
        self.places = project(placed, face_model.camera)[0, :, :2]
        self.seen = self._seen_at(rotation)[0]

    @torch.no_grad()
    def at(self, looks: Looks, level: int) -> _Level:
        """The term for some frames, at one size of their looks."""
        wanted = _sampled(_relative_brightness(self.look, level), self.look.squares, self.places[None])[0, 0]
        return _Level(self, _with_slopes(_relative_brightness(looks, level)), looks.squares, wanted)

    @torch.no_grad()
    def likeness(self, looks: Looks, expression: Tensor, pose: Tensor) -> Tensor:
        """``[n]`` in 0..1: what share of the mouth looks as it does in the first picture, in frames
        that are fitted by β ``[n, D_β]`` and p ``[n, 6]``.
        """
        level = self.at(looks, LIKENESS_LEVEL)
        _, placed, rotation = self._pose(expression, pose)
        places = project(placed, self.face_model.camera)[..., :2]
        found = _sampled(level.features[:, :1], looks.squares, places)[:, 0]
        lowest, highest = MOUTH_HEIGHTS
        across, height = self.shape[:, 0].abs(), self.shape[:, 1]
        mouth = (across < MOUTH_HALF_WIDTH) & (height > lowest) & (height < highest)
        seen = self.seen * self._seen_at(rotation) * mouth
        alike = 1 / (1 + ((level.wanted - found) / OUTLIER).square()).square()
        return (alike * seen).sum(dim=1) / seen.sum(dim=1).clamp_min(1e-6)

    def _at_samples(self, values: Tensor) -> Tensor:
        """``[V, 3]`` to ``[S, 3]``."""
        return (values[self.corners] * self.barycentric[..., None]).sum(dim=-2)

    def _pose(self, expression: Tensor, pose: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Turned samples ``[n, S, 3]``, the same before the camera, and the rotation."""
        rotation = rotation_matrix(pose[:, :3])
        moved = self.shape + torch.einsum("nd,dsx->nsx", expression, self.expression_basis)
        turned = moved @ rotation.mT
        return turned, turned + pose[:, None, 3:], rotation

    def _seen_at(self, rotation: Tensor) -> Tensor:
        """``[n, S]`` in 0..1: how far the surface faces the camera. An expression turns it too little to
        matter.
        """
        least, enough = ASLANT
        facing = self.normals @ rotation[..., 2, :, None]
        return ((facing[..., 0] - least) / (enough - least)).clamp(0, 1)


@dataclass(frozen=True, eq=False)
class _Level:
    """A photometric term at one size, as :data:`fd2talk_core.face.fitting.ExtraTerm`.

    Attributes:
        features: ``[n, 3, size, size]``, relative brightness and its slopes.
        wanted: ``[S]``, the surface's relative brightness.
    """

    term: PhotometricTerm
    features: Tensor
    squares: Tensor
    wanted: Tensor

    def __call__(self, expression: Tensor, pose: Tensor) -> tuple[Tensor, Tensor]:
        expression, pose = expression.float(), pose.float()
        turned, placed, rotation = self.term._pose(expression, pose)
        camera = self.term.face_model.camera
        places = project(placed, camera)[..., :2]
        found, across, down = _sampled(self.features, self.squares, places).unbind(dim=1)
        residual = self.wanted - found
        # slopes are per half width of the look, and a look is a part of the crop
        slopes = torch.stack([across, down], dim=-1) / (self.squares[:, None, 2:] / 2)
        by_place = (slopes[:, :, None] @ projection_slopes(placed, camera))[:, :, 0]
        by_expression = torch.einsum("nsx,dsx->nsd", by_place @ rotation, self.term.expression_basis)
        by_turn = torch.linalg.cross(turned, by_place)
        jacobian = torch.cat([by_expression, by_turn, by_place], dim=-1)
        weight = self.term.seen * self.term._seen_at(rotation)
        weight = weight / (1 + (residual / OUTLIER).square()).square()
        weight = weight * (INDEPENDENT_SAMPLES / BRIGHTNESS_SIGMA**2 / len(self.wanted))
        weighted = (jacobian * weight[..., None]).mT
        return (weighted @ jacobian).double(), (weighted @ residual[..., None])[..., 0].double()


def _relative_brightness(looks: Looks, size: int) -> Tensor:
    """``[n, 1, size, size]``: brightness less the mean around it, in standard deviations around it."""
    brightness = looks.brightness[:, None].float() / 255
    if size < brightness.shape[-1]:
        brightness = F.interpolate(brightness, size=(size, size), mode="bilinear", antialias=True)
    sigma = SURROUNDINGS * size
    kernel = 2 * round(2.5 * sigma) + 1

    def around(values: Tensor) -> Tensor:
        return gaussian_blur2d(values, (kernel, kernel), (sigma, sigma), border_type="replicate")

    centred = brightness - around(brightness)
    relative = centred / (around(centred.square()).sqrt() + LEAST_CONTRAST)
    return gaussian_blur2d(relative, (5, 5), (0.7, 0.7), border_type="replicate")


def _with_slopes(picture: Tensor) -> Tensor:
    """``[n, 1, S, S]`` to ``[n, 3, S, S]``: itself and its slopes per half width."""
    per_pixel = picture.shape[-1] / 2
    down, across = torch.gradient(picture, dim=(-2, -1))
    return torch.cat([picture, across * per_pixel, down * per_pixel], dim=1)


def _sampled(pictures: Tensor, squares: Tensor, places: Tensor) -> Tensor:
    """``[n, C, S]``: pictures ``[n, C, h, w]`` of squares ``[n, 3]`` at places ``[n, S, 2]`` of the crop."""
    grid = (places - squares[:, None, :2]) / (squares[:, None, 2:] / 2)
    return F.grid_sample(pictures, grid[:, None], padding_mode="border", align_corners=False)[:, :, 0]

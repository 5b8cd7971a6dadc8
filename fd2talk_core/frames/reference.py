"""The portrait: its crop, its coefficients α, β, p, its latent, and the way back into the whole picture.

The crop is framed as the face model's camera frames a head: upright as in the picture, square, so that the
fitted pose has no translation. A margin widens that view. Coordinates are continuous pixels as in
:mod:`fd2talk_core.face.landmarks`; resampling is separable cubic convolution, widened where it shrinks (no
aliasing), and what lies beyond the picture repeats its border.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import FD2TalkError
from ..face.fitting import FaceFit, fit_landmarks
from ..face.landmarks import (
    FACE_ORDERS,
    Face,
    FaceLandmarker,
    FaceOrder,
    Square,
    check_picture,
    counted_faces,
    order_faces,
    pick_face,
)
from ..face.model import FaceModel
from .correspondence import Correspondence, pixel_centers

Box = tuple[float, float, float, float]
NoFacePolicy = Literal["error", "whole_image"]

_FRAMING_ROUNDS = 4
_SETTLED = 1e-3  # of the crop's side: a reframing smaller than this changes nothing that can be seen
_BROADEST = 4.0
_VISIBLE_DISPLACEMENT = (0.25, 1.0)  # crop pixels, from none to all of the frame


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


@dataclass(frozen=True, eq=False)
class Reference:
    """The portrait as the frames need it.

    Attributes:
        latent: ``[d, h, w]``, x = 𝓔(crop).
        identity: ``[D_id]``, α.
        expression: ``[D_exp]``, β of the portrait.
        pose: ``[6]``, p of the portrait in its crop, radians and face-model units.
        face_model: name of the face model of the coefficients.
        crop: ``[S, S, 3]`` in 0..1.
        crop_transform: where the crop lies in the picture.
        picture: ``[H, W, 3]`` in 0..1, the whole.
        face_found: False when the picture was taken whole since no face was found; the coefficients are then
            neutral.
    """

    latent: Tensor
    identity: Tensor
    expression: Tensor
    pose: Tensor
    face_model: str
    crop: Tensor
    crop_transform: CropTransform
    picture: Tensor
    face_found: bool

    def __post_init__(self) -> None:
        size = self.crop_transform.size
        expected = (
            ("latent", self.latent.ndim == 3),
            ("identity", self.identity.ndim == 1),
            ("expression", self.expression.ndim == 1),
            ("pose", self.pose.shape == (6,)),
            ("crop", self.crop.shape == (size, size, 3)),
            ("picture", self.picture.ndim == 3 and self.picture.shape[-1] == 3),
        )
        for name, fits in expected:
            value = getattr(self, name)
            if not fits:
                raise FD2TalkError(
                    f"The reference's {name} has the shape {tuple(value.shape)}, which does not fit."
                )
            if not torch.isfinite(value).all():
                raise FD2TalkError(f"The reference's {name} holds values that are not numbers.")


@dataclass(frozen=True, eq=False)
class PortraitCrop:
    """A cropped portrait with its fitted coefficients; fields as in :class:`Reference`."""

    crop: Tensor
    crop_transform: CropTransform
    identity: Tensor
    expression: Tensor
    pose: Tensor
    picture: Tensor
    face: Face | None


def crop_portrait(
    image: Tensor,
    landmarker: FaceLandmarker,
    face_model: FaceModel,
    *,
    face_index: int = 0,
    face_order: FaceOrder = "largest",
    box: Box | None = None,
    mask: Tensor | None = None,
    margin: float = 1.0,
    no_face: NoFacePolicy = "error",
    size: int = 256,
) -> PortraitCrop:
    """Find the face, frame it as the face model's camera would, and fit α, β, p to it.

    Args:
        image: ``[H, W, 3]`` in 0..1 (``[1, H, W, 3]``, grey or RGBA also).
        landmarker: finds the faces.
        face_model: is fitted, and whose camera frames the crop.
        face_index: which face, counted from 0 in ``face_order``.
        face_order: ``"largest"`` first, ``"left_to_right"`` or ``"top_to_bottom"``.
        box: left, top, right, bottom in pixels: take the face there, whatever its index.
        mask: ``[H, W]`` over the picture: take the face that it covers most, whatever its index.
        margin: 1 shows what the camera shows; 1.3 shows 1.3 times as much.
        no_face: ``"error"``, or ``"whole_image"``: take the box or the mask's extent, or without either the
            whole picture, as the crop, with neutral coefficients.
        size: side of the crop in pixels.

    Raises:
        FD2TalkError: when the image cannot be used, an argument is out of range, or there is no such face.
    """
    picture = check_picture(image, "portrait")
    _check_choices(face_index, box, margin, no_face, size)
    if mask is not None:
        if box is not None:
            raise FD2TalkError("A box and a mask say which face, but only one of them can: leave one out.")
        mask = check_mask(mask, picture)
        box = _extent(mask)
    face = _choose(landmarker, picture, face_index, face_order, box, mask, no_face)
    if face is None:
        transform = CropTransform.of_square(*_whole(picture, box), size)
        return PortraitCrop(
            transform.to_crop(picture).clamp(0, 1),
            transform,
            torch.zeros(face_model.identity_dim),
            torch.zeros(face_model.expression_dim),
            torch.zeros(6),
            picture,
            None,
        )
    transform, fit = frame_head(face, face_model, margin, size)
    crop = transform.to_crop(picture).clamp(0, 1)
    return PortraitCrop(crop, transform, fit.identity, fit.expression[0], fit.pose[0], picture, face)


@torch.no_grad()
def encode_reference(
    image: Tensor,
    autoencoder: Any,
    landmarker: FaceLandmarker,
    face_model: FaceModel,
    *,
    face_index: int = 0,
    face_order: FaceOrder = "largest",
    box: Box | None = None,
    mask: Tensor | None = None,
    margin: float = 1.0,
    no_face: NoFacePolicy = "error",
    size: int = 256,
) -> Reference:
    """A portrait as a reference: its crop, α, β, p, and its latent x = 𝓔(crop).

    Args:
        autoencoder: a :class:`~fd2talk_core.networks.autoencoder.FrameAutoencoder`; the rest as
            :func:`crop_portrait`.

    Raises:
        FD2TalkError: as :func:`crop_portrait`.
    """
    portrait = crop_portrait(
        image,
        landmarker,
        face_model,
        face_index=face_index,
        face_order=face_order,
        box=box,
        mask=mask,
        margin=margin,
        no_face=no_face,
        size=size,
    )
    weight = next(autoencoder.parameters())
    latent = autoencoder.encode(portrait.crop.movedim(-1, 0)[None].to(weight))[0].float().cpu()
    return Reference(
        latent,
        portrait.identity,
        portrait.expression,
        portrait.pose,
        face_model.name,
        portrait.crop,
        portrait.crop_transform,
        portrait.picture,
        portrait.face is not None,
    )


def paste_back(
    frames: Tensor,
    reference: Reference,
    *,
    feather: float = 0.08,
    mask: Tensor | None = None,
    background: Tensor | None = None,
) -> Tensor:
    """Put moving crops back into the whole picture.

    Args:
        frames: ``[F, S, S, 3]`` float in 0..1.
        reference: whose picture and crop they are of.
        feather: width of the soft edge as a share of the crop's side; a side where the crop meets the
            picture's border needs none and has none.
        mask: optional ``[F or 1, m, m]`` in 0..1 over the crop (see :func:`head_mask`): where it is 0 the
            picture stays as it is, in its full resolution.
        background: optional ``[F or 1, H, W, 3]`` to be put into in place of the reference's own picture,
            such as the frames in which another person of the same picture speaks.

    Returns:
        ``[F, H, W, 3]``; pixels outside the crop are the picture's or the background's own.

    Raises:
        FD2TalkError: when frames, reference and background differ in size, or feather is out of range.
    """
    picture, transform = reference.picture, reference.crop_transform
    if frames.ndim != 4 or frames.shape[1:] != reference.crop.shape:
        raise FD2TalkError(
            f"The frames are {tuple(frames.shape)}, but [frames, {transform.size}, {transform.size}, 3] "
            "is needed to paste them back: use the reference that the frames were made with."
        )
    if not 0 <= feather <= 0.5:
        raise FD2TalkError(f"feather is {feather}, but a share of the crop between 0 and 0.5 is needed.")
    height, width = picture.shape[:2]
    left, top, right, bottom = rectangle = transform.covered(height, width)
    if background is None:
        background = picture[None]
    if len(background) not in (1, len(frames)) or background.shape[1:] != picture.shape:
        needed = _size_of(picture.expand(len(frames), -1, -1, -1))
        raise FD2TalkError(
            f"The background is {_size_of(background)}, but {needed} (or 1 such picture) is needed: as many "
            "and as large as what is pasted into it."
        )
    whole = background.to(frames).expand(frames.shape[0], -1, -1, -1).clone()
    if right > left and bottom > top:
        weight = _edge_weight(transform, height, width, feather).to(frames)[None, ..., None]
        if mask is not None:
            fitted = F.interpolate(mask[:, None].to(frames), size=(transform.size,) * 2, mode="bilinear")
            weight = weight * transform.to_picture(fitted.movedim(1, -1), rectangle).clamp(0, 1)
        region = whole[:, top:bottom, left:right]
        moved = transform.to_picture(frames, rectangle).clamp_(0, 1)
        region.add_(
            moved.sub_(region).mul_(weight)
        )  # in place: a frame of a large picture is tens of megabytes
    return whole


@torch.no_grad()
def head_mask(reference: Reference, flow: Correspondence) -> Tensor:
    """Where each frame can differ from the portrait, for :func:`paste_back`: the head, and what it moves.

    The fitted mesh in the frame, and every place that the correspondence between mesh and portrait displaces
    by a visible part of a pixel; so hair and neck follow the head, and a background that stays is the
    picture's own.

    Args:
        reference: the portrait.
        flow: of F frames, see :func:`fd2talk_core.frames.correspondence.reference_flow`.

    Returns:
        ``[F, m, m]`` in 0..1, of the flow's size; all 1 when the portrait's face was not found.
    """
    size = flow.grid.shape[1]
    if not reference.face_found:
        return torch.ones(len(flow.grid), size, size)
    displaced = (flow.grid - pixel_centers(size, flow.grid)).norm(dim=-1) * (
        reference.crop_transform.size / 2
    )
    least, most = _VISIBLE_DISPLACEMENT
    moved = ((displaced - least) / (most - least)).clamp(0, 1)
    return torch.maximum(moved, _widened(flow.masks[:, 0]))


def _widened(covered: Tensor) -> Tensor:
    """``[F, m, m]`` grown by a 24th of the crop's side, of which the outer half fades."""
    reach = max(1, round(covered.shape[-1] / 24))
    fade = 2 * (reach // 2) + 1
    grown = F.max_pool2d(covered[:, None], 2 * reach + 1, stride=1, padding=reach)
    return F.avg_pool2d(F.pad(grown, (fade // 2,) * 4, mode="replicate"), fade, stride=1)[:, 0]


def latent_preview(latents: Tensor, reference: Reference) -> Tensor:
    """Latents as small pictures, by the affine map from latent to colour that fits the reference's own crop
    best.

    Args:
        latents: ``[F, d, h, w]``.
        reference: with a latent of the same ``d``.

    Returns:
        ``[F, h, w, 3]`` in 0..1.

    Raises:
        FD2TalkError: when the channels differ.
    """
    depth, height, width = reference.latent.shape
    if latents.ndim != 4 or latents.shape[1] != depth:
        raise FD2TalkError(
            f"The latents have shape {tuple(latents.shape)}, but [frames, {depth}, height, width] is needed."
        )
    colours = F.interpolate(reference.crop.movedim(-1, 0)[None], size=(height, width), mode="area")[0]
    known = _with_constant(reference.latent.reshape(depth, -1).T.double())
    # A little ridge: a latent channel that is constant over the portrait must not explode in a frame.
    ridge = 1e-3 * known.shape[0] * torch.eye(depth + 1, dtype=torch.float64)
    ridge[-1, -1] = 0
    factors = torch.linalg.solve(known.T @ known + ridge, known.T @ colours.reshape(3, -1).T.double())
    pixels = _with_constant(latents.movedim(1, -1).double().cpu()) @ factors
    return pixels.float().clamp(0, 1)


def resample(images: Tensor, start: tuple[float, ...], step: float, size: tuple[int, int]) -> Tensor:
    """Axis-aligned resampling by Keys' cubic convolution (a = -1/2), widened by ``step`` where it shrinks.

    Args:
        images: ``[..., H, W, C]``.
        start: y and x of the result's top left corner, in source pixels.
        step: source pixels a result pixel.
        size: height and width of the result.

    Returns:
        ``[..., *size, C]``; beyond the border the nearest pixel is repeated.
    """
    (rows, top), (columns, left) = (
        _cubic_weights(size[axis], images.shape[axis - 3], start[axis], step) for axis in (0, 1)
    )
    region = images[..., top : top + rows.shape[1], left : left + columns.shape[1], :]
    planes = region.movedim(-1, -3).contiguous()  # whole planes make two plain matrix products
    return (rows.to(planes) @ planes @ columns.to(planes).T).movedim(-3, -1)


def _size_of(pictures: Tensor) -> str:
    """``20 pictures of 640 x 480``."""
    count, height, width = pictures.shape[:3]
    return f"{count} picture{'s' if count > 1 else ''} of {width} x {height}"


def _cubic_weights(size: int, source: int, start: float, step: float) -> tuple[Tensor, int]:
    """Weights ``[size, n]`` on the source pixels from the one returned beside them; each row sums to 1."""
    spread = max(1.0, step)
    centres = start + (torch.arange(size, dtype=torch.float64) + 0.5) * step
    first = torch.floor(centres - 2 * spread)
    taps = first[:, None] + torch.arange(math.ceil(4 * spread) + 2)
    distance = ((taps + 0.5 - centres[:, None]) / spread).abs()
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = torch.where(distance < 1, near, torch.where(distance < 2, far, torch.zeros_like(far)))
    index = taps.clamp(0, source - 1).long()
    low, high = int(index.min()), int(index.max())
    dense = torch.zeros(size, high - low + 1, dtype=torch.float64)
    dense.scatter_add_(1, index - low, weights)
    return (dense / dense.sum(dim=1, keepdim=True)).float(), low


def _check_choices(face_index: int, box: Box | None, margin: float, no_face: str, size: int) -> None:
    if no_face not in ("error", "whole_image"):
        raise FD2TalkError(f"The no-face policy is {no_face!r}, but 'error' or 'whole_image' is needed.")
    if not 0.5 <= margin <= _BROADEST:
        raise FD2TalkError(f"The crop margin is {margin}, but a number from 0.5 to {_BROADEST:g} is needed.")
    if face_index < 0:
        raise FD2TalkError(f"The face index is {face_index}, but 0 (the largest face) or more is needed.")
    if size < 32:
        raise FD2TalkError(f"The crop size is {size}, but at least 32 pixels are needed.")
    if box is not None and not (
        len(box) == 4 and all(map(math.isfinite, box)) and box[2] - box[0] >= 1 and box[3] - box[1] >= 1
    ):
        raise FD2TalkError(f"The box is {box}, but left, top, right, bottom in pixels is needed.")


def check_mask(mask: Tensor, picture: Tensor) -> Tensor:
    """One mask over a picture, as ``[H, W]`` float32 on the CPU.

    Args:
        mask: ``[H, W]`` or ``[1, H, W]``, over 0 where it covers.
        picture: ``[H, W, 3]``.

    Raises:
        FD2TalkError: for several masks, a mask of another size, or one that covers nothing.
    """
    if mask.ndim == 3 and mask.shape[0] > 1:
        raise FD2TalkError(f"The mask is a batch of {mask.shape[0]}, but one is needed: pick one of them.")
    mask = mask.detach().reshape(mask.shape[-2:]).float().cpu()
    if not (mask > 0).any():
        raise FD2TalkError("The mask is empty: paint over the face in the mask editor, or disconnect it.")
    if mask.shape != picture.shape[:2]:
        raise FD2TalkError(
            f"The mask is {mask.shape[1]} x {mask.shape[0]} pixels, but the portrait is {picture.shape[1]} x "
            f"{picture.shape[0]}: they must be of one size."
        )
    return mask


def _extent(mask: Tensor) -> Box:
    """The box of what a mask covers."""
    rows, columns = (mask > 0).any(dim=1).nonzero(), (mask > 0).any(dim=0).nonzero()
    return float(columns[0]), float(rows[0]), float(columns[-1]) + 1, float(rows[-1]) + 1


def _under(mask: Tensor, faces: list[Face]) -> Face | None:
    """The face whose landmarks a mask covers most."""
    covered = []
    for face in faces:
        x, y = face.landmarks[:, :2].floor().long().unbind(dim=1)
        inside = (x >= 0) & (y >= 0) & (x < mask.shape[1]) & (y < mask.shape[0])
        covered.append(float((mask[y[inside], x[inside]] > 0).float().sum()))
    best = max(covered, default=0.0)
    return faces[covered.index(best)] if best > 0 else None


def _choose(
    landmarker: FaceLandmarker,
    picture: Tensor,
    face_index: int,
    face_order: FaceOrder,
    box: Box | None,
    mask: Tensor | None,
    no_face: NoFacePolicy,
) -> Face | None:
    """The face that was asked for; None is the whole image, by its policy."""
    faces = order_faces(landmarker.detect(picture), face_order)
    face = pick_face(faces, face_index, box) if mask is None else _under(mask, faces)
    if face is None and box is not None:
        face = landmarker.detect_in_box(picture, box)
    if face is not None or (no_face == "whole_image" and not faces):
        return face
    if not faces:
        raise FD2TalkError(
            f"No face was found in the {picture.shape[1]} x {picture.shape[0]} portrait: use a picture where "
            "the face is larger and frontal, give a box around it, or set no face to 'whole_image'."
        )
    if box is not None:
        if no_face == "whole_image":
            return None
        where = f"in the box {tuple(map(round, box))}" if mask is None else "under the mask"
        raise FD2TalkError(f"No face lies {where}; faces were found at {_places(faces)}.")
    faces = counted_faces(faces)
    raise FD2TalkError(
        f"Face {face_index} was asked for, but the portrait has {len(faces)} "
        f"(0 to {len(faces) - 1}, {FACE_ORDERS[face_order]}), at {_places(faces)}."
    )


def _places(faces: list[Face]) -> str:
    return "; ".join(str(tuple(round(side) for side in face.box_xyxy)) for face in faces)


def _whole(picture: Tensor, box: Box | None) -> tuple[float, float, float]:
    """Centre and side of the square that holds a box, or the whole picture."""
    left, top, right, bottom = box or (0.0, 0.0, float(picture.shape[1]), float(picture.shape[0]))
    return (left + right) / 2, (top + bottom) / 2, max(right - left, bottom - top)


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


def _edge_weight(transform: CropTransform, height: int, width: int, feather: float) -> Tensor:
    """``[h, w]`` over what the crop covers: 1 inside, falling smoothly to 0 at the crop's edge."""
    left, top, right, bottom = transform.covered(height, width)
    edges = transform.box
    soft = max(feather * (edges[2] - edges[0]), 1e-6)

    def ramp(first: int, last: int, low: float, high: float, limit: int) -> Tensor:
        pixels = torch.arange(first, last) + 0.5
        # An edge of the crop that the picture does not show, or shows as its own border, leaves no seam.
        from_low = pixels - low if low > 0.5 else torch.full_like(pixels, math.inf)
        from_high = high - pixels if high < limit - 0.5 else torch.full_like(pixels, math.inf)
        share = (torch.minimum(from_low, from_high) / soft).clamp(0, 1)
        return share * share * (3 - 2 * share)

    columns = ramp(left, right, edges[0], edges[2], width)
    rows = ramp(top, bottom, edges[1], edges[3], height)
    return rows[:, None] * columns


def _with_constant(values: Tensor) -> Tensor:
    return torch.cat([values, torch.ones_like(values[..., :1])], dim=-1)

"""The portrait: its crop, its coefficients α, β, p, its latent, and the way back into the whole picture.

The crop is framed as the face model's camera frames a head: upright as in the picture, square, so that the
fitted pose has no translation. A margin widens that view. Coordinates are continuous pixels as in
:mod:`fd2talk_core.face.landmarks`; resampling is separable cubic convolution, widened where it shrinks (no
aliasing), and what lies beyond the picture repeats its border.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_choice, check_number, check_tensor, check_whole, checked, shown
from ..errors import FD2TalkError
from ..face.crop import Box, CropTransform, frame_head
from ..face.landmarks import (
    FACE_ORDERS,
    Face,
    FaceLandmarker,
    FaceOrder,
    check_picture,
    counted_faces,
    order_faces,
    pick_face,
)
from ..face.matte import person_matte
from ..face.model import FaceModel
from ..face.outline import fit_outline
from ..face.state import FaceState
from ..metering import stage
from ..networks.checkpoint import DEFAULT_RESOLUTION, LARGEST_RESOLUTION, resolution_of
from ..progress import Callback

NoFacePolicy = Literal["error", "whole_image"]

_BROADEST = 4.0

_SAME = 1e-3
"""Largest difference of coefficients and colours between two encodings of one portrait: rounding, on another
device at most."""


@dataclass(frozen=True, eq=False)
class Reference:
    """The portrait as the frames need it.

    Attributes:
        latent: ``[d, h, w]``, x = 𝓔(crop).
        face: α, β and p of the portrait in its crop.
        crop: ``[S, S, 3]`` in 0..1.
        crop_transform: where the crop lies in the picture.
        picture: ``[H, W, 3]`` in 0..1, the whole.
        face_found: False when the picture was taken whole since no face was found; the coefficients are then
            neutral.
    """

    latent: Tensor
    face: FaceState
    crop: Tensor
    crop_transform: CropTransform
    picture: Tensor
    face_found: bool

    @property
    def identity(self) -> Tensor:
        """``[D_α]``, α of the portrait."""
        return self.face.identity

    @property
    def expression(self) -> Tensor:
        """``[D_β]``, β of the portrait."""
        return self.face.expression

    @property
    def pose(self) -> Tensor:
        """``[6]``, p of the portrait in its crop."""
        return self.face.pose

    @property
    def face_model(self) -> str:
        """Name of the face model of the coefficients."""
        return self.face.face_model

    def same_portrait(self, other: Reference) -> bool:
        """Whether another reference shows the same face in the same crop, as one encoded again does: motion
        that was fitted to the one fits the other. Latents are not compared.
        """
        if (self.face_model, self.crop_transform.size) != (other.face_model, other.crop_transform.size):
            return False
        return all(
            mine.shape == theirs.shape and torch.allclose(mine.cpu(), theirs.cpu(), rtol=_SAME, atol=_SAME)
            for mine, theirs in (
                (self.identity, other.identity),
                (self.expression, other.expression),
                (self.pose, other.pose),
                (self.crop_transform.matrix, other.crop_transform.matrix),
                (self.crop, other.crop),
            )
        )

    def __post_init__(self) -> None:
        size = self.crop_transform.size
        expected = (
            ("latent", self.latent.ndim == 3),
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
    """A cropped portrait with its fitted coefficients; fields as in :class:`Reference`.

    ``found`` is what the landmarker saw, None when the picture was taken whole.
    """

    face: FaceState
    crop: Tensor
    crop_transform: CropTransform
    picture: Tensor
    found: Face | None


@checked
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
    size: int = DEFAULT_RESOLUTION,
    callback: Callback | None = None,
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
        callback: ``(done, total, None)`` while faces are looked for, which a large picture takes long.

    Raises:
        FD2TalkError: when the image cannot be used, an argument is out of range, or there is no such face.
    """
    picture = check_picture(image, "portrait")
    _check_choices(face_index, margin, no_face, size)
    box = None if box is None else check_box(box, picture)
    if mask is not None:
        if box is not None:
            raise FD2TalkError("A box and a mask say which face, but only one of them can: leave one out.")
        mask = check_mask(mask, picture)
        box = _extent(mask)
    face = _choose(landmarker, picture, face_index, face_order, box, mask, no_face, callback)
    if face is None:
        transform = CropTransform.of_square(*_whole(picture, box), size)
        neutral = FaceState(
            torch.zeros(face_model.identity_dim),
            torch.zeros(face_model.expression_dim),
            torch.zeros(6),
            face_model.name,
        )
        return PortraitCrop(neutral, transform.to_crop(picture).clamp(0, 1), transform, picture, None)
    transform, fit = frame_head(face, face_model, margin, size)
    fitted = FaceState(fit.identity, fit.expression[0], fit.pose[0], face_model.name)
    crop = transform.to_crop(picture).clamp(0, 1)
    fitted = replace(fitted, offsets=fit_outline(face_model, fitted, crop, person_matte(crop)))
    return PortraitCrop(fitted, crop, transform, picture, face)


@checked
@stage("portrait")
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
    size: int | None = None,
    callback: Callback | None = None,
) -> Reference:
    """A portrait as a reference: its crop, α, β, p, and its latent x = 𝓔(crop).

    Args:
        autoencoder: a :class:`~fd2talk_core.networks.autoencoder.FrameAutoencoder`.
        size: side of the crop in pixels; None takes that of the autoencoder's checkpoint. The rest as
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
        size=resolution_of(autoencoder) if size is None else size,
        callback=callback,
    )
    weight = next(autoencoder.parameters())
    latent = autoencoder.encode(portrait.crop.movedim(-1, 0)[None].to(weight))[0].float().cpu()
    return Reference(
        latent,
        portrait.face,
        portrait.crop,
        portrait.crop_transform,
        portrait.picture,
        portrait.found is not None,
    )


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


def _check_choices(face_index: int, margin: float, no_face: str, size: int) -> None:
    check_choice(no_face, "The no-face policy", ("error", "whole_image"))
    check_number(margin, "The crop margin", 0.5, _BROADEST)
    check_whole(face_index, "The face index", 0)
    check_whole(size, "The crop size in pixels", 32, LARGEST_RESOLUTION)


def check_box(box: Box, picture: Tensor) -> Box:
    """A box that lies on a picture, or reaches no further beyond it than the picture is large.

    Args:
        box: left, top, right, bottom in pixels.
        picture: ``[H, W, 3]``.

    Raises:
        FD2TalkError: for a box that is none, or lies elsewhere.
    """
    try:
        left, top, right, bottom = (float(check_number(side, "A side of the box", -1e9, 1e9)) for side in box)
    except (TypeError, ValueError) as error:
        raise FD2TalkError(
            f"The box is {shown(box)}, but left, top, right, bottom in pixels is needed."
        ) from error
    if right - left < 1 or bottom - top < 1:
        raise FD2TalkError(f"The box is {shown(box)}, but left, top, right, bottom in pixels is needed.")
    height, width = picture.shape[:2]
    within = -width <= left and right <= 2 * width and -height <= top and bottom <= 2 * height
    if not within or left >= width or right <= 0 or top >= height or bottom <= 0:
        raise FD2TalkError(
            f"The box is {left:g}, {top:g}, {right:g}, {bottom:g}, but the picture has {width} x {height} "
            "pixels: give left, top, right, bottom on it."
        )
    return left, top, right, bottom


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
    mask = check_tensor(mask, "The mask").detach().reshape(mask.shape[-2:]).float().cpu()
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
    callback: Callback | None,
) -> Face | None:
    """The face that was asked for; None is the whole image, by its policy."""
    faces = order_faces(landmarker.detect(picture, callback), face_order)
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


def _with_constant(values: Tensor) -> Tensor:
    return torch.cat([values, torch.ones_like(values[..., :1])], dim=-1)

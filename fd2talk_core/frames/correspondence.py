"""Where each place of a frame lies in the portrait, from the face model's mesh in both.

The paper leaves it to φ₂ to find where a target pixel comes from. Both poses and expressions are known, so
the mesh gives the answer: the surface point that a pixel of the frame sees is looked up in the portrait.
Beyond the mesh (hair, clothes, background) the displacement is continued smoothly, beside the head as a
plane behind it moves, and fades to none far away.

Screen coordinates as in :mod:`fd2talk_core.face.rasterizer`; lengths on the screen are in half widths of the
picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from types import EllipsisType
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import FD2TalkError
from ..face.lids import portrait_shape, stop_lids
from ..face.model import FaceModel, apply_pose, project
from ..face.names import MOUTH_PARTS
from ..face.parts import below_the_eyes, cheeks, named_part, part_kinds, under_hair
from ..face.rasterizer import Raster, rasterize
from ..face.rotations import rotation_matrix
from ..face.skinning import above_the_jaw, pose_on_body
from ..face.state import FaceState
from ..imaging import (
    displace,
    distance_to,
    largest_around,
    length_of,
    mean_around,
    pixel_centers,
    push_pull,
    resize,
    shrink,
    smoothstep,
    soften,
    widen,
)
from ..networks.unet import MASK_NAMES

HEAD_MARGIN = 0.5
"""Half widths from the mesh up to which its surroundings move as its edge does: hair goes with the head as
far as hair reaches. What is behind it does not, and which is which the decoder's blend says."""

FALLOFF = 0.6
"""Over this further distance the displacement fades to none."""

DEPTH_TOLERANCE = 0.08
"""Face-model units (8 mm) by which a surface point may lie behind the portrait's nearest surface and count as
seen: over the depth steps between neighbouring pixels on a cheek seen aslant, under the distance from lips to
throat."""

HAIR_BEHIND = 0.2
"""Face-model units behind the ears at which what is beside a head is taken to lie: hair goes with the skull,
not with the cheek before it. On two turning heads 0 and 0.4 were hardly better or worse."""

ONTO_PLANE = 0.16
"""Half widths from the mesh over which what goes on as the mesh's edge comes to go as that plane does."""

PLANE, FADES = 0.3, 0.4
"""Half widths from a head up to which it does, and over which it fades: shoulders do not turn along."""

FACING = (0.3, 0.6)
"""Cosine of a head's turn from the camera, up to which that plane is seen along itself and tells nothing, and
from which on it is gone by in full."""

EXTENSION_SIZE = 64
"""The continuation beyond the mesh is smooth, so it is computed on less than twice this many cells a side."""

LEAST_ROOM, ENOUGH_ROOM = 0.35, 0.6
"""Room that the portrait has for a surface by the room that the frame has: under the first it counts as
hidden, over the second as seen. A cheek that was turned away is a few of the portrait's pixels, and as the
fitted mesh lies beside the face by as many, they show hair or the wall. Above the eyes that is hair anyway,
which is better stretched than painted."""

RIM, STRAY = 0.02, 0.03
"""Half widths beside the mesh's edge that are seen aslant, and by which a displacement there may differ from
what continues it from further in. A temple or a cheek's side is a few of the portrait's pixels, with hair
over them, and an ear behind it a cell or two, which a row hits by chance: what strays is continued."""

FAR_ASTRAY = 0.045
"""The same for cells that lie one further in, which a row may hit as well: by less they may be a steep
cheek's own.
"""

EDGE = 0.25
"""Face-model units (25 mm) by which a surface lies before the one behind it where its edge is kept sharp: a
jaw before the neck."""

_SURELY = 0.8
"""Of a matte, where it is surely a person."""

_OUTLINE, _FRINGE, _LOST = 0.03, 0.02, 0.12
"""Half widths from a person's outline up to which hair is taken to go on: there it ends in strands; from it
at least what a turn brings out is taken; and beside it at most, by which a fitted mesh misses it."""

_BESIDE, _STEEP = 0.06, 4.0
"""Half widths around the skull that a turn brings out, and how soon all of it counts."""

_SETTLED = 0.3
"""Half widths beside the skull that a turn brings out, over which hair goes back to where its outline is."""

TEXTURE = 0.12
"""Half widths within a person's outline from which the texture of hair is taken for what a turn brings out:
as wide as close hair is."""

_DRAWN_OUT, _SHOWN = 0.35, 0.8
"""Of its size that a surface has in the portrait: under the first it is drawn out, from the second on not."""

_ENDED = 0.03
"""Half widths that hair must have at a place, and by which it must end too early, to be surely drawn out."""

STILL, STILL_OF_SHIFT = 0.04, 2.0
"""Half widths beside clothes over which what is around them comes to move, and the same by how far it does:
from 1.5 times that on it does not fold the picture."""

STILL_FROM = 0.9
"""Of its way that a place is kept from going, from which on it is taken to stay."""

SMALLEST_VIEW = 128
"""Pixels a side of the portrait's view at least."""


_Index: TypeAlias = "tuple[EllipsisType, slice, slice]"


@dataclass(frozen=True, eq=False)
class Correspondence:
    """For every frame, where its cells lie in the portrait.

    Attributes:
        grid: ``[F, h, w, 2]``, (u, v) in the portrait, for :func:`torch.nn.functional.grid_sample`.
        masks: ``[F, 5, h, w]`` in 0..1, see :data:`MASK_NAMES`.
        hidden_mouth: ``[F, 4, h, w]`` in 0..1, the inside of the mouth by :data:`MOUTH_PARTS` where the
            portrait hides it: what the grid finds there is the portrait's lips.
        edges: ``[F, 1, h, w]``, over 0 in cells of a surface whose edge lies before another, under 0 in the
            cells behind it, and 0 elsewhere; None for none.
        onward: ``[F, 2, h, w]``, what is to be added to the displacement for the skull that a turn brings out
            to go on as the scalp beside it does; None for nothing. See :meth:`within_hair`.
        turned: ``[F, 1, h, w]`` in 0..1, the scalp that is brought out, and what is close beside it.
        head: ``[F, 1, h, w]`` in 0..1, cells of the mesh above its jaw; None for unknown.
        cheeks: ``[F, 1, h, w]`` in 0..1, by :func:`fd2talk_core.face.parts.cheeks`; None for unknown.
        drawn_out: ``[F, 4, h, w]``, for :class:`fd2talk_core.frames.texture.Texture`; None for nowhere.
    """

    grid: Tensor
    masks: Tensor
    hidden_mouth: Tensor
    edges: Tensor | None = None
    onward: Tensor | None = None
    turned: Tensor | None = None
    head: Tensor | None = None
    cheeks: Tensor | None = None
    drawn_out: Tensor | None = None

    @classmethod
    def join(cls, parts: Sequence[Correspondence]) -> Correspondence:
        """Of the frames of some, one after the other."""
        if len(parts) == 1:
            return parts[0]
        planes = {}
        for field in fields(cls):
            given = [getattr(part, field.name) for part in parts]
            planes[field.name] = None if any(plane is None for plane in given) else torch.cat(given)
        return cls(**planes)

    def each(self) -> list[Correspondence]:
        """Of one frame each."""
        planes = {field.name: getattr(self, field.name) for field in fields(self)}
        return [
            Correspondence(
                **{name: None if plane is None else plane[frame, None] for name, plane in planes.items()}
            )
            for frame in range(len(self.grid))
        ]

    @property
    def displacement(self) -> Tensor:
        """``[F, 2, h, w]``, from the cells to their places in the portrait, half widths and heights."""
        return _displacement(self.grid)

    def within_hair(self, hair: Tensor) -> Correspondence:
        """The same, but the skull that a turn brings out goes on as the scalp beside it, as far as hair (or a
        cap) reaches, so that it is sharp, and does not show the wall. The grid alone has what the portrait
        shows before the hidden place, which is on little room. And it is known where that is still drawn out,
        and where the texture is to be taken from.

        Args:
            hair: ``[1 or F, 3, S, S]``, see :func:`room_in_hair`.
        """
        if self.onward is None or self.turned is None:
            return self
        grid, onward = self.grid.to(hair), self.onward.to(hair)
        room, inward = F.grid_sample(
            hair.expand(len(grid), -1, -1, -1), grid, padding_mode="border", align_corners=False
        ).split([1, 2], dim=1)
        far, turned = length_of(onward).clamp_min(1e-6), self.turned.to(hair)
        share = (room / far).clamp_max(1)
        grid = grid + (share * onward + turned * inward).movedim(1, -1)
        # mirrored at the outline, and again further in, the texture is as large as it is there
        back = TEXTURE * (1 - ((far - room).clamp_min(0) / TEXTURE % 2 - 1).abs())
        ended = (torch.minimum(room, far - room) / _ENDED).clamp(0, 1)
        stretched = 1 - unstretched(grid, _DRAWN_OUT, _SHOWN)
        skin = torch.zeros_like(turned) if self.cheeks is None else self.cheeks.to(turned)
        parts = stretched * torch.cat([torch.maximum(turned, ended), skin], dim=1)
        strands, skin = soften(parts).split(1, dim=1)
        share = torch.maximum(strands, skin)
        drawn_out = torch.cat([-back / far * onward, share, strands / share.clamp_min(1e-6)], dim=1)
        return replace(self, grid=grid, onward=None, turned=None, drawn_out=drawn_out)

    def with_still(self, clothes: Tensor | None) -> tuple[Correspondence, Tensor | None]:
        """The same, but clothes stay where the portrait has them, wherever no head lies before them; and
        ``[F, 1, h, w]`` in 0..1, where that is so, None for nowhere.

        Args:
            clothes: ``[1, 1, S, S]``, half widths from them, see
                :func:`fd2talk_core.face.clothes.find_clothes`; None for none.
        """
        if self.head is None or clothes is None:
            return self, None
        displacement = self.displacement
        head = widen(self.head.to(displacement))  # cells' corners would show along a jaw
        far = resize(clothes.to(displacement), displacement.shape[-1])
        reach = STILL + STILL_OF_SHIFT * length_of(displacement)
        stays = smoothstep(1 - far / reach) * (1 - head)
        grid = pixel_centers(displacement.shape[-1], displacement)
        grid = grid + ((1 - stays) * displacement).movedim(1, -1)
        return replace(self, grid=grid), smoothstep((stays - STILL_FROM) / (1 - STILL_FROM))

    def shifted(self, shift: Tensor | None) -> Correspondence:
        """The same with ``[F, 2, s, s]`` half widths and heights added to the displacement."""
        if shift is None:
            return self
        return replace(self, grid=self.grid.to(shift) + resize(shift, self.grid.shape[1]).movedim(1, -1))

    def enlarged(self, size: int) -> EnlargedDisplacement:
        """:attr:`displacement` for pictures of ``size`` pixels a side."""
        displacement = self.displacement
        pixels = resize(displacement, size)
        drawn_out = (None,) * len(pixels) if self.drawn_out is None else tuple(self.drawn_out)
        if self.edges is None:
            return EnlargedDisplacement(pixels, (None,) * len(pixels), drawn_out)
        # frame by frame: what one becomes must not depend on its batch
        lines = map(_cut_edges, pixels, displacement, self.edges.to(displacement))
        return EnlargedDisplacement(pixels, tuple(lines), drawn_out)


@dataclass(frozen=True, eq=False)
class EnlargedDisplacement:
    """A displacement that does not bend from a surface to the one behind it but changes from pixel to pixel,
    along a line without the cells' corners.

    Attributes:
        pixels: ``[F, 2, N, N]``.
        lines: of each frame, rows and columns, and ``[1, R, C]``, 1 on the line and 0 from a pixel beside it
            on; None where it has none.
        drawn_out: of each frame, ``[4, h, w]`` or None, see :class:`Correspondence`.
    """

    pixels: Tensor
    lines: tuple[tuple[_Index, Tensor] | None, ...]
    drawn_out: tuple[Tensor | None, ...]

    def smooth(self, frame: int, picture: Tensor) -> None:
        """A picture ``[C, N, N]`` that was moved as a frame is, in place: what lies on the line is mixed with
        its neighbours, or those would be stairs.
        """
        if (line := self.lines[frame]) is not None:
            place, share = line
            around = picture[place]
            around.lerp_(soften(around), share.to(around))


@dataclass(frozen=True, eq=False)
class PortraitView:
    """What a portrait's camera sees of the mesh.

    Attributes:
        points: ``[1 or F, V, 3]``, the portrait's mesh before the camera.
        pose: ``[1 or F, 6]``, p of its head.
        raster: of it, R pixels a side.
        areas: ``[1 or F, T]``, of its triangles on the screen.
        kinds: ``[T]``, by :func:`part_kinds`.
        below: ``[T]``, by :func:`below_the_eyes`.
        hair: ``[T]``, by :func:`under_hair`.
        ears, neck: ``[T]`` bool.
        head: ``[V]`` in 0..1, by :func:`above_the_jaw`.
        cheeks: ``[T]`` in 0..1, by :func:`fd2talk_core.face.parts.cheeks`.
    """

    points: Tensor
    pose: Tensor
    raster: Raster
    areas: Tensor
    kinds: Tensor
    below: Tensor
    hair: Tensor
    ears: Tensor
    neck: Tensor
    head: Tensor
    cheeks: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, face_model: FaceModel, portrait: FaceState, resolution: int) -> PortraitView:
        """The view of one portrait."""
        pose = portrait.pose[None]
        posed = apply_pose(portrait_shape(face_model, portrait), pose)
        return cls.of_mesh(face_model, posed, pose, resolution)

    @classmethod
    @torch.no_grad()
    def of_mesh(cls, face_model: FaceModel, points: Tensor, pose: Tensor, resolution: int) -> PortraitView:
        """The view of meshes ``[1 or F, V, 3]``, posed by ``[1 or F, 6]``."""
        seen = project(points, face_model.camera)
        raster = rasterize(seen, face_model.triangles, resolution, cull_back_faces=True)
        areas = _areas(seen, face_model.triangles)
        places = part_kinds(face_model), below_the_eyes(face_model), under_hair(face_model)
        ears, neck = (named_part(face_model, name) for name in ("ears", "neck"))
        head, aside = above_the_jaw(face_model), cheeks(face_model)
        return cls(points, pose, raster, areas, *places, ears, neck, head, aside)


def view_resolution(resolution: int) -> int:
    """Pixels a side of the portrait's view for frames that are drawn with so many: never so few that lips and
    lids are lost in it.
    """
    return max(resolution, SMALLEST_VIEW)


@torch.no_grad()
def correspond(
    face_model: FaceModel,
    portrait: PortraitView,
    mesh: Tensor,
    pose: Tensor,
    size: int,
    *,
    supersample: int = 2,
) -> Correspondence:
    """The correspondence of F frames with their portraits.

    Args:
        face_model: of the meshes.
        portrait: one for all frames, or one a frame.
        mesh: ``[F, V, 3]``, the frames' meshes before the camera.
        pose: ``[F, 6]``, p of their heads.
        size: cells a side, h = w.
        supersample: mesh samples by cell and side, averaged.
    """
    resolution = size * supersample
    target = project(mesh, face_model.camera)
    raster = rasterize(target, face_model.triangles, resolution, cull_back_faces=True)
    # the same surface point, in the space before the portrait's camera
    points = torch.cat([portrait.points, portrait.head.expand(len(portrait.points), -1)[..., None]], dim=-1)
    points, head = raster.interpolate(points, face_model.triangles).split([3, 1], dim=-1)
    places = project(points, face_model.camera)
    kind = raster.look_up(portrait.kinds, -1)
    seen = raster.covered & _is_seen(portrait.raster, places, kind, portrait.kinds)
    # on a cheek or an ear seen aslant it is chance whether a cell hits the portrait's surface: most decide
    seen = torch.where(kind > len(MOUTH_PARTS), raster.covered & _most(seen), seen)
    enough = raster.look_up(_enough_room(portrait, _areas(target, face_model.triangles)), 1.0)
    # what a turn brings out of the skull is under hair, which the portrait shows beside its own skull; and of
    # an ear's folds no mesh knows where they are, so what it hides of one goes on as what is around it
    ear = raster.look_up(portrait.ears, False)
    folds = ear & ~seen
    scalp = raster.look_up(portrait.hair, False) & ~ear
    hair = scalp & ~seen
    visible = (seen | hair | ear)[:, None] * soften(enough[:, None])

    displacement = (places[..., :2] - pixel_centers(resolution, places)).movedim(-1, 1)
    within = _within_rim(raster.covered) & ~hair & ~folds
    within &= ~_astray(displacement, within)
    continued = _extend(displacement * within[:, None], within, EXTENSION_SIZE // 2)
    strays = (displacement - continued).abs().amax(dim=1) > STRAY
    known = raster.covered & ~folds & (hair | ~strays)
    plane, share = _plane_displacement(face_model, portrait.pose, pose, resolution // _coarser(resolution))
    on_mesh = _extend(displacement * known[:, None], known)
    beyond = _beyond(displacement, on_mesh, seen & ~folds, raster, portrait, plane, share)
    displacement = torch.where(raster.covered[:, None], on_mesh, beyond)
    turned = _coarse(hair)
    onward = (continued - displacement) * resize(nearness(turned > 0, 0, _SETTLED), resolution)
    onward = onward + _healed(displacement + onward, hair, within)
    grid = pixel_centers(size, places) + _averaged(displacement, supersample).movedim(1, -1)

    mouth_kinds = range(len(MOUTH_PARTS))
    planes = [
        raster.covered,
        (kind >= 0) & (kind < len(MOUTH_PARTS)),
        (kind == MOUTH_PARTS.index("upper_teeth")) | (kind == MOUTH_PARTS.index("lower_teeth")),
        kind == len(MOUTH_PARTS),
        *(kind == index for index in mouth_kinds),
    ]
    sizes = [1, len(MASK_NAMES) - 2, len(MOUTH_PARTS)]
    covered, parts, mouth = torch.stack(planes, dim=1).to(grid).split(sizes, dim=1)
    masks = _averaged(torch.cat([covered, visible, parts], dim=1), supersample)
    edges = _edges(raster.depth, raster.look_up(portrait.below, 0.0) > 0)
    edges = _averaged(edges, supersample)
    hidden_mouth = _averaged(mouth * (1 - visible), supersample)
    onward = _averaged(onward, supersample)
    # at the mesh's edge it ends within a few cells, or cells' corners would show
    turned = resize(_beside(turned), resolution) * soften(soften(scalp[:, None].to(onward)))
    turned = _averaged(turned, supersample)
    head = _averaged((head * raster.covered[..., None]).movedim(-1, 1), supersample)
    aside = _averaged(raster.look_up(portrait.cheeks, 0.0)[:, None], supersample)
    return Correspondence(grid, masks, hidden_mouth, edges, onward, turned, head, aside)


@torch.no_grad()
def reference_flow(
    face_model: FaceModel,
    identity: Tensor,
    reference_expression: Tensor,
    reference_pose: Tensor,
    expression: Tensor,
    pose: Tensor,
    size: int,
    *,
    supersample: int = 2,
) -> Correspondence:
    """:func:`correspond` from coefficients, of frames that may each show another person: what training needs.

    Args:
        face_model: of the coefficients.
        identity: α, ``[D_α]``, or ``[F, D_α]`` for frames of several people.
        reference_expression: β of the portrait, ``[D_β]`` or ``[F, D_β]``.
        reference_pose: p of the portrait, ``[6]`` or ``[F, 6]``.
        expression: β of the frames, ``[F, D_β]``.
        pose: p of the frames, ``[F, 6]``.
        size, supersample: as in :func:`correspond`.

    Raises:
        FD2TalkError: when the coefficients do not fit the face model or each other.
    """
    frames = pose.shape[0]
    identity, reference_expression, reference_pose = (
        part if part.ndim == 2 else part[None] for part in (identity, reference_expression, reference_pose)
    )
    _check(face_model, identity, reference_expression, reference_pose, expression, pose)
    single = all(part.shape[0] == 1 for part in (identity, reference_expression, reference_pose))
    if not single:
        reference_expression, reference_pose = (
            part.expand(frames, -1) for part in (reference_expression, reference_pose)
        )
    shape = stop_lids(face_model, face_model(identity, reference_expression))
    points = apply_pose(shape, reference_pose)
    view = PortraitView.of_mesh(face_model, points, reference_pose, view_resolution(size * supersample))
    # a head that turns does not take the shoulders along: they stay where the portrait has them
    shape = stop_lids(face_model, face_model(identity, expression))
    mesh = pose_on_body(face_model, shape, pose, reference_pose)
    return correspond(face_model, view, mesh, pose, size, supersample=supersample)


def room_in_hair(matte: Tensor) -> Tensor:
    """``[F, 3, S, S]`` half widths: how far from a place the person's outline is at least, less
    :data:`_OUTLINE`; and from places beside or on the outline to those within it.

    Args:
        matte: ``[F, 1, S, S]`` in 0..1, where a picture shows its person.
    """
    size = matte.shape[-1]
    cells = resize(matte, min(size, 2 * EXTENSION_SIZE))[:, 0] > _SURELY
    within, beside = (distance_to(part) * (2 / cells.shape[-1]) for part in (~cells, cells))
    # a picture without an outline: a person who fills it, or nobody
    depth = within.clamp_max(2) - torch.where(beside.isfinite(), beside, 0)
    down, across = torch.gradient(depth, dim=(1, 2))
    inward = F.normalize(soften(torch.stack([across, down], dim=1)), dim=1)
    missing = (_FRINGE - depth).clamp(0, _LOST)[:, None]
    room = (depth - _OUTLINE).clamp_min(0)[:, None]
    return resize(torch.cat([room, missing * inward], dim=1), size)


def warp_reference(picture: Tensor, grid: Tensor) -> Tensor:
    """A picture or latent of the portrait, moved to the frames.

    Args:
        picture: ``[1 or F, C, H, W]``.
        grid: ``[F, h, w, 2]``, of a :class:`Correspondence`. A grid of another size than the picture is
            enlarged.

    Returns:
        ``[F, C, H, W]``.
    """
    # the displacement is enlarged, not the grid: it continues beyond the outermost cells' centres
    return displace(picture.expand(grid.shape[0], -1, -1, -1), _displacement(grid))


def unstretched(grid: Tensor, least: Tensor | float, enough: Tensor | float) -> Tensor:
    """``[F, 1, h, w]``: 0 where the portrait has a place on far less room than the frame has. A cheek that
    was turned away is a few of its pixels, mixed with the background, and an open eye's lid is its fold's
    dark line.

    Args:
        grid: ``[F, h, w, 2]``, (u, v) in the portrait of the frame's cells.
        least, enough: the portrait's cells by a frame's cell: at the first 0, at the second 1;
            ``[F, 1, h, w]`` where that differs from place to place.
    """
    down, across = torch.gradient(_in_cells(grid), dim=(1, 2))
    area = (across[..., 0] * down[..., 1] - across[..., 1] * down[..., 0]).abs()[:, None]
    return ((soften(area) - least) / (enough - least)).clamp(0, 1)


def _displacement(grid: Tensor) -> Tensor:
    # plane by plane, as it is enlarged three times as fast
    return (grid - pixel_centers(grid.shape[1:3], grid)).movedim(-1, 1).contiguous()


def _beyond(
    displacement: Tensor,
    continued: Tensor,
    seen: Tensor,
    raster: Raster,
    portrait: PortraitView,
    plane: Tensor,
    share: Tensor,
) -> Tensor:
    """``[F, 2, R, R]``: what is not covered goes on as the edge beside it where the portrait shows that edge,
    or else as what is further in; and further from a head as a plane behind it. So what a cheek hides that
    turns away is hidden from the cheek's edge on. Close beside the shoulders all goes on as their edge.

    Args:
        displacement: ``[F, 2, R, R]``, of the covered cells.
        continued: ``[F, 2, R, R]``, as it goes on from further in.
        seen: ``[F, R, R]`` bool, cells that the portrait shows.
        raster: of the frames.
        plane, share: ``[F, 2, n, n]``, the plane's displacement, and how far it is gone by.
    """
    edge = raster.covered & largest_around(~raster.covered, 1)
    neck = raster.covered & raster.look_up(portrait.neck, False)
    head = raster.covered & ~neck
    parts = torch.stack([edge & seen, edge & head, edge, edge & neck, head, neck], dim=1)
    planes = torch.cat([displacement * parts[:, :1], displacement * parts[:, 3:4], continued, parts], dim=1)
    planes = shrink(planes, planes.shape[-1] // plane.shape[-1])  # smooth over many cells
    at_edge, of_neck, continued, shares, weight, covered = planes.split([2, 2, 2, 2, 2, 2], dim=1)
    at_edge = torch.cat([at_edge, shares], dim=1)
    at_edge, shown, of_head = push_pull(at_edge, weight[:, :1]).split([2, 1, 1], dim=1)
    from_head, from_neck = (
        distance_to(part)[:, None].clamp_max(part.shape[-1]) * (2 / part.shape[-1])
        for part in (covered > 0.5).unbind(dim=1)
    )
    from_mesh = torch.minimum(from_head, from_neck)
    # the head's edge is longer and moves more: what hangs beside a shoulder would be bent to it and back
    by_neck = smoothstep(1 - from_neck / ONTO_PLANE) * from_head / (from_head + from_neck).clamp_min(1e-6)
    at_edge = torch.lerp(at_edge, push_pull(of_neck, weight[:, 1:], 2), by_neck)
    shown, of_head = torch.lerp(shown, torch.ones_like(shown), by_neck), of_head * (1 - by_neck)
    beside = smoothstep(from_mesh / ONTO_PLANE) * _faded(from_head, PLANE, FADES)
    on = _faded(from_mesh, HEAD_MARGIN, FALLOFF) * at_edge + (1 - shown) * continued
    return resize(torch.lerp(on, plane, share * of_head * beside), displacement.shape[-1])


def _plane_displacement(
    face_model: FaceModel, portrait_pose: Tensor, pose: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """``[F, 2, size, size]``: how the plane behind the ears (:data:`HAIR_BEHIND`) goes along with a head; and
    ``[F, 1, 1, 1]`` in 0..1, how far it is gone by.
    """
    depth = _depth_of_ears(face_model) - HAIR_BEHIND
    camera = face_model.camera
    eye = pose.new_tensor([0, 0, camera.distance], dtype=torch.float64)
    # (u, v, 1) to the direction of a ray, for column vectors
    ray = pose.new_tensor([1 / camera.focal, -1 / camera.focal, -1], dtype=torch.float64)
    u, v = pixel_centers(size, pose).unbind(dim=-1)
    least, enough = FACING
    planes, shares = [], []
    # frame by frame: what one becomes must not depend on its batch
    for own, first in zip(pose.double(), portrait_pose.double().expand(len(pose), -1), strict=True):
        turn, before = rotation_matrix(own[:3]), rotation_matrix(first[:3])
        facing = torch.minimum(turn[2, 2], before[2, 2])
        shares.append(smoothstep((facing - least) / (enough - least)))
        if facing <= least:
            planes.append(u.new_zeros(2, size, size))
            continue
        turned, normal, from_head = before @ turn.mT, turn[:, 2], eye - own[3:]
        # the ray meets the plane, and the point is seen where the portrait's head has it
        seen = torch.outer(turned @ from_head + first[3:] - eye, normal)
        seen = seen + (depth - normal @ from_head) * turned
        to_portrait = seen * ray / ray[:, None]
        across, down, scale = (by_u * u + by_v * v + at for by_u, by_v, at in to_portrait.tolist())
        planes.append(torch.stack([across / scale - u, down / scale - v]))
    return torch.stack(planes), torch.stack(shares).to(pose)[:, None, None, None]


@lru_cache(maxsize=4)
@torch.inference_mode(False)
def _depth_of_ears(face_model: FaceModel) -> float:
    """Where the mean face has them; the hindmost of a face without."""
    ears = face_model.mean[face_model.triangles[named_part(face_model, "ears")].unique(), 2]
    return float(ears.mean() if len(ears) else face_model.mean[:, 2].amin())


def _in_cells(grid: Tensor) -> Tensor:
    """``[F, h, w, 2]`` from half widths and heights to cells."""
    height, width = grid.shape[1:3]
    return grid * grid.new_tensor([width / 2, height / 2])


def _within_rim(covered: Tensor) -> Tensor:
    """``[F, R, R]`` bool: the covered cells that are not at the mesh's edge, see :data:`RIM`."""
    reach = max(1, round(RIM * covered.shape[-1] / 2))
    # a mesh that leaves the picture has no edge there
    return ~largest_around(~covered, reach)


def _astray(displacement: Tensor, within: Tensor) -> Tensor:
    """``[F, R, R]`` bool: the outermost cells ``within`` of ``[F, 2, R, R]`` that are far from those further
    in.
    """
    inner = _within_rim(within)[:, None].to(displacement)
    share = mean_around(inner, 2)
    mean = mean_around(displacement * inner, 2) / share.clamp_min(1e-6)
    far = (displacement - mean).abs().amax(dim=1) > FAR_ASTRAY
    return within & (inner == 0)[:, 0] & (share > 0)[:, 0] & far


def _cut_edges(pixels: Tensor, displacement: Tensor, edges: Tensor) -> tuple[_Index, Tensor] | None:
    """Let the pixels around edges go with the one surface or the other, in place.

    Args:
        pixels: ``[2, N, N]``, the displacement as it is enlarged smoothly.
        displacement, edges: ``[2, n, n]`` and ``[1, n, n]``, of the cells.

    Returns:
        rows and columns of the surroundings, and their line as :class:`EnlargedDisplacement` has it; None
        where there are no edges, or no pixel sees them.
    """
    count, size = edges.shape[-1], pixels.shape[-1]
    cells, rows_columns, places = [], [], []
    for dim in (1, 2):
        there = edges[0].any(dim=2 - dim).nonzero()
        if not len(there):
            return None
        # a line that is softened twice reaches two cells beyond its own
        first, last = max(0, int(there[0]) - 4), min(count, int(there[-1]) + 5)
        # pixels whose centres lie between those of the outermost cells
        least, most = ((place + 0.5) * size / count - 0.5 for place in (first, last - 1))
        chosen = torch.arange(math.ceil(least), math.floor(most) + 1, device=edges.device)
        if not len(chosen):
            return None
        cells.append(slice(first, last))
        rows_columns.append(slice(int(chosen[0]), int(chosen[-1]) + 1))
        places.append((((chosen + 0.5) * count / size - first) * (2 / (last - first)) - 1).to(edges))
    part, edge = (plane[(..., *cells)][None] for plane in (displacement, edges))
    sides = _continued(part.expand(2, -1, -1, -1), torch.cat([edge, -edge]))
    layers = torch.cat([sides.flatten(0, 1)[None], soften(soften(edge)), soften(edge.abs())], dim=1)
    grid = torch.stack(torch.meshgrid(*places, indexing="ij")[::-1], dim=-1)[None]
    # which side of the line a pixel is on: over 0 on the nearer surface, under 0 behind it, 0 far away
    before, behind, side, near = F.grid_sample(layers, grid, align_corners=False)[0].split([2, 2, 1, 1])
    place = (..., *rows_columns)
    around = pixels[place]
    around.copy_(torch.where(side > 0, before, torch.where(side < 0, behind, around)))
    # across a straight edge the side changes by a third from cell to cell, and fades two cells away
    return place, (1 - side.abs() * (3 * size / count)).clamp_min(0) * (near > 0.5)


def _edges(depth: Tensor, below: Tensor) -> Tensor:
    """``[F, 1, R, R]``: 1 beside what lies :data:`EDGE` further back, -1 beside what lies as much nearer.

    Args:
        depth: ``[F, R, R]``, infinite where nothing is.
        below: ``[F, R, R]`` bool, where edges are wanted: ears before hair are none.
    """
    covered = torch.where(depth.isfinite(), depth, -torch.inf)
    nearest, furthest = -largest_around(-depth, 1), largest_around(covered, 1)
    sides = ((furthest - depth > EDGE) & below).float() - ((depth - nearest > EDGE) & below).float()
    return sides[:, None]


def _continued(displacement: Tensor, edges: Tensor) -> Tensor:
    """A displacement ``[F, 2, h, w]`` of the surfaces on the side where ``edges`` ``[F, 1, h, w]`` are over
    0, continued by two cells onto those of the other side.
    """
    own = (edges > 0).to(displacement)
    sums = mean_around(torch.cat([displacement * own, own], dim=1), 2, padded=True)
    share = sums[:, 2:]
    beyond = largest_around((edges < 0).to(own), 1) > own
    return torch.where(beyond & (share > 0), sums[:, :2] / share.clamp_min(1e-6), displacement)


def _enough_room(portrait: PortraitView, areas: Tensor) -> Tensor:
    """``[F, T]`` in 0..1: how far the portrait has room for what the frames show, see :data:`LEAST_ROOM`.

    Args:
        areas: ``[F, T]``, of the triangles in the frames.
    """
    # below 0 where one of the two faces away
    room = (portrait.areas / areas).nan_to_num(0, 0, 0).clamp_min(0)
    enough = ((room - LEAST_ROOM) / (ENOUGH_ROOM - LEAST_ROOM)).clamp(0, 1)
    return 1 - (1 - enough) * portrait.below


def _areas(on_screen: Tensor, triangles: Tensor) -> Tensor:
    """``[F, T]``: areas on the screen, of another sign for triangles that face away."""
    first, second, third = on_screen[:, triangles, :2].unbind(dim=2)
    one, other = second - first, third - first
    return one[..., 0] * other[..., 1] - one[..., 1] * other[..., 0]


def _most(part: Tensor) -> Tensor:
    """``[F, R, R]`` (bool): cells around which a part has more than it has not."""
    return soften(part[:, None].float())[:, 0] > 0.5


def _healed(displacement: Tensor, hair: Tensor, within: Tensor) -> Tensor:
    """``[F, 2, R, R]``: what a displacement lacks to be smooth between the skull that a turn brings out,
    ``hair`` ``[F, R, R]`` (bool), and the one beside it, ``within``. Where the portrait looks along the
    skull, cells are the one or the other by chance, and hair would be a saw.
    """
    both = torch.stack([hair, within], dim=1).to(displacement)
    out, beside = soften(soften(both)).split(1, dim=1)
    border = (4 * out * beside).clamp_max(1)
    return border * (soften(soften(displacement)) - displacement)


def _beside(share: Tensor) -> Tensor:
    """``[F, 1, m, m]`` in 0..1: 1 in the midst of a part and close beside it, less where it is narrow.

    Args:
        share: ``[F, 1, m, m]``, of the cells that the part has.
    """
    reach = max(1, round(_BESIDE * share.shape[-1] / 2))
    share = mean_around(share, reach, padded=True)
    return (_STEEP * share).clamp_max(1)


def _coarse(part: Tensor) -> Tensor:
    """``[F, 1, m, m]``: the share of coarse cells that a part ``[F, R, R]`` (bool) has."""
    return F.avg_pool2d(
        part[:, None].float(), max(1, part.shape[-1] // (EXTENSION_SIZE // 2)), ceil_mode=True
    )


def _is_seen(raster: Raster, places: Tensor, kind: Tensor, kinds: Tensor) -> Tensor:
    """Which places ``[F, R, R, 3]`` of the portrait (u, v, depth) its camera sees, ``[F, R, R]`` bool.

    Args:
        raster: of the portrait.
        kind: ``[F, R, R]``, what lies at the places, by :func:`part_kinds`; -1 is nothing.
        kinds: ``[T]``, of the triangles.
    """
    resolution = raster.triangle.shape[-1]
    cell = ((places[..., :2] + 1) * (resolution / 2)).floor().clamp(0, resolution - 1).long()
    flat = (cell[..., 1] * resolution + cell[..., 0]).flatten(1)
    nearest = _look_up(raster.depth, flat)
    triangle = _look_up(raster.triangle, flat)
    found = kinds.index_select(0, triangle.clamp_min(0).reshape(-1)).view(triangle.shape)
    found = torch.where(triangle >= 0, found, -1)
    # lips lie closely before teeth and lids before eyeballs: there the depths do not tell, but what is seen
    # does
    inner = len(MOUTH_PARTS)
    same = torch.where(kind.flatten(1) < inner, (found >= 0) & (found < inner), found == kind.flatten(1))
    near = places[..., 2].flatten(1) <= nearest + DEPTH_TOLERANCE
    inside = (places[..., :2].abs() <= 1).all(dim=-1).flatten(1)
    return (same & near & inside & (triangle >= 0)).view(kind.shape)


def _look_up(values: Tensor, flat: Tensor) -> Tensor:
    return values.flatten(1).expand(flat.shape[0], -1).gather(1, flat)


def _averaged(samples: Tensor, supersample: int) -> Tensor:
    """``[F, C, R, R]`` samples to cells; one sample a cell is the cell, which pooling would copy slowly."""
    return samples if supersample == 1 else shrink(samples, supersample)


def _extend(displacement: Tensor, covered: Tensor, size: int = EXTENSION_SIZE) -> Tensor:
    """Continue a displacement ``[F, 2, R, R]``, 0 where not covered, beyond the covered ``[F, R, R]``, on
    less than twice ``size`` cells a side.
    """
    resolution = covered.shape[-1]
    weight = covered[:, None].to(displacement)
    factor = _coarser(resolution, size)
    coarse, coarse_weight = shrink(displacement, factor), shrink(weight, factor)
    # only the mesh's rim is continued, lest an opening mouth move the background
    rim = largest_around((coarse_weight < 1).float(), 2)
    filled = push_pull(coarse * rim, coarse_weight * rim)
    # that is smooth over many cells
    far = nearness(F.max_pool2d(coarse_weight, 2, ceil_mode=True) > 0, HEAD_MARGIN, FALLOFF)
    extended = filled * resize(far, filled.shape[-1])
    if factor > 1:
        extended = F.interpolate(
            extended, size=(resolution, resolution), mode="bilinear", align_corners=False
        )
    return torch.where(covered[:, None], displacement, extended)


def _coarser(resolution: int, size: int = EXTENSION_SIZE) -> int:
    """A power of 2, so that halving pyramids of all sizes continue a rim alike."""
    return 1 << max(0, (resolution // size).bit_length() - 1)


def nearness(covered: Tensor, margin: float, falloff: float) -> Tensor:
    """``[F, 1, m, m]``: 1 up to ``margin`` half widths from what is covered ``[F, 1, m, m]`` (bool), and 0
    over ``falloff`` more.
    """
    far = distance_to(covered[:, 0]) * (2 / covered.shape[-1])  # the edge's own cells have distance 0
    return _faded(far, margin, falloff)[:, None]


def _faded(distance: Tensor, margin: float, falloff: float) -> Tensor:
    """1 up to a distance of ``margin``, and 0 over ``falloff`` more."""
    return smoothstep(1 - (distance - margin) / falloff)


def _check(
    face_model: FaceModel,
    identity: Tensor,
    reference_expression: Tensor,
    reference_pose: Tensor,
    expression: Tensor,
    pose: Tensor,
) -> None:
    frames = pose.shape[0]
    for name, part, width in (
        ("identity", identity, face_model.identity_basis.shape[0]),
        ("portrait's expression", reference_expression, face_model.expression_basis.shape[0]),
        ("portrait's pose", reference_pose, 6),
        ("expression", expression, face_model.expression_basis.shape[0]),
        ("pose", pose, 6),
    ):
        if part.ndim != 2 or part.shape[1] != width or part.shape[0] not in (1, frames):
            raise FD2TalkError(
                f"The {name} has shape {tuple(part.shape)}, but [{frames}, {width}] is needed "
                f"for {frames} frames and the face model {face_model.name!r}."
            )

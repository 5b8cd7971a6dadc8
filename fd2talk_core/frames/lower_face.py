"""The lower half of a filmed face with another mouth, made from the frame's own pixels (DiffTalk Sec. 3.2).

DiffTalk gives its network two pictures: the frame with its mouth masked, for all that stays, and another
frame of the same person, for what a mouth looks like. Here the mesh is known in the frame as it was filmed
and as it shall be, with one pose: so skin and lips are the frame's own, moved by the difference, and so is
the inside of a mouth that is open already; what a shut mouth hides comes from the person's clearest frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from kornia.filters import gaussian_blur2d
from torch import Tensor

from ..face.crop import CropTransform
from ..face.model import FaceModel, apply_pose, project
from ..face.names import MOUTH_PARTS
from ..face.rasterizer import rasterize, vertex_normals
from ..face.rotations import upright
from ..face.state import FaceState
from ..imaging import distance_to, length_of, push_pull, smoothstep, soften
from .close_ups import CloseUps, MouthBox
from .reference import Reference

LARGEST_SIDE = 768
"""Pixels a side of the crop of the clearest frame at most."""

FIELD_SIZE = 256
"""Most samples a side of the displacement."""

COARSE = 4
"""Samples a side of a cell in which the displacement is continued beyond the face."""

FADE, FADE_OF_SHIFT = 0.12, 2.0
"""Beyond the face a displacement fades to none over so many face-model units and so many times itself; from
1.5 times itself on it does not fold the picture."""

FACING = 0.25
"""Cosine between skin and camera, under which the displacement is continued: the rim of a cheek or a chin is
not fitted closely enough to be cut out."""

LIPS_REACH, SMOOTH = 0.06, 0.04
"""Face-model units around the lips in which a displacement stays as sharp as the mesh has it, and the
standard deviation of a Gaussian that smooths it elsewhere."""

STILL = 0.02
"""Pixels: what moves less is left as it is."""

INSET = 0.012
"""Face-model units by which the fitted rim of the lips may lie beside the real one."""

BRIDGE_TO_BASE = (0.45, 0.95)
"""Of the way from the lower lids to the upper lip, where the lower face begins and where it is all new."""

BELOW_BRIDGE = 0.12
"""Face-model units below the bridge of the nose over which a displacement comes in."""

KEPT_STRETCH, KEPT_GAP = (0.35, 0.75), (0.03, 0.06)
"""The frame's own inside of the mouth is kept where its lips are so far apart, beside how far they shall be,
and in face-model units: at the first not at all, at the second wholly."""

CONTINUED = 3
"""Insets over which what is known of a mouth's inside is continued before it is painted."""

RING = (0.03, 0.3)
"""Face-model units from the lips, between which the skin tells the light on the mouth."""

GAIN = (0.5, 2.0)
"""By which the clearest frame is made darker or brighter."""

BITE = (0.02, 0.04)
"""Face-model units under the edges of the upper teeth, between which the inside of a mouth passes from the
layer of the upper teeth, which stand before the lower ones, to that of the lower jaw."""


def heights_of_nose(face_model: FaceModel) -> tuple[float, float]:
    """The bridge and the base of the nose on the mean face."""
    names, height = face_model.part_names, face_model.mean[:, 1]

    def rows(name: str) -> Tensor:
        return height[face_model.triangles[face_model.triangle_parts == names.index(name)].unique()]

    lids, lips = float(rows("eyelids").amin()), float(rows("lips").amax())
    bridge, base = (lids - share * (lids - lips) for share in BRIDGE_TO_BASE)
    return bridge, base


@dataclass(frozen=True, eq=False)
class _Jaw:
    """One of two layers of a mouth's inside, by its vertices.

    Attributes:
        teeth: the front ones.
        lip: the middle of the lip before them, along the gap.
        opens: the way in which that lip opens the mouth: 1 is up.
    """

    teeth: Tensor
    lip: Tensor
    opens: int


@dataclass(frozen=True, eq=False)
class FilmedFrame:
    """One frame as it was filmed.

    Attributes:
        picture: ``[H, W, 3]`` in 0..1.
        expression: ``[D_β]``.
        pose: ``[6]``.
        square: ``[3]``: centre x, y and side in pixels of the crop that these are in.
    """

    picture: Tensor
    expression: Tensor
    pose: Tensor
    square: Tensor


class LowerFace:
    """One person's lower face, ready to be given other mouths.

    Args:
        face_model: of the coefficients; it names its parts.
        identity: ``[D_α]``.
        clear: the frame that shows the inside of the person's mouth best.
    """

    @torch.no_grad()
    def __init__(self, face_model: FaceModel, identity: Tensor, clear: FilmedFrame) -> None:
        self.face_model, self.identity, self.clear = face_model, identity, clear
        bridge, base = heights_of_nose(face_model)
        self.weight = smoothstep((bridge - face_model.mean[:, 1]) / (bridge - base))
        foremost = torch.tensor([0.0, bridge, float(face_model.mean[:, 2].amax())])
        self.bridge = int((face_model.mean - foremost).norm(dim=1).argmin())
        self.close_ups = CloseUps(_as_reference(face_model, identity, clear), face_model)
        names, parts, mean = face_model.part_names, face_model.triangle_parts, face_model.mean

        def of(*wanted: str) -> Tensor:
            return torch.isin(parts, torch.tensor([names.index(name) for name in wanted]))

        self.mouth = of("lips", *MOUTH_PARTS)
        self.skin = of("skin", "lips", "eyelids", "ears")
        skin = face_model.triangles[self.skin].unique()
        self.moving = skin[self.weight[skin] > 0]
        lips = face_model.triangles[of("lips")].unique()
        beside = torch.cdist(mean[skin], mean[lips]).amin(dim=1)
        self.ring = skin[(beside > RING[0]) & (beside < RING[1]) & (mean[skin, 2] > 0)]
        aside = mean[face_model.inner_lip_pairs[:, 0], 0].abs()
        middle = face_model.inner_lip_pairs[aside <= aside.quantile(0.5)]
        self.jaws = []
        for name, lip, opens in zip(("upper_teeth", "lower_teeth"), middle.unbind(-1), (1, -1), strict=True):
            teeth = face_model.triangles[of(name)].unique()
            self.jaws.append(_Jaw(teeth[mean[teeth, 2] > mean[teeth, 2].quantile(0.5)], lip, opens))
        upper = self.jaws[0].teeth
        self.bite = upper[mean[upper, 1] <= mean[upper, 1].quantile(0.25)]
        self.clear_mesh = self._posed(clear, clear.expression)
        self.clear_inside = self._inside(self.clear_mesh, clear)
        self.clear_ring = self._ring_colour(clear, self.clear_mesh)

    @property
    def teeth_shown(self) -> float:
        """How much the clearest frame shows that is pale and inside the mouth, in square face-model units."""
        box, inside = self.clear_inside
        pale = _sample(self.clear.picture, _centres(box.left, box.top, box.size, box.size)).amin(dim=-1)
        return float((pale * inside[0, 0]).sum()) / self._unit(self.clear) ** 2

    @torch.no_grad()
    def make(self, frame: FilmedFrame, expression: Tensor, strength: float = 1.0) -> Tensor:
        """The frame ``[H, W, 3]`` with the lower face of another expression ``[D_β]``.

        Args:
            strength: 0..1, of the mouth's inside.
        """
        own, wanted = self._posed(frame, frame.expression), self._posed(frame, expression)
        made = frame.picture.clone()
        own_inside = self._inside(own, frame)
        box = self.close_ups.mouth_box(wanted, frame.square)
        painted, share = self.close_ups.inside_of_mouth(wanted, frame.pose[None], box)
        kept = self._kept(own, wanted)
        self._move_skin(made, frame, own, wanted, own_inside, (box, kept * share))
        weight = strength * (1 - kept) * share
        if weight.any():
            self._draw_inside(made, frame, own, wanted, own_inside, box, painted, weight)
        return made

    def _kept(self, own: Tensor, wanted: Tensor) -> float:
        """0..1, how far the inside of the mouth is the frame's own, moved as lips are: an open mouth that is
        to be about as open shows all that is needed.
        """
        gap, wanted_gap = (float(self.face_model.mouth_opening(mesh)) for mesh in (own, wanted))
        values = torch.tensor([gap / max(wanted_gap, 1e-6), gap])
        low, high = torch.tensor([KEPT_STRETCH, KEPT_GAP]).T
        return float(smoothstep((values - low) / (high - low)).prod())

    def _posed(self, frame: FilmedFrame, expression: Tensor) -> Tensor:
        """``[1, V, 3]``: the frame's mesh, its lower half with another expression."""
        shape = self.face_model(self.identity[None], frame.expression[None])
        change = torch.einsum("d,dvx->vx", expression - frame.expression, self.face_model.expression_basis)
        return apply_pose(shape + self.weight[:, None] * change, frame.pose[None])

    def _unit(self, frame: FilmedFrame) -> float:
        """Pixels that a face-model unit measures."""
        camera = self.face_model.camera
        return float(frame.square[2]) / 2 * camera.focal / camera.distance

    def _to_pixels(self, mesh: Tensor, square: Tensor) -> Tensor:
        """``[1, V, 3]``: x and y in pixels of the picture, and depth."""
        seen = project(mesh, self.face_model.camera)
        return torch.cat([square[:2] + seen[..., :2] * (square[2] / 2), seen[..., 2:]], dim=-1)

    def _inside(self, mesh: Tensor, frame: FilmedFrame) -> tuple[MouthBox, Tensor]:
        """Where a frame surely shows the inside of its mouth: ``[1, 1, s, s]`` in 0..1 over a box."""
        box = self.close_ups.mouth_box(mesh, frame.square)
        share = self.close_ups.mouth_share(mesh, frame.pose[None], box)
        reach = 2 * math.ceil(INSET * self._unit(frame)) + 1
        eroded = -F.max_pool2d(-share, reach, stride=1, padding=reach // 2)
        return box, F.avg_pool2d(eroded, reach, stride=1, padding=reach // 2)

    def _move_skin(
        self,
        made: Tensor,
        frame: FilmedFrame,
        own: Tensor,
        wanted: Tensor,
        own_inside: tuple[MouthBox, Tensor],
        kept_inside: tuple[MouthBox, Tensor],
    ) -> None:
        unit = self._unit(frame)
        source, target = (self._to_pixels(mesh, frame.square) for mesh in (own, wanted))
        shift = source[..., :2] - target[..., :2]
        largest = float(shift[0, self.moving].norm(dim=-1).amax())
        if largest < STILL:
            return
        some = torch.cat([source[0, self.moving, :2], target[0, self.moving, :2]])
        room = FADE * unit + FADE_OF_SHIFT * largest
        low, high = some.amin(dim=0) - room, some.amax(dim=0) + room
        side = math.ceil(float((high - low).amax()))
        left, top = ((low + high) / 2 - side / 2).round().long().tolist()
        height, width = made.shape[:2]
        x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + side, width), min(top + side, height)
        if x0 >= x1 or y0 >= y1:
            return
        field = self._field(wanted, frame.pose, target, shift, left, top, side, unit)[
            ..., y0 - top : y1 - top, x0 - left : x1 - left
        ]
        here = _centres(x0, y0, x1 - x0, y1 - y0)
        places = here + field[0].movedim(0, -1)
        moved = _sample(frame.picture, places, "bicubic").clamp(0, 1)
        box, inside = own_inside
        if inside.any():
            # what a lip takes from the mouth that it shuts is the lip beside
            reach = 2 * math.ceil(INSET * unit) + 1
            wide = F.max_pool2d(inside, reach, stride=1, padding=reach // 2)
            certain = 1 - _over(box, wide, places) * (1 - _over(*kept_inside, here))
            filled = push_pull(moved.movedim(-1, 0)[None] * certain, certain)
            moved = torch.lerp(filled, moved.movedim(-1, 0)[None], certain)[0].movedim(0, -1)
        shown = field[0].norm(dim=0) > STILL
        region = made[y0:y1, x0:x1]
        region[shown] = moved[shown]

    def _field(
        self,
        wanted: Tensor,
        pose: Tensor,
        target: Tensor,
        shift: Tensor,
        left: int,
        top: int,
        side: int,
        unit: float,
    ) -> Tensor:
        """``[1, 2, side, side]`` in pixels: from a place of the frame that is made to that of the frame as it
        is.
        """
        samples = min(side, FIELD_SIZE)
        within = (target[..., :2] - torch.tensor([left, top])) * (2 / side) - 1
        raster = rasterize(
            torch.cat([within, target[..., 2:]], dim=-1),
            self.face_model.triangles,
            samples,
            cull_back_faces=True,
        )
        normals = vertex_normals(wanted, self.face_model.triangles)
        found = raster.interpolate(torch.cat([shift, normals[..., 2:]], dim=-1), self.face_model.triangles)
        skin = raster.look_up(self.skin, False) & (found[..., 2] > FACING)
        field = _continued(found[..., :2].movedim(-1, 1), skin, side / samples, unit)
        # sharp between lips that part, smooth elsewhere: most of all where a chin ends before the neck
        lips = raster.look_up(self.mouth, False)[:, None].float()
        reach = 2 * math.ceil(LIPS_REACH * unit * samples / side) + 1
        lips = F.avg_pool2d(F.max_pool2d(lips, reach, 1, reach // 2), reach, 1, reach // 2)
        sigma = SMOOTH * unit * samples / side
        kernel = 2 * math.ceil(2.5 * sigma) + 1
        smooth = gaussian_blur2d(field, (kernel, kernel), (sigma, sigma), border_type="replicate")
        field = torch.lerp(smooth, field, lips)
        field = F.interpolate(field, size=(side, side), mode="bilinear", align_corners=False)
        # nothing of it is above the bridge of the nose, and what is beyond the face is above that too
        under = target[0, self.bridge, :2] - _centres(left, top, side, side)
        below = under @ upright(pose) / unit
        return field * smoothstep(below / BELOW_BRIDGE)

    def _draw_inside(
        self,
        made: Tensor,
        frame: FilmedFrame,
        own: Tensor,
        wanted: Tensor,
        own_inside: tuple[MouthBox, Tensor],
        box: MouthBox,
        painted: Tensor,
        share: Tensor,
    ) -> None:
        """Draw the inside of the mouth over the pixels of a box, by their ``share`` ``[1, 1, s, s]``; what
        no frame shows is ``painted`` ``[1, 3, s, s]``.
        """
        gain = (self._ring_colour(frame, own) / self.clear_ring.clamp_min(1e-3)).clamp(*GAIN)
        target = self._to_pixels(wanted, frame.square)[0]
        sources = (
            (frame, self._to_pixels(own, frame.square)[0], own_inside, torch.ones(3)),
            (self.clear, self._to_pixels(self.clear_mesh, self.clear.square)[0], self.clear_inside, gain),
        )
        size = share.shape[-1]
        places = _centres(box.left, box.top, size, size)
        lower = self._of_lower_jaw(target, frame, places)
        colours, known = torch.zeros(size, size, 3), torch.zeros(size, size, 1)
        for jaw, of_jaw in zip(self.jaws, (1 - lower, lower), strict=True):
            shown, certain = torch.zeros(size, size, 3), torch.zeros(size, size, 1)
            for source, points, (mask_box, mask), light in reversed(sources):
                there = self._places_of(jaw, source, points, target, places)
                valid = _over(mask_box, mask, there)[0, 0, ..., None]
                if jaw.opens < 0:
                    valid = valid * self._of_lower_jaw(points, source, there)
                shown = torch.lerp(shown, (_sample(source.picture, there) * light).clamp(0, 1), valid)
                certain = torch.lerp(certain, torch.ones(()), valid)
            colours, known = colours + of_jaw * shown, known + of_jaw * certain
        painted = (painted[0].movedim(0, -1) * gain).clamp(0, 1)
        inside = _filled_in(colours, known, painted, INSET * self._unit(frame))
        height, width = made.shape[:2]
        x0, y0 = max(box.left, 0), max(box.top, 0)
        x1, y1 = min(box.left + size, width), min(box.top + size, height)
        if x0 >= x1 or y0 >= y1:
            return
        part = slice(y0 - box.top, y1 - box.top), slice(x0 - box.left, x1 - box.left)
        region = made[y0:y1, x0:x1]
        region.add_(share[0].movedim(0, -1)[part] * (inside[part] - region))

    def _places_of(
        self, jaw: _Jaw, source: FilmedFrame, points: Tensor, target: Tensor, places: Tensor
    ) -> Tensor:
        """Where a source shows what of a jaw is to be seen at ``places`` ``[n, m, 2]``.

        The teeth go as the jaw does. But no lip bares more than the source shows: what the source hides
        behind its own lip is not known, so the teeth go along with a lip that opens farther.

        Args:
            points: ``[V, 3]``, the source's mesh in pixels.
            target: ``[V, 3]``, the wanted mesh in pixels.
        """
        up = upright(source.pose)
        asked = torch.cat([target[jaw.lip, :2], places.flatten(0, 1)])
        there = _affine(target[jaw.teeth, :2], points[jaw.teeth, :2], asked)
        lip, there = there.split([len(jaw.lip), len(asked) - len(jaw.lip)])
        farther = ((lip - points[jaw.lip, :2]) @ up).mean() * jaw.opens
        return there.unflatten(0, places.shape[:2]) - farther.clamp_min(0) * jaw.opens * up

    def _of_lower_jaw(self, points: Tensor, frame: FilmedFrame, places: Tensor) -> Tensor:
        """0..1 ``[n, m, 1]``: what is below the upper teeth of a mesh ``[V, 3]`` in pixels."""
        under = (points[self.bite, :2].mean(dim=0) - places) @ upright(frame.pose) / self._unit(frame)
        return smoothstep((under - BITE[0]) / (BITE[1] - BITE[0]))[..., None]

    def _ring_colour(self, frame: FilmedFrame, mesh: Tensor) -> Tensor:
        """``[3]``: the mean colour of the skin around the mouth."""
        return _sample(frame.picture, self._to_pixels(mesh, frame.square)[:, self.ring, :2]).mean(dim=(0, 1))


def _centres(left: int, top: int, width: int, height: int) -> Tensor:
    """``[height, width, 2]``: x and y of the middles of a picture's pixels."""
    x, y = torch.arange(width) + (left + 0.5), torch.arange(height) + (top + 0.5)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def _as_reference(face_model: FaceModel, identity: Tensor, frame: FilmedFrame) -> Reference:
    x, y, side = frame.square.tolist()
    transform = CropTransform.of_square(x, y, side, min(max(round(side), 64), LARGEST_SIDE))
    face = FaceState(identity, frame.expression, frame.pose, face_model.name)
    crop = transform.to_crop(frame.picture).clamp(0, 1)
    return Reference(torch.zeros(1, 1, 1), face, crop, transform, frame.picture, True)


def _continued(shift: Tensor, skin: Tensor, pixels: float, unit: float) -> Tensor:
    """A displacement ``[1, 2, n, n]`` of the skin ``[1, n, n]`` in pixels, continued across the mouth and
    beyond the face.
    """
    size = shift.shape[-2:]
    weight = skin[:, None].float()
    coarse, coarse_weight = (F.avg_pool2d(part, COARSE, ceil_mode=True) for part in (shift * weight, weight))
    beyond = push_pull(coarse, coarse_weight)
    far = distance_to(coarse_weight[:, 0] > 0.5)[:, None] * (COARSE * pixels)
    reach = FADE * unit + FADE_OF_SHIFT * length_of(beyond)
    beyond = soften(beyond * smoothstep(1 - far / reach))
    beyond = F.interpolate(beyond, scale_factor=COARSE, mode="bilinear", align_corners=False)
    return torch.where(weight > 0, shift, beyond[..., : size[0], : size[1]])


def _over(box: MouthBox, mask: Tensor, places: Tensor) -> Tensor:
    """``[1, 1, n, m]``: a mask ``[1, 1, s, s]`` of a box at places ``[n, m, 2]`` of the picture, 0 beyond."""
    grid = (places - torch.tensor([box.left, box.top])) * (2 / mask.shape[-1]) - 1
    return F.grid_sample(mask, grid[None], padding_mode="zeros", align_corners=False)


def _filled_in(colours: Tensor, known: Tensor, painted: Tensor, rim: float) -> Tensor:
    """``[n, n, 3]``: colours, multiplied by how far they are known ``[n, n, 1]``; within some rims in pixels
    what continues them, lest a line of paint runs around the teeth; beyond it paint.
    """
    planes, weight = (part.movedim(-1, 0)[None] for part in (colours, known))
    # continued from beside, not from all over the mouth: between two rows of teeth it is dark
    kernel = 2 * math.ceil(CONTINUED * rim) + 1
    spread = gaussian_blur2d(torch.cat([planes, weight], dim=1), (kernel, kernel), (rim, rim))
    continued = (spread[:, :3] / spread[:, 3:].clamp_min(1e-6))[0].movedim(0, -1)
    soft = 2 * math.ceil(rim) + 1
    near = F.avg_pool2d(F.max_pool2d(weight, kernel, 1, kernel // 2), soft, 1, soft // 2)
    near = torch.maximum(near, weight)[0].movedim(0, -1)
    return torch.lerp(painted, colours + (1 - known) * continued, near)


def _sample(picture: Tensor, places: Tensor, mode: str = "bilinear") -> Tensor:
    """``[n, m, 3]`` of a picture ``[H, W, 3]`` at places ``[n, m, 2]`` in pixels."""
    grid = places * (2 / torch.tensor([picture.shape[1], picture.shape[0]])) - 1
    found = F.grid_sample(
        picture.movedim(-1, 0)[None], grid[None], mode=mode, padding_mode="border", align_corners=False
    )
    return found[0].movedim(0, -1)


def _affine(source: Tensor, target: Tensor, places: Tensor) -> Tensor:
    """Places ``[..., 2]`` under the affine map that best takes points ``[n, 2]`` to others ``[n, 2]``."""
    middle, aim = source.mean(dim=0), target.mean(dim=0)
    matrix = torch.linalg.lstsq(source - middle, target - aim).solution
    return (places - middle) @ matrix + aim

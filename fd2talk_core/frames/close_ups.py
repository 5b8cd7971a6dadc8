"""The mouth and the eyes, drawn as finely as the picture is.

They are what a viewer looks at, and a few pixels of a small latent: the frames that the networks make of them
are soft. Their surfaces are known from the mesh, so they are drawn anew. Lips, lids and eyeballs take the
portrait's own colours from where the same places lie there; what the portrait hides of lips and lids
continues what it shows, and what it hides of an eyeball has the colours that the person's eyes show as far
from their pupils. Teeth, tongue and the dark behind them, which a shut mouth does not show, are painted. It
is no part of the paper.

Screen coordinates as in :mod:`fd2talk_core.face.rasterizer`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from ..face.lids import portrait_shape, rims_of_lids
from ..face.model import FaceModel, apply_pose, project, unpose
from ..face.names import EYE_PARTS, MOUTH_PARTS
from ..face.palette import lit_eye_colours, lit_mouth_colours
from ..face.parts import below_the_eyes, named_part, part_kinds
from ..face.rasterizer import Raster, rasterize
from ..face.rotations import rotation_matrix
from ..imaging import largest_around, mean_around, pixel_centers, push_pull, shrink, smoothstep
from ..metering import stage
from .correspondence import unstretched
from .reference import Reference

FACE_BRIGHTNESS = 0.55
"""Of the skin below the eyes, in faces whose mouths have the palette's colours."""
FACE_TINT = (1.2, 0.95, 0.85)
"""Mean colour of that skin, relative to its own mean: about that of six portraits."""

BRIGHTNESS_EXPONENT, TINT_EXPONENT = 0.4, 0.75
"""How the inside of the mouth follows the brightness and the tint of the face around it. Drawn heads, whose
skin has any colour, fit an exponent of 0.3 for the tint; in photographs and paintings tint is also the
light's, and a mouth that kept out of it would be blue."""

TEETH_AREA = 2.5e-4
"""Share of the portrait's crop (16 of 256² pixels) that the inside of its mouth must fill to show teeth."""

TEETH_QUANTILE = 0.93
"""Of the smallest channel of what is seen in a mouth: what lies above is the palest, and may be teeth."""

FACE_QUANTILE = 0.97
"""Of the face's brightness: teeth in full light are as bright as the brightest skin."""

TEETH_TINT = 0.8
"""Saturation of teeth at most, by the face's: what is taken for teeth may be mixed with lips or a tongue."""

TOOTH_RIM = 1.0
"""Pixels of the portrait by which its teeth are narrowed: their rims are mixed with lips and shadow."""

TEETH_SATURATION = 0.75
"""Of the lips' saturation, below which that is teeth: tongues and gums lie above, in any light."""

TEETH_DARKEST = 0.7
"""Of the brightness of those, above which a place in the mouth is a tooth."""

TEETH_DROPS = torch.arange(11) * 0.01
"""Face-model units by which a person's upper teeth may reach further down than the face model's."""

UPPER_TEETH = (0.0, 0.085, 0.145, 0.19, 0.225, 0.25)
LOWER_TEETH = (0.0, 0.053, 0.107, 0.155, 0.19, 0.22)
"""Face-model units from the middle to the teeth's sides, as they are seen from before: incisors, a canine,
premolars on an arch that recedes (Levin 1978 for the upper ones' proportion). Those behind are as wide as the
last."""

TOOTH_CORNER = 0.013
"""How high the corners of teeth are rounded, in face-model units."""

TOOTH_GAP = 0.15
"""Share of the light that is missing between two teeth."""

LIP_SHADOW, LID_SHADOW = (0.65, 40), (0.6, 20)
"""Share of the light that is left right behind a lip or a lid, and which part of the close-up's side its
shadow measures."""

TOOTH_ROUNDNESS = 0.16
"""Share of the light that a tooth loses from its middle to its sides, which turn away from the viewer."""

CHEEK_SHADOW, CHEEK_SHADOW_FROM, CHEEK_SHADOW_TO = 0.25, 0.12, 0.28
"""Share of the light that cheeks leave to the last teeth in sight, and how far from the middle, in face-model
units, their shadow begins and is full."""

FLESH = (0.7, 1.1, 1.15)
"""Exponents of the light by channel: what reaches the back of a mouth has been thrown back by flesh, or teeth
in a cheek's shadow would be grey. In a grey picture they are 1."""

COLOURED = 0.12
"""Mean difference between a face's largest and smallest channel under which its mouth loses colour too."""

SAMPLES = 256
"""Most samples of a close-up a side. In a larger one edges are as sharp as this allows, and the portrait's
colours as sharp as the portrait."""

SUPERSAMPLE = 2

DEPTH_TOLERANCE = 0.03
"""Face-model units (3 mm) by which a place may lie behind what the portrait shows and count as shown."""

SLIT = 2.0
"""Pixels of the portrait: what lies behind lips that are no further apart is not believed. The mesh is not
fitted more closely, and a mouth that is all but shut would lend its dark line to the teeth."""

LIP = 6.0
"""Pixels of the portrait around the inside of a mouth that are lips."""

RIM = 2.0
"""Pixels of the portrait beside teeth in which what looks like a tooth is one and no lip."""

FOLDS = 0.05
"""Face-model units (5 mm) around lips and lids that are drawn anew too: a lid closes from above its rim."""

FOLDED, LASHES_FOLDED = (0.4, 0.8), (0.2, 0.5)
"""A portrait's pixels by a frame's pixel: at the lower, a place counts as hidden in the portrait. Stretched
lashes are streaks on the lid; right beside its rim they are the lashes of a shut eye."""

BEHIND = 0.05
"""Face-model units (5 mm) by which the mouth's inside is drawn further back than it is: in some faces it
pierces the skin beside the lips."""

SAME_SHAPE = (0.008, 0.03)
"""Face-model units (0.8 and 3 mm) by which lips lie elsewhere on the head than in the portrait, in the mean:
up to the first all that the portrait shows between them is kept, whatever the mesh holds it for; from the
second on what mesh and picture agree on."""

SEAM = 1.0
"""Pixels of the portrait by which samples of one pixel may lie apart there and are averaged: where lips or
lids meet, what lies half way is a tooth or an eye."""

SKIN_QUANTILE, LASH_EXPONENT = 0.75, 1.5
"""Of the brightness of lids, what is skin there; and how steeply what is darker, a lash or a fold, counts
less when the skin is continued over what the portrait hides of a lid."""

LASH = (0.55, 0.8)
"""Brightness, by that of skin, under which a lid that closes shows no skin but the fold and the lashes of the
open eye, which would stay where it was as a ring; and over which it shows skin."""

LASHES = (0.018, 0.04)
"""Face-model units from the lids' rims: up to the first what is dark are lashes that go with a lid, from the
second on it stays behind."""

SOFT_FOLD = 14
"""Which part of a close-up's side the passage measures from the lid that is seen to the one continued."""

LID_RIM = 2.0
"""Pixels of the portrait next to the lids, whose shadow and lashes lie on the eyeball and do not turn along.
"""

TURNED = (0.5, 2.0)
"""Pixels of the portrait by which an eyeball moves past its lids: from the first on its rim is less, from the
second on no longer taken from the portrait."""

EYE_RINGS, LARGEST_RING = 16, 0.13
"""Rings around the pupil that tell the colours of an eye, and the radius of the last in face-model units."""
WHITE_RING, WHITE_QUANTILE = 9, 0.8
"""The first ring of the white, of whose colours most lie in the shadow of lids and lashes."""
PUPIL_RINGS = 3
"""Before the iris's, which are followed by the white's."""
LEAST_EYE, LEAST_RING = 100, 12
"""Samples of a close-up that must show an eye, and a ring of it, to tell their colours."""


@dataclass(frozen=True, eq=False)
class _Region:
    """A part of the face that is drawn anew.

    Attributes:
        triangles: ``[t, 3]`` corners among the ``vertices`` ``[v]`` of the face model.
        inner: ``[t]`` bool, what lips or lids lie before.
        kinds: ``[t]``, the index among MOUTH_PARTS of what is painted, -1 for what is not.
        frame: ``[w]`` among ``vertices``: the lips or lids, which the close-up is cut around.
        edge: ``[t]`` bool, what of the face is drawn anew: the lips or lids and what is folded next to them.
        behind: ``[v]``, face-model units by which vertices are drawn further back, see :data:`BEHIND`.
        reach: face-model units that the close-up measures a side.
        pupil: vertices of the face model, none in a mouth.
        from_lids: ``[v]``, how far from the rims of the lids vertices lie on the mean face.
    """

    triangles: Tensor
    vertices: Tensor
    inner: Tensor
    kinds: Tensor
    frame: Tensor
    edge: Tensor
    behind: Tensor
    reach: float
    pupil: Tensor
    from_lids: Tensor

    @cached_property
    def is_mouth(self) -> bool:
        """Or an eye."""
        return bool((self.kinds >= 0).any())

    def rasterize(self, target: Tensor, samples: int) -> Raster:
        """Of the vertices at ``[F, v, 3]`` in the square that is drawn."""
        target = target + F.pad(self.behind[:, None], (2, 0))
        return rasterize(target, self.triangles, samples, cull_back_faces=True)


@dataclass(frozen=True, eq=False)
class _Eye:
    """The colours of a person's eye by the distance from the pupil's middle.

    Attributes:
        pupil: ``[3]``, the middle on the mean face.
        rings: ``[EYE_RINGS, 3]``, from the middle outward.
    """

    pupil: Tensor
    rings: Tensor

    def colours_at(self, places: Tensor) -> Tensor:
        """``[..., 3]`` of places ``[..., 3]`` on the mean face."""
        ring = _rings(places, self.pupil)
        inner = ring.floor().long()
        outer = (inner + 1).clamp(max=EYE_RINGS - 1)
        return torch.lerp(self.rings[inner], self.rings[outer], (ring - inner)[..., None])


def _typical_rings(places: Tensor, colours: Tensor, pupil: Tensor, usual: Tensor) -> Tensor:
    """``[EYE_RINGS, 3]``, the colours of an eye.

    Args:
        places: ``[p, 3]`` on the mean face, with ``colours`` ``[p, 3]``.
        usual: ``[EYE_RINGS, 3]``, for pupil, iris or white where too little of it is shown.
    """
    ring = _rings(places, pupil).round().long()
    typical, known = usual.clone(), torch.zeros(EYE_RINGS, dtype=torch.bool)
    for index in range(EYE_RINGS):
        inside = colours[ring == index]
        if len(inside) >= LEAST_RING:
            share = 0.5 if index < WHITE_RING else WHITE_QUANTILE
            typical[index], known[index] = inside.quantile(share, dim=0), True
    if not known.any():
        return colours.median(dim=0).values.expand(EYE_RINGS, 3)
    for first, end in ((0, PUPIL_RINGS), (PUPIL_RINGS, WHITE_RING), (WHITE_RING, EYE_RINGS)):
        numbers = first + known[first:end].nonzero()[:, 0]
        if len(numbers):
            nearest = (torch.arange(first, end)[:, None] - numbers).abs().argmin(dim=1)
            typical[first:end] = typical[numbers[nearest]]
    return typical


def _usual_rings(face: Tensor) -> Tensor:
    """``[EYE_RINGS, 3]`` of a brown eye in the light of a face of colours ``[p, 3]``."""
    counts = torch.tensor([PUPIL_RINGS, WHITE_RING - PUPIL_RINGS, EYE_RINGS - WHITE_RING])
    return _as_lit(lit_eye_colours(), face).repeat_interleave(counts, dim=0)


def _as_a_pair(rings: list[Tensor | None], usual: Tensor) -> list[Tensor]:
    """The rings ``[EYE_RINGS, 3]`` of a person's eyes, each with the white of the brightest: one may stand in
    a nose's shadow, or look away from its own. An eye that the portrait does not show is as the other one, or
    a usual one.
    """
    known = [of_one for of_one in rings if of_one is not None] or [usual]
    brightest = max((of_one[WHITE_RING:] for of_one in known), key=lambda white: float(white.mean()))
    return [torch.cat([(known[0] if own is None else own)[:WHITE_RING], brightest]) for own in rings]


def _rings(places: Tensor, pupil: Tensor) -> Tensor:
    """``[...]`` in 0..EYE_RINGS - 1 of places ``[..., 3]``: how far they lie from the axis of the look."""
    distance = (places - pupil)[..., :2].norm(dim=-1)
    return (distance * ((EYE_RINGS - 1) / LARGEST_RING)).clamp(max=EYE_RINGS - 1)


@dataclass(frozen=True, eq=False)
class _Box:
    """Squares of a picture, ``size`` pixels a side: ``left`` and ``top`` ``[F]`` of ``picture`` pixels."""

    left: Tensor
    top: Tensor
    size: int
    picture: float

    @property
    def middle(self) -> Tensor:
        """``[F, 2]``, (u, v) in the picture."""
        return (torch.stack([self.left, self.top], dim=-1) + self.size / 2) * (2 / self.picture) - 1

    def to_box(self, places: Tensor) -> Tensor:
        """Places ``[F, ..., 3]`` (u, v, depth) of the picture to those of the square."""
        middle = self.middle.view(-1, *(1,) * (places.ndim - 2), 2)
        inside = (places[..., :2] - middle) * (self.picture / self.size)
        return torch.cat([inside, places[..., 2:]], dim=-1)

    def centers(self, samples: int, like: Tensor) -> Tensor:
        """``[F, n, n, 2]``: where the square's samples lie in the picture."""
        return pixel_centers(samples, like) * (self.size / self.picture) + self.middle[:, None, None]

    def cut(self, pictures: Tensor) -> Tensor:
        """``[F, size, size, C]`` of ``[F, N, N, C]``."""
        squares = [
            picture[top : top + self.size, left : left + self.size]
            for picture, left, top in zip(pictures, self.left.tolist(), self.top.tolist(), strict=True)
        ]
        return torch.stack(squares)

    def put(self, squares: Tensor, pictures: Tensor) -> None:
        """Write what :meth:`cut` gave back into the pictures."""
        for picture, square, left, top in zip(
            pictures, squares, self.left.tolist(), self.top.tolist(), strict=True
        ):
            picture[top : top + self.size, left : left + self.size] = square


@dataclass(frozen=True, eq=False)
class MouthBox:
    """A square of a picture around a mouth.

    Attributes:
        left, top: pixels of the picture; it may reach outside.
        size: pixels a side.
        square: ``[3]``: centre x, y and side, in pixels, of what the face model's camera sees of the picture.
    """

    left: int
    top: int
    size: int
    square: Tensor

    @property
    def in_crop(self) -> _Box:
        """The same in what the camera sees."""
        corner = torch.tensor([[self.left], [self.top]]) - self.square[:2, None] + self.square[2] / 2
        return _Box(*corner, self.size, float(self.square[2]))


@dataclass(frozen=True, eq=False)
class _Sight:
    """What a portrait shows of a region.

    Attributes:
        region: which.
        share: of the picture's side that its close-up measures.
        box: where the portrait has it, with room around.
        raster: ``[1, n, n]`` in that box, of the region's triangles.
        inner: ``[n, n]`` bool, whether what is nearest is an inner part.
        wide: ``[n, n]`` bool, whether it is one and not in a slit.
        clear: ``[n, n]`` bool, whether it is one and not next to a lid.
        stray: ``[n, n]`` bool, whether it is an outer part for the mesh only.
        eye: its colours; None for a mouth.
        skin: brightness of its lids' skin; None for a mouth.
    """

    region: _Region
    share: float
    box: _Box
    raster: Raster
    inner: Tensor
    wide: Tensor
    clear: Tensor
    stray: Tensor
    eye: _Eye | None = None
    skin: float | None = None

    @classmethod
    def of(cls, region: _Region, portrait: Tensor, focal: float, picture: int) -> _Sight:
        """
        Args:
            portrait: ``[1, V, 3]``, the mesh on the screen.
            picture: its pixels a side.
        """
        target = portrait[:, region.vertices]
        # the same for a whole clip: how soft an edge is must not depend on which frames are drawn together
        share = region.reach * float((focal / target[..., 2]).mean()) / 2
        box = _box_around(target[:, region.frame], picture, 1.5 * share)
        raster = region.rasterize(box.to_box(target), SAMPLES)
        inner = raster.look_up(region.inner, False)
        wide = inner[0]
        if region.is_mouth:  # what is not believed is painted, and eyes are not
            wide = _opened(inner[:, None].float(), math.ceil(SLIT / 2 * SAMPLES / box.size))[0, 0] > 0
        clear = _eroded(inner[:, None].float(), math.ceil(LID_RIM * SAMPLES / box.size))[0, 0] > 0
        return cls(region, share, box, raster, inner[0], wide, clear, torch.zeros_like(wide))

    def beside(self, pixels: float) -> Tensor:
        """``[n, n]`` bool: outer parts within so many of the portrait's pixels of a wide inner one."""
        reach = math.ceil(pixels * SAMPLES / self.box.size)
        near = largest_around(self.wide[None, None].float(), reach)[0, 0] > 0
        return near & ~self.inner

    def shows(self, places: Tensor, inner: Tensor, same: Tensor) -> tuple[Tensor, Tensor]:
        """``[F, n, n]`` twice: how far the portrait shows places ``[F, n, n, 3]``, inner parts or not, and
        how far clear of lids. ``same`` ``[F]`` is 1 where the part is shaped as in the portrait.
        """
        cell = ((self.box.to_box(places)[..., :2] + 1) * (SAMPLES / 2)).floor()
        within = ((cell >= 0) & (cell < SAMPLES)).all(dim=-1)
        column, row = cell.clamp(0, SAMPLES - 1).int().unbind(-1)
        place = (row * SAMPLES + column).flatten()
        depth, at_place, wide, outer, clear = (
            plane.index_select(0, place).view(inner.shape) for plane in self._planes
        )
        near = places[..., 2] <= depth + DEPTH_TOLERANCE
        agreed = torch.where(inner, wide, outer)
        all_of_it = torch.where(inner, at_place, 1 - at_place)
        shown = (within & near) * torch.lerp(agreed, all_of_it, same[:, None, None])
        return shown, torch.where(inner, shown * clear, shown)

    @cached_property
    def _planes(self) -> Tensor:
        """``[5, n n]``: depth, and 1 for an inner part, a wide one, an outer one that does not stray, a clear
        one.
        """
        outer = ~self.inner & ~self.stray
        flags = [part.to(self.raster.depth) for part in (self.inner, self.wide, outer, self.clear)]
        return torch.stack([self.raster.depth[0], *flags]).flatten(1)


@dataclass(frozen=True, eq=False)
class _Layers:
    """A region's samples in F frames.

    Attributes:
        displacement: ``[F, 2, n, n]``, from them to the portrait.
        inside, outside: ``[F, 1, n, n]``, whether they show an inner or an outer part.
        edge: ``[F, 1, n, n]``, whether they are of what is drawn anew.
        seen, clear: ``[F, 1, n, n]``, whether the portrait shows their places, and whether clear of lids.
        rest: ``[F, n, n, 3]``, their places on the mean face.
        from_lids: ``[F, 1, n, n]``, as the region's; of a mouth ``[F, 0, n, n]``.
        kinds: ``[F, n, n]``, as the region's.
    """

    displacement: Tensor
    inside: Tensor
    outside: Tensor
    edge: Tensor
    seen: Tensor
    clear: Tensor
    rest: Tensor
    from_lids: Tensor
    kinds: Tensor

    def paint_inside(self, paint: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """``[F, 3, n, n]``: colours of the inner parts, 0 elsewhere.

        Args:
            paint: gives colours ``[p, 3]`` of places ``[p, 3]`` on the mean face and their kinds ``[p]``.
        """
        hit = self.inside.flatten().nonzero()[:, 0]
        rest, kinds = (
            part.index_select(0, hit) for part in (self.rest.reshape(-1, 3), self.kinds.reshape(-1))
        )
        colours = self.rest.new_zeros(self.rest.shape).view(-1, 3).index_copy_(0, hit, paint(rest, kinds))
        return colours.view(self.rest.shape).movedim(-1, 1)


@dataclass(frozen=True, eq=False)
class _LidSkin:
    """An eye's lids in F frames.

    Attributes:
        brightness: of their skin.
        closes: ``[F]`` in 0..1, how far they lie elsewhere than in the portrait.
        beyond: ``[F, 1, s, s]`` in 0..1, where no lashes are, see :data:`LASHES`.
    """

    brightness: float
    closes: Tensor
    beyond: Tensor


@dataclass(frozen=True, eq=False)
class _Teeth:
    """Colours ``[3]`` of a portrait's teeth: as they are seen, and as they would be in full light."""

    seen: Tensor
    lit: Tensor


class CloseUps:
    """A portrait's mouth and eyes, ready to be drawn with any motion.

    Args:
        reference: the portrait; its crop is what the colours come from, and as large as the frames are.
        face_model: of its coefficients. One that names no parts (a converted one) leaves frames as they are,
            as does a portrait without a face.
    """

    @torch.no_grad()
    def __init__(self, reference: Reference, face_model: FaceModel) -> None:
        self.reference, self.face_model = reference, face_model
        self.crop = reference.crop.movedim(-1, 0)[None]
        self.teeth_drop = 0.0
        self.shape = portrait_shape(face_model, reference.face)
        self.portrait = self._portrait(self.teeth_drop)
        regions = _regions(face_model) if reference.face_found else ()
        focal, size = face_model.camera.focal, self.crop.shape[-1]
        self.sights = [_Sight.of(region, self.portrait, focal, size) for region in regions]
        self.skin = self._skin_colours()
        teeth = self._teeth()
        self.tones = _tones(self.skin, None if teeth is None else teeth.lit)
        if teeth is not None:
            like_teeth = self._like_teeth(float(teeth.seen.mean()))
            self.teeth_drop = self._fit_teeth(like_teeth)
            self.portrait = self._portrait(self.teeth_drop)
            mouth = _Sight.of(regions[0], self.portrait, focal, size)
            # where mesh and picture disagree on what is a tooth, the picture would be moved as what it is not
            teeth_kinds = torch.tensor([MOUTH_PARTS.index(name) for name in ("upper_teeth", "lower_teeth")])
            agreed = torch.isin(_kinds_in(mouth.region, mouth.raster), teeth_kinds) == like_teeth
            pixel = SAMPLES / mouth.box.size
            wide = _eroded((mouth.wide & agreed)[None, None].float(), math.ceil(TOOTH_RIM * pixel))
            wide = _opened(wide, math.ceil(SLIT / 2 * pixel))[0, 0] > 0  # a speck of a tooth is none
            self.sights[0] = replace(mouth, stray=like_teeth & mouth.beside(RIM), wide=wide)
        mouth, eyes = self.sights[:1], self.sights[1:]
        usual = _usual_rings(self.skin)
        rings = _as_a_pair([self._rings_of(sight, usual) for sight in eyes], usual)
        self.sights = mouth + [
            replace(sight, eye=_Eye(self._pupil(sight), own), skin=self._lid_skin(sight))
            for sight, own in zip(eyes, rings, strict=True)
        ]

    @stage("close-ups")
    @torch.no_grad()
    def add_to(self, frames: Tensor, mesh: Tensor, pose: Tensor, strength: float = 1.0) -> Tensor:
        """
        Args:
            frames: ``[F, N, N, 3]`` in 0..1, crops as the reference's; or ``[F, N, N, 4]``, the last channel
                saying how far they cover what they will be pasted into, which what is drawn does.
            mesh: ``[F, V, 3]``, which they show, see
                :meth:`fd2talk_core.frames.portrait_motion.PortraitMotion.mesh`.
            pose: ``[F, 6]``, the head's in them.
            strength: 0..1, how far the frames give way.

        Returns:
            the same in 0..1.
        """
        if not self.sights:
            return frames
        frames = frames.clone()
        places = project(self._with_teeth(mesh, pose, self.teeth_drop), self.face_model.camera)
        for sight in self.sights:
            target = places[:, sight.region.vertices]
            box = _box_around(target[:, sight.region.frame], frames.shape[1], sight.share)
            drawn, weight = self._draw(sight, target, box, self._same(sight, mesh, pose))
            square = box.cut(frames)
            drawn = F.pad(drawn, (0, frames.shape[-1] - 3), value=1.0)
            box.put(square + strength * weight * (drawn - square), frames)
        return frames.clamp_(0, 1)

    def mouth_box(self, mesh: Tensor, square: Tensor) -> MouthBox:
        """Where a picture shows the mouth of a mesh ``[1, V, 3]``; see :class:`MouthBox`."""
        sight, side = self.sights[0], float(square[2])
        places = project(mesh[:, sight.region.vertices][:, sight.region.frame], self.face_model.camera)
        middle = square[:2] + (places[0, :, :2].amin(dim=0) + places[0, :, :2].amax(dim=0)) * (side / 4)
        size = max(math.ceil(sight.share * side), 8)
        left, top = (middle - size / 2).round().long().tolist()
        return MouthBox(left, top, size, square)

    @torch.no_grad()
    def mouth_share(self, mesh: Tensor, pose: Tensor, box: MouthBox) -> Tensor:
        """``[1, 1, s, s]``: what share of the box's pixels is the inside of the mouth of a mesh
        ``[1, V, 3]`` in the pose ``[1, 6]``.
        """
        return _pool(self._mouth_layers(mesh, pose, box.in_crop).inside, box.size)

    @torch.no_grad()
    def inside_of_mouth(self, mesh: Tensor, pose: Tensor, box: MouthBox) -> tuple[Tensor, Tensor]:
        """The inside of the mouth alone, for a picture of its own: colours ``[1, 3, s, s]``, and
        :meth:`mouth_share`.
        """
        in_crop = box.in_crop
        return self._within(self.sights[0], self._mouth_layers(mesh, pose, in_crop), in_crop)

    def _mouth_layers(self, mesh: Tensor, pose: Tensor, box: _Box) -> _Layers:
        sight = self.sights[0]
        places = project(self._with_teeth(mesh, pose, self.teeth_drop), self.face_model.camera)
        return self._rasterized(sight, places[:, sight.region.vertices], box, self._same(sight, mesh, pose))

    def _same(self, sight: _Sight, mesh: Tensor, pose: Tensor) -> Tensor:
        """``[F]`` in 0..1: how far lips or lids lie on the head as in the portrait, by :data:`SAME_SHAPE`."""
        frame = sight.region.vertices[sight.region.frame]
        apart = (unpose(mesh[:, frame], pose) - self.shape[:, frame]).norm(dim=-1).mean(dim=-1)
        least, most = SAME_SHAPE
        return 1 - smoothstep((apart - least) / (most - least))

    def _with_teeth(self, mesh: Tensor, pose: Tensor, drop: float) -> Tensor:
        """``[F, V, 3]``: posed meshes whose upper teeth reach so much further down the face. Their gums stay,
        lest the mouth's dark shows above them.
        """
        if not drop:
            return mesh
        part = self.face_model.part_names.index("upper_teeth")
        teeth = self.face_model.triangles[self.face_model.triangle_parts == part].unique()
        height = self.face_model.mean[teeth, 1]
        share = (height.amax() - height) / (height.amax() - height.amin())
        mesh = mesh.clone()
        mesh[:, teeth] -= drop * share[:, None] * rotation_matrix(pose[:, :3])[:, None, :, 1]
        return mesh

    def _portrait(self, teeth_drop: float) -> Tensor:
        """``[1, V, 3]``: the mesh on the screen, as the portrait shows it."""
        pose = self.reference.face.pose[None]
        posed = self._with_teeth(apply_pose(self.shape, pose), pose, teeth_drop)
        return project(posed, self.face_model.camera)

    def _draw(self, sight: _Sight, target: Tensor, box: _Box, same: Tensor) -> tuple[Tensor, Tensor]:
        """Colours ``[F, s, s, 3]`` and weights ``[F, s, s, 1]`` of a region whose vertices are at ``target``
        ``[F, v, 3]``.
        """
        layers = self._rasterized(sight, target, box, same)
        within, share = self._within(sight, layers, box)
        rest = _pool(layers.outside, box.size)
        skin = None
        if sight.skin is not None:
            least, most = LASHES
            beyond = smoothstep((_pool(layers.from_lids, box.size) - least) / (most - least))
            skin = _LidSkin(sight.skin, 1 - same, beyond)
        colours = self._moved(box, layers.displacement, layers.outside, layers.seen, rest, skin=skin)
        colours = torch.lerp(colours, within, share / (share + rest).clamp_min(1e-3))
        edge = _pool(layers.edge, box.size)
        return colours.movedim(1, -1), _feather(torch.maximum(share, edge)).movedim(1, -1)

    def _rasterized(self, sight: _Sight, target: Tensor, box: _Box, same: Tensor) -> _Layers:
        region, samples = sight.region, min(box.size * SUPERSAMPLE, SAMPLES)
        raster = region.rasterize(box.to_box(target), samples)
        inner = raster.look_up(region.inner, False)
        attributes = [self.portrait[0, region.vertices], self.face_model.mean[region.vertices]]
        if not region.is_mouth:
            attributes.append(region.from_lids[:, None])
        found = raster.interpolate(torch.cat(attributes, dim=-1)[None], region.triangles)
        inside, outside = (layer[:, None].to(found) for layer in (inner, raster.covered & ~inner))
        seen, clear = (shown[:, None] for shown in sight.shows(found[..., :3], inner, same))
        return _Layers(
            displacement=(found[..., :2] - box.centers(samples, found)).movedim(-1, 1),
            inside=inside,
            outside=outside,
            edge=raster.look_up(region.edge, False)[:, None].to(found),
            seen=seen,
            clear=clear,
            rest=found[..., 3:6],
            from_lids=found[..., 6:].movedim(-1, 1),
            kinds=raster.look_up(region.kinds, -1),
        )

    def _within(self, sight: _Sight, layers: _Layers, box: _Box) -> tuple[Tensor, Tensor]:
        """Colours ``[F, 3, s, s]`` of what lies behind lips or lids, and what share ``[F, 1, s, s]`` of each
        pixel that is.
        """
        share, seen, painted = _pool(layers.inside, box.size), layers.seen, None
        if sight.region.is_mouth:
            painted = layers.paint_inside(lambda rest, kinds: _paint(rest, kinds, self.tones))
            painted = painted * _shadow(layers.inside, *LIP_SHADOW)
        elif sight.eye is not None:
            painted = layers.paint_inside(lambda rest, kinds: sight.eye.colours_at(rest))
            painted = painted * _shadow(layers.inside, *LID_SHADOW)
            past, lids = (_mean_over(layers.displacement, over) for over in (layers.inside, layers.edge))
            least, most = TURNED
            past = (past - lids).norm(dim=1) * (box.picture / 2)
            turned = smoothstep((past - least) / (most - least))
            seen = torch.lerp(seen, layers.clear, turned[:, None, None, None])
        if painted is not None:
            painted = push_pull(_pool(painted, box.size), share)
        return self._moved(box, layers.displacement, layers.inside, seen, share, painted), share

    def _moved(
        self,
        box: _Box,
        displacement: Tensor,
        layer: Tensor,
        seen: Tensor,
        share: Tensor,
        hidden: Tensor | None = None,
        skin: _LidSkin | None = None,
    ) -> Tensor:
        """``[F, 3, s, s]``: the portrait, moved.

        Args:
            displacement: ``[F, 2, n, n]``, from samples to the portrait.
            layer, seen: ``[F, 1, n, n]``, which samples count, and which of them the portrait shows.
            share: ``[F, 1, s, s]``, of each pixel that the layer covers.
            hidden: ``[F, 3, s, s]``, colours of what the portrait does not show; without them, what it shows
                around.
            skin: a lid's. Its folds and lashes are dark, so they are hidden, and what is bright continues
                over what the portrait does not show.
        """
        grid = box.centers(box.size, displacement) + self._pooled(box, displacement, layer, share)
        crop = self.crop.expand(len(grid), -1, -1, -1)
        colours = F.grid_sample(crop, grid, mode="bilinear", padding_mode="border", align_corners=False)
        visible = _pool(layer * seen, box.size)
        if skin is not None:
            least, enough = (
                rim + (lid - rim) * skin.beyond for rim, lid in zip(LASHES_FOLDED, FOLDED, strict=True)
            )
            visible = visible * unstretched(grid * (box.picture / box.size), least, enough)
            visible, share = (mean_around(part, box.size // SOFT_FOLD) for part in (visible, share))
        visible = (visible / share.clamp_min(1e-3)).clamp(0, 1)
        if hidden is None:
            certain = (visible >= 0.6).to(colours)
            if skin is not None:
                brightness = (colours.mean(dim=1, keepdim=True) / skin.brightness).clamp(0, 1)
                certain = certain * brightness**LASH_EXPONENT
                lash = 1 - smoothstep((brightness - LASH[0]) / (LASH[1] - LASH[0]))
                visible = visible * (1 - skin.closes.view(-1, 1, 1, 1) * lash * skin.beyond)
            hidden = push_pull(colours * certain, certain)
        return torch.lerp(hidden, colours, visible)

    def _pooled(self, box: _Box, displacement: Tensor, layer: Tensor, share: Tensor) -> Tensor:
        """``[F, s, s, 2]``: displacements of samples as those of pixels, see :meth:`_moved`."""
        mean = push_pull(_pool(displacement * layer, box.size), share)
        samples = torch.cat([displacement, layer], dim=1)
        one, known = F.interpolate(samples, size=mean.shape[-2:], mode="nearest").split([2, 1], dim=1)
        apart = (one - mean).abs().amax(dim=1, keepdim=True) > SEAM * 2 / box.picture
        return torch.where(apart & (known > 0), one, mean).movedim(1, -1)

    def _pupil(self, sight: _Sight) -> Tensor:
        """``[3]``, the middle of an eye's pupil on the mean face."""
        return self.face_model.mean[sight.region.pupil].mean(dim=0)

    def _rings_of(self, sight: _Sight, usual: Tensor) -> Tensor | None:
        """``[EYE_RINGS, 3]``, the colours of an eye; None where it is shut or too small to tell them."""
        places, colours, told = self._rest(sight), self._colours_in(sight), None
        for shown in (sight.inner, sight.clear):  # what is seen clearly says more, but of fewer rings
            if int(shown.sum()) >= LEAST_EYE:
                told = _typical_rings(
                    places[shown], colours[shown], self._pupil(sight), usual if told is None else told
                )
        return told

    def _lid_skin(self, sight: _Sight) -> float:
        """Brightness of the skin of an eye's lids."""
        lids = sight.raster.look_up(sight.region.edge, False)[0]
        if not lids.any():
            return 1.0
        return float(self._colours_in(sight)[lids].mean(dim=-1).quantile(SKIN_QUANTILE).clamp_min(1e-2))

    def _rest(self, sight: _Sight) -> Tensor:
        """``[n, n, 3]``: the places on the mean face that the portrait shows in the box of a region."""
        mean = self.face_model.mean[sight.region.vertices]
        return sight.raster.interpolate(mean[None], sight.region.triangles)[0]

    def _colours_in(self, sight: _Sight) -> Tensor:
        """``[n, n, 3]``: the portrait in the box of a region."""
        centers = sight.box.centers(SAMPLES, self.crop)
        return F.grid_sample(self.crop, centers, mode="bilinear", align_corners=False)[0].movedim(0, -1)

    def _teeth(self) -> _Teeth | None:
        """The portrait's teeth, if it shows any."""
        if not self.sights:
            return None
        mouth = self.sights[0]
        area = float(mouth.inner.float().mean()) * (mouth.box.size / mouth.box.picture) ** 2
        if area < TEETH_AREA:
            return None
        colours = self._colours_in(mouth)
        seen = colours[mouth.inner]
        smallest = seen.amin(dim=1)
        chosen = smallest >= smallest.quantile(TEETH_QUANTILE)
        palest = seen[chosen].mean(dim=0)
        if not self._paler_than_lips(palest, colours):
            return None
        # they stand in the lips' shadow there, which will fall on what is painted as well; but teeth that are
        # as bright as the face's bright parts stand in the light
        shadow = _shadow(mouth.inner[None, None].to(colours), *LIP_SHADOW)[0, 0]
        light = (_light(self._rest(mouth), torch.ones_like(shadow)) * shadow)[mouth.inner][chosen].mean()
        most = self.skin.mean(dim=1).quantile(FACE_QUANTILE) / palest.mean()
        grey = palest.mean()
        most_tinted = TEETH_TINT * _saturation(self.skin.mean(dim=0))
        tint = (most_tinted / _saturation(palest).clamp_min(1e-3)).clamp(max=1)
        lit = torch.lerp(grey, palest, tint) * torch.minimum(1 / light, most).clamp_min(1)
        return _Teeth(palest, lit.clamp(max=1))

    def _paler_than_lips(self, some: Tensor, colours: Tensor) -> Tensor:
        """``[...]`` bool of ``[..., 3]``, beside the lips in the mouth's ``colours``."""
        lips = colours[self.sights[0].beside(LIP)].mean(dim=0)
        return _saturation(some) < TEETH_SATURATION * _saturation(lips)

    def _like_teeth(self, brightness: float) -> Tensor:
        """``[n, n]`` bool: where the portrait's mouth and what is around it look like teeth so bright."""
        colours = self._colours_in(self.sights[0])
        bright = colours.mean(dim=-1) > TEETH_DARKEST * brightness
        return bright & self._paler_than_lips(colours, colours)

    def _fit_teeth(self, like_teeth: Tensor) -> float:
        """Face-model units by which the portrait's upper teeth reach further down than the face model's, so
        that they are not taken for a tongue, and move with it.

        Args:
            like_teeth: of :meth:`_like_teeth`.
        """
        mouth = self.sights[0]
        sign = torch.where(like_teeth, 1, -1)[mouth.wide]
        fits = []
        for drop in TEETH_DROPS.tolist():
            target = mouth.box.to_box(self._portrait(drop)[:, mouth.region.vertices])
            raster = mouth.region.rasterize(target, SAMPLES)
            kinds = _kinds_in(mouth.region, raster)
            upper = (kinds == MOUTH_PARTS.index("upper_teeth"))[mouth.wide]
            fits.append(int((sign * upper).sum()))
        return float(TEETH_DROPS[fits.index(max(fits))])

    def _skin_colours(self) -> Tensor:
        """``[p, 3]``: the portrait's skin below the eyes, whatever the person wears."""
        size = 64
        raster = rasterize(self.portrait, self.face_model.triangles, size, cull_back_faces=True)
        lower = below_the_eyes(self.face_model)
        skin = (lower > 0) & (lower < 1) & named_part(self.face_model, "skin")
        small = F.interpolate(self.crop, size=(size, size), mode="area")
        return small[0].movedim(0, -1)[raster.look_up(skin, False)[0]]


def _saturation(colours: Tensor) -> Tensor:
    """``[...]`` of ``[..., 3]``: 0 is grey."""
    return 1 - colours.amin(dim=-1) / colours.amax(dim=-1).clamp_min(1e-3)


def _regions(face_model: FaceModel) -> tuple[_Region, ...]:
    names = face_model.part_names
    if not {"lips", "eyelids", *MOUTH_PARTS, *EYE_PARTS} <= set(names):
        return ()
    kinds = part_kinds(face_model)
    middles = face_model.mean[face_model.triangles].mean(dim=1)

    def of(*parts: str) -> Tensor:
        return torch.isin(face_model.triangle_parts, torch.tensor([names.index(part) for part in parts]))

    regions = []
    sides = (middles[:, 0] < 0, middles[:, 0] > 0)
    # a jaw that drops makes a mouth twice as high as it is wide at rest
    pupils = of("left_pupil", "right_pupil")
    mouth = (of("lips"), of(*MOUTH_PARTS), 2.2, torch.zeros_like(pupils))
    eyes = [(of("eyelids") & side, of(*EYE_PARTS) & side, 1.4, pupils & side) for side in sides]
    from_lids = torch.cdist(face_model.mean, rims_of_lids(face_model)).amin(dim=1)
    for frame, inner, margin, pupil in (mouth, *eyes):
        rim = face_model.mean[face_model.triangles[frame].unique()]
        middle, reach = rim.mean(dim=0), (rim.amax(dim=0) - rim.amin(dim=0))[:2].amax()
        near = (middles[:, :2] - middle[:2]).norm(dim=1) < 1.7 * reach
        outer = near & (middles[:, 2] > 0) & (kinds > len(MOUTH_PARTS))
        drawn = inner | outer
        edge = outer & (torch.cdist(middles, rim).amin(dim=1) < FOLDS)
        triangles = face_model.triangles[drawn]
        vertices = triangles.unique()
        number = torch.full((len(face_model.mean),), -1)
        number[vertices] = torch.arange(len(vertices))
        painted = torch.where(kinds < len(MOUTH_PARTS), kinds, -1)
        behind = torch.zeros(len(face_model.mean))
        behind[face_model.triangles[of(*MOUTH_PARTS) & drawn].unique()] = BEHIND
        behind[face_model.triangles[outer].unique()] = 0
        regions.append(
            _Region(
                triangles=number[triangles],
                vertices=vertices,
                inner=inner[drawn],
                kinds=painted[drawn],
                frame=number[face_model.triangles[frame].unique()],
                edge=edge[drawn],
                behind=behind[vertices],
                reach=margin * float(reach),
                pupil=face_model.triangles[pupil].unique(),
                from_lids=from_lids[vertices],
            )
        )
    return tuple(regions)


def _box_around(points: Tensor, picture: int, share: float) -> _Box:
    """Squares around the points ``[F, w, 2]``, a share of the picture a side and within it."""
    size = min(max(math.ceil(share * picture), 8), picture)
    middle = ((points.amin(dim=1) + points.amax(dim=1)) / 2 + 1) * (picture / 2)
    corner = (middle - size / 2).round().clamp(0, picture - size).long()
    return _Box(corner[:, 0], corner[:, 1], size, picture)


def _kinds_in(region: _Region, raster: Raster) -> Tensor:
    """``[n, n]``: what a raster ``[1, n, n]`` of a region sees of MOUTH_PARTS, -1 for none of them."""
    return raster.look_up(region.kinds, -1)[0]


def _mean_over(values: Tensor, weight: Tensor) -> Tensor:
    """``[F, C]``: mean of ``[F, C, n, n]`` by weights ``[F, 1, n, n]``."""
    return (values * weight).sum(dim=(2, 3)) / weight.sum(dim=(2, 3)).clamp_min(1e-6)


def _pool(planes: Tensor, size: int) -> Tensor:
    """``[F, C, n, n]`` samples as pixels, ``[F, C, size, size]``."""
    if planes.shape[-1] == size * SUPERSAMPLE:
        return shrink(planes, SUPERSAMPLE)
    planes = shrink(planes, SUPERSAMPLE)
    return F.interpolate(planes, size=(size, size), mode="bilinear", align_corners=False)


def _opened(mask: Tensor, reach: int) -> Tensor:
    """``[F, 1, n, n]`` without what is not wider than twice the reach in samples."""
    return largest_around(_eroded(mask, reach), reach)


def _eroded(mask: Tensor, reach: int) -> Tensor:
    """``[F, 1, n, n]`` without what lies within the reach in samples of what is not in it."""
    return -largest_around(-mask, reach)


def _feather(mask: Tensor) -> Tensor:
    """``[F, 1, s, s]``: a soft edge around, and none of it at the square's own edge."""
    size = mask.shape[-1]
    reach = max(1, size // 40)
    soft = mean_around(largest_around(mask, reach), reach, padded=True)
    line = torch.arange(size, device=mask.device)
    inset = torch.minimum(line, size - 1 - line).clamp(max=4) / 4
    return soft * torch.minimum(inset[:, None], inset[None, :])


def _paint(rest: Tensor, kinds: Tensor, tones: Tensor) -> Tensor:
    """Colours ``[F, n, n, 3]`` of the mouth's inside.

    Args:
        rest: ``[F, n, n, 3]``, the places on the mean face.
        kinds: ``[F, n, n]`` among MOUTH_PARTS.
        tones: ``[5, 3]``.
    """
    x, y, _ = rest.unbind(-1)
    upper, lower = (kinds == MOUTH_PARTS.index(name) for name in ("upper_teeth", "lower_teeth"))
    # single teeth: the mesh has one band of them, whose edge bends up to the sides
    middle = torch.where(
        upper, *(_across_tooth(x.abs(), rest.new_tensor(row)) for row in (UPPER_TEETH, LOWER_TEETH))
    )
    wave = 0.3 - 0.6 * middle.square()
    gums = smoothstep((y + 0.227) / 0.02 + wave) * upper + smoothstep((-y - 0.385) / 0.02 + wave) * lower
    beside = 1 - middle
    edge = torch.where(upper, y + 0.302 - 0.38 * x.square(), -0.277 + 0.45 * x.square() - y)
    teeth = (upper | lower).to(rest)
    gaps = TOOTH_ROUNDNESS * beside**3 + TOOTH_GAP * ((beside - 0.86) / 0.14).clamp(0, 1) ** 2
    corners = 0.45 * smoothstep((TOOTH_CORNER * beside**3 - edge) / 0.006 + 0.5)
    colours = tones[kinds.clamp_min(0)] * (1 - teeth * torch.maximum(gaps, corners))[..., None]
    colours = colours + gums[..., None] * (tones[len(MOUTH_PARTS)] - colours)
    coloured = _saturation(tones[0]) / _saturation(lit_mouth_colours()[0])
    flesh = torch.lerp(torch.ones(3), torch.tensor(FLESH), coloured.clamp(max=1)).to(rest)
    return colours * _light(rest, teeth + lower)[..., None] ** flesh


def _across_tooth(aside: Tensor, sides: Tensor) -> Tensor:
    """``[...]`` from 0 at a tooth's sides to 1 in its middle, of distances ``[...]`` from the mouth's middle.

    Args:
        sides: ``[n]``, where the teeth of one half begin, and where the last one ends.
    """
    last = len(sides) - 2
    number = (torch.bucketize(aside, sides, right=True) - 1).clamp(0, last)
    across = (aside - sides[number]) / (sides[number + 1] - sides[number])
    return (math.pi * across).sin().abs()


def _light(rest: Tensor, teeth: Tensor) -> Tensor:
    """``[...]``: how bright places ``[..., 3]`` in the mouth are.

    Args:
        teeth: ``[...]``, 1 on upper teeth, 2 on lower ones, which stand behind those and in both shadows.
    """
    x, _, z = rest.unbind(-1)
    deep = (0.12 + 0.88 * smoothstep((z - 0.45) / 0.45)) ** (1 / 2.2)
    aside = smoothstep((x.abs() - CHEEK_SHADOW_FROM) / (CHEEK_SHADOW_TO - CHEEK_SHADOW_FROM))
    return deep * (1 - (1 - CHEEK_SHADOW) * aside) ** teeth


def _shadow(inside: Tensor, least: float, reach: int) -> Tensor:
    """``[F, 1, n, n]``: how much light lips or lids leave to what lies behind them ``[F, 1, n, n]``; it comes
    from above.

    Args:
        least: the share at their rim.
        reach: which part of the side their shadow measures.
    """
    size = inside.shape[-1]
    cells = max(1, size // reach)
    lowered = F.pad(inside, (0, 0, cells // 2, 0))[..., :size, :]
    return least + (1 - least) * smoothstep((mean_around(lowered, cells, padded=True) - 0.3) / 0.6)


def _tones(face: Tensor, teeth: Tensor | None = None) -> Tensor:
    """``[5, 3]``: the lit mouth's colours by :func:`_as_lit`; teeth whose colour ``[3]`` is known take it."""
    tones = _as_lit(lit_mouth_colours(), face)
    if teeth is not None:
        tones[[MOUTH_PARTS.index(name) for name in ("upper_teeth", "lower_teeth")]] = teeth
    return tones


def _as_lit(tones: Tensor, face: Tensor) -> Tensor:
    """Colours ``[n, 3]`` in the light of a face of colours ``[p, 3]``: as bright, as tinted, as grey."""
    if not len(face):
        return tones
    brightness = face.mean().clamp_min(0.02)
    tint = (face.mean(dim=0) / brightness / torch.tensor(FACE_TINT)).clamp_min(0.1)
    tones = tones * (brightness / FACE_BRIGHTNESS) ** BRIGHTNESS_EXPONENT * tint**TINT_EXPONENT
    colour = ((face.amax(dim=1) - face.amin(dim=1)).mean() / COLOURED).clamp(0, 1)
    return torch.lerp(tones.mean(dim=1, keepdim=True), tones, colour)

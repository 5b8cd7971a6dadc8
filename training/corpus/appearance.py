"""What a random person looks like: the head's texture, hair, beard, glasses, clothes and eyes.

The head's texture is a map over directions from the middle of the mean head, so that it sticks to the
surface whatever the identity and the expression: longitude over the width, latitude over the height.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from fd2talk_core.face.model import FaceModel, default_face_model

from .noise import blur, patch, pick, pink, smoothstep

if TYPE_CHECKING:
    from .wardrobe import Piece, Wardrobe

MAP_SHAPE = (320, 640)
MIDDLE = np.array([0.0, 0.25, 0.0], np.float32)
"""Of the head, from which directions are taken."""

_SKINS = np.array(
    [
        [243, 208, 186],
        [232, 190, 160],
        [222, 172, 138],
        [198, 148, 112],
        [160, 110, 78],
        [120, 80, 58],
        [82, 54, 42],
    ]
)
_HAIRS = np.array(
    [[28, 22, 20], [52, 36, 26], [84, 56, 36], [120, 80, 46], [176, 134, 80], [208, 176, 122], [150, 72, 38],
     [170, 168, 165], [225, 222, 216]]
)  # fmt: skip
_IRISES = np.array(
    [[78, 52, 32], [52, 34, 22], [96, 110, 70], [84, 116, 140], [110, 128, 140], [120, 90, 50]]
)


def linear(colour: np.ndarray) -> np.ndarray:
    """sRGB 0..255 to linear 0..1 (gamma 2.2)."""
    return (np.asarray(colour, np.float32) / 255) ** 2.2


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Where things are on the mean head: map coordinates and regions, the same for everyone."""

    model: FaceModel
    mean: np.ndarray
    triangles: np.ndarray
    parts: np.ndarray
    landmarks: np.ndarray
    lips: np.ndarray
    ears: np.ndarray
    normals: np.ndarray
    eye_centres: np.ndarray
    iris_radius: float

    def part(self, *names: str) -> np.ndarray:
        """[T] whether a triangle is one of the parts."""
        return np.isin(self.parts, [self.model.part_names.index(name) for name in names])


@functools.lru_cache(maxsize=1)
def anatomy() -> Anatomy:
    """Of the face model that ships."""
    model = default_face_model()
    mean = model.mean.numpy()
    triangles, parts = model.triangles.numpy(), model.triangle_parts.numpy()

    def weight(name: str) -> np.ndarray:
        """[V] share of the triangles around a vertex that belong to the part."""
        mine = np.zeros(len(mean))
        total = np.zeros(len(mean)) + 1e-9
        of_part = (parts == model.part_names.index(name)).astype(float)
        for corner in triangles.T:
            np.add.at(mine, corner, of_part)
            np.add.at(total, corner, 1.0)
        return (mine / total).astype(np.float32)

    def iris(side: str) -> np.ndarray:
        return mean[np.unique(triangles[parts == model.part_names.index(f"{side}_iris")])]

    return Anatomy(
        model=model,
        mean=mean,
        triangles=triangles,
        parts=parts,
        landmarks=model.landmarks(model.mean[None])[0].numpy(),
        lips=weight("lips"),
        ears=weight("ears"),
        normals=vertex_normals(mean, triangles),
        eye_centres=np.stack([iris("left").mean(0), iris("right").mean(0)]),
        iris_radius=float(np.ptp(iris("left")[:, 0]) / 2),
    )


def vertex_normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """[V, 3] area-weighted unit normals."""
    a, b, c = (vertices[triangles[:, i]] for i in range(3))
    face = np.cross(b - a, c - a)
    normals = np.zeros_like(vertices)
    for corner in triangles.T:
        for axis in range(3):
            normals[:, axis] += np.bincount(corner, face[:, axis], len(vertices))
    return (normals / (np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9)).astype(np.float32)


def map_coordinates(rest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and column (float pixels of the map) of points on the mean head, ``[N, 3]``."""
    x, y, z = (rest - MIDDLE).T
    longitude = np.arctan2(x, z)
    latitude = np.arctan2(y, np.hypot(x, z))
    rows, columns = MAP_SHAPE
    return (0.5 - latitude / np.pi) * (rows - 1), (longitude / (2 * np.pi) + 0.5) * (columns - 1)


@functools.lru_cache(maxsize=1)
def _map_angles() -> tuple[np.ndarray, np.ndarray]:
    """Longitude and latitude of the map's pixels, radians."""
    rows, columns = MAP_SHAPE
    latitude = (0.5 - np.arange(rows) / (rows - 1)) * np.pi
    longitude = (np.arange(columns) / (columns - 1) - 0.5) * 2 * np.pi
    return np.meshgrid(longitude.astype(np.float32), latitude.astype(np.float32))


def _draw(points: np.ndarray, kind: str, width: float = 1.0, soft: float = 1.0) -> np.ndarray:
    """[rows, columns] in 0..1: a polygon, or a line of ``width`` map pixels, through points ``[n, 3]``,
    softened.
    """
    scale = 3
    rows, columns = map_coordinates(points)
    margin = int(4 * soft + width) + 2
    top, left = int(rows.min()) - margin, int(columns.min()) - margin
    height, wide = int(rows.max()) + margin + 1 - top, int(columns.max()) + margin + 1 - left
    canvas = Image.new("L", (wide * scale, height * scale))
    path = [
        ((float(c) - left + 0.5) * scale, (float(r) - top + 0.5) * scale)
        for r, c in zip(rows, columns, strict=True)
    ]
    draw = ImageDraw.Draw(canvas)
    if kind == "polygon":
        draw.polygon(path, fill=255)
    else:
        draw.line(path, fill=255, width=max(1, round(width * scale)), joint="curve")
    small = canvas.resize((wide, height), Image.Resampling.BOX)
    field = np.zeros(MAP_SHAPE, np.float32)
    # The face lies in the middle of the map, away from its borders.
    field[top : top + height, left : left + wide] = blur(np.asarray(small, np.float32) / 255, soft)
    return field


def _spot(landmark: int, radius: float) -> np.ndarray:
    """[rows, columns] Gaussian around a landmark; ``radius`` in map pixels."""
    row, column = map_coordinates(anatomy().landmarks[landmark : landmark + 1])
    rows, columns = np.arange(MAP_SHAPE[0])[:, None], np.arange(MAP_SHAPE[1])[None]
    down, across = (
        np.exp(-((at - middle) ** 2) / (2 * radius**2)) for at, middle in ((rows, row), (columns, column))
    )
    return (down * across).astype(np.float32)


_BROWS = ((46, 53, 52, 65, 55, 107, 66, 105, 63, 70), (276, 283, 282, 295, 285, 336, 296, 334, 293, 300))
_LIDS = ((33, 246, 161, 160, 159, 158, 157, 173, 133), (263, 466, 388, 387, 386, 385, 384, 398, 362))
_LOWER_LIDS = ((33, 7, 163, 144, 145, 153, 154, 155, 133), (263, 249, 390, 373, 374, 380, 381, 382, 362))
_FOLDS = ((129, 203, 206, 216, 212), (358, 423, 426, 436, 432))
_MOUTH_AREA = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146)


@dataclass(frozen=True, eq=False)
class Look:
    """A person's surface. Colours are linear; ``displacement`` [V, 3] is added to the head (hair, hat,
    beard).

    Attributes:
        albedo: ``[rows, columns, 3]`` over the map. gloss: ``[rows, columns]`` specular strength over it.
        wrap, shine: how far light wraps around skin, the exponent of its highlights.
        lip_colour, lip_strength: painted where the model has lips.
        iris: ``[64, 256, 3]`` over radius (to the limbus) and angle. pupil: its radius relative to the iris.
        long_hair: None or its parameters; glasses: None or theirs; cloth: ``[64, 64, 3]``; collar: its
            neckline's radius.
        hair, clothes: out of :mod:`.wardrobe`, in place of hair that stands off the head and of ``cloth``.
    """

    albedo: np.ndarray
    gloss: np.ndarray
    wrap: float
    shine: float
    displacement: np.ndarray
    lip_colour: np.ndarray
    lip_strength: float
    iris: np.ndarray
    sclera: np.ndarray
    pupil: float
    iris_size: float
    teeth: np.ndarray
    gums: np.ndarray
    tongue: np.ndarray
    mouth: np.ndarray
    hair_map: np.ndarray
    long_hair: dict | None
    glasses: dict | None
    cloth: np.ndarray
    collar: float
    hair: Piece | None = None
    clothes: Piece | None = None

    @functools.cached_property
    def skin_map(self) -> np.ndarray:
        """``[rows, columns, 4]``: albedo and gloss, which are looked up together."""
        return np.concatenate([self.albedo, self.gloss[..., None]], -1, dtype=np.float32)

    @functools.cached_property
    def mean_albedo(self) -> float:
        return float(self.albedo.mean())


def random_look(rng: np.random.Generator, wardrobe: Wardrobe | None = None) -> Look:
    """A person, from old to young, from plain to painted; with a wardrobe, one as photographs show people."""
    body = anatomy()
    skin = _skin_colour(rng, natural=wardrobe is not None)
    age, feminine = rng.random(), rng.random() < 0.5
    albedo = _skin(skin, age, rng, even=0.5 if wardrobe is not None else 0.0)
    gloss = np.full(MAP_SHAPE, rng.uniform(0.02, 0.16), np.float32)
    gloss += rng.uniform(0, 0.1) * (_spot(1, 12) + _spot(151, 22))
    hair = _hair_colour(age, rng)
    strands = _strands(rng)
    hair_map = hair * np.exp(rng.uniform(0.12, 0.4) * strands[..., None])
    _paint_eyes(albedo, feminine, rng)
    _paint_brows(albedo, hair, feminine, rng)
    displacement = np.zeros_like(body.mean)
    if not feminine:
        displacement += _beard(albedo, gloss, hair, strands, rng)
    long_hair = _long_hair(feminine, rng)
    hair_piece = wardrobe.hair(feminine, hair, rng) if wardrobe is not None else None
    volume = _hair(albedo, gloss, hair_map, long_hair, age, feminine, rng)
    if hair_piece is None:
        displacement += volume
    else:
        long_hair = None
    if hair_piece is None and rng.random() < 0.10:
        displacement += _hat(albedo, gloss, rng)
    if wardrobe is None:
        _overlay(albedo, rng)
    redness = np.array([1.0, 0.55, 0.52])
    natural = linear(rng.uniform([150, 70, 70], [215, 125, 120])) * (0.35 + 0.65 * skin.mean() / 0.4)
    made_up = linear(pick(rng, [170, 25, 45], [120, 20, 50], [205, 60, 80], [150, 70, 60], [90, 30, 60]))
    painted = feminine and rng.random() < 0.5
    return Look(
        albedo=np.clip(albedo, 0.004, 0.95),
        gloss=np.clip(gloss, 0, 0.5),
        wrap=rng.uniform(0.1, 0.5),
        shine=float(np.exp(rng.uniform(np.log(8), np.log(60)))),
        displacement=displacement.astype(np.float32),
        lip_colour=(made_up if painted else 0.5 * natural + 0.5 * skin * redness).astype(np.float32),
        lip_strength=rng.uniform(0.75, 1.0) if painted else rng.uniform(0.4, 0.95),
        iris=_iris(rng),
        sclera=linear(rng.uniform([205, 195, 190], [245, 240, 238])),
        pupil=rng.uniform(0.3, 0.55),
        iris_size=rng.uniform(0.95, 1.2),
        teeth=linear(rng.uniform([200, 185, 150], [245, 242, 232])),
        gums=linear(rng.uniform([150, 70, 75], [205, 120, 120])) * (0.5 + skin.mean()),
        tongue=linear(rng.uniform([165, 75, 80], [215, 125, 125])),
        mouth=linear(rng.uniform([70, 22, 22], [120, 50, 50])),
        hair_map=np.clip(hair_map, 0.003, 0.95).astype(np.float32),
        long_hair=long_hair,
        glasses=_glasses(rng),
        cloth=_cloth(rng),
        collar=rng.uniform(0.5, 0.95),
        hair=hair_piece,
        clothes=wardrobe.clothes(rng) if wardrobe is not None else None,
    )


def _skin_colour(rng: np.random.Generator, natural: bool = False) -> np.ndarray:
    if not natural and rng.random() < 0.05:  # statues, robots and the painted
        return linear(rng.uniform(50, 235, 3))
    tone = rng.uniform(0, len(_SKINS) - 1)
    low = int(tone)
    high = min(low + 1, len(_SKINS) - 1)
    colour = _SKINS[low] + (tone - low) * (_SKINS[high] - _SKINS[low])
    return linear(np.clip(colour * rng.normal(1, 0.05) + rng.normal(0, 5, 3), 20, 252))


_BLOOD = np.array([0.05, 1.0, 0.8], np.float32)
_PIGMENT = np.array([0.55, 1.0, 1.2], np.float32)


def _skin(skin: np.ndarray, age: float, rng: np.random.Generator, even: float = 0.0) -> np.ndarray:
    """[rows, columns, 3] with blotches, pores, redness, freckles, moles, folds and wrinkles.

    Args:
        even: share of blotches and pores that is left out.
    """
    # under the chin the map is stretched, and what is random on it would be streaks
    grain = (1 - even) * smoothstep((_map_angles()[1] + 0.95) / 0.35)
    coarse = grain * rng.uniform(0.02, 0.10) * pink(MAP_SHAPE, rng, 1.6)
    grey = grain * rng.uniform(0.02, 0.10) * pink(MAP_SHAPE, rng, 0.7)
    tint = np.array([0.6, 1.0, 1.1]) * rng.normal(1, 0.2, 3)
    blood = rng.uniform(0, 0.35) * _warm() + rng.uniform(0, 0.22) * _dim()
    pigment = np.zeros(MAP_SHAPE, np.float32)
    if rng.random() < 0.35:
        freckles = (rng.random(MAP_SHAPE, np.float32) < rng.uniform(0.002, 0.02)).astype(np.float32)
        where = smoothstep(pink(MAP_SHAPE, rng, 1.6) + 0.8)
        pigment += rng.uniform(0.5, 2.0) * blur(freckles, rng.uniform(0.6, 1.1)) * where
    for _ in range(rng.poisson(2)):
        pigment += rng.uniform(0.4, 1.4) * _spot(int(rng.integers(468)), rng.uniform(0.8, 1.8))
    landmarks = anatomy().landmarks
    for fold in _FOLDS:
        grey -= (0.1 + 0.7 * age) * rng.uniform(0.2, 0.9) * _draw(landmarks[list(fold)], "line", 1.5, 1.5)
    for lid in _LOWER_LIDS:
        below = landmarks[list(lid)] + np.array([0, -0.09, 0])
        grey -= age * rng.uniform(0.1, 0.7) * _draw(below, "line", 1.5, 1.6)
    if age > 0.5:
        longitude, latitude = _map_angles()
        forehead = np.exp(-((longitude / 0.45) ** 4)) * smoothstep((latitude - 0.42) / 0.06)
        forehead = forehead * smoothstep((0.68 - latitude) / 0.1)
        waves = np.sin(latitude * rng.uniform(60, 95) + 1.2 * pink(MAP_SHAPE, rng, 1.8)) ** 8
        grey -= (age - 0.5) * rng.uniform(0.2, 0.8) * forehead * waves
    channels = [
        colour * np.exp(grey + np.float32(t) * coarse - b * blood - p * pigment)
        for colour, t, b, p in zip(skin, tint, _BLOOD, _PIGMENT, strict=True)
    ]
    return np.stack(channels, -1).astype(np.float32)


@functools.lru_cache(maxsize=1)
def _warm() -> np.ndarray:
    """Where blood shows: cheeks, nose and chin."""
    return _spot(50, 26) + _spot(280, 26) + 0.8 * _spot(1, 12) + 0.5 * _spot(199, 12)


@functools.lru_cache(maxsize=1)
def _dim() -> np.ndarray:
    """Around the eyes."""
    return sum(_spot(n, 13) for n in (145, 374, 159, 386))


def _paint(albedo: np.ndarray, mask: np.ndarray, colour: np.ndarray | float) -> None:
    """Lay a colour (or a map of colours) over the map where the mask ``[rows, columns]`` is not 0."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(rows):
        window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        share = mask[window][..., None]
        over = colour[window] if np.ndim(colour) == 3 else np.float32(colour)
        albedo[window] += (over - albedo[window]) * share


def _hair_colour(age: float, rng: np.random.Generator) -> np.ndarray:
    if rng.random() < 0.05:
        return linear(rng.uniform(20, 230, 3))
    grey = rng.random() < 0.5 * max(0.0, age - 0.4) / 0.6 + 0.03
    colour = (
        _HAIRS[int(rng.integers(7, 9))]
        if grey
        else _HAIRS[int(rng.choice(7, p=[0.2, 0.2, 0.2, 0.14, 0.1, 0.08, 0.08]))]
    )
    return linear(np.clip(colour * rng.normal(1, 0.12) + rng.normal(0, 5, 3), 8, 250))


def _strands(rng: np.random.Generator) -> np.ndarray:
    """[rows, columns] streaks that run down from the crown, straight to curly."""
    streaks = pink(MAP_SHAPE, rng, rng.uniform(0.5, 0.9), stretch=rng.uniform(1.5, 9))
    if rng.random() < 0.6:
        amount = rng.uniform(1, 10)
        row, column = np.indices(MAP_SHAPE)
        moved = (column + amount * pink(MAP_SHAPE, rng, 1.6)).astype(int) % MAP_SHAPE[1]
        streaks = streaks[row, moved]
    return streaks + 0.5 * pink(MAP_SHAPE, rng, 1.4)


def _paint_eyes(albedo: np.ndarray, feminine: bool, rng: np.random.Generator) -> None:
    landmarks = anatomy().landmarks
    made_up = feminine and rng.random() < 0.5
    shadow = linear(rng.uniform(20, 200, 3))
    liner = rng.uniform(0.5, 0.95) if made_up else rng.uniform(0.25, 0.7)
    width = rng.uniform(1.2, 2.6) if made_up else rng.uniform(0.8, 1.6)
    strength = rng.uniform(0.1, 0.6)
    for lid, lower in zip(_LIDS, _LOWER_LIDS, strict=True):
        if made_up:
            area = np.concatenate([landmarks[list(lid)], landmarks[list(lid[::-1])] + np.array([0, 0.11, 0])])
            _paint(albedo, _draw(area, "polygon", soft=2.0) * strength, shadow)
        _paint(albedo, _draw(landmarks[list(lid)], "line", width, 0.7) * liner, 0.01)
        _paint(albedo, _draw(landmarks[list(lower)], "line", 0.8, 0.8) * liner * 0.5, 0.02)


def _paint_brows(albedo: np.ndarray, hair: np.ndarray, feminine: bool, rng: np.random.Generator) -> None:
    if rng.random() < 0.04:
        return
    landmarks = anatomy().landmarks
    thick = rng.uniform(0.5, 1.0) if feminine else rng.uniform(0.8, 1.7)
    lift, slant = rng.normal(0, 0.025), rng.normal(0, 0.05)
    hairs = 1 + 0.35 * pink(MAP_SHAPE, rng, 0.3)
    colour = hair * rng.uniform(0.4, 0.9)
    strength = rng.uniform(0.5, 0.95)
    for brow in _BROWS:
        outline = landmarks[list(brow)].copy()
        middle = (outline[:5] + outline[:4:-1]) / 2
        for edge in (slice(0, 5), slice(9, 4, -1)):
            outline[edge] = middle + (outline[edge] - middle) * thick
        outline[:, 1] += lift + slant * (np.abs(outline[:, 0]) - 0.35)
        _paint(albedo, np.clip(_draw(outline, "polygon", soft=1.2) * hairs, 0, 1) * strength, colour)


def _beard(albedo: np.ndarray, gloss: np.ndarray, hair: np.ndarray, strands: np.ndarray, rng) -> np.ndarray:
    """Paint stubble, a moustache, a goatee or a beard; returns how far it stands off the head."""
    body = anatomy()
    kind = pick(rng, "none", "stubble", "moustache", "goatee", "full", weights=(0.35, 0.25, 0.1, 0.1, 0.2))
    if kind == "none":
        return np.zeros_like(body.mean)
    longitude, latitude = _map_angles()
    jaw = np.interp(
        np.abs(longitude), [0, 0.3, 0.6, 0.9, 1.15, 1.35], [-0.58, -0.56, -0.50, -0.34, 0.05, 0.25]
    )
    jaw = smoothstep((jaw + rng.normal(0, 0.04) - latitude) / 0.1) * smoothstep((latitude + 1.0) / 0.12)
    jaw = jaw * smoothstep((1.4 - np.abs(longitude)) / 0.15)
    lip = _draw(body.landmarks[[129, 203, 206, 61, 0, 291, 426, 423, 358, 2]], "polygon", soft=2.5)
    mask = {
        "stubble": np.maximum(jaw, lip), "full": np.maximum(jaw, lip), "moustache": lip,
        "goatee": np.maximum(lip, jaw * smoothstep((0.35 - np.abs(longitude)) / 0.15)),
    }[kind]  # fmt: skip
    mask = mask * (1 - _draw(body.landmarks[list(_MOUTH_AREA)], "polygon", soft=1.0))
    density = rng.uniform(0.15, 0.5) if kind == "stubble" else rng.uniform(0.7, 1.0)
    edge = np.clip(mask * (1 + 0.3 * strands), 0, 1) * density
    _paint(albedo, edge, hair * np.exp(0.25 * strands[..., None]) * 0.7)
    gloss *= 1 - 0.7 * edge
    if kind != "full":
        return np.zeros_like(body.mean)
    row, column = map_coordinates(body.mean)
    amount = jaw[row.astype(int), column.astype(int)] * rng.uniform(0.0, 0.12)
    inside = (body.mean[:, 2] > 0.0) & (body.lips < 0.05)
    return (amount * inside * _skin_vertices())[:, None] * body.normals


def _skin_vertices() -> np.ndarray:
    """[V] 1 on the outside of the head, 0 for eyes, teeth, tongue and the mouth's inside."""
    body = anatomy()
    outside = np.zeros(len(body.mean))
    outside[np.unique(body.triangles[body.part("skin", "scalp", "neck", "ears", "eyelids", "lips")])] = 1
    outside[np.unique(body.triangles[body.part("mouth_interior")])] = 0
    return outside


def _long_hair(feminine: bool, rng: np.random.Generator) -> dict | None:
    if rng.random() > (0.65 if feminine else 0.12):
        return None
    return {
        "bottom": rng.uniform(-1.9, -0.5),
        "front": rng.uniform(0.95, 1.5),
        "volume": rng.uniform(0.08, 0.3),
        "flare": rng.uniform(-0.08, 0.35),
        "waves": rng.uniform(0.0, 0.06),
        "count": int(rng.integers(3, 16)),
        "phase": rng.uniform(0, 6.28),
    }


def _hair(albedo, gloss, hair_map, long_hair, age: float, feminine: bool, rng) -> np.ndarray:
    """Paint the hair above a random hairline; returns how far it stands off the head."""
    body = anatomy()
    bald = not feminine and rng.random() < 0.08 + 0.2 * age
    cropped = not bald and long_hair is None and rng.random() < 0.2
    front = rng.uniform(0.58, 0.85) + (0.25 if bald else 0.0) * rng.random()
    temple = front - rng.uniform(0.0, 0.2)
    side = rng.uniform(-0.05, 0.12)
    nape = rng.uniform(-0.75, -0.4)
    if bald:
        front, temple = 1.7, rng.uniform(0.55, 1.0)
    part = rng.normal(0, 0.35)
    longitude, latitude = _map_angles()

    def line(angle: np.ndarray) -> np.ndarray:
        fringe = 0.05 * np.sin(3 * (angle - part)) * (np.abs(angle) < 1)
        stops = [0, 0.45, 0.85, 1.1, 1.3, 1.5, 1.75, 2.1, 3.2]
        heights = [front, front - 0.02, temple, 0.28, side, 0.12, -0.2, nape, nape]
        return np.interp(np.abs(angle), stops, heights) + fringe

    strands = np.log(hair_map.mean(-1) / (hair_map.mean() + 1e-9) + 1e-6)
    soft = rng.uniform(0.03, 0.10)
    cover = smoothstep((latitude - line(longitude)) / soft + 0.5 + 0.5 * strands)
    density = rng.uniform(0.35, 0.8) if cropped else 1.0
    if rng.random() < 0.4 and not bald:  # a parting
        away = np.abs(longitude - part * (latitude < 1.2)) * np.cos(latitude)
        cover = cover * (1 - 0.6 * np.exp(-((away / 0.02) ** 2)) * (latitude > front + 0.1))
    _paint(albedo, cover * density, hair_map)
    gloss *= 1 - 0.6 * density * cover
    x, y, z = (body.mean - MIDDLE).T
    angle, height = np.arctan2(x, z), np.arctan2(y, np.hypot(x, z))
    inner = smoothstep((height - line(angle)) / 0.3)
    volume = 0.01 if cropped or bald else rng.uniform(0.05, 0.26)
    top = 1 + rng.uniform(0, 1.2) * smoothstep((height - 0.5) / 0.5)
    lumps = 1 + rng.uniform(0, 0.35) * np.sin(rng.uniform(3, 12) * angle + rng.uniform(0, 6))
    lumps = lumps * (1 + rng.uniform(0, 0.3) * np.sin(rng.uniform(3, 9) * height + rng.uniform(0, 6)))
    amount = volume * inner * top * lumps * _skin_vertices() * (1 - body.ears)
    amount *= body.mean[:, 1] > -0.9
    return amount[:, None] * body.normals


def _hat(albedo: np.ndarray, gloss: np.ndarray, rng) -> np.ndarray:
    """A knitted cap or a scarf over the top of the head."""
    body = anatomy()
    edge, tilt = rng.uniform(0.32, 0.6), rng.normal(0, 0.06)
    longitude, latitude = _map_angles()

    def line(angle: np.ndarray) -> np.ndarray:
        return edge - 0.32 * (1 - np.cos(angle)) / 2 + tilt * np.sin(angle)

    mask = smoothstep((latitude - line(longitude)) / 0.03)[..., None]
    colour = linear(rng.uniform(15, 235, 3))
    knit = (
        1
        + 0.25 * np.sin(longitude * rng.uniform(30, 90)) * np.cos(latitude)
        + 0.1 * pink(MAP_SHAPE, rng, 0.5)
    )
    fabric = colour * knit[..., None]
    if rng.random() < 0.4:
        stripe = (np.sin(latitude * rng.uniform(10, 30)) > rng.uniform(-0.5, 0.8))[..., None]
        fabric = np.where(stripe, fabric, linear(rng.uniform(15, 235, 3)) * knit[..., None])
    albedo[:] = albedo * (1 - mask) + fabric * mask
    gloss *= 1 - 0.9 * mask[..., 0]
    x, y, z = (body.mean - MIDDLE).T
    angle, height = np.arctan2(x, z), np.arctan2(y, np.hypot(x, z))
    amount = (
        rng.uniform(0.06, 0.16)
        * smoothstep((height - line(angle)) / 0.12)
        * _skin_vertices()
        * (1 - body.ears)
    )
    return amount[:, None] * body.normals


def _overlay(albedo: np.ndarray, rng: np.random.Generator) -> None:
    """Natural-image grain over everything that is painted, from a hint to a mask of it."""
    if rng.random() < 0.45:
        grain = patch(MAP_SHAPE, rng)
        grain = grain - blur(grain, 24)
        albedo *= np.exp(np.float32(rng.uniform(0.1, 1.2)) * grain)
    if rng.random() < 0.10:
        strength = rng.uniform(0.15, 0.7)
        albedo[:] = albedo * (1 - strength) + linear(patch(MAP_SHAPE, rng) * 255) * strength
    if rng.random() < 0.08:  # face paint
        mask = blur(pink(MAP_SHAPE, rng, 1.6) > rng.uniform(0.2, 1.0), 1.5)[..., None] * rng.uniform(0.4, 0.9)
        albedo[:] = albedo * (1 - mask) + linear(rng.uniform(0, 255, 3)) * mask


def _iris(rng: np.random.Generator) -> np.ndarray:
    colour = linear(
        np.clip(_IRISES[int(rng.integers(len(_IRISES)))] * rng.normal(1, 0.2) + rng.normal(0, 10, 3), 10, 220)
    )
    if rng.random() < 0.03:
        colour = linear(rng.uniform(0, 255, 3))
    rays = pink((64, 256), rng, 0.8, stretch=0.2)
    radius = np.linspace(0, 1, 64)[:, None]
    shade = np.exp(0.35 * rays) * (1.25 - 0.5 * radius) * (1 - 0.75 * smoothstep((radius - 0.82) / 0.18))
    ring = np.exp(-(((radius - 0.45) / 0.15) ** 2))[..., None] * linear([140, 90, 40]) * rng.uniform(0, 0.6)
    return (colour * shade[..., None] + ring).astype(np.float32)


def _glasses(rng: np.random.Generator) -> dict | None:
    if rng.random() > 0.16:
        return None
    return {
        "width": rng.uniform(0.17, 0.25),
        "height": rng.uniform(0.12, 0.22),
        "square": pick(rng, 2.0, 2.5, 4.0, 6.0),
        "thickness": rng.uniform(0.012, 0.032),
        "drop": rng.uniform(-0.03, 0.05),
        "colour": linear(
            pick(rng, [15, 15, 18], [60, 35, 20], [170, 150, 90], [190, 190, 195], rng.uniform(0, 255, 3))
        ),
    }


def _cloth(rng: np.random.Generator) -> np.ndarray:
    """[64, 64, 3] linear, periodic."""
    rows, columns = np.indices((64, 64)) / 64 * 2 * np.pi
    base, other = linear(rng.uniform(10, 240, 3)), linear(rng.uniform(10, 240, 3))
    n = int(rng.integers(1, 9))
    kind = pick(rng, "plain", "stripes", "bands", "checks", "patch", weights=(4, 1, 1, 1, 2))
    mask = {
        "plain": np.zeros((64, 64)), "stripes": np.sin(n * columns) > 0, "bands": np.sin(n * rows) > 0.3,
        "checks": (np.sin(n * columns) > 0) ^ (np.sin(n * rows) > 0), "patch": np.zeros((64, 64)),
    }[kind][..., None]  # fmt: skip
    cloth = base * (1 - mask) + other * mask
    if kind == "patch":
        cloth = linear(patch((64, 64), rng) * 255)
    return np.clip(cloth * np.exp(0.15 * pink((64, 64), rng, 0.8))[..., None], 0.003, 0.95).astype(np.float32)

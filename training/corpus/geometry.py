"""What a head wears, as triangle meshes in the head's own space: long hair, glasses, shoulders."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Mesh:
    """Vertices [V, 3], triangles [T, 3], surface coordinates [V, 2] and how far each vertex follows the head
    [V].
    """

    vertices: np.ndarray
    triangles: np.ndarray
    surface: np.ndarray
    follows: np.ndarray


def grid(points: np.ndarray, surface: np.ndarray, follows: np.ndarray) -> Mesh:
    """A mesh from points on a lattice, ``[rows, columns, 3]``."""
    rows, columns = points.shape[:2]
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    triangles = np.concatenate(
        [np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)]
    )
    return Mesh(
        points.reshape(-1, 3).astype(np.float32),
        triangles.astype(np.int32),
        surface.reshape(-1, 2).astype(np.float32),
        follows.reshape(-1).astype(np.float32),
    )


def follow_weight(y: np.ndarray) -> np.ndarray:
    """How far a point at height ``y`` turns with the head: all of it above the chin, none of it at the
    collar.
    """
    t = np.clip((y + 1.45) / 0.7, 0, 1)
    return t * t * (3 - 2 * t)


def hair_follows(y: np.ndarray) -> np.ndarray:
    """How far hair at height ``y`` turns with the head: what lies on the shoulders does so by a third."""
    return 0.35 + 0.65 * follow_weight(y)


def long_hair(style: dict, head: np.ndarray) -> Mesh:
    """A curtain around the back and the sides of the head."""
    angle, down = np.linspace(style["front"], 2 * np.pi - style["front"], 56), np.linspace(0, 1, 22)
    a, t = np.meshgrid(angle, down)
    wide, deep = np.percentile(np.abs(head[:, 0][head[:, 1] > 0]), 97), np.abs(head[:, 2].min())
    top, bottom = 0.85, style["bottom"]
    y = top + (bottom - top) * t
    volume = style["volume"] * np.minimum(1, 3 * t)
    tuck = 0.82 + 0.18 * np.minimum(1, 4 * t)
    below = np.clip((0.0 - y) / 1.2, 0, 1)
    spread = tuck + style["flare"] * below * t - 0.3 * below
    wave = style["waves"] * np.sin(style["count"] * a + style["phase"] + 3 * t) * t
    x = (wide * spread + volume + wave) * np.sin(a)
    z = (deep * spread + volume + wave) * np.cos(a) - 0.08
    texture = np.stack([a / (2 * np.pi), 0.85 - 0.55 * t], -1)
    return grid(np.stack([x, y, z], -1), texture, hair_follows(y))


def glasses(style: dict, eyes: np.ndarray, ears: np.ndarray, nose_front: float) -> Mesh:
    """Rims, bridge and temples; ``eyes`` and ``ears`` are [2, 3] in the head's space."""
    parts = []
    thickness = style["thickness"]
    front = nose_front
    turn = np.linspace(0, 2 * np.pi, 33)
    centres = eyes + np.array([0, -style["drop"], 0])
    for side, centre in enumerate(centres):
        power = 2 / style["square"]
        x = np.sign(np.cos(turn)) * np.abs(np.cos(turn)) ** power * style["width"]
        y = np.sign(np.sin(turn)) * np.abs(np.sin(turn)) ** power * style["height"]
        z = front - 0.35 * (np.abs(x + centre[0])) ** 2
        parts.append(_tube(np.stack([x + centre[0], y + centre[1], z], -1), thickness))
        outward = np.sign(centre[0])
        edge = centre[0] + outward * style["width"]
        hinge = [edge, centre[1] + 0.3 * style["height"], front - 0.35 * edge**2]
        ear = ears[side] + np.array([0.03 * outward, 0.12, -0.1])
        bend = [max(abs(hinge[0]), abs(ear[0])) * outward, hinge[1], hinge[2] - 0.15]
        parts.append(_tube(np.array([hinge, bend, ear]), thickness))
    inner = centres.copy()
    inner[:, 0] -= np.sign(inner[:, 0]) * style["width"]
    middle = inner.mean(0) + np.array([0, 0.05, 0])
    bridge = np.stack([inner[0], middle, inner[1]])
    bridge[:, 2] = front - 0.35 * bridge[:, 0] ** 2
    parts.append(_tube(bridge, thickness))
    return join(parts)


def _tube(path: np.ndarray, radius: float, sides: int = 5) -> Mesh:
    """A tube of constant cross-section along a path ``[n, 3]``."""
    along = np.gradient(path, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-9
    helper = np.where(np.abs(along[:, 1:2]) < 0.9, [[0, 1, 0]], [[1, 0, 0]])
    first = np.cross(along, helper)
    first /= np.linalg.norm(first, axis=1, keepdims=True) + 1e-9
    second = np.cross(along, first)
    turn = np.linspace(0, 2 * np.pi, sides + 1)
    ring = np.cos(turn)[None, :, None] * first[:, None] + np.sin(turn)[None, :, None] * second[:, None]
    points = path[:, None] + radius * ring
    return grid(points, np.zeros((*points.shape[:2], 2)), np.ones(points.shape[:2]))


def shoulders(width: float = 2.1) -> Mesh:
    """A torso just under where the face model's own shoulders end, and beyond."""
    angle, down = np.linspace(0, 2 * np.pi, 49), np.linspace(0, 1, 20)
    a, t = np.meshgrid(angle, down)
    out = np.clip(t / 0.6, 0, 1)
    x = (0.35 + (width - 0.35) * out) * np.sin(a)
    z = (0.35 + 0.6 * np.sin(0.5 * np.pi * out)) * np.cos(a) - 0.12
    front = 0.35 * np.clip(np.cos(a), 0, 1) * out
    y = -1.12 - 0.30 * (out * width) ** 1.1 - front - 3.0 * np.clip((t - 0.6) / 0.4, 0, 1)
    return grid(np.stack([x, y, z], -1), np.stack([x, y], -1), np.zeros_like(t))


def join(parts: list[Mesh]) -> Mesh:
    offsets = np.cumsum([0, *(len(part.vertices) for part in parts)])
    return Mesh(
        np.concatenate([part.vertices for part in parts]),
        np.concatenate(
            [part.triangles + offset for part, offset in zip(parts, offsets, strict=False)]
        ).astype(np.int32),
        np.concatenate([part.surface for part in parts]),
        np.concatenate([part.follows for part in parts]),
    )

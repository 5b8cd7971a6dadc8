"""Ray-casts a person in a place: one ray a pixel, four more where an edge runs through it.

Labels are exact because the geometry is the face model's own: Eq. 1, its pose and its camera. Hair, hats and
beards stand off the head along its normals; the neck passes from following the head to following the
shoulders.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.lids import stop_lids
from fd2talk_core.frames.close_ups import LOWER_TEETH as LOWER_SIDES
from fd2talk_core.frames.close_ups import UPPER_TEETH as UPPER_SIDES

from . import geometry
from .appearance import MAP_SHAPE, Anatomy, Look, anatomy, map_coordinates
from .noise import smoothstep
from .scenery import Place
from .wardrobe import Piece

(
    SKIN, LEFT_EYE, RIGHT_EYE, MOUTH, UPPER_TEETH, LOWER_TEETH, TONGUE, HAIR, GLASSES, CLOTH, HAIR_PIECE,
    GARMENT,
) = range(12)  # fmt: skip
_NOTHING = -1
_PART_MATERIALS = {
    "left_eye": LEFT_EYE, "left_iris": LEFT_EYE, "left_pupil": LEFT_EYE, "right_eye": RIGHT_EYE,
    "right_iris": RIGHT_EYE, "right_pupil": RIGHT_EYE, "mouth_interior": MOUTH, "upper_teeth": UPPER_TEETH,
    "lower_teeth": LOWER_TEETH, "tongue": TONGUE,
}  # fmt: skip
_LAYERS = 8
"""Surfaces that a ray passes at most: the last one counts as solid."""
_GAP = 0.004
"""Face-model units around a tooth's side that are dark."""
_LID_SHADOW = 0.4
"""Share of the light that an upper lid keeps from the eye right under it."""
_BEYOND = 2e-3
"""Lengths of a ray after which it goes on behind what it has passed."""
_PASSED = 0.02
"""Share of a ray's light that is not followed further."""
_EDGE_OFFSETS = np.array([(-0.375, -0.125), (0.125, -0.375), (0.375, 0.125), (-0.125, 0.375)], np.float32)


class Person:
    """A look on an identity, ready to be drawn in any expression and pose."""

    def __init__(self, look: Look, identity: np.ndarray) -> None:
        """``identity``: α, [D_α]."""
        body = anatomy()
        model = body.model
        self.look, self.identity = look, identity
        basis = model.identity_basis.numpy()
        self._neutral = body.mean + np.tensordot(identity, basis, 1)
        self._expression_basis = model.expression_basis.numpy().reshape(model.expression_dim, -1)
        keep = ~body.part("eyelashes")
        if look.clothes is not None:
            keep &= ~look.clothes.hidden[body.triangles].all(1)
        materials = np.full(len(body.triangles), SKIN, np.int8)
        for name, material in _PART_MATERIALS.items():
            materials[body.part(name)] = material
        if look.clothes is None:
            middle = body.mean[body.triangles].mean(1)
            materials[(np.hypot(middle[:, 0], middle[:, 2]) > look.collar) & (middle[:, 1] < -0.95)] = CLOTH
        extras = self._extras(body)
        head = geometry.Mesh(
            self._neutral,
            body.triangles[keep],
            np.zeros((len(body.mean), 2)),
            geometry.follow_weight(body.mean[:, 1]),
        )
        whole = geometry.join([head, *(mesh for mesh, _ in extras)])
        self.triangles = whole.triangles.astype(np.int32)
        self.materials = np.concatenate(
            [materials[keep], *(np.full(len(mesh.triangles), material, np.int8) for mesh, material in extras)]
        )
        self._worn = whole.vertices[len(body.mean) :].astype(np.float32)
        self._follows = whole.follows[:, None]
        self.transparent = bool((self.materials == HAIR_PIECE).any())
        # Per vertex: place on the mean head and share of lips; for what is worn, surface coordinates instead.
        self.attributes = np.zeros((len(whole.vertices), 4), np.float32)
        self.attributes[: len(body.mean), :3] = body.mean
        self.attributes[: len(body.mean), 3] = body.lips
        self.attributes[len(body.mean) :, :2] = whole.surface[len(body.mean) :]
        corners = self.triangles.T.reshape(-1)
        which = np.tile(np.arange(len(self.triangles)), 3)
        ones = np.ones(len(corners), np.float32)
        self._gather = sparse.csr_matrix((ones, (corners, which)), (len(whole.vertices), len(self.triangles)))

    def _extras(self, body: Anatomy) -> list[tuple[geometry.Mesh, int]]:
        look = self.look
        extras = []
        if look.clothes is None:
            extras.append((geometry.shoulders(), CLOTH))
        else:
            vertices = look.clothes.on(self._neutral)
            extras.append((_worn(look.clothes, vertices, np.zeros(len(vertices))), GARMENT))
        if look.hair is not None:
            vertices = look.hair.on(self._neutral)
            follows = geometry.hair_follows(vertices[:, 1])
            extras.append((_worn(look.hair, vertices, follows), HAIR_PIECE))
        if look.long_hair:
            extras.append((geometry.long_hair(look.long_hair, self._neutral + look.displacement), HAIR))
        if look.glasses:
            landmarks = body.model.landmarks(_tensor(self._neutral[None]))[0].numpy()
            eyes = np.stack([landmarks[[263, 362]].mean(0), landmarks[[33, 133]].mean(0)])
            mesh = geometry.glasses(
                look.glasses, eyes, landmarks[[454, 234]], float(landmarks[[6, 168], 2].max()) + 0.06
            )
            extras.append((mesh, GLASSES))
        return extras

    def vertices(self, expression: np.ndarray, pose: np.ndarray) -> np.ndarray:
        """[V, 3] in the world, for β [D_β] and p [6]; the head's vertices come first."""
        moved = (expression @ self._expression_basis).reshape(-1, 3)
        shape = stop_lids(anatomy().model, _tensor((self._neutral + moved)[None]))[0].numpy()
        head = shape + self.look.displacement
        rest = np.concatenate([head, self._worn])
        rotation = rotation_matrix(pose[:3])
        turned = rest @ rotation.T + pose[3:]
        # The shoulders go a part of the way with the head's place and with its turn about the vertical.
        standing = rest + pose[3:] * np.array([0.6, 0.6, 0.8])
        return (self._follows * turned + (1 - self._follows) * standing).astype(np.float32)

    def normals(self, vertices: np.ndarray) -> np.ndarray:
        """[V, 3] smooth unit normals."""
        a, b, c = (vertices[self.triangles[:, i]] for i in range(3))
        return _unit(self._gather @ np.cross(b - a, c - a))


def _worn(piece: Piece, vertices: np.ndarray, follows: np.ndarray) -> geometry.Mesh:
    return geometry.Mesh(vertices, piece.triangles, piece.surface, follows)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[N] row by row, of [N, 3] and [N, 3] or [3]."""
    return np.einsum("ij,ij->i", a, b) if b.ndim == 2 else a @ b


def _unit(vectors: np.ndarray) -> np.ndarray:
    """[N, 3] of length 1; three times as fast as by ``np.linalg.norm``."""
    return vectors / (np.sqrt(_dot(vectors, vectors)) + 1e-9)[:, None]


def rotation_matrix(angles: np.ndarray) -> np.ndarray:
    """R = Rx(pitch) Ry(yaw) Rz(roll), [3, 3]."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    pitch = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    roll = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return pitch @ yaw @ roll


def draw(person: Person, place: Place, expression: np.ndarray, pose: np.ndarray, size: int) -> np.ndarray:
    """[S, S, 3] linear light, before the camera (:func:`training.corpus.finish.develop`)."""
    vertices = person.vertices(expression, pose)
    shot = _Shot(person, place, vertices, size)
    rows, columns = np.divmod(np.arange(size * size), size)
    rows, columns = rows.astype(np.float32), columns.astype(np.float32)
    box = shot.box()
    inside = (columns >= box[0]) & (columns <= box[1]) & (rows >= box[2]) & (rows <= box[3])
    picture = place.background.reshape(-1, 3).copy()
    kind = np.full(size * size, _NOTHING, np.int16)
    depth = np.full(size * size, 30.0, np.float32)
    picture[inside], kind[inside], depth[inside] = shot.colours(rows[inside], columns[inside])
    edges = np.flatnonzero(_edges(kind.reshape(size, size), depth.reshape(size, size)).reshape(-1))
    if len(edges):
        sub_rows = (rows[edges, None] + _EDGE_OFFSETS[:, 0]).reshape(-1)
        sub_columns = (columns[edges, None] + _EDGE_OFFSETS[:, 1]).reshape(-1)
        colours, _, _ = shot.colours(sub_rows, sub_columns)
        picture[edges] = colours.reshape(-1, 4, 3).mean(1)
    return picture.reshape(size, size, 3)


def _edges(kind: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Pixels next to another material or a step in depth."""
    edge = np.zeros(kind.shape, bool)
    for axis in (0, 1):
        step = (np.diff(kind, axis=axis) != 0) | (np.abs(np.diff(depth, axis=axis)) > 0.08)
        first = [slice(None)] * 2
        second = [slice(None)] * 2
        first[axis], second[axis] = slice(None, -1), slice(1, None)
        edge[tuple(first)] |= step
        edge[tuple(second)] |= step
    return edge


class _Shot:
    """One instant in front of the camera."""

    def __init__(self, person: Person, place: Place, vertices: np.ndarray, size: int) -> None:
        try:
            from embreex import rtcore_scene
            from embreex.mesh_construction import TriangleMesh
        except ImportError as error:
            raise FD2TalkError("Drawing the corpus needs embreex: pip install embreex.") from error
        self.person, self.place, self.vertices, self.size = person, place, vertices, size
        self.camera = anatomy().model.camera
        # what is interpolated over triangles: the person's attributes and the normals
        self.values = np.concatenate([person.attributes, person.normals(vertices)], 1, dtype=np.float32)
        self.scene = rtcore_scene.EmbreeScene()
        self.mesh = TriangleMesh(self.scene, vertices, person.triangles)

    def box(self) -> tuple[float, float, float, float]:
        """Columns and rows between which the person is."""
        depth = self.camera.distance - self.vertices[:, 2]
        u = self.camera.focal * self.vertices[:, 0] / depth
        v = -self.camera.focal * self.vertices[:, 1] / depth
        half = self.size / 2
        return (
            u.min() * half + half - 2,
            u.max() * half + half + 2,
            v.min() * half + half - 2,
            v.max() * half + half + 2,
        )

    def colours(self, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Colour [N, 3], material [N] and depth [N] that rays through picture places see."""
        u = ((2 * columns + 1) / self.size - 1) / self.camera.focal
        v = ((2 * rows + 1) / self.size - 1) / self.camera.focal
        directions = np.stack([u, -v, -np.ones_like(u)], -1).astype(np.float32)
        row, column = (np.clip(np.rint(x), 0, self.size - 1).astype(np.int32) for x in (rows, columns))
        background = self.place.background.reshape(-1, 3).take(row * self.size + column, axis=0)
        colours = np.zeros((len(rows), 3), np.float32)
        kind = np.full(len(rows), _NOTHING, np.int16)
        depth = np.full(len(rows), 30.0, np.float32)
        passed = np.ones(len(rows), np.float32)
        starts, rays = np.zeros_like(directions), np.arange(len(rows))
        starts[:, 2] = self.camera.distance
        for layer in range(_LAYERS):
            hit, surface, colour, alpha, distance = self._first(starts, directions[rays])
            rest = np.setdiff1d(np.arange(len(rays)), hit, assume_unique=True)
            colours[rays[rest]] += passed[rays[rest], None] * background[rays[rest]]
            if not len(hit):
                break
            rays, starts = rays[hit], starts[hit]
            if layer == _LAYERS - 1:
                colour, alpha = colour / np.maximum(alpha, _PASSED)[:, None], np.ones_like(alpha)
            colours[rays] += passed[rays, None] * colour
            share = passed[rays] * alpha
            new = (kind[rays] == _NOTHING) & (share > 0.3)
            kind[rays[new]] = surface[new]
            depth[rays[new]] = self.camera.distance - starts[new, 2] + distance[new]
            passed[rays] -= share
            on = np.flatnonzero(passed[rays] > _PASSED)
            starts = starts[on] + directions[rays[on]] * (distance[on] + _BEYOND)[:, None]
            rays = rays[on]
        return colours, kind, depth

    def _first(self, starts: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, ...]:
        """What rays [N, 3] meet first: which do [n], its material [n], its colour times its alpha [n, 3], its
        alpha [n], its distance in lengths of the ray [n].
        """
        seen = self.scene.run(starts, directions, output=1)
        hit = np.flatnonzero(seen["primID"] >= 0)
        primitive = seen["primID"][hit]
        mixed = self._mixed(primitive, seen["u"][hit, None], seen["v"][hit, None])
        attributes, normals = mixed[:, :4], _unit(mixed[:, 4:])
        towards = directions.take(hit, axis=0)
        view = -_unit(towards)
        normals *= np.where(_dot(normals, view) < 0, np.float32(-1), np.float32(1))[:, None]
        material = self.person.materials[primitive]
        albedo, gloss, shine, alpha = _surface(self.person.look, material, attributes)
        points = towards * seen["tfar"][hit, None] + starts[hit]
        lit = self._light(points, normals, view, albedo, gloss * alpha, shine, material)
        # Little light gets far into the mouth.
        inner = (material >= MOUTH) & (material <= TONGUE)
        depth_in = smoothstep((attributes[:, 2] - 0.45) / 0.5)
        lit[inner] *= (0.12 + 0.88 * depth_in[inner])[:, None]
        return hit, material, lit, alpha, seen["tfar"][hit]

    def _mixed(self, primitive: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
        """[N, 7] attributes and normals at places in triangles."""
        corners = self.person.triangles.take(primitive, axis=0)
        mixed = (1 - b - c) * self.values.take(corners[:, 0], axis=0)
        mixed += b * self.values.take(corners[:, 1], axis=0)
        mixed += c * self.values.take(corners[:, 2], axis=0)
        return mixed

    def _shade(self, starts: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """[N] how much of a light's way to places something stands in, 0 to 1."""
        towards = np.broadcast_to(direction, starts.shape).astype(np.float32)
        if not self.person.transparent:
            return (self.scene.run(starts, towards, query="OCCLUDED") == 0).astype(np.float32)
        seen = self.scene.run(starts, towards, output=1)
        shade = (seen["primID"] >= 0).astype(np.float32)
        hit = np.flatnonzero(shade)
        thin = hit[self.person.materials[seen["primID"][hit]] == HAIR_PIECE]
        mixed = self._mixed(seen["primID"][thin], seen["u"][thin, None], seen["v"][thin, None])
        shade[thin] = _sample(self.person.look.hair.texture, mixed)[:, 3]
        return shade

    def _light(self, points, normals, view, albedo, gloss, shine, material) -> np.ndarray:
        place, look = self.place, self.person.look
        up = 0.5 + 0.5 * normals[:, 1:2]
        light = place.sky * up + place.ground * (1 - up)
        highlight = np.zeros_like(albedo)
        spread = np.where(material == SKIN, np.float32(look.wrap), np.float32(0.1))[:, None]
        wrap = spread * np.array([1.0, 0.6, 0.5], np.float32)
        for number, (direction, colour) in enumerate(zip(place.lights, place.colours, strict=True)):
            facing = normals @ direction
            diffuse = np.maximum((facing[:, None] + wrap) / (1 + wrap), 0)
            front = np.flatnonzero(facing > 0)
            halfway = _unit(view.take(front, axis=0) + direction)
            angle = np.clip(_dot(normals.take(front, axis=0), halfway), 0, 1)
            shining = np.zeros_like(facing)
            shining[front] = gloss.take(front) * angle ** shine.take(front)
            if number == 0 and place.shadow > 0:
                starts = points.take(front, axis=0) + np.float32(0.02) * normals.take(front, axis=0)
                open_share = 1 - np.float32(place.shadow) * self._shade(starts, direction)
                diffuse[front] *= open_share[:, None]
                shining[front] *= open_share
            light += diffuse * colour
            highlight += shining[:, None] * colour
        return albedo * light + highlight


def _bilinear(field: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """[N, C] samples of [rows, columns, C] at float places; columns wrap."""
    rows, columns = field.shape[:2]
    row = np.clip(row, 0, rows - 1.001)
    r, c = np.floor(row), np.floor(column)
    fr, fc = ((x - low).astype(np.float32)[:, None] for x, low in ((row, r), (column, c)))
    c = c.astype(np.int32)
    top_left = r.astype(np.int32) * columns
    c0, c1 = c % columns, (c + 1) % columns
    texels = field.reshape(rows * columns, -1)

    def across(start: np.ndarray) -> np.ndarray:
        left = texels.take(start + c0, axis=0)
        return left + (texels.take(start + c1, axis=0) - left) * fc

    top = across(top_left)
    return top + (across(top_left + columns) - top) * fr


def _surface(
    look: Look, material: np.ndarray, attributes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Albedo times alpha [N, 3], specular strength [N] and exponent [N], and alpha [N] of what rays hit."""
    alpha = np.ones(len(material), np.float32)
    albedo = np.zeros((len(material), 3), np.float32)
    gloss = np.full(len(material), 0.02, np.float32)
    shine = np.full(len(material), 12.0, np.float32)
    rest = attributes[:, :3]
    skin = np.flatnonzero(material == SKIN)
    row, column = map_coordinates(rest[skin])
    sample = _bilinear(look.skin_map, row, column)
    lips = (smoothstep((attributes[skin, 3] - 0.25) / 0.5) * look.lip_strength)[:, None]
    grain = sample[:, :3].mean(1, keepdims=True) / (look.mean_albedo + 1e-6)
    albedo[skin] = sample[:, :3] * (1 - lips) + look.lip_colour * np.clip(grain, 0.7, 1.3) * lips
    gloss[skin] = sample[:, 3] + 0.08 * lips[:, 0]
    shine[skin] = look.shine
    for number, eye in enumerate((LEFT_EYE, RIGHT_EYE)):
        of_eye = np.flatnonzero(material == eye)
        albedo[of_eye] = _eye(look, rest[of_eye] - anatomy().eye_centres[number])
        gloss[of_eye], shine[of_eye] = 0.9, 180.0
    albedo[material == MOUTH] = look.mouth
    gloss[material == MOUTH] = 0.05
    for teeth, gum_side in ((UPPER_TEETH, 1.0), (LOWER_TEETH, -1.0)):
        of_teeth = np.flatnonzero(material == teeth)
        x, y = rest[of_teeth, 0], rest[of_teeth, 1]
        edge = -0.19 if gum_side > 0 else -0.345
        gum = smoothstep(gum_side * (y - edge) / 0.02 + 0.3 * np.cos(x * 75))[:, None]
        sides = UPPER_SIDES if gum_side > 0 else LOWER_SIDES
        beside = np.abs(np.abs(x)[:, None] - np.array(sides, np.float32)).min(1)
        gaps = (1 - 0.35 * np.exp(-((beside / _GAP) ** 2)))[:, None]
        albedo[of_teeth] = look.teeth * gaps * (1 - gum) + look.gums * gum
        gloss[of_teeth], shine[of_teeth] = 0.25, 40.0
    albedo[material == TONGUE] = look.tongue
    gloss[material == TONGUE] = 0.12
    hair = np.flatnonzero(material == HAIR)
    albedo[hair] = _bilinear(
        look.hair_map,
        (1 - attributes[hair, 1]) * (MAP_SHAPE[0] - 1),
        attributes[hair, 0] * (MAP_SHAPE[1] - 1),
    )
    gloss[hair] = 0.04
    if look.glasses:
        albedo[material == GLASSES] = look.glasses["colour"]
        gloss[material == GLASSES], shine[material == GLASSES] = 0.4, 60.0
    cloth = np.flatnonzero(material == CLOTH)
    albedo[cloth] = _bilinear(look.cloth, (attributes[cloth, 1] * 48) % 62, attributes[cloth, 0] * 48)
    for worn, piece in ((HAIR_PIECE, look.hair), (GARMENT, look.clothes)):
        of_piece = np.flatnonzero(material == worn)
        if piece is not None and len(of_piece):
            texel = _sample(piece.texture, attributes[of_piece])
            albedo[of_piece], alpha[of_piece] = texel[:, :3], texel[:, 3]
            gloss[of_piece] = 0.03
    return albedo, gloss, shine, alpha


def _sample(texture: np.ndarray, surface: np.ndarray) -> np.ndarray:
    """[N, 4] of a worn piece's texture at its surface coordinates, ``[N, 2 or more]``."""
    rows, columns = texture.shape[:2]
    return _bilinear(texture, surface[:, 1] * rows - 0.5, surface[:, 0] * columns - 0.5)


def _eye(look: Look, offset: np.ndarray) -> np.ndarray:
    """Iris, pupil and white of the eye by the distance from the iris's middle on the mean head."""
    radius = np.hypot(offset[:, 0], offset[:, 1]) / (anatomy().iris_radius * look.iris_size)
    angle = np.arctan2(offset[:, 1], offset[:, 0])
    iris = _bilinear(look.iris, np.clip(radius, 0, 1) * 62, (angle / (2 * np.pi) + 0.5) * 255)
    iris *= smoothstep((radius - look.pupil) / 0.1)[:, None]
    white = look.sclera * (1 - 0.12 * np.clip(radius - 1, 0, 1.5))[:, None]
    rim = smoothstep((radius - 0.95) / 0.12)[:, None]
    front = (offset[:, 2] > -0.2)[:, None]
    # brow and lid stand over the eye
    light = 1 - _LID_SHADOW * smoothstep((offset[:, 1:2] / anatomy().iris_radius + 0.3) / 1.3)
    return np.where(front, iris * (1 - rim) + white * rim, white) * light


def _tensor(array: np.ndarray):
    import torch

    return torch.from_numpy(np.ascontiguousarray(array, np.float32))

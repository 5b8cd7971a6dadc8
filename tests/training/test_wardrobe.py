"""Hair and clothes on drawn heads, with a small package in place of the one that npm brings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("scipy")

from training.corpus import wardrobe
from training.corpus.appearance import anatomy, random_look

SCALE, SHIFT = 1.25, np.array([0.3, 6.0, -0.2])
"""From the mean head to the package's body."""


def three_js(vertices: np.ndarray, triangles: np.ndarray, texture: np.ndarray, **more: object) -> str:
    """three.js's JSON of triangles, each a quad with its last corner twice; texture ``[T, 3, 2]``."""
    corner = np.arange(3 * len(triangles)).reshape(-1, 3)
    faces = np.zeros((len(triangles), 10), int)
    faces[:, 0] = 11
    faces[:, 1:4], faces[:, 4] = triangles, triangles[:, 2]
    faces[:, 6:9], faces[:, 9] = corner, corner[:, 2]
    return json.dumps(
        {
            "vertices": vertices.reshape(-1).tolist(),
            "uvs": [texture.reshape(-1).tolist()],
            "faces": faces.reshape(-1).tolist(),
            "metadata": {},
            **more,
        }
    )


def curtain() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A square before the face: vertices on the mean head, triangles, texture coordinates by corner."""
    corners = np.array([[-0.9, -0.6], [0.9, -0.6], [0.9, 1.1], [-0.9, 1.1]])
    vertices = np.concatenate([corners, np.full((4, 1), 1.6)], 1)
    triangles = np.array([[0, 1, 2], [0, 2, 3]])
    return vertices, triangles, np.array([[0, 0], [1, 0], [1, 1], [0, 1]])[triangles]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The head itself as the body, and one half transparent red curtain as every piece."""
    folder = tmp_path_factory.mktemp("package")
    head = anatomy()
    body = head.mean * SCALE + SHIFT
    (folder / "models").mkdir()
    texture = head.model.uv.numpy().astype(float)
    (folder / "models/human_full_size.json").write_text(three_js(body, head.triangles, texture))
    vertices, triangles, surface = curtain()
    nose = int(head.mean[:, 2].argmax())
    hidden = np.zeros(len(body), int)
    hidden[nose] = 1
    piece = three_js(
        np.zeros_like(vertices),  # the package's own are of another body: its references count
        triangles,
        surface,
        ref_vIdxs=[[nose] * 3] * 4,
        weights=[[0.5, 0.25, 0.25]] * 4,
        offsets=((vertices * SCALE + SHIFT) - body[nose]).tolist(),
        metadata={"deleteVerts": hidden.tolist()},
    )
    red = np.zeros((64, 64, 4), np.uint8)
    red[..., 0], red[..., 3] = 255, 128
    for name in wardrobe._files():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(red).save(path) if path.suffix == ".png" else path.write_text(piece)
    caches = (wardrobe._body, wardrobe.hairstyle, wardrobe.garment)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wardrobe, "FOLDER", folder)
        for cache in caches:
            cache.cache_clear()
        yield folder
    for cache in caches:
        cache.cache_clear()


def test_a_piece_lies_where_its_references_say(package: Path) -> None:
    piece = wardrobe.hairstyle("bob01")
    vertices, _, _ = curtain()
    # a vertex for each corner's own place in the texture, so some twice
    distance = np.linalg.norm(piece.vertices[:, None] - vertices, axis=-1)
    assert distance.min(0).max() < 0.01 and distance.min(1).max() < 0.01
    assert piece.hidden.sum() == 1 and piece.hidden[anatomy().mean[:, 2].argmax()]
    assert piece.weights.sum(1) == pytest.approx(1, abs=1e-5)


def test_a_piece_follows_the_head_that_wears_it(package: Path) -> None:
    piece = wardrobe.hairstyle("bob01")
    assert piece.on(anatomy().mean) == pytest.approx(piece.vertices, abs=1e-6)
    taller = piece.on(anatomy().mean + np.array([0, 0.2, 0]))
    assert taller - piece.vertices == pytest.approx(np.tile([0, 0.2, 0], (len(taller), 1)), abs=1e-5)


def test_mirrored_and_combed(package: Path) -> None:
    piece = wardrobe.hairstyle("bob01")
    mirrored = piece.mirrored()
    assert mirrored.vertices[:, 0] == pytest.approx(-piece.vertices[:, 0])
    assert mirrored.vertices[:, 1:] == pytest.approx(piece.vertices[:, 1:])
    combed = piece.combed(np.random.default_rng(1))
    moved = np.linalg.norm(combed.vertices - piece.vertices, axis=1)
    assert moved.max() > 0.01 and moved.max() < 0.4


def test_a_tint_keeps_light_and_dark(package: Path) -> None:
    texture = np.ones((8, 8, 4), np.float32)
    texture[:4, :, :3], texture[4:, :, :3] = 0.2, 0.6
    piece = replace(wardrobe.hairstyle("bob01"), texture=texture)
    tinted = piece.coloured(np.array([0.4, 0.1, 0.0]), 1.0).texture
    assert tinted[0, 0, :3] == pytest.approx([0.2, 0.05, 0.0], abs=0.01)
    assert tinted[7, 0, :3] == pytest.approx([0.6, 0.15, 0.0], abs=0.01)
    assert piece.coloured(np.array([0.4, 0.1, 0.0]), 0.0).texture == pytest.approx(texture)


def test_what_is_half_transparent_shows_the_face_behind_it(package: Path) -> None:
    pytest.importorskip("embreex")
    from training.corpus.render import Person, draw
    from training.corpus.scenery import random_place

    rng = np.random.default_rng(4)
    even = np.ones(3, np.float32)
    place = replace(
        random_place(96, rng),
        background=np.full((96, 96, 3), 0.5, np.float32),
        lights=np.zeros((0, 3)),
        colours=np.zeros((0, 3)),
        sky=even,
        ground=even,
    )
    look = replace(random_look(rng), glasses=None, long_hair=None)
    still = np.zeros(52, np.float32), np.zeros(6, np.float32)
    identity = np.zeros(80, np.float32)
    bare = draw(Person(look, identity), place, *still, 96)
    hair = wardrobe.hairstyle("bob01")
    behind = draw(Person(replace(look, hair=hair), identity), place, *still, 96)
    middle = (slice(40, 56), slice(40, 56))
    red = hair.texture[32, 32]
    expected = red[:3] + (1 - red[3]) * bare[middle]
    assert np.abs(behind[middle] - expected).mean() < 0.02
    assert np.abs(behind[:6] - bare[:6]).max() < 1e-6  # above the curtain


def test_dressed_people_wear_what_others_do_not(package: Path) -> None:
    looks = [random_look(np.random.default_rng(n), wardrobe.Wardrobe()) for n in range(12)]
    assert sum(look.hair is not None for look in looks) >= 6
    assert sum(look.clothes is not None for look in looks) >= 6
    assert all(look.hair is None or look.long_hair is None for look in looks)
    assert random_look(np.random.default_rng(0)).hair is None

"""The animated GLB, read back by an independent reader, is the face model in motion."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.model import default_face_model
from fd2talk_core.face.names import ARKIT_NAMES
from fd2talk_core.face.skinning import pose_on_body
from fd2talk_core.formats.gltf import METRES, write_glb
from fd2talk_core.motion.coefficients import CoefficientSequence
from fd2talk_core.motion.editing import idle_motion

FPS = 30.0
FRAMES = 40
TYPES = {5121: np.uint8, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}


def face() -> CoefficientSequence:
    values = torch.rand(FRAMES, 52, generator=torch.Generator().manual_seed(1))
    return CoefficientSequence("expression", values, FPS, default_face_model().name, ARKIT_NAMES)


def head() -> CoefficientSequence:
    return idle_motion(FRAMES, FPS, seed=2, amount=8, speed=10)


class Glb:
    """As much of a glTF reader as the file needs; numpy and the specification, nothing of ours."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        magic, version, length = struct.unpack_from("<4sII", data)
        assert (magic, version, length) == (b"glTF", 2, len(data))
        size, kind = struct.unpack_from("<I4s", data, 12)
        assert kind == b"JSON" and size % 4 == 0
        self.content = json.loads(data[20 : 20 + size])
        binary, kind = struct.unpack_from("<I4s", data, 20 + size)
        assert kind == b"BIN\0" and 28 + size + binary == len(data)
        self.binary = data[28 + size :]

    def view(self, number: int, kind: int) -> np.ndarray:
        view = self.content["bufferViews"][number]
        assert view["byteOffset"] % 4 == 0
        piece = self.binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
        return np.frombuffer(piece, TYPES[kind])

    def accessor(self, number: int) -> np.ndarray:
        entry = self.content["accessors"][number]
        shape = (entry["count"], WIDTHS[entry["type"]])
        if "bufferView" in entry:
            values = self.view(entry["bufferView"], entry["componentType"]).reshape(shape).copy()
        else:
            values = np.zeros(shape, TYPES[entry["componentType"]])
        if sparse := entry.get("sparse"):
            rows = self.view(sparse["indices"]["bufferView"], sparse["indices"]["componentType"])
            assert len(rows) == sparse["count"] and (np.diff(rows.astype(int)) > 0).all()
            values[rows] = self.view(sparse["values"]["bufferView"], entry["componentType"]).reshape(
                -1, shape[1]
            )
        if "min" in entry:
            np.testing.assert_allclose(values.min(0), entry["min"], rtol=1e-6)
            np.testing.assert_allclose(values.max(0), entry["max"], rtol=1e-6)
        return values

    def sampled(self, path: str, time: float) -> np.ndarray | None:
        """An animated property at a time, between the keys as the specification's LINEAR has it."""
        (animation,) = self.content["animations"]
        for channel in animation["channels"]:
            if channel["target"]["path"] == path:
                sampler = animation["samplers"][channel["sampler"]]
                times = self.accessor(sampler["input"])[:, 0]
                values = self.accessor(sampler["output"]).reshape(len(times), -1)
                left = min(int(np.searchsorted(times, time, side="right")) - 1, len(times) - 2)
                share = (time - times[left]) / (times[left + 1] - times[left])
                return values[left] * (1 - share) + values[left + 1] * share
        return None

    def vertices(self, time: float) -> np.ndarray:
        """Morph targets, then the skin, as the specification orders them."""
        (mesh,) = self.content["meshes"]
        (primitive,) = mesh["primitives"]
        places = self.accessor(primitive["attributes"]["POSITION"]).astype(np.float64)
        weights = self.sampled("weights", time)
        for target, weight in zip(primitive["targets"], weights if weights is not None else [], strict=False):
            places = places + weight * self.accessor(target["POSITION"])
        x, y, z, w = (
            turn / np.linalg.norm(turn)
            if (turn := self.sampled("rotation", time)) is not None
            else (0, 0, 0, 1)
        )
        rotation = np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
            ]
        )
        shift = self.sampled("translation", time)
        moved = places @ rotation.T + (0 if shift is None else shift)
        joints = self.accessor(primitive["attributes"]["JOINTS_0"])
        shares = self.accessor(primitive["attributes"]["WEIGHTS_0"])
        np.testing.assert_allclose(shares.sum(1), 1, atol=1e-6)
        names = [self.content["nodes"][node]["name"] for node in self.content["skins"][0]["joints"]]
        share = np.where(joints == names.index("head"), shares, 0).sum(1, keepdims=True)
        return places + share * (moved - places)


def truth(expression: torch.Tensor, pose: torch.Tensor, identity: torch.Tensor) -> np.ndarray:
    model = default_face_model()
    shape = model(identity[None], expression[None])
    return pose_on_body(model, shape, pose[None], torch.zeros(1, 6))[0].numpy()


@pytest.mark.parametrize("given", ["both", "expression", "pose"])
def test_the_file_has_the_face_models_vertices_at_sampled_times(tmp_path: Path, given: str) -> None:
    expression, pose = (face() if given != "pose" else None), (head() if given != "expression" else None)
    identity = torch.randn(default_face_model().identity_dim, generator=torch.Generator().manual_seed(3))
    write_glb(tmp_path / "motion.glb", default_face_model(), expression, pose, identity=identity)
    file = Glb(tmp_path / "motion.glb")
    count = default_face_model().num_vertices
    for frame in (0, 7, 16, 25, FRAMES - 1):
        expected = truth(
            expression.values[frame] if expression else torch.zeros(52),
            pose.values[frame] if pose else torch.zeros(6),
            identity,
        )
        found = file.vertices(frame / FPS)[:count] / METRES
        assert np.abs(found - expected).max() < 1e-4, frame
    assert (file.sampled("weights", 0) is None) == (given == "pose")
    assert (file.sampled("rotation", 0) is None) == (given == "expression")


def test_trimesh_opens_it_with_the_same_head_and_the_colours_of_its_parts(tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    write_glb(tmp_path / "motion.glb", default_face_model(), face(), head())
    scene = trimesh.load(tmp_path / "motion.glb", process=False)
    (mesh,) = scene.geometry.values()
    model = default_face_model()
    vertices = np.asarray(mesh.vertices) / METRES
    np.testing.assert_allclose(vertices[: model.num_vertices], model.mean.numpy(), atol=1e-5)
    # copies for colour change no corner's place
    np.testing.assert_allclose(vertices[mesh.faces], model.mean.numpy()[model.triangles.numpy()], atol=1e-5)
    assert {"head", "shoulders"} <= set(scene.graph.nodes)
    file = Glb(tmp_path / "motion.glb")
    colors = file.accessor(file.content["meshes"][0]["primitives"][0]["attributes"]["COLOR_0"])
    corners = colors[mesh.faces].astype(int)
    assert (corners == corners[:, :1]).all(), "every triangle has one colour"
    assert len(np.unique(colors, axis=0)) > 5


def test_targets_are_named_and_turn_the_normals_with_the_surface(tmp_path: Path) -> None:
    write_glb(tmp_path / "motion.glb", default_face_model(), face(), None)
    file = Glb(tmp_path / "motion.glb")
    (mesh,) = file.content["meshes"]
    assert mesh["extras"]["targetNames"] == list(ARKIT_NAMES) and len(mesh["primitives"][0]["targets"]) == 52
    primitive = mesh["primitives"][0]
    corners = file.accessor(primitive["indices"])[:, 0].reshape(-1, 3)
    target = primitive["targets"][ARKIT_NAMES.index("jawOpen")]
    for weight in (0.0, 1.0):
        places = file.accessor(primitive["attributes"]["POSITION"]) + weight * file.accessor(
            target["POSITION"]
        )
        normals = file.accessor(primitive["attributes"]["NORMAL"]) + weight * file.accessor(target["NORMAL"])
        np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=2e-3)
        one, two, three = (places[corners[:, index]] for index in range(3))
        facing = np.cross(two - one, three - one)
        facing /= np.linalg.norm(facing, axis=1, keepdims=True) + 1e-12
        agreement = (facing[:, None] * normals[corners]).sum(-1).mean(1)
        assert np.median(agreement) > 0.98, "outward, as the triangles are wound"


def test_a_long_clip_adds_only_its_numbers(tmp_path: Path) -> None:
    write_glb(tmp_path / "short.glb", default_face_model(), face(), head())
    longer = [sequence.replace(values=sequence.values.repeat(10, 1)) for sequence in (face(), head())]
    write_glb(tmp_path / "long.glb", default_face_model(), *longer)
    more = (tmp_path / "long.glb").stat().st_size - (tmp_path / "short.glb").stat().st_size
    assert more == pytest.approx(9 * FRAMES * (52 + 7 + 1) * 4, rel=0.01)
    assert (tmp_path / "short.glb").stat().st_size < 4e6


def test_neighbouring_turns_are_on_one_side(tmp_path: Path) -> None:
    yaw = torch.zeros(FRAMES, 6)
    yaw[:, 1] = torch.linspace(0, 8, FRAMES)  # more than a whole turn
    write_glb(tmp_path / "turn.glb", default_face_model(), None, head().replace(values=yaw))
    file = Glb(tmp_path / "turn.glb")
    turns = np.stack([file.sampled("rotation", frame / FPS) for frame in range(FRAMES)])
    assert ((turns[1:] * turns[:-1]).sum(1) > 0.9).all()


def test_motion_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FD2TalkError, match="40 frames at 30 fps and the pose 20"):
        write_glb(tmp_path / "no.glb", default_face_model(), face(), idle_motion(20, FPS))
    assert not (tmp_path / "no.glb").exists()

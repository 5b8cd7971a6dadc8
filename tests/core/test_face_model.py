"""Eq. 1, the pose's conventions, the camera, and the face model's file."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.model import SHIPPED_FILE, Camera, FaceModel, apply_pose, default_face_model, project
from fd2talk_core.face.names import ARKIT_NAMES
from fd2talk_core.face.rotations import euler_angles, rotation_matrix
from training.brows import with_human_brows


def shape(**weights: float) -> torch.Tensor:
    """The mean head with some ARKit shapes, ``[V, 3]``."""
    expression = torch.zeros(1, 52)
    for name, weight in weights.items():
        expression[0, ARKIT_NAMES.index(name)] = weight
    model = default_face_model()
    return model(torch.zeros(1, model.identity_dim), expression)[0]


def test_equation_1_is_the_sum_written_out() -> None:
    model = default_face_model()
    identity, expression = torch.randn(2, 80), torch.rand(2, 52)
    mean, id_basis, exp_basis = (
        getattr(model, name).double().numpy() for name in ("mean", "identity_basis", "expression_basis")
    )
    for row in range(2):
        expected = mean.copy()
        for k in range(80):
            expected += float(identity[row, k]) * id_basis[k]
        for k in range(52):
            expected += float(expression[row, k]) * exp_basis[k]
        assert np.abs(model(identity, expression)[row].numpy() - expected).max() < 1e-4
        mouth = model.mouth_vertices_of(identity, expression)[row]
        torch.testing.assert_close(mouth, model(identity, expression)[row][model.mouth_vertices])


angle = st.floats(-1.5, 1.5)


@settings(max_examples=100, deadline=None)
@given(pitch=angle, yaw=st.floats(-1.45, 1.45), roll=angle)
def test_rotations_are_intrinsic_x_y_z_and_invert(pitch: float, yaw: float, roll: float) -> None:
    def about(axis: int, by: float) -> np.ndarray:
        i, j = [(1, 2), (2, 0), (0, 1)][axis]
        matrix = np.eye(3)
        matrix[i, i] = matrix[j, j] = math.cos(by)
        matrix[i, j], matrix[j, i] = -math.sin(by), math.sin(by)
        return matrix

    angles = torch.tensor([pitch, yaw, roll], dtype=torch.float64)
    matrix = rotation_matrix(angles)
    assert np.allclose(matrix.numpy(), about(0, pitch) @ about(1, yaw) @ about(2, roll), atol=1e-12)
    assert torch.allclose(euler_angles(matrix), angles, atol=1e-6)


def test_signs_of_the_pose() -> None:
    nose = torch.tensor([[[0.0, 0.0, 1.0]]])
    nod, turn = (
        apply_pose(nose, torch.tensor([[0.3, 0, 0, 0, 0, 0]])),
        apply_pose(nose, torch.tensor([[0, 0.3, 0, 0, 0, 0.0]])),
    )
    assert nod[0, 0, 1] < 0 and turn[0, 0, 0] > 0
    seen = project(torch.tensor([[0.9, 0.9, 0.0]]), Camera(focal=12 / 1.8, distance=12))[0]
    torch.testing.assert_close(seen, torch.tensor([0.5, -0.5, 12.0]))


def test_the_head_is_a_head() -> None:
    """Names in ARKit's order; the frame is filled; jaw, lids and lips do what their names say."""
    model = default_face_model()
    assert model.expression_names == ARKIT_NAMES and SHIPPED_FILE.stat().st_size < 4_000_000
    head = shape()
    skin = head[model.triangles[model.triangle_parts == model.part_names.index("scalp")]].reshape(-1, 3)
    assert 1.0 < skin[:, 1].max() < 1.8
    opening = {
        name: float(model.mouth_opening(shape(**{name: 1.0})[None])) for name in ("jawOpen", "mouthPucker")
    }
    closed = float(model.mouth_opening(head[None]))
    assert opening["jawOpen"] > closed + 0.15 and closed < 0.1
    assert float(model.mouth_opening(shape(jawOpen=1.0, mouthClose=1.0)[None])) < closed + 0.1
    teeth = torch.unique(model.triangles[model.triangle_parts == model.part_names.index("lower_teeth")])
    assert (shape(jawOpen=1.0) - head)[teeth, 1].max() < -0.05
    iris = torch.unique(model.triangles[model.triangle_parts == model.part_names.index("left_iris")])
    assert (shape(eyeLookUpLeft=1.0) - head)[iris, 1].mean() > 0.01
    assert (shape(eyeLookOutLeft=1.0) - head)[iris, 0].mean() > 0.01


def test_a_blink_closes_the_eye() -> None:
    """With the lids down no ray from the viewer reaches the iris."""
    from fd2talk_core.face.rasterizer import rasterize

    model = default_face_model()
    iris = torch.tensor([model.part_names.index(f"left_{part}") for part in ("eye", "iris", "pupil")])

    def seen(head: torch.Tensor) -> int:
        raster = rasterize(project(head[None], model.camera), model.triangles, 256)
        return int((torch.isin(model.triangle_parts[raster.triangle], iris) & raster.covered).sum())

    assert seen(shape(eyeBlinkLeft=1.0)) <= 0.15 * seen(shape())


def test_a_jaw_that_opens_shows_upper_teeth_above_the_tongue() -> None:
    """2 to 3 mm of teeth below the upper lip, and not the tongue alone below these."""
    from fd2talk_core.face.rasterizer import rasterize

    model = default_face_model()
    people = torch.randn(12, model.identity_dim, generator=torch.Generator().manual_seed(0))
    expression = torch.zeros(12, 52)
    expression[:, ARKIT_NAMES.index("jawOpen")] = 0.4
    size, column = 512, slice(250, 262)
    places = project(apply_pose(model(people, expression), torch.zeros(12, 6)), model.camera)
    raster = rasterize(places, model.triangles, size, cull_back_faces=True)
    parts = torch.where(raster.covered, model.triangle_parts[raster.triangle.clamp_min(0)].long(), -1)
    height = {
        name: (parts == model.part_names.index(name))[:, :, column].sum(dim=1).float().mean(dim=1)
        for name in ("upper_teeth", "mouth_interior", "tongue", "lower_teeth")
    }
    in_mouth = project(torch.tensor([[[0.0, 0.0, 1.0], [0.0, 0.1, 1.0]]]), model.camera)
    pixels_of_a_millimetre = float((in_mouth[0, 0, 1] - in_mouth[0, 1, 1]).abs()) * size / 2 / 10
    shown = height["upper_teeth"] / pixels_of_a_millimetre
    assert 2 < shown.mean() < 3 and shown.min() > 1
    inside = sum(height.values())
    assert (height["tongue"] / inside).mean() < 0.7


BROW, CREASE, LID, FOREHEAD = (66, 105, 63, 296, 334, 293), (27, 28, 257, 258), (159, 386), (10, 109, 338)
"""MediaPipe's landmarks."""


def test_brows_rise_as_people_s_do_and_leave_the_lids() -> None:
    model = default_face_model()
    rest = model.landmarks(shape()[None])[0]

    def rise(*places: int, **weights: float) -> torch.Tensor:
        return (model.landmarks(shape(**weights)[None])[0] - rest)[list(places), 1]

    raised = {"browInnerUp": 1.0, "browOuterUpLeft": 1.0, "browOuterUpRight": 1.0}
    brow = rise(*BROW, **raised)
    assert brow.min() > 0.06 and brow.max() < 0.11  # 6 to 11 mm; MakeHuman's rise by 2
    assert rise(*CREASE, **raised).max() < 0.2 * brow.mean(), "a lid's crease stays"
    assert rise(*LID, **raised).abs().max() < 0.002
    assert 0 < rise(*FOREHEAD, **raised).mean() < 0.5 * brow.mean()
    left, right = rise(334, browOuterUpLeft=1.0), rise(105, browOuterUpLeft=1.0)
    assert left > 0.06 and right.abs() < 0.002, "each brow by itself"
    assert rise(107, browInnerUp=1.0) > 4 * rise(63, browInnerUp=1.0).abs(), "a worried look"
    frown = {"browDownLeft": 1.0, "browDownRight": 1.0}
    assert rise(*BROW, **frown).max() < -0.02
    inner = (model.landmarks(shape(**frown)[None])[0] - rest)[[107, 336], 0]
    assert inner[0] > 0.004 and inner[1] < -0.004, "and towards each other"


def test_the_brows_that_ship_are_those_that_training_makes() -> None:
    model = default_face_model()
    again = with_human_brows(model).expression_basis
    assert torch.allclose(again, model.expression_basis, atol=1e-4)


UPPER_RIM = (191, 80, 81, 82, 13, 312, 311, 310, 415)
LOWER_RIM = (95, 88, 178, 87, 14, 317, 402, 318, 324)
ARCH = (0.41, 0.67, 0.86, 0.97, 1.0, 0.97, 0.86, 0.67, 0.41)
"""How far lips part along their rims by how far in the middle, in films of three people."""


def gaps(**weights: float) -> torch.Tensor:
    """By how much more lips are apart than at rest."""
    model = default_face_model()
    moved = model.landmarks(torch.stack([shape(), shape(**weights)]))[..., 1]
    rest, now = (moved[:, list(UPPER_RIM)] - moved[:, list(LOWER_RIM)]).unbind()
    return now - rest


@pytest.mark.parametrize(("name", "off"), [("jawOpen", 0.1), ("mouthFunnel", 0.2)])
def test_lips_part_in_an_arch_and_not_to_a_point(name: str, off: float) -> None:
    opening = gaps(**{name: 1.0})
    assert (opening / opening[4] - torch.tensor(ARCH)).abs().max() < off  # MakeHuman's: 0.17, 0.8


def test_lips_of_an_open_jaw_can_be_shut_from_corner_to_corner() -> None:
    opening, shut = gaps(jawOpen=1.0), gaps(jawOpen=1.0, mouthClose=0.9)
    assert opening.min() > 0.1 and (shut / opening).max() < 0.1


def test_lower_teeth_stay_behind_the_lip_before_them() -> None:
    model = default_face_model()
    teeth = model.triangles[model.triangle_parts == model.part_names.index("lower_teeth")].unique()
    front = teeth[model.mean[teeth, 2] > 0.88]
    drop = (shape() - shape(jawOpen=1.0))[front, 1].mean()
    rest, opened = model.landmarks(torch.stack([shape(), shape(jawOpen=1.0)]))[:, LOWER_RIM[4], 1]
    assert 0.85 < drop / (rest - opened) < 0.95  # MakeHuman's 0.73


def test_landmarks_of_the_lips_move_with_their_own_lip() -> None:
    model = default_face_model()
    moved = model.landmarks(torch.stack([shape(), shape(jawOpen=1.0)]))
    drop = (moved[0] - moved[1])[:, 1]
    assert drop[[14, 87, 317, 178, 402, 88, 318]].min() > 0.2, "the lower lip's inner rim"
    assert drop[[13, 82, 312, 81, 311, 80, 310]].max() < 0.06, "the upper lip's"


def rewrite(path: Path, change) -> Path:
    tensors, header = load_file(SHIPPED_FILE), default_face_model().header()
    change(tensors, header)
    save_file(tensors, path, header)
    return path


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t, h: t.pop("mean"), "missing .'mean'."),
        (lambda t, h: t.update(stranger=torch.zeros(1)), "unexpected .'stranger'."),
        (lambda t, h: h.pop("face_model"), "not a face model"),
        (lambda t, h: h.update(face_model="{}"), "broken face model header"),
        (lambda t, h: h.update(face_model=json.dumps([1])), "broken face model header"),
        (lambda t, h: t.update(mean=t["mean"][:5].clone()), "do not fit each other"),
        (lambda t, h: t.update(mean=t["mean"] * math.nan), "not numbers"),
        (lambda t, h: t.update(expression_vertices=t["expression_vertices"] + 9999), "expression tensors"),
        (lambda t, h: t.update(expression_counts=t["expression_counts"] + 1), "expression tensors"),
    ],
)
def test_bad_files_are_told(tmp_path: Path, change, sentence: str) -> None:
    with pytest.raises(FD2TalkError, match="face.safetensors.*" + sentence):
        FaceModel.load(rewrite(tmp_path / "face.safetensors", change))


def test_truncated_and_missing_files_are_told(tmp_path: Path) -> None:
    path = tmp_path / "face.safetensors"
    with pytest.raises(FD2TalkError, match="no face model file"):
        FaceModel.load(path)
    path.write_bytes(SHIPPED_FILE.read_bytes()[:10_000])
    with pytest.raises(FD2TalkError, match="not a readable"):
        FaceModel.load(path)

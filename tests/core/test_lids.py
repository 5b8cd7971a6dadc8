"""Lids that stop where they meet."""

from __future__ import annotations

from copy import copy

import pytest
import torch
from torch import Tensor

from fd2talk_core.face.lids import LOWER_RIMS, OVERLAP, UPPER_RIMS, portrait_shape, shut_lids, stop_lids
from fd2talk_core.face.model import FaceModel, default_face_model
from fd2talk_core.face.names import ARKIT_NAMES
from fd2talk_core.face.state import FaceState


@pytest.fixture(scope="module")
def face() -> FaceModel:
    return default_face_model()


def shapes(face: FaceModel, identities: Tensor, **coefficients: float) -> Tensor:
    expression = torch.zeros(len(identities), len(ARKIT_NAMES))
    for name, value in coefficients.items():
        expression[:, ARKIT_NAMES.index(name)] = value
    return face(identities, expression)


def gaps(face: FaceModel, shapes: Tensor, side: int) -> Tensor:
    """``[B, J]``: how far each point of the upper rim lies over the line between the lower rim's points."""
    points = face.landmarks(shapes)
    rows = []
    for one in points:
        upper, lower = one[list(UPPER_RIMS[side])], one[list(LOWER_RIMS[side])]
        lower = lower[lower[:, 0].argsort()]
        after = torch.searchsorted(lower[:, 0].contiguous(), upper[:, 0].contiguous()).clamp(
            1, len(lower) - 1
        )
        left, right = lower[after - 1], lower[after]
        share = (upper[:, 0] - left[:, 0]) / (right[:, 0] - left[:, 0])
        rows.append(upper[:, 1] - torch.lerp(left[:, 1], right[:, 1], share))
    return torch.stack(rows)


@pytest.mark.parametrize("blink", [0.6, 1.0])
def test_lids_of_any_person_meet_and_go_no_further(face: FaceModel, blink: float) -> None:
    people = torch.randn(8, face.identity_dim, generator=torch.Generator().manual_seed(0))
    free = shapes(face, people, eyeBlinkRight=blink, eyeBlinkLeft=blink)
    met = stop_lids(face, free)
    for side in (0, 1):
        before, after = gaps(face, free, side), gaps(face, met, side)
        assert before.amin() < -OVERLAP - 0.01, "otherwise nothing is tested"
        assert after.amin() > -OVERLAP - 0.01
        apart = before > 0.01
        assert torch.allclose(after[apart], before[apart], atol=0.006), "what is open stays as it is"
        if blink == 1:
            assert after.amax() < 0.012, "and a whole blink shuts the eye"


def test_open_eyes_are_left_alone(face: FaceModel) -> None:
    looking = shapes(face, torch.zeros(1, face.identity_dim), eyeBlinkLeft=0.2, jawOpen=0.5, eyeWideRight=0.4)
    assert torch.equal(stop_lids(face, looking), looking)


def test_one_lid_moves_no_other(face: FaceModel) -> None:
    winking = shapes(face, torch.zeros(1, face.identity_dim), eyeBlinkLeft=1.0)
    moved = (stop_lids(face, winking) != winking).any(dim=-1)[0]
    assert moved.any() and (face.mean[moved, 0] > 0).all()


def test_a_face_model_without_arkit_s_names_is_left_alone(face: FaceModel) -> None:
    other = copy(face)
    other.expression_names = ()
    shut = shapes(face, torch.zeros(1, face.identity_dim), eyeBlinkLeft=1.0)
    assert torch.equal(stop_lids(other, shut), shut)


def test_a_portrait_s_shape_is_computed_once_and_is_the_same(face: FaceModel) -> None:
    values = torch.rand(len(ARKIT_NAMES), generator=torch.Generator().manual_seed(0))
    portrait = FaceState(torch.ones(face.identity_dim), values, torch.zeros(6), face.name)
    with torch.inference_mode():
        shape = portrait_shape(face, portrait)
    assert portrait_shape(face, portrait) is shape and not shape.is_inference()
    assert torch.equal(shape, stop_lids(face, face(portrait.identity[None], values[None])))
    other = FaceState(-portrait.identity, values, portrait.pose, face.name)
    assert not torch.equal(portrait_shape(face, other), shape)


def test_a_blink_that_moves_nothing_breaks_nothing(face: FaceModel) -> None:
    other = FaceModel(
        {name: value.clone() for name, value in face.named_buffers()},
        name="still lids",
        expression_names=face.expression_names,
        part_names=face.part_names,
        camera=face.camera,
    )
    other.expression_basis[ARKIT_NAMES.index("eyeBlinkLeft")] = 0
    shut = shapes(other, torch.zeros(1, face.identity_dim), eyeBlinkLeft=1.0, eyeBlinkRight=1.0)
    assert torch.isfinite(stop_lids(other, shut)).all()


def test_lids_are_shut_as_far_as_is_asked(face: FaceModel) -> None:
    person = torch.randn(face.identity_dim, generator=torch.Generator().manual_seed(2))
    expression = torch.zeros(3, len(ARKIT_NAMES))
    expression[:, ARKIT_NAMES.index("eyeWideLeft")] = 0.5
    expression[:, ARKIT_NAMES.index("jawOpen")] = 0.3
    closed = torch.tensor([[0.0, 0.0], [0.5, 0.0], [1.0, 1.0]])
    found = shut_lids(face, person, expression, closed)
    assert torch.equal(found[0], expression[0])
    right, left = (gaps(face, face(person[None], found), side)[:, 3] for side in (0, 1))
    assert right[1] == pytest.approx(float(right[0]) / 2, abs=0.006)
    assert left[1] == pytest.approx(float(left[0]))
    assert right[2].abs() < 0.006 and left[2].abs() < 0.006
    others = [i for i, name in enumerate(ARKIT_NAMES) if not name.startswith(("eyeBlink", "eyeWide"))]
    assert torch.equal(found[:, others], expression[:, others])
    assert torch.equal(shut_lids(face, person, found, 0 * closed), found), "nothing is opened"

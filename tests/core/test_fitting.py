"""Fitting returns the head that the landmarks were made from."""

from __future__ import annotations

import math

import pytest
import torch

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.fitting import BROWS, fit_landmarks
from fd2talk_core.face.model import apply_pose, default_face_model, project
from fd2talk_core.face.names import ARKIT_NAMES

JAW = ARKIT_NAMES.index("jawOpen")


def people(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random α, β, p and their landmarks with half a pixel of noise at 256 px."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    model = default_face_model()
    identity = draw(count, 80)
    expression = torch.rand(count, 52, generator=generator) * 0.3 * (draw(count, 52) > 0.7)
    expression[:, JAW] = torch.rand(count, generator=generator)
    pose = torch.cat([draw(count, 3) * torch.tensor([0.2, 0.35, 0.15]), draw(count, 3) * 0.1], dim=1)
    points = project(model.landmarks(apply_pose(model(identity, expression), pose)), model.camera)[..., :2]
    return identity, expression, pose, points + draw(*points.shape) * 0.5 / 128


def test_pose_and_jaw_of_strangers_are_found() -> None:
    _, expression, pose, points = people(12, seed=1)
    # a landmarker's scores are about right, as a fit in use has them
    scores = (
        expression + 0.1 * torch.randn(expression.shape, generator=torch.Generator().manual_seed(2))
    ).clamp(0, 1)
    fits = [fit_landmarks(points[i : i + 1], default_face_model(), scores[i : i + 1]) for i in range(12)]
    angles = torch.cat([fit.pose for fit in fits])[:, :3] - pose[:, :3]
    jaw = torch.cat([fit.expression for fit in fits])[:, JAW] - expression[:, JAW]
    print(
        f"mean angle error {angles.abs().rad2deg().mean(0).tolist()} degrees, mean jaw {jaw.abs().mean():.3f}"
    )
    assert angles.abs().max() < math.radians(2)
    assert jaw.abs().max() < 0.1


def test_a_video_shares_one_identity() -> None:
    identity, _, pose, _ = people(1, seed=3)
    model = default_face_model()
    frames = 20
    expression = torch.zeros(frames, 52)
    expression[:, JAW] = torch.linspace(0, 1, frames)
    poses = pose.expand(frames, -1).clone()
    poses[:, 1] = torch.linspace(-0.4, 0.4, frames)
    points = project(model.landmarks(apply_pose(model(identity, expression), poses)), model.camera)
    fit = fit_landmarks(points, model)
    assert fit.identity.shape == (80,) and fit.expression.shape == (frames, 52)
    assert (fit.pose[:, :3] - poses[:, :3]).abs().max() < math.radians(2)
    assert (fit.expression[:, JAW] - expression[:, JAW]).abs().max() < 0.1
    known = fit_landmarks(points, model, identity=identity[0])
    assert known.error.max() < 0.005


def test_expression_stays_in_range() -> None:
    *_, points = people(4, seed=5)
    fit = fit_landmarks(points * 1.1, default_face_model())
    assert fit.expression.min() >= 0 and fit.expression.max() <= 1


def test_frames_are_fitted_each_by_itself() -> None:
    """A long video goes through in parts, with what each frame alone would get."""
    identity, *_, points = people(1, seed=7)
    moved = points + 0.01 * torch.randn(70, 1, 1, generator=torch.Generator().manual_seed(8))
    scores = torch.rand(70, 52, generator=torch.Generator().manual_seed(9)) * 0.2
    whole = fit_landmarks(moved, default_face_model(), scores, identity[0], iterations=3)
    for i in (0, 63, 64, 69):
        alone = fit_landmarks(
            moved[i : i + 1], default_face_model(), scores[i : i + 1], identity[0], iterations=3
        )
        torch.testing.assert_close(whole.expression[i], alone.expression[0])
        torch.testing.assert_close(whole.pose[i], alone.pose[0])


def test_scores_and_identities_of_another_model_are_told() -> None:
    *_, points = people(1, seed=7)
    with pytest.raises(FD2TalkError, match="Blendshape scores .1, 52. are needed, not .1, 51."):
        fit_landmarks(points, default_face_model(), torch.zeros(1, 51))
    with pytest.raises(FD2TalkError, match="another face model than anny-arkit52"):
        fit_landmarks(points, default_face_model(), identity=torch.zeros(64))


@pytest.mark.parametrize(
    "points", [torch.zeros(1, 68, 2), torch.zeros(0, 468, 2), torch.full((1, 468, 2), math.nan)]
)
def test_bad_landmarks_are_told(points: torch.Tensor) -> None:
    with pytest.raises(FD2TalkError, match="[Ll]andmarks"):
        fit_landmarks(points, default_face_model())


def eyes(**looks: float) -> tuple[torch.Tensor, torch.Tensor]:
    """β and the 478 landmarks of eyes that look so, the person's right iris placed first."""
    model = default_face_model()
    expression = torch.zeros(1, 52)
    for name, value in looks.items():
        expression[0, ARKIT_NAMES.index(f"eyeLook{name}")] = value
    shape = model(torch.zeros(1, 80), expression)
    points = project(model.landmarks(shape), model.camera)[..., :2]
    for side in ("right", "left"):
        iris = model.triangles[model.triangle_parts == model.part_names.index(f"{side}_iris")].unique()
        centre = project(shape[:, iris].mean(dim=1, keepdim=True), model.camera)[..., :2]
        points = torch.cat([points, centre.expand(-1, 5, -1)], dim=1)
    return expression, points


def look(expression: torch.Tensor, *names: str) -> float:
    """The first coefficient less the second."""
    first, second = (float(expression[0, ARKIT_NAMES.index(f"eyeLook{name}")]) for name in names)
    return first - second


def test_eyes_do_not_look_apart_because_an_iris_was_missed() -> None:
    expression, points = eyes(OutLeft=0.5, InRight=0.5)
    points[:, 473:, 0] += 0.015  # two pixels at 256, towards the person's left
    found = fit_landmarks(points, default_face_model(), expression).expression
    left, right = look(found, "OutLeft", "InLeft"), look(found, "InRight", "OutRight")
    assert left - right < 0.12
    assert 0.4 < (left + right) / 2 < 0.9


def test_eyes_that_cross_are_found_crossed() -> None:
    expression, points = eyes(InLeft=0.6, InRight=0.6)
    found = fit_landmarks(points, default_face_model(), expression).expression
    assert look(found, "InLeft", "OutLeft") > 0.5 and look(found, "InRight", "OutRight") > 0.5


def test_brows_are_found_as_high_as_they_are_beside_scores_that_know_nothing() -> None:
    model = default_face_model()
    raised = torch.zeros(3, 52)
    for name, value in (("browInnerUp", 0.7), ("browOuterUpLeft", 0.5), ("browOuterUpRight", 0.7)):
        raised[1, ARKIT_NAMES.index(name)] = value
    for name in ("browDownLeft", "browDownRight"):
        raised[2, ARKIT_NAMES.index(name)] = 0.8
    seen = model.landmarks(model(torch.zeros(1, 80), raised))
    found = fit_landmarks(project(seen, model.camera)[..., :2], model, torch.zeros(3, 52))
    fitted = model.landmarks(model(found.identity[None], found.expression))
    brows, eyes = list(BROWS), [33, 133, 263, 362]
    height, wanted = ((at[:, brows, 1] - at[:, eyes, 1].mean(1, True)) for at in (fitted, seen))
    moved, should = (each[1:] - each[:1] for each in (height, wanted))
    assert should.abs().amax() > 0.04
    assert (moved * should).sum() / should.square().sum() > 0.82  # 0.74 where they count as other skin

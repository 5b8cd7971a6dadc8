"""Curves say what the motion does, with few points and without losing a blink."""

from __future__ import annotations

import json
import math

import pytest
import torch

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.model import default_face_model
from fd2talk_core.face.names import ARKIT_NAMES
from fd2talk_core.motion.coefficients import CoefficientSequence
from fd2talk_core.motion.curves import POINTS, describe, motion_curves, thin_out
from fd2talk_core.motion.editing import add_blinks, constant_pose


def face(frames: int = 10, **weights: torch.Tensor) -> CoefficientSequence:
    values = torch.zeros(frames, 52)
    for name, weight in weights.items():
        values[:, ARKIT_NAMES.index(name)] = weight
    return CoefficientSequence("expression", values, 25.0, default_face_model().name, ARKIT_NAMES)


def by_name(expression: object, pose: object) -> dict:
    return {curve.name: curve for curve in motion_curves(expression, pose, default_face_model())}


def test_the_mouth_opens_in_millimetres_of_the_mesh() -> None:
    expression = face(jawOpen=torch.linspace(0, 1, 10))
    opening = by_name(expression, None)["mouth opening"].values
    model = default_face_model()
    mesh = model(torch.zeros(1, model.identity_dim), expression.values)
    torch.testing.assert_close(opening, model.mouth_opening(mesh) * 100, atol=1e-3, rtol=1e-4)
    assert (opening.diff() > 0).all() and 5 < opening[-1] < 80


def test_the_head_turns_in_degrees_and_moves_in_centimetres() -> None:
    pose = constant_pose(4, 25.0, [math.radians(angle) for angle in (10, -20, 5)], (0.1, 0.2, 0.3))
    found = {name: (curve.values[2].item(), curve.unit) for name, curve in by_name(None, pose).items()}
    assert found.keys() == {"pitch", "yaw", "roll", "x", "y", "z"}
    expected = [(10, "°"), (-20, "°"), (5, "°"), (1, "cm"), (2, "cm"), (3, "cm")]
    for (value, unit), (wanted, of) in zip(found.values(), expected, strict=True):
        assert value == pytest.approx(wanted, abs=1e-4) and unit == of


def test_blinks_brows_and_smile_sum_both_sides_and_only_moving_blendshapes_have_a_curve() -> None:
    expression = face(
        eyeBlinkLeft=torch.linspace(0, 1, 10), eyeBlinkRight=torch.tensor(0.5), browDownLeft=torch.tensor(0.4)
    )
    curves = by_name(expression, None)
    torch.testing.assert_close(curves["blinks"].values, torch.linspace(0, 1, 10) / 2 + 0.25)
    torch.testing.assert_close(curves["brows"].values, torch.full((10,), -0.2))
    assert "eyeBlinkLeft" in curves and "eyeBlinkRight" not in curves and "jawOpen" not in curves


def test_a_face_model_without_names_has_the_heads_curves_alone() -> None:
    other = CoefficientSequence("expression", torch.rand(4, 64), 25.0, "bfm09")
    assert [curve.name for curve in motion_curves(other, None, default_face_model())] == []
    assert len(motion_curves(other, constant_pose(4, 25.0), default_face_model())) == 6


@pytest.mark.parametrize("frames", [1, 2, POINTS, POINTS + 1, 5000, 17999])
def test_thinning_keeps_every_peak_near_its_time(frames: int) -> None:
    generator = torch.Generator().manual_seed(frames)
    values = torch.rand(3, frames, generator=generator)
    values[0, frames // 2] = 5
    values[1, frames // 3] = -5
    at, kept = thin_out(values)
    assert len(at) == kept.shape[1] == min(frames, len(at)) <= POINTS and (at.diff() >= 0).all()
    assert int(at[0]) >= 0 and int(at[-1]) < frames
    torch.testing.assert_close(kept.amin(1), values.amin(1))
    torch.testing.assert_close(kept.amax(1), values.amax(1))
    step = 2 * frames / POINTS + 1
    assert abs(int(at[kept[0].argmax()]) - frames // 2) <= step
    assert abs(int(at[kept[1].argmin()]) - frames // 3) <= step


def test_ten_minutes_of_blinks_is_a_page_of_json_with_every_blink() -> None:
    blinking = add_blinks(face(25 * 600), times=[float(t) for t in range(5, 600, 20)])
    told = describe(motion_curves(blinking, None, default_face_model()), blinking.num_frames, blinking.fps)
    text = json.dumps(told)
    assert len(text) < 60_000 and json.loads(text) == told
    blinks = next(curve for curve in told["curves"] if curve["name"] == "blinks")["values"]
    shut = torch.tensor(told["times"])[torch.tensor(blinks) > 0.9]
    assert all((shut - time).abs().min() < 3 for time in range(5, 600, 20))
    assert told["duration"] == 600 and told["frames"] == 15000


def test_too_few_points_are_refused() -> None:
    with pytest.raises(FD2TalkError, match="1 points"):
        thin_out(torch.zeros(1, 10), 1)

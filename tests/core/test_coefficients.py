"""Time and motion: the frame-count contract, resampling, and moving a clip onto a portrait."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.model import default_face_model
from fd2talk_core.face.names import ARKIT_NAMES
from fd2talk_core.motion.coefficients import (
    CoefficientSequence,
    apply_to_portrait,
    blend_over_rest,
    start_at_pose,
)
from fd2talk_core.timing import frame_count

RATES = (1, 12, 23.976, 24, 25, 29.97, 30, 50, 60, 120)


def sequence(values: torch.Tensor, fps: float = 25.0, kind: str = "expression") -> CoefficientSequence:
    names = ARKIT_NAMES if kind == "expression" and values.shape[1] == 52 else ()
    return CoefficientSequence(kind, values, fps, "anny-arkit52", names)


@given(samples=st.integers(640, 1_920_000), fps=st.sampled_from(RATES))
def test_frame_count_is_the_rounded_product(samples: int, fps: float) -> None:
    duration = Fraction(samples, 16_000)
    count = frame_count(duration, fps)
    exact = duration * Fraction(str(fps))
    assert abs(count - exact) <= Fraction(1, 2)


@settings(max_examples=40, deadline=None)
@given(
    samples=st.integers(640, 1_920_000),
    fps=st.sampled_from(RATES),
    kind=st.sampled_from(["expression", "pose"]),
)
def test_resampling_gives_exactly_the_frames_of_the_video(samples: int, fps: float, kind: str) -> None:
    duration = Fraction(samples, 16_000)
    native = sequence(torch.zeros(max(1, frame_count(duration, 25)), 6), kind=kind)
    count = frame_count(duration, fps)
    if count == 0:
        with pytest.raises(FD2TalkError, match="0 frames"):
            native.resample(fps, count)
    else:
        resampled = native.resample(fps, count)
        assert (resampled.num_frames, resampled.fps) == (count, fps)


@pytest.mark.parametrize("fps", RATES)
def test_resampling_keeps_every_instant_to_the_tenth_minute(fps: float) -> None:
    time = (torch.arange(600 * 25, dtype=torch.float64) + 0.5) / 25
    native = sequence(torch.stack([time, time]).T.float())
    count = frame_count(600, fps)
    resampled = native.resample(fps, count)
    expected = ((torch.arange(count, dtype=torch.float64) + 0.5) / fps).clamp(0.02, 600 - 0.02)
    assert (resampled.values[:, 0] - expected).abs().max() < 1e-3


def test_rotations_are_resampled_on_the_sphere() -> None:
    """Between +170 and -170 degrees of yaw lies 180, not 0."""
    yaw = torch.tensor([170.0, -170.0]).deg2rad()
    values = torch.zeros(2, 6)
    values[:, 1] = yaw
    middle = sequence(values, fps=1.0, kind="pose").resample(3.0, 6).values
    facing = torch.cos(middle[:, 0]) * torch.cos(middle[:, 1])  # z of the rotated nose
    assert facing.max() < math.cos(math.radians(169))


def test_relative_motion_starts_at_the_portrait_and_keeps_the_turn() -> None:
    motion = torch.zeros(5, 6)
    motion[:, 1] = torch.linspace(0.3, 0.5, 5)
    motion[:, 3] = torch.linspace(1.0, 1.2, 5)
    portrait = torch.tensor([0.0, -0.2, 0.0, 0.1, 0.0, 0.0])
    moved = start_at_pose(motion, portrait)
    torch.testing.assert_close(moved[0], portrait, atol=1e-6, rtol=0)
    torch.testing.assert_close(moved[:, 1], motion[:, 1] - 0.3 - 0.2, atol=1e-5, rtol=0)
    torch.testing.assert_close(moved[:, 3], motion[:, 3] - 1.0 + 0.1, atol=1e-6, rtol=0)
    torch.testing.assert_close(start_at_pose(moved, portrait), moved, atol=1e-6, rtol=0)


def test_the_mouth_is_always_absolute() -> None:
    values, rest = torch.rand(7, 52), torch.rand(52)
    blended = blend_over_rest(values, rest, ARKIT_NAMES)
    jaw, blink = ARKIT_NAMES.index("jawOpen"), ARKIT_NAMES.index("eyeBlinkLeft")
    assert torch.equal(blended[:, jaw], values[:, jaw])
    assert (blended[:, blink] >= rest[blink]).all() and blended.max() <= 1
    assert torch.equal(blend_over_rest(blended, rest, ARKIT_NAMES), blended)
    full = torch.ones(1, 52)
    torch.testing.assert_close(blend_over_rest(full, rest, ARKIT_NAMES), full)


def test_recorded_motion_moves_the_portrait_s_own_face() -> None:
    """What the portrait has drawn down can rise, and what was fitted a little differently is no movement."""
    brow, jaw = ARKIT_NAMES.index("browDownLeft"), ARKIT_NAMES.index("jawOpen")
    recorded, portrait = torch.zeros(3, 52), torch.zeros(52)
    recorded[:, brow], portrait[brow] = torch.tensor([0.4, 0.1, 0.6]), 0.5
    recorded[:, jaw], portrait[jaw] = torch.tensor([0.05, 0.0, 0.3]), 0.02
    expression = sequence(recorded).replace(rest=recorded[0])
    pose, still = sequence(torch.zeros(3, 6), kind="pose"), torch.zeros(6)
    moved, _ = apply_to_portrait(expression, pose, portrait, still, face_model=default_face_model())
    torch.testing.assert_close(moved[0], portrait)
    torch.testing.assert_close(moved[:, brow], torch.tensor([0.5, 0.2, 0.7]))
    torch.testing.assert_close(moved[:, jaw], torch.tensor([0.02, -0.03, 0.27]))


def test_a_recorded_mouth_stays_absolute_where_the_portrait_s_is_another() -> None:
    jaw = ARKIT_NAMES.index("jawOpen")
    recorded, portrait = torch.zeros(3, 52), torch.zeros(52)
    recorded[:, jaw], portrait[jaw] = torch.tensor([0.0, 0.2, 0.1]), 0.6
    expression = sequence(recorded).replace(rest=recorded[0])
    pose, still = sequence(torch.zeros(3, 6), kind="pose"), torch.zeros(6)
    moved, _ = apply_to_portrait(expression, pose, portrait, still, face_model=default_face_model())
    torch.testing.assert_close(moved[:, jaw], recorded[:, jaw])


def test_a_rest_of_another_size_or_not_finite_is_refused() -> None:
    for rest in (torch.zeros(51), torch.full((52,), math.nan)):
        with pytest.raises(FD2TalkError, match="52,\\) finite numbers are needed"):
            sequence(torch.zeros(2, 52)).replace(rest=rest)


def test_absolute_mode_is_the_papers() -> None:
    expression, pose = sequence(torch.rand(4, 52)), sequence(torch.rand(4, 6), kind="pose")
    values = apply_to_portrait(expression, pose, torch.rand(52), torch.rand(6), mode="absolute")
    assert torch.equal(values[0], expression.values) and torch.equal(values[1], pose.values)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: sequence(torch.zeros(0, 52)), r"shape \(0, 52\)"),
        (lambda: sequence(torch.zeros(3, 5), kind="pose"), "5 columns"),
        (lambda: sequence(torch.tensor([[0.0], [math.nan]])), "not a number at frame 1"),
        (lambda: sequence(torch.zeros(3, 2), fps=0.0), "fps is 0"),
        (lambda: sequence(torch.zeros(3, 2), fps=-25.0), "fps is -25"),
        (lambda: frame_count(1, 121), "fps is 121"),
        (lambda: frame_count(1, math.nan), "fps is nan"),
    ],
)
def test_bad_sequences_are_told_in_a_sentence(make, sentence: str) -> None:
    with pytest.raises(FD2TalkError, match=sentence):
        make()


def test_lengths_rates_and_sizes_must_agree() -> None:
    expression, pose = sequence(torch.rand(4, 52)), sequence(torch.rand(5, 6), kind="pose")
    with pytest.raises(FD2TalkError, match="4 frames and the pose 5"):
        apply_to_portrait(expression, pose, torch.zeros(52), torch.zeros(6))
    with pytest.raises(FD2TalkError, match="25 fps and the pose at 30"):
        apply_to_portrait(
            expression, sequence(torch.rand(4, 6), 30.0, "pose"), torch.zeros(52), torch.zeros(6)
        )
    with pytest.raises(FD2TalkError, match="52 coefficients"):
        apply_to_portrait(
            expression, sequence(torch.rand(4, 6), kind="pose"), torch.zeros(64), torch.zeros(6)
        )

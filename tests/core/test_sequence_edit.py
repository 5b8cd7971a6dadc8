"""Editing motion: each edit is held to the property that gives it its name."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.model import default_face_model
from fd2talk_core.face.names import ARKIT_NAMES, GAZE, MOUTH_NAMES, POSE_NAMES
from fd2talk_core.face.rotations import rotation_matrix
from fd2talk_core.motion import editing as edit
from fd2talk_core.motion.coefficients import CoefficientSequence

FACE_MODEL = "anny-arkit52"
MOUTH = torch.tensor([name in MOUTH_NAMES for name in ARKIT_NAMES])
quick = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**32)
lengths = st.integers(1, 60)


def face(frames: int, seed: int = 0, fps: float = 25.0) -> CoefficientSequence:
    values = torch.rand(frames, 52, generator=torch.Generator().manual_seed(seed))
    return CoefficientSequence("expression", values, fps, FACE_MODEL, ARKIT_NAMES)


def head(frames: int, seed: int = 0, fps: float = 25.0, size: float = 0.3) -> CoefficientSequence:
    values = size * torch.randn(frames, 6, generator=torch.Generator().manual_seed(seed))
    values[:, :3].clamp_(-1.2, 1.2)
    return CoefficientSequence("pose", values, fps, FACE_MODEL, POSE_NAMES)


def pose_of(values: Tensor, fps: float = 25.0) -> CoefficientSequence:
    return CoefficientSequence("pose", values, fps, FACE_MODEL, POSE_NAMES)


def angle_between(first: Tensor, second: Tensor) -> Tensor:
    """Radians between rotations given as ``[F, 3]`` angles, from the trace of the relative matrix."""
    relative = rotation_matrix(first.double()).mT @ rotation_matrix(second.double())
    return ((relative.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2).clamp(-1, 1).acos()


def sentence(call, *arguments, **keywords) -> str:
    with pytest.raises(FD2TalkError) as caught:
        call(*arguments, **keywords)
    return str(caught.value)


# Scale and offset


@quick
@given(seeds, lengths, st.floats(-2, 3))
def test_scaling_a_face_about_rest_multiplies(seed: int, frames: int, factor: float) -> None:
    sequence = face(frames, seed)
    assert torch.allclose(edit.scale(sequence, factor).values, sequence.values * factor, atol=1e-6)


@quick
@given(seeds, st.floats(0.1, 2))
def test_scaling_a_head_scales_the_angle_of_its_turn(seed: int, factor: float) -> None:
    sequence = head(20, seed, size=0.2)
    scaled = edit.scale(sequence, factor).values
    rest = torch.zeros(20, 3)
    before, after = angle_between(rest, sequence.values[:, :3]), angle_between(rest, scaled[:, :3])
    assert torch.allclose(after, before * factor, atol=1e-5)
    assert torch.allclose(scaled[:, 3:], sequence.values[:, 3:] * factor, atol=1e-6)


@pytest.mark.parametrize("about", ["mean", "first"])
def test_scaling_to_nothing_leaves_the_pivot(about: str) -> None:
    still = edit.scale(head(30), 0.0, about).values
    assert torch.allclose(still, still[:1].expand_as(still), atol=1e-6)
    if about == "first":
        assert torch.allclose(still[0], head(30).values[0], atol=1e-6)
    else:
        assert torch.allclose(still[0, 3:], head(30).values[:, 3:].mean(0), atol=1e-6)


def test_the_mean_turn_is_nearer_to_all_than_any_neighbour() -> None:
    sequence = head(40, size=0.5)
    mean = edit.scale(sequence, 0.0, "mean").values[:1, :3]

    def spread(angles: Tensor) -> float:
        return float(((rotation_matrix(sequence.values[:, :3]) - rotation_matrix(angles)) ** 2).sum())

    for axis in range(3):
        for step in (-0.02, 0.02):
            moved = mean.clone()
            moved[0, axis] += step
            assert spread(mean) < spread(moved)


def test_groups_are_scaled_alone() -> None:
    sequence = face(10)
    scaled = edit.scale(sequence, {"mouth": 2.0}).values
    assert torch.allclose(scaled[:, MOUTH], 2 * sequence.values[:, MOUTH])
    assert torch.equal(scaled[:, ~MOUTH], sequence.values[:, ~MOUTH])
    names = sorted(name for group in edit.GROUPS.values() for name in group)
    assert names == sorted(ARKIT_NAMES), "every blendshape is in exactly one group"
    assert "has no 'nose'" in sentence(edit.scale, sequence, {"nose": 2.0})


def test_a_face_without_names_is_scaled_as_a_whole() -> None:
    basel = CoefficientSequence("expression", torch.randn(5, 64), 25, "bfm-64")
    doubled = edit.scale(basel, dict.fromkeys(edit.GROUPS, 2.0))
    assert torch.allclose(doubled.values, 2 * basel.values)
    assert "'bfm-64' has no 'mouth'" in sentence(edit.scale, basel, {"mouth": 2.0, "eyes": 1.0})


@quick
@given(seeds, st.floats(-0.5, 0.5))
def test_offset_moves_one_column_and_can_be_undone(seed: int, amount: float) -> None:
    sequence = head(12, seed)
    moved = edit.offset(sequence, {"yaw": amount})
    assert torch.allclose(moved.values[:, 1], sequence.values[:, 1] + amount)
    assert torch.equal(moved.values[:, [0, 2, 3, 4, 5]], sequence.values[:, [0, 2, 3, 4, 5]])
    assert torch.allclose(edit.offset(moved, {"yaw": -amount}).values, sequence.values, atol=1e-6)


def test_offset_names_what_it_does_not_know() -> None:
    assert "no coefficient 'smile'" in sentence(edit.offset, face(3), {"smile": 0.1})
    assert "yaw is nan" in sentence(edit.offset, head(3), {"yaw": math.nan})


# Smooth and still


@quick
@given(st.integers(2, 120), st.floats(0.01, 2), st.floats(-0.3, 0.3), st.integers(0, 2))
def test_smoothing_leaves_a_steady_move_alone(frames: int, seconds: float, rise: float, axis: int) -> None:
    values = torch.zeros(frames, 6)
    values[:, axis] = torch.linspace(-rise, rise, frames)
    values[:, 4] = torch.linspace(1, 2, frames)
    assert torch.allclose(edit.smooth(pose_of(values), seconds).values, values, atol=2e-6)
    ramp = torch.linspace(0, 1, frames)[:, None].expand(-1, 52)
    line = face(frames).replace(values=ramp)
    assert torch.allclose(edit.smooth(line, seconds).values, ramp, atol=2e-6)


def test_smoothing_is_a_gaussian_without_delay() -> None:
    fps, seconds = 50.0, 0.1
    values = torch.zeros(201, 6)
    values[100, 3] = 1.0
    smoothed = edit.smooth(pose_of(values, fps), seconds).values[:, 3].double()
    time = (torch.arange(201).double() - 100) / fps
    expected = torch.exp(-0.5 * (time / seconds) ** 2)
    assert torch.allclose(smoothed, expected / expected.sum(), atol=2e-5)


def test_smoothing_calms_and_keeps_the_mouth_when_told() -> None:
    sequence = face(200)
    calm = edit.smooth(sequence, 0.2, keep_mouth=True).values
    assert torch.equal(calm[:, MOUTH], sequence.values[:, MOUTH])
    assert (calm[:, ~MOUTH].std(0) < 0.5 * sequence.values[:, ~MOUTH].std(0)).all()
    basel = CoefficientSequence("expression", torch.randn(5, 64), 25, "bfm-64")
    assert "its mouth cannot be told from the rest" in sentence(edit.smooth, basel, 0.2, keep_mouth=True)
    assert "0 to 10 is needed" in sentence(edit.smooth, sequence, -1.0)


def test_a_held_part_is_still_and_the_rest_untouched() -> None:
    sequence = head(100)
    held = edit.hold_still(sequence, 1.0, 2.0).values
    assert torch.allclose(held[25:50], sequence.values[25].expand(25, -1), atol=1e-6)
    assert torch.equal(held[:25], sequence.values[:25]) and torch.equal(held[50:], sequence.values[50:])


def test_half_held_moves_half_as_far_and_the_mouth_speaks_on() -> None:
    sequence = face(50)
    held = edit.hold_still(sequence, at="rest", amount=0.5).values
    assert torch.allclose(held[:, ~MOUTH], sequence.values[:, ~MOUTH] / 2, atol=1e-6)
    assert torch.equal(held[:, MOUTH], sequence.values[:, MOUTH])
    assert torch.allclose(edit.hold_still(sequence, at="rest", keep_mouth=False).values, torch.zeros(50, 52))


def test_stillness_comes_and_goes_without_a_jump() -> None:
    time = torch.arange(200) / 25
    values = torch.zeros(200, 6)
    values[:, 1] = 0.3 * torch.sin(time)
    steps = edit.hold_still(pose_of(values), 2, 6, blend=1.0).values[:, 1].diff().abs()
    assert steps.max() < 0.04
    assert edit.hold_still(pose_of(values), 2, 6).values[:, 1].diff().abs().max() > 0.2, (
        "without the blend it jumps"
    )


# Time


@quick
@given(st.integers(1, 200), st.integers(1, 200), seeds)
def test_stretching_has_the_asked_length_and_keeps_both_ends(frames: int, count: int, seed: int) -> None:
    for sequence in (face(frames, seed), head(frames, seed)):
        stretched = edit.retime(sequence, num_frames=count, method="stretch")
        assert stretched.num_frames == count
        assert torch.allclose(stretched.values[0], sequence.values[0], atol=1e-5)
        if count > 1:
            assert torch.allclose(stretched.values[-1], sequence.values[-1], atol=1e-5)


@quick
@given(st.integers(1, 300), st.sampled_from([12, 24, 25, 29.97, 30, 60]))
def test_a_new_rate_keeps_the_duration(frames: int, fps: float) -> None:
    retimed = edit.retime(face(frames, fps=25), fps=fps)
    assert retimed.fps == fps
    assert retimed.num_frames == 1 or abs(retimed.num_frames - frames / 25 * fps) <= 0.5


def test_a_line_in_time_stays_that_line_at_every_rate() -> None:
    time = (torch.arange(100) + 0.5) / 25
    sequence = face(100).replace(values=time[:, None].expand(-1, 52) / 10)
    faster = edit.retime(sequence, fps=60)
    expected = (torch.arange(240) + 0.5) / 60 / 10
    assert torch.allclose(faster.values[2:-2, 0], expected[2:-2], atol=1e-6)


@quick
@given(st.integers(1, 40), st.integers(1, 150), seeds)
def test_hold_and_loop_reach_a_length_without_changing_speed(frames: int, count: int, seed: int) -> None:
    sequence = head(frames, seed)
    held = edit.retime(sequence, num_frames=count, method="hold").values
    there = list(range(frames)) + list(range(frames - 2, 0, -1))
    looped = edit.retime(sequence, num_frames=count, method="loop").values
    for index in range(count):
        assert torch.equal(held[index], sequence.values[min(index, frames - 1)])
        assert torch.equal(looped[index], sequence.values[there[index % len(there)]])


def test_retiming_says_what_it_cannot_do() -> None:
    assert "method is 'warp'" in sentence(edit.retime, head(5), num_frames=9, method="warp")
    assert "0 frames" in sentence(edit.retime, head(5), num_frames=0)
    assert "fps is -1" in sentence(edit.retime, head(5), fps=-1)


@quick
@given(st.integers(2, 200), st.data())
def test_trimmed_parts_make_the_whole(frames: int, data: st.DataObject) -> None:
    sequence = head(frames, fps=29.97)
    cut = data.draw(st.integers(1, frames - 1)) / 29.97
    parts = [edit.trim(sequence, 0, cut), edit.trim(sequence, cut)]
    assert torch.equal(torch.cat([part.values for part in parts]), sequence.values)


def test_trimming_to_nothing_is_an_error() -> None:
    assert "No frame lies between 3 s and 2 s" in sentence(edit.trim, head(100), 3, 2)
    assert "100 frames, 4 s" in sentence(edit.trim, head(100), 9)


@quick
@given(st.integers(1, 80), st.integers(1, 80), st.floats(0, 1), seeds)
def test_a_splice_has_exactly_so_many_frames(first: int, second: int, blend: float, seed: int) -> None:
    one, other = head(first, seed), head(second, seed + 1)
    overlap = round(blend * 25)
    if overlap > min(first, second):
        assert "shorten the blend" in sentence(edit.splice, one, other, blend)
        return
    spliced = edit.splice(one, other, blend)
    assert spliced.num_frames == first + second - overlap
    assert torch.equal(spliced.values[: first - overlap], one.values[: first - overlap])
    assert torch.equal(spliced.values[first:], other.values[overlap:])


def test_a_splice_has_no_jump_and_takes_the_first_rate() -> None:
    one = edit.constant_pose(50, 25, (0, -0.5, 0))
    other = edit.constant_pose(100, 50, (0, 0.5, 0))
    spliced = edit.splice(one, other, 1.0)
    assert spliced.fps == 25 and spliced.num_frames == 75
    assert spliced.values[:, 1].diff().max() < 0.07 and (spliced.values[:, 1].diff() > -1e-6).all()
    assert "kind pose and the second of kind expression" in sentence(edit.splice, one, face(5))


def test_a_loop_turns_without_showing_a_frame_twice() -> None:
    values = torch.arange(5.0)[:, None].expand(-1, 6) / 10
    looped = edit.loop(pose_of(values), 12).values[:, 3] * 10
    assert [round(float(value)) for value in looped] == [0, 1, 2, 3, 4, 3, 2, 1, 0, 1, 2, 3]


# Two sequences


@quick
@given(seeds)
def test_a_mix_of_nothing_and_of_everything(seed: int) -> None:
    for one, other in ((face(9, seed), face(9, seed + 1)), (head(9, seed), head(9, seed + 1))):
        assert torch.allclose(edit.mix(one, other, 0.0).values, one.values, atol=1e-6)
        assert torch.allclose(edit.mix(one, other, 1.0).values, other.values, atol=1e-6)


@quick
@given(seeds, st.floats(0, 1))
def test_equal_shares_divide_the_shortest_arc(seed: int, share: float) -> None:
    one, other = head(9, seed).values, head(9, seed + 1).values
    mixed = edit.mix(pose_of(one), pose_of(other), share).values
    whole = angle_between(one[:, :3], other[:, :3])
    assert torch.allclose(angle_between(one[:, :3], mixed[:, :3]), share * whole, atol=1e-4)
    assert torch.allclose(angle_between(mixed[:, :3], other[:, :3]), (1 - share) * whole, atol=1e-4)


def test_axes_and_groups_are_taken_one_by_one() -> None:
    mixed = edit.mix(head(9, 1), head(9, 2), {"pitch": 1.0, "x": 1.0}).values
    assert torch.allclose(mixed[:, [0, 3]], head(9, 2).values[:, [0, 3]], atol=1e-6)
    assert torch.allclose(mixed[:, [1, 2, 4, 5]], head(9, 1).values[:, [1, 2, 4, 5]], atol=1e-6)
    spoken = edit.mix(face(9, 1), face(9, 2), {"mouth": 1.0}).values
    assert torch.equal(spoken[:, MOUTH], face(9, 2).values[:, MOUTH])
    assert torch.equal(spoken[:, ~MOUTH], face(9, 1).values[:, ~MOUTH])


def test_what_does_not_fit_together_is_named() -> None:
    basel = CoefficientSequence("expression", torch.zeros(9, 52), 25, "bfm-52")
    message = sentence(edit.mix, face(9), basel, 0.5)
    assert f"'{FACE_MODEL}'" in message and "'bfm-52'" in message
    assert "9 frames at 25 fps and the second 8 at 25: retime" in sentence(edit.mix, face(9), face(8), 0.5)
    assert "9 frames at 25 fps and the second 9 at 30: retime" in sentence(
        edit.mix, face(9), face(9, fps=30), 0.5
    )
    assert "outside of 0..1" in sentence(edit.mix, face(9), face(9), 1.5)


# Eyes


def test_timed_blinks_shut_the_eyes_then_and_only_then() -> None:
    open_eyes = face(250).replace(values=torch.zeros(250, 52))
    blinking = edit.add_blinks(open_eyes, times=[1.0, 4.5])
    left, right = (blinking.values[:, ARKIT_NAMES.index(f"eyeBlink{side}")] for side in ("Left", "Right"))
    assert torch.equal(left, right)
    for time in (1.0, 4.5):
        assert left[int(time * 25)] > 0.99
    instants = (torch.arange(250) + 0.5) / 25
    near = ((instants - 1.0).abs() < 0.3) | ((instants - 4.5).abs() < 0.3)
    assert left[~near].max() == 0
    others = [index for index, name in enumerate(ARKIT_NAMES) if not name.startswith("eyeBlink")]
    assert blinking.values[:, others].abs().max() == 0
    assert "A blink at 11 s is outside of the clip of 10 s" in sentence(
        edit.add_blinks, open_eyes, times=[11]
    )


def test_blinks_join_those_that_are_there_or_replace_them() -> None:
    half = face(100).replace(values=torch.full((100, 52), 0.5))
    joined = edit.add_blinks(half, times=[2.0]).values[:, 0]
    assert joined.min() == 0.5 and joined.max() > 0.99
    assert edit.add_blinks(half, times=[2.0], replace_existing=True).values[:, 0].min() == 0
    assert edit.add_blinks(half, times=[2.0], strength=0.3).values[:, 0].max() == 0.5


@quick
@given(seeds, st.floats(5, 30))
def test_natural_blinks_wait_and_come_at_the_asked_rate(seed: int, per_minute: float) -> None:
    times = torch.tensor(edit.natural_blink_times(3600, seed, per_minute), dtype=torch.float64)
    gaps = times.diff()
    assert gaps.min() >= edit.BLINK_REFRACTORY
    # the number of blinks in an hour scatters by less than the root of its mean, thanks to the pause
    assert abs(len(times) - 60 * per_minute) < 5 * math.sqrt(60 * per_minute)
    free = gaps - edit.BLINK_REFRACTORY
    assert free.std() == pytest.approx(float(free.mean()), rel=0.35), "waits beyond the pause are exponential"


def test_a_longer_clip_begins_with_the_blinks_of_a_shorter_one() -> None:
    short, long = (edit.natural_blink_times(duration, 7, 17) for duration in (30, 300))
    assert long[: len(short)] == short and len(long) > len(short)
    assert edit.natural_blink_times(300, 8, 17) != long
    assert edit.natural_blink_times(300, 7, 0) == []


def test_a_face_without_lids_cannot_blink() -> None:
    basel = CoefficientSequence("expression", torch.zeros(5, 64), 25, "bfm-64")
    assert "'eyeBlinkLeft' is needed" in sentence(edit.add_blinks, basel)


@pytest.mark.parametrize(("yaw", "pitch"), [(12, 0), (-9, 0), (0, -8), (0, 10)])
def test_the_eyes_of_the_mesh_look_where_they_are_told(yaw: float, pitch: float) -> None:
    """The gaze is read off the mesh itself: the rotation that carries each eyeball's vertices."""
    face_model = default_face_model()
    row = edit.look_at(
        face(1).replace(values=torch.zeros(1, 52)), math.radians(yaw), math.radians(pitch)
    ).values
    identity = torch.zeros(1, face_model.identity_dim)
    rest = face_model(identity, torch.zeros(1, 52))[0].double()
    turned = face_model(identity, row)[0].double()
    for part in eyeballs(face_model):
        ray = rigid_rotation(rest[part], turned[part]) @ torch.tensor([0, 0, 1.0], dtype=torch.float64)
        assert math.degrees(math.asin(ray[0])) == pytest.approx(yaw, abs=0.7)
        assert math.degrees(math.asin(-ray[1])) == pytest.approx(pitch, abs=0.7)


def eyeballs(face_model) -> list[Tensor]:
    """Vertices of the mesh parts that a sideways look turns as a whole: white, iris, pupil of each eye."""
    identity = torch.zeros(1, face_model.identity_dim)
    look = torch.zeros(1, 52)
    look[0, [ARKIT_NAMES.index("eyeLookOutLeft"), ARKIT_NAMES.index("eyeLookInRight")]] = 1
    moved = (face_model(identity, look) - face_model(identity, torch.zeros(1, 52)))[0].norm(dim=1) > 0.005
    parts = [
        face_model.triangles[face_model.triangle_parts == part].unique()
        for part in face_model.triangle_parts.unique()
    ]
    found = [part for part in parts if moved[part].float().mean() > 0.5]
    assert len(found) >= 2
    return found


def rigid_rotation(before: Tensor, after: Tensor) -> Tensor:
    """Kabsch: the rotation that best carries points to points."""
    u, _, v = torch.linalg.svd((before - before.mean(0)).mT @ (after - after.mean(0)))
    return (u @ v).mT


def test_a_gaze_replaces_the_wandering_of_the_eyes_and_has_limits() -> None:
    aside = edit.look_at(face(4), math.radians(10), math.radians(-5)).values
    value = {name: aside[:, index] for index, name in enumerate(ARKIT_NAMES)}
    for name in ("eyeLookInLeft", "eyeLookOutRight", "eyeLookDownLeft", "eyeLookDownRight"):
        assert value[name].max() == 0
    for name in ("eyeLookOutLeft", "eyeLookInRight", "eyeLookUpLeft", "eyeLookUpRight"):
        assert value[name].min() == value[name].max() > 0.4
    assert "yaw of the eyes in degrees is 60, but -14.7 to 14.7" in sentence(
        edit.look_at, face(4), math.radians(60), 0
    )


def test_times_are_read_or_the_bad_word_is_named() -> None:
    assert edit.parse_times(" 1.5, 3;7.25\n9 ") == [1.5, 3, 7.25, 9]
    assert edit.parse_times("") == []
    for word in ("soon", "nan", "-1", "inf"):
        assert repr(word) in sentence(edit.parse_times, f"1, {word}, 3")


# Poses from nothing


def test_a_constant_pose_is_what_was_asked() -> None:
    sequence = edit.constant_pose(7, 30, (0.1, 0.2, 0.3), (1, 2, 3))
    assert sequence.num_frames == 7 and sequence.fps == 30
    assert torch.allclose(sequence.values, torch.tensor([[0.1, 0.2, 0.3, 1, 2, 3]]).expand(7, -1))
    assert "1 to 1,000,000" in sentence(edit.constant_pose, 0, 25)


def test_idle_motion_is_a_function_of_time_and_seed() -> None:
    slow = edit.idle_motion(100, 25, 3)
    fast = edit.idle_motion(300, 75, 3)
    assert torch.allclose(slow.values, fast.values[1::3], atol=1e-6), "both have an instant at (i + 0.5) / 25"
    assert torch.equal(edit.idle_motion(50, 25, 3).values, slow.values[:50])
    assert not torch.allclose(edit.idle_motion(100, 25, 4).values, slow.values, atol=1e-3)
    assert torch.equal(edit.idle_motion(100, 25, 3, amount=2).values, 2 * slow.values)
    assert edit.idle_motion(100, 25, 3, amount=0).values.abs().max() == 0


def test_idle_motion_drifts_as_far_as_it_says_and_never_jumps() -> None:
    drift = edit.idle_motion(60_000, 25, 5).values
    assert torch.allclose(drift.std(0), torch.tensor(edit.IDLE_DEVIATION), rtol=0.1)
    assert math.degrees(float(drift[:, :3].diff(dim=0).abs().max())) < 1.0


def test_idle_eyes_stay_on_their_spot_while_the_head_turns() -> None:
    """Between two shifts the eyes turn against the head; the clip begins and ends with a straight look."""
    still = edit.constant_pose(500, 25.0)
    rest = face(500).replace(values=torch.zeros(500, 52))

    def yaw(expression: CoefficientSequence) -> Tensor:
        out, inward = (expression.names.index(f"eyeLook{way}Left") for way in ("Out", "In"))
        return (expression.values[:, out] - expression.values[:, inward]) * GAZE["Out"]

    one, again, other = (yaw(edit.idle_gaze(rest, still, seed)) for seed in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert one[0] == 0 and one[-1].abs() < 1e-6
    shifts = (one.diff().abs() > 1e-6).float().mean()
    assert 0.01 < shifts < 0.3, "it rests most of the time"
    assert 0.01 < one.std() < 0.1
    swaying = edit.idle_motion(500, 25.0)
    apart = yaw(edit.idle_gaze(rest, swaying, 0)) - one
    assert torch.allclose(apart, -0.8 * swaying.values[:, 1], atol=1e-4)
    assert not yaw(edit.idle_gaze(rest, still, 0, amount=0.0)).any()

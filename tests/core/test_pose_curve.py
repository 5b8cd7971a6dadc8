"""A pose drawn by hand goes through its points, not beyond them, and nonsense is told in a sentence."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.names import POSE_NAMES
from fd2talk_core.motion.pose_curve import (
    monotone_cubic,
    parse_keyframes,
    pose_from_keyframes,
    sample_curve,
)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 500), st.floats(-90, 90)), min_size=1, unique_by=lambda point: point[0])
)
def test_goes_through_its_points_and_never_beyond_its_neighbours(points: list) -> None:
    table = torch.tensor(sorted(points), dtype=torch.float64)
    torch.testing.assert_close(monotone_cubic(table, table[:, 0]), table[:, 1], atol=1e-9, rtol=1e-9)
    for (start, low), (end, high) in zip(table.tolist(), table[1:].tolist(), strict=False):
        between = monotone_cubic(table, torch.linspace(start, end, 30, dtype=torch.float64))
        assert between.min() >= min(low, high) - 1e-9 and between.max() <= max(low, high) + 1e-9
    held = monotone_cubic(table, torch.tensor([-5.0, 505.0], dtype=torch.float64))
    assert held.tolist() == pytest.approx([table[0, 1].item(), table[-1, 1].item()])


def test_inner_pieces_are_scipys_pchip_and_the_ends_are_level() -> None:
    interpolate = pytest.importorskip("scipy.interpolate")
    table = torch.tensor([[0, 3], [1, 5], [1.5, 9], [4, 9.5], [5, -2], [7, 0]], dtype=torch.float64)
    time = torch.linspace(1, 5, 101, dtype=torch.float64)
    expected = interpolate.PchipInterpolator(*table.T.numpy())(time.numpy())
    torch.testing.assert_close(monotone_cubic(table, time), torch.from_numpy(expected))
    step = 1e-5
    for end in (0.0, 7.0):
        around = monotone_cubic(table, torch.tensor([end - step, end + step], dtype=torch.float64))
        assert abs(around.diff().item()) < 1e-3 * step


def test_frames_stand_for_their_middles_in_radians_and_units() -> None:
    text = '{"yaw": [[1.02, 20], [0.02, 0]], "y": [[0, 0.5]]}'
    pose = pose_from_keyframes(parse_keyframes(text), 50, 25.0)
    assert pose.values.shape == (50, 6) and pose.fps == 25
    assert pose.values[0, 1] == pytest.approx(0, abs=1e-9) and pose.values[25, 1] == pytest.approx(
        math.radians(20)
    )
    assert (pose.values[25:, 1] == pose.values[25, 1]).all() and (pose.values[:26, 1].diff() > 0).all()
    assert (pose.values[:, 4] == 0.5).all() and not pose.values[:, [0, 2, 3, 5]].any()


def test_no_points_are_a_still_head() -> None:
    assert parse_keyframes("") == parse_keyframes("{}") == parse_keyframes('{"yaw": []}') == {}
    assert not pose_from_keyframes({}, 3, 25.0).values.any()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("yaw 3", "not JSON"),
        ("[1, 2]", "not an object"),
        ('{"nod": [[0, 1]]}', "no 'nod'.*pitch, yaw, roll"),
        ('{"yaw": 3}', "yaw are not a list"),
        ('{"yaw": [[0, 1], [1]]}', r"Point 2 of yaw is \[1\]"),
        ('{"yaw": [[0, "1"]]}', "Point 1 of yaw"),
        ('{"yaw": [[0, NaN]]}', "Point 1 of yaw"),
        ('{"yaw": [[0, 1' + "0" * 400 + "]]}", "Point 1 of yaw"),
        ("[" * 100_000, "not JSON"),
        ('{"yaw": [[0, true]]}', "Point 1 of yaw"),
        ('{"yaw": [[-1, 1]]}', "at -1 s"),
        ('{"x": [[0, 11]]}', "11 at 0 s.*at most 10"),
        ('{"yaw": [[1, 1], [0, 0], [1, 2]]}', "two points at 1 s"),
        (json.dumps({"yaw": [[0, 0]] * 10_001}), "at most 10000"),
    ],
)
def test_nonsense_is_told(text: str, sentence: str) -> None:
    with pytest.raises(FD2TalkError, match=sentence):
        parse_keyframes(text)


def test_lengths_out_of_range_are_told() -> None:
    with pytest.raises(FD2TalkError, match="0 frames"):
        pose_from_keyframes({}, 0, 25.0)
    assert POSE_NAMES == ("pitch", "yaw", "roll", "x", "y", "z")


class Ramp:
    """As newer hosts' CURVE: rises over the clip."""

    def __init__(self, to: float = 1.0) -> None:
        self.to = to

    def interp(self, x: float) -> float:
        return x * self.to


def test_a_curve_lasts_as_long_as_the_clip_and_half_height_is_rest() -> None:
    pose = pose_from_keyframes({"pitch": [(0.0, 3.0)]} | sample_curve(Ramp(), "yaw", 20, 10, 25), 10, 25)
    middles = (torch.arange(10) + 0.5) / 10
    torch.testing.assert_close(pose.values[:, 1], torch.deg2rad((2 * middles - 1) * 20))
    torch.testing.assert_close(pose.values[:, 0], torch.deg2rad(torch.full((10,), 3.0)))


@pytest.mark.parametrize(
    ("curve", "name", "span", "sentence"),
    [
        ([[0, 0], [1, 1]], "yaw", 20, "The curve is .*, but one from a curve node is needed"),
        (Ramp(math.nan), "yaw", 20, "values that are not numbers"),
        (Ramp(), "x", 20, "moves x by 19, but at most 10"),
        (Ramp(), "nod", 20, "A pose has no 'nod'"),
    ],
)
def test_what_is_no_curve_of_a_pose_is_told(curve: object, name: str, span: float, sentence: str) -> None:
    with pytest.raises(FD2TalkError, match=sentence):
        sample_curve(curve, name, span, 20, 25)

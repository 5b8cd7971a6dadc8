"""Some damaged files for every reader, and values of every form; `python -m tests.fuzzing` tries more."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.formats.lip_keys import parse_lip_keys
from fd2talk_core.formats.sequences import load_motion
from fd2talk_core.motion.editing import parse_times
from fd2talk_core.motion.pose_curve import parse_keyframes
from fd2talk_core.motion.tracking import track_from_landmarks
from tests.fuzzing import READERS, attempt, whole
from training.trainer.settings import TrainSettings, apply_overrides, train_settings

CASES = 40
SLOW = {"face model": 6, "landmarker": 6, "encoder": 15, "checkpoint": 20}
"""Readers of large files."""

numbers = st.one_of(st.integers(), st.floats(), st.booleans(), st.none())
words = st.text(max_size=8)
values = st.recursive(
    numbers | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)
few = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def taken_or_told(function: Callable, *arguments: Any, **named: Any) -> None:
    """It gives something, or says in one sentence why not."""
    try:
        function(*arguments, **named)
    except FD2TalkError as error:
        told = str(error)
        assert told and "\n" not in told and len(told) < 2000, told
        told.encode()


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_read_or_told(tmp_path: Path, name: str) -> None:
    av.logging.set_level(av.logging.PANIC)
    refused = sum(attempt(tmp_path, name, 0, case) for case in range(SLOW.get(name, CASES)))
    assert refused, "the damage reaches nothing that is read"


@pytest.mark.parametrize("name", READERS)
def test_what_is_damaged_was_whole(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"whole{READERS[name].ending}"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(whole(name))
    READERS[name].read(path)


@few
@given(values)
def test_motion_of_any_form(tmp_path: Path, value: Any) -> None:
    for content in (
        value,
        {"fps": value, "pose": [[0] * 6]},
        {"fps": 25, "pose": value, "expression": value},
    ):
        (tmp_path / "a.json").write_text(json.dumps(content), encoding="utf-8")
        taken_or_told(load_motion, tmp_path / "a.json")


@few
@given(
    st.dictionaries(
        st.sampled_from(("yaw", "x", "roll", "w")), values | st.lists(st.lists(numbers, max_size=3))
    )
)
def test_keyframes_of_any_form(value: Any) -> None:
    taken_or_told(parse_keyframes, json.dumps(value))
    taken_or_told(parse_times, json.dumps(value))


@few
@given(st.text())
def test_text_of_any_form(text: str) -> None:
    taken_or_told(parse_keyframes, text)
    taken_or_told(parse_times, text)


@few
@given(values)
def test_lip_keys_of_any_form(value: Any) -> None:
    for found in (
        value,
        {"keys": value},
        {"keys": [value]},
        {"rest": value, "keys": [{"time": 1, "left": [1, 2]}]},
    ):
        taken_or_told(parse_lip_keys, json.dumps(found))
    for key in (
        {"time": value, "left": [0, 0]},
        {"time": 1, "left": value},
        {"time": 1, "left": [value, 10**400]},
    ):
        taken_or_told(parse_lip_keys, json.dumps({"keys": [key]}))


@few
@given(values)
def test_landmarks_of_any_form(value: Any) -> None:
    for found in (value, {"frames": value}, {"frames": [value]}, {"frames": [[value]]}):
        taken_or_told(track_from_landmarks, found)
    face = {"landmarks_xy": value, "blendshapes": value, "score": value}
    taken_or_told(track_from_landmarks, {"frames": [[face]]})


@few
@given(st.sampled_from(sorted(vars(TrainSettings()))), values)
def test_settings_of_any_form(name: str, value: Any) -> None:
    taken_or_told(train_settings, {"train": {name: value}})
    taken_or_told(train_settings, {"train": value})


@few
@given(st.text())
def test_overrides_of_any_form(text: str) -> None:
    taken_or_told(apply_overrides, {"train": {"steps": 1}, "frames": 25}, [text])

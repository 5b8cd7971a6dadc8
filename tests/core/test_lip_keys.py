"""Lip keys are met, the voice rules between them, and every odd key is told in one sentence."""

from __future__ import annotations

import json
import math
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.model import FaceModel, apply_pose, default_face_model, project
from fd2talk_core.face.names import ARKIT_NAMES, MOUTH_NAMES
from fd2talk_core.formats.lip_keys import load_lip_keys, parse_lip_keys
from fd2talk_core.motion.coefficients import CoefficientSequence
from fd2talk_core.motion.lip_keys import (
    CORNERS,
    LIP_POINTS,
    MET,
    LipKeys,
    apply_lip_keys,
    lip_keys_of_curve,
    lip_keys_of_track,
    lip_slopes,
    mouth_width,
)
from fd2talk_core.motion.tracking import FaceTrack
from fd2talk_core.pipeline import FD2TalkPipeline

FPS = 25.0
SPARSE = ("left", "right", "upper", "lower")
MOUTH = torch.tensor([name in MOUTH_NAMES for name in ARKIT_NAMES])


@lru_cache
def face_model() -> FaceModel:
    return default_face_model()


def speech(frames: int = 100, seed: int = 0) -> CoefficientSequence:
    """A mouth that opens, rounds and smiles in turn, and other coefficients that are to stay."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(frames)[:, None] / FPS
    rates, phases = torch.rand(2, 52, generator=generator)
    values = 0.5 + 0.5 * torch.sin(2 * math.pi * (time * (1 + 2 * rates) + phases))
    values[:, MOUTH] *= 0.5 * torch.rand(int(MOUTH.sum()), generator=generator)
    return CoefficientSequence("expression", values, FPS, face_model().name, ARKIT_NAMES)


def seen(expression: Tensor, points: tuple[str, ...]) -> Tensor:
    """Offsets ``[F, P, 2]`` in mouth's widths, measured on the mesh itself."""
    rows = [LIP_POINTS[name] for name in points]
    alpha = torch.zeros(1, face_model().identity_dim)
    places, rest = (
        face_model().landmarks(face_model()(alpha, beta))[:, :, :2]
        for beta in (expression, torch.zeros(1, 52))
    )
    width = (rest[0, CORNERS[0]] - rest[0, CORNERS[1]]).norm()
    return (places - rest)[:, rows] / width


def keys_of_another(times: tuple[float, ...], points: tuple[str, ...] = SPARSE) -> LipKeys:
    """Another speech's mouths, of which a few points are told."""
    other = speech(len(times), seed=5).values
    return LipKeys(times, points, seen(other, points))


@pytest.mark.parametrize("between", ["voice", "keys"])
def test_keys_are_met_on_the_mesh_within_a_hundredth_of_the_mouths_width(between: str) -> None:
    times = (0.02, 0.5, 0.78, 1.9, 2.02, 3.98)
    keys, voice = keys_of_another(times), speech()
    keyed = apply_lip_keys(voice, keys, face_model(), between=between)
    frames = [min(math.floor(time * FPS), 99) for time in times]
    missed = (seen(keyed.expression.values, SPARSE)[frames] - keys.offsets).norm(dim=-1)
    before = (seen(voice.values, SPARSE)[frames] - keys.offsets).norm(dim=-1)
    assert missed.max() < MET < 0.1 < before.max()
    assert missed.median() < MET / 10
    torch.testing.assert_close(keyed.misses.float(), missed.amax(dim=1).float(), atol=1e-4, rtol=0)
    assert keyed.report.startswith("6 of 6 lip keys are met within 1 %")
    values = keyed.expression.values
    assert values.min() >= 0 and values.max() <= 1
    assert torch.equal(values[:, ~MOUTH], voice.values[:, ~MOUTH]), "brows and lids are the voice's"


def test_the_voice_rules_beyond_a_keys_reach_and_nothing_jumps() -> None:
    keys, voice = keys_of_another((1.0, 2.5)), speech()
    values = apply_lip_keys(voice, keys, face_model(), reach=0.3).expression.values
    time = (torch.arange(100) + 0.5) / FPS
    away = torch.stack([(time - key).abs() for key in keys.times]).amin(dim=0) > 0.34
    assert away.any() and torch.equal(values[away], voice.values[away])
    jump = (values - voice.values).diff(dim=0).abs().max()
    assert jump < 0.4 * (values - voice.values).abs().max(), "a key fades over several frames"
    held = apply_lip_keys(voice, keys, face_model(), between="keys").expression.values
    inside = held[25:63, MOUTH]
    edges = torch.stack([inside[0], inside[-1]])
    assert (inside >= edges.amin(dim=0) - 1e-6).all() and (inside <= edges.amax(dim=0) + 1e-6).all()


def test_a_key_that_says_little_changes_little() -> None:
    """What a key leaves open stays as close to the voice as it can."""
    voice = speech()
    wanted = float(seen(voice.values[25:26], ("lower",))[0, 0, 1]) - 0.1
    one = LipKeys((1.02,), ("lower",), torch.tensor([[[math.nan, wanted]]]))
    keyed = apply_lip_keys(voice, one, face_model()).expression.values[25]
    assert seen(keyed[None], ("lower",))[0, 0, 1] == pytest.approx(wanted, abs=MET)
    corners = seen(torch.stack([keyed, voice.values[25]]), ("left", "right"))
    assert (corners[0] - corners[1]).norm(dim=-1).max() < 0.05
    same = LipKeys((1.02,), SPARSE, seen(voice.values[25:26], SPARSE))
    torch.testing.assert_close(
        apply_lip_keys(voice, same, face_model()).expression.values, voice.values, atol=2e-3, rtol=0
    )


def test_what_no_mouth_can_do_is_told_and_done_as_far_as_it_goes() -> None:
    far = LipKeys((1.0, 9.0), ("left",), torch.tensor([[[1.5, 0.0]], [[0.0, 0.0]]]))
    keyed = apply_lip_keys(speech(), far, face_model())
    assert keyed.misses[0] > 0.5 and keyed.left_out == 1
    assert "0 of 1 lip keys" in keyed.report and "lies at 1.00 s" in keyed.report
    assert "1 keys lie after" in keyed.report
    with pytest.raises(FD2TalkError, match="All lip keys lie after"):
        apply_lip_keys(speech(), LipKeys((9.0,), ("left",), torch.zeros(1, 1, 2)), face_model())
    pose = CoefficientSequence("pose", torch.zeros(9, 6), FPS, face_model().name)
    with pytest.raises(FD2TalkError, match="not a pose"):
        apply_lip_keys(pose, far, face_model())


def test_a_curve_opens_the_lips() -> None:
    keys = lip_keys_of_curve([(0.75, 0.4), (0.25, 0.0)], 4.0)
    assert keys.times == (1.0, 3.0)
    values = apply_lip_keys(speech(), keys, face_model()).expression.values
    gap = seen(values, ("upper", "lower"))[:, :, 1]
    assert gap[25, 0] - gap[25, 1] == pytest.approx(0.0, abs=0.02)
    assert gap[75, 0] - gap[75, 1] > 0.3
    with pytest.raises(FD2TalkError, match="no points"):
        lip_keys_of_curve([], 4.0)


def test_a_recorded_singers_lips_are_followed_from_any_side() -> None:
    """Landmarks that a camera would see of the face model, turning its head; another person wears them."""
    generator = torch.Generator().manual_seed(2)
    sung = speech(16, seed=3)
    sung.values[:3, MOUTH] = 0  # a breath with shut lips
    alpha = torch.randn(1, face_model().identity_dim, generator=generator) * 0.5
    pose = torch.zeros(16, 6)
    pose[:, 1] = torch.linspace(-0.3, 0.3, 16)
    points = face_model().landmarks(apply_pose(face_model()(alpha, sung.values), pose))
    pixels = torch.zeros(16, 478, 2)
    pixels[:, :468] = (project(points, face_model().camera)[..., :2] + 1) * 256
    eyes = [[33, 133], [362, 263]]
    for iris, corners in ((slice(468, 473), eyes[0]), (slice(473, 478), eyes[1])):
        pixels[:, iris] = pixels[:, corners].mean(dim=1, keepdim=True)
    track = FaceTrack(pixels, sung.values.clone(), torch.ones(16, dtype=torch.bool))
    keys = lip_keys_of_track(track, FPS, face_model())
    assert len(keys.times) == 16 and keys.points == tuple(LIP_POINTS)
    keyed = apply_lip_keys(speech(16), keys, face_model())
    gap = [
        (offsets[:, 0, 1] - offsets[:, 1, 1])
        for offsets in (
            seen(keyed.expression.values, ("upper", "lower")),
            seen(sung.values, ("upper", "lower")),
        )
    ]
    assert torch.corrcoef(torch.stack(gap))[0, 1] > 0.97


def test_files_say_the_same_in_both_forms_and_in_pixels(tmp_path: Path) -> None:
    offsets = {
        "keys": [{"time": 0.5, "upper": [0, 0.1], "lower": [None, -0.3]}, {"time": 0.1, "left": [0.2, 0]}]
    }
    keys = parse_lip_keys(json.dumps(offsets))
    assert keys.times == (0.1, 0.5) and set(keys.points) == {"left", "upper", "lower"}
    assert keys.offsets[1, keys.points.index("lower")].isnan().tolist() == [True, False]
    (tmp_path / "keys.csv").write_text(
        "time,left_x,left_y,right_x,right_y,upper_x,upper_y,lower_x,lower_y\n"
        "rest,100,200,150,200,125,198,125,198\n0.5,,,,,125,193,,213\n0.1,110,200,,,,,,\n",
        encoding="utf-8",
    )
    tracked = load_lip_keys(tmp_path / "keys.csv")
    for name in keys.points:
        ours, theirs = keys.points.index(name), tracked.points.index(name)
        torch.testing.assert_close(
            keys.offsets[:, ours], tracked.offsets[:, theirs], equal_nan=True, atol=1e-9, rtol=0
        )
    framed = parse_lip_keys('{"fps": 25, "keys": [{"frame": 10, "left": [0, 0.1]}]}')
    assert framed.times == (pytest.approx(0.42),)


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("{", "are not JSON"),
        ("[]", "hold no list of keys"),
        ('{"keys": [{"left": [0, 0]}]}', "Lip key 1 has no time"),
        ('{"keys": [{"time": 0, "nose": [0, 0]}]}', "no point 'nose'"),
        ('{"keys": [{"time": 0, "left": [0]}]}', r"\[x, y\] is needed"),
        ('{"keys": [{"time": -1, "left": [0, 0]}]}', "from 0 to"),
        ('{"keys": [{"time": 0, "left": [null, null]}]}', "says nothing"),
        ('{"keys": [{"time": 0, "left": [310, 40]}]}', "are its numbers pixels"),
        ('{"keys": [{"time": 1, "left": [0, 0]}, {"time": 1, "left": [0, 0]}]}', "order of time, at 1 s"),
        ('{"keys": [{"frame": 1, "left": [0, 0]}]}', "'fps' is missing"),
        ('{"rest": {"left": [1, 1]}, "keys": [{"time": 1, "left": [0, 0]}]}', "The rest needs"),
    ],
)
def test_odd_keys_are_told(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text(text, encoding="utf-8")
    with pytest.raises(FD2TalkError, match=sentence) as told:
        load_lip_keys(tmp_path / "keys.json")
    assert str(told.value).startswith("keys.json: ")


def test_the_pipeline_takes_a_file_of_keys() -> None:
    example = Path(__file__).parents[2] / "example_inputs" / "lip_keys.json"
    pose = CoefficientSequence("pose", torch.zeros(135, 6), FPS, face_model().name)
    head = FD2TalkPipeline.from_config().animate(motion=(speech(135), pose), lip_keys=example)
    assert head.report.startswith("4 of 4 lip keys are met")
    assert mouth_width(face_model()) > 0.3 and lip_slopes(face_model(), SPARSE).shape == (4, 2, 52)

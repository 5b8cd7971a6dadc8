"""A face that says nothing breathes at people's rates; while it speaks, nothing is added."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from fd2talk_core import configs
from fd2talk_core.audio.features import AudioFeatures
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.names import ARKIT_NAMES, OPEN_FACE_MODEL, POSE_NAMES
from fd2talk_core.live.motion import IdleMotion, Rows
from fd2talk_core.motion import breathing
from fd2talk_core.motion.sampling import sample_motion

FPS = 25.0
JAW, BROW, NOSTRIL = (ARKIT_NAMES.index(name) for name in ("jawOpen", "browInnerUp", "noseSneerLeft"))


def instants(seconds: float, fps: float = FPS) -> torch.Tensor:
    return (torch.arange(round(seconds * fps), dtype=torch.float64) + 0.5) / fps


def talk(*parts: tuple[bool, float]) -> torch.Tensor:
    """Whether somebody speaks, in parts of some seconds."""
    return torch.cat([torch.full((round(seconds * FPS),), spoken) for spoken, seconds in parts])


@pytest.mark.parametrize("seed", range(5))
def test_breaths_come_at_peoples_rates_and_take_longer_to_leave(seed: int) -> None:
    full = breathing.quiet_breath(instants(300), seed)
    assert full.min() >= 0 and full.max() <= 1 and full.max() > 0.8
    rising = full.diff() > 0
    breaths = int((rising[1:] & ~rising[:-1]).sum()) / 5
    assert 11.5 <= breaths <= 18.5
    assert 0.36 < rising.float().mean() < 0.44
    assert full.diff().abs().max() < 0.07, "never jerky"


def test_breath_and_brows_are_functions_of_time_and_seed() -> None:
    for one in (breathing.quiet_breath, breathing.brow_lift):
        whole = one(instants(120), 3)
        assert torch.equal(one(instants(120)[1000:1500], 3), whole[1000:1500])
        torch.testing.assert_close(one(instants(120, 75.0)[1::3], 3), whole)
        assert not torch.allclose(one(instants(120), 4), whole, atol=1e-2)
    lift = breathing.brow_lift(instants(300), 0)
    assert lift.min() >= 0 and 0.05 < lift.max() < 0.23
    up = lift > 0.01
    assert 20 <= int((up[1:] & ~up[:-1]).sum()) <= 34 and 0.1 < up.float().mean() < 0.4


def test_a_clip_breathes_in_pauses_alone_and_deeper_before_a_phrase() -> None:
    spoken = talk((False, 2), (True, 2), (False, 0.5), (True, 1), (False, 0.8), (True, 1), (False, 5))
    breath, lips, rest = breathing.breath_between(spoken, FPS, 1)
    for track in (breath, lips, rest):
        assert track.min() >= 0 and not track[spoken].any()
        assert track.diff().abs().max() < 0.45
    starts = [index for index in range(1, len(spoken)) if spoken[index] and not spoken[index - 1]]
    first, short, middle = starts
    for start, least, most in ((first, 0.9, 1.0), (middle, 0.3, 0.5)):
        before = slice(start - 20, start)
        assert least < lips[before].max() <= most and 1.5 * least < breath[before].max() <= 2 * most
        assert not lips[start - 2 : start].any(), "lips that begin with a p are shut"
    assert not lips[short - 12 : short].any() and not breath[short - 12 : short].any(), "no time for it"
    after = slice(starts[-1] + 25, len(spoken))
    assert not lips[after].any() and breath[after].max() > 0.5, "at rest through the nose"
    assert not breathing.breath_between(talk((True, 1)), FPS, 0)[0].any()
    assert not breathing.breath_between(talk((False, 4)), FPS, 0)[1].any()


def heard(spoken: torch.Tensor | None) -> AudioFeatures:
    features = torch.randn(150, 138, generator=torch.Generator().manual_seed(0))
    return AudioFeatures(features, Fraction(6), 30.0, "test", spoken=spoken)


@pytest.mark.parametrize("kind", ["expression", "pose"])
def test_what_is_sampled_breathes_where_nobody_speaks(kind: str) -> None:
    sizes = {"num_layers": 1, "hidden_size": 32, "condition_dim": 32, "num_heads": 2}
    network = configs.build(kind, "tiny", 0, **sizes, recommended_steps=1, free_steps=0)
    size = network.config.coefficient_dim
    network.set_normalization(torch.full((size,), 0.3), torch.full((size,), 0.05))
    spoken = talk((True, 2), (False, 4))
    plain = sample_motion(network, heard(None), seed=3).values
    made = sample_motion(network, heard(spoken), seed=3).values
    talked = sample_motion(network, heard(torch.ones(150, dtype=torch.bool)), seed=3).values
    assert torch.equal(talked, plain) and torch.equal(made[:59], plain[:59])
    assert torch.equal(made, sample_motion(network, heard(spoken), seed=3).values)
    moved = (made - plain).abs().amax(dim=0)
    names = POSE_NAMES if kind == "pose" else ARKIT_NAMES
    wanted = {"pitch", "y"} if kind == "pose" else {*breathing.NOSTRILS, *breathing.BROW}
    assert {name for name, by in zip(names, moved.tolist(), strict=True) if by > 1e-4} == wanted
    still = sample_motion(network, heard(spoken), seed=3, intensity=0.0).values
    assert still.diff(dim=0).abs().max() < 1e-6, "nor does a face that is told to rest"


def test_features_know_as_many_frames_as_they_say_are_spoken() -> None:
    with pytest.raises(FD2TalkError, match="are said to be spoken"):
        replace(heard(None), spoken=torch.ones(3, dtype=torch.bool))


def test_who_waits_breathes_without_parting_the_lips() -> None:
    idle = IdleMotion(ARKIT_NAMES, len(ARKIT_NAMES), FPS, 5, OPEN_FACE_MODEL)
    rows = Rows.join([idle.rows(number) for number in range(25 * 41)])
    full = breathing.quiet_breath(instants(41), 5)
    torch.testing.assert_close(rows.expression[:, NOSTRIL].double(), 0.04 * full, atol=1e-6, rtol=0)
    assert rows.expression[:, JAW].max() == 0 and rows.expression[:, BROW].max() > 0.05
    calm = IdleMotion((), 3, FPS, 5, OPEN_FACE_MODEL).rows(7)
    assert not calm.expression.any() and calm.pose.any(), "a face model without names has a head alone"

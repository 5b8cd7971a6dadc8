"""Networks run in bfloat16 where the device multiplies it: nobody can tell it by the frames."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fd2talk_core.formats.sequences import load_motion
from fd2talk_core.motion.coefficients import CoefficientSequence
from fd2talk_core.networks import precision
from fd2talk_core.pipeline import FD2TalkPipeline

EXAMPLES = Path(__file__).parents[2] / "example_inputs"
CPU = torch.device("cpu")


def test_bfloat16_is_used_where_it_is_native_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for native in (True, False):
        monkeypatch.setattr(precision, "multiplies_bfloat16", lambda device, native=native: native)
        layer = torch.nn.Conv2d(1, 1, 1)
        with precision.fast_math(CPU):
            made = layer(torch.ones(1, 1, 2, 2))
        assert made.dtype == (torch.bfloat16 if native else torch.float32)
    monkeypatch.undo()
    assert not precision.multiplies_bfloat16(torch.device("mps"))


def test_frames_are_those_of_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    if not precision.multiplies_bfloat16(CPU):
        pytest.skip("This processor has no bfloat16.")
    pipeline = FD2TalkPipeline.from_pretrained("tiny")
    pose = load_motion(EXAMPLES / "nods_and_turns.json").require("pose")
    pose = pose.replace(values=pose.values[20:32:4])
    shapes = 0.5 * torch.rand(3, 52, generator=torch.Generator().manual_seed(0))
    motion = CoefficientSequence("expression", shapes, pose.fps, pose.face_model), pose

    def frames() -> Tensor:
        return pipeline(EXAMPLES / "portrait.png", motion=motion, paste_back=False).frames()

    fast = frames()
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda device: False)
    plain = frames()
    error = (fast - plain).abs() * 255
    assert 0 < error.mean() < 0.1 and error.max() < 4
    # of the change in float32, which these frames do show
    assert (plain[0] - plain[-1]).abs().mean() * 255 > 1

"""How wide a mouth stands open in noise, as the scorecard measures it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from fd2talk_core.audio.resampling import SAMPLE_RATE
from fd2talk_core.networks.checkpoint import SHIPPED
from training.scorecard.silence import LEVELS, pink_noise, silence_rows
from training.scorecard.table import table
from training.scorecard.weights import Weights


def test_noise_is_as_loud_as_it_says_and_falls_by_three_decibels_an_octave() -> None:
    noise = pink_noise(-40, 8)
    assert noise.square().mean().log10() * 10 == pytest.approx(-40, abs=0.1)
    power = torch.fft.rfft(noise).abs().square()
    octaves = [power[8 * low : 16 * low].mean().log10() * 10 for low in (125, 250, 500, 1000, 2000)]
    falls = torch.stack(octaves).diff()
    torch.testing.assert_close(falls, torch.full((4,), -3.0), atol=0.5, rtol=0)


def test_a_mouth_that_hears_a_voice_in_noise_is_told() -> None:
    """One that opens by a hundred times the loudness misses the target where it is loud."""

    def heard(sound: torch.Tensor, rate: int, fps: float) -> torch.Tensor:
        assert rate == SAMPLE_RATE
        return sound.square().mean().sqrt()

    def said(loudness: torch.Tensor, seed: int) -> tuple:
        return SimpleNamespace(values=(100 * loudness).expand(5, 1)), None

    weights = SimpleNamespace(
        audio_encoder=SimpleNamespace(encode=heard),
        face_model=SimpleNamespace(expression_names=("jawOpen",), name="one"),
        sequences=said,
    )
    rows = silence_rows(weights)
    assert [row.value for row in rows] == pytest.approx(
        [100 * 10 ** (level / 20) for level in LEVELS], rel=1e-2
    )
    assert [row.met for row in rows] == [False, False, False]
    weights.face_model.expression_names = ()
    (row,) = silence_rows(weights)
    assert row.value is None and "no jawOpen" in row.note


def test_the_shipped_mouth_stays_shut() -> None:
    rows = silence_rows(Weights.load(SHIPPED / "tiny"), seeds=1)
    assert all(row.met for row in rows), table(rows)

"""Band levels against tones whose spectrum is known."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from fd2talk_core import configs
from fd2talk_core.audio.bands import band_levels
from fd2talk_core.audio.encoder import AudioEncoder
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.networks.checkpoint import CheckpointInfo, load_checkpoint, save_checkpoint

RATE, FIRST, STEP = 16000, 200, 320
EDGES = (100.0, 600.0, 2000.0, 4000.0)


def tone(hertz: float, seconds: float, amplitude: float = 0.1) -> Tensor:
    return amplitude * torch.sin(2 * math.pi * hertz * torch.arange(round(seconds * RATE)) / RATE)


def levels(waveform: Tensor, edges: tuple[float, ...] = EDGES) -> Tensor:
    return band_levels(waveform, edges, FIRST, STEP, (len(waveform) - 400) // STEP + 1)


def test_a_band_is_loud_while_its_tone_sounds() -> None:
    """A quarter of a second of 300 Hz, then one of 3 kHz, and so on; a moment is the middle of its window."""
    found = levels(torch.cat([tone(300, 0.25), tone(3000, 0.25)] * 4))
    instant = (FIRST + STEP * torch.arange(len(found))) / RATE
    phase = instant % 0.5
    low, high = ((phase > start + 0.04) & (phase < start + 0.21) for start in (0, 0.25))
    assert (found[low, 0] > 1).all() and (found[high, 0] < -1).all()
    assert (found[low, 2] < -1).all() and (found[high, 2] > 1).all()
    inside = (instant > 0.1) & (instant < 1.9)
    assert (((found[:, 0] > found[:, 2]) == (phase < 0.25)) | ~inside).float().mean() > 0.97


def test_loudness_changes_nothing_and_silence_is_nothing() -> None:
    speech = torch.cat([tone(300, 1), torch.zeros(RATE), tone(3000, 1)])
    torch.testing.assert_close(levels(10 * speech), levels(speech), atol=1e-3, rtol=0)
    assert levels(speech)[55:95].abs().max() < 1e-3
    assert levels(torch.zeros(RATE)).abs().max() == 0


def test_a_long_recording_is_taken_in_pieces() -> None:
    """More moments than are transformed at once, against a plain loop."""
    noise = torch.randn(12 * RATE, generator=torch.Generator().manual_seed(0))
    found = levels(noise)
    window = torch.hann_window(1024, periodic=False)
    rows = []
    for index in range(len(found)):
        start = FIRST + STEP * index - 512
        piece = torch.cat([noise.new_zeros(max(-start, 0)), noise[max(start, 0) : start + 1024]])
        piece = torch.cat([piece, piece.new_zeros(1024 - len(piece))])
        power = torch.fft.rfft(piece * window).abs().square()
        hertz = torch.arange(513) * RATE / 1024
        rows.append([float(power[(hertz >= a) & (hertz < b)].sum()) for a, b in pairwise(EDGES)])
    power = torch.tensor(rows)
    loud = (power + 1e-4 * power.sum(dim=1).quantile(0.95)).log()
    usual = torch.stack([loud[max(i - 37, 0) : i + 38].mean(dim=0) for i in range(len(loud))])
    torch.testing.assert_close(found, loud - usual, atol=1e-3, rtol=0)


@pytest.fixture(scope="module")
def plain() -> AudioEncoder:
    return configs.build("audio_encoder", "tiny", 0, bands=()).train(False)


def with_bands(plain: AudioEncoder) -> AudioEncoder:
    encoder = AudioEncoder.from_config({**plain.config, "bands": list(EDGES)}).train(False)
    encoder.load_state_dict(plain.state_dict())
    return encoder


def test_an_encoder_gives_them_beside_its_own_features(plain: AudioEncoder, tmp_path) -> None:
    encoder = with_bands(plain)
    assert encoder.feature_dim == plain.feature_dim + 3 and encoder.hidden_dim == plain.feature_dim
    waveform = tone(300, 1.5)
    heard, own = encoder.encode_16k(waveform), plain.encode_16k(waveform)
    assert torch.equal(heard[:, :-3], own)
    middle = encoder.receptive_field // 2
    assert torch.equal(heard[:, -3:], band_levels(waveform, EDGES, middle, STEP, len(own)))
    save_checkpoint(encoder, tmp_path / "audio_encoder.safetensors", CheckpointInfo())
    loaded = load_checkpoint(tmp_path / "audio_encoder.safetensors", AudioEncoder)
    torch.testing.assert_close(loaded.encode_16k(waveform), heard, atol=0.02, rtol=0)  # half precision
    assert "bands" not in plain.config


@pytest.mark.parametrize(
    "edges", [[300.0], [300.0, 200.0], [-1.0, 300.0], [300.0, 9000.0], [300.0, math.nan]]
)
def test_bands_that_are_none_are_refused(plain: AudioEncoder, edges: list[float]) -> None:
    with pytest.raises(FD2TalkError, match="at least two rising frequencies"):
        AudioEncoder.from_config({**plain.config, "bands": edges})

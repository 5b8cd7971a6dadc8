"""Noise is no voice: how loud it is taken to be, in which frames somebody speaks, and what the mouth does."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fd2talk_core import configs
from fd2talk_core.audio.encoder import AudioEncoder
from fd2talk_core.audio.front import HEADROOM, block_powers, level_of, noise_floor
from fd2talk_core.audio.pauses import PAUSE_SECONDS, spoken_frames
from fd2talk_core.audio.reading import read_audio
from fd2talk_core.audio.resampling import to_mono_16k
from fd2talk_core.face.names import ARKIT_NAMES, OPEN_FACE_MODEL
from fd2talk_core.live.hearing import VoiceLevel
from fd2talk_core.motion.sampling import sample_motion
from fd2talk_core.networks.checkpoint import find_checkpoint
from scripts.environment import ROOT
from training.scorecard.silence import pink_noise

RATE = 16_000
JAW = ARKIT_NAMES.index("jawOpen")


@pytest.fixture(scope="module")
def speech() -> Tensor:
    return to_mono_16k(*read_audio(ROOT / "example_inputs" / "speech.wav"))


def test_speech_keeps_its_level_and_noise_is_taken_to_be_quieter(speech: Tensor) -> None:
    for voice in (speech, 0.03 * speech, speech + pink_noise(-55, len(speech) / RATE)):
        assert level_of(voice)[1] == pytest.approx(float(voice.var(unbiased=False)), rel=1e-4)
    for hiss in (pink_noise(-60, 3), pink_noise(-20, 3), torch.cat([torch.zeros(RATE), pink_noise(-40, 3)])):
        quieter = 10 * math.log10(level_of(hiss)[1] / float(hiss.var(unbiased=False)))
        assert 11 < quieter < 17
    assert level_of(torch.zeros(RATE))[1] == 0
    assert level_of(pink_noise(-40, 0.5))[1] == pytest.approx(1e-4, rel=1e-2), "too short to tell"


def test_the_floor_is_that_of_each_recording(speech: Tensor) -> None:
    both = torch.stack([pink_noise(-40, 3), torch.zeros(3 * RATE), speech[: 3 * RATE]])
    floors = noise_floor(block_powers(both))
    assert floors[0] == pytest.approx(0.6 * HEADROOM * 1e-4, rel=0.2) and floors[1] == 0
    for row, floor in zip(both, floors, strict=True):
        torch.testing.assert_close(noise_floor(block_powers(row)), floor)


def test_a_network_hears_whole_clips_as_it_hears_recordings() -> None:
    encoder = configs.build("audio_encoder", "tiny", 0, bands=()).train(False).requires_grad_(False)
    hiss = pink_noise(-50, 1.5)
    torch.testing.assert_close(encoder(hiss[None])[0], encoder.encode_16k(hiss), atol=1e-4, rtol=0)


def test_a_microphone_that_is_left_on_is_no_quiet_voice(speech: Tensor) -> None:
    level = VoiceLevel()
    for piece in pink_noise(-60, 90).split(777):
        level.add(piece)
    assert 11 < 10 * math.log10(level.value[1] / 1e-6) < 16
    level = VoiceLevel()
    for _ in range(12):
        for piece in (speech + pink_noise(-60, len(speech) / RATE)).split(777):
            level.add(piece)
    assert level.value[1] == pytest.approx(float(speech.var()), rel=0.1), "a voice counts as what it is"


def test_noise_leaves_the_mouth_shut() -> None:
    """Normalised to the loudness of a voice, each of these held it open by 0.11 to 0.16 on average."""
    encoder = AudioEncoder.from_pretrained(find_checkpoint("audio_encoder", "tiny", []))
    network = configs.load_network("expression", find_checkpoint("expression", "tiny", []), OPEN_FACE_MODEL)
    for decibels in (-60, -40):
        features = encoder.encode(pink_noise(decibels, 3), RATE, 25.0)
        motion = sample_motion(network, features, seed=0, mouth_alone=True)
        assert motion.values[:, JAW].mean() < 0.03


def test_pauses_are_found_whatever_the_room(speech: Tensor) -> None:
    """A second before, two after, and what is said between them has no pause of its own."""
    sound = torch.cat([torch.zeros(RATE), speech[: 2 * RATE], torch.zeros(2 * RATE)])
    for heard in (sound, sound + pink_noise(-60, 5), sound + pink_noise(-45, 5), 0.01 * sound):
        spoken = spoken_frames(heard, 125, 25.0)
        assert not spoken[:24].any() and not spoken[77:].any()
        assert spoken[30:70].float().mean() > 0.6
        edges = spoken.int().diff().nonzero().flatten()
        assert (edges.diff()[1::2] > PAUSE_SECONDS * 25).all(), "what is silent is so for a while"
    for silent in (torch.zeros(RATE), pink_noise(-60, 1), pink_noise(-20, 1), torch.zeros(100)):
        assert not spoken_frames(silent, 25, 25.0).any()

"""PBNet behind the pose: any length, one motion a seed, a checkpoint like any other (DAWN Eq. 8, 9)."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch

from fd2talk_core import configs
from fd2talk_core.audio.features import AudioFeatures
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.names import ARKIT_NAMES
from fd2talk_core.face.state import FaceState
from fd2talk_core.motion.coefficients import CoefficientSequence
from fd2talk_core.motion.sampling import sample_motion, sample_pose_and_blinks, take_blinks
from fd2talk_core.networks.checkpoint import CheckpointInfo, save_checkpoint
from fd2talk_core.networks.pose_blink import STATE_DIM, PoseBlinkNetwork, divergence

FACE = "anny-arkit52"


def network(**changes: object) -> PoseBlinkNetwork:
    sizes = {"audio_dim": 12, "hidden_size": 32, "condition_dim": 24, "num_layers": 1, "attention_window": 8}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return PoseBlinkNetwork.from_config({**sizes, "face_model": FACE, **changes}).train(False)


def heard(frames: int, fps: float = 25.0) -> AudioFeatures:
    features = torch.randn(frames, 12, generator=torch.Generator().manual_seed(1))
    return AudioFeatures(features, Fraction(frames, 25), fps, "some encoder", 25.0)


def test_a_code_that_is_standard_normal_diverges_by_nothing() -> None:
    assert divergence(torch.zeros(2, 5, 3), torch.zeros(2, 5, 3)) == 0
    mean, log_deviation = torch.randn(2, 5, 3), torch.randn(2, 5, 3)
    normal = torch.distributions.Normal
    known = torch.distributions.kl_divergence(normal(mean, log_deviation.exp()), normal(0, 1))
    torch.testing.assert_close(divergence(mean, log_deviation), known.sum(-1).mean())


def test_the_encoder_gives_a_code_a_frame_and_the_decoder_hears_and_starts() -> None:
    model, generator = network(), torch.Generator().manual_seed(2)
    start, change = torch.randn(2, STATE_DIM, generator=generator), torch.randn(2, 9, STATE_DIM)
    audio, noise = torch.randn(2, 9, 12), torch.zeros(2, 9, 16)
    rebuilt, mean, _ = model(start, change, audio, noise)
    assert rebuilt.shape == change.shape and mean.shape == (2, 9, 16)
    torch.testing.assert_close(model.decode(mean, start, audio), rebuilt)
    for other in (model.decode(mean, start + 1, audio), model.decode(mean, start, audio + 1)):
        assert (other - rebuilt).abs().max() > 1e-4


def test_a_seed_is_one_motion_at_every_length_and_rate() -> None:
    model = network()
    pose, lids = sample_pose_and_blinks(model, heard(60), seed=4)
    assert pose.values.shape == (60, 6) and lids.shape == (60, 2)
    assert lids.min() >= 0 and lids.max() <= 1
    again, other = (sample_motion(model, heard(60), kind="pose", seed=seed) for seed in (4, 5))
    assert torch.equal(again.values, pose.values) and not torch.equal(other.values, pose.values)
    # local attention: what comes later than its reach changes nothing
    longer = AudioFeatures(
        torch.cat([heard(60).features, torch.ones(600, 12)]), Fraction(660, 25), 25.0, "some encoder", 25.0
    )
    torch.testing.assert_close(
        sample_motion(model, longer, seed=4).values[:40], pose.values[:40], atol=1e-5, rtol=1e-4
    )
    assert sample_motion(model, heard(60, fps=50.0), seed=4).num_frames == 120


def test_a_portrait_is_where_it_starts() -> None:
    held = torch.tensor([0.1, -0.2, 0.05, 0.01, 0.02, 0.03])
    portrait = FaceState(torch.zeros(80), torch.zeros(52), held, FACE)
    posed = sample_motion(network(), heard(20), seed=0, portrait=portrait)
    torch.testing.assert_close(posed.values[0], held, atol=1e-5, rtol=0)


def test_its_file_is_a_pose_checkpoint_and_what_it_knows_nothing_of_is_refused(tmp_path: Path) -> None:
    model = network()
    save_checkpoint(model, tmp_path / "pose.safetensors", CheckpointInfo(FACE, 25.0), dtype=None)
    loaded = configs.load_network("pose", tmp_path / "pose.safetensors", FACE)
    assert isinstance(loaded, PoseBlinkNetwork)
    found = sample_motion(loaded, heard(20), kind="pose", seed=1)
    assert torch.equal(found.values, sample_motion(model, heard(20), seed=1).values)
    with pytest.raises(FD2TalkError, match="PoseBlinkNetwork, but a MotionTransformer"):
        configs.load_network("expression", tmp_path / "pose.safetensors", FACE)
    with pytest.raises(FD2TalkError, match="predicts the pose"):
        sample_motion(model, heard(20), kind="expression", seed=1)
    for given in ({"steps": 8}, {"guidance": 2.0}):
        with pytest.raises(FD2TalkError, match="decodes in one pass"):
            sample_motion(model, heard(20), seed=1, **given)
    with pytest.raises(FD2TalkError, match="channels"):
        sample_motion(network(audio_dim=8), heard(20), seed=1)


def test_lids_follow_the_head_and_all_else_stays() -> None:
    model, face = network(), CoefficientSequence("expression", torch.rand(20, 52), 25.0, FACE, ARKIT_NAMES)
    blinking = take_blinks(face, model, heard(20), seed=3)
    lids = [ARKIT_NAMES.index("eyeBlinkLeft"), ARKIT_NAMES.index("eyeBlinkRight")]
    assert torch.equal(blinking.values[:, lids], sample_pose_and_blinks(model, heard(20), seed=3)[1])
    others = [index for index in range(52) if index not in lids]
    assert torch.equal(blinking.values[:, others], face.values[:, others])
    assert take_blinks(face, configs.build("pose", "tiny"), heard(20), seed=3) is face

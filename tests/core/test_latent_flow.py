"""DAWN's renderer behind the sampler: what flows do, who sees whom, and any length in stretches."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fd2talk_core import configs
from fd2talk_core.audio.features import AudioFeatures
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.crop import CropTransform
from fd2talk_core.face.model import default_face_model
from fd2talk_core.face.names import ARKIT_NAMES, OPEN_FACE_MODEL
from fd2talk_core.face.state import FaceState
from fd2talk_core.frames import flow_denoising
from fd2talk_core.frames.correspondence import SMALLEST_VIEW
from fd2talk_core.frames.denoising import iter_latents, sample_latents
from fd2talk_core.frames.flow_denoising import face_mask, states_of
from fd2talk_core.frames.portrait_motion import PortraitMotion
from fd2talk_core.frames.reference import Reference
from fd2talk_core.live.avatar import LiveAvatar
from fd2talk_core.networks import precision
from fd2talk_core.networks.checkpoint import CheckpointInfo, save_checkpoint
from fd2talk_core.networks.latent_flow import FlowPredictor, LatentFlowUNet, moved_by_flow
from tests.core.test_pipeline import PORTRAIT, small_pipeline, voice

SIZE, WINDOW, HEARD = 8, 2, 6


@pytest.fixture(autouse=True)
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda device: False)


def network(seed: int = 0, **changes: object) -> LatentFlowUNet:
    """One whose frames do see one another, as those of a trained one."""
    sizes = {
        "latent_channels": 4,
        "sample_size": SIZE,
        "block_out_channels": (8, 16),
        "attention_levels": (False, True),
        "attention_head_dim": 8,
        "context_dim": 8,
        "attention_window": WINDOW,
    }
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = LatentFlowUNet.from_config({**sizes, **changes})
    for value in made.parameters():
        value.data += 0.1 * torch.randn(value.shape, generator=generator)
    return made.requires_grad_(False).train(False)


def inputs(frames: int, state_dim: int = 58) -> tuple[Tensor, ...]:
    """Noisy planes, Δρ, the portrait's latent and its face."""
    generator = torch.Generator().manual_seed(3)
    shapes = ((1, frames, 3, SIZE, SIZE), (1, frames, state_dim), (1, 4, SIZE, SIZE), (1, 1, SIZE, SIZE))
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


@pytest.fixture(scope="module")
def portrait() -> Reference:
    generator = torch.Generator().manual_seed(1)
    latent, crop = torch.randn(4, SIZE, SIZE, generator=generator), torch.rand(64, 64, 3, generator=generator)
    face = FaceState(torch.zeros(80), torch.zeros(len(ARKIT_NAMES)), torch.zeros(6), OPEN_FACE_MODEL)
    return Reference(latent, face, crop, CropTransform.of_square(32.0, 32.0, 64.0, 64), crop, True)


def moving(portrait: Reference, frames: int) -> PortraitMotion:
    generator = torch.Generator().manual_seed(2)
    expression = torch.rand(frames, len(ARKIT_NAMES), generator=generator)
    pose = 0.1 * torch.randn(frames, 6, generator=generator)
    return PortraitMotion(portrait.face, expression, pose, default_face_model())


def test_a_flow_moves_and_a_map_blocks() -> None:
    """DAWN Eq. 4, cell by cell."""
    latent = torch.arange(2 * SIZE * SIZE, dtype=torch.float32).view(1, 2, SIZE, SIZE)
    planes = torch.zeros(3, 3, SIZE, SIZE)
    planes[:, 2] = 1
    planes[1, 0] = 2 / SIZE  # a cell is two of so many half widths
    planes[2, 2] = 0.25
    still, shifted, blocked = moved_by_flow(latent, planes)
    torch.testing.assert_close(still, latent[0])
    torch.testing.assert_close(shifted[..., :-1], latent[0, ..., 1:])
    torch.testing.assert_close(blocked, latent[0] / 4)


def test_an_untrained_predictor_moves_nothing_and_learns_a_shift() -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        predictor = FlowPredictor(latent_channels=4, width=8, radius=2, norm_num_groups=4)

    def latents() -> Tensor:
        """Smooth, as pictures' are: of noise no gradient says which way to move."""
        return F.interpolate(torch.randn(8, 4, 6, 6, generator=generator), size=16, mode="bicubic")

    source = latents()
    planes = predictor(source, source.roll(1, dims=-1))
    assert planes[:, :2].abs().max() == 0 and planes[:, 2:].min() > 0.9
    optimizer = torch.optim.Adam(predictor.parameters(), lr=3e-3)
    for _ in range(60):
        driving = source.roll(1, dims=-1)
        loss = (moved_by_flow(source, predictor(source, driving)) - driving).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        source = latents()
    # the shift is to the left by one of sixteen cells
    assert loss < 0.1 * (source - driving).square().mean()
    flow = predictor(source, source.roll(1, dims=-1))[:, 0, 2:-2, 2:-2]
    assert abs(float(flow.detach().median()) + 2 / 16) < 0.02


def test_frames_see_as_far_as_the_window_and_no_further_while_untrained() -> None:
    noisy, change, latent, face = inputs(12)
    changed = change.clone()
    changed[:, 0] += 1

    def differs(model: LatentFlowUNet) -> list[bool]:
        both = (model(noisy, 500, states, latent, face) for states in (change, changed))
        first, second = both
        return [bool((a - b).abs().max() > 1e-6) for a, b in zip(first[0], second[0], strict=True)]

    with torch.random.fork_rng():
        torch.manual_seed(0)
        untrained = LatentFlowUNet.from_config(network().config).requires_grad_(False)
    untrained.conv_out.weight.data += 0.1
    assert differs(untrained) == [True] + 11 * [False]
    trained = differs(network(attention_levels=(False, False)))  # the middle alone, one layer
    assert trained == (1 + WINDOW) * [True] + (11 - WINDOW) * [False]


def test_a_clip_is_made_in_stretches_and_a_part_as_in_the_whole(
    portrait: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow_denoising, "STRETCH", 8)
    model, motion = network(audio_dim=HEARD, states="pose_and_blinks"), moving(portrait, 21)
    heard = torch.randn(21, HEARD, generator=torch.Generator().manual_seed(5))
    calls: list[tuple[int, int]] = []
    options = {"heard": heard, "seed": 4, "steps": 2, "eta": 0.5, "noise_mode": "per_frame"}
    whole = sample_latents(
        model, portrait, motion, callback=lambda done, total, _: calls.append((done, total)), **options
    )
    assert whole.shape == (21, 4, SIZE, SIZE) and calls[-1] == (42, 42)
    for frames in (range(8), range(8, 16), range(5, 19)):
        part = sample_latents(model, portrait, motion.part(frames), **options)
        assert torch.equal(part, whole[frames.start : frames.stop])
    # a part of a part, too
    twice = sample_latents(model, portrait, motion.part(range(3, 20)).part(range(4, 9)), **options)
    assert torch.equal(twice, whole[7:12])
    sizes = [len(chunk) for chunk in iter_latents(model, portrait, motion, frames_per_batch=5, **options)]
    assert sizes == [5, 3, 5, 3, 5]


def test_it_is_told_what_differs_from_the_portrait(portrait: Reference) -> None:
    """Δρ of DAWN Sec. 3.3: a portrait that looks elsewhere already is not turned twice."""
    model, motion = network(), moving(portrait, 3)
    made = sample_latents(model, portrait, motion, seed=0, steps=1)
    turned = FaceState(
        portrait.face.identity, portrait.face.expression, torch.full((6,), 0.05), OPEN_FACE_MODEL
    )
    other = PortraitMotion(turned, motion.expression, motion.pose + 0.05, motion.face_model)
    # the face's own place in the picture is told beside it, so only that may differ
    face = face_mask(motion.portrait_view(SMALLEST_VIEW), SIZE)
    assert 0.1 < float(face.mean()) < 0.9
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flow_denoising, "face_mask", lambda view, size: face)
        again = sample_latents(model, portrait, other, seed=0, steps=1)
    torch.testing.assert_close(again, made, atol=1e-5, rtol=1e-4)
    states = states_of(torch.arange(58.0)[None], network(states="pose_and_blinks"), motion.face_model)
    lids = [float(ARKIT_NAMES.index(name)) for name in ("eyeBlinkLeft", "eyeBlinkRight")]
    assert states.tolist() == [[*map(float, range(52, 58)), *lids]]


def test_sound_is_heard_where_the_frame_is() -> None:
    native = torch.arange(10.0)[:, None].expand(10, 2)
    features = AudioFeatures(native, Fraction(10, 25), 50.0, "some encoder")
    at_50 = features.on_frames(20)[:, 0]
    # frame i of 50 a second stands at (i + 0.5) / 50 s, row j at (j + 0.5) / 25 s
    torch.testing.assert_close(at_50[1:-1], (torch.arange(1.0, 19.0) + 0.5) / 2 - 0.5)
    assert torch.equal(AudioFeatures(native, Fraction(10, 25), 25.0, "").on_frames(10), native)
    with pytest.raises(FD2TalkError, match="20 frames, but the motion has 30"):
        features.on_frames(30)


def test_what_does_not_fit_is_refused_in_a_sentence(portrait: Reference) -> None:
    motion, model = moving(portrait, 4), network(audio_dim=HEARD, states="pose_and_blinks")
    with pytest.raises(FD2TalkError, match="made from the sound beside the motion"):
        iter_latents(model, portrait, motion, seed=0)
    with pytest.raises(FD2TalkError, match=r"shape \(3, 6\), but the motion has 4 frames"):
        iter_latents(model, portrait, motion, heard=torch.zeros(3, HEARD), seed=0)
    with pytest.raises(FD2TalkError, match="states is 'mouth'"):
        network(states="mouth")
    with pytest.raises(FD2TalkError, match="2 attention_levels for 3 levels"):
        network(block_out_channels=(8, 8, 8))
    noisy, change, latent, face = inputs(4)
    with pytest.raises(FD2TalkError, match="takes no audio features"):
        network()(noisy, 0, change, latent, face, torch.zeros(1, 4, HEARD))
    with pytest.raises(FD2TalkError, match="has 57 values a frame"):
        network()(noisy, 0, change[..., 1:], latent, face)


def test_its_file_is_a_unet_checkpoint(tmp_path: Path) -> None:
    info = CheckpointInfo(face_model=OPEN_FACE_MODEL, steps=3, trained_on="noise")
    save_checkpoint(network(), tmp_path / "unet.safetensors", info)
    loaded = configs.load_network("unet", tmp_path / "unet.safetensors", OPEN_FACE_MODEL)
    assert isinstance(loaded, LatentFlowUNet) and loaded.info.steps == 3 and not loaded.takes_overlay
    with pytest.raises(FD2TalkError, match="holds a LatentFlowUNet"):
        configs.load_network("autoencoder", tmp_path / "unet.safetensors")


def test_a_voice_makes_a_video_through_it_but_no_live_avatar() -> None:
    networks = small_pipeline()
    channels = networks.autoencoder.config.latent_channels
    networks.unet = network(
        latent_channels=channels, audio_dim=networks.audio_encoder.feature_dim, states="pose_and_blinks"
    )
    sound = voice(0.4, 1, 16_000)
    clip = networks(PORTRAIT, sound, frame_steps=1, paste_back=False)
    assert clip.frames().shape[0] == 10
    with pytest.raises(FD2TalkError, match="cannot draw a live avatar"):
        LiveAvatar(PORTRAIT, networks)

"""The motion transformer against a dense form written from the paper, and what sampling promises."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fd2talk_core import configs
from fd2talk_core.audio.features import AudioFeatures
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.names import ARKIT_NAMES
from fd2talk_core.face.rotations import rotation_matrix
from fd2talk_core.face.state import FaceState
from fd2talk_core.motion.coefficients import mouth_mask
from fd2talk_core.motion.sampling import sample_joint_motion, sample_motion, scale_head_motion
from fd2talk_core.networks import motion_transformer as motion
from fd2talk_core.networks.checkpoint import CheckpointInfo, load_checkpoint, save_checkpoint
from fd2talk_core.networks.diffusion import diffusion_loss
from fd2talk_core.networks.motion_transformer import MotionTransformer

SMALL = {
    "audio_dim": 10,
    "hidden_size": 32,
    "num_layers": 2,
    "num_heads": 2,
    "condition_dim": 24,
    "time_embed_dim": 16,
    "attention_window": 6,
    "recommended_steps": 3,
}


def small(kind="expression", **changes) -> MotionTransformer:
    torch.manual_seed(0)
    dim = {"expression": 5, "pose": 6, "joint": 11}[kind]
    model = MotionTransformer(**{**SMALL, "kind": kind, "coefficient_dim": dim, **changes})
    model.set_normalization(torch.randn(dim) * 0.1, torch.rand(dim) * 0.2 + 0.05)
    return model.train(False).requires_grad_(False)


def clip(seconds=2, fps=25.0, channels=10, seed=0) -> AudioFeatures:
    duration = Fraction(seconds)
    generator = torch.Generator().manual_seed(seed)
    count = max(1, round(duration * 25))
    return AudioFeatures(torch.randn(count, channels, generator=generator), duration, fps, "test")


def portrait_of(expression: Tensor, pose: Tensor, face_model: str = "ours") -> FaceState:
    return FaceState(torch.zeros(4), expression, pose, face_model)


# --- the network -----------------------------------------------------------------------------------


def dense_forward(model: MotionTransformer, sample: Tensor, timestep: Tensor, audio: Tensor) -> Tensor:
    """Sec. 3.2 written out with F x F masks, complex rotary positions and one concatenated condition."""
    config, frames = model.config, sample.shape[1]
    heads, head_dim = config.num_heads, config.hidden_size // config.num_heads
    index = torch.arange(frames)
    distance = (index[:, None] - index[None, :]).abs()

    frequency = torch.exp(
        -math.log(10000) * torch.arange(config.time_embed_dim // 2) / (config.time_embed_dim // 2)
    )
    angle = timestep[:, None].float() * frequency
    embedding = model.time_embedding(torch.cat([angle.cos(), angle.sin()], dim=1))
    c = torch.cat([embedding[:, None].expand(-1, frames, -1), audio], dim=-1)
    tau = c @ model.condition_projection.weight.T + model.condition_projection.bias

    def split(x):
        return x.unflatten(-1, (heads, head_dim)).transpose(1, 2)

    def attend(query, key, value, window):
        scores = query @ key.mT / math.sqrt(head_dim)
        if window is not None:
            scores = scores - torch.where(distance <= window, 0.0, math.inf)
        return (scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2)

    turn = 10000 ** (-torch.arange(0, head_dim, 2) / head_dim) * index[:, None]
    turn = torch.polar(torch.ones_like(turn), turn)

    def rotate(x):
        return torch.view_as_real(
            torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous()) * turn
        ).flatten(-2)

    h = model.proj_in(sample)
    for layer in model.layers:
        query, key, value = map(split, layer.self_attention.to_qkv(layer.norm_self(h)).chunk(3, dim=-1))
        own = attend(rotate(query), rotate(key), value, config.attention_window)
        h = h + layer.self_attention.to_out(own)
        query = split(layer.cross_attention.to_q(layer.norm_cross(h)))
        key, value = map(split, layer.cross_attention.to_kv(tau).chunk(2, dim=-1))
        heard = attend(rotate(query), rotate(key), value, config.alignment_window)
        h = h + layer.cross_attention.to_out(heard)
        up, _, down = layer.feed_forward.net
        h = h + down(functional.gelu(up.proj(layer.norm_feed_forward(h)), approximate="tanh"))
    return model.proj_out(model.norm_out(h))


@pytest.mark.parametrize("alignment_window", [3, 1, None])
@pytest.mark.parametrize("attention_window", [6, None])
@pytest.mark.parametrize("frames", [1, 5, 61])
def test_network_is_the_papers_dense_form(frames, attention_window, alignment_window):
    model = small(attention_window=attention_window, alignment_window=alignment_window)
    sample, audio, t = torch.randn(2, frames, 5), torch.randn(2, frames, 10), torch.tensor([3, 800])
    expected = dense_forward(model, sample, t, audio)
    torch.testing.assert_close(model(sample, t, audio), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("segment", [7, 16, 50])
def test_segments_change_nothing(monkeypatch, segment):
    model = small()
    sample, audio, t = torch.randn(1, 133, 5), torch.randn(1, 133, 10), torch.tensor([500])
    whole = model(sample, t, audio)
    monkeypatch.setattr(motion, "SEGMENT", segment)
    with torch.no_grad():
        torch.testing.assert_close(model(sample, t, audio), whole, atol=1e-5, rtol=0)


def test_audio_projected_once_is_audio_projected_each_step():
    """The exact saving: the audio's half of the condition does not change between steps."""
    model = small()
    sample, audio = torch.randn(1, 40, 5), torch.randn(1, 40, 10)
    projected = model.project_audio(audio)
    for t in (0, 400, 999):
        t = torch.tensor(t)
        made = model(sample, t, projected_audio=projected)
        torch.testing.assert_close(made, model(sample, t, audio), atol=1e-5, rtol=0)


def test_one_layer_hears_exactly_k_frames():
    model = small(num_layers=1, attention_window=0, alignment_window=3)
    sample, audio, t = torch.randn(1, 30, 5), torch.randn(1, 30, 10), torch.tensor([10])
    before = model(sample, t, audio)
    audio[0, 12] += 5
    changed = (model(sample, t, audio) - before).abs().amax(dim=(0, 2)) > 0
    assert changed.nonzero().flatten().tolist() == list(range(9, 16))


def test_timestep_and_sample_matter():
    model = small()
    sample, audio = torch.randn(1, 20, 5), torch.randn(1, 20, 10)
    first = model(sample, torch.tensor([10]), audio)
    assert (model(sample, torch.tensor([900]), audio) - first).abs().max() > 1e-3
    assert (model(sample + 1, torch.tensor([10]), audio) - first).abs().max() > 1e-3


def test_dropped_audio_is_no_audio():
    model = small()
    sample, audio, t = torch.randn(3, 20, 5), torch.randn(3, 20, 10), torch.tensor([5, 6, 7])
    made = model(sample, t, audio, drop_audio=torch.tensor([False, True, False]))
    torch.testing.assert_close(made[[0, 2]], model(sample, t, audio)[[0, 2]], atol=1e-6, rtol=0)
    torch.testing.assert_close(made[1:2], model(sample, t)[1:2], atol=1e-6, rtol=0)
    assert (made[1] - model(sample, t, audio)[1]).abs().max() > 1e-3


def test_normalisation_round_trip_and_still_coefficients():
    model = small()
    values = torch.randn(9, 5)
    torch.testing.assert_close(model.denormalize(model.normalize(values)), values)
    torch.testing.assert_close(model.normalize(model.coefficient_mean), torch.zeros(5))
    model.set_normalization(torch.zeros(5), torch.zeros(5))
    assert torch.isfinite(model.normalize(values)).all()


def test_it_learns_a_motion_that_follows_the_audio():
    """Trained by Eq. 3 on motion that is a function of the audio, it samples that function."""
    torch.manual_seed(0)
    model = small().requires_grad_(True).train()
    model.set_normalization(torch.zeros(5), torch.ones(5))
    mixing = torch.randn(10, 5) / 10**0.5
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(100):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (1 - step / 100)
        # white audio: the motion follows it only if each frame finds its own among the 2k + 1 that it hears
        audio = torch.randn(8, 25, 10)
        loss, _, _ = diffusion_loss(lambda x, t, audio=audio: model(x, t, audio), audio @ mixing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    heard = clip(8, seed=5)
    made = sample_motion(model.requires_grad_(False), heard, seed=1, steps=4).values
    correlation = torch.corrcoef(torch.stack([made.flatten(), (heard.features @ mixing).flatten()]))[0, 1]
    assert correlation > 0.9


def test_checkpoint_keeps_the_normalisation(tmp_path):
    model = small("pose")
    save_checkpoint(model, tmp_path / "pose.safetensors", CheckpointInfo(), dtype=None)
    loaded = load_checkpoint(tmp_path / "pose.safetensors", MotionTransformer)
    first, second = (sample_motion(m, clip(), seed=0).values for m in (model, loaded))
    assert torch.equal(first, second)
    assert loaded.config.alignment_window == 3 and loaded.config.kind == "pose"


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"kind": "gaze"}, "'gaze'"),
        ({"hidden_size": 30}, "hidden_size is 30"),
        ({"kind": "pose", "coefficient_dim": 7}, "coefficient_dim is 7"),
        ({"coefficient_dim": 5, "coefficient_names": ("a", "b")}, "2 coefficient names"),
    ],
)
def test_bad_configurations_are_named(changes, message):
    with pytest.raises(FD2TalkError, match=message):
        MotionTransformer(**{**SMALL, **changes})


# --- sampling --------------------------------------------------------------------------------------


@pytest.mark.parametrize("fps", [1, 12, 23.976, 24, 25, 29.97, 30, 50, 60, 120])
@pytest.mark.parametrize("seconds", ["0.04", "1.27", "7.913"])
def test_frame_counts(fps, seconds):
    made = sample_motion(small(), clip(Fraction(seconds), fps), seed=0, steps=1)
    assert made.num_frames == max(1, round(Fraction(seconds) * Fraction(str(fps))))
    assert made.fps == fps and made.kind == "expression"


def test_same_seed_same_bytes_and_another_seed_another_motion():
    first = sample_motion(small(), clip(), seed=4)
    assert torch.equal(first.values, sample_motion(small(), clip(), seed=4).values)
    assert (first.values - sample_motion(small(), clip(), seed=5).values).abs().max() > 1e-3


def test_a_longer_clip_begins_with_the_same_motion():
    """Noise belongs to the frame index, and what is far away is not seen: length changes nothing here."""
    whole = clip(8)
    part = AudioFeatures(whole.features[:100], Fraction(4), 25.0, "test")
    long, short = (sample_motion(small(), audio, seed=2).values for audio in (whole, part))
    # per step two layers of 6 + 3 frames reach 18 back; three steps
    torch.testing.assert_close(long[: 100 - 54], short[: 100 - 54], atol=1e-5, rtol=0)
    assert (long[99] - short[99]).abs().max() > 1e-3


def test_global_random_state_is_neither_read_nor_changed():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = sample_motion(model := small(), clip(), seed=4)
    torch.manual_seed(2)
    assert torch.equal(first.values, sample_motion(model, clip(), seed=4).values)
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())


class Counting(MotionTransformer):
    """Counts calls with and without audio."""

    def forward(self, sample, timestep, **inputs):
        self.calls.append(inputs["projected_audio"].shape[1] > 1)
        return super().forward(sample, timestep, **inputs)


def counting() -> Counting:
    torch.manual_seed(0)
    model = Counting(**{**SMALL, "coefficient_dim": 5}).train(False)
    model.calls = []
    return model


@pytest.mark.parametrize("guidance, calls", [(1.0, [True] * 3), (0.0, [False] * 3), (2.5, [False, True] * 3)])
def test_guidance_costs_nothing_at_one(guidance, calls):
    model = counting()
    sample_motion(model, clip(), seed=0, steps=3, guidance=guidance)
    assert model.calls == calls


@pytest.mark.parametrize("w", [0.0, 0.4, 1.0, 1.7, 3.0])
def test_guidance_is_facetalk_eq10(w):
    """One step: w times the conditional estimate plus (1 - w) times the unconditional one."""
    model, audio = small(), clip()
    both = [sample_motion(model, audio, seed=0, steps=1, guidance=g).values for g in (1.0, 0.0)]
    made = sample_motion(model, audio, seed=0, steps=1, guidance=w).values
    torch.testing.assert_close(made, w * both[0] + (1 - w) * both[1], atol=1e-5, rtol=0)
    assert (both[0] - both[1]).abs().max() > 1e-3


def test_steps_default_to_the_checkpoints():
    model = counting()
    sample_motion(model, clip(), seed=0)
    assert len(model.calls) == SMALL["recommended_steps"]


def test_what_the_sound_leaves_free_takes_its_own_steps():
    """The mouth is what few steps make of it, the rest what more do; the callback sees all of them."""
    names = ("jawOpen", "eyeBlinkLeft", "mouthPucker", "browInnerUp", "cheekPuff")
    plain, few = small(coefficient_names=names), small(coefficient_names=names, free_steps=5)
    audio, reports = clip(), []
    mouth = mouth_mask(names, 5)
    assert mouth.any() and not mouth.all()
    made = sample_motion(few, audio, seed=0, steps=2, callback=lambda *report: reports.append(report)).values
    two, five = (sample_motion(plain, audio, seed=0, steps=steps).values for steps in (2, 5))
    torch.testing.assert_close(made[:, mouth], two[:, mouth])
    torch.testing.assert_close(made[:, ~mouth], five[:, ~mouth])
    assert all((two - five)[:, part].abs().max() > 1e-3 for part in (mouth, ~mouth))
    assert reports == [(done, 7, None) for done in range(1, 8)]
    # as many as that are one run
    torch.testing.assert_close(sample_motion(few, audio, seed=0, steps=5).values, five)


def test_callback_sees_every_step_and_can_stop():
    model, reports = counting(), []

    def callback(done, total, preview):
        reports.append((done, total, preview))
        if done == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        sample_motion(model, clip(), seed=0, steps=5, callback=callback)
    assert reports == [(1, 5, None), (2, 5, None)] and len(model.calls) == 2


def test_blendshapes_stay_between_none_and_full():
    torch.manual_seed(0)
    model = MotionTransformer(**{**SMALL, "coefficient_dim": 52, "coefficient_names": ARKIT_NAMES})
    made = sample_motion(model, clip(), seed=0, intensity=3.0)
    assert made.values.min() == 0 and made.values.max() == 1 and made.names == ARKIT_NAMES


def test_expression_intensity_scales_from_rest():
    plain = sample_motion(small(), clip(), seed=0).values
    torch.testing.assert_close(sample_motion(small(), clip(), seed=0, intensity=1.5).values, 1.5 * plain)
    assert sample_motion(small(), clip(), seed=0, intensity=0).values.abs().max() == 0


def test_pose_intensity_scales_about_the_mean_pose():
    held = sample_motion(small("pose"), clip(), seed=0, intensity=0).values
    torch.testing.assert_close(held, held[:1].expand_as(held), atol=1e-5, rtol=0)
    # pure yaw about a turned head: every turn doubles
    values = torch.zeros(21, 6)
    values[:, 1] = 0.3 + torch.linspace(-0.2, 0.2, 21)
    values[:, 3] = torch.linspace(1.0, 2.0, 21)
    doubled = scale_head_motion(values, 2.0)
    expected = values.clone()
    expected[:, 1] = 0.3 + torch.linspace(-0.4, 0.4, 21)
    expected[:, 3] = torch.linspace(0.5, 2.5, 21)
    torch.testing.assert_close(doubled, expected, atol=1e-5, rtol=0)


def test_scaling_a_head_motion_back_restores_it():
    values = torch.cat([0.4 * torch.rand(30, 3), torch.randn(30, 3)], dim=1)
    center = scale_head_motion(values, 0)
    # about one and the same mean pose the turns are axis-angle vectors, which scale back exactly
    halved = scale_head_motion(values, 0.5)
    turn = rotation_matrix(center[:, :3]).mT @ rotation_matrix(halved[:, :3])
    whole = rotation_matrix(center[:, :3]).mT @ rotation_matrix(values[:, :3])
    torch.testing.assert_close(turn @ turn, whole, atol=1e-4, rtol=0)


def test_pose_starts_where_the_portrait_looks():
    portrait = portrait_of(torch.zeros(5), torch.tensor([0.1, -0.4, 0.05, 0.2, 0.1, -0.3]))
    plain = sample_motion(small("pose"), clip(fps=30), seed=0).values
    made = sample_motion(small("pose"), clip(fps=30), seed=0, portrait=portrait).values
    torch.testing.assert_close(made[0], portrait.pose, atol=1e-5, rtol=0)
    turns = [rotation_matrix(x[:, :3]) @ rotation_matrix(x[:1, :3]).mT for x in (plain, made)]
    torch.testing.assert_close(turns[0], turns[1], atol=1e-4, rtol=0)
    torch.testing.assert_close(plain[:, 3:].diff(dim=0), made[:, 3:].diff(dim=0), atol=1e-5, rtol=0)


def test_expression_plays_over_the_portraits_upper_face():
    torch.manual_seed(0)
    model = MotionTransformer(**{**SMALL, "coefficient_dim": 52, "coefficient_names": ARKIT_NAMES})
    rest = torch.zeros(52)
    brow, jaw = ARKIT_NAMES.index("browInnerUp"), ARKIT_NAMES.index("jawOpen")
    rest[[brow, jaw]] = 0.5
    plain = sample_motion(model, clip(), seed=0).values
    made = sample_motion(model, clip(), seed=0, portrait=portrait_of(rest, torch.zeros(6))).values
    torch.testing.assert_close(made[:, brow], plain[:, brow].clamp_min(0.5))
    assert (plain[:, brow] < 0.5).any() and (plain[:, brow] > 0.5).any()
    torch.testing.assert_close(made[:, jaw], plain[:, jaw])


def test_joint_network_gives_both():
    model = small("joint")
    expression, pose = sample_joint_motion(model, clip(fps=30), seed=0, steps=2)
    assert expression.values.shape == (60, 5) and pose.values.shape == (60, 6)
    assert (expression.kind, pose.kind) == ("expression", "pose")
    with pytest.raises(FD2TalkError, match="sample_joint_motion"):
        sample_motion(model, clip(), seed=0)
    for kind, whole in (("expression", expression), ("pose", pose)):
        half = sample_motion(model, clip(fps=30), seed=0, steps=2, kind=kind)
        assert half.kind == kind and torch.equal(half.values, whole.values)
        assert sample_motion(small(kind), clip(), seed=0, kind=kind).kind == kind
    with pytest.raises(FD2TalkError, match="predicts the pose: choose one that predicts the expression"):
        sample_motion(small("pose"), clip(), seed=0, kind="expression")
    with pytest.raises(FD2TalkError, match="pose alone"):
        sample_joint_motion(small("pose"), clip(), seed=0)


@pytest.mark.parametrize(
    "inputs, message",
    [
        ({"steps": 0}, "steps is 0"),
        ({"guidance": -1}, "guidance is -1"),
        ({"guidance": math.nan}, "guidance is nan"),
        ({"intensity": -0.5}, "intensity is -0.5"),
        ({"audio": clip(channels=7)}, "'test' have 7 channels"),
        ({"portrait": portrait_of(torch.zeros(5), torch.zeros(6), "flame")}, "'flame'.*'ours'"),
    ],
)
def test_bad_inputs_are_named(inputs, message):
    with pytest.raises(FD2TalkError, match=message):
        sample_motion(small(face_model="ours"), **{"audio": clip(), "seed": 0, **inputs})


def test_another_frame_grid_is_refused():
    audio = AudioFeatures(torch.zeros(60, 10), Fraction(2), 25.0, "test", native_fps=30.0)
    with pytest.raises(FD2TalkError, match="30 fps.*25"):
        sample_motion(small(), audio, seed=0)


# --- the sizes we ship -----------------------------------------------------------------------------


@pytest.mark.parametrize("size, most", [("tiny", 1.8e6), ("base", 32e6)])
@pytest.mark.parametrize("network", ["expression", "pose"])
def test_sizes_run_forward_and_backward(size, most, network):
    model = configs.build(network, size, seed=0).requires_grad_(True)
    config = model.config
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"\n{network}, {size}: {count / 1e6:.2f} M parameters")
    assert count < most and config.num_layers == 6 and config.alignment_window == 3
    sample = torch.randn(1, 30, config.coefficient_dim)
    model(sample, torch.tensor([5]), torch.randn(1, 30, config.audio_dim)).square().mean().backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert without == ["null_audio"]


# --- styles ----------------------------------------------------------------------------------------


def styled_pair(**changes) -> tuple[MotionTransformer, MotionTransformer]:
    """A network, and the same one with two styles that have been learned."""
    plain, styled = small(**changes), small(**changes, styles=["happy", "sad"])
    styled.load_state_dict({**styled.state_dict(), **plain.state_dict()})
    generator = torch.Generator().manual_seed(1)
    for weight in styled.style.parameters():
        weight.copy_(0.2 * torch.randn(weight.shape, generator=generator))
    return plain, styled


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_without_a_style_the_motion_is_that_of_a_network_that_knows_none(guidance):
    plain, styled = styled_pair()
    options = {"seed": 3, "guidance": guidance}
    wanted = sample_motion(plain, clip(), **options).values
    for given in ({}, {"style": "neutral"}, {"style": "happy", "style_strength": 0.0}):
        assert torch.equal(sample_motion(styled, clip(), **options, **given).values, wanted)
    happy, sad = (sample_motion(styled, clip(), **options, style=name).values for name in ("happy", "sad"))
    assert (happy - wanted).abs().max() > 1e-2 and (happy - sad).abs().max() > 1e-2


def test_a_style_sets_in_with_its_strength():
    _, styled = styled_pair()
    strengths = (0.0, 1e-3, 0.5, 1.0)
    made = [sample_motion(styled, clip(), seed=0, style="sad", style_strength=s).values for s in strengths]
    little, half, full = (float((values - made[0]).abs().mean()) for values in made[1:])
    assert 0 < little < 0.01 * full and little < half < full


def test_a_style_does_not_depend_on_the_segments_of_a_long_clip(monkeypatch):
    _, styled = styled_pair()
    whole = sample_motion(styled, clip(4), seed=0, style="happy").values
    monkeypatch.setattr(motion, "SEGMENT", 16)
    torch.testing.assert_close(sample_motion(styled, clip(4), seed=0, style="happy").values, whole)


def test_untrained_styles_change_nothing_and_a_file_keeps_them(tmp_path):
    plain, fresh = small(), small(styles=["happy", "sad"])
    fresh.load_state_dict({**fresh.state_dict(), **plain.state_dict()})
    wanted = sample_motion(plain, clip(), seed=0).values
    torch.testing.assert_close(sample_motion(fresh, clip(), seed=0, style="happy").values, wanted)
    _, styled = styled_pair()
    save_checkpoint(styled, tmp_path / "expression.safetensors", CheckpointInfo(), dtype=None)
    loaded = load_checkpoint(tmp_path / "expression.safetensors", MotionTransformer)
    assert list(loaded.config.styles) == ["happy", "sad"]
    made = [sample_motion(one, clip(), seed=0, style="sad").values for one in (styled, loaded)]
    assert torch.equal(*made)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"style": "angry"}, "has not learned the style 'angry': choose one of neutral, happy, sad"),
        ({"style": "happy", "style_strength": 1.5}, "style_strength is 1.5"),
        ({"style": "neutral", "style_strength": float("nan")}, "style_strength is nan"),
    ],
)
def test_styles_that_cannot_be_are_refused(given, told):
    with pytest.raises(FD2TalkError, match=told):
        sample_motion(styled_pair()[1], clip(), seed=0, **given)


def test_a_network_without_styles_says_so():
    with pytest.raises(FD2TalkError, match="has not learned the style 'happy': choose one of neutral, or"):
        sample_motion(small(), clip(), seed=0, style="happy")


def test_both_halves_of_a_joint_network_take_a_style():
    plain, styled = styled_pair(kind="joint")
    both = sample_joint_motion(styled, clip(), seed=0, style="happy")
    neutral = sample_joint_motion(styled, clip(), seed=0)
    for made, still, kind in zip(both, neutral, ("expression", "pose"), strict=True):
        assert (made.values - still.values).abs().max() > 1e-3
        one = sample_motion(styled, clip(), seed=0, kind=kind, style="happy")
        assert torch.equal(one.values, made.values)


def test_styles_are_names(tmp_path):
    for wrong in (["happy", "happy"], [""], [3], "happy"):
        with pytest.raises(FD2TalkError, match="a list of different names"):
            small(styles=wrong)

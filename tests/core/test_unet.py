"""The frame UNet: Eq. 6 and 7 written out, exact savings, its ablations, and its sizes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from fd2talk_core import configs
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.networks.flops import count_flops
from fd2talk_core.networks.unet import ConditionAttention, FrameUNet, Stage, grid_position

SMALL = {
    "latent_channels": 4,
    "sample_size": 8,
    "block_out_channels": (16, 32),
    "attention_levels": (True, True),
    "attention_head_dim": 8,
    "motion_dim": 7,
    "motion_tokens": 3,
    "context_dim": 12,
}


def small(**changes: object) -> FrameUNet:
    torch.manual_seed(0)
    return FrameUNet(**(SMALL | changes)).train(False)


def inputs(frames: int = 3, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Noisy latents, motion, and one portrait's latent."""
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(frames, 4, 8, 8, generator=generator),
        torch.randn(frames, 7, generator=generator),
        torch.randn(1, 4, 8, 8, generator=generator),
    )


def softmax_attention(features: Tensor, layer: nn.Module, tokens: Tensor) -> Tensor:
    """Multi-head cross-attention, one head and one query at a time, by the textbook's formula."""
    batch, channels, height, width = features.shape
    places = layer.norm(features).flatten(2).transpose(1, 2) + layer.position(grid_position(features))
    query, key, value = layer.to_q(places), layer.to_k(tokens), layer.to_v(tokens)
    wide = channels // layer.heads
    out = torch.zeros(batch, height * width, channels)
    for frame in range(batch):
        for head in range(layer.heads):
            part = slice(head * wide, (head + 1) * wide)
            scores = query[frame, :, part] @ key[frame, :, part].T / math.sqrt(wide)
            weights = scores.exp() / scores.exp().sum(dim=1, keepdim=True)
            out[frame, :, part] = weights @ value[frame, :, part]
    return features + layer.to_out(out).transpose(1, 2).reshape(features.shape)


def test_attention_is_equation_6_then_7() -> None:
    """m₁ = φ₁({β, p}, J) and m₂ = φ₂(x, m₁), with the first one's result asking the second."""
    torch.manual_seed(1)
    attention = ConditionAttention(16, 12, 8, groups=4, decoupled=True)
    features, motion, reference = torch.randn(2, 16, 4, 4), torch.randn(2, 3, 12), torch.randn(2, 16, 12)
    with torch.no_grad():
        first = softmax_attention(features, attention.motion_attention, motion)
        second = softmax_attention(first, attention.reference_attention, reference)
        given = attention(
            features,
            attention.motion_attention.keys_values(motion),
            attention.reference_reader.keys_values(reference),
        )
    torch.testing.assert_close(given, second, atol=1e-5, rtol=1e-5)


def test_concatenated_conditions_are_one_sequence() -> None:
    """The paper's ablation: one attention over the tokens of both."""
    torch.manual_seed(1)
    attention = ConditionAttention(16, 12, 8, groups=4, decoupled=False)
    features, motion, reference = torch.randn(2, 16, 4, 4), torch.randn(2, 3, 12), torch.randn(1, 16, 12)
    with torch.no_grad():
        both = torch.cat([motion, reference.expand(2, -1, -1)], dim=1)
        wanted = softmax_attention(features, attention.motion_attention, both)
        given = attention(
            features,
            attention.motion_attention.keys_values(motion),
            attention.reference_reader.keys_values(reference),
        )
    torch.testing.assert_close(given, wanted, atol=1e-5, rtol=1e-5)


def test_every_level_with_attention_has_both_on_both_sides() -> None:
    unet = small()
    for side in (unet.down, unet.middle, unet.up):
        stages = [stage for stage in side if isinstance(stage, Stage)]
        attended = [stage.attention for stage in stages if stage.attention is not None]
        assert attended and all(
            hasattr(one, "motion_attention") and hasattr(one, "reference_attention") for one in attended
        )
    bare = small(attention_levels=(False, True))
    down, up = (
        [stage.attention is None for stage in side if isinstance(stage, Stage)]
        for side in (bare.down, bare.up)
    )
    assert down == [True, False] and up == [False, False, True, True]


def test_reference_tokens_carry_their_place() -> None:
    """A portrait whose cells are exchanged is another portrait: the sequence is not a bag of cells."""
    unet = small()
    sample, motion, reference = inputs()
    exchanged = reference.flatten(2)[..., torch.randperm(64, generator=torch.Generator().manual_seed(0))]
    with torch.no_grad():
        difference = unet(sample, 5, motion, reference) - unet(
            sample, 5, motion, exchanged.view_as(reference)
        )
    assert difference.abs().max() > 1e-4


@pytest.mark.parametrize(("size", "other"), [((8, 8), (16, 16)), ((4, 12), (8, 24))], ids=["square", "wide"])
def test_positions_belong_to_places_not_to_cells(size: tuple[int, int], other: tuple[int, int]) -> None:
    """A finer map's angles, averaged over a coarser map's cells, are the coarser map's."""
    coarse, fine = grid_position(torch.empty(1, 1, *size)), grid_position(torch.empty(1, 1, *other))
    # the slowest sine of u alone: index 1 * octaves of the sines
    octaves = coarse.shape[1] // 4
    u = fine[:, octaves].asin().view(*other)
    averaged = u.unflatten(0, (size[0], 2)).unflatten(2, (size[1], 2)).mean(dim=(1, 3))
    torch.testing.assert_close(averaged, coarse[:, octaves].asin().view(*size), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("conditioning", ["decoupled", "concat"])
@pytest.mark.parametrize("pool", [1, 2])
def test_cached_equals_uncached(conditioning: str, pool: int) -> None:
    unet = small(conditioning=conditioning, reference_pool=pool)
    sample, motion, reference = inputs(4)
    with torch.no_grad():
        repeated = reference.expand(4, -1, -1, -1)
        plain = unet(sample, torch.tensor([7, 7, 7, 7]), motion, repeated)
        cache = unet.make_cache(motion, reference)
        assert all(keys.shape[0] == 1 for keys, _ in cache.reference)
        torch.testing.assert_close(unet(sample, 7, cache=cache), plain, atol=1e-5, rtol=1e-5)
        part = unet(sample[1:3], 7, cache=cache.frames(slice(1, 3)))
        torch.testing.assert_close(part, plain[1:3], atol=1e-5, rtol=1e-5)


def test_the_cache_saves_work() -> None:
    unet = small()
    sample, motion, reference = inputs(4)
    cache = unet.make_cache(motion, reference)
    whole = count_flops(lambda: unet(sample, 7, motion, reference.expand(4, -1, -1, -1)))
    assert count_flops(lambda: unet(sample, 7, cache=cache)) < whole


def test_timesteps_may_differ_by_frame() -> None:
    unet = small()
    sample, motion, reference = inputs(3)
    with torch.no_grad():
        together = unet(sample, torch.tensor([3, 500, 900]), motion, reference)
        for frame, timestep in enumerate((3, 500, 900)):
            alone = unet(sample[frame : frame + 1], timestep, motion[frame : frame + 1], reference)
            torch.testing.assert_close(together[frame : frame + 1], alone, atol=1e-5, rtol=1e-5)
        assert (unet(sample, 3, motion, reference) - unet(sample, 900, motion, reference)).abs().max() > 1e-4


def test_conditions_matter() -> None:
    unet = small()
    sample, motion, reference = inputs(2)
    with torch.no_grad():
        plain = unet(sample, 7, motion, reference)
        assert (unet(sample, 7, motion + 1, reference) - plain).abs().max() > 1e-4
        assert (unet(sample, 7, motion, reference + 1) - plain).abs().max() > 1e-4


def test_the_reference_may_stand_beside_the_sample() -> None:
    unet = small(concat_reference=True)
    sample, motion, reference = inputs(2)
    with torch.no_grad():
        cache = unet.make_cache(motion, reference)
        plain = unet(sample, 7, None, reference, cache=cache)
        # φ₂'s keys are cached, so what still changes comes from the input itself
        assert (unet(sample, 7, None, reference + 1, cache=cache) - plain).abs().max() > 1e-4
    with pytest.raises(FD2TalkError, match="reference latent"):
        unet(sample, 7, cache=cache)


def test_an_untrained_residual_network_copies_the_warped_reference() -> None:
    sample, motion, reference = inputs(3)
    warped = torch.randn(3, 4 + 5, 8, 8)
    aligned = small(reference_alignment="warp", alignment_channels=5, predict_residual=True)
    with torch.no_grad():
        assert torch.equal(aligned(sample, 7, motion, reference, warped), warped[:, :4])
        plain = small(predict_residual=True)(sample, 7, motion, reference)
        assert torch.equal(plain, reference.expand_as(sample))
    loss = aligned(sample, 7, motion, reference, warped).square().mean()
    loss.backward()
    assert aligned.conv_out.weight.grad.abs().max() > 0


def test_the_change_may_be_kept_to_what_the_portrait_hides() -> None:
    options = {"reference_alignment": "warp", "alignment_channels": 5, "predict_residual": True}
    unet, free = small(residual_region="hidden", **options), small(**options)
    torch.nn.init.normal_(unet.conv_out.weight)
    free.load_state_dict(unet.state_dict())
    sample, motion, reference = inputs(3)
    warped = torch.cat([torch.randn(3, 4, 8, 8), torch.zeros(3, 5, 8, 8)], dim=1)
    warped[:, 4:6, :, 2:] = 1  # the mesh covers all but two columns, and the portrait sees it ...
    warped[:, 5, :2, 2:] = 0  # ... but for the upper rows,
    warped[:, 6, 5, 5] = 1  # and one cell is mouth
    with torch.no_grad():
        change = (unet(sample, 7, motion, reference, warped) - warped[:, :4]).abs().amax(dim=(0, 1))
        whole = (free(sample, 7, motion, reference, warped) - warped[:, :4]).abs().amax(dim=(0, 1))
    assert whole.min() > 0
    hidden = torch.zeros(8, 8, dtype=torch.bool)
    hidden[:2, 2:] = hidden[5, 5] = True
    near = torch.nn.functional.max_pool2d(hidden[None].float(), 5, 1, 2)[0] > 0
    assert change[hidden].min() > 0 and change[~near].max() == 0
    with pytest.raises(FD2TalkError, match="'hidden' needs predict_residual"):
        small(residual_region="hidden")
    with pytest.raises(FD2TalkError, match="'mouth'"):
        small(residual_region="mouth")


def test_wrong_inputs_are_named() -> None:
    sample, motion, reference = inputs()
    with pytest.raises(FD2TalkError, match="'none', so a warped reference is not used"):
        small()(sample, 7, motion, reference, torch.randn(3, 9, 8, 8))
    with pytest.raises(FD2TalkError, match="'warp', so a warped reference is needed"):
        small(reference_alignment="warp", alignment_channels=5)(sample, 7, motion, reference)
    with pytest.raises(FD2TalkError, match="9 coefficients.*made for 7"):
        small()(sample, 7, torch.randn(3, 9), reference)
    with pytest.raises(FD2TalkError, match="multiples of 2"):
        small()(torch.randn(3, 4, 8, 7), 7, motion, reference)
    with pytest.raises(FD2TalkError, match="'both'"):
        small(conditioning="both")
    with pytest.raises(FD2TalkError, match="'mesh'"):
        small(reference_alignment="mesh")
    with pytest.raises(FD2TalkError, match="1 of 2 levels"):
        small(attention_levels=(True,))
    with pytest.raises(FD2TalkError, match="'warp_image', and only for it"):
        small(reference_alignment="warp_image")


def test_the_carried_encoder_is_the_autoencoders() -> None:
    autoencoder = configs.build("autoencoder", "tiny", seed=3)
    autoencoder.set_latent_statistics(torch.randn(16), torch.rand(16) + 0.5)
    unet = configs.build("unet", "tiny", seed=4)
    assert unet.config.reference_alignment == "warp_image", "the test means the form that ships"
    picture = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert (unet.crop_encoder(picture) - autoencoder.encode(picture)).abs().max() > 0.1
        unet.set_reference_encoder(autoencoder.encoder)
        assert torch.equal(unet.crop_encoder(picture), autoencoder.encode(picture))
    assert not any(weight.requires_grad for weight in unet.crop_encoder.parameters())
    with pytest.raises(FD2TalkError, match="carries no encoder"):
        small().set_reference_encoder(autoencoder.encoder)


def test_tiny_keeps_to_its_size() -> None:
    unet = configs.build("unet", "tiny")
    latent, warped = torch.randn(1, 16, 32, 32), torch.randn(1, 16 + 5, 32, 32)
    cache = unet.make_cache(torch.randn(1, unet.config.motion_dim), latent)
    flops = count_flops(lambda: unet(latent, torch.tensor(10), None, latent, warped, cache))
    parameters = sum(p.numel() for p in unet.parameters())
    print(f"tiny UNet: {parameters / 1e6:.2f} M parameters, {flops / 1e9:.2f} GFLOP a call")
    assert flops <= 1.5e9 and parameters <= 6e6


@pytest.mark.slow
def test_base_takes_one_step_forward_and_backward() -> None:
    unet = configs.build("unet", "base").train()
    size = unet.config.sample_size // 4
    latent, noise = torch.randn(1, unet.config.latent_channels, size, size), torch.randn(1, 3, size, size)
    predicted = unet(noise, torch.tensor(500), torch.randn(1, unet.config.motion_dim), latent)
    (predicted - latent).square().mean().backward()
    assert predicted.shape == latent.shape
    assert all(weight.grad is not None and torch.isfinite(weight.grad).all() for weight in unet.parameters())


def test_base_keeps_to_its_size() -> None:
    # at full size on no device: shapes alone say what is multiplied, and what a backward pass keeps
    with torch.device("meta"):
        unet = configs.build("unet", "base").train()
        size, motion = unet.config.sample_size, torch.randn(1, unet.config.motion_dim)
        latent, noise = torch.randn(1, unet.config.latent_channels, size, size), torch.randn(1, 3, size, size)
        timestep = torch.tensor(500)
        with torch.no_grad():
            cache = unet.make_cache(motion, latent)
        flops = count_flops(lambda: unet(noise, timestep, None, latent, None, cache))
        kept: dict[int, Tensor] = {}
        with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.setdefault(id(x), x), lambda x: x):
            unet(noise, timestep, motion, latent)
    weights = sum(p.nbytes for p in unet.parameters())
    parameters = {id(p) for p in unet.parameters()}
    memory = (2 * weights + sum(x.nbytes for name, x in kept.items() if name not in parameters)) / 2**30
    print(f"base UNet: {weights / 4e6:.0f} M parameters, {flops / 1e9:.0f} GFLOP a call, {memory:.1f} GiB")
    assert 330e9 <= flops <= 420e9 and memory < 16

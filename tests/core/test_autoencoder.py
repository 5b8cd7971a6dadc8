"""The autoencoder: Eq. 13–15, its sizes, and latents that are scaled without changing pictures."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fd2talk_core import configs
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.networks.autoencoder import (
    FrameAutoencoder,
    autoencoder_loss,
    perceptual_loss,
    reconstruction_loss,
)
from fd2talk_core.networks.flops import count_flops


@pytest.fixture(scope="module")
def tiny() -> FrameAutoencoder:
    return configs.build("autoencoder", "tiny", seed=1)


def small(**changes: object) -> FrameAutoencoder:
    torch.manual_seed(0)
    options = {
        "latent_channels": 4,
        "block_out_channels": (8, 8),
        "encoder_blocks": (1, 1),
        "decoder_blocks": (1, 1),
    }
    return FrameAutoencoder(**(options | changes)).train(False)


def test_tiny_keeps_to_its_size(tiny: FrameAutoencoder) -> None:
    picture = torch.rand(1, 3, 256, 256)
    latent = torch.randn(1, 16, 32, 32)
    encoder, decoder = (
        count_flops(lambda: tiny.encode(picture)),
        count_flops(lambda: tiny.decode(latent, latent)),
    )
    parameters = sum(p.numel() for p in tiny.parameters())
    print(f"tiny autoencoder: {parameters / 1e6:.2f} M, {encoder / 1e9:.2f} + {decoder / 1e9:.2f} GFLOP")
    assert encoder <= 6e9 and decoder <= 9e9 and parameters <= 2e6
    assert tiny.downsample_factor == 8 and tiny.encode(picture).shape == (1, 16, 32, 32)


def test_counted_operations_are_those_of_a_convolution() -> None:
    """By hand: 2 · 9 · in · out · pixels; and attention on the CPU: 4 · queries · keys · width."""
    layer, picture = nn.Conv2d(3, 5, 3, padding=1), torch.rand(2, 3, 6, 7)
    assert count_flops(lambda: layer(picture)) == 2 * 9 * 3 * 5 * 2 * 6 * 7
    query, key = torch.rand(2, 3, 10, 8), torch.rand(2, 3, 12, 8)
    attend = torch.nn.functional.scaled_dot_product_attention
    assert count_flops(lambda: attend(query, key, key)) == 4 * 2 * 3 * 10 * 12 * 8


@pytest.mark.parametrize("size", [(64, 64), (72, 40), (8, 16)])
def test_works_at_any_multiple_of_its_factor(tiny: FrameAutoencoder, size: tuple[int, int]) -> None:
    picture = torch.rand(2, 3, *size)
    latent = tiny.encode(picture)
    assert latent.shape == (2, 16, size[0] // 8, size[1] // 8)
    decoded = tiny.decode(latent, latent[0])
    assert decoded.shape == picture.shape and decoded.min() >= 0 and decoded.max() <= 1


def test_other_sizes_are_refused(tiny: FrameAutoencoder) -> None:
    with pytest.raises(FD2TalkError, match="100 x 64.*multiples of 8"):
        tiny.encode(torch.rand(1, 3, 64, 100))
    with pytest.raises(FD2TalkError, match="same autoencoder"):
        tiny.decode(torch.randn(1, 16, 8, 8), torch.randn(16, 4, 4))


def test_compact_networks_see_a_bounded_neighbourhood(tiny: FrameAutoencoder) -> None:
    """No statistics over the picture: the frame's far side does not change what a corner looks like."""
    picture = torch.rand(1, 3, 256, 256)
    changed = picture.clone()
    changed[..., 192:] = torch.rand(1, 3, 256, 64)
    with torch.no_grad():
        assert torch.equal(tiny.encode(picture)[..., :8], tiny.encode(changed)[..., :8])


def test_a_level_without_blocks_has_a_relu() -> None:
    """Two convolutions after one another would be one."""
    network = small(encoder_blocks=(1, 0), decoder_blocks=(1, 0))
    kinds = [type(layer) for layer in network.encoder.layers]
    assert kinds[-3:] == [nn.Conv2d, nn.ReLU, nn.Conv2d]
    picture = torch.rand(1, 3, 16, 16)
    assert network.decode(network.encode(picture), network.encode(picture)).shape == picture.shape


def test_forward_is_equation_13(tiny: FrameAutoencoder) -> None:
    """𝓓([𝓔(F₁), 𝓔(F₂)]), the halves encoded one by one and put together in the equation's order."""
    first, second = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        both = torch.cat([tiny.encoder.layers(first * 2 - 1), tiny.encoder.layers(second * 2 - 1)], dim=1)
        torch.testing.assert_close(tiny(first, second), (tiny.decoder(both) + 1) / 2, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            tiny.decode(tiny.encode(second), tiny.encode(first)), tiny(first, second).clamp(0, 1)
        )


def test_the_decoder_reads_both_latents(tiny: FrameAutoencoder) -> None:
    latent, reference = torch.randn(1, 16, 8, 8), torch.randn(1, 16, 8, 8)
    with torch.no_grad():
        plain = tiny.decode(latent, reference, clamp=False)
        assert (tiny.decode(latent, reference + 1, clamp=False) - plain).abs().max() > 1e-4
        assert (tiny.decode(latent + 1, reference, clamp=False) - plain).abs().max() > 1e-4


def test_statistics_scale_latents_and_leave_pictures() -> None:
    network = small()
    pictures = torch.rand(8, 3, 32, 32)
    with torch.no_grad():
        before = network(pictures[:4], pictures[4:])
        for _ in range(2):
            # the second time they are measured on latents that are scaled already
            latents = network.encode(pictures)
            network.set_latent_statistics(latents.mean(dim=(0, 2, 3)) + 0, latents.std(dim=(0, 2, 3)))
        latents = network.encode(pictures)
        torch.testing.assert_close(latents.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)
        torch.testing.assert_close(latents.std(dim=(0, 2, 3)), torch.ones(4), atol=1e-5, rtol=0)
        torch.testing.assert_close(network(pictures[:4], pictures[4:]), before, atol=1e-5, rtol=1e-5)


def test_losses_are_equations_13_to_15() -> None:
    frame, decoded = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)

    def features(picture: Tensor) -> list[Tensor]:
        return [picture * 3, picture[..., ::2] - 1]

    wanted_rec = ((frame - decoded) ** 2).sum() / frame.numel()
    difference = (frame - decoded).abs()
    wanted_per = 3 * difference.mean() + difference[..., ::2].mean()
    torch.testing.assert_close(reconstruction_loss(frame, decoded), wanted_rec)
    torch.testing.assert_close(perceptual_loss(frame, decoded, features), wanted_per)
    whole, rec, per = autoencoder_loss(frame, decoded, features, rec_weight=2.0, per_weight=0.5)
    torch.testing.assert_close(whole, 2 * wanted_rec + wanted_per / 2)
    torch.testing.assert_close((rec, per), (wanted_rec, wanted_per))


def test_a_few_steps_learn_to_copy() -> None:
    """Gradients reach encoder and decoder: the reconstruction of one picture gets much better."""
    network = small(block_out_channels=(16, 16)).train()
    coarse = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    pictures = torch.nn.functional.interpolate(coarse, size=32, mode="bilinear")
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    losses = []
    for _ in range(60):
        loss = reconstruction_loss(pictures, network(pictures, pictures))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_base_has_the_papers_factor() -> None:
    config = configs.load_config("autoencoder", "base")
    with torch.device("meta"):
        base = FrameAutoencoder(**config)
        latent, picture = torch.empty(1, 3, 64, 64), torch.empty(1, 3, 256, 256)
        assert base.downsample_factor == 4 and base.encode(picture).shape == latent.shape
        decoder = count_flops(lambda: base.decode(latent, latent))
    parameters = sum(p.numel() for p in base.parameters())
    print(f"base autoencoder: {parameters / 1e6:.1f} M parameters, {decoder / 1e9:.0f} GFLOP to decode")
    assert 600e9 < decoder < 740e9


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(FD2TalkError, match="2 levels"):
        small(encoder_blocks=(1,))
    with pytest.raises(FD2TalkError, match="'vq'"):
        small(architecture="vq")
    with pytest.raises(FD2TalkError, match="as many blocks"):
        small(architecture="kl", patch_size=1, block_out_channels=(32, 32), encoder_blocks=(1, 2))

"""The frame autoencoder: encoder 𝓔 and reference-conditioned decoder 𝓓 (FD2Talk Sec. 3.4.2, Eq. 13–15)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import Decoder, Encoder
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d_blocks import AutoencoderTinyBlock
from torch import Tensor, nn

from ..errors import FD2TalkError
from .blend import PortraitBlend


class FrameAutoencoder(ModelMixin, ConfigMixin):
    """Pictures to latents and back; the decoder sees the reference's latent beside the frame's.

    Args:
        latent_channels: d.
        block_out_channels: channels by level, from fine to coarse; each level after the first halves the
            size.
        encoder_blocks: residual blocks by level in the encoder; a level of the compact network may have
            none, and a ReLU in their place.
        decoder_blocks: residual blocks by level in the decoder, as well.
        patch_size: pixels folded into channels before the first level (pixel unshuffle) and unfolded after
            the last, so that no convolution runs at full resolution. 1 folds nothing.
        architecture: ``"compact"``: the blocks of the tiny autoencoder for Stable Diffusion (no
            normalisation, every output depends on a bounded neighbourhood only); ``"kl"``: encoder and
            decoder of the latent-diffusion autoencoder, as the paper (Rombach et al. 2022), one number of
            blocks for all levels.
        norm_num_groups: groups of the normalisation of ``"kl"``.
        blend: constructor arguments of a :class:`~fd2talk_core.networks.blend.PortraitBlend`, by which the
            decoder says how far the portrait itself may be believed; None has the latents' picture alone.

    The downsampling factor is f = patch_size · 2^(levels − 1).
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 16,
        block_out_channels: Sequence[int] = (32, 64, 96),
        encoder_blocks: Sequence[int] = (1, 1, 2),
        decoder_blocks: Sequence[int] = (2, 2, 3),
        patch_size: int = 2,
        architecture: str = "compact",
        norm_num_groups: int = 32,
        blend: Mapping | None = None,
    ) -> None:
        super().__init__()
        levels = len(block_out_channels)
        if not levels == len(encoder_blocks) == len(decoder_blocks):
            raise FD2TalkError(
                f"The autoencoder has {levels} levels, so each half needs {levels} numbers of blocks."
            )
        self.encoder = FrameEncoder(
            latent_channels, block_out_channels, encoder_blocks, patch_size, architecture, norm_num_groups
        )
        self.decoder = _decoder(
            architecture, 2 * latent_channels, block_out_channels, decoder_blocks, patch_size, norm_num_groups
        )
        self.downsample_factor = self.encoder.downsample_factor
        # not named as its config value: diffusers would answer the attribute with that
        self.portrait_blend = None if blend is None else PortraitBlend(**blend)

    @property
    def latent_mean(self) -> Tensor:
        """``[d]``, the mean of raw latents over the training frames."""
        return self.encoder.latent_mean

    @property
    def latent_std(self) -> Tensor:
        """``[d]``, the standard deviation of raw latents over the training frames."""
        return self.encoder.latent_std

    @torch.no_grad()
    def set_latent_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Make latents of the training frames zero-mean and unit-variance by channel; pictures stay the same.

        Args:
            mean, std: ``[d]``, of the latents as :meth:`encode` gives them with the statistics now set.
        """
        self.encoder.latent_mean.add_(mean.to(self.latent_mean) * self.latent_std)
        self.encoder.latent_std.mul_(std.to(self.latent_std).clamp_min(1e-6))

    def encode(self, image: Tensor) -> Tensor:
        """x = 𝓔(I).

        Args:
            image: ``[B, 3, H, W]`` in 0..1, H and W multiples of f.

        Returns:
            ``[B, d, H / f, W / f]`` of zero mean and unit variance.

        Raises:
            FD2TalkError: when a side is not a multiple of f.
        """
        return self.encoder(image)

    def decode(self, latent: Tensor, reference_latent: Tensor, clamp: bool = True) -> Tensor:
        """𝓓([x, J]).

        Args:
            latent: ``[B, d, h, w]``, of the frames.
            reference_latent: ``[1 or B, d, h, w]`` or ``[d, h, w]``, of the portrait.
            clamp: to 0..1; without it, gradients flow from values beyond.

        Returns:
            ``[B, 3, f h, f w]``.
        """
        decoded = self._decode(latent, reference_latent)
        return decoded.clamp(0, 1) if clamp else decoded

    def forward(self, reference: Tensor, frame: Tensor) -> Tensor:
        """𝓓([𝓔(F₁), 𝓔(F₂)]) of Eq. 13, not clamped so that gradients flow.

        Args:
            reference, frame: ``[B, 3, H, W]`` in 0..1, F₁ and F₂.
        """
        batch = reference.shape[0]
        first, second = self.encode(torch.cat([reference, frame])).split(batch)
        return self._decode(second, first)

    def _decode(self, latent: Tensor, reference_latent: Tensor) -> Tensor:
        if latent.shape[-3:] != reference_latent.shape[-3:]:
            raise FD2TalkError(
                f"The frame latents have shape {tuple(latent.shape[-3:])} and the reference's "
                f"{tuple(reference_latent.shape[-3:])}: encode both with the same autoencoder and size."
            )
        scale, shift = self.latent_std[:, None, None], self.latent_mean[:, None, None]
        both = torch.cat([reference_latent.expand_as(latent), latent], dim=1)
        raw = both * torch.cat([scale, scale]) + torch.cat([shift, shift])
        raw = raw.contiguous(memory_format=torch.channels_last)
        return (self.decoder(raw).float() + 1) / 2


class FrameEncoder(nn.Module):
    """𝓔 with its latent statistics; arguments as :class:`FrameAutoencoder`.

    A module of its own, since a UNet that re-encodes the warped portrait carries a copy.
    """

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(
        self,
        latent_channels: int,
        block_out_channels: Sequence[int],
        blocks: Sequence[int],
        patch_size: int,
        architecture: str,
        norm_num_groups: int,
    ) -> None:
        super().__init__()
        channels = tuple(block_out_channels)
        self.patch_size = patch_size
        self.downsample_factor = patch_size * 2 ** (len(channels) - 1)
        if architecture == "compact":
            self.layers = _compact_encoder(latent_channels, channels, blocks, patch_size)
        elif architecture == "kl":
            self.layers = Encoder(
                3,
                latent_channels,
                ("DownEncoderBlock2D",) * len(channels),
                channels,
                _one_number(blocks),
                norm_num_groups,
                double_z=False,
            )
        else:
            raise FD2TalkError(
                f"The autoencoder's architecture is {architecture!r}; there are 'compact' and 'kl'."
            )
        self.register_buffer("latent_mean", torch.zeros(latent_channels))
        self.register_buffer("latent_std", torch.ones(latent_channels))

    def forward(self, image: Tensor, by_patch: bool = False) -> Tensor:
        """``[B, 3, H, W]`` in 0..1 to normalised latents ``[B, d, H / f, W / f]``.

        Args:
            by_patch: the picture has a pixel for each patch: all pixels of that patch are taken to be it.
        """
        height, width = image.shape[-2:]
        factor = self.downsample_factor // (self.patch_size if by_patch else 1)
        if height % factor or width % factor:
            raise FD2TalkError(
                f"The picture is {width} x {height} pixels, but both sides must be multiples of {factor}."
            )
        layers, planes = self.layers, image * 2 - 1
        if by_patch and self.patch_size > 1:  # whose first layer folds patches into channels
            layers, planes = layers[1:], planes.repeat_interleave(self.patch_size**2, dim=1)
        raw = layers(planes.contiguous(memory_format=torch.channels_last))
        return (raw - self.latent_mean[:, None, None]) / self.latent_std[:, None, None]


def _compact_encoder(
    latent_channels: int, channels: Sequence[int], blocks: Sequence[int], patch_size: int
) -> nn.Sequential:
    layers: list[nn.Module] = [nn.PixelUnshuffle(patch_size)] if patch_size > 1 else []
    layers.append(nn.Conv2d(3 * patch_size**2, channels[0], 3, padding=1))
    for level, width in enumerate(channels):
        if level:
            layers.append(nn.Conv2d(channels[level - 1], width, 3, stride=2, padding=1))
        layers.extend(_residual_blocks(width, blocks[level]))
    layers.append(nn.Conv2d(channels[-1], latent_channels, 3, padding=1))
    return nn.Sequential(*layers)


def _residual_blocks(width: int, count: int) -> list[nn.Module]:
    """What stands between two convolutions that change the number of channels. Each block ends in a ReLU."""
    return [AutoencoderTinyBlock(width, width, "relu") for _ in range(count)] or [nn.ReLU()]


def _decoder(
    architecture: str,
    in_channels: int,
    channels: Sequence[int],
    blocks: Sequence[int],
    patch_size: int,
    norm_num_groups: int,
) -> nn.Module:
    if architecture == "kl":
        return Decoder(
            in_channels,
            3,
            ("UpDecoderBlock2D",) * len(channels),
            tuple(channels),
            _one_number(blocks),
            norm_num_groups,
        )
    layers: list[nn.Module] = [nn.Conv2d(in_channels, channels[-1], 3, padding=1), nn.ReLU()]
    for level in reversed(range(len(channels))):
        width = channels[level]
        layers.extend(_residual_blocks(width, blocks[level]))
        if level:
            # the convolution before the enlargement costs a quarter of one after it
            layers.append(nn.Conv2d(width, channels[level - 1], 3, padding=1))
            layers.append(nn.Upsample(scale_factor=2, mode="nearest"))
    layers.append(nn.Conv2d(channels[0], 3 * patch_size**2, 3, padding=1))
    if patch_size > 1:
        layers.append(nn.PixelShuffle(patch_size))
    return nn.Sequential(*layers)


def _one_number(blocks: Sequence[int]) -> int:
    if len(set(blocks)) != 1:
        raise FD2TalkError(
            f"The 'kl' autoencoder has as many blocks on every level, but {list(blocks)} were given."
        )
    return blocks[0]


AT_ONCE = 4
"""Of :func:`few_at_once`."""


def few_at_once(network: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """What a network makes of pictures or latents ``[F, C, H, W]``, a few after the others on a processor:
    the maps of more leave its cache, which takes half as long again.
    """
    parts = inputs.split(AT_ONCE if inputs.is_cpu else len(inputs))
    return torch.cat([network(part) for part in parts])


def reconstruction_loss(frame: Tensor, decoded: Tensor) -> Tensor:
    """L_rec = ‖F₂ − 𝓓([𝓔(F₁), 𝓔(F₂)])‖²₂ (Eq. 13), mean over pixels and channels."""
    return F.mse_loss(decoded, frame)


def perceptual_loss(frame: Tensor, decoded: Tensor, features: Callable[[Tensor], Sequence[Tensor]]) -> Tensor:
    """L_per = ‖φ(F₂) − φ(𝓓(…))‖₁ (Eq. 14), mean within each feature map, summed over maps.

    Args:
        features: φ, gives a list of feature maps of a batch of pictures ``[B, 3, H, W]``.
    """
    with torch.no_grad():
        wanted = features(frame)
    return torch.stack(
        [F.l1_loss(got, want) for got, want in zip(features(decoded), wanted, strict=True)]
    ).sum()


def autoencoder_loss(
    frame: Tensor,
    decoded: Tensor,
    features: Callable[[Tensor], Sequence[Tensor]],
    *,
    rec_weight: float = 1.0,
    per_weight: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """L_e&d = λ_rec L_rec + λ_per L_per (Eq. 15).

    Returns:
        L_e&d, L_rec and L_per.
    """
    rec = reconstruction_loss(frame, decoded)
    per = perceptual_loss(frame, decoded, features)
    return rec_weight * rec + per_weight * per, rec, per

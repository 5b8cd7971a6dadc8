"""The second half of the decoder 𝓓 (FD2Talk Eq. 13): where a frame's pixels come from.

A latent of a small autoencoder keeps no hair, lashes or pores; the portrait has them. So the decoder says
beside its colours how far the portrait may be believed: at each pixel it mixes the portrait moved with the
head, the portrait as it stands, and what the latents show (the occlusion map of DAWN, Eq. 3 and 4, with a
third source). Its maps are of the latents' picture; the portrait is taken at its own resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.models.unets.unet_2d_blocks import AutoencoderTinyBlock
from einops import rearrange
from torch import Tensor, nn

from ..imaging import displace, resize

SOURCES = ("moved", "still", "made")
"""The portrait moved with the head, the portrait as it stands, and the colours of the latents."""

_PATCH = 4
_CHANNELS_IN = 3 + 3 + 3 + 1 + 1 + 5 + 2
_STEP = 0.05
"""Half widths of the picture by which displacements are measured."""

_SURENESS = 1.5
"""Of the masks' own opinion of where pixels come from."""


@dataclass(frozen=True, eq=False)
class Blend:
    """Where the pixels of F frames come from.

    Attributes:
        weights: ``[F, 3, S, S]`` in 0..1, of :data:`SOURCES`; their sum is 1.
        colours: ``[F, 3, S, S]``, what the latents show.
    """

    weights: Tensor
    colours: Tensor

    def picture(self, portrait: Tensor, displacement: Tensor) -> Tensor:
        """The frames.

        Args:
            portrait: ``[1 or F, 3, N, N]`` in 0..1, at any size.
            displacement: ``[F, 2, m, m]``, of the mesh, in half widths of the picture.

        Returns:
            ``[F, 3, N, N]``.
        """
        front, of_still = self.front(portrait, displacement)
        return front + of_still * portrait

    def front(self, portrait: Tensor, displacement: Tensor) -> tuple[Tensor, Tensor]:
        """The frames without the portrait as it stands, as :meth:`picture` adds it: colours times their share
        ``[F, 3, N, N]``, and the share that is left to it, ``[F, 1, N, N]``.
        """
        size = portrait.shape[-1]
        moved = displace(portrait.expand(len(displacement), -1, -1, -1), displacement)
        of_moved, of_still, of_made = resize(self.weights, size).split(1, dim=1)
        return of_moved * moved + of_made * resize(self.colours, size), of_still


class PortraitBlend(nn.Module):
    """Mixes a frame of its sources.

    Args:
        channels: by level, from fine to coarse; the finest has a quarter of the picture's side.
        blocks: residual blocks by level, on the way down and again on the way up.
    """

    def __init__(self, channels: Sequence[int] = (48, 96, 128), blocks: Sequence[int] = (1, 1, 2)) -> None:
        super().__init__()
        self.down, self.up, self.joins = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        self.first = nn.Conv2d(_CHANNELS_IN * _PATCH**2, channels[0], 3, padding=1)
        for level, width in enumerate(channels):
            layers: list[nn.Module] = []
            if level:
                layers.append(nn.Conv2d(channels[level - 1], width, 3, stride=2, padding=1))
            layers += [AutoencoderTinyBlock(width, width, "relu") for _ in range(blocks[level])]
            self.down.append(nn.Sequential(*layers))
        for level in reversed(range(len(channels) - 1)):
            width = channels[level]
            self.joins.append(nn.Conv2d(channels[level + 1], width, 1))
            self.up.append(
                nn.Sequential(*(AutoencoderTinyBlock(width, width, "relu") for _ in range(blocks[level])))
            )
        self.last = nn.Conv2d(channels[0], (len(SOURCES) + 3) * _PATCH**2, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(
        self, portrait: Tensor, matte: Tensor, made: Tensor, displacement: Tensor, masks: Tensor
    ) -> Blend:
        """
        Args:
            portrait: ``[1 or F, 3, S, S]`` in 0..1, S as the latents' pictures have it.
            matte: ``[1 or F, 1, S, S]`` in 0..1, where the portrait shows its person.
            made: ``[F, 3, S, S]``, what the latents show.
            displacement, masks: ``[F, 2, m, m]`` and ``[F, 5, m, m]``, of a correspondence.

        All in float32, as the maps that are returned: half precision would move the portrait in steps.
        """
        size = made.shape[-1]
        both = torch.cat([portrait, matte], dim=1).expand(len(made), -1, -1, -1)
        displacement, masks = resize(displacement, size), resize(masks, size)
        seen = torch.cat([displace(both, displacement), both, made, masks, displacement / _STEP], dim=1)
        hidden = self.first(_patches(seen).to(self.first.weight.dtype))
        skips = []
        for layer in self.down:
            hidden = layer(hidden)
            skips.append(hidden)
        for join, layer, skip in zip(self.joins, self.up, reversed(skips[:-1]), strict=True):
            hidden = layer(skip + F.interpolate(join(hidden), size=skip.shape[-2:], mode="nearest"))
        maps = F.pixel_shuffle(self.last(hidden).float(), _PATCH)
        logits, change = maps.split([len(SOURCES), 3], dim=1)
        # untrained, it believes the moved portrait where the mesh says that the portrait shows the place
        return Blend((logits + _prior(masks)).softmax(dim=1), made + change)


def _patches(planes: Tensor) -> Tensor:
    """``[F, C p², S / p, S / p]`` of ``[F, C, S, S]``: pixel unshuffle, its channels last in memory."""
    rows = rearrange(planes, "f c (h p) (w q) -> f h w (c p q)", p=_PATCH, q=_PATCH)
    return rows.movedim(-1, 1)


def _prior(masks: Tensor) -> Tensor:
    """``[F, 3, S, S]``: logits of :data:`SOURCES` by the masks alone."""
    coverage, visible = masks[:, :1], masks[:, 1:2]
    made = 4 * (coverage - visible).clamp(0, 1)
    return _SURENESS * torch.cat([torch.full_like(made, 2.0), 1 - coverage, made - 1], dim=1)

"""The second half of the decoder 𝓓 (FD2Talk Eq. 13): where a frame's pixels come from.

A latent of a small autoencoder keeps no hair, lashes or pores; the portrait has them. So the decoder says
beside its colours how far the portrait may be believed: at each pixel it mixes the portrait moved with the
head, the portrait as it stands, and what the latents show (the occlusion map of DAWN, Eq. 3 and 4, with a
third source); and beside the face, where there is no mesh, it may correct by how far the portrait is moved.
Its maps are of the latents' picture; the portrait is taken at its own resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.models.unets.unet_2d_blocks import AutoencoderTinyBlock
from einops import rearrange
from torch import Tensor, nn

from ..imaging import displace, resize, soften

SOURCES = ("moved", "still", "made")
"""The portrait moved with the head, the portrait as it stands, and the colours of the latents."""

_PATCH = 4
_CHANNELS_IN = 3 + 3 + 3 + 1 + 1 + 5 + 2
_STEP = 0.05
"""Half widths of the picture by which displacements are measured."""

_SURENESS = 1.5
"""Of the masks' own opinion of where pixels come from."""

_SHARP = -1.8
"""Their opinion of the latents' colours where the portrait shows the place: those are soft, as latents are
small, and a loss over pixels likes soft hair better than strands that lie a little beside the true ones."""


@dataclass(frozen=True, eq=False)
class Blend:
    """Where the pixels of F frames come from.

    Attributes:
        weights: ``[F, 3, S, S]`` in 0..1, of :data:`SOURCES`; their sum is 1.
        colours: ``[F, 3, S, S]``, what the latents show.
        shift: ``[F, 2, s, s]``, half widths of the picture that are added to the mesh's displacement; None
            for a blend that adds nothing.
    """

    weights: Tensor
    colours: Tensor
    shift: Tensor | None = None

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
        if self.shift is not None:
            displacement = displacement + resize(self.shift, displacement.shape[-1])
        moved = displace(portrait.expand(len(displacement), -1, -1, -1), displacement)
        of_moved, of_still, of_made = resize(self.weights, size).split(1, dim=1)
        return of_moved * moved + of_made * resize(self.colours, size), of_still


class PortraitBlend(nn.Module):
    """Mixes a frame of its sources.

    Args:
        channels: by level, from fine to coarse; the finest has a quarter of the picture's side.
        blocks: residual blocks by level, on the way down and again on the way up.
        paints: whether it also changes the colours that the latents show; without, what is painted is the
            diffusion's alone.
        shift: half widths of the picture by which it may move the portrait further beside the face, where
            hair and collars follow the head as their distance from the camera has it, which no mesh tells.
    """

    def __init__(
        self,
        channels: Sequence[int] = (48, 96, 128),
        blocks: Sequence[int] = (1, 1, 2),
        paints: bool = True,
        shift: float = 0.0,
    ) -> None:
        super().__init__()
        self.paints, self.reach = paints, shift
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
        self.last = nn.Conv2d(channels[0], (len(SOURCES) + 3 * paints) * _PATCH**2, 3, padding=1)
        self.move = nn.Conv2d(channels[0], 2, 3, padding=1) if shift else None
        for layer in (self.last, self.move):
            if layer is not None:
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

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
        # untrained, it believes the moved portrait where the mesh says that the portrait shows the place
        weights = (maps[:, : len(SOURCES)] + _prior(masks)).softmax(dim=1)
        colours = made + maps[:, len(SOURCES) :] if self.paints else made
        return Blend(weights, colours, self._shift(hidden, masks[:, :1]))

    def _shift(self, hidden: Tensor, coverage: Tensor) -> Tensor | None:
        """``[F, 2, s, s]``, smooth, and none where the mesh is, ``[F, 1, S, S]``."""
        if self.move is None:
            return None
        covered = F.max_pool2d(F.avg_pool2d(coverage, _PATCH), 5, stride=1, padding=2)
        return soften(self.reach * self.move(hidden).float().tanh() * soften(1 - covered))


def _patches(planes: Tensor) -> Tensor:
    """``[F, C p², S / p, S / p]`` of ``[F, C, S, S]``: pixel unshuffle, its channels last in memory."""
    rows = rearrange(planes, "f c (h p) (w q) -> f h w (c p q)", p=_PATCH, q=_PATCH)
    return rows.movedim(-1, 1)


def _prior(masks: Tensor) -> Tensor:
    """``[F, 3, S, S]``: logits of :data:`SOURCES` by the masks alone."""
    coverage, visible = masks[:, :1], masks[:, 1:2]
    made = _SHARP + (3 - _SHARP) * (coverage - visible).clamp(0, 1)
    return _SURENESS * torch.cat([torch.full_like(made, 2.0), 1 - coverage, made], dim=1)

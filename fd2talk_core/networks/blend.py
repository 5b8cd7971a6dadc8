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

from ..imaging import (
    averaged,
    displace,
    largest_around,
    length_of,
    pixel_centers,
    resize,
    shrink,
    smoothstep,
    soften,
    widen,
)

SOURCES = ("moved", "still", "made")
"""The portrait moved with the head, the portrait as it stands, and the colours of the latents."""

_COARSER, _PATCH = 2, 2
"""Pictures are looked at so much coarser a side than they are, folded in patches of so many pixels: which
source is right is seen at half the resolution as well, and a processor moves a quarter of the pixels."""
_FINE = 2
"""Maps are so much finer a side than patches."""
_PORTRAIT, _MADE, _OF_CELLS = 3 + 1, 3, 5 + 2
"""Planes of a portrait with its matte, of what the latents show, and of a correspondence, which is smooth:
the last come by cells of a patch's size."""
_STEP = 0.05
"""Half widths of the picture by which displacements are measured."""

_SURENESS = 1.5
"""Of the masks' own opinion of where pixels come from."""

_SHARP = -1.8
"""Their opinion of the latents' colours where the portrait shows the place: those are soft, as latents are
small, and a loss over pixels likes soft hair better than strands that lie a little beside the true ones."""

_COVERED, _AWAY = 3.0, 0.005
"""How much less it counts where a mesh, or a person beside it, lies so many half widths elsewhere: a
twentieth of the portrait's lips shows on a cheek, and a quarter of its hair between the moved strands. A body
that stays does so in the picture's own pixels."""

_GHOST = 4.0
"""How much less the portrait as it stands counts where it shows somebody whom the frame shows elsewhere."""

_FAR = 0.03
"""Half widths that a place has moved from which on it is not shown twice."""

_ONCE = (0.4, 0.8)
"""Share of what has moved, over which the portrait as it stands is left out where it came from."""


@dataclass(frozen=True, eq=False)
class Blend:
    """Where the pixels of F frames come from.

    Attributes:
        weights: ``[F, 3, S / 2, S / 2]`` in 0..1, of :data:`SOURCES`; their sum is 1.
        colours: ``[F, 3, S, S]``, what the latents show.
        shift: ``[F, 2, s, s]``, half widths of the picture that are added to the mesh's displacement; None
            for a blend that adds nothing.
    """

    weights: Tensor
    colours: Tensor
    shift: Tensor | None = None

    def of_frame(self, frame: int) -> Blend:
        """Of one of the frames alone."""
        shift = None if self.shift is None else self.shift[frame, None]
        return Blend(self.weights[frame, None], self.colours[frame, None], shift)

    def standing(self, share: Tensor | None) -> Blend:
        """The same, but by a share ``[F, 1, m, m]`` it is the portrait as it stands; None for nowhere."""
        if share is None:
            return self
        still = torch.tensor([source == "still" for source in SOURCES]).to(self.weights)[:, None, None]
        weights = torch.lerp(self.weights, still, resize(share.to(still), self.weights.shape[-1]))
        return Blend(weights, self.colours, self.shift)

    def picture(self, portrait: Tensor, displacement: Tensor) -> Tensor:
        """The frames.

        Args:
            portrait: ``[1 or F, 3, N, N]`` in 0..1, at any size.
            displacement: ``[F, 2, m, m]``, of the mesh, in half widths of the picture.

        Returns:
            ``[F, 3, N, N]``.
        """
        front, of_still = self.front(self.moved(portrait, displacement))
        return front + of_still * portrait

    def moved(self, portrait: Tensor, displacement: Tensor) -> Tensor:
        """``[F, 3, N, N]``: the portrait moved with the head, and by :attr:`shift`; as :meth:`picture`."""
        if self.shift is not None:
            displacement = displacement + resize(self.shift, displacement.shape[-1])
        return displace(portrait.expand(len(displacement), -1, -1, -1), displacement)

    def front(self, moved: Tensor) -> tuple[Tensor, Tensor]:
        """The frames without the portrait as it stands, as :meth:`picture` adds it: colours times their share
        ``[F, 3, N, N]``, and the share that is left to it, ``[F, 1, N, N]``.

        Args:
            moved: ``[F, 3, N, N]``, the portrait moved with the head.
        """
        size = moved.shape[-1]
        of_moved, of_still, of_made = resize(self.weights, size).split(1, dim=1)
        return torch.addcmul(of_made * resize(self.colours, size), of_moved, moved), of_still


class PortraitBlend(nn.Module):
    """Mixes a frame of its sources.

    Args:
        channels: by level, from fine to coarse; the finest has a quarter of the picture's side.
        blocks: residual blocks by level on the way down.
        blocks_up: on the way up, for all levels but the coarsest; None for as many as on the way down.
        paints: whether it also changes the colours that the latents show; without, what is painted is the
            diffusion's alone.
        shift: half widths of the picture by which it may move the portrait further beside the face, where
            hair and collars follow the head as their distance from the camera has it, which no mesh tells.
    """

    def __init__(
        self,
        channels: Sequence[int] = (48, 96, 128),
        blocks: Sequence[int] = (1, 1, 1),
        blocks_up: Sequence[int] | None = None,
        paints: bool = True,
        shift: float = 0.0,
    ) -> None:
        super().__init__()
        self.paints, self.reach = paints, shift
        self.down, self.up, self.joins = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        # one convolution of all planes, of which that of the portrait in its place is computed once a clip
        self.first = nn.Conv2d((_PORTRAIT + _MADE) * _PATCH**2, channels[0], 3, padding=1)
        self.first_still = nn.Conv2d(_PORTRAIT * _PATCH**2, channels[0], 3, padding=1, bias=False)
        self.first_cells = nn.Conv2d(_OF_CELLS, channels[0], 3, padding=1, bias=False)
        blocks_up = blocks if blocks_up is None else blocks_up
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
                nn.Sequential(*(AutoencoderTinyBlock(width, width, "relu") for _ in range(blocks_up[level])))
            )
        self.last = nn.Conv2d(channels[0], (len(SOURCES) + 3 * paints) * _FINE**2, 3, padding=1)
        self.move = nn.Conv2d(channels[0], 2, 3, padding=1) if shift else None
        for layer in (self.last, self.move):
            if layer is not None:
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    def look_at(self, portrait: Tensor, matte: Tensor) -> Tensor:
        """What :meth:`forward` needs once a clip of a portrait as it stands: ``[1 or F, C, s, s]``."""
        return self.first_still(_patches(_coarse(portrait, matte), self.first.weight.dtype))

    def forward(
        self,
        portrait: Tensor,
        matte: Tensor,
        made: Tensor,
        displacement: Tensor,
        masks: Tensor,
        looked_at: Tensor | None = None,
    ) -> Blend:
        """
        Args:
            portrait: ``[1 or F, 3, S, S]`` in 0..1, S as the latents' pictures have it.
            matte: ``[1 or F, 1, S, S]`` in 0..1, where the portrait shows its person.
            made: ``[F, 3, S, S]``, what the latents show.
            displacement, masks: ``[F, 2, m, m]`` and ``[F, 5, m, m]``, of a correspondence.
            looked_at: of the same portrait, see :meth:`look_at`.

        All in float32, as the maps that are returned: half precision would move the portrait in steps.
        """
        if looked_at is None:
            looked_at = self.look_at(portrait, matte)
        kind = self.first.weight.dtype
        both = _coarse(portrait, matte)
        size = both.shape[-1]
        moved = displace(both.expand(len(made), -1, -1, -1), displacement)
        cells = torch.cat([masks, displacement / _STEP], dim=1)
        cells = averaged(cells, size // _PATCH)
        seen = _patches(torch.cat([moved, _coarse(made)], dim=1), kind)
        hidden = self.first(seen) + self.first_cells(cells.to(kind)) + looked_at
        skips = []
        for layer in self.down:
            hidden = layer(hidden)
            skips.append(hidden)
        for join, layer, skip in zip(self.joins, self.up, reversed(skips[:-1]), strict=True):
            hidden = layer(skip + F.interpolate(join(hidden), size=skip.shape[-2:], mode="nearest"))
        # softened, since pixels that are taken in turn from two sources are noise
        maps = soften(F.pixel_shuffle(self.last(hidden).float(), _FINE))
        # untrained, it believes the moved portrait where the mesh says that the portrait shows the place
        away = (length_of(displacement) / _AWAY).clamp_max(1)
        was, stays = (shrink(person, _PATCH) for person in (both[:, 3:], moved[:, 3:]))
        # where the portrait shows its person, or close beside them, who has moved away
        left = resize(away, size) * resize((largest_around(was, 1) - stays).clamp_min(0), size)
        elsewhere = away * torch.maximum(masks[:, :1], resize(stays, masks.shape[-1]))
        prior = _prior(resize(torch.cat([masks[:, :2], elsewhere], dim=1), size), left)
        weights = _shown_once((maps[:, : len(SOURCES)] + prior).softmax(dim=1), displacement, stays)
        colours = made + resize(maps[:, len(SOURCES) :], made.shape[-1]) if self.paints else made
        return Blend(weights, colours, self._shift(hidden, cells[:, :1]))

    def _shift(self, hidden: Tensor, coverage: Tensor) -> Tensor | None:
        """``[F, 2, s, s]``, smooth, and none where the mesh is, ``[F, 1, s, s]``."""
        if self.move is None:
            return None
        covered = largest_around(coverage, 2)
        return soften(self.reach * self.move(hidden).float().tanh() * soften(1 - covered))


def _shown_once(weights: Tensor, displacement: Tensor, person: Tensor) -> Tensor:
    """``[F, 3, s, s]`` of the same: what of a person has moved away is not also shown where it was, but what
    the latents show there.

    Args:
        person: ``[F, 1, q, q]`` in 0..1, where what has moved is theirs.
    """
    size = weights.shape[-1]
    moved, still, made = weights.split(1, dim=1)
    displacement = resize(displacement, size)
    person = resize(person, size)
    sure = (moved.detach() * person * (length_of(displacement) / _FAR).clamp_max(1)).flatten(1)
    place = pixel_centers(size, displacement) + displacement.movedim(1, -1)
    column, row = ((place + 1) * (size / 2)).long().clamp(0, size - 1).unbind(-1)
    taken = torch.zeros_like(sure).scatter_reduce(1, (row * size + column).flatten(1), sure, "amax")
    taken = widen(taken.view_as(still))
    least, most = _ONCE
    lost = still * smoothstep((taken - least) / (most - least))
    return torch.cat([moved, still - lost, made + lost], dim=1)


def _coarse(*planes: Tensor) -> Tensor:
    """Planes of a picture together, as the network looks at them."""
    return shrink(torch.cat(planes, dim=1), _COARSER)


def _patches(planes: Tensor, kind: torch.dtype) -> Tensor:
    """``[F, C p², S / p, S / p]`` of ``[F, C, S, S]``: pixel unshuffle, its channels last in memory."""
    if planes.is_cpu and torch.is_autocast_enabled("cpu"):
        kind = torch.get_autocast_dtype("cpu")  # half as much is moved about
    rows = rearrange(planes.to(kind), "f c (h p) (w q) -> f h w (c p q)", p=_PATCH, q=_PATCH)
    return rows.movedim(-1, 1)


def _prior(masks: Tensor, left: Tensor) -> Tensor:
    """``[F, 3, S / 2, S / 2]``: logits of :data:`SOURCES` by coverage, what of it the portrait shows, and
    what of it it shows elsewhere; and by what has been left.
    """
    coverage, visible, elsewhere = masks.split(1, dim=1)
    made = _SHARP + (3 - _SHARP) * (coverage - visible).clamp(0, 1)
    still = 1 - coverage - _COVERED * elsewhere - _GHOST * left
    return _SURENESS * torch.cat([torch.full_like(made, 2.0), still, made], dim=1)

"""DAWN's renderer: how the portrait's latent moves, in all frames of a clip together (DAWN Sec. 3.2, 3.3).

A frame is the portrait's latent z_src, moved by a flow f and blocked by a map m where it shows nothing of the
frame (Eq. 4). :class:`FlowPredictor` reads both off a pair of pictures (Eq. 3), which training needs;
:class:`LatentFlowUNet` makes them, of every frame of a clip at once, from what is heard and done in each
(Eq. 6).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.resnet import ResnetBlock2D
from einops import rearrange
from torch import Tensor, nn

from ..errors import FD2TalkError
from ..imaging import displace
from .attention import rotary_positions
from .motion_transformer import POSE_DIM, LocalSelfAttention
from .unet import CrossAttention, build_levels, check_halvings, run_levels

PLANES = 3
"""Of z^m: the flow's two, and the blocking map."""

STATES = ("motion", "pose_and_blinks")
"""What Δρ holds: all of {β, p}, or DAWN's pose and lids, to which the sound adds the lips."""

MOST_WINDOW = 250
"""Frames on either side that are held in memory with those of a stretch: ten seconds at 25 fps."""

MASK_CHANNELS = 4
"""That the portrait's face mask is embedded in."""


def moved_by_flow(latent: Tensor, planes: Tensor) -> Tensor:
    """𝓐(z_src, f) ⊗ m (DAWN Eq. 4).

    Args:
        latent: z_src, ``[1 or F, d, h, w]``.
        planes: z^m = [f, m], ``[F, 3, h, w]``: where in the portrait a cell's content lies, in half widths
            from it, and in 0..1 how far it may be believed.

    Returns:
        ``[F, d, h, w]``.
    """
    flow, blocking = planes.split([2, 1], dim=1)
    return displace(latent.expand(len(planes), -1, -1, -1), flow) * blocking


class FlowPredictor(ModelMixin, ConfigMixin):
    """𝓟: flow and blocking map of two pictures of one person, from their latents (DAWN Eq. 3).

    MRAA, which DAWN takes, finds regions in both pictures. Here cells of the two latents are compared with
    one another around each place, which needs no regions to be learned.

    Args:
        latent_channels: d.
        width: channels of the finest level; each of the two coarser ones has twice as many.
        radius: cells around a place that are compared.
        reach: half widths of the picture by which anything moves at most.
        norm_num_groups: groups of the normalisations.
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 16,
        width: int = 48,
        radius: int = 5,
        reach: float = 0.6,
        norm_num_groups: int = 8,
    ) -> None:
        super().__init__()
        widths = (width, 2 * width, 4 * width)
        self.features = nn.Conv2d(latent_channels, width, 3, padding=1)
        self.conv_in = nn.Conv2d(2 * latent_channels + (2 * radius + 1) ** 2, width, 3, padding=1)

        def block(inside: int, outside: int) -> ResnetBlock2D:
            return ResnetBlock2D(
                in_channels=inside, out_channels=outside, temb_channels=None, groups=norm_num_groups
            )

        self.down = nn.ModuleList([block(width, width), block(width, widths[1]), block(widths[1], widths[2])])
        self.middle = block(widths[2], widths[2])
        self.up = nn.ModuleList([block(widths[2] + widths[1], widths[1]), block(widths[1] + width, width)])
        self.conv_out = nn.Conv2d(width, PLANES, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        # untrained, nothing moves and nearly everything is believed
        with torch.no_grad():
            self.conv_out.bias.copy_(torch.tensor([0.0, 0.0, 3.0]))

    def forward(self, source: Tensor, driving: Tensor) -> Tensor:
        """z^m ``[B, 3, h, w]`` of latents ``[B, d, h, w]`` of x_src and x_dri, as :func:`moved_by_flow` takes
        it.
        """
        likeness = self._compared(self.features(source), self.features(driving))
        hidden = self.conv_in(torch.cat([source, driving, likeness], dim=1))
        skips = []
        for level, layer in enumerate(self.down):
            hidden = layer(F.avg_pool2d(hidden, 2) if level else hidden, None)
            skips.append(hidden)
        hidden = self.middle(hidden, None)
        for layer, skip in zip(self.up, reversed(skips[:-1]), strict=True):
            finer = F.interpolate(hidden, size=skip.shape[-2:], mode="nearest")
            hidden = layer(torch.cat([finer, skip], dim=1), None)
        moved, blocked = self.conv_out(F.silu(hidden)).split([2, 1], dim=1)
        return torch.cat([self.config.reach * moved.tanh(), blocked.sigmoid()], dim=1)

    def _compared(self, source: Tensor, driving: Tensor) -> Tensor:
        """``[B, (2 r + 1)², h, w]``: how like a frame's cell is to the portrait's around it."""
        radius = self.config.radius
        side, (height, width) = 2 * radius + 1, source.shape[-2:]
        source, driving = F.normalize(source, dim=1), F.normalize(driving, dim=1)
        around = F.pad(source, (radius,) * 4)
        shifted = [
            (around[..., row : row + height, column : column + width] * driving).sum(dim=1)
            for row in range(side)
            for column in range(side)
        ]
        return torch.stack(shifted, dim=1)


class LatentFlowUNet(ModelMixin, ConfigMixin):
    """A2V-FDM: predicts the clean z^m of all frames of a clip from noisy ones (DAWN Sec. 3.3, Eq. 6).

    A UNet over each frame's map whose levels with attention also look along time: around each frame, as far
    as a window, with rotary positions, so that clips of any length can be made by what was trained on short
    ones (DAWN Sec. 3.6).

    Args:
        latent_channels: d, of z_src.
        sample_size: h = w that it is trained at.
        block_out_channels: channels by level, from fine to coarse.
        layers_per_block: residual blocks by level on the way down (one more on the way up).
        attention_levels: which levels have attention: to the conditions, over the picture and along time; the
            middle always has.
        attention_head_dim: channels of one head; even.
        states: what Δρ is of, see :data:`STATES`.
        expression_dim: D_β, of ``states: motion``.
        audio_dim: D_a, of the sound's features beside Δρ (DAWN's a); 0 for a network that hears nothing.
        tokens: that each condition is projected to, as in :class:`~fd2talk_core.networks.unet.FrameUNet`.
        context_dim: width of those tokens.
        attention_window: frames on either side that are looked at (DAWN: 40).
        norm_num_groups: groups of the normalisations.
    """

    plane_mean: Tensor
    plane_std: Tensor

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 16,
        sample_size: int = 32,
        block_out_channels: Sequence[int] = (32, 64, 96),
        layers_per_block: int = 1,
        attention_levels: Sequence[bool] = (False, True, True),
        attention_head_dim: int = 32,
        states: str = "motion",
        expression_dim: int = 52,
        audio_dim: int = 0,
        tokens: int = 4,
        context_dim: int = 64,
        attention_window: int = 40,
        norm_num_groups: int = 8,
    ) -> None:
        super().__init__()
        if states not in STATES:
            raise FD2TalkError(f"states is {states!r}, but it is one of: {', '.join(STATES)}.")
        if len(attention_levels) != len(block_out_channels):
            raise FD2TalkError(
                f"There are {len(attention_levels)} attention_levels for {len(block_out_channels)} levels."
            )
        if attention_head_dim % 2 or not 1 <= attention_window <= MOST_WINDOW:
            raise FD2TalkError(
                f"attention_head_dim is {attention_head_dim} and attention_window {attention_window}, but an "
                f"even number and one from 1 to {MOST_WINDOW} are needed."
            )
        channels, time_dim = tuple(block_out_channels), 4 * block_out_channels[0]
        self.time_proj = Timesteps(channels[0], flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(channels[0], time_dim)
        self.state_projection = nn.Linear(self.state_dim, tokens * context_dim)
        self.audio_projection = nn.Linear(audio_dim, tokens * context_dim) if audio_dim else None
        self.mask_embedding = nn.Sequential(
            nn.Conv2d(1, MASK_CHANNELS, 3, padding=1), nn.SiLU(), nn.Conv2d(MASK_CHANNELS, MASK_CHANNELS, 1)
        )
        self.conv_in = nn.Conv2d(PLANES + latent_channels + MASK_CHANNELS, channels[0], 3, padding=1)
        shape = (context_dim, attention_head_dim, norm_num_groups, attention_window, bool(audio_dim))

        def stage(inside: int, outside: int, attends: bool) -> ClipStage:
            resnet = ResnetBlock2D(
                in_channels=inside, out_channels=outside, temb_channels=time_dim, groups=norm_num_groups
            )
            return ClipStage(resnet, ClipAttention(outside, *shape) if attends else None)

        self.down, self.middle, self.up = build_levels(channels, layers_per_block, attention_levels, stage)
        width = channels[0]
        self.norm_out = nn.GroupNorm(norm_num_groups, width, eps=1e-5)
        self.conv_out = nn.Conv2d(width, PLANES, 3, padding=1)
        self.register_buffer("plane_mean", torch.zeros(PLANES))
        self.register_buffer("plane_std", torch.ones(PLANES))

    @property
    def state_dim(self) -> int:
        """Of Δρ."""
        of_face = self.config.expression_dim if self.config.states == "motion" else 2
        return of_face + POSE_DIM

    @property
    def hears(self) -> bool:
        """Whether it needs the sound's features."""
        return self.audio_projection is not None

    @property
    def takes_overlay(self) -> bool:
        """Whether decoders mix the portrait into its frames, as the checkpoint says; else they do not, as
        what moves here is not what the mesh moves.
        """
        return bool(getattr(getattr(self, "info", None), "overlay", None))

    @torch.no_grad()
    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """``[3]`` each, of z^m over the training frames."""
        self.plane_mean.copy_(mean)
        self.plane_std.copy_(std.clamp_min(1e-4))

    def normalize(self, planes: Tensor) -> Tensor:
        """z^m ``[..., 3, h, w]`` as the diffusion knows it, of zero mean and unit variance."""
        return (planes - self.plane_mean[:, None, None]) / self.plane_std[:, None, None]

    def latents(self, planes: Tensor, latent: Tensor) -> Tensor:
        """Latents ``[F, d, h, w]`` of normalised z^m ``[F, 3, h, w]`` and z_src ``[1, d, h, w]`` (Eq. 4)."""
        planes = planes * self.plane_std[:, None, None] + self.plane_mean[:, None, None]
        flow, blocking = planes.split([2, 1], dim=1)
        return moved_by_flow(latent, torch.cat([flow, blocking.clamp(0, 1)], dim=1))

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        change: Tensor,
        latent: Tensor,
        face: Tensor,
        audio: Tensor | None = None,
    ) -> Tensor:
        """The predicted clean z^m.

        Args:
            sample: noisy z^m, normalised, ``[B, F, 3, h, w]``.
            timestep: t in 0..999, a number or ``[B]``.
            change: Δρ, ``[B, F, D_ρ]``, each frame's state less the portrait's.
            latent: z_src, ``[B, d, h, w]``.
            face: ``[B, 1, h, w]`` in 0..1, where the portrait shows its face.
            audio: a, ``[B, F, D_a]``; needed by a network that hears, and only by it.

        Returns:
            ``[B, F, 3, h, w]``.
        """
        if self.hears != (audio is not None):
            raise FD2TalkError(
                f"This network {'needs' if self.hears else 'takes no'} audio features beside the motion."
            )
        if change.shape[-1] != self.state_dim:
            raise FD2TalkError(
                f"The motion has {change.shape[-1]} values a frame, but this network was made for "
                f"{self.state_dim}: is it for another face model?"
            )
        batch, frames = sample.shape[:2]
        check_halvings(sample, len(self.config.block_out_channels))
        time = torch.as_tensor(timestep, device=sample.device).reshape(-1).expand(batch)
        embedding = self.time_embedding(self.time_proj(time).to(sample.dtype)).repeat_interleave(frames, 0)
        portrait = torch.cat([latent, self.mask_embedding(face)], dim=1)
        hidden = torch.cat([sample, portrait[:, None].expand(-1, frames, -1, -1, -1)], dim=2).flatten(0, 1)
        hidden = self.conv_in(hidden.contiguous(memory_format=torch.channels_last))
        tokens = self._tokens(self.state_projection, change)
        heard = None if audio is None else self._tokens(self.audio_projection, audio)

        hidden = run_levels(
            (self.down, self.middle, self.up),
            hidden,
            lambda stage, given: stage(given, embedding, frames, tokens, heard),
        )
        planes = self.conv_out(F.silu(self.norm_out(hidden)))
        return planes.unflatten(0, (batch, frames))

    def _tokens(self, projection: nn.Linear, values: Tensor) -> Tensor:
        """``[B F, tokens, context_dim]`` of ``[B, F, D]``."""
        return rearrange(projection(values), "b f (n c) -> (b f) n c", n=self.config.tokens)


class ClipStage(nn.Module):
    """A residual block of each frame and, where its level has attention, what looks beyond the place."""

    def __init__(self, resnet: ResnetBlock2D, attention: ClipAttention | None) -> None:
        super().__init__()
        self.resnet = resnet
        self.attention = attention

    def forward(
        self, hidden: Tensor, embedding: Tensor, frames: int, tokens: Tensor, heard: Tensor | None
    ) -> Tensor:
        """``[B F, C, h, w]`` to the same."""
        hidden = self.resnet(hidden, embedding)
        return hidden if self.attention is None else self.attention(hidden, frames, tokens, heard)


class ClipAttention(nn.Module):
    """What a frame's features read: Δρ of the frame, what is heard in it, the picture around, and the frames
    before and after; each is added to them.
    """

    def __init__(
        self, channels: int, context_dim: int, head_dim: int, groups: int, window: int, hears: bool
    ) -> None:
        super().__init__()
        self.of_state = CrossAttention(channels, context_dim, head_dim, groups)
        self.of_audio = CrossAttention(channels, context_dim, head_dim, groups) if hears else None
        self.over_picture = CrossAttention(channels, channels, head_dim, groups)
        self.along_time = TimeAttention(channels, head_dim, groups, window)

    def forward(self, hidden: Tensor, frames: int, tokens: Tensor, heard: Tensor | None) -> Tensor:
        """``[B F, C, h, w]`` to the same."""
        hidden = self.of_state(hidden, *self.of_state.keys_values(tokens))
        if self.of_audio is not None:
            hidden = self.of_audio(hidden, *self.of_audio.keys_values(heard))
        own = rearrange(self.over_picture.norm(hidden), "b c h w -> b (h w) c")
        hidden = self.over_picture(hidden, *self.over_picture.keys_values(own))
        return self.along_time(hidden, frames)


class TimeAttention(nn.Module):
    """At each place of the picture, self-attention over the frames around, with rotary positions."""

    def __init__(self, channels: int, head_dim: int, groups: int, window: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.norm = nn.GroupNorm(groups, channels, eps=1e-5)
        self.attention = LocalSelfAttention(channels, channels // head_dim, window)
        # untrained, frames know nothing of one another
        nn.init.zeros_(self.attention.to_out.weight)
        nn.init.zeros_(self.attention.to_out.bias)

    def forward(self, hidden: Tensor, frames: int) -> Tensor:
        """``[B F, C, h, w]`` to the same."""
        height, width = hidden.shape[-2:]
        along = rearrange(self.norm(hidden), "(b f) c h w -> (b h w) f c", f=frames)
        rotary = rotary_positions(frames, self.head_dim, hidden.device)
        mixed = self.attention(along, rotary, slice(0, frames))
        return hidden + rearrange(mixed, "(b h w) f c -> (b f) c h w", h=height, w=width)

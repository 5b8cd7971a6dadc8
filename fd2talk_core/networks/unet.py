"""The frame diffusion UNet θ_unet: motion through φ₁, appearance through φ₂ (FD2Talk Sec. 3.3, Eq. 6, 7)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.resnet import Downsample2D, ResnetBlock2D, Upsample2D
from einops import rearrange
from torch import Tensor, nn

from ..errors import FD2TalkError
from ..imaging import averaged, widen
from .autoencoder import FrameEncoder, few_at_once
from .precision import fast_math

CONDITIONINGS = ("decoupled", "concat")
REFERENCE_ALIGNMENTS = ("none", "warp", "warp_image")
RESIDUAL_REGIONS = ("everywhere", "hidden")
MASK_NAMES = ("coverage", "visible", "mouth", "teeth", "eyes")
"""Share of each cell where the frame sees the mesh; the mesh's surface that the portrait sees too; the inside
of the mouth; of it, teeth; eyeballs."""

_POSITION_OCTAVES = 6

KeysValues = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class ConditionCache:
    """Keys and values of every attention layer: they do not depend on the noisy sample, so no step repeats
    them.

    Attributes:
        motion: by layer, ``[F, heads, motion_tokens, d]``: once a frame.
        reference: by layer, ``[1, heads, h w, d]``: once a clip.
    """

    motion: tuple[KeysValues, ...]
    reference: tuple[KeysValues, ...]

    def frames(self, selection: slice | Tensor) -> ConditionCache:
        """The cache of some of the frames."""
        motion = tuple((k[selection], v[selection]) for k, v in self.motion)
        return ConditionCache(motion, self.reference)


@dataclass(frozen=True)
class FilmedFrames:
    """What a film shows of frames whose mouths are to be painted (DiffTalk Sec. 3.2).

    Attributes:
        masked: z_m ``[B, d, h, w]``, the frames' latents, their mouths masked.
        landmarks: l ``[B, 2 L]``, u and v of points outside the mouths.
    """

    masked: Tensor
    landmarks: Tensor


class FrameUNet(ModelMixin, ConfigMixin):
    """Predicts the clean frame latent J₀ from a noisy one, the frame's motion {β, p} and the reference latent
    x.

    Every level that has attention, on the encoder's side, in the middle and on the decoder's, runs φ₁ and
    then φ₂. The paper projects {β, p} linearly to φ₁'s condition. With a single token the softmax over keys
    would always be 1 and φ₁ the addition of a constant, so the projection gives several tokens for the
    features to choose from.

    Args:
        latent_channels: d.
        sample_size: h = w it is trained at; any size that the levels can halve works.
        block_out_channels: channels by level, from fine to coarse.
        layers_per_block: residual blocks by level on the way down (one more on the way up).
        attention_levels: which levels have φ₁ and φ₂; the middle always has.
        attention_head_dim: channels of one head.
        motion_dim: D_β + 6.
        motion_tokens: tokens that {β, p} is projected to.
        context_dim: width of motion and reference tokens.
        reference_pool: φ₂ reads the reference latent averaged over squares of this side; 1 is the paper's.
            The attention costs as many times less as the squares have cells.
        conditioning: ``"decoupled"`` (Eq. 6, 7) or ``"concat"`` (the paper's ablation: motion and reference
            tokens in one sequence, seen by one cross-attention).
        reference_alignment: ``"none"``: the paper's form. ``"warp"``: the reference latent, moved to the
            frame's pose and expression by the mesh's correspondence, and its masks stand beside the noisy
            latent at the input. ``"warp_image"``: the same, but the portrait itself is moved, at pixel
            resolution, and encoded again with ``reference_encoder``: it costs an encoder pass a frame and
            keeps lips and lids sharp.
        concat_reference: the reference latent, where it is, stands beside the noisy latent too, so that still
            background need not pass through the warp or φ₂.
        alignment_channels: masks beside the warped latent, see
            :data:`fd2talk_core.networks.unet.MASK_NAMES`.
        reference_encoder: for ``"warp_image"``, constructor arguments of the autoencoder whose encoder is
            carried as a frozen copy (:meth:`set_reference_encoder`).
        predict_residual: J₀ is predicted as a change of the warped reference latent (of the reference latent
            itself without alignment). The last convolution starts at zero, so an untrained network gives the
            warped
            reference: with a small budget of training, the network only learns what the warp gets wrong.
        residual_region: where that change may lie. ``"everywhere"``, or ``"hidden"``: only where the portrait
            does not show what the frame shows (the mouth's inside, eyeballs, surface that was turned away,
            and their surroundings), for small networks, which repaint more softly what the warp had.
        masked_input: whether it is given the frame as it was filmed, its mouth masked, beside the noisy
            latent (DiffTalk's z_m): it then paints mouths into films, and makes no frames of a portrait
            alone. Needs no alignment.
        landmarks: points of the frame's face outside the mouth (DiffTalk's l) that φ₁ reads beside {β, p}; 0
            for none.
        progressive: whether a frame's reference is, from the second on, the frame before it as it was made
            (DiffTalk Sec. 3.3): details stay from frame to frame, and so do errors. Frames are then made one
            by one. Networks are trained without it.
        norm_num_groups: groups of the normalisations.
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 16,
        sample_size: int = 32,
        block_out_channels: Sequence[int] = (32, 64, 128),
        layers_per_block: int = 1,
        attention_levels: Sequence[bool] = (False, True, True),
        attention_head_dim: int = 32,
        motion_dim: int = 58,
        motion_tokens: int = 8,
        context_dim: int = 64,
        reference_pool: int = 1,
        conditioning: str = "decoupled",
        reference_alignment: str = "none",
        alignment_channels: int = 0,
        concat_reference: bool = False,
        reference_encoder: Mapping | None = None,
        predict_residual: bool = False,
        residual_region: str = "everywhere",
        masked_input: bool = False,
        landmarks: int = 0,
        progressive: bool = False,
        norm_num_groups: int = 8,
    ) -> None:
        super().__init__()
        if residual_region not in RESIDUAL_REGIONS:
            raise FD2TalkError(f"residual_region is {residual_region!r}; there are {RESIDUAL_REGIONS}.")
        if residual_region == "hidden" and not (predict_residual and reference_alignment != "none"):
            raise FD2TalkError(
                "residual_region 'hidden' needs predict_residual and a reference_alignment, whose masks say "
                "where that is."
            )
        if conditioning not in CONDITIONINGS:
            raise FD2TalkError(f"conditioning is {conditioning!r}; there are {CONDITIONINGS}.")
        if reference_alignment not in REFERENCE_ALIGNMENTS:
            raise FD2TalkError(
                f"reference_alignment is {reference_alignment!r}; there are {REFERENCE_ALIGNMENTS}."
            )
        if (reference_alignment == "warp_image") != (reference_encoder is not None):
            raise FD2TalkError(
                "reference_encoder is needed for reference_alignment 'warp_image', and only for it."
            )
        if masked_input and reference_alignment != "none":
            raise FD2TalkError(
                f"masked_input needs reference_alignment 'none', which is {reference_alignment!r}: a film's "
                "frame lies where it lies."
            )
        if landmarks and not masked_input:
            raise FD2TalkError("landmarks are those of a film's frame, so they need masked_input.")
        if len(attention_levels) != len(block_out_channels):
            raise FD2TalkError(
                f"attention_levels names {len(attention_levels)} of {len(block_out_channels)} levels."
            )
        channels = tuple(block_out_channels)
        time_dim = 4 * channels[0]
        self.time_proj = Timesteps(channels[0], flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(channels[0], time_dim)

        self.motion_projection = nn.Linear(motion_dim, motion_tokens * context_dim)
        # E_L of DiffTalk Sec. 3.2
        self.landmark_projection = (
            nn.Sequential(
                nn.Linear(2 * landmarks, 2 * context_dim),
                nn.SiLU(),
                nn.Linear(2 * context_dim, motion_tokens * context_dim),
            )
            if landmarks
            else None
        )
        self.reference_projection = nn.Linear(latent_channels, context_dim)
        self.reference_position = nn.Linear(4 * _POSITION_OCTAVES, context_dim)

        aligned = reference_alignment != "none"
        in_channels = latent_channels + (latent_channels + alignment_channels if aligned else 0)
        in_channels += latent_channels * (concat_reference + masked_input)
        self.conv_in = nn.Conv2d(in_channels, channels[0], 3, padding=1)

        def stage(inside: int, outside: int, attends: bool) -> Stage:
            resnet = ResnetBlock2D(
                in_channels=inside,
                out_channels=outside,
                temb_channels=time_dim,
                groups=norm_num_groups,
                eps=1e-5,
            )
            if not attends:
                return Stage(resnet, None)
            decoupled = conditioning == "decoupled"
            return Stage(
                resnet,
                ConditionAttention(outside, context_dim, attention_head_dim, norm_num_groups, decoupled),
            )

        self.down, self.middle, self.up = build_levels(channels, layers_per_block, attention_levels, stage)
        width = channels[0]

        self.norm_out = nn.GroupNorm(norm_num_groups, width, eps=1e-5)
        self.conv_out = nn.Conv2d(width, latent_channels, 3, padding=1)
        if predict_residual:
            nn.init.zeros_(self.conv_out.weight)
            nn.init.zeros_(self.conv_out.bias)

        # not named as its config value: diffusers would answer the attribute with that
        self.crop_encoder: FrameEncoder | None = None
        if reference_encoder is not None:
            names = ("latent_channels", "block_out_channels", "patch_size", "architecture", "norm_num_groups")
            self.crop_encoder = FrameEncoder(
                **{name: reference_encoder[name] for name in names},
                blocks=reference_encoder["encoder_blocks"],
            ).requires_grad_(False)

    def set_reference_encoder(self, encoder: FrameEncoder) -> None:
        """Copy a trained autoencoder's encoder, for ``reference_alignment="warp_image"``."""
        if self.crop_encoder is None:
            raise FD2TalkError("This UNet carries no encoder: its reference_alignment is not 'warp_image'.")
        self.crop_encoder.load_state_dict(encoder.state_dict())

    @property
    def takes_overlay(self) -> bool:
        """Whether decoders lay the portrait's own detail, close-ups and head mask over these frames.

        The checkpoint says so; one that does not is taken by its form: a network that is given the moved
        portrait changes what the portrait hides, the paper's plain form makes whole frames.
        """
        stated = getattr(getattr(self, "info", None), "overlay", None)
        return self.config.reference_alignment != "none" if stated is None else bool(stated)

    def align(self, moved: Tensor, masks: Tensor) -> Tensor:
        """What :meth:`forward` takes as ``warped``.

        Args:
            moved: the portrait moved to the frames: its latent ``[F, d, h, w]`` for ``"warp"``; for
                ``"warp_image"`` the picture in 0..1, with a pixel for each patch of the encoder,
                ``[F, 3, H / p, W / p]``.
            masks: ``[F, 5, m, m]`` in 0..1, see :data:`MASK_NAMES`.

        Returns:
            ``[F, d + 5, h, w]`` on this network's device.
        """
        if self.crop_encoder is not None:
            encode = partial(self.crop_encoder, by_patch=True)
            with fast_math(self.device):
                moved = few_at_once(encode, moved.to(self.device, self.dtype))
            masks = averaged(masks, moved.shape[-1])
        return torch.cat([moved, masks.to(moved)], dim=1).to(self.device, self.dtype)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        motion: Tensor | None = None,
        reference_latent: Tensor | None = None,
        warped: Tensor | None = None,
        cache: ConditionCache | None = None,
        filmed: FilmedFrames | None = None,
    ) -> Tensor:
        """The predicted J₀.

        Args:
            sample: J_t, ``[B, d, h, w]``.
            timestep: t in 0..999; one for all frames (a number: embedded once) or ``[B]``.
            motion: {β, p}, ``[B, D_m]``; not needed with a cache.
            reference_latent: x, ``[1 or B, d, h, w]``; needed with a cache too where it stands beside the
                sample or the residual is taken from it.
            warped: with alignment, the warped reference latent and its masks ``[B, d + alignment_channels, h,
                w]``.
            cache: of these B frames, from :meth:`make_cache`.
            filmed: with a masked input, what the film shows of the frames.

        Returns:
            ``[B, d, h, w]``.
        """
        aligned = self.config.reference_alignment != "none"
        if aligned != (warped is not None):
            raise FD2TalkError(
                f"reference_alignment is {self.config.reference_alignment!r}, so a warped reference is "
                f"{'needed' if aligned else 'not used'}."
            )
        check_halvings(sample, len(self.config.block_out_channels))
        if self.config.masked_input != (filmed is not None):
            raise FD2TalkError(
                "This UNet paints mouths into filmed frames, which were not given."
                if filmed is None
                else "This UNet makes whole frames of a portrait, and has no use for filmed ones."
            )
        if cache is None:
            cache = self.make_cache(motion, reference_latent, filmed)
        time = torch.as_tensor(timestep, device=sample.device).reshape(-1)
        embedding = self.time_embedding(self.time_proj(time).to(sample.dtype))

        # layers are numbered in the order in which they run, which is the order of _attentions
        conditions = iter(zip(cache.motion, cache.reference, strict=True))
        if reference_latent is None and (
            self.config.concat_reference or (self.config.predict_residual and not aligned)
        ):
            raise FD2TalkError("This UNet reads the reference latent in every step, but none was given.")
        inputs = [sample]
        if aligned:
            inputs.append(warped)
        if filmed is not None:
            inputs.append(filmed.masked)
        if self.config.concat_reference:
            inputs.append(reference_latent.expand_as(sample))
        hidden = self.conv_in(torch.cat(inputs, dim=1).contiguous(memory_format=torch.channels_last))
        hidden = run_levels(
            (self.down, self.middle, self.up),
            hidden,
            lambda stage, given: stage(given, embedding, conditions),
        )
        change = self.conv_out(F.silu(self.norm_out(hidden)))
        if not self.config.predict_residual:
            return change
        if not aligned:
            return reference_latent + change
        moved, masks = warped.split([sample.shape[1], self.config.alignment_channels], dim=1)
        return moved + change * (_hidden(masks) if self.config.residual_region == "hidden" else 1)

    def make_cache(
        self, motion: Tensor, reference_latent: Tensor, filmed: FilmedFrames | None = None
    ) -> ConditionCache:
        """Keys and values of all attention layers.

        Args:
            motion: ``[F, D_m]``.
            reference_latent: ``[1 or F, d, h, w]``.
            filmed: of F frames, with a masked input.
        """
        return ConditionCache(
            self.motion_keys_values(motion, filmed), self.reference_keys_values(reference_latent)
        )

    def motion_keys_values(
        self, motion: Tensor, filmed: FilmedFrames | None = None
    ) -> tuple[KeysValues, ...]:
        """φ₁'s, by layer, of motion ``[F, D_m]``, and of the landmarks that the film shows: once a frame."""
        if motion.shape[-1] != self.config.motion_dim:
            raise FD2TalkError(
                f"The motion has {motion.shape[-1]} coefficients a frame, but this UNet was made for "
                f"{self.config.motion_dim} (expression and pose): is it for another face model?"
            )
        projected = [self.motion_projection(motion)]
        if self.landmark_projection is not None and filmed is not None:
            projected.append(self.landmark_projection(filmed.landmarks))
        tokens = rearrange(torch.cat(projected, dim=-1), "f (n c) -> f n c", c=self.config.context_dim)
        return tuple(attention.motion_attention.keys_values(tokens) for attention in self._attentions())

    def reference_keys_values(self, reference_latent: Tensor) -> tuple[KeysValues, ...]:
        """φ₂'s, by layer, of x ``[1 or F, d, h, w]``: once a clip."""
        if self.config.reference_pool > 1:
            reference_latent = F.avg_pool2d(reference_latent, self.config.reference_pool)
        position = self.reference_position(grid_position(reference_latent))
        tokens = self.reference_projection(rearrange(reference_latent, "b d h w -> b (h w) d")) + position
        return tuple(attention.reference_reader.keys_values(tokens) for attention in self._attentions())

    def _attentions(self) -> list[ConditionAttention]:
        """In the order in which they run."""
        stages = [*self.down, *self.middle, *self.up]
        return [stage.attention for stage in stages if isinstance(stage, Stage) and stage.attention]


def _hidden(masks: Tensor) -> Tensor:
    """``[B, 1, h, w]`` in 0..1, of the masks: hidden surface, mouth, eyes, and a cell around."""
    named = named_masks(masks)
    return widen(torch.maximum(torch.maximum(named["hidden"], named["mouth"]), named["eyes"]))


Levels = tuple[nn.ModuleList, nn.ModuleList, nn.ModuleList]
"""Of a UNet: the way down, the middle, and the way up."""


def build_levels(
    channels: Sequence[int],
    layers_per_block: int,
    attention_levels: Sequence[bool],
    stage: Callable[[int, int, bool], nn.Module],
) -> Levels:
    """The layers of a UNet.

    Args:
        channels: by level, from fine to coarse.
        layers_per_block: stages by level on the way down; one more on the way up.
        attention_levels: which levels' stages attend; of the two in the middle, the first does.
        stage: makes one of the channels that it is given and gives, and of whether it attends.
    """
    down, up = nn.ModuleList(), nn.ModuleList()
    width, skips = channels[0], [channels[0]]
    for level, outside in enumerate(channels):
        for _ in range(layers_per_block):
            down.append(stage(width, outside, attention_levels[level]))
            width = outside
            skips.append(width)
        if level < len(channels) - 1:
            down.append(Downsample2D(width, use_conv=True))
            skips.append(width)
    middle = nn.ModuleList([stage(width, width, True), stage(width, width, False)])
    for level, outside in reversed(list(enumerate(channels))):
        for _ in range(layers_per_block + 1):
            up.append(stage(width + skips.pop(), outside, attention_levels[level]))
            width = outside
        if level:
            up.append(Upsample2D(width, use_conv=True))
    return down, middle, up


def check_halvings(sample: Tensor, levels: int) -> None:
    """Raises FD2TalkError for latents ``[..., h, w]`` that so many levels cannot halve."""
    halvings = 2 ** (levels - 1)
    if sample.shape[-1] % halvings or sample.shape[-2] % halvings:
        raise FD2TalkError(
            f"The latents are {tuple(sample.shape[-2:])}, but multiples of {halvings} are needed."
        )


def run_levels(levels: Levels, hidden: Tensor, run: Callable[[nn.Module, Tensor], Tensor]) -> Tensor:
    """Through the layers of :func:`build_levels`, in order.

    Args:
        hidden: ``[B, C, h, w]``, of the finest level's channels.
        run: gives what a stage makes of its input.
    """
    down, middle, up = levels
    skips = [hidden]
    for layer in down:
        hidden = layer(hidden) if isinstance(layer, Downsample2D) else run(layer, hidden)
        skips.append(hidden)
    for layer in middle:
        hidden = run(layer, hidden)
    for layer in up:
        if isinstance(layer, Upsample2D):
            hidden = layer(hidden)
        else:
            hidden = run(layer, torch.cat([hidden, skips.pop()], dim=1))
    return hidden


class Stage(nn.Module):
    """A residual block and, where its level has attention, φ₁ and φ₂."""

    def __init__(self, resnet: ResnetBlock2D, attention: ConditionAttention | None) -> None:
        super().__init__()
        self.resnet = resnet
        self.attention = attention

    def forward(self, hidden: Tensor, embedding: Tensor, conditions: object) -> Tensor:
        hidden = self.resnet(hidden, embedding)
        return hidden if self.attention is None else self.attention(hidden, *next(conditions))


class ConditionAttention(nn.Module):
    """φ₁ and φ₂ of one level, each added to what it reads.

    ``decoupled``: m₁ = φ₁({β, p}, J_t), m₂ = φ₂(x, m₁) (Eq. 6, 7). Otherwise one cross-attention reads both.
    """

    def __init__(self, channels: int, context_dim: int, head_dim: int, groups: int, decoupled: bool) -> None:
        super().__init__()
        self.decoupled = decoupled
        self.motion_attention = CrossAttention(channels, context_dim, head_dim, groups)
        if decoupled:
            self.reference_attention = CrossAttention(channels, context_dim, head_dim, groups)

    @property
    def reference_reader(self) -> CrossAttention:
        """Concatenated conditions share one projection of keys and values, as one sequence of tokens does."""
        return self.reference_attention if self.decoupled else self.motion_attention

    def forward(self, hidden: Tensor, motion: KeysValues, reference: KeysValues) -> Tensor:
        """``[B, C, h, w]`` to the same."""
        if self.decoupled:
            hidden = self.motion_attention(hidden, *motion)
            return self.reference_attention(hidden, *reference)
        batch = motion[0].shape[0]
        keys, values = (
            torch.cat([of_motion, of_reference.expand(batch, -1, -1, -1)], dim=2)
            for of_motion, of_reference in zip(motion, reference, strict=True)
        )
        return self.motion_attention(hidden, keys, values)


class CrossAttention(nn.Module):
    """Multi-head attention with queries from a feature map, positions included, and keys and values from
    tokens.
    """

    def __init__(self, channels: int, context_dim: int, head_dim: int, groups: int) -> None:
        super().__init__()
        if channels % head_dim:
            raise FD2TalkError(f"{channels} channels cannot be split into heads of {head_dim}.")
        self.heads = channels // head_dim
        self.norm = nn.GroupNorm(groups, channels, eps=1e-5)
        self.position = nn.Linear(4 * _POSITION_OCTAVES, channels)
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(context_dim, channels, bias=False)
        self.to_v = nn.Linear(context_dim, channels, bias=False)
        self.to_out = nn.Linear(channels, channels)

    def keys_values(self, tokens: Tensor) -> KeysValues:
        """``[B, N, context_dim]`` to two of ``[B, heads, N, d]``."""
        split = "b n (heads d) -> b heads n d"
        return (
            rearrange(self.to_k(tokens), split, heads=self.heads),
            rearrange(self.to_v(tokens), split, heads=self.heads),
        )

    def forward(self, hidden: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """``[B, C, h, w]`` to the same; keys and values of one clip (batch 1) serve every frame."""
        batch, _, height, width = hidden.shape
        features = rearrange(self.norm(hidden), "b c h w -> b (h w) c") + self.position(grid_position(hidden))
        queries = rearrange(self.to_q(features), "b n (heads d) -> b heads n d", heads=self.heads)
        keys, values = (part.expand(batch, -1, -1, -1) for part in (keys, values))
        mixed = F.scaled_dot_product_attention(queries, keys, values)
        out = self.to_out(rearrange(mixed, "b heads n d -> b n (heads d)"))
        return hidden + rearrange(out, "b (h w) c -> b c h w", h=height, w=width)


def grid_position(like: Tensor) -> Tensor:
    """Sinusoidal positions of a map's cells, ``[h w, 4 · octaves]``.

    They are functions of the place in the picture, the left edge -1 and the right edge 1, not of the cell's
    number: cells of maps of two resolutions that lie at one place have one position.
    """
    height, width = like.shape[-2:]
    options = {"device": like.device, "dtype": like.dtype}
    y = (torch.arange(height, **options) * 2 + 1) / height - 1
    x = (torch.arange(width, **options) * 2 + 1) / width - 1
    place = torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1).reshape(-1, 2, 1)
    octaves = 2.0 ** torch.arange(_POSITION_OCTAVES, **options) * (math.pi / 2)
    angle = place * octaves
    return torch.cat([angle.sin(), angle.cos()], dim=-1).reshape(height * width, -1)


def named_masks(masks: Tensor) -> dict[str, Tensor]:
    """``[F, 1, h, w]`` by the names in :data:`MASK_NAMES`, of all of them ``[F, 5, h, w]``; and ``hidden``,
    the frame's surface that the portrait does not see.
    """
    by_name = dict(zip(MASK_NAMES, masks.split(1, dim=1), strict=True))
    return {**by_name, "hidden": (by_name["coverage"] - by_name["visible"]).clamp(0, 1)}

"""ExpDiT and PoseDiT: expression and head pose from audio by diffusion (FD2Talk Sec. 3.2).

Parts first, then the network. Both transformers are one class; ``kind`` says what one
predicts, and ``"joint"`` is the paper's ablation in which one network predicts both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention import FeedForward
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from ..checks import check_whole, shown
from ..errors import FD2TalkError
from .attention import apply_rotary, banded_attention, local_attention, rotary_positions

Kind = Literal["expression", "pose", "joint"]
TimeConditioning = Literal["condition", "film"]

POSE_DIM = 6
"""D_p: three angles and three shifts."""

SEGMENT = 512
"""Frames that a layer takes at a time outside training: their activations stay in the processor's cache."""

SMALLEST_STD = 1e-4
"""A coefficient that never moves in training (std 0) must not divide by zero; float16 still holds this."""


MOST_SMOOTHING = 64
"""Frames either way: two and a half seconds at 25 fps."""

NORMS = 3
"""Of a layer, each of which a style scales and shifts."""


def modulated(states: Tensor, film: Tensor | None) -> Tensor:
    """States ``[B, F, D]``, scaled by 1 + γ and shifted by β (FiLM, Perez et al. 2018), which stand in
    ``[B, 2, D]``; without any, as they are.
    """
    if film is None:
        return states
    scale, shift = film[:, :, None].unbind(1)
    return states * (1 + scale) + shift


class LayerStyle(nn.Module):
    """What styles do to a layer: scales and shifts of its norms, and a small feed-forward of each style's own
    beside the layer's.

    All of it goes with the style's strength and begins at zero.

    Args:
        num_styles: S.
        rank: width of a style's feed-forward.
    """

    def __init__(self, num_styles: int, hidden_size: int, rank: int) -> None:
        super().__init__()
        self.rank = rank
        self.film = nn.Linear(num_styles, NORMS * 2 * hidden_size, bias=False)
        self.down = nn.Linear(hidden_size, num_styles * rank, bias=False)
        self.up = nn.Linear(num_styles * rank, hidden_size, bias=False)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.up.weight)

    def films(self, style: Tensor) -> Tensor:
        """``[B, S]`` to ``[B, 3, 2, D]``."""
        return self.film(style).unflatten(1, (NORMS, 2, -1))

    def forward(self, states: Tensor, style: Tensor) -> Tensor:
        """What is added to ``[B, F, D]`` for ``[B, S]``."""
        strength = style.repeat_interleave(self.rank, dim=1)[:, None]
        return self.up(strength * functional.gelu(self.down(states), approximate="tanh"))


class StyleModulation(nn.Module):
    """What styles do to a motion transformer, in proportion to their strength: a face that is hardly happy is
    hardly another than a neutral one.

    Args:
        num_styles: S.
        condition_dim, hidden_size, num_layers: of the transformer.
        rank: see :class:`LayerStyle`.
    """

    def __init__(
        self, num_styles: int, condition_dim: int, hidden_size: int, num_layers: int, rank: int
    ) -> None:
        super().__init__()
        self.of_condition = nn.Linear(num_styles, 2 * condition_dim, bias=False)
        self.layers = nn.ModuleList(LayerStyle(num_styles, hidden_size, rank) for _ in range(num_layers))
        self.of_output = nn.Linear(num_styles, 2 * hidden_size, bias=False)
        nn.init.zeros_(self.of_condition.weight)
        nn.init.zeros_(self.of_output.weight)


class AudioFilter(nn.Module):
    """Learned smoothing of audio features (DiffTalk's learnable temporal filtering): each frame hears a
    weighted mean of those around it, by weights that hang on what sounds there. It begins near none at all.

    Args:
        audio_dim: D_a.
        reach: w, frames on either side.
        width: of the layer that weighs them.
    """

    def __init__(self, audio_dim: int, reach: int, width: int = 32) -> None:
        super().__init__()
        self.reach = reach
        last = nn.Conv1d(width, 2 * reach + 1, 3, padding=1)
        nn.init.zeros_(last.weight)
        with torch.no_grad():
            last.bias.copy_(6.0 * (torch.arange(2 * reach + 1) == reach))
        self.weigh = nn.Sequential(nn.Conv1d(audio_dim, width, 3, padding=1), nn.LeakyReLU(0.02), last)

    def forward(self, audio: Tensor) -> Tensor:
        """``[B, F, D_a]`` to the same; what is constant stays as it is."""
        features, frames = audio.mT, audio.shape[1]
        weights = self.weigh(features).softmax(dim=1)
        around = functional.pad(features, (self.reach, self.reach), mode="replicate")
        mean = torch.zeros_like(features)
        for tap in range(2 * self.reach + 1):  # all at once would hold every frame 2w + 1 times
            mean = mean + weights[:, tap, None] * around[:, :, tap : tap + frames]
        return mean.mT


class LocalSelfAttention(nn.Module):
    """Self-attention over ``window`` frames on either side with rotary positions (DAWN Sec. 3.6)."""

    def __init__(self, hidden_size: int, num_heads: int, window: int | None) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window = window
        self.to_qkv = nn.Linear(hidden_size, 3 * hidden_size, bias=False)
        self.to_out = nn.Linear(hidden_size, hidden_size)

    def forward(self, hidden_states: Tensor, rotary: tuple[Tensor, Tensor], rows: slice) -> Tensor:
        """``[B, F, D]`` to ``[B, rows, D]``: what the frames ``rows`` gather from all of F."""
        query, key, value = rearrange(
            self.to_qkv(hidden_states), "b f (three h d) -> three b h f d", three=3, h=self.num_heads
        )
        query, key = apply_rotary(query, rotary)[:, :, rows], apply_rotary(key, rotary)
        out = local_attention(query, key, value, self.window, offset=rows.start)
        return self.to_out(rearrange(out, "b h f d -> b f (h d)"))


class AlignedCrossAttention(nn.Module):
    """Cross-attention under the alignment mask: q from the motion, k and v from τ(c) (FD2Talk Eq. 4).

    Queries and keys carry rotary positions, unless the paper's plain form is asked for. The mask says which
    2k + 1 features a frame hears, but not which of them sounds now: without positions a lip could not tell a
    sound from the same one three frames away.
    """

    def __init__(
        self, hidden_size: int, condition_dim: int, num_heads: int, k: int | None, positions: bool = True
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.k = k
        self.positions = positions
        self.to_q = nn.Linear(hidden_size, hidden_size, bias=False)
        self.to_kv = nn.Linear(condition_dim, 2 * hidden_size, bias=False)
        self.to_out = nn.Linear(hidden_size, hidden_size)

    def forward(
        self, hidden_states: Tensor, condition: Tensor, rotary: tuple[Tensor, Tensor], offset: int
    ) -> Tensor:
        """``[B, F, D]`` from ``[B, F', D_τ]``, whose row ``offset`` belongs to frame 0; positions of F'."""
        query = rearrange(self.to_q(hidden_states), "b f (h d) -> b h f d", h=self.num_heads)
        key, value = rearrange(self.to_kv(condition), "b f (two h d) -> two b h f d", two=2, h=self.num_heads)
        if self.positions:
            here = slice(offset, offset + query.shape[2])
            query, key = apply_rotary(query, (rotary[0][here], rotary[1][here])), apply_rotary(key, rotary)
        out = banded_attention(query, key, value, self.k, offset)
        return self.to_out(rearrange(out, "b h f d -> b f (h d)"))


class MotionLayer(nn.Module):
    """One of the L layers: self-attention, aligned cross-attention, feed-forward; pre-normed, residual.

    With ``time_dim`` what each of the three adds is scaled and shifted by the timestep's embedding of that
    size (FaceTalk's FiLM layers, Fig. 10c).
    """

    def __init__(
        self,
        hidden_size: int,
        condition_dim: int,
        num_heads: int,
        alignment_window: int | None,
        attention_window: int | None,
        feed_forward_mult: int,
        dropout: float,
        audio_positions: bool = True,
        time_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.norm_self = nn.LayerNorm(hidden_size)
        self.self_attention = LocalSelfAttention(hidden_size, num_heads, attention_window)
        self.norm_cross = nn.LayerNorm(hidden_size)
        self.cross_attention = AlignedCrossAttention(
            hidden_size, condition_dim, num_heads, alignment_window, audio_positions
        )
        self.norm_feed_forward = nn.LayerNorm(hidden_size)
        self.feed_forward = FeedForward(
            hidden_size, mult=feed_forward_mult, activation_fn="gelu-approximate", dropout=dropout
        )
        self.dropout = nn.Dropout(dropout)
        self.time_film: nn.Sequential | None = None
        if time_dim is not None:
            linear = nn.Linear(time_dim, NORMS * 2 * hidden_size)
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
            self.time_film = nn.Sequential(nn.Mish(), linear)

    def forward(
        self,
        hidden_states: Tensor,
        condition: Tensor,
        rotary: tuple[Tensor, Tensor],
        style: tuple[LayerStyle, Tensor] | None = None,
        time: Tensor | None = None,
    ) -> Tensor:
        """``[B, F, D]`` and τ(c) ``[B, F, D_τ]`` to ``[B, F, D]``, in a style ``[B, S]`` if there is one, and
        at a time ``[B, T]`` if the layer is told it.

        Outside training, long clips are taken a segment at a time. That changes nothing but the memory held
        at once: a segment's frames see no further than the two windows reach.
        """
        frames = hidden_states.shape[1]
        unbounded = self.self_attention.window is None or self.cross_attention.k is None
        step = frames if unbounded or torch.is_grad_enabled() else SEGMENT
        parts = [
            self._segment(hidden_states, condition, rotary, style, time, start, min(start + step, frames))
            for start in range(0, frames, step)
        ]
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]

    def _segment(
        self,
        everything: Tensor,
        condition: Tensor,
        rotary: tuple[Tensor, Tensor],
        style: tuple[LayerStyle, Tensor] | None,
        time: Tensor | None,
        start: int,
        stop: int,
    ) -> Tensor:
        frames = everything.shape[1]
        films = (None,) * NORMS if style is None else style[0].films(style[1]).unbind(1)
        film = self.time_film
        timed = (None,) * NORMS if film is None else film(time).unflatten(1, (NORMS, 2, -1)).unbind(1)
        near = _reach(start, stop, self.self_attention.window, frames)
        attended = self.self_attention(
            modulated(self.norm_self(everything[:, near]), films[0]),
            (rotary[0][near], rotary[1][near]),
            slice(start - near.start, stop - near.start),
        )
        hidden_states = everything[:, start:stop] + modulated(self.dropout(attended), timed[0])
        heard = _reach(start, stop, self.cross_attention.k, frames)
        attended = self.cross_attention(
            modulated(self.norm_cross(hidden_states), films[1]),
            condition[:, heard],
            (rotary[0][heard], rotary[1][heard]),
            start - heard.start,
        )
        hidden_states = hidden_states + modulated(self.dropout(attended), timed[1])
        normed = modulated(self.norm_feed_forward(hidden_states), films[2])
        added = modulated(self.dropout(self.feed_forward(normed)), timed[2])
        return hidden_states + (added if style is None else added + style[0](normed, style[1]))


def _reach(start: int, stop: int, window: int | None, frames: int) -> slice:
    """The frames that ``start..stop`` see."""
    return slice(0, frames) if window is None else slice(max(start - window, 0), min(stop + window, frames))


class Normalizing(nn.Module):
    """Knows mean and deviation of the coefficients that it was trained on: buffers, which travel in the
    checkpoint.
    """

    coefficient_mean: Tensor
    coefficient_std: Tensor

    def register_normalization(self, size: int) -> None:
        """For D coefficients; nothing changes until :meth:`set_normalization`."""
        self.register_buffer("coefficient_mean", torch.zeros(size))
        self.register_buffer("coefficient_std", torch.ones(size))

    def set_normalization(self, mean: Tensor, std: Tensor) -> None:
        """Set the mean and deviation ``[D]`` of the training coefficients."""
        self.coefficient_mean.copy_(mean)
        self.coefficient_std.copy_(std.clamp(min=SMALLEST_STD))

    def normalize(self, values: Tensor) -> Tensor:
        """Coefficients ``[..., D]`` in their units to the unit-variance ones that the network runs on."""
        return (values - self.coefficient_mean) / self.coefficient_std

    def denormalize(self, values: Tensor) -> Tensor:
        """The inverse of :meth:`normalize`."""
        return values * self.coefficient_std + self.coefficient_mean


class MotionTransformer(Normalizing, ModelMixin, ConfigMixin):
    """θ_exp or θ_pose: x̃₀ of a motion from its noisy form, the timestep and the audio (FD2Talk Sec. 3.2).

    Coefficients enter and leave :meth:`forward` normalised; :meth:`normalize` and :meth:`denormalize` convert
    with the mean and deviation of the training data, which are buffers and so travel in the checkpoint.

    Args:
        kind: ``"expression"``, ``"pose"``, or ``"joint"`` for both in one (expression first; the paper's
            ablation).
        coefficient_dim: D_β, 6, or D_β + 6.
        audio_dim: D_a, size of an audio feature.
        hidden_size: width; a multiple of ``2 * num_heads``.
        num_layers: L, 6 in the paper.
        num_heads: attention heads.
        condition_dim: D_τ, size of the projected condition τ(c).
        time_embed_dim: size of the timestep embedding in c.
        alignment_window: k of Eq. 4, 3 in the paper; None drops the mask (the paper's ablation).
        attention_window: frames on either side that self-attention sees; None for all (then positions beyond
            the training length are extrapolated and time grows with the square of the length).
        feed_forward_mult: width of the feed-forward relative to ``hidden_size``.
        dropout: in training.
        native_fps: the frame grid that it was trained on.
        face_model: name of the face model whose coefficients it predicts.
        coefficient_names: one a coefficient where the face model has names; for ``"joint"``, of the
            expression.
        recommended_steps: sampling steps where the user names none.
        free_steps: least sampling steps of what the sound leaves free, that is all but the mouth; 0 if it
            takes as many as the mouth. Few steps end near the mean of what could be, which is what a mouth
            should do that has to fit the sound; but a blink either is or is not, and the mean of both is a
            staring face.
        audio_positions: False leaves out the rotary positions of cross-attention, as the paper does.
        styles: names of the styles that it can move in; none for one that has a single way.
        style_rank: width of the feed-forward that each style has in a layer.
        time_conditioning: ``"condition"`` tells the timestep in c beside the audio, as the paper does;
            ``"film"`` in place of that scales and shifts what each part of a layer adds by it (FaceTalk
            Sec. 3.2).
        audio_smoothing: w, frames on either side over which the audio is smoothed by learned weights
            (DiffTalk has 8, :class:`AudioFilter`); 0 for none.
    """

    @register_to_config
    def __init__(
        self,
        kind: Kind = "expression",
        coefficient_dim: int = 52,
        audio_dim: int = 768,
        hidden_size: int = 512,
        num_layers: int = 6,
        num_heads: int = 8,
        condition_dim: int = 512,
        time_embed_dim: int = 256,
        alignment_window: int | None = 3,
        attention_window: int | None = 40,
        feed_forward_mult: int = 4,
        dropout: float = 0.0,
        native_fps: float = 25.0,
        face_model: str = "",
        coefficient_names: tuple[str, ...] | list[str] = (),
        recommended_steps: int = 50,
        free_steps: int = 0,
        audio_positions: bool = True,
        styles: tuple[str, ...] | list[str] = (),
        style_rank: int = 16,
        time_conditioning: TimeConditioning = "condition",
        audio_smoothing: int = 0,
    ) -> None:
        super().__init__()
        _check_config(kind, coefficient_dim, hidden_size, num_heads, coefficient_names)
        _check_styles(styles)
        _check_ideas(time_conditioning, audio_smoothing)
        by_film = time_conditioning == "film"
        self.time_proj = Timesteps(time_embed_dim, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(time_embed_dim, time_embed_dim)
        self.null_audio = nn.Parameter(torch.randn(audio_dim) * 0.02)
        # the timestep's share comes first, if there is one
        self.time_share = 0 if by_film else time_embed_dim
        self.condition_projection = nn.Linear(self.time_share + audio_dim, condition_dim)
        if audio_smoothing:
            self.audio_filter = AudioFilter(audio_dim, audio_smoothing)
        self.proj_in = nn.Linear(coefficient_dim, hidden_size)
        self.layers = nn.ModuleList(
            MotionLayer(
                hidden_size,
                condition_dim,
                num_heads,
                alignment_window,
                attention_window,
                feed_forward_mult,
                dropout,
                audio_positions,
                time_embed_dim if by_film else None,
            )
            for _ in range(num_layers)
        )
        self.norm_out = nn.LayerNorm(hidden_size)
        self.proj_out = nn.Linear(hidden_size, coefficient_dim)
        if styles:
            self.style = StyleModulation(len(styles), condition_dim, hidden_size, num_layers, style_rank)
        self.register_normalization(coefficient_dim)

    def project_audio(self, audio: Tensor) -> Tensor:
        """The audio's share of τ(c) = W [t; a] + b, the same at every step: ``[B, F, D_τ]``."""
        if self.config.audio_smoothing:
            audio = self.audio_filter(audio)
        weight = self.condition_projection.weight[:, self.time_share :]
        return functional.linear(audio, weight, self.condition_projection.bias)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        audio: Tensor | None = None,
        drop_audio: Tensor | None = None,
        projected_audio: Tensor | None = None,
        style: Tensor | None = None,
    ) -> Tensor:
        """Predict x̃₀.

        Args:
            sample: ``[B, F, D]`` noisy coefficients, normalised.
            timestep: ``[B]`` or 0-dim, 0..999.
            audio: ``[B, F, D_a]``; None stands for no audio at all (the unconditional half of guidance).
            drop_audio: ``[B]`` bool, the clips whose audio is replaced by the learned null embedding
                (training for classifier-free guidance, FaceTalk Sec. 3.3).
            projected_audio: ``[B, F, D_τ]`` from :meth:`project_audio` in place of ``audio``.
            style: ``[B, S]``, the strength of each of the configuration's styles, 0..1; None is neutral, as
                is a network that knows none.

        Returns:
            ``[B, F, D]`` clean coefficients, normalised.
        """
        if projected_audio is None:
            null = self.null_audio.to(sample.dtype)
            if audio is None:
                audio = null.expand(1, 1, -1)
            elif drop_audio is not None:
                audio = torch.where(drop_audio[:, None, None], null, audio)
            projected_audio = self.project_audio(audio)
        time = self.time_embedding(self.time_proj(timestep.expand(sample.shape[0])).to(sample.dtype))
        condition = projected_audio
        if self.time_share:
            weight = self.condition_projection.weight[:, : self.time_share]
            condition = condition + functional.linear(time, weight)[:, None]
        condition = condition.expand(len(sample), sample.shape[1], -1)
        of_output = None
        if style is not None:
            style = style.to(sample.dtype)
            condition = modulated(condition, self.style.of_condition(style).unflatten(1, (2, -1)))
            of_output = self.style.of_output(style).unflatten(1, (2, -1))
        head_dim = self.config.hidden_size // self.config.num_heads
        rotary = rotary_positions(sample.shape[1], head_dim, sample.device)

        hidden_states = self.proj_in(sample)
        for number, layer in enumerate(self.layers):
            in_style = None if style is None else (self.style.layers[number], style)
            hidden_states = layer(hidden_states, condition, rotary, in_style, time)
        return self.proj_out(modulated(self.norm_out(hidden_states), of_output))


def check_heads(hidden_size: int, num_heads: int) -> None:
    """Refuse a width that the heads cannot share."""
    if hidden_size % (2 * num_heads):
        raise FD2TalkError(
            f"hidden_size is {hidden_size}, but rotary positions need a multiple of 2 x {num_heads} heads."
        )


def _check_config(kind: str, coefficient_dim: int, hidden_size: int, num_heads: int, names: object) -> None:
    if kind not in ("expression", "pose", "joint"):
        raise FD2TalkError(f"kind is {kind!r}, but 'expression', 'pose' or 'joint' is needed.")
    check_heads(hidden_size, num_heads)
    if kind == "pose" and coefficient_dim != POSE_DIM:
        raise FD2TalkError(f"coefficient_dim is {coefficient_dim}, but a head pose has {POSE_DIM}.")
    expression_dim = coefficient_dim - (POSE_DIM if kind == "joint" else 0)
    if kind != "pose" and names and len(names) != expression_dim:
        raise FD2TalkError(f"{len(names)} coefficient names were given for {expression_dim} coefficients.")


def _check_styles(styles: Sequence[str]) -> None:
    named = isinstance(styles, tuple | list) and all(isinstance(name, str) and name for name in styles)
    if not named or len(set(styles)) != len(styles):
        raise FD2TalkError(f"styles is {shown(styles)}, but a list of different names is needed.")


def _check_ideas(time_conditioning: str, audio_smoothing: int) -> None:
    if time_conditioning not in get_args(TimeConditioning):
        known = " or ".join(map(repr, get_args(TimeConditioning)))
        raise FD2TalkError(f"time_conditioning is {shown(time_conditioning)}, but {known} is needed.")
    check_whole(audio_smoothing, "audio_smoothing", 0, MOST_SMOOTHING)

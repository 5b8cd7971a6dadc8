"""Attention along time whose cost grows with the clip, not with its square.

The alignment mask of FD2Talk Eq. 4 (audio to motion), and local self-attention with rotary positions
(DAWN Sec. 3.6, RoFormer), by which a network trained on short clips serves clips of any length.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

BLOCK = 16
"""Fewest queries that share their keys in :func:`local_attention`; with fewer, calls cost more than sums."""

SHORT = 96
"""Frames up to which no blocks are made, as the sums of a short stretch cost less than making them."""


def alignment_mask(
    num_frames: int,
    k: int,
    device: torch.device | str | None = None,
    num_features: int | None = None,
    offset: int = 0,
) -> Tensor:
    """FD2Talk Eq. 4, written out: ``[F, F]``, row j (motion frame) sees column i (audio) iff |i - j| ≤ k;
    with another number of columns and an offset as :func:`local_attention` has them.

    It states what :func:`banded_attention` computes; the networks build it for short stretches alone.
    """
    frame = torch.arange(num_frames, device=device)[:, None] + offset
    feature = torch.arange(num_frames if num_features is None else num_features, device=device)
    return (feature - frame).abs() <= k


def banded_attention(query: Tensor, key: Tensor, value: Tensor, k: int | None, offset: int = 0) -> Tensor:
    """Softmax attention under the alignment mask (FD2Talk Eq. 4): each frame sees 2k + 1 audio features.

    Args:
        query: ``[B, heads, F, d]`` of the motion.
        key, value: ``[B, heads, F, d]`` of the audio.
        k: half width of the band; None attends to every frame (the paper's ablation without the mask).
        offset: see :func:`local_attention`.

    Returns:
        ``[B, heads, F, d]``; time and memory grow with F · k.
    """
    return local_attention(query, key, value, k, offset)


def local_attention(query: Tensor, key: Tensor, value: Tensor, window: int | None, offset: int = 0) -> Tensor:
    """Softmax attention in which frame j sees the frames i with |i - j| ≤ window.

    Queries are taken in blocks; each block sees its own frames and ``window`` more on either side, so time
    and memory grow with F · window.

    Args:
        query: ``[B, heads, F, d]``, rotary positions already applied.
        key, value: ``[B, heads, F', d]``.
        window: frames on either side; None attends to every frame.
        offset: query 0 stands at key ``offset``, at most ``window``; for a stretch of a longer sequence,
            whose keys begin before it and end after it.

    Returns:
        ``[B, heads, F, d]``
    """
    batch, heads, frames, _ = query.shape
    keys_given = key.shape[2]
    if window is None or window >= max(frames, keys_given) - 1:
        return functional.scaled_dot_product_attention(query, key, value)
    if max(frames, keys_given) <= SHORT:
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask=_kept_mask(frames, window, query.device, keys_given, offset)
        )
    block = max(window, BLOCK)
    blocks = -(-frames // block)
    span = block + 2 * window
    before = window - offset
    after = blocks * block + 2 * window - before - keys_given

    def to_blocks(x: Tensor, size: int) -> Tensor:
        windows = x.unfold(2, size, block)  # [B, heads, blocks, d, size]
        return windows.permute(0, 2, 1, 4, 3).flatten(0, 1)

    queries = to_blocks(functional.pad(query, (0, 0, 0, blocks * block - frames)), block)
    keys = to_blocks(functional.pad(key, (0, 0, before, after)), span)
    values = to_blocks(functional.pad(value, (0, 0, before, after)), span)

    device = query.device
    first = torch.arange(blocks, device=device)[:, None, None] * block + offset
    frame = first + torch.arange(block, device=device)[:, None]
    seen = first - window + torch.arange(span, device=device)
    mask = ((frame - seen).abs() <= window) & (seen >= 0) & (seen < keys_given)
    # a padded query past the end would see nothing and turn to NaN, whose gradient would spread
    mask |= frame >= frames + offset
    mask = mask.expand(batch, -1, -1, -1).flatten(0, 1)[:, None]
    out = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    out = out.unflatten(0, (batch, blocks)).transpose(1, 2)  # [B, heads, blocks, block, d]
    return out.flatten(2, 3)[:, :, :frames]


def rotary_positions(
    num_frames: int, dim: int, device: torch.device | str | None = None
) -> tuple[Tensor, Tensor]:
    """Cosines and sines ``[F, dim]`` of the rotary positions 0..F-1 (RoFormer, Eq. 15).

    Angles are taken in float64: an hour of video reaches frame 90,000, where float32 angles are off by 0.01.
    """
    # of an hour they are too large to be kept
    made = _kept_positions if num_frames <= SHORT else _positions
    return made(num_frames, dim, device)


def _positions(num_frames: int, dim: int, device: torch.device | str | None) -> tuple[Tensor, Tensor]:
    from diffusers.models.embeddings import get_1d_rotary_pos_embed

    positions = torch.arange(num_frames, dtype=torch.float64)
    cos, sin = get_1d_rotary_pos_embed(dim, positions, use_real=True, freqs_dtype=torch.float64)
    return cos.to(device), sin.to(device)


# what is kept may be used by those who differentiate
_kept_mask = lru_cache(maxsize=16)(torch.inference_mode(False)(alignment_mask))
_kept_positions = lru_cache(maxsize=16)(torch.inference_mode(False)(_positions))


def apply_rotary(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Turn queries or keys ``[B, heads, F, d]`` by their frame's angles: q·k then depends on i - j alone."""
    from diffusers.models.embeddings import apply_rotary_emb

    turned = apply_rotary_emb(x, rotary)
    assert isinstance(turned, Tensor)  # a pair of them for complex rotations alone
    return turned

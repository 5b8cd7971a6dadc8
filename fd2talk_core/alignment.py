"""Attention along time whose cost grows with the clip, not with its square.

The alignment mask of FD2Talk Eq. 4 (audio to motion), and local self-attention with rotary positions
(DAWN Sec. 3.6, RoFormer), by which a network trained on short clips serves clips of any length.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

BLOCK = 32
"""Fewest queries that share a block of keys in :func:`local_attention`; smaller blocks waste calls."""


def alignment_mask(num_frames: int, k: int, device: torch.device | str | None = None) -> Tensor:
    """FD2Talk Eq. 4, written out: ``[F, F]`` bool, row j (motion frame) sees column i (audio) iff |i - j| ≤ k.

    The networks never build it; it states what :func:`banded_attention` and :func:`local_attention` compute.
    """
    index = torch.arange(num_frames, device=device)
    return (index[None, :] - index[:, None]).abs() <= k


def banded_attention(query: Tensor, key: Tensor, value: Tensor, k: int | None) -> Tensor:
    """Softmax attention under the alignment mask (FD2Talk Eq. 4), on 2k + 1 keys a frame.

    Args:
        query, key, value: ``[B, heads, F, d]``.
        k: half width of the band; None attends to every frame (the paper's ablation without the mask).

    Returns:
        ``[B, heads, F, d]``; memory grows with F · k.
    """
    if k is None:
        return functional.scaled_dot_product_attention(query, key, value)
    frames, width = query.shape[2], 2 * k + 1
    # [B, heads, F, d, width] views: frame j's keys are the padded frames j .. j + 2k
    keys = functional.pad(key, (0, 0, k, k)).unfold(2, width, 1)
    values = functional.pad(value, (0, 0, k, k)).unfold(2, width, 1)
    scores = torch.einsum("bhfd,bhfdw->bhfw", query * query.shape[-1] ** -0.5, keys)
    audio = torch.arange(frames, device=query.device)[:, None] + torch.arange(-k, k + 1, device=query.device)
    inside = (audio >= 0) & (audio < frames)
    weights = scores.masked_fill(~inside, float("-inf")).softmax(dim=-1)
    return torch.einsum("bhfw,bhfdw->bhfd", weights, values)


def local_attention(query: Tensor, key: Tensor, value: Tensor, window: int | None) -> Tensor:
    """Softmax attention in which frame j sees the frames i with |i - j| ≤ window.

    Queries are taken in blocks; each block sees its own frames and ``window`` more on either side, so time and
    memory grow with F · window.

    Args:
        query, key, value: ``[B, heads, F, d]``, rotary positions already applied.
        window: frames on either side; None attends to every frame.

    Returns:
        ``[B, heads, F, d]``
    """
    batch, heads, frames, _ = query.shape
    if window is None or window >= frames - 1:
        return functional.scaled_dot_product_attention(query, key, value)
    block = max(window, BLOCK)
    blocks = -(-frames // block)
    tail = blocks * block - frames
    span = block + 2 * window

    def to_blocks(x: Tensor, size: int) -> Tensor:
        windows = x.unfold(2, size, block)  # [B, heads, blocks, d, size]
        return windows.permute(0, 2, 1, 4, 3).flatten(0, 1)

    queries = to_blocks(functional.pad(query, (0, 0, 0, tail)), block)
    keys = to_blocks(functional.pad(key, (0, 0, window, window + tail)), span)
    values = to_blocks(functional.pad(value, (0, 0, window, window + tail)), span)

    device = query.device
    first = torch.arange(blocks, device=device)[:, None, None] * block
    frame = first + torch.arange(block, device=device)[:, None]
    seen = first - window + torch.arange(span, device=device)
    mask = ((frame - seen).abs() <= window) & (seen >= 0) & (seen < frames)
    # a padded query past the end would see nothing and turn to NaN, whose gradient would spread
    mask |= frame >= frames
    mask = mask.expand(batch, -1, -1, -1).flatten(0, 1)[:, None]
    out = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    out = out.unflatten(0, (batch, blocks)).transpose(1, 2)  # [B, heads, blocks, block, d]
    return out.flatten(2, 3)[:, :, :frames]


def rotary_positions(num_frames: int, dim: int, device: torch.device | str | None = None) -> tuple[Tensor, Tensor]:
    """Cosines and sines ``[F, dim]`` of the rotary positions 0..F-1 (RoFormer, Eq. 15).

    Angles are taken in float64: an hour of video reaches frame 90,000, where float32 angles are off by 0.01.
    """
    from diffusers.models.embeddings import get_1d_rotary_pos_embed

    positions = torch.arange(num_frames, dtype=torch.float64)
    cos, sin = get_1d_rotary_pos_embed(dim, positions, use_real=True, freqs_dtype=torch.float64)
    return cos.to(device), sin.to(device)


def apply_rotary(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Turn queries or keys ``[B, heads, F, d]`` by their frame's angles, so that q·k depends on i - j alone."""
    from diffusers.models.embeddings import apply_rotary_emb

    return apply_rotary_emb(x, rotary)

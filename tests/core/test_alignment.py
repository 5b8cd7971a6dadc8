"""Eq. 4 and local attention against dense masked attention; rotary positions against complex numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fd2talk_core.networks.attention import (
    alignment_mask,
    apply_rotary,
    banded_attention,
    local_attention,
    rotary_positions,
)


def dense_attention(query, key, value, k):
    """Softmax over all F x F scores, with those outside j - k <= i <= j + k taken out one by one."""
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    for j in range(query.shape[2]):
        for i in range(key.shape[2]):
            if not j - k <= i <= j + k:
                scores[:, :, j, i] = float("-inf")
    weights = scores.exp()
    return weights / weights.sum(dim=-1, keepdim=True) @ value


def random_qkv(frames, heads=2, dim=8, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, heads, frames, dim, generator=generator) for _ in range(3)]


def test_eq4_mask():
    mask = alignment_mask(9, 3)
    for j in range(9):
        for i in range(9):
            assert mask[j, i] == (j - 3 <= i <= j + 3)


@given(st.integers(1, 70), st.integers(0, 40))
@settings(max_examples=40, deadline=None)
def test_banded_attention_is_the_dense_masked_form(frames, k):
    query, key, value = random_qkv(frames)
    expected = dense_attention(query, key, value, k)
    torch.testing.assert_close(banded_attention(query, key, value, k), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("frames, k", [(1, 3), (2, 3), (3, 3), (4, 3), (5, 3), (250, 3), (333, 40)])
def test_banded_attention_at_clip_edges_and_length(frames, k):
    query, key, value = random_qkv(frames)
    scores = query @ key.mT / 8**0.5
    weights = scores.masked_fill(~alignment_mask(frames, k), float("-inf")).softmax(dim=-1)
    made = banded_attention(query, key, value, k)
    torch.testing.assert_close(made, weights @ value, atol=1e-5, rtol=0)


def test_no_mask_attends_to_everything():
    query, key, value = random_qkv(40)
    made = banded_attention(query, key, value, None)
    torch.testing.assert_close(made, dense_attention(query, key, value, 40), atol=1e-5, rtol=0)
    assert (made - banded_attention(query, key, value, 3)).abs().max() > 0.1


@given(st.integers(2, 120), st.integers(0, 20), st.data())
@settings(max_examples=40, deadline=None)
def test_a_stretch_of_a_clip_is_the_clip_there(frames, window, data):
    """The offset form, by which long clips are taken in segments, gives the rows of the whole."""
    start = data.draw(st.integers(0, frames - 1))
    stop = data.draw(st.integers(start + 1, frames))
    query, key, value = random_qkv(frames)
    whole = local_attention(query, key, value, window)
    low, high = max(start - window, 0), min(stop + window, frames)
    part = local_attention(
        query[:, :, start:stop], key[:, :, low:high], value[:, :, low:high], window, start - low
    )
    torch.testing.assert_close(part, whole[:, :, start:stop], atol=1e-5, rtol=0)


def test_gradients_are_those_of_the_dense_form():
    banded = [x.double().requires_grad_() for x in random_qkv(37)]
    dense = [x.detach().clone().requires_grad_() for x in banded]
    weight = torch.randn(2, 2, 37, 8, dtype=torch.float64)
    (banded_attention(*banded, 3) * weight).sum().backward()
    (dense_attention(*dense, 3) * weight).sum().backward()
    for ours, theirs in zip(banded, dense, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-9, rtol=0)


def test_what_lies_outside_the_band_cannot_matter():
    query, key, value = random_qkv(50)
    before = banded_attention(query, key, value, 3)
    key[:, :, 30] += 100
    value[:, :, 30] += 100
    changed = (banded_attention(query, key, value, 3) - before).abs().amax(dim=(0, 1, 3)) > 0
    assert changed.nonzero().flatten().tolist() == list(range(27, 34))


# --- rotary positions ------------------------------------------------------------------------------


def test_rotary_is_a_complex_rotation():
    """RoFormer Eq. 34: pair (2m, 2m + 1) of frame n is turned by n * 10000^(-2m/d)."""
    frames, dim = 23, 8
    x = torch.randn(1, 1, frames, dim, dtype=torch.float64)
    position = torch.arange(frames, dtype=torch.float64)[:, None]
    angle = position * 10000 ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    turned = torch.view_as_complex(x.unflatten(-1, (-1, 2))) * torch.polar(torch.ones_like(angle), angle)
    made = apply_rotary(x, rotary_positions(frames, dim))
    torch.testing.assert_close(made, torch.view_as_real(turned).flatten(-2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("shift", [1, 77, 15_000])
def test_attention_knows_distances_and_not_places(shift):
    query, key, value = random_qkv(60, dim=16)
    rotary = rotary_positions(60, 16)
    later = tuple(part[shift:] for part in rotary_positions(60 + shift, 16))
    made = [local_attention(apply_rotary(query, r), apply_rotary(key, r), value, 10) for r in (rotary, later)]
    torch.testing.assert_close(made[0], made[1], atol=1e-5, rtol=0)
    still = local_attention(query, key, value, 10)
    assert (made[0] - still).abs().max() > 0.05, "positions must matter"

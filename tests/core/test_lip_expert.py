"""Eq. 10 and 11 against closed forms, and whether contrast teaches the expert what is in time."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from fd2talk_core import configs
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.networks.lip_expert import (
    LipExpert,
    sync_loss,
    sync_loss_over_clip,
    sync_over_clip,
    sync_probability,
)


def small(seed=0, vertices=6, audio_dim=8) -> LipExpert:
    torch.manual_seed(seed)
    return LipExpert(num_mouth_vertices=vertices, audio_dim=audio_dim, hidden_size=32, embed_dim=24).train(
        False
    )


def test_eq10_is_the_cosine():
    v, a = torch.rand(9, 16), torch.rand(9, 16)
    for i, made in enumerate(sync_probability(v, a).tolist()):
        product = sum(x * y for x, y in zip(v[i].tolist(), a[i].tolist(), strict=True))
        norms = math.hypot(*v[i].tolist()) * math.hypot(*a[i].tolist())
        assert made == pytest.approx(product / max(norms, 1e-8), abs=1e-6)


def test_eq10_does_not_divide_by_zero():
    v = torch.zeros(2, 4, requires_grad=True)
    made = sync_probability(v, torch.ones(2, 4))
    assert made.tolist() == [0, 0]
    made.sum().backward()
    assert torch.isfinite(v.grad).all()
    # the product of the norms is held at eps, not each norm
    tiny = sync_probability(torch.tensor([[1e-6, 0.0]]), torch.tensor([[1e-6, 0.0]]), eps=1e-8)
    assert tiny.item() == pytest.approx(1e-12 / 1e-8, rel=1e-4)


def test_eq11_is_the_negative_logarithm():
    probability = torch.tensor([1.0, 0.5, 0.1])
    assert sync_loss(probability).item() == pytest.approx(-(math.log(1) + math.log(0.5) + math.log(0.1)) / 3)
    assert torch.isfinite(sync_loss(torch.tensor([0.0])))
    assert sync_loss(torch.tensor([0.0])) > sync_loss(torch.tensor([0.001]))


def test_probability_is_one_whatever_the_windows():
    """Embeddings without negative entries keep the cosine in 0..1, where Eq. 11 is defined."""
    expert = small()
    mouth, audio = torch.randn(64, 5, 6, 3), torch.randn(64, 5, 8) * 10
    assert expert.embed_motion(mouth).min() >= 0 and expert.embed_audio(audio).min() >= 0
    probability = expert(mouth, audio)
    assert probability.shape == (64,)
    assert probability.min() > 0 and probability.max() <= 1 + 1e-6


def test_contrast_is_infonce_written_out():
    expert = small()
    mouth, audio, others = torch.randn(4, 5, 6, 3), torch.randn(4, 5, 8), torch.randn(4, 3, 5, 8)
    scale = expert.log_scale.exp().item()
    total = 0.0
    cosine = [[expert(mouth[i : i + 1], audio[j : j + 1]).item() for j in range(4)] for i in range(4)]
    for i in range(4):
        extra = [expert(mouth[i : i + 1], others[i, k : k + 1]).item() for k in range(3)]
        true = math.exp(scale * cosine[i][i])
        sounds = sum(math.exp(scale * c) for c in [*cosine[i], *extra])
        mouths = sum(math.exp(scale * cosine[j][i]) for j in range(4))
        total += -math.log(true / sounds) - math.log(true / mouths)
    made = expert.contrastive_loss(mouth, audio, others)
    assert made.item() == pytest.approx(total / 8, rel=1e-4)
    assert made > expert.contrastive_loss(mouth, audio), "more negatives are harder"
    # two processes with half a batch each: what brings their embeddings together makes it the whole batch's
    rest = [expert.embed_motion(mouth[2:]), expert.embed_audio(audio[2:]), expert.embed_audio(others[2:])]
    shared = expert.contrastive_loss(
        mouth[:2], audio[:2], others[:2], gather=lambda part: torch.cat([part, rest.pop(0)])
    )
    assert shared.item() == pytest.approx(made.item(), rel=1e-5)


@pytest.mark.parametrize("stride", [1, 3])
def test_sliding_is_each_window_alone(stride):
    expert = small()
    mouth, audio = torch.randn(2, 21, 6, 3) * 0.1, torch.randn(2, 21, 8)
    made = sync_over_clip(expert, mouth, audio, stride)
    starts = range(0, 21 - 5 + 1, stride)
    expected = torch.stack([expert(mouth[:, s : s + 5], audio[:, s : s + 5]) for s in starts], dim=1)
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=0)
    loss = sync_loss_over_clip(expert, mouth, audio, stride)
    assert loss.item() == pytest.approx(-expected.log().mean().item(), abs=1e-5)


@pytest.mark.parametrize("frames, sounds", [(4, 4), (9, 8)])
def test_clips_that_do_not_fit_are_named(frames, sounds):
    with pytest.raises(FD2TalkError, match=f"given {frames} frames of mouth and {sounds} of audio"):
        sync_over_clip(small(), torch.zeros(1, frames, 6, 3), torch.zeros(1, sounds, 8))


def talking(clips: int, frames: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """A mouth that opens with a slow random signal, and audio that holds that signal in other words."""
    signal = torch.randn(clips, 2, frames + 8, generator=generator)
    signal = functional.avg_pool1d(signal, 5, stride=1)[..., :frames].mT * 2
    words = torch.tensor([[1.0, -1, 0.5, 0, 0.3, 0, -1, 1], [0, 1, 1, -1, 0, 0.7, 0, 0.2]])
    shape = torch.linspace(-1, 1, 36).view(2, 18)
    audio = torch.tanh(signal @ words) + 0.05 * torch.randn(clips, frames, 8, generator=generator)
    return (signal @ shape).unflatten(-1, (6, 3)) * 0.05, audio


def trained_expert() -> LipExpert:
    expert, generator = small().train(True), torch.Generator().manual_seed(1)
    optimizer = torch.optim.AdamW(expert.parameters(), lr=3e-3)
    for _ in range(200):
        mouth, audio = talking(24, 13, generator)
        others = torch.stack([audio[:, :5], audio[:, 8:]], dim=1)
        loss = expert.contrastive_loss(mouth[:, 4:9], audio[:, 4:9], others)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return expert.train(False).requires_grad_(False)


def test_contrast_teaches_timing_and_the_loss_steers_by_it():
    expert = trained_expert()
    mouth, audio = talking(20, 60, torch.Generator().manual_seed(9))
    in_time = sync_over_clip(expert, mouth[:, :-6], audio[:, :-6])
    late = sync_over_clip(expert, mouth[:, :-6], audio[:, 6:])
    assert (in_time > late).float().mean() > 0.85
    # frozen, it moves a mouth that is still towards the one that fits (Eq. 11 inside Eq. 12)
    made = torch.zeros_like(mouth[:4]).requires_grad_()
    optimizer = torch.optim.Adam([made], lr=0.01)
    start = sync_loss_over_clip(expert, made, audio[:4]).item()
    for _ in range(40):
        loss = sync_loss_over_clip(expert, made, audio[:4])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.5 * start
    similarity = torch.corrcoef(torch.stack([made.detach().flatten(), mouth[:4].flatten()]))[0, 1]
    assert similarity > 0.3


@pytest.mark.parametrize("size", ["tiny", "base"])
def test_sizes_run_forward_and_backward(size):
    expert = configs.build("lip_expert", size, seed=0).requires_grad_(True)
    config = expert.config
    print(f"\nlip expert, {size}: {sum(p.numel() for p in expert.parameters()) / 1e6:.2f} M parameters")
    mouth = torch.randn(2, 5, config.num_mouth_vertices, 3) * 0.05
    expert.contrastive_loss(mouth, torch.randn(2, 5, config.audio_dim)).backward()
    assert all(p.grad is not None for p in expert.parameters())

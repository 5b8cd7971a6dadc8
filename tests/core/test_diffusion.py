"""Eq. 2, 3 and 5 against their closed forms, and what the noise may depend on."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.networks.diffusion import (
    add_noise,
    ddim_sample,
    diffusion_loss,
    frame_noise,
    sampling_timesteps,
)


def alpha_bar() -> list[float]:
    """ᾱ_t of DDPM's linear schedule, by the definition, in double precision; last, that of t = -1."""
    product, out = 1.0, []
    for t in range(1000):
        product *= 1 - (1e-4 + (0.02 - 1e-4) * t / 999)
        out.append(product)
    return [*out, 1.0]


def test_eq2_forward_noise():
    x0, noise = torch.randn(5, 7, 3), torch.randn(5, 7, 3)
    t = torch.tensor([0, 1, 250, 700, 999])
    made = add_noise(x0, noise, t)
    a = torch.tensor([alpha_bar()[i] for i in t])[:, None, None]
    torch.testing.assert_close(made, a.sqrt() * x0 + (1 - a).sqrt() * noise, atol=1e-5, rtol=1e-4)


def test_x_at_t_1000_is_noise():
    """The step that sampling starts at holds no signal to speak of."""
    assert math.sqrt(alpha_bar()[sampling_timesteps(8)[0]]) < 0.01


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("steps", [1, 4, 7, 8, 30, 50])
def test_eq5_ddim_steps(steps, eta):
    """A whole run against Eq. 5 written out, also where the step count does not divide 1000."""
    a_bar = alpha_bar()

    def network(x, t):
        return torch.tanh(x * 0.7 + float(t) / 1000)

    noises = torch.randn(steps, 4, 6, generator=torch.Generator().manual_seed(1))
    start = torch.randn(4, 6, generator=torch.Generator().manual_seed(2))
    times = [round(1000 - i * 1000 / steps) - 1 for i in range(steps)] + [-1]
    x = start.double()
    for i in range(steps):
        a, a_prev = a_bar[times[i]], a_bar[times[i + 1]]
        x0 = network(x, times[i])
        sigma = eta * math.sqrt((1 - a_prev) / (1 - a)) * math.sqrt(1 - a / a_prev)
        x = (
            math.sqrt(a_prev) * x0
            + math.sqrt(1 - a_prev - sigma**2) / math.sqrt(1 - a) * (x - math.sqrt(a) * x0)
            + sigma * noises[i]
        )
    made = ddim_sample(network, start, steps=steps, eta=eta, noise_fn=lambda i: noises[i])
    torch.testing.assert_close(made, x.float(), atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("eta, steps", [(0.0, 100), (1.0, 1000)])
def test_perfect_network_gives_the_data_distribution(eta, steps):
    """With the exact posterior mean of Gaussian data, sampling turns N(0, 1) into that Gaussian."""
    mean, deviation, a_bar = 1.5, 0.5, alpha_bar()

    def posterior_mean(x, t):
        a = a_bar[int(t)]
        gain = math.sqrt(a) * deviation**2 / (a * deviation**2 + 1 - a)
        return mean + gain * (x - math.sqrt(a) * mean)

    generator = torch.Generator().manual_seed(0)
    start = torch.randn(20_000, generator=generator)
    made = ddim_sample(
        posterior_mean,
        start,
        steps=steps,
        eta=eta,
        noise_fn=lambda _: torch.randn(20_000, generator=generator),
    )
    assert made.mean().item() == pytest.approx(mean, abs=0.02)
    assert made.std().item() == pytest.approx(deviation, rel=0.03)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 1000))
def test_timesteps_run_from_t_to_the_signal(steps):
    times = sampling_timesteps(steps)
    assert times[0] == 999 and times[-1] == -1 and len(times) == steps + 1
    assert all(later < earlier for earlier, later in itertools.pairwise(times))


@pytest.mark.parametrize("steps", [1, 3, 6, 50])
def test_last_step_returns_the_estimate(steps):
    x0 = torch.randn(3, 5)
    made = ddim_sample(lambda x, t: x0, torch.randn(3, 5), steps=steps)
    torch.testing.assert_close(made, x0, atol=1e-6, rtol=0)


@pytest.mark.parametrize("steps", [0, -1, 1001, 2.5, True])
def test_steps_out_of_range_are_named(steps):
    with pytest.raises(FD2TalkError, match=f"steps is {steps}"):
        sampling_timesteps(steps)


def test_eta_out_of_range_is_named():
    with pytest.raises(FD2TalkError, match="eta is 2"):
        ddim_sample(lambda x, t: x, torch.zeros(1), steps=2, eta=2, noise_fn=lambda i: torch.zeros(1))
    with pytest.raises(FD2TalkError, match="noise_fn"):
        ddim_sample(lambda x, t: x, torch.zeros(1), steps=2, eta=0.5)


def test_callback_reports_and_stops_within_one_step():
    calls, reports = [], []

    def network(x, t):
        calls.append(int(t))
        return x

    def callback(done, total, preview):
        reports.append((done, total, preview.shape))
        if done == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        ddim_sample(network, torch.zeros(2), steps=10, callback=callback)
    assert len(calls) == 3
    assert reports == [(1, 10, (2,)), (2, 10, (2,)), (3, 10, (2,))]


def test_eq3_loss():
    x0, noise = torch.randn(4, 6, 2), torch.randn(4, 6, 2)
    t = torch.tensor([0, 10, 500, 999])
    a = torch.tensor([alpha_bar()[i] for i in t])[:, None, None]

    def network(x, timestep):
        return 0.5 * x + timestep[:, None, None] / 1000

    expected = (x0 - network(a.sqrt() * x0 + (1 - a).sqrt() * noise, t)).square().mean()
    loss, prediction, times = diffusion_loss(network, x0, timesteps=t, noise=noise)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    assert prediction.shape == x0.shape and torch.equal(times, t)
    assert diffusion_loss(lambda x, t: x0, x0)[0] == 0


def test_loss_can_weigh_elements_and_keep_samples():
    x0, weights = torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([2.0, 0.0])
    given = {"timesteps": torch.tensor([3, 40, 400, 999]), "noise": torch.zeros_like(x0)}

    def half(x, timestep):
        assert x.dtype == x0.dtype
        return (x / 2).bfloat16()

    each, estimate, _ = diffusion_loss(half, x0, reduction="none", **given)
    assert estimate.dtype == x0.dtype  # whatever the network computes in
    torch.testing.assert_close(each, (estimate - x0).square())
    samples, _, _ = diffusion_loss(half, x0, weights=weights, reduction="sample", **given)
    torch.testing.assert_close(samples, each[..., 0].mean(dim=1))
    whole, _, _ = diffusion_loss(half, x0, weights=weights, **given)
    torch.testing.assert_close(whole, samples.mean())


def test_loss_draws_timesteps_uniformly():
    _, _, t = diffusion_loss(
        lambda x, t: x, torch.zeros(20_000, 1), generator=torch.Generator().manual_seed(0)
    )
    assert t.min() >= 0 and t.max() <= 999
    counts = torch.histc(t.float(), bins=10, min=0, max=1000)
    assert counts.min() > 1800 and counts.max() < 2200


# --- noise -----------------------------------------------------------------------------------------


@given(st.integers(-(2**63), 2**64), st.lists(st.integers(0, 100_000), min_size=1, max_size=6))
@settings(max_examples=30, deadline=None)
def test_noise_of_a_frame_depends_on_seed_and_index_alone(seed, frames):
    together = frame_noise(seed, frames, (3, 2), "per_frame")
    alone = torch.cat([frame_noise(seed, [frame], (3, 2), "per_frame") for frame in frames])
    assert torch.equal(together, alone)


def test_noise_differs_between_frames_seeds_and_steps():
    maps = [
        frame_noise(seed, [frame], (64,), "per_frame", step)[0]
        for seed in (0, 1, 2)
        for frame in (0, 1, 2)
        for step in (None, 0, 1)
    ]
    correlation = torch.corrcoef(torch.stack(maps)) - torch.eye(len(maps))
    assert correlation.abs().max() < 0.6
    # all three kinds of neighbour together still look like independent draws: 1 / sqrt(64)
    assert correlation.std() < 0.15


def test_noise_is_standard_normal():
    noise = frame_noise(3, range(500), (100,), "per_frame")
    assert noise.mean().abs() < 0.02 and abs(noise.std() - 1) < 0.02
    assert noise.mean(dim=1).std().item() == pytest.approx(0.1, rel=0.2)


def test_shared_noise_is_one_map():
    shared = frame_noise(5, [0, 7, 9], (4, 4), "shared")
    assert torch.equal(shared[0], shared[1]) and torch.equal(shared[0], shared[2])
    assert torch.equal(shared[:1], frame_noise(5, [123], (4, 4), "shared"))
    assert not torch.equal(shared[0], frame_noise(5, [0], (4, 4), "shared", step=0)[0])


def test_unknown_noise_mode_is_named():
    with pytest.raises(FD2TalkError, match="'pink'"):
        frame_noise(0, [0], (1,), "pink")

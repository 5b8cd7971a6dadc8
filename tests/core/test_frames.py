"""The sampler: a frame does not depend on its batch; memory that runs out; progress; wrong inputs."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.crop import CropTransform
from fd2talk_core.face.state import FaceState
from fd2talk_core.frames.batches import in_batches
from fd2talk_core.frames.decoding import decode_frames, iter_decoded_frames
from fd2talk_core.frames.denoising import automatic_batch, iter_latents, sample_latents
from fd2talk_core.frames.portrait_motion import PortraitMotion
from fd2talk_core.frames.reference import Reference
from fd2talk_core.frames.workers import one_ahead
from fd2talk_core.motion.coefficients import CoefficientSequence
from fd2talk_core.networks import precision
from fd2talk_core.networks.autoencoder import FrameAutoencoder
from fd2talk_core.networks.diffusion import frame_noise, make_scheduler, sampling_timesteps
from fd2talk_core.networks.unet import FrameUNet

FACE = "plane"


@pytest.fixture(autouse=True)
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames are compared with what the networks give when they are called alone."""
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda device: False)


@pytest.fixture(scope="module")
def unet() -> FrameUNet:
    torch.manual_seed(0)
    return FrameUNet(
        latent_channels=4,
        sample_size=8,
        block_out_channels=(16, 16),
        attention_levels=(False, True),
        attention_head_dim=8,
        motion_dim=9,
        context_dim=8,
    ).train(False)


@pytest.fixture(scope="module")
def autoencoder() -> FrameAutoencoder:
    torch.manual_seed(1)
    return FrameAutoencoder(4, (8, 8), (1, 1), (1, 1), patch_size=1).train(False)


@pytest.fixture(scope="module")
def reference(autoencoder: FrameAutoencoder) -> Reference:
    crop = torch.rand(16, 16, 3, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        latent = autoencoder.encode(crop.movedim(-1, 0)[None])[0]
    transform = CropTransform.of_square(16.0, 12.0, 16.0, 16)
    picture = torch.rand(24, 32, 3, generator=torch.Generator().manual_seed(3))
    face = FaceState(torch.zeros(5), torch.zeros(3), torch.zeros(6), FACE)
    return Reference(latent, face, crop, transform, picture, True)


def motion(
    frames: int, face_model: str = FACE, fps: float = 25.0, still: bool = False
) -> tuple[CoefficientSequence, CoefficientSequence]:
    generator = torch.Generator().manual_seed(4)
    expression = torch.rand(frames, 3, generator=generator)
    pose = torch.randn(frames, 6, generator=generator) * 0.1
    if still:
        expression, pose = expression[:1].expand(frames, -1), pose[:1].expand(frames, -1)
    return (
        CoefficientSequence("expression", expression, fps, face_model),
        CoefficientSequence("pose", pose, fps, face_model),
    )


def moving(reference: Reference, frames: int, still: bool = False, **options: object) -> PortraitMotion:
    return PortraitMotion.of(reference.face, *motion(frames, still=still), **options)


def count_calls(unet: FrameUNet, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Frames of each call of the UNet, as they happen."""
    calls, forward = [], FrameUNet.forward

    def counted(self: FrameUNet, sample: Tensor, *args: object) -> Tensor:
        calls.append(len(sample))
        return forward(self, sample, *args)

    monkeypatch.setattr(FrameUNet, "forward", counted)
    return calls


@pytest.mark.parametrize("noise_mode", ["shared", "per_frame"])
@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_any_batch_gives_the_same_latents(
    unet: FrameUNet, reference: Reference, noise_mode: str, eta: float
) -> None:
    options = {"seed": 5, "steps": 3, "eta": eta, "noise_mode": noise_mode}
    whole = sample_latents(unet, reference, moving(reference, 7), frames_per_batch=7, **options)
    assert whole.shape == (7, 4, 8, 8) and whole.dtype == torch.float32
    for batch in (1, 2, 5, None):
        parts = sample_latents(unet, reference, moving(reference, 7), frames_per_batch=batch, **options)
        torch.testing.assert_close(parts, whole, atol=1e-5, rtol=0)
    assert torch.equal(
        sample_latents(unet, reference, moving(reference, 7), frames_per_batch=7, **options), whole
    )
    other = sample_latents(
        unet, reference, moving(reference, 7), frames_per_batch=7, **(options | {"seed": 6})
    )
    assert (other - whole).abs().max() > 1e-3


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_frame_is_denoised_as_equation_5_says(unet: FrameUNet, reference: Reference, eta: float) -> None:
    """One frame, written out: no batches, no caches."""
    expression, pose = motion(4)
    made = sample_latents(
        unet,
        reference,
        PortraitMotion.of(reference.face, expression, pose, "absolute"),
        seed=9,
        steps=4,
        eta=eta,
        noise_mode="per_frame",
    )
    alphas = make_scheduler().alphas_cumprod
    times = sampling_timesteps(4)
    frame = 2
    condition = torch.cat([expression.values, pose.values], dim=1)[frame : frame + 1]
    x = frame_noise(9, [frame], (4, 8, 8), "per_frame")
    with torch.no_grad():
        for step in range(4):
            x0 = unet(x, times[step], condition, reference.latent[None])
            now = alphas[times[step]]
            following = alphas[times[step + 1]] if times[step + 1] >= 0 else torch.tensor(1.0)
            sigma = eta * ((1 - following) / (1 - now)).sqrt() * (1 - now / following).sqrt()
            noise = frame_noise(9, [frame], (4, 8, 8), "per_frame", step)
            direction = (x - now.sqrt() * x0) / (1 - now).sqrt()
            x = (
                following.sqrt() * x0
                + (1 - following - sigma**2).clamp_min(0).sqrt() * direction
                + sigma * noise
            )
    torch.testing.assert_close(made[frame : frame + 1], x, atol=1e-4, rtol=1e-4)


def test_still_frames_are_rendered_once(
    unet: FrameUNet, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    expression, pose = motion(3)
    order = torch.tensor([0, 0, 1, 1, 1, 0, 2, 1, 2, 2])
    expression, pose = (part.replace(values=part.values[order]) for part in (expression, pose))
    options = {"seed": 1, "steps": 2, "frames_per_batch": 1}
    calls = count_calls(unet, monkeypatch)
    held = PortraitMotion.of(reference.face, expression, pose)
    latents = sample_latents(unet, reference, held, **options)
    assert len(latents) == 10 and sum(calls) == 3 * 2
    distinct = sample_latents(unet, reference, moving(reference, 3), **options)
    torch.testing.assert_close(latents, distinct[order], atol=1e-6, rtol=0)
    calls.clear()
    own = sample_latents(unet, reference, held, noise_mode="per_frame", **options)
    assert sum(calls) == 10 * 2 and (own[0] - own[1]).abs().max() > 1e-3


def test_a_still_clip_is_handed_on_in_small_chunks(unet: FrameUNet, reference: Reference) -> None:
    chunks = list(
        iter_latents(unet, reference, moving(reference, 50, still=True), seed=0, steps=1, frames_per_batch=4)
    )
    assert max(map(len, chunks)) <= 4 and sum(map(len, chunks)) == 50


def test_frames_come_as_they_are_made(
    unet: FrameUNet, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = count_calls(unet, monkeypatch)
    chunks = iter_latents(unet, reference, moving(reference, 6), seed=0, steps=2, frames_per_batch=2)
    assert calls == []
    assert len(next(chunks)) == 2 and calls == [2, 2]


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("DefaultCPUAllocator: not enough memory")],
    ids=["cuda", "cpu"],
)
def test_when_memory_runs_out_the_batch_halves_and_what_is_done_is_kept(
    unet: FrameUNet, reference: Reference, error: RuntimeError, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = sample_latents(unet, reference, moving(reference, 9), seed=0, steps=2, frames_per_batch=1)
    forward, sizes, full = FrameUNet.forward, [], {"at": 8}

    def limited(self: FrameUNet, sample: Tensor, *args: object) -> Tensor:
        sizes.append(len(sample))
        if len(sample) >= full["at"]:
            raise error
        return forward(self, sample, *args)

    monkeypatch.setattr(FrameUNet, "forward", limited)
    chunks = iter_latents(unet, reference, moving(reference, 9), seed=0, steps=2, frames_per_batch=8)
    done = [next(chunks)]
    full["at"] = 3
    done.extend(chunks)
    torch.testing.assert_close(torch.cat(done), wanted, atol=1e-5, rtol=0)
    # 8 fail; 4 pass; then 4 fail, 2 and 2 pass, and the ninth alone
    assert sizes == [8, 4, 4, 4, 2, 2, 2, 2, 1, 1]


def test_memory_for_not_even_one_frame_is_said() -> None:
    def never(items: object) -> Tensor:
        raise RuntimeError("not enough memory: you tried to allocate 5 bytes")

    with pytest.raises(FD2TalkError, match="not enough memory for a single frame"):
        list(in_batches(range(5), 4, never))


def test_other_errors_are_not_taken_for_memory() -> None:
    def broken(items: object) -> Tensor:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        list(in_batches(range(5), 4, broken))


def test_the_callback_follows_every_step_and_stops_within_one(
    unet: FrameUNet, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def callback(done: int, total: int, preview: Tensor | None) -> None:
        seen.append((done, total, preview.shape))

    sample_latents(
        unet, reference, moving(reference, 5), seed=0, steps=3, frames_per_batch=2, callback=callback
    )
    assert [done for done, _, _ in seen] == [2, 4, 6, 8, 10, 12, 13, 14, 15]
    assert {total for _, total, _ in seen} == {15} and seen[-1][2] == (1, 4, 8, 8)

    calls = count_calls(unet, monkeypatch)

    class Interrupted(Exception):
        pass

    def interrupt(done: int, total: int, preview: Tensor | None) -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        sample_latents(
            unet, reference, moving(reference, 5), seed=0, steps=3, frames_per_batch=2, callback=interrupt
        )
    assert calls == [2]


def test_steps_default_to_the_checkpoints(
    unet: FrameUNet, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = count_calls(unet, monkeypatch)
    monkeypatch.setattr(unet, "info", SimpleNamespace(steps=5, face_model=FACE), raising=False)
    sample_latents(unet, reference, moving(reference, 1), seed=0)
    assert len(calls) == 5


def test_wrong_inputs_are_refused_at_once(
    unet: FrameUNet, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(match: str, **options: object) -> None:
        with pytest.raises(FD2TalkError, match=match):
            iter_latents(unet, reference, moving(reference, 4), **({"seed": 0, "steps": 2} | options))

    refuse("steps is 0", steps=0)
    refuse("eta is 2", eta=2.0)
    refuse("frames_per_batch is 0", frames_per_batch=0)
    monkeypatch.setattr(unet, "info", SimpleNamespace(steps=5, face_model="flame"), raising=False)
    refuse("UNet was trained for the face model 'flame'.*'plane'")


def test_a_motion_that_does_not_fit_the_portrait_is_refused(reference: Reference) -> None:
    expression, pose = motion(4)
    for match, *inputs in (
        ("'sideways'", expression, pose, "sideways"),
        ("4 frames and the pose 3", expression, motion(3)[1]),
        ("25 fps and the pose at 30", expression, motion(4, fps=30.0)[1]),
        ("'bfm'.*'plane'", motion(4, face_model="bfm")[0], pose),
    ):
        with pytest.raises(FD2TalkError, match=match):
            PortraitMotion.of(reference.face, *inputs)


def test_an_unknown_noise_mode_is_refused(unet: FrameUNet, reference: Reference) -> None:
    with pytest.raises(FD2TalkError, match="'pink'"):
        sample_latents(unet, reference, moving(reference, 2), seed=0, steps=1, noise_mode="pink")


def test_batches_go_by_the_memory(unet: FrameUNet, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    for free in (0, 2**22, 2**24, 2**40):
        monkeypatch.setattr("fd2talk_core.frames.denoising.free_memory", lambda device, free=free: free)
        sizes.append(automatic_batch(unet, (4, 8, 8)))
    assert sizes[0] == 1 and sizes == sorted(sizes) and 1 < sizes[1] < sizes[2] <= sizes[3]


def test_decoding_in_parts_is_decoding_whole(
    unet: FrameUNet, autoencoder: FrameAutoencoder, reference: Reference
) -> None:
    latents = sample_latents(unet, reference, moving(reference, 7), seed=0, steps=1)
    with torch.no_grad():
        wanted = autoencoder.decode(latents, reference.latent).movedim(1, -1)
    for batch in (1, 3, 7):
        frames = decode_frames(autoencoder, latents, reference, paste_back=False, frames_per_batch=batch)
        torch.testing.assert_close(frames, wanted, atol=1e-5, rtol=0)
    chunks = iter(latents.split(2))
    streamed = torch.cat(list(iter_decoded_frames(autoencoder, chunks, reference, paste_back=False)))
    torch.testing.assert_close(streamed, wanted, atol=1e-5, rtol=0)


def test_frames_alike_are_decoded_once(
    autoencoder: FrameAutoencoder, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    distinct = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    latents = distinct[[0, 0, 0, 1, 1, 2, 0]]
    decoded, decode = [], FrameAutoencoder.decode

    def counted(self: FrameAutoencoder, latent: Tensor, *args: object) -> Tensor:
        decoded.append(len(latent))
        return decode(self, latent, *args)

    wanted = decode_frames(autoencoder, distinct, reference, paste_back=False)[[0, 0, 0, 1, 1, 2, 0]]
    monkeypatch.setattr(FrameAutoencoder, "decode", counted)
    frames = decode_frames(autoencoder, latents, reference, paste_back=False, frames_per_batch=2)
    torch.testing.assert_close(frames, wanted, atol=1e-5, rtol=0)
    assert sum(decoded) == 4


def test_pasted_frames_show_the_crop_in_the_picture(
    autoencoder: FrameAutoencoder, reference: Reference
) -> None:
    latents = reference.latent[None] + torch.tensor([0.0, 0.5])[:, None, None, None]
    crops = decode_frames(autoencoder, latents, reference, paste_back=False)
    whole = decode_frames(autoencoder, latents, reference)
    assert crops.shape == (2, 16, 16, 3) and whole.shape == (2, 24, 32, 3)
    # the crop lies at 8..24 across and 4..20 down; its middle is all crop, what is outside all picture
    torch.testing.assert_close(whole[:, 10:14, 14:18], crops[:, 6:10, 6:10], atol=1e-3, rtol=0)
    assert torch.equal(whole[:, :4], reference.picture[:4].expand(2, -1, -1, -1))


def test_latents_of_another_size_are_named(autoencoder: FrameAutoencoder, reference: Reference) -> None:
    for wrong in (torch.randn(2, 4, 8, 9), torch.randn(2, 16, 8, 8), torch.randn(0, 4, 8, 8)):
        with pytest.raises(FD2TalkError, match=r"\[frames, 4, 8, 8\] is needed"):
            iter_decoded_frames(autoencoder, wrong, reference)


def test_threads_change_no_frame(
    unet: FrameUNet, autoencoder: FrameAutoencoder, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = moving(reference, 11)
    decoded = []

    def frames(workers: int) -> Tensor:
        monkeypatch.setattr("fd2talk_core.frames.decoding.worker_count", lambda device: workers)
        latents = one_ahead(iter_latents(unet, reference, clip, seed=0, steps=1, frames_per_batch=3), workers)
        chunks = iter_decoded_frames(
            autoencoder,
            latents,
            reference,
            frames_per_batch=2,
            callback=lambda *done: decoded.append(done[0]),
        )
        return torch.cat(list(chunks))

    torch.testing.assert_close(frames(3), frames(1), atol=1e-6, rtol=0)
    assert decoded == 2 * [2, 3, 5, 6, 8, 9, 11]


def test_a_progressive_set_takes_each_frame_from_the_one_before(
    unet: FrameUNet, reference: Reference
) -> None:
    """DiffTalk Sec. 3.3, by hand."""
    clip = moving(reference, 3)
    changed = deepcopy(unet)
    changed.register_to_config(progressive=True)
    chunks = list(iter_latents(changed, reference, clip, seed=0, steps=2, frames_per_batch=2))
    assert max(map(len, chunks)) == 2
    made = torch.cat(chunks)
    before = reference
    for frame in range(3):
        alone = sample_latents(unet, before, clip.part(range(frame, frame + 1)), seed=0, steps=2)
        torch.testing.assert_close(made[frame], alone[0], atol=1e-5, rtol=1e-4)
        before = replace(reference, latent=alone[0])
    assert not torch.allclose(made[1:], sample_latents(unet, reference, clip, seed=0, steps=2)[1:])
    with pytest.raises(FD2TalkError, match="part of a clip cannot be made alone"):
        iter_latents(changed, reference, clip.part(range(1, 3)), seed=0)

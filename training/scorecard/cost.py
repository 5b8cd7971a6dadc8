"""What the weights cost: megabytes, operations and seconds."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from fd2talk_core.audio.resampling import SAMPLE_RATE
from fd2talk_core.frames.conditioning import align_reference
from fd2talk_core.frames.decoding import decode_frames
from fd2talk_core.frames.portrait_motion import PortraitMotion
from fd2talk_core.frames.reference import Reference
from fd2talk_core.networks.flops import count_flops
from fd2talk_core.networks.latent_flow import PLANES, LatentFlowUNet
from fd2talk_core.networks.unet import MASK_NAMES

from .table import Row
from .weights import Weights


@torch.no_grad()
def score_cost(weights: Weights, reference: Reference, seconds: float = 2.0) -> list[Row]:
    """Size of the files, operations a frame, and seconds a frame on this machine."""
    megabytes = sum(path.stat().st_size for path in weights.folder.glob("*.safetensors")) / 1e6
    unet, autoencoder, encoder = weights.unet, weights.autoencoder, weights.audio_encoder
    frames = round(25 * seconds)
    steps = unet.info.steps
    latent = reference.latent[None]

    def align() -> Tensor | None:
        return align_reference(
            unet,
            weights.face_model,
            latent,
            reference.crop.movedim(-1, 0),
            reference.identity,
            reference.expression,
            reference.pose,
            reference.expression[None],
            reference.pose[None],
        )

    together = isinstance(unet, LatentFlowUNet)
    if together:
        planes = torch.zeros(1, frames, PLANES, *latent.shape[-2:])
        change, face = torch.zeros(1, frames, unet.state_dim), torch.zeros(1, 1, *latent.shape[-2:])
    else:
        aligned = align()
        cache = unet.make_cache(torch.zeros(1, unet.config.motion_dim), latent)

    def denoise() -> Tensor:
        if together:
            return unet(planes, 500, change, latent, face)
        return unet(latent, 500, None, latent, aligned, cache)

    waveform = torch.zeros(round(seconds * SAMPLE_RATE))
    features = encoder.encode(waveform, SAMPLE_RATE, 25.0)
    parts: dict[str, Callable[[], object]] = {
        "audio": lambda: encoder(waveform[None]),
        "motion": lambda: weights.sequences(features, seed=0),
        "UNet": denoise,
        "decoder": lambda: autoencoder.decode(latent, latent),
    }
    share = {"audio": 1 / frames, "motion": 1 / frames, "UNet": float(steps), "decoder": 1.0, "blend": 1.0}
    if together:
        share["UNet"] /= frames
    if autoencoder.portrait_blend is not None and not together:
        crop = reference.crop.movedim(-1, 0)[None]
        size = crop.shape[-1] // 2
        maps = [torch.zeros(1, channels, size, size) for channels in (2, len(MASK_NAMES))]
        # once a clip, not once a frame
        with torch.no_grad():
            looked_at = autoencoder.portrait_blend.look_at(crop, crop[:, :1])
        parts["blend"] = lambda: autoencoder.portrait_blend(crop, crop[:, :1], crop, *maps, looked_at)
    work = {name: count_flops(call) * share[name] / 1e9 for name, call in parts.items()}
    times = {name: _seconds(call) * share[name] for name, call in parts.items()}
    if not together and unet.config.reference_alignment == "warp_image":
        crop = reference.crop.movedim(-1, 0)[None]
        work["reference encoder"] = count_flops(lambda: unet.crop_encoder(crop)) / 1e9
    if not together:
        # the mesh's correspondence and, where the UNet wants it, the reference encoder
        times["alignment"] = _seconds(align)
        times["detail"] = _detail_seconds(weights, reference) - times["decoder"]
    return [
        Row("size of all weights (MB)", megabytes, 40, "low"),
        Row(
            f"GFLOP a frame at {steps} steps",
            sum(work.values()),
            16,
            "low",
            ", ".join(f"{name} {value:.2f}" for name, value in work.items()),
        ),
        Row(
            f"seconds a frame on {torch.get_num_threads()} cores",
            sum(times.values()),
            None,
            "low",
            ", ".join(f"{name} {value:.3f}" for name, value in times.items()),
        ),
    ]


def _detail_seconds(weights: Weights, reference: Reference, frames: int = 4) -> float:
    """Seconds a frame of decoding with the portrait's detail."""
    latents = reference.latent + 1e-3 * torch.arange(frames).view(-1, 1, 1, 1)
    still = reference.expression.expand(frames, -1), reference.pose.expand(frames, -1)
    motion = PortraitMotion(reference.face, *still, weights.face_model)
    return (
        _seconds(
            lambda: decode_frames(weights.autoencoder, latents, reference, paste_back=False, motion=motion), 1
        )
        / frames
    )


def _seconds(call: Callable[[], object], times: int = 3) -> float:
    call()
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best

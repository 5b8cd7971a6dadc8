"""What the scorecard and the stages measure. Each is a plain function whose answer is known for some input.

A perfect copy has an infinite PSNR, an SSIM and a correlation of 1 and a lip error of 0; a still mouth has a
correlation of 0 and a lip error of 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fd2talk_core.errors import FD2TalkError

ROUNDING_ERROR = 1 / (12 * 255**2)
"""Mean squared error of rounding 0..1 to 8 bits."""
MILLIMETRES = 100
"""In a unit of the face model."""


def psnr(frames: Tensor, truth: Tensor, mask: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio of each frame in dB.

    Args:
        frames, truth: ``[F, 3, H, W]`` in 0..1.
        mask: ``[F, 1, H, W]``, weights of the pixels that count; all of them without it.

    Returns:
        ``[F]``; at most 58.9 dB, where the error is that of rounding to 8 bits: pictures are not known
        better, and one pair of equal ones would make every mean infinite.
    """
    error = (frames - truth).square().mean(dim=1, keepdim=True)
    return -10 * torch.log10(_masked_mean(error, mask).clamp_min(ROUNDING_ERROR))


def ssim(frames: Tensor, truth: Tensor, mask: Tensor | None = None) -> Tensor:
    """Structural similarity (Wang et al. 2004) of each frame, averaged over the mask; 11 px Gaussian window.

    Args, returns: as :func:`psnr`.
    """
    from kornia.metrics import ssim as similarity

    return _masked_mean(similarity(frames, truth, window_size=11).mean(dim=1, keepdim=True), mask)


def _masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return values.mean(dim=(1, 2, 3))
    weight = mask.to(values)
    return (values * weight).sum(dim=(1, 2, 3)) / weight.sum(dim=(1, 2, 3)).clamp_min(1e-8)


def correlation(values: Tensor, truth: Tensor) -> float:
    """Pearson's correlation of two curves ``[F]``; 0 where one of them does not move."""
    a, b = values.double() - values.double().mean(), truth.double() - truth.double().mean()
    scale = a.norm() * b.norm()
    return float((a * b).sum() / scale) if scale > 1e-9 else 0.0


def lip_error(mouth: Tensor, truth: Tensor, still: Tensor) -> float:
    """Lip vertex error in units of that of a still mouth: 0 is a perfect copy, 1 no better than not moving.

    The error of a frame is the largest distance over the lip vertices (MeshTalk, Richard et al. 2021),
    averaged over frames.

    Args:
        mouth, truth: ``[F, M, 3]`` mouth vertices of one identity, without head pose.
        still: ``[M, 3]``, the same mouth at rest.
    """
    reference = lip_vertex_error(still.expand_as(truth), truth)
    return lip_vertex_error(mouth, truth) / reference if reference > 1e-9 else 0.0


def lip_vertex_error(mouth: Tensor, truth: Tensor) -> float:
    """LVE (Richard et al. 2021): the largest distance over the lip vertices, averaged over frames, in their
    units.

    Args:
        mouth, truth: ``[F, M, 3]``, lip vertices.
    """
    return float((mouth - truth).norm(dim=-1).amax(dim=1).mean())


def expression_diversity(samples: Tensor) -> float:
    """Diversity of expression codes for one recording (FaceTalk Eq. 20, of its N recordings one).

    Args:
        samples: ``[K, F, D_β]`` for the same sound, from different noise.

    Returns:
        1 / K times the sum of the distances ‖e_j - e_l‖₂ over all ordered pairs j ≠ l, each averaged over
        frames.
    """
    _check_several(samples)
    distances = (samples[:, None] - samples[None]).norm(dim=-1).mean(dim=-1)
    return float(distances.sum() / len(samples))


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Fréchet distance of the normal distributions of two sets of features (Heusel et al. 2017): FID on
    Inception's, FVD on I3D's.

    Args:
        a, b: ``[n, D]`` and ``[m, D]``, at least two of each.
    """
    if min(len(a), len(b)) < 2:
        raise FD2TalkError(f"A Fréchet distance needs two samples and more, not {len(a)} and {len(b)}.")
    a, b = a.double(), b.double()
    means = (a.mean(dim=0) - b.mean(dim=0)).square().sum()
    # with Σ = XᵀX, the trace of the root of Σ_a Σ_b is the sum of the singular values of X_a X_bᵀ; where
    # samples outnumber features, X may be the R of its QR decomposition, which is no larger than D x D
    a, b = ((values - values.mean(dim=0)) / (len(values) - 1) ** 0.5 for values in (a, b))
    a, b = (torch.linalg.qr(x, mode="r").R if len(x) > x.shape[1] else x for x in (a, b))
    root = torch.linalg.svdvals(a @ b.mT).sum()
    return max(0.0, float(means + a.square().sum() + b.square().sum() - 2 * root))


BILABIALS = ("p", "b", "m")
OPEN_VOWELS = ("aa", "ae", "ao", "aw", "ay")
"""Without ``ah``: dictionaries without stress, such as pocketsphinx's, write the schwa so, which needs no
open mouth.
"""


@dataclass(frozen=True)
class LipClosure:
    """How often the mouth is shut where it must be, and open where it must be.

    Attributes:
        closed: part of the p, b, m with the mouth under the clip's lower percentile.
        opened: part of the open vowels with the mouth over the clip's upper percentile.
        closures, openings: how many of each there were.
    """

    closed: float
    opened: float
    closures: int
    openings: int


def lip_closure(
    opening: Tensor,
    fps: float,
    phonemes: Sequence[tuple[str, float, float]],
    closed: Sequence[str] = BILABIALS,
    opened: Sequence[str] = OPEN_VOWELS,
    low: float = 0.25,
    high: float = 0.60,
) -> LipClosure:
    """Lips closed at p, b, m and open at open vowels.

    The lips meet somewhere within the phoneme, not all through it: a closure counts if the smallest opening
        of its
    frames, one more on each side included, is under the percentile; a vowel likewise with the largest.

    Args:
        opening: ``[F]``, mouth opening by frame.
        fps: frames per second.
        phonemes: ``(name, start, end)`` in seconds.
        low, high: percentiles of the clip's own openings.
    """
    lower, upper = torch.quantile(opening.float(), torch.tensor([low, high], device=opening.device))
    shut, open_ = [], []
    for name, start, end in phonemes:
        if name not in closed and name not in opened:
            continue
        first = max(round(start * fps - 0.5) - 1, 0)
        last = min(round(end * fps - 0.5) + 1, len(opening) - 1)
        if last < first:
            continue
        part = opening[first : last + 1]
        if name in closed:
            shut.append(bool(part.min() <= lower))
        else:
            open_.append(bool(part.max() >= upper))
    return LipClosure(
        closed=sum(shut) / len(shut) if shut else float("nan"),
        opened=sum(open_) / len(open_) if open_ else float("nan"),
        closures=len(shut),
        openings=len(open_),
    )


def pose_diversity(poses: Tensor) -> float:
    """Motion diversity (FD2Talk Sec. 4.1) on head pose: how far apart samples of the same audio are, in
    radians.

    The paper takes the standard deviation of Hopenet's embeddings; the pose is known here, so its own is
    taken: of the three angles over the samples, averaged over frames.

    Args:
        poses: ``[S, F, 6]``, S samples for the same audio.
    """
    _check_several(poses)
    return float(poses[..., :3].std(dim=0).mean())


def _check_several(samples: Tensor) -> None:
    if len(samples) < 2:
        raise FD2TalkError("Diversity compares samples, so at least two are needed.")


def pose_range(pose: Tensor) -> float:
    """Standard deviation over time of the three angles of one clip ``[F, 6]``, in radians."""
    return float(pose[:, :3].std(dim=0).mean())


def beat_alignment(pose: Tensor, energy: Tensor, fps: float, sigma: float = 0.1) -> float:
    """Beat Align score (Siyao et al. 2022, Bailando) between head motion and the loudness of speech, 0..1.

    Motion beats are the local minima of the angular speed; audio beats are the local maxima of the rise of
    loudness. For every audio beat, ``exp(-d² / 2σ²)`` of the distance to the nearest motion beat, averaged.

    Args:
        pose: ``[F, 6]``.
        energy: ``[F]``, loudness by frame.
        sigma: seconds.
    """
    speed = smooth(pose[1:, :3].sub(pose[:-1, :3]).norm(dim=-1) * fps, fps, 0.06)
    rise = smooth(energy, fps, 0.04).diff().clamp_min(0)
    motion = _local_maxima(-speed).nonzero().flatten() / fps
    peaks = _local_maxima(rise) & (rise > rise.mean())
    audio = peaks.nonzero().flatten() / fps
    if len(motion) == 0 or len(audio) == 0:
        return 0.0
    distance = (audio[:, None] - motion[None]).abs().amin(dim=1)
    return float(torch.exp(-(distance**2) / (2 * sigma**2)).mean())


def blink_rate(lid: Tensor, fps: float) -> float:
    """How often a minute a lid ``[F]``, 0 open and 1 shut, comes to be more shut than open."""
    shut = lid > 0.5
    return float((shut[1:] & ~shut[:-1]).sum()) * 60 * fps / max(len(lid), 1)


def likeness(pairs: Sequence[tuple[float, float]]) -> float:
    """How near pairs of amounts are, the smaller by the larger, on average: 1 where all are equal."""
    near = [min(pair) / max(pair) if max(pair) > 0 else 1.0 for pair in pairs]
    return sum(near) / len(near)


def smooth(values: Tensor, fps: float, seconds: float) -> Tensor:
    """Gaussian smoothing of a curve ``[F]`` with a standard deviation in seconds; ends are held."""
    radius = max(1, round(3 * seconds * fps))
    offsets = torch.arange(-radius, radius + 1, dtype=values.dtype)
    kernel = torch.exp(-0.5 * (offsets / (seconds * fps)) ** 2)
    padded = F.pad(values[None, None], (radius, radius), mode="replicate")
    return F.conv1d(padded, (kernel / kernel.sum())[None, None])[0, 0]


def _local_maxima(values: Tensor) -> Tensor:
    middle = values[1:-1]
    inside = (middle > values[:-2]) & (middle >= values[2:])
    return F.pad(inside, (1, 1))


def flicker(frames: Tensor) -> float:
    """Mean change from frame to frame, ``[F, 3, H, W]`` in 0..1, in 255ths; a still picture has 0."""
    return float((frames[1:] - frames[:-1]).abs().mean() * 255)


def angle_error(angles: Tensor, truth: Tensor) -> float:
    """Mean absolute difference of angles in degrees, around the circle.

    Args:
        angles, truth: ``[F, 3]`` radians.
    """
    difference = torch.remainder(angles - truth + torch.pi, 2 * torch.pi) - torch.pi
    return float(torch.rad2deg(difference.abs()).mean())

"""Real clips driven by their own motion: the first frame is the portrait, the clip itself the driving video.

Nothing here was made by the corpus's rules, and every frame has its truth. Beside each similarity stands what
repeating the first frame scores, and what is left when the UNet's change is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.fitting import BROWS, EYE_RIMS
from fd2talk_core.face.landmarks import FaceLandmarker, check_picture, pick_face
from fd2talk_core.formats.video_frames import VideoFrames
from fd2talk_core.frames.decoding import decode_frames
from fd2talk_core.frames.denoising import sample_latents
from fd2talk_core.frames.portrait_motion import PortraitMotion
from fd2talk_core.frames.reference import Reference, encode_reference
from fd2talk_core.motion.tracking import follow_face, read_motion
from fd2talk_core.networks.autoencoder import FrameAutoencoder
from fd2talk_core.networks.blend import Blend, PortraitBlend

from ..measures import correlation
from .clips import keep_scores, list_clips, measure_each
from .synchrony import CHIN, FOREHEAD, lip_gap
from .weights import Weights

EVERY = 3
"""Frames from one that is compared to the next."""

MOUTH = [61, 291, 0, 17, 13, 14, 78, 308, 84, 314, 37, 267]
EYES = [33, 133, 159, 145, 263, 362, 386, 374, 70, 300]
REGIONS = {"face": (None, 0.1), "mouth": (MOUTH, 0.35), "eyes": (EYES, 0.1)}
"""MediaPipe's landmarks of a region, and how much larger its box is on each side than they are."""

PARTS = ("lips", "lids", "brows")

PROBE = 0.05
"""Brightness that is added to what the networks show, to see in how much of it a frame changes."""


@dataclass(frozen=True)
class DrivenClip:
    """What was seen of one clip, by region.

    Attributes:
        made, without_unet, copied: structural similarity with the real frames (Wang et al. 2004) of what was
            made, of the same without the UNet's change, and of the first frame repeated.
        networks: share of the region that the networks show; the rest is the portrait moved, or drawn.
        follows: of each of PARTS, how it opens or rises in what was made, as a landmarker sees it, beside
            the real frames: correlation, and by how much of what the real one does.
        frames: that were compared.
    """

    name: str
    made: dict[str, float]
    without_unet: dict[str, float]
    copied: dict[str, float]
    networks: dict[str, float]
    follows: dict[str, tuple[float, float]]
    frames: int


class _Brighter(FrameAutoencoder):
    """An autoencoder whose pictures are all a little brighter where they are shown, and nothing else: it has
    no layers of its own.
    """

    def __init__(self, autoencoder: FrameAutoencoder) -> None:
        object.__setattr__(self, "_autoencoder", autoencoder)

    def __getattr__(self, name: str) -> object:
        return getattr(self._autoencoder, name)

    def decode(self, latents: Tensor, reference: Tensor) -> Tensor:
        """``[F, 3, H, W]``; a blend must not see that they are brighter."""
        decoded = self._autoencoder.decode(latents, reference)
        return decoded if self._autoencoder.portrait_blend is not None else decoded + PROBE

    @property
    def portrait_blend(self) -> _BrighterBlend | None:
        """The autoencoder's, with brighter colours; None where it has none."""
        blend = self._autoencoder.portrait_blend
        return None if blend is None else _BrighterBlend(blend)


class _BrighterBlend:
    """A blend whose latents' colours are brighter; all else is its own."""

    def __init__(self, blend: PortraitBlend) -> None:
        self._blend = blend

    def __getattr__(self, name: str) -> object:
        return getattr(self._blend, name)

    def __call__(self, *inputs: Tensor) -> Blend:
        blend = self._blend(*inputs)
        return replace(blend, colours=blend.colours + PROBE)


def score_driven(weights: Weights, folder: Path, seconds: float | None, out: Path) -> str:
    """The table of all clips of a folder; also written to ``driven.json`` and ``driven.txt`` in ``out``.

    Args:
        seconds: of each clip, from its start; None takes all.

    Raises:
        FD2TalkError: when no clip can be measured.
    """
    landmarker = FaceLandmarker()
    clips, left_out = measure_each(
        folder,
        ((path.name, partial(drive_clip, weights, path, seconds, landmarker)) for path in list_clips(folder)),
    )
    return keep_scores(out, "driven", clips, "\n".join([driven_table(clips), *left_out]))


def drive_clip(weights: Weights, path: Path, seconds: float | None, landmarker: FaceLandmarker) -> DrivenClip:
    """Make one clip from its first frame and its own motion, and compare."""
    video = VideoFrames(path, duration=seconds or 0.0)
    real = [check_picture(frame) for frame in video]
    track = follow_face(real, landmarker)
    motion = read_motion(track, video.fps, weights.face_model, missing="hold")
    reference = encode_reference(real[0], weights.autoencoder, landmarker, weights.face_model)
    whole = PortraitMotion.of(reference.face, motion.expression, motion.pose, "relative", weights.face_model)
    chosen = [number for number in range(0, len(real), EVERY) if number not in motion.missing]
    some = PortraitMotion(reference.face, whole.expression[chosen], whole.pose[chosen], weights.face_model)
    latents = sample_latents(weights.unet, reference, some, seed=0)
    made = _shown(weights, weights.autoencoder, latents, reference, some)
    brighter = _shown(weights, _Brighter(weights.autoencoder), latents, reference, some)
    share = (brighter - made).abs().mean(dim=-1, keepdim=True) / PROBE
    without = _shown(weights, weights.autoencoder, weights.without_unet(reference, some), reference, some)
    seen_before = track.found.long().cumsum(0) - 1
    scores: dict[str, dict[str, list[float]]] = {
        kind: {region: [] for region in REGIONS} for kind in ("made", "without_unet", "copied", "networks")
    }
    for index, number in enumerate(chosen):
        whole_face = track.landmarks[seen_before[number]]
        for region, (points, grow) in REGIONS.items():
            landmarks = whole_face if points is None else whole_face[points]
            rows, columns = box_around(landmarks, grow, real[number].shape[:2])
            truth = real[number][rows, columns]
            for kind, picture in (
                ("made", made[index]),
                ("without_unet", without[index]),
                ("copied", real[0]),
            ):
                scores[kind][region].append(similarity(truth, picture[rows, columns]))
            scores["networks"][region].append(float(share[index][rows, columns].clamp(0, 1).mean()))
    means = {
        kind: {region: fmean(values) for region, values in regions.items()}
        for kind, regions in scores.items()
    }
    faces = (pick_face(landmarker.detect(frame)) for frame in made)
    # a frame without a face counts as one in which nothing has moved
    shown = torch.stack([track.landmarks[0] if face is None else face.landmarks[:, :2] for face in faces])
    followed = followed_by(part_heights(track.landmarks[seen_before[chosen]]), part_heights(shown))
    return DrivenClip(path.stem, **means, follows=followed, frames=len(scores["made"]["face"]))


def part_heights(landmarks: Tensor) -> dict[str, Tensor]:
    """``[n, k]`` of each of PARTS in landmarks ``[n, 468 or 478, 2]``: how far the lips and each eye's lids
    are apart, by the face's height, and how high each brow stands over its eye, by the eyes' distance.
    """
    right, left = (landmarks[:, [outer, inner]].mean(dim=1) for outer, inner, *_ in EYE_RIMS)
    across = left - right
    up = torch.stack([across[:, 1], -across[:, 0]], dim=-1) / across.square().sum(dim=-1, keepdim=True)
    tall = (landmarks[:, FOREHEAD] - landmarks[:, CHIN]).norm(dim=-1)
    lids = [(landmarks[:, upper] - landmarks[:, lower]).norm(dim=-1) / tall for *_, upper, lower in EYE_RIMS]
    brows = [
        ((landmarks[:, list(brow)].mean(dim=1) - eye) * up).sum(dim=-1)
        for brow, eye in ((BROWS[:10], right), (BROWS[10:], left))
    ]
    heights = ([lip_gap(landmarks)], lids, brows)
    return {name: torch.stack(part, dim=1) for name, part in zip(PARTS, heights, strict=True)}


def followed_by(real: dict[str, Tensor], made: dict[str, Tensor]) -> dict[str, tuple[float, float]]:
    """Of each part of :func:`part_heights`: the correlation of what moves, and the slope of made on real."""
    found = {}
    for name, truth in real.items():
        moved, ours = ((heights - heights.mean(dim=0)).flatten() for heights in (truth, made[name]))
        slope = float((moved * ours).sum() / moved.square().sum().clamp_min(1e-12))
        found[name] = (correlation(ours, moved), slope)
    return found


def box_around(points: Tensor, grow: float, size: Sequence[int]) -> tuple[slice, slice]:
    """Rows and columns of the box around points ``[n, 2]``, larger on each side by a share of itself.

    Args:
        size: height and width of the picture, which the box does not leave.
    """
    low, high = points.amin(dim=0), points.amax(dim=0)
    low, high = low - grow * (high - low), high + grow * (high - low)
    left, top = (max(0, int(value)) for value in low.tolist())
    right, bottom = min(int(high[0]), size[1]), min(int(high[1]), size[0])
    return slice(top, bottom), slice(left, right)


def similarity(truth: Tensor, picture: Tensor) -> float:
    """SSIM of pictures ``[h, w, 3]`` in 0..1, as videos hold them: in steps of 1/255."""
    from skimage.metrics import structural_similarity

    pair = [(part.clamp(0, 1) * 255).round().to(torch.uint8).numpy() for part in (truth, picture)]
    if min(pair[0].shape[:2]) < 7:
        raise FD2TalkError(
            f"The face is too small to compare: {pair[0].shape[1]} x {pair[0].shape[0]} pixels."
        )
    return float(np.asarray(structural_similarity(*pair, channel_axis=-1)))


def driven_table(clips: Sequence[DrivenClip]) -> str:
    """One line a clip, and their mean."""
    lines = [
        "Driven by their own motion: SSIM made / without the UNet / first frame repeated; networks' share",
        f"{'clip':24}" + "".join(f"{region:>32}" for region in REGIONS),
    ]

    def cell(parts: Sequence[float]) -> str:
        made, without, copied, networks = parts
        return f"{made:11.3f} /{without:6.3f} /{copied:6.3f}{networks:5.0%}"

    kinds = ("made", "without_unet", "copied", "networks")
    for clip in clips:
        values = [[getattr(clip, kind)[region] for kind in kinds] for region in REGIONS]
        lines.append(f"{clip.name[:23]:24}" + "".join(map(cell, values)) + f"   {clip.frames} frames")
    means = [[fmean(getattr(clip, kind)[region] for clip in clips) for kind in kinds] for region in REGIONS]
    lines.append(f"{'mean':24}" + "".join(map(cell, means)))
    lines += [
        "",
        "How parts follow the film: correlation, and how far they move by what is real (repeated: 0, 0)",
    ]
    lines.append(f"{'clip':24}" + "".join(f"{part:>16}" for part in PARTS))
    for clip in clips:
        cells = (f"{r:10.2f}{slope:6.2f}" for r, slope in (clip.follows[part] for part in PARTS))
        lines.append(f"{clip.name[:23]:24}" + "".join(cells))
    return "\n".join(lines)


def _shown(
    weights: Weights,
    autoencoder: FrameAutoencoder,
    latents: Tensor,
    reference: Reference,
    motion: PortraitMotion,
) -> Tensor:
    """``[F, H, W, 3]``."""
    return decode_frames(
        autoencoder,
        latents,
        reference,
        motion=motion if weights.unet.takes_overlay else None,
        detail=weights.detail,
    )

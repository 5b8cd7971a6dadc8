"""What is measured of one clip, and of all of them together."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fd2talk_core.audio.resampling import SAMPLE_RATE
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.names import ARKIT_NAMES
from fd2talk_core.networks.lip_expert import sync_over_clip

from ..measures import (
    MILLIMETRES,
    beat_alignment,
    blink_rate,
    expression_diversity,
    frechet_distance,
    lip_vertex_error,
    pose_range,
    psnr,
    ssim,
)
from ..mouths import mouth_basis
from ..scorecard.motion import frame_energy
from ..scorecard.synchrony import lip_gap, synchrony
from ..scorecard.weights import Weights
from .columns import COLUMNS
from .i3d import I3DNetwork
from .making import FPS, MadeClip, Seen
from .networks import ArcFace, Hopenet, InceptionFeatures, Lpips
from .syncnet import SyncNet, SyncScores, face_squares

MADE, REAL, CHANCE = "made", "real", "chance"
BEAT_SHIFTS = 8
"""Circular shifts of the loudness that stand for a head that does not hear it."""
FVD_LENGTHS = (16, 32)

NO_FACE = "needs a face in what was made"

Values = dict[str, dict[str, float]]
"""By row (:data:`MADE`, :data:`REAL`, :data:`CHANCE`) and column."""


@dataclass(frozen=True, eq=False)
class Instruments:
    """The networks that are at hand, by the name of their class, and why the others are not.

    Attributes:
        networks: what is at hand.
        missing: by the columns' keys, a sentence.
    """

    networks: Mapping[str, Any]
    missing: Mapping[str, str]

    @classmethod
    def load(cls, folder: Path) -> Instruments:
        """Those whose files lie in a folder and whose packages are installed."""
        kinds = {
            SyncNet: ("lse_c", "lse_d", "offset", "confidence"),
            InceptionFeatures: ("fid",),
            Lpips: ("lpips",),
            I3DNetwork: tuple(f"fvd{length}" for length in FVD_LENGTHS),
            Hopenet: ("diversity",),
            ArcFace: ("csim",),
        }
        networks: dict[str, Any] = {}
        missing: dict[str, str] = {}
        for kind, columns in kinds.items():
            try:
                networks[kind.__name__] = kind.load(folder)
            except FD2TalkError as error:
                missing |= dict.fromkeys(columns, str(error))
            except ModuleNotFoundError as error:
                sentence = f"needs the package {error.name}: pip install -e '.[evaluate]'"
                missing |= dict.fromkeys(columns, sentence)
        return cls(networks, missing)


@dataclass(frozen=True, eq=False)
class ClipScores:
    """What was measured of a clip.

    Attributes:
        frames: how many.
        values: of the clip alone.
        features: what measures of the whole set are made of.
        notes: why a column could not be measured on this clip.
    """

    name: str
    frames: int
    values: Values
    features: Mapping[str, Tensor]
    notes: Mapping[str, str]


def score_clip(clip: MadeClip, weights: Weights, instruments: Instruments) -> ClipScores:
    """Everything that the instruments can say of a clip."""
    values: Values = {MADE: {}, REAL: {}, CHANCE: {}}
    features: dict[str, Tensor] = {}
    notes: dict[str, str] = {}
    parts: tuple[Callable[..., None], ...] = (
        _pictures,
        _mouths,
        _heads,
        _distributions,
        _identity,
        partial(_sound, weights=weights),
    )
    for part in parts:
        part(clip=clip, networks=instruments.networks, values=values, features=features, notes=notes)
    kept = {
        row: {key: value for key, value in of_row.items() if math.isfinite(value)}
        for row, of_row in values.items()
    }
    return ClipScores(clip.name, len(clip.made), kept, features, notes)


def _pictures(clip: MadeClip, networks: Mapping[str, Any], values: Values, **_: Any) -> None:
    rows = {MADE: clip.made, CHANCE: clip.real[:1].expand_as(clip.real)}
    for row, frames in rows.items():
        inside = clip.inside.expand(len(frames), -1, -1, -1)
        values[row]["psnr"] = float(psnr(frames, clip.real, inside).mean())
        values[row]["ssim"] = float(ssim(frames, clip.real, inside).mean())
        if "Lpips" in networks:
            values[row]["lpips"] = float(networks["Lpips"](frames, clip.real).mean())


def _mouths(clip: MadeClip, values: Values, notes: dict[str, str], **_: Any) -> None:
    from fd2talk_core.face.model import default_face_model

    basis = mouth_basis(default_face_model())
    asked, truth = (
        torch.einsum("fc,cmx->fmx", beta, basis) for beta in (clip.asked, clip.real_seen.expression)
    )
    values[MADE]["lve"] = MILLIMETRES * lip_vertex_error(asked, truth)
    values[CHANCE]["lve"] = MILLIMETRES * lip_vertex_error(torch.zeros_like(truth), truth)
    if clip.made_seen is None:
        notes |= dict.fromkeys(("lip_r", "lip_lag"), NO_FACE)
    else:
        gaps = [lip_gap(seen.landmarks).double().numpy() for seen in (clip.real_seen, clip.made_seen)]
        followed = synchrony(*gaps, FPS)
        values[MADE] |= {"lip_r": followed.r, "lip_lag": float(followed.lag)}
        values[CHANCE]["lip_r"] = followed.chance
    if clip.expressions is None:
        notes["expression_diversity"] = "is of motion from sound, but the clips are driven by their own"
    elif len(clip.expressions) < 2:
        notes["expression_diversity"] = "needs --seeds 2 and more"
    else:
        values[MADE]["expression_diversity"] = expression_diversity(clip.expressions)


def _heads(
    clip: MadeClip, networks: Mapping[str, Any], values: Values, notes: dict[str, str], **_: Any
) -> None:
    lids = [ARKIT_NAMES.index(f"eyeBlink{side}") for side in ("Left", "Right")]
    for row, seen, frames in ((MADE, clip.made_seen, clip.made), (REAL, clip.real_seen, clip.real)):
        if seen is None:
            values[row]["found"] = 0.0
            notes |= dict.fromkeys(("blinks", "pose_range", "diversity"), NO_FACE)
            continue
        values[row]["blinks"] = blink_rate(seen.expression[:, lids].mean(dim=1), FPS) / 60
        values[row]["pose_range"] = pose_range(seen.pose)
        values[row]["found"] = float(seen.found.float().mean())
        if "Hopenet" in networks:
            values[row]["diversity"] = float(networks["Hopenet"](frames, seen.boxes).std(dim=0).mean())
    if clip.waveform is None:
        notes["beat_align"] = "needs a clip with sound"
        return
    loudness = frame_energy(clip.waveform, len(clip.made), FPS)
    values[REAL]["beat_align"] = beat_alignment(clip.real_seen.pose, loudness, FPS)
    if clip.made_seen is None:
        notes["beat_align"] = NO_FACE
        return
    values[MADE]["beat_align"] = beat_alignment(clip.made_seen.pose, loudness, FPS)
    steps = [round(len(loudness) * (i + 1) / (BEAT_SHIFTS + 1)) for i in range(BEAT_SHIFTS)]
    values[CHANCE]["beat_align"] = fmean(
        beat_alignment(clip.made_seen.pose, loudness.roll(step), FPS) for step in steps
    )


def _distributions(
    clip: MadeClip, networks: Mapping[str, Any], features: dict[str, Tensor], **_: Any
) -> None:
    still = clip.real[:1].expand_as(clip.real)
    for row, frames in ((MADE, clip.made), (REAL, clip.real), (CHANCE, still)):
        if "InceptionFeatures" in networks:
            features[f"fid_{row}"] = networks["InceptionFeatures"](frames)
        if "I3DNetwork" in networks:
            for length in FVD_LENGTHS:
                features[f"fvd{length}_{row}"] = networks["I3DNetwork"].embed(frames, length)


def _identity(
    clip: MadeClip,
    networks: Mapping[str, Any],
    values: Values,
    features: dict[str, Tensor],
    notes: dict[str, str],
    **_: Any,
) -> None:
    if "ArcFace" not in networks:
        return
    if clip.made_seen is None:
        notes["csim"] = NO_FACE
        return
    made, real = (
        networks["ArcFace"](frames, seen.landmarks)
        for frames, seen in ((clip.made, clip.made_seen), (clip.real, clip.real_seen))
    )
    values[MADE]["csim"] = float(F.cosine_similarity(made, real).mean())
    features["csim_real"] = real.mean(dim=0, keepdim=True)


def _sound(
    clip: MadeClip,
    networks: Mapping[str, Any],
    values: Values,
    notes: dict[str, str],
    weights: Weights,
    **_: Any,
) -> None:
    if clip.waveform is None:
        notes |= dict.fromkeys(
            ("lse_c", "lse_d", "offset", "confidence", "p_sync"), "needs a clip with sound"
        )
        return
    shifted = clip.waveform.roll(len(clip.waveform) // 2)
    rows = (
        (MADE, clip.made, clip.made_seen, clip.waveform),
        (REAL, clip.real, clip.real_seen, clip.waveform),
        (CHANCE, clip.made, clip.made_seen, shifted),
    )
    for row, frames, seen, sound in rows:
        if seen is None:
            notes |= dict.fromkeys(("lse_c", "lse_d", "offset", "confidence", "p_sync"), NO_FACE)
            continue
        if "SyncNet" in networks:
            scores: SyncScores = networks["SyncNet"].score(face_squares(frames, seen.boxes), sound)
            values[row] |= {
                "lse_c": scores.confidence,
                "confidence": scores.confidence,
                "lse_d": scores.distance,
                "offset": float(scores.offset),
            }
        if weights.lip_expert is not None:
            values[row]["p_sync"] = _p_sync(weights, seen, sound)
    if weights.lip_expert is None:
        notes["p_sync"] = f"needs lip_expert.safetensors in {weights.folder}"


@torch.no_grad()
def _p_sync(weights: Weights, seen: Seen, sound: Tensor) -> float:
    """Mean of Eq. 10 over all windows of a clip, nan for one shorter than a window."""
    heard = weights.audio_encoder.encode(sound[None], SAMPLE_RATE, FPS).features
    count = min(len(heard), len(seen.expression))
    if count < weights.lip_expert.config.frames:
        return math.nan
    mouth = torch.einsum("fc,cmx->fmx", seen.expression[:count], mouth_basis(weights.face_model))
    return float(sync_over_clip(weights.lip_expert, mouth[None], heard[None, :count]).mean())


@dataclass(frozen=True)
class Summary:
    """A column of the table.

    Attributes:
        mean: by row, over the clips that have a value, or of the whole set.
        deviation: by row, over clips; empty for a measure of the set.
        clips: by row, how many have a value; of a measure of the set, how many samples it is made of.
        note: why there is no value.
    """

    mean: Mapping[str, float]
    deviation: Mapping[str, float]
    clips: Mapping[str, int]
    note: str = ""


def summarise(clips: Sequence[ClipScores], missing: Mapping[str, str]) -> dict[str, Summary]:
    """By the columns' keys, in their order."""
    found = {}
    for column in COLUMNS:
        if column.key in missing:
            found[column.key] = Summary({}, {}, {}, missing[column.key])
        elif column.of_set:
            found[column.key] = _of_set(column.key, clips)
        else:
            found[column.key] = _of_clips(column.key, clips)
    return found


def _of_clips(key: str, clips: Sequence[ClipScores]) -> Summary:
    rows = {
        row: [clip.values[row][key] for clip in clips if key in clip.values[row]]
        for row in (MADE, REAL, CHANCE)
    }
    if key == "csim":
        rows[CHANCE] = _between_people(
            [clip.features["csim_real"] for clip in clips if "csim_real" in clip.features]
        )
    rows = {row: values for row, values in rows.items() if values}
    notes = {clip.notes[key] for clip in clips if key in clip.notes}
    return Summary(
        {row: fmean(values) for row, values in rows.items()},
        {row: float(torch.tensor(values).std()) for row, values in rows.items() if len(values) > 1},
        {row: len(values) for row, values in rows.items()},
        "" if MADE in rows else "; ".join(sorted(notes)) or "no clip has a value",
    )


def _between_people(faces: Sequence[Tensor]) -> list[float]:
    if len(faces) < 2:
        return []
    together = F.normalize(torch.cat(list(faces)), dim=1)
    return (together @ together.T)[~torch.eye(len(faces), dtype=torch.bool)].tolist()


def _of_set(key: str, clips: Sequence[ClipScores]) -> Summary:
    sets = {}
    for row in (MADE, REAL, CHANCE):
        parts = [clip.features[f"{key}_{row}"] for clip in clips if f"{key}_{row}" in clip.features]
        sets[row] = torch.cat(parts) if parts else torch.zeros(0, 1)
    if min(len(part) for part in sets.values()) < 2:
        return Summary({}, {}, {}, "the clips are too short: two samples and more are needed")
    mean = {row: frechet_distance(sets[row], sets[REAL]) for row in (MADE, CHANCE)}
    return Summary(mean, {}, {row: len(sets[row]) for row in mean})

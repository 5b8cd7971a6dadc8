"""A folder of clips: each is made again and measured once; what is done is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.landmarks import FaceLandmarker
from fd2talk_core.files import reason_of, replacing

from ..drawing import draw_curves, save_grid
from ..scorecard.clips import list_clips, measure_each
from ..scorecard.motion import frame_energy
from ..scorecard.synchrony import lip_gap
from ..scorecard.weights import Weights
from ..sources import fingerprint, read_kept, save_whole
from .making import FPS, MadeClip, MakingOptions, make_clip
from .scoring import ClipScores, Instruments, Summary, score_clip, summarise

STRIP = 8
"""Frames of a clip that the page shows."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a set of weights reached on a set of clips.

    Attributes:
        model: name of the weights.
        options: how the clips were made.
        clips: one by one.
        left_out: sentences on clips that could not be measured.
        columns: over all clips, by the columns' keys.
    """

    model: str
    options: MakingOptions
    clips: list[ClipScores]
    left_out: list[str]
    columns: dict[str, Summary]


def evaluate(
    weights: Weights, model: str, folder: Path, options: MakingOptions, instruments: Instruments, out: Path
) -> Evaluation:
    """Measure all clips of a folder, those first that ``out`` holds already.

    Raises:
        FD2TalkError: when no clip can be measured.
    """
    from tqdm import tqdm

    landmarker = FaceLandmarker()
    made_with = fingerprint(_digest(weights.folder), repr(options), *sorted(instruments.networks))
    paths = list_clips(folder)
    with tqdm(total=len(paths), desc="clips", mininterval=1.0) as bar:

        def measure(path: Path) -> ClipScores:
            bar.set_postfix_str(path.stem[:24])
            place = out / "clips" / path.stem
            key = fingerprint(made_with, hashlib.sha256(path.read_bytes()).hexdigest())
            try:
                scores = read_scores(place, key)
                if scores is None:
                    clip = make_clip(weights, path, options, landmarker)
                    scores = score_clip(clip, weights, instruments)
                    draw_clip(clip, place)
                    write_scores(scores, place, key)
                return scores
            finally:
                bar.update()

        clips, left_out = measure_each(
            folder, ((path.name, lambda path=path: measure(path)) for path in paths)
        )
    return Evaluation(model, options, clips, left_out, summarise(clips, instruments.missing))


def _digest(folder: Path) -> str:
    """Of the files of a weights folder."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".safetensors", ".json"))
    parts = (part for path in files for part in (path.name, hashlib.sha256(path.read_bytes()).digest()))
    return fingerprint(*parts)


def write_scores(scores: ClipScores, place: Path, key: str) -> None:
    """Keep what was measured of a clip; ``scores.json`` comes last, so that it stands for the whole."""
    content: dict[str, Any] = {name: value for name, value in vars(scores).items() if name != "features"}
    save_whole({"frames": torch.tensor(scores.frames), **scores.features}, place / "features.safetensors")
    with replacing(place / "scores.json") as partial:
        partial.write_text(
            json.dumps({"key": key, **content}, indent=2, ensure_ascii=False), encoding="utf-8"
        )


def read_scores(place: Path, key: str) -> ClipScores | None:
    """What is kept of a clip, None where there is nothing or what was made otherwise.

    Raises:
        FD2TalkError: when a file cannot be read.
    """
    path = place / "scores.json"
    if not path.is_file():
        return None
    try:
        content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if content["key"] != key:
            return None
        values = {name: content[name] for name in ("name", "frames", "values", "notes")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FD2TalkError(
            f"{path} cannot be read ({reason_of(error)}); delete it to measure it anew."
        ) from error
    features: dict[str, Tensor] = read_kept(place / "features.safetensors")
    features.pop("frames")
    return ClipScores(**values, features=features)


def draw_clip(clip: MadeClip, place: Path) -> None:
    """``frames.png``, real over made, and ``curves.png``."""
    place.mkdir(parents=True, exist_ok=True)
    chosen = torch.linspace(0, len(clip.made) - 1, min(STRIP, len(clip.made))).round().long()
    save_grid([clip.real[chosen], clip.made[chosen]], place / "frames.png")
    seen = {"real": clip.real_seen} | ({} if clip.made_seen is None else {"made": clip.made_seen})
    lips = {name: lip_gap(face.landmarks) for name, face in seen.items()}
    panels = [("gap between the lips, by the face's height", lips)]
    for number, name in enumerate(("pitch", "yaw")):
        curves = {name: face.pose[:, number] for name, face in seen.items()}
        panels.append((f"{name} in radians", curves))
    if clip.waveform is not None:
        panels.append(("loudness", {"sound": frame_energy(clip.waveform, len(clip.made), FPS)}))
    draw_curves(panels, FPS, place / "curves.png")


def as_dict(evaluation: Evaluation) -> dict[str, Any]:
    """For JSON: everything but the features."""
    clips = [
        {name: value for name, value in vars(clip).items() if name != "features"} for clip in evaluation.clips
    ]
    return {
        "model": evaluation.model,
        "options": asdict(evaluation.options),
        "columns": {key: asdict(summary) for key, summary in evaluation.columns.items()},
        "clips": clips,
        "left_out": evaluation.left_out,
    }

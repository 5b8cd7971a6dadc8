"""Set A in styles: held-out recordings, each said in every style, against the corpus's own emotions.

Each recording has a neutral truth and, by :func:`~training.corpus.emotions.with_emotion`, one in each style,
so what a style changes is compared with what it should. Whether a face can be told is asked of a stranger's
eye: the mean face of a recording is taken for the style whose mean face, over the truths of all other
recordings, is nearest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.model import FaceModel
from fd2talk_core.files import writing
from fd2talk_core.motion.defaults import NEUTRAL
from fd2talk_core.motion.sampling import sample_motion

from ..corpus.emotions import EMOTIONS, columns_of
from ..corpus.styled import emotional
from ..measures import BILABIALS, MILLIMETRES, correlation, lip_closure
from ..mouths import mouth_opening
from ..sources import SpeechClip, SpeechSet
from .table import aligned
from .weights import Weights

SHOWN = 0.1
"""Coefficients that an emotion raises by less have no row."""
SMALLEST_STD = 0.02


@dataclass(frozen=True)
class StyleScore:
    """What a style does to the faces of some recordings; means over them.

    Attributes:
        raised: by coefficient: mean in motion made neutrally, made in the style, and in the truth; deviation
            over time made and in the truth.
        likeness: 1 where what the style changes of a mean face is what it should, 0 where it changes nothing.
        shut, neutral_shut: part of the p, b, m where the mouth is shut.
        gap: how much wider lips stand there than neutral ones, in millimetres.
        follows: correlation of the mouth's opening with that of the neutral motion.
        taken_for: by style, the part of the recordings whose mean face is nearest to it.
        truth_known: the part of the true faces that are taken for what they are.
    """

    style: str
    raised: Mapping[str, tuple[float, float, float, float, float]]
    likeness: float
    shut: float
    neutral_shut: float
    gap: float
    follows: float
    taken_for: Mapping[str, float]
    truth_known: float


def closure_gap(opening: Tensor, clip: SpeechClip) -> float:
    """Mean of the smallest opening ``[F]`` within each p, b, m, in face-model units; NaN without any."""
    smallest = []
    for name, start, end in clip.phonemes:
        if name in BILABIALS:
            first, last = (round(time * clip.fps - 0.5) for time in (start, end))
            around = opening[max(first, 0) : last + 1]
            smallest += [float(around.min())] if len(around) else []
    return fmean(smallest) if smallest else float("nan")


def score_faces(
    face_model: FaceModel,
    clips: Sequence[SpeechClip],
    made: Mapping[str, Sequence[Tensor]],
    truth: Mapping[str, Sequence[Tensor]],
) -> list[StyleScore]:
    """Compare styles with their truth.

    Args:
        made, truth: by style, ``"neutral"`` among them, the motion ``[F, 52]`` of each recording.
    """
    styles = list(truth)
    deviation = torch.cat([one for values in truth.values() for one in values]).std(dim=0)
    deviation = deviation.clamp(min=SMALLEST_STD)

    def means(motions: Sequence[Tensor]) -> Tensor:
        return torch.stack([one.mean(dim=0) for one in motions]) / deviation

    faces, true_faces = ({s: means(motions[s]) for s in styles} for motions in (made, truth))
    neutral = [mouth_opening(face_model, c.identity, m) for c, m in zip(clips, made[NEUTRAL], strict=True)]
    scores = []
    for style in styles:
        openings = [mouth_opening(face_model, c.identity, m) for c, m in zip(clips, made[style], strict=True)]
        lips = [
            [lip_closure(part, clip.fps, clip.phonemes).closed for part in pair]
            for clip, pair in zip(clips, zip(openings, neutral, strict=True), strict=True)
        ]
        gaps = [
            closure_gap(opening, clip) - closure_gap(before, clip)
            for opening, before, clip in zip(openings, neutral, clips, strict=True)
        ]
        wanted, changed = (part[style] - part[NEUTRAL] for part in (true_faces, faces))
        taken = nearest(faces[style], true_faces)
        known = nearest(true_faces[style], true_faces)
        scores.append(
            StyleScore(
                style=style,
                raised=_raised(style, made, truth),
                likeness=1 - float((changed - wanted).norm() / wanted.norm()) if wanted.any() else 1.0,
                shut=float(np.nanmean([one for one, _ in lips])),
                neutral_shut=float(np.nanmean([one for _, one in lips])),
                gap=float(np.nanmean(gaps)) * MILLIMETRES,
                follows=fmean(map(correlation, openings, neutral)),
                taken_for={other: taken.count(other) / len(taken) for other in styles},
                truth_known=known.count(style) / len(known),
            )
        )
    return scores


def nearest(faces: Tensor, prototypes: Mapping[str, Tensor]) -> list[str]:
    """For each face ``[N, D]`` the style whose mean over the other recordings' true faces is nearest."""
    names, count = list(prototypes), len(faces)
    without = torch.stack([(p.sum(dim=0) - p) / max(count - 1, 1) for p in prototypes.values()])
    distance = (faces - without).norm(dim=-1)
    return [names[index] for index in distance.argmin(dim=0).tolist()]


def _raised(
    style: str, made: Mapping[str, Sequence[Tensor]], truth: Mapping[str, Sequence[Tensor]]
) -> dict[str, tuple[float, float, float, float, float]]:
    found = {}
    for name, (most, _) in EMOTIONS[style].raises.items() if style in EMOTIONS else ():
        if most < SHOWN:
            continue
        columns = columns_of(name)

        def mean(motions: Sequence[Tensor], columns: list[int] = columns) -> float:
            return fmean(float(one[:, columns].mean()) for one in motions)

        def spread(motions: Sequence[Tensor], columns: list[int] = columns) -> float:
            return fmean(float(one[:, columns].std(dim=0).mean()) for one in motions)

        found[name] = (
            mean(made[NEUTRAL]),
            mean(made[style]),
            mean(truth[style]),
            spread(made[style]),
            spread(truth[style]),
        )
    return found


def styles_table(scores: Sequence[StyleScore]) -> str:
    """Three tables: coefficients, lips, and what each face is taken for."""
    lines = [("style", "raises", "neutral", "made", "truth", "moves", "truth")]
    for score in scores:
        for name, numbers in score.raised.items():
            lines.append((score.style, name, *(f"{number:.2f}" for number in numbers)))
    lips = [("style", "likeness", "lips shut at p, b, m", "neutral", "wider (mm)", "r with neutral mouth")]
    for score in scores:
        numbers = (score.likeness, score.shut, score.neutral_shut, score.gap, score.follows)
        lips.append((score.style, *(f"{number:.3f}" for number in numbers)))
    names = [score.style for score in scores]
    taken = [("said, and taken for", *names, "truth known")]
    for score in scores:
        parts = (*(score.taken_for[name] for name in names), score.truth_known)
        taken.append((score.style, *(f"{part:.2f}" for part in parts)))
    right = fmean(score.taken_for[score.style] for score in scores)
    told = f"taken for what they are: {right:.2f} (chance {1 / len(names):.2f})"
    return "\n\n".join("\n".join(aligned(part)) for part in (lines, lips, taken)) + f"\n\n{told}"


def score_styles(
    weights: Weights, speech: SpeechSet, out: Path, clips: int = 32, seconds: float = 10.0
) -> str:
    """Say held-out recordings in every style that the expression network knows, at full strength.

    Args:
        speech: recordings of the corpus without styles.
        out: receives ``styles.txt`` and ``styles.json``.

    Raises:
        FD2TalkError: when the network knows no style of the corpus's, or no recording is without one.
    """
    styles = [name for name in weights.expression.config.styles if name in EMOTIONS]
    if not styles:
        raise FD2TalkError("These weights know no styles: python -m training.style teaches them some.")
    plain = [clip for clip in speech.clips if not clip.style][:clips]
    if not plain:
        raise FD2TalkError("The data holds no recordings without a style, which are said in each of them.")
    heard = SpeechSet(tuple(plain)).with_features(weights.audio_encoder)
    shown = [clip.first(seconds) for clip in heard.clips]
    made: dict[str, list[Tensor]] = {}
    truth: dict[str, list[Tensor]] = {}
    for style in (NEUTRAL, *styles):
        made[style] = [
            sample_motion(
                weights.expression, clip.audio_features(), kind="expression", seed=number, style=style
            ).values
            for number, clip in enumerate(shown)
        ]
        truth[style] = [
            clip.expression
            if style == NEUTRAL
            else emotional(clip, style, 1.0, np.random.default_rng(number))
            for number, clip in enumerate(shown)
        ]
    scores = score_faces(weights.face_model, shown, made, truth)
    text = styles_table(scores)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        (out / "styles.txt").write_text(text + "\n", encoding="utf-8")
        content = json.dumps([asdict(score) for score in scores], indent=2)
        (out / "styles.json").write_text(content, encoding="utf-8")
    return text

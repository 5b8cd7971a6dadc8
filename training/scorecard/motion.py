"""Set A, motion: held-out recordings, against the motion that they came with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from fd2talk_core.audio.resampling import SAMPLE_RATE
from fd2talk_core.face.model import FaceModel
from fd2talk_core.face.names import ARKIT_NAMES

from ..corpus.motion import expected_mouth
from ..corpus.phonemes import PHONEME_IDS, Phone
from ..drawing import draw_motion
from ..measures import (
    beat_alignment,
    blink_rate,
    expression_diversity,
    lip_vertex_error,
    pose_diversity,
    pose_range,
)
from ..mouths import compare_mouths, mouth_basis
from ..sources import SpeechClip, SpeechSet
from ..stages.lip_expert import shift_test
from .table import Row
from .weights import Weights


@dataclass(frozen=True)
class MotionMeasures:
    """Motion made from the sound of one recording, beside the motion that it came with.

    Attributes:
        correlation: of the mouth's opening with the true one.
        error: of the lips, in units of that of a still mouth.
        lip_vertices: LVE in face-model units.
        diversity: of the head's angles over the samples, radians.
        codes: FaceTalk's diversity of expression codes.
        turning, true_turning: deviation over time of the head's angles, radians.
        beats, true_beats: Beat Align.
        blinks, true_blinks: a minute.
    """

    correlation: float
    error: float
    lip_vertices: float
    diversity: float
    codes: float
    turning: float
    true_turning: float
    beats: float
    true_beats: float
    blinks: float
    true_blinks: float


def measure_motion(
    face_model: FaceModel, basis: Tensor, clip: SpeechClip, samples: Sequence[tuple[Tensor, Tensor]]
) -> tuple[list[Tensor], MotionMeasures]:
    """Measure the first of several samples, and how far they are apart.

    Args:
        basis: of :func:`~training.mouths.mouth_basis`.
        samples: expression ``[F, D_β]`` and pose ``[F, 6]``, two and more for the same sound.

    Returns:
        the made and the true opening ``[F]`` of the mouth, and the measures.
    """
    expression, pose = samples[0]
    openings, likeness, error = compare_mouths(face_model, basis, clip.identity, expression, clip.expression)
    mouths = [torch.einsum("fc,cmx->fmx", values, basis) for values in (expression, clip.expression)]
    loudness = frame_energy(clip.waveform, clip.num_frames, clip.fps)
    lid = ARKIT_NAMES.index("eyeBlinkLeft")
    return openings, MotionMeasures(
        correlation=likeness,
        error=error,
        lip_vertices=lip_vertex_error(*mouths),
        diversity=pose_diversity(torch.stack([one for _, one in samples])),
        codes=expression_diversity(torch.stack([one for one, _ in samples])),
        turning=pose_range(pose),
        true_turning=pose_range(clip.pose),
        beats=beat_alignment(pose, loudness, clip.fps),
        true_beats=beat_alignment(clip.pose, loudness, clip.fps),
        blinks=blink_rate(expression[:, lid], clip.fps),
        true_blinks=blink_rate(clip.expression[:, lid], clip.fps),
    )


def score_motion(
    weights: Weights,
    speech: SpeechSet,
    pictures_folder: Path,
    clips: int = 32,
    seconds: float = 10.0,
    seeds: int = 4,
) -> list[Row]:
    """Held-out recordings: what the motion networks make of them, against the motion they came with."""
    basis = mouth_basis(weights.face_model)
    rows, measured, known_correlations, known_errors, told = [], [], [], [], []
    for number, clip in enumerate(speech.clips[:clips]):
        clip = clip.first(seconds)
        features = clip.audio_features()
        sequences = [weights.sequences(features, seed) for seed in range(seeds)]
        samples = [(expression.values, pose.values) for expression, pose in sequences]
        openings, measures = measure_motion(weights.face_model, basis, clip, samples)
        measured.append(measures)
        if clip.phonemes and all(name in PHONEME_IDS for name, _, _ in clip.phonemes):
            person = (weights.face_model, basis, clip.identity)
            _, likeness, error = compare_mouths(*person, mouth_of_phonemes(clip), clip.expression)
            known_correlations.append(likeness)
            known_errors.append(error)
        if weights.lip_expert is not None:
            told.append(shift_test(weights.lip_expert, clip, basis, 5)[1].float())
        if number < 6:
            rows.append((openings, samples[0][1], clip.pose))
    draw_motion(rows, pictures_folder / "A-motion.png")

    def at_best(known: Sequence[float]) -> str:
        return f"the corpus's own rules from the true phonemes: {fmean(known):.3f}" if known else ""

    def mean(name: str) -> float:
        return fmean(getattr(measures, name) for measures in measured)

    table = [
        Row(
            "A motion: correlation of mouth opening",
            mean("correlation"),
            0.90,
            note=at_best(known_correlations),
        ),
        Row("A motion: lip error, still mouth = 1", mean("error"), 1 / 3, "low", at_best(known_errors)),
        Row(
            "expression diversity (FaceTalk Eq. 20)",
            mean("codes"),
            note=f"of {seeds} samples; FaceTalk's own codes have another scale",
        ),
        Row(
            "pose variety across seeds (rad)",
            mean("diversity"),
            mean("true_turning") / 2,
            note=f"half the corpus's own; over time {mean('turning'):.3f}, "
            f"the truth's {mean('true_turning'):.3f}",
        ),
        Row(
            "beat alignment with prosody",
            mean("beats"),
            mean("true_beats") / 2,
            note=f"the truth: {mean('true_beats'):.3f}",
        ),
        Row("blinks a minute", mean("blinks"), note=f"the truth: {mean('true_blinks'):.1f}"),
    ]
    if told:
        table.append(
            Row("lip expert tells true from shifted ≥ 5 frames", float(torch.cat(told).mean()), 0.90)
        )
    return table


def mouth_of_phonemes(clip: SpeechClip) -> Tensor:
    """``[F, 52]``: the most that can be known of a synthetic clip's mouth by one who hears every phoneme."""
    phones = [Phone(*phoneme) for phoneme in clip.phonemes]
    return torch.from_numpy(
        expected_mouth(phones, clip.waveform.double().numpy(), SAMPLE_RATE, clip.num_frames)
    )


def frame_energy(waveform: Tensor, frames: int, fps: float) -> Tensor:
    """Loudness (root mean square) of each frame, ``[frames]``."""
    edges = (torch.arange(frames + 1) / fps * SAMPLE_RATE).round().long().clamp(max=len(waveform))
    energy = torch.cat([waveform.new_zeros(1).double(), waveform.double().square().cumsum(0)])
    counts = (edges[1:] - edges[:-1]).clamp_min(1)
    return ((energy[edges[1:]] - energy[edges[:-1]]) / counts).clamp_min(0).sqrt().float()

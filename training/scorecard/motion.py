"""Set A, motion: held-out recordings, against the motion that they came with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from fd2talk_core.audio.resampling import SAMPLE_RATE
from fd2talk_core.face.names import ARKIT_NAMES

from ..corpus.motion import expected_mouth
from ..corpus.phonemes import PHONEME_IDS, Phone
from ..drawing import draw_motion
from ..measures import (
    beat_alignment,
    blink_rate,
    pose_diversity,
    pose_range,
)
from ..mouths import compare_mouths, mouth_basis
from ..sources import SpeechClip, SpeechSet
from ..stages.lip_expert import shift_test
from .table import Row
from .weights import Weights


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
    rows, diversities, beats, true_beats = [], [], [], []
    correlations, errors, ranges, true_ranges = [], [], [], []
    known_correlations, known_errors = [], []
    told, blinks, true_blinks = [], [], []
    for number, clip in enumerate(speech.clips[:clips]):
        clip = clip.first(seconds)
        features = clip.audio_features()
        samples = [weights.sequences(features, seed) for seed in range(seeds)]
        expression = samples[0][0].values
        person = (weights.face_model, basis, clip.identity)
        openings, likeness, error = compare_mouths(*person, expression, clip.expression)
        correlations.append(likeness)
        errors.append(error)
        if clip.phonemes and all(name in PHONEME_IDS for name, _, _ in clip.phonemes):
            _, likeness, error = compare_mouths(*person, mouth_of_phonemes(clip), clip.expression)
            known_correlations.append(likeness)
            known_errors.append(error)
        poses = torch.stack([pose.values for _, pose in samples])
        loudness = frame_energy(clip.waveform, clip.num_frames, clip.fps)
        diversities.append(pose_diversity(poses))
        ranges.append(pose_range(poses[0]))
        true_ranges.append(pose_range(clip.pose))
        beats.append(beat_alignment(poses[0], loudness, clip.fps))
        true_beats.append(beat_alignment(clip.pose, loudness, clip.fps))
        for lids, motion in ((blinks, expression), (true_blinks, clip.expression)):
            lids.append(blink_rate(motion[:, ARKIT_NAMES.index("eyeBlinkLeft")], clip.fps))
        if weights.lip_expert is not None:
            told.append(shift_test(weights.lip_expert, clip, basis, 5)[1].float())
        if number < 6:
            rows.append((openings, poses[0], clip.pose))
    draw_motion(rows, pictures_folder / "A-motion.png")

    def at_best(known: Sequence[float]) -> str:
        return f"the corpus's own rules from the true phonemes: {fmean(known):.3f}" if known else ""

    table = [
        Row(
            "A motion: correlation of mouth opening",
            fmean(correlations),
            0.90,
            note=at_best(known_correlations),
        ),
        Row("A motion: lip error, still mouth = 1", fmean(errors), 1 / 3, "low", at_best(known_errors)),
        Row(
            "pose variety across seeds (rad)",
            fmean(diversities),
            fmean(true_ranges) / 2,
            note=f"half the corpus's own; over time {fmean(ranges):.3f}, "
            f"the truth's {fmean(true_ranges):.3f}",
        ),
        Row(
            "beat alignment with prosody",
            fmean(beats),
            fmean(true_beats) / 2,
            note=f"the truth: {fmean(true_beats):.3f}",
        ),
        Row("blinks a minute", fmean(blinks), note=f"the truth: {fmean(true_blinks):.1f}"),
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

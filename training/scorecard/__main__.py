"""``python -m training.scorecard --weights DIR``: what a set of weights reaches, in one table.

Set A is held out of the corpus; set B is portraits; set C is real speech with its words. None of them is
trained on. A row is left out, with its reason, when what it is measured on is not at hand.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from fd2talk_core import configs
from fd2talk_core.audio.encoder import AudioEncoder
from fd2talk_core.audio.features import AudioFeatures
from fd2talk_core.audio.reading import read_audio
from fd2talk_core.audio.resampling import SAMPLE_RATE, to_mono_16k
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.crop import CropTransform
from fd2talk_core.face.fitting import fit_landmarks
from fd2talk_core.face.landmarks import FaceLandmarker
from fd2talk_core.face.model import FaceModel, apply_pose, default_face_model, project
from fd2talk_core.face.names import ARKIT_NAMES, POSE_NAMES
from fd2talk_core.face.state import FaceState
from fd2talk_core.frames.conditioning import align_reference
from fd2talk_core.frames.correspondence import reference_flow, warp_reference
from fd2talk_core.frames.decoding import DEFAULT_DETAIL, decode_frames
from fd2talk_core.frames.denoising import sample_latents
from fd2talk_core.frames.portrait_motion import PortraitMotion
from fd2talk_core.frames.reference import Reference, encode_reference
from fd2talk_core.motion.coefficients import CoefficientSequence, apply_to_portrait
from fd2talk_core.motion.sampling import sample_joint_motion, sample_motion
from fd2talk_core.networks.checkpoint import load_checkpoint
from fd2talk_core.networks.flops import count_flops
from fd2talk_core.networks.lip_expert import LipExpert

from ..corpus.motion import expected_mouth
from ..corpus.phonemes import PHONEME_IDS, Phone
from ..face_model import INNER_LIPS
from ..measures import (
    BILABIALS,
    OPEN_VOWELS,
    angle_error,
    beat_alignment,
    blink_rate,
    correlation,
    flicker,
    lip_closure,
    pose_diversity,
    pose_range,
    psnr,
    ssim,
)
from ..sources import PictureSet, SpeechClip, SpeechSet, load_pictures, load_speech, need_weights
from ..stages.autoencoder import save_grid
from ..stages.conditions import face_region, mouth_and_eyes
from ..stages.lip_expert import shift_test
from ..stages.motion import compare_mouths, draw_motion, mouth_basis, mouth_opening
from .portraits import EXAMPLES, portraits

TEST_SPEECH = Path("/usr/share/pocketsphinx/test/data")
"""Where Debian's pocketsphinx-testdata puts real speech with its words."""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: of the measure.
        value: None where it could not be measured.
        target: what it should reach, None where it is only reported.
        best: ``"high"`` or ``"low"``.
        note: what stands beside it.
    """

    name: str
    value: float | None
    target: float | None = None
    best: str = "high"
    note: str = ""

    @property
    def met(self) -> bool | None:
        if self.value is None or self.target is None:
            return None
        return self.value >= self.target if self.best == "high" else self.value <= self.target


@dataclass(frozen=True, eq=False)
class Weights:
    """The networks of a weights folder.

    Attributes:
        detail: strength of the portrait's own detail in what they show,
            see :func:`~fd2talk_core.frames.decoding.iter_decoded_frames`.
    """

    audio_encoder: AudioEncoder
    expression: torch.nn.Module
    pose: torch.nn.Module
    autoencoder: torch.nn.Module
    unet: torch.nn.Module
    lip_expert: LipExpert | None
    face_model: FaceModel
    folder: Path
    detail: float = DEFAULT_DETAIL

    @classmethod
    def load(cls, folder: Path, detail: float = DEFAULT_DETAIL) -> Weights:
        """Raises FD2TalkError naming a file that is missing or does not fit, files of two trainings, or a
        detail not in 0..1.
        """
        if not 0 <= detail <= 1:
            raise FD2TalkError(f"detail is {detail:g}, but a strength from 0 to 1 is needed.")
        face_model = default_face_model()
        networks = {
            name: load_checkpoint(
                need_weights(folder, name, "training.everything"),
                configs.network_class(name),
                face_model.name,
            )
            for name in ("expression", "pose", "autoencoder", "unet")
        }
        encoder = AudioEncoder.from_pretrained(need_weights(folder, "audio_encoder", "training.everything"))
        path = folder / "lip_expert.safetensors"
        expert = load_checkpoint(path, LipExpert, face_model.name) if path.exists() else None
        return cls(
            encoder, **networks, lip_expert=expert, face_model=face_model, folder=folder, detail=detail
        )

    def sequences(
        self, features: AudioFeatures, seed: int
    ) -> tuple[CoefficientSequence, CoefficientSequence]:
        """Sampled expression and pose."""
        if self.expression.config.kind == "joint":
            return sample_joint_motion(self.expression, features, seed=seed)
        return tuple(
            sample_motion(network, features, kind=kind, seed=seed)
            for kind, network in (("expression", self.expression), ("pose", self.pose))
        )

    def talk(
        self, reference: Reference, expression: CoefficientSequence, pose: CoefficientSequence, mode: str
    ) -> Tensor:
        """Frames ``[F, 3, S, S]`` in 0..1 of the crop."""
        motion = PortraitMotion.of(reference.face, expression, pose, mode, self.face_model)
        latents = sample_latents(self.unet, reference, motion, seed=0)
        frames = decode_frames(
            self.autoencoder, latents, reference, motion=motion, paste_back=False, detail=self.detail
        )
        return frames.movedim(-1, 1)


# ---- set A: frames -----------------------------------------------------------------------------------------


def score_frames(
    weights: Weights, pictures: PictureSet, pictures_folder: Path, people: int = 64
) -> list[Row]:
    """Held-out people: the first picture of each speaks the coefficients of the others, against their
    pictures.
    """
    made, copied, rows = [], [], []
    for number, person in enumerate(pictures.people()[:people]):
        reference = picture_reference(weights, pictures, person[0])
        targets = list(person[1:])
        expression = CoefficientSequence(
            "expression", pictures.expression[targets], 25.0, weights.face_model.name, ARKIT_NAMES
        )
        pose = CoefficientSequence("pose", pictures.pose[targets], 25.0, weights.face_model.name, POSE_NAMES)
        frames = weights.talk(reference, expression, pose, "absolute")
        truth = torch.stack([pictures.read(i) for i in targets]).float() / 255
        labels = (pictures.identity[targets], pictures.expression[targets], pictures.pose[targets])
        face = face_region(weights.face_model, *labels, pictures.size)
        regions = (face, *mouth_and_eyes(weights.face_model, *labels, pictures.size))
        still = reference.crop.movedim(-1, 0).expand_as(truth)
        for shown, measured in ((frames, made), (still, copied)):
            likeness = [ssim(shown, truth, region) for region in regions]
            measured.append(torch.stack([psnr(shown, truth, face), *likeness], dim=1))
        if number < 8:
            rows.append(
                torch.stack([still[0], truth[0], frames[0], (4 * (frames[0] - truth[0]).abs()).clamp(0, 1)])
            )
    save_grid(rows, pictures_folder / "A-frames.png")
    (ratio, *likeness), (copy_ratio, *copy_likeness) = (
        torch.cat(values).mean(dim=0).tolist() for values in (made, copied)
    )
    table = [
        Row("A frames: PSNR on the face (dB)", ratio, 25, note=f"copying the reference: {copy_ratio:.2f}"),
        Row("A frames: PSNR over copying (dB)", ratio - copy_ratio, 5),
    ]
    for name, target, value, copy in zip(
        ("on the face", "of the mouth", "of the eyes"),
        (0.85, None, None),
        likeness,
        copy_likeness,
        strict=True,
    ):
        note = f"copying the reference: {copy:.3f}"
        table.append(Row(f"A frames: SSIM {name}", value, target, note=note))
    return table


@torch.no_grad()
def picture_reference(weights: Weights, pictures: PictureSet, index: int) -> Reference:
    """A labelled picture as a portrait whose coefficients are known."""
    crop = pictures.read(index).float() / 255
    size = crop.shape[-1]
    return Reference(
        latent=weights.autoencoder.encode(crop[None])[0],
        face=FaceState(
            pictures.identity[index],
            pictures.expression[index],
            pictures.pose[index],
            weights.face_model.name,
        ),
        crop=crop.movedim(0, -1),
        crop_transform=CropTransform.of_square(size / 2, size / 2, size, size),
        picture=crop.movedim(0, -1),
        face_found=True,
    )


# ---- set A: motion -----------------------------------------------------------------------------------------


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


# ---- set C: real speech ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class SpokenText:
    """A recording and what is said in it."""

    name: str
    waveform: Tensor
    text: str


def read_spoken_texts(folder: Path) -> list[SpokenText]:
    """Recordings whose words stand in a ``*transcription`` file beside them, as ``words (NAME)``."""
    found = []
    for listing in sorted(folder.rglob("*transcription")):
        for line in listing.read_text(encoding="utf-8").splitlines():
            text, _, name = line.strip().rpartition("(")
            path = listing.parent / f"{name.rstrip(')')}.wav"
            if path.is_file():
                words = text.replace("<s>", "").replace("</s>", "").strip()
                found.append(SpokenText(path.stem, to_mono_16k(*read_audio(path)), words))
    return found


def align_phonemes(spoken: SpokenText) -> tuple[tuple[str, float, float], ...]:
    """``(phoneme, start, end)`` in seconds, lower-case ARPAbet without stress, by pocketsphinx's forced
    alignment.
    """
    from pocketsphinx import Decoder

    decoder = Decoder(lm=None, samprate=SAMPLE_RATE, loglevel="FATAL")
    pcm = (spoken.waveform.clamp(-1, 1) * 32767).short().numpy().tobytes()
    # first the words, then the phonemes in them
    for prepare in (lambda: decoder.set_align_text(spoken.text), decoder.set_alignment):
        prepare()
        decoder.start_utt()
        decoder.process_raw(pcm, full_utt=True)
        decoder.end_utt()
    rate = 100.0
    phones = []
    for word in decoder.get_alignment():
        for phone in word:
            name = phone.name.lower().rstrip("012")
            phones.append((name, phone.start / rate, (phone.start + phone.duration) / rate))
    return tuple(phones)


def score_real_speech(
    weights: Weights, texts: Sequence[SpokenText], pictures_folder: Path, seeds: int = 4
) -> list[Row]:
    """Real voices: is the mouth shut at p, b, m, and open at open vowels? Averaged over seeds, as a few
    recordings have few of them.
    """
    shut = opened = 0.0
    closures = openings = 0
    curves = []
    identity = torch.zeros(weights.face_model.identity_dim)
    for spoken in texts:
        phonemes = align_phonemes(spoken)
        features = weights.audio_encoder.encode(spoken.waveform, SAMPLE_RATE, 25.0)
        for seed in range(seeds):
            expression, _ = weights.sequences(features, seed)
            opening = mouth_opening(weights.face_model, identity, expression.values)
            if seed == 0:
                curves.append((spoken, opening, phonemes))
            result = lip_closure(opening, expression.fps, phonemes)
            if result.closures:
                shut, closures = shut + result.closed * result.closures, closures + result.closures
            if result.openings:
                opened, openings = opened + result.opened * result.openings, openings + result.openings
    _draw_speech(curves[:6], pictures_folder / "C-speech.png")
    return [
        Row(
            "C real speech: lips shut at p, b, m",
            shut / max(closures, 1),
            0.80,
            note=f"{closures // seeds} of them, {seeds} seeds",
        ),
        Row(
            "C real speech: open at open vowels",
            opened / max(openings, 1),
            0.80,
            note=f"{openings // seeds} of them, {seeds} seeds",
        ),
    ]


def real_speech_rows(weights: Weights, texts: Sequence[SpokenText], folder: Path, out: Path) -> list[Row]:
    """The rows of set C, or one that says what is missing."""
    if not texts:
        return [
            Row(
                "C real speech",
                None,
                note=f"no transcribed speech in {folder}; Debian's pocketsphinx-testdata has some",
            )
        ]
    try:
        return score_real_speech(weights, texts, out)
    except ModuleNotFoundError as error:
        return [
            Row(
                "C real speech", None, note=f"needs the Python package {error.name}: pip install {error.name}"
            )
        ]


def _draw_speech(curves: Sequence, picture: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 2.2 * len(curves)), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, (spoken, opening, phonemes) in zip(
        figure.subplots(len(curves), 1, squeeze=False)[:, 0], curves, strict=True
    ):
        axis.plot((torch.arange(len(opening)) + 0.5) / 25, opening)
        for name, start, end in phonemes:
            if name in BILABIALS:
                axis.axvspan(start, end, color="C3", alpha=0.25)
            elif name in OPEN_VOWELS:
                axis.axvspan(start, end, color="C2", alpha=0.15)
            if name != "sil":
                axis.text((start + end) / 2, float(opening.max()), name, fontsize=6, ha="center")
        axis.set_title(f"{spoken.text}  (red: lips must meet, green: must open)", fontsize=8)
    figure.savefig(picture, dpi=80)


# ---- set B: portraits --------------------------------------------------------------------------------------


def score_portraits(
    weights: Weights,
    portraits: Sequence[tuple[str, Tensor]],
    speech: Sequence[Tensor],
    pictures_folder: Path,
    seconds: float = 4.0,
    takes: int = 3,
) -> list[Row]:
    """Real portraits speak; the landmarker looks at what comes out.

    Args:
        portraits: names and pictures ``[H, W, 3]``.
        speech: waveforms ``[N]`` at 16 kHz, taken in turn.
        seconds: of each that are spoken.
        takes: how many each portrait speaks; what is seen of a jaw differs by a tenth from one to the next.
    """
    landmarker = FaceLandmarker()
    names, missing, spoken, rows = [], [], [], []
    for number, (name, image) in enumerate(portraits):
        try:
            reference = encode_reference(
                image, weights.autoencoder, landmarker, weights.face_model, size=resolution(weights)
            )
        except FD2TalkError:
            missing.append(name)
            continue
        names.append(name)
        for take in range(takes):
            waveform = speech[(number + take * len(portraits)) % len(speech)][: round(seconds * SAMPLE_RATE)]
            frames, seen = portrait_take(weights, reference, waveform, landmarker, seed=take)
            spoken.append(seen)
            if take == 0:
                chosen = torch.linspace(0, len(frames) - 1, 6).round().long()
                rows.append(torch.cat([reference.crop.movedim(-1, 0)[None], frames[chosen]]))
    if not rows:
        return [Row("B portraits: face found in the output", None, 1.0, note=f"no face found in {missing}")]
    save_grid(rows, pictures_folder / "B-portraits.png")
    upper = torch.tensor([take.upper_face for take in spoken])
    jaw = [take.jaw_open for take in spoken if take.jaw_open is not None]
    gaps = [take.lip_gap for take in spoken if take.lip_gap is not None]
    angles = [take.angles for take in spoken if take.angles is not None]
    by_axis = torch.stack(angles).mean(dim=0).tolist() if angles else []
    note = f"{', '.join(names)}" + (f"; no face in {', '.join(missing)}" if missing else "")
    return [
        Row(
            "B portraits: face found in the output",
            float(torch.cat([take.found for take in spoken]).float().mean()),
            1.0,
            note=note,
        ),
        Row(
            "B portraits: jawOpen seen against ours",
            fmean(jaw) if jaw else None,
            0.8,
            note=f"{len(jaw)} takes: {' '.join(f'{value:.2f}' for value in jaw)}",
        ),
        Row(
            "B portraits: gap of the lips seen against ours",
            fmean(gaps) if gaps else None,
            note="by the landmarks, from which the row above is guessed",
        ),
        Row(
            "B portraits: head angles, mean error (°)",
            fmean(by_axis) if by_axis else None,
            5.0,
            "low",
            ", ".join(
                f"{name} {value:.1f}" for name, value in zip(("pitch", "yaw", "roll"), by_axis, strict=False)
            ),
        ),
        Row(
            "B identity: upper face, aligned SSIM",
            float(upper.mean()),
            0.7,
            note=", ".join(
                f"{name} {value:.2f}"
                for name, value in zip(names, upper.view(-1, takes).mean(dim=1).tolist(), strict=True)
            ),
        ),
    ]


@dataclass(frozen=True, eq=False)
class PortraitTake:
    """What was seen of a portrait that spoke.

    Attributes:
        found: in which frames the landmarker found a face, ``[F]`` bool.
        upper_face: :func:`upper_face_similarity`.
        jaw_open: correlation of the blendshape that the landmarker sees with ours; None, as the angles, where
            it found too few faces.
        lip_gap: correlation of the gap that it sees between the lips with ours.
        angles: mean error of pitch, yaw and roll in degrees, ``[3]``.
    """

    found: Tensor
    upper_face: float
    jaw_open: float | None
    lip_gap: float | None
    angles: Tensor | None


def portrait_take(
    weights: Weights, reference: Reference, waveform: Tensor, landmarker: FaceLandmarker, seed: int
) -> tuple[Tensor, PortraitTake]:
    """Let a portrait speak, and look. Also returns the frames, ``[F, 3, S, S]``."""
    features = weights.audio_encoder.encode(waveform, SAMPLE_RATE, 25.0)
    expression, pose = weights.sequences(features, seed)
    frames = weights.talk(reference, expression, pose, "relative")
    wanted = apply_to_portrait(expression, pose, reference.expression, reference.pose, "relative")
    faces = list(landmarker.detect_video(frames.movedim(1, -1)))
    found = torch.tensor([face is not None for face in faces])
    jaw_open = lip_gap = angles = None
    if found.sum() >= 8:
        landmarks = torch.stack([face.landmarks[:, :2] for face in faces if face is not None])
        blendshapes = torch.stack([face.blendshapes for face in faces if face is not None])
        fit = fit_landmarks(
            landmarks / frames.shape[-1] * 2 - 1,
            weights.face_model,
            blendshapes,
            identity=reference.identity,
        )
        jaw = ARKIT_NAMES.index("jawOpen")
        expression, pose = (values[found] for values in wanted)
        jaw_open = correlation(blendshapes[:, jaw], expression[:, jaw])
        upper_lip, lower_lip = (landmarks[:, point] for point in INNER_LIPS[0])
        opening = mouth_opening(weights.face_model, reference.identity, expression)
        lip_gap = correlation((upper_lip - lower_lip).norm(dim=-1), opening)
        angles = torch.tensor([angle_error(fit.pose[:, i : i + 1], pose[:, i : i + 1]) for i in range(3)])
    upper_face = upper_face_similarity(weights, reference, frames, *wanted)
    return frames, PortraitTake(found, upper_face, jaw_open, lip_gap, angles)


def resolution(weights: Weights) -> int:
    """Side of the crops that the weights were trained on."""
    return weights.autoencoder.info.resolution or 256


@torch.no_grad()
def upper_face_similarity(
    weights: Weights, reference: Reference, frames: Tensor, expression: Tensor, pose: Tensor
) -> float:
    """SSIM of the upper face, eyes to brow, with the portrait moved to each frame's pose by the mesh."""
    size = frames.shape[-1]
    values = []
    for part in torch.arange(len(frames)).split(8):
        flow = reference_flow(
            weights.face_model,
            reference.identity,
            reference.expression,
            reference.pose,
            expression[part],
            pose[part],
            size,
            supersample=1,
        )
        moved = warp_reference(reference.crop.movedim(-1, 0)[None], flow.grid)
        region = upper_face_region(weights.face_model, reference.identity, expression[part], pose[part], size)
        # closed lids hide what the portrait shows, so only surface that both see counts
        visible = flow.masks[:, 1:2] > 0.5
        values.append(ssim(frames[part], moved, region & visible))
    return float(torch.cat(values).mean())


def upper_face_region(
    face_model: FaceModel, identity: Tensor, expression: Tensor, pose: Tensor, size: int
) -> Tensor:
    """The face above the tip of the nose, ``[F, 1, size, size]`` bool."""
    count = len(pose)
    region = face_region(face_model, identity.expand(count, -1), expression, pose, size)
    points = project(
        face_model.landmarks(apply_pose(face_model(identity.expand(count, -1), expression), pose)),
        face_model.camera,
    )
    nose_tip = ((points[:, 1, 1] + 1) * (size / 2)).view(-1, 1, 1, 1)
    return region & (torch.arange(size).view(1, 1, -1, 1) < nose_tip)


# ---- flicker, size and speed -------------------------------------------------------------------------------


def score_flicker(weights: Weights, reference: Reference, frames: int = 12) -> list[Row]:
    """Hold still but for a tremor too small to see, so that every frame is made anew."""
    generator = torch.Generator().manual_seed(0)
    tremor = 1e-4 * torch.randn(frames, len(reference.expression), generator=generator)
    names = weights.face_model.expression_names
    expression = CoefficientSequence(
        "expression", (reference.expression + tremor).clamp(0, 1), 25.0, weights.face_model.name, names
    )
    shake = 1e-4 * torch.randn(frames, 6, generator=generator)
    pose = CoefficientSequence("pose", reference.pose + shake, 25.0, weights.face_model.name, POSE_NAMES)
    made = weights.talk(reference, expression, pose, "absolute")
    return [Row("flicker where nothing moves (255ths)", flicker(made), 1.0, "low")]


@torch.no_grad()
def score_cost(weights: Weights, reference: Reference, seconds: float = 2.0) -> list[Row]:
    """Size of the files, operations a frame, and seconds a frame on this machine."""
    megabytes = sum(path.stat().st_size for path in weights.folder.glob("*.safetensors")) / 1e6
    unet, autoencoder, encoder = weights.unet, weights.autoencoder, weights.audio_encoder
    frames = round(25 * seconds)
    steps = unet.info.steps
    latent = reference.latent[None]
    motion = torch.zeros(1, unet.config.motion_dim)

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

    aligned = align()
    cache = unet.make_cache(motion, latent)
    waveform = torch.zeros(round(seconds * SAMPLE_RATE))
    features = encoder.encode(waveform, SAMPLE_RATE, 25.0)
    parts: dict[str, Callable[[], object]] = {
        "audio": lambda: encoder(waveform[None]),
        "motion": lambda: weights.sequences(features, seed=0),
        "UNet": lambda: unet(latent, 500, None, latent, aligned, cache),
        "decoder": lambda: autoencoder.decode(latent, latent),
    }
    share = {"audio": 1 / frames, "motion": 1 / frames, "UNet": float(steps), "decoder": 1.0}
    work = {name: count_flops(call) * share[name] / 1e9 for name, call in parts.items()}
    times = {name: _seconds(call) * share[name] for name, call in parts.items()}
    if unet.config.reference_alignment == "warp_image":
        crop = reference.crop.movedim(-1, 0)[None]
        work["reference encoder"] = count_flops(lambda: unet.crop_encoder(crop)) / 1e9
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


# ---- the table ---------------------------------------------------------------------------------------------


def table(rows: Sequence[Row]) -> str:
    """The rows as text."""
    lines = [f"{'measure':48s} {'reached':>9s} {'target':>9s}"]
    for row in rows:
        value = "–" if row.value is None else f"{row.value:.3f}"
        target = "" if row.target is None else f"{'≥' if row.best == 'high' else '≤'} {row.target:.3g}"
        mark = {True: "met", False: "MISSED", None: ""}[row.met]
        lines.append(f"{row.name:48s} {value:>9s} {target:>9s} {mark:7s} {row.note}".rstrip())
    return "\n".join(lines)


def score(
    weights: Weights, data: Path | None, speech_folder: Path, out: Path, faces: Path | None = None
) -> list[Row]:
    """All rows that can be measured with what is at hand; pictures go to ``out``.

    Args:
        data: folder with held-out shards.
        speech_folder: transcribed recordings.
        faces: folder of portraits beside those of :func:`~training.scorecard.portraits.portraits`.
    """
    shown = portraits(faces)
    out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    if data is not None:
        pictures = load_pictures(data, weights.face_model)[1]
        rows += score_frames(weights, pictures, out)
        speech = load_speech(data, weights.face_model)[1].with_features(weights.audio_encoder)
        rows += score_motion(weights, speech, out)
    else:
        rows.append(Row("A frames and motion", None, note="give --data with held-out shards"))
    texts = read_spoken_texts(speech_folder) if speech_folder.is_dir() else []
    rows += real_speech_rows(weights, texts, speech_folder, out)
    voices = [text.waveform for text in texts if len(text.waveform) > 2 * SAMPLE_RATE]
    voices = voices or [to_mono_16k(*read_audio(EXAMPLES / "speech.wav"))]
    rows += score_portraits(weights, shown, voices, out)
    reference = encode_reference(
        shown[0][1], weights.autoencoder, FaceLandmarker(), weights.face_model, size=resolution(weights)
    )
    rows += score_flicker(weights, reference)
    rows += score_cost(weights, reference)
    return rows


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.scorecard", description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="folder with one file a network")
    parser.add_argument("--data", type=Path, help="folder with held-out shards (set A)")
    parser.add_argument(
        "--speech", type=Path, default=TEST_SPEECH, help="folder with transcribed speech (set C)"
    )
    parser.add_argument("--portraits", type=Path, help="folder of further portraits (set B)")
    parser.add_argument(
        "--out", type=Path, help="for scorecard.json, scorecard.txt and pictures; WEIGHTS/scorecard"
    )
    parser.add_argument(
        "--detail",
        type=float,
        default=DEFAULT_DETAIL,
        help="strength of the portrait's own detail, 0 to see what the networks make",
    )
    given = parser.parse_args(arguments)
    out = given.out or given.weights / "scorecard"
    try:
        rows = score(
            Weights.load(given.weights, given.detail), given.data, given.speech, out, given.portraits
        )
    except FD2TalkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    text = table(rows)
    (out / "scorecard.txt").write_text(text + "\n", encoding="utf-8")
    (out / "scorecard.json").write_text(
        json.dumps([{**vars(row), "met": row.met} for row in rows], indent=2, ensure_ascii=False),
        encoding="utf-8",
    )
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

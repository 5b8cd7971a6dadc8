"""Every row of the scorecard on a case whose answer is known: networks that copy the truth, and such that do
nothing.
"""

from __future__ import annotations

import io
import itertools
import re
import sys
import types
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fd2talk_core import configs
from fd2talk_core.audio.features import AudioFeatures
from fd2talk_core.audio.reading import read_audio
from fd2talk_core.audio.resampling import to_mono_16k
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.crop import CropTransform
from fd2talk_core.face.model import default_face_model
from fd2talk_core.face.names import ARKIT_NAMES, POSE_NAMES
from fd2talk_core.face.state import FaceState
from fd2talk_core.frames.reference import Reference
from fd2talk_core.motion.coefficients import CoefficientSequence
from fd2talk_core.motion.sampling import sample_joint_motion
from fd2talk_core.networks.checkpoint import CheckpointInfo, load_checkpoint, save_checkpoint
from fd2talk_core.networks.motion_transformer import MotionTransformer
from training.corpus.motion import Style, synthesise
from training.corpus.phonemes import Phone
from training.held_out import moved_and_hidden
from training.measures import (
    BILABIALS,
    OPEN_VOWELS,
    beat_alignment,
    expression_diversity,
    lip_closure,
    lip_error,
    pose_range,
)
from training.mouths import mouth_basis
from training.scorecard import identity
from training.scorecard.cost import score_cost
from training.scorecard.frames import score_flicker, score_frames
from training.scorecard.motion import frame_energy, mouth_of_phonemes, score_motion
from training.scorecard.portraits import EXAMPLES, PAINTING, portraits
from training.scorecard.speech import (
    SpokenText,
    align_phonemes,
    chance_closures,
    closed_share,
    opened_share,
    read_spoken_texts,
    real_speech_rows,
)
from training.scorecard.table import Row
from training.scorecard.talking import score_portraits
from training.scorecard.weights import Weights
from training.sources import PictureSet, SpeechClip, SpeechSet
from training.stages.lip_expert import shift_test

JAW = ARKIT_NAMES.index("jawOpen")
BLINK = ARKIT_NAMES.index("eyeBlinkLeft")
SPOKEN = "unless to be rather cold hearted and rather selfish is to be ill disposed"


class Fake:
    """Weights whose networks are functions of the test's own."""

    lip_expert = None

    def __init__(self, sequences=None, talk=None) -> None:
        self.face_model = default_face_model()
        size = {"block_out_channels": [16, 24, 32], "encoder_blocks": [1, 1, 1], "decoder_blocks": [1, 1, 1]}
        self.autoencoder = configs.build("autoencoder", "tiny", 0, **size).train(False)
        self.audio_encoder = types.SimpleNamespace(encode=hear)
        if sequences:
            self.sequences = sequences
        if talk:
            self.talk = talk


def hear(waveform: torch.Tensor, sample_rate: int, fps: float) -> AudioFeatures:
    duration = Fraction(len(waveform), sample_rate)
    return AudioFeatures(torch.zeros(max(1, round(duration * 25)), 4), duration, fps, "none")


def pair(expression: torch.Tensor, pose: torch.Tensor) -> tuple[CoefficientSequence, CoefficientSequence]:
    name = default_face_model().name
    return (
        CoefficientSequence("expression", expression, 25.0, name, ARKIT_NAMES),
        CoefficientSequence("pose", pose, 25.0, name, POSE_NAMES),
    )


def values(rows: list[Row]) -> dict[str, float]:
    return {row.name: row.value for row in rows}


# ---- set A: frames


@pytest.fixture(scope="module")
def pictures() -> PictureSet:
    """Two people of three pictures: noise of a colour of their own."""
    rng = np.random.default_rng(0)
    encoded = []
    for _ in range(6):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(buffer, "PNG")
        encoded.append(buffer.getvalue())
    return PictureSet(
        tuple(encoded),
        torch.tensor([0, 0, 0, 1, 1, 1]),
        torch.zeros(6, 80),
        torch.linspace(0, 0.5, 6)[:, None].expand(-1, 52).contiguous(),
        torch.zeros(6, 6),
    )


def test_frames_equal_to_the_truth_and_a_copied_reference(pictures: PictureSet, tmp_path: Path) -> None:
    def truth(reference, expression, pose, mode, with_unet):
        assert mode == "absolute"  # held-out frames are made at their own coefficients
        which = [int((pictures.expression - row).abs().sum(dim=1).argmin()) for row in expression.values]
        return torch.stack([pictures.read(i) for i in which]).float() / 255

    perfect = values(score_frames(Fake(talk=truth), pictures, tmp_path))
    assert perfect["A frames: PSNR on the face (dB)"] > 50
    assert perfect["A frames: SSIM on the face"] == pytest.approx(1, abs=1e-4)

    def copy(reference, expression, pose, mode, with_unet):
        return reference.crop.movedim(-1, 0).expand(expression.num_frames, -1, -1, -1)

    rows = score_frames(Fake(talk=copy), pictures, tmp_path)
    copied = values(rows)
    for part in ("of the mouth", "of the eyes"):
        assert perfect[f"A frames: SSIM {part}"] == pytest.approx(1, abs=1e-4)
        assert copied[f"A frames: SSIM {part}"] < 0.2
    assert copied["A frames: PSNR over copying (dB)"] == pytest.approx(0, abs=1e-5)
    assert copied["A frames: SSIM on the face"] < 0.1 and not any(row.met for row in rows)
    # two independent noises of 0..1 differ by 1/6 in the mean square
    assert copied["A frames: PSNR on the face (dB)"] == pytest.approx(10 * np.log10(6), abs=0.2)
    gain = perfect["A frames: PSNR on the face (dB)"] - copied["A frames: PSNR on the face (dB)"]
    assert perfect["A frames: PSNR over copying (dB)"] == pytest.approx(gain, abs=1e-4)
    assert (tmp_path / "A-frames.png").stat().st_size > 1000


def test_what_the_unet_paints_is_scored_where_the_portrait_shows_nothing(tmp_path: Path) -> None:
    grey = io.BytesIO()
    Image.new("RGB", (64, 64), (128, 128, 128)).save(grey, "PNG")
    pose = torch.zeros(4, 6)
    pose[1::2, 1] = 0.5
    turned = PictureSet(
        (grey.getvalue(),) * 4, torch.tensor([0, 0, 1, 1]), torch.zeros(4, 80), torch.zeros(4, 52), pose
    )

    def talk(reference, expression, pose, mode, with_unet):
        level = 128 / 255 + (0.01 if with_unet else 0.1)
        return torch.full((expression.num_frames, 3, 64, 64), level)

    rows = {row.name: row for row in score_frames(Fake(talk=talk), turned, tmp_path)}
    hidden = rows["A frames: PSNR where the portrait shows nothing (dB)"]
    assert hidden.value == pytest.approx(40, abs=0.1) and "without the UNet: 20.00" in hidden.note
    gain = rows["A frames: what the UNet adds there (dB)"]
    assert gain.value == pytest.approx(20, abs=0.1) and gain.met


def test_a_turned_head_hides_what_the_portrait_does_not_show() -> None:
    face_model = default_face_model()
    face = FaceState(torch.zeros(80), torch.zeros(52), torch.zeros(6), face_model.name)
    crop = torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(0))
    transform = CropTransform.of_square(32.0, 32.0, 64.0, 64)
    reference = Reference(torch.zeros(16, 8, 8), face, crop, transform, crop, True)
    pose = torch.zeros(2, 6)
    pose[1, 1] = 0.5
    moved, hidden = moved_and_hidden(face_model, reference, torch.zeros(2, 52), pose)
    still, turned = hidden.float().mean(dim=(1, 2, 3))
    assert still < 0.002 and 0.01 < turned < 0.2
    error = (moved[0] - crop.movedim(-1, 0)).abs() * ~hidden[0]
    assert error.max() < 1e-4


# ---- set A: motion


@pytest.fixture(scope="module")
def speech() -> SpeechSet:
    """One recording: pulses of noise, a head that nods between them, a jaw that follows a curve."""
    time = torch.arange(150) / 25
    expression, pose = torch.zeros(150, 52), torch.zeros(150, 6)
    expression[:, JAW] = 0.4 + 0.4 * torch.sin(5 * time)
    expression[[30, 31, 90], BLINK] = 0.9
    pose[:, 0] = 0.2 * torch.cos(torch.pi * 1.25 * (time - 0.4))
    loud = (torch.arange(150) % 20 == 10).float().repeat_interleave(640)
    noise = torch.randn(150 * 640, generator=torch.Generator().manual_seed(0)) * loud
    clip = SpeechClip("a", noise * 0.1, (), expression, pose, torch.zeros(80), 25.0, torch.zeros(150, 4))
    return SpeechSet((clip,))


def test_motion_equal_to_the_truth(speech: SpeechSet, tmp_path: Path) -> None:
    clip = speech.clips[0]

    def sequences(features, seed):
        pose = clip.pose.clone()
        pose[:, 1] += 0.1 * seed
        return pair(clip.expression, pose)

    found = values(score_motion(Fake(sequences), speech, tmp_path, seeds=2))
    assert found["A motion: correlation of mouth opening"] == pytest.approx(1)
    assert found["A motion: lip error, still mouth = 1"] == pytest.approx(0, abs=1e-6)
    assert found["blinks a minute"] == pytest.approx(20)  # two in six seconds
    # of three angles, one differs by 0.1 between the two samples
    assert found["pose variety across seeds (rad)"] == pytest.approx(0.1 / 2**0.5 / 3, rel=1e-4)
    assert found["expression diversity (FaceTalk Eq. 20)"] == 0, "the samples have one expression"
    rows = {row.name: row for row in score_motion(Fake(sequences), speech, tmp_path, seeds=2)}
    assert rows["pose variety across seeds (rad)"].target == pytest.approx(pose_range(clip.pose) / 2)
    beats = rows["beat alignment with prosody"]
    energy = frame_energy(clip.waveform, 150, 25.0)
    assert beats.value == pytest.approx(beat_alignment(clip.pose, energy, 25.0))
    assert beats.value > 0.5 and beats.met and beats.target == pytest.approx(beats.value / 2)


def test_diversity_sums_the_distances_of_every_sample_from_the_others() -> None:
    samples = torch.zeros(3, 4, 52)
    samples[1, :, 7], samples[2, :, 7] = 0.1, 0.3
    # the three pairs are 0.1, 0.2 and 0.3 apart, each counted from both ends, over three samples
    assert expression_diversity(samples) == pytest.approx(0.4, rel=1e-5)
    with pytest.raises(FD2TalkError, match="at least two"):
        expression_diversity(samples[:1])


def test_a_still_mouth_and_a_still_head(speech: SpeechSet, tmp_path: Path) -> None:
    def sequences(features, seed):
        return pair(torch.zeros(150, 52), torch.zeros(150, 6))

    rows = score_motion(Fake(sequences), speech, tmp_path, seeds=2)
    found = values(rows)
    assert found["A motion: correlation of mouth opening"] == 0
    assert found["A motion: lip error, still mouth = 1"] == pytest.approx(1)
    assert found["blinks a minute"] == 0
    assert found["pose variety across seeds (rad)"] == 0 and found["beat alignment with prosody"] == 0
    assert not any(row.met for row in rows)


def test_what_the_phonemes_tell_is_nearly_all_of_an_average_speaker() -> None:
    """Another style, the same phones: the rules know the mouth; of other phones they know little."""
    rng = np.random.default_rng(3)
    basis = mouth_basis(default_face_model())

    def phones() -> list[Phone]:
        ends = np.cumsum(rng.uniform(0.06, 0.18, 60))
        names = rng.choice(["aa", "iy", "m", "s", "uw", "sil", "t", "ae", "p"], 60)
        starts = np.concatenate(([0.0], ends[:-1]))
        return [Phone(str(n), float(a), float(b)) for n, a, b in zip(names, starts, ends, strict=True)]

    spoken, other = phones(), phones()
    samples = int(min(spoken[-1].end, other[-1].end) * 16000)
    sound = 0.1 * rng.standard_normal(samples)
    frames = samples // 640
    style = replace(Style.random(rng), emotion=0.0, smile=0.0)
    expression, pose = synthesise(spoken, sound, 16000, frames, style, rng)
    clips = [
        SpeechClip(
            "heldout", torch.from_numpy(sound).float(), tuple((p.name, p.start, p.end) for p in said),
            torch.from_numpy(expression), torch.from_numpy(pose), torch.zeros(80), 25.0,
        )
        for said in (spoken, other)
    ]  # fmt: skip
    truth = torch.einsum("fc,cmx->fmx", clips[0].expression, basis)
    known, unknown = (
        lip_error(
            torch.einsum("fc,cmx->fmx", mouth_of_phonemes(clip), basis),
            truth,
            torch.zeros_like(truth[0]),
        )
        for clip in clips
    )
    assert known < 0.35 < 0.6 < unknown


def test_an_expert_that_hears_the_mouth_tells_shifts_and_a_deaf_one_does_not(
    speech: SpeechSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = speech.clips[0]
    jaw = clip.expression[:, JAW]
    curve = torch.stack([jaw, torch.gradient(jaw)[0] * 5], dim=1)  # where it is in its period

    def hears(expert, mouth, audio, stride=1):
        return -(mouth.flatten(2) - audio).norm(dim=-1)[:, 2:-2]

    expert = types.SimpleNamespace(config=types.SimpleNamespace(frames=5))
    clip = replace(clip, features=curve, expression=curve)
    told = []
    for listen in (hears, lambda expert, mouth, audio, stride=1: torch.zeros(1, mouth.shape[1] - 4)):
        monkeypatch.setattr("training.stages.lip_expert.sync_over_clip", listen)
        told.append(shift_test(expert, clip, torch.eye(2)[:, None], 5))
    assert told[0][1].float().mean() > 0.9 and told[0][0].float().mean() > 0.9
    assert told[1][1].float().mean() == 0


# ---- set C: real speech


@pytest.fixture(scope="module")
def spoken() -> SpokenText:
    return SpokenText("speech", to_mono_16k(*read_audio(EXAMPLES / "speech.wav")), SPOKEN)


def test_alignment_finds_the_words_where_they_are_loud(spoken: SpokenText) -> None:
    pytest.importorskip("pocketsphinx")
    phones = align_phonemes(spoken)
    names = [name for name, _, _ in phones]
    assert {"b", "p", "d", "s", "l", "r"} <= set(names)
    assert sum(name in BILABIALS for name in names) == 3  # to be, to be, disposed
    assert all(a[2] == pytest.approx(b[1]) for a, b in itertools.pairwise(phones))
    duration = len(spoken.waveform) / 16000
    assert phones[0][1] == 0 and duration - 0.1 < phones[-1][2] <= duration + 0.02
    energy = frame_energy(spoken.waveform, round(duration * 100), 100.0)
    loud = {True: [], False: []}
    for name, start, end in phones:
        loud[name == "sil"].append(energy[round(start * 100) : round(end * 100)])
    vowels = [energy[round(a * 100) : round(b * 100)] for n, a, b in phones if n in OPEN_VOWELS]
    assert torch.cat(vowels).mean() > 3 * torch.cat(loud[True]).mean()


def test_a_mouth_that_obeys_real_speech_and_one_that_does_the_contrary(
    spoken: SpokenText, tmp_path: Path
) -> None:
    pytest.importorskip("pocketsphinx")
    phones = align_phonemes(spoken)

    def mouth(opposite: bool):
        def sequences(features, seed):
            times = (torch.arange(features.num_frames) + 0.5) / 25
            # no two frames alike, or half of the clip would lie at a percentile
            jaw = 0.4 + 0.1 * torch.sin(5 * times) + 0.02 * torch.sin(31 * times)
            for name, start, end in phones:
                if name in BILABIALS or name in OPEN_VOWELS:
                    part = (times > start - 0.06) & (times < end + 0.06)
                    jaw[part] = 0.0 if (name in BILABIALS) != opposite else 0.9
            expression = torch.zeros(len(times), 52)
            expression[:, JAW] = jaw
            return pair(expression, torch.zeros(len(times), 6))

        return sequences

    good = real_speech_rows(Fake(mouth(False)), [spoken], tmp_path, tmp_path)
    assert [row.note[:4] for row in good] == ["1.00", "1.00"] and good[0].note.startswith("1.00 of 3 ")
    assert (tmp_path / "C-speech.png").exists()
    # of three closures and some vowels, no more than this can be told from random windows
    assert 1.5 < good[0].value < 3 and good[1].value > 1
    assert "random windows of the same clips: 0." in good[0].note
    bad = real_speech_rows(Fake(mouth(True)), [spoken], tmp_path, tmp_path)
    assert all(row.value <= 0 for row in bad) and not any(row.met for row in bad)


def test_chance_is_what_a_mouth_scores_that_knows_nothing_of_the_words() -> None:
    """Shut for the first half of the clip and open for the second: half of all moments are either."""
    opening = torch.cat([torch.zeros(500), torch.ones(500)])
    phonemes = [(name, at, at + 0.04) for at, name in zip(range(40), ("b", "aa") * 20, strict=True)]
    told = lip_closure(opening, 25, [p for p in phonemes if (p[0] == "b") == (p[1] < 20)])
    assert (told.closed, told.opened) == (1, 1)
    drawn = chance_closures(opening, 25, phonemes, torch.Generator().manual_seed(0))
    assert closed_share(drawn)[0] == pytest.approx(0.5, abs=0.06)
    assert opened_share(drawn)[0] == pytest.approx(0.5, abs=0.06)
    assert closed_share(drawn)[1] == opened_share(drawn)[1] == 20 * 20


def test_what_real_speech_needs_is_a_sentence(
    spoken: SpokenText, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (row,) = real_speech_rows(Fake(), [], tmp_path, tmp_path)
    assert row.value is None and row.met is None and "pocketsphinx-testdata" in row.note
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    (row,) = real_speech_rows(Fake(), [spoken], tmp_path, tmp_path)
    assert "pip install pocketsphinx" in row.note


def test_transcribed_recordings_are_found(tmp_path: Path) -> None:
    (tmp_path / "speech.wav").write_bytes((EXAMPLES / "speech.wav").read_bytes())
    (tmp_path / "test.transcription").write_text(f"<s> {SPOKEN} </s> (speech)\n<s> gone </s> (absent)\n")
    (found,) = read_spoken_texts(tmp_path)
    assert found.text == SPOKEN and len(found.waveform) > 5 * 16000


# ---- set B: portraits


@pytest.fixture(scope="module")
def drawn() -> types.SimpleNamespace:
    """A person of the corpus, who can be drawn in any expression and pose."""
    pytest.importorskip("embreex")
    from training.corpus.appearance import random_look
    from training.corpus.clips import random_identity
    from training.corpus.pictures import photograph
    from training.corpus.render import Person
    from training.corpus.scenery import random_place

    rng = np.random.default_rng(12)
    place = replace(random_place(256, rng), finish="photo", grain=0.0)
    look = replace(random_look(rng), glasses=None)
    person = Person(look, 0.5 * random_identity(rng))

    def draw(expression: torch.Tensor, pose: torch.Tensor) -> torch.Tensor:
        shots = [
            photograph(person, place, e, p, 256, rng)
            for e, p in zip(expression.numpy(), pose.numpy(), strict=True)
        ]
        return torch.from_numpy(np.stack(shots)).float() / 255

    return types.SimpleNamespace(draw=draw)


def test_a_drawn_person_closes_the_loop(drawn: types.SimpleNamespace, tmp_path: Path) -> None:
    """A renderer that does exactly what it is told: the landmarker sees our jaw and our angles."""
    time = torch.arange(12) / 12
    expression, pose = torch.zeros(12, 52), torch.zeros(12, 6)
    expression[:, JAW] = 0.35 - 0.35 * torch.cos(2 * torch.pi * time)
    pose[:, 0], pose[:, 1] = 0.15 * torch.sin(2 * torch.pi * time), 0.25 * torch.sin(4 * torch.pi * time)
    portrait = drawn.draw(expression[:1], pose[:1])[0]

    def talk(reference, expression, pose, mode):
        assert mode == "relative"
        # the crop of a drawn portrait is framed as the portrait is, but for what the fit moved
        return drawn.draw(expression.values, pose.values).movedim(-1, 1)

    weights = Fake(lambda features, seed: pair(expression, pose), talk)
    rows = score_portraits(weights, [("drawn", portrait)], [torch.zeros(8000)], tmp_path)
    found = values(rows)
    assert found["B portraits: face found in the output"] == 1
    assert found["B portraits: jawOpen seen against ours"] > 0.9
    assert found["B portraits: head angles, mean error (°)"] < 5
    assert found["B portraits: gap of the lips seen against ours"] > 0.9
    notes = {row.name: row.note for row in rows}
    assert "pitch" in notes["B portraits: head angles, mean error (°)"]
    assert "drawn" in notes["B upper face: SSIM with the portrait moved by our mesh"]
    assert found["B identity: distance of face descriptors"] is None
    assert "--fetch-descriptor" in notes["B identity: distance of face descriptors"]


def test_a_portrait_that_stays_as_it_is_keeps_its_identity(
    drawn: types.SimpleNamespace, tmp_path: Path
) -> None:
    portrait = drawn.draw(torch.zeros(1, 52), torch.zeros(1, 6))[0]
    frames = 8

    def still(features, seed):
        return pair(torch.zeros(frames, 52), torch.zeros(frames, 6))

    def copy(reference, expression, pose, mode):
        return reference.crop.movedim(-1, 0).expand(frames, -1, -1, -1)

    found = values(score_portraits(Fake(still, copy), [("drawn", portrait)], [torch.zeros(5120)], tmp_path))
    assert found["B portraits: face found in the output"] == 1
    assert found["B portraits: head angles, mean error (°)"] < 2
    assert found["B upper face: SSIM with the portrait moved by our mesh"] > 0.85
    # ours does not move at all, so that nothing can go with it
    assert found["B portraits: jawOpen seen against ours"] == 0

    def grey(reference, expression, pose, mode):
        return torch.full((frames, 3, 256, 256), 0.5)

    rows = score_portraits(Fake(still, grey), [("drawn", portrait)], [torch.zeros(5120)], tmp_path)
    found = values(rows)
    assert found["B portraits: face found in the output"] == 0
    assert found["B portraits: jawOpen seen against ours"] is None
    assert found["B portraits: gap of the lips seen against ours"] is None
    assert found["B upper face: SSIM with the portrait moved by our mesh"] < 0.7


def test_identity_is_the_distance_of_descriptors_beside_that_to_another_portrait(
    drawn: types.SimpleNamespace, tmp_path: Path
) -> None:
    portrait = drawn.draw(torch.zeros(1, 52), torch.zeros(1, 6))[0]
    others = [("drawn", portrait), ("darker", portrait * 0.5)]

    def still(features, seed):
        return pair(torch.zeros(10, 52), torch.zeros(10, 6))

    def paler(reference, expression, pose, mode):
        return (reference.crop.movedim(-1, 0).expand(10, -1, -1, -1) * 0.9).contiguous()

    def brightness(images, landmarks):
        assert len(images) == len(landmarks) and landmarks.shape[1:] == (478, 2)
        return images.mean(dim=(1, 2, 3))[:, None]

    rows = score_portraits(
        Fake(still, paler), others, [torch.zeros(6400)], tmp_path, takes=2, describe=brightness
    )
    (row,) = [row for row in rows if row.name.startswith("B identity")]
    from fd2talk_core.face.landmarks import FaceLandmarker
    from fd2talk_core.frames.reference import encode_reference

    fake = Fake()
    bright, dark = (
        float(
            encode_reference(image, fake.autoencoder, FaceLandmarker(), fake.face_model, size=256).crop.mean()
        )
        for _, image in others
    )
    assert row.value == pytest.approx(0.1 * (bright + dark) / 2, rel=0.02) and row.met
    assert f"drawn {0.1 * bright:.2f}" in row.note
    wrong = (abs(0.9 * bright - dark) + abs(0.9 * dark - bright)) / 2
    assert row.note.endswith(f"to the nearest other portrait {wrong:.2f}")


def test_packed_weights_are_read_and_the_network_is_the_one_described() -> None:
    manifest = [
        {"name": "a", "shape": [2, 2], "dtype": "float32"},
        {"name": "b", "shape": [3], "dtype": "float32", "quantization": {"scale": 0.5, "min": -1.0}},
    ]
    numbers = np.array([1, 2, 3, 4], "<f4").tobytes() + bytes([0, 2, 255])
    tensors = identity.read_tensors(manifest, numbers)
    assert tensors["a"].tolist() == [[1, 2], [3, 4]] and tensors["b"].tolist() == [-1, 0, 126.5]


def test_a_face_is_turned_upright_and_brought_to_its_place() -> None:
    """Dots at eyes and mouth come to lie where the network expects them, however the head is turned."""
    for turn, scale in ((0.0, 40.0), (0.5, 60.0), (-0.3, 25.0)):
        places = torch.tensor([[-0.5, -0.4], [0.5, -0.4], [0.0, 0.6]]) * scale
        rotation = torch.tensor([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]).float()
        points = places @ rotation.T + torch.tensor([130.0, 110.0])
        landmarks = torch.zeros(478, 2)
        for numbers, point in zip(((33, 133), (362, 263), (61, 291, 0, 17)), points, strict=True):
            landmarks[list(numbers)] = point
        rows, columns = torch.meshgrid(torch.arange(220), torch.arange(260), indexing="ij")
        grid = torch.stack([columns, rows], dim=-1).float()
        dots = torch.stack([torch.exp(-((grid - point) ** 2).sum(-1) / 18) for point in points])
        (chip,) = identity.face_chips(dots[None], landmarks[None])
        peaks = [divmod(int(channel.argmax()), 150) for channel in chip]
        # the three around their centre, which lies at (0.5, 0.43); eyes to mouth are 0.45 of a side
        side = 0.45 / np.hypot(0.5, 1.0)
        wanted = [
            (0.43 + side * (y + 0.2 / 3), 0.5 + side * x) for x, y in ((-0.5, -0.4), (0.5, -0.4), (0.0, 0.6))
        ]
        np.testing.assert_allclose(np.array(peaks), np.array(wanted) * 150, atol=2)


def test_a_descriptor_that_is_missing_or_another_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FD2TalkError, match="fetch it with --fetch-descriptor"):
        identity.FaceDescriptor.load(tmp_path)
    for name in identity._FILES:
        (tmp_path / name).write_bytes(b"another")
    with pytest.raises(FD2TalkError, match="not the file of @vladmandic/face-api"):
        identity.FaceDescriptor.load(tmp_path)
    monkeypatch.setattr(identity.npm.shutil, "which", lambda _: None)
    identity.fetch(tmp_path)  # there already
    with pytest.raises(FD2TalkError, match="no npm here"):
        identity.fetch(tmp_path / "empty")


@pytest.mark.skipif(not identity.FOLDER.is_dir(), reason="fetched by the scorecard's --fetch-descriptor")
def test_the_descriptor_knows_people_apart_and_each_again() -> None:
    from fd2talk_core.face.landmarks import FaceLandmarker

    describe, landmarker = identity.FaceDescriptor.load(), FaceLandmarker()
    first, second = (picture for _, picture in portraits()[:2])

    def described(picture: torch.Tensor) -> torch.Tensor:
        landmarks = landmarker.detect(picture)[0].landmarks[None, :, :2]
        return describe(picture.movedim(-1, 0)[None], landmarks)[0]

    same = (described(first) - described((first.flip(1) * 0.8).contiguous())).norm()
    assert same < 0.4 < identity.SAME_PERSON < (described(first) - described(second)).norm()


def test_a_picture_without_a_face_is_named(tmp_path: Path) -> None:
    grey = torch.full((128, 128, 3), 0.5)
    (row,) = score_portraits(Fake(), [("wall", grey)], [torch.zeros(8000)], tmp_path)
    assert row.value is None and "wall" in row.note


def test_every_picture_of_the_scorecard_has_its_source_beside_it() -> None:
    notice = (PAINTING.with_name("NOTICE.md")).read_text(encoding="utf-8")
    pictures = {path.name for path in PAINTING.parent.iterdir() if path.suffix in (".jpg", ".png", ".webp")}
    assert pictures == set(re.findall(r"^\| `(.+?)` \|", notice, re.MULTILINE)) == {PAINTING.name}


def test_portraits_come_from_packages_and_a_folder(tmp_path: Path) -> None:
    assert [name for name, _ in portraits()] == ["portrait", "grace_hopper", "baciccio_woman"]
    Image.new("RGB", (20, 30), (255, 0, 0)).save(tmp_path / "mine.png")
    name, picture = portraits(tmp_path)[-1]
    assert name == "mine" and picture.shape == (30, 20, 3) and picture[0, 0].tolist() == [1, 0, 0]
    (tmp_path / "empty").mkdir()
    with pytest.raises(FD2TalkError, match="holds no portraits"):
        portraits(tmp_path / "empty")


# ---- flicker, size and speed


@pytest.fixture(scope="module")
def reference(drawn: types.SimpleNamespace):
    from fd2talk_core.face.landmarks import FaceLandmarker
    from fd2talk_core.frames.reference import encode_reference

    fake = Fake()
    portrait = drawn.draw(torch.zeros(1, 52), torch.zeros(1, 6))[0]
    return encode_reference(portrait, fake.autoencoder, FaceLandmarker(), fake.face_model, size=64)


def test_flicker_of_a_still_and_of_a_blinking_picture(reference) -> None:
    def still(reference, expression, pose, mode):
        # it is asked for with motion that nobody sees, so that no frame is a copy by definition
        assert not torch.equal(expression.values[0], expression.values[1]) and mode == "absolute"
        assert (expression.values - reference.expression).abs().max() < 1e-3
        return torch.full((expression.num_frames, 3, 16, 16), 0.5)

    def blinking(reference, expression, pose, mode):
        frames = still(reference, expression, pose, mode)
        frames[1::2] += 2 / 255
        return frames

    (row,) = score_flicker(Fake(talk=still), reference)
    assert row.value == 0 and row.met
    (row,) = score_flicker(Fake(talk=blinking), reference)
    assert row.value == pytest.approx(2, rel=1e-4) and row.met is False


def test_a_joint_network_is_scored_and_never_a_mixture(tmp_path: Path) -> None:
    face_model = default_face_model()
    info = CheckpointInfo(face_model=face_model.name, native_fps=25.0, steps=2, resolution=64)
    fake = Fake()
    thin = {"num_layers": 1, "hidden_size": 32, "num_heads": 2, "condition_dim": 32, "audio_dim": 138}
    joint = configs.build("expression", "tiny", 0, **thin, kind="joint", coefficient_dim=58)
    networks = {
        "audio_encoder": configs.build("audio_encoder", "tiny", 0),
        "joint": joint,
        "autoencoder": fake.autoencoder,
        "unet": configs.build("unet", "tiny", 0),
    }
    for name, network in networks.items():
        save_checkpoint(network, tmp_path / f"{name}.safetensors", info)
    features = AudioFeatures(torch.randn(30, 138), Fraction(30, 25), 25.0, "none")
    found = Weights.load(tmp_path).sequences(features, seed=3)
    stored = load_checkpoint(tmp_path / "joint.safetensors", MotionTransformer)
    wanted = sample_joint_motion(stored, features, seed=3)
    assert all(torch.equal(a.values, b.values) for a, b in zip(found, wanted, strict=True))
    # left there by an earlier training
    save_checkpoint(configs.build("pose", "tiny", 0, **thin), tmp_path / "pose.safetensors", info)
    with pytest.raises(FD2TalkError, match="move the one that is not meant"):
        Weights.load(tmp_path)


def test_size_and_operations_of_known_networks(reference, tmp_path: Path) -> None:
    face_model = default_face_model()
    small = {"num_layers": 1, "hidden_size": 32, "num_heads": 2, "condition_dim": 32, "audio_dim": 138}
    networks = {
        "audio_encoder": configs.build("audio_encoder", "tiny", 0),
        "expression": configs.build("expression", "tiny", 0, **small),
        "pose": configs.build("pose", "tiny", 0, **small),
        "autoencoder": Fake().autoencoder,
        "unet": configs.build(
            "unet",
            "tiny",
            0,
            sample_size=8,
            block_out_channels=[16, 32, 32],
            attention_head_dim=16,
            reference_alignment="none",
            reference_encoder=None,
            alignment_channels=0,
        ),
    }
    for steps in (4, 8):
        info = CheckpointInfo(face_model=face_model.name, resolution=64, native_fps=25.0, steps=steps)
        for name, network in networks.items():
            save_checkpoint(network, tmp_path / f"{name}.safetensors", info)
        weights = Weights.load(tmp_path)
        size, work, seconds = score_cost(weights, reference, seconds=0.4)
        assert size.value == pytest.approx(
            sum(path.stat().st_size for path in tmp_path.glob("*.safetensors")) / 1e6
        )
        parts = {n: float(v) for n, v in (part.rsplit(" ", 1) for part in work.note.split(", "))}
        assert work.name.endswith(f"{steps} steps") and work.met
        assert sum(parts.values()) == pytest.approx(work.value, abs=0.02)
        if steps == 4:
            once = parts["UNet"]
        stages = {part.rsplit(" ", 1)[0] for part in seconds.note.split(", ")}
        assert stages >= {"audio", "motion", "UNet", "decoder", "alignment", "detail"} and seconds.value > 0
    assert parts["UNet"] == pytest.approx(2 * once, rel=0.1)
    # a convolution of 3 x 3 over the crop is two operations a weight and pixel: less than that is a lie
    assert parts["decoder"] > 1e-9 * 2 * 9 * 16 * 3 * 16 * 16

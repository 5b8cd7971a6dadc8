"""How the audio encoder starts, and what it is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fd2talk_core import configs
from fd2talk_core.audio.encoder import AudioEncoder
from fd2talk_core.audio.features import NATIVE_FPS
from fd2talk_core.audio.resampling import SAMPLE_RATE
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.networks.checkpoint import CheckpointInfo, load_checkpoint, save_checkpoint
from training.scorecard import whisper
from training.sources import SpeechClip, SpeechSet
from training.stages.audio_encoder import AudioEncoderOptions, AudioEncoderStage, start_as_mel_filters
from training.stages.disturbance import among, in_room, over_line
from training.teacher import HOP, Teacher, states


def test_the_first_convolution_starts_as_bands_evenly_spaced_in_mel() -> None:
    encoder = configs.build("audio_encoder", "tiny", 0)
    start_as_mel_filters(encoder, 200.0, 6000.0)
    filters = encoder.model.feature_extractor.conv_layers[0].conv.weight[:, 0].detach()
    sine, opposite, cosine = filters[::4], filters[1::4], filters[2::4]
    assert torch.equal(opposite, -sine)
    spectra = torch.fft.rfft(sine, 8192).abs()
    peaks = spectra.argmax(dim=1) * SAMPLE_RATE / 8192
    mel = 2595 * torch.log10(1 + peaks / 700)
    wanted = torch.linspace(2595 * 0.10914446, 2595 * 0.98116547, len(mel))  # of 200 and 6000 Hz
    torch.testing.assert_close(mel, wanted, atol=12.0, rtol=0)
    # sine and cosine are a quadrature pair: they do not see each other
    assert (sine * cosine).sum(dim=1).abs().max() < 1e-3 * filters.square().sum(dim=1).max()


@pytest.fixture(scope="module")
def stage() -> AudioEncoderStage:
    """One clip of 4 s whose phonemes change every 0.1 s, and whose sound is the same tone throughout."""
    phonemes = tuple(("a" if n % 2 else "b", n / 10, (n + 1) / 10) for n in range(40))
    sound = torch.sin(torch.arange(4 * SAMPLE_RATE) * 0.2)
    clip = SpeechClip(
        "one", sound, phonemes, torch.zeros(100, 52), torch.zeros(100, 6), torch.zeros(80), 25.0
    )
    options = AudioEncoderOptions(seconds=1.0, noise=0.0, gain=0.0, speed=0.2)
    speech = SpeechSet((clip,))
    return AudioEncoderStage(configs.build("audio_encoder", "tiny", 0), speech, speech, options)


@pytest.mark.parametrize("speed", [0.8, 1.0, 1.25])
def test_targets_are_the_phonemes_at_the_middle_of_what_an_output_hears(
    stage: AudioEncoderStage, speed: float
) -> None:
    encoder, first, length = stage.encoder, 7600, SAMPLE_RATE
    targets = stage.targets(stage.speech.clips[0], first, length, speed)
    assert len(targets) == encoder.num_features(length)
    for n, target in enumerate(targets.tolist()):
        second = (first + speed * (n * encoder.stride + encoder.receptive_field / 2)) / SAMPLE_RATE
        assert stage.phonemes[target] == ("a" if int(second * 10) % 2 else "b")


def test_tone_makes_sound_duller_or_brighter(stage: AudioEncoderStage) -> None:
    options = AudioEncoderOptions(seconds=1.0, noise=0.0, gain=0.0, tone=0.9)
    coloured = AudioEncoderStage(stage.encoder, stage.speech, stage.held_out, options)
    loud = [
        float(coloured.sample(0, torch.Generator().manual_seed(seed))["waveform"].square().mean().sqrt())
        for seed in range(12)
    ]
    # a two-tap filter lets this low tone pass by between |1 - w| and 1 + w over its norm
    assert min(loud) < 0.5 < 0.8 < max(loud)
    with pytest.raises(FD2TalkError, match="tone is 1"):
        AudioEncoderOptions(tone=1.0)


def test_formants_and_colour_make_another_voice_that_says_the_same(stage: AudioEncoderStage) -> None:
    plain, changed = (
        AudioEncoderStage(
            stage.encoder,
            stage.speech,
            stage.held_out,
            AudioEncoderOptions(seconds=1.0, noise=0.0, gain=0.0, **options),
        ).sample(0, torch.Generator().manual_seed(3))
        for options in ({}, {"formants": 0.15, "colour": 6.0})
    )
    assert torch.equal(plain["targets"], changed["targets"])
    assert plain["waveform"].shape == changed["waveform"].shape
    assert not torch.allclose(plain["waveform"], changed["waveform"], atol=1e-2)
    with pytest.raises(FD2TalkError, match="formants is 1"):
        AudioEncoderOptions(formants=1.0)
    with pytest.raises(FD2TalkError, match="colour is -1"):
        AudioEncoderOptions(colour=-1.0)


def test_the_lesson_is_that_of_the_instants_that_the_outputs_stand_for(stage: AudioEncoderStage) -> None:
    ramp = torch.arange(200.0)[:, None] * HOP  # a state tells the sample that it stands for
    options = AudioEncoderOptions(seconds=1.0, speed=0.2, teacher=1.0)
    taught = AudioEncoderStage(
        stage.encoder, stage.speech, stage.held_out, options, Teacher({"one": ramp.half()})
    )
    for seed in range(4):
        sample = taught.sample(0, torch.Generator().manual_seed(seed))
        numbers = (sample["lesson"][:, 0] / SAMPLE_RATE * 10).long()
        known = (sample["targets"] >= 0) & ((sample["lesson"][:, 0] / 1600).frac() - 0.5).abs().lt(0.4)
        said = torch.tensor([taught.number["a" if n % 2 else "b"] for n in numbers.tolist()])
        assert known.sum() > 30 and torch.equal(said[known], sample["targets"][known])
    batch = {name: part[None] for name, part in sample.items()}
    batch["lesson"] = torch.ones_like(batch["lesson"])
    with torch.no_grad():
        told = taught(batch)
    assert told["teacher"] > 0.1 and 0.2 < float(told["loss"] - told["teacher"]) < 1.5


def test_the_anchor_is_the_distance_to_the_encoder_at_the_start(
    stage: AudioEncoderStage, tmp_path: Path
) -> None:
    save_checkpoint(stage.encoder, tmp_path / "audio_encoder.safetensors", CheckpointInfo(native_fps=25.0))
    options = AudioEncoderOptions(seconds=1.0, noise=0.0, gain=0.0, anchor=1.0)
    held = AudioEncoderStage(encoder_of(3), stage.speech, stage.held_out, options)
    held.start_from(tmp_path)
    batch = {k: v[None] for k, v in held.sample(0, torch.Generator().manual_seed(0)).items()}
    assert held(batch)["anchor"] < 1e-8
    noise = 0.3 * torch.randn(batch["waveform"].shape, generator=torch.Generator().manual_seed(1))
    assert held({**batch, "waveform": batch["waveform"] + noise})["anchor"] > 1e-3
    assert not any(name.startswith("earlier") for name in held.networks.state_dict())
    assert all(not value.requires_grad for value in held.earlier.parameters())


@pytest.mark.parametrize("kept", [0.0, 0.25, 1.0])
def test_what_is_written_keeps_a_share_of_the_start(
    stage: AudioEncoderStage, tmp_path: Path, kept: float
) -> None:
    save_checkpoint(encoder_of(1), tmp_path / "audio_encoder.safetensors", CheckpointInfo(native_fps=25.0))
    options = AudioEncoderOptions(seconds=1.0, kept=kept)
    tuned = AudioEncoderStage(encoder_of(3), stage.speech, stage.held_out, options)
    tuned.start_from(tmp_path)
    trained = encoder_of(2)
    tuned.encoder.load_state_dict(trained.state_dict())
    tuned.export(tmp_path, "")
    written = load_checkpoint(tmp_path / "audio_encoder.safetensors", AudioEncoder).state_dict()
    start, end = encoder_of(1).state_dict(), trained.state_dict()
    for name, value in written.items():
        torch.testing.assert_close(value, torch.lerp(end[name], start[name], kept), atol=2e-3, rtol=0)
    torch.testing.assert_close(tuned.encoder.state_dict(), end)


def test_a_room_keeps_the_direct_sound_and_a_line_its_band() -> None:
    generator = torch.Generator().manual_seed(0)
    click = F.one_hot(torch.tensor(4000), SAMPLE_RATE).float()
    for _ in range(5):
        heard = in_room(click, generator)
        assert heard[:4000].abs().max() < 1e-5 and abs(heard[4000] - 1) < 1e-5
        assert 0.1 < heard[4001:].norm() < 1.1
    time = torch.arange(SAMPLE_RATE) / SAMPLE_RATE
    low, middle, high = (torch.sin(2 * torch.pi * hertz * time) for hertz in (20, 1000, 7900))
    for _ in range(5):
        heard = over_line(low + middle + high, generator)
        passed = [float((heard * tone).mean() / (tone * tone).mean()) for tone in (low, middle, high)]
        assert passed[0] < 0.3 and abs(passed[1] - 1) < 0.05 and abs(passed[2]) < 0.05


def test_voices_beside_speech_are_as_loud_as_told() -> None:
    speech, other = torch.randn(2, SAMPLE_RATE, generator=torch.Generator().manual_seed(0))
    added = among(speech, 7 * other, 12.0) - speech
    assert 20 * torch.log10(speech.std() / added.std()) == pytest.approx(12.0, abs=0.01)


def test_the_teacher_hears_every_clip_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """A teacher whose state is the loudness of its 20 ms says of each clip what that clip's loudness is."""

    class Loudness:
        calls = 0

        def feature_extractor(self, sound: np.ndarray) -> np.ndarray:
            return np.pad(sound, (0, HOP)).reshape(-1, HOP // 2).std(axis=1)[None]

        def encode(self, spectrogram: np.ndarray) -> np.ndarray:
            self.calls += 1
            assert spectrogram.shape == (1, 3000)
            return spectrogram[:, ::2, None]

    model = Loudness()
    monkeypatch.setattr(whisper, "load_model", lambda: model)
    generator = torch.Generator().manual_seed(0)
    seconds = (3.013, 28.0, 31.0, 5.5, 6.0)
    clips = [(k + 1) * torch.randn(int(s * SAMPLE_RATE), generator=generator) for k, s in enumerate(seconds)]
    heard = states(clips)
    assert model.calls == 4  # the last two are heard at once
    for clip, found in zip(clips, heard, strict=True):
        blocks = F.pad(clip[: 29 * SAMPLE_RATE], (0, HOP)).unfold(0, HOP, HOP)[: len(found), : HOP // 2]
        assert len(found) == -(-min(len(clip), 29 * SAMPLE_RATE) // HOP)
        np.testing.assert_allclose(found[:-1, 0], blocks.std(dim=1, correction=0)[:-1], rtol=2e-3)


def encoder_of(seed: int, **changes: int) -> AudioEncoder:
    config = configs.load_config("audio_encoder", "tiny")["config"] | changes
    return configs.build("audio_encoder", "tiny", seed, config=config)


@pytest.mark.parametrize("depth", [2, 3, 6])
def test_an_encoder_goes_on_from_one_of_fewer_layers_as_if_it_were_that(
    stage: AudioEncoderStage, tmp_path: Path, depth: int
) -> None:
    shallow, deep = encoder_of(1, num_hidden_layers=2), encoder_of(2, num_hidden_layers=depth)
    with torch.no_grad():
        # training moves the scales and shifts away from 1 and 0
        last = shallow.model.encoder.layers[-1].final_layer_norm
        last.weight.mul_(torch.linspace(0.6, 1.8, len(last.weight)))
        last.bias.add_(torch.linspace(-0.1, 0.3, len(last.bias)))
    save_checkpoint(shallow, tmp_path / "audio_encoder.safetensors", CheckpointInfo(native_fps=NATIVE_FPS))
    grown = AudioEncoderStage(deep, stage.speech, stage.held_out, stage.options)
    sound = torch.randn(2, SAMPLE_RATE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted, before = shallow(sound), deep(sound)
        grown.start_from(tmp_path)
        heard = deep(sound)
    spread = wanted.std()
    assert (before - wanted).std() > spread
    assert (heard - wanted).square().mean().sqrt() < (0.15 if depth > 2 else 1e-3) * spread


@pytest.mark.parametrize("changes", [{"num_hidden_layers": 1}, {"hidden_size": 64}])
def test_an_encoder_of_more_layers_or_other_widths_is_refused(
    stage: AudioEncoderStage, tmp_path: Path, changes: dict[str, int]
) -> None:
    given = {"num_hidden_layers": 2}
    save_checkpoint(
        encoder_of(1, **given), tmp_path / "audio_encoder.safetensors", CheckpointInfo(native_fps=NATIVE_FPS)
    )
    other = AudioEncoderStage(encoder_of(2, **(given | changes)), stage.speech, stage.held_out, stage.options)
    with pytest.raises(FD2TalkError, match="is of another size than this stage's audio_encoder"):
        other.start_from(tmp_path)

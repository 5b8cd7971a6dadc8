"""Resampling against sines, chunked wav2vec against whole files, the frame grid, and all bad input."""

from __future__ import annotations

import json
import math
import sys
import types
import wave
from fractions import Fraction

import av
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from fd2talk_core.audio.encoder import AudioEncoder
from fd2talk_core.audio.features import AudioFeatures
from fd2talk_core.audio.front import ConvolutionFront
from fd2talk_core.audio.reading import read_audio
from fd2talk_core.audio.resampling import to_mono_16k
from fd2talk_core.errors import FD2TalkError

SMALL = {
    "conv_dim": [16, 16, 24, 24, 24, 32, 32],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "mask_time_prob": 0.0,
}


def small_encoder(norm="layer", do_normalize=True, **changes) -> AudioEncoder:
    torch.manual_seed(0)
    config = {**SMALL, "feat_extract_norm": norm, "conv_bias": norm == "layer", **changes}
    encoder = AudioEncoder(config, do_normalize).train(False).requires_grad_(False)
    # norms away from their initial 1 and 0, which would hide a forgotten weight
    for name, parameter in encoder.named_parameters():
        if "norm" in name:
            parameter.add_(0.3 * torch.randn_like(parameter))
    return encoder


@pytest.fixture(scope="module")
def encoder() -> AudioEncoder:
    return small_encoder()


# --- resampling ------------------------------------------------------------------------------------

RATES = [8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000, 192000, 44099, 15999]


@pytest.mark.parametrize("rate", RATES)
def test_a_sine_stays_that_sine(rate):
    """Every rate, over the seams between pieces: amplitude, frequency and phase are kept."""
    seconds, frequencies = 11.3, (50.0, 440.0, 3000.0)
    time = torch.arange(int(seconds * rate), dtype=torch.float64) / rate
    source = sum(torch.sin(2 * math.pi * f * time + 0.4) for f in frequencies) / 3
    made = to_mono_16k(source.float(), rate)
    assert made.shape[0] == -(-time.shape[0] * 16000 // rate)
    time = torch.arange(made.shape[0], dtype=torch.float64) / 16000
    expected = sum(torch.sin(2 * math.pi * f * time + 0.4) for f in frequencies) / 3
    inside = slice(200, -200)
    assert (made[inside] - expected[inside]).abs().max() < 2e-3


@pytest.mark.parametrize("rate, frequency", [(44100, 9500.0), (48000, 12_000.0), (96000, 40_000.0)])
def test_what_16_khz_cannot_hold_is_gone_and_not_folded_back(rate, frequency):
    time = torch.arange(rate, dtype=torch.float64) / rate
    made = to_mono_16k(torch.sin(2 * math.pi * frequency * time).float(), rate)
    assert made[300:-300].square().mean().sqrt() < 10 ** (-70 / 20)


@pytest.mark.parametrize("rate", [8000, 44100, 44099, 96000])
def test_a_constant_stays_constant(rate):
    made = to_mono_16k(torch.full((2, rate), 0.25), rate)
    torch.testing.assert_close(made[100:-100], torch.full_like(made[100:-100], 0.25), atol=1e-5, rtol=0)


@given(st.integers(1, 3000), st.sampled_from([8000, 11025, 16000, 44100, 48000, 96000]))
@settings(max_examples=40, deadline=None)
def test_length_is_the_duration_rounded_up(samples, rate):
    made = to_mono_16k(torch.zeros(samples), rate)
    assert made.shape[0] == math.ceil(Fraction(samples * 16000, rate))


def test_channels_are_averaged():
    waveform = torch.randn(8, 4000)
    torch.testing.assert_close(to_mono_16k(waveform, 16000), waveform.mean(dim=0))
    torch.testing.assert_close(to_mono_16k(waveform[None], 16000), waveform.mean(dim=0))


def test_pcm_integers_become_floats():
    values = torch.tensor([-1.0, -0.5, 0.0, 0.5])
    for dtype, scale, offset in [(torch.int16, 2**15, 0), (torch.int32, 2**31, 0), (torch.uint8, 2**7, 128)]:
        pcm = (values.double() * scale + offset).to(dtype)
        torch.testing.assert_close(to_mono_16k(pcm, 16000), values, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "waveform, message",
    [
        (torch.zeros(0), "empty"),
        (torch.zeros(2, 0), "empty"),
        (torch.zeros(0, 5), "empty"),
        (torch.tensor([0.0] * 7 + [math.nan] + [0.0] * 9), "sample 7"),
        (torch.tensor([[0.0, 0.0], [0.0, math.inf]]), "sample 1"),
        (torch.zeros(2, 2, 100), r"shape \(2, 2, 100\)"),
        (torch.zeros(100, dtype=torch.complex64), "complex64"),
    ],
)
def test_bad_audio_is_named(waveform, message):
    with pytest.raises(FD2TalkError, match=message):
        to_mono_16k(waveform, 16000)


def test_a_nan_deep_in_a_long_file_is_found():
    waveform = torch.zeros(2, 44100 * 21)
    waveform[1, 900_000] = math.nan
    with pytest.raises(FD2TalkError, match="sample 900000"):
        to_mono_16k(waveform, 44100)


@pytest.mark.parametrize("rate", [0, -16000, 44100.5])
def test_bad_sample_rate_is_named(rate):
    with pytest.raises(FD2TalkError, match=f"sample rate is {rate}"):
        to_mono_16k(torch.zeros(100), rate)


# --- files -----------------------------------------------------------------------------------------


def write_audio(path, waveform, rate, codec, layout, sample_format) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.layout, stream.format = layout, sample_format
        frame = av.AudioFrame.from_ndarray(waveform.numpy(), format="fltp", layout=layout)
        frame.sample_rate = rate
        for part in av.AudioResampler(format=sample_format, layout=layout, rate=rate).resample(frame):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(
    "name, codec, sample_format, tolerance",
    [
        ("a.wav", "pcm_s16le", "s16", 1e-4),
        ("a.wav", "pcm_f32le", "flt", 1e-7),
        ("a.flac", "flac", "s16", 1e-4),
        ("a.mkv", "pcm_s16le", "s16", 1e-4),
    ],
)
def test_files_are_read_as_recorded(tmp_path, name, codec, sample_format, tolerance):
    waveform = torch.rand(2, 3001) - 0.5
    write_audio(tmp_path / name, waveform, 44100, codec, "stereo", sample_format)
    made, rate = read_audio(tmp_path / name)
    assert rate == 44100
    torch.testing.assert_close(made, waveform, atol=tolerance, rtol=0)


@pytest.mark.parametrize("channels", [1, 2, 3, 8, 12])
def test_any_number_of_channels_is_read(tmp_path, channels):
    pcm = torch.randint(-(2**15), 2**15, (2000, channels), dtype=torch.int16)
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(96_000)
        file.writeframes(pcm.numpy().tobytes())
    made, rate = read_audio(tmp_path / "a.wav")
    assert rate == 96_000
    torch.testing.assert_close(made, pcm.T / 2**15, atol=1e-7, rtol=0)


def test_bad_files_are_named(tmp_path):
    with pytest.raises(FD2TalkError, match="no audio file .*missing.wav"):
        read_audio(tmp_path / "missing.wav")
    (tmp_path / "text.wav").write_text("this is not sound")
    with pytest.raises(FD2TalkError, match="text.wav cannot be decoded"):
        read_audio(tmp_path / "text.wav")
    with av.open(str(tmp_path / "silent.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        container.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
        container.mux(stream.encode(None))
    with pytest.raises(FD2TalkError, match="silent.mp4 holds no audio stream"):
        read_audio(tmp_path / "silent.mp4")


def test_a_playlist_opens_no_other_place(tmp_path):
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:10,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(FD2TalkError, match="list.m3u8"):
        read_audio(tmp_path / "list.m3u8")


# --- the convolutional front -----------------------------------------------------------------------

LENGTHS = [400, 401, 719, 720, 721, 16_000, 64_000, 64_079, 64_080, 64_081, 100_003, 200_001]


def whole_front(encoder: AudioEncoder, waveform: torch.Tensor) -> torch.Tensor:
    """transformers' own front on the whole file at once."""
    hidden = encoder.model.feature_extractor(encoder.normalize(waveform)[None])
    return encoder.model.feature_projection(hidden.transpose(1, 2))[0][0]


@pytest.mark.parametrize("norm", ["layer", "group"])
@pytest.mark.parametrize("length", LENGTHS)
def test_front_in_pieces_is_the_front_of_the_file(norm, length):
    encoder = small_encoder(norm)
    generator = torch.Generator().manual_seed(length)
    # loudness and offset that drift, so that statistics of a piece are not those of the file
    waveform = torch.randn(length, generator=generator) * torch.linspace(0.02, 0.6, length) + 0.2
    front = ConvolutionFront(encoder.model, waveform, encoder.do_normalize)
    made = front(0, front.num_features)
    torch.testing.assert_close(made, whole_front(encoder, waveform), atol=1e-4, rtol=0)


@pytest.mark.parametrize("norm", ["layer", "group"])
def test_front_of_other_kernels_and_strides(norm):
    changes = {"conv_dim": [12, 12, 20], "conv_kernel": [9, 4, 5], "conv_stride": [4, 4, 3]}
    encoder = small_encoder(norm, num_feat_extract_layers=3, **changes)
    waveform = torch.randn(70_001)
    front = ConvolutionFront(encoder.model, waveform, encoder.do_normalize)
    expected = whole_front(encoder, waveform)
    assert encoder.stride == 48 and front.num_features == expected.shape[0]
    made = torch.cat([front(a, b) for a, b in ((0, 7), (7, 300), (300, front.num_features))])
    torch.testing.assert_close(made, expected, atol=1e-4, rtol=0)


def test_group_norm_needs_the_whole_file():
    """The property is not free: a piece normalised by its own statistics is far off."""
    encoder = small_encoder("group")
    waveform = torch.randn(64_000) * torch.linspace(0.02, 0.6, 64_000)
    alone = whole_front(encoder, waveform[:16_000])
    assert (alone - whole_front(encoder, waveform)[: alone.shape[0]]).abs().max() > 0.05


# --- features --------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm, stable", [("layer", True), ("group", False)])
def test_up_to_a_window_encoding_is_transformers_own(norm, stable):
    encoder = small_encoder(norm, do_stable_layer_norm=stable)
    # that swells as a voice does: noise that does not is taken to be quieter
    waveform = torch.randn(16_000 * 5 + 123) * torch.linspace(0.002, 0.2, 16_000 * 5 + 123)
    normal = (waveform - waveform.mean()) / (waveform.var(unbiased=False) + 1e-7).sqrt()
    expected = encoder.model(normal[None]).last_hidden_state[0]
    torch.testing.assert_close(encoder.encode_16k(waveform), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("norm, stable", [("layer", True), ("group", False)])
def test_long_audio_agrees_with_the_whole_file(norm, stable):
    """Windows lose only the attention past their second of context; how much is printed."""
    encoder = small_encoder(norm, do_stable_layer_norm=stable)
    waveform = torch.randn(16_000 * 47 + 77) * torch.linspace(0.05, 0.5, 16_000 * 47 + 77)
    whole, made = encoder(waveform[None])[0], encoder.encode_16k(waveform)
    similarity = torch.nn.functional.cosine_similarity(whole, made, dim=-1)
    print(f"\n{norm} norm, 47 s: cosine with whole-file features {similarity.mean():.5f}, ", end="")
    print(f"worst frame {similarity.min():.5f}, mean difference {(whole - made).abs().mean():.4f}")
    assert made.shape == whole.shape
    assert similarity.min() > 0.99


def test_normalisation_follows_the_flag():
    waveform = torch.randn(16_000) * 0.1 + 0.5
    loud = small_encoder(do_normalize=False)
    expected = loud.model(waveform[None]).last_hidden_state[0]
    torch.testing.assert_close(loud.encode_16k(waveform), expected, atol=1e-4, rtol=0)
    normal = small_encoder(do_normalize=True)
    assert (normal.encode_16k(waveform) - expected).abs().max() > 0.05
    torch.testing.assert_close(
        normal.encode_16k(waveform * 3 + 1), normal.encode_16k(waveform), atol=1e-3, rtol=0
    )


def test_features_stand_at_the_frames_instants(encoder):
    """Feature j is centred on sample 320 j + 200; frame i on (i + 0.5) / 25 s."""
    count = 500
    instant = (torch.arange(count, dtype=torch.float64) * 320 + 200) / 16000
    frames = encoder.to_frames(instant[:, None], 240)[:, 0]
    expected = (torch.arange(240, dtype=torch.float64) + 0.5) / 25
    torch.testing.assert_close(frames, expected, atol=1e-9, rtol=0)
    held = encoder.to_frames(instant[:3, None], 10)[:, 0]
    assert held[-1] == instant[2], "the last feature is held, not extrapolated"


def test_the_centre_is_where_a_sound_is_heard(encoder):
    """A click reaches the features whose window holds it: the geometry that the centres rest on."""
    quiet, click = torch.zeros(16_000), torch.zeros(16_000)
    click[8_000] = 1.0
    plain = small_encoder(do_normalize=False)
    fronts = [ConvolutionFront(plain.model, x, plain.do_normalize) for x in (quiet, click)]
    change = (fronts[1](0, 49) - fronts[0](0, 49)).abs().amax(dim=1)
    heard = [j for j in range(49) if 320 * j <= 8_000 < 320 * j + 400]
    assert change.gt(1e-6).nonzero().flatten().tolist() == heard


@pytest.mark.parametrize("fps", [1, 12, 23.976, 24, 25, 29.97, 30, 50, 60, 120])
def test_frame_counts(encoder, fps):
    waveform = torch.randn(1, 44_100 * 2 + 331) * 0.1
    features = encoder.encode(waveform, 44_100, fps)
    duration = Fraction(44_100 * 2 + 331, 44_100)
    assert features.num_frames == round(duration * Fraction(str(fps)))
    assert features.num_native_frames == round(duration * 25)
    assert features.duration == duration and features.fps == fps


@pytest.mark.parametrize(
    "waveform, rate",
    [
        (torch.zeros(1, 16_000), 16_000),
        (torch.zeros(1, 1), 16_000),
        (torch.ones(2, 1), 48_000),
        (torch.randn(2, 399), 16_000),
        (torch.randn(1, 96_000), 96_000),
        (torch.randn(8, 44_100), 44_100),
        (torch.randn(3, 100), 8_000),
    ],
    ids=["silent", "one sample", "one stereo sample", "short", "96 kHz", "8 channels", "3 channels 8 kHz"],
)
@pytest.mark.parametrize("norm", ["layer", "group"])
def test_unusual_audio_works(norm, waveform, rate):
    features = small_encoder(norm).encode(waveform, rate, 25)
    assert features.num_native_frames == max(1, round(Fraction(waveform.shape[1] * 25, rate)))
    assert torch.isfinite(features.features).all()


@pytest.mark.parametrize("fps", [0, -25, math.nan, 121])
def test_bad_fps_is_named(encoder, fps):
    with pytest.raises(FD2TalkError, match=f"fps is {fps}"):
        encoder.encode(torch.zeros(100), 16_000, fps)


def test_encoding_is_the_same_each_time_and_reports_windows(encoder):
    reports = []
    waveform = torch.randn(16_000 * 33) * 0.1
    first = encoder.encode(waveform, 16_000, 25, lambda *report: reports.append(report)).features
    assert torch.equal(first, encoder.encode(waveform, 16_000, 25).features)
    assert [done for done, _, _ in reports] == list(range(1, len(reports) + 1))
    assert {total for _, total, _ in reports} == {len(reports)}


def test_interrupting_stops_at_the_next_window(encoder):
    calls = []

    def callback(done, total, _):
        calls.append(done)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        encoder.encode(torch.zeros(16_000 * 40), 16_000, 25, callback)
    assert calls == [1]


def test_features_validate_themselves():
    with pytest.raises(FD2TalkError, match="shape"):
        AudioFeatures(torch.zeros(0, 4), Fraction(1), 25, "x")
    with pytest.raises(FD2TalkError, match="not a number"):
        AudioFeatures(torch.full((25, 4), math.nan), Fraction(1), 25, "x")
    with pytest.raises(FD2TalkError, match="24 audio features"):
        AudioFeatures(torch.zeros(24, 4), Fraction(1), 25, "x")


def test_encoding_leaves_a_network_in_training_as_it_was(encoder):
    expected = encoder.encode(torch.ones(9000) / 7, 16_000, 25).features
    training = small_encoder().train(True)
    assert torch.equal(training.encode(torch.ones(9000) / 7, 16_000, 25).features, expected), "no dropout"
    assert training.training and training.model.encoder.training


def test_training_reaches_every_layer():
    encoder = AudioEncoder({**SMALL, "layerdrop": 0.0, "feat_extract_norm": "layer", "conv_bias": True}, True)
    encoder(torch.randn(2, 8000)).square().mean().backward()
    without = [name for name, parameter in encoder.named_parameters() if parameter.grad is None]
    assert not without


# --- loading ---------------------------------------------------------------------------------------


def save_folder(folder, encoder: AudioEncoder, **preprocessor):
    encoder.model.save_pretrained(folder)
    content = {"do_normalize": encoder.do_normalize, "sampling_rate": 16000, **preprocessor}
    (folder / "preprocessor_config.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("norm, do_normalize", [("layer", True), ("group", False), ("group", True)])
def test_hugging_face_folders_load(tmp_path, norm, do_normalize):
    source = small_encoder(norm, do_normalize)
    loaded = AudioEncoder.from_pretrained(save_folder(tmp_path / "mine", source))
    assert loaded.do_normalize is do_normalize and loaded.name == "mine" and loaded.feature_dim == 32
    waveform = torch.randn(9000)
    torch.testing.assert_close(loaded.encode_16k(waveform), source.encode_16k(waveform), atol=1e-6, rtol=0)


def test_fine_tuned_folders_load(tmp_path):
    """A speech recogniser keeps the same network under a prefix, with a head that is not needed."""
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    torch.manual_seed(1)
    recogniser = Wav2Vec2ForCTC(Wav2Vec2Config(**SMALL, vocab_size=12)).train(False)
    recogniser.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"do_normalize": false}')
    loaded = AudioEncoder.from_pretrained(tmp_path)
    waveform = torch.randn(1, 9000)
    expected = recogniser.wav2vec2(waveform).last_hidden_state[0]
    torch.testing.assert_close(loaded.encode_16k(waveform[0]), expected, atol=1e-4, rtol=0)


def test_our_own_checkpoints_load(tmp_path):
    from fd2talk_core.networks.checkpoint import CheckpointInfo, save_checkpoint

    source = small_encoder("group")
    save_checkpoint(source, tmp_path / "own.safetensors", CheckpointInfo(), dtype=None)
    loaded = AudioEncoder.from_pretrained(tmp_path / "own.safetensors")
    assert loaded.do_normalize is True
    waveform = torch.randn(9000)
    torch.testing.assert_close(loaded.encode_16k(waveform), source.encode_16k(waveform), atol=1e-6, rtol=0)


def remove_preprocessor(folder):
    (folder / "preprocessor_config.json").unlink()


def forget_normalize(folder):
    (folder / "preprocessor_config.json").write_text("{}")


def expect_8_khz(folder):
    (folder / "preprocessor_config.json").write_text('{"do_normalize": true, "sampling_rate": 8000}')


def be_whisper(folder):
    (folder / "config.json").write_text('{"model_type": "whisper"}')


def pickle_only(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def cut_short(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])


def lose_a_layer(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors = {name: value for name, value in tensors.items() if "layers.1." not in name}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def break_config(folder):
    (folder / "config.json").write_text("{")


@pytest.mark.parametrize(
    "damage, message",
    [
        (remove_preprocessor, "mine has no preprocessor_config.json"),
        (forget_normalize, "does not say do_normalize"),
        (expect_8_khz, "8000 Hz"),
        (be_whisper, "'whisper' model"),
        (pickle_only, "can run code"),
        (cut_short, "cannot be loaded"),
        (lose_a_layer, "lacks weights .*layers.1"),
        (break_config, "config.json cannot be read"),
    ],
)
def test_broken_folders_are_named(tmp_path, damage, message):
    folder = save_folder(tmp_path / "mine", small_encoder())
    damage(folder)
    with pytest.raises(FD2TalkError, match=message):
        AudioEncoder.from_pretrained(folder)


def test_base_size_runs_forward_and_backward():
    """wav2vec2-base, the paper's: layout of facebook/wav2vec2-base."""
    from fd2talk_core import configs

    encoder = configs.build("audio_encoder", "base", seed=0)
    count = sum(parameter.numel() for parameter in encoder.parameters())
    print(f"\naudio encoder, base: {count / 1e6:.1f} M parameters")
    assert encoder.feature_dim == 768 and 94e6 < count < 95e6
    encoder.requires_grad_(True)
    encoder(torch.randn(1, 8000)).mean().backward()


HOSTILE = {
    "_attn_implementation": "some/kernel",
    "attn_implementation": "some/kernel",
    "_attn_implementation_internal": "some/kernel",
    "experts_implementation": "some/kernel",
    "auto_map": {"AutoModel": "some/repository--modeling.Model"},
    "torch_dtype": "float16",
    "dtype": "float16",
    "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True},
    "name_or_path": "some/repository",
    "architectures": ["Other"],
    "gradient_checkpointing": True,
    "pruned_heads": {"0": [0]},
    "output_attentions": True,
}


@pytest.fixture
def no_fetching(monkeypatch):
    """As where the package ``kernels`` is installed: what a file names would be fetched and run."""
    import transformers.modeling_utils

    def fetch(*names, **_):
        pytest.fail(f"code was fetched: {names}")

    kernels = types.ModuleType("kernels")
    kernels.get_kernel = fetch
    monkeypatch.setitem(sys.modules, "kernels", kernels)
    monkeypatch.setattr(transformers.modeling_utils, "is_kernels_available", lambda *_, **__: True)
    if hasattr(transformers.modeling_utils, "load_and_register_attn_kernel"):
        monkeypatch.setattr(transformers.modeling_utils, "load_and_register_attn_kernel", fetch)


def check_chosen_by_us(encoder):
    config = encoder.model.config
    assert config._attn_implementation == "sdpa" and not hasattr(config, "auto_map")
    assert not hasattr(config, "quantization_config") and not getattr(config, "pruned_heads", None)
    assert next(encoder.parameters()).dtype == torch.float32
    assert encoder.encode_16k(torch.randn(1000)).dtype == torch.float32


@pytest.mark.parametrize("field", HOSTILE)
def test_a_checkpoints_header_chooses_no_code(tmp_path, no_fetching, field):
    from fd2talk_core.networks.checkpoint import CheckpointInfo, read_header, save_checkpoint

    save_checkpoint(small_encoder(), tmp_path / "own.safetensors", CheckpointInfo(), dtype=None)
    name, config, _ = read_header(tmp_path / "own.safetensors")
    config["config"] |= {field: HOSTILE[field]}
    config[field] = HOSTILE[field]
    header = {"format": "1", "class": name, "config": json.dumps(config), "info": "{}"}
    save_file(load_file(tmp_path / "own.safetensors"), tmp_path / "own.safetensors", header)
    check_chosen_by_us(AudioEncoder.from_pretrained(tmp_path / "own.safetensors"))


@pytest.mark.parametrize("field", HOSTILE)
def test_a_folders_config_chooses_no_code(tmp_path, no_fetching, field):
    folder = save_folder(tmp_path / "mine", small_encoder())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {field: HOSTILE[field]}))
    check_chosen_by_us(AudioEncoder.from_pretrained(folder))


def test_a_folder_is_read_alone(tmp_path, no_fetching):
    """Files beside the weights that transformers would follow: an adapter's base model, a pickled index."""
    folder = save_folder(tmp_path / "mine", small_encoder())
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "some/repository"}')
    (folder / ".metadata").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    (folder / "generation_config.json").write_text("{")
    check_chosen_by_us(AudioEncoder.from_pretrained(folder))


def test_weights_in_parts_load(tmp_path):
    source = small_encoder()
    folder = save_folder(tmp_path / "mine", source)
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    (folder / "model.safetensors").unlink()
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        path = folder / f"model-{number:05}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, path)
    loaded = AudioEncoder.from_pretrained(folder)
    waveform = torch.randn(3000)
    torch.testing.assert_close(loaded.encode_16k(waveform), source.encode_16k(waveform), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "change", [{"hidden_size": "many"}, {"conv_dim": 3}, {"hidden_act": "os.system"}, {"hidden_size": -4}]
)
def test_a_config_that_builds_nothing_is_named(tmp_path, change):
    folder = save_folder(tmp_path / "mine", small_encoder())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(FD2TalkError, match="mine cannot be loaded as a wav2vec 2.0 model"):
        AudioEncoder.from_pretrained(folder)

"""A small file or a large number does not take the machine: it is bounded before memory is taken."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from fd2talk_core import configs
from fd2talk_core.audio import reading
from fd2talk_core.audio.encoder import AudioEncoder
from fd2talk_core.audio.reading import has_sound, read_audio
from fd2talk_core.audio.resampling import to_mono_16k
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.landmarks import FaceLandmarker
from fd2talk_core.files import check_output
from fd2talk_core.formats import deep3d, sequences
from fd2talk_core.formats.sequences import load_motion, save_motion
from fd2talk_core.formats.video_frames import VideoFrames
from fd2talk_core.imaging import read_image
from fd2talk_core.motion.coefficients import CoefficientSequence
from fd2talk_core.motion.editing import smooth
from fd2talk_core.networks.checkpoint import find_checkpoint, load_checkpoint

needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes have no names here")


def wav(path: Path, rate: int, channels: int = 1) -> Path:
    samples = bytes(2 * 16_000)
    form = struct.pack("<HHIIHH", 1, channels, rate, 2 * rate * channels % 2**32, 2 * channels, 16)
    chunks = b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", len(samples)) + samples
    path.write_bytes(b"RIFF" + struct.pack("<I", len(chunks)) + chunks)
    return path


# Sound


@pytest.mark.parametrize("rate", [1, 999, 384_001, 10_000_000, 48_000_007, 2**31 - 1])
def test_a_rate_that_no_sound_has_is_refused(tmp_path: Path, rate: int) -> None:
    with pytest.raises(FD2TalkError, match=f"sample rate is {rate}, but a whole number from 1000 to 384000"):
        read_audio(wav(tmp_path / "voice.wav", rate))
    with pytest.raises(FD2TalkError, match=f"sample rate is {rate}"):
        to_mono_16k(torch.zeros(1, 100), rate)


def test_every_bit_of_a_rate_may_flip(tmp_path: Path) -> None:
    for bit in range(32):
        try:
            waveform, rate = read_audio(wav(tmp_path / "voice.wav", 16_000 ^ (1 << bit)))
        except FD2TalkError:
            continue
        assert 1000 <= rate <= 384_000 and waveform.shape == (1, 16_000)


def test_a_recording_has_a_longest_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_SAMPLES", 10_000)
    with pytest.raises(FD2TalkError, match=r"voice.wav holds over .* samples, but at most 10,000 are taken"):
        read_audio(wav(tmp_path / "voice.wav", 16_000))


# Pictures


def test_a_picture_is_refused_by_its_header(tmp_path: Path) -> None:
    Image.new("1", (12_000, 12_000)).save(tmp_path / "face.png")
    assert (tmp_path / "face.png").stat().st_size < 50_000
    with pytest.raises(FD2TalkError, match=r"face.png has 144,000,000 pixels, but at most 50,000,000"):
        read_image(tmp_path / "face.png")


def test_a_tensor_has_as_many_pixels_as_a_file() -> None:
    with pytest.raises(FD2TalkError, match="64,000,000 pixels"):
        FaceLandmarker().detect(torch.zeros(1, 1, 3).expand(8000, 8000, 3))


def test_a_video_is_refused_by_its_header(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "large.mkv"), "w") as file:
        stream = file.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 8000, 7000, "yuvj420p"
        file.mux(stream.encode(av.VideoFrame(8000, 7000, "yuvj420p")))
        file.mux(stream.encode(None))
    with pytest.raises(FD2TalkError, match="56,000,000 pixels a frame"):
        VideoFrames(tmp_path / "large.mkv")


def test_looking_for_faces_stops_within_a_look() -> None:
    class Stop(Exception):
        pass

    looks: list[tuple[int, int]] = []

    def stop(done: int, total: int, _: object) -> None:
        looks.append((done, total))
        if len(looks) == 5:
            raise Stop

    with pytest.raises(Stop):
        FaceLandmarker().detect(torch.rand(2000, 2000, 3), stop)
    assert [done for done, _ in looks] == [1, 2, 3, 4, 5] and looks[0][1] > 200


# Motion files


def test_the_members_of_an_archive_are_bounded_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequences, "MAX_BYTES", 3 << 20)
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((50_000, 6), np.float32))
    with zipfile.ZipFile(tmp_path / "sum.npz", "w", zipfile.ZIP_DEFLATED) as file:
        for name in ("expression", "pose", "rest"):
            file.writestr(f"{name}.npy", buffer.getvalue())
    with pytest.raises(FD2TalkError, match="would unpack to 3 MB, but at most 3"):
        load_motion(tmp_path / "sum.npz", 25)


def test_members_that_mean_nothing_are_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "a.npz", pose=np.zeros((5, 6)), fps=25, extra=np.zeros(1 << 20))
    read = []
    original = sequences._read_npy
    monkeypatch.setattr(
        sequences, "_read_npy", lambda file, info: read.append(info.filename) or original(file, info)
    )
    assert load_motion(tmp_path / "a.npz").pose.num_frames == 5
    assert sorted(read) == ["fps.npy", "pose.npy"]


def test_the_arrays_of_a_mat_are_bounded_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deep3d, "MAX_BYTES", 5 << 20)
    numbers = bytes(2 << 20)
    body = struct.pack("<IIII", 6, 8, 6, 0) + struct.pack("<IIii", 5, 8, len(numbers) // 8, 1)
    body += struct.pack("<II", 1, 5) + b"other\0\0\0" + struct.pack("<II", 9, len(numbers)) + numbers
    packed = zlib.compress(struct.pack("<II", 14, len(body)) + body)
    element = struct.pack("<II", 15, len(packed)) + packed
    (tmp_path / "a.mat").write_bytes(b"MATLAB 5.0".ljust(124) + b"\x00\x01IM" + 3 * element)
    with pytest.raises(FD2TalkError, match=r"a\.mat: its arrays unpack to more than 5 MB"):
        load_motion(tmp_path / "a.mat", 25)


@pytest.mark.parametrize("kind", ["expression", "pose"])
def test_an_hour_is_smoothed_in_little_memory(kind: str) -> None:
    """Summed up tap by tap, ten seconds of an hour at 120 fps would ask for 99 GB."""
    wave = torch.linspace(0, 60, 120 * 3600)[:, None].expand(-1, 6) / 60
    sequence = CoefficientSequence(kind, wave, 120, "x")
    assert torch.allclose(smooth(sequence, 10).values, sequence.values, atol=1e-4)


# Networks


def changed(tmp_path: Path, network: str, change: Callable[[dict, dict], object]) -> Path:
    """A shipped checkpoint with another configuration or other tensors."""
    with safe_open(find_checkpoint(network, "tiny"), framework="pt") as file:
        header = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a dict
    config = json.loads(header["config"])
    change(config, tensors)
    path = tmp_path / f"{network}.safetensors"
    save_file(tensors, path, {**header, "config": json.dumps(config)})
    return path


SIZES = {
    "a thousand million layers": ("expression", lambda c, _: c.update(num_layers=10**9)),
    "a width of a million": ("expression", lambda c, _: c.update(hidden_size=10**6)),
    "channels": ("unet", lambda c, _: c.update(block_out_channels=[2**20] * 3)),
    "blocks": ("autoencoder", lambda c, _: c.update(decoder_blocks=[10**9] * len(c["decoder_blocks"]))),
    "latents": ("autoencoder", lambda c, _: c.update(latent_channels=10**9)),
    "a deep encoder": ("audio_encoder", lambda c, _: c["config"].update(num_hidden_layers=10**9)),
    "wide convolutions": (
        "audio_encoder",
        lambda c, _: c["config"].update(conv_dim=[2**30] * len(c["config"]["conv_dim"])),
    ),
    "positions": ("audio_encoder", lambda c, _: c["config"].update(num_conv_pos_embeddings=10**12)),
    "no stride": (
        "audio_encoder",
        lambda c, _: c["config"].update(conv_stride=[0] * len(c["config"]["conv_dim"])),
    ),
}


@pytest.mark.parametrize("asked", SIZES)
def test_a_network_is_no_larger_than_its_file(tmp_path: Path, asked: str) -> None:
    network, change = SIZES[asked]
    path = changed(tmp_path, network, change)
    with pytest.raises(FD2TalkError, match=rf"{network}\.safetensors (has a|does not fit its own) config"):
        load_checkpoint(path, configs.network_class(network))


def test_labels_that_no_encoder_has_cost_nothing(tmp_path: Path) -> None:
    path = changed(
        tmp_path, "audio_encoder", lambda c, _: c["config"].update(num_labels=10**8, vocab_size=10**9)
    )
    assert load_checkpoint(path, AudioEncoder).feature_dim > 0


@pytest.mark.parametrize("field", ["num_hidden_layers", "hidden_size", "num_labels"])
def test_a_folder_of_hugging_face_is_no_larger_than_its_file(tmp_path: Path, field: str) -> None:
    encoder = load_checkpoint(find_checkpoint("audio_encoder", "tiny"), AudioEncoder)
    config = {"model_type": "wav2vec2", **encoder.config["config"], field: 12 * 10**8}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "preprocessor_config.json").write_text('{"do_normalize": false}')
    save_file(encoder.model.state_dict(), tmp_path / "model.safetensors")
    if field == "num_labels":
        assert AudioEncoder.from_pretrained(tmp_path).feature_dim == encoder.hidden_dim
    else:
        with pytest.raises(FD2TalkError, match=f"{tmp_path.name}"):
            AudioEncoder.from_pretrained(tmp_path)


# Pipes and devices, whose end may never come


@needs_pipes
@pytest.mark.parametrize(
    "read", [read_image, read_audio, VideoFrames, load_motion, AudioEncoder.from_pretrained]
)
@pytest.mark.parametrize("name", ["pipe.json", "folder.json"])
def test_what_never_ends_is_not_read(tmp_path: Path, read: Callable, name: str) -> None:
    path = tmp_path / name
    path.mkdir() if name == "folder.json" else os.mkfifo(path)
    with pytest.raises(FD2TalkError, match=r"json|config\.json"):
        read(path)
    assert not has_sound(path)


@needs_pipes
def test_a_pipe_is_neither_written_nor_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "motion.json")
    with pytest.raises(FD2TalkError, match="it is a device"):
        save_motion(tmp_path / "motion.json", pose=CoefficientSequence("pose", torch.zeros(5, 6), 25, "x"))
    with pytest.raises(FD2TalkError, match="it is a device"):
        check_output(tmp_path / "motion.json", (".json",))
    assert (tmp_path / "motion.json").is_fifo()


def test_a_sound_behind_a_link_is_still_read(tmp_path: Path) -> None:
    wav(tmp_path / "a.wav", 16_000)
    try:
        (tmp_path / "link.wav").symlink_to(tmp_path / "a.wav")
    except OSError:
        shutil.copy(tmp_path / "a.wav", tmp_path / "link.wav")
    assert read_audio(tmp_path / "link.wav")[1] == 16_000

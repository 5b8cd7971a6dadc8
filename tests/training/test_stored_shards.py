"""Pictures and sound stay in their shards until they are asked for, and are what was written."""

from __future__ import annotations

import io
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path[:0] = [str(Path(__file__).parent)]

import synthetic  # noqa: E402

from fd2talk_core.errors import FD2TalkError  # noqa: E402
from fd2talk_core.face.model import default_face_model  # noqa: E402
from training.corpus.shards import Stored, read_samples  # noqa: E402
from training.sources import fingerprint, load_pictures, load_speech  # noqa: E402


def test_a_set_is_left_in_its_files(tmp_path: Path) -> None:
    synthetic.write_data(tmp_path, clips=1, people=2, size=32)
    speech, pictures = (
        load_speech(tmp_path, default_face_model()),
        load_pictures(tmp_path, default_face_model()),
    )
    clip = speech[0].clips[0]
    assert clip.sound.dtype == torch.int16 and len(clip.sound) == 64000
    ((_, members),) = read_samples(tmp_path / "train" / "clips-000000.tar")
    with wave.open(io.BytesIO(members["wav"])) as file:
        samples = np.frombuffer(file.readframes(64000), "<i2")
    assert torch.equal(clip.waveform, torch.from_numpy(samples.astype(np.float32) / 32768))
    assert torch.equal(clip.first(1.0).waveform, clip.waveform[:16000])
    train = pictures[0]
    assert all(isinstance(picture, Stored) for picture in train.encoded)
    assert train.read(0).shape == (3, 32, 32)
    first = train.encoded[0]
    assert fingerprint(first) == fingerprint(first.read()) != fingerprint(train.encoded[1])
    # a mapped file cannot be taken away everywhere, but a shorter one is noticed
    path = tmp_path / "train" / "frames-000000.tar"
    path.write_bytes(path.read_bytes()[: first.offset + 10])
    with pytest.raises(FD2TalkError, match="has become shorter"):
        train.read(0)


@pytest.mark.parametrize("channels, rate", [(2, 16000), (1, 8000), (2, 44100)])
def test_other_sound_is_mixed_and_resampled(tmp_path: Path, channels: int, rate: int) -> None:
    for split, seed in (("train", 0), ("heldout", 1)):
        members = synthetic.clip_members(seed)
        instants = np.arange(4 * rate) / rate
        tone = np.stack([np.sin(2 * np.pi * 300 * instants)] * channels, axis=1) * 0.5
        buffer = io.BytesIO()
        with wave.open(buffer, "wb") as file:
            file.setnchannels(channels)
            file.setsampwidth(2)
            file.setframerate(rate)
            file.writeframes((tone * 32767).astype("<i2").tobytes())
        shard = {f"{split}-clip": {**members, "wav": buffer.getvalue()}}
        synthetic.write_shard(tmp_path / split / "clips-000000.tar", shard)
    (clip,) = load_speech(tmp_path, default_face_model())[0].clips
    expected = 0.5 * torch.sin(2 * torch.pi * 300 * torch.arange(64000) / 16000)
    assert len(clip.waveform) == 64000
    assert (clip.waveform - expected)[1000:-1000].abs().max() < 2e-3

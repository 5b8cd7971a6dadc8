"""A stranger's picture, sound or video is decoded and nothing else: no program runs, no other file opens."""

from __future__ import annotations

import io
import shutil
import wave
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image

from fd2talk_core.audio.reading import read_audio
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.formats.video import VideoWriter
from fd2talk_core.formats.video_frames import VideoFrames
from fd2talk_core.imaging import PICTURE_FORMATS, read_image

EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 16 16
%%EndComments
(written) (w) file closefile
showpage
%%EOF
"""
NAMES = ("list.m3u8", "list.wav", "list.mp3", "list.mp4", "list.txt", "list")


# Pictures


@pytest.mark.parametrize("name", ["face.eps", "face.png", "face.jpg", "face"])
def test_postscript_never_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("PostScript ran"))
    (tmp_path / name).write_bytes(EPS)
    with Image.open(tmp_path / name) as picture:  # the file is one that Pillow by itself takes
        assert picture.format == "EPS"
    with pytest.raises(FD2TalkError, match=f"{name} cannot be read as a picture"):
        read_image(tmp_path / name)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "MPO"])
def test_pictures_are_read_whatever_they_are_called(tmp_path: Path, kind: str) -> None:
    assert kind in PICTURE_FORMATS
    Image.new("RGB", (80, 70), (200, 100, 50)).save(tmp_path / "face.png", format=kind)
    pixels = read_image(tmp_path / "face.png")
    assert pixels.shape == (70, 80, 3)
    assert (pixels[35, 40] * 255 - torch.tensor([200, 100, 50])).abs().max() < 6


def test_a_picture_too_large_to_unpack_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (80, 70)).save(tmp_path / "face.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(FD2TalkError, match="face.png cannot be read as a picture"):
        read_image(tmp_path / "face.png")


# Sound and video


def tone(path: Path, container: str | None = None) -> Path:
    """A second of 220 Hz as WAV, or in another container."""
    with av.open(str(path), "w", format=container or "wav") as file:
        stream = file.add_stream("pcm_s16le" if container is None else "mp2", rate=44_100, layout="mono")
        samples = (8000 * np.sin(2 * np.pi * 220 * np.arange(44_100) / 44_100)).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = 44_100
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def playlists(secret: Path) -> dict[str, str]:
    """Files that FFmpeg takes for a list of files, each naming a recording that nobody gave."""
    return {
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n",
        "hls by address": f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1,\nfile:{secret}\n#EXT-X-ENDLIST\n",
        "hls relative": f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1,\n{secret.name}\n#EXT-X-ENDLIST\n",
        "hls master": f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{secret}.m3u8\n",
        "concat": f"ffconcat version 1.0\nfile '{secret}'\n",
        "concat relative": f"ffconcat version 1.0\nfile {secret.name}\n",
        "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT1S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period>'
        '<AdaptationSet contentType="audio" mimeType="audio/mp4"><Representation id="1" bandwidth="1">'
        f"<BaseURL>{secret}</BaseURL></Representation></AdaptationSet></Period></MPD>",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 9 RTP/AVP 0\n",
        "imf": f'<?xml version="1.0"?><CompositionPlaylist><Asset>{secret}</Asset></CompositionPlaylist>',
    }


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording in formats that lists may name."""
    folder = tmp_path_factory.mktemp("secret")
    tone(folder / "secret.ts", "mpegts")
    (folder / "secret.ts.m3u8").write_text(playlists(folder / "secret.ts")["hls"])
    return folder / "secret.ts"


@pytest.mark.parametrize("kind", playlists(Path()))
@pytest.mark.parametrize("name", NAMES)
def test_a_list_of_files_is_no_recording(secret: Path, tmp_path: Path, kind: str, name: str) -> None:
    path = (secret.parent if "relative" in kind else tmp_path) / name
    path.write_text(playlists(secret)[kind])
    with pytest.raises(FD2TalkError, match=rf"{name} cannot be decoded as audio"):
        read_audio(path)
    with pytest.raises(FD2TalkError, match="not a video that can be read"):
        VideoFrames(path)
    with pytest.raises(FD2TalkError, match="not a video that can be read"):
        VideoFrames(io.BytesIO(path.read_bytes()))
    path.unlink()


@pytest.mark.parametrize("name", ["a:b.wav", "concat:other.wav", "file:other.wav", "http:x.wav", "pipe:0"])
def test_a_name_is_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with wave.open("other.wav", "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(bytes(64))
    tone(tmp_path / "tone.wav").rename(tmp_path / name)
    waveform, rate = read_audio(name)
    assert rate == 44_100 and waveform.shape == (1, 44_100)


def test_a_video_by_an_odd_name_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with VideoWriter("plain.mp4", 25) as writer:
        writer.write(torch.rand(3, 32, 32, 3))
    for name in ("concat:plain.mp4", "a:b.mp4", "%03d.mp4", "-.mp4"):
        shutil.copy("plain.mp4", name)
        assert len(list(VideoFrames(name))) == 3


def test_numbered_pictures_are_not_gathered(tmp_path: Path) -> None:
    for number in range(3):
        Image.new("RGB", (32, 32)).save(tmp_path / f"{number:03}.png")
    shutil.copy(tmp_path / "000.png", tmp_path / "%03d.png")
    with pytest.raises(FD2TalkError, match="not a video that can be read"):
        VideoFrames(tmp_path / "%03d.png")


@pytest.mark.parametrize(
    ("container", "codec", "name"),
    [
        ("mp4", "aac", "a.mp4"),
        ("ipod", "aac", "a.m4a"),
        ("mov", "pcm_s16le", "a.mov"),
        ("matroska", "flac", "a.mkv"),
        ("webm", "libopus", "a.webm"),
        ("ogg", "libopus", "a.opus"),
        ("mp3", "libmp3lame", "a.mp3"),
        ("adts", "aac", "a.aac"),
        ("flac", "flac", "a.flac"),
        ("wav", "pcm_f32le", "a.wav"),
        ("w64", "pcm_s16le", "a.w64"),
        ("aiff", "pcm_s16be", "a.aiff"),
        ("au", "pcm_s16be", "a.au"),
        ("caf", "pcm_s16le", "a.caf"),
        ("avi", "libmp3lame", "a.avi"),
        ("mpegts", "aac", "a.ts"),
        ("mpeg", "mp2", "a.mpg"),
        ("asf", "wmav2", "a.wma"),
        ("flv", "aac", "a.flv"),
        ("3gp", "aac", "a.3gp"),
        ("ac3", "ac3", "a.ac3"),
        ("wv", "wavpack", "a.wv"),
        ("tta", "tta", "a.tta"),
    ],
)
def test_usual_recordings_are_read(tmp_path: Path, container: str, codec: str, name: str) -> None:
    path = tmp_path / name
    with av.open(str(path), "w", format=container) as file:
        rate = 48_000 if codec == "libopus" else 44_100
        stream = file.add_stream(codec, rate=rate, layout="stereo")
        if codec == "wmav2":
            stream.bit_rate = 128_000
        time = np.arange(rate) / rate
        samples = np.stack([np.sin(2 * np.pi * 220 * time)] * 2).astype(np.float32) / 2
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
        frame.sample_rate = rate
        frame.pts = 0
        resampler = av.AudioResampler(stream.format, "stereo", rate, stream.frame_size or None)
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))
    waveform, got = read_audio(path)
    assert got == rate and waveform.shape[0] == 2 and abs(waveform.shape[1] / rate - 1) < 0.1
    assert waveform[:, rate // 4 : rate // 2].square().mean().sqrt() == pytest.approx(0.5 / 2**0.5, abs=0.02)

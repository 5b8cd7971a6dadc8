"""A clip in parts: the same frames, the same sound, and in the end the same file."""

from __future__ import annotations

import importlib
import sys
import types
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from fd2talk_core import pipeline, segments
from fd2talk_core.audio.reading import read_audio
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.names import ARKIT_NAMES, OPEN_FACE_MODEL
from fd2talk_core.formats import video
from fd2talk_core.formats.video import VideoWriter
from fd2talk_core.frames import denoising
from fd2talk_core.imaging import read_image
from fd2talk_core.join import join, main
from fd2talk_core.motion.coefficients import CoefficientSequence
from fd2talk_core.segments import Segment, parse_segment
from tests.core.test_pipeline import PORTRAIT, small_pipeline, voice

FRAMES, BLOCK = 14, 4


@pytest.fixture
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((segments, "BLOCK"), (segments, "GROUP"), (video, "GROUP"), (pipeline, "BLOCK")):
        monkeypatch.setattr(module, name, BLOCK)
    monkeypatch.setitem(denoising.LARGEST_BATCH, "cpu", BLOCK)


def packets(path: Path) -> tuple[list[tuple], list[tuple]]:
    """What the two tracks of a file hold."""
    with av.open(str(path)) as file:
        return tuple(
            [
                (packet.pts * packet.time_base, packet.is_keyframe, bytes(packet))
                for packet in file.demux(stream)
                if packet.size
            ]
            for stream in (file.streams.video[0], file.streams.audio[0])
        )


@pytest.mark.usefixtures("short_blocks")
def test_one_process_and_four_make_the_same_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    networks, sound = small_pipeline(), voice(FRAMES / 25 + 0.011, 2, 22_050)
    generator = torch.Generator().manual_seed(0)
    expression, pose = (torch.rand(FRAMES, size, generator=generator) for size in (len(ARKIT_NAMES), 6))
    options = {
        "motion": (
            CoefficientSequence("expression", expression, 25.0, OPEN_FACE_MODEL, ARKIT_NAMES),
            CoefficientSequence("pose", 0.1 * pose, 25.0, OPEN_FACE_MODEL),
        ),
        "frame_steps": 1,
        "paste_back": False,
        "eta": 0.5,
        "noise_mode": "per_frame",
    }

    # the portrait is looked at once
    reference = pipeline.encode_reference(
        read_image(PORTRAIT), networks.autoencoder, networks.landmarker, networks.face_model
    )
    monkeypatch.setattr(pipeline, "encode_reference", lambda *_, **__: reference)

    def made(segment: tuple[int, int] | None) -> tuple[torch.Tensor, torch.Tensor]:
        clip = networks(PORTRAIT, sound, segment=segment, **options)
        frames = clip.frames()
        path = tmp_path / ("whole.mp4" if segment is None else f"part_{segment[0]}.mp4")
        replace(clip, chunks=iter([frames])).save(path)  # frames are made once
        return frames, clip.audio[0]

    whole, parts = made(None), [made((index, 4)) for index in range(1, 5)]
    assert [len(frames) for frames, _ in parts] == [4, 4, 4, 2]
    assert torch.equal(torch.cat([frames for frames, _ in parts]), whole[0])
    assert torch.equal(torch.cat([heard for _, heard in parts], dim=1), sound[0])
    files = [tmp_path / f"part_{index}.mp4" for index in (3, 1, 4, 2)]
    stored = torch.cat([read_audio(tmp_path / f"part_{index}.mp4")[0] for index in range(1, 5)], dim=1)
    assert torch.equal(stored, sound[0])
    assert main([*map(str, files), "-o", str(tmp_path / "joined.mp4")]) == 0
    assert packets(tmp_path / "joined.mp4") == packets(tmp_path / "whole.mp4")
    with av.open(str(tmp_path / "joined.mp4")) as joined, av.open(str(tmp_path / "whole.mp4")) as one:
        told = {name: dict(file.metadata) for name, file in (("joined", joined), ("one", one))}
    assert told["joined"]["fd2talk_id"] == told["one"]["fd2talk_id"] and segments.TAG not in told["joined"]


@pytest.mark.parametrize("fps", [25.0, 29.97, 23.976])
@pytest.mark.parametrize("count", [1, 3, 7])
@pytest.mark.parametrize("frames", [449, 1800, 90_000])
def test_parts_are_the_whole(fps: float, count: int, frames: int) -> None:
    parts = [Segment(index, count, frames) for index in range(1, count + 1)]
    assert [frame for part in parts for frame in part.range] == list(range(frames))
    total = int(frames / fps * 44_100) + 300
    heard = [part.samples(fps, 44_100, total) for part in parts]
    assert heard[0].start == 0 and heard[-1].stop == total
    assert all(before.stop == after.start for before, after in pairwise(heard))
    begins = Fraction(heard[-1].start, 44_100) - parts[-1].range.start / Fraction(str(fps))
    assert abs(begins) <= Fraction(1, 44_100)


@pytest.mark.usefixtures("short_blocks")
def test_groups_of_an_encoder_play_as_one(tmp_path: Path) -> None:
    pictures = torch.rand(1, 32, 48, 3, generator=torch.Generator().manual_seed(0)).expand(10, -1, -1, -1)
    with VideoWriter(tmp_path / "groups.mp4", 29.97, voice(10 / 29.97), crf=0) as writer:
        for some in pictures.split(3):
            writer.write(some)
    found, _ = packets(tmp_path / "groups.mp4")
    assert [number for number, (_, key, _) in enumerate(found) if key] == [0, 4, 8]
    assert [time for time, _, _ in found] == [number / Fraction(2997, 100) for number in range(10)]
    with av.open(str(tmp_path / "groups.mp4")) as file:
        shown = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    assert len(shown) == 10 and all(np.array_equal(shown[0], frame) for frame in shown)


def write_part(path: Path, index: int, count: int, size: int = 32, frames: int = 10) -> Path:
    part = Segment(index, count, frames)
    with VideoWriter(path, 25, tags=part.tags()) as writer:
        writer.write(torch.zeros(len(part.range), size, size, 3))
    return path


@pytest.mark.usefixtures("short_blocks")
def test_what_is_not_one_clip_is_not_joined(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, third = (write_part(tmp_path / f"{index}.mp4", index, 3) for index in (1, 2, 3))
    silent = join([third, first, second], tmp_path / "joined.mp4")
    with av.open(str(silent)) as file:
        assert sum(1 for _ in file.decode(video=0)) == 10 and not file.streams.audio
    plain = tmp_path / "plain.mp4"
    with VideoWriter(plain, 25) as writer:
        writer.write(torch.zeros(1, 32, 32, 3))
    larger = write_part(tmp_path / "larger.mp4", 2, 3, 48)
    for given, words in (
        ([first, second], "3/3 is missing"),
        ([first, second, third, third], "given twice"),
        ([first, larger, third], "two clips"),
        ([plain], "no part of a clip"),
        ([tmp_path / "nothing.mp4"], "no part"),
    ):
        with pytest.raises(FD2TalkError, match=words):
            join(given, tmp_path / "new.mp4")
        assert not (tmp_path / "new.mp4").exists()
    with pytest.raises(FD2TalkError, match="is the input"):
        join([first, second, third], second)
    assert main([str(plain)]) == 2 and "no part of a clip" in capsys.readouterr().err


def test_segments_that_are_none_are_refused() -> None:
    assert parse_segment("2/4") == (2, 4)
    for text in ("2", "a/b", "-1/4", "1/", ""):
        with pytest.raises(FD2TalkError, match="2/4"):
            parse_segment(text)
    for index, count in ((0, 4), (5, 4), (1, 0)):
        with pytest.raises(FD2TalkError):
            Segment(index, count, 1000)
    with pytest.raises(FD2TalkError, match="2 segments at most"):
        Segment(1, 3, 100)


@pytest.mark.usefixtures("short_blocks")
def test_a_farm_joins_what_its_workers_bring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray as the script calls it; what a worker does is tested above."""
    farm = importlib.import_module("scripts.render_farm")
    asked = []

    def make_part(files: tuple, segment: tuple[int, int], weights: str) -> bytes:
        asked.append((files, segment, weights))
        return write_part(tmp_path / f"made_{segment[0]}.mp4", *segment).read_bytes()

    monkeypatch.setattr(farm, "make_part", make_part)
    ray = types.SimpleNamespace(
        init=lambda **options: None,
        put=lambda value: value,
        get=lambda value: value,
        remote=lambda work: types.SimpleNamespace(remote=work),
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    (tmp_path / "a.png").write_bytes(b"picture")
    (tmp_path / "b.wav").write_bytes(b"sound")
    output = str(tmp_path / "joined.mp4")
    farm.render(tmp_path / "a.png", tmp_path / "b.wav", output, parts=3, weights="tiny", address=None)
    files = b"picture", ".png", b"sound", ".wav"
    assert asked == [(files, (index, 3), "tiny") for index in (1, 2, 3)]
    with av.open(output) as file:
        assert sum(1 for _ in file.decode(video=0)) == 10

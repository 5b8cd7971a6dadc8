"""The marks of generated video: found again after what videos go through, unseen, and not where none are."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fd2talk_core import __version__, provenance
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.formats.video import VideoWriter
from fd2talk_core.formats.video_frames import VideoFrames
from fd2talk_core.imaging import read_image
from fd2talk_core.marks.benchmark import ATTACKS, cropped
from fd2talk_core.marks.clip import ClipMarks
from fd2talk_core.marks.credentials import read_credentials
from fd2talk_core.marks.defaults import CORNERS
from fd2talk_core.marks.detection import find_mark, whole_picture_chances
from fd2talk_core.marks.label import Label
from fd2talk_core.marks.payload import CODED_BITS, MarkPayload
from fd2talk_core.marks.pixels import PixelMark
from fd2talk_core.marks.report import Provenance
from fd2talk_core.marks.settings import MarkSettings, settings_path
from fd2talk_core.marks.tags import TRAINED, read_tags

ROOT = Path(__file__).parents[2]
PAYLOAD = MarkPayload.parse("0123456789a")


@pytest.fixture(scope="module")
def plain() -> Tensor:
    """``[16, 256, 256, 3]``: the example portrait, whose head sways a little before what stands still."""
    picture = read_image(ROOT / "example_inputs" / "portrait.png").movedim(-1, 0)[None]
    square = picture[..., :256, 96:352]
    lines = torch.linspace(-1, 1, 256)
    head = torch.exp(-4 * (lines[:, None].square() + lines.square()))
    frames = []
    for angle in torch.arange(16) * 0.4:
        grid = torch.stack(torch.meshgrid(lines, lines, indexing="xy"), dim=-1)
        grid = grid + 0.02 * head[..., None] * torch.stack([angle.sin(), angle.cos()])
        frames.append(F.grid_sample(square, grid[None], padding_mode="border", align_corners=True)[0])
    return torch.stack(frames).movedim(1, -1)


@pytest.fixture(scope="module")
def marked(plain: Tensor) -> Tensor:
    return PixelMark(PAYLOAD).add_to(plain)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    return tmp_path


def test_a_payload_survives_errors_and_noise_is_none() -> None:
    generator = np.random.default_rng(0)
    sent = PAYLOAD.encode()
    assert sent.shape == (CODED_BITS,)
    for _ in range(20):
        assert MarkPayload.decode(sent + 0.8 * generator.normal(size=CODED_BITS)) == PAYLOAD
    # a tenth of the bits turned over
    turned = np.where(generator.permutation(CODED_BITS) < CODED_BITS // 10, -sent, sent)
    assert MarkPayload.decode(turned) == PAYLOAD
    assert all(MarkPayload.decode(generator.normal(size=CODED_BITS)) is None for _ in range(200))


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_mark_is_read_after(attack: str, marked: Tensor, tmp_path: Path) -> None:
    found = find_mark(ATTACKS[attack](marked, tmp_path))
    assert found.payload == PAYLOAD
    assert found.false_alarm < 1e-6


def test_the_mark_is_not_seen(plain: Tensor, marked: Tensor) -> None:
    """As faint in 8 bits as promised, and the same in every frame, so that nothing flickers."""
    error = ((plain * 255).round() - (marked * 255).round()).square().mean(dim=(1, 2, 3))
    assert 20 * torch.log10(255 / error.sqrt()).min() >= 42
    free = ((marked > 0) & (marked < 1)).all(dim=0)
    added = (marked - plain)[:, free]
    assert free.float().mean() > 0.9
    torch.testing.assert_close(added, added[:1].expand_as(added), atol=1e-6, rtol=0)


def test_frames_are_marked_alike_however_they_come(plain: Tensor, marked: Tensor) -> None:
    before = plain.clone()
    mark = PixelMark(PAYLOAD)
    assert torch.equal(torch.cat([mark.add_to(part) for part in plain.split((1, 5, 10))]), marked)
    assert torch.equal(plain, before)


def test_where_a_crop_lies_is_told(marked: Tensor, tmp_path: Path) -> None:
    found = find_mark(cropped(0.8, 0.8, 0.0, 1.0)(marked, tmp_path))
    assert found.share == pytest.approx((0.8, 0.8), abs=0.01)


def test_a_clip_within_a_marked_clip_has_its_own_mark(marked: Tensor) -> None:
    """As with two people, whose second is put into the frames of the first."""
    other = MarkPayload.parse("ba987654321")
    assert find_mark(PixelMark(other).add_to(marked)).payload == other


def test_an_unmarked_video_has_no_mark(plain: Tensor, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with VideoWriter(tmp_path / "plain.mp4", 25) as writer:
        writer.write(plain)
    assert provenance.main([str(tmp_path / "plain.mp4")]) == 1
    said = capsys.readouterr().out
    assert "Pixel mark: none found (16 frames" in said
    assert "generated" not in said


def test_a_search_is_stopped_within_a_step(plain: Tensor) -> None:
    seen: list[tuple[int, int]] = []

    def stop(done: int, total: int, _: object) -> None:
        seen.append((done, total))
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_mark(plain[:2], stop)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen) and seen[0][0] == 0
    assert {total for _, total in seen} == {7}


def test_chance_is_not_underestimated(plain: Tensor) -> None:
    """Of unmarked pictures no larger share reaches a probability than that probability."""
    generator = torch.Generator().manual_seed(0)
    chances = []
    for _ in range(100):
        top, left = torch.randint(0, 96, (2,), generator=generator).tolist()
        side = int(torch.randint(120, 160, (1,), generator=generator))
        chances += whole_picture_chances(plain[0, top : top + side, left : left + side])
    assert sum(chance < 0.1 for chance in chances) <= 30
    assert sum(chance < 0.001 for chance in chances) <= 2
    assert min(chances) > 1e-6


def test_the_same_clip_has_the_same_id_and_another_has_another(home: Path) -> None:
    values = torch.arange(6.0)
    first = ClipMarks.of(values, 0, "shared").payload
    assert ClipMarks.of(values.clone(), 0, "shared").payload == first
    others = [ClipMarks.of(values, 1, "shared"), ClipMarks.of(values + 1, 0, "shared"), ClipMarks.of(values)]
    assert len({first, *(other.payload for other in others)}) == 4


def test_the_owner_turns_marks_off(home: Path, plain: Tensor) -> None:
    assert MarkSettings.read() == MarkSettings()
    assert settings_path() == home / ".fd2talk" / "marks.json"
    settings_path().parent.mkdir()
    settings_path().write_text(json.dumps({"pixel_mark": False, "file_tags": False}))
    marks = ClipMarks.of(0)
    assert torch.equal(marks.join(iter([plain])), plain)
    assert marks.on_file() == {}
    settings_path().write_text(json.dumps({"file_tags": False}))
    assert not torch.equal(ClipMarks.of(0).join(iter([plain])), plain)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[]", "no JSON object"),
        ("{", "no JSON object"),
        ("[" * 5000, "no JSON object"),
        ('{"pixels": false}', "'pixels', but these are known: pixel_mark"),
        ('{"pixel_mark": 0}', "'pixel_mark'.*true or false"),
        (" " * 70_000, "no JSON object"),
    ],
)
def test_settings_that_are_none_stop_the_work(home: Path, text: str, reason: str) -> None:
    settings_path().parent.mkdir()
    settings_path().write_text(text)
    with pytest.raises(FD2TalkError, match=reason):
        ClipMarks.of(0)


@pytest.fixture
def tagged(home: Path, plain: Tensor) -> tuple[Path, str]:
    """A video as every path writes it, and its id."""
    marks = ClipMarks.of("clip")
    with VideoWriter(home / "tagged.mp4", 25, **marks.on_file()) as writer:
        for chunk in marks.add_to(iter(plain.split(5))):
            writer.write(chunk)
    return home / "tagged.mp4", str(marks.payload)


def test_the_file_says_how_it_was_made(tagged: tuple[Path, str]) -> None:
    path, identifier = tagged
    tags = read_tags(path)
    assert tags["digitalSourceType"] == TRAINED
    assert tags["fd2talk_id"] == identifier
    assert tags["software"].startswith("FD2Talk for ComfyUI ")
    aigc = json.loads(tags["AIGC"])
    assert (aigc["Label"], aigc["ProduceID"]) == ("1", identifier)
    assert tags["creation_time"][:2] == "20"
    assert path.read_bytes().count(b"<Iptc4xmpExt:DigitalSourceType") == 0, "an attribute, not an element"
    assert path.read_bytes().count(f'Iptc4xmpExt:DigitalSourceType="{TRAINED}"'.encode()) == 1
    assert len(list(VideoFrames(path))) == 16


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffprobe is not installed")
def test_ffprobe_shows_tags_and_xmp(tagged: tuple[Path, str]) -> None:
    path, identifier = tagged
    command = ["ffprobe", "-v", "error", "-export_xmp", "1", "-show_format", "-of", "json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and not done.stderr, done.stderr
    tags = json.loads(done.stdout)["format"]["tags"]
    assert {"software", "digitalSourceType", "AIGC", "fd2talk_id", "creation_time"} <= tags.keys()
    assert identifier in tags["xmp"] and TRAINED in tags["xmp"]


def test_a_marked_file_is_reported(tagged: tuple[Path, str], capsys: pytest.CaptureFixture) -> None:
    path, identifier = tagged
    assert provenance.main([str(path)]) == 0
    said = capsys.readouterr().out
    assert f"id {identifier}, version 1" in said and f"fd2talk_id: {identifier}" in said
    assert "exchanged" not in said
    exchanged = Provenance(find_mark(VideoFrames(path)), {"fd2talk_id": "0" * 11})
    assert "tags or frames were exchanged" in str(exchanged)


def test_what_is_no_video_is_told_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "none.mp4").write_bytes(b"nothing")
    for arguments in ([str(tmp_path / "none.mp4")], [str(tmp_path / "absent.mp4")], []):
        assert provenance.main(arguments) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "Traceback" not in said


@pytest.fixture
def certificate(home: Path) -> Path:
    """This machine has made one."""
    for package in ("c2pa", "cryptography"):
        if importlib.util.find_spec(package) is None:
            reason = f"{package} is not installed; pip install c2pa-python cryptography"
            (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    assert provenance.main(["--make-certificate"]) == 0
    return home / ".fd2talk" / "c2pa_certificate.pem"


def test_a_signed_file_names_its_maker_and_keeps_what_its_parts_say(
    certificate: Path, home: Path, plain: Tensor, capsys: pytest.CaptureFixture
) -> None:
    """The second video is made from the first, whose signed statement is in it, from a picture and a text."""
    import c2pa

    portrait = ROOT / "example_inputs" / "portrait.png"
    for name, inputs in (("first", (portrait,)), ("second", (home / "first.mp4", portrait, "motion.json"))):
        marks = ClipMarks.of(name)
        with VideoWriter(home / f"{name}.mp4", 25, **marks.on_file(inputs)) as writer:
            for chunk in marks.add_to(iter([plain])):
                writer.write(chunk)
    assert sorted(path.name for path in home.iterdir()) == [".fd2talk", "first.mp4", "second.mp4"]
    capsys.readouterr()
    assert provenance.main([str(home / "second.mp4")]) == 0
    said = capsys.readouterr().out
    assert f"made by FD2Talk for ComfyUI {__version__}, titled 'FD2Talk {marks.payload}'" in said
    assert "signed by FD2Talk for ComfyUI, self-made, Valid (signingCredential.untrusted)" in said
    assert "made from: video, with content credentials of its own\n" in said
    assert "made from: picture\n" in said and "portrait" not in said
    assert f"fd2talk_id: {marks.payload}" in said, "the tags are still there"
    with c2pa.Reader("video/mp4", (home / "second.mp4").open("rb")) as reader:
        told = json.loads(reader.json())
    assert len(told["manifests"]) == 2
    assert TRAINED in json.dumps(told["manifests"][told["active_manifest"]])
    # a frame exchanged: the signature tells
    changed = bytearray((home / "second.mp4").read_bytes())
    changed[changed.index(b"mdat") + 2000] ^= 255
    (home / "changed.mp4").write_bytes(changed)
    assert "assertion.bmffHash.mismatch" in " ".join(read_credentials(home / "changed.mp4"))


def test_a_copy_is_signed_again_and_what_is_not_ours_is_not(
    certificate: Path, tagged: tuple[Path, str], plain: Tensor, capsys: pytest.CaptureFixture
) -> None:
    """``certificate`` comes first, so the tagged file is signed; copied as a host saves it, it is no more."""
    path, identifier = tagged
    copy = path.with_name("copy.mp4")
    options = {"movflags": "use_metadata_tags"}
    with av.open(str(path)) as source, av.open(str(copy), "w", options=options) as target:
        target.metadata.update(source.metadata)
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    assert read_credentials(path) and not read_credentials(copy)
    assert provenance.main(["--sign", str(copy)]) == 0
    assert "Valid" in " ".join(read_credentials(copy)) and read_tags(copy)["fd2talk_id"] == identifier
    with VideoWriter(path.with_name("plain.mp4"), 25) as writer:
        writer.write(plain)
    assert provenance.main(["--sign", str(path.with_name("plain.mp4"))]) == 2
    assert "do not say that FD2Talk made it" in capsys.readouterr().err


def test_a_certificate_that_cannot_sign_stops_the_work_at_once(certificate: Path, home: Path) -> None:
    assert (home / ".fd2talk" / "c2pa_key.pem").stat().st_mode & 0o077 == 0 or os.name == "nt"
    assert "PRIVATE" not in repr(ClipMarks.of(0))
    assert provenance.main(["--make-certificate"]) == 2, "never written over"
    certificate.write_text("none")
    with pytest.raises(FD2TalkError, match="cannot sign"):
        ClipMarks.of(0)
    certificate.unlink()
    with pytest.raises(FD2TalkError, match="cannot be read"):
        ClipMarks.of(0)
    settings_path().write_text(json.dumps({"c2pa_key": "key.pem"}))
    with pytest.raises(FD2TalkError, match="both c2pa_certificate and c2pa_key"):
        ClipMarks.of(0)


@pytest.mark.parametrize("corner", CORNERS)
def test_a_label_stands_in_its_corner(corner: str, plain: Tensor) -> None:
    changed = (Label("AI-generated", corner).add_to(plain[:2]) != plain[:2]).any(dim=-1)[1].float()
    rows, columns = changed.nonzero().unbind(1)
    assert 12 <= rows.max() - rows.min() < 40, "letters of a twentieth of the picture, and a margin"
    assert (rows.min() == 0) if corner.startswith("top") else (rows.max() == 255)
    assert (columns.min() == 0) if corner.endswith("left") else (columns.max() == 255)


def test_a_long_label_is_written_smaller_and_a_bad_one_refused(plain: Tensor) -> None:
    long = Label("This video was generated by a machine; nobody said these words", size=0.2).add_to(plain[:1])
    assert long.shape == plain[:1].shape and not torch.equal(long, plain[:1])
    for label, reason in (
        ({"text": "a\nb"}, "one line"),
        ({"text": "x" * 121}, "one line"),
        ({"text": "AI", "corner": "middle"}, "label_corner"),
        ({"text": "AI", "size": float("nan")}, "label_size"),
        ({"text": "AI生成"}, "no '生成'"),
        ({"text": "AI", "font": "/absent.ttf"}, "cannot be read"),
    ):
        with pytest.raises(FD2TalkError, match=reason):
            Label(**label)
    assert Label.of("", "anywhere", -1.0) is None


def test_the_benchmark_tells_a_table(plain: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fd2talk_core.marks import benchmark

    with VideoWriter(tmp_path / "plain.mp4", 25, crf=1) as writer:
        writer.write(plain)
    monkeypatch.setattr(benchmark, "ATTACKS", {"none": lambda frames, folder: frames})
    monkeypatch.setattr(benchmark, "HARDER", {})
    monkeypatch.setattr(benchmark, "UNMARKED", 20)
    monkeypatch.setattr(benchmark, "SEARCHED_WHOLE", 0)
    monkeypatch.setattr(benchmark, "find_mark", lambda frames: find_mark(marked_or_none(frames)))
    seen: list[int] = []

    def marked_or_none(frames: Tensor) -> Tensor:
        seen.append(len(frames))
        return frames if len(seen) > 1 else frames[:0]

    lines: list[str] = []
    benchmark.run(tmp_path / "plain.mp4", 4, lines.append)
    told = "\n".join(lines)
    assert "4 frames of 256 by 256" in told and "PSNR: 4" in told and "a frame" in told
    assert [line.split()[:2] for line in lines if line.startswith("none")] == [["none", "yes"]]
    assert "of 40" in told

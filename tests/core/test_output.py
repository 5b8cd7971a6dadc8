"""Forty odd outputs, six moments of kill -9: inputs and earlier files stay whole, whatever ends the work."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import av
import pytest
import torch
from PIL import Image

from fd2talk_core import configs
from fd2talk_core.__main__ import main
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.files import replacing
from fd2talk_core.formats.sequences import save_motion
from fd2talk_core.formats.video import VideoWriter
from fd2talk_core.motion.editing import idle_motion
from fd2talk_core.networks.checkpoint import CheckpointInfo, save_checkpoint
from fd2talk_core.pipeline import FD2TalkPipeline, TalkingVideo
from tests.host.media import write_wav

ROOT = Path(__file__).parents[2]
EARLIER = b"an earlier good video"
linux = pytest.mark.skipif(not hasattr(os, "fork"), reason="signals and forks are POSIX's")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A portrait and a voice of two frames."""
    folder = tmp_path_factory.mktemp("inputs")
    portrait = Image.open(ROOT / "example_inputs" / "portrait.png").convert("RGB")
    portrait.thumbnail((192, 192))
    portrait.save(folder / "portrait.png")
    generator = torch.Generator().manual_seed(0)
    write_wav(folder / "speech.wav", 0.1 * torch.randn(1, 1280, generator=generator), 16_000)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def folder(inputs: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command line is run: the inputs and links to them, an earlier video, a folder, a pipe."""
    monkeypatch.chdir(tmp_path)
    for name, content in inputs.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "speech.mp4").write_bytes(inputs["speech.wav"])
    (tmp_path / "portrait.mp4").write_bytes(inputs["portrait.png"])
    (tmp_path / "earlier.mp4").write_bytes(EARLIER)
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "empty").mkdir()
    if os.name == "posix":
        (tmp_path / "link.mp4").symlink_to("portrait.mp4")
        (tmp_path / "chain.mp4").symlink_to("link.mp4")
        (tmp_path / "hard.mp4").hardlink_to("speech.mp4")
        (tmp_path / "loop.mp4").symlink_to("loop.mp4")
        (tmp_path / "null.mp4").symlink_to("/dev/null")
        (tmp_path / "to_folder.mp4").symlink_to("empty")
        os.mkfifo(tmp_path / "pipe.mp4")
    return tmp_path


def whole(folder: Path) -> dict[str, object]:
    """What lies in a folder: content of files, kind of all else."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        if stat.S_ISREG(path.lstat().st_mode)
        else path.lstat().st_mode
        for path in folder.rglob("*")
    }


REFUSED = [
    ("portrait.png", "is the input"),
    ("portrait.mp4", "is the input"),
    ("./portrait.mp4", "is the input"),
    ("empty/../portrait.mp4", "is the input"),
    ("speech.mp4", "is the input"),
    ("link.mp4", "is the input"),
    ("chain.mp4", "is the input"),
    ("hard.mp4", "is the input"),
    ("loop.mp4", "cannot be written"),
    ("null.mp4", "a device"),
    ("pipe.mp4", "a device"),
    ("/dev/null", "a device"),
    ("folder.mp4", "a folder"),
    ("to_folder.mp4", "a folder"),
    ("empty", "a folder"),
    ("empty/", "a folder"),
    ("new/", "a folder"),
    ("new.mp4/", "a folder"),
    (".", "a folder"),
    ("..", "a folder"),
    ("/", "a folder"),
    ("", "cannot be written"),
    ("http://127.0.0.1:9/a.mp4", "is an address"),
    ("rtmp://127.0.0.1:9/a.mp4", "is an address"),
    ("file:///tmp/a.mp4", "is an address"),
    ("pipe:1", "ending"),
    ("-", "ending"),
    ("talking", "ending"),
    ("talking.mkv", "ending '.mkv'"),
    ("talking.mov", "ending"),
    ("talking.webm", "ending"),
    ("talking.m3u8", "ending"),
    ("talking.png", "ending"),
    ("talking.mp4.txt", "ending"),
    (".mp4", "ending"),
    ("talking.mp4 ", "ending"),
    ("portrait.png/talking.mp4", "cannot be written"),
    ("earlier.mp4/talking.mp4", "cannot be written"),
    ("nul\0.mp4", "cannot be written"),
    ("x" * 260 + ".mp4", "cannot be written"),
    ("new/" + "x" * 260 + ".mp4", "cannot be written"),
]
WRITTEN = [
    "new.mp4",
    "earlier.mp4",
    "NEW.MP4",
    "deep/er/new.mp4",
    "a:b.mp4",
    "concat:portrait.mp4",
    "tee:a|b.mp4",
    "%03d.mp4",
    "two words, 'quoted' \"twice\".mp4",
    "Gesicht – 顔 🙂.mp4",
    "line\nend.mp4",
    "-.mp4",
    "x" * 251 + ".mp4",
    os.fsdecode(b"bytes\xff.mp4"),
]


@linux
@pytest.mark.parametrize(("output", "words"), REFUSED)
def test_an_odd_output_is_refused_before_anything_is_done(
    folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, output: str, words: str
) -> None:
    monkeypatch.setattr(FD2TalkPipeline, "from_pretrained", lambda *_, **__: pytest.fail("work was begun"))
    before = whole(folder)
    picture = "portrait.png" if output == "portrait.png" else "portrait.mp4"
    assert main([picture, "speech.mp4", f"--output={output}"]) == 2
    told = capsys.readouterr().err.strip()
    assert words in told and told.startswith("The output")
    assert whole(folder) == before


@pytest.fixture(scope="module")
def pipeline() -> FD2TalkPipeline:
    return FD2TalkPipeline.from_pretrained("tiny")


def arguments(output: Path | str) -> list[str]:
    return [
        "portrait.png",
        "speech.wav",
        "--motion-steps=1",
        "--frame-steps=1",
        "--crop",
        f"--output={output}",
    ]


def frames_of(path: Path) -> int:
    with open(path, "rb") as file, av.open(file) as video:
        return sum(1 for _ in video.decode(video=0))


@linux
@pytest.mark.parametrize("output", WRITTEN)
def test_an_odd_name_is_written_as_it_is(
    pipeline: FD2TalkPipeline, folder: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    def spoken(*_: object, **__: object) -> TalkingVideo:
        return a_video(folder, chunks=iter([torch.rand(2, 192, 192, 3)]), num_frames=2)

    # what is said does not depend on the name: the networks speak for one of them
    speaker = pipeline if output == "new.mp4" else spoken
    monkeypatch.setattr(FD2TalkPipeline, "from_pretrained", lambda *_, **__: speaker)
    before = whole(folder)
    assert main(arguments(output)) == 0
    after = whole(folder)
    made = after.pop(str(Path(output)))
    assert len(made) > 1000 and frames_of(folder / output) == 2
    before.pop(output, None)
    assert {name: kept for name, kept in after.items() if name in before} == before
    assert not [name for name in after if name.endswith(".part")]


# What ends the work


def a_video(folder: Path, **changes: object) -> TalkingVideo:
    values = {"chunks": iter([torch.rand(2, 32, 32, 3)] * 2), "num_frames": 4, "fps": 25.0}
    return TalkingVideo(**values | {"audio": (torch.zeros(1, 2560), 16_000)} | changes)


def test_a_failure_and_a_second_save_keep_the_earlier_video(folder: Path) -> None:
    def failing():
        yield torch.rand(2, 32, 32, 3)
        raise RuntimeError("out of memory")

    before = whole(folder)
    with pytest.raises(RuntimeError, match="out of memory"):
        a_video(folder, chunks=failing()).save("earlier.mp4")
    assert whole(folder) == before
    video = a_video(folder)
    video.save("new.mp4")
    saved = whole(folder)
    with pytest.raises(FD2TalkError, match="0 of 4 frames were left"):
        video.save("new.mp4")
    with pytest.raises(FD2TalkError, match="No frame was written"), VideoWriter("earlier.mp4", 25):
        pass
    assert whole(folder) == saved
    with pytest.raises(FD2TalkError, match="is the input"):
        a_video(folder, inputs=("portrait.mp4",)).save("link.mp4")


@linux
def test_what_is_written_has_the_mode_of_the_umask(folder: Path) -> None:
    umask = os.umask(0o027)
    try:
        save_motion("motion.safetensors", pose=idle_motion(5, 25.0, 0))
        save_motion("motion.json", pose=idle_motion(5, 25.0, 0))
        a_video(folder).save("new.mp4")
        save_checkpoint(configs.build("lip_expert", "tiny"), "network.safetensors", CheckpointInfo())
    finally:
        os.umask(umask)
    for name in ("motion.safetensors", "motion.json", "new.mp4", "network.safetensors"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o640


def test_a_link_stays_a_link(folder: Path) -> None:
    (folder / "linked.mp4").symlink_to("earlier.mp4")
    a_video(folder).save("linked.mp4")
    assert (folder / "linked.mp4").is_symlink() and frames_of(folder / "earlier.mp4") == 4


def test_nothing_is_renamed_before_it_is_on_the_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = []
    flush, rename = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append(os.fstat(handle).st_size), flush(handle)))
    monkeypatch.setattr(Path, "replace", lambda old, new: (done.append("renamed"), rename(old, new)))
    with replacing(folder / "new.txt") as partial:
        partial.write_bytes(b"x" * 123)
    assert done[:2] == [123, "renamed"]


def test_what_killed_processes_left_of_a_file_goes_where_no_other_writes_it(tmp_path: Path) -> None:
    left = tmp_path / f".state.{'0a' * 8}.part"
    others = [tmp_path / name for name in (f".states.{'0a' * 8}.part", ".state.part", "state.bin", "a.txt")]
    for path in (left, *others):
        path.write_text("half")
    with replacing(tmp_path / "state.safetensors") as partial:
        partial.write_text("whole")
    assert left.exists()
    with replacing(tmp_path / "state.safetensors", alone=True) as partial:
        partial.write_text("whole")
    assert not left.exists() and all(path.read_text() == "half" for path in others)
    assert (tmp_path / "state.safetensors").read_text() == "whole"


SERVER = """
import os, resource, signal, sys
sys.path.insert(0, {root!r})
import torch
torch.set_num_threads(1)
from fd2talk_core.__main__ import main
from fd2talk_core.pipeline import FD2TalkPipeline
# all that a run imports and reads is there, so that a child does the work and nothing else
ready = FD2TalkPipeline.from_pretrained("tiny")
FD2TalkPipeline.from_pretrained = lambda *_, **__: ready
for line in sys.stdin:
    limit, _, arguments = line.strip().partition(" ")
    child = os.fork()
    if not child:
        os.dup2(2, 1)
        if int(limit):
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
        status = 99
        try:
            status = main(arguments.split("\\t"))
        finally:
            os._exit(status)
    print(child, flush=True)
    _, status = os.waitpid(child, 0)
    print(status, flush=True)
"""


@pytest.fixture(scope="module")
def server():
    """A process in which each run of the command line is a fork: imports and weights are paid once."""
    if not hasattr(os, "fork"):
        pytest.skip("forks are POSIX's")
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER.format(root=str(ROOT))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    yield process
    process.kill()
    process.communicate()


def run(
    server: subprocess.Popen,
    folder: Path,
    number: signal.Signals | None = None,
    after: float = 0.0,
    limit: int = 0,
    writing: bool = False,
) -> tuple[int, float]:
    """Run the command line over an earlier video, end it by a signal; returns its wait status and seconds.

    Args:
        after: seconds before the signal, from the start or, when ``writing``, from when a file is begun.
        limit: of a file's size in bytes, as a full disk sets it.
    """
    words = [str(folder / "portrait.png"), str(folder / "speech.wav"), *arguments(folder / "earlier.mp4")[2:]]
    started = time.monotonic()
    server.stdin.write(f"{limit} " + "\t".join(words) + "\n")
    server.stdin.flush()
    child = int(server.stdout.readline())
    if number is not None:
        with contextlib.suppress(ProcessLookupError):  # it was done already
            while writing and not list(folder.glob(".*.part")):
                os.kill(child, 0)
                time.sleep(0.001)
            time.sleep(after)
            os.kill(child, number)
    return int(server.stdout.readline()), time.monotonic() - started


def remains(folder: Path, inputs: dict[str, bytes]) -> bool:
    """Check that the inputs are whole, and the video is the earlier one or a whole new one; True if new."""
    for name, content in inputs.items():
        assert (folder / name).read_bytes() == content
    new = (folder / "earlier.mp4").read_bytes() != EARLIER
    assert not new or frames_of(folder / "earlier.mp4") == 2
    return new


@linux
@pytest.mark.slow
def test_six_moments_of_kill_9(server: subprocess.Popen, folder: Path, inputs: dict[str, bytes]) -> None:
    status, seconds = run(server, folder)
    assert status == 0 and remains(folder, inputs)
    kept = 0
    # two of them before the file is begun, four while it is written
    for after, writing in (
        (0.1, False),
        (seconds / 2, False),
        *((after, True) for after in (0, 0.01, 0.05, 0.2)),
    ):
        (folder / "earlier.mp4").write_bytes(EARLIER)
        for left in folder.glob(".*.part"):
            left.unlink()
        status, _ = run(server, folder, signal.SIGKILL, after, writing=writing)
        assert status in (0, signal.SIGKILL)
        kept += not remains(folder, inputs)
    assert kept >= 2


@linux
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_leaves_nothing_behind(
    server: subprocess.Popen, folder: Path, inputs: dict[str, bytes], name: str
) -> None:
    number = signal.Signals[name]
    _, seconds = run(server, folder)
    (folder / "earlier.mp4").write_bytes(EARLIER)
    for share in (0.4, 0.8):
        status, _ = run(server, folder, number, seconds * share)
        assert os.waitstatus_to_exitcode(status) in (0, 128 + number)
        remains(folder, inputs)
        assert not list(folder.glob(".*.part"))


@linux
def test_a_full_disk_keeps_the_earlier_video(
    server: subprocess.Popen, folder: Path, inputs: dict[str, bytes]
) -> None:
    for limit in (1, 3000):
        status, _ = run(server, folder, limit=limit)
        assert os.waitstatus_to_exitcode(status) == 2
        assert not remains(folder, inputs) and not list(folder.glob(".*.part"))

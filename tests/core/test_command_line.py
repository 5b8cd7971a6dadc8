"""The command line as a process: what it costs to ask for its options, and that it opens no connection."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from PIL import Image

from tests.host.media import write_wav

ROOT = Path(__file__).parents[2]

TALK = """
import sys

deeds = []  # also those that a library expects to fail

TALK = ("socket.connect", "socket.gethost", "socket.getaddrinfo", "socket.send", "socket.bind")
PROGRAMS = ("subprocess.Popen", "os.system", "os.posix_spawn", "os.exec")

def watch(event, arguments):
    # urllib3 asks the system for IPv6 by a socket of this machine alone
    if event.startswith((*TALK, *PROGRAMS)) and arguments[1:] != (("::1", 0),):
        deeds.append(f"{event} {arguments}")
        raise RuntimeError(f"opens a connection or starts a program: {deeds[-1]}")

sys.addaudithook(watch)
from fd2talk_core.__main__ import main
status = main(sys.argv[1:])
if deeds:
    sys.exit(repr(deeds))
import socket
try:
    socket.create_connection(("127.0.0.1", 9))
except RuntimeError:
    print("watched to the end")
sys.exit(status)
"""


def python(script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"OMP_NUM_THREADS": "1", **variables}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def test_a_run_opens_no_connection_and_starts_no_program(tmp_path: Path) -> None:
    """With a home that holds nothing which was fetched before."""
    portrait = Image.open(ROOT / "example_inputs" / "portrait.png").convert("RGB")
    portrait.thumbnail((192, 192))
    portrait.save(tmp_path / "portrait.png")
    generator = torch.Generator().manual_seed(0)
    write_wav(tmp_path / "speech.wav", 0.1 * torch.randn(1, 1280, generator=generator), 16_000)
    video = tmp_path / "talking.mp4"
    line = [str(tmp_path / "portrait.png"), str(tmp_path / "speech.wav"), f"--output={video}", "--crop"]
    home = str(tmp_path / "home")
    done = python(TALK, *line, "--motion-steps=1", "--frame-steps=1", HOME=home, USERPROFILE=home)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "watched to the end" in done.stdout and video.stat().st_size > 1000


def test_the_options_are_read_without_torch() -> None:
    done = python(
        "import sys; from fd2talk_core.__main__ import parse_arguments; parse_arguments(['a.png', 'b.wav']);"
        "print(sorted({'torch', 'numpy', 'transformers'} & sys.modules.keys()))"
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_the_policies_of_a_driving_video_are_those_that_the_core_takes() -> None:
    from fd2talk_core.motion import defaults, tracking

    assert tracking.MISSING_POLICIES is defaults.MISSING_POLICIES
    done = python("from fd2talk_core.__main__ import main; main(['--help'])", COLUMNS="200")
    assert "{" + ",".join(tracking.MISSING_POLICIES) + "}" in done.stdout

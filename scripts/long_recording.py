"""``python scripts/long_recording.py``: the memory that a long recording takes in a real ComfyUI.

Runs the default workflow as it is, with the weights that ship, on ten seconds of speech and on ten minutes
(the example, again and again), and prints the host's peak resident memory after each. One frame per second by
default, since the length is the point; ``--fps 25`` is the real thing, and takes about an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
import wave
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)

from scripts.comfyui import ComfyUIServer  # noqa: E402
from scripts.environment import ROOT, prepare, say  # noqa: E402

WORKFLOW = ROOT / "workflows" / "api" / "talking_portrait.json"
SPEECH = ROOT / "example_inputs" / "speech.wav"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python scripts/long_recording.py", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="length of the recording")
    parser.add_argument("--fps", type=float, default=1, help="frames per second of the video")
    parser.add_argument("--threads", type=int, help="processor threads for ComfyUI")
    options = parser.parse_args()

    python = prepare()
    with (
        tempfile.TemporaryDirectory() as base,
        ComfyUIServer(Path(base), python, threads=options.threads) as server,
    ):
        say(f"started: {peak_mib(server.pid):.0f} MiB")
        for seconds in (10.0, 60 * options.minutes):
            say_again(server.folder("input") / "long.wav", seconds)
            graph = json.loads(WORKFLOW.read_text(encoding="utf-8"))
            for node in graph.values():
                if node["class_type"] == "LoadAudioWav2Vec":
                    node["inputs"] |= {"audio_file": "long.wav", "fps": options.fps}
            began = time.monotonic()
            outputs = server.run(graph, seconds=6 * 3600)
            (saver,) = (name for name, node in graph.items() if node["class_type"] == "SaveVideo")
            video = server.path_of(outputs[saver]["images"][0])
            say(
                f"{seconds:g} s of speech at {options.fps:g} frames per second: peak "
                f"{peak_mib(server.pid):.0f} MiB resident, {time.monotonic() - began:.0f} s, "
                f"a video of {video.stat().st_size / 2**20:.1f} MiB"
            )
    return 0


def say_again(path: Path, seconds: float) -> None:
    """The example speech, repeated until it is this long."""
    with wave.open(str(SPEECH)) as given, wave.open(str(path), "wb") as made:
        made.setparams(given.getparams())
        spoken = given.readframes(given.getnframes())
        length = round(seconds * given.getframerate()) * given.getsampwidth() * given.getnchannels()
        made.writeframes((spoken * (length // len(spoken) + 1))[:length])


def peak_mib(pid: int) -> float:
    """Peak resident memory of a process so far, in MiB, as Linux counts it."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


if __name__ == "__main__":
    sys.exit(main())

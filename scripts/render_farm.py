"""One long clip by a Ray cluster: each worker makes a part, and the parts are joined to one video.

    pip install ray
    python scripts/render_farm.py portrait.png speech.wav -o talking.mp4 --parts 16

Workers need this repository's packages. Files travel with the tasks, so no shared disk is needed. Parts are
the same whoever makes them, but for machines whose processors round otherwise.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)

from fd2talk_core.join import join  # noqa: E402
from fd2talk_core.terminal import run_command  # noqa: E402


def make_part(files: tuple[bytes, str, bytes, str], segment: tuple[int, int], weights: str) -> bytes:
    """One part's MP4, made of the bytes and endings of portrait and voice."""
    from fd2talk_core import FD2TalkPipeline

    with tempfile.TemporaryDirectory() as folder:
        portrait, voice = (
            Path(folder) / f"{name}{files[at]}" for name, at in (("portrait", 1), ("voice", 3))
        )
        portrait.write_bytes(files[0])
        voice.write_bytes(files[2])
        clip = FD2TalkPipeline.from_pretrained(weights)(portrait, voice, segment=segment)
        return clip.save(Path(folder) / "part.mp4").read_bytes()


def render(portrait: Path, voice: Path, output: str, parts: int, weights: str, address: str | None) -> Path:
    """Hand the parts to the workers, and join what they bring."""
    import ray

    ray.init(address=address, runtime_env={"working_dir": sys.path[0]} if address else None)
    files = ray.put((portrait.read_bytes(), portrait.suffix, voice.read_bytes(), voice.suffix))
    task = ray.remote(make_part)
    made = [task.remote(files, (index, parts), weights) for index in range(1, parts + 1)]
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"part_{index}.mp4" for index in range(1, parts + 1)]
        for path, content in zip(paths, made, strict=True):
            path.write_bytes(ray.get(content))
        return join(paths, output)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("portrait", type=Path)
    parser.add_argument("voice", type=Path)
    parser.add_argument("-o", "--output", default="talking.mp4")
    parser.add_argument("--parts", type=int, default=2)
    parser.add_argument("--weights", default="tiny")
    parser.add_argument("--address", help="of the cluster; this machine alone without one")
    sys.exit(run_command(lambda: render(**vars(parser.parse_args()))))

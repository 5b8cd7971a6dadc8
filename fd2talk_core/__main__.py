"""``python -m fd2talk_core portrait.png speech.wav -o talking.mp4``"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .files import check_output
from .frames.defaults import DEFAULT_DETAIL
from .marks.defaults import CORNERS, LABEL_SIZE
from .motion.defaults import MISSING_POLICIES
from .terminal import run_command


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line, whose options are those of :meth:`FD2TalkPipeline.__call__`."""
    parser = argparse.ArgumentParser(prog="python -m fd2talk_core", description="Make a portrait speak.")
    parser.add_argument("image", type=Path, help="the portrait, a picture file")
    parser.add_argument("audio", type=Path, nargs="?", help="the voice, a sound or video file")
    parser.add_argument(
        "--driving", type=Path, metavar="VIDEO", help="move as this video; its sound too, without a voice"
    )
    parser.add_argument(
        "--missing-faces", choices=MISSING_POLICIES, default="error", help="of the driving video"
    )
    parser.add_argument("--motion", type=Path, metavar="FILE", help="expression and pose from a file")
    parser.add_argument("--save-motion", metavar="FILE", help="write expression and pose to a file")
    parser.add_argument("-o", "--output", default="talking.mp4", help="the MP4 to write")
    parser.add_argument("--weights", default="tiny", help="a shipped set or a folder of checkpoints")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps")
    parser.add_argument("--fps", type=float, help="frames per second, 1 to 120; that of the motion, or 25")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--motion-steps", type=int, help="sampling steps of the motion transformers")
    parser.add_argument("--frame-steps", type=int, help="sampling steps of the frames")
    parser.add_argument("--guidance", type=float, default=1.0, help="strength of the audio on the motion")
    parser.add_argument("--expression-intensity", type=float, default=1.0)
    parser.add_argument("--pose-intensity", type=float, default=1.0)
    parser.add_argument("--motion-mode", choices=("relative", "absolute"), default="relative")
    parser.add_argument("--crop", dest="paste_back", action="store_false", help="give the square face crop")
    parser.add_argument("--detail", type=float, default=DEFAULT_DETAIL, help="of the portrait, 0 to 1")
    parser.add_argument("--eta", type=float, default=0.0, help="0 is DDIM, 1 is DDPM")
    parser.add_argument("--noise-mode", choices=("shared", "per_frame"), default="shared")
    parser.add_argument("--margin", type=float, default=1.0, help="room around the head in the crop")
    parser.add_argument("--size", type=int, help="side of the crop in pixels; the checkpoint's own")
    parser.add_argument("--face-index", type=int, default=0, help="which face, 0 is the largest")
    parser.add_argument("--no-face", choices=("error", "whole_image"), default="error")
    parser.add_argument("--label", default="", metavar="TEXT", help="a line to be seen in every frame")
    parser.add_argument("--label-corner", choices=CORNERS, default=CORNERS[0])
    parser.add_argument("--label-size", type=float, default=LABEL_SIZE, help="of the picture's shorter side")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Make the video; returns the exit status, see :func:`~fd2talk_core.terminal.run_command`."""
    options = vars(parse_arguments(arguments))
    bars: dict[str, Any] = {}

    def progress(stage: str, done: int, total: int) -> None:
        from tqdm import tqdm

        if stage not in bars:
            bars[stage] = tqdm(total=total, desc=stage, unit="step")
        bars[stage].total = total
        bars[stage].update(done - bars[stage].n)

    def work() -> Path:
        try:
            return _make(options, progress)
        finally:
            # a bar writes itself once more when it is closed, and what went wrong should be read last
            for bar in bars.values():
                bar.close()

    return run_command(work)


def _make(options: dict[str, Any], progress: Callable[[str, int, int], None]) -> Path:
    output, save_as = options.pop("output"), options.pop("save_motion")
    inputs = [options[name] for name in ("image", "audio", "driving", "motion") if options[name] is not None]
    check_output(output, (".mp4",), inputs)
    from .formats.sequences import WRITERS, load_motion, save_motion
    from .pipeline import FD2TalkPipeline

    if save_as is not None:
        check_output(save_as, tuple(WRITERS), inputs)
    if options["motion"] is not None:
        given = load_motion(options["motion"])
        options["motion"] = given.require("expression"), given.require("pose")
    pipeline = FD2TalkPipeline.from_pretrained(options.pop("weights"), device=options.pop("device"))
    video = pipeline(options.pop("image"), options.pop("audio"), progress=progress, **options)
    if save_as is not None:
        assert video.motion is not None  # a pipeline's video tells what moves it
        save_motion(save_as, *video.motion)
    return video.save(output)


if __name__ == "__main__":
    sys.exit(main())

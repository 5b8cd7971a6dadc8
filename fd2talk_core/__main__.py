"""``python -m fd2talk_core portrait.png speech.wav -o talking.mp4``"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .errors import FD2TalkError


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line, whose options are those of :meth:`FD2TalkPipeline.__call__`."""
    parser = argparse.ArgumentParser(prog="python -m fd2talk_core", description="Make a portrait speak.")
    parser.add_argument("image", type=Path, help="the portrait, a picture file")
    parser.add_argument("audio", type=Path, help="the voice, a sound or video file")
    parser.add_argument("-o", "--output", type=Path, default=Path("talking.mp4"), help="the MP4 to write")
    parser.add_argument("--weights", default="tiny", help="a shipped set or a folder of checkpoints")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps")
    parser.add_argument("--fps", type=float, default=25.0, help="frames a second, 1 to 120")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--motion-steps", type=int, help="sampling steps of the motion transformers")
    parser.add_argument("--frame-steps", type=int, help="sampling steps of the frames")
    parser.add_argument("--guidance", type=float, default=1.0, help="strength of the audio on the motion")
    parser.add_argument("--expression-intensity", type=float, default=1.0)
    parser.add_argument("--pose-intensity", type=float, default=1.0)
    parser.add_argument("--motion-mode", choices=("relative", "absolute"), default="relative")
    parser.add_argument("--crop", dest="paste_back", action="store_false", help="give the square face crop")
    parser.add_argument("--face-index", type=int, default=0, help="which face, 0 is the largest")
    parser.add_argument("--no-face", choices=("error", "whole_image"), default="error")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Make the video; returns the exit status, 2 for bad input told in one sentence."""
    options = vars(parse_arguments(arguments))
    image, audio, output = options.pop("image"), options.pop("audio"), options.pop("output")
    from tqdm import tqdm

    from .pipeline import FD2TalkPipeline

    bars: dict[str, tqdm] = {}

    def progress(stage: str, done: int, total: int) -> None:
        if stage not in bars:
            bars[stage] = tqdm(total=total, desc=stage, unit="step")
        bars[stage].update(done - bars[stage].n)

    try:
        pipeline = FD2TalkPipeline.from_pretrained(options.pop("weights"), device=options.pop("device"))
        path = pipeline(image, audio, progress=progress, **options).save(output)
    except FD2TalkError as error:
        failure = error
    else:
        failure = None
    finally:
        # a bar writes itself once more when it is closed, and what went wrong should be read last
        for bar in bars.values():
            bar.close()
    if failure is not None:
        print(failure, file=sys.stderr)
        return 2
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())

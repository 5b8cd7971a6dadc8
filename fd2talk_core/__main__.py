"""``python -m fd2talk_core portrait.png speech.wav -o talking.mp4``"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import FD2TalkError
from .files import check_output
from .frames.defaults import DEFAULT_DETAIL
from .marks.defaults import CORNERS, LABEL_SIZE
from .motion.defaults import LONGER_POLICIES, MISSING_POLICIES, SHORTER_POLICIES
from .terminal import run_command, say

if TYPE_CHECKING:
    from .pipeline import FD2TalkPipeline, TalkingVideo


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line, whose options are those of :meth:`FD2TalkPipeline.__call__`."""
    parser = argparse.ArgumentParser(prog="python -m fd2talk_core", description="Make a portrait speak.")
    parser.add_argument("image", type=Path, help="the portrait, a picture file; the video with --dub")
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
    parser.add_argument(
        "--segment", metavar="I/N", help="make one of n parts, for python -m fd2talk_core.join"
    )
    parser.add_argument("--label", default="", metavar="TEXT", help="a line to be seen in every frame")
    parser.add_argument("--label-corner", choices=CORNERS, default=CORNERS[0])
    parser.add_argument("--label-size", type=float, default=LABEL_SIZE, help="of the picture's shorter side")
    dubbing = parser.add_argument_group("another voice for a video")
    dubbing.add_argument("--dub", action="store_true", help="give the person in a video the new voice")
    dubbing.add_argument(
        "--longer-speech",
        choices=LONGER_POLICIES,
        default="loop",
        help="than the video: play it there and back",
    )
    dubbing.add_argument(
        "--shorter-speech", choices=SHORTER_POLICIES, default="cut", help="than the video: end with it"
    )
    dubbing.add_argument(
        "--original-sound", type=float, default=0.0, metavar="LEVEL", help="of the video underneath, 0 to 1"
    )
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
    weights, device = options.pop("weights"), options.pop("device")
    _check_mode(options | {"save_motion": save_as})
    inputs = [options[name] for name in ("image", "audio", "driving", "motion") if options[name] is not None]
    check_output(output, (".mp4",), inputs)
    from .formats.sequences import WRITERS, load_motion, save_motion
    from .pipeline import FD2TalkPipeline
    from .segments import parse_segment

    if options["segment"] is not None:
        options["segment"] = parse_segment(options["segment"])
    if save_as is not None:
        check_output(save_as, tuple(WRITERS), inputs)
    if options["motion"] is not None:
        given = load_motion(options["motion"])
        parts = ("expression",) if options["dub"] else ("expression", "pose")
        options["motion"] = tuple(given.require(part) for part in parts)
    pipeline = FD2TalkPipeline.from_pretrained(weights, device=device)
    if options["dub"]:
        return _dub(pipeline, options, progress).save(output)
    for name in _DUBBING:
        del options[name]
    video = pipeline(options.pop("image"), options.pop("audio"), progress=progress, **options)
    if save_as is not None:
        assert video.motion is not None  # a pipeline's video tells what moves it
        save_motion(save_as, *video.motion)
    return video.save(output)


_DUBBING = ("dub", "longer_speech", "shorter_speech", "original_sound")
_LABEL = ("label", "label_corner", "label_size")
_OF_THE_WORDS = (
    "motion", "seed", "motion_steps", "guidance", "expression_intensity", "face_index", *_LABEL,
)  # fmt: skip


def _check_mode(options: dict[str, Any]) -> None:
    """Refuse what the other mode takes."""
    usual = vars(parse_arguments(["portrait.png"]))
    both = ("image", "audio", *_OF_THE_WORDS)
    given = [name for name, value in options.items() if value != usual[name] and name not in both]
    wrong = [name for name in given if (name in _DUBBING) != options["dub"]]
    if wrong:
        flags = ", ".join(f"--{'crop' if name == 'paste_back' else name.replace('_', '-')}" for name in wrong)
        raise FD2TalkError(
            f"{flags} {'cannot be used with' if options['dub'] else 'can only be used with'} --dub."
        )
    if options["dub"] and options["audio"] is None:
        raise FD2TalkError("A voice is needed to dub a video: give its sound file after the video.")


def _dub(
    pipeline: FD2TalkPipeline, options: dict[str, Any], progress: Callable[[str, int, int], None]
) -> TalkingVideo:
    taken = {name: options[name] for name in (*_OF_THE_WORDS, *_DUBBING[1:])}
    if taken["motion"] is not None:
        taken["motion"] = taken["motion"][0]
    video = pipeline.dub(options["image"], options["audio"], progress=progress, **taken)
    say(video.report, sys.stderr)
    return video


if __name__ == "__main__":
    sys.exit(main())

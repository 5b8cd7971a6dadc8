"""``python -m fd2talk_core.live portrait.png``: a page on this machine where the portrait speaks."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checks import check_number, check_whole
from ..errors import FD2TalkError
from ..files import check_input
from ..frames.defaults import DEFAULT_DETAIL
from ..marks.defaults import add_label_options
from ..motion.defaults import NEUTRAL, STYLES
from ..terminal import run_command

if TYPE_CHECKING:
    from .avatar import LiveAvatar

EXAMPLES = Path(__file__).resolve().parents[2] / "example_inputs"
COMPARED = (0.2, 0.4, 0.6)
"""Seconds of look-ahead."""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m fd2talk_core.live", description="A portrait that speaks while the sound comes in."
    )
    parser.add_argument("portrait", type=Path, nargs="?", help="a picture file; the example's without one")
    parser.add_argument("--port", type=int, default=8765, help="of the page, on 127.0.0.1; 0 takes any")
    parser.add_argument("--camera", action="store_true", help="also into a virtual camera")
    parser.add_argument("--weights", default="tiny", help="a shipped set or a folder of checkpoints")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps")
    parser.add_argument("--fps", type=float, default=25.0, help="frames per second; fewer for a slow machine")
    parser.add_argument("--look-ahead", type=float, default=0.2, metavar="SECONDS", help="0.2 to 0.6")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--style", default=NEUTRAL, metavar="MOOD", help=f"that the face speaks in: {', '.join(STYLES)}"
    )
    parser.add_argument("--style-strength", type=float, default=1.0, help="of that mood, 0 to 1")
    parser.add_argument("--frame-steps", type=int, help="sampling steps of the frames")
    parser.add_argument("--crop", dest="paste_back", action="store_false", help="give the square face crop")
    parser.add_argument("--detail", type=float, default=DEFAULT_DETAIL, help="of the portrait, 0 to 1")
    parser.add_argument("--size", type=int, help="side of the crop in pixels; the checkpoint's own")
    parser.add_argument("--face-index", type=int, default=0, help="which face, 0 is the largest")
    add_label_options(parser)
    measuring = parser.add_argument_group("measuring")
    measuring.add_argument(
        "--benchmark", action="store_true", help="push speech as fast as it plays, and tell what came of it"
    )
    measuring.add_argument("--minutes", type=float, default=1.0, help="of the benchmark")
    measuring.add_argument(
        "--compare", action="store_true", help="tell what the look-ahead costs in quality, for several"
    )
    measuring.add_argument("--speech", type=Path, metavar="FILE", help="a recording; the example's")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Serve the page or measure; returns the exit status, see :func:`~fd2talk_core.terminal.run_command`."""
    options = vars(parse_arguments(arguments))
    return run_command(lambda: _run(options))


def _run(options: dict[str, Any]) -> str | None:
    measures = {name: options.pop(name) for name in ("benchmark", "compare", "minutes", "speech")}
    port, camera = check_whole(options.pop("port"), "The port", 0, 65_535), options.pop("camera")
    check_number(measures["minutes"], "The number of minutes", 0.05, 24 * 60)
    if camera and (measures["compare"] or measures["benchmark"]):
        raise FD2TalkError("--camera shows a page's avatar: leave it out to measure.")
    if measures["compare"]:
        return _compare(options, measures)
    if measures["benchmark"]:
        from .benchmark import live_report

        speech = _speech(measures)
        return str(live_report(_avatar(options, speech[1]), speech, 60 * measures["minutes"]))
    from .page import serve

    sinks = []
    avatar = _avatar(options, 24_000)
    if camera:
        from .camera import CameraSink

        sinks.append(CameraSink(avatar))
    serve(avatar, port, sinks)
    return None


def _avatar(options: dict[str, Any], sample_rate: int) -> LiveAvatar:
    portrait = check_input(options.pop("portrait") or EXAMPLES / "portrait.png", "picture")
    from .avatar import LiveAvatar

    return LiveAvatar(portrait, sample_rate=sample_rate, **options)


def _speech(measures: dict[str, Any]) -> tuple[Any, int]:
    from ..audio.reading import read_audio

    return read_audio(measures["speech"] or EXAMPLES / "speech.wav")


def _compare(options: dict[str, Any], measures: dict[str, Any]) -> str:
    """What is told of each look-ahead."""
    if measures["benchmark"]:
        raise FD2TalkError("--benchmark and --compare were given, but one measure at a time is taken.")
    from ..pipeline import FD2TalkPipeline
    from .benchmark import look_ahead_cost

    speech = _speech(measures)
    pipeline = FD2TalkPipeline.from_pretrained(options["weights"], device=options["device"])
    return "\n".join(str(look_ahead_cost(pipeline, speech, seconds, options["seed"])) for seconds in COMPARED)


if __name__ == "__main__":
    sys.exit(main())

"""``python -m fd2talk_core.provenance VIDEO`` says whether a video bears our marks, and what they say."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .errors import FD2TalkError
from .terminal import run_command


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m fd2talk_core.provenance",
        description="Look for the marks of a generated video. Exit status: 0 found, 1 not, 2 bad input.",
    )
    parser.add_argument("video", type=Path, nargs="?", help="any video file")
    parser.add_argument(
        "--benchmark", action="store_true", help="mark this unmarked video, attack it, and say what is found"
    )
    parser.add_argument("--frames", type=int, default=60, help="of the benchmark, from the start")
    parser.add_argument("--settings", action="store_true", help="say which marks this machine makes, and why")
    parser.add_argument(
        "--make-certificate", action="store_true", help="make one, by which this machine signs its videos"
    )
    parser.add_argument(
        "--sign", action="store_true", help="sign this MP4, which FD2Talk made and another program saved"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Say it; returns the exit status, see :func:`~fd2talk_core.terminal.run_command`, and 1 where nothing
    was found."""
    options = parse_arguments(arguments)
    answers: list[object] = []

    def work() -> object:
        answers.append(_answer(options))
        return answers[0]

    ended = run_command(work)
    return ended or int(not getattr(answers[0], "marked", True))


def _answer(options: argparse.Namespace) -> object:
    """What is to be printed, if anything."""
    if options.settings:
        return _settings()
    if options.make_certificate:
        from .marks.credentials import make_certificate

        return f"Videos are signed from now on, with {make_certificate()}."
    if options.video is None:
        raise FD2TalkError("No video was given to look at.")
    if options.sign:
        from .marks.credentials import sign_file

        return f"{options.video} is signed as {sign_file(options.video)}."
    if options.benchmark:
        from .marks.benchmark import run

        run(options.video, options.frames, print)
        return None
    from .marks.report import Provenance

    return Provenance.of_file(options.video)


def _settings() -> str:
    from dataclasses import asdict

    from .marks.settings import MarkSettings, settings_path

    settings, path = MarkSettings.read(), settings_path()
    lines = [f"{path} {'is read' if path.exists() else 'does not exist, so these are the defaults'}:"]
    lines += [f"  {name}: {value if value != '' else 'none'}" for name, value in asdict(settings).items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

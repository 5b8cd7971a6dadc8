"""``python -m fd2talk_core.provenance VIDEO`` says whether a video bears our marks, and what they say."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .errors import FD2TalkError


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
    """Say it; returns the exit status."""
    options = parse_arguments(arguments)
    try:
        if options.settings:
            return _tell_settings()
        if options.make_certificate:
            from .marks.credentials import make_certificate

            print(f"Videos are signed from now on, with {make_certificate()}.")
            return 0
        if options.video is None:
            raise FD2TalkError("No video was given to look at.")
        if options.sign:
            from .marks.credentials import sign_file

            print(f"{options.video} is signed as {sign_file(options.video)}.")
            return 0
        if options.benchmark:
            from .marks.benchmark import run

            run(options.video, options.frames, print)
            return 0
        from .marks.report import Provenance

        found = Provenance.of_file(options.video)
    except FD2TalkError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    print(found)
    return 0 if found.mark.found or "digitalSourceType" in found.tags else 1


def _tell_settings() -> int:
    from dataclasses import asdict

    from .marks.settings import MarkSettings, settings_path

    settings, path = MarkSettings.read(), settings_path()
    print(f"{path} {'is read' if path.exists() else 'does not exist, so these are the defaults'}:")
    for name, value in asdict(settings).items():
        print(f"  {name}: {value if value != '' else 'none'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

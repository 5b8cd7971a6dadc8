"""``python -m fd2talk_core.join part_1.mp4 part_2.mp4 -o talking.mp4``: parts of a clip become one video.

Pictures are taken over as they were encoded. The parts hold their sound as samples, which is encoded here.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import torch

from .audio.reading import has_sound, read_audio
from .errors import FD2TalkError
from .files import check_input, check_output, reason_of, replacing, shown_path, writing
from .formats.video import ENDINGS, AudioTrack, open_video_file
from .marks.clip import ClipMarks
from .media import open_media
from .segments import TAG, Segment
from .terminal import run_command


@dataclass(frozen=True)
class Part:
    """One part's file and what it says of itself.

    Attributes:
        picture: size, frame rate and the encoder's own header.
    """

    path: Path
    segment: Segment
    identifier: str
    picture: tuple[int, int, Fraction, bytes]

    @classmethod
    def of(cls, path: Path | str) -> Part:
        """
        Raises:
            FD2TalkError: when it is no part of a clip.
        """
        path = check_input(path, "part")
        try:
            with open_media(path) as container:
                tags = dict(container.metadata)
                told = json.loads(tags.get(TAG, "null"))
                if not isinstance(told, dict) or not container.streams.video:
                    raise FD2TalkError(
                        f"{shown_path(path.name)} is no part of a clip: make parts by --segment 1/2 and 2/2."
                    )
                stream = container.streams.video[0]
                header = bytes(stream.codec_context.extradata or b"")
                picture = stream.width, stream.height, Fraction(stream.average_rate or 0), header
                segment = Segment(*(told.get(name) for name in ("index", "count", "frames")))
        except (av.FFmpegError, OSError, ValueError) as error:
            raise FD2TalkError(f"{shown_path(path.name)} cannot be read ({reason_of(error)}).") from error
        return cls(path, segment, tags.get("fd2talk_id", ""), picture)


def join(paths: Sequence[Path | str], output: Path | str) -> Path:
    """Join the parts of one clip, given in any order.

    Raises:
        FD2TalkError: when they are not all parts of one clip, each once, or the file cannot be written.
    """
    output = check_output(output, ENDINGS, paths)
    parts = sorted((Part.of(path) for path in paths), key=lambda part: part.segment.index)
    _check(parts)
    sounds = [read_audio(part.path) for part in parts if has_sound(part.path)]
    sound = (torch.cat([waveform for waveform, _ in sounds], dim=1), sounds[0][1]) if sounds else None
    on_file = ClipMarks.again(parts[0].identifier).on_file(paths) if parts[0].identifier else {}
    rate = parts[0].picture[2]
    with writing(output.name), replacing(output) as partial:
        with open_video_file(partial, on_file.get("tags", {})) as container:
            video: av.VideoStream | None = None
            track: AudioTrack | None = None
            number = 0
            for part in parts:
                with open_media(part.path) as source:
                    if video is None:
                        # opaque: nothing is encoded, and older releases of av would write an encoder's header
                        video = container.add_stream_from_template(source.streams.video[0], opaque=True)
                        track = None if sound is None else AudioTrack(container, *sound)
                    for packet in source.demux(source.streams.video[0]):
                        if not packet.size:
                            continue
                        packet.stream, packet.time_base = video, 1 / rate
                        packet.pts = packet.dts = number
                        packet.duration = 1
                        container.mux(packet)
                        number += 1
                        if track is not None:
                            track.write_until(number / rate)
            if number != parts[0].segment.frames:
                raise FD2TalkError(
                    f"The parts have {number} frames, but the clip has {parts[0].segment.frames}: one of "
                    "them is cut off."
                )
            if track is not None:
                track.finish()
        if "finish" in on_file:
            on_file["finish"](partial)
    return output


def _check(parts: Sequence[Part]) -> None:
    if not parts:
        raise FD2TalkError("No part was given to join.")
    first = parts[0]
    for part in parts[1:]:
        one_clip = (part.segment.count, part.segment.frames, part.identifier, part.picture)
        if one_clip != (first.segment.count, first.segment.frames, first.identifier, first.picture):
            raise FD2TalkError(
                f"{shown_path(first.path.name)} and {shown_path(part.path.name)} are parts of two clips, or "
                "were made with other settings."
            )
    given = [part.segment.index for part in parts]
    missing = sorted(set(range(1, first.segment.count + 1)) - set(given))
    if missing:
        raise FD2TalkError(
            f"Segment {missing[0]}/{first.segment.count} is missing, {len(missing)} of them in all."
        )
    twice = [index for index in given if given.count(index) > 1]
    if twice:
        raise FD2TalkError(f"Segment {twice[0]}/{first.segment.count} was given twice.")


def main(arguments: list[str] | None = None) -> int:
    """Join; returns the exit status, see :func:`~fd2talk_core.terminal.run_command`."""
    parser = argparse.ArgumentParser(
        prog="python -m fd2talk_core.join",
        description="Join the parts that python -m fd2talk_core made by --segment.",
    )
    parser.add_argument("parts", type=Path, nargs="+", help="all of them, in any order")
    parser.add_argument("-o", "--output", default="talking.mp4", help="the MP4 to write")
    options = parser.parse_args(arguments)
    return run_command(lambda: join(options.parts, options.output))


if __name__ == "__main__":
    sys.exit(main())

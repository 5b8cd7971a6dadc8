"""Sound and video files opened for reading, whoever made them.

FFmpeg knows containers that are lists of other files (HLS, DASH, concat, image sequences) and addresses that
are commands (``concat:``, ``http:``). A stranger's file of that kind, under any name, would bring the content
of other files into a video. So the file is opened here, FFmpeg reads that one alone and opens nothing itself,
and it takes the containers of the list below, whatever the file's name says.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av

from .files import check_input

DEMUXERS = (
    *("aac", "ac3", "aiff", "amr", "ape", "asf", "au", "avi", "caf", "dts", "dv", "eac3", "flac", "flv"),
    *("gif", "gsm", "h264", "hevc", "ivf", "m4v", "matroska", "mjpeg", "mov", "mp3", "mpc", "mpc8", "mpeg"),
    *("mpegts", "mpegvideo", "mxf", "nut", "obu", "ogg", "rm", "tak", "tta", "voc", "w64", "wav", "webm"),
    *("wv", "yuv4mpegpipe"),
)
"""FFmpeg's names of containers that hold all that they play. ``mov`` is also MP4 and M4A."""


@contextmanager
def open_media(source: Path | str | io.BytesIO) -> Iterator[av.container.InputContainer]:
    """A container to read from; a path is the name of a file and nothing else.

    Raises:
        FD2TalkError: when the path is none of a file.
        av.FFmpegError, OSError: when it cannot be opened or is none of :data:`DEMUXERS`.
    """
    options = {"format_whitelist": ",".join(DEMUXERS), "protocol_whitelist": "none"}
    if isinstance(source, io.BytesIO):
        source.seek(0)
        with av.open(source, options=options) as container:
            yield container
    else:
        with open(check_input(source, "file"), "rb") as file, av.open(file, options=options) as container:
            yield container

"""Sound and video files opened for reading, whoever made them.

FFmpeg knows containers that are lists of other files (HLS, DASH, concat, image sequences) and addresses that
are commands (``concat:``, ``http:``). A stranger's file of that kind, under any name, would bring the content
of other files into a video. So the file is opened here, FFmpeg reads that one alone and opens nothing itself,
and it takes the containers of the list below, whatever the file's name says.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import av

from .files import check_input

DEMUXERS = (
    *("aac", "ac3", "aiff", "amr", "ape", "asf", "au", "avi", "caf", "dts", "dv", "eac3", "flac", "flv"),
    *("gif", "gsm", "h264", "hevc", "ivf", "m4v", "matroska", "mjpeg", "mov", "mp3", "mpc", "mpc8", "mpeg"),
    *("mpegts", "mpegvideo", "mxf", "nut", "obu", "ogg", "rm", "tak", "tta", "voc", "w64", "wav", "webm"),
    *("wv", "yuv4mpegpipe"),
)
"""FFmpeg's names of containers that hold all that they play. ``mov`` is also MP4 and M4A."""


class _Steady:
    """A file that fails to seek beyond its ends as FFmpeg expects, without a traceback that PyAV prints."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.read, self.tell = file.read, file.tell

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self.file.seek(offset, whence)
        except (OSError, ValueError):
            return -1


@contextmanager
def open_media(source: Path | str | io.BytesIO) -> Iterator[av.container.InputContainer]:
    """A container to read from; a path is the name of a file and nothing else.

    Raises:
        FD2TalkError: when the path is none of a file.
        av.FFmpegError, OSError: when it cannot be opened or is none of :data:`DEMUXERS`.
    """
    options = {"format_whitelist": ",".join(DEMUXERS), "protocol_whitelist": "none"}
    with ExitStack() as stack:
        file = source
        if not isinstance(source, io.BytesIO):
            file = stack.enter_context(open(check_input(source, "file"), "rb"))
        file.seek(0)
        # titles in whatever encoding are not read here, and must not keep the rest from being read
        yield stack.enter_context(av.open(_Steady(file), options=options, metadata_errors="replace"))

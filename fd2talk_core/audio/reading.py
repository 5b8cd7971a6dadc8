"""Sound files as waveforms, by PyAV."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..checks import check_amount
from ..errors import FD2TalkError
from ..files import check_input, reason_of, shown_path
from ..waveforms import check_sample_rate

if TYPE_CHECKING:
    import av

MAX_SAMPLES = 1 << 29
"""Of a file, all channels together: 2 GB, three hours of mono at 48 kHz. Silence packs into little."""
MAX_CHANNELS = 64


def read_audio(path: Path | str) -> tuple[Tensor, int]:
    """Decode the first audio stream of any container.

    Returns:
        waveform ``[C, N]`` float32 and its sample rate, both as recorded.

    Raises:
        FD2TalkError: naming the file, when it is missing, holds no audio, or cannot be decoded.
    """
    import av

    from ..media import open_media

    path = check_input(path, "audio file")
    pieces: list[Tensor] = []
    taken = 0
    try:
        with open_media(path) as container:
            if not container.streams.audio:
                raise FD2TalkError(
                    f"{shown_path(path.name)} holds no audio stream; give a sound file or a video with sound."
                )
            stream = container.streams.audio[0]
            _check_stream(stream, path.name)
            # interleaved, since PyAV reads beyond its eight pointers when more channels come as planes
            to_float = av.AudioResampler(format="flt")
            decoded = iter(container.decode(stream))
            if container.format.name == "aac":
                # a raw stream does not say that its first frame is the encoder's run-up, as other files do
                next(decoded, None)
            for frame in decoded:
                # a decoder may double the rate that the header names (HE-AAC)
                sample_rate = frame.sample_rate
                taken += frame.samples * frame.layout.nb_channels
                check_amount(taken, MAX_SAMPLES, f"{shown_path(path.name)} holds over {{}} samples", "cut it")
                pieces.extend(map(_samples, to_float.resample(frame)))
            pieces.extend(map(_samples, to_float.resample(None)))
    except FD2TalkError:
        raise
    except (av.FFmpegError, OSError, ValueError) as error:
        raise FD2TalkError(
            f"{shown_path(path.name)} cannot be decoded as audio ({reason_of(error)})."
        ) from error
    if not pieces:
        raise FD2TalkError(f"{shown_path(path.name)} holds an audio stream without a single sample.")
    return _join(pieces), check_sample_rate(sample_rate)


def has_sound(path: Path | str) -> bool:
    """Whether a file has an audio stream; False too for one that cannot be opened, which its reader tells."""
    import av

    from ..media import open_media

    try:
        with open_media(check_input(path, "file")) as container:
            return bool(container.streams.audio)
    except (av.FFmpegError, OSError, FD2TalkError):
        return False


def _check_stream(stream: av.AudioStream, name: str) -> None:
    """What the header says, before anything is decoded by it."""
    if stream.codec_context is None:
        raise FD2TalkError(f"{shown_path(name)} holds sound in a coding that is not known: save it as WAV.")
    check_amount(stream.channels, MAX_CHANNELS, f"{shown_path(name)} has {{}} channels", "mix it down")
    if stream.rate:
        check_sample_rate(stream.rate)


def _samples(frame: av.AudioFrame) -> Tensor:
    """``[C, n]`` of an interleaved frame."""
    return torch.from_numpy(frame.to_ndarray()).view(-1, frame.layout.nb_channels).T


def _join(pieces: list[Tensor]) -> Tensor:
    """Concatenate ``[C, n]`` pieces along time, freeing each once copied: the peak is one recording, not
    two."""
    waveform = torch.empty(pieces[0].shape[0], sum(piece.shape[1] for piece in pieces))
    pieces.reverse()
    start = 0
    while pieces:
        piece = pieces.pop()
        waveform[:, start : start + piece.shape[1]] = piece
        start += piece.shape[1]
    return waveform

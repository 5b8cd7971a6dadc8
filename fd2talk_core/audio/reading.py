"""Sound files as waveforms, by PyAV."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import FD2TalkError

if TYPE_CHECKING:
    import av


def read_audio(path: Path | str) -> tuple[Tensor, int]:
    """Decode the first audio stream of any container.

    Returns:
        waveform ``[C, N]`` float32 and its sample rate, both as recorded.

    Raises:
        FD2TalkError: naming the file, when it is missing, holds no audio, or cannot be decoded.
    """
    import av

    from ..media import open_media

    path = Path(path)
    if not path.is_file():
        raise FD2TalkError(f"There is no audio file {path}.")
    pieces: list[Tensor] = []
    try:
        with open_media(path) as container:
            if not container.streams.audio:
                raise FD2TalkError(
                    f"{path.name} holds no audio stream; give a sound file or a video with sound."
                )
            stream = container.streams.audio[0]
            # interleaved, since PyAV reads beyond its eight pointers when more channels come as planes
            to_float = av.AudioResampler(format="flt")
            for frame in container.decode(stream):
                # a decoder may double the rate that the header names (HE-AAC)
                sample_rate = frame.sample_rate
                pieces.extend(map(_samples, to_float.resample(frame)))
            pieces.extend(map(_samples, to_float.resample(None)))
    except FD2TalkError:
        raise
    except (av.FFmpegError, OSError, ValueError) as error:
        raise FD2TalkError(f"{path.name} cannot be decoded as audio ({error}).") from error
    if not pieces:
        raise FD2TalkError(f"{path.name} holds an audio stream without a single sample.")
    return _join(pieces), sample_rate


def has_sound(path: Path | str) -> bool:
    """Whether a file has an audio stream; False too for one that cannot be opened, which its reader tells."""
    import av

    from ..media import open_media

    try:
        with open_media(path) as container:
            return bool(container.streams.audio)
    except (av.FFmpegError, OSError):
        return False


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


def check_waveform(waveform: Tensor, sample_rate: int) -> Tensor:
    """The waveform as ``[C, N]``, or one sentence on what is wrong with it.

    Args:
        waveform: ``[N]``, ``[C, N]`` or ``[1, C, N]``, float in -1..1 or PCM integers.
        sample_rate: Hz.
    """
    if sample_rate != int(sample_rate) or sample_rate < 1:
        raise FD2TalkError(
            f"The audio's sample rate is {sample_rate}, but a whole number of Hz over 0 is needed."
        )
    if waveform.ndim == 3 and waveform.shape[0] == 1:
        waveform = waveform[0]
    if waveform.ndim == 1:
        waveform = waveform[None]
    if waveform.ndim != 2:
        raise FD2TalkError(
            f"The audio has shape {tuple(waveform.shape)}, but one clip of [channels, samples] is needed."
        )
    if 0 in waveform.shape:
        raise FD2TalkError(f"The audio is empty (shape {tuple(waveform.shape)}): give at least one sample.")
    if waveform.is_complex() or waveform.dtype == torch.bool:
        raise FD2TalkError(f"The audio is of type {waveform.dtype}, but float or integer samples are needed.")
    return waveform

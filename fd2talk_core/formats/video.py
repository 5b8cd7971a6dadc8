"""Writing a talking video to a file as it is made, with the sound it was made from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ..checks import checked
from ..errors import FD2TalkError
from ..files import check_output, replacing, writing
from ..imaging import to_bytes
from ..timing import check_fps
from ..waveforms import as_float, check_waveform

ENDINGS = (".mp4",)
AUDIO_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
"""Sample rates that AAC can carry; other rates are stored at the next one up."""


GROUP = 256
"""Frames that are encoded together: an encoder begins anew with each group, so that groups which different
processes have encoded can stand in one file as they are. Key frames are usually hardly less far apart."""


class VideoWriter:
    """An MP4 (H.264 and AAC) that grows by chunks of frames; memory does not grow with its length.

    Args:
        path: the ``.mp4`` to write. What stood there stays until the work inside the ``with`` block has ended
            well.
        fps: frames per second.
        audio: ``(waveform [C, N] in -1..1, sample_rate)`` or None for a silent video.
        crf: H.264 constant rate factor, 0 lossless to 51 worst.
        tags: of the container, by name.
        lossless_sound: keep the samples as they are instead of as AAC, in a file that is to be joined.
        finish: called with the whole file before it takes the place of what stood there.

    The sound starts at 0 and is not stretched: frame ``i`` is shown at ``i / fps``.

    Raises:
        FD2TalkError: when the file cannot be written (see :func:`~fd2talk_core.files.check_output`), or the
            audio is none (see :func:`~fd2talk_core.waveforms.check_waveform`).
    """

    @checked
    def __init__(
        self,
        path: Path | str,
        fps: float,
        audio: tuple[Tensor, int] | None = None,
        crf: int = 18,
        tags: Mapping[str, str] | None = None,
        lossless_sound: bool = False,
        finish: Callable[[Path], None] | None = None,
    ) -> None:
        self.path = check_output(path, ENDINGS)
        self.fps = check_fps(fps).limit_denominator(1001)
        self.audio = None if audio is None else (check_waveform(*audio), int(audio[1]))
        self.crf = crf
        self.tags = dict(tags or {})
        self.lossless_sound = lossless_sound
        self.finish = finish
        self.num_frames = 0
        self._container: av.container.OutputContainer | None = None

    def __enter__(self) -> VideoWriter:
        self._video: av.VideoStream | None = None
        # of the group at hand
        self._encoder: av.VideoStream | av.VideoCodecContext | None = None
        self._sound: AudioTrack | None = None
        with writing(self.path.name), ExitStack() as stack:
            self._partial = stack.enter_context(replacing(self.path))
            self._container = open_video_file(self._partial, self.tags)
            stack.callback(self._close)
            self._until_whole = stack.pop_all()
        return self

    def write(self, frames: Tensor) -> None:
        """Append frames ``[n, H, W, 3]`` in 0..1. Odd sizes are extended by one pixel, which H.264 needs."""
        if frames.ndim != 4 or frames.shape[-1] != 3:
            raise FD2TalkError(
                f"Frames have shape {list(frames.shape)}, but [frames, height, width, 3] is needed."
            )
        if self._video is None:
            self._video = self._encoder = self._open_video(frames.shape[1], frames.shape[2])
            if self.audio is not None:
                self._sound = AudioTrack(self._container, *self.audio, lossless=self.lossless_sound)
        pixels = to_bytes(frames.detach().cpu()).numpy()
        pad_h, pad_w = pixels.shape[1] % 2, pixels.shape[2] % 2
        if pad_h or pad_w:
            pixels = np.pad(pixels, ((0, 0), (0, pad_h), (0, pad_w), (0, 0)), mode="edge")
        with writing(self.path.name):
            self._encode(pixels)

    def _encode(self, pixels: np.ndarray) -> None:
        for picture in pixels:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts = self.num_frames
            frame.time_base = 1 / self.fps
            if self.num_frames and self.num_frames % GROUP == 0:
                self._mux(self._encoder.encode())
                self._encoder = self._next_group()
            self._mux(self._encoder.encode(frame))
            self.num_frames += 1
        if self._sound is not None:
            # interleaved, so that neither the muxer nor a player has to hold one track back for the other
            self._sound.write_until(self.num_frames / self.fps)

    def _open_video(self, height: int, width: int) -> av.VideoStream:
        stream = self._container.add_stream("libx264", rate=self.fps)
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt = "yuv420p"
        stream.time_base = 1 / self.fps
        stream.options = self._options
        return stream

    @property
    def _options(self) -> dict[str, str]:
        # B-frames would move the first presentation time away from 0
        return {"crf": str(self.crf), "preset": "veryfast", "bf": "0"}

    def _next_group(self) -> av.VideoCodecContext:
        """An encoder like the stream's own."""
        own = self._video.codec_context
        encoder = av.CodecContext.create("libx264", "w")
        encoder.width, encoder.height, encoder.pix_fmt = own.width, own.height, own.pix_fmt
        encoder.time_base, encoder.framerate = 1 / self.fps, self.fps
        encoder.options = self._options
        encoder.flags |= av.codec.context.Flags.global_header
        return encoder

    def _mux(self, packets: Iterable[av.Packet]) -> None:
        for packet in packets:
            packet.stream = self._video
            self._container.mux(packet)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self._until_whole.__exit__(kind, error, traceback)
            return
        with self._until_whole, writing(self.path.name):
            if self._video is None:
                raise FD2TalkError("No frame was written, so there is no video.")
            self._mux(self._encoder.encode())
            if self._sound is not None:
                self._sound.finish()
            self._container.close()
            if self.finish is not None:
                self.finish(self._partial)

    def _close(self) -> None:
        """Close what is closed already, or is thrown away: how that ends must not hide why."""
        with suppress(av.FFmpegError, OSError):
            self._container.close()


def open_video_file(path: Path, tags: Mapping[str, str]) -> av.container.OutputContainer:
    """An MP4 to write into, with tags by name."""
    # without the second flag FFmpeg drops tags of other names than its own
    flags = {"movflags": "+faststart+use_metadata_tags"}
    container = av.open(str(path), mode="w", format="mp4", options=flags)
    container.metadata.update(tags)
    return container


class AudioTrack:
    """Feeds one waveform to an AAC stream a little at a time, or its samples as they are to a lossless one.

    Over six channels are mixed down to stereo: players seldom take them, and PyAV, with which a host would
    read the file back, crashes on eight planar channels. Over eight have no layout that says where each
    belongs: they become one channel, their mean, as the audio encoder hears them.
    """

    def __init__(
        self,
        container: av.container.OutputContainer,
        waveform: Tensor,
        sample_rate: int,
        lossless: bool = False,
    ) -> None:
        self.container = container
        if waveform.shape[0] > 8:
            waveform = as_float(waveform).float().mean(dim=0, keepdim=True)
        channels = waveform.shape[0]
        self.layout = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}[
            channels
        ]
        self.waveform = waveform
        self.sample_rate = sample_rate
        rate, stored = sample_rate, self.layout
        if not lossless:
            rate = next((r for r in AUDIO_RATES if r >= sample_rate), AUDIO_RATES[-1])
            stored = self.layout if channels <= 6 else "stereo"
        self.stream = container.add_stream("pcm_f32le" if lossless else "aac", rate=rate, layout=stored)
        self.stream.time_base = Fraction(1, rate)
        packing = "flt" if lossless else "fltp"
        self.resampler = av.AudioResampler(format=packing, layout=stored, rate=rate)
        self.position = 0

    def write_until(self, seconds: Fraction | float) -> None:
        """Encode up to this instant."""
        end = min(int(seconds * self.sample_rate), self.waveform.shape[1])
        while self.position < end:
            stop = min(self.position + self.sample_rate, end)
            self._encode(self.waveform[:, self.position : stop])
            self.position = stop

    def _encode(self, piece: Tensor) -> None:
        samples = as_float(piece.detach().cpu()).float().clamp(-1, 1)
        if not torch.isfinite(samples).all():
            raise FD2TalkError("The audio holds a value that is not a finite number: export it again.")
        # packed, since PyAV miscounts the planes of eight planar channels
        packed = np.ascontiguousarray(rearrange(samples, "c n -> 1 (n c)").numpy())
        frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=self.layout)
        frame.sample_rate = self.sample_rate
        frame.pts = self.position
        frame.time_base = Fraction(1, self.sample_rate)
        for converted in self.resampler.resample(frame):
            self.container.mux(self.stream.encode(converted))

    def finish(self) -> None:
        """Encode what is left and flush."""
        self.write_until(Fraction(self.waveform.shape[1], self.sample_rate) + 1)
        for converted in self.resampler.resample(None):
            self.container.mux(self.stream.encode(converted))
        self.container.mux(self.stream.encode())

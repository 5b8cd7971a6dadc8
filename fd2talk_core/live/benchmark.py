"""What a live avatar does on this machine, and what it costs not to know what will be said."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from ..audio.resampling import to_mono_16k
from ..face.model import FaceModel
from ..metering import peak_megabytes
from ..motion.curves import mouth_opening
from ..motion.sampling import sample_motion
from ..pipeline import FD2TalkPipeline
from .avatar import LiveAvatar
from .hearing import VoiceLevel
from .motion import MotionNetworks, Rows, SpeechMotion

PACKET = 0.05
"""Seconds of sound that are pushed at a time."""
SETTLED = 0.25
"""Share of the time after which memory is looked at first."""


@dataclass(frozen=True)
class LiveReport:
    """What was seen.

    Attributes:
        seconds: that it lived.
        fps: of the video.
        frames, dropped, underruns: see :class:`~fd2talk_core.live.avatar.LiveCounts`.
        latency: seconds from a sound to its frame, the median and the 95th percentile.
        drift: seconds of sound given less seconds of frames given.
        unsaid: seconds of sound that were still waiting when it was stopped after twice the time.
        megabytes: peak memory of the process after :data:`SETTLED` of the time, and at the end.
    """

    seconds: float
    fps: float
    frames: int
    dropped: int
    underruns: int
    latency: tuple[float, float]
    drift: float
    unsaid: float
    megabytes: tuple[float | None, float | None]

    def __str__(self) -> str:
        early, late = self.megabytes
        grown = "" if not early or not late else f", {100 * (late / early - 1):+.1f} % since a quarter of it"
        memory = "not told by this system" if late is None else f"{late:.0f} MB{grown}"
        return (
            f"{self.seconds:.0f} s at {self.fps:g} frames per second\n"
            f"underruns: {self.underruns}\n"
            f"dropped frames: {self.dropped} of {self.frames}\n"
            f"latency from sound to frame: median {self.latency[0]:.2f} s, "
            f"95th percentile {self.latency[1]:.2f} s\n"
            f"sound ahead of picture at the end: {1000 * self.drift:.1f} ms\n"
            f"sound left unsaid: {self.unsaid:.1f} s\n"
            f"peak memory: {memory}"
        )


def live_report(avatar: LiveAvatar, speech: tuple[Tensor, int], seconds: float) -> LiveReport:
    """Push speech over and over, as fast as it plays, and read the frames as they are due."""
    waveform, rate = speech
    pcm = (waveform.mean(dim=0).clamp(-1, 1) * 32767).round().to(torch.int16).numpy()
    step, ended = round(PACKET * rate), threading.Event()
    pushed = 0

    def push() -> None:
        nonlocal pushed
        began = time.monotonic()
        while not ended.is_set() and (pushed + step) / rate <= seconds:
            packet = np.take(pcm, range(pushed, pushed + step), mode="wrap")
            avatar.push_audio(packet, rate)
            pushed += step
            ended.wait(max(0.0, began + pushed / rate - time.monotonic()))
        avatar.end_of_speech()

    pusher = threading.Thread(target=push, daemon=True)
    heard, latencies, samples = 0, [], 0
    early: float | None = None
    whole = round((seconds + 2.0) * avatar.fps)
    with avatar:
        pusher.start()
        for number, frame in enumerate(avatar):
            samples += len(frame.audio)
            heard += len(frame.audio) if frame.speech else 0
            if frame.heard is not None and frame.frame is not None:
                latencies.append(avatar.clock.now() - frame.heard)
            if early is None and number > SETTLED * whole:
                early = peak_megabytes()
            if frame.last or number >= 2 * whole:
                break
        ended.set()
        pusher.join()
    expected = round(pushed / rate * avatar.sample_rate)
    at = np.quantile(latencies, [0.5, 0.95]) if latencies else (float("nan"),) * 2
    counts = avatar.counts
    drift = samples / avatar.sample_rate - counts.frames / avatar.fps
    told = counts.frames, counts.dropped, counts.underruns, (float(at[0]), float(at[1]))
    return LiveReport(
        seconds,
        avatar.fps,
        *told,
        drift,
        max(0, expected - heard) / avatar.sample_rate,
        (early, peak_megabytes()),
    )


@dataclass(frozen=True)
class LookAheadCost:
    """How far motion that is made while it is heard is from motion that is made of the whole recording.

    Attributes:
        look_ahead: seconds.
        correlation: of the mouth's opening.
        difference, opening: millimetres: mean difference of the mouth's opening, and mean opening.
    """

    look_ahead: float
    correlation: float
    difference: float
    opening: float

    def __str__(self) -> str:
        return (
            f"look-ahead {self.look_ahead:.1f} s: mouth opening correlates at {self.correlation:.3f} with "
            f"that of the whole recording, {self.difference:.2f} mm apart, the mean is {self.opening:.2f} mm"
        )


def look_ahead_cost(
    pipeline: FD2TalkPipeline, speech: tuple[Tensor, int], look_ahead: float, seed: int = 0
) -> LookAheadCost:
    """Make the motion of a recording at once and while it comes in, and compare the mouths."""
    # breath is left out: who hears a pause while it lasts does not know how long it will
    features = replace(pipeline.audio_encoder.encode(*speech, 25.0), spoken=None)
    whole = sample_motion(pipeline.expression, features, kind="expression", seed=seed)
    heard = streamed_motion(pipeline, speech, look_ahead, seed)
    face_model: FaceModel = pipeline.face_model
    gaps = [
        mouth_opening(whole.replace(values=values), face_model) for values in (whole.values, heard.expression)
    ]
    return LookAheadCost(
        look_ahead,
        float(torch.corrcoef(torch.stack(gaps))[0, 1]),
        float((gaps[0] - gaps[1]).abs().mean()),
        float(gaps[0].mean()),
    )


def streamed_motion(
    pipeline: FD2TalkPipeline, speech: tuple[Tensor, int], look_ahead: float, seed: int = 0
) -> Rows:
    """The motion of a recording at 25 frames per second, made while it comes in."""
    networks = MotionNetworks(pipeline.audio_encoder, pipeline.expression, pipeline.pose)
    motion, made = SpeechMotion(networks, VoiceLevel(), seed, 25.0, look_ahead), []

    def advance() -> None:
        while motion.ready:
            if (rows := motion.advance()) is not None:
                made.append(rows)

    for packet in to_mono_16k(*speech).split(round(16_000 * PACKET)):
        motion.push(packet)
        advance()
    motion.finish(Fraction(speech[0].shape[1], speech[1]))
    advance()
    return Rows.join(made)

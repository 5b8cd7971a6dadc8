"""A live avatar: sound comes in while it is made, and frames with that sound come out, a moment later.

push_audio ── hears: SpeechMotion ──┐
                                    Timeline ── slots ── draws: PortraitDrawer ── LiveFrame
nobody speaks: IdleMotion ──────────┘
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..audio.resampling import SAMPLE_RATE as HEARD_RATE
from ..checks import check_number, check_type, check_whole, checked
from ..errors import FD2TalkError
from ..frames.defaults import DEFAULT_DETAIL
from ..frames.reference import encode_reference
from ..frames.workers import worker_count
from ..imaging import read_image
from ..marks.clip import ClipMarks
from ..marks.defaults import CORNERS, LABEL_SIZE
from ..motion.coefficients import mouth_mask
from ..motion.defaults import NEUTRAL
from ..pipeline import FD2TalkPipeline
from ..timing import check_fps
from ..waveforms import as_float, check_sample_rate, check_waveform
from .drawing import PortraitDrawer
from .hearing import StreamResampler, VoiceLevel
from .motion import IdleMotion, MotionNetworks, Rows, SpeechMotion, on_portrait
from .pace import Pace
from .timeline import AHEAD, LEAST_LEAD, Slot, Timeline, Utterance

BUFFER_SECONDS = 60.0
"""Speech that may wait; beyond it, who pushes has to."""
PATIENCE = 1.0
"""Seconds without sound after which speech has ended, whether that was said or not."""
MOST_BEHIND = 1.0
"""Seconds that frames may be taken late; beyond them the clock waits for who takes them."""
DRAWN_TOGETHER = 4
"""Frames that a thread draws at once where it would not keep pace with one at a time."""
ENOUGH = 0.9
"""Of a frame's time, within which drawing one keeps pace."""


class Clock(Protocol):
    """Tells the time, and waits."""

    def now(self) -> float:
        """Seconds, from any beginning."""
        ...

    def wait(self, news: threading.Condition, until: float) -> None:
        """Wait for news, but no longer than to an instant; the caller holds the condition."""
        ...


class SystemClock:
    """The clock of the machine."""

    def now(self) -> float:
        return time.monotonic()

    def wait(self, news: threading.Condition, until: float) -> None:
        news.wait(max(0.0, until - self.now()))


class Draws(Protocol):
    """What makes pictures of motion."""

    def draw(self, rows: Rows) -> Tensor:
        """``[n, H, W, 3]`` uint8 of n frames."""
        ...


class Moves(Protocol):
    """What makes motion of speech, see :class:`~fd2talk_core.live.motion.SpeechMotion`."""

    ended: bool

    def push(self, samples: Tensor) -> None: ...

    def finish(self, duration: Fraction) -> None: ...

    @property
    def ready(self) -> bool: ...

    @property
    def done(self) -> bool: ...

    def advance(self) -> Rows | None: ...


@dataclass(frozen=True)
class LiveFrame:
    """A frame and what is heard while it is seen; unpacks to ``frame, audio, timestamp``.

    Attributes:
        frame: ``[H, W, 3]`` uint8 on the CPU; None where it was dropped, and the one before stays.
        audio: ``[n]`` float32 in -1..1, mono. Those of all frames are gapless.
        timestamp: seconds since the first frame.
        speech: whether it is part of an utterance.
        last: whether an utterance ends with it.
        heard: when its sound was pushed, by the avatar's clock; None where it is silence.
    """

    frame: Tensor | None
    audio: Tensor
    timestamp: float
    speech: bool = False
    last: bool = False
    heard: float | None = None

    def __iter__(self) -> Iterator[Tensor | float | None]:
        return iter((self.frame, self.audio, self.timestamp))


@dataclass
class LiveCounts:
    """What has happened so far.

    Attributes:
        frames: that were due.
        dropped: of them, those without a picture, since it was not made in time or taken too late.
        underruns: frames of silence within speech, since its sound or its motion came late.
    """

    frames: int = 0
    dropped: int = 0
    underruns: int = 0


@dataclass(eq=False)
class _Speaker:
    """An utterance on its way from sound to motion.

    Attributes:
        motion: that is made of it.
        resampler: to the rate that the networks hear.
        output: to the rate that comes out.
        pushed: when sound came last.
        arrived: ``[n]`` at 16 kHz, what the motion has not been given yet.
        samples: that were pushed.
        ended: whether no more come.
    """

    utterance: Utterance
    motion: Moves
    resampler: StreamResampler
    output: StreamResampler
    pushed: float
    arrived: list[Tensor] = field(default_factory=list)
    samples: int = 0
    ended: bool = False


class LiveEngine:
    """The avatar without threads: what is to be done next is done when it is asked for.

    Args:
        timeline: when is what.
        drawer: makes pictures.
        listen: makes what moves for the next utterance; it is given its number.
        clock: tells the time.
        workers: how many draw at once.
    """

    def __init__(
        self,
        timeline: Timeline,
        drawer: Draws,
        listen: Callable[[int], Moves],
        clock: Clock,
        workers: int = 1,
    ) -> None:
        self.timeline, self.drawer, self.clock, self.workers = timeline, drawer, clock, workers
        self.counts = LiveCounts()
        self.news = threading.Condition()
        self._listen, self._utterances = listen, 0
        self._speakers: list[_Speaker] = []
        self._closed = False
        self.pace = Pace()
        self._drawn_last = -1
        timeline.start = clock.now()

    # -- sound in --

    @property
    def fps(self) -> float:
        """Frames per second of the video."""
        return float(self.timeline.rate)

    @property
    def speaking(self) -> bool:
        """Whether something that was pushed is yet to be heard."""
        with self.news:
            return bool(self.timeline.utterances) or any(slot.speech for slot in self.timeline.queued)

    @property
    def sample_rate(self) -> int:
        """Hz, of the sound that comes out."""
        return self.timeline.sample_rate

    def push_audio(self, pcm: Tensor | np.ndarray | bytes, sample_rate: int) -> None:
        """Say something. Waits while over a minute of speech waits already.

        Args:
            pcm: ``[N]`` or ``[C, N]``, float in -1..1 or PCM integers, or bytes of 16-bit mono PCM.
            sample_rate: Hz. Sound of the avatar's own rate comes out as it is, sample for sample.

        Raises:
            FD2TalkError: when it is no sound, or of another rate than what was pushed before it.
        """
        sound = _mono(pcm, sample_rate)
        with self.news:
            while self.timeline.waiting > BUFFER_SECONDS and not self._closed:
                self.clock.wait(self.news, self.clock.now() + 1.0)
            speaker, now = self._speaker(sample_rate), self.clock.now()
            speaker.samples, speaker.pushed = speaker.samples + len(sound), now
            speaker.arrived.append(speaker.resampler.push(sound))
            speaker.utterance.push(speaker.output.push(sound).numpy(), now)
            self.news.notify_all()

    def end_of_speech(self) -> None:
        """What was pushed is a whole utterance: say it to the end, then wait."""
        with self.news:
            if self._speakers and not self._speakers[-1].ended:
                self._end(self._speakers[-1])

    def _end(self, speaker: _Speaker) -> None:
        speaker.arrived.append(speaker.resampler.finish())
        speaker.utterance.push(speaker.output.finish().numpy(), self.clock.now())
        speaker.ended = speaker.utterance.ended = True
        self.news.notify_all()

    def clear(self) -> None:
        """Be silent at once, whatever was pushed; the next frame is."""
        with self.news:
            self._speakers.clear()
            self.timeline.clear()
            self._drawn_last = self.counts.frames - 1
            self.timeline.plan(self.clock.now())
            self.news.notify_all()

    def _speaker(self, sample_rate: int) -> _Speaker:
        """Who says what is pushed now."""
        if self._speakers and not self._speakers[-1].ended:
            speaker = self._speakers[-1]
            if speaker.resampler.orig != sample_rate:
                raise FD2TalkError(
                    f"The sound has a sample rate of {sample_rate} Hz, but what was pushed before it has "
                    f"{speaker.resampler.orig}: end the speech first."
                )
            return speaker
        heard, given = (StreamResampler(int(sample_rate), rate) for rate in (HEARD_RATE, self.sample_rate))
        made = _Speaker(
            self.timeline.listening(), self._listen(self._utterances), heard, given, self.clock.now()
        )
        self._utterances += 1
        self._speakers.append(made)
        return made

    # -- work --

    def hear(self) -> bool:
        """Make some motion of what was pushed; False when there is nothing to do."""
        with self.news:
            enough = AHEAD * float(self.timeline.rate)
            speaker = next((each for each in self._speakers if not each.utterance.complete), None)
            if speaker is None or len(speaker.utterance.motion) > enough:
                return False
            if not speaker.ended and self.clock.now() - speaker.pushed > PATIENCE:
                self._end(speaker)
            arrived, ended, samples = speaker.arrived, speaker.ended, speaker.samples
            speaker.arrived = []
        motion = speaker.motion
        if arrived:
            motion.push(torch.cat(arrived))
        if ended and not motion.ended:
            motion.finish(Fraction(samples, speaker.resampler.orig))
        rows = motion.advance() if motion.ready else None
        with self.news:
            if speaker not in self._speakers:  # cleared meanwhile
                return True
            if rows is not None:
                speaker.utterance.motion.extend(rows[index : index + 1] for index in range(rows.count))
            if motion.done:
                speaker.utterance.complete = True
                self._speakers.remove(speaker)
            self.timeline.plan(self.clock.now())
            self.news.notify_all()
        return rows is not None or bool(arrived) or motion.done

    def draw(self) -> bool:
        """Draw the frames that are due next; False when there is nothing to do."""
        with self.news:
            self.timeline.plan(self.clock.now())
            slots = self._to_draw()
            if not slots:
                return False
            for slot in slots:
                slot.taken_up = True
            began = self.clock.now()
        pictures = self.drawer.draw(Rows.join([slot.rows for slot in slots]))
        with self.news:
            for slot, picture in zip(slots, pictures, strict=True):
                slot.picture = picture
            self.pace.saw(len(slots), self.clock.now() - began)
            share = self._share
            # one that is begun late, as another took as long, is still in time; more wait for each other
            calls = 2 if share == 1 else 1
            lead = math.ceil(calls * self.pace.expected(share) * float(self.timeline.rate)) + share
            self.timeline.lead = max(min(lead, round(AHEAD * self.timeline.rate)), LEAST_LEAD)
            self.news.notify_all()
        return True

    @property
    def _share(self) -> int:
        """Frames that a thread draws at once."""
        return self.pace.share(DRAWN_TOGETHER, self.workers, ENOUGH / float(self.timeline.rate))

    @property
    def _longest(self) -> float:
        """Seconds that drawing a picture may take, if any is to be in time."""
        return max(AHEAD, LEAST_LEAD / float(self.timeline.rate))

    def _to_draw(self) -> list[Slot]:
        """The slots whose pictures can be made in time; on a slow machine, every second or third of them."""
        now, frame, share = self.clock.now(), float(1 / self.timeline.rate), self._share
        stride = max(1, math.ceil(self.pace.expected(share) / (share * self.workers) / frame - 0.1))
        slots = list(self.timeline.to_draw())
        # where there is no time for as many as shall be drawn together, for one
        chosen = self._in_time(slots, share, stride, now) or self._in_time(slots, 1, stride, now)
        if not chosen and slots and slots[-1].number > self._drawn_last:
            if self.pace.expected(1) > self._longest:
                # nothing could come in time, if drawing took as long as it did: see whether it still does
                chosen = slots[-1:]
        elif chosen and stride == 1 and len(chosen) < share:
            begun_at = self.timeline.due(chosen[0].number) - self.pace.expected(share)
            chosen = chosen if begun_at - now <= frame else []  # more are planned before that
        if chosen:
            self._drawn_last = chosen[-1].number
        return chosen

    def _in_time(self, slots: list[Slot], together: int, stride: int, now: float) -> list[Slot]:
        """Up to so many slots, the first of which is due when all of them would have been drawn."""
        ready, chosen, last = now + self.pace.expected(together), [], self._drawn_last
        for slot in slots:
            if slot.number >= last + stride and (chosen or ready < self.timeline.due(slot.number)):
                chosen.append(slot)
                last = slot.number
            if len(chosen) == together:
                break
        return chosen

    # -- frames out --

    def take(self) -> LiveFrame:
        """The next frame, when it is due."""
        with self.news:
            number = self.counts.frames
            while (now := self.clock.now()) < (due := self.timeline.due(number)):
                self.clock.wait(self.news, due)
            if now - due > MOST_BEHIND:
                self.timeline.start += now - due
            slot = self.timeline.take(now)
            on_time = now - due < float(1 / self.timeline.rate)
            picture = slot.picture if on_time else None
            self.counts.frames += 1
            self.counts.dropped += picture is None
            self.counts.underruns = self.timeline.underruns
            self.news.notify_all()
        return LiveFrame(
            picture,
            torch.from_numpy(slot.sound),
            float(slot.number / self.timeline.rate),
            slot.speech,
            slot.last,
            slot.heard,
        )


class LiveAvatar(LiveEngine):
    """A portrait that says what is pushed, and waits meanwhile; an endless iterator of :class:`LiveFrame`.

    >>> with LiveAvatar("portrait.png") as avatar:
    ...     avatar.push_audio(pcm, 24_000)
    ...     avatar.end_of_speech()
    ...     for frame, audio, timestamp in avatar:
    ...         show(frame, audio)

    It may be pushed and read from different threads. Frames come when they are due. Where the machine is too
    slow for all of them, or who reads is, some are None; sound is always whole.

    Args:
        portrait: a file, or ``[H, W, 3]`` in 0..1.
        weights: a shipped set, a folder of checkpoints, or a pipeline that is loaded.
        fps: of the video.
        sample_rate: Hz, of the sound that comes out; that of the speech keeps it as it is.
        look_ahead: seconds of sound after a frame that are waited for, 0.2 to 0.6; the more, the closer it is
            to a video that is made of the whole recording.
        seed: the same seed gives the same motion.
        frame_steps: sampling steps of the frames; None takes the checkpoint's recommendation.
        expression_intensity: scale of the expression.
        paste_back, detail, margin, size, face_index, label, label_corner, label_size: as
            :meth:`~fd2talk_core.pipeline.FD2TalkPipeline.__call__` takes them.
        device: that networks run on; of a pipeline that is loaded, they stay where they are.
        style, style_strength: the mood that the face speaks in, as
            :meth:`~fd2talk_core.pipeline.FD2TalkPipeline.__call__` takes it; while it waits, it is neutral.

    Raises:
        FD2TalkError: one sentence naming the input that cannot be used.
    """

    @checked
    def __init__(
        self,
        portrait: Tensor | Path | str,
        weights: str | FD2TalkPipeline = "tiny",
        *,
        fps: float = 25.0,
        sample_rate: int = 24_000,
        look_ahead: float = 0.2,
        seed: int = 0,
        frame_steps: int | None = None,
        expression_intensity: float = 1.0,
        paste_back: bool = True,
        detail: float = DEFAULT_DETAIL,
        margin: float = 1.0,
        size: int | None = None,
        face_index: int = 0,
        label: str = "",
        label_corner: str = CORNERS[0],
        label_size: float = LABEL_SIZE,
        device: str = "cpu",
        style: str = NEUTRAL,
        style_strength: float = 1.0,
    ) -> None:
        check_fps(fps)
        check_sample_rate(sample_rate)
        check_number(expression_intensity, "The intensity", 0, 10)
        check_whole(seed, "The seed", 0, (1 << 63) - 1)
        pipeline = (
            FD2TalkPipeline.from_pretrained(weights, device=device) if isinstance(weights, str) else weights
        )
        picture = portrait if isinstance(portrait, Tensor) else read_image(portrait)
        reference = encode_reference(
            picture,
            pipeline.autoencoder,
            pipeline.landmarker,
            pipeline.face_model,
            face_index=face_index,
            margin=margin,
            size=size,
        )
        shown = (picture, paste_back, detail, margin, size, face_index)
        marks = ClipMarks.of("live", *shown, fps, seed, frame_steps, label=(label, label_corner, label_size))
        drawer = PortraitDrawer.of(
            pipeline.unet,
            pipeline.autoencoder,
            reference,
            pipeline.face_model,
            marks.marker(),
            seed=seed,
            steps=frame_steps,
            paste_back=paste_back,
            detail=detail,
        )
        networks = MotionNetworks(pipeline.audio_encoder, pipeline.expression, pipeline.pose)
        names, level = tuple(pipeline.expression.config.coefficient_names), VoiceLevel()
        size_of = len(reference.expression)
        names = names if len(names) == size_of else ()

        def listen(number: int) -> Moves:
            return SpeechMotion(
                networks,
                level,
                seed + number,
                fps,
                look_ahead,
                expression_intensity,
                style,
                style_strength,
            )

        listen(0)  # says at once what it cannot use

        timeline = Timeline(
            fps,
            int(sample_rate),
            IdleMotion(names, size_of, fps, seed, reference.face_model),
            lambda rows, anchor: on_portrait(rows, reference.face, names, anchor),
            mouth_mask(names, size_of),
        )
        # the first frame decides on the mark, and warms the networks up
        timeline.plan(0.0)
        self.still = drawer.draw(timeline.queued[0].rows)[0]
        workers = worker_count(pipeline.autoencoder.device)
        super().__init__(timeline, drawer, listen, SystemClock(), workers)
        timeline.queued[0].picture, timeline.queued[0].taken_up = self.still, True
        for frames in (1, DRAWN_TOGETHER):
            began = self.clock.now()
            drawer.draw(Rows.join([timeline.queued[0].rows] * frames))
            self.pace.saw(frames, self.clock.now() - began)
        self._threads: list[threading.Thread] = []
        self._cores = torch.get_num_threads()
        self._failure: Exception | None = None

    # -- threads --

    @property
    def closed(self) -> bool:
        """Whether it has been closed, or has failed."""
        return self._closed

    def start(self) -> LiveAvatar:
        """Begin to live; the first frame that is asked for does so as well."""
        with self.news:
            if self._closed:
                raise FD2TalkError("The avatar is closed: make another one.")
            if not self._threads:
                self.timeline.start = self.clock.now()
                works = [self.hear, *[self.draw] * self.workers]
                self._threads = [
                    threading.Thread(target=self._work, args=(work,), daemon=True) for work in works
                ]
                for thread in self._threads:
                    thread.start()
        return self

    def _work(self, work: Callable[[], bool]) -> None:
        torch.set_num_threads(1)
        try:
            while not self._closed:
                if not work():
                    with self.news:
                        if not self._closed:
                            self.news.wait(float(1 / self.timeline.rate) / 2)
        except Exception as error:  # whatever it is, who takes frames is told
            with self.news:
                self._failure = error
                self.news.notify_all()

    def close(self) -> None:
        """Stop; what has not been taken is forgotten."""
        with self.news:
            self._closed = True
            self.news.notify_all()
        for thread in self._threads:
            thread.join()
        self._threads = []
        # threads that are yet to start take the number that was set last, by whichever thread
        torch.set_num_threads(self._cores)

    def __enter__(self) -> LiveAvatar:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> LiveAvatar:
        return self.start()

    def __next__(self) -> LiveFrame:
        if self._closed:
            raise StopIteration
        frame = self.take()
        if self._failure is not None:
            self.close()
            raise self._failure
        return frame


def _mono(pcm: Tensor | np.ndarray | bytes, sample_rate: int) -> Tensor:
    """Sound that was pushed as ``[N]`` float32.

    Raises:
        FD2TalkError: when it is none.
    """
    check_sample_rate(sample_rate)
    check_type(pcm, "The sound", Tensor | np.ndarray | bytes)
    if isinstance(pcm, bytes):
        if len(pcm) % 2:
            raise FD2TalkError(f"The sound has {len(pcm)} bytes, but 16-bit PCM has two a sample.")
        pcm = np.frombuffer(pcm, "<i2")
    if isinstance(pcm, np.ndarray):
        try:
            pcm = torch.from_numpy(np.ascontiguousarray(pcm))
        except TypeError as error:
            raise FD2TalkError(
                f"The sound is of type {pcm.dtype}, but float or integer samples are needed."
            ) from error
    sound = as_float(check_waveform(pcm, sample_rate).detach().cpu()).float().mean(dim=0)
    if not torch.isfinite(sound).all():
        raise FD2TalkError("The sound holds a value that is not a finite number.")
    return sound

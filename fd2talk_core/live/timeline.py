"""What is seen and heard when: slots of a video that goes on for ever, each with its sound and its motion.

A slot is one frame of the video. It is planned shortly before it is due: with speech, as soon as that has
been heard far enough, else waiting. Sound passes through in order and sample for sample. Nothing here runs by
itself or knows the time; the caller tells both.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from ..imaging import smoothstep
from ..timing import check_fps
from .motion import IdleMotion, Rows

EASE_MOUTH, EASE_HEAD = 0.12, 0.5
"""Seconds in which mouth and head pass from one motion to another."""
FADE = 0.005
"""Seconds in which sound that is cut off fades."""
AHEAD = 1.0
"""Seconds of speech that are planned before they are due."""
LEAST_LEAD = 2
"""Slots that are planned before they are due while nothing is said; at most as many as last for
:data:`AHEAD`.
"""


@dataclass
class Slot:
    """One frame of the video.

    Attributes:
        number: from 0.
        sound: ``[n]``, what is heard while it is seen.
        rows: its motion, as the portrait is to show it.
        heard: when the first of its sound came in; None where it is silence.
        speech: whether it is part of an utterance.
        last: whether an utterance ends with it.
        taken_up: whether its picture is being made, or is made.
        picture: ``[H, W, 3]`` uint8, once it is made.
    """

    number: int
    sound: np.ndarray
    rows: Rows
    heard: float | None = None
    speech: bool = False
    last: bool = False
    taken_up: bool = False
    picture: Tensor | None = None


@dataclass
class Utterance:
    """Speech between two pauses, as far as it has come and has not been planned yet.

    Attributes:
        pieces: sound, and when it came in.
        samples: how many they are.
        motion: frames that are made.
        ended: whether no more sound comes.
        complete: whether no more motion comes.
        begun: whether any of it has been planned.
    """

    pieces: deque[tuple[np.ndarray, float]] = field(default_factory=deque)
    samples: int = 0
    motion: deque[Rows] = field(default_factory=deque)
    ended: bool = False
    complete: bool = False
    begun: bool = False

    def push(self, sound: np.ndarray, now: float) -> None:
        """Add ``[n]`` samples."""
        if not len(sound):
            return
        self.pieces.append((sound, now))
        self.samples += len(sound)

    def take(self, count: int) -> tuple[np.ndarray, float | None]:
        """The next samples, with silence after the last, and when the first of them came."""
        sound, filled = np.zeros(count, np.float32), 0
        heard = self.pieces[0][1] if self.pieces else None
        while filled < count and self.pieces:
            piece, came = self.pieces.popleft()
            part = piece[: count - filled]
            sound[filled : filled + len(part)] = part
            filled += len(part)
            if len(part) < len(piece):
                self.pieces.appendleft((piece[len(part) :], came))
        self.samples -= filled
        return sound, heard


class Timeline:
    """
    Args:
        fps: of the video.
        sample_rate: Hz, of the sound.
        idle: the motion of who waits.
        on_portrait: applies frames of motion to the portrait; the pose at which it looks as it does is given.
        mouth: ``[D_β]`` bool, the expression's coefficients that shape the mouth.

    Attributes:
        start: when slot 0 was due.
        underruns: slots of silence within speech, since the sound or its motion came late.
        queued: slots that are planned and not taken, by number.
    """

    def __init__(
        self,
        fps: float,
        sample_rate: int,
        idle: IdleMotion,
        on_portrait: Callable[[Rows, Tensor], Rows],
        mouth: Tensor,
    ) -> None:
        self.rate, self.sample_rate = check_fps(fps), sample_rate
        self.idle, self.on_portrait, self.mouth = idle, on_portrait, mouth
        self.start = 0.0
        self.lead = LEAST_LEAD
        self.underruns = 0
        self.queued: deque[Slot] = deque()
        self.utterances: deque[Utterance] = deque()
        self._next = 0  # slot to be planned
        self._anchor = torch.zeros(6)
        self._speaking = False
        self._sounding = False  # whether the slot taken last is speech
        self._shown: Rows | None = None  # the motion of the slot planned last
        self._taken: Rows | None = None  # and of the one taken last
        self._from: tuple[int, Rows] | None = None  # when the motion changed, and what it was
        self._cut = np.zeros(0, np.float32)  # sound that fades

    # -- time --

    def due(self, number: int) -> float:
        """When a slot is to be seen."""
        return self.start + float(number / self.rate)

    def next_due(self, now: float) -> int:
        """The first slot that is not due yet."""
        return max(0, math.ceil((now - self.start) * float(self.rate) - 1e-9))

    def _samples(self, number: int) -> int:
        """How many samples are heard during a slot; the sum over slots is off by less than one."""
        ends = [math.floor(Fraction(at * self.sample_rate) / self.rate) for at in (number, number + 1)]
        return ends[1] - ends[0]

    # -- speech --

    def listening(self) -> Utterance:
        """The utterance that sound which comes in belongs to."""
        if not self.utterances or self.utterances[-1].ended:
            self.utterances.append(Utterance())
        return self.utterances[-1]

    @property
    def waiting(self) -> float:
        """Seconds of sound that have come and are not planned."""
        return sum(utterance.samples for utterance in self.utterances) / self.sample_rate

    def clear(self) -> None:
        """Forget all speech that has not been taken: the next slot is silent, and the mouth shuts."""
        following = self.queued[0] if self.queued else None
        fading = np.zeros(0, np.float32)
        if self._sounding and following is not None:
            fading = following.sound[: round(FADE * self.sample_rate)]
        self._cut = fading * np.linspace(1, 0, len(fading), dtype=np.float32)
        self.utterances.clear()
        if following is not None:
            self._next = following.number
        self.queued.clear()
        self._speaking, self._sounding, self._shown = False, False, self._taken
        if self._shown is not None:
            self._from = self._next, self._shown

    # -- planning --

    def plan(self, now: float) -> None:
        """Plan what can be, and what has to be."""
        # where nobody takes slots, none are planned for ever
        first = self.queued[0].number if self.queued else self._next
        following = min(self.next_due(now), first + round(AHEAD * self.rate))
        while self._speech_ready() and self._next < following + AHEAD * self.rate:
            self._plan_speech()
        # speech that is late is waited for as long as there is time; if that was in vain, the pause is made
        # long enough for the pictures after it to be in time again
        within = bool(self.utterances) and self.utterances[0].begun
        lead = 1 if within else self.lead
        while self._next < following + lead:
            if self._speech_ready():
                self._plan_speech()
            else:
                self._plan_waiting()
                lead = self.lead

    def _speech_ready(self) -> bool:
        if not self.utterances:
            return False
        first = self.utterances[0]
        return bool(first.motion) or (first.complete and first.samples > 0)

    def _plan_speech(self) -> None:
        utterance = self.utterances[0]
        if not utterance.begun:
            self._change(True)
            utterance.begun = True
            if utterance.motion:
                self._anchor = utterance.motion[0].pose[0]
        elif not self._speaking and utterance.motion:
            self._change(True)
        sound, heard = utterance.take(self._samples(self._next))
        # what sounds after the last frame is less than a slot
        shown = (
            self._eased(self.on_portrait(utterance.motion.popleft(), self._anchor))
            if utterance.motion
            else self._shown
        )
        over = utterance.complete and not utterance.motion and not utterance.samples
        self._add(Slot(self._next, sound, shown, heard, True, over))
        if over:
            self.utterances.popleft()
            self._change(False)

    def _plan_waiting(self) -> None:
        if self._speaking:
            self._change(False)
        self.underruns += bool(self.utterances) and self.utterances[0].begun
        sound = np.zeros(self._samples(self._next), np.float32)
        fading = self._cut[: len(sound)]
        sound[: len(fading)] = fading
        self._cut = self._cut[len(fading) :]
        self._add(Slot(self._next, sound, self._eased(self._waiting())))

    def _add(self, slot: Slot) -> None:
        self.queued.append(slot)
        self._shown = slot.rows
        self._next += 1

    def _waiting(self) -> Rows:
        return self.on_portrait(self.idle.rows(self._next), torch.zeros(6))

    def _change(self, speaking: bool) -> None:
        """From here on the motion is another."""
        self._speaking = speaking
        if self._shown is not None:
            self._from = self._next, self._shown

    def _eased(self, rows: Rows) -> Rows:
        """Motion that begins where the one before it was left."""
        if self._from is None:
            return rows
        begun, before = self._from
        passed = torch.tensor((self._next - begun + 1) / float(self.rate))
        if float(passed) >= EASE_HEAD:
            self._from = None
            return rows
        mouth, head = (smoothstep(passed / span) for span in (EASE_MOUTH, EASE_HEAD))
        eased = before.towards(rows, head.view(1, 1))
        shut = torch.lerp(before.expression, rows.expression, mouth)
        return Rows(torch.where(self.mouth, shut, eased.expression), eased.pose)

    # -- giving --

    def take(self, now: float) -> Slot:
        """The next slot, planned at once if it is not yet."""
        if not self.queued:
            self.plan(max(now, self.due(self._next)))
        slot = self.queued.popleft()
        self._taken, self._sounding = slot.rows, slot.speech
        return slot

    def to_draw(self) -> Iterator[Slot]:
        """Slots whose pictures nobody has taken up."""
        return (slot for slot in self.queued if not slot.taken_up)

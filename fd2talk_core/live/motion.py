"""Motion of speech that is still coming in, and of a face that waits (FD2Talk Sec. 3.2).

Speech is taken a chunk at a time. The networks see the chunk, some frames before it, and as much after it as
the look-ahead allows; since noise goes by the frame's number, neighbouring windows tell the same story. Where
they do not quite, the one passes into the other.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor

from ..audio.encoder import AudioEncoder
from ..audio.features import NATIVE_FPS
from ..checks import check_number
from ..face.names import ARKIT_NAMES, POSE_NAMES
from ..face.rotations import interpolate_pose
from ..face.state import FaceState
from ..imaging import smoothstep
from ..motion.breathing import add_breath, add_brows, brow_lift, quiet_breath
from ..motion.coefficients import CoefficientSequence, blend_over_rest, mouth_mask, start_at_pose
from ..motion.defaults import NEUTRAL
from ..motion.editing import BLINK_OPEN, add_blinks, idle_gaze, idle_motion, natural_blink_times
from ..motion.sampling import sample_motion, style_amounts
from ..networks.motion_transformer import MotionTransformer
from ..timing import check_fps, frame_count
from .hearing import SpeechFeatures, VoiceLevel

CHUNK = 4
"""Frames of the motion networks, 0.16 s, that are made together."""
FADE = (4, 25)
"""Frames in which one window passes into the next: the expression, and the head, about whose place windows
differ by several degrees."""
CONTEXT = 25
"""Frames that they see before those."""
LOOK_AHEADS = (0.2, 0.6)
"""Seconds, least and most."""

IDLE_SECONDS = 20
"""Of waiting that are made together."""
IDLE_AMOUNT = 0.6
"""Of :func:`~fd2talk_core.motion.editing.idle_motion`: who listens holds still."""


class Rows(NamedTuple):
    """The motion of n frames: expression ``[n, D_β]`` and pose ``[n, 6]``."""

    expression: Tensor
    pose: Tensor

    def __getitem__(self, frames: slice) -> Rows:
        return Rows(self.expression[frames], self.pose[frames])

    @property
    def count(self) -> int:
        return len(self.pose)

    @classmethod
    def join(cls, parts: list[Rows]) -> Rows:
        """One after the other."""
        return cls(*(torch.cat([part[index] for part in map(tuple, parts)]) for index in range(2)))

    def towards(self, others: Rows, weight: Tensor) -> Rows:
        """Between these and others, by ``[n, 1]`` in 0..1."""
        return Rows(
            torch.lerp(self.expression, others.expression, weight),
            interpolate_pose(self.pose, others.pose, weight),
        )


class MotionNetworks(NamedTuple):
    """What hears and moves."""

    audio_encoder: AudioEncoder
    expression: MotionTransformer
    pose: MotionTransformer


class SpeechMotion:
    """The motion of one utterance, made while it comes in.

    What it knows less than :func:`~fd2talk_core.motion.sampling.sample_motion` is what is said after the
    look-ahead, what was said over a second ago, and how loud the whole recording is: an utterance that has
    ended within a first chunk and its look-ahead comes out the same, but for the level.

    Args:
        networks: those that the motion is made by.
        level: of the voice.
        seed: the same seed gives the same motion.
        fps: of the video.
        look_ahead: seconds of sound after a frame that must have come before it is made; see
            :data:`LOOK_AHEADS`.
        intensity: scale of the expression.
        style, style_strength: as :func:`~fd2talk_core.motion.sampling.sample_motion` takes them.
    """

    def __init__(
        self,
        networks: MotionNetworks,
        level: VoiceLevel,
        seed: int,
        fps: float,
        look_ahead: float,
        intensity: float = 1.0,
        style: str = NEUTRAL,
        style_strength: float = 1.0,
    ) -> None:
        style_amounts(networks.expression, style, style_strength)  # says at once what it cannot do
        self.style, self.style_strength = style, style_strength
        self.networks, self.seed, self.fps, self.intensity = networks, seed, check_fps(fps), intensity
        self.look_ahead = round(check_number(look_ahead, "The look-ahead", *LOOK_AHEADS) * NATIVE_FPS)
        self.features = SpeechFeatures(networks.audio_encoder, level)
        self.ended = False
        self._duration = Fraction(0)
        self._made = 0
        # brows, lids and head are made for two chunks together, the second by what is left of the look-ahead:
        # they are most of the work, and hardly hang on what is said
        self._expected: Rows | None = None
        self._last: Rows | None = None
        config = networks.expression.config
        size = config.coefficient_dim - (len(POSE_NAMES) if config.kind == "joint" else 0)
        self._mouth = mouth_mask(config.coefficient_names, size)
        self._bounded = bool(config.coefficient_names) and set(config.coefficient_names) <= set(ARKIT_NAMES)
        self._native: tuple[CoefficientSequence, CoefficientSequence] | None = None
        self._native_from = self._given = 0

    def push(self, samples: Tensor) -> None:
        """``[n]`` samples at 16 kHz."""
        self.features.push(samples)

    def finish(self, duration: Fraction) -> None:
        """No more comes: the utterance lasted so many seconds."""
        self.ended, self._duration = True, duration
        self.features.finish(duration)

    @property
    def done(self) -> bool:
        """Whether all of its frames have been given."""
        return self.ended and self._given == self.num_frames

    @property
    def num_frames(self) -> int:
        """Frames of the video, once it has ended."""
        return max(1, frame_count(self._duration, float(self.fps)))

    @property
    def ready(self) -> bool:
        """Whether enough has been heard for the next chunk."""
        if self.ended:
            return not self.done
        return self.features.num_frames >= self._made + CHUNK + self.look_ahead

    def advance(self) -> Rows | None:
        """The next frames at the video's rate, as the networks give them; None when nothing is ready, or what
        is ready is still between two frames of the video."""
        if not self.ready:
            return None
        heard = self.features.num_frames
        if self._made < heard:
            last = self.ended and heard <= self._made + CHUNK + self.look_ahead
            stop = heard if last else self._made + CHUNK + self.look_ahead
            self._extend(stop, stop - self._made if last else CHUNK)
        return self._to_video()

    def _extend(self, stop: int, count: int) -> None:
        """Make the next frames, by what has been heard before ``stop``."""
        start = max(0, self._made - CONTEXT)
        heard = self.features.window(start, self._made, stop)
        expected = self._expected
        held = expected is not None and expected.count >= count and not self._mouth.all()
        options: dict[str, int] = {"seed": self.seed, "first_frame": start}
        expression = sample_motion(
            self.networks.expression,
            heard,
            kind="expression",
            intensity=self.intensity,
            style=self.style,
            style_strength=self.style_strength,
            mouth_alone=held,
            **options,
        )
        if held:
            assert expected is not None  # that is what it means
            mouth = self._joined(0, expression.values, self._made - start)[:count]
            free = torch.where(self._mouth, mouth, expected.expression[:count])
            rows, self._expected = Rows(free, expected.pose[:count]), None
        else:
            pose = sample_motion(self.networks.pose, heard, kind="pose", **options)
            both = (expression.values, pose.values)
            rows = Rows(*(self._joined(at, values, self._made - start) for at, values in enumerate(both)))
            rows, self._expected = rows[:count], rows[count:]
            self._native = self._native or (expression, pose)
        self._made += count
        assert self._native is not None  # the first window is a whole one
        held_rows = Rows(*(sequence.values for sequence in self._native))
        joined = Rows.join([held_rows, rows]) if self._last is not None else rows
        self._last = rows[-1:]
        self._native = (
            self._native[0].replace(values=joined.expression),
            self._native[1].replace(values=joined.pose),
        )

    def _joined(self, part: int, values: Tensor, before: int) -> Tensor:
        """Values ``[n, D]`` of a window without the ``before`` frames that were made already. They begin
        where the last of those was left, and come to be the window's own within :data:`FADE` frames."""
        following = values[before:]
        if self._last is None:
            return following
        gap = tuple(self._last)[part] - values[before - 1]
        passed = torch.arange(1, len(following) + 1)[:, None] / (FADE[part] + 1)
        joined = following + gap * (1 - smoothstep(passed))
        return joined.clamp(0, 1) if part == 0 and self._bounded else joined

    def _to_video(self) -> Rows | None:
        """Frames of the video that lie between frames that are made."""
        assert self._native is not None  # a window has been made
        last = self._made - 1
        complete = self.ended and self._made == self.features.num_frames
        first = self._given
        if complete:
            stop = self.num_frames
        else:
            stop = max(
                first,
                int((Fraction(last) + Fraction(1, 2)) * self.fps / Fraction(NATIVE_FPS) + Fraction(1, 2)),
            )
        if stop == first:
            return None
        steps = torch.arange(first, stop, dtype=torch.float64)
        position = ((steps + 0.5) * (NATIVE_FPS / float(self.fps)) - 0.5).clamp(0, last) - self._native_from
        rows = Rows(*(sequence.at(position) for sequence in self._native))
        self._given = stop
        forgotten = max(0, int(position[-1]) - 1)
        self._native = tuple(part.replace(values=part.values[forgotten:]) for part in self._native)
        self._native_from += forgotten
        return rows


class IdleMotion:
    """A face that waits: it breathes, blinks, looks here and there, its brows move now and then, and its head
    sways a little. A function of time and the seed.

    Args:
        names: of the expression's coefficients; without lids among them nothing blinks.
        size: D_β.
        fps: of the video.
        seed: the same seed waits alike.
    """

    def __init__(self, names: tuple[str, ...], size: int, fps: float, seed: int, face_model: str) -> None:
        self.names, self.size, self.fps, self.seed, self.face_model = names, size, fps, seed, face_model
        self._length = max(1, round(IDLE_SECONDS * fps))
        self._block: tuple[int, Rows] | None = None

    def rows(self, frame: int) -> Rows:
        """One frame, by its number."""
        number, place = divmod(frame, self._length)
        if self._block is None or self._block[0] != number:
            self._block = number, self._made(number)
        return self._block[1][place : place + 1]

    def _made(self, number: int) -> Rows:
        start = number * self._length / self.fps
        sway = idle_motion(
            self._length, self.fps, self.seed, IDLE_AMOUNT, face_model=self.face_model, start=start
        )
        rest = torch.zeros(self._length, self.size)
        expression = CoefficientSequence("expression", rest, self.fps, self.face_model, self.names)
        if set(ARKIT_NAMES) <= set(self.names):
            # one that is not over at the end would be cut
            times = natural_blink_times(IDLE_SECONDS - 2 * BLINK_OPEN, self.seed + number, 17.0)
            expression = add_blinks(expression, times=[time for time in times if time < expression.duration])
            expression = idle_gaze(expression, sway, self.seed + number, IDLE_AMOUNT)
        times = (torch.arange(self._length, dtype=torch.float64) + 0.5) / self.fps + start
        breath, shut = quiet_breath(times, self.seed), torch.zeros(self._length)
        face = add_breath("expression", expression.values, self.names, breath, shut)
        face = add_brows(face, self.names, brow_lift(times, self.seed))
        return Rows(face, add_breath("pose", sway.values, (), breath, shut))


def on_portrait(rows: Rows, face: FaceState, names: tuple[str, ...], anchor: Tensor) -> Rows:
    """Motion as the portrait is to show it: the mouth as it is, the rest over the portrait's own.

    Args:
        rows: as the networks give them.
        anchor: ``[6]``, the pose at which the portrait looks as it does.
    """
    pose = start_at_pose(torch.cat([anchor[None], rows.pose]), face.pose.cpu())[1:]
    return Rows(blend_over_rest(rows.expression, face.expression.cpu(), names), pose)

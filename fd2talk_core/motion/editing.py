"""Editing motion: pure functions from sequences to a sequence, one artist's gesture each.

Times are seconds; frame i is the instant (i + 0.5) / fps. Turns of the head are blended, scaled and smoothed
as rotations (along the shortest arc), positions and blendshapes along the line. The mouth belongs to the
sound, so what could smear lip sync can leave it alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from ..checks import checked
from ..errors import FD2TalkError
from ..face.names import ARKIT_NAMES, GAZE, MOUTH_NAMES, OPEN_FACE_MODEL, POSE_NAMES
from ..face.rotations import (
    axis_angle_to_matrix,
    euler_angles,
    interpolate_pose,
    matrix_to_axis_angle,
    mean_rotation,
    rotation_matrix,
)
from ..imaging import smoothstep
from ..timing import MAX_FRAMES, check_fps, frame_count
from .coefficients import CoefficientSequence, mouth_mask

GROUPS: dict[str, tuple[str, ...]] = {
    "mouth": MOUTH_NAMES,
    "brows": tuple(name for name in ARKIT_NAMES if name.startswith("brow")),
    "eyes": tuple(name for name in ARKIT_NAMES if name.startswith("eye")),
    "cheeks": tuple(name for name in ARKIT_NAMES if name.startswith(("cheek", "nose"))),
}
"""Every ARKit blendshape is in one of them."""
POSE_GROUPS: dict[str, tuple[str, ...]] = {"rotation": POSE_NAMES[:3], "shift": POSE_NAMES[3:]}

BLINK_CLOSE, BLINK_SHUT, BLINK_OPEN = 0.09, 0.05, 0.17
"""Seconds: lids fall about twice as fast as they rise."""
BLINK_REFRACTORY = 0.8
"""Seconds after a blink in which no other begins."""
FIXATION = (0.4, 1.6)
"""Seconds: least, and mean of what comes on top, that eyes at rest look at one spot."""
SACCADE = 0.05
"""Seconds that a small shift of gaze takes."""
GAZE_DEVIATION = (0.05, 0.03)
"""Standard deviation of idle gaze in radians, sideways and up or down."""
STEADY_GAZE = 0.8
"""Of the head's turn that eyes take back."""
IDLE_DEVIATION = (0.025, 0.035, 0.018, 0.03, 0.02, 0.03)
"""Standard deviation of idle motion along each pose coefficient: radians and face-model units."""
IDLE_BAND = (0.04, 0.7)
"""Hertz."""
IDLE_WAVES = 12

_SIDEWAYS, _UP, _DOWN = (round(math.degrees(GAZE[way]), 1) for way in ("Out", "Up", "Down"))

Pivot = Literal["rest", "mean", "first"]
Fit = Literal["stretch", "hold", "loop"]


# Values


@checked
def scale(
    sequence: CoefficientSequence, factors: float | Mapping[str, float], about: Pivot = "rest"
) -> CoefficientSequence:
    """Make motion larger or smaller: the distance from a pivot times a factor.

    Args:
        factors: one number for all, or one a group: those of :data:`GROUPS` for an expression, ``rotation``
            and ``shift`` for a pose. A group that is not named keeps its size.
        about: ``rest`` (a neutral face, a straight head), ``mean`` of the clip, or its ``first`` frame.

    Raises:
        FD2TalkError: for an unknown group or pivot, or a factor that is not a number.
    """
    factor = _weights(sequence, factors, default=1.0)
    pivot = _pivot(sequence, about)
    values = sequence.values.double()
    if sequence.kind == "expression":
        rest = None if sequence.rest is None else pivot + (sequence.rest - pivot) * factor
        return sequence.replace(values=pivot + (values - pivot) * factor, rest=rest)
    turn = _log_turn(pivot, values) * factor[:3]
    shift = pivot[3:] + (values[:, 3:] - pivot[3:]) * factor[3:]
    return sequence.replace(values=torch.cat([_exp_turn(pivot, turn), shift], dim=1))


@checked
def offset(sequence: CoefficientSequence, amounts: Mapping[str, float]) -> CoefficientSequence:
    """Add a constant to coefficients by name: ARKit names, or pitch, yaw, roll (radians), x, y, z (units).

    Raises:
        FD2TalkError: for a name that the sequence does not have, or an amount that is not a number.
    """
    names = _names(sequence)
    values = sequence.values.clone()
    for name, amount in amounts.items():
        if name not in names:
            raise FD2TalkError(f"The {sequence.kind} has no coefficient {name!r}; it has {_list(names)}.")
        values[:, names.index(name)] += _finite(amount, name)
    return sequence.replace(values=values)


@checked
def smooth(sequence: CoefficientSequence, seconds: float, keep_mouth: bool = False) -> CoefficientSequence:
    """Take jitter out with a Gaussian that delays nothing.

    The ends are continued by point reflection, so a steady move stays what it is up to the first and last
    frame.

    Args:
        seconds: standard deviation of the Gaussian, 0 to 10; 0 changes nothing.
        keep_mouth: leave an expression's mouth, whose quick closures are the lip sync, as it is.

    Raises:
        FD2TalkError: when seconds is negative or over 10.
    """
    deviation = _between(seconds, 0, 10, "The smoothing") * sequence.fps
    if deviation == 0:
        return sequence
    values = sequence.values.double()
    if sequence.kind == "expression":
        smoothed = _gaussian(values, deviation)
        return sequence.replace(values=torch.where(_held(sequence, keep_mouth), smoothed, values))
    mean = _pivot(sequence, "mean")
    turn = _gaussian(_log_turn(mean, values), deviation)
    return sequence.replace(
        values=torch.cat([_exp_turn(mean, turn), _gaussian(values[:, 3:], deviation)], dim=1)
    )


@checked
def hold_still(
    sequence: CoefficientSequence,
    start: float = 0.0,
    end: float | None = None,
    *,
    at: Pivot = "first",
    amount: float = 1.0,
    blend: float = 0.0,
    keep_mouth: bool = True,
) -> CoefficientSequence:
    """Freeze the head, or the face around a speaking mouth, over part of a clip.

    Args:
        start, end: seconds of the part; None is the clip's end.
        at: what is held: the ``first`` frame of the part, the clip's ``mean``, or ``rest``.
        amount: 1 is quite still, 0.5 moves half as much.
        blend: seconds over which the stillness comes and goes, inside the part.
        keep_mouth: an expression's mouth goes on.

    Raises:
        FD2TalkError: when no frame lies in the part, or amount is not in 0..1.
    """
    first, last = _frames_within(sequence, start, end)
    amount = _between(amount, 0, 1, "The amount")
    blend = _between(blend, 0, 3600, "The blend")
    held = sequence.values[first] if at == "first" else _pivot(sequence, at).float()
    time = (torch.arange(first, last, dtype=torch.float64) + 0.5) / sequence.fps
    begin, finish = first / sequence.fps, last / sequence.fps
    rise = (time - begin) / blend if blend and first > 0 else torch.ones_like(time)
    fall = (finish - time) / blend if blend and last < sequence.num_frames else torch.ones_like(time)
    weight = torch.zeros(sequence.num_frames, 1, dtype=torch.float64)
    weight[first:last, 0] = amount * smoothstep(torch.minimum(rise, fall))
    still = _mixed(sequence, sequence.values, held.expand_as(sequence.values), weight)
    if sequence.kind == "pose":
        return sequence.replace(values=still)
    return sequence.replace(values=torch.where(_held(sequence, keep_mouth), still, sequence.values.double()))


# Time


@checked
def retime(
    sequence: CoefficientSequence,
    *,
    fps: float | None = None,
    num_frames: int | None = None,
    method: Fit = "stretch",
) -> CoefficientSequence:
    """Bring a sequence to a frame rate and a length.

    Args:
        fps: new frame rate; None keeps it. The motion keeps its speed.
        num_frames: new length; None keeps the duration.
        method: how the length is reached: ``stretch`` plays slower or faster, first and last frame staying
            what they are; ``hold`` cuts, or holds the last frame; ``loop`` cuts, or goes there and back.

    Raises:
        FD2TalkError: when fps, the length or the method are out of range.
    """
    rate = float(sequence.fps if fps is None else fps)
    check_fps(rate)
    natural = max(frame_count(sequence.num_frames / check_fps(sequence.fps), rate), 1)
    count = _count(natural if num_frames is None else num_frames)
    if method not in ("stretch", "hold", "loop"):
        raise FD2TalkError(f"The method is {method!r}, but 'stretch', 'hold' or 'loop' is needed.")
    if method == "stretch" and count != natural:
        position = torch.linspace(0, sequence.num_frames - 1, count, dtype=torch.float64)
        return sequence.replace(values=_sampled(sequence, position), fps=rate)
    played = sequence.resample(rate, natural)
    if method == "loop":
        return loop(played, count)
    index = torch.arange(count).clamp(max=natural - 1)
    return played.replace(values=played.values[index])


@checked
def trim(sequence: CoefficientSequence, start: float = 0.0, end: float | None = None) -> CoefficientSequence:
    """The part between two instants, in seconds; None is the clip's end.

    Raises:
        FD2TalkError: when no frame lies between them.
    """
    first, last = _frames_within(sequence, start, end)
    return sequence.replace(values=sequence.values[first:last])


@checked
def splice(
    first: CoefficientSequence, second: CoefficientSequence, blend: float = 0.2
) -> CoefficientSequence:
    """One sequence after another, cross-faded: F₁ + F₂ − round(blend × fps) frames.

    Args:
        second: is brought to the first one's frame rate.
        blend: seconds in which the end of the first and the beginning of the second overlap.

    Raises:
        FD2TalkError: when the two are of different kinds or face models, or either is shorter than the blend.
    """
    _check_pair(first, second)
    second = _from_rest_of(first, retime(second, fps=first.fps))
    overlap = round(_between(blend, 0, 3600, "The blend") * first.fps)
    if overlap > min(first.num_frames, second.num_frames):
        raise FD2TalkError(
            f"The blend takes {overlap} frames, but the two sequences have {first.num_frames} and "
            f"{second.num_frames}: shorten the blend."
        )
    cut = first.num_frames - overlap
    weight = (torch.arange(overlap, dtype=torch.float64)[:, None] + 1) / (overlap + 1)
    between = _mixed(first, first.values[cut:], second.values[:overlap], smoothstep(weight))
    parts = [first.values[:cut], between.float(), second.values[overlap:]]
    return first.replace(values=torch.cat(parts))


@checked
def loop(sequence: CoefficientSequence, num_frames: int) -> CoefficientSequence:
    """There and back and there again, without a jump and without showing a turning point twice.

    Raises:
        FD2TalkError: when num_frames is not in 1..1,000,000.
    """
    count = sequence.num_frames
    index = torch.arange(_count(num_frames)) % max(2 * count - 2, 1)
    return sequence.replace(values=sequence.values[torch.where(index < count, index, 2 * count - 2 - index)])


# Two sequences


@checked
def mix(
    first: CoefficientSequence, second: CoefficientSequence, weights: float | Mapping[str, float]
) -> CoefficientSequence:
    """Some of one and some of another: the mouth of this, the brows of that; the nod of this, the turn of
    that.

    Args:
        weights: share of the second, 0..1: one number, or one a group of :data:`GROUPS` for an expression;
            for a pose one a coefficient (``pitch`` … ``z``) or a group (``rotation``, ``shift``). What is not
            named stays the first's. Equal weights turn the head along the shortest arc; different ones go
            angle by angle.

    Raises:
        FD2TalkError: when the two differ in kind, face model, length or frame rate, or a weight is not in
            0..1.
    """
    _check_pair(first, second)
    if first.num_frames != second.num_frames or first.fps != second.fps:
        raise FD2TalkError(
            f"The first {first.kind} has {first.num_frames} frames at {first.fps:g} fps and the second "
            f"{second.num_frames} at {second.fps:g}: retime one of them."
        )
    share = _weights(first, weights, default=0.0)
    if not ((share >= 0) & (share <= 1)).all():
        raise FD2TalkError("A share of the mix is outside of 0..1: 0 is the first sequence, 1 the second.")
    one, other = first.values.double(), second.values.double()
    if first.kind == "expression":
        other = _from_rest_of(first, second).values.double()
        return first.replace(values=torch.lerp(one, other, share.expand_as(one)))
    if (share[:3] == share[0]).all():
        turned = interpolate_pose(one, other, share[0].expand(len(one), 1))[:, :3]
    else:
        difference = other[:, :3] - one[:, :3]
        turned = one[:, :3] + share[:3] * torch.atan2(difference.sin(), difference.cos())
    shifted = torch.lerp(one[:, 3:], other[:, 3:], share[3:].expand_as(one[:, 3:]))
    return first.replace(values=torch.cat([turned, shifted], dim=1))


# Eyes


@checked
def add_blinks(
    expression: CoefficientSequence,
    *,
    times: Sequence[float] | None = None,
    seed: int = 0,
    per_minute: float = 17.0,
    strength: float = 1.0,
    replace_existing: bool = False,
) -> CoefficientSequence:
    """Blinks at given instants, or natural ones: independent of each other but for a pause after each.

    Args:
        times: seconds at which the eyes are shut; None draws them.
        seed: of the drawing; a longer clip begins with the blinks of a shorter one.
        per_minute: mean rate of the drawn blinks (people at rest: 10 to 20).
        strength: how far the lids close, 1 is shut.
        replace_existing: open the eyes first; else the more closed of the two wins.

    Raises:
        FD2TalkError: when the expression has no named lids, a time lies outside the clip, or a number is out
            of range.
    """
    lids = [_column(expression, name) for name in ("eyeBlinkLeft", "eyeBlinkRight")]
    strength = _between(strength, 0, 1, "The strength of the blinks")
    if times is None:
        times = natural_blink_times(expression.duration, seed, per_minute)
    for time in times:
        if not 0 <= time <= expression.duration:
            raise FD2TalkError(f"A blink at {time:g} s is outside of the clip of {expression.duration:g} s.")
    instants = (torch.arange(expression.num_frames, dtype=torch.float64) + 0.5) / expression.fps
    closure = torch.zeros_like(instants)
    for time in times:
        near = slice(*_frames_near(expression, time))
        closure[near] = torch.maximum(closure[near], _blink(instants[near] - time))
    values = expression.values.double().clone()
    for lid in lids:
        present = torch.zeros_like(closure) if replace_existing else values[:, lid]
        values[:, lid] = torch.maximum(present, closure * strength)
    return expression.replace(values=values)


@checked
def natural_blink_times(duration: float, seed: int, per_minute: float) -> list[float]:
    """Instants of blinks in seconds: a Poisson process with a dead time of :data:`BLINK_REFRACTORY`.

    Raises:
        FD2TalkError: when the rate is not in 0..60 a minute, or the seed is negative.
    """
    rate = _between(per_minute, 0, 60, "The number of blinks a minute")
    duration = _between(duration, 0, MAX_FRAMES, "The duration in seconds")
    if rate == 0:
        return []
    free = 60 / rate - BLINK_REFRACTORY
    generator = _generator(seed)
    times: list[float] = []
    now = 0.0
    while True:
        uniform = float(torch.rand((), generator=generator, dtype=torch.float64))
        now += BLINK_REFRACTORY * bool(times) - free * math.log1p(-uniform)
        if now >= duration:
            return times
        times.append(now)


@checked
def look_at(expression: CoefficientSequence, yaw: float, pitch: float) -> CoefficientSequence:
    """Eyes that rest on one spot, with signs as the head's.

    Args:
        yaw: radians, positive to the picture's right (the left eye looks out, the right one in).
        pitch: radians, positive down.

    Raises:
        FD2TalkError: when the expression has no named eyes, or the eyes cannot turn so far
            (:data:`~fd2talk_core.face.names.GAZE`).
    """
    yaw = math.radians(_between(math.degrees(yaw), -_SIDEWAYS, _SIDEWAYS, "The yaw of the eyes in degrees"))
    pitch = math.radians(_between(math.degrees(pitch), -_UP, _DOWN, "The pitch of the eyes in degrees"))
    return _turn_eyes(expression, torch.tensor([yaw]), torch.tensor([pitch]))


def _turn_eyes(expression: CoefficientSequence, yaw: Tensor, pitch: Tensor) -> CoefficientSequence:
    """Both eyes by ``[F]`` radians, or ``[1]`` for all frames."""
    values = expression.values.clone()
    for side, outward in (("Left", yaw), ("Right", -yaw)):
        for way, turn in (("Out", outward), ("In", -outward), ("Down", pitch), ("Up", -pitch)):
            values[:, _column(expression, f"eyeLook{way}{side}")] = (turn / GAZE[way]).clamp(0, 1).float()
    return expression.replace(values=values)


@checked
def idle_gaze(
    expression: CoefficientSequence, pose: CoefficientSequence, seed: int = 0, amount: float = 1.0
) -> CoefficientSequence:
    """Eyes that rest on one spot, then on another: quick small shifts, and held on it while the head sways.

    The clip begins and ends with eyes that look where a still head would.

    Args:
        pose: of the same frames; the eyes turn against it (vestibulo-ocular reflex).
        seed: of the spots and of how long each is looked at.
        amount: 1 looks about 3° aside and 2° up and down (standard deviation).

    Raises:
        FD2TalkError: when the expression has no named eyes, or a number is out of range.
    """
    amount, generator = _between(amount, 0, 5, "The amount"), _generator(seed)
    instants = (torch.arange(expression.num_frames, dtype=torch.float64) + 0.5) / expression.fps
    spots = torch.zeros(len(instants), 2, dtype=torch.float64)
    spot, moment = torch.zeros(2, dtype=torch.float64), 0.0
    last = expression.duration - FIXATION[0]
    while moment < last:
        wait = torch.empty((), dtype=torch.float64).exponential_(1 / FIXATION[1], generator=generator)
        moment += FIXATION[0] + float(wait)
        draw = torch.randn(2, generator=generator, dtype=torch.float64).clamp(-2, 2)
        shifted = amount * draw * torch.tensor(GAZE_DEVIATION) if moment < last else 0 * draw
        passed = ((instants - min(moment, last)) / SACCADE).clamp(0, 1)[:, None]
        spots = spots + smoothstep(passed) * (shifted - spot)
        spot = shifted
    turned = pose.values[:, :2].double() * STEADY_GAZE
    return _turn_eyes(expression, spots[:, 0] - turned[:, 1], spots[:, 1] - turned[:, 0])


# Poses from nothing


@checked
def constant_pose(
    num_frames: int,
    fps: float,
    angles: Sequence[float] = (0.0, 0.0, 0.0),
    shift: Sequence[float] = (0.0, 0.0, 0.0),
    face_model: str = OPEN_FACE_MODEL,
) -> CoefficientSequence:
    """A head that does not move.

    Args:
        num_frames: F.
        angles: pitch, yaw, roll in radians.
        shift: x, y, z in face-model units (10 cm).

    Raises:
        FD2TalkError: when there are not three of each, or one is not a number.
    """
    if len(angles) != 3 or len(shift) != 3:
        raise FD2TalkError(f"Three angles and three shifts are needed, not {len(angles)} and {len(shift)}.")
    row = [_finite(value, name) for name, value in zip(POSE_NAMES, (*angles, *shift), strict=True)]
    values = torch.tensor([row]).expand(_count(num_frames), -1).clone()
    return CoefficientSequence("pose", values, fps, face_model, POSE_NAMES)


@checked
def idle_motion(
    num_frames: int,
    fps: float,
    seed: int = 0,
    amount: float = 1.0,
    speed: float = 1.0,
    face_model: str = OPEN_FACE_MODEL,
    start: float = 0.0,
) -> CoefficientSequence:
    """The small drift of a head that listens: slow waves of random phase, stronger the slower.

    It is a function of time, so the same seed moves alike at every frame rate and for every length.

    Args:
        num_frames: F.
        amount: 1 turns by about 2° and shifts by about 3 mm (standard deviation).
        speed: 1 has waves from 0.04 to 0.7 Hz; 2 is twice as fast.
        start: seconds that have passed before the first frame.

    Raises:
        FD2TalkError: when a number is out of range.
    """
    check_fps(fps)
    amount = _between(amount, 0, 10, "The amount")
    speed = _between(speed, 0, 10, "The speed")
    generator = _generator(seed)
    low, high = (math.log(bound) for bound in IDLE_BAND)
    place = torch.rand(IDLE_WAVES, 6, generator=generator, dtype=torch.float64)
    steps = (torch.arange(IDLE_WAVES, dtype=torch.float64)[:, None] + place) / IDLE_WAVES
    frequency = torch.exp(low + steps * (high - low))
    phase = 2 * math.pi * torch.rand(IDLE_WAVES, 6, generator=generator, dtype=torch.float64)
    height = 1 / frequency.sqrt()
    height = height / (height.square().sum(0) / 2).sqrt() * torch.tensor(IDLE_DEVIATION, dtype=torch.float64)
    begun = _between(start, 0, MAX_FRAMES, "The start in seconds")
    time = ((torch.arange(_count(num_frames), dtype=torch.float64) + 0.5) / fps + begun) * speed
    values = torch.zeros(len(time), 6, dtype=torch.float64)
    for wave in range(IDLE_WAVES):
        values += height[wave] * torch.sin(2 * math.pi * frequency[wave] * time[:, None] + phase[wave])
    return CoefficientSequence("pose", amount * values, fps, face_model, POSE_NAMES)


@checked
def parse_times(text: str) -> list[float]:
    """``"1.5, 3, 7.25"`` to seconds; commas, semicolons, spaces and line breaks separate.

    Raises:
        FD2TalkError: naming the first word that is not a time.
    """
    times = []
    for word in text.replace(",", " ").replace(";", " ").split():
        try:
            time = float(word)
        except ValueError:
            time = math.nan
        if not math.isfinite(time) or time < 0:
            raise FD2TalkError(f"{word[:40]!r} is not a time in seconds; write for example 1.5, 3, 7.25.")
        times.append(time)
    return times


# Rotations


def _log_turn(pivot: Tensor, poses: Tensor) -> Tensor:
    """``[F, 3]``: the turn from a pivot pose ``[6]`` to poses ``[F, 6]``, as axis times angle."""
    turn = rotation_matrix(pivot[:3].double()).mT @ rotation_matrix(poses[:, :3].double())
    return matrix_to_axis_angle(turn)


def _exp_turn(pivot: Tensor, turn: Tensor) -> Tensor:
    """The inverse of :func:`_log_turn`: ``[F, 3]`` angles."""
    return euler_angles(rotation_matrix(pivot[:3].double()) @ axis_angle_to_matrix(turn))


def _mixed(sequence: CoefficientSequence, start: Tensor, end: Tensor, weight: Tensor) -> Tensor:
    """From values to values, ``[F, D]`` each, by ``[F, 1]``."""
    start, end = start.double(), end.double()
    if sequence.kind == "pose":
        return interpolate_pose(start, end, weight)
    return torch.lerp(start, end, weight.expand_as(start))


def _sampled(sequence: CoefficientSequence, position: Tensor) -> Tensor:
    """Values at fractional frames ``[N]``."""
    left = position.floor().long().clamp(max=max(sequence.num_frames - 2, 0))
    right = (left + 1).clamp(max=sequence.num_frames - 1)
    return _mixed(sequence, sequence.values[left], sequence.values[right], (position - left)[:, None])


# Shapes in time


def _gaussian(values: Tensor, deviation: float) -> Tensor:
    """Zero-phase Gaussian over time of ``[F, D]``, ends continued by point reflection; deviation: frames."""
    reach = math.ceil(4 * deviation)
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (offsets / deviation) ** 2)
    kernel = kernel / kernel.sum()
    last = len(values) - 1
    index = torch.arange(-reach, last + reach + 1)
    # a chord from the first to the last frame goes on as it is, the bend above it as an odd periodic wave
    slope = (values[-1] - values[0]) / max(last, 1)
    bend = values - values[0] - slope * torch.arange(last + 1, dtype=torch.float64)[:, None]
    place = index % max(2 * last, 1)
    sign = torch.where(place <= last, 1.0, -1.0).double()[:, None]
    wave = sign * bend[torch.minimum(place, 2 * last - place).clamp(min=0)]
    padded = values[0] + slope * index.double()[:, None] + wave
    # by their spectra: as sums, ten seconds over an hour of 120 fps would unfold to a hundred gigabytes
    length = len(padded) + len(kernel) - 1
    spectrum = torch.fft.rfft(padded, length, dim=0) * torch.fft.rfft(kernel, length)[:, None]
    return torch.fft.irfft(spectrum, length, dim=0)[2 * reach : 2 * reach + len(values)]


def _blink(time: Tensor) -> Tensor:
    """Closure of the lids, 0..1, at seconds from the middle of the shut phase."""
    falling = (time + BLINK_SHUT / 2 + BLINK_CLOSE) / BLINK_CLOSE
    rising = (BLINK_SHUT / 2 + BLINK_OPEN - time) / BLINK_OPEN
    return smoothstep(torch.minimum(falling, rising))


def _frames_near(sequence: CoefficientSequence, time: float) -> tuple[int, int]:
    """The frames that a blink at an instant can touch."""
    first = math.floor((time - BLINK_SHUT / 2 - BLINK_CLOSE) * sequence.fps) - 1
    last = math.ceil((time + BLINK_SHUT / 2 + BLINK_OPEN) * sequence.fps) + 1
    return max(first, 0), min(max(last, 0), sequence.num_frames)


def _frames_within(sequence: CoefficientSequence, start: float, end: float | None) -> tuple[int, int]:
    """First frame and the one after the last whose instants lie in start <= t < end."""
    stop = sequence.duration if end is None else _finite(end, "end")
    start = _finite(start, "start")
    first = max(math.ceil(start * sequence.fps - 0.5 - 1e-6), 0)
    last = min(math.ceil(stop * sequence.fps - 0.5 - 1e-6), sequence.num_frames)
    if start < 0 or last <= first:
        raise FD2TalkError(
            f"No frame lies between {start:g} s and {stop:g} s: the {sequence.kind} has "
            f"{sequence.num_frames} frames, {sequence.duration:g} s."
        )
    return first, last


# Names and checks


def _names(sequence: CoefficientSequence) -> tuple[str, ...]:
    return POSE_NAMES if sequence.kind == "pose" else sequence.names


def _column(expression: CoefficientSequence, name: str) -> int:
    if expression.kind != "expression" or name not in expression.names:
        raise FD2TalkError(
            f"An expression with the ARKit blendshape {name!r} is needed, but this {expression.kind} is of "
            f"the face model {expression.face_model!r} and has none."
        )
    return expression.names.index(name)


def _held(expression: CoefficientSequence, keep_mouth: bool) -> Tensor:
    """``[D]`` bool: what an edit may touch."""
    if not keep_mouth:
        return torch.ones(expression.values.shape[1], dtype=torch.bool)
    if not expression.names:
        raise FD2TalkError(
            f"The face model {expression.face_model!r} has no names, so its mouth cannot be told from the "
            "rest; switch 'keep mouth' off."
        )
    return torch.tensor([name not in MOUTH_NAMES for name in expression.names])


def _weights(sequence: CoefficientSequence, given: float | Mapping[str, float], default: float) -> Tensor:
    """``[D]``: one weight a coefficient, from one for all or one a group or name."""
    size = sequence.values.shape[1]
    if not isinstance(given, Mapping):
        return torch.full((size,), _finite(given, "The weight"), dtype=torch.float64)
    names = _names(sequence)
    if (
        not names and len(set(given.values())) == 1
    ):  # without names there are no groups, but one factor fits all
        return _weights(sequence, next(iter(given.values())), default)
    groups = POSE_GROUPS if sequence.kind == "pose" else GROUPS
    weights = torch.full((size,), default, dtype=torch.float64)
    for key, value in given.items():
        members = groups.get(key, (key,))
        found = [names.index(name) for name in members if name in names]
        if not found:
            raise FD2TalkError(
                f"The {sequence.kind} of the face model {sequence.face_model!r} has no {key!r}; "
                f"choose from {_list([*groups, *names])}."
            )
        weights[found] = _finite(value, key)
    return weights


def _pivot(sequence: CoefficientSequence, at: Pivot) -> Tensor:
    """``[D]`` float64."""
    values = sequence.values.double()
    if at == "rest":
        return torch.zeros_like(values[0])
    if at == "first":
        return values[0]
    if at != "mean":
        raise FD2TalkError(f"The pivot is {at!r}, but 'rest', 'mean' or 'first' is needed.")
    if sequence.kind == "expression":
        return values.mean(0)
    mean = euler_angles(mean_rotation(rotation_matrix(values[:, :3].double())))
    return torch.cat([mean, values[:, 3:].mean(0)])


def _check_pair(first: CoefficientSequence, second: CoefficientSequence) -> None:
    if first.kind != second.kind:
        raise FD2TalkError(
            f"The first sequence is of kind {first.kind} and the second of kind {second.kind}; "
            "two of one kind are needed."
        )
    same_size = first.values.shape[1] == second.values.shape[1] and first.names == second.names
    if first.kind == "expression" and (first.face_model != second.face_model or not same_size):
        raise FD2TalkError(
            f"The first expression is of the face model {first.face_model!r} and the second of "
            f"{second.face_model!r}: their coefficients mean different things and cannot be mixed."
        )


def _from_rest_of(first: CoefficientSequence, second: CoefficientSequence) -> CoefficientSequence:
    """The second motion as it would be from the first one's rest, but for the mouth, whose motion is absolute
    (:func:`~fd2talk_core.motion.coefficients.blend_over_rest`).
    """
    if first.rest is None and second.rest is None:
        return second
    neutral = torch.zeros(second.values.shape[1])
    shift = (neutral if first.rest is None else first.rest) - (
        neutral if second.rest is None else second.rest
    )
    shift = torch.where(mouth_mask(second.names, len(shift)), neutral, shift)
    return second.replace(values=second.values + shift, rest=first.rest)


def _generator(seed: int) -> torch.Generator:
    if not 0 <= seed < 1 << 64:
        raise FD2TalkError(f"The seed is {seed}, but a whole number from 0 to 2^64 - 1 is needed.")
    return torch.Generator().manual_seed(seed)


def _count(num_frames: int) -> int:
    if not 1 <= num_frames <= MAX_FRAMES:
        raise FD2TalkError(f"The clip would have {num_frames} frames, but 1 to {MAX_FRAMES:,} are possible.")
    return int(num_frames)


def _between(value: float, low: float, high: float, what: str) -> float:
    if not low <= _finite(value, what) <= high:
        raise FD2TalkError(f"{what} is {value:g}, but {low:g} to {high:g} is needed.")
    return float(value)


def _finite(value: float, what: str) -> float:
    if not math.isfinite(value):
        raise FD2TalkError(f"{what} is {value}, but a number is needed.")
    return float(value)


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (" …" if len(names) > 8 else "") if names else "none with a name"

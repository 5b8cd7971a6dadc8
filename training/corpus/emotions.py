"""How a face shows a feeling while it speaks: the corpus's motion with an emotion over it, of known strength.

Which muscles move is told by the prototypes of the basic emotions (Ekman & Friesen 1983, EMFACS; Ekman,
Friesen & Hager 2002, FACS Investigator's Guide), in ARKit's coefficients:

=========  =============================  ==========================================================
emotion    action units                   coefficients
=========  =============================  ==========================================================
happy      6 + 12                         cheekSquint, eyeSquint; mouthSmile, mouthDimple
sad        1 + 4 + 15 (+ 17, 43, 64)      browInnerUp; browDown; mouthFrown; mouthShrugLower; lids, gaze
angry      4 + 5 + 7 + 23 (+ 10)          browDown; eyeWide; eyeSquint; mouthPress, mouthFrown; noseSneer
surprised  1 + 2 + 5 + 26                 browInnerUp; browOuterUp; eyeWide; jawOpen
=========  =============================  ==========================================================

Nobody holds a mask while speaking: what lasts of it rises where a phrase begins, sinks slowly on, goes with
how loud the voice is, and wanders besides; part of it comes with the accents of loudness and pitch. Lips
still close at p, b and m, come to the teeth at f and v, and round where the phones round them; a jaw that
drops in surprise does so between phrases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fd2talk_core.checks import check_choice, check_number
from fd2talk_core.face.names import ARKIT_NAMES

from .motion import FPS, OPENERS, closures, frame_instants, prosody, smooth, speaking, wander
from .phonemes import Phone

_INDEX = {name: index for index, name in enumerate(ARKIT_NAMES)}


@dataclass(frozen=True)
class Emotion:
    """What a feeling does to a face at full strength. Names without a side stand for both.

    Attributes:
        raises: coefficients that it adds to, how far, and the share of that which comes with accents.
        scales: coefficients of the speech alone that it multiplies: those of opposite feelings, the jaw.
        gaze: how far the eyes still move about.
    """

    raises: Mapping[str, tuple[float, float]]
    scales: Mapping[str, float] = field(default_factory=dict)
    gaze: float = 1.0


EMOTIONS: dict[str, Emotion] = {
    "happy": Emotion(
        raises={
            "mouthSmile": (0.58, 0.25),
            "cheekSquint": (0.58, 0.25),
            "eyeSquint": (0.20, 0.25),
            "mouthDimple": (0.12, 0.25),
            "browInnerUp": (0.10, 0.8),
            "browOuterUp": (0.14, 0.8),
        },
        scales={
            "mouthFrown": 0.1, "browDown": 0.3, "mouthPress": 0.7, "jawOpen": 1.1, "mouthUpperUp": 1.2,
        },
    ),
    "sad": Emotion(
        raises={
            "browInnerUp": (0.70, 0.2),
            "browDown": (0.18, 0.1),
            "mouthFrown": (0.55, 0.1),
            "mouthShrugLower": (0.18, 0.0),
            "eyeBlink": (0.16, 0.0),
            "eyeLookDown": (0.20, 0.0),
        },
        scales={
            "mouthSmile": 0.3, "cheekSquint": 0.3, "browOuterUp": 0.2, "mouthStretch": 0.7, "eyeWide": 0.2,
            "mouthUpperUp": 0.7, "jawOpen": 0.8,
        },
        gaze=0.7,
    ),
    "angry": Emotion(
        raises={
            "browDown": (0.80, 0.2),
            "eyeWide": (0.25, 0.2),
            "eyeSquint": (0.35, 0.1),
            "noseSneer": (0.28, 0.4),
            "mouthPress": (0.38, 0.0),
            "mouthFrown": (0.32, 0.1),
        },
        scales={
            "browInnerUp": 0.1, "browOuterUp": 0.2, "mouthSmile": 0.3, "cheekSquint": 0.5, "jawOpen": 1.1,
            "mouthUpperUp": 1.2, "mouthLowerDown": 1.1,
        },
        gaze=0.4,
    ),
    "surprised": Emotion(
        raises={
            "browInnerUp": (0.75, 0.25),
            "browOuterUp": (0.70, 0.25),
            "eyeWide": (0.65, 0.15),
            "jawOpen": (0.14, 0.0),
        },
        scales={
            "browDown": 0.1, "eyeSquint": 0.1, "mouthSmile": 0.6, "mouthFrown": 0.4, "mouthPress": 0.5,
            "jawOpen": 1.15,
        },
        gaze=0.6,
    ),
}  # fmt: skip

_MOUTH_CORNERS = ("mouthSmile", "mouthDimple", "mouthFrown")
_GAZE = tuple(name for name in ARKIT_NAMES if name.startswith("eyeLook"))


def with_emotion(
    expression: np.ndarray,
    phones: Sequence[Phone],
    waveform: np.ndarray,
    sample_rate: int,
    emotion: str,
    strength: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """The motion of a speaker who feels something.

    Args:
        expression: ``[F, 52]`` at :data:`~training.corpus.motion.FPS`, as
            :func:`~training.corpus.motion.synthesise` makes it.
        phones: of the recording.
        waveform: ``[N]``, the speech.
        emotion: one of :data:`EMOTIONS`.
        strength: 0 changes nothing, 1 is the whole emotion.
        rng: draws how this person shows it this time.

    Returns:
        ``[F, 52]`` in 0..1, float32.
    """
    shown = EMOTIONS[check_choice(emotion, "The emotion", EMOTIONS)]
    check_number(strength, "The strength of the emotion", 0, 1)
    if strength == 0:
        return expression
    frames = len(expression)
    times = frame_instants(frames)
    loud, pitch = prosody(waveform, sample_rate, frames)
    values = expression.astype(np.float64)
    allowed = _room(values, phones, times)
    for name, gain in shown.scales.items():
        for side in columns_of(name):
            values[:, side] *= 1 + strength * (gain - 1)
    for name in _GAZE:
        values[:, _INDEX[name]] *= 1 + strength * (shown.gaze - 1)
    accents = _accents(loud, pitch)
    amount = float(np.exp(rng.normal(0, 0.15)))
    # upper and lower face keep a clock of their own: brows may come before the mouth, or after it
    clocks = [_lasting(phones, times - rng.normal(0, 0.12), loud, rng) for _ in range(2)]
    for name, (most, beat) in shown.raises.items():
        lasting = clocks[name.startswith(("mouth", "jaw"))]
        level = np.clip((1 - beat) * lasting + beat * 2 * accents, 0, 1.3)
        added = strength * amount * float(np.exp(rng.normal(0, 0.12))) * most * level
        tilt = rng.normal(0, 0.08)
        for side, sign in zip(columns_of(name), (1, -1), strict=False):
            column = values[:, side]
            column += added * (1 + sign * tilt) * allowed.get(name, 1.0) * (1 - column.clip(0, 1)) ** 0.5
    return np.clip(values, 0, 1).astype(np.float32)


def columns_of(name: str) -> list[int]:
    """Columns of a coefficient that is named without a side: one, or left and right."""
    if name in _INDEX:
        return [_INDEX[name]]
    return [_INDEX[name + "Left"], _INDEX[name + "Right"]]


def _room(values: np.ndarray, phones: Sequence[Phone], times: np.ndarray) -> dict[str, np.ndarray]:
    """``[F]`` in 0..1 by coefficient: what the words leave of the mouth, and the lids of the eyes."""
    shut, bite = closures(phones, times)
    rounded = np.clip(values[:, _INDEX["mouthPucker"]] + values[:, _INDEX["mouthFunnel"]], 0, 1)
    corners = (1 - 0.4 * shut) * (1 - 0.6 * rounded)
    open_lips = (1 - shut) * (1 - bite)
    lids = 1 - values[:, columns_of("eyeBlink")].max(axis=1)
    room = dict.fromkeys(_MOUTH_CORNERS, corners)
    room |= dict.fromkeys({name.removesuffix("Left") for name in OPENERS}, 1 - shut)
    room |= {
        "mouthUpperUp": open_lips * (1 - 0.6 * rounded),
        "jawOpen": open_lips * (1 - speaking(phones, times)),
    }
    # lips are pressed where they are nearly shut, not over a vowel
    room["mouthPress"] = np.clip(1 - values[:, _INDEX["jawOpen"]] / 0.25, 0, 1)
    return room | dict.fromkeys(("eyeWide", "eyeSquint", "eyeBlink", "eyeLookDown"), lids)


def _lasting(
    phones: Sequence[Phone], times: np.ndarray, loud: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """``[F]`` around 0.85: more where a phrase begins and where it is loud, and never quite the same."""
    said = speaking(phones, times)
    since = np.zeros_like(times)
    for frame in range(1, len(times)):
        since[frame] = (since[frame - 1] + 1 / FPS) * said[frame]
    phrase = smooth(said * (0.6 + 0.4 * np.exp(-since / 1.5)), round(0.3 * FPS))
    level = smooth(loud, round(0.4 * FPS))
    level = level - level[said > 0].mean() if said.any() else 0 * level
    return np.clip(
        0.5 + 0.5 * phrase + 0.6 * np.maximum(level, -0.3) + 0.12 * wander(times, rng, 0.25), 0.2, 1.3
    )


def _accents(loud: np.ndarray, pitch: np.ndarray) -> np.ndarray:
    """``[F]`` in 0..1: where voices rise, a little before a listener would say so."""
    stressed = np.maximum(smooth(loud, 2) - 0.75, 0) * 3 + np.maximum(pitch, 0) * 1.5
    return np.clip(smooth(stressed, 4), 0, 1)

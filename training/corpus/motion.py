"""From phoneme times and prosody to ARKit coefficients and head pose.

Visemes blend by dominance functions (Cohen & Massaro 1993, "Modeling coarticulation in synthetic visual
speech"): each phone pulls the mouth towards its target with a strength that decays around its centre. Lips
that the phone closes (p, b, m) or brings to the teeth (f, v) get there whatever the neighbours pull at. How
far the lips part besides is heard in the spectrum (:func:`spectral_balance`); no phone tells it.
Frame ``i`` is the instant ``(i + 0.5) / fps``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import signal
from scipy.ndimage import gaussian_filter1d

from fd2talk_core.face.names import ARKIT_NAMES

from .phonemes import BILABIALS, Phone

FPS = 25.0
_INDEX = {name: index for index, name in enumerate(ARKIT_NAMES)}

_CHANNELS = (
    "jaw", "funnel", "pucker", "stretch", "smile", "lowerDown", "upperUp", "rollLower", "rollUpper", "press",
    "shrugUpper", "tongue",
)  # fmt: skip
_SHAPES = {
    "jaw": ("jawOpen",),
    "funnel": ("mouthFunnel",),
    "pucker": ("mouthPucker",),
    "stretch": ("mouthStretchLeft", "mouthStretchRight"),
    "smile": ("mouthSmileLeft", "mouthSmileRight"),
    "lowerDown": ("mouthLowerDownLeft", "mouthLowerDownRight"),
    "upperUp": ("mouthUpperUpLeft", "mouthUpperUpRight"),
    "rollLower": ("mouthRollLower",),
    "rollUpper": ("mouthRollUpper",),
    "press": ("mouthPressLeft", "mouthPressRight"),
    "shrugUpper": ("mouthShrugUpper",),
    "tongue": ("tongueOut",),
}

_VOWELS = {
    "aa": {"jaw": 0.60, "lowerDown": 0.20, "upperUp": 0.12},
    "ae": {"jaw": 0.52, "stretch": 0.28, "smile": 0.12, "lowerDown": 0.28, "upperUp": 0.20},
    "ah": {"jaw": 0.42, "lowerDown": 0.18, "upperUp": 0.08},
    "ao": {"jaw": 0.46, "funnel": 0.45, "pucker": 0.18},
    "ax": {"jaw": 0.22, "lowerDown": 0.08},
    "eh": {"jaw": 0.38, "stretch": 0.24, "smile": 0.08, "lowerDown": 0.22, "upperUp": 0.15},
    "er": {"jaw": 0.22, "funnel": 0.38, "pucker": 0.18, "lowerDown": 0.10},
    "ih": {"jaw": 0.22, "stretch": 0.24, "smile": 0.10, "lowerDown": 0.18, "upperUp": 0.12},
    "iy": {"jaw": 0.13, "stretch": 0.38, "smile": 0.28, "lowerDown": 0.25, "upperUp": 0.18},
    "uh": {"jaw": 0.22, "funnel": 0.38, "pucker": 0.32},
    "uw": {"jaw": 0.14, "funnel": 0.30, "pucker": 0.72},
}
_DIPHTHONGS = {
    "ay": ("aa", "iy"),
    "aw": ("aa", "uw"),
    "ey": ("eh", "iy"),
    "ow": ("ao", "uw"),
    "oy": ("ao", "iy"),
}
_CONSONANTS = {
    "w": {"jaw": 0.09, "funnel": 0.22, "pucker": 0.85},
    "r": {"jaw": 0.14, "funnel": 0.40, "pucker": 0.28},
    "l": {"jaw": 0.22, "lowerDown": 0.18, "stretch": 0.08, "tongue": 0.05},
    "y": {"jaw": 0.12, "stretch": 0.32, "smile": 0.18, "lowerDown": 0.18},
    "f": {"jaw": 0.07, "rollLower": 0.55, "upperUp": 0.30, "stretch": 0.08},
    "v": {"jaw": 0.08, "rollLower": 0.50, "upperUp": 0.28, "stretch": 0.08},
    "s": {"jaw": 0.06, "stretch": 0.26, "lowerDown": 0.32, "upperUp": 0.22},
    "z": {"jaw": 0.07, "stretch": 0.24, "lowerDown": 0.30, "upperUp": 0.20},
    "sh": {"jaw": 0.10, "funnel": 0.60, "pucker": 0.25, "lowerDown": 0.20, "upperUp": 0.20},
    "zh": {"jaw": 0.10, "funnel": 0.58, "pucker": 0.25, "lowerDown": 0.20, "upperUp": 0.20},
    "ch": {"jaw": 0.09, "funnel": 0.55, "pucker": 0.22, "lowerDown": 0.22, "upperUp": 0.22},
    "jh": {"jaw": 0.10, "funnel": 0.52, "pucker": 0.22, "lowerDown": 0.22, "upperUp": 0.20},
    "t": {"jaw": 0.12, "stretch": 0.12, "lowerDown": 0.18, "upperUp": 0.08},
    "d": {"jaw": 0.13, "stretch": 0.12, "lowerDown": 0.18, "upperUp": 0.08},
    "n": {"jaw": 0.14, "stretch": 0.10, "lowerDown": 0.15, "upperUp": 0.06},
    "th": {"jaw": 0.17, "lowerDown": 0.20, "upperUp": 0.10, "tongue": 0.30},
    "dh": {"jaw": 0.17, "lowerDown": 0.18, "upperUp": 0.10, "tongue": 0.26},
    "k": {"jaw": 0.24, "lowerDown": 0.10},
    "g": {"jaw": 0.24, "lowerDown": 0.10},
    "ng": {"jaw": 0.22, "lowerDown": 0.08},
    "hh": {"jaw": 0.26, "lowerDown": 0.06},
    "p": {"jaw": 0.02, "press": 0.28, "rollLower": 0.12, "rollUpper": 0.12},
    "b": {"jaw": 0.02, "press": 0.22, "rollLower": 0.10, "rollUpper": 0.10},
    "m": {"jaw": 0.02, "press": 0.25, "rollLower": 0.10, "rollUpper": 0.10},
    "sil": {},
    "pause": {"jaw": 0.15},
}
_TARGETS = {**_VOWELS, **_CONSONANTS}

_WEAK = {
    "k": 0.35,
    "g": 0.35,
    "ng": 0.35,
    "hh": 0.15,
    "t": 0.6,
    "d": 0.6,
    "n": 0.6,
    "l": 0.6,
    "ax": 0.6,
    "sil": 0.7,
    "pause": 0.7,
}
_STRONG = {
    "w": 1.8,
    "uw": 1.4,
    "f": 1.8,
    "v": 1.8,
    "s": 1.3,
    "z": 1.3,
    "sh": 1.6,
    "zh": 1.6,
    "ch": 1.6,
    "jh": 1.6,
}
_CLOSURES = {**dict.fromkeys(BILABIALS, 1.0), "f": 0.9, "v": 0.85}


@dataclass(frozen=True)
class Style:
    """How one person speaks and moves. Gains multiply; angles are radians."""

    jaw: float
    lips: float
    smile: float
    asymmetry: float
    spread: float
    loudness: float
    blink_rate: float
    gaze_range: float
    brow: float
    nod: float
    sway: float
    emotion: float
    rest: tuple[float, float, float]

    @staticmethod
    def random(rng: np.random.Generator) -> Style:
        degrees = np.pi / 180
        return Style(
            jaw=float(np.exp(rng.normal(0, 0.18))),
            lips=float(np.exp(rng.normal(0, 0.15))),
            smile=float(max(0.0, rng.normal(0.0, 0.12))),
            asymmetry=float(rng.normal(0, 0.10)),
            spread=float(np.exp(rng.normal(0, 0.12))),
            loudness=float(rng.uniform(0.15, 0.5)),
            blink_rate=float(rng.uniform(0.12, 0.5)),
            gaze_range=float(rng.uniform(0.05, 0.35)),
            brow=float(rng.uniform(0.2, 1.0)),
            nod=float(rng.uniform(0.5, 2.0)),
            sway=float(rng.uniform(0.5, 2.0)),
            emotion=float(rng.uniform(0.0, 1.0)),
            rest=tuple((rng.normal(0, 1, 3) * np.array([4.0, 7.0, 3.0]) * degrees).tolist()),
        )


def frame_instants(frames: int, fps: float = FPS) -> np.ndarray:
    """[F] seconds: ``(i + 0.5) / fps``."""
    return (np.arange(frames) + 0.5) / fps


def _windows(waveform: np.ndarray, sample_rate: int, frames: int, fps: float, seconds: float) -> np.ndarray:
    """[F, n] the sound around each frame's instant, under a Hann window of so many seconds."""
    span = int(seconds * sample_rate)
    centres = (frame_instants(frames, fps) * sample_rate).astype(int) + span
    offsets = np.arange(-span // 2, span - span // 2)
    padded = np.pad(waveform, span)
    return padded[np.clip(centres[:, None] + offsets, 0, len(padded) - 1)] * np.hanning(span)


def prosody(
    waveform: np.ndarray, sample_rate: int, frames: int, fps: float = FPS
) -> tuple[np.ndarray, np.ndarray]:
    """Loudness (0..1, relative to the loud parts) and log pitch (0 = the speaker's own, 0 where unvoiced),
    [F] each.
    """
    size = 1024
    windows = _windows(waveform, sample_rate, frames, fps, 0.06)
    power = np.mean(windows**2, axis=1)
    level = 10 * np.log10(power + 1e-9)
    loud = np.clip((level - np.percentile(level, 95) + 30) / 30, 0, 1)
    spectrum = np.abs(np.fft.rfft(windows, 2 * size, axis=1)) ** 2
    correlation = np.fft.irfft(spectrum, axis=1)
    shortest, longest = sample_rate // 400, sample_rate // 60
    lags = correlation[:, shortest:longest]
    best = lags.argmax(axis=1)
    voiced = (lags.max(axis=1) > 0.45 * correlation[:, 0]) & (loud > 0.3)
    pitch = np.log(sample_rate / (best + shortest))
    centred = pitch - (np.median(pitch[voiced]) if voiced.any() else 0.0)
    return loud, np.where(voiced, np.clip(centred, -0.7, 0.7), 0.0)


_ROUNDED_BAND, _OPEN_BAND = (300.0, 700.0), (2200.0, 3800.0)  # Hz
_FLOOR = 1e-4  # of the loudest frames' power: what lies below is taken for noise


def spectral_balance(waveform: np.ndarray, sample_rate: int, frames: int, fps: float = FPS) -> np.ndarray:
    """How far the power of 2.2 to 3.8 kHz lies over that of 300 to 700 Hz, beside what is usual around.

    Lips that are rounded or nearly shut damp what lies above the first formant, and lips that part let it
    through (Fant 1960, "Acoustic theory of speech production"); most of a speaking face is in the spectrum
    (Yehia et al. 1998, "Quantitative association of vocal-tract and facial behavior"). So this tells what no
    list of phones does: how far the speaker opened the lips this time.

    Returns:
        ``[F]`` natural logarithm of the ratio, less its mean over the speech of 1.5 s around; 0 in silence.
    """
    size = 2048
    windows = _windows(waveform, sample_rate, frames, fps, 0.064)
    power = np.abs(np.fft.rfft(windows, size, axis=1)) ** 2
    frequencies = np.fft.rfftfreq(size, 1 / sample_rate)
    floor = _FLOOR * np.percentile(power.sum(axis=1), 95) + 1e-12

    def level(low: float, high: float) -> np.ndarray:
        return np.log(power[:, (frequencies >= low) & (frequencies < high)].sum(axis=1) + floor)

    speech = np.clip((level(60, 7500) - np.log(floor)) / 2, 0, 1)
    balance = level(*_OPEN_BAND) - level(*_ROUNDED_BAND)
    around = round(0.75 * fps)
    usual = smooth(speech * balance, around) / (smooth(speech, around) + 1e-6)
    return gaussian_filter1d(speech * (balance - usual), 0.07 * fps)


def _parts(phones: Sequence[Phone]) -> list[tuple[str, float, float]]:
    """Diphthongs as their two vowels, a long pause as its two ends so that the mouth rests in between. In a
    short one the lips stay apart: people do not shut them between two words.
    """
    parts = []
    for phone in phones:
        middle = (phone.start + phone.end) / 2
        if phone.name in _DIPHTHONGS:
            first, second = _DIPHTHONGS[phone.name]
            parts += [(first, phone.start, middle), (second, middle, phone.end)]
        elif phone.name == "sil" and phone.end - phone.start > 0.2:
            parts += [("sil", phone.start, phone.start + 0.15), ("sil", phone.start + 0.1, phone.end - 0.1)]
            parts += [("sil", phone.end - 0.12, phone.end)]
        else:
            name = "pause" if phone.name == "sil" else phone.name
            parts.append((name, phone.start, phone.end))
    return parts


def viseme_tracks(phones: Sequence[Phone], times: np.ndarray, spread: float = 1.0) -> np.ndarray:
    """[F, channels] mouth shape by dominance functions, before style and closures."""
    parts = _parts(phones)
    targets = np.array([[_TARGETS[name].get(channel, 0.0) for channel in _CHANNELS] for name, _, _ in parts])
    strength = np.array([_WEAK.get(name, _STRONG.get(name, 1.0)) for name, _, _ in parts])
    start, end = (np.array([part[i] for part in parts]) for i in (1, 2))
    slow = ("jaw", "funnel", "pucker")
    tau = spread * np.array([0.075 if channel in slow else 0.055 for channel in _CHANNELS])
    # The lips are on their way before the sound is heard.
    outside = np.maximum(np.maximum(start - 0.02 - times[:, None], times[:, None] - end + 0.01), 0.0)
    inside = np.abs(times[:, None] - (start + end) / 2) / np.maximum(end - start, 0.03)
    distance = outside[:, :, None] / tau + 0.6 * inside[:, :, None]
    dominance = strength[None, :, None] * np.exp(-distance) + 1e-12
    return (dominance * targets).sum(axis=1) / dominance.sum(axis=1)


def closures(phones: Sequence[Phone], times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far lips are forced shut (p, b, m) and lower lip forced to the teeth (f, v), [F] each in 0..1.

    Full for as long as the phone lasts, at least at the frame nearest to its middle, with 50 ms flanks.
    """
    shut, bite = np.zeros_like(times), np.zeros_like(times)
    step = times[1] - times[0] if len(times) > 1 else 1 / FPS
    for phone in phones:
        if phone.name not in _CLOSURES:
            continue
        # An audible burst or onset already belongs to the opening: the hold ends a little before the phone.
        middle = (phone.start + phone.end) / 2
        hold = max((phone.end - phone.start) / 2 - 0.012, step / 2 + 1e-6)
        ramp = np.clip(1.0 - (np.abs(times - middle) - hold) / 0.05, 0.0, 1.0)
        track = shut if phone.name in BILABIALS else bite
        np.maximum(track, _CLOSURES[phone.name] * ramp * ramp * (3 - 2 * ramp), out=track)
    return shut, bite


def speaking(phones: Sequence[Phone], times: np.ndarray) -> np.ndarray:
    """[F] 1 within a phrase, 0 in a pause that is heard as one."""
    within = np.ones_like(times)
    for phone in phones:
        if phone.name == "sil" and phone.end - phone.start > 0.2:
            within[(times >= phone.start) & (times < phone.end)] = 0
    return within


def _lasting(phones: Sequence[Phone], times: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """[F] 1 while one of these phones lasts, else 0."""
    lasting = np.zeros_like(times)
    for phone in phones:
        if phone.name in names:
            lasting[(times >= phone.start) & (times < phone.end)] = 1
    return lasting


def synthesise(
    phones: Sequence[Phone],
    waveform: np.ndarray,
    sample_rate: int,
    frames: int,
    style: Style,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Motion of a speaker.

    Args:
        phones: of the whole recording.
        waveform: ``[N]`` clean speech.
        frames: F at :data:`FPS`.

    Returns:
        expression ``[F, 52]`` in 0..1 and pose ``[F, 6]`` (radians and face-model units), float32.
    """
    times = frame_instants(frames)
    loud, pitch = prosody(waveform, sample_rate, frames)
    pose = _head(times, loud, pitch, phones, style, rng)
    expression = np.zeros((frames, len(ARKIT_NAMES)))
    balance = spectral_balance(waveform, sample_rate, frames)
    _mouth(expression, phones, times, loud, balance, style, rng)
    _feelings(expression, times, style, rng)
    _close_lips(expression, phones, times, style)
    _eyes(expression, times, pose, style, rng)
    _brows(expression, loud, pitch, style, rng)
    return np.clip(expression, 0, 1).astype(np.float32), pose.astype(np.float32)


def expected_mouth(
    phones: Sequence[Phone], waveform: np.ndarray, sample_rate: int, frames: int
) -> np.ndarray:
    """[F, 52] float32: what the phones make of the mouth of the average speaker, who feels nothing.

    As much as a listener could know who hears every phone and knows the rules of this module: the scorecard
    tells from it how much of the corpus's motion is in the sound at all.
    """
    times = frame_instants(frames)
    loud, _ = prosody(waveform, sample_rate, frames)
    average = Style(
        jaw=1.0, lips=1.0, smile=0.048, asymmetry=0.0, spread=1.0, loudness=0.325, blink_rate=0.0,
        gaze_range=0.0, brow=0.0, nod=0.0, sway=0.0, emotion=0.0, rest=(0.0, 0.0, 0.0),
    )  # fmt: skip
    expression = np.zeros((frames, len(ARKIT_NAMES)))
    balance = spectral_balance(waveform, sample_rate, frames)
    _mouth(expression, phones, times, loud, balance, average, np.random.default_rng(0))
    _feelings(expression, times, average, np.random.default_rng(0))
    _close_lips(expression, phones, times, average)
    return np.clip(expression, 0, 1).astype(np.float32)


_HEARD = {"jaw": 0.08, "lowerDown": 0.25, "upperUp": 0.30}
"""How far the mouth opens for each unit of :func:`spectral_balance`: so that lips move as far as people's."""

_SIBILANTS = ("s", "z", "sh", "zh", "ch", "jh")


def _mouth(expression, phones, times, loud, balance, style: Style, rng) -> None:
    tracks = viseme_tracks(phones, times, style.spread)
    # a sibilant's noise arises at the teeth, and says nothing of the lips
    heard = balance * (1 - smooth(_lasting(phones, times, _SIBILANTS), 1))
    for channel, amount in _HEARD.items():
        values = tracks[:, _CHANNELS.index(channel)]
        values[:] = np.maximum(values + amount * heard, 0)
    energy = 1 + style.loudness * (smooth(loud, 3) - 0.7)
    for channel, values in zip(_CHANNELS, tracks.T, strict=True):
        gain = style.jaw * energy if channel == "jaw" else style.lips * (0.5 + 0.5 * energy)
        shapes = _SHAPES[channel]
        for side, name in enumerate(shapes):
            tilt = 1 + style.asymmetry * (1 if side else -1) if len(shapes) == 2 else 1.0
            expression[:, _INDEX[name]] = values * gain * tilt
    expression[:, _INDEX["jawForward"]] = 0.15 * tracks[:, _CHANNELS.index("funnel")]
    sideways = 0.08 * wander(times, rng, 0.3)
    expression[:, _INDEX["jawLeft"]] = np.maximum(sideways, 0)
    expression[:, _INDEX["jawRight"]] = np.maximum(-sideways, 0)


_FEELINGS = (
    {"mouthSmileLeft": 0.6, "mouthSmileRight": 0.6, "cheekSquintLeft": 0.5, "cheekSquintRight": 0.5},
    {"mouthFrownLeft": 0.5, "mouthFrownRight": 0.5, "browInnerUp": 0.6, "mouthShrugLower": 0.2},
    {"browDownLeft": 0.7, "browDownRight": 0.7, "noseSneerLeft": 0.35, "noseSneerRight": 0.35,
    "eyeSquintLeft": 0.4,
     "eyeSquintRight": 0.4},
    {"browInnerUp": 0.7, "browOuterUpLeft": 0.7, "browOuterUpRight": 0.7, "eyeWideLeft": 0.6, "eyeWideRight":
    0.6},
    {"mouthDimpleLeft": 0.5, "mouthLeft": 0.3, "mouthSmileLeft": 0.25},
    {"mouthDimpleRight": 0.5, "mouthRight": 0.3, "mouthSmileRight": 0.25},
    {"eyeSquintLeft": 0.5, "eyeSquintRight": 0.5, "cheekSquintLeft": 0.3, "cheekSquintRight": 0.3},
    {"cheekPuff": 0.25, "mouthPressLeft": 0.3, "mouthPressRight": 0.3},
)  # fmt: skip


def _feelings(expression, times, style: Style, rng) -> None:
    for name in ("mouthSmileLeft", "mouthSmileRight"):
        expression[:, _INDEX[name]] += style.smile
    for _ in range(int(rng.poisson(style.emotion * times[-1] / 5))):
        feeling = _FEELINGS[int(rng.integers(len(_FEELINGS)))]
        middle, half = rng.uniform(0, times[-1]), rng.uniform(0.6, 2.5)
        envelope = rng.uniform(0.3, 1.0) * np.exp(-(((times - middle) / half) ** 4))
        for name, amount in feeling.items():
            expression[:, _INDEX[name]] += amount * envelope


OPENERS = (
    "mouthFunnel", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthUpperUpLeft", "mouthUpperUpRight",
    "tongueOut",
    "mouthShrugUpper", "mouthShrugLower", "jawForward", "jawLeft", "jawRight", "cheekPuff",
)  # fmt: skip


def _close_lips(expression, phones, times, style: Style) -> None:
    shut, bite = closures(phones, times)
    free, open_lips = 1 - shut, 1 - np.maximum(shut, bite)
    for name in OPENERS:
        expression[:, _INDEX[name]] *= free
    expression[:, _INDEX["mouthPucker"]] *= 1 - 0.6 * shut
    for name in ("mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight"):
        expression[:, _INDEX[name]] *= 1 - 0.4 * shut
    jaw = _INDEX["jawOpen"]
    expression[:, jaw] = expression[:, jaw] * open_lips + 0.02 * shut + 0.07 * bite * free
    for name, amount in (("mouthPressLeft", 0.25), ("mouthPressRight", 0.25), ("mouthRollLower", 0.1)):
        column = expression[:, _INDEX[name]]
        column[:] = np.maximum(column, amount * style.lips * shut)
    expression[:, _INDEX["mouthRollUpper"]] = np.maximum(expression[:, _INDEX["mouthRollUpper"]], 0.1 * shut)
    expression[:, _INDEX["mouthClose"]] = 0.02 * shut
    roll = _INDEX["mouthRollLower"]
    expression[:, roll] = np.maximum(expression[:, roll], 0.55 * bite * free)
    for name in ("mouthLowerDownLeft", "mouthLowerDownRight", "mouthFunnel", "mouthPucker"):
        expression[:, _INDEX[name]] *= 1 - 0.8 * bite
    for name in ("mouthUpperUpLeft", "mouthUpperUpRight"):
        column = expression[:, _INDEX[name]]
        column[:] = np.maximum(column, 0.25 * bite * free)


def _eyes(expression, times, pose, style: Style, rng) -> None:
    across, up = _saccades(times, style, rng)
    # Eyes stay with what they look at while the head turns (vestibulo-ocular reflex).
    across = across - pose[:, 1] * 0.8
    up = up + pose[:, 0] * 0.8
    per_radian = 1.7
    amounts = {
        "eyeLookOutLeft": across, "eyeLookInRight": across, "eyeLookInLeft": -across, "eyeLookOutRight":
        -across,
        "eyeLookUpLeft": up, "eyeLookUpRight": up, "eyeLookDownLeft": -up, "eyeLookDownRight": -up,
    }  # fmt: skip
    for name, angle in amounts.items():
        expression[:, _INDEX[name]] += np.clip(per_radian * angle, 0, 0.9)
    lid = _blinks(times, style, rng) + 0.25 * np.clip(-up * per_radian, 0, 1)
    wink = 1 + 0.1 * style.asymmetry
    for name, gain in (("eyeBlinkLeft", wink), ("eyeBlinkRight", 1.0)):
        expression[:, _INDEX[name]] = np.clip(lid * gain, 0, 1)
    for name in ("eyeWideLeft", "eyeWideRight", "eyeSquintLeft", "eyeSquintRight"):
        expression[:, _INDEX[name]] *= 1 - np.clip(lid, 0, 1)


def _saccades(times, style: Style, rng) -> tuple[np.ndarray, np.ndarray]:
    across, up = np.zeros_like(times), np.zeros_like(times)
    moment = 0.0
    while moment < times[-1]:
        away = rng.random() < 0.35
        scale = style.gaze_range if away else 0.03
        target = rng.normal(0, 1, 2) * scale * np.array([1.0, 0.6])
        later = times >= moment
        across[later], up[later] = target
        moment += rng.exponential(0.8 if away else 1.6) + 0.25
    return smooth(across, 1), smooth(up, 1)


def _blinks(times, style: Style, rng) -> np.ndarray:
    lid = np.zeros_like(times)
    moment = rng.exponential(1 / style.blink_rate)
    while moment < times[-1]:
        since = times - moment
        closing, opening = rng.uniform(0.06, 0.1), rng.uniform(0.12, 0.22)
        pulse = np.where(since < 0, 1 + since / closing, 1 - (since - 0.04) / opening)
        lid = np.maximum(lid, np.clip(np.minimum(pulse, 1), 0, 1))
        moment += 0.3 + rng.exponential(1 / style.blink_rate)
    return lid


def _brows(expression, loud, pitch, style: Style, rng) -> None:
    accent = smooth(np.maximum(pitch, 0) * 1.5 + 0.5 * np.maximum(smooth(loud, 2) - 0.8, 0), 3)
    mood = 0.25 * wander(np.arange(len(loud)) / FPS, rng, 0.2)
    raised = style.brow * np.clip(accent, 0, 0.8) + np.maximum(mood, 0)
    for name in ("browDownLeft", "browDownRight"):
        expression[:, _INDEX[name]] += np.maximum(-mood, 0)
    for name, gain in (("browInnerUp", 1.0), ("browOuterUpLeft", 0.8), ("browOuterUpRight", 0.8)):
        tilt = 1 + style.asymmetry * (1 if name.endswith("Left") else -1)
        expression[:, _INDEX[name]] += raised * gain * tilt


_LIMITS = np.array([18 * np.pi / 180, 25 * np.pi / 180, 12 * np.pi / 180, 0.15, 0.15, 0.6])


def _head(times, loud, pitch, phones, style: Style, rng) -> np.ndarray:
    degrees = np.pi / 180
    pose = np.zeros((len(times), 6))
    nods = np.zeros_like(times)
    energy = smooth(loud, 2)
    peaks, _ = signal.find_peaks(energy, distance=6, prominence=0.12)
    for peak in peaks:
        if rng.random() < 0.75:
            since = times - times[peak] + 0.06
            width = 0.16
            size = (
                style.nod
                * (1.5 + 5.0 * (energy[peak] - 0.5) + 4.0 * max(0.0, pitch[peak]))
                * rng.uniform(0.6, 1.3)
            )
            nods += size * (np.exp(-((since / width) ** 2)) - 0.45 * np.exp(-(((since - 0.32) / 0.2) ** 2)))
    lift = -style.nod * 6.0 * smooth(pitch, 6)
    pose[:, 0] = (nods + lift) * degrees + 2.5 * degrees * style.sway * wander(times, rng, 0.25)
    pose[:, 1] = 5.5 * degrees * style.sway * wander(times, rng, 0.2) + _turns(times, phones, style, rng)
    pose[:, 2] = 2.5 * degrees * style.sway * wander(times, rng, 0.2) + 0.25 * pose[:, 1] * rng.normal(0, 0.6)
    pose[:, 2] += 1.2 * degrees * style.nod * smooth(pitch, 8) * 4 * rng.choice([-1, 1])
    pose[:, :3] += np.array(style.rest)
    pose[:, 3] = 0.04 * style.sway * wander(times, rng, 0.15) + 0.12 * pose[:, 1] + rng.normal(0, 0.03)
    pose[:, 4] = 0.03 * style.sway * wander(times, rng, 0.2) - 0.10 * pose[:, 0] + rng.normal(0, 0.03)
    pose[:, 5] = (
        0.12 * style.sway * wander(times, rng, 0.12) + rng.normal(0, 0.12) + 0.5 * np.abs(nods) * degrees
    )
    # Soft limits, so that nothing runs into a wall.
    return _LIMITS * np.tanh(pose / _LIMITS)


def _turns(times, phones, style: Style, rng) -> np.ndarray:
    """The head turns a little where one phrase ends and the next begins."""
    turn = np.zeros_like(times)
    for phone in phones:
        if phone.name == "sil" and phone.end - phone.start > 0.15 and rng.random() < 0.7:
            angle = rng.normal(0, 4.5) * style.sway * np.pi / 180
            turn += angle / (1 + np.exp(-(times - phone.end) / 0.12))
    return turn - turn.mean()


def wander(times: np.ndarray, rng: np.random.Generator, frequency: float) -> np.ndarray:
    """Smooth noise of about unit deviation around ``frequency`` Hz."""
    frequencies = frequency * np.exp(rng.normal(0, 0.6, 5))
    phases = rng.uniform(0, 2 * np.pi, 5)
    weights = rng.normal(0, 1, 5) * np.sqrt(2 / 5)
    return np.sin(2 * np.pi * times[:, None] * frequencies + phases) @ weights


def smooth(values: np.ndarray, frames: int) -> np.ndarray:
    """Hann-weighted mean over ``2 frames + 1`` frames, the ends held."""
    window = np.hanning(2 * frames + 3)[1:-1]
    padded = np.pad(values, frames, mode="edge")
    return np.convolve(padded, window / window.sum(), mode="valid")

"""``python -m training.scorecard --weights DIR --real [CLIPS]``: what weights reach on real people.

Everything is measured on recordings that no corpus holds, and stands beside what chance gives.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import torch

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.landmarks import FaceLandmarker

from ..sources import load_speech
from ..stages.audio_encoder import draw_confusion
from .clips import ClipBench, MotionSettings, TalkingClip, gain, list_clips, mean, read_clip
from .hearing import (
    DIALOGUES,
    PROMPTS,
    SOUNDS,
    HeardFrames,
    HitRate,
    SoundProbe,
    hit_rate,
    named_frames,
    packages,
    read_recordings,
    score_english,
    score_language,
)
from .rules import rules_motion, spoken_phonemes
from .silence import silence_rows
from .speech import SpokenText, read_spoken_texts, real_speech_rows
from .synchrony import MAX_LAG, Synchrony
from .table import Row, table
from .weights import Weights
from .whisper import load_model

SYNC_R, SYNC_RATIO = 0.45, (0.8, 1.2)
"""What the mean over clips and seeds should reach."""


@dataclass(frozen=True)
class RealOptions:
    """What is measured on real people.

    Attributes:
        clips: folder of talking clips; None leaves them out.
        seconds: taken of each clip; None takes all.
        seeds: how many motions are sampled for each clip.
        render: read the made lips from rendered frames in place of the mesh.
        tries: settings beside the default.
        data: folder with the corpus's shards, for the probe of the audio encoder.
        speech: folder of transcribed recordings.
        system: root of the system whose packages hold recordings of further languages.
    """

    clips: Path | None
    seconds: float | None = None
    seeds: int = 4
    render: bool = False
    tries: tuple[MotionSettings, ...] = ()
    data: Path | None = None
    speech: Path = Path()
    system: Path = Path("/")

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise FD2TalkError(f"{self.seeds} seeds were asked for, but at least 1 is needed.")
        if self.seconds is not None and self.seconds < 3:
            raise FD2TalkError(f"seconds is {self.seconds:g}, but at least 3 of each clip are needed.")


def score_real(weights: Weights, options: RealOptions, out: Path) -> str:
    """Measure, write ``real.json``, ``real.txt`` and pictures to ``out``, and return the text."""
    out.mkdir(parents=True, exist_ok=True)
    parts: list[str] = []
    report: dict = {}
    rows: list[Row] = []
    if options.clips is not None:
        text, rows, report["clips"] = _clip_part(weights, options, out)
        parts.append(text)
    texts = read_spoken_texts(options.speech) if options.speech.is_dir() else []
    rows += real_speech_rows(weights, texts, options.speech, out)
    rows += silence_rows(weights)
    rows += hearing_rows(weights, texts, options, out)
    parts.append(table(rows))
    report["rows"] = [{**vars(row), "met": row.met} for row in rows]
    text = "\n\n".join(parts)
    (out / "real.txt").write_text(text + "\n", encoding="utf-8")
    (out / "real.json").write_text(json.dumps(report, indent=2, ensure_ascii=False), encoding="utf-8")
    return text


# ---- talking clips


def _clip_part(weights: Weights, options: RealOptions, out: Path) -> tuple[str, list[Row], dict]:
    landmarker = FaceLandmarker()
    clips, left_out = [], []
    for path in list_clips(options.clips):
        _say(f"reading {path.name}")
        try:
            clips.append(read_clip(path, landmarker, options.seconds, out / "lips"))
        except FD2TalkError as error:
            left_out.append(f"left out: {error}")
    if not clips:
        raise FD2TalkError(f"No clip of {options.clips} can be measured: {' '.join(left_out)}")
    bench = ClipBench(weights, clips, options.render)
    scores = {}
    for settings in (MotionSettings(), *options.tries):
        _say(f"motion with {settings}")
        scores[settings] = bench.score(settings, options.seeds)
    default = scores[MotionSettings()]
    loudness = bench.loudness()
    rules, found = _rules(bench)
    lines = [
        f"Real clips: {options.seeds} seeds, best lag within {MAX_LAG} frames, lips read from "
        + ("rendered frames" if options.render else "the mesh (no frame rendered)"),
        clip_table(clips, default, loudness, rules),
        *left_out,
        *found,
    ]
    if options.tries:
        lines += ["", settings_table(scores)]
    report = {
        "read": "rendered frames" if options.render else "mesh",
        "seconds": options.seconds,
        "names": [clip.name for clip in clips],
        "settings": {
            str(key): [[asdict(one) for one in clip] for clip in value] for key, value in scores.items()
        },
        "loudness": [asdict(one) for one in loudness],
        "rules": [None if one is None else asdict(one) for one in rules],
    }
    return "\n".join(lines), clip_rows(default, loudness, rules), report


def _rules(bench: ClipBench) -> tuple[list[Synchrony | None], list[str]]:
    """What the corpus's rules reach on each clip, and how its sounds were found."""
    try:
        load_model()
    except FD2TalkError as error:
        return [None] * len(bench.clips), [f"the corpus's rules are left out: {error}"]
    rules: list[Synchrony | None] = []
    notes = []
    for number, clip in enumerate(bench.clips):
        _say(f"words of {clip.name}")
        try:
            phonemes, how = spoken_phonemes(clip)
        except FD2TalkError as error:
            phonemes, how = (), f"left out: {error}"
        made = rules_motion(clip, phonemes, bench.weights.face_model) if phonemes else None
        rules.append(None if made is None else bench.follow(number, made))
        notes.append(f"sounds of {clip.name} for the rules: {how}")
    return rules, notes


def clip_table(
    clips: Sequence[TalkingClip],
    scores: Sequence[Sequence[Synchrony]],
    loudness: Sequence[Synchrony],
    rules: Sequence[Synchrony | None],
) -> str:
    """A line for each clip and their mean: means over seeds, deviation over seeds, chance, floor, ceiling."""
    lines = [
        f"{'clip':24s} {'frames':>6s} {'sync_r':>7s} {'±seeds':>6s} {'chance':>13s} {'lag':>11s}"
        f" {'r, lag 0':>8s} {'null sd':>7s} {'ratio':>6s} {'loudness r, lag':>15s} {'rules r, lag':>12s}"
    ]
    for clip, seeds, loud, rule in zip(clips, scores, loudness, rules, strict=True):
        deviation = (fmean(one.r**2 for one in seeds) - fmean(one.r for one in seeds) ** 2) ** 0.5
        lags = " ".join(f"{one.lag:+d}" for one in seeds)
        lines.append(
            f"{clip.name[:24]:24s} {len(clip.lips):6d} {mean([seeds], 'r'):7.3f} {deviation:6.3f}"
            f" {mean([seeds], 'chance'):6.3f} ±{mean([seeds], 'chance_deviation'):5.3f} {lags:>11s}"
            f" {mean([seeds], 'r_at_zero'):8.3f} {mean([seeds], 'null_deviation'):7.3f}"
            f" {mean([seeds], 'ratio'):6.2f} {loud.r:10.3f} {loud.lag:+4d}"
            + (f" {rule.r:7.3f} {rule.lag:+4d}" if rule else "")
        )
    known = [rule for rule in rules if rule is not None]
    lines.append(
        f"{'mean':24s} {'':6s} {mean(scores, 'r'):7.3f} {'':6s} {mean(scores, 'chance'):6.3f}"
        f" {'':18s} {mean(scores, 'r_at_zero'):8.3f} {'':7s} {mean(scores, 'ratio'):6.2f}"
        f" {mean([loudness], 'r'):10.3f} {'':4s}" + (f" {mean([known], 'r'):7.3f}" if known else "")
    )
    return "\n".join(lines)


def settings_table(scores: dict[MotionSettings, list[list[Synchrony]]]) -> str:
    """A line for each setting: means over clips and seeds, and the gain over the default with its error."""
    default = scores[MotionSettings()]
    lines = [
        f"{'setting':28s} {'sync_r':>7s} {'gain':>7s} {'± error':>7s} {'clips better':>12s} {'r, lag 0':>8s}"
        f" {'gain':>7s} {'± error':>7s} {'ratio':>6s}"
    ]
    for settings, found in scores.items():
        best, zero = gain(found, default), gain(found, default, "r_at_zero")
        better = sum(mean([a], "r") > mean([b], "r") for a, b in zip(found, default, strict=True))
        gains = (
            f"{'':7s} {'':7s} {'':12s}"
            if settings == MotionSettings()
            else f"{best[0]:+7.3f} {best[1]:7.3f} {f'{better} of {len(found)}':>12s}"
        )
        at_zero = f"{'':7s} {'':7s}" if settings == MotionSettings() else f"{zero[0]:+7.3f} {zero[1]:7.3f}"
        lines.append(
            f"{settings!s:28s} {mean(found, 'r'):7.3f} {gains} {mean(found, 'r_at_zero'):8.3f} {at_zero}"
            f" {mean(found, 'ratio'):6.2f}"
        )
    return "\n".join(lines)


def clip_rows(
    scores: Sequence[Sequence[Synchrony]], loudness: Sequence[Synchrony], rules: Sequence[Synchrony | None]
) -> list[Row]:
    """The means as rows with their targets."""
    ratio = mean(scores, "ratio")
    low, high = SYNC_RATIO
    note = (
        f"chance {mean(scores, 'chance'):.3f}; loudness alone {mean([loudness], 'r'):.3f}"
        + _beside_rules(scores, rules)
        + f"; without a lag {mean(scores, 'r_at_zero'):.3f}"
    )
    return [
        Row("real clips: sync_r at the best lag", mean(scores, "r"), SYNC_R, note=note),
        Row(
            "real clips: sync_ratio",
            ratio,
            low if ratio < 1 else high,
            "high" if ratio < 1 else "low",
            note=f"{low} to {high}: how far lips move by how far real ones do; a copy has 1, a still mouth 0",
        ),
    ]


def _beside_rules(scores: Sequence[Sequence[Synchrony]], rules: Sequence[Synchrony | None]) -> str:
    """The corpus's rules beside what the weights reach on the same clips: those whose words are clear."""
    both = [(rule, seeds) for rule, seeds in zip(rules, scores, strict=True) if rule is not None]
    if not both:
        return ""
    known, ours = zip(*both, strict=True)
    return (
        f"; the corpus's rules from the words {mean([known], 'r'):.3f} on {len(both)} of {len(rules)} clips, "
        f"where these weights have {mean(ours, 'r'):.3f}"
    )


# ---- recordings with words


def hearing_rows(weights: Weights, texts: Sequence[SpokenText], options: RealOptions, out: Path) -> list[Row]:
    """Frames named rightly from the audio encoder's features, or what is missing; what is taken for what is
    drawn to ``out``.
    """
    name = "real speech: frames named rightly"
    if options.data is None:
        return [
            Row(
                name,
                None,
                note="give --data with the corpus's shards: the encoder ships without the head that named "
                "phonemes, so a linear probe is fitted on them",
            )
        ]
    _say("fitting the probe of the audio encoder")
    train, held_out, _ = load_speech(options.data, weights.face_model)
    probe = SoundProbe.fit(weights.audio_encoder, train)
    own = hit_rate(
        [
            HeardFrames.of_names(
                probe.hear(clip.waveform),
                named_frames(weights.audio_encoder, clip.waveform, clip.phonemes),
            )
            for clip in held_out.clips
        ]
    )
    rows = [
        Row(
            "own held-out speech: frames named rightly",
            own.value,
            note=f"{_by_chance(own)}; linear probe, {train.seconds / 60:.0f} minutes of the corpus, "
            f"{own.count} frames without silence",
        )
    ]
    try:
        load_model()
        second, missing = True, ""
    except FD2TalkError as error:
        second, missing = False, str(error)
    english = [spoken for spoken in texts if spoken.language == "en"]
    try:
        rows += _english_rows(name, probe, english, second, out) if english else []
    except ModuleNotFoundError as error:
        rows.append(Row(f"{name}, en", None, note=f"needs: pip install {error.name}"))
    if not second:
        return [*rows, Row(f"{name}, by language", None, note=missing)]
    for language in sorted((*PROMPTS, *DIALOGUES)):
        _say(f"recordings in {language!r}")
        title = f"{name}, {language}, spread"
        recordings = read_recordings(options.system, language)
        if not recordings:
            rows.append(Row(title, None, note=f"needs: apt-get install {packages(language)}"))
            continue
        try:
            heard = score_language(probe, recordings)
        except FD2TalkError as error:
            rows.append(Row(title, None, note=str(error)))
            continue
        if heard is None:
            rows.append(Row(title, None, note="no text is what its recording says, by Whisper"))
            continue
        rows.append(
            Row(
                title,
                heard.spread.value,
                note=f"{_by_chance(heard.spread)}; a sound of the word {heard.in_word.value:.3f}, "
                f"chance {heard.in_word.chance:.3f} ± {heard.in_word.deviation:.3f}; "
                f"{heard.seconds:.0f} s of {heard.recordings} recordings, {heard.dropped} dropped",
            )
        )
    return rows


def _english_rows(
    name: str, probe: SoundProbe, texts: Sequence[SpokenText], second: bool, out: Path
) -> list[Row]:
    english = score_english(probe, texts, second)
    draw_confusion(torch.from_numpy(english.confusion), list(SOUNDS), out / "real-confusion.png")
    rows = [
        Row(
            f"{name}, en",
            english.rate.value,
            note=f"{_by_chance(english.rate)}; {english.rate.count} frames without silence, "
            f"by pocketsphinx; with silence {english.with_silence.value:.3f}",
        )
    ]
    if english.by_whisper is not None and english.agreement is not None and english.perfect is not None:
        agreement = english.agreement
        rows += [
            Row(
                f"{name}, en, Whisper's words",
                english.by_whisper.value,
                note=f"{_by_chance(english.by_whisper)}; the same phonemes in the words' times by Whisper",
            ),
            Row(
                "two aligners: same word at the same time",
                agreement.same_word,
                note=f"{agreement.count} starts of words differ by {1000 * agreement.median_error:.0f} ms "
                f"(median), {agreement.within_50:.0%} by less than 50 ms, {agreement.within_100:.0%} by "
                "less than 100 ms",
            ),
            Row(
                "spread sounds: an ear that errs nowhere, en",
                english.perfect.value,
                note="what pocketsphinx's own phonemes score where a word's sounds are spread evenly over "
                "it, as below",
            ),
        ]
    return rows


def _by_chance(rate: HitRate) -> str:
    return f"chance {rate.chance:.3f} ± {rate.deviation:.3f}, most common sound {rate.common:.3f}"


def _say(what: str) -> None:
    print(f"{what} ...", file=sys.stderr, flush=True)

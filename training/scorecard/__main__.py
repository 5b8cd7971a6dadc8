"""``python -m training.scorecard --weights DIR``: what a set of weights reaches, in one table.

Set A is held out of the corpus; set B is portraits; set C is real speech with its words. None of them is
trained on. A row is left out, with its reason, when what it is measured on is not at hand.

With ``--styles`` the styles of the expression network are measured, see :mod:`training.scorecard.styles`.
With ``--real``, ``--driven`` or ``--dubbed`` real people are measured instead, see
:mod:`training.scorecard.real`, :mod:`training.scorecard.driven` and :mod:`training.scorecard.dubbed`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from fd2talk_core.audio.reading import read_audio
from fd2talk_core.audio.resampling import SAMPLE_RATE, to_mono_16k
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.landmarks import FaceLandmarker
from fd2talk_core.files import writing
from fd2talk_core.frames.decoding import DEFAULT_DETAIL
from fd2talk_core.frames.reference import encode_reference
from fd2talk_core.terminal import run_command

from ..sources import load_pictures, load_speech
from .clips import MotionSettings
from .cost import score_cost
from .driven import score_driven
from .dubbed import score_dubbed
from .frames import score_flicker, score_frames
from .identity import FOLDER, PACKAGE, FaceDescriptor, fetch
from .motion import score_motion
from .portraits import EXAMPLES, portraits
from .real import RealOptions, score_real
from .speech import TEST_SPEECH, read_spoken_texts, real_speech_rows
from .styles import score_styles
from .table import Row, table
from .talking import TAKE_SECONDS, Describe, score_portraits
from .weights import Weights


def score(
    weights: Weights,
    data: Path | None,
    speech_folder: Path,
    out: Path,
    faces: Path | None = None,
    describe: Describe | None = None,
    takes: int = 3,
    seconds: float = TAKE_SECONDS,
) -> list[Row]:
    """All rows that can be measured with what is at hand; pictures go to ``out``.

    Args:
        data: folder with held-out shards.
        speech_folder: transcribed recordings.
        faces: folder of portraits beside those of :func:`~training.scorecard.portraits.portraits`.
        describe, takes, seconds: as in :func:`~training.scorecard.talking.score_portraits`.
    """
    shown = portraits(faces)
    out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    if data is not None:
        pictures = load_pictures(data, weights.face_model)[1]
        rows += score_frames(weights, pictures, out)
        speech = load_speech(data, weights.face_model)[1].with_features(weights.audio_encoder)
        rows += score_motion(weights, speech, out)
    else:
        rows.append(Row("A frames and motion", None, note="give --data with held-out shards"))
    texts = read_spoken_texts(speech_folder) if speech_folder.is_dir() else []
    rows += real_speech_rows(weights, texts, speech_folder, out)
    voices = [text.waveform for text in texts if len(text.waveform) > 2 * SAMPLE_RATE]
    voices = voices or [to_mono_16k(*read_audio(EXAMPLES / "speech.wav"))]
    rows += score_portraits(weights, shown, voices, out, takes=takes, seconds=seconds, describe=describe)
    reference = encode_reference(shown[0][1], weights.autoencoder, FaceLandmarker(), weights.face_model)
    rows += score_flicker(weights, reference)
    rows += score_cost(weights, reference)
    return rows


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.scorecard", description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="folder with one file a network")
    parser.add_argument("--data", type=Path, help="folder with held-out shards (set A)")
    parser.add_argument(
        "--speech", type=Path, default=TEST_SPEECH, help="folder with transcribed speech (set C)"
    )
    parser.add_argument("--portraits", type=Path, help="folder of further portraits (set B)")
    parser.add_argument("--takes", type=int, default=3, help="recordings that each portrait speaks (set B)")
    parser.add_argument(
        "--seconds",
        type=float,
        help=f"of each recording that a portrait speaks ({TAKE_SECONDS:g}), or of each clip (all of it)",
    )
    parser.add_argument(
        "--out", type=Path, help="for scorecard.json, scorecard.txt and pictures; WEIGHTS/scorecard"
    )
    parser.add_argument(
        "--detail",
        type=float,
        default=DEFAULT_DETAIL,
        help="strength of the portrait's own detail, 0 to see what the networks make",
    )
    parser.add_argument(
        "--fetch-descriptor",
        action="store_true",
        help=f"get what the identity row needs (npm's {PACKAGE}, MIT) into {FOLDER}; once is enough",
    )
    parser.add_argument(
        "--styles",
        action="store_true",
        help="say the held-out recordings of --data in each style, and measure faces and lips, in place of "
        "the sets",
    )
    real = parser.add_argument_group("real people, in place of the sets")
    real.add_argument(
        "--real",
        nargs="?",
        const="",
        metavar="CLIPS",
        help="measure on real voices, and on the talking clips in the folder CLIPS: the first frame as the "
        "portrait, the sound as the voice",
    )
    real.add_argument(
        "--driven",
        type=Path,
        metavar="CLIPS",
        help="measure how like themselves the talking clips in a folder are, made from their first frame and "
        "their own motion",
    )
    real.add_argument(
        "--dubbed",
        type=Path,
        metavar="CLIPS",
        help="give each talking clip in a folder the sound of the next, and measure whether the mouth "
        "follows and all else stays",
    )
    real.add_argument("--seeds", type=int, default=4, help="motions sampled for each clip")
    real.add_argument(
        "--render",
        action="store_true",
        help="read the made lips from rendered frames (minutes a clip); without, from the mesh",
    )
    real.add_argument(
        "--try",
        dest="tries",
        action="append",
        default=[],
        metavar="NAME=VALUE[,...]",
        help=f"a setting to compare with the default: {', '.join(vars(MotionSettings()))}; may be repeated",
    )
    given = parser.parse_args(arguments)
    return run_command(lambda: _score(given, given.out or given.weights / "scorecard"), prefix="error: ")


def _score(given: argparse.Namespace, out: Path) -> str:
    tries = tuple(MotionSettings.parse(text) for text in given.tries)
    weights = Weights.load(given.weights, given.detail)
    if given.styles:
        if given.data is None:
            raise FD2TalkError("--styles measures on held-out recordings: give their folder with --data.")
        return score_styles(weights, load_speech(given.data, weights.face_model)[1], out)
    if given.driven is not None:
        return score_driven(weights, given.driven, given.seconds, out)
    if given.dubbed is not None:
        return score_dubbed(weights, given.dubbed, given.seconds, out)
    if given.real is not None:
        options = RealOptions(
            clips=Path(given.real) if given.real else None,
            seconds=given.seconds,
            seeds=given.seeds,
            render=given.render,
            tries=tries,
            data=given.data,
            speech=given.speech,
        )
        return score_real(weights, options, out)
    if given.fetch_descriptor:
        fetch()
    describe = FaceDescriptor.load() if FOLDER.is_dir() else None
    seconds = given.seconds or TAKE_SECONDS
    rows = score(weights, given.data, given.speech, out, given.portraits, describe, given.takes, seconds)
    text = table(rows)
    content = [{**vars(row), "met": row.met} for row in rows]
    with writing(out):
        (out / "scorecard.txt").write_text(text + "\n", encoding="utf-8")
        (out / "scorecard.json").write_text(
            json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8"
        )
    return text


if __name__ == "__main__":
    raise SystemExit(main())

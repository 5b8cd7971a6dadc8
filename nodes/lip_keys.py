"""An animator's lip keys on top of what the voice does."""

from __future__ import annotations

from comfy_api.v0_0_2 import io

from ..fd2talk_core.errors import FD2TalkError
from ..fd2talk_core.formats.lip_keys import ENDINGS, load_lip_keys, parse_lip_keys
from ..fd2talk_core.motion.defaults import BETWEEN, REACH
from ..fd2talk_core.motion.lip_keys import LipKeys, apply_lip_keys, lip_keys_of_curve, lip_keys_of_track
from ..fd2talk_core.motion.tracking import follow_face, track_from_landmarks
from . import host
from .curves import curves_ui
from .types import Curve, Expression, FaceLandmarks, schema, socket_only
from .widgets import SEQUENCES, number

NO_FILE = "none"


class FD2TalkLipKeys(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FD2TalkLipKeys",
            search_aliases=["keyframes", "animator", "lip sync", "singing", "FaceTalk", "landmarks"],
            display_name="Lip Keys",
            category=SEQUENCES,
            description="Puts the lips where an animator wants them at some moments: the mouth that meets "
            "each key and is closest to the voice's. Or follows a recorded singer's lips.",
            inputs=[
                Expression.Input("expression", tooltip="The face's motion, such as ExpDiT's."),
                io.Combo.Input(
                    "keys_file",
                    options=[NO_FILE, *host.list_input_files(*ENDINGS)],
                    default=NO_FILE,
                    tooltip="A JSON or CSV file of lip keys in the input folder.",
                ),
                io.String.Input(
                    "keys",
                    default="",
                    multiline=True,
                    placeholder='{"keys": [{"time": 0.4, "upper": [0, 0.05], "lower": [0, -0.3]}]}',
                    tooltip="Lip keys as JSON: offsets of points from the shut mouth, in mouth's widths, x "
                    "to the picture's right and y up. In place of a file.",
                ),
                io.Combo.Input(
                    "between",
                    options=list(BETWEEN),
                    default=BETWEEN[0],
                    tooltip="What rules between two keys. voice: the voice's own mouth. keys: a smooth curve "
                    "from key to key.",
                ),
                number("reach", REACH, 0.0, 10.0, 0.01, "Seconds over which a key fades into the voice."),
                number(
                    "fps",
                    25.0,
                    1.0,
                    120.0,
                    0.001,
                    "Frames per second of the landmarks. A video says its own.",
                ),
                socket_only(
                    Curve.Input(
                        "curve",
                        optional=True,
                        tooltip="How far the lips part over the clip, in mouth's widths, by a curve editor. "
                        "In place of a file.",
                    )
                ),
                socket_only(
                    FaceLandmarks.Input(
                        "face_landmarks",
                        optional=True,
                        tooltip="A recorded singer's face, from a landmark node. In place of a file.",
                    )
                ),
                io.Video.Input(
                    "video",
                    optional=True,
                    tooltip="A recorded singer, whose lips are followed frame by frame. In place of a file.",
                ),
            ],
            outputs=[
                Expression.Output(
                    "keyed",
                    display_name="expression",
                    tooltip="The whole face's motion, whose lips meet the keys.",
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, keys_file=NO_FILE, keys=None) -> bool | str:
        return keys_file in (None, NO_FILE) or host.check(host.input_file, keys_file)

    @classmethod
    def fingerprint_inputs(cls, keys_file=NO_FILE, **_) -> str:
        return "" if keys_file in (None, NO_FILE) else host.fingerprint(host.input_file(keys_file))

    @classmethod
    def execute(
        cls,
        expression,
        keys_file,
        keys,
        between,
        reach,
        fps,
        curve=None,
        face_landmarks=None,
        video=None,
    ) -> io.NodeOutput:
        file = None if keys_file == NO_FILE else keys_file
        given = [one for one in (file, keys.strip() or None, curve, face_landmarks, video) if one is not None]
        if len(given) != 1:
            raise FD2TalkError(
                f"{len(given)} kinds of lip keys are given, but exactly one is needed: a file, keys as text, "
                "a curve, landmarks, or a video."
            )
        track: LipKeys
        if file is not None:
            track = load_lip_keys(host.input_file(file))
        elif curve is not None:
            track = lip_keys_of_curve(host.curve_points(curve), expression.duration)
        elif face_landmarks is not None:
            found = track_from_landmarks(face_landmarks)
            track = lip_keys_of_track(found, fps, host.face_model(), host.Progress())
        elif video is not None:
            frames, count, rate = host.frames_of(video)
            found = follow_face(frames, host.face_landmarker(), num_frames=count, callback=host.Progress())
            track = lip_keys_of_track(found, rate, host.face_model(), host.Progress())
        else:
            track = parse_lip_keys(keys)
        keyed = apply_lip_keys(expression, track, host.face_model(), between=between, reach=reach)
        told = {**host.tell(keyed.report).as_dict(), **curves_ui(keyed.expression)}
        return io.NodeOutput(keyed.expression, ui=told)


NODES = [FD2TalkLipKeys]

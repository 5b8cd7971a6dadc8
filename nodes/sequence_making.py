"""Head motion that no recording made: held, drawn by hand, or from a seed."""

from __future__ import annotations

import math
from typing import Any

from comfy_api.v0_0_2 import io

from ..fd2talk_core.face.names import POSE_NAMES
from ..fd2talk_core.motion import editing as edit
from ..fd2talk_core.motion.pose_curve import parse_keyframes, pose_from_keyframes, sample_curve
from ..fd2talk_core.timing import frame_count
from . import host
from .curves import with_curves
from .types import Curve, Features, Pose, advanced, schema, socket_only
from .widgets import SEQUENCES, angle_widgets, number, shift_widgets


def _length_inputs() -> list[io.Input]:
    return [
        number(
            "seconds", 5.0, 0.04, 3600.0, 0.1, "Length of the clip. Not used while features are connected."
        ),
        number("fps", 25.0, 1.0, 120.0, 0.001, "Frames a second. Not used while features are connected."),
        Features.Input(
            "features",
            optional=True,
            tooltip="From Load Audio (wav2vec 2.0): the clip then gets the length and the rate of the "
            "speech.",
        ),
    ]


def _length(seconds: float, fps: float, features: Any) -> tuple[int, float]:
    if features is not None:
        return features.num_frames, features.fps
    return max(frame_count(seconds, fps), 1), fps


class FD2TalkConstantPose(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FD2TalkConstantPose",
            display_name="Constant Pose",
            category=SEQUENCES,
            description="A head that does not move, looking where you set it.",
            inputs=[*angle_widgets(90), *shift_widgets(), *_length_inputs()],
            outputs=[Pose.Output("pose", display_name="pose", tooltip="The same pose in every frame.")],
        )

    @classmethod
    def execute(cls, pitch, yaw, roll, x, y, z, seconds, fps, features=None) -> io.NodeOutput:
        angles = [math.radians(angle) for angle in (pitch, yaw, roll)]
        return with_curves(edit.constant_pose(*_length(seconds, fps, features), angles, (x, y, z)))


class FD2TalkPoseCurve(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FD2TalkPoseCurve",
            search_aliases=["keyframes", "head motion"],
            display_name="Pose Curve",
            category=SEQUENCES,
            description="Head motion drawn by hand in the node: a smooth curve through a few points.",
            inputs=[
                io.String.Input(
                    "keyframes",
                    default='{"yaw": [[0, 0], [1.5, 15], [3.5, -10], [5, 0]]}',
                    tooltip="The points that are drawn, as JSON: for pitch, yaw, roll (degrees), x, y, z "
                    "(1 is about 10 cm) a list of [seconds, value].",
                ),
                *_length_inputs(),
                socket_only(
                    Curve.Input(
                        "curve",
                        optional=True,
                        tooltip="A curve of newer ComfyUI's own, over the whole clip, in place of one name's "
                        "points: half height is rest.",
                    )
                ),
                advanced(
                    io.Combo.Input(
                        "curve_moves",
                        options=list(POSE_NAMES),
                        default="yaw",
                        optional=True,
                        tooltip="What the connected curve moves.",
                    )
                ),
                advanced(
                    io.Float.Input(
                        "curve_span",
                        default=20.0,
                        min=0.0,
                        max=180.0,
                        step=0.1,
                        optional=True,
                        tooltip="How far its upper edge is from rest: degrees; for shifts, 1 is about 10 cm.",
                    )
                ),
            ],
            outputs=[Pose.Output("pose", display_name="pose", tooltip="The head's motion.")],
        )

    @classmethod
    def validate_inputs(cls, keyframes=None) -> bool | str:
        return host.check(parse_keyframes, keyframes or "")

    @classmethod
    def execute(
        cls, keyframes, seconds, fps, features=None, curve=None, curve_moves="yaw", curve_span=20.0
    ) -> io.NodeOutput:
        points, length = parse_keyframes(keyframes), _length(seconds, fps, features)
        if curve is not None:
            points |= sample_curve(curve, curve_moves, curve_span, *length)
        return with_curves(pose_from_keyframes(points, *length))


class FD2TalkIdleMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FD2TalkIdleMotion",
            search_aliases=["avatar", "head motion"],
            display_name="Idle Head Motion",
            category=SEQUENCES,
            description="The small drift of a head that listens, from a seed.",
            inputs=[
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Another seed drifts another way.",
                ),
                number("amount", 1.0, 0.0, 10.0, 0.1, "1 turns the head by about 2 degrees; 0 is still."),
                number("speed", 1.0, 0.0, 10.0, 0.1, "2 is twice as fast."),
                *_length_inputs(),
            ],
            outputs=[Pose.Output("pose", display_name="pose", tooltip="The head's motion.")],
        )

    @classmethod
    def execute(cls, seed, amount, speed, seconds, fps, features=None) -> io.NodeOutput:
        return with_curves(edit.idle_motion(*_length(seconds, fps, features), seed, amount, speed))


NODES = [FD2TalkConstantPose, FD2TalkPoseCurve, FD2TalkIdleMotion]

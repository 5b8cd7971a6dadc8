"""The small tools that change motion: each node is one function of the core."""

from __future__ import annotations

import math
from typing import Any

from comfy_api.v0_0_2 import io

from ..fd2talk_core.errors import FD2TalkError
from ..fd2talk_core.motion import editing as edit
from ..fd2talk_core.motion.coefficients import CoefficientSequence
from ..fd2talk_core.timing import frame_count
from . import host
from .curves import with_curves
from .types import KINDS, NOTHING_CONNECTED, UNPLUGGED, Expression, Features, Pose, advanced
from .widgets import SEQUENCES, angle_widgets, number, share, shift_widgets

NO_COEFFICIENT = "none"


class _EditNode(io.ComfyNode):
    """What edits an expression, a pose or both alike; what is not connected comes out as nothing."""

    NODE_ID: str
    NAME: str
    DESCRIPTION_TEXT: str

    @classmethod
    def widgets(cls) -> list[io.Input]:
        raise NotImplementedError

    @classmethod
    def edit(cls, sequence: CoefficientSequence, **widgets: Any) -> CoefficientSequence:
        raise NotImplementedError

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=cls.NODE_ID,
            display_name=cls.NAME,
            category=SEQUENCES,
            description=cls.DESCRIPTION_TEXT,
            inputs=[
                Expression.Input("expression", optional=True, tooltip="The face's motion to be changed."),
                Pose.Input("pose", optional=True, tooltip="The head's motion to be changed."),
                *cls.widgets(),
            ],
            outputs=_both_outputs(),
        )

    @classmethod
    def execute(cls, expression=None, pose=None, **widgets) -> io.NodeOutput:
        if expression is None and pose is None:
            raise FD2TalkError(NOTHING_CONNECTED)
        return with_curves(
            *(
                cls.edit(sequence, **widgets)
                if sequence is not None
                else host.block(f"{cls.NAME} was given no {kind}, so it has none to pass on.")
                for kind, sequence in zip(KINDS, (expression, pose), strict=True)
            )
        )


def _both_outputs() -> list[io.Output]:
    return [
        Expression.Output("new_expression", display_name="expression", tooltip="The changed expression."),
        Pose.Output("new_pose", display_name="pose", tooltip="The changed pose."),
    ]


class FD2TalkScaleMotion(_EditNode):
    NODE_ID = "FD2TalkScaleMotion"
    NAME = "Scale Motion"
    DESCRIPTION_TEXT = "Makes the motion of the mouth, brows, eyes, cheeks or head larger or smaller."

    @classmethod
    def widgets(cls) -> list[io.Input]:
        parts = {
            "mouth": "Lips, jaw and tongue. 1 keeps them; more articulates more, and too much distorts.",
            "brows": "Eyebrows: 0 holds them at the pivot, 2 moves them twice as much.",
            "eyes": "Lids and gaze. Under 1 the eyes no longer shut in a blink.",
            "cheeks": "Cheeks and nose.",
            "rotation": "Turns of the head: nods, shakes and tilts.",
            "shift": "Position of the head.",
        }
        return [
            *(number(name, 1.0, -3.0, 3.0, 0.05, tooltip) for name, tooltip in parts.items()),
            advanced(
                io.Combo.Input(
                    "about",
                    options=["rest", "mean", "first"],
                    default="rest",
                    tooltip="What stays where it is: a neutral face and straight head, the clip's mean, or "
                    "its first frame.",
                )
            ),
        ]

    @classmethod
    def edit(cls, sequence, about, rotation, shift, **groups) -> CoefficientSequence:
        head = {"rotation": rotation, "shift": shift}
        return edit.scale(sequence, head if sequence.kind == "pose" else groups, about)


class FD2TalkOffsetMotion(_EditNode):
    NODE_ID = "FD2TalkOffsetMotion"
    NAME = "Offset Motion"
    DESCRIPTION_TEXT = (
        "Adds a constant: turn or move the whole head motion, or raise one coefficient of the face."
    )

    @classmethod
    def widgets(cls) -> list[io.Input]:
        return [
            *angle_widgets(90),
            *shift_widgets(),
            io.Combo.Input(
                "coefficient",
                options=[NO_COEFFICIENT, *edit.ARKIT_NAMES],
                default=NO_COEFFICIENT,
                tooltip="A blendshape of the expression to be raised or lowered, such as mouthSmileLeft; "
                "chain nodes for several.",
            ),
            number("amount", 0.0, -1.0, 1.0, 0.05, "Added to the coefficient; 1 is the whole blendshape."),
        ]

    @classmethod
    def edit(cls, sequence, pitch, yaw, roll, x, y, z, coefficient, amount) -> CoefficientSequence:
        if sequence.kind == "expression":
            return edit.offset(sequence, {} if coefficient == NO_COEFFICIENT else {coefficient: amount})
        angles = {"pitch": math.radians(pitch), "yaw": math.radians(yaw), "roll": math.radians(roll)}
        return edit.offset(sequence, angles | {"x": x, "y": y, "z": z})


class FD2TalkSmoothMotion(_EditNode):
    NODE_ID = "FD2TalkSmoothMotion"
    NAME = "Smooth Motion"
    DESCRIPTION_TEXT = "Takes jitter out without delaying anything."

    @classmethod
    def widgets(cls) -> list[io.Input]:
        return [
            number(
                "seconds", 0.08, 0.0, 10.0, 0.01, "Width of the smoothing (standard deviation). 0 is none."
            ),
            io.Boolean.Input(
                "keep_mouth",
                default=True,
                tooltip="Leaves lips, jaw and tongue as they are: smoothing blurs the lip sync.",
            ),
        ]

    @classmethod
    def edit(cls, sequence, seconds, keep_mouth) -> CoefficientSequence:
        return edit.smooth(sequence, seconds, keep_mouth)


class FD2TalkHoldStill(_EditNode):
    NODE_ID = "FD2TalkHoldStill"
    NAME = "Hold Still"
    DESCRIPTION_TEXT = (
        "Freezes the head, or the face around a speaking mouth, for a while or for the whole clip."
    )

    @classmethod
    def widgets(cls) -> list[io.Input]:
        return [
            number("start", 0.0, 0.0, 3600.0, 0.1, "Seconds at which the stillness begins."),
            number("end", 0.0, 0.0, 3600.0, 0.1, "Seconds at which it ends; 0 is the clip's end."),
            io.Combo.Input(
                "at",
                options=["first", "mean", "rest"],
                default="first",
                tooltip="What is held: the first frame of the stillness, the clip's mean, or a straight "
                "head and neutral face.",
            ),
            number("amount", 1.0, 0.0, 1.0, 0.05, "1 is quite still, 0.5 moves half as much."),
            number("blend", 0.3, 0.0, 10.0, 0.05, "Seconds in which the stillness comes and goes."),
            io.Boolean.Input("keep_mouth", default=True, tooltip="The mouth goes on speaking."),
        ]

    @classmethod
    def edit(cls, sequence, start, end, at, amount, blend, keep_mouth) -> CoefficientSequence:
        return edit.hold_still(
            sequence, start, end or None, at=at, amount=amount, blend=blend, keep_mouth=keep_mouth
        )


class FD2TalkRetime(_EditNode):
    NODE_ID = "FD2TalkRetime"
    NAME = "Retime Motion"
    DESCRIPTION_TEXT = "Brings motion to another frame rate or length, such as that of a speech."

    @classmethod
    def widgets(cls) -> list[io.Input]:
        return [
            number("fps", 0.0, 0.0, 120.0, 0.001, "New frame rate at the same speed; 0 keeps it."),
            io.Int.Input(
                "frames",
                default=0,
                min=0,
                max=edit.MAX_FRAMES,
                tooltip="New number of frames; 0 keeps the duration.",
            ),
            io.Combo.Input(
                "method",
                options=["stretch", "hold", "loop"],
                default="loop",
                tooltip="How another length is reached: stretch plays slower or faster; hold cuts, or "
                "holds the last frame; loop cuts, or goes there and back.",
            ),
            Features.Input(
                "features",
                optional=True,
                tooltip="From Load Audio (wav2vec 2.0): length and rate are then those of the speech, and "
                "the two widgets are not used.",
            ),
        ]

    @classmethod
    def edit(cls, sequence, fps, frames, method, features=None) -> CoefficientSequence:
        if features is not None:
            fps, frames = features.fps, features.num_frames
        return edit.retime(sequence, fps=fps or None, num_frames=frames or None, method=method)


class FD2TalkTrim(_EditNode):
    NODE_ID = "FD2TalkTrim"
    NAME = "Trim Motion"
    DESCRIPTION_TEXT = "Keeps the part between two instants."

    @classmethod
    def widgets(cls) -> list[io.Input]:
        return [
            number("start", 0.0, 0.0, 3600.0, 0.04, "Seconds at which the kept part begins."),
            number("end", 0.0, 0.0, 3600.0, 0.04, "Seconds at which it ends; 0 is the clip's end."),
        ]

    @classmethod
    def edit(cls, sequence, start, end) -> CoefficientSequence:
        return edit.trim(sequence, start, end or None)


class FD2TalkLoop(_EditNode):
    NODE_ID = "FD2TalkLoop"
    NAME = "Loop Motion"
    DESCRIPTION_TEXT = "Plays motion there and back, again and again, without a jump."

    @classmethod
    def widgets(cls) -> list[io.Input]:
        return [number("seconds", 10.0, 0.04, 3600.0, 0.1, "Length of the looped motion.")]

    @classmethod
    def edit(cls, sequence, seconds) -> CoefficientSequence:
        return edit.loop(sequence, frame_count(seconds, sequence.fps))


class FD2TalkSplice(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FD2TalkSplice",
            display_name="Splice Motion",
            category=SEQUENCES,
            description="Puts one motion behind another, cross-faded. Connect two expressions, two poses "
            "or both.",
            inputs=[
                Expression.Input("first_expression", optional=True, tooltip="The face's motion that begins."),
                Expression.Input(
                    "second_expression", optional=True, tooltip="The face's motion that follows."
                ),
                Pose.Input("first_pose", optional=True, tooltip="The head's motion that begins."),
                Pose.Input("second_pose", optional=True, tooltip="The head's motion that follows."),
                number(
                    "blend",
                    0.2,
                    0.0,
                    10.0,
                    0.05,
                    "Seconds in which the two overlap; the result is shorter by as much.",
                ),
            ],
            outputs=_both_outputs(),
        )

    @classmethod
    def validate_inputs(
        cls,
        first_expression=UNPLUGGED,
        second_expression=UNPLUGGED,
        first_pose=UNPLUGGED,
        second_pose=UNPLUGGED,
    ) -> bool | str:
        for kind, first, second in (
            ("expression", first_expression, second_expression),
            ("pose", first_pose, second_pose),
        ):
            if (first is UNPLUGGED) != (second is UNPLUGGED):
                return f"Only one {kind} is connected: a splice needs a first and a second {kind}."
        return True

    @classmethod
    def execute(
        cls, blend, first_expression=None, second_expression=None, first_pose=None, second_pose=None
    ) -> io.NodeOutput:
        pairs = {"expression": (first_expression, second_expression), "pose": (first_pose, second_pose)}
        if all(None in pair for pair in pairs.values()):
            raise FD2TalkError("Nothing to join: connect two expressions, two poses or both.")
        return with_curves(
            *(
                edit.splice(*pair, blend)
                if None not in pair
                else host.block(f"Splice Motion was given no two sequences of kind {kind} to join.")
                for kind, pair in pairs.items()
            )
        )


class FD2TalkMixExpression(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FD2TalkMixExpression",
            display_name="Mix Expressions",
            category=SEQUENCES,
            description="The mouth of one performance, the brows and eyes of another.",
            inputs=[
                Expression.Input("first_expression", tooltip="Where everything comes from at 0."),
                Expression.Input(
                    "second_expression", tooltip="Where everything comes from at 1; as long as the first."
                ),
                share("mouth", "Share of the second in lips, jaw and tongue."),
                share("brows", "Share of the second in the eyebrows."),
                share("eyes", "Share of the second in lids and gaze."),
                share("cheeks", "Share of the second in cheeks and nose."),
            ],
            outputs=[
                Expression.Output("expression", display_name="expression", tooltip="The mixed expression.")
            ],
        )

    @classmethod
    def execute(cls, first_expression, second_expression, **shares) -> io.NodeOutput:
        return with_curves(edit.mix(first_expression, second_expression, shares))


class FD2TalkMixPose(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FD2TalkMixPose",
            display_name="Mix Poses",
            category=SEQUENCES,
            description="The nod of one head motion, the turn of another, or something between the two.",
            inputs=[
                Pose.Input("first_pose", tooltip="Where everything comes from at 0."),
                Pose.Input("second_pose", tooltip="Where everything comes from at 1; as long as the first."),
                share("pitch", "Share of the second in nodding."),
                share("yaw", "Share of the second in turning left and right."),
                share("roll", "Share of the second in tilting."),
                share("x", "Share of the second in moving left and right."),
                share("y", "Share of the second in moving up and down."),
                share("z", "Share of the second in coming nearer."),
            ],
            outputs=[Pose.Output("pose", display_name="pose", tooltip="The mixed pose.")],
        )

    @classmethod
    def execute(cls, first_pose, second_pose, **shares) -> io.NodeOutput:
        return with_curves(edit.mix(first_pose, second_pose, shares))


class FD2TalkAddBlinks(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FD2TalkAddBlinks",
            display_name="Add Blinks",
            category=SEQUENCES,
            description="Blinks at given times, or natural ones.",
            inputs=[
                Expression.Input("expression", tooltip="The face's motion that shall blink."),
                io.String.Input(
                    "times",
                    default="",
                    tooltip="Seconds at which the eyes are shut, such as 1.5, 3, 7.25. Empty: natural "
                    "blinks.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Another seed blinks at other times.",
                ),
                number(
                    "per_minute",
                    17.0,
                    0.0,
                    60.0,
                    1.0,
                    "Natural blinks a minute on average; people: 10 to 20.",
                ),
                number("strength", 1.0, 0.0, 1.0, 0.05, "How far the lids close; 1 is shut."),
                io.Boolean.Input(
                    "replace_existing",
                    default=False,
                    tooltip="Opens the eyes first, so that only these blinks remain.",
                ),
            ],
            outputs=[
                Expression.Output("new_expression", display_name="expression", tooltip="With the blinks.")
            ],
        )

    @classmethod
    def validate_inputs(cls, times=None) -> bool | str:
        return host.check(edit.parse_times, times or "")

    @classmethod
    def execute(cls, expression, times, seed, per_minute, strength, replace_existing) -> io.NodeOutput:
        return with_curves(
            edit.add_blinks(
                expression,
                times=edit.parse_times(times) or None,
                seed=seed,
                per_minute=per_minute,
                strength=strength,
                replace_existing=replace_existing,
            )
        )


class FD2TalkLookAt(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FD2TalkLookAt",
            display_name="Look At",
            category=SEQUENCES,
            description="Rests the eyes on one spot for the whole clip.",
            inputs=[
                Expression.Input("expression", tooltip="The face's motion whose eyes are turned."),
                number("yaw", 0.0, -14.5, 14.5, 0.5, "Degrees. Positive looks to the picture's right."),
                number("pitch", 0.0, -9.5, 11.0, 0.5, "Degrees. Positive looks down."),
            ],
            outputs=[
                Expression.Output(
                    "new_expression", display_name="expression", tooltip="With the steady gaze."
                )
            ],
        )

    @classmethod
    def execute(cls, expression, yaw, pitch) -> io.NodeOutput:
        return with_curves(edit.look_at(expression, math.radians(yaw), math.radians(pitch)))


NODES = [
    FD2TalkScaleMotion,
    FD2TalkOffsetMotion,
    FD2TalkSmoothMotion,
    FD2TalkHoldStill,
    FD2TalkRetime,
    FD2TalkTrim,
    FD2TalkLoop,
    FD2TalkSplice,
    FD2TalkMixExpression,
    FD2TalkMixPose,
    FD2TalkAddBlinks,
    FD2TalkLookAt,
]

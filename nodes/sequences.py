"""Motion as files, and the small tools that change it: each node is one function of the core."""

from __future__ import annotations

import math
from typing import Any

from comfy_api.latest import io

from ..fd2talk_core.errors import FD2TalkError
from ..fd2talk_core.formats.sequences import READERS, WRITERS, load_motion, save_motion
from ..fd2talk_core.motion import editing as edit
from ..fd2talk_core.motion.coefficients import CoefficientSequence
from ..fd2talk_core.motion.pose_curve import parse_keyframes, pose_from_keyframes
from ..fd2talk_core.timing import frame_count
from . import host
from .curves import curves_ui
from .types import Expression, Features, Pose, advanced

CATEGORY = "FD2Talk/sequences"
UNPLUGGED = object()
NO_COEFFICIENT = "none"
NOTHING = "Nothing to work on: connect an expression, a pose or both."
KINDS = ("expression", "pose")


def _with_curves(*values: Any) -> io.NodeOutput:
    """A node's outputs, and their curves for the page to draw in the node."""
    return io.NodeOutput(*values, ui=curves_ui(*values))


def _amount(name: str, default: float, low: float, high: float, step: float, tooltip: str) -> io.Float.Input:
    return io.Float.Input(name, default=default, min=low, max=high, step=step, tooltip=tooltip)


def _degrees(name: str, limit: float, tooltip: str) -> io.Float.Input:
    return _amount(name, 0.0, -limit, limit, 0.5, tooltip)


def _units(name: str, tooltip: str) -> io.Float.Input:
    return _amount(name, 0.0, -5.0, 5.0, 0.01, tooltip)


def _share(name: str, tooltip: str) -> io.Float.Input:
    return _amount(name, 0.0, 0.0, 1.0, 0.05, tooltip)


def _angles(limit: float) -> list[io.Input]:
    return [
        _degrees("pitch", limit, "Degrees. Positive looks down."),
        _degrees("yaw", limit, "Degrees. Positive turns the face to the picture's right."),
        _degrees("roll", limit, "Degrees. Positive tilts the crown to the picture's left."),
    ]


def _shifts() -> list[io.Input]:
    return [
        _units("x", "To the picture's right; 1 is about 10 cm of a head."),
        _units("y", "Up; 1 is about 10 cm of a head."),
        _units("z", "Towards the viewer; 1 is about 10 cm of a head."),
    ]


def _length_inputs() -> list[io.Input]:
    return [
        _amount(
            "seconds", 5.0, 0.04, 3600.0, 0.1, "Length of the clip. Not used while features are connected."
        ),
        _amount("fps", 25.0, 1.0, 120.0, 0.001, "Frames a second. Not used while features are connected."),
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


class FD2TalkLoadCoefficients(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FD2TalkLoadCoefficients",
            display_name="Load Motion",
            category=CATEGORY,
            description="Reads expression and head motion from a file: saved by Save Motion, captured with "
            "an iPhone (Live Link Face CSV), or made by SadTalker, DreamTalk or Deep3D (.mat).",
            inputs=[
                io.Combo.Input(
                    "motion_file",
                    options=host.list_input_files(*READERS),
                    tooltip="A safetensors, npz, json, csv or mat file of the input folder; upload it with "
                    "the button below, or drop it on the node.",
                ),
                advanced(
                    _amount(
                        "fps",
                        0.0,
                        0.0,
                        120.0,
                        0.001,
                        "Frames a second of the file; 0 is what the file says. Needed for .mat (SadTalker: "
                        "25). A rate given for a file that has one plays its frames at the given rate.",
                    )
                ),
            ],
            outputs=[
                Expression.Output(
                    "expression",
                    display_name="expression",
                    tooltip="The face's motion. Using it is an error when the file holds a pose only.",
                ),
                Pose.Output(
                    "pose",
                    display_name="pose",
                    tooltip="The head's motion. Using it is an error when the file holds an expression only.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, motion_file=None) -> bool | str:
        if not motion_file:
            return "No motion file was given: upload one, or put one into the input folder."
        return host.check(host.input_file, motion_file)

    @classmethod
    def fingerprint_inputs(cls, motion_file=None, **_) -> str:
        return host.fingerprint(host.input_file(motion_file)) if motion_file else ""

    @classmethod
    def execute(cls, motion_file, fps) -> io.NodeOutput:
        motion = load_motion(host.input_file(motion_file), fps or None)
        return _with_curves(*(host.value_or_block(motion.require, kind) for kind in KINDS))


class FD2TalkSaveCoefficients(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FD2TalkSaveCoefficients",
            display_name="Save Motion",
            category=CATEGORY,
            description="Writes expression, head motion or both into a file of the output folder.",
            is_output_node=True,
            inputs=[
                Expression.Input("expression", optional=True, tooltip="The face's motion to be saved."),
                Pose.Input("pose", optional=True, tooltip="The head's motion to be saved."),
                io.String.Input(
                    "filename_prefix",
                    default="fd2talk/motion",
                    tooltip="Name in the output folder, before a number; a folder may stand before it.",
                ),
                io.Combo.Input(
                    "format",
                    options=[ending[1:] for ending in WRITERS],
                    default="safetensors",
                    tooltip="safetensors and npz keep every number; json can be read and edited as text; "
                    "csv is that of the Live Link Face app and keeps the 52 blendshapes and the head's "
                    "angles, but not its position.",
                ),
            ],
            outputs=[
                io.String.Output(
                    "saved_as", display_name="saved as", tooltip="Where the file is, in the output folder."
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, filename_prefix=None, expression=UNPLUGGED, pose=UNPLUGGED) -> bool | str:
        # the host heeds the answer only when one of the named inputs is there, so a widget is among them
        return expression is not UNPLUGGED or pose is not UNPLUGGED or NOTHING

    @classmethod
    def execute(cls, filename_prefix, format, expression=None, pose=None) -> io.NodeOutput:
        path, saved = host.output_file(filename_prefix, f".{format}")
        save_motion(path, expression, pose)
        name = "/".join(part for part in (saved.subfolder, saved.filename) if part)
        return io.NodeOutput(name, ui={"text": (name,), "motion": [saved]})


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
            category=CATEGORY,
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
            raise FD2TalkError(NOTHING)
        return _with_curves(
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
            *(_amount(name, 1.0, -3.0, 3.0, 0.05, tooltip) for name, tooltip in parts.items()),
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
            *_angles(90),
            *_shifts(),
            io.Combo.Input(
                "coefficient",
                options=[NO_COEFFICIENT, *edit.ARKIT_NAMES],
                default=NO_COEFFICIENT,
                tooltip="A blendshape of the expression to be raised or lowered, such as mouthSmileLeft; "
                "chain nodes for several.",
            ),
            _amount("amount", 0.0, -1.0, 1.0, 0.05, "Added to the coefficient; 1 is the whole blendshape."),
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
            _amount(
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
            _amount("start", 0.0, 0.0, 3600.0, 0.1, "Seconds at which the stillness begins."),
            _amount("end", 0.0, 0.0, 3600.0, 0.1, "Seconds at which it ends; 0 is the clip's end."),
            io.Combo.Input(
                "at",
                options=["first", "mean", "rest"],
                default="first",
                tooltip="What is held: the first frame of the stillness, the clip's mean, or a straight "
                "head and neutral face.",
            ),
            _amount("amount", 1.0, 0.0, 1.0, 0.05, "1 is quite still, 0.5 moves half as much."),
            _amount("blend", 0.3, 0.0, 10.0, 0.05, "Seconds in which the stillness comes and goes."),
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
            _amount("fps", 0.0, 0.0, 120.0, 0.001, "New frame rate at the same speed; 0 keeps it."),
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
            _amount("start", 0.0, 0.0, 3600.0, 0.04, "Seconds at which the kept part begins."),
            _amount("end", 0.0, 0.0, 3600.0, 0.04, "Seconds at which it ends; 0 is the clip's end."),
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
        return [_amount("seconds", 10.0, 0.04, 3600.0, 0.1, "Length of the looped motion.")]

    @classmethod
    def edit(cls, sequence, seconds) -> CoefficientSequence:
        return edit.loop(sequence, frame_count(seconds, sequence.fps))


class FD2TalkSplice(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FD2TalkSplice",
            display_name="Splice Motion",
            category=CATEGORY,
            description="Puts one motion behind another, cross-faded. Connect two expressions, two poses "
            "or both.",
            inputs=[
                Expression.Input("first_expression", optional=True, tooltip="The face's motion that begins."),
                Expression.Input(
                    "second_expression", optional=True, tooltip="The face's motion that follows."
                ),
                Pose.Input("first_pose", optional=True, tooltip="The head's motion that begins."),
                Pose.Input("second_pose", optional=True, tooltip="The head's motion that follows."),
                _amount(
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
        return _with_curves(
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
            category=CATEGORY,
            description="The mouth of one performance, the brows and eyes of another.",
            inputs=[
                Expression.Input("first_expression", tooltip="Where everything comes from at 0."),
                Expression.Input(
                    "second_expression", tooltip="Where everything comes from at 1; as long as the first."
                ),
                _share("mouth", "Share of the second in lips, jaw and tongue."),
                _share("brows", "Share of the second in the eyebrows."),
                _share("eyes", "Share of the second in lids and gaze."),
                _share("cheeks", "Share of the second in cheeks and nose."),
            ],
            outputs=[
                Expression.Output("expression", display_name="expression", tooltip="The mixed expression.")
            ],
        )

    @classmethod
    def execute(cls, first_expression, second_expression, **shares) -> io.NodeOutput:
        return _with_curves(edit.mix(first_expression, second_expression, shares))


class FD2TalkMixPose(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FD2TalkMixPose",
            display_name="Mix Poses",
            category=CATEGORY,
            description="The nod of one head motion, the turn of another, or something between the two.",
            inputs=[
                Pose.Input("first_pose", tooltip="Where everything comes from at 0."),
                Pose.Input("second_pose", tooltip="Where everything comes from at 1; as long as the first."),
                _share("pitch", "Share of the second in nodding."),
                _share("yaw", "Share of the second in turning left and right."),
                _share("roll", "Share of the second in tilting."),
                _share("x", "Share of the second in moving left and right."),
                _share("y", "Share of the second in moving up and down."),
                _share("z", "Share of the second in coming nearer."),
            ],
            outputs=[Pose.Output("pose", display_name="pose", tooltip="The mixed pose.")],
        )

    @classmethod
    def execute(cls, first_pose, second_pose, **shares) -> io.NodeOutput:
        return _with_curves(edit.mix(first_pose, second_pose, shares))


class FD2TalkAddBlinks(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FD2TalkAddBlinks",
            display_name="Add Blinks",
            category=CATEGORY,
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
                _amount(
                    "per_minute",
                    17.0,
                    0.0,
                    60.0,
                    1.0,
                    "Natural blinks a minute on average; people: 10 to 20.",
                ),
                _amount("strength", 1.0, 0.0, 1.0, 0.05, "How far the lids close; 1 is shut."),
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
        return _with_curves(
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
            category=CATEGORY,
            description="Rests the eyes on one spot for the whole clip.",
            inputs=[
                Expression.Input("expression", tooltip="The face's motion whose eyes are turned."),
                _amount("yaw", 0.0, -14.5, 14.5, 0.5, "Degrees. Positive looks to the picture's right."),
                _amount("pitch", 0.0, -9.5, 11.0, 0.5, "Degrees. Positive looks down."),
            ],
            outputs=[
                Expression.Output(
                    "new_expression", display_name="expression", tooltip="With the steady gaze."
                )
            ],
        )

    @classmethod
    def execute(cls, expression, yaw, pitch) -> io.NodeOutput:
        return _with_curves(edit.look_at(expression, math.radians(yaw), math.radians(pitch)))


class FD2TalkConstantPose(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FD2TalkConstantPose",
            display_name="Constant Pose",
            category=CATEGORY,
            description="A head that does not move, looking where you set it.",
            inputs=[*_angles(90), *_shifts(), *_length_inputs()],
            outputs=[Pose.Output("pose", display_name="pose", tooltip="The same pose in every frame.")],
        )

    @classmethod
    def execute(cls, pitch, yaw, roll, x, y, z, seconds, fps, features=None) -> io.NodeOutput:
        angles = [math.radians(angle) for angle in (pitch, yaw, roll)]
        return _with_curves(edit.constant_pose(*_length(seconds, fps, features), angles, (x, y, z)))


class FD2TalkPoseCurve(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FD2TalkPoseCurve",
            display_name="Pose Curve",
            category=CATEGORY,
            description="Head motion drawn by hand in the node: a smooth curve through a few points.",
            inputs=[
                io.String.Input(
                    "keyframes",
                    default='{"yaw": [[0, 0], [1.5, 15], [3.5, -10], [5, 0]]}',
                    tooltip="The points that are drawn, as JSON: for pitch, yaw, roll (degrees), x, y, z "
                    "(1 is about 10 cm) a list of [seconds, value].",
                ),
                *_length_inputs(),
            ],
            outputs=[Pose.Output("pose", display_name="pose", tooltip="The head's motion.")],
        )

    @classmethod
    def validate_inputs(cls, keyframes=None) -> bool | str:
        return host.check(parse_keyframes, keyframes or "")

    @classmethod
    def execute(cls, keyframes, seconds, fps, features=None) -> io.NodeOutput:
        return _with_curves(pose_from_keyframes(parse_keyframes(keyframes), *_length(seconds, fps, features)))


class FD2TalkIdleMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FD2TalkIdleMotion",
            display_name="Idle Head Motion",
            category=CATEGORY,
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
                _amount("amount", 1.0, 0.0, 10.0, 0.1, "1 turns the head by about 2 degrees; 0 is still."),
                _amount("speed", 1.0, 0.0, 10.0, 0.1, "2 is twice as fast."),
                *_length_inputs(),
            ],
            outputs=[Pose.Output("pose", display_name="pose", tooltip="The head's motion.")],
        )

    @classmethod
    def execute(cls, seed, amount, speed, seconds, fps, features=None) -> io.NodeOutput:
        return _with_curves(edit.idle_motion(*_length(seconds, fps, features), seed, amount, speed))


NODES = [
    FD2TalkLoadCoefficients,
    FD2TalkSaveCoefficients,
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
    FD2TalkConstantPose,
    FD2TalkPoseCurve,
    FD2TalkIdleMotion,
]

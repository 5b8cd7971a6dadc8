"""Motion as files of the host's input and output folders."""

from __future__ import annotations

from comfy_api.v0_0_2 import io

from ..fd2talk_core.formats.sequences import READERS, WRITERS, load_motion, save_motion
from . import host
from .curves import with_curves
from .types import KINDS, NOTHING_CONNECTED, UNPLUGGED, Expression, Pose, advanced, schema
from .widgets import SEQUENCES, number


class FD2TalkLoadCoefficients(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FD2TalkLoadCoefficients",
            search_aliases=["ARKit", "Live Link Face", "face capture"],
            display_name="Load Motion",
            category=SEQUENCES,
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
                    number(
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
        return with_curves(*(host.value_or_block(motion.require, kind) for kind in KINDS))


class FD2TalkSaveCoefficients(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FD2TalkSaveCoefficients",
            display_name="Save Motion",
            category=SEQUENCES,
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
        return expression is not UNPLUGGED or pose is not UNPLUGGED or NOTHING_CONNECTED

    @classmethod
    def execute(cls, filename_prefix, format, expression=None, pose=None) -> io.NodeOutput:
        path, saved = host.output_file(filename_prefix, f".{format}")
        save_motion(path, expression, pose)
        name = host.place_of(saved)
        return io.NodeOutput(name, ui={"text": (name,), "motion": [saved]})


NODES = [FD2TalkLoadCoefficients, FD2TalkSaveCoefficients]

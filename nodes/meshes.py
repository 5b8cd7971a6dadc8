"""Motion as meshes, for the tools that animators use."""

from __future__ import annotations

from comfy_api.v0_0_2 import io

from ..fd2talk_core.checks import check_choice
from ..fd2talk_core.formats.defaults import MESH_FILES, VMC_PORT
from ..fd2talk_core.formats.gltf import write_glb
from ..fd2talk_core.formats.mesh_sequence import write_mesh_sequence
from ..fd2talk_core.formats.osc import stream_vmc
from . import host
from .types import NOTHING_CONNECTED, UNPLUGGED, Expression, File3D, Pose, schema
from .widgets import moving_mesh_inputs, smoothing_input

GLB = "glb"
SEQUENCES = {f"{files} sequence": files for files in MESH_FILES}


class FD2TalkSaveMesh(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FD2TalkSaveMesh",
            search_aliases=["GLB", "Blender", "head animation", "FaceTalk", "OBJ", "PLY", "blendshapes"],
            display_name="Save Moving Head",
            category="FD2Talk/motion",
            description="Writes the moving head as 3D files of any length: an animated GLB with a shape key "
            "by every ARKit name, or a PLY or OBJ file a frame.",
            is_output_node=True,
            inputs=[
                *moving_mesh_inputs(),
                io.String.Input(
                    "filename_prefix",
                    default="fd2talk/head",
                    tooltip="Name in the output folder, before a number; a folder may stand before it.",
                ),
                io.Combo.Input(
                    "format",
                    options=[GLB, *SEQUENCES],
                    default=GLB,
                    tooltip="glb: one animated file, about 2 MB and 0.4 MB a minute, for Blender, Unreal, "
                    "Unity and web pages. A sequence is a folder with a mesh file a frame, at 25 frames per "
                    "second some 330 MB (ply) or 960 MB (obj) a minute.",
                ),
                smoothing_input(),
            ],
            outputs=[
                io.String.Output(
                    "saved_as",
                    display_name="saved as",
                    tooltip="Where the file or folder is, in the output folder. A GLB's name can go into "
                    "Preview 3D & Animation.",
                ),
                File3D.Output(
                    "model_3d",
                    display_name="3D file",
                    tooltip="The GLB for other nodes, in hosts that have a type for 3D files.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, filename_prefix=None, expression=UNPLUGGED, pose=UNPLUGGED) -> bool | str:
        # the host heeds the answer only when one of the named inputs is there, so a widget is among them
        return expression is not UNPLUGGED or pose is not UNPLUGGED or NOTHING_CONNECTED

    @classmethod
    def execute(
        cls, filename_prefix, format, smoothing=0.0, expression=None, pose=None, reference=None
    ) -> io.NodeOutput:
        check_choice(format, "format", [GLB, *SEQUENCES])
        motion = (host.face_model(), expression, pose)
        worn = {"identity": None if reference is None else reference.identity, "smoothing": smoothing}
        if format == GLB:
            path, saved = host.output_file(filename_prefix, ".glb")
            write_glb(path, *motion, **worn)
            name, model = host.place_of(saved), host.model_from_file(path)
        else:
            path, name = host.output_folder(filename_prefix)
            write_mesh_sequence(path, *motion, **worn, files=SEQUENCES[format], callback=host.Progress())
            model = host.block("A mesh sequence is many files: choose the format glb for one 3D file.")
        return io.NodeOutput(name, model, ui={"text": (name,)})


class FD2TalkStreamMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FD2TalkStreamMotion",
            search_aliases=["VMC", "OSC", "VTuber", "VSeeFace", "Warudo", "VRM", "perfect sync"],
            display_name="Stream Motion (VMC)",
            category="FD2Talk/motion",
            description="Plays the motion in real time to VTuber software on this machine, over the VMC "
            "protocol: ARKit blendshapes and the head.",
            is_output_node=True,
            inputs=[
                Expression.Input("expression", optional=True, tooltip="The face's motion."),
                Pose.Input("pose", optional=True, tooltip="The head's motion."),
                io.Int.Input(
                    "port",
                    default=VMC_PORT,
                    min=1,
                    max=65535,
                    tooltip="On which the software listens for VMC.",
                ),
            ],
            outputs=[
                io.Int.Output(
                    "sent",
                    display_name="frames sent",
                    tooltip="How many frames were sent; a late one is left out.",
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, port=None, expression=UNPLUGGED, pose=UNPLUGGED) -> bool | str:
        return expression is not UNPLUGGED or pose is not UNPLUGGED or NOTHING_CONNECTED

    @classmethod
    def execute(cls, port, expression=None, pose=None) -> io.NodeOutput:
        # a graph comes from strangers, so nothing leaves this machine
        sent = stream_vmc(expression, pose, "127.0.0.1", port, callback=host.Progress())
        told = host.tell(f"{sent} of {(expression or pose).num_frames} frames were sent to port {port}.")
        return io.NodeOutput(sent, ui=told)


NODES = [FD2TalkSaveMesh, FD2TalkStreamMotion]

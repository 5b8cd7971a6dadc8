"""Coeff3DMMPreview: the motion on a bare mesh, before any picture is made."""

from __future__ import annotations

from comfy_api.v0_0_2 import io, ui

from ..fd2talk_core.formats import gltf
from ..fd2talk_core.formats.video import VideoWriter
from ..fd2talk_core.motion.preview import VIEWS, FirstFrames, preview_motion
from . import host
from .curves import curves_ui
from .types import schema
from .widgets import moving_mesh_inputs, smoothing_input

FRAMES_BYTES = 512 << 20
"""What the IMAGE output may hold: ten minutes at 256 px would be 11.8 GB."""


class Coeff3DMMPreview(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="Coeff3DMMPreview",
            search_aliases=["talking head", "face mesh", "GLB"],
            display_name="Preview Motion (3DMM)",
            category="FD2Talk/motion",
            description="Shows the expression and the pose on the face model, in seconds, with the sound "
            "and as curves, before any frame is denoised; on request as an animated GLB too.",
            is_output_node=True,
            inputs=[
                *moving_mesh_inputs(),
                io.Audio.Input("audio", optional=True, tooltip="The sound to be played with the preview."),
                io.Combo.Input(
                    "view",
                    options=list(VIEWS),
                    default="front",
                    tooltip="Where the camera stands. three-quarter shows how far lips and jaw come forward.",
                ),
                io.Int.Input(
                    "size", default=256, min=64, max=1024, step=32, tooltip="Side of the preview in pixels."
                ),
                io.Boolean.Input(
                    "write_glb",
                    default=False,
                    optional=True,
                    tooltip="Also write the moving head as a GLB file into the output folder, at each run.",
                ),
                smoothing_input(),
            ],
            outputs=[
                io.Image.Output(
                    "frames",
                    display_name="frames",
                    tooltip="The shaded mesh, one picture a frame; of a long clip the first ones, as many as "
                    "fit into 512 MB.",
                ),
                io.String.Output(
                    "model_file",
                    display_name="GLB",
                    tooltip="With write_glb: the moving head as an animated GLB in the output folder, with a "
                    "shape key by every ARKit name. For Preview 3D & Animation, or Blender.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        view,
        size,
        write_glb=False,
        smoothing=0.0,
        expression=None,
        pose=None,
        reference=None,
        audio=None,
    ) -> io.NodeOutput:
        face_model = host.face_model()
        identity = reference.identity if reference is not None else None
        preview = preview_motion(
            face_model,
            expression,
            pose,
            identity=identity,
            view=view,
            size=size,
            smoothing=smoothing,
            callback=host.Progress(),
        )
        path, saved = host.temp_file("fd2talk/preview", ".mp4")
        first = FirstFrames(preview.num_frames, FRAMES_BYTES)
        with VideoWriter(path, preview.fps, host.audio_of(audio) if audio else None) as writer:
            for chunk in preview.chunks:
                writer.write(chunk)
                first.add(chunk)
        shown = {**ui.PreviewVideo([saved]).as_dict(), **curves_ui(expression, pose)}
        if first.kept < preview.num_frames and host.is_taken(cls.hidden.prompt, slot=0):
            shown |= host.tell(
                f"frames holds the first {first.kept} of {preview.num_frames} pictures, as many as fit into "
                f"{FRAMES_BYTES >> 20} MB; the video holds them all. A smaller size gives more."
            ).as_dict()
        model_file = host.block("There is no GLB: switch on write_glb in Preview Motion (3DMM).")
        if write_glb:
            # older pages' 3D viewer reads from the output folder only
            glb, saved_glb = host.output_file("fd2talk/motion", ".glb")
            gltf.write_glb(glb, face_model, expression, pose, identity=identity, smoothing=smoothing)
            model_file = host.place_of(saved_glb)
        return io.NodeOutput(host.to_host(first.frames), model_file, ui=shown)


NODES = [Coeff3DMMPreview]

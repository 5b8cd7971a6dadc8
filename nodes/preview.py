"""Coeff3DMMPreview: the motion on a bare mesh, before any picture is made."""

from __future__ import annotations

import torch
from comfy_api.latest import io, ui

from ..fd2talk_core.formats.gltf import write_glb
from ..fd2talk_core.formats.video import VideoWriter
from ..fd2talk_core.motion.preview import VIEWS, preview_motion
from . import host
from .curves import curves_ui
from .types import Expression, PortraitReference, Pose


class Coeff3DMMPreview(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Coeff3DMMPreview",
            display_name="Preview Motion (3DMM)",
            category="FD2Talk/motion",
            description="Shows the expression and the pose on the face model, in seconds, with the sound "
            "and as curves, before any frame is denoised; writes them as an animated GLB too.",
            is_output_node=True,
            inputs=[
                Expression.Input(
                    "expression", optional=True, tooltip="The face's motion; without it the face rests."
                ),
                Pose.Input(
                    "pose", optional=True, tooltip="The head's motion; without it the head stays still."
                ),
                PortraitReference.Input(
                    "reference", optional=True, tooltip="A portrait whose face shape the mesh wears."
                ),
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
            ],
            outputs=[
                io.Image.Output(
                    "frames", display_name="frames", tooltip="The shaded mesh, one picture a frame."
                ),
                io.String.Output(
                    "model_file",
                    display_name="GLB",
                    tooltip="The moving head as an animated GLB in the output folder, with a shape key by "
                    "every ARKit name: for Preview 3D & Animation, or Blender.",
                ),
            ],
        )

    @classmethod
    def execute(cls, view, size, expression=None, pose=None, reference=None, audio=None) -> io.NodeOutput:
        face_model = host.face_model()
        identity = reference.identity if reference is not None else None
        preview = preview_motion(
            face_model,
            expression,
            pose,
            identity=identity,
            view=view,
            size=size,
            callback=host.Progress(),
        )
        path, saved = host.temp_file("fd2talk/preview", ".mp4")
        chunks = []
        with VideoWriter(path, preview.fps, host.audio_of(audio) if audio else None) as writer:
            for chunk in preview.chunks:
                writer.write(chunk)
                chunks.append(chunk)
        # the host's 3D viewer reads from the output folder only
        glb, saved_glb = host.output_file("fd2talk/motion", ".glb")
        write_glb(glb, face_model, expression, pose, identity=identity)
        shown = {**ui.PreviewVideo([saved]).as_dict(), **curves_ui(expression, pose)}
        return io.NodeOutput(
            host.to_host(torch.cat(chunks)), "/".join((saved_glb.subfolder, saved_glb.filename)), ui=shown
        )


NODES = [Coeff3DMMPreview]

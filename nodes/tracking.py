"""A driving video's expression and head motion."""

from __future__ import annotations

from comfy_api.v0_0_2 import io

from ..fd2talk_core.errors import FD2TalkError
from ..fd2talk_core.motion.tracking import (
    MISSING_POLICIES,
    SMOOTH_EXPRESSION,
    SMOOTH_POSE,
    follow_face,
    read_motion,
    track_from_landmarks,
)
from . import host
from .reference import chosen_box
from .types import Expression, FaceLandmarks, Pose, advanced, box_inputs, schema, socket_only


class FD2TalkCoefficientsFromVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FD2TalkCoefficientsFromVideo",
            search_aliases=["face capture", "motion capture", "driving video"],
            display_name="Read Motion from Video",
            category="FD2Talk/sequences",
            description="Reads the expression and the head's motion of a person in a driving video, frame "
            "by frame, for another portrait to follow.",
            inputs=[
                io.Video.Input(
                    "video",
                    optional=True,
                    tooltip="The driving video, from Load Video: read frame by frame, however long it is.",
                ),
                io.Image.Input(
                    "images", optional=True, tooltip="The driving video as pictures, in place of a video."
                ),
                socket_only(
                    FaceLandmarks.Input(
                        "landmarks",
                        optional=True,
                        tooltip="Faces that another node has found (newer ComfyUI: Detect Face Landmarks), "
                        "in place of a video.",
                    )
                ),
                io.Float.Input(
                    "fps",
                    default=25.0,
                    min=1.0,
                    max=120.0,
                    step=0.001,
                    tooltip="Frames a second of the pictures or landmarks. A video says its own.",
                ),
                io.Combo.Input(
                    "missing_faces",
                    options=list(MISSING_POLICIES),
                    default="error",
                    tooltip="Frames that show no face. error: stop and say which. hold: the motion before "
                    "stands still. interpolate: from the motion before to the motion after. The number of "
                    "frames stays the same.",
                ),
                io.Int.Input(
                    "face_index",
                    default=0,
                    min=0,
                    max=63,
                    tooltip="Which face, when there are several: 0 is the largest, 1 the next, in the first "
                    "frame that shows so many. It is followed from then on.",
                ),
                advanced(
                    io.Float.Input(
                        "smooth_head",
                        default=SMOOTH_POSE,
                        min=0.0,
                        max=2.0,
                        step=0.01,
                        optional=True,
                        tooltip="Seconds over which the head's jitter is taken out, without delay; 0 is as "
                        "read.",
                    )
                ),
                advanced(
                    io.Float.Input(
                        "smooth_face",
                        default=SMOOTH_EXPRESSION,
                        min=0.0,
                        max=2.0,
                        step=0.01,
                        optional=True,
                        tooltip="The same for the face; more than a few hundredths slurs lips and blinks.",
                    )
                ),
                *box_inputs(
                    "Which face, by a box in pixels of the first frame that shows a face there. "
                    "Empty: by index.",
                    "Which face, by a box from another node; it takes the place of the text above.",
                ),
            ],
            outputs=[
                Expression.Output(
                    "expression",
                    display_name="expression",
                    tooltip="The face's motion: ARKit's 52 blendshapes, one row a frame.",
                ),
                Pose.Output(
                    "pose",
                    display_name="pose",
                    tooltip="The head's turn and place, one row a frame; its usual place in the video is 0.",
                ),
                io.Int.Output(
                    "filled",
                    display_name="filled",
                    tooltip="How many frames showed no face and were filled.",
                ),
                io.Float.Output(
                    "rate", display_name="fps", tooltip="Frames a second of the motion, as of the video."
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        fps,
        missing_faces,
        face_index,
        smooth_head=SMOOTH_POSE,
        smooth_face=SMOOTH_EXPRESSION,
        face_box="",
        bounding_box=None,
        video=None,
        images=None,
        landmarks=None,
    ) -> io.NodeOutput:
        given = [source for source in (video, images, landmarks) if source is not None]
        if len(given) != 1:
            raise FD2TalkError(
                f"{len(given)} driving sources are connected, but exactly one is needed: a video, images, or "
                "landmarks."
            )
        which = {"face_index": face_index, "box": chosen_box(bounding_box, face_box, face_index)}
        if landmarks is not None:
            track = track_from_landmarks(landmarks, **which)
        else:
            frames, count, rate = host.frames_of(video) if video is not None else (images, len(images), fps)
            fps = rate
            track = follow_face(
                frames, host.face_landmarker(), num_frames=count, callback=host.Progress(), **which
            )
        motion = read_motion(
            track,
            fps,
            host.face_model(),
            missing=missing_faces,
            smooth_pose=smooth_head,
            smooth_expression=smooth_face,
            callback=host.Progress(),
        )
        return io.NodeOutput(
            motion.expression, motion.pose, len(motion.missing), motion.pose.fps, ui=host.tell(motion.report)
        )


NODES = [FD2TalkCoefficientsFromVideo]

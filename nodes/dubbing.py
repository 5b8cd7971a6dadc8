"""A filmed person says something else."""

from __future__ import annotations

from comfy_api.v0_0_2 import io

from ..fd2talk_core.audio.mixing import dubbed_sound
from ..fd2talk_core.errors import FD2TalkError
from ..fd2talk_core.formats.video import VideoWriter
from ..fd2talk_core.frames.footage import PictureFootage
from ..fd2talk_core.marks.clip import ClipMarks
from ..fd2talk_core.marks.defaults import CORNERS, LABEL_SIZE
from ..fd2talk_core.motion.defaults import LONGER_POLICIES, SHORTER_POLICIES
from ..fd2talk_core.motion.dubbing import dub_mouths
from ..fd2talk_core.motion.filming import film_face
from . import host
from .reference import chosen_box
from .types import Expression, box_inputs, label_inputs, schema


class FD2TalkDubVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FD2TalkDubVideo",
            search_aliases=["lip sync", "lipsync", "dubbing", "wav2lip", "translate video"],
            display_name="Dub Video",
            category="FD2Talk/frames",
            description="Gives a person in a video new words: the lower face is made anew, frame by frame, "
            "and all else stays as it was filmed.",
            inputs=[
                Expression.Input(
                    "expression",
                    tooltip="What the mouth does, from ExpDiT. It is brought to the video's frame rate; all "
                    "but the mouth stays as filmed.",
                ),
                io.Audio.Input(
                    "audio", tooltip="The new voice, from Load Audio: the sound of the video that is made."
                ),
                io.Video.Input(
                    "video",
                    optional=True,
                    tooltip="The video to dub, from Load Video: read a few frames at a time, however long.",
                ),
                io.Image.Input(
                    "images", optional=True, tooltip="The video as pictures, in place of a video."
                ),
                io.Float.Input(
                    "fps",
                    default=25.0,
                    min=1.0,
                    max=120.0,
                    step=0.001,
                    tooltip="Frames per second of the pictures. A video says its own.",
                ),
                io.Combo.Input(
                    "longer_speech",
                    options=list(LONGER_POLICIES),
                    default="loop",
                    tooltip="Speech longer than the video. loop: play the video there and back. hold: keep "
                    "its last frame. cut: end with the video. error: stop and say so.",
                ),
                io.Combo.Input(
                    "shorter_speech",
                    options=list(SHORTER_POLICIES),
                    default="cut",
                    tooltip="Speech shorter than the video. cut: end with the speech. rest: go on with shut "
                    "lips. error: stop and say so.",
                ),
                io.Float.Input(
                    "original_sound",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How loudly the video's own sound stays underneath: 0 not at all, 0.1 quietly.",
                ),
                io.Int.Input(
                    "face_index",
                    default=0,
                    min=0,
                    max=63,
                    tooltip="Who is dubbed, when there are several people: 0 is the largest face, 1 the "
                    "next. They are counted anew after each cut.",
                ),
                *box_inputs(
                    "Who is dubbed, by a box in pixels around the face at the start of each "
                    "shot. Empty: by index.",
                    "Who is dubbed, by a box from another node; it takes the place of the text above.",
                ),
                *label_inputs(),
            ],
            outputs=[
                io.Video.Output(
                    "dubbed",
                    display_name="video",
                    tooltip="The video in a file, with the new voice, for SaveVideo.",
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        expression,
        audio,
        fps,
        longer_speech,
        shorter_speech,
        original_sound,
        face_index,
        video=None,
        images=None,
        face_box="",
        bounding_box=None,
        label="",
        label_corner=CORNERS[0],
        label_size=LABEL_SIZE,
    ) -> io.NodeOutput:
        from ..fd2talk_core.frames.dubbing import iter_dubbed_frames

        if (video is None) == (images is None):
            raise FD2TalkError(
                f"{'No' if video is None else 'Two'} videos are connected, but one is needed: a video or "
                "images."
            )
        own_sound = None
        if images is not None:
            if original_sound:
                raise FD2TalkError("Pictures have no sound of their own: set original sound to 0.")
            footage, count = PictureFootage(images, fps), len(images)
        else:
            footage, count = host.footage_of(video)
            own_sound = host.sound_of(video) if original_sound else None
        film = film_face(
            footage.span(0),
            footage.fps,
            host.face_landmarker(),
            host.face_model(),
            face_index=face_index,
            box=chosen_box(bounding_box, face_box, face_index),
            num_frames=count,
            callback=host.Progress(),
        )
        mouths = dub_mouths(
            film,
            expression,
            host.face_model(),
            longer_speech=longer_speech,
            shorter_speech=shorter_speech,
        )
        sound = dubbed_sound(host.audio_of(audio), mouths.num_frames, footage.fps, own_sound, original_sound)
        path, _ = host.temp_file("fd2talk/video", ".mp4")
        marks = ClipMarks.of(
            mouths.expression, mouths.film.pose, footage.fps, label=(label, label_corner, label_size)
        )
        frames = iter_dubbed_frames(footage, mouths, host.face_model(), callback=host.Progress())
        with VideoWriter(path, footage.fps, sound, **marks.on_file()) as writer:
            for chunk in marks.add_to(frames):
                writer.write(chunk)
        return io.NodeOutput(host.video_from_file(path), ui=host.tell(mouths.report))


NODES = [FD2TalkDubVideo]

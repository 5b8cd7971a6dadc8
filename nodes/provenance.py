"""Whether a video bears the marks of generated video."""

from __future__ import annotations

from comfy_api.v0_0_2 import io

from ..fd2talk_core.errors import FD2TalkError
from . import host
from .types import schema


class FD2TalkVerify(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FD2TalkVerify",
            search_aliases=["watermark", "provenance", "deepfake", "AI-generated"],
            display_name="Verify Marks",
            category="FD2Talk/frames",
            description="Says whether a video was made with FD2Talk: looks for the invisible mark in its "
            "pixels and for the tags of its file.",
            is_output_node=True,
            inputs=[
                io.Video.Input(
                    "video",
                    optional=True,
                    tooltip="Any video, from Load Video; its file's tags are read too.",
                ),
                io.Image.Input(
                    "images",
                    optional=True,
                    tooltip="The pictures of one clip, in place of a video. The more, the surer.",
                ),
            ],
            outputs=[
                io.String.Output(
                    "report",
                    display_name="report",
                    tooltip="What was found, in words: mark, id, probability of a false alarm, tags.",
                ),
                io.Boolean.Output(
                    "marked",
                    display_name="marked",
                    tooltip="Whether the pixels bear the mark. Tags, which anyone can write, do not count.",
                ),
            ],
        )

    @classmethod
    def execute(cls, video=None, images=None) -> io.NodeOutput:
        if (video is None) == (images is None):
            raise FD2TalkError("Connect either a video or images to look for marks in.")
        from ..fd2talk_core.marks.report import Provenance

        if video is None:
            found = Provenance.of_frames(images, len(images), callback=host.Progress())
        else:
            frames, count, _ = host.frames_of(video)
            found = Provenance.of_frames(frames, count, host.tags_of(video), host.Progress())
        return io.NodeOutput(str(found), found.mark.found, ui=host.tell(str(found)))


NODES = [FD2TalkVerify]

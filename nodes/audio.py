"""LoadAudioWav2Vec: a recording becomes the features that the motion networks hear."""

from __future__ import annotations

from comfy_api.v0_0_2 import io

from ..fd2talk_core.errors import FD2TalkError
from . import host
from .checkpoints import CheckpointNode
from .types import UNPLUGGED, Features, schema


class LoadAudioWav2Vec(CheckpointNode):
    NETWORK = "audio_encoder"
    WIDGET = "encoder"

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="LoadAudioWav2Vec",
            search_aliases=["talking head", "lip sync", "speech", "voice"],
            display_name="Load Audio (wav2vec 2.0)",
            category="FD2Talk/audio",
            description="Hears a recording with wav2vec 2.0, so that expression and head motion can follow"
            " it.",
            inputs=[
                cls.checkpoint_input(
                    "The wav2vec 2.0 model that listens. It must be the one that the motion checkpoints were "
                    "trained with: 'tiny' goes with 'tiny'."
                ),
                io.Float.Input(
                    "fps",
                    default=25.0,
                    min=1.0,
                    max=120.0,
                    step=0.001,
                    tooltip="Frames a second of the video to be made. The clip will have "
                    "round(duration x fps) frames.",
                ),
                io.Combo.Input(
                    "audio_file",
                    options=host.list_input_files("audio", "video"),
                    optional=True,
                    upload=io.UploadType.audio,
                    tooltip="The recording, from the input folder or uploaded here. Any format, rate and "
                    "number of channels; a video's sound works too. Not used while 'recording' is "
                    "connected.",
                ),
                io.Audio.Input(
                    "recording",
                    optional=True,
                    tooltip="A recording from another node; it takes the place of the file.",
                ),
            ],
            outputs=[
                Features.Output(
                    "features",
                    display_name="features",
                    tooltip="What the recording says, for ExpDiT and PoseDiT; it carries the duration and "
                    "the fps.",
                ),
                io.Audio.Output(
                    "audio",
                    display_name="audio",
                    tooltip="The recording as it was, sample for sample, for Decode Video.",
                ),
                io.Float.Output(
                    "frame_rate",
                    display_name="frame rate",
                    tooltip="The fps above, to be wired into CreateVideo, so that sound and picture cannot"
                    " part.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, audio_file=None, recording=UNPLUGGED) -> bool | str:
        if recording is not UNPLUGGED or not audio_file:
            return True
        return host.check(host.input_file, audio_file)

    @classmethod
    def fingerprint_inputs(cls, audio_file=None, recording=UNPLUGGED, **inputs) -> str:
        plugged = recording is not UNPLUGGED or not audio_file
        heard = "" if plugged else host.fingerprint(host.input_file(audio_file))
        return heard + super().fingerprint_inputs(**inputs)

    @classmethod
    def execute(cls, encoder, fps, audio_file=None, recording=None) -> io.NodeOutput:
        if recording is None and not audio_file:
            raise FD2TalkError("No audio was given: choose or upload a file, or connect a recording.")
        audio = recording if recording is not None else host.load_audio(host.input_file(audio_file))
        network = host.load_network(cls.NETWORK, encoder)
        features = network.encode(*host.audio_of(audio), fps, callback=host.Progress())
        return io.NodeOutput(features, audio, fps)


NODES = [LoadAudioWav2Vec]

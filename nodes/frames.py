"""The sampler and the decoders: motion and a portrait become pictures (FD2Talk Sec. 3.3)."""

from __future__ import annotations

from comfy_api.latest import io

from ..fd2talk_core.errors import FD2TalkError
from ..fd2talk_core.formats.video import VideoWriter
from ..fd2talk_core.frames.defaults import DEFAULT_DETAIL
from ..fd2talk_core.timing import check_fps
from . import host
from .checkpoints import CheckpointNode
from .types import Expression, PortraitReference, Pose, advanced, schema

NOISE_MODES = {"shared": "shared", "per frame": "per_frame"}
FPS_KEY = "fd2talk_fps"
FIELD_KEY = "fd2talk_motion_field"
"""Beside ``samples`` in our LATENT: the frame rate of the motion, and what it moves where. Latents from
elsewhere need not have them."""


class FD2TalkUNetSampler(CheckpointNode):
    NETWORK = "unet"

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FD2TalkUNetSampler",
            search_aliases=[
                "talking head",
                "lip sync",
                "lipsync",
                "avatar",
                "talking portrait",
                "digital human",
            ],
            display_name="FD2Talk UNet Sampler",
            category="FD2Talk/frames",
            description="Denoises one latent a frame: the portrait, moved by the expression and the pose.",
            inputs=[
                PortraitReference.Input("reference", tooltip="The portrait, from Encode Reference Portrait."),
                Expression.Input(
                    "expression", tooltip="The face's motion: from ExpDiT, a file, or an edited sequence."
                ),
                Pose.Input("pose", tooltip="The head's motion, with as many frames as the expression."),
                cls.checkpoint_input(
                    "The UNet's weights: 'tiny' ships with the pack, others lie in models/fd2talk/unet."
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="The same seed gives the same frames, whatever the batch size.",
                ),
                io.Int.Input(
                    "steps",
                    default=0,
                    min=0,
                    max=1000,
                    tooltip="Denoising steps a frame. 2 suit 'tiny'; the paper takes 50.",
                ),
                io.Combo.Input(
                    "motion_mode",
                    options=["relative", "absolute"],
                    default="relative",
                    tooltip="relative: the clip starts where the portrait looks. absolute: the head takes "
                    "the pose as it is, as in the paper. The mouth is always absolute.",
                ),
                advanced(
                    io.Float.Input(
                        "eta",
                        default=0.0,
                        min=0.0,
                        max=1.0,
                        step=0.05,
                        tooltip="Fresh noise in every step: 0 is DDIM, 1 is DDPM.",
                    )
                ),
                advanced(
                    io.Combo.Input(
                        "noise_mode",
                        options=list(NOISE_MODES),
                        default="shared",
                        tooltip="shared: all frames start from one noise, so that nothing flickers. per "
                        "frame: each from its own, as in the paper.",
                    )
                ),
                advanced(
                    io.Int.Input(
                        "frames_per_batch",
                        default=0,
                        min=0,
                        max=1024,
                        tooltip="Frames denoised together; 0 chooses by the memory at hand. The result is "
                        "the same.",
                    )
                ),
            ],
            outputs=[
                io.Latent.Output(
                    "latents",
                    display_name="latents",
                    tooltip="One latent a frame, for Decode Frames; any LATENT node can work on them.",
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        reference,
        expression,
        pose,
        checkpoint,
        seed,
        steps,
        motion_mode="relative",
        eta=0.0,
        noise_mode="shared",
        frames_per_batch=0,
    ) -> io.NodeOutput:
        if noise_mode not in NOISE_MODES:
            raise FD2TalkError(f"noise_mode is {noise_mode!r}, but one of {list(NOISE_MODES)} is needed.")
        from ..fd2talk_core.frames.denoising import sample_latents
        from ..fd2talk_core.frames.portrait_motion import PortraitMotion

        unet = host.load_network(cls.NETWORK, checkpoint)
        motion = PortraitMotion.of(reference.face, expression, pose, motion_mode)
        latents = sample_latents(
            unet,
            reference,
            motion,
            seed=seed,
            steps=steps or None,
            eta=eta,
            noise_mode=NOISE_MODES[noise_mode],
            frames_per_batch=frames_per_batch or None,
            callback=host.Progress(reference),
        )
        made = {"samples": host.to_host(latents), FPS_KEY: pose.fps}
        if unet.takes_overlay:
            made[FIELD_KEY] = motion
        return io.NodeOutput(made)


def _field_of(samples: dict, reference):
    """What the sampler said moves; not where a LATENT node dropped it or changed the frames' number, nor for
    another portrait.
    """
    field = samples.get(FIELD_KEY)
    if field is None or field.num_frames != len(samples["samples"]) or field.portrait is not reference.face:
        return None
    return field


class _Decoder(CheckpointNode):
    """What the two decoding nodes share."""

    NETWORK = "autoencoder"
    WIDGET = "autoencoder"

    @classmethod
    def decoder_inputs(cls) -> list[io.Input]:
        return [
            io.Latent.Input("samples", tooltip="One latent a frame, from FD2Talk UNet Sampler."),
            PortraitReference.Input("reference", tooltip="The portrait that the latents were made with."),
            cls.checkpoint_input("The frame autoencoder, the same as in Encode Reference Portrait."),
            io.Boolean.Input(
                "paste_back",
                default=True,
                label_on="whole picture",
                label_off="crop",
                tooltip="Put the moving head back into the whole picture, or give the square crop.",
            ),
            advanced(
                io.Float.Input(
                    "detail",
                    default=DEFAULT_DETAIL,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How much fine detail, which the latents lose, is taken from the portrait and "
                    "moved along with the head; mouth and eyes are drawn anew as much. 0 shows the network's "
                    "frames.",
                )
            ),
        ]


class DecodeFrames(_Decoder):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="DecodeFrames",
            search_aliases=["talking head", "avatar"],
            display_name="Decode Frames",
            category="FD2Talk/frames",
            description="Turns latents into pictures, beside the portrait's own latent, and puts them back"
            " into the whole picture. For clips of many minutes use Decode Video.",
            inputs=[
                *cls.decoder_inputs(),
                io.Image.Input(
                    "background",
                    optional=True,
                    tooltip="Pictures to put the head into in place of the portrait's own: one, or one a "
                    "frame. For two people in one picture, the first one's frames.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    "frames",
                    display_name="frames",
                    tooltip="One picture a frame, for an upscaler, a face restorer or CreateVideo.",
                )
            ],
        )

    @classmethod
    def execute(
        cls, samples, reference, autoencoder, paste_back=True, detail=DEFAULT_DETAIL, background=None
    ) -> io.NodeOutput:
        from ..fd2talk_core.frames.decoding import decode_frames

        frames = decode_frames(
            host.load_network(cls.NETWORK, autoencoder),
            samples["samples"],
            reference,
            paste_back=paste_back,
            background=background,
            motion=_field_of(samples, reference),
            detail=detail,
            callback=host.Progress(),
        )
        return io.NodeOutput(host.to_host(frames))


class FD2TalkDecodeVideo(_Decoder):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FD2TalkDecodeVideo",
            search_aliases=["talking head", "lip sync", "avatar"],
            display_name="Decode Video",
            category="FD2Talk/frames",
            description="Turns latents into a video with all of its sound. Frames go to a file a few at a "
            "time, so memory does not grow with the clip.",
            inputs=[
                *cls.decoder_inputs(),
                io.Audio.Input(
                    "audio",
                    optional=True,
                    tooltip="The sound, from Load Audio, kept to its last sample; the video is silent "
                    "without it.",
                ),
                advanced(
                    io.Float.Input(
                        "fps",
                        default=0.0,
                        min=0.0,
                        max=120.0,
                        step=0.001,
                        optional=True,
                        tooltip="Frames a second; 0 takes the rate that the motion was made for.",
                    )
                ),
                io.Video.Input(
                    "background",
                    optional=True,
                    tooltip="A video to put the head into in place of the portrait's own picture, as long as "
                    "this one: for two people in one picture, the video of the first.",
                ),
            ],
            outputs=[
                io.Video.Output(
                    "video",
                    display_name="video",
                    tooltip="The video in a file, with its sound, for SaveVideo.",
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        samples,
        reference,
        autoencoder,
        paste_back=True,
        detail=DEFAULT_DETAIL,
        audio=None,
        fps=0.0,
        background=None,
    ) -> io.NodeOutput:
        rate = fps or samples.get(FPS_KEY)
        if not rate:
            raise FD2TalkError("These latents do not say their frame rate; set fps to that of the motion.")
        from ..fd2talk_core.frames.decoding import iter_decoded_frames

        check_fps(rate)
        behind = None if background is None else host.background_of(background, len(samples["samples"]), rate)
        path, _ = host.temp_file("fd2talk/video", ".mp4")
        with VideoWriter(path, rate, host.audio_of(audio) if audio else None) as writer:
            for chunk in iter_decoded_frames(
                host.load_network(cls.NETWORK, autoencoder),
                samples["samples"],
                reference,
                paste_back=paste_back,
                background=behind,
                motion=_field_of(samples, reference),
                detail=detail,
                callback=host.Progress(),
            ):
                writer.write(chunk)
        return io.NodeOutput(host.video_from_file(path))


NODES = [FD2TalkUNetSampler, DecodeFrames, FD2TalkDecodeVideo]

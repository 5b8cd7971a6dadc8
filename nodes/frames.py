"""The sampler and the decoders: motion and a portrait become pictures (FD2Talk Sec. 3.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from comfy_api.v0_0_2 import io, ui

from ..fd2talk_core.checks import check_choice, check_tensor, shown
from ..fd2talk_core.errors import FD2TalkError
from ..fd2talk_core.formats.video import VideoWriter
from ..fd2talk_core.frames.defaults import DEFAULT_DETAIL
from ..fd2talk_core.marks.clip import ClipMarks
from ..fd2talk_core.marks.defaults import CORNERS, LABEL_SIZE
from ..fd2talk_core.timing import check_fps
from . import host
from .checkpoints import CheckpointNode
from .types import Expression, Features, PortraitReference, Pose, advanced, label_inputs, schema

if TYPE_CHECKING:
    from ..fd2talk_core.frames.portrait_motion import PortraitMotion
    from ..fd2talk_core.frames.reference import Reference
    from ..fd2talk_core.motion.coefficients import CoefficientSequence, MotionMode

MOTION_MODES = ["relative", "absolute"]
NOISE_MODES = {"shared": "shared", "per frame": "per_frame"}
FPS_KEY = "fd2talk_fps"
MOTION_KEY = "fd2talk_motion"
"""Beside ``samples`` in our LATENT: the frame rate of the motion, and a :class:`CarriedMotion`. A LATENT that
was saved, or that another node made, need not have them; the decoders say then what is left out."""

LEFT_OUT = {
    (True, True): "Detail, close-ups and the head mask are",
    (True, False): "Detail and close-ups are",
    (False, True): "The head mask is",
}
"""What needs the motion, by whether there is detail and whether the crops are pasted back."""


class CarriedMotion(NamedTuple):
    """What a LATENT was made with, and whether its network's frames take the portrait's own detail."""

    motion: PortraitMotion
    reference: Reference
    overlay: bool


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
                    tooltip="Denoising steps a frame; 0 takes what the checkpoint recommends. The paper "
                    "takes 50.",
                ),
                io.Combo.Input(
                    "motion_mode",
                    options=MOTION_MODES,
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
                Features.Input(
                    "features",
                    optional=True,
                    tooltip="What the recording says, from Load Audio (wav2vec 2.0). Only a checkpoint that "
                    "makes the lips from the sound (DAWN) needs it; 'tiny' does not.",
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
        features=None,
    ) -> io.NodeOutput:
        check_choice(noise_mode, "noise_mode", NOISE_MODES)
        from ..fd2talk_core.frames.denoising import sample_latents
        from ..fd2talk_core.frames.portrait_motion import PortraitMotion

        unet = host.load_network(cls.NETWORK, checkpoint)
        motion = PortraitMotion.of(reference.face, expression, pose, motion_mode)
        latents = sample_latents(
            unet,
            reference,
            motion,
            heard=features.on_frames(motion.num_frames)
            if features and getattr(unet, "hears", False)
            else None,
            seed=seed,
            steps=steps or None,
            eta=eta,
            noise_mode=NOISE_MODES[noise_mode],
            frames_per_batch=frames_per_batch or None,
            callback=host.Progress(reference),
        )
        carried = CarriedMotion(motion, reference, unet.takes_overlay)
        return io.NodeOutput({"samples": host.to_host(latents), FPS_KEY: pose.fps, MOTION_KEY: carried})


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
                    tooltip="How far the portrait itself is shown, moved along with the head, where the "
                    "decoder finds that it may be; mouth and eyes are drawn anew as much. 0 shows what the "
                    "diffusion painted, everywhere.",
                )
            ),
        ]

    @classmethod
    def motion_inputs(cls) -> list[io.Input]:
        """The motion given again; behind all else, since saved graphs hold widgets by their place."""
        return [
            Expression.Input(
                "expression",
                optional=True,
                tooltip="The face's motion that the sampler had. Needed for a LATENT that does not carry it, "
                "such as one from a file.",
            ),
            Pose.Input("pose", optional=True, tooltip="The head's motion that the sampler had, likewise."),
            advanced(
                io.Combo.Input(
                    "motion_mode",
                    options=MOTION_MODES,
                    default="relative",
                    optional=True,
                    tooltip="As in the sampler; used only while expression and pose are connected.",
                )
            ),
        ]


def check_latent(samples: object) -> None:
    """Refuse what is no LATENT of plain pictures, such as one that another node made of several.

    Raises:
        FD2TalkError: saying what it is.
    """
    if not isinstance(samples, Mapping) or "samples" not in samples:
        raise FD2TalkError(f"The LATENT is {shown(samples)}, but a mapping with 'samples' is needed.")
    check_tensor(samples["samples"], "The LATENT")


def _motion_of(
    samples: dict,
    reference: Reference,
    expression: CoefficientSequence | None,
    pose: CoefficientSequence | None,
    motion_mode: MotionMode,
) -> tuple[PortraitMotion | None, str]:
    """What moves in a LATENT's frames, or None; and then why, and what to do.

    Motion that is connected is taken before what the sampler put into the LATENT.

    Raises:
        FD2TalkError: when only one of expression and pose is connected, or they are of another length.
    """
    check_latent(samples)
    num_frames = len(samples["samples"])
    if (expression is None) != (pose is None):
        given, lacking = ("pose", "expression") if expression is None else ("expression", "pose")
        raise FD2TalkError(f"Only the {given} is connected: connect the {lacking} too, or neither.")
    carried = samples.get(MOTION_KEY)
    if carried is not None and not carried.overlay:
        # these frames stand for themselves, whatever is connected: their checkpoint says so
        return None, ""
    if expression is not None:
        from ..fd2talk_core.frames.portrait_motion import PortraitMotion

        motion = PortraitMotion.of(reference.face, expression, pose, motion_mode)
        if motion.num_frames != num_frames:
            raise FD2TalkError(
                f"There are {num_frames} latents, but expression and pose have {motion.num_frames} frames: "
                "connect those that the sampler had."
            )
        return motion, ""
    if carried is None:
        return None, "this LATENT does not carry the motion; connect expression and pose to this node"
    if carried.motion.num_frames != num_frames:
        return None, (
            f"this LATENT and the motion that it carries differ in length, {num_frames} and "
            f"{carried.motion.num_frames} frames; connect expression and pose of these frames to this node"
        )
    if not carried.reference.same_portrait(reference):
        return None, "the portrait is not the one that the sampler had; connect that one to this node"
    return carried.motion, ""


def _left_out(reason: str, paste_back: bool, detail: float) -> ui.PreviewText | None:
    """Say on the node what its frames lack, and why; nothing where they lack nothing."""
    what = LEFT_OUT.get((bool(detail), paste_back))
    return host.tell(f"{what} left out: {reason}.") if reason and what else None


def _marks_of(
    samples: dict, reference: Reference, paste_back: bool, detail: float, label: tuple[str, str, float]
) -> ClipMarks:
    """The marks of a clip that is decoded."""
    return ClipMarks.of(samples["samples"], reference.picture, paste_back, detail, label=label)


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
                *cls.motion_inputs(),
                *label_inputs(),
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
        cls,
        samples,
        reference,
        autoencoder,
        paste_back=True,
        detail=DEFAULT_DETAIL,
        background=None,
        expression=None,
        pose=None,
        motion_mode="relative",
        label="",
        label_corner=CORNERS[0],
        label_size=LABEL_SIZE,
    ) -> io.NodeOutput:
        from ..fd2talk_core.frames.decoding import iter_decoded_frames

        motion, lacking = _motion_of(samples, reference, expression, pose, motion_mode)
        told = _left_out(lacking, paste_back, detail)
        marks = _marks_of(samples, reference, paste_back, detail, (label, label_corner, label_size))
        frames = iter_decoded_frames(
            host.load_network(cls.NETWORK, autoencoder),
            samples["samples"],
            reference,
            paste_back=paste_back,
            background=background,
            motion=motion,
            detail=detail,
            callback=host.Progress(),
        )
        return io.NodeOutput(host.to_host(marks.join(frames)), ui=told)


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
                *cls.motion_inputs(),
                *label_inputs(),
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
        expression=None,
        pose=None,
        motion_mode="relative",
        label="",
        label_corner=CORNERS[0],
        label_size=LABEL_SIZE,
    ) -> io.NodeOutput:
        motion, lacking = _motion_of(samples, reference, expression, pose, motion_mode)
        rate = fps or (samples.get(FPS_KEY) if pose is None else pose.fps)
        if not rate:
            raise FD2TalkError("These latents do not say their frame rate; set fps to that of the motion.")
        told = _left_out(lacking, paste_back, detail)
        from ..fd2talk_core.frames.decoding import iter_decoded_frames

        check_fps(rate)
        marks = _marks_of(samples, reference, paste_back, detail, (label, label_corner, label_size))
        behind = None if background is None else host.background_of(background, len(samples["samples"]), rate)
        path, _ = host.temp_file("fd2talk/video", ".mp4")
        frames = iter_decoded_frames(
            host.load_network(cls.NETWORK, autoencoder),
            samples["samples"],
            reference,
            paste_back=paste_back,
            background=behind,
            motion=motion,
            detail=detail,
            callback=host.Progress(),
        )
        sound = host.audio_of(audio) if audio else None
        with VideoWriter(path, rate, sound, **marks.on_file()) as writer:
            for chunk in marks.add_to(frames):
                writer.write(chunk)
        return io.NodeOutput(host.video_from_file(path), ui=told)


NODES = [FD2TalkUNetSampler, DecodeFrames, FD2TalkDecodeVideo]

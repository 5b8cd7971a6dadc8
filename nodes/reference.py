"""EncodeReference: the portrait that is to speak."""

from __future__ import annotations

from comfy_api.latest import io

from ..fd2talk_core.errors import FD2TalkError
from ..fd2talk_core.reference import encode_reference
from . import host
from .types import BoundingBox, PortraitReference, advanced

NO_FACE = {"error": "error", "use whole image": "whole_image"}


def read_box(text: str) -> tuple[float, float, float, float] | None:
    """``"left, top, right, bottom"`` in pixels; an empty text is no box.

    Raises:
        FD2TalkError: when it is anything else.
    """
    if not text.strip():
        return None
    try:
        left, top, right, bottom = (float(part) for part in text.replace(",", " ").split())
    except ValueError:
        raise FD2TalkError(
            f"The face box is {text!r}, but four numbers are needed: left, top, right, bottom in pixels."
        ) from None
    return left, top, right, bottom


def box_of(box: dict) -> tuple[float, float, float, float]:
    """The host's BOUNDING_BOX as left, top, right, bottom."""
    return box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]


class EncodeReference(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EncodeReference",
            display_name="Encode Reference Portrait",
            category="FD2Talk/portrait",
            description="Finds the face in a portrait, crops it, fits the face model to it and encodes it.",
            inputs=[
                io.Image.Input(
                    "image", tooltip="The portrait. The face should be seen from the front, over 64 px."
                ),
                io.Combo.Input(
                    "autoencoder",
                    options=host.list_checkpoints("autoencoder"),
                    tooltip="The frame autoencoder. Use the same one in Decode Frames, and the UNet "
                    "trained with it.",
                ),
                io.Int.Input(
                    "face_index",
                    default=0,
                    min=0,
                    max=63,
                    tooltip="Which face, when there are several: 0 is the largest, 1 the next.",
                ),
                io.Float.Input(
                    "margin",
                    default=1.0,
                    min=0.5,
                    max=4.0,
                    step=0.05,
                    tooltip="Room around the head in the crop: 1 is what the networks were trained on.",
                ),
                io.Combo.Input(
                    "no_face",
                    options=list(NO_FACE),
                    default="error",
                    tooltip="When no face is found: stop and say so, or take the whole image as the face's"
                    " crop.",
                ),
                advanced(
                    io.String.Input(
                        "face_box",
                        default="",
                        placeholder="left, top, right, bottom",
                        optional=True,
                        tooltip="Which face, by a box in pixels: left, top, right, bottom. Empty: by index.",
                    )
                ),
                BoundingBox.Input(
                    "bounding_box",
                    optional=True,
                    tooltip="Which face, by a box from another node; it takes the place of the text above.",
                ),
            ],
            outputs=[
                PortraitReference.Output(
                    "reference",
                    display_name="reference",
                    tooltip="The portrait for the sampler: its latent, identity, expression, pose, and "
                    "where it lies in the picture.",
                ),
                io.Image.Output(
                    "crop", display_name="crop", tooltip="The square crop that the networks see, to check it."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, autoencoder) -> bool | str:
        return host.check_checkpoint("autoencoder", autoencoder)

    @classmethod
    def fingerprint_inputs(cls, autoencoder, **_) -> str:
        return host.fingerprint_checkpoint("autoencoder", autoencoder)

    @classmethod
    def execute(
        cls, image, autoencoder, face_index, margin, no_face, face_box="", bounding_box=None
    ) -> io.NodeOutput:
        if no_face not in NO_FACE:
            raise FD2TalkError(f"no_face is {no_face!r}, but one of {list(NO_FACE)} is needed.")
        reference = encode_reference(
            host.one_image(image),
            host.load_network("autoencoder", autoencoder),
            host.face_landmarker(),
            host.face_model(),
            face_index=face_index,
            box=box_of(bounding_box) if bounding_box else read_box(face_box),
            margin=margin,
            no_face=NO_FACE[no_face],
        )
        return io.NodeOutput(reference, host.to_host(reference.crop[None]))


NODES = [EncodeReference]

"""EncodeReference: the portrait that is to speak."""

from __future__ import annotations

import math
import reprlib
from typing import Any

from comfy_api.v0_0_2 import io

from ..fd2talk_core.checks import check_choice, check_type, check_whole
from ..fd2talk_core.errors import FD2TalkError
from ..fd2talk_core.face.landmarks import FACE_ORDERS
from ..fd2talk_core.frames.reference import encode_reference
from . import host
from .checkpoints import CheckpointNode
from .types import PortraitReference, advanced, box_inputs, schema

NO_FACE = {"error": "error", "use whole image": "whole_image"}
ORDERS = {words: order for order, words in FACE_ORDERS.items()}


def read_box(text: str) -> tuple[float, float, float, float] | None:
    """``"left, top, right, bottom"`` in pixels; an empty text is no box.

    Raises:
        FD2TalkError: when it is anything else.
    """
    if not check_type(text, "The face box", str).strip():
        return None
    try:
        left, top, right, bottom = (float(part) for part in text.replace(",", " ").split())
    except ValueError:
        raise FD2TalkError(
            f"The face box is {text!r}, but four numbers are needed: left, top, right, bottom in pixels."
        ) from None
    return left, top, right, bottom


def box_of(box: Any, face_index: int = 0) -> tuple[float, float, float, float]:
    """The host's BOUNDING_BOX as left, top, right, bottom.

    Args:
        box: one box, a list of boxes, or a list of such lists, one a picture (the first that has any counts).
        face_index: which of a list.

    Raises:
        FD2TalkError: when there is no such box, or what came is none.
    """
    if not isinstance(box, list):
        return _corners(box)
    if box and isinstance(box[0], list):
        box = next((boxes for boxes in box if boxes), [])
    if not box:
        raise FD2TalkError("The bounding box input holds no boxes: no face was found there.")
    if check_whole(face_index, "face_index", 0) >= len(box):
        raise FD2TalkError(
            f"Face {face_index} was asked for, but the bounding box input holds {len(box)} "
            f"(0 to {len(box) - 1})."
        )
    return _corners(box[face_index])


def _corners(box: Any) -> tuple[float, float, float, float]:
    """One box as left, top, right, bottom in pixels."""
    try:
        x, y, width, height = (float(box[side]) for side in ("x", "y", "width", "height"))
    except (KeyError, TypeError, ValueError):
        x = y = width = height = math.nan
    if not math.isfinite(x + y + width + height):
        raise FD2TalkError(
            f"The bounding box input holds {reprlib.repr(box)}, but x, y, width and height in pixels are "
            "needed: connect a node that gives a bounding box."
        )
    return x, y, x + width, y + height


def chosen_box(bounding_box: Any, face_box: str, face_index: int) -> tuple[float, float, float, float] | None:
    """The box of the socket, else that of the text, else None."""
    return read_box(face_box) if bounding_box is None else box_of(bounding_box, face_index)


class EncodeReference(CheckpointNode):
    NETWORK = "autoencoder"
    WIDGET = "autoencoder"

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EncodeReference",
            search_aliases=["talking head", "avatar", "portrait"],
            display_name="Encode Reference Portrait",
            category="FD2Talk/portrait",
            description="Finds the face in a portrait, crops it, fits the face model to it and encodes it.",
            inputs=[
                io.Image.Input(
                    "image", tooltip="The portrait. The face should be seen from the front, over 64 px."
                ),
                cls.checkpoint_input(
                    "The frame autoencoder. Use the same one in Decode Frames, and the UNet trained with it."
                ),
                io.Int.Input(
                    "face_index",
                    default=0,
                    min=0,
                    max=63,
                    tooltip="Which face, when there are several: 0 is the largest, 1 the next, or as "
                    "face_order counts them.",
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
                *box_inputs(
                    "Which face, by a box in pixels: left, top, right, bottom. Empty: by index.",
                    "Which face, by a box from another node; it takes the place of the text "
                    "above. Of several boxes, face_index says which.",
                ),
                io.Mask.Input(
                    "face_mask",
                    optional=True,
                    tooltip="Which face, by painting over it: the mask of the portrait, in its size.",
                ),
                advanced(
                    io.Combo.Input(
                        "face_order",
                        options=list(ORDERS),
                        default="largest first",
                        optional=True,
                        tooltip="How face_index counts the faces.",
                    )
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
    def execute(
        cls,
        image,
        autoencoder,
        face_index,
        margin,
        no_face,
        face_box="",
        bounding_box=None,
        face_mask=None,
        face_order="largest first",
    ) -> io.NodeOutput:
        check_choice(no_face, "no_face", NO_FACE)
        check_choice(face_order, "face_order", ORDERS)
        reference = encode_reference(
            host.one_image(image),
            host.load_network(cls.NETWORK, autoencoder),
            host.face_landmarker(),
            host.face_model(),
            face_index=face_index,
            face_order=ORDERS[face_order],
            box=chosen_box(bounding_box, face_box, face_index),
            mask=face_mask,
            margin=margin,
            no_face=NO_FACE[no_face],
            callback=host.Progress(),
        )
        return io.NodeOutput(reference, host.to_host(reference.crop[None]))


NODES = [EncodeReference]

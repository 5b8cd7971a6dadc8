"""The sockets of our own; every other one is the host's. What travels in them are the core's dataclasses."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from comfy_api.v0_0_2 import io

from ..fd2talk_core.audio.features import AudioFeatures
from ..fd2talk_core.checks import check_type
from ..fd2talk_core.frames.reference import Reference
from ..fd2talk_core.marks.defaults import CORNERS, LABEL_SIZE, LARGEST_LABEL
from ..fd2talk_core.motion.coefficients import CoefficientSequence

Features = io.Custom("FD2TALK_AUDIO")
"""An :class:`~fd2talk_core.audio.features.AudioFeatures`."""
Expression = io.Custom("FD2TALK_EXPRESSION")
"""A :class:`~fd2talk_core.motion.coefficients.CoefficientSequence` of kind expression."""
Pose = io.Custom("FD2TALK_POSE")
"""A :class:`~fd2talk_core.motion.coefficients.CoefficientSequence` of kind pose."""
PortraitReference = io.Custom("FD2TALK_REFERENCE")
"""A :class:`~fd2talk_core.frames.reference.Reference`."""
BoundingBox = io.Custom("BOUNDING_BOX")
"""Newer hosts' ``{"x", "y", "width", "height"}`` in pixels, or lists of them, one list a picture; named here
so that older hosts load too. To be wrapped in :func:`socket_only`, as every type that a host may own."""
FaceLandmarks = io.Custom("FACE_LANDMARKS")
"""Newer hosts' ``{"frames": [[face, ...], ...], ...}``, MediaPipe's landmarks and scores of every face."""
Curve = io.Custom("CURVE")
"""Newer hosts' curve over 0..1, as their curve editor draws it. To be wrapped in :func:`socket_only`."""
File3D = io.Custom("FILE_3D")
"""Newer hosts' file of a 3D model; named here so that older hosts load too."""

KINDS = ("expression", "pose")
"""Inputs and outputs of the nodes that work on both kinds of motion, in this order."""
UNPLUGGED = object()
"""What ``validate_inputs`` is given for a socket without a link: its parameter's default."""
NOTHING_CONNECTED = "Nothing to work on: connect an expression, a pose or both."


SOCKETS = {
    "FD2TALK_AUDIO": AudioFeatures,
    "FD2TALK_EXPRESSION": CoefficientSequence,
    "FD2TALK_POSE": CoefficientSequence,
    "FD2TALK_REFERENCE": Reference,
}
"""What travels in the sockets of our own."""


def hold_sockets(node: type[io.ComfyNode]) -> type[io.ComfyNode]:
    """Let a node refuse what is no motion, portrait or voice: a prompt over the wire may hold any value in
    the place of a link, and the host looks at those of its own types alone.
    """
    execute, held = node.execute.__func__, {}

    @functools.wraps(execute)
    def checked_execute(cls, *arguments, **inputs) -> io.NodeOutput:
        if not held:
            sockets = {given.id: SOCKETS.get(given.get_io_type()) for given in cls.define_schema().inputs}
            held.update({name: kind for name, kind in sockets.items() if kind is not None})
        for name, kind in held.items():
            if inputs.get(name) is not None:
                check_type(inputs[name], name, kind)
        return execute(cls, *arguments, **inputs)

    if not hasattr(execute, "__wrapped__"):
        node.execute = classmethod(checked_execute)
    return node


def schema(*, search_aliases: list[str], **fields: Any) -> io.Schema:
    """A node's schema, with further words for the page's search where the host has a field for them."""
    if "search_aliases" in {field.name for field in dataclasses.fields(io.Schema)}:
        fields["search_aliases"] = search_aliases
    return io.Schema(**fields)


def socket_only(given: io.Input) -> io.Input:
    """An input that stays a socket in every page.

    A page makes a widget of every type that it knows an editor for, BOUNDING_BOX since frontend 1.39.4; a new
    widget would shift the stored values of all that stand behind it. Types of our own need no such care, nor
    do IMAGE, MASK, AUDIO, VIDEO and LATENT, which the host's own nodes hold as sockets.
    """
    given.extra_dict = {**given.extra_dict, "forceInput": True}
    return given


def advanced(widget: io.WidgetInput) -> io.WidgetInput:
    """A widget that the page folds away; older hosts have no argument for it, so it is set beside them."""
    widget.extra_dict = {**widget.extra_dict, "advanced": True}
    return widget


def box_inputs(by_text: str, by_socket: str) -> list[io.Input]:
    """Which face, by a box: typed, or from another node.

    Args:
        by_text, by_socket: their tooltips.
    """
    return [
        advanced(
            io.String.Input(
                "face_box",
                default="",
                placeholder="left, top, right, bottom",
                optional=True,
                tooltip=by_text,
            )
        ),
        socket_only(BoundingBox.Input("bounding_box", optional=True, tooltip=by_socket)),
    ]


def label_inputs() -> list[io.Input]:
    """The widgets of the visible label. They come last: those of saved workflows count by their place."""
    return [
        io.String.Input(
            "label",
            default="",
            optional=True,
            tooltip="A line of text to be seen in every frame, such as: AI-generated. None when empty. "
            "The invisible mark does not depend on it.",
        ),
        advanced(
            io.Combo.Input(
                "label_corner",
                options=list(CORNERS),
                default=CORNERS[0],
                optional=True,
                tooltip="Where the label stands.",
            )
        ),
        advanced(
            io.Float.Input(
                "label_size",
                default=LABEL_SIZE,
                min=0.01,
                max=LARGEST_LABEL,
                step=0.005,
                optional=True,
                tooltip="Height of the label's letters as a share of the picture's shorter side.",
            )
        ),
    ]

"""Widgets that several nodes of motion share."""

from __future__ import annotations

from comfy_api.v0_0_2 import io

from .types import Expression, PortraitReference, Pose, advanced

SEQUENCES = "FD2Talk/sequences"
"""The menu's folder of the nodes that work on sequences of coefficients."""


def number(name: str, default: float, low: float, high: float, step: float, tooltip: str) -> io.Float.Input:
    return io.Float.Input(name, default=default, min=low, max=high, step=step, tooltip=tooltip)


def degrees(name: str, limit: float, tooltip: str) -> io.Float.Input:
    return number(name, 0.0, -limit, limit, 0.5, tooltip)


def units(name: str, tooltip: str) -> io.Float.Input:
    return number(name, 0.0, -5.0, 5.0, 0.01, tooltip)


def share(name: str, tooltip: str) -> io.Float.Input:
    return number(name, 0.0, 0.0, 1.0, 0.05, tooltip)


def angle_widgets(limit: float) -> list[io.Input]:
    return [
        degrees("pitch", limit, "Degrees. Positive looks down."),
        degrees("yaw", limit, "Degrees. Positive turns the face to the picture's right."),
        degrees("roll", limit, "Degrees. Positive tilts the crown to the picture's left."),
    ]


def shift_widgets() -> list[io.Input]:
    return [
        units("x", "To the picture's right; 1 is about 10 cm of a head."),
        units("y", "Up; 1 is about 10 cm of a head."),
        units("z", "Towards the viewer; 1 is about 10 cm of a head."),
    ]


def moving_mesh_inputs() -> list[io.Input]:
    """What moves a mesh, and whose shape it has; of the nodes that show or write meshes."""
    return [
        Expression.Input(
            "expression", optional=True, tooltip="The face's motion; without it the face rests."
        ),
        Pose.Input("pose", optional=True, tooltip="The head's motion; without it the head stays still."),
        PortraitReference.Input(
            "reference", optional=True, tooltip="A portrait whose face shape the mesh wears."
        ),
    ]


def smoothing_input() -> io.Input:
    """Of the same nodes."""
    return advanced(
        io.Float.Input(
            "smoothing",
            default=0.0,
            min=0.0,
            max=1.0,
            step=0.05,
            optional=True,
            tooltip="How much less cheeks, chin and neck move than the lips; eyes stay as they are; 0: off.",
        )
    )

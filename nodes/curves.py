"""What a node tells the page of motion, which web/js/curves.js draws in it."""

from __future__ import annotations

from typing import Any

from comfy_api.v0_0_2 import io

from ..fd2talk_core.motion.coefficients import CoefficientSequence
from ..fd2talk_core.motion.curves import describe, motion_curves
from . import host

CURVES = "fd2talk_curves"
"""Key in a node's ui output: a list of clips, as :func:`~fd2talk_core.motion.curves.describe` makes them."""


def with_curves(*values: Any) -> io.NodeOutput:
    """A node's outputs, and their curves for the page to draw in the node."""
    return io.NodeOutput(*values, ui=curves_ui(*values))


def curves_ui(*values: Any) -> dict[str, list[dict]]:
    """The curves of the sequences among a node's outputs; what is blocked has none.

    An expression and a pose of one length and rate are one clip, else each is a clip of its own.
    """
    sequences = [value for value in values if isinstance(value, CoefficientSequence)]
    by_kind = {sequence.kind: sequence for sequence in sequences}
    if len({(sequence.num_frames, sequence.fps) for sequence in sequences}) <= 1:
        clips = [by_kind]
    else:
        clips = [{kind: sequence} for kind, sequence in by_kind.items()]
    return {CURVES: [_clip(clip.get("expression"), clip.get("pose")) for clip in clips if clip]}


def _clip(expression: CoefficientSequence | None, pose: CoefficientSequence | None) -> dict:
    motion = expression or pose
    curves = motion_curves(expression, pose, host.face_model())
    return describe(curves, motion.num_frames, motion.fps)

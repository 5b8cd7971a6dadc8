"""Sizes of the networks: ``tiny`` runs on a laptop's processor, ``base`` has the paper's sizes."""

from __future__ import annotations

import inspect
import json
from importlib import import_module
from pathlib import Path

import torch
from torch import nn

from ..checks import shown
from ..errors import FD2TalkError
from ..files import reason_of, shown_path
from ..networks.checkpoint import load_checkpoint, read_header

_CLASSES = {
    "audio_encoder": ("audio.encoder", "AudioEncoder"),
    "expression": ("networks.motion_transformer", "MotionTransformer"),
    "pose": ("networks.motion_transformer", "MotionTransformer"),
    "lip_expert": ("networks.lip_expert", "LipExpert"),
    "autoencoder": ("networks.autoencoder", "FrameAutoencoder"),
    "unet": ("networks.unet", "FrameUNet"),
}
_ALTERNATIVES = {
    "pose": ("networks.pose_blink", "PoseBlinkNetwork"),
    "unet": ("networks.latent_flow", "LatentFlowUNet"),
}
"""Of another class, which does the same work."""


def network_class(network: str) -> type[nn.Module]:
    """The class that a network of this name has."""
    if network not in _CLASSES:
        raise FD2TalkError(f"There is no network {network!r}; there are: {', '.join(_CLASSES)}.")
    module, name = _CLASSES[network]
    return getattr(import_module(f"..{module}", __name__), name)


def load_network(network: str, path: Path | str, face_model: str | None = None) -> nn.Module:
    """A network of this name from its file, see :func:`~fd2talk_core.networks.checkpoint.load_checkpoint`.

    The pose may be a :class:`~fd2talk_core.networks.pose_blink.PoseBlinkNetwork` as well, and the UNet a
    :class:`~fd2talk_core.networks.latent_flow.LatentFlowUNet`: what DAWN has in their places.

    Raises:
        FD2TalkError: also for a motion transformer that predicts something else: expression and pose are of
            one class.
    """
    wanted = network_class(network)
    if network in _ALTERNATIVES and read_header(path)[0] == _ALTERNATIVES[network][1]:
        module, name = _ALTERNATIVES[network]
        wanted = getattr(import_module(f"..{module}", __name__), name)
    loaded = load_checkpoint(path, wanted, face_model)
    kind = loaded.config.kind if network in ("expression", "pose") else network
    if kind not in (network, "joint"):
        raise FD2TalkError(
            f"{shown_path(Path(path).name)} predicts the {kind}: choose one that predicts the {network}."
        )
    return loaded


def load_config(network: str, size: str) -> dict:
    """Constructor arguments of a network at a size."""
    path = Path(__file__).parent / f"{size}.json"
    if not path.exists():
        sizes = ", ".join(sorted(file.stem for file in path.parent.glob("*.json")))
        raise FD2TalkError(f"There is no configuration {size!r}; there are: {sizes}.")
    return json.loads(path.read_text(encoding="utf-8"))[network]


def build(network: str, size: str, seed: int = 0, **changes: object) -> nn.Module:
    """An untrained network initialised from a seed; the global random state is left as it was.

    Args:
        network: ``audio_encoder``, ``expression``, ``pose``, ``lip_expert``, ``autoencoder`` or ``unet``.
        size: ``tiny`` or ``base``.
        changes: constructor arguments that replace the configuration's.

    Raises:
        FD2TalkError: when there is no such network, or its arguments build none.
    """
    config = {**load_config(network, size), **changes}
    known = inspect.signature(network_class(network).__init__).parameters
    unknown = [name for name in changes if name not in known]
    if unknown:
        raise FD2TalkError(f"The network {network!r} cannot be built: it has no {shown(unknown[0])}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            built = network_class(network).from_config(config)
        except Exception as error:  # what a file of settings says reaches every line of a constructor
            raise FD2TalkError(
                f"The network {network!r} cannot be built from its configuration ({reason_of(error)})."
            ) from error
    return built.train(False)

"""Checkpoint files: one safetensors file a network, which says itself what it is.

The header's metadata holds the network's class, its constructor arguments as JSON, and a
:class:`CheckpointInfo`.
Nothing in a file is executed: safetensors holds numbers, and the class is compared with the one asked for.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from ..checks import check_fields, check_number, check_whole
from ..errors import FD2TalkError
from ..files import check_input, check_path, reason_of, replacing, shown_path
from .building import Shapes, check_weights, outline_of, state_shapes

FORMAT_VERSION = "1"
SHIPPED = Path(__file__).parent.parent / "weights"
NETWORKS = ("audio_encoder", "expression", "pose", "lip_expert", "autoencoder", "unet")
"""Folder names under ``models/fd2talk/`` and file names of the set that ships."""

DEFAULT_RESOLUTION = 256
"""Side in pixels of the crops for a network that names none, such as one built from a seed."""
LARGEST_RESOLUTION = 2048
"""Side in pixels of a crop: a decoder needs some 3 GB for it."""

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class CheckpointInfo:
    """What a file says of its network beside the weights.

    Attributes:
        face_model: the face model whose coefficients it speaks, or empty.
        native_fps: frame rate it was trained at, 0 where time plays no part.
        resolution: pixels of the square crop, 0 where pictures play no part.
        steps: recommended number of sampling steps, 0 where it does not sample.
        overlay: whether decoders mix the portrait itself into the frames of a UNet; None where nothing
            was stated, see :attr:`fd2talk_core.networks.unet.FrameUNet.takes_overlay`.
        licence: SPDX name.
        trained_on: data, seed, steps, hours and machine, in words; ``"nothing"`` for weights from a seed.

    Raises:
        FD2TalkError: when a value is of another type, or out of range.
    """

    face_model: str = ""
    native_fps: float = 0.0
    resolution: int = 0
    steps: int = 0
    overlay: bool | None = None
    licence: str = "Apache-2.0"
    trained_on: str = "nothing"

    def __post_init__(self) -> None:
        check_fields(self)
        check_number(self.native_fps, "native_fps", 0, 1000)
        check_whole(self.resolution, "resolution", 0, LARGEST_RESOLUTION)
        check_whole(self.steps, "steps", 0, 1000)


def save_checkpoint(
    network: nn.Module, path: Path | str, info: CheckpointInfo, dtype: torch.dtype | None = torch.float16
) -> None:
    """Write a network with its configuration; floating-point weights are stored as ``dtype``.

    The file appears whole or not at all, so a run killed while saving leaves the one before it.

    Args:
        network: has a ``config`` that can rebuild it (diffusers' ConfigMixin, or a mapping).
        dtype: storage type, or None to keep each tensor's own.
    """
    tensors = {
        name: (value.to(dtype) if dtype and value.is_floating_point() else value).detach().cpu().contiguous()
        for name, value in network.state_dict().items()
    }
    config = {key: value for key, value in dict(network.config).items() if not key.startswith("_")}
    metadata = {
        "format": FORMAT_VERSION,
        "class": type(network).__name__,
        "config": json.dumps(config, sort_keys=True),
        "info": json.dumps(asdict(info), sort_keys=True),
    }
    with replacing(path) as partial:
        save_file(tensors, partial, metadata)


def read_header(path: Path | str) -> tuple[str, dict, CheckpointInfo]:
    """The class name, constructor arguments and info of a checkpoint file, without reading its weights.

    Raises:
        FD2TalkError: naming the file and what is wrong with it.
    """
    path = check_input(path, "checkpoint")
    name = shown_path(path.name)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        config = json.loads(metadata["config"])
        info = json.loads(metadata["info"])
        if not isinstance(config, dict) or not isinstance(info, dict):
            raise TypeError("config and info must be JSON objects")
        known = {field.name for field in fields(CheckpointInfo)}
        return metadata["class"], config, CheckpointInfo(**{k: v for k, v in info.items() if k in known})
    except FD2TalkError as error:
        raise FD2TalkError(f"{name} has a broken FD2Talk header: {error}") from error
    except (OSError, SafetensorError) as error:
        raise FD2TalkError(
            f"{name} is not a readable safetensors file ({reason_of(error)}); download or copy it again."
        ) from error
    except KeyError as error:
        raise FD2TalkError(
            f"{name} is a safetensors file, but not an FD2Talk checkpoint: "
            f"its header has no {error.args[0]!r}."
        ) from error
    except (TypeError, ValueError, RecursionError) as error:
        raise FD2TalkError(f"{name} has a broken FD2Talk header ({reason_of(error)}).") from error


def load_checkpoint(path: Path | str, network_class: type[Network], face_model: str | None = None) -> Network:
    """Build a network from its file, in float32, ready for inference.

    Args:
        network_class: what the file must hold.
        face_model: if given, the face model that the network must have been trained for.

    Returns:
        the network, with the file's :class:`CheckpointInfo` as its attribute ``info``.

    Raises:
        FD2TalkError: one sentence for a corrupt file, another class or face model, or wrong keys or shapes.
    """
    path = check_path(path, "The checkpoint")
    name = shown_path(path.name)
    class_name, config, info = read_header(path)
    if class_name != network_class.__name__:
        raise FD2TalkError(f"{name} holds a {class_name}, but a {network_class.__name__} is needed here.")
    if face_model and info.face_model and info.face_model != face_model:
        raise FD2TalkError(
            f"{name} was trained for the face model {info.face_model!r}, but {face_model!r} is in use."
        )
    # a header's word counts for what the network is built from, and for nothing else
    known = inspect.signature(network_class.__init__).parameters
    arguments = {key: config[key] for key in config if key in known}
    shapes = _shapes(path)
    try:
        outline = outline_of(lambda: network_class.from_config(arguments), shapes)
    except Exception as error:  # a stranger's values reach every line of a constructor
        raise FD2TalkError(
            f"{name} has a configuration that cannot be built into a {class_name} ({reason_of(error)})."
        ) from error
    _fits(outline, shapes, path)
    network = network_class.from_config(arguments)
    _load_weights(network, path)
    network.info = info
    network.requires_grad_(False)
    # the layout in which convolutions read them, lest each call rearranges them
    return network.to(memory_format=torch.channels_last).train(False)


def _shapes(path: Path) -> dict[str, list[int]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118, no dict
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error


def _fits(network: nn.Module, found: Shapes, path: Path) -> None:
    wanted = state_shapes(network)
    told = f"{shown_path(path.name)} does not fit its own configuration: "
    missing, unexpected = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if missing or unexpected:
        raise FD2TalkError(
            f"{told}missing {missing[:3] or 'nothing'}, unexpected {unexpected[:3] or 'nothing'}."
        )
    for name, shape in found.items():
        if list(shape) != wanted[name]:
            raise FD2TalkError(f"{told}{name} is {list(shape)}, expected {wanted[name]}.")


def _load_weights(network: nn.Module, path: Path) -> None:
    wanted = network.state_dict()
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: file.get_tensor(name) for name in wanted}
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error
    for name, tensor in found.items():
        if wanted[name].is_floating_point():
            check_weights(shown_path(path.name), name, tensor)
    network.load_state_dict({name: value.to(wanted[name].dtype) for name, value in found.items()})


def _unreadable(path: Path, error: Exception) -> FD2TalkError:
    return FD2TalkError(
        f"{shown_path(path.name)} is cut short or corrupt ({reason_of(error)}); copy it again."
    )


def resolution_of(network: nn.Module) -> int:
    """Side in pixels of the square crops that a network was trained on, by its checkpoint."""
    info: CheckpointInfo | None = getattr(network, "info", None)
    return (info.resolution if info else 0) or DEFAULT_RESOLUTION


def in_set(folder: Path, network: str) -> Path | None:
    """The checkpoint of a network in the folder of a set, or None.

    It is ``<network>.safetensors``; for ``audio_encoder`` also a folder of that name in Hugging Face's
    layout, for ``expression`` and ``pose`` also the one ``joint.safetensors`` that predicts both.

    Raises:
        FD2TalkError: when the set holds a joint network and a separate one: motion of which of two trainings?
    """
    path, folder_of = folder / f"{network}.safetensors", folder / network
    if network == "audio_encoder" and (folder_of / "config.json").is_file():
        return folder_of
    joint = folder / "joint.safetensors"
    if network in ("expression", "pose") and joint.is_file():
        if path.is_file():
            raise FD2TalkError(
                f"{folder} holds {joint.name} and {path.name}, which both predict the {network}; move "
                "the one that is not meant out of the folder."
            )
        return joint
    return path if path.is_file() else None


def find_checkpoint(network: str, name: str, folders: Iterable[Path | str] = ()) -> Path:
    """Where the checkpoint ``name`` of a network is.

    Args:
        network: one of :data:`NETWORKS`.
        name: a file, or the folder of a set (see :func:`in_set`), in one of ``folders``; or the name of a
            shipped set, such as ``tiny``. For ``audio_encoder`` also a folder in Hugging Face's layout.
        folders: searched first, in order.

    Raises:
        FD2TalkError: naming every folder searched, or a set that holds two that it could be.
    """
    check_path(name, f"The {network} checkpoint")
    searched = [*map(Path, folders), SHIPPED]
    for folder in searched:
        single = folder / name
        try:
            if (found := in_set(single, network)) is not None:
                return found
            if single.is_file() or (network == "audio_encoder" and (single / "config.json").is_file()):
                return single
        except (OSError, ValueError) as error:
            if isinstance(error, FD2TalkError):
                raise
            raise FD2TalkError(
                f"The {network} checkpoint '{shown_path(name)}' cannot be looked for: {reason_of(error)}."
            ) from error
    raise FD2TalkError(
        f"No {network} checkpoint named '{shown_path(name)}' was found; "
        f"searched: {', '.join(map(str, searched))}."
    )

"""Networks from files: what a header asks for is held to what the file holds, before memory is taken."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules import module as registration

from ..errors import FD2TalkError

Network = TypeVar("Network", bound=nn.Module)
Shapes = Mapping[str, Sequence[int]]
"""Names of a file's tensors and their shapes."""

MODULES_PER_TENSOR = 16
"""Layers without weights, such as activations, that a network may have for each tensor of its file."""
MAX_BUFFER_BYTES = 1 << 30
"""Tensors that a network computes when it is built, and no file holds."""


class TooLarge(Exception):
    """A configuration asks for more layers than its file has weights for."""


def outline_of(build: Callable[[], Network], shapes: Shapes) -> Network:
    """A network without memory for its weights, to be compared with its file before it is built for good.

    Args:
        build: makes it.
        shapes: of the tensors in the file.

    Raises:
        TooLarge: and whatever the constructor raises for a configuration that is none.
    """
    with torch.device("meta"), _at_most(2 * len(shapes) + 64):
        outline = build()
    held = set(outline.state_dict())
    computed = sum(_bytes(tensor) for name, tensor in outline.named_buffers() if name not in held)
    if computed > MAX_BUFFER_BYTES:
        raise TooLarge(f"it would compute {computed >> 20:,} MB of its own")
    return outline


def state_shapes(network: nn.Module) -> dict[str, list[int]]:
    """Names and shapes of what a network keeps in its file."""
    return {name: list(tensor.shape) for name, tensor in network.state_dict().items()}


def check_weights(name: str, place: str, weights: Tensor) -> None:
    """Refuse what would turn into weights, and is none.

    Args:
        name: of the file.
        place: of the tensor in it.

    Raises:
        FD2TalkError: for whole numbers, booleans and complex numbers where floating point is wanted, and for
            a value that is not finite.
    """
    if not weights.is_floating_point():
        raise FD2TalkError(
            f"{name} holds {str(weights.dtype).removeprefix('torch.')} in {place}, but floating point is "
            "needed: a quantized file has to be converted back."
        )
    # types of 8 bits know no such question of their own
    if not torch.isfinite(weights.float()).all():
        raise FD2TalkError(f"{name} holds a value that is not a number in {place}.")


def _bytes(tensor: Tensor) -> int:
    return math.prod(tensor.shape) * tensor.element_size()


@contextmanager
def _at_most(tensors: int) -> Iterator[None]:
    """Stop a constructor of this thread that registers more parameters or layers than a file accounts for."""
    here, left = threading.get_ident(), {"parameter": tensors, "layer": MODULES_PER_TENSOR * tensors}

    def count(kind: str) -> None:
        if threading.get_ident() == here:
            left[kind] -= 1
            if left[kind] < 0:
                raise TooLarge(f"it asks for more {kind}s than the file can hold")

    hooks = (
        registration.register_module_parameter_registration_hook(lambda *_: count("parameter")),
        registration.register_module_module_registration_hook(lambda *_: count("layer")),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()

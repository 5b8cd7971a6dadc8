"""TensorFlow Lite networks, run by ``ai-edge-litert``."""

from __future__ import annotations

from typing import Any

from ..errors import FD2TalkError


def load_network(content: bytes, what: str, threads: int = 2) -> Any:
    """An interpreter of a network that is held in memory.

    Args:
        content: of a ``.tflite`` file.
        what: the network is, for messages: "The face landmark model".

    Raises:
        FD2TalkError: when ai-edge-litert is not installed, or this is no such network.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise FD2TalkError(
            f"{what} needs the package ai-edge-litert: run  python -m pip install ai-edge-litert"
        ) from error
    try:
        interpreter = Interpreter(model_content=content, num_threads=threads)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise FD2TalkError(f"{what} does not load: {error}") from error
    return interpreter

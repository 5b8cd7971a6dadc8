"""Where a picture shows a person: MediaPipe's Selfie Segmentation, which knows hair, hats and clothes.

The network, ``weights/selfie_segmentation.tflite``, sees 256 x 256 pixels.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..errors import FD2TalkError
from ..imaging import resize
from .tflite import load_network

MODEL_PATH = Path(__file__).parent.parent / "weights" / "selfie_segmentation.tflite"

_SIZE = 256


def person_matte(crop: Tensor) -> Tensor:
    """How surely a person covers each pixel, ``[S, S]`` in 0..1, of a picture ``[S, S, 3]`` in 0..1.

    Raises:
        FD2TalkError: when ai-edge-litert is not installed, or the network's file is missing or broken.
    """
    size = crop.shape[0]
    try:
        network = load_network(MODEL_PATH.read_bytes(), "The person segmentation model", threads=1)
    except FileNotFoundError as error:
        raise FD2TalkError(
            f"The person segmentation model {MODEL_PATH} is missing: install the package again."
        ) from error
    picture = resize(crop.movedim(-1, 0)[None].float().cpu(), _SIZE).clamp(0, 1)
    network.set_tensor(network.get_input_details()[0]["index"], picture.movedim(1, -1).contiguous().numpy())
    network.invoke()
    matte = torch.from_numpy(network.get_tensor(network.get_output_details()[0]["index"]).copy())
    return resize(matte.movedim(-1, 1), size).clamp(0, 1)[0, 0]

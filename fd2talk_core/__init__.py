"""FD2Talk: from a portrait and a voice to a talking-head video (Yao et al., ACM MM 2024).

Start reading at :mod:`fd2talk_core.pipeline`. Names are resolved on first use, so that importing the package
costs nothing and pulls in neither ComfyUI nor transformers nor diffusers.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "AudioEncoder": "audio.encoder",
    "AudioFeatures": "audio.encoder",
    "CoefficientSequence": "motion.coefficients",
    "FD2TalkError": "errors",
    "FD2TalkPipeline": "pipeline",
    "FaceModel": "face.model",
    "FrameAutoencoder": "networks.autoencoder",
    "FrameUNet": "networks.unet",
    "LipExpert": "networks.lip_expert",
    "MotionTransformer": "networks.motion_transformer",
    "Reference": "frames.reference",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_EXPORTS[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*globals(), *_EXPORTS]

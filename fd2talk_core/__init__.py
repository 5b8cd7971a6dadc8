"""FD2Talk: from a portrait and a voice to a talking-head video (Yao et al., ACM MM 2024).

Start reading at :mod:`fd2talk_core.pipeline`. Names are resolved on first use, so that importing the package
costs nothing and pulls in neither ComfyUI nor transformers nor diffusers.
"""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

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
    "LiveAvatar": "live.avatar",
    "MotionTransformer": "networks.motion_transformer",
    "Reference": "frames.reference",
}

__all__ = sorted(_EXPORTS)


def _version() -> str:
    """The version that pyproject.toml states: the registry reads it there, and it stands nowhere else.

    A copy of the repository, as ComfyUI loads it, has that file next to the package; an installed wheel has
    its metadata instead.
    """
    project = Path(__file__).resolve().parent.parent / "pyproject.toml"
    if project.is_file():
        table = project.read_text(encoding="utf-8").partition("[project]")[2].partition("\n[")[0]
        stated = {key: re.search(rf'^{key} = "([^"]+)"', table, re.MULTILINE) for key in ("name", "version")}
        if stated["version"] and stated["name"] and stated["name"][1] == "fd2talk":
            return stated["version"][1]
    return import_module("importlib.metadata").version("fd2talk")


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_EXPORTS[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*globals(), "__version__", *_EXPORTS]

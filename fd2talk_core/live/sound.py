"""Sound as the adapters pass it on."""

from __future__ import annotations

import numpy as np
from torch import Tensor


def to_pcm(audio: Tensor) -> np.ndarray:
    """``[n]`` float in -1..1 as 16-bit PCM; sound that came as that is what it was."""
    return (audio * 32768).round().clamp(-32768, 32767).short().numpy()

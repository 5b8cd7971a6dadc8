"""The number format in which a device's networks run."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def fast_math(device: torch.device) -> AbstractContextManager:
    """A context in which networks multiply in bfloat16 where the device does so natively, else as they are.

    Sums stay in float32, and frames within about 2/255. On processors without such instructions bfloat16 is
    emulated, many times slower than float32.
    """
    return torch.autocast(device.type, torch.bfloat16) if multiplies_bfloat16(device) else nullcontext()


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device does so natively."""
    if device.type == "cpu":
        # torch has these names from 2.6 on
        asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, name, bool)() for name in asked)
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)

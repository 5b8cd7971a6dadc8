"""Counting floating-point operations, attention on the CPU included."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count


def count_flops(function: Callable[[], object]) -> int:
    """Operations (a multiplication and an addition count as two) of one call, without gradients."""
    counter = flop_counter()
    with torch.no_grad(), counter:
        function()
    return counter.get_total_flops()


def flop_counter() -> FlopCounterMode:
    """A context that counts what the calling thread does in it.

    torch's counter knows no formula for its CPU attention kernel and would count it as nothing, so one is
    registered.
    """
    mapping = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _cpu_attention_flops}
    return FlopCounterMode(display=False, custom_mapping=mapping)


def _cpu_attention_flops(query: object, key: object, value: object, *_: object, **__: object) -> int:
    return sdpa_flop_count(query, key, value)

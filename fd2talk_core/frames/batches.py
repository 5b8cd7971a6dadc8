"""Batches that fit the memory at hand, and that halve when it runs out all the same."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from ..errors import FD2TalkError

Made = TypeVar("Made")

_UNKNOWN_MEMORY = 2 << 30


def in_batches(
    items: Sequence[int], batch: int, work: Callable[[Sequence[int]], Made]
) -> Iterator[tuple[Sequence[int], Made]]:
    """Do work on items a batch at a time; when memory runs out, go on from there with batches of half the
    size.

    Args:
        items: what to work on, in order.
        batch: how many together.
        work: makes what is made of a batch.

    Returns:
        an iterator of the items of each batch and the result.

    Raises:
        FD2TalkError: when the memory does not suffice for a single item.
    """
    start = 0
    while start < len(items):
        part = items[start : start + batch]
        made: Made | None = None
        try:
            made = work(part)
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            if len(part) == 1:
                raise FD2TalkError(
                    "There is not enough memory for a single frame: "
                    "close other programs or take a smaller network."
                ) from error
        if made is None:
            # outside the handler, so that the failed batch's tensors are gone
            batch = max(1, len(part) // 2)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            continue
        yield part, made
        start += len(part)


def _is_out_of_memory(error: RuntimeError) -> bool:
    if isinstance(error, torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return any(sign in text for sign in ("not enough memory", "out of memory", "can't allocate memory"))


def free_memory(device: torch.device) -> int:
    """Bytes that a device has left."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "cpu" and "SC_AVPHYS_PAGES" in getattr(os, "sysconf_names", {}):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return _UNKNOWN_MEMORY

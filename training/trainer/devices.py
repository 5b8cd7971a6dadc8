"""Processors and processes: what trains, how precisely, how busy it is, and what several share."""

from __future__ import annotations

import math
import platform
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import parse_flag_from_env
from torch import Tensor


def on_processor() -> bool:
    """Whether the processor trains: this machine has nothing else, or the launcher says so.

    `accelerate` must be told, or processes on a processor train side by side without knowing of each other.
    """
    has_other = torch.cuda.is_available() or torch.backends.mps.is_available() or torch.xpu.is_available()
    return parse_flag_from_env("ACCELERATE_USE_CPU") or not has_other


def choose_precision(precision: str) -> str:
    """``auto`` decided for this machine: a processor without bfloat16 is many times slower with it."""
    if precision != "auto":
        return precision
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() else "no"


class _Gather(torch.autograd.Function):
    """Values of all processes; a gradient goes back to the process whose value it is of."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        parts = [torch.empty_like(values) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(parts, values)
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        # every process has the whole loss, so the sum is N times its gradient, which the mean over processes
        # that follows takes back
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(gradient)
        return gradient.chunk(torch.distributed.get_world_size())[torch.distributed.get_rank()]


def gathered(values: Tensor) -> Tensor:
    """``[B, ...]`` of all processes, one after another, with gradients; for losses that compare samples."""
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return values
    return _Gather.apply(values.contiguous())


class Meter:
    """How busy the device is between start and stop."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.wall, self.cpu, self.readings = 0.0, 0.0, []
        self._start()

    def _start(self) -> None:
        self.started, self.cpu_started = time.monotonic(), time.process_time()

    def stop(self) -> None:
        self.wall += time.monotonic() - self.started
        self.cpu += time.process_time() - self.cpu_started

    def paused(self) -> Meter:
        return self

    def __enter__(self) -> None:
        self.stop()

    def __exit__(self, *_: object) -> None:
        self._start()

    def sample(self) -> None:
        """Read the driver's utilisation now and then; NVML need not be installed."""
        if self.device.type == "cuda" and len(self.readings) < (time.monotonic() - self.started):
            try:
                self.readings.append(torch.cuda.utilization(self.device) / 100)
            except (ModuleNotFoundError, RuntimeError):
                self.readings.append(math.nan)

    def use(self) -> float:
        if self.device.type == "cuda":
            return sum(self.readings) / len(self.readings) if self.readings else math.nan
        return self.cpu / (self.wall * torch.get_num_threads()) if self.wall else 0.0


def describe_device(accelerator: Accelerator) -> str:
    processes = f"{accelerator.num_processes} × " if accelerator.num_processes > 1 else ""
    if accelerator.device.type == "cuda":
        return processes + torch.cuda.get_device_name(accelerator.device)
    return f"{processes}{torch.get_num_threads()} threads of {_processor()}"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        return platform.processor() or platform.machine()
    return platform.processor() or platform.machine()

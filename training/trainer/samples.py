"""Sample number ``n`` of a run is a function of ``(seed, n)`` alone, noise and timestep included.

So the position in the data and the state of every random number generator *are* the step, a resumed run sees
what the killed one would have seen, and two processes together see what one would have seen alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .settings import TrainSettings
from .stage import Stage


def sample_seed(seed: int, index: int) -> int:
    """A seed for sample ``index``; neighbouring indices give unrelated generators."""
    mixed = (seed * 0x9E3779B97F4A7C15 + index * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) & (2**64 - 1)
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    return (mixed ^ (mixed >> 31)) & (2**63 - 1)


class Samples(Dataset):
    """The run's samples by number, a batch at a time."""

    def __init__(self, stage: Stage, seed: int) -> None:
        self.stage, self.seed = stage, seed

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: values[0] for name, values in self.__getitems__([index]).items()}

    def __getitems__(self, indices: list[int]) -> dict[str, Tensor]:
        generator = torch.Generator()  # seeded anew for every sample: making one costs more than seeding it
        return self.stage.batch(indices, lambda index: generator.manual_seed(sample_seed(self.seed, index)))

    def __len__(self) -> int:
        return 2**62


class Batches:
    """Numbers of the samples of every batch that this process takes, from a step on, in ``parts`` each."""

    def __init__(self, first_step: int, batch_size: int, rank: int, processes: int, parts: int = 1) -> None:
        self.first_step, self.batch_size, self.rank, self.processes = first_step, batch_size, rank, processes
        self.parts = parts

    def __iter__(self) -> Iterator[list[int]]:
        share = self.batch_size // self.processes
        step = self.first_step
        while True:
            start = step * self.batch_size + self.rank * share
            size = share // self.parts
            for part in range(start, start + share, size):
                yield list(range(part, part + size))
            step += 1


def _as_it_is(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Batches come stacked, so there is nothing left to collate."""
    return batch


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)


def batches(
    stage: Stage, settings: TrainSettings, first_step: int, accelerator: Accelerator
) -> Iterator[dict[str, Tensor]]:
    """This process's share of every batch from a step on, on its device, one part after another."""
    on_gpu = accelerator.device.type == "cuda"
    loader = DataLoader(
        Samples(stage, settings.seed),
        batch_sampler=Batches(
            first_step,
            settings.batch_size,
            accelerator.process_index,
            accelerator.num_processes,
            settings.accumulate,
        ),
        collate_fn=_as_it_is,
        num_workers=settings.workers,
        worker_init_fn=_one_thread if settings.workers else None,
        pin_memory=on_gpu,
        prefetch_factor=4 if settings.workers else None,
    )
    for batch in loader:
        yield {k: v.to(accelerator.device, non_blocking=on_gpu) for k, v in batch.items()}

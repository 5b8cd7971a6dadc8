"""The one loop that every stage is trained with.

A stage says what one training sample is, what its loss is, and how good the network is on held-out data. The
loop does the rest: `accelerate` for devices and processes, an average of the weights (EMA), the schedule, the
time budget, curves, validation, and a state file from which a killed run goes on.

Sample number ``n`` of a run is a function of ``(seed, n)`` alone, noise and timestep included. So the
position in the data and the state of every random number generator *are* the step, a resumed run sees what
the killed one would have seen, and two processes together see what one would have seen alone.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedDataParallelKwargs, broadcast, parse_flag_from_env
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.networks.checkpoint import load_checkpoint
from fd2talk_core.networks.diffusion import TRAIN_STEPS

CONFIGS = Path(__file__).parents[1] / "configs"


@dataclass(frozen=True)
class TrainSettings:
    """How long and how fast to train; the section ``train`` of a stage's configuration.

    Attributes:
        steps: optimiser steps at most.
        minutes: time budget, 0 for none. The schedule ends at whichever of steps and minutes comes first.
        batch_size: samples a step, over all processes together.
        learning_rate: its highest value, reached after the warm-up.
        warmup: part of the run over which the learning rate rises from 0.
        final_rate: where the cosine ends, as a part of ``learning_rate``.
        optimizer: ``adam`` (the paper's) or ``adamw``.
        weight_decay: of AdamW.
        clip: largest norm of the gradient, 0 for no limit.
        ema: decay of the weights' average, reached gradually: ``min(ema, (1 + step) / (10 + step))``.
        precision: ``no``, ``bf16``, ``fp16``, or ``auto``: bfloat16 where the device computes with it, else
            none.
        save_seconds: time between two saved states.
        validate_every: steps between two validations, 0 for only at the end.
        log_every: steps between two lines of ``losses.jsonl``.
        workers: processes that prepare data, 0 for none beside the training itself.
        tensorboard: also write TensorBoard events.
        seed: of the weights, the data order and the noise.
    """

    steps: int = 1000
    minutes: float = 0.0
    batch_size: int = 16
    learning_rate: float = 1e-3
    warmup: float = 0.05
    final_rate: float = 0.02
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.999
    precision: str = "no"
    save_seconds: float = 60.0
    validate_every: int = 0
    log_every: int = 10
    workers: int = 0
    tensorboard: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1 or self.log_every < 1:
            raise FD2TalkError("steps, batch_size and log_every must be at least 1.")
        if self.precision not in ("no", "bf16", "fp16", "auto"):
            raise FD2TalkError(f"precision is {self.precision!r}, but it is one of: no, bf16, fp16, auto.")
        if self.optimizer not in ("adam", "adamw"):
            raise FD2TalkError(f"optimizer is {self.optimizer!r}, but it is one of: adam, adamw.")


class Stage(nn.Module):
    """One thing to train.

    Attributes:
        name: of the stage and of its section in the configuration.
        networks: what is trained and written to the weights folder, by file name.
        score: the validation measure that decides which weights are kept; higher is better.
        export_dtype: storage type of the written weights.
    """

    name: str
    score: str
    export_dtype: torch.dtype | None = torch.float16

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleDict(networks)

    def sample(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Training sample ``index`` of the run; every random choice is drawn from ``generator``."""
        raise NotImplementedError

    def batch(
        self, indices: Sequence[int], generator_of: Callable[[int], torch.Generator]
    ) -> dict[str, Tensor]:
        """Several samples, stacked; a stage whose samples are small may gather them all at once.

        Args:
            generator_of: the generator of a sample; it serves until the next is asked for.
        """
        return default_collate([self.sample(index, generator_of(index)) for index in indices])

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The scalar ``loss``, averaged over the batch, and its parts under names of their own."""
        raise NotImplementedError

    def validate(self, folder: Path | None) -> dict[str, float]:
        """Measures on held-out data with the weights as they are; pictures go into ``folder`` unless it is
        None.
        """
        raise NotImplementedError

    def export(self, weights: Path, trained_on: str) -> None:
        """Write ``self.networks`` to the weights folder."""
        raise NotImplementedError

    def checkpoints(self) -> dict[str, nn.Module]:
        """The networks by the name of their file in a weights folder."""
        return dict(self.networks.items())

    def start_from(self, weights: Path) -> None:
        """Begin with the networks of a weights folder in place of random ones. What this stage keeps frozen
        stays as it is.

        Raises:
            FD2TalkError: naming the file that is missing, cannot be read or is of another size.
        """
        for name, network in self.checkpoints().items():
            path = weights / f"{name}.safetensors"
            if not path.is_file():
                raise FD2TalkError(f"There is no {path} to start from; start without it.")
            given = self.grown(load_checkpoint(path, type(network)), network)
            frozen = {key for key, value in network.named_parameters() if not value.requires_grad}
            own = network.state_dict()
            given |= {key: own[key] for key in frozen}
            differing = sorted(
                key for key in own.keys() | given.keys()
                if key not in own or key not in given or own[key].shape != given[key].shape
            )  # fmt: skip
            if differing:
                raise FD2TalkError(
                    f"{path} is of another size than this stage's {name} ({differing[0]} differs); start "
                    "without it, or with its network's configuration."
                )
            network.load_state_dict(given)

    def grown(self, earlier: nn.Module, network: nn.Module) -> dict[str, Tensor]:
        """What ``network`` takes from an ``earlier`` one; a stage may let it grow on the way."""
        return earlier.state_dict()


def draw_timestep(visited: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """A timestep to train at: one of those that sampling visits in a ``share`` of the cases, else any."""
    if share and torch.rand((), generator=generator) < share:
        return visited[torch.randint(len(visited), (), generator=generator)]
    return torch.randint(TRAIN_STEPS, (), generator=generator)


@dataclass(frozen=True)
class RunReport:
    """What a finished run says of itself.

    Attributes:
        steps, seconds: of the whole run, resumed parts included.
        samples_per_second: while training in this process, validation and saving excluded.
        waiting: part of that time spent waiting for data.
        device_use: processor time over time times threads on a CPU; on a GPU, its driver's utilisation.
        metrics: held-out measures of the weights that were written.
    """

    stage: str
    steps: int
    seconds: float
    samples_per_second: float
    waiting: float
    device_use: float
    device: str
    metrics: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        """One line; it says what to do where more than a tenth of the time was spent waiting."""
        late = " (more train.workers would shorten it)" if self.waiting > 0.1 else ""
        measures = ", ".join(f"{name} {value:.4g}" for name, value in self.metrics.items())
        return (
            f"{self.stage}: {self.steps} steps in {self.seconds / 60:.1f} min on {self.device}; "
            f"{self.samples_per_second:.1f} samples/s, waiting for data {self.waiting:.1%}{late}, "
            f"device use {self.device_use:.0%}; held out: {measures or 'not measured'}"
        )


def schedule(progress: float, warmup: float, final_rate: float) -> float:
    """Linear warm-up, then half a cosine down to ``final_rate``; ``progress`` runs from 0 to 1."""
    if progress < warmup:
        return progress / warmup
    position = min((progress - warmup) / max(1 - warmup, 1e-9), 1.0)
    return final_rate + (1 - final_rate) * 0.5 * (1 + math.cos(math.pi * position))


def sample_seed(seed: int, index: int) -> int:
    """A seed for sample ``index``; neighbouring indices give unrelated generators."""
    mixed = (seed * 0x9E3779B97F4A7C15 + index * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) & (2**64 - 1)
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    return (mixed ^ (mixed >> 31)) & (2**63 - 1)


class _Samples(Dataset):
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


class _Batches:
    """Numbers of the samples of every batch that this process takes, from a step on."""

    def __init__(self, first_step: int, batch_size: int, rank: int, processes: int) -> None:
        self.first_step, self.batch_size, self.rank, self.processes = first_step, batch_size, rank, processes

    def __iter__(self) -> Iterator[list[int]]:
        share = self.batch_size // self.processes
        step = self.first_step
        while True:
            start = step * self.batch_size + self.rank * share
            yield list(range(start, start + share))
            step += 1


def _as_it_is(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Batches come stacked, so there is nothing left to collate."""
    return batch


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)


class Trainer:
    """Trains a stage in ``folder``; see :func:`train`."""

    def __init__(self, stage: Stage, settings: TrainSettings, folder: Path) -> None:
        self.settings, self.folder = settings, folder
        self.accelerator = Accelerator(
            cpu=on_processor(),
            mixed_precision=choose_precision(settings.precision),
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
        if settings.batch_size % self.accelerator.num_processes:
            raise FD2TalkError(
                f"batch_size is {settings.batch_size}, which {self.accelerator.num_processes} processes "
                "cannot share equally; choose a multiple."
            )
        self.stage = stage.to(self.accelerator.device)
        self.parameters = {
            name: value for name, value in stage.networks.named_parameters() if value.requires_grad
        }
        self.optimizer = self._optimizer()
        self.model, self.prepared = self.accelerator.prepare(stage, self.optimizer)
        self.ema = {
            name: value.detach().clone()
            for name, value in stage.networks.state_dict().items()
            if value.is_floating_point()
        }
        self.best: dict[str, Tensor] = {}
        self.best_metrics: dict[str, float] = {}
        self.step, self.seconds_before = 0, 0.0
        self.clock = time.monotonic()

    def _optimizer(self) -> torch.optim.Optimizer:
        settings = self.settings
        if settings.optimizer == "adam":
            return torch.optim.Adam(self.parameters.values(), lr=settings.learning_rate)
        # norms, biases and embeddings are not shrunk, as in every transformer recipe since GPT-2
        groups = [
            {
                "params": [p for p in self.parameters.values() if p.ndim >= 2],
                "weight_decay": settings.weight_decay,
            },
            {"params": [p for p in self.parameters.values() if p.ndim < 2], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.99))

    # ---- progress ------------------------------------------------------------------------------------------

    def seconds(self) -> float:
        """Time trained so far, earlier parts of a resumed run included."""
        return self.seconds_before + time.monotonic() - self.clock

    def progress(self) -> float:
        """0 at the start, 1 when the steps or the minutes are used up; the same in every process."""
        by_time = self.seconds() / (60 * self.settings.minutes) if self.settings.minutes else 0.0
        if self.settings.minutes and self.accelerator.num_processes > 1:
            by_time = float(broadcast(torch.tensor(by_time, device=self.accelerator.device)))
        return max(by_time, self.step / self.settings.steps)

    # ---- state ---------------------------------------------------------------------------------------------

    @property
    def state_file(self) -> Path:
        return self.folder / "state.safetensors"

    def save(self) -> None:
        """Write the whole state as one file that appears at once; optimiser state is plain tensors."""
        if not self.accelerator.is_main_process:
            return
        tensors = {f"model.{k}": v for k, v in self.stage.networks.state_dict().items()}
        tensors |= {f"ema.{k}": v for k, v in self.ema.items()}
        tensors |= {f"best.{k}": v for k, v in self.best.items()}
        for name, parameter in self.parameters.items():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{key}.{name}"] = torch.as_tensor(value)
        scaler = self.accelerator.scaler
        state = {
            "stage": self.stage.name,
            "step": self.step,
            "seconds": self.seconds(),
            "best_metrics": self.best_metrics,
            "seed": self.settings.seed,
            "batch_size": self.settings.batch_size,
            "scaler": scaler.state_dict() if scaler is not None else {},
        }
        tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
        partial = self.state_file.with_suffix(".partial")
        save_file(tensors, partial, {"state": json.dumps(state)})
        with open(partial, "rb") as written:
            os.fsync(written.fileno())
        partial.replace(self.state_file)

    def resume(self) -> bool:
        """Go on from the saved state, if there is one.

        Raises:
            FD2TalkError: when the file is not a state of this stage and these networks.
        """
        if not self.state_file.exists():
            return False
        try:
            with safe_open(self.state_file, framework="pt") as file:
                state = json.loads(file.metadata()["state"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a dict
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise FD2TalkError(
                f"{self.state_file} cannot be read ({error}); delete it to start this stage anew."
            ) from error

        def part(prefix: str) -> dict[str, Tensor]:
            return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}

        model, wanted = part("model."), self.stage.networks.state_dict()
        if state["stage"] != self.stage.name or {k: v.shape for k, v in model.items()} != {
            k: v.shape for k, v in wanted.items()
        }:
            raise FD2TalkError(
                f"{self.state_file} belongs to another stage or another network size; "
                "give this run another --run name, or delete that file."
            )
        if (state["seed"], state["batch_size"]) != (self.settings.seed, self.settings.batch_size):
            raise FD2TalkError(
                f"{self.state_file} was trained with seed {state['seed']} and batch size "
                f"{state['batch_size']}; keep them, or give this run another --run name."
            )
        self.stage.networks.load_state_dict(model)
        for name, value in part("ema.").items():
            self.ema[name].copy_(value)
        self.best = {k: v.to(self.accelerator.device) for k, v in part("best.").items()}
        for key in ("exp_avg", "exp_avg_sq", "step"):
            for name, value in part(f"optimizer.{key}.").items():
                parameter = self.parameters[name]
                # the optimiser's own layout is kept, since channels-last weights have channels-last moments
                moment = torch.empty_like(parameter).copy_(value) if key != "step" else value
                self.optimizer.state[parameter][key] = moment
        if state["scaler"] and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.step, self.seconds_before = state["step"], state["seconds"]
        self.best_metrics = state["best_metrics"]
        return True

    # ---- the average of the weights ------------------------------------------------------------------------

    @torch.no_grad()
    def update_ema(self) -> None:
        decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        current = self.stage.networks.state_dict()
        names = list(self.ema)
        torch._foreach_lerp_([self.ema[n] for n in names], [current[n] for n in names], 1 - decay)

    @torch.no_grad()
    def validate(self, folder: Path | None) -> dict[str, float]:
        """Measure the averaged weights on held-out data; keep them if they are the best so far."""
        trained = {k: v.clone() for k, v in self.stage.networks.state_dict().items()}
        self.stage.networks.load_state_dict({**trained, **self.ema})
        self.stage.train(False)
        metrics = {k: float(v) for k, v in self.stage.validate(folder).items()}
        self.stage.train(True)
        self.stage.networks.load_state_dict(trained)
        score = metrics[self.stage.score]
        if math.isfinite(score) and score >= self.best_metrics.get(self.stage.score, -math.inf):
            self.best_metrics = metrics
            self.best = {k: v.clone() for k, v in self.ema.items()}
        return metrics

    # ---- the loop ------------------------------------------------------------------------------------------

    def run(self) -> RunReport:
        from tqdm import tqdm

        settings, accelerator = self.settings, self.accelerator
        self.folder.mkdir(parents=True, exist_ok=True)
        resumed = self.resume()
        log = RunLog(self.folder, self.step, accelerator.is_main_process, settings.tensorboard)
        first_step = self.step
        self.clock = time.monotonic()
        last_save, waited, trained, work = self.clock, 0.0, 0.0, Meter(accelerator.device)
        batches = self._batches()
        self.stage.train(True)
        with tqdm(
            total=settings.steps,
            initial=self.step,
            desc=self.stage.name + (" (resumed)" if resumed else ""),
            disable=not accelerator.is_main_process,
            mininterval=2.0,
        ) as bar:
            while (progress := self.progress()) < 1:
                started = time.monotonic()
                batch = next(batches)
                ready = time.monotonic()
                losses = self._train_step(batch, progress)
                done = time.monotonic()
                waited, trained = waited + ready - started, trained + done - started
                work.sample()
                bar.update(1)
                if self.step % settings.log_every == 0:
                    values = {k: float(v) for k, v in losses.items()}
                    if accelerator.num_processes > 1:  # the curve is that of the whole batch
                        values["loss"] = float(accelerator.reduce(losses["loss"], reduction="mean"))
                    if not math.isfinite(values["loss"]):
                        raise FD2TalkError(
                            f"The loss of {self.stage.name} is {values['loss']} at step {self.step}; "
                            f"lower learning_rate (it is {settings.learning_rate:g})."
                        )
                    log.write({"step": self.step, "seconds": round(self.seconds(), 2), **values})
                    left = f"{progress:.0%}" if settings.minutes else ""
                    bar.set_postfix_str(f"loss {values['loss']:.4g} {left}", refresh=False)
                if settings.validate_every and self.step % settings.validate_every == 0:
                    with work.paused():
                        self._measure(log)
                if time.monotonic() - last_save > settings.save_seconds:
                    with work.paused():
                        self.save()
                    last_save = time.monotonic()
        work.stop()
        if self.step > first_step or not self.best_metrics:
            self._measure(log)
        self.save()
        accelerator.wait_for_everyone()
        log.draw()
        return RunReport(
            stage=self.stage.name,
            steps=self.step,
            seconds=self.seconds(),
            samples_per_second=(self.step - first_step) * settings.batch_size / trained if trained else 0.0,
            waiting=waited / trained if trained else 0.0,
            device_use=work.use(),
            device=describe_device(accelerator),
            metrics=self.best_metrics,
        )

    def _batches(self) -> Iterator[dict[str, Tensor]]:
        settings, accelerator = self.settings, self.accelerator
        batches = _Batches(
            self.step, settings.batch_size, accelerator.process_index, accelerator.num_processes
        )
        on_gpu = accelerator.device.type == "cuda"
        loader = DataLoader(
            _Samples(self.stage, settings.seed),
            batch_sampler=batches,
            collate_fn=_as_it_is,
            num_workers=settings.workers,
            worker_init_fn=_one_thread if settings.workers else None,
            pin_memory=on_gpu,
            prefetch_factor=4 if settings.workers else None,
        )
        for batch in loader:
            yield {k: v.to(accelerator.device, non_blocking=on_gpu) for k, v in batch.items()}

    def _train_step(self, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        settings = self.settings
        rate = settings.learning_rate * schedule(progress, settings.warmup, settings.final_rate)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # dropout inside the networks also depends on the step alone
        torch.manual_seed(sample_seed(settings.seed, -1 - self.step) + self.accelerator.process_index)
        with self.accelerator.autocast():
            losses = self.model(batch)
        self.accelerator.backward(losses["loss"])
        if settings.clip:
            self.accelerator.clip_grad_norm_(self.parameters.values(), settings.clip)
        self.prepared.step()
        self.prepared.zero_grad(set_to_none=True)
        self.step += 1
        self.update_ema()
        return {"rate": torch.tensor(rate), **{k: v.detach() for k, v in losses.items()}}

    def _measure(self, log: RunLog) -> None:
        if self.accelerator.is_main_process:
            pictures = self.folder / "pictures"
            pictures.mkdir(exist_ok=True)
            metrics = self.validate(pictures)
            log.write({"step": self.step, "seconds": round(self.seconds(), 2), "held_out": metrics})
            log.draw()
        self.accelerator.wait_for_everyone()

    def export(self, weights: Path, trained_on: str) -> None:
        """Write the best averaged weights to the weights folder."""
        if not self.accelerator.is_main_process:
            return
        self.stage.networks.load_state_dict({**self.stage.networks.state_dict(), **self.best})
        self.stage.train(False)
        self.stage.export(weights, trained_on)


def on_processor() -> bool:
    """Whether the processor trains: this machine has nothing else, or the launcher says so.

    `accelerate` must be told, or processes on a processor train side by side without knowing of each other.
    """
    has_other = torch.cuda.is_available() or torch.backends.mps.is_available() or torch.xpu.is_available()
    return parse_flag_from_env("ACCELERATE_USE_CPU") or not has_other


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


def choose_precision(precision: str) -> str:
    """``auto`` decided for this machine: a processor without bfloat16 is many times slower with it."""
    if precision != "auto":
        return precision
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() else "no"


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


class RunLog:
    """``losses.jsonl``, one line a record, and its curves as ``curves.png``."""

    def __init__(self, folder: Path, step: int, main: bool, tensorboard: bool) -> None:
        self.path, self.main = folder / "losses.jsonl", main
        self.writer = None
        if not main:
            return
        if self.path.exists():
            # what came after the saved state will be trained, and written, again
            kept = [line for line in self.path.read_text().splitlines() if _step_of(line) <= step]
            self.path.write_text("".join(line + "\n" for line in kept if step))
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step)

    def write(self, record: dict[str, Any]) -> None:
        if not self.main:
            return
        with open(self.path, "a") as file:
            file.write(json.dumps(record) + "\n")
        if self.writer is not None:
            for key, value in {**record, **record.get("held_out", {})}.items():
                if isinstance(value, float) and key != "seconds":
                    self.writer.add_scalar(
                        ("held_out/" if "held_out" in record else "") + key, value, record["step"]
                    )

    def draw(self) -> None:
        if self.main and self.path.exists():
            draw_curves(self.path, self.path.with_name("curves.png"))


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except ValueError:  # the last line of a killed run may be half a line
        return math.inf


def draw_curves(losses: Path, picture: Path) -> None:
    """One panel for each loss and each held-out measure of a ``losses.jsonl``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    curves: dict[str, list[tuple[int, float]]] = {}
    for line in losses.read_text().splitlines():
        record = json.loads(line)
        values = {f"held out: {k}": v for k, v in record.get("held_out", {}).items()}
        values |= {k: v for k, v in record.items() if k not in ("step", "seconds", "held_out")}
        for name, value in values.items():
            curves.setdefault(name, []).append((record["step"], value))
    if not curves:
        return
    columns = min(3, len(curves))
    rows = math.ceil(len(curves) / columns)
    figure = Figure(figsize=(4.5 * columns, 3 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, (name, points) in zip(
        figure.subplots(rows, columns, squeeze=False).flat, curves.items(), strict=False
    ):
        steps, values = zip(*points, strict=True)
        axis.plot(steps, values, marker="." if len(steps) < 30 else "", linewidth=1)
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("step", fontsize=8)
        axis.grid(alpha=0.3)
        if "loss" in name and min(values) > 0:
            axis.set_yscale("log")
    figure.savefig(picture, dpi=80)


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


def train(stage: Stage, settings: TrainSettings, folder: Path, weights: Path, data: str = "") -> RunReport:
    """Train a stage, or go on with it, and write its networks to the weights folder.

    Args:
        folder: of the run: ``state.safetensors``, ``losses.jsonl``, ``curves.png``, ``pictures/``,
            ``report.json``.
        weights: receives one file a network, the average weights with the best held-out score.
        data: what it is trained on, in words, for the checkpoint's header.
    """
    trainer = Trainer(stage, settings, folder)
    report = trainer.run()
    words = (
        f"{data}; seed {settings.seed}, {report.steps} steps of {settings.batch_size}, "
        f"{report.seconds / 60:.1f} min on {report.device}"
    )
    trainer.export(weights, words.strip("; "))
    if trainer.accelerator.is_main_process:
        (folder / "report.json").write_text(json.dumps({**vars(report), "trained_on": words}, indent=2))
        print(report, flush=True)
    trainer.accelerator.wait_for_everyone()
    return report


# ---- command line ------------------------------------------------------------------------------------------


def load_section(config: Path | str, stage: str) -> dict[str, Any]:
    """The section of a stage in a configuration file.

    Args:
        config: a path, or the name of a file beside this module's ``configs``.
    """
    path = Path(config)
    if not path.exists() and (CONFIGS / f"{config}.yaml").exists():
        path = CONFIGS / f"{config}.yaml"
    if not path.is_file():
        names = ", ".join(sorted(p.stem for p in CONFIGS.glob("*.yaml")))
        raise FD2TalkError(f"There is no configuration {config}; give a file, or one of: {names}.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise FD2TalkError(f"{path} is not valid YAML ({error}).") from error
    if not isinstance(content, dict) or not isinstance(content.get(stage), dict):
        raise FD2TalkError(f"{path} has no section {stage!r}.")
    return {**content[stage], "size": content.get("size", "tiny")}


def train_settings(section: Mapping[str, Any], **changes: Any) -> TrainSettings:
    """The section ``train`` of a stage, with changes from the command line (None leaves a value as it is)."""
    values = dict(section.get("train", {}))
    known = {f.name for f in fields(TrainSettings)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise FD2TalkError(f"train has no setting {unknown[0]!r}; there are: {', '.join(sorted(known))}.")
    settings = TrainSettings(**values)
    return replace(settings, **{k: v for k, v in changes.items() if v is not None})


def stage_options(section: Mapping[str, Any], defaults: Any) -> Any:
    """A frozen dataclass of a stage's own options, filled from its section."""
    values = {k: v for k, v in section.items() if k not in ("train", "size", "network")}
    known = {f.name for f in fields(defaults)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise FD2TalkError(f"This stage has no option {unknown[0]!r}; there are: {', '.join(sorted(known))}.")
    return replace(defaults, **values)


def apply_overrides(section: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """``a.b=value`` over a section, the value read as YAML."""
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise FD2TalkError(f"--set takes name=value, not {text!r}.")
        target = section
        *path, last = key.split(".")
        for name in path:
            target = target.setdefault(name, {})
        target[last] = yaml.safe_load(value)
    return section


def stage_main(name: str, build: Any, description: str, arguments: list[str] | None = None) -> int:
    """The command line of a stage.

    Args:
        build: ``build(section, data_folder, weights_folder, seed, run_folder) -> (Stage, words)``; what it
            computes from the data it may keep in the run folder, where the other processes then find it.
    """
    parser = argparse.ArgumentParser(prog=f"python -m training.{name}", description=description)
    parser.add_argument(
        "--config", default="tiny", help="a YAML file, or the name of one in training/configs"
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of shards")
    parser.add_argument(
        "--weights", type=Path, required=True, help="folder of checkpoints: read from, written to"
    )
    parser.add_argument(
        "--start", type=Path, metavar="DIR", help="begin with the checkpoints in this folder, not at random"
    )
    parser.add_argument("--minutes", type=float, help="time budget; the schedule decays to its end")
    parser.add_argument("--steps", type=int, help="optimiser steps at most")
    parser.add_argument("--seed", type=int)
    parser.add_argument(
        "--run", default="default", help="name of the folder under runs/ that holds the state"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where run folders are kept")
    parser.add_argument("--threads", type=int, help="processor threads, all of them by default")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="override, e.g. train.batch_size=8"
    )
    given = parser.parse_args(arguments)
    try:
        section = apply_overrides(load_section(given.config, name), given.set)
        settings = train_settings(section, minutes=given.minutes, steps=given.steps, seed=given.seed)
        if given.threads:
            torch.set_num_threads(given.threads)
        torch.manual_seed(settings.seed)
        folder = given.runs / given.run / name
        folder.mkdir(parents=True, exist_ok=True)
        with PartialState(cpu=on_processor()).main_process_first():
            stage, words = build(section, given.data, given.weights, settings.seed, folder)
            if given.start:
                stage.start_from(given.start)
                words += "; started from earlier weights"
        train(stage, settings, folder, given.weights, words)
    except FD2TalkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0

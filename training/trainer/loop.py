"""The one loop that every stage is trained with.

A stage says what one training sample is, what its loss is, and how good the network is on held-out data. The
loop does the rest: `accelerate` for devices and processes, an average of the weights (EMA), the schedule, the
time budget, curves, validation, and a state file from which a killed run goes on.
"""

from __future__ import annotations

import json
import math
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, broadcast
from torch import Tensor

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.files import writing

from .devices import Meter, choose_precision, describe_device, on_processor
from .log import RunLog, RunReport
from .samples import batches, sample_seed
from .settings import TrainSettings
from .stage import Stage
from .state import RunFacts, RunState


def schedule(progress: float, warmup: float, final_rate: float) -> float:
    """Linear warm-up, then half a cosine down to ``final_rate``; ``progress`` runs from 0 to 1."""
    if progress < warmup:
        return progress / warmup
    position = min((progress - warmup) / max(1 - warmup, 1e-9), 1.0)
    return final_rate + (1 - final_rate) * 0.5 * (1 + math.cos(math.pi * position))


class Trainer:
    """Trains a stage in ``folder``; see :func:`train`."""

    def __init__(self, stage: Stage, settings: TrainSettings, folder: Path) -> None:
        self.settings, self.folder = settings, folder
        self.accelerator = Accelerator(
            cpu=on_processor(),
            mixed_precision=choose_precision(settings.precision),
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
        processes = self.accelerator.num_processes
        if settings.batch_size % (processes * settings.accumulate):
            in_parts = f", each in {settings.accumulate} parts," if settings.accumulate > 1 else ""
            raise FD2TalkError(
                f"batch_size is {settings.batch_size}, which {processes} processes{in_parts} cannot share "
                "equally; choose a multiple."
            )
        self.stage = stage.to(self.accelerator.device)
        self.parameters = {
            name: value for name, value in stage.networks.named_parameters() if value.requires_grad
        }
        if settings.compile:
            for network in stage.networks.values():
                network.compile()
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

    def state(self) -> RunState:
        """The run as it is; its tensors are the run's own."""
        scaler = self.accelerator.scaler
        facts = RunFacts(
            stage=self.stage.name,
            seed=self.settings.seed,
            batch_size=self.settings.batch_size,
            step=self.step,
            seconds=self.seconds(),
            best_metrics=self.best_metrics,
            scaler=scaler.state_dict() if scaler is not None else {},
        )
        moments = {
            f"{key}.{name}": torch.as_tensor(value)
            for name, parameter in self.parameters.items()
            for key, value in self.optimizer.state.get(parameter, {}).items()
        }
        return RunState(facts, self.stage.networks.state_dict(), self.ema, self.best, moments)

    def save(self) -> None:
        """Write the state.

        Raises:
            FD2TalkError: when it is broken; the file then stays the last that was not.
        """
        if not self.accelerator.is_main_process:
            return
        state = self.state()
        if state.broken() is not None:
            raise self._exploded("weights are not numbers")
        state.write(self.state_file)

    def _exploded(self, what: str) -> FD2TalkError:
        kept = f"; the run goes on from {self.state_file}" if self.state_file.exists() else ""
        return FD2TalkError(
            f"The {self.stage.name} stage's {what} at step {self.step}; "
            f"lower learning_rate (it is {self.settings.learning_rate:g}){kept}."
        )

    def resume(self) -> bool:
        """Go on from the saved state, if there is one.

        Raises:
            FD2TalkError: when the file is not a state of this stage and these networks.
        """
        if not self.state_file.exists():
            return False
        state = RunState.read(self.state_file)
        facts, differing = state.facts, state.misfit(self.stage.networks.state_dict(), self.parameters)
        if facts.stage != self.stage.name or differing is not None:
            told = "" if differing is None else f" ({differing} differs)"
            raise FD2TalkError(
                f"{self.state_file} belongs to another stage or another network size{told}; "
                "give this run another --run name, or delete that file."
            )
        if (facts.seed, facts.batch_size) != (self.settings.seed, self.settings.batch_size):
            raise FD2TalkError(
                f"{self.state_file} was trained with seed {facts.seed} and batch size "
                f"{facts.batch_size}; keep them, or give this run another --run name."
            )
        self.stage.networks.load_state_dict(state.model)
        for name, value in state.ema.items():
            self.ema[name].copy_(value)
        self.best = {k: v.to(self.accelerator.device) for k, v in state.best.items()}
        for place, value in state.optimizer.items():
            key, _, name = place.partition(".")
            parameter = self.parameters[name]
            # the optimiser's own layout is kept, since channels-last weights have channels-last moments
            moment = torch.empty_like(parameter).copy_(value) if key != "step" else value
            self.optimizer.state[parameter][key] = moment
        if facts.scaler and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(facts.scaler)
        self.step, self.seconds_before = facts.step, facts.seconds
        self.best_metrics = facts.best_metrics
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
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        resumed = self.resume()
        log = RunLog(self.folder, self.step, accelerator.is_main_process, settings.tensorboard)
        first_step = self.step
        self.clock = time.monotonic()
        last_save, waited, trained, work = self.clock, 0.0, 0.0, Meter(accelerator.device)
        samples = batches(self.stage, settings, self.step, accelerator)
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
                parts = [next(samples) for _ in range(settings.accumulate)]
                ready = time.monotonic()
                losses = self._train_step(parts, progress)
                done = time.monotonic()
                waited, trained = waited + ready - started, trained + done - started
                work.sample()
                bar.update(1)
                if self.step % settings.log_every == 0:
                    values = {k: float(v) for k, v in losses.items()}
                    if accelerator.num_processes > 1:  # the curve is that of the whole batch
                        values["loss"] = float(accelerator.reduce(losses["loss"], reduction="mean"))
                    if not math.isfinite(values["loss"]):
                        raise self._exploded(f"loss is {values['loss']}")
                    log.write({"step": self.step, "seconds": round(self.seconds(), 2), **values})
                    left = f"{progress:.0%}" if settings.minutes else ""
                    rate = (self.step - first_step) * settings.batch_size / trained
                    pace = f"{rate:.1f} samples/s, waiting {waited / trained:.0%}"
                    bar.set_postfix_str(f"loss {values['loss']:.4g}, {pace} {left}", refresh=False)
                if settings.validate_every and self.step % settings.validate_every == 0:
                    with work.paused():
                        self._measure(log)
                if time.monotonic() - last_save > settings.save_seconds:
                    with work.paused():
                        self.save()
                    last_save = time.monotonic()
        work.stop()
        self.save()
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

    def _train_step(self, parts: list[dict[str, Tensor]], progress: float) -> dict[str, Tensor]:
        settings = self.settings
        rate = settings.learning_rate * schedule(progress, settings.warmup, settings.final_rate)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # dropout inside the networks also depends on the step alone
        torch.manual_seed(sample_seed(settings.seed, -1 - self.step) + self.accelerator.process_index)
        losses: dict[str, list[Tensor]] = {}
        for number, batch in enumerate(parts, 1):
            # gradients are averaged over the processes once, with the last part
            alone = nullcontext() if number == len(parts) else self.accelerator.no_sync(self.model)
            with alone:
                with self.accelerator.autocast():
                    of_part = self.model(batch)
                self.accelerator.backward(of_part["loss"] / len(parts))
            for name, value in of_part.items():
                losses.setdefault(name, []).append(value.detach())
        if settings.clip:
            self.accelerator.clip_grad_norm_(self.parameters.values(), settings.clip)
        self.prepared.step()
        self.prepared.zero_grad(set_to_none=True)
        self.step += 1
        self.update_ema()
        means = {name: torch.stack(values).mean() for name, values in losses.items()}
        return {"rate": torch.tensor(rate), **means}

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

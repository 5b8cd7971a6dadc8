"""Everything that a killed run needs to go on, as one file of plain tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fd2talk_core.checks import check_fields, check_number, check_whole
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.files import check_input, reason_of, replacing

_PARTS = ("model", "ema", "best", "optimizer")


@dataclass(frozen=True)
class RunFacts:
    """What a state says beside its tensors.

    Attributes:
        stage, seed, batch_size: of the run; a state of others is refused.
        step, seconds: done so far.
        best_metrics: held-out measures of the best weights so far.
        scaler: state of the gradient scaler, empty without one.
    """

    stage: str
    seed: int
    batch_size: int
    step: int
    seconds: float
    best_metrics: dict[str, float] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self)
        check_whole(self.step, "step", 0)
        check_number(self.seconds, "seconds", 0)


@dataclass(frozen=True, eq=False)
class RunState:
    """A run at a step.

    Attributes:
        model, ema, best: weights as trained, their average, and the best average so far, by name.
        optimizer: by ``<key of the optimiser's state>.<name of the parameter>``.
    """

    facts: RunFacts
    model: Mapping[str, Tensor]
    ema: Mapping[str, Tensor]
    best: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]

    def broken(self) -> str | None:
        """The name of a tensor that holds what is no finite number, or None."""
        for part in _PARTS:
            for name, value in getattr(self, part).items():
                if value.is_floating_point() and not torch.isfinite(value).all():
                    return f"{part}.{name}"
        return None

    def misfit(self, model: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> str | None:
        """The name of a tensor that networks with these weights and parameters have not, or lack, or have of
        another shape; None where the state fits them.
        """
        floating = {name: value for name, value in model.items() if value.is_floating_point()}
        wanted = {"model": model, "ema": floating, "best": floating if self.best else {}}
        for part, own in wanted.items():
            held = getattr(self, part)
            for name in sorted(own.keys() | held.keys()):
                if name not in own or name not in held or own[name].shape != held[name].shape:
                    return f"{part}.{name}"
        for place, moment in self.optimizer.items():
            key, _, name = place.partition(".")
            if name not in parameters or (key != "step" and moment.shape != parameters[name].shape):
                return f"optimizer.{place}"
        return None

    def write(self, path: Path) -> None:
        """The file appears at once, and whole even if the machine stops."""
        tensors = {
            f"{part}.{name}": value.detach().cpu().contiguous().clone()
            for part in _PARTS
            for name, value in getattr(self, part).items()
        }
        with replacing(path, alone=True) as partial:
            save_file(tensors, partial, {"state": json.dumps(asdict(self.facts))})

    @classmethod
    def read(cls, path: Path) -> RunState:
        """Raises FD2TalkError when the file is no state, or one of numbers that are none."""
        check_input(path, "state")
        try:
            with safe_open(path, framework="pt") as file:
                facts = RunFacts(**json.loads((file.metadata() or {})["state"]))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a dict
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise FD2TalkError(
                f"{path} cannot be read ({reason_of(error).rstrip('.')}); delete it to start this stage anew."
            ) from error

        def part(name: str) -> dict[str, Tensor]:
            return {key.partition(".")[2]: v for key, v in tensors.items() if key.startswith(f"{name}.")}

        state = cls(facts, *map(part, _PARTS))
        if (name := state.broken()) is not None:
            raise FD2TalkError(
                f"{path} holds a value that is not a number in {name}; delete it to start this stage anew."
            )
        return state

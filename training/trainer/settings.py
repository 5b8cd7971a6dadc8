"""How long and how fast to train, and where that is written: configuration files and the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from fd2talk_core.checks import check_fields, check_number, check_type, check_whole, shown
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.files import reason_of

CONFIGS = Path(__file__).parents[1] / "configs"


@dataclass(frozen=True)
class TrainSettings:
    """How long and how fast to train; the section ``train`` of a stage's configuration.

    Attributes:
        steps: optimiser steps at most.
        minutes: time budget, 0 for none. The schedule ends at whichever of steps and minutes comes first.
        batch_size: samples a step, over all processes together.
        accumulate: parts in which a process computes its share of a batch, so that it needs less memory; a
            loss that compares the samples of a batch compares those of a part.
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
        compile: let torch compile the networks, which takes minutes and pays off in long runs on a GPU.
        tensorboard: also write TensorBoard events.
        seed: of the weights, the data order and the noise.
    """

    steps: int = 1000
    minutes: float = 0.0
    batch_size: int = 16
    accumulate: int = 1
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
    compile: bool = False
    tensorboard: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("steps", "batch_size", "accumulate", "log_every"):
            check_whole(getattr(self, name), name, 1)
        for name in ("workers", "validate_every"):
            check_whole(getattr(self, name), name, 0)
        for name in ("minutes", "warmup", "final_rate", "weight_decay", "clip", "save_seconds"):
            check_number(getattr(self, name), name, 0)
        check_number(self.learning_rate, "learning_rate", 0, over=True)
        check_number(self.ema, "ema", 0, 1)
        check_whole(self.seed, "seed", 0, 2**63 - 1)
        if self.precision not in ("no", "bf16", "fp16", "auto"):
            raise FD2TalkError(f"precision is {self.precision!r}, but it is one of: no, bf16, fp16, auto.")
        if self.optimizer not in ("adam", "adamw"):
            raise FD2TalkError(f"optimizer is {self.optimizer!r}, but it is one of: adam, adamw.")


def load_section(config: Path | str, stage: str) -> dict[str, Any]:
    """The section of a stage in a configuration file.

    Args:
        config: a path, or the name of a file in ``training/configs``.
    """
    content = _read_config(config)
    if not isinstance(content.get(stage), dict):
        raise FD2TalkError(f"The configuration {config} has no section {stage!r}.")
    size = check_type(content.get("size", "tiny"), f"size in the configuration {config}", str)
    face_model = check_type(content.get("face_model", ""), f"face_model in the configuration {config}", str)
    return {**content[stage], "size": size, "face_model": face_model}


def has_section(config: Path | str, stage: str) -> bool:
    """Whether a configuration, as :func:`load_section` takes it, says how to train a stage."""
    return stage in _read_config(config)


def _read_config(config: Path | str, within: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A configuration; of one that is ``like`` another, what it says over what that one does."""
    path = Path(config)
    if not path.exists() and (CONFIGS / f"{config}.yaml").exists():
        path = CONFIGS / f"{config}.yaml"
    if not path.is_file():
        names = ", ".join(sorted(p.stem for p in CONFIGS.glob("*.yaml")))
        raise FD2TalkError(f"There is no configuration {config}; give a file, or one of: {names}.")
    try:
        content = _yaml(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise FD2TalkError(f"{path} cannot be read ({reason_of(error)}).") from error
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise FD2TalkError(f"{path} is {shown(content)}, but a section for each stage is needed.")
    if "like" not in content:
        return content
    if path in within:
        raise FD2TalkError(f"{path} is like itself, by way of {shown(within[-1].name)}.")
    other = check_type(content.pop("like"), f"like in the configuration {config}", str)
    beside = path.parent / other
    return _over(content, _read_config(beside if beside.is_file() else other, (*within, path)))


def _over(changes: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with others over them, section by section."""
    both = {
        name: _over(change, values[name])
        for name, change in changes.items()
        if isinstance(change, Mapping) and isinstance(values.get(name), Mapping)
    }
    return {**values, **changes, **both}


def _yaml(text: str, place: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise FD2TalkError(f"{place} is not valid YAML ({reason[:300]}).") from error


def train_settings(section: Mapping[str, Any], **changes: Any) -> TrainSettings:
    """The section ``train`` of a stage, with changes from the command line (None leaves a value as it is)."""
    values = subsection(section, "train")
    known = {f.name for f in fields(TrainSettings)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise FD2TalkError(f"train has no setting {unknown[0]!r}; there are: {', '.join(sorted(known))}.")
    settings = TrainSettings(**values)
    return replace(settings, **{k: v for k, v in changes.items() if v is not None})


def subsection(section: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A part of a stage's section, empty where it has none.

    Raises:
        FD2TalkError: when it is something else than settings by name.
    """
    values = section.get(name)
    if values is None:
        return {}
    if not isinstance(values, Mapping) or not all(isinstance(key, str) for key in values):
        raise FD2TalkError(f"{name} is {shown(values)}, but settings by name are needed.")
    return dict(values)


def stage_options(section: Mapping[str, Any], defaults: Any) -> Any:
    """A frozen dataclass of a stage's own options, filled from its section."""
    values = {k: v for k, v in section.items() if k not in ("train", "size", "face_model", "network")}
    known = {f.name for f in fields(defaults)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise FD2TalkError(f"This stage has no option {unknown[0]!r}; there are: {', '.join(sorted(known))}.")
    unchecked = type(defaults).__new__(type(defaults))
    for field in fields(defaults):
        object.__setattr__(unchecked, field.name, values.get(field.name, getattr(defaults, field.name)))
    check_fields(unchecked)  # before the class compares what may be no numbers
    return replace(defaults, **values)


def apply_overrides(section: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """``a.b=value`` over a section, the value read as YAML."""
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not all(key.split(".")):
            raise FD2TalkError(f"--set takes name=value, not {text!r}.")
        target = section
        *path, last = key.split(".")
        for name in path:
            target = target.setdefault(name, {})
            if not isinstance(target, dict):
                raise FD2TalkError(f"--set {text}: {name} is {shown(target)}, which has no parts.")
        target[last] = _yaml(value, f"The value of --set {text}")
    return section

"""The one loop that every stage is trained with; see :mod:`training.trainer.loop`."""

from .loop import (
    Stage,
    Trainer,
    TrainSettings,
    draw_timestep,
    gathered,
    load_section,
    sample_seed,
    schedule,
    stage_main,
    stage_options,
    train,
    train_settings,
)

__all__ = [
    "Stage",
    "TrainSettings",
    "Trainer",
    "draw_timestep",
    "gathered",
    "load_section",
    "sample_seed",
    "schedule",
    "stage_main",
    "stage_options",
    "train",
    "train_settings",
]

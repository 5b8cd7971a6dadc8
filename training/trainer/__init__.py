"""The one loop that every stage is trained with; see :mod:`training.trainer.loop`."""

from .command import stage_main
from .devices import gathered
from .loop import Trainer, schedule, train
from .samples import sample_seed
from .settings import TrainSettings, has_section, load_section, stage_options, subsection, train_settings
from .stage import Stage, draw_timestep, seeded_network

__all__ = [
    "Stage",
    "TrainSettings",
    "Trainer",
    "draw_timestep",
    "gathered",
    "has_section",
    "load_section",
    "sample_seed",
    "schedule",
    "seeded_network",
    "stage_main",
    "stage_options",
    "subsection",
    "train",
    "train_settings",
]

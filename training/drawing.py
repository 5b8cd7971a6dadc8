"""Pictures that a run leaves for people to look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .measures import correlation


def save_grid(rows: list[Tensor], picture: Path) -> None:
    """Rows of images, each ``[columns, 3, H, W]`` in 0..1, as one PNG."""
    grid = torch.cat([torch.cat(list(row), dim=-1) for row in rows], dim=-2)
    pixels = (grid.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    Image.fromarray(np.ascontiguousarray(pixels)).save(picture)


def draw_motion(rows: list[tuple[list[Tensor], Tensor, Tensor]], picture: Path) -> None:
    """Curves over the truth: mouth opening, and the three angles, one row a clip."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 2.4 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, ((made, true), pose, true_pose) in zip(
        figure.subplots(len(rows), 2, squeeze=False), rows, strict=True
    ):
        axes[0].plot(true, color="0.6", label="truth")
        axes[0].plot(made, color="C0", label="sampled")
        axes[0].set_title(f"mouth opening, correlation {correlation(made, true):.2f}", fontsize=9)
        for column, name in enumerate(("pitch", "yaw", "roll")):
            axes[1].plot(true_pose[:, column], color=f"C{column}", alpha=0.35)
            axes[1].plot(pose[:, column], color=f"C{column}", label=name)
        axes[1].set_title("head angles in radians (pale: truth)", fontsize=9)
    axes[0].legend(fontsize=8)
    axes[1].legend(fontsize=8)
    figure.savefig(picture, dpi=70)


def draw_curves(panels: list[tuple[str, dict[str, Tensor]]], fps: float, picture: Path) -> None:
    """Curves over seconds, one panel under the other.

    Args:
        panels: title, and curves ``[F]`` by name.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 1.5 * len(panels)), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, (title, curves) in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True):
        for name, values in curves.items():
            axis.plot(
                torch.arange(len(values)) / fps, values, label=name, color="0.6" if name == "real" else None
            )
        axis.set_title(title, fontsize=9)
        axis.legend(fontsize=7, loc="upper right")
    axis.set_xlabel("seconds", fontsize=8)
    figure.savefig(picture, dpi=70)

"""A stage small enough to be trained, killed and trained again inside a test: a regression."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from training.trainer import Stage, TrainSettings, train


class ToyStage(Stage):
    """Fits ``y = sin(3 x)`` from noisy samples; with dropout the result depends on the random state too."""

    name, score = "toy", "fit"

    def __init__(self, pause: float = 0.0, dropout: float = 0.02) -> None:
        torch.manual_seed(0)
        super().__init__(
            {"net": nn.Sequential(nn.Linear(1, 32), nn.GELU(), nn.Dropout(dropout), nn.Linear(32, 1))}
        )
        self.pause = pause

    def sample(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        x = torch.rand(1, generator=generator) * 2 - 1
        return {"x": x, "y": torch.sin(3 * x) + 0.05 * torch.randn(1, generator=generator)}

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        time.sleep(self.pause)
        loss = (self.networks["net"](batch["x"]) - batch["y"]).square().mean()
        return {"loss": loss}

    def validate(self, folder: Path | None) -> dict[str, float]:
        x = torch.linspace(-1, 1, 50)[:, None]
        with torch.no_grad():
            error = (self.networks["net"](x) - torch.sin(3 * x)).square().mean()
        return {"fit": -float(error)}

    def export(self, weights: Path, trained_on: str) -> None:
        weights.mkdir(parents=True, exist_ok=True)
        state = {k: v.contiguous() for k, v in self.networks["net"].state_dict().items()}
        save_file(state, weights / "net.safetensors", {"trained_on": trained_on})


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--dropout", type=float, default=0.02)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--accumulate", type=int, default=1)
    given = parser.parse_args(arguments)
    settings = TrainSettings(
        steps=given.steps,
        batch_size=8,
        learning_rate=0.01,
        save_seconds=0.05,
        log_every=1,
        workers=given.workers,
        accumulate=given.accumulate,
    )
    train(
        ToyStage(given.pause, given.dropout),
        settings,
        given.folder / "run",
        given.folder / "weights",
        "a sine",
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()

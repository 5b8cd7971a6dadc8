"""What the loop asks of a stage: samples, a loss, a measure, and files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.networks.checkpoint import load_checkpoint
from fd2talk_core.networks.diffusion import TRAIN_STEPS

Network = TypeVar("Network", bound=nn.Module)


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
            own = network.state_dict()
            frozen = {key for key, value in network.named_parameters() if not value.requires_grad}
            # a part that is frozen as a whole may have had another form
            whole = tuple(f"{name}." for name, part in network.named_children() if _is_frozen(part))
            given = {key: value for key, value in given.items() if not key.startswith(whole)}
            given |= {key: value for key, value in own.items() if key in frozen or key.startswith(whole)}
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


def _is_frozen(part: nn.Module) -> bool:
    parameters = list(part.parameters())
    return bool(parameters) and not any(value.requires_grad for value in parameters)


def draw_timestep(visited: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """A timestep to train at: one of those that sampling visits in a ``share`` of the cases, else any."""
    if share and torch.rand((), generator=generator) < share:
        return visited[torch.randint(len(visited), (), generator=generator)]
    return torch.randint(TRAIN_STEPS, (), generator=generator)


def seeded_network(kind: type[Network], arguments: Mapping[str, object], seed: int, section: str) -> Network:
    """An untrained network of a stage; the global random state is left as it was.

    Raises:
        FD2TalkError: naming the section of the configuration whose ``network`` builds none.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return kind.from_config(arguments)
        except FD2TalkError:
            raise
        except (TypeError, ValueError) as error:
            raise FD2TalkError(f"The section {section}.network cannot be built ({error}).") from error

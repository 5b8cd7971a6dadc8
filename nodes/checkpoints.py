"""What the nodes with a network have in common: a widget that chooses its weights."""

from __future__ import annotations

from typing import Any

from comfy_api.v0_0_2 import io

from . import host


class CheckpointNode(io.ComfyNode):
    """A node whose widget :attr:`WIDGET` chooses the weights of :attr:`NETWORK`.

    The host inspects the parameters of ``validate_inputs``. It passes the inputs that are named there (None
    for one that another node sets, which is checked when the node runs) and leaves the checks of range and
    choice of those to the node; with ``**`` it would leave out its checks of all inputs.
    """

    NETWORK: str
    WIDGET = "checkpoint"

    @classmethod
    def checkpoint_input(cls, tooltip: str) -> io.Combo.Input:
        return io.Combo.Input(cls.WIDGET, options=host.list_checkpoints(cls.NETWORK), tooltip=tooltip)

    @classmethod
    def validate_inputs(cls, checkpoint: str | None = None, autoencoder: str | None = None) -> bool | str:
        name = autoencoder if checkpoint is None else checkpoint
        return name is None or host.check_checkpoint(cls.NETWORK, name)

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> str:
        return host.fingerprint_checkpoint(cls.NETWORK, inputs.get(cls.WIDGET))

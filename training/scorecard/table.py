"""The table: rows with a target, or a reason why they could not be measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: of the measure.
        value: None where it could not be measured.
        target: what it should reach, None where it is only reported.
        best: ``"high"`` or ``"low"``.
        note: what stands beside it.
    """

    name: str
    value: float | None
    target: float | None = None
    best: str = "high"
    note: str = ""

    @property
    def met(self) -> bool | None:
        if self.value is None or self.target is None:
            return None
        return self.value >= self.target if self.best == "high" else self.value <= self.target


def table(rows: Sequence[Row]) -> str:
    """The rows as text."""
    lines = [f"{'measure':48s} {'reached':>9s} {'target':>9s}"]
    for row in rows:
        value = "–" if row.value is None else f"{row.value:.3f}"
        target = "" if row.target is None else f"{'≥' if row.best == 'high' else '≤'} {row.target:.3g}"
        mark = {True: "met", False: "MISSED", None: ""}[row.met]
        lines.append(f"{row.name:48s} {value:>9s} {target:>9s} {mark:7s} {row.note}".rstrip())
    return "\n".join(lines)


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Cells under each other, two spaces apart."""
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]

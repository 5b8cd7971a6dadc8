"""``report.html``: how much was kept and why the rest was not, with pictures of both."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from fd2talk_core.audio.features import NATIVE_FPS
from fd2talk_core.files import replacing

from .cutting import REASONS
from .packing import SHARES, Prepared, picture_of

MOST_KEPT, MOST_DROPPED = 60, 12
"""Pictures of kept clips, and of dropped ones for each reason."""

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1080px; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0; }
td, th { padding: 0.25rem 0.9rem 0.25rem 0; text-align: left; border-bottom: 1px solid #ddd; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
figure { display: inline-block; margin: 0 1rem 1rem 0; vertical-align: top; max-width: 660px; }
figure img { display: block; max-width: 100%; height: auto; border-radius: 4px; }
figcaption { font-size: 13px; color: #555; }
@media (prefers-color-scheme: dark) {
  body { background: #1b1b1b; color: #ddd; } figcaption { color: #aaa; } td, th { border-color: #444; }
}
"""


@dataclass(frozen=True)
class Tally:
    """How much there is.

    Attributes:
        kept, seconds: clips and their length by side of the split.
        silent: kept clips that serve stage two only.
        dropped, lost: how often each reason was met, and seconds of it.
    """

    kept: Counter[str]
    seconds: Counter[str]
    silent: int
    dropped: Counter[str]
    lost: Counter[str]

    @classmethod
    def of(cls, prepared: Prepared) -> Tally:
        kept, seconds, dropped, lost = Counter(), Counter(), Counter(), Counter()
        silent = 0
        for film in prepared.films.values():
            for clip in film["clips"]:
                side = prepared.people[film["person"]]
                kept[side] += 1
                seconds[side] += clip["frames"] / NATIVE_FPS
                silent += not clip["heard"]
            for part in film["dropped"]:
                dropped[part["reason"]] += 1
                lost[part["reason"]] += part["frames"] / NATIVE_FPS
        return cls(kept, seconds, silent, dropped, lost)

    def __str__(self) -> str:
        """For the terminal."""
        sides = ", ".join(f"{self.kept[side]} {side}" for side in SHARES)
        lines = [f"kept {self.kept.total()} clips, {self.seconds.total() / 60:.1f} min ({sides})"]
        if self.silent:
            lines.append(f"  {self.silent} of them silent: they serve the stages of pictures only")
        lines.append(f"dropped {self.dropped.total()}, {self.lost.total() / 60:.1f} min")
        lines += [f"  {count:6d}  {REASONS[reason]}" for reason, count in self.dropped.most_common()]
        return "\n".join(lines)


def write_report(prepared: Prepared, out: Path) -> Path:
    """Write the page, which needs no other file."""
    tally = Tally.of(prepared)
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width'><title>Prepared clips</title>",
        f"<style>{_STYLE}</style><h1>Prepared clips</h1>",
        f"<p>{len(prepared.films)} films, {len(prepared.people)} people. Kept: {tally.kept.total()} clips, "
        f"{tally.seconds.total() / 60:.1f} min, of which {tally.silent} are silent. "
        f"Dropped: {tally.dropped.total()} stretches, {tally.lost.total() / 60:.1f} min.</p>",
        _table(
            ("side", "people", "clips", "minutes"),
            [
                (
                    side,
                    sum(place == side for place in prepared.people.values()),
                    tally.kept[side],
                    f"{tally.seconds[side] / 60:.1f}",
                )
                for side in SHARES
            ],
        ),
        *(["<h2>Why material was dropped</h2>"] if tally.dropped else []),
        _table(
            ("reason", "times", "minutes"),
            [
                (REASONS[name], count, f"{tally.lost[name] / 60:.1f}")
                for name, count in tally.dropped.most_common()
            ],
        ),
        "<h2>Kept</h2><p>Dots mark lips and lids of the fitted face model.</p>",
        *_figures(out, _kept(prepared), MOST_KEPT),
        *(["<h2>Dropped</h2>"] if tally.dropped else []),
    ]
    for reason in tally.dropped:
        parts.append(f"<h3>{escape(REASONS[reason])}</h3>")
        parts += _figures(out, _dropped(prepared, reason), MOST_DROPPED)
    path = out / "report.html"
    with replacing(path) as partial:
        partial.write_text("\n".join(parts), encoding="utf-8")
    return path


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    if not rows:
        return ""
    lines = ["<tr>" + "".join(f"<th>{escape(name)}</th>" for name in head) + "</tr>"]
    for first, *rest in rows:
        cells = "".join(f"<td class=number>{escape(str(value))}</td>" for value in rest)
        lines.append(f"<tr><td>{escape(str(first))}</td>{cells}</tr>")
    return "<table>" + "".join(lines) + "</table>"


Shown = tuple[str, int, str]
"""Key of a film, number of a result in it, and what is said of it."""


def _kept(prepared: Prepared) -> Iterable[Shown]:
    for key, film in prepared.films.items():
        for clip in film["clips"]:
            words = [
                film["place"],
                f"{clip['first'] / NATIVE_FPS:.1f} s, {clip['frames'] / NATIVE_FPS:.1f} s long",
                f"quality {clip['quality']:.2f}",
            ]
            if not clip["heard"]:
                words.append("silent")
            elif "sync" in clip:
                words.append("sync {confidence:.3f} at {offset:+d} frames".format(**clip["sync"]))
            yield key, clip["number"], " · ".join(words)


def _dropped(prepared: Prepared, reason: str) -> Iterable[Shown]:
    for key, film in prepared.films.items():
        for part in film["dropped"]:
            if part["reason"] == reason:
                at = f"{part['first'] / NATIVE_FPS:.1f} s, {part['frames'] / NATIVE_FPS:.1f} s long"
                told = [
                    film["place"],
                    *([at] if part["frames"] else []),
                    *([part["told"]] if part["told"] else []),
                ]
                yield key, part["number"], " · ".join(told)


def _figures(out: Path, shown: Iterable[Shown], most: int) -> list[str]:
    """Evenly chosen ones that have a picture; those without, as a list."""
    entries = list(shown)
    step = max(1, -(-len(entries) // most))
    figures = []
    for key, number, words in entries[::step]:
        picture = picture_of(out, key, number)
        image = ""
        if picture is not None:
            data = base64.b64encode(picture).decode()
            image = f"<img alt='' src='data:image/jpeg;base64,{data}'>"
        figures.append(f"<figure>{image}<figcaption>{escape(words)}</figcaption></figure>")
    return figures

"""The result as a table on the terminal, as CSV, and as a page."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

from ..scorecard.table import aligned
from .bench import Evaluation
from .columns import BY_KEY, COLUMNS, OURS, Column
from .scoring import CHANCE, MADE, REAL, Summary

ROWS = {REAL: "real clips", MADE: "made", CHANCE: "chance"}

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .3rem .7rem; text-align: right }
th { background: #f3f3f3 } td:first-child, th:first-child, .words { text-align: left }
.wide { overflow-x: auto; font-size: 13px } .wide td, .wide th { padding: .25rem .4rem }
tr { border-bottom: 1px solid #ddd } tr.made { font-weight: 600 } .none { color: #888 }
small { color: #666 } img { max-width: 100%; display: block; margin: .4rem 0 } h2 { margin-top: 2.2rem }
"""


def number(summary: Summary, row: str) -> str:
    """Mean and deviation over clips of one row, ``–`` where there is none."""
    if row not in summary.mean:
        return "–"
    text = f"{summary.mean[row]:.3f}" if abs(summary.mean[row]) < 100 else f"{summary.mean[row]:.1f}"
    return f"{text} ± {summary.deviation[row]:.3f}" if row in summary.deviation else text


def text_table(result: Evaluation) -> str:
    """One line a column of the papers, its values beside each other."""
    lines = [("measure", "paper", *ROWS.values(), "")]
    for column in COLUMNS:
        summary = result.columns[column.key]
        lines.append(
            (column.heading, column.paper, *(number(summary, row) for row in ROWS), _note(column, summary))
        )
    head = f"{result.model}: {_counted(len(result.clips), 'clip')}, each made from {_source(result)}"
    return "\n".join([head, *aligned(lines), *result.left_out])


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _source(result: Evaluation) -> str:
    return f"its first frame and its {'own motion' if result.options.driven else 'sound'}"


def _note(column: Column, summary: Summary) -> str:
    if summary.note:
        return summary.note
    count = summary.clips.get(MADE, 0)
    return f"of {_counted(count, 'sample')}" if column.of_set else ""


def csv_table(result: Evaluation) -> str:
    """A row a clip, then those of the whole set; columns as in :data:`~training.evaluate.columns.COLUMNS`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    keys = [column.key for column in COLUMNS]
    writer.writerow(["clip", "row", "frames", *keys])
    for clip in result.clips:
        for row in ROWS:
            if clip.values[row]:
                writer.writerow(
                    [clip.name, row, clip.frames, *(clip.values[row].get(key, "") for key in keys)]
                )
    frames = sum(clip.frames for clip in result.clips)
    for row in ROWS:
        means = (result.columns[key].mean.get(row, "") for key in keys)
        writer.writerow(["(all)", row, frames, *means])
    return text.getvalue()


def html_page(result: Evaluation) -> str:
    """A page beside the folder ``clips`` with its pictures, and ``plots.png``."""
    frames = sum(clip.frames for clip in result.clips)
    body = [
        f"<h1>{escape(result.model)}</h1>",
        f"<p>{_counted(len(result.clips), 'clip')}, {frames} frames at 25 per second, each made again from "
        f"{_source(result)} (seed {result.options.seed}, at most {result.options.seconds:g} s). "
        "Values are means and deviations over clips.</p>",
        _side_by_side(result, [column for column in COLUMNS if column.paper != OURS]),
        _side_by_side(result, [column for column in COLUMNS if column.paper == OURS]),
        "<h2>The measures</h2>",
        _about_table(result),
        "<h2>By clip</h2>",
        '<img src="plots.png" alt="each measure by clip: real, made and chance">',
    ]
    if result.left_out:
        body.append("<ul>" + "".join(f"<li>{escape(line)}</li>" for line in result.left_out) + "</ul>")
    for clip in result.clips:
        place = f"clips/{escape(clip.name)}"
        body += [
            f"<h3>{escape(clip.name)} <small>{clip.frames} frames; above real, below made</small></h3>",
            f'<img src="{place}/frames.png" alt="frames, real over made">',
            f'<img src="{place}/curves.png" alt="lips, head and loudness over time">',
        ]
    return (
        '<!doctype html>\n<html lang="en"><meta charset="utf-8">'
        f"<title>{escape(result.model)}</title><style>{_STYLE}</style>\n" + "\n".join(body) + "\n</html>\n"
    )


def _side_by_side(result: Evaluation, columns: Sequence[Column]) -> str:
    """Measures beside each other, as the papers print them; why one is missing stands in the table below."""
    heads = "".join(f"<th>{escape(c.heading)}<br><small>{c.paper}</small></th>" for c in columns)
    lines = []
    for row, name in ROWS.items():
        shown = (number(result.columns[column.key], row).partition(" ± ") for column in columns)
        cells = "".join(
            f"<td>{mean}{f'<br><small>± {deviation}</small>' if deviation else ''}</td>"
            for mean, _, deviation in shown
        )
        lines.append(f'<tr class="{row}"><td>{name}</td>{cells}</tr>')
    return f'<div class="wide"><table><tr><th></th>{heads}</tr>{"".join(lines)}</table></div>'


def _about_table(result: Evaluation) -> str:
    lines = []
    for column in COLUMNS:
        summary = result.columns[column.key]
        value = number(summary, MADE) if summary.mean else f'<span class="none">{escape(summary.note)}</span>'
        chance = f"chance: {column.chance}" if column.chance else ""
        lines.append(
            f'<tr><td>{escape(column.heading)}</td><td class="words">{escape(column.about)}'
            f'<br><small>{escape(chance)}</small></td><td class="words">{value}</td></tr>'
        )
    heads = '<th>measure</th><th class="words">what it is</th><th class="words">made</th>'
    return f"<table><tr>{heads}</tr>{''.join(lines)}</table>"


def draw_plots(result: Evaluation, picture: Path) -> None:
    """A panel a measure that single clips have: a dot a clip and row, means as bars."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [
        key
        for key in BY_KEY
        if not BY_KEY[key].of_set and any(key in clip.values[MADE] for clip in result.clips)
    ]
    columns = min(5, len(shown))
    lines = -(-len(shown) // columns)
    figure = Figure(figsize=(2.4 * columns, 2.1 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    colours = {REAL: "0.6", MADE: "C0", CHANCE: "C1"}
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for axis, key in zip(axes, shown, strict=False):
        rows = [row for row in ROWS if any(key in clip.values[row] for clip in result.clips)]
        for place, row in enumerate(rows):
            values = [clip.values[row][key] for clip in result.clips if key in clip.values[row]]
            axis.bar(place, result.columns[key].mean[row], color=colours[row], alpha=0.4)
            axis.plot([place] * len(values), values, "o", color=colours[row], markersize=4)
        axis.set_xticks(range(len(rows)), [ROWS[row] for row in rows], fontsize=7)
        axis.tick_params(axis="y", labelsize=7)
        axis.set_title(BY_KEY[key].heading, fontsize=9)
    for axis in axes[len(shown) :]:
        axis.axis("off")
    figure.savefig(picture, dpi=80)

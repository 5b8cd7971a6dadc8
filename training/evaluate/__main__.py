"""``python -m training.evaluate --set DIR --model NAME``: the papers' tables of a set of weights.

The first frame and the sound of each clip go in, and the clip comes out again; both are compared. A measure
whose network is not at hand says which file it needs and from where.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from fd2talk_core.files import replacing, writing
from fd2talk_core.networks.checkpoint import SHIPPED
from fd2talk_core.terminal import run_command

from ..scorecard.weights import Weights
from .bench import as_dict, evaluate
from .files import FILES, FOLDER
from .making import MakingOptions
from .page import csv_table, draw_plots, html_page, text_table
from .scoring import Instruments


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--set", type=Path, required=True, metavar="DIR", help="folder of talking clips, one face each"
    )
    parser.add_argument("--model", default="tiny", help="a shipped set, or a folder with one file a network")
    parser.add_argument(
        "--out", type=Path, help="for the page, tables and what is kept of each clip; runs/evaluate/MODEL"
    )
    parser.add_argument(
        "--driven",
        action="store_true",
        help="drive the first frame by the clip's own motion, not by its sound",
    )
    defaults = MakingOptions()
    parser.add_argument(
        "--seconds", type=float, default=defaults.seconds, help="of each clip, from its start"
    )
    parser.add_argument("--seed", type=int, default=defaults.seed, help="of the motion")
    parser.add_argument(
        "--seeds", type=int, default=defaults.seeds, help="motions sampled for the diversity of expressions"
    )
    parser.add_argument(
        "--instruments",
        type=Path,
        default=FOLDER,
        metavar="DIR",
        help=f"folder with the measuring networks' files ({', '.join(file.name for file in FILES)}); "
        f"{FOLDER} by default",
    )
    given = parser.parse_args(arguments)
    return run_command(lambda: _evaluate(given), prefix="error: ")


def _evaluate(given: argparse.Namespace) -> str:
    options = MakingOptions(given.seconds, given.driven, given.seed, given.seeds)
    shipped = SHIPPED / given.model
    folder = shipped if shipped.is_dir() else Path(given.model)
    weights = Weights.load(folder)
    out = given.out or Path("runs") / "evaluate" / folder.name
    result = evaluate(weights, given.model, given.set, options, Instruments.load(given.instruments), out)
    text = text_table(result)
    content = json.dumps(as_dict(result), indent=2, ensure_ascii=False)
    with writing(out):
        draw_plots(result, out / "plots.png")
    files = {"txt": text + "\n", "json": content, "csv": csv_table(result), "html": html_page(result)}
    for ending, written in files.items():
        with replacing(out / f"evaluation.{ending}") as partial:
            partial.write_text(written, encoding="utf-8")
    return f"{text}\n{out / 'evaluation.html'}"


if __name__ == "__main__":
    raise SystemExit(main())

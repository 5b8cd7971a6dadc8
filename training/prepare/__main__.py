"""``python -m training.prepare --dataset NAME --in DIR --out DIR``: see the package."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from fd2talk_core.checks import check_whole
from fd2talk_core.terminal import run_command

from .cutting import CutSettings, settings_words
from .films import DATASETS, Film, find_films
from .packing import Prepared, ShardTask, clear_parts, pack_shard
from .parts import FilmTask, cut_and_keep, read_summary, summary_file
from .report import Tally, write_report
from .work import work_through

MOST_SHOWN = 150
"""Films of which pictures are kept for the report."""


def main(arguments: list[str] | None = None) -> int:
    defaults = CutSettings()
    parser = argparse.ArgumentParser(
        prog="python -m training.prepare",
        description="Turn films of talking people into shards that the stages read.",
    )
    parser.add_argument("--dataset", choices=sorted(DATASETS), required=True, help="how the films are named")
    parser.add_argument("--in", dest="source", type=Path, required=True, help="folder of films")
    parser.add_argument("--out", type=Path, required=True, help="folder for shards and report")
    parser.add_argument("--size", type=int, default=defaults.size, help="side of the crops: 256 or 512")
    parser.add_argument(
        "--min-seconds", type=float, default=defaults.min_seconds, help="shorter clips are dropped"
    )
    parser.add_argument(
        "--max-frames", type=int, default=defaults.max_frames, help="longer clips are cut, at 25 fps"
    )
    parser.add_argument(
        "--min-quality", type=float, default=defaults.min_quality, help="worse fits are dropped, 0 to 1"
    )
    parser.add_argument(
        "--pictures", type=int, default=defaults.pictures, help="frames of each clip for stage two"
    )
    parser.add_argument(
        "--videos", action="store_true", help="also write every frame of what is trained on: videos-*.tar"
    )
    parser.add_argument(
        "--sync-weights",
        type=Path,
        metavar="DIR",
        help="drop clips whose lips do not go with the sound, by the lip expert in this weights folder",
    )
    parser.add_argument(
        "--min-sync", type=float, default=defaults.min_sync, help="confidence that the lip expert must have"
    )
    parser.add_argument(
        "--coefficients",
        type=Path,
        metavar="DIR",
        help="take Deep3D's coefficients in place of our fit: PLACE.mat for each film, a row a frame",
    )
    parser.add_argument("--face-model", type=Path, metavar="FILE", help="the face model that they are of")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes, one for each core by default"
    )
    parser.add_argument(
        "--ray", nargs="?", const="local", metavar="ADDRESS", help="work on a Ray cluster, or a local one"
    )
    given = parser.parse_args(arguments)
    return run_command(lambda: prepare(given), prefix="error: ")


def prepare(given: argparse.Namespace) -> str:
    """Cut all films that are not done, pack them, and say what came of it.

    Raises:
        FD2TalkError: for bad options, a folder that cannot be used, or what an earlier run left in ``--out``.
    """
    check_whole(given.workers, "--workers", 1, 1024)
    settings = CutSettings(
        size=given.size,
        min_seconds=given.min_seconds,
        max_frames=given.max_frames,
        min_quality=given.min_quality,
        pictures=given.pictures,
        sync_weights=_place(given.sync_weights),
        coefficients=_place(given.coefficients),
        face_model=_place(given.face_model),
        min_sync=given.min_sync,
        sound=given.dataset != "vfhq",
    )
    out, parts = given.out, given.out / "parts"
    words = {"dataset": given.dataset, **settings_words(settings)}
    if given.videos:
        words["videos"] = True
    prepared = Prepared.read(out / "prepared.json", words)
    films = {film.key: film for film in find_films(given.source, given.dataset)}
    new = [film for key, film in films.items() if key not in prepared.films]
    _cut(new, parts, settings, given)
    if new:
        prepared = prepared.added({film.key: read_summary(parts, film.key) for film in new})
        prepared.write(out / "prepared.json")
    _pack(prepared, films, out, given)
    clear_parts(out, prepared.films)
    shutil.rmtree(parts, ignore_errors=True)
    page = write_report(prepared, out)
    heard = "" if settings.sync_weights or not settings.sound else _UNHEARD
    return f"{Tally.of(prepared)}\n{heard}data for the stages: {out / 'data'}; report: {page}"


def _place(path: Path | None) -> str:
    return "" if path is None else str(path.resolve())


_UNHEARD = "whether lips go with the sound was not asked: give --sync-weights\n"


def _cut(films: list[Film], parts: Path, settings: CutSettings, given: argparse.Namespace) -> None:
    from tqdm import tqdm

    every = max(1, len(films) // MOST_SHOWN)
    tasks = [FilmTask(film, parts, settings, number % every == 0) for number, film in enumerate(films)]
    done = sum(summary_file(parts, film.key).exists() for film in films)
    tasks = [task for task in tasks if not summary_file(parts, task.film.key).exists()]
    kept = dropped = 0
    with tqdm(total=len(films), initial=done, desc="cutting", unit="film", disable=not films) as bar:
        for summary in work_through(cut_and_keep, tasks, given.workers, given.ray):
            kept, dropped = kept + len(summary["clips"]), dropped + len(summary["dropped"])
            bar.set_postfix_str(f"{kept} clips kept, {dropped} dropped", refresh=False)
            bar.update(1)


def _pack(prepared: Prepared, films: dict[str, Film], out: Path, given: argparse.Namespace) -> None:
    from tqdm import tqdm

    tasks = []
    for name, keys in prepared.shards.items():
        held = [(_film(key, films, prepared, given.source), prepared.films[key]) for key in keys]
        task = ShardTask(out, name, held, prepared.settings["size"], given.videos)
        if task.missing():
            tasks.append(task)
    with tqdm(total=len(tasks), desc="packing", unit="shard", disable=not tasks) as bar:
        for _ in work_through(pack_shard, tasks, given.workers, given.ray):
            bar.update(1)


def _film(key: str, films: dict[str, Film], prepared: Prepared, source: Path) -> Film:
    """A film that was found now, or that an earlier run found."""
    told = prepared.films[key]
    return films.get(key) or Film(source / told["place"], told["place"], told["person"])


if __name__ == "__main__":
    sys.exit(main())

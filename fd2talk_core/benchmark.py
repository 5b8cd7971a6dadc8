"""``python -m fd2talk_core.benchmark``: what a frame costs on this machine, stage by stage.

Each setting (a picture, a number of threads, a device) is measured in a process of its own, from the voice to
the written file: after one short clip that nobody times, one that counts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from . import __version__
from .audio.reading import read_audio
from .errors import FD2TalkError
from .imaging import read_image
from .metering import StageMeter, peak_megabytes
from .networks.flops import flop_counter
from .pipeline import FD2TalkPipeline
from .terminal import run_command

EXAMPLES = Path(__file__).resolve().parent.parent / "example_inputs"

PICTURES = {"256": "crop of 256 px", "512": "picture of 512 x 512", "4k": "picture of 3840 x 2160"}
"""What the frames are: the square crop, or the whole picture into which it is pasted."""

STAGES = (
    "audio",
    "motion",
    "correspondence",
    "alignment",
    "UNet",
    "decoder",
    "blend",
    "close-ups",
    "paste",
    "video and rest",
)
"""In the order in which a frame passes them."""

FPS = 25.0
WARM_UP = 0.4
"""Seconds of the clip that is not timed, and of the one whose operations are counted."""

BEGIN, END = "<!-- benchmark: made by python -m fd2talk_core.benchmark -->", "<!-- end of benchmark -->"


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Attributes:
        picture: one of :data:`PICTURES`.
        threads: cores that the process may use.
        device: of the networks.
        seconds: of speech.
        portrait, speech: files.
        weights: a shipped set or a folder of checkpoints.
    """

    picture: str
    threads: int
    device: str
    seconds: float
    portrait: str
    speech: str
    weights: str = "tiny"


@dataclass(frozen=True)
class Result:
    """What it costs. Seconds are wall time; core seconds add up over the cores at work, whatever else the
    machine does.

    Attributes:
        start_seconds: until the portrait is known; once a clip.
        frame_seconds: of the rest, sound and file included, by frame.
        real_time_factor: of the rest, by second of speech; below 1 the video is made faster than it plays.
        processor_seconds: core seconds of the rest, by frame.
        core_seconds: by frame and stage; on another device than the processor, wall seconds.
        gflop: by frame and stage, where there is any.
        peak_megabytes: of the process, None where the system does not tell.
    """

    setting: Setting
    frames: int
    start_seconds: float
    frame_seconds: float
    real_time_factor: float
    processor_seconds: float
    core_seconds: dict[str, float]
    gflop: dict[str, float]
    peak_megabytes: float | None
    machine: dict[str, str] = field(default_factory=dict)


def measure(setting: Setting) -> Result:
    """Make a video and say what it cost; to be called in a process that has done nothing else."""
    torch.set_num_threads(setting.threads)
    pipeline = FD2TalkPipeline.from_pretrained(setting.weights, device=setting.device)
    picture, (waveform, rate) = _portrait(setting), read_audio(setting.speech)

    def make(seconds: float) -> int:
        """The number of frames."""
        sound = waveform[:, : round(seconds * rate)], rate
        video = pipeline(picture, sound, fps=FPS, paste_back=setting.picture != "256")
        with tempfile.TemporaryDirectory() as folder:
            video.save(Path(folder) / "talking.mp4")
        return video.num_frames

    make(WARM_UP)
    clock = _clock(setting.device)
    began, worked = time.perf_counter(), time.process_time()
    with StageMeter(clock).listening() as spent:
        frames = make(setting.seconds)
    wall, work = time.perf_counter() - began, time.process_time() - worked
    peak = peak_megabytes()

    start = spent.totals.pop("portrait")
    total = wall if clock is not time.thread_time else work
    spent.totals["video and rest"] = max(0.0, total - start - sum(spent.totals.values()))
    torch.set_num_threads(1)  # the counter does not see other threads
    counter = flop_counter()
    with torch.no_grad(), counter, StageMeter(counter.get_total_flops).listening() as counted:
        counted_frames = make(WARM_UP)
    portrait, speech = (Path(path).name for path in (setting.portrait, setting.speech))
    return Result(
        replace(setting, portrait=portrait, speech=speech),  # results may be shown to others
        frames,
        start,
        (wall - start) / frames,
        (wall - start) * FPS / frames,
        (work - start) / frames if setting.device == "cpu" else work / frames,
        {name: spent.totals[name] / frames for name in STAGES if name in spent.totals},
        {name: counted.totals[name] / counted_frames / 1e9 for name in STAGES if counted.totals.get(name)},
        peak,
        _machine(setting.device),
    )


def table(results: Iterable[Result]) -> str:
    """Markdown: what settings cost as a whole, and below what the stages do on one core."""
    results = list(results)
    whole = [("frames", "on", "seconds by frame", "core seconds by frame", "real-time factor", "peak memory")]
    for result in results:
        picture, where = PICTURES[result.setting.picture], _where(result.setting)
        memory = "" if result.peak_megabytes is None else f"{result.peak_megabytes / 1000:.2f} GB"
        figures = f"{result.frame_seconds:.3f}", f"{result.processor_seconds:.3f}"
        whole.append((picture, where, *figures, f"{result.real_time_factor:.2f}", memory))
    single = [result for result in results if result.setting.threads == 1] or results
    heads = [f"{PICTURES[result.setting.picture]}, {_where(result.setting)}" for result in single]
    stages = [("milliseconds by frame", *heads, "GFLOP")]
    for name in STAGES:
        spent = [f"{1000 * result.core_seconds.get(name, 0.0):.1f}" for result in single]
        stages.append((name, *spent, f"{single[0].gflop[name]:.2f}" if name in single[0].gflop else ""))
    machine = results[0].machine
    told = f"Measured on {machine['processor']}, torch {machine['torch']}, {machine['numbers']}."
    return "\n\n".join([_markdown(whole), _markdown(stages), told])


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, "|" + " --- |" * len(rows[0]), *body])


def put_table(document: Path, text: str) -> None:
    """Write a table between the marks of a Markdown document.

    Raises:
        FD2TalkError: when it has no such marks.
    """
    whole = document.read_text(encoding="utf-8")
    before, begin, rest = whole.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise FD2TalkError(
            f"{document.name} has no place for the table: put the lines {BEGIN} and {END} there."
        )
    document.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")


def load_results(path: Path | str) -> list[Result]:
    """What :func:`main` wrote as JSON."""
    given = json.loads(Path(path).read_text(encoding="utf-8"))["results"]
    return [Result(**{**result, "setting": Setting(**result["setting"])}) for result in given]


def main(arguments: list[str] | None = None) -> int:
    """Measure every setting asked for; returns the exit status, see
    :func:`~fd2talk_core.terminal.run_command`.
    """
    options = _parse(arguments)
    return run_command(lambda: _measured(options))


def _measured(options: argparse.Namespace) -> str:
    """The table of every setting asked for, also written where that was asked."""
    results = []
    for setting in _settings(options):
        # a process each: memory has a peak of its own, and no setting warms another one up
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            results.append(process.submit(measure, setting).result())
        print(
            f"{PICTURES[setting.picture]}, {_where(setting)}: {results[-1].frame_seconds:.3f} s",
            file=sys.stderr,
        )
    if options.readme is not None:
        put_table(options.readme, table(results))
    if options.json is not None:
        content = {"version": __version__, "results": [asdict(result) for result in results]}
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return table(results)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m fd2talk_core.benchmark", description="What a frame costs on this machine."
    )
    parser.add_argument("--portrait", type=Path, default=EXAMPLES / "portrait.png")
    parser.add_argument("--speech", type=Path, default=EXAMPLES / "speech.wav")
    parser.add_argument("--seconds", type=float, default=4.0, help="of the speech")
    parser.add_argument(
        "--pictures", nargs="+", choices=PICTURES, default=list(PICTURES), help="what to make"
    )
    parser.add_argument("--threads", nargs="+", type=int, help="of the processor; 1 and all cores")
    parser.add_argument("--devices", nargs="+", help="cpu, cuda or mps; all that there are")
    parser.add_argument("--weights", default="tiny", help="a shipped set or a folder of checkpoints")
    parser.add_argument("--json", type=Path, help="write the results to a file")
    parser.add_argument("--readme", type=Path, help="put the table into a document, between its marks")
    return parser.parse_args(arguments)


def _settings(options: argparse.Namespace) -> list[Setting]:
    for path in (options.portrait, options.speech):
        if not path.is_file():
            raise FD2TalkError(f"There is no {path}: give a file by --portrait and one by --speech.")
    devices = options.devices or ["cpu", *_accelerators()]
    settings = []
    for picture in options.pictures:
        for device in devices:
            every = options.threads or sorted({1, _cores()})
            for threads in every if device == "cpu" else every[-1:]:
                files = str(options.portrait), str(options.speech)
                settings.append(Setting(picture, threads, device, options.seconds, *files, options.weights))
    return settings


def _portrait(setting: Setting) -> Tensor:
    """``[H, W, 3]``: the portrait as it is, or on a picture of 3840 x 2160 pixels."""
    picture = read_image(setting.portrait)
    if setting.picture != "4k":
        return picture
    height, width = 2160, 3840
    planes = picture.movedim(-1, 0)[None]
    scaled = min(width, round(height * picture.shape[1] / picture.shape[0]))
    planes = F.interpolate(planes, size=(height, scaled), mode="bicubic", align_corners=False).clamp(0, 1)
    left = (width - scaled) // 2
    return F.pad(planes, (left, width - scaled - left, 0, 0), mode="replicate")[0].movedim(0, -1).contiguous()


def _clock(device: str) -> Callable[[], float]:
    """Seconds of the calling thread; on another device, of the wall when it has done what it was told."""
    if device == "cpu":
        return time.thread_time

    def now() -> float:
        getattr(torch, torch.device(device).type).synchronize()
        return time.perf_counter()

    return now


def _accelerators() -> list[str]:
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return [name for name, available in there.items() if available]


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _machine(device: str) -> dict[str, str]:
    """What the figures belong to."""
    from .networks.precision import multiplies_bfloat16

    numbers = "bfloat16" if multiplies_bfloat16(torch.device(device)) else "float32"
    return {"processor": _processor(device), "torch": torch.__version__, "numbers": numbers}


def _processor(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _where(setting: Setting) -> str:
    if setting.device != "cpu":
        return setting.device
    return f"{setting.threads} core" + ("s" if setting.threads > 1 else "")


if __name__ == "__main__":
    sys.exit(main())

"""``python -m training.ablate``: Tables 2 and 3 of the paper on the made corpus, and what we add to it.

Every row is a configuration value (see ``training/README.md``) and gets the same data, steps and sizes; rows
of motion are trained once a seed. What a row is measured by needs no weights of others: motion against the
held-out recordings that it should resemble, frames against the held-out pictures. A row that is done is kept,
so the same command goes on where a stopped one was.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, TypeVar

import torch

from fd2talk_core.audio.encoder import AudioEncoder
from fd2talk_core.checks import check_choice, check_whole
from fd2talk_core.configs import load_network
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.model import default_face_model
from fd2talk_core.files import replacing
from fd2talk_core.motion.sampling import sample_motion, sample_pose_and_blinks
from fd2talk_core.networks.autoencoder import FrameAutoencoder
from fd2talk_core.networks.checkpoint import SHIPPED, load_checkpoint
from fd2talk_core.networks.lip_expert import LipExpert, sync_over_clip
from fd2talk_core.terminal import run_command

from .drawing import save_grid
from .everything import ROOT, Run, make_corpus
from .held_out import HeldOutVideo
from .measures import (
    MILLIMETRES,
    beat_alignment,
    blink_rate,
    likeness,
    lip_vertex_error,
    pose_diversity,
    pose_range,
)
from .mouths import mouth_basis
from .scorecard.motion import frame_energy, measure_motion
from .sources import SpeechSet, VideoSet, copy_weights, load_speech, load_videos, need_weights
from .stages.latent_flow import NETWORK
from .stages.pose_blink import LIDS
from .trainer import load_section

DOCUMENT = ROOT / "docs" / "ablations.md"
FROZEN = ("audio_encoder", "lip_expert", "autoencoder")
"""Networks that no row trains; all rows share them."""
SECONDS = 6.0
"""Of each held-out recording."""
SAMPLES = 3
"""Motions drawn for each, whose differences are its diversity."""


@dataclass(frozen=True)
class Variant:
    """A row.

    Attributes:
        key: names its folder.
        title: names it in the tables.
        stage: that is trained: ``motion``, ``unet``, ``pbnet`` or ``flow``; empty for the set that ships.
        settings: what differs from the full model, as ``--set`` takes it.
        of: the row whose networks it samples otherwise; nothing is trained then.
        guidance: of its sampling (FaceTalk Eq. 10).
        ours: whether the paper has no such row.
        table: that it stands in; empty for that of its stage.
    """

    key: str
    title: str
    stage: str
    settings: tuple[str, ...] = ()
    of: str = ""
    guidance: float = 1.0
    ours: bool = False
    table: str = ""

    @property
    def place(self) -> str:
        """The table that it stands in."""
        return self.table or self.stage


MOTION = (
    Variant("full", "full: ExpDiT and PoseDiT, mask, L_sync", "motion"),
    Variant("joint", "single diffusion transformer (Table 2)", "motion", ("joint=true",)),
    Variant("no_alignment", "w/o alignment mask (Table 3)", "motion", ("network.alignment_window=null",)),
    Variant("no_sync", "w/o L_sync (Table 3)", "motion", ("sync_weight=0",)),
    Variant("guided", "full, sampled with guidance 2", "motion", of="full", guidance=2.0, ours=True),
    Variant("all_audio", "w/o audio dropout", "motion", ("drop_audio=0",), ours=True),
    Variant("film", "timestep by FiLM (FaceTalk)", "motion", ("network.time_conditioning=film",), ours=True),
    Variant(
        "amplified", "expressions amplified by 0.7 to 1.3 (FaceTalk)", "motion", ("amplitude=0.3",), ours=True
    ),
    Variant(
        "longer",
        "clips of 50 to 75 frames in the second half (DAWN)",
        "motion",
        ("longer_from=50", "longer_to=75", "longer_after=9600"),
        ours=True,
    ),
    Variant(
        "smoothed",
        "audio smoothed by learned weights (DiffTalk)",
        "motion",
        ("network.audio_smoothing=8",),
        ours=True,
    ),
)
FRAMES = (
    Variant("decoupled", "full: φ₁ for motion, φ₂ for the portrait", "unet"),
    Variant("concat", "concatenated conditions (Table 2)", "unet", ("network.conditioning=concat",)),
    Variant(
        "aligned",
        "portrait moved by the mesh beside the noisy latent",
        "unet",
        (
            "network.reference_alignment=warp_image",
            "network.concat_reference=true",
            "network.predict_residual=true",
        ),
        ours=True,
    ),
    Variant(
        "masked",
        "the frame itself without its mouth, and landmarks (DiffTalk)",
        "unet",
        ("network.masked_input=true", "network.concat_reference=true"),
        ours=True,
    ),
)
HEADS = (
    Variant("posedit", "PoseDiT, and lids by ExpDiT (FD2Talk)", "motion", of="full", table="heads"),
    Variant("pbnet", "PBNet: a transformer VAE (DAWN)", "pbnet", table="heads"),
    Variant("pbnet_plain", "PBNet without L_GAN", "pbnet", ("adversarial_weight=0",), table="heads"),
)
VIDEOS = (
    Variant(
        "frame_wise",
        "frame by frame: φ₁, φ₂, of every fourth frame (FD2Talk)",
        "unet",
        ("pictures=2400", "train.steps=20000", "train.minutes=12"),
        table="videos",
    ),
    Variant(
        "progressive",
        "the same, each frame's reference the one before (DiffTalk)",
        "unet",
        of="frame_wise",
        table="videos",
    ),
    Variant("flow", "all frames at once, from sound, pose, lids (DAWN)", "flow", table="videos"),
    Variant(
        "flow_of_motion",
        "all frames at once, from β and p",
        "flow",
        ("hears=false",),
        ours=True,
        table="videos",
    ),
    Variant("shipped_latents", "the set that ships, its latents alone", "", ours=True, table="videos"),
    Variant("shipped", "the set that ships", "", ours=True, table="videos"),
)
VARIANTS = (*MOTION, *FRAMES, *HEADS, *VIDEOS)
TABLES = ("motion", "unet", "heads", "videos")
GENERATOR = "latent_flow"
"""The stage before ``flow``, which all its rows share."""


@dataclass(frozen=True)
class Bench:
    """What all rows share.

    Attributes:
        out: folder of everything that is made.
        data: with shards for training and held out.
        base: a weights folder, whose :data:`FROZEN` networks all rows take.
        videos: with shards of talking videos, for training and held out.
        config: name or path of the configuration.
        steps: of a stage, over what the configuration says; empty keeps that.
        threads: of the processor, for each training; None takes all.
        seeds, frame_seeds, video_seeds: trainings of each row of motion and heads, of frames, and of videos.
        clips: held-out recordings that motion is measured on.
        frames: of each held-out video that are made.
    """

    out: Path
    data: Path
    base: Path
    videos: Path
    config: str = "ablate"
    steps: Mapping[str, int] = field(default_factory=dict)
    threads: int | None = None
    seeds: int = 3
    frame_seeds: int = 1
    video_seeds: int = 1
    clips: int = 16
    frames: int = 50

    def folder(self, variant: Variant, seed: int) -> Path:
        """Of one row and seed."""
        return self.out / "rows" / f"{variant.of or variant.key}-{seed}"

    def seeds_of(self, variant: Variant) -> range:
        """That a row is trained with."""
        if not variant.stage:
            return range(1)
        seeds = {"unet": self.frame_seeds, "videos": self.video_seeds}
        return range(seeds.get(variant.place, self.seeds))


def train_row(bench: Bench, variant: Variant, seed: int) -> dict[str, Any]:
    """Train one row with one seed and return the report of its run; a finished one is only read.

    Raises:
        FD2TalkError: when the stage fails; it has told why itself.
    """
    folder = bench.folder(variant, seed)
    data = bench.videos if variant.place == "videos" else bench.data
    report = folder / "runs" / "row" / variant.stage / "report.json"
    if not report.exists():
        for network in FROZEN:
            need_weights(bench.base, network, f"training.{network}")
        if variant.stage == "flow":
            copy_weights(_flow_generator(bench), folder / "weights", (NETWORK, "autoencoder"))
        copy_weights(bench.base, folder / "weights", FROZEN)
        _train(bench, variant.stage, folder, data, seed, variant.settings)
    return json.loads(report.read_text(encoding="utf-8"))


def _flow_generator(bench: Bench) -> Path:
    """Weights with the latent flow generator that the rows of videos share, trained once."""
    folder = bench.out / GENERATOR
    if not (folder / "runs" / "row" / GENERATOR / "report.json").exists():
        copy_weights(bench.base, folder / "weights", FROZEN)
        _train(bench, GENERATOR, folder, bench.videos, 0, ())
    return folder / "weights"


def _train(bench: Bench, stage: str, folder: Path, data: Path, seed: int, settings: Sequence[str]) -> None:
    """A stage in a folder of its own."""
    _share_features(bench, folder / "runs" / "row" / stage)
    options: list[object] = ["--config", bench.config, "--data", data, "--weights", folder / "weights"]
    options += ["--runs", folder / "runs", "--run", "row", "--seed", seed]
    for setting in settings:
        options += ["--set", setting]
    if stage in bench.steps:
        options += ["--steps", bench.steps[stage]]
    if bench.threads is not None:
        options += ["--threads", bench.threads]
    print(f"$ python -m training.{stage}", *options, flush=True)
    # in this process: to start one costs more than a small row
    module = import_module(f".stages.{_MODULES.get(stage, stage)}", __package__)
    if module.main([str(option) for option in options]):
        raise FD2TalkError(f"The stage {stage} failed; what it said stands above.")


_MODULES = {"pbnet": "pose_blink"}
"""Stages whose module has another name."""


def _share_features(bench: Bench, run: Path) -> None:
    """Audio features and pictures' latents are the same for all rows, and named after what they are of."""
    run.mkdir(parents=True, exist_ok=True)
    for name in ("features", "latents", "held-out"):
        for kept in bench.out.glob(f"**/runs/row/*/{name}-*.safetensors"):
            if (run / kept.name).exists():
                continue
            with replacing(run / kept.name) as partial:
                shutil.copyfile(kept, partial)


# ---- measuring ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measure:
    """A column: its key in a row's measures, its title, and which way is better (empty: neither)."""

    key: str
    title: str
    best: str


MEASURES = {
    "motion": (
        Measure("correlation", "mouth's r", "high"),
        Measure("lip_vertices_mm", "LVE (mm)", "low"),
        Measure("p_sync", "P_sync", "high"),
        Measure("codes", "Diversity D", "high"),
        Measure("diversity", "head diversity (rad)", "high"),
        Measure("beats", "Beat Align", "high"),
    ),
    "unet": (Measure("psnr", "PSNR (dB)", "high"), Measure("ssim", "SSIM", "high")),
    "heads": (
        Measure("turning", "head over time (rad)", ""),
        Measure("diversity", "head over samples (rad)", ""),
        Measure("beats", "Beat Align", ""),
        Measure("blinks", "blinks a minute", ""),
        Measure("likeness", "likeness to people's", "high"),
    ),
    "videos": (
        Measure("psnr", "PSNR on the face (dB)", "high"),
        Measure("ssim", "SSIM on the face", "high"),
        Measure("mouth", "PSNR of the mouth (dB)", "high"),
        Measure("hidden", "PSNR where hidden (dB)", "high"),
        Measure("flicker", "flicker (255ths)", "low"),
    ),
}
CLAIMS = {
    "joint": ("correlation", "lip_vertices_mm", "p_sync", "diversity", "beats"),
    "no_alignment": ("correlation", "lip_vertices_mm", "p_sync"),
    "no_sync": ("correlation", "lip_vertices_mm", "p_sync"),
    "concat": ("psnr", "ssim"),
}
"""What the full model does better than a row, by the paper's Tables 2 and 3."""

_TRUTH, _CHANCE = "truth", "chance"


def measure_row(
    bench: Bench, variant: Variant, seed: int, report: Mapping[str, Any]
) -> dict[str, dict[str, float]]:
    """The measures of a trained row: ``row``, ``chance``, and for motion ``truth``; kept beside it."""
    kept = bench.folder(variant, seed) / f"measures-{variant.key}.json"
    if kept.exists():
        return json.loads(kept.read_text(encoding="utf-8"))
    if variant.place == "motion":
        found = _measure_motion(bench, variant, seed)
    elif variant.place == "heads":
        found = _measure_heads(bench, variant, seed)
    elif variant.place == "videos":
        found = _measure_videos(bench, variant, seed)
    else:
        metrics = report["metrics"]
        found = {
            "row": {measure.key: metrics[measure.key] for measure in MEASURES["unet"]},
            _CHANCE: {measure.key: metrics[f"copy_{measure.key}"] for measure in MEASURES["unet"]},
        }
    with replacing(kept) as partial:
        partial.write_text(json.dumps(found, indent=2), encoding="utf-8")
    return found


@torch.no_grad()
def _measure_motion(bench: Bench, variant: Variant, seed: int) -> dict[str, dict[str, float]]:
    """Held-out recordings: samples of the row's networks beside the motion that the recordings came with."""
    folder = bench.folder(variant, seed)
    face_model = default_face_model()
    networks = {
        kind: load_network(kind, need_weights(folder / "weights", kind, "training.motion"), face_model.name)
        for kind in ("expression", "pose")
    }
    expert = load_checkpoint(bench.base / "lip_expert.safetensors", LipExpert, face_model.name)
    held_out = _heard(bench, load_speech(bench.data, face_model)[1], folder / "runs" / "row" / "motion")
    basis = mouth_basis(face_model)
    rows: dict[str, list[dict[str, float]]] = {"row": [], _TRUTH: [], _CHANCE: []}
    for clip in held_out.clips[: bench.clips]:
        clip = clip.first(SECONDS)
        heard = clip.audio_features()
        samples = [
            tuple(
                sample_motion(networks[kind], heard, kind=kind, seed=sample, guidance=variant.guidance).values
                for kind in ("expression", "pose")
            )
            for sample in range(SAMPLES)
        ]
        _, made = measure_motion(face_model, basis, clip, samples)
        still = torch.zeros_like(clip.expression)
        mouths = [
            torch.einsum("fc,cmx->fmx", beta, basis) for beta in (samples[0][0], clip.expression, still)
        ]
        in_time = [
            float(sync_over_clip(expert, mouth[None], heard.features[None]).mean()) for mouth in mouths[:2]
        ]
        shifted = heard.features.roll(len(heard.features) // 2, dims=0)
        rows["row"].append(
            {
                **asdict(made),
                "lip_vertices_mm": MILLIMETRES * made.lip_vertices,
                "p_sync": in_time[0],
            }
        )
        rows[_TRUTH].append({"p_sync": in_time[1], "beats": made.true_beats})
        rows[_CHANCE].append(
            {
                "correlation": 0.0,
                "lip_vertices_mm": MILLIMETRES * lip_vertex_error(mouths[2], mouths[1]),
                "p_sync": float(sync_over_clip(expert, mouths[0][None], shifted[None]).mean()),
            }
        )
    return {row: {key: fmean(clip[key] for clip in clips) for key in clips[0]} for row, clips in rows.items()}


Heard = TypeVar("Heard", SpeechSet, VideoSet)


def _heard(bench: Bench, given: Heard, kept: Path) -> Heard:
    """Recordings or videos with what the audio encoder hears in them, which a training has kept."""
    path = need_weights(bench.base, "audio_encoder", "training.audio_encoder")
    return given.with_features(AudioEncoder.from_pretrained(path), kept)


@torch.no_grad()
def _measure_heads(bench: Bench, variant: Variant, seed: int) -> dict[str, dict[str, float]]:
    """Held-out recordings: the head and the lids that a row's networks give them, and people's own."""
    folder = bench.folder(variant, seed)
    face_model = default_face_model()
    pose = load_network("pose", need_weights(folder / "weights", "pose", "training.pbnet"), face_model.name)
    lids_of = None
    if variant.stage == "motion":
        path = need_weights(folder / "weights", "expression", "training.motion")
        lids_of = load_network("expression", path, face_model.name)
    kept = folder / "runs" / "row" / variant.stage
    held_out = _heard(bench, load_speech(bench.data, face_model)[1], kept)
    rows: dict[str, list[dict[str, float]]] = {"row": [], _TRUTH: []}
    for clip in held_out.clips[: bench.clips]:
        clip = clip.first(SECONDS)
        heard = clip.audio_features()
        poses, blinks = [], []
        for sample in range(SAMPLES):
            if lids_of is None:
                moved, lids = sample_pose_and_blinks(pose, heard, seed=sample)
                lid = lids[:, 0]
            else:
                moved = sample_motion(pose, heard, kind="pose", seed=sample)
                expression = sample_motion(lids_of, heard, kind="expression", seed=sample)
                lid = expression.values[:, LIDS[0]]
            poses.append(moved.values)
            blinks.append(blink_rate(lid, clip.fps))
        loudness = frame_energy(clip.waveform, clip.num_frames, clip.fps)
        rows["row"].append(
            {
                "turning": fmean(map(pose_range, poses)),
                "diversity": pose_diversity(torch.stack(poses)),
                "beats": fmean(beat_alignment(one, loudness, clip.fps) for one in poses),
                "blinks": fmean(blinks),
            }
        )
        rows[_TRUTH].append(
            {
                "turning": pose_range(clip.pose),
                # two people who say the same differ as two recordings do
                "diversity": pose_range(clip.pose),
                "beats": beat_alignment(clip.pose, loudness, clip.fps),
                "blinks": blink_rate(clip.expression[:, LIDS[0]], clip.fps),
            }
        )
    means = {
        row: {key: fmean(clip[key] for clip in clips) for key in clips[0]} for row, clips in rows.items()
    }
    pairs = [(means["row"][key], true) for key, true in means[_TRUTH].items()]
    means["row"]["likeness"] = likeness(pairs)
    means[_TRUTH]["likeness"] = 1.0
    return means


@torch.no_grad()
def _measure_videos(bench: Bench, variant: Variant, seed: int) -> dict[str, dict[str, float]]:
    """Held-out videos, made from their first frame, their motion and their sound."""
    weights = bench.folder(variant, seed) / "weights" if variant.stage else bench.base
    face_model = default_face_model()
    unet = load_network("unet", need_weights(weights, "unet", "training.flow"), face_model.name)
    autoencoder = load_checkpoint(
        need_weights(weights, "autoencoder", "training.autoencoder"), FrameAutoencoder
    )
    if variant.key == "progressive":
        unet.register_to_config(progressive=True)
    kept = bench.out / "heard"
    kept.mkdir(parents=True, exist_ok=True)
    videos = _heard(bench, load_videos(bench.videos, face_model)[1], kept)
    rows: dict[str, list[dict[str, float]]] = {"row": [], _CHANCE: []}
    strips = []
    for number in range(len(videos.videos)):
        video, reference = HeldOutVideo.of(videos, number, bench.frames, autoencoder, face_model)
        made = video.made_by(
            unet, autoencoder, reference, face_model, detail=1.0 if variant.key == "shipped" else 0.0
        )
        rows["row"].append(asdict(video.measure(made)))
        rows[_CHANCE].append(asdict(video.measure(video.truth[:1].expand_as(made))))
        shown = torch.linspace(0, len(made) - 1, 6).round().long()
        strips += [video.truth[shown], made[shown]]
    folder = bench.folder(variant, seed)
    folder.mkdir(parents=True, exist_ok=True)
    save_grid(strips[:12], folder / f"{variant.key}.png")
    return {row: {key: fmean(one[key] for one in found) for key in found[0]} for row, found in rows.items()}


# ---- telling -----------------------------------------------------------------------------------------------

Results = dict[str, list[dict[str, dict[str, float]]]]
"""By a row's key, the measures of each seed."""


def cell(values: Sequence[float]) -> str:
    """Mean and deviation."""
    if not values:
        return ""
    return f"{fmean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def ablation_table(stage: str, results: Results) -> list[str]:
    """Markdown: a line a row, then the truth and chance."""
    measures = MEASURES[stage]
    arrows = {"high": " ↑", "low": " ↓", "": ""}
    lines = [
        "| row | " + " | ".join(f"{m.title}{arrows[m.best]}" for m in measures) + " |",
        "| --- |" + " --- |" * len(measures),
    ]
    shown = [variant for variant in VARIANTS if variant.place == stage and results.get(variant.key)]

    def line(title: str, key: str, row: str) -> str:
        cells = (
            cell([seed[row][m.key] for seed in results[key] if m.key in seed.get(row, {})]) for m in measures
        )
        return f"| {title} | " + " | ".join(cells) + " |"

    lines += [line(f"{'ours: ' if v.ours else ''}{v.title}", v.key, "row") for v in shown]
    if shown and any(_TRUTH in seed for seed in results[shown[0].key]):
        lines.append(line("the recordings' own motion", shown[0].key, _TRUTH))
    names = {
        "motion": "chance: a still mouth, sound of another moment",
        "unet": "chance: the portrait copied",
        "videos": "chance: the portrait copied",
    }
    if shown and stage in names:
        lines.append(line(names[stage], shown[0].key, _CHANCE))
    return lines


def verdict(key: str, measure: Measure, results: Results, full: str) -> str:
    """Whether the full model is better than a row: a difference counts from two standard errors on."""
    better, worse = ([seed["row"][measure.key] for seed in results[name]] for name in (full, key))
    sign = 1 if measure.best == "high" else -1
    gain = sign * (fmean(better) - fmean(worse))
    if min(len(better), len(worse)) < 2:
        side = "better" if gain > 0 else "worse"
        return f"{measure.title}: the full model is {side} by {abs(gain):.3f}; one seed tells no more."
    error = math.sqrt(sum(stdev(values) ** 2 / len(values) for values in (better, worse)))
    told = f"difference {gain:.3f}, standard error {error:.3f}"
    if gain > 2 * error:
        return f"{measure.title}: the paper's order holds ({told})."
    if gain < -2 * error:
        return f"{measure.title}: the paper's order does not hold ({told})."
    return f"{measure.title}: too close to tell at this budget ({told})."


def document(
    bench: Bench, results: Results, reports: Mapping[str, list[Mapping[str, Any]]], note: str
) -> str:
    """``docs/ablations.md``."""
    lines = [
        "# Ablations",
        "",
        f"Made by `python -m training.ablate`, configuration `{bench.config}`: FD2Talk's Tables 2 and 3 on "
        "our own corpus, DAWN's parts beside them, and rows of ours. All rows of a table have the same data "
        "and the same steps (of videos, the same minutes). Values are means and deviations over seeds.",
        "",
        *([note, ""] if note else []),
    ]
    for stage, title in (
        ("motion", "Motion (Table 2, first row; Table 3)"),
        ("unet", "Frames (Table 2, second row)"),
        ("heads", "Head and blinks: PoseDiT and PBNet (DAWN Sec. 3.4)"),
        ("videos", "All frames at once: latent flow (DAWN Sec. 3.2, 3.3)"),
    ):
        shown = [v for v in VARIANTS if v.place == stage and results.get(v.key)]
        if not shown:
            continue
        full = shown[0].key
        lines += [f"## {title}", "", _budget(stage, reports), "", *ablation_table(stage, results), ""]
        measures = {measure.key: measure for measure in MEASURES[stage]}
        for variant in shown:
            if variant.key in CLAIMS and full in (MOTION[0].key, FRAMES[0].key):
                lines += [f"**Full against {variant.title}.**", ""]
                lines += [
                    f"- {verdict(variant.key, measures[key], results, full)}" for key in CLAIMS[variant.key]
                ]
                lines.append("")
    return "\n".join([*lines, *_CAVEATS]) + "\n"


_CAVEATS = (
    "## What these numbers are",
    "",
    "- The papers' LSE-C, SyncNet, Diversity (Hopenet) and FID need frames and networks of others, "
    "see `python -m training.evaluate`. Here motion is measured on its coefficients: the mouth's opening and "
    "lip vertices against the recording's own, FaceTalk's diversity over samples, the head's angles over "
    "samples, and Beat Align.",
    "- P_sync (Eq. 10) is the lip expert's that L_sync trains against, so it favours rows that are trained "
    "with it; the mouth's r and LVE do not.",
    "- Diversity is also high for a network that has learned nothing: read it beside Beat Align.",
    "- The learned blend has no row, since it needs a UNet that is trained further.",
    "- Of heads and blinks, near the recordings' own is best: likeness is the mean over the four columns of "
    "how near, 1 at best. Two samples of one sound should differ as two recordings do.",
    "- Videos are made from their first frame, their own motion and sound, in the latents' own resolution; "
    "flicker is how much a frame's error changes up to the next. The latent flow generator, which rows that "
    "make all frames at once share, was trained beforehand for as many minutes.",
)


def _budget(stage: str, reports: Mapping[str, list[Mapping[str, Any]]]) -> str:
    """What a row cost, in words."""
    own = [report for v in VARIANTS if v.place == stage for report in reports.get(v.key, ())]
    if not own:
        return "Nothing was trained for these rows."
    steps = sorted({report["steps"] for report in own})
    minutes = [report["seconds"] / 60 for report in own]
    data = own[0]["trained_on"].partition("; seed")[0]
    return (
        f"{' or '.join(map(str, steps))} steps a row on {data}; {min(minutes):.1f} to {max(minutes):.1f} "
        f"minutes of wall-clock time on {own[0]['device']}, other work on the machine included."
    )


def ablate(bench: Bench, variants: Sequence[Variant], page: Path, note: str) -> str:
    """Train, measure and tell; the document is written anew after each row, with what there is."""
    results: Results = {}
    reports: dict[str, list[Mapping[str, Any]]] = {}
    everything = [(variant, seed) for variant in variants for seed in bench.seeds_of(variant)]
    # one seed of all rows first, so that a run that is stopped early still compares
    for variant, seed in sorted(everything, key=lambda row: (TABLES.index(row[0].place), row[1])):
        report = train_row(bench, variant, seed) if variant.stage else {}
        results.setdefault(variant.key, []).append(measure_row(bench, variant, seed, report))
        if report and not variant.of:
            reports.setdefault(variant.key, []).append(report)
        with replacing(page) as partial:
            partial.write_text(document(bench, results, reports, note), encoding="utf-8")
        with replacing(bench.out / "ablations.json") as partial:
            partial.write_text(json.dumps(results, indent=2), encoding="utf-8")
    return page.read_text(encoding="utf-8") + f"\n{page}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.ablate", description=__doc__.splitlines()[0])
    names = ", ".join(variant.key for variant in VARIANTS)
    parser.add_argument(
        "--config", default="ablate", help="a YAML file, or the name of one in training/configs"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/ablate"), help="for data, rows and ablations.json"
    )
    parser.add_argument("--data", type=Path, help="folder of shards; made into OUT/data by default")
    parser.add_argument(
        "--base", type=Path, default=SHIPPED / "tiny", help=f"weights folder with {', '.join(FROZEN)}"
    )
    parser.add_argument("--rows", nargs="+", metavar="ROW", help=f"some of: {names}; all by default")
    parser.add_argument(
        "--videos", type=Path, help="folder of shards with talking videos; made into OUT/videos by default"
    )
    parser.add_argument("--seeds", type=int, default=3, help="of the rows of motion and heads")
    parser.add_argument("--frame-seeds", type=int, default=1, help="of the rows of frames")
    parser.add_argument("--video-seeds", type=int, default=1, help="of the rows of videos")
    parser.add_argument(
        "--steps", action="append", default=[], metavar="STAGE=STEPS", help="budget of every row of a stage"
    )
    parser.add_argument(
        "--clips", type=int, default=16, help="held-out recordings that motion is measured on"
    )
    parser.add_argument("--threads", type=int, help="processor threads, all of them by default")
    parser.add_argument("--workers", type=int, default=1, help="processes that make the corpus")
    parser.add_argument("--document", type=Path, default=DOCUMENT, help="the page that is written")
    parser.add_argument(
        "--note", default="", help="a sentence for the page, such as what else the machine did"
    )
    given = parser.parse_args(arguments)
    return run_command(lambda: _ablate(given), prefix="error: ")


def _ablate(given: argparse.Namespace) -> str:
    for name in ("seeds", "frame_seeds", "video_seeds", "clips"):
        check_whole(getattr(given, name), f"--{name.replace('_', '-')}", 1, 1000)
    known = {variant.key: variant for variant in VARIANTS}
    rows = list(known) if given.rows is None else given.rows
    for row in rows:
        check_choice(row, "A row", known)
    bench = Bench(
        out=given.out,
        data=given.data or given.out / "data",
        base=given.base,
        videos=given.videos or given.out / "videos",
        config=given.config,
        steps=dict(map(_steps, given.steps)),
        threads=given.threads,
        seeds=given.seeds,
        frame_seeds=given.frame_seeds,
        video_seeds=given.video_seeds,
        clips=given.clips,
    )
    wanted = {known[row].place for row in rows}
    for place, own, section, tables in (
        (bench.data, given.data, "corpus", {"motion", "unet", "heads"}),
        (bench.videos, given.videos, "videos", {"videos"}),
    ):
        if own is None and wanted & tables:
            run = Run(given.config, "ablate", given.out, place, given.base, 0, 1, given.workers)
            make_corpus(run, load_section(given.config, section))
    return ablate(bench, [known[row] for row in known if row in rows], given.document, given.note)


def _steps(text: str) -> tuple[str, int]:
    stage, _, value = text.partition("=")
    stages = (*dict.fromkeys(variant.stage for variant in VARIANTS if variant.stage), GENERATOR)
    if stage in stages and value.isdecimal() and int(value) > 0:
        return stage, int(value)
    raise FD2TalkError(f"--steps takes STAGE=STEPS with a stage of {', '.join(stages)}, not {text!r}.")


if __name__ == "__main__":
    raise SystemExit(main())

"""Each stage learns from shards, writes what the next one needs, and refuses what it cannot use in a
sentence.
"""

from __future__ import annotations

import importlib
import io
import json
import shutil
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

sys.path[:0] = [str(Path(__file__).parent)]

import synthetic  # noqa: E402

from fd2talk_core.audio.encoder import AudioEncoder  # noqa: E402
from fd2talk_core.configs import network_class  # noqa: E402
from fd2talk_core.errors import FD2TalkError  # noqa: E402
from fd2talk_core.face.model import default_face_model  # noqa: E402
from fd2talk_core.frames.correspondence import MASK_NAMES  # noqa: E402
from fd2talk_core.frames.masking import shown_landmarks  # noqa: E402
from fd2talk_core.imaging import read_image  # noqa: E402
from fd2talk_core.motion.coefficients import CoefficientSequence  # noqa: E402
from fd2talk_core.networks.autoencoder import FrameAutoencoder  # noqa: E402
from fd2talk_core.networks.checkpoint import (  # noqa: E402
    SHIPPED,
    CheckpointInfo,
    load_checkpoint,
    read_header,
    save_checkpoint,
)
from fd2talk_core.networks.diffusion import make_scheduler  # noqa: E402
from fd2talk_core.networks.lip_expert import LipExpert, sync_over_clip  # noqa: E402
from fd2talk_core.networks.unet import FilmedFrames, FrameUNet  # noqa: E402
from fd2talk_core.pipeline import FD2TalkPipeline  # noqa: E402
from scripts.environment import ROOT  # noqa: E402
from training.sources import SpeechSet, copy_weights, load_pictures, load_speech  # noqa: E402
from training.stages import conditions  # noqa: E402
from training.stages.autoencoder import (  # noqa: E402
    AutoencoderStage,
    draw_pair,
    random_colour,
    random_crop,
)
from training.stages.blend import BlendStage  # noqa: E402
from training.stages.conditions import FitErrors  # noqa: E402
from training.stages.motion import MotionOptions  # noqa: E402
from training.stages.perceptual import DefaultFeatures, VGGFeatures, perceptual_features  # noqa: E402
from training.stages.unet import choose_pairs, prepare_pairs  # noqa: E402
from training.trainer import Stage, draw_timestep, load_section  # noqa: E402
from training.trainer.settings import apply_overrides  # noqa: E402

SMALLER = {
    "audio_encoder": ["train.steps=25", "seconds=0.5", "train.learning_rate=3.0e-3"],
    "lip_expert": ["train.steps=60"],
    "motion": ["train.steps=40", "held_out_clips=2"],
    "autoencoder": ["train.steps=30"],
    "unet": ["train.steps=50", "train.learning_rate=2.0e-3"],
    "blend": ["train.steps=24", "pictures=16", "train.batch_size=4"],
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    synthetic.write_data(folder / "data", clips=4, people=8, size=64)
    return folder


def run_stage(world: Path, stage: str, *options: str, data: Path | None = None) -> int:
    module = importlib.import_module(f"training.{stage}")
    arguments = [
        "--config",
        "smoke",
        "--data",
        str(data or world / "data"),
        "--weights",
        str(world / "weights"),
    ]
    arguments += ["--runs", str(world / "runs")]
    for change in ["train.log_every=1", *SMALLER[stage]]:
        arguments += ["--set", change]
    return module.main([*arguments, *options])


def curve(world: Path, stage: str, run: str = "default") -> list[float]:
    lines = (world / "runs" / run / stage / "losses.jsonl").read_text().splitlines()
    return [record["loss"] for record in map(json.loads, lines) if "loss" in record]


@pytest.mark.parametrize(
    ("stage", "fall", "networks"),
    [
        ("audio_encoder", 0.5, ["audio_encoder"]),
        ("lip_expert", 0.8, ["lip_expert"]),
        ("motion", 0.7, ["expression", "pose"]),
        ("autoencoder", 0.75, ["autoencoder"]),
        ("unet", 0.85, ["unet"]),
        ("blend", 0.97, ["autoencoder"]),
    ],
)
def test_loss_falls_and_checkpoints_load(world: Path, stage: str, fall: float, networks: list[str]) -> None:
    # stages depend on the ones before; pytest runs them in this order
    assert run_stage(world, stage) == 0
    losses = curve(world, stage)
    third = max(1, len(losses) // 3)
    assert sum(losses[-third:]) < fall * sum(losses[:third]), losses
    face_model = default_face_model().name
    for name in networks:
        path = world / "weights" / f"{name}.safetensors"
        load_checkpoint(path, network_class(name), face_model)
        info = read_header(path)[2]
        assert "seed 0" in info.trained_on and "min on" in info.trained_on
        with safe_open(path, framework="pt") as file:
            assert all(file.get_slice(key).get_dtype() in ("F16", "I64") for key in file.keys())  # noqa: SIM118
    folder = world / "runs" / "default" / stage
    assert any((folder / "pictures").glob("*.png")) and (folder / "curves.png").exists()


def test_the_blend_leaves_the_rest_of_the_autoencoder_as_it_was(world: Path, tmp_path: Path) -> None:
    """Or the UNet, which was trained on its latents, would no longer fit."""
    plain = load_checkpoint(world / "weights" / "autoencoder.safetensors", FrameAutoencoder)
    plain = FrameAutoencoder.from_config({**plain.config, "blend": None})
    save_checkpoint(plain, tmp_path / "autoencoder.safetensors", CheckpointInfo(trained_on="faces"))
    shutil.copy(world / "weights" / "unet.safetensors", tmp_path)
    stage = built(world, "blend", "pictures=4", "held_out_pairs=1", weights=tmp_path)
    optimizer = torch.optim.SGD(stage.networks.parameters(), lr=0.1)
    stage(first_batch(stage))["loss"].backward()
    optimizer.step()
    before = load_file(tmp_path / "autoencoder.safetensors")
    stage.export(tmp_path, "a step")
    after = load_file(tmp_path / "autoencoder.safetensors")
    assert all(torch.equal(after[name], value) for name, value in before.items())
    added = {name for name in after if name not in before}
    assert added and all(name.startswith("portrait_blend.") for name in added)
    assert read_header(tmp_path / "autoencoder.safetensors")[2].trained_on == "faces; blend: a step"
    built(world, "blend", "pictures=4", "held_out_pairs=1", weights=tmp_path).export(tmp_path, "two")
    assert read_header(tmp_path / "autoencoder.safetensors")[2].trained_on == "faces; blend: two"


def test_a_flipped_pair_is_the_mirror_image_of_the_frame(world: Path) -> None:
    """Flipped or not, it has the same loss under a blend that treats left and right alike."""
    stage = built(world, "blend", "pictures=4", "held_out_pairs=1", "colour=0")
    for part in stage.networks["blend"].last.parameters():
        torch.nn.init.zeros_(part)
    flipped = {}
    for seed in range(32):
        sample = stage.sample(0, torch.Generator().manual_seed(seed))
        number = int(torch.randint(len(stage.pairs), (), generator=torch.Generator().manual_seed(seed)))
        mirrored = not torch.equal(sample["frame"], stage.pairs.pair(number, stage.pictures)["frame"])
        flipped.setdefault(number, {})[mirrored] = sample
    plain, mirrored = next((pair[False], pair[True]) for pair in flipped.values() if len(pair) == 2)
    with torch.no_grad():
        losses = [
            float(stage({name: value[None] for name, value in sample.items()})["difference"])
            for sample in (plain, mirrored)
        ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_a_fit_errs_alike_in_a_portrait_and_in_its_frames() -> None:
    exact = FitErrors().apply(*fits(), torch.Generator())
    identity, (beta, pose), (frame_beta, frame_pose) = fits()
    for given, wanted in zip(exact, (identity, beta, pose, frame_beta, frame_pose), strict=True):
        assert torch.equal(given, wanted)
    erring = FitErrors(0.4, 0.04, 0.02).apply(*fits(), torch.Generator().manual_seed(0))
    assert 0.3 < float((erring[0] - identity).std()) < 0.5
    torch.testing.assert_close(erring[3] - erring[1], frame_beta - beta)
    torch.testing.assert_close(erring[4] - erring[2], frame_pose - pose)
    assert not torch.equal(erring[2], pose)


def fits() -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    draw = torch.Generator().manual_seed(1)
    identity, *rest = (torch.randn(8, width, generator=draw) for width in (80, 52, 6, 52, 6))
    return identity, (rest[0], rest[1]), (rest[2], rest[3])


def built(world: Path, stage: str, *changes: str, weights: Path | None = None) -> Stage:
    section = apply_overrides(load_section("smoke", stage), list(changes))
    folder = world / "built" / stage
    folder.mkdir(parents=True, exist_ok=True)
    module = importlib.import_module(f"training.stages.{stage}")
    return module.build(section, world / "data", weights or world / "weights", 0, folder)[0]


def first_batch(stage: Stage, size: int = 4) -> dict[str, torch.Tensor]:
    return stage.batch(range(size), lambda index: torch.Generator().manual_seed(index))


def noised(x0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Eq. 2, written out."""
    signal = make_scheduler().alphas_cumprod[t].reshape(-1, *[1] * (x0.ndim - 1))
    return signal.sqrt() * x0 + (1 - signal).sqrt() * noise


@pytest.mark.parametrize("joint", [False, True])
def test_motion_learns_by_equations_8_9_11_and_12(world: Path, tmp_path: Path, joint: bool) -> None:
    for name in ("audio_encoder", "lip_expert"):
        shutil.copy(world / "weights" / f"{name}.safetensors", tmp_path)
    factors = ["exp_weight=2.0", "pose_weight=0.5", "sync_weight=0.3", "mouth_weight=3.0"]
    stage = built(world, "motion", *factors, f"joint={str(joint).lower()}", weights=tmp_path)
    batch = first_batch(stage)
    losses = stage(batch)
    true = {name: batch[name] for name in ("expression", "pose")}
    true["joint"] = torch.cat([true["expression"], true["pose"]], dim=-1)
    estimates = {}
    for kind, network in stage.networks.items():
        x0 = network.normalize(true[kind])
        t = batch[f"{kind}_timestep"]
        estimate = network(noised(x0, batch[f"{kind}_noise"], t), t, batch["audio"], batch["drop"])
        estimates[kind] = (estimate - x0, network.denormalize(estimate))
    error, expression = estimates["joint" if joint else "expression"]
    turn = estimates["joint" if joint else "pose"][0][..., -6:]
    mouth = torch.einsum("bfc,cmx->bfmx", expression[..., :52], stage.mouth_basis)[~batch["drop"]]
    probability = sync_over_clip(stage.expert, mouth, batch["audio"][~batch["drop"]])
    wanted = {
        "expression_loss": (error[..., :52] ** 2 * stage.weights).mean(),
        "pose_loss": (turn**2).mean(),
        "sync_loss": -probability.log().mean(),
    }
    wanted["loss"] = 2 * wanted["expression_loss"] + 0.5 * wanted["pose_loss"] + 0.3 * wanted["sync_loss"]
    torch.testing.assert_close(losses, wanted, rtol=1e-5, atol=1e-6)


def test_frames_are_learned_by_equation_16(world: Path) -> None:
    stage = built(world, "unet", "face_weight=1.0", "mouth_eyes_weight=2.0")
    batch = first_batch(stage)
    t, frame = batch["timestep"], batch["frame"]
    conditions = {name: batch[name] for name in ("motion", "warped")}
    estimate = stage.networks["unet"](
        noised(frame, batch["noise"], t), t, reference_latent=batch["reference"], **conditions
    )
    masks = dict(zip(MASK_NAMES, batch["warped"][:, frame.shape[1] :].unbind(1), strict=True))
    weights = 1 + masks["coverage"] + 2 * torch.maximum(masks["mouth"], masks["eyes"])
    error = (estimate - frame).square().mean(dim=1) * weights / weights.mean(dim=(1, 2), keepdim=True)
    torch.testing.assert_close(stage(batch)["loss"], error.mean(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("stage", "equation", "calls"),
    [
        ("lip_expert", "fd2talk_core.networks.lip_expert.LipExpert.contrastive_loss", 1),
        ("motion", "training.stages.motion.diffusion_loss", 2),
        ("autoencoder", "training.stages.autoencoder.autoencoder_loss", 1),
        ("unet", "training.stages.unet.diffusion_loss", 1),
    ],
)
def test_an_equation_is_written_once(
    world: Path, stage: str, equation: str, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What trains is the function that the core's tests prove."""
    module, _, name = equation.rpartition(".")
    owner = LipExpert if name == "contrastive_loss" else importlib.import_module(module)
    proven, called = getattr(owner, name), []

    def spy(*arguments: object, **named: object) -> object:
        called.append(name)
        return proven(*arguments, **named)

    trained = built(world, stage)
    monkeypatch.setattr(owner, name, spy)
    assert trained(first_batch(trained))["loss"].isfinite() and len(called) == calls


@pytest.mark.parametrize(
    ("stage", "networks"), [("audio_encoder", ["audio_encoder"]), ("motion", ["expression", "pose"])]
)
def test_a_stage_can_start_from_weights(world: Path, stage: str, networks: list[str]) -> None:
    earlier = world / "earlier"
    earlier.mkdir(exist_ok=True)
    for name in networks:
        shutil.copy(world / "weights" / f"{name}.safetensors", earlier)
    hardly = ["--set", "train.learning_rate=1.0e-9", "--steps", "2", "--run", "started"]
    assert run_stage(world, stage, "--start", str(earlier), *hardly) == 0
    for name in networks:
        given, made = (
            load_checkpoint(folder / f"{name}.safetensors", network_class(name)).state_dict()
            for folder in (earlier, world / "weights")
        )
        for key, value in given.items():
            torch.testing.assert_close(made[key], value, atol=1e-5, rtol=2e-3)


def test_a_blend_that_no_longer_paints_goes_on_from_one_that_did() -> None:
    form = {"channels": (8, 8), "blocks": (1, 1)}
    earlier, network = (
        FrameAutoencoder(4, (8, 8), (1, 1), (1, 1), patch_size=1, blend={**form, **more})
        for more in ({}, {"paints": False, "shift": 0.05})
    )
    torch.nn.init.normal_(earlier.portrait_blend.last.weight)
    network.load_state_dict(BlendStage.grown(BlendStage, earlier, network))
    kept = network.portrait_blend.last.weight
    assert torch.equal(kept, earlier.portrait_blend.last.weight[: len(kept)])
    assert not network.portrait_blend.move.weight.any()


def test_an_autoencoder_with_fewer_blocks_goes_on_from_one_with_more() -> None:
    """The first blocks of each level, and what stands between; the latents' statistics, too."""
    earlier, network = (
        FrameAutoencoder(4, (8, 12), encoder_blocks=encoder, decoder_blocks=decoder, blend=blend)
        for encoder, decoder, blend in (
            ((1, 2), (2, 3), {"channels": (8, 8), "blocks": (1, 1)}),
            ((1, 0), (1, 0), None),
        )
    )
    earlier.latent_mean.fill_(0.5)
    network.load_state_dict(AutoencoderStage.grown(AutoencoderStage, earlier, network))
    assert torch.equal(network.latent_mean, earlier.latent_mean)
    picture = torch.rand(1, 3, 16, 16)
    hidden = picture * 2 - 1
    for place, layer in enumerate(earlier.encoder.layers):
        if place not in (4, 5):  # the coarse level's blocks
            hidden = layer(hidden)
        elif place == 4:
            hidden = hidden.relu()
    wanted = (hidden - earlier.latent_mean[:, None, None]) / earlier.latent_std[:, None, None]
    torch.testing.assert_close(network.encode(picture), wanted)
    kept = [earlier.decoder[place] for place in (0, 5, 7, 9)]
    made = [layer for layer in network.decoder if any(True for _ in layer.parameters())]
    for given, taken in zip(kept, made, strict=True):
        for name, value in given.state_dict().items():
            assert torch.equal(taken.state_dict()[name], value)


def test_a_smaller_autoencoder_keeps_to_its_teachers_latents(world: Path, tmp_path: Path) -> None:
    """And its own are not scaled anew, or the UNet would no longer fit."""
    weights = world / "weights"
    stage = built(world, "autoencoder", f"teacher={weights}", "crop=0", weights=tmp_path)
    teacher = load_checkpoint(weights / "autoencoder.safetensors", FrameAutoencoder)
    batch = first_batch(stage)
    both = torch.cat([batch["reference"], batch["frame"]])
    apart = (stage.networks["autoencoder"].encode(both) - teacher.encode(both)).square().mean()
    parts = stage(batch)
    torch.testing.assert_close(parts["latent_loss"], apart)
    rest = 10 * parts["rec_loss"] + parts["per_loss"]
    torch.testing.assert_close(parts["loss"], rest + 10 * apart)
    before = stage.networks["autoencoder"].latent_std.clone()
    stage.export(tmp_path, "nothing")
    made = load_checkpoint(tmp_path / "autoencoder.safetensors", FrameAutoencoder)
    torch.testing.assert_close(made.latent_std, before, atol=1e-3, rtol=1e-3)
    assert stage.teacher is not None and not any(p.requires_grad for p in stage.teacher.parameters())


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_training_draws_the_timesteps_that_sampling_visits(share: float) -> None:
    generator = torch.Generator().manual_seed(1)
    drawn = [int(draw_timestep(torch.tensor([999, 499]), share, generator)) for _ in range(400)]
    visited = sum(t in (999, 499) for t in drawn) / len(drawn)
    assert visited == pytest.approx(share, abs=0.08)
    assert share == 1 or len(set(drawn)) > 100
    with pytest.raises(FD2TalkError, match="visited is 2"):
        MotionOptions(visited=2)


def test_what_cannot_be_started_from_is_named(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_stage(world, "lip_expert", "--start", str(world / "nowhere"), "--run", "nowhere") == 2
    assert "lip_expert.safetensors to start from" in capsys.readouterr().err
    options = ["--start", str(world / "weights"), "--run", "wider", "--set", "network.hidden_size=24"]
    assert run_stage(world, "lip_expert", *options) == 2
    assert "is of another size than this stage's lip_expert" in capsys.readouterr().err


def test_conditions_are_estimated_where_there_is_a_recording(world: Path) -> None:
    """Of people who belong to none, the pictures are used all the same."""
    options = ["--run", "estimated", "--set", "condition=estimated"]
    assert run_stage(world, "unet", *options) == 0
    files = list((world / "runs" / "estimated" / "unet").glob("pairs-*.safetensors"))
    assert len(files) == 1
    with safe_open(files[0], framework="pt") as file:
        estimated = file.get_tensor("motion")
    pictures = load_pictures(world / "data", default_face_model())[0]
    true = torch.cat([pictures.expression, pictures.pose], dim=1)
    recorded = torch.tensor([place is not None for place in pictures.clips])
    assert recorded.sum() == 18 and len(recorded) == 24
    assert torch.equal(estimated[~recorded], true[~recorded])
    assert (estimated[recorded] != true[recorded]).any(dim=1).all() and torch.isfinite(estimated).all()
    trained_on = read_header(world / "weights" / "unet.safetensors")[2].trained_on
    assert "conditions of 18 estimated" in trained_on


class Passing(torch.nn.Module):
    """A motion network that calls everything it is given clean."""

    def __init__(self, kind: str, shift: float) -> None:
        super().__init__()
        self.config, self.shift = types.SimpleNamespace(kind=kind), shift

    def normalize(self, values: torch.Tensor) -> torch.Tensor:
        return (values - self.shift) / 0.5

    def denormalize(self, values: torch.Tensor) -> torch.Tensor:
        return values * 0.5 + self.shift

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor, audio: torch.Tensor) -> torch.Tensor:
        assert sample.shape[:2] == audio.shape[:2] == (1, 25) and timestep.shape == (1,)
        return sample


@pytest.mark.parametrize("joint", [False, True])
def test_estimates_are_of_the_picture_s_own_moment(
    world: Path, joint: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hardly noised, the recording's coefficients at the picture's frame come back; fully noised, they do
    not.
    """

    def network(path: Path, _: type) -> Passing:
        return Passing("joint" if joint else path.stem, 0.1)

    def need(weights: Path, name: str, stage: str) -> Path:
        name = "joint" if joint and name in ("expression", "pose") else name
        return weights / f"{name}.safetensors"

    monkeypatch.setattr(conditions, "load_checkpoint", network)
    monkeypatch.setattr(conditions, "need_weights", need)
    face_model = default_face_model()
    pictures = load_pictures(world / "data", face_model)[0]
    clips = {clip.name: clip for clip in load_speech(world / "data", face_model)[0].clips}
    places = {number: place for number, place in enumerate(pictures.clips) if place is not None}
    wanted = torch.stack([clips[name].coefficients("joint")[frame] for name, frame in places.values()])

    def error(last_timestep: int) -> float:
        monkeypatch.setattr(conditions, "TRAIN_STEPS", last_timestep)
        world_of = (world / "data", world / "weights", face_model, world)
        estimates, count = conditions.estimate_motion(pictures, *world_of, seed=0)
        assert count == len(places)
        return float((estimates[list(places)] - wanted).square().mean().sqrt())

    # ε of deviation 0.5 in the coefficients' units, of which t = 0 lets a hundredth through
    assert error(1) == pytest.approx(0.005, rel=0.2)
    assert error(1000) > 0.2


def test_features_and_latents_are_made_anew_when_the_corpus_is(world: Path, tmp_path: Path) -> None:
    """Even where everything has the same name and size as before."""
    encoder = AudioEncoder.from_pretrained(world / "weights" / "audio_encoder.safetensors")
    speech = SpeechSet(load_speech(world / "data", default_face_model())[0].clips[:1])
    first = speech.with_features(encoder, tmp_path).clips[0].features
    assert torch.equal(speech.with_features(encoder, tmp_path).clips[0].features, first)
    assert len(list(tmp_path.glob("features-*"))) == 1
    other = SpeechSet((replace(speech.clips[0], sound=speech.clips[0].sound.flip(0)),))
    assert not torch.equal(other.with_features(encoder, tmp_path).clips[0].features, first)

    stage = built(world, "unet")
    rng = np.random.default_rng(0)

    def bitmap() -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(buffer, "BMP")
        return buffer.getvalue()

    def latents() -> torch.Tensor:
        pictures = replace(stage.held_out_pictures, encoded=tuple(bitmap() for _ in range(6)))
        motion = torch.cat([pictures.expression, pictures.pose], dim=1)
        networks = (stage.networks["unet"], stage.autoencoder, stage.face_model)
        return prepare_pairs(pictures, motion, *networks, stage.options, 0, tmp_path / "pairs", 0).latents

    assert not torch.equal(latents(), latents())


@pytest.mark.parametrize("alignment", ["none", "warp_image"])
def test_other_forms_of_the_unet_train_by_the_same_command(world: Path, alignment: str) -> None:
    options = ["--run", alignment, "--steps", "3", "--set", f"network.reference_alignment={alignment}"]
    assert run_stage(world, "unet", *options) == 0
    path = world / "weights" / "unet.safetensors"
    assert read_header(path)[1]["reference_alignment"] == alignment


def test_the_joint_ablation_trains_by_the_same_command(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--run", "joint", "--steps", "3", "--set", "joint=true", "--set", "sync_weight=0"]
    assert run_stage(world, "motion", *options) == 2
    assert "weights holds expression.safetensors already" in capsys.readouterr().err
    weights = world / "joint-weights"
    weights.mkdir()
    shutil.copy(world / "weights" / "audio_encoder.safetensors", weights)
    assert run_stage(world, "motion", *options, "--weights", str(weights)) == 0
    assert read_header(weights / "joint.safetensors")[1]["kind"] == "joint"
    back = ["--run", "back", "--steps", "3", "--set", "sync_weight=0", "--weights", str(weights)]
    assert run_stage(world, "motion", *back) == 2
    assert "holds joint.safetensors already" in capsys.readouterr().err


def test_wrong_or_missing_data_is_a_sentence(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    cases = {
        "autoencoder": (tmp_path / "nowhere", "There is no data folder"),
        "audio_encoder": (tmp_path, "holds no shards"),
    }
    for stage, (data, sentence) in cases.items():
        assert run_stage(world, stage, "--run", "bad", data=data) == 2
        assert sentence in capsys.readouterr().err
    synthetic.write_shard(tmp_path / "broken" / "clips-0.tar", {"a": {"json": b"{}", "wav": b"x"}})
    assert run_stage(world, "audio_encoder", "--run", "bad", data=tmp_path / "broken") == 2
    assert "The recording a in the data is broken" in capsys.readouterr().err
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "frames-0.tar").write_bytes(b"not a tar" * 200)
    assert run_stage(world, "autoencoder", "--run", "bad", data=tmp_path / "cut") == 2
    assert "cannot be read" in capsys.readouterr().err


def test_a_stage_names_the_stage_before_it(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "weights").mkdir()
    module = importlib.import_module("training.motion")
    arguments = ["--config", "smoke", "--data", str(world / "data"), "--weights", str(tmp_path / "weights")]
    assert module.main([*arguments, "--runs", str(tmp_path)]) == 2
    assert "python -m training.audio_encoder" in capsys.readouterr().err


def test_sets_are_disjoint_and_labels_fit(world: Path) -> None:
    face_model = default_face_model()
    train, held_out, words = load_speech(world / "data", face_model)
    assert not {c.name for c in train.clips} & {c.name for c in held_out.clips} and "recordings" in words
    clip = train.clips[0]
    assert (
        clip.num_frames == 100 and len(clip.waveform) == 64000 and clip.phonemes[-1][2] == pytest.approx(4.0)
    )
    pictures, others, _ = load_pictures(world / "data", face_model)
    assert len(pictures) == 24 and len(others) == 6 and pictures.size == 64
    people = [pictures.identity[person.start : person.stop] for person in pictures.people()]
    assert all(torch.equal(person, person[:1].expand_as(person)) for person in people)
    assert len(people) == 8 == len({tuple(person[0].tolist()) for person in people})


def test_pairs_are_two_pictures_of_one_person(world: Path) -> None:
    pictures = load_pictures(world / "data", default_face_model())[0]
    reference, frame = choose_pairs(pictures, 2, seed=3)
    assert len(reference) == 48 and (reference != frame).all()
    assert torch.equal(pictures.person[reference], pictures.person[frame])
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        first, second = draw_pair(pictures.people(), generator)
        assert first != second and pictures.person[first] == pictures.person[second]


def test_augmentation_treats_both_pictures_alike() -> None:
    pair = torch.rand(1, 3, 32, 32).expand(2, -1, -1, -1)
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        changed = random_colour(random_crop(pair, 16, generator), 0.5, generator)
        assert changed.shape == (2, 3, 16, 16) and torch.equal(changed[0], changed[1])
        assert changed.min() >= 0 and changed.max() <= 1


def test_perceptual_features_punish_blur_more_than_a_shift_of_brightness() -> None:
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    blurred = torch.nn.functional.avg_pool2d(picture, 3, 1, 1)
    brighter = picture + (blurred - picture).square().mean().sqrt()
    features = DefaultFeatures()

    def distance(other: torch.Tensor) -> float:
        pairs = zip(features(picture), features(other), strict=True)
        return float(sum((a - b).abs().mean() for a, b in pairs))

    assert distance(picture) == 0 and distance(blurred) > 2 * distance(brighter)


def test_vgg_features_come_from_a_file_of_the_user(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for index, shape in VGGFeatures._LAYERS.items():
        if shape:
            tensors[f"features.{index}.weight"] = (
                torch.randn(shape[1], shape[0], 3, 3, generator=generator) * 0.05
            )
            tensors[f"features.{index}.bias"] = torch.zeros(shape[1])
    save_file(tensors, tmp_path / "vgg.safetensors")
    maps = perceptual_features(tmp_path / "vgg.safetensors")(torch.rand(1, 3, 32, 32))
    assert [m.shape[1] for m in maps] == [64, 128, 256, 512, 512] and [m.shape[-1] for m in maps] == [
        32,
        16,
        8,
        4,
        2,
    ]
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="not a VGG-16"):
        perceptual_features(tmp_path / "other.safetensors")


def test_a_unet_learns_to_paint_mouths_into_films(world: Path, tmp_path: Path) -> None:
    """DiffTalk Sec. 3.2: z_m of a pair's frame, and landmarks that are none of its mouth's."""
    form = ["network.reference_alignment=none", "network.masked_input=true"]
    stage = built(world, "unet", *form)
    batch = first_batch(stage)
    frame, numbers = batch["frame"], len(shown_landmarks(default_face_model()))
    assert batch["masked"].shape == frame.shape and batch["landmarks"].shape[1] == 2 * numbers
    unet, t = stage.networks["unet"], batch["timestep"]
    assert unet.config.landmarks == numbers
    estimate = unet(
        noised(frame, batch["noise"], t),
        t,
        batch["motion"],
        batch["reference"],
        filmed=FilmedFrames(batch["masked"], batch["landmarks"]),
    )
    torch.testing.assert_close(stage(batch)["loss"], (estimate - frame).square().mean())
    # above the mouth the film shows the frame itself
    difference = (batch["masked"] - frame).abs().mean(dim=(0, 1))
    half = len(difference) // 2
    assert float(difference[: half // 2].mean()) < 0.2 * float(difference[half:].amax())
    with pytest.raises(FD2TalkError, match="filmed frames, which were not given"):
        unet(frame, t, batch["motion"], batch["reference"])
    options = ["--run", "masked", "--steps", "3", *(word for value in form for word in ("--set", value))]
    assert run_stage(world, "unet", *options) == 0
    assert load_checkpoint(world / "weights" / "unet.safetensors", FrameUNet).config.masked_input


def test_a_set_of_512_px_trains_and_shows_a_portrait_so(tmp_path: Path) -> None:
    """DiffTalk Sec. 3.2: as many latents as at 256 px, each of more pixels."""
    data, weights = synthetic.write_data(tmp_path / "data", clips=1, people=2, size=512), tmp_path / "weights"
    small = ("train.batch_size=1", 'train.precision="no"')
    for stage, settings in {
        "autoencoder": ["crop=64", "held_out_pairs=1"],
        "unet": ["held_out_pairs=1"],
        "blend": ["held_out_pairs=1"],
    }.items():
        line = ["--config", "tiny-512", "--data", data, "--weights", weights, "--runs", tmp_path / "runs"]
        line += [word for change in (*settings, *small) for word in ("--set", change)]
        assert importlib.import_module(f"training.{stage}").main([*map(str, line), "--steps", "1"]) == 0
    copy_weights(SHIPPED / "tiny", weights, ("audio_encoder", "expression", "pose"))
    pipeline = FD2TalkPipeline.from_pretrained(str(weights))
    assert pipeline.autoencoder.info.resolution == pipeline.unet.info.resolution == 512
    neutral = [
        CoefficientSequence(kind, torch.zeros(1, size), 25.0, "anny-arkit52")
        for kind, size in (("expression", 52), ("pose", 6))
    ]
    picture = read_image(ROOT / "example_inputs" / "portrait.png")
    clip = pipeline(picture, motion=tuple(neutral), paste_back=False)
    assert clip.frames().shape == (1, 512, 512, 3)
    assert pipeline.autoencoder.encode(torch.zeros(1, 3, 512, 512)).shape == (1, 16, 32, 32)

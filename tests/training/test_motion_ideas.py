"""What FaceTalk, DAWN and DiffTalk add to the training of motion, as values; and styles that stay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fd2talk_core import configs
from fd2talk_core.audio.resampling import SAMPLE_RATE
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.model import default_face_model
from fd2talk_core.networks.checkpoint import CheckpointInfo, load_checkpoint, read_header, save_checkpoint
from fd2talk_core.networks.motion_transformer import AudioFilter, MotionTransformer
from training.sources import SpeechClip, SpeechSet
from training.stages.motion import MotionOptions, MotionStage
from training.stages.student import StudentMotion, drawn_style

SMALL = {"num_layers": 1, "hidden_size": 32, "condition_dim": 32, "num_heads": 2, "recommended_steps": 1}
STYLES = ["happy", "sad"]
QUICK = {"sync_weight": 0, "frames": 10, "held_out_clips": 1, "held_out_seconds": 1}


def spoken(frames: int, seed: int = 0, **changes) -> SpeechClip:
    generator = torch.Generator().manual_seed(seed)
    clip = SpeechClip(
        name=f"clip{seed}",
        sound=torch.zeros(SAMPLE_RATE * frames // 25),
        phonemes=(),
        expression=0.2 + 0.2 * torch.rand(frames, 52, generator=generator),
        pose=0.1 * torch.randn(frames, 6, generator=generator),
        identity=torch.zeros(80),
        fps=25.0,
        features=torch.randn(frames, 138, generator=generator).half(),
        encoder="tiny",
    )
    return replace(clip, **changes)


def stage_of(*clips: SpeechClip, networks: dict | None = None, **changes) -> MotionStage:
    speech = SpeechSet(clips or (spoken(60),))
    networks = networks or {kind: configs.build(kind, "tiny", 0, **SMALL) for kind in ("expression", "pose")}
    options = MotionOptions(**{**QUICK, **changes})
    return MotionStage(networks, None, speech, speech, default_face_model(), options)


def batch_of(stage: MotionStage, first: int = 0, size: int = 4) -> dict[str, torch.Tensor]:
    return stage.batch(range(first, first + size), lambda index: torch.Generator().manual_seed(index))


# --- the network -----------------------------------------------------------------------------------


def network(**changes) -> MotionTransformer:
    torch.manual_seed(0)
    return configs.build("expression", "tiny", 0, **{**SMALL, "num_layers": 2, **changes})


def heard(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 12, 52, generator=generator), torch.randn(2, 12, 138, generator=generator)


def test_film_tells_the_layers_the_timestep_and_the_condition_no_longer() -> None:
    film, plain = network(time_conditioning="film"), network()
    sample, audio = heard()
    early, late = torch.tensor([10, 10]), torch.tensor([900, 900])
    with torch.no_grad():
        assert (plain(sample, early, audio) - plain(sample, late, audio)).abs().max() > 1e-4
        torch.testing.assert_close(film(sample, early, audio), film(sample, late, audio))
        for layer in film.layers:
            layer.time_film[1].weight.normal_(0, 0.2)
        assert (film(sample, early, audio) - film(sample, late, audio)).abs().max() > 1e-3
        # each of a batch by its own
        mixed = film(sample, torch.tensor([10, 900]), audio)
        torch.testing.assert_close(mixed[0], film(sample, early, audio)[0])
        torch.testing.assert_close(mixed[1], film(sample, late, audio)[1])
    assert film.condition_projection.in_features == 138
    assert plain.condition_projection.in_features == 138 + plain.config.time_embed_dim
    film(sample, late, audio).square().mean().backward()
    assert {n for n, p in film.named_parameters() if p.grad is None} == {"null_audio"}


def test_the_audio_filter_hears_w_frames_and_learns_which() -> None:
    torch.manual_seed(0)
    smoothing = AudioFilter(6, 8)
    audio = torch.randn(1, 40, 6)
    with torch.no_grad():
        assert (smoothing(audio) - audio).abs().max() < 0.25, "it begins near no smoothing"
        constant = torch.randn(1, 1, 6).expand(1, 40, 6)
        torch.testing.assert_close(smoothing(constant), constant)
        torch.testing.assert_close(smoothing(constant[:, :1]), constant[:, :1])
        smoothing.weigh[2].bias.zero_()
        mean = audio[:, 12:29].mean(dim=1)
        torch.testing.assert_close(smoothing(audio)[:, 20], mean, atol=1e-5, rtol=0)
    # frames that flicker between two sounds are to become their mean
    smoothing = AudioFilter(1, 2)
    flicker = (torch.arange(60) % 2).float()[None, :, None]
    optimiser = torch.optim.Adam(smoothing.parameters(), 0.05)
    for _ in range(60):
        optimiser.zero_grad()
        loss = (smoothing(flicker) - 0.5).square().mean()
        loss.backward()
        optimiser.step()
    assert loss < 0.02


def test_a_network_smooths_what_it_hears_and_a_file_says_so(tmp_path: Path) -> None:
    smoothed = network(audio_smoothing=8, num_layers=1, alignment_window=0, attention_window=0)
    sample, audio = heard()
    with torch.no_grad():
        smoothed.audio_filter.weigh[2].bias.zero_()
        before = smoothed(sample, torch.tensor(10), audio)
        audio[:, 9] += 5
        changed = (smoothed(sample, torch.tensor(10), audio) - before).abs().amax(dim=(0, 2)) > 1e-6
    assert changed[1:].all() and not changed[0], "one layer without a window hears through the filter alone"
    path = tmp_path / "expression.safetensors"
    save_checkpoint(smoothed, path, CheckpointInfo())
    assert load_checkpoint(path, MotionTransformer).config.audio_smoothing == 8


def test_what_the_network_cannot_be_told_is_named() -> None:
    with pytest.raises(FD2TalkError, match="time_conditioning is 'token', but 'condition' or 'film'"):
        network(time_conditioning="token")
    with pytest.raises(FD2TalkError, match="audio_smoothing is -1"):
        network(audio_smoothing=-1)


# --- what is trained on ----------------------------------------------------------------------------


def test_expressions_are_amplified_and_suppressed_as_a_whole() -> None:
    plain, scaled = batch_of(stage_of(), size=64), batch_of(stage_of(amplitude=0.3), size=64)
    expression = spoken(60).expression
    factors = []
    for window in scaled["expression"]:
        # the window whose expression this is a multiple of
        starts = expression.unfold(0, 10, 1).mT
        ratio = window / starts
        spread, start = ratio.flatten(1).std(dim=1).min(dim=0)
        assert spread < 1e-5
        factors.append(float(ratio[start].mean()))
    assert 0.7 <= min(factors) < 0.8 and 1.2 < max(factors) <= 1.3
    for window in plain["expression"]:
        assert ((window - expression.unfold(0, 10, 1).mT).flatten(1).abs().amax(dim=1) == 0).any()
    bright = stage_of(spoken(60, expression=torch.full((60, 52), 0.9)), amplitude=0.3)
    assert batch_of(bright, size=16)["expression"].max() == 1, "blendshapes stay within their range"


def test_clips_become_longer_and_of_any_length_after_a_while() -> None:
    stage = stage_of(spoken(60), spoken(30, seed=1), longer_from=20, longer_to=40, longer_after=8)
    lengths = [batch_of(stage, first)["expression"].shape[1] for first in range(0, 160, 4)]
    assert lengths[:2] == [10, 10] and min(lengths[2:]) >= 20 and max(lengths) <= 40
    assert len(set(lengths[2:])) > 8
    batch = batch_of(stage, 12)
    assert batch["audio"].shape[1] == batch["pose_noise"].shape[1] == batch["expression"].shape[1]
    assert torch.equal(batch["pose"], batch_of(stage, 12)["pose"]), "a run that goes on sees the same"
    assert batch_of(stage, 0)["expression"].shape[1] == 10
    assert stage(batch)["loss"].isfinite()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"amplitude": 1.5}, "amplitude is 1.5"),
        ({"longer_from": 5, "longer_to": 20}, "longer_from and longer_to are 5 and 20"),
        ({"longer_from": 20, "longer_to": 15}, "longer_from and longer_to are 20 and 15"),
        ({"longer_from": 20, "longer_to": 90}, "the longest recording in the data has 60"),
        ({"longer_after": -1}, "longer_after is -1"),
    ],
)
def test_lengths_and_amplitudes_that_cannot_be_are_named(changes: dict, told: str) -> None:
    with pytest.raises(FD2TalkError, match=told):
        stage_of(**changes)


# --- styles that were learned before ---------------------------------------------------------------


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights whose expression has learned styles."""
    folder = tmp_path_factory.mktemp("earlier")
    for kind in ("expression", "pose"):
        styles = {"styles": STYLES, "style_rank": 4} if kind == "expression" else {}
        made = configs.build(kind, "tiny", 5, **SMALL, **styles)
        with torch.no_grad():
            for name, value in made.named_parameters():
                if name.startswith("style."):
                    value.normal_(0, 0.1)
        words = "a corpus; styles: happy, sad, some hours" if styles else "a corpus"
        save_checkpoint(made, folder / f"{kind}.safetensors", CheckpointInfo(trained_on=words))
    return folder


def style_weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {n: v.detach().clone() for n, v in module.state_dict().items() if n.startswith("style.")}


def step(stage: MotionStage) -> None:
    """One of the optimiser's, with a weight decay that would be seen."""
    trained = [value for value in stage.networks.parameters() if value.requires_grad]
    optimiser = torch.optim.AdamW(trained, 1e-2, weight_decay=0.5)
    stage(batch_of(stage))["loss"].backward()
    optimiser.step()


def test_motion_that_goes_on_from_styles_keeps_them(earlier: Path, tmp_path: Path) -> None:
    stage = stage_of()
    stage.start_from(earlier)
    before = style_weights(stage.networks["expression"])
    saved = load_checkpoint(earlier / "expression.safetensors", MotionTransformer)
    weights = stage.networks["expression"].proj_out.weight.detach().clone()
    assert before and len(before) == len(style_weights(saved))
    step(stage)
    after = style_weights(stage.networks["expression"])
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not torch.equal(stage.networks["expression"].proj_out.weight, weights)
    stage.export(tmp_path, "more hours")
    _, config, info = read_header(tmp_path / "expression.safetensors")
    assert config["styles"] == STYLES and config["style_rank"] == 4
    assert info.trained_on == "more hours; styles: happy, sad, some hours"
    assert read_header(tmp_path / "pose.safetensors")[2].trained_on == "more hours"


def test_recordings_in_a_style_teach_it_on(earlier: Path) -> None:
    stage = stage_of(spoken(60, style="sad", style_strength=0.8))
    stage.start_from(earlier)
    before = style_weights(stage.networks["expression"])
    assert torch.equal(batch_of(stage)["style"], torch.tensor([[0.0, 0.8]]).expand(4, 2))
    step(stage)
    after = style_weights(stage.networks["expression"])
    assert any(not torch.equal(after[name], value) for name, value in before.items())
    with pytest.raises(FD2TalkError, match="is said 'bored'"):
        stage_of(spoken(60, style="bored", style_strength=0.8)).start_from(earlier)


def test_other_styles_than_those_learned_are_refused(earlier: Path) -> None:
    other = configs.build("expression", "tiny", 0, **SMALL, styles=["angry", "sad"], style_rank=4)
    with pytest.raises(FD2TalkError, match="has learned the styles happy, sad"):
        stage_of(networks={"expression": other}).start_from(earlier)


def test_a_student_follows_its_teacher_in_every_style(earlier: Path, tmp_path: Path) -> None:
    stage = stage_of()
    stage.start_from(earlier)
    same = StudentMotion(stage, 2, 2)
    batch = batch_of(same, size=32)
    styles = batch["style"]
    assert 8 <= int((styles.sum(dim=1) == 0).sum()) <= 24 and (styles.amax(dim=0) > 0.3).all()
    assert ((styles > 0).sum(dim=1) <= 1).all()
    torch.testing.assert_close(same(batch)["loss"], torch.zeros(()), atol=1e-6, rtol=0)
    with torch.no_grad():  # who forgets the styles does not answer as the teacher does
        kept = style_weights(same.networks["expression"])
        for name, value in same.networks["expression"].named_parameters():
            if name.startswith("style."):
                value.zero_()
    assert same(batch)["loss"] > 1e-5
    step(same)
    assert any(value.any() for value in style_weights(same.networks["expression"]).values()), "it learns them"
    assert len(kept) == len(style_weights(same.networks["expression"]))
    same.export(tmp_path, "distilled")
    assert read_header(tmp_path / "expression.safetensors")[1]["styles"] == STYLES
    assert not drawn_style(2, torch.Generator().manual_seed(3)).isnan().any()

"""``paper.yaml``: its switches do something, and no other configuration differs without a word about it."""

from __future__ import annotations

import inspect
import re
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch

from fd2talk_core import configs
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.networks.lip_expert import sync_probability
from scripts.environment import ROOT
from training.sources import PictureSet
from training.stages.audio_encoder import AudioEncoderOptions
from training.stages.autoencoder import AutoencoderOptions
from training.stages.lip_expert import LipExpertOptions
from training.stages.motion import MotionOptions
from training.stages.unet import UNetOptions, choose_pairs, sample_pairs
from training.trainer import (
    TrainSettings,
    has_section,
    load_section,
    stage_options,
    subsection,
    train_settings,
)

STAGES = {
    "audio_encoder": (AudioEncoderOptions(), ("audio_encoder",)),
    "lip_expert": (LipExpertOptions(), ("lip_expert",)),
    "motion": (MotionOptions(), ("expression", "pose")),
    "autoencoder": (AutoencoderOptions(), ("autoencoder",)),
    "unet": (UNetOptions(), ("unet",)),
}


def values_of(config: str) -> dict[str, Any]:
    """Every value of a configuration, those that it leaves to their defaults included."""
    values: dict[str, Any] = {stage: has_section(config, stage) for stage in ("blend", "style")}
    for stage, (defaults, networks) in STAGES.items():
        section = load_section(config, stage)
        options = {stage: asdict(stage_options(section, defaults))}
        options[f"{stage}.train"] = asdict(train_settings(section))
        for network in networks:
            known = inspect.signature(configs.network_class(network).__init__).parameters.values()
            own = {p.name: p.default for p in known if p.default is not p.empty}
            own |= configs.load_config(network, section["size"]) | subsection(section, "network")
            options[f"{network}.network"] = own
        for place, held in options.items():
            values |= {f"{place}.{key}": list(v) if isinstance(v, tuple) else v for key, v in held.items()}
    return values


@pytest.mark.parametrize("config", ["base", "tiny"])
def test_every_deviation_is_told(config: str) -> None:
    text = (ROOT / "docs" / "deviations.md").read_text(encoding="utf-8")
    parts = dict(re.findall(r"^## `(\w+)`\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    rows = [row for row in parts[config].splitlines() if row.startswith("| `")]
    told = {key for row in rows for key in re.findall(r"`([\w.]+)`", row.split(" | ")[0])}
    assert all(len(row.split(" | ")) == 5 for row in rows)
    paper, other = values_of("paper"), values_of(config)
    differing = {key for key in paper.keys() | other.keys() if paper.get(key) != other.get(key)}
    if config == "tiny":
        base = values_of("base")
        differing -= {key for key in differing if base.get(key) != paper.get(key)}
    assert differing - told == set(), "not told"
    assert told - differing == set(), "told, but the same"


def test_the_paper_is_what_its_text_says() -> None:
    values = values_of("paper")
    expected = {
        "motion.frames": 25,
        "motion.train.batch_size": 1,
        "unet.train.batch_size": 32,
        "unet.network.sample_size": 64,
        "unet.steps": 50,
        "expression.network.num_layers": 6,
        "expression.network.alignment_window": 3,
        "unet.condition": "estimated",
        "unet.network.motion_tokens": 1,
        "blend": False,
    }
    assert {key: values[key] for key in expected} == expected
    assert TrainSettings().steps  # the defaults are what values are compared with


def test_without_audio_positions_the_order_of_sounds_is_not_heard() -> None:
    """One layer, all sounds within the mask: their order makes a difference with positions alone."""
    torch.manual_seed(0)
    for positions in (True, False):
        changes = {"num_layers": 1, "alignment_window": 8, "audio_positions": positions}
        network = configs.build("pose", "tiny", 0, **changes)
        sample, sound = torch.randn(1, 4, 6), torch.randn(1, 4, network.config.audio_dim)
        with torch.no_grad():
            one = network(sample, torch.tensor(500), sound)
            other = network(sample, torch.tensor(500), sound.flip(1))
        assert torch.allclose(one, other, atol=1e-5) == (not positions)


def test_the_binary_loss_is_the_cross_entropy_of_p_sync() -> None:
    expert = configs.build("lip_expert", "tiny", 0, num_mouth_vertices=4, audio_dim=3)
    mouth, audio, others = torch.randn(2, 5, 4, 3), torch.randn(2, 5, 3), torch.randn(2, 3, 5, 3)
    with torch.no_grad():
        true = expert(mouth, audio)
        other = sync_probability(expert.embed_motion(mouth)[:, None], expert.embed_audio(others))
        expected = torch.nn.functional.binary_cross_entropy(true, torch.ones(2)) / 2
        expected = expected + torch.nn.functional.binary_cross_entropy(other, torch.zeros(2, 3)) / 2
        torch.testing.assert_close(expert.binary_loss(mouth, audio, others), expected)
    with pytest.raises(FD2TalkError, match="loss is 'hinge'"):
        LipExpertOptions(loss="hinge")


def test_the_first_frame_is_the_reference() -> None:
    rows = torch.zeros(5, 1)
    pictures = PictureSet((b"",) * 5, torch.tensor([0, 0, 0, 1, 1]), rows, rows, rows)
    reference, frame = choose_pairs(pictures, 4, 0, reference="first")
    assert list(zip(reference.tolist(), frame.tolist(), strict=True)) == [(0, 1), (0, 2), (3, 4)]
    assert len(choose_pairs(pictures, 4, 0)[0]) == 3 * 2 + 2
    for name in ("reference", "noise_mode"):
        with pytest.raises(FD2TalkError, match=f"{name} is 'none'"):
            replace(UNetOptions(), **{name: "none"})


def test_noise_per_frame_makes_equal_pairs_differ() -> None:
    changes = {"reference_alignment": "none", "alignment_channels": 0, "reference_encoder": None}
    sizes = {"block_out_channels": [16, 16, 16], "attention_head_dim": 16, "sample_size": 8}
    unet = configs.build("unet", "tiny", 0, predict_residual=False, **changes, **sizes)
    pair = {"reference": torch.randn(16, 8, 8), "motion": torch.randn(58)}
    shared = sample_pairs(unet, [pair, pair], 1)
    torch.testing.assert_close(shared[0], shared[1])
    own = sample_pairs(unet, [pair, pair], 1, "per_frame")
    assert (own[0] - own[1]).abs().max() > 1e-3

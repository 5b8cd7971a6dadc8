"""The ablations are trained, measured and told, row by row."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path[:0] = [str(Path(__file__).parent)]

import synthetic  # noqa: E402

from fd2talk_core import configs  # noqa: E402
from fd2talk_core.face.model import default_face_model  # noqa: E402
from fd2talk_core.networks.checkpoint import SHIPPED  # noqa: E402
from fd2talk_core.networks.latent_flow import FlowPredictor, LatentFlowUNet  # noqa: E402
from fd2talk_core.networks.pose_blink import PoseBlinkNetwork  # noqa: E402
from training import ablate  # noqa: E402
from training.ablate import CLAIMS, MEASURES, VARIANTS, ablation_table, main, verdict  # noqa: E402
from training.trainer import load_section  # noqa: E402
from training.trainer.settings import apply_overrides  # noqa: E402


def seeds(**values: tuple[float, ...]) -> list[dict[str, dict[str, float]]]:
    rows = zip(*values.values(), strict=True)
    return [{"row": dict(zip(values, row, strict=True)), "chance": {"p_sync": 0.1}} for row in rows]


def test_a_verdict_needs_two_standard_errors() -> None:
    measure = next(m for m in MEASURES["motion"] if m.key == "correlation")
    clear = {"full": seeds(correlation=(0.8, 0.81, 0.79)), "joint": seeds(correlation=(0.6, 0.61, 0.59))}
    assert "the paper's order holds" in verdict("joint", measure, clear, "full")
    turned = {"full": clear["joint"], "joint": clear["full"]}
    assert "does not hold" in verdict("joint", measure, turned, "full")
    close = {"full": seeds(correlation=(0.8, 0.7, 0.6)), "joint": seeds(correlation=(0.75, 0.66, 0.6))}
    assert "too close to tell" in verdict("joint", measure, close, "full")
    single = {name: values[:1] for name, values in clear.items()}
    assert "better by 0.200; one seed tells no more" in verdict("joint", measure, single, "full")
    lower = next(m for m in MEASURES["motion"] if m.best == "low")
    errors = {"full": seeds(**{lower.key: (1.0, 1.1)}), "joint": seeds(**{lower.key: (2.0, 2.1)})}
    assert "order holds" in verdict("joint", lower, errors, "full")


def test_the_table_has_means_deviations_and_chance() -> None:
    lines = ablation_table("motion", {"full": seeds(p_sync=(0.2, 0.4))})
    assert "0.300 ± 0.141" in lines[2] and lines[-1].startswith("| chance") and "0.100 ± 0.000" in lines[-1]


def test_every_row_is_a_configuration_that_exists() -> None:
    from dataclasses import fields

    from training.stages.conditions import load_autoencoder
    from training.stages.flow import FlowOptions
    from training.stages.latent_flow import LatentFlowOptions
    from training.stages.motion import MotionOptions
    from training.stages.pose_blink import PoseBlinkOptions
    from training.stages.unet import UNetOptions, build_unet

    options = {
        "motion": MotionOptions,
        "unet": UNetOptions,
        "pbnet": PoseBlinkOptions,
        "flow": FlowOptions,
        ablate.GENERATOR: LatentFlowOptions,
    }
    built = []

    def network_of(stage: str, section: dict) -> torch.nn.Module:
        if stage == "motion":
            return configs.build("expression", "tiny", 0, **section["network"])
        if stage == "unet":
            return build_unet(section, default_face_model(), load_autoencoder(SHIPPED / "tiny"), 128, 0)
        kinds = {"pbnet": PoseBlinkNetwork, "flow": LatentFlowUNet, ablate.GENERATOR: FlowPredictor}
        return kinds[stage].from_config(section.get("network", {}))

    rows = [(variant.stage, variant.settings) for variant in VARIANTS if variant.stage and not variant.of]
    for stage, settings in [*rows, (ablate.GENERATOR, ())]:
        section = apply_overrides(load_section("ablate", stage), list(settings))
        known = {field.name for field in fields(options[stage])} | {"train", "network", "size", "face_model"}
        assert set(section) <= known
        built.append(network_of(stage, section))
    windows = [network.config.alignment_window for network in built if hasattr(network.config, "kind")]
    assert windows == [3, 3, None] + 6 * [3] + 2 * [3]
    forms = [n.config.conditioning + n.config.reference_alignment for n in built if hasattr(n, "make_cache")]
    assert forms == [
        *("decouplednone", "concatnone", "decoupledwarp_image", "decouplednone", "decouplednone"),
    ]
    assert set(CLAIMS) <= {variant.key for variant in VARIANTS}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.write_data(tmp_path_factory.mktemp("ablate") / "data", clips=2, people=2, size=64)


def test_rows_are_trained_measured_and_kept(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    page = tmp_path / "ablations.md"
    line = ["--data", str(data), "--out", str(tmp_path / "out"), "--document", str(page), "--threads", "1"]
    line += ["--rows", "full", "joint", "guided", "--seeds", "1", "--clips", "1"]
    line += ["--steps", "motion=1", "--note", "A note."]
    monkeypatch.setattr(ablate, "SECONDS", 1.0)
    monkeypatch.setattr(ablate, "SAMPLES", 2)
    assert main(line) == 0
    text = page.read_text(encoding="utf-8")
    assert "A note." in text and "1 steps a row" in text and "| ours: full, sampled with guidance 2 |" in text
    assert (
        "**Full against single diffusion transformer (Table 2).**" in text
        and "one seed tells no more" in text
    )
    assert "the recordings' own motion" in text
    assert (tmp_path / "out" / "rows" / "joint-0" / "weights" / "joint.safetensors").is_file()
    # a row that is done is neither trained nor measured again
    monkeypatch.setattr(ablate, "import_module", None)
    monkeypatch.setattr(ablate, "_measure_motion", None)
    assert main(line) == 0
    assert page.read_text(encoding="utf-8") == text
    assert main(["--rows", "nobody", "--data", str(data)]) == 2
    assert "A row is 'nobody'" in capsys.readouterr().err
    assert main(["--steps", "motion=x", "--data", str(data)]) == 2
    assert "--steps takes STAGE=STEPS" in capsys.readouterr().err


def test_dawns_parts_are_measured_beside_ours(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, videos = tmp_path / "ablations.md", tmp_path / "videos"
    synthetic.write_videos(videos, videos=2, size=64)
    line = ["--data", str(data), "--videos", str(videos), "--out", str(tmp_path / "out"), "--seeds", "1"]
    line += ["--document", str(page), "--threads", "1", "--clips", "1"]
    line += ["--rows", "full", "posedit", "pbnet", "flow_of_motion", "shipped_latents"]
    line += [
        part for stage in ("motion", "pbnet", "latent_flow", "flow") for part in ("--steps", f"{stage}=1")
    ]
    monkeypatch.setattr(ablate, "SECONDS", 4.0)
    monkeypatch.setattr(ablate, "SAMPLES", 2)
    assert main(line) == 0
    text = page.read_text(encoding="utf-8")
    for row in ("PoseDiT, and lids by ExpDiT", "PBNet: a transformer VAE", "ours: all frames at once, from"):
        assert f"| {row}" in text
    heads = next(row for row in text.splitlines() if row.startswith("| PBNet"))
    assert len(heads.split("|")) == 8 and "chance: the portrait copied" in text
    # the generator is trained once, and its rows take its decoder
    own, shared = (tmp_path / "out" / place / "weights" for place in ("rows/flow_of_motion-0", "latent_flow"))
    assert (own / "autoencoder.safetensors").read_bytes() == (shared / "autoencoder.safetensors").read_bytes()
    assert configs.load_network("unet", own / "unet.safetensors").config.states == "motion"
    monkeypatch.setattr(ablate, "import_module", None)
    monkeypatch.setattr(ablate, "_measure_videos", None)
    assert main(line) == 0
    assert page.read_text(encoding="utf-8") == text

"""Checkpoint files describe themselves, and a bad one is refused in a sentence with nothing executed."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fd2talk_core import configs
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.networks.autoencoder import FrameAutoencoder
from fd2talk_core.networks.checkpoint import (
    CheckpointInfo,
    find_checkpoint,
    load_checkpoint,
    read_header,
    save_checkpoint,
)
from fd2talk_core.networks.lip_expert import LipExpert

INFO = CheckpointInfo(face_model="anny-arkit52", native_fps=25, steps=8, trained_on="nothing")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "lip.safetensors"
    save_checkpoint(configs.build("lip_expert", "tiny", seed=3), path, INFO, dtype=None)
    return path


def rewrite(path: Path, **changes: str) -> None:
    """Save the same tensors under another header."""
    name, config, _ = read_header(path)
    metadata = {"format": "1", "class": name, "config": json.dumps(config), "info": "{}"} | changes
    save_file(load_file(path), path, {k: v for k, v in metadata.items() if v})


def test_round_trip_is_exact_and_describes_itself(file: Path) -> None:
    loaded = load_checkpoint(file, LipExpert, face_model="anny-arkit52")
    original = configs.build("lip_expert", "tiny", seed=3)
    assert loaded.info == INFO and not loaded.training
    for name, value in original.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])


def test_half_precision_storage_loads_as_float32(file: Path) -> None:
    save_checkpoint(configs.build("lip_expert", "tiny", seed=3), file, INFO)
    assert all(p.dtype == torch.float32 for p in load_checkpoint(file, LipExpert).parameters())


def test_building_leaves_the_random_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    configs.build("lip_expert", "tiny", seed=9)
    assert torch.equal(torch.rand(1), expected)


def test_another_class_is_refused(file: Path) -> None:
    with pytest.raises(FD2TalkError, match="lip.safetensors holds a LipExpert, but a FrameAutoencoder"):
        load_checkpoint(file, FrameAutoencoder)


def test_another_face_model_is_refused(file: Path) -> None:
    with pytest.raises(FD2TalkError, match="'anny-arkit52', but 'flame'"):
        load_checkpoint(file, LipExpert, face_model="flame")


def test_missing_and_unexpected_keys_are_named(file: Path) -> None:
    name, config, _ = read_header(file)
    tensors = load_file(file)
    dropped = sorted(tensors)[0]
    tensors["stranger"] = tensors.pop(dropped)
    save_file(tensors, file, {"class": name, "config": json.dumps(config), "info": "{}"})
    with pytest.raises(FD2TalkError) as caught:
        load_checkpoint(file, LipExpert)
    assert dropped in str(caught.value) and "stranger" in str(caught.value)


def test_wrong_shape_and_not_a_number_are_named(file: Path) -> None:
    name, config, _ = read_header(file)
    header = {"class": name, "config": json.dumps(config), "info": "{}"}
    tensors = load_file(file)
    key = next(k for k in sorted(tensors) if tensors[k].ndim > 1)
    save_file(tensors | {key: tensors[key][:1].clone()}, file, header)
    with pytest.raises(FD2TalkError, match=key.replace(".", r"\.")):
        load_checkpoint(file, LipExpert)
    save_file(tensors | {key: tensors[key] * float("nan")}, file, header)
    with pytest.raises(FD2TalkError, match="not a number"):
        load_checkpoint(file, LipExpert)


def test_truncated_empty_and_foreign_files(file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    for size in (0, 5, 200, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:size])
        with pytest.raises(FD2TalkError, match="lip.safetensors"):
            load_checkpoint(file, LipExpert)
    other = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(1)}, other)
    with pytest.raises(FD2TalkError, match="not an FD2Talk checkpoint"):
        load_checkpoint(other, LipExpert)


class _Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))


def test_a_pickle_is_refused_and_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.safetensors"
    path.write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises(FD2TalkError, match="evil.safetensors"):
        load_checkpoint(path, LipExpert)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("config", ["[]", "not json", '{"frames": "many"}', '{"frames": -3, "audio_dim": 0}'])
def test_a_broken_config_is_refused(file: Path, config: str) -> None:
    rewrite(file, config=config)
    with pytest.raises(FD2TalkError, match="lip.safetensors"):
        load_checkpoint(file, LipExpert)


@pytest.mark.parametrize("resolution", ["256", 256.5, None, -8, 1 << 30])
def test_a_broken_resolution_is_refused(file: Path, resolution: object) -> None:
    rewrite(file, info=json.dumps({"resolution": resolution}))
    with pytest.raises(FD2TalkError, match=r"lip\.safetensors.*resolution is .*, but a whole number"):
        load_checkpoint(file, LipExpert)


def test_a_missing_file_names_every_folder_searched(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    with pytest.raises(FD2TalkError) as caught:
        find_checkpoint("unet", "nowhere", folders)
    assert all(str(folder) in str(caught.value) for folder in folders)
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "nowhere").touch()
    assert find_checkpoint("unet", "nowhere", folders) == tmp_path / "two" / "nowhere"


def test_a_set_may_hold_a_wav2vec_folder_and_one_network_for_both_motions(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    (folder / "audio_encoder").mkdir(parents=True)
    with pytest.raises(FD2TalkError, match="No audio_encoder checkpoint"):
        find_checkpoint("audio_encoder", "mine", [tmp_path])
    (folder / "audio_encoder" / "config.json").touch()
    assert find_checkpoint("audio_encoder", "mine", [tmp_path]) == folder / "audio_encoder"
    assert find_checkpoint("audio_encoder", str(folder), [Path()]) == folder / "audio_encoder"
    (folder / "joint.safetensors").touch()
    for network in ("expression", "pose"):
        assert find_checkpoint(network, "mine", [tmp_path]) == folder / "joint.safetensors"
    (folder / "pose.safetensors").touch()
    with pytest.raises(FD2TalkError, match="joint.safetensors and pose.safetensors, which both"):
        find_checkpoint("pose", "mine", [tmp_path])

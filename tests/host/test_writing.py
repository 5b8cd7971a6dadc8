"""Nothing that a graph says makes a node of ours write outside the folder that it writes to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fd2talk_core.formats.sequences import load_motion
from scripts.comfyui import ComfyUIServer

pytestmark = pytest.mark.host

POSE = {"pitch": 0, "yaw": 20, "roll": 0, "x": 0, "y": 0, "z": 0.5, "seconds": 0.2, "fps": 25}
ENDINGS = [
    "/../../../user/default/comfy.settings.json",
    "x/../../../custom_nodes/planted.json",
    "x/../../../models/fd2talk/expression/planted.safetensors",
    "x/../planted.npz",
    "/planted.json",
    "../planted.json",
    "..\\..\\planted.json",
    "json/../../../planted.csv",
    "py",
    "html",
    "json\n",
    "json\0.py",
    "",
    7,
]
PREFIXES = [
    "..",
    "../planted",
    "a/../../planted",
    "a/..",
    "..\\planted",
    "/tmp/fd2talk-planted",
    "./..",
    ".",
    "",
    "   ",
    "///",
    "name\nline",
    "nul\0",
    "away/planted",
    "away/%year%/planted",
    "speech/under_a_file",
    "x" * 300,
    7,
]


def save(prefix: object, ending: object) -> dict:
    return {
        "pose": {"class_type": "FD2TalkConstantPose", "inputs": POSE},
        "save": {
            "class_type": "FD2TalkSaveCoefficients",
            "inputs": {"pose": ["pose", 0], "filename_prefix": prefix, "format": ending},
        },
    }


def everything_under(folder: Path) -> dict[str, bytes]:
    """Files and their content, the host's own log left out."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return {str(path): path.read_bytes() for path in files if path.suffix != ".log"}


def left_after(comfyui: ComfyUIServer, graph: dict) -> str | None:
    """Run a graph that must not write; returns what the host says, None when it runs."""
    before = everything_under(comfyui.base)
    try:
        comfyui.run(graph)
        said = None
    except (RuntimeError, ValueError) as error:
        said = str(error)
    after = everything_under(comfyui.base)
    assert after == before, f"written: {sorted(after.keys() ^ before.keys()) or 'an old file changed'}"
    return said


@pytest.fixture(scope="module")
def planted(comfyui: ComfyUIServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A link in the output folder that leads away, and settings that must survive."""
    away = tmp_path_factory.mktemp("away")
    (comfyui.folder("user") / "default").mkdir(parents=True, exist_ok=True)
    (comfyui.base / "user" / "default" / "comfy.settings.json").write_text("{}")
    (comfyui.folder("output") / "away").symlink_to(away, target_is_directory=True)
    (comfyui.folder("output") / "speech").write_text("a file")
    return away


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_format_is_no_path(comfyui: ComfyUIServer, planted: Path, ending: object) -> None:
    said = left_after(comfyui, save("fd2talk/motion", ending))
    assert said and ("no ending of a file's name" in said or "motion is saved as one of" in said), said


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_name_stays_in_the_folder(comfyui: ComfyUIServer, planted: Path, prefix: object) -> None:
    if prefix == 7:  # the host makes a word of it
        comfyui.run(save(prefix, "json"))
        assert (comfyui.folder("output") / "7_00001_.json").is_file()
        return
    said = left_after(comfyui, save(prefix, "json"))
    assert said and any(
        words in said for words in ("names no file", "leads outside", "can be saved", "too long")
    ), said
    assert os.listdir(planted) == []


def test_a_word_from_another_node_is_checked_when_the_node_runs(
    comfyui: ComfyUIServer, planted: Path
) -> None:
    """Newer hosts take a linked text for a list's choice; on all of them one can be a name."""
    graph = save(["text", 0], "json")
    graph["text"] = {"class_type": "PrimitiveString", "inputs": {"value": "../../planted"}}
    said = left_after(comfyui, graph)
    assert said and "leads outside" in said


def test_a_file_that_is_there_is_never_written_over(comfyui: ComfyUIServer) -> None:
    folder = comfyui.folder("output") / "twice"
    folder.mkdir()
    (folder / "take_00001_.json").write_text("earlier")
    (folder / "take_00002_.json").symlink_to(folder / "take_00001_.json")
    comfyui.run(save("twice/take", "json"))
    assert (folder / "take_00001_.json").read_text() == "earlier"
    assert load_motion(folder / "take_00003_.json").pose.num_frames == 5

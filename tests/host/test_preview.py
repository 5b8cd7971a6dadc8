"""What the motion preview leaves behind in a real ComfyUI: a video in temp, a GLB only when asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from fd2talk_core.formats.sequences import save_motion
from fd2talk_core.motion.editing import idle_motion
from scripts.comfyui import ComfyUIServer
from tests.host.conftest import Watcher
from tests.host.media import play

pytestmark = pytest.mark.host


def preview(comfyui: ComfyUIServer, frames: int, **inputs: object) -> dict:
    """A graph that previews some head motion and tells the number of pictures in its IMAGE output."""
    save_motion(comfyui.folder("input") / f"head_{frames}.json", pose=idle_motion(frames, 25.0))
    return {
        "load": {
            "class_type": "FD2TalkLoadCoefficients",
            "inputs": {"motion_file": f"head_{frames}.json", "fps": 0.0},
        },
        "preview": {
            "class_type": "Coeff3DMMPreview",
            "inputs": {"pose": ["load", 1], "view": "front", "size": 64, **inputs},
        },
        "count": {"class_type": "GetImageSize", "inputs": {"image": ["preview", 0]}},
        "told": {"class_type": "PreviewAny", "inputs": {"source": ["count", 2]}},
    }


def models_in(comfyui: ComfyUIServer) -> set[Path]:
    return {path for name in ("output", "temp") for path in comfyui.folder(name).rglob("*.glb")}


def test_a_glb_is_written_when_it_is_asked_for_and_not_otherwise(comfyui: ComfyUIServer) -> None:
    before, made = models_in(comfyui), set(comfyui.folder("output").rglob("*"))
    graph = preview(comfyui, 12)
    assert comfyui.run(graph)["told"]["text"] == ["12"]
    assert models_in(comfyui) == before
    assert set(comfyui.folder("output").rglob("*")) == made, "a preview leaves nothing in the output folder"

    graph["preview"]["inputs"]["write_glb"] = True
    graph["name"] = {"class_type": "PreviewAny", "inputs": {"source": ["preview", 1]}}
    (name,) = comfyui.run(graph)["name"]["text"]
    (model,) = models_in(comfyui) - before
    assert model == comfyui.folder("output") / name
    assert model.read_bytes()[:4] == b"glTF"


def test_who_takes_a_glb_that_was_not_asked_for_is_told(watcher: Watcher) -> None:
    graph = preview(watcher.server, 13)
    graph["name"] = {"class_type": "PreviewAny", "inputs": {"source": ["preview", 1]}}
    entry = watcher.follow(watcher.server.queue(graph))
    _, kind, told = watcher.messages[-1]
    assert kind == "execution_error" and "switch on write_glb" in told["exception_message"]
    assert "name" not in entry["outputs"] and "preview" in entry["outputs"]


def test_a_long_preview_gives_its_first_pictures_and_says_so(watcher: Watcher) -> None:
    """At 1024 px, 42 pictures fit into 512 MB; the video has them all."""
    graph = preview(watcher.server, 43, size=1024)
    outputs = watcher.run(graph)
    assert outputs["told"]["text"] == ["42"]
    (result,) = outputs["preview"]["images"]
    assert len(play(watcher.server.path_of(result)).frames) == 43
    (sentence,) = outputs["preview"]["text"]
    assert sentence.startswith("frames holds the first 42 of 43 pictures")
    assert any(sentence.encode() in message for message in watcher.pictures), "told on the node"


def test_a_moving_head_is_saved_as_a_file_or_a_folder_of_files(watcher: Watcher) -> None:
    """This host has no type for 3D files, so who takes one is told."""
    server = watcher.server
    graph = preview(server, 6)
    graph["save"] = {
        "class_type": "FD2TalkSaveMesh",
        "inputs": {"pose": ["load", 1], "filename_prefix": "meshes/head", "format": "glb"},
    }
    (name,) = watcher.run(graph)["save"]["text"]
    assert (server.folder("output") / name).read_bytes()[:4] == b"glTF"
    graph["save"]["inputs"] |= {"format": "ply sequence", "smoothing": 0.5}
    folders = [watcher.run(graph)["save"]["text"][0]]
    graph["save"]["inputs"]["smoothing"] = 0.0
    folders.append(watcher.run(graph)["save"]["text"][0])
    assert len(set(folders)) == 2
    for folder in folders:
        assert len(list((server.folder("output") / folder).glob("*.ply"))) == 6
    graph["save"]["inputs"]["filename_prefix"] = "../outside"
    with pytest.raises(RuntimeError, match="outside the host's folder"):
        watcher.run(graph)
    graph["save"]["inputs"] |= {"filename_prefix": "meshes/head", "format": "glb"}
    graph["model"] = {"class_type": "PreviewAny", "inputs": {"source": ["save", 1]}}
    entry = watcher.follow(server.queue(graph))
    _, kind, told = watcher.messages[-1]
    assert kind == "execution_error" and "no type for 3D files" in told["exception_message"]
    assert "model" not in entry["outputs"] and "save" in entry["outputs"]

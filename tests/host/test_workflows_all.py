"""Every graph that ships: held to the host's own nodes, run, and its frames counted."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fd2talk_core.formats.video import VideoWriter
from fd2talk_core.timing import frame_count
from scripts.comfyui import PACK_NAME, ComfyUIServer
from scripts.environment import ROOT
from scripts.graphs import is_widget
from scripts.workflows import BLUEPRINT, NEWER, WORKFLOWS, files, new_graph
from tests.host.conftest import FPS, SECONDS, Watcher, id_of, node_of, small
from tests.host.media import lag, play, speech, write_wav

pytestmark = pytest.mark.host

NAMES = sorted(path.stem for path in (ROOT / "workflows").glob("*.json"))
REPLY = 0.5
"""Seconds that the second of two people speaks."""


@pytest.fixture(scope="module")
def object_info(comfyui: ComfyUIServer) -> dict[str, dict]:
    return comfyui.get("/object_info")


def of_page(name: str) -> dict:
    return json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))


def of_api(name: str) -> dict:
    return json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text(encoding="utf-8"))


def specs_of(info: dict) -> dict[str, list]:
    return {**info["input"].get("required", {}), **info["input"].get("optional", {})}


def test_the_files_are_what_their_descriptions_write(object_info: dict) -> None:
    """If a node was changed on purpose, write them again: ``python scripts/workflows.py``."""
    written = files(object_info)
    assert {path.name for path in written} == {
        path.name for folder in ("workflows", "subgraphs") for path in (ROOT / folder).glob("**/*.json")
    }
    for path, text in written.items():
        assert (ROOT / path).read_text(encoding="utf-8") == text, path


def test_nothing_is_missing() -> None:
    assert sorted(WORKFLOWS) == NAMES
    for name in NAMES:
        assert (ROOT / "workflows" / "api" / f"{name}.json").exists()
        assert (ROOT / "workflows" / f"{name}.jpg").stat().st_size > 5000, "python scripts/pictures.py"


@pytest.mark.parametrize("name", NAMES)
def test_the_api_form_is_valid_for_this_host(name: str, object_info: dict) -> None:
    graph = of_api(name)
    for node in graph.values():
        info = object_info[node["class_type"]]
        specs = specs_of(info)
        newer = NEWER.get(node["class_type"], {})
        assert newer.items() <= node["inputs"].items()
        assert node["inputs"].keys() - newer.keys() <= specs.keys()
        assert info["input"].get("required", {}).keys() <= node["inputs"].keys()
        for socket, value in node["inputs"].items():
            if socket in newer:
                continue
            kind, options = specs[socket][0], specs[socket][1] if len(specs[socket]) > 1 else {}
            if isinstance(value, list):
                source = graph[value[0]]
                given = object_info[source["class_type"]]["output"][value[1]]
                assert given in kind.split(",") or kind == "*", f"{node['class_type']}.{socket}"
            elif kind in ("INT", "FLOAT"):
                assert options.get("min", value) <= value <= options.get("max", value)
            elif kind == "COMBO" or isinstance(kind, list):
                choices = kind if isinstance(kind, list) else options["options"]
                is_file = "." in str(value)
                assert is_file or value in choices, f"{node['class_type']}.{socket} = {value}"


@pytest.mark.parametrize("name", NAMES)
def test_the_page_form_is_whole_and_tidy(name: str, object_info: dict) -> None:
    graph = of_page(name)
    nodes = {node["id"]: node for node in graph["nodes"]}
    notes = [node for node in nodes.values() if node["type"] == "MarkdownNote"]
    assert notes and all(len(node["widgets_values"][0]) > 80 for node in notes)
    assert {node["type"] for node in nodes.values()} - {"MarkdownNote"} <= object_info.keys()

    for number, origin, slot, target, socket, kind in graph["links"]:
        assert number in nodes[origin]["outputs"][slot]["links"]
        assert nodes[target]["inputs"][socket]["link"] == number
        assert nodes[origin]["outputs"][slot]["type"] == kind
    linked = {link[0] for link in graph["links"]}
    for node in nodes.values():
        assert {socket["link"] for socket in node["inputs"]} - {None} <= linked
        if node["type"] == "MarkdownNote":
            continue
        needed = object_info[node["type"]]["input"].get("required", {})
        for socket in node["inputs"]:
            required = socket["name"] in needed and not is_widget(needed[socket["name"]])
            assert not required or socket["link"], f"{node['type']}.{socket['name']} hangs in the air"

    def box(node: dict) -> tuple[int, int, int, int]:
        (x, y), (width, height) = node["pos"], node["size"]
        return x, y - 30, x + width, y + height

    boxes = [box(node) for node in nodes.values()]
    for index, (left, top, right, bottom) in enumerate(boxes):
        homes = [
            group["title"]
            for x, y, width, height, group in ((*group["bounding"], group) for group in graph["groups"])
            if x <= left and right <= x + width and y <= top and bottom <= y + height
        ]
        assert len(homes) == 1 and homes[0]
        for other in boxes[:index]:
            assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top


def test_the_template_browser_shows_each_with_its_picture(comfyui: ComfyUIServer) -> None:
    assert sorted(comfyui.get("/workflow_templates")[PACK_NAME]) == NAMES
    for name in NAMES:
        assert comfyui.get(f"/api/workflow_templates/{PACK_NAME}/{name}.json") == of_page(name)
        with urllib.request.urlopen(
            f"{comfyui.url}/api/workflow_templates/{PACK_NAME}/{urllib.parse.quote(name)}.jpg"
        ) as picture:
            assert picture.read(2) == b"\xff\xd8"


def with_inputs(comfyui: ComfyUIServer) -> None:
    """Small files in place of the examples that would take long."""
    folder = comfyui.folder("input")
    write_wav(folder / "fd2talk_reply.wav", speech(REPLY), 16000)
    with VideoWriter(folder / "fd2talk_driving.mp4", 25) as writer:
        writer.write(torch.from_numpy(play(ROOT / "example_inputs" / "driving.mp4").frames[:8]).float() / 255)


def videos_of(server: ComfyUIServer, graph: dict, outputs: dict) -> dict[str, Path]:
    """Files of the videos that a graph made, by the node's class."""
    return {
        graph[name]["class_type"]: server.path_of(file)
        for name, output in outputs.items()
        for file in output.get("images", [])
        if file["filename"].endswith(".mp4")
    }


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_and_has_every_frame(watcher: Watcher, name: str) -> None:
    with_inputs(watcher.server)
    graph = small(of_api(name))
    # two heads in a large picture take as long as all others together
    fps = FPS / 2 if name == "two_people" else FPS
    if name == "dub_video":
        fps = 25  # the film's own, which stays
    for node in graph.values():
        if node["class_type"] == "LoadAudioWav2Vec":
            node["inputs"]["fps"] = fps
        if node["class_type"] == "Coeff3DMMPreview":
            node["inputs"]["size"] = 64
    videos = videos_of(watcher.server, graph, watcher.run(graph))
    shown = {node["class_type"] for node in graph.values()} & {"SaveVideo", "Coeff3DMMPreview"}
    assert videos.keys() == shown
    said = [speech(SECONDS), speech(REPLY)] if name == "two_people" else [speech(SECONDS)]
    said = torch.cat(said).numpy()
    for path in videos.values():
        video = play(path)
        assert len(video.frames) == frame_count(Fraction(len(said), 16000), fps)
        assert video.sound_start == 0
        shift, likeness = lag(video.sound.mean(axis=0), said)
        assert shift == 0 and likeness > 0.98
    if name == "two_people":
        check_that_both_heads_move(play(videos["SaveVideo"]).frames)


def check_that_both_heads_move(frames: np.ndarray) -> None:
    """Both move in one video, and the wall between them stays."""
    from PIL import Image

    given = np.asarray(Image.open(ROOT / "example_inputs" / "two_people.png"), dtype=int)
    assert frames.shape[1:] == given.shape
    changed = np.abs(frames.astype(int) - given).max(axis=3) > 40
    left, right = changed[:, :, :512].mean(), changed[:, :, 512:].mean()
    assert left > 0.05 and right > 0.05, "an untrained network draws noise where each head is"
    assert changed[:, :20, 490:534].mean() < 0.02


def upscaler(scale: int = 2, features: int = 8) -> dict[str, torch.Tensor]:
    """Weights of the smallest network of the Real-ESRGAN family (SRVGGNetCompact), from a seed."""
    generator = torch.Generator().manual_seed(0)

    def convolution(name: str, channels_in: int, channels_out: int) -> dict[str, torch.Tensor]:
        weight = 0.01 * torch.randn(channels_out, channels_in, 3, 3, generator=generator)
        return {f"{name}.weight": weight, f"{name}.bias": torch.zeros(channels_out)}

    return {
        **convolution("body.0", 3, features),
        "body.1.weight": torch.full((features,), 0.1),
        **convolution("body.2", features, features),
        "body.3.weight": torch.full((features,), 0.1),
        **convolution("body.4", features, 3 * scale**2),
    }


def test_the_restorer_is_stepped_over_until_there_is_one(watcher: Watcher, object_info: dict) -> None:
    """Bypassed: no file is asked for. Switched on without a file: the host names it. With one: it works."""
    described = new_graph("upscale_and_restore", object_info)
    WORKFLOWS["upscale_and_restore"](described)
    assert [node.kind for node in described.nodes if node.bypass] == [
        "UpscaleModelLoader",
        "ImageUpscaleWithModel",
    ]
    assert "UpscaleModelLoader" not in {node["class_type"] for node in described.api().values()}
    for node in described.nodes:
        node.bypass = False
    graph = small(described.api())
    node_of(graph, "LoadAudioWav2Vec")["fps"] = 2.0
    node_of(graph, "FD2TalkUNetSampler")["steps"] = 1
    # hosts differ in when they say so: as the graph is posted, or as the loader runs
    with pytest.raises((ValueError, RuntimeError), match=r"GFPGANv1\.4\.pth"):
        watcher.run(graph)

    models = watcher.server.folder("models/upscale_models")
    save_file(upscaler(), models / "small.safetensors")
    node_of(graph, "UpscaleModelLoader")["model_name"] = "small.safetensors"
    outputs = watcher.run(graph)
    saved = watcher.server.path_of(outputs[id_of(graph, "SaveVideo")]["images"][0])
    assert play(saved).frames.shape == (2, 1024, 1024, 3), "256 px, twice by lanczos, twice by the model"


def test_the_blueprint_is_offered_by_the_host(comfyui: ComfyUIServer) -> None:
    (identity,) = [
        key for key, entry in comfyui.get("/global_subgraphs").items() if entry["name"] == BLUEPRINT
    ]
    entry = comfyui.get(f"/global_subgraphs/{identity}")
    assert entry["info"]["node_pack"] == f"custom_nodes.{PACK_NAME}"
    content = json.loads(entry["data"])
    (node,), (subgraph,) = content["nodes"], content["definitions"]["subgraphs"]
    assert node["type"] == subgraph["id"]
    ends = {inner["id"] for inner in subgraph["nodes"]} | {-10, -20}
    assert all({link["origin_id"], link["target_id"]} <= ends for link in subgraph["links"])


# Without a page: the two clients that lie beside the graphs


def small_graph(folder: Path, name: str) -> Path:
    path = folder / f"{name}.json"
    path.write_text(json.dumps(small(of_api(name))), encoding="utf-8")
    return path


def client(script: str, *arguments: object) -> subprocess.CompletedProcess:
    # -I and -S leave nothing but the standard library, which is all that the clients need
    command = [sys.executable, "-I", "-S", ROOT / "workflows" / script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture
def media(tmp_path: Path, comfyui: ComfyUIServer) -> Path:
    shutil.copy(comfyui.folder("input") / "portrait.png", tmp_path / 'who"speaks.png')
    write_wav(tmp_path / "voice of one.wav", speech(SECONDS), 16000)
    return tmp_path


def test_the_client_shows_progress_and_fetches_the_video(comfyui: ComfyUIServer, media: Path) -> None:
    graph = small_graph(media, "talking_portrait")
    target = media / "made" / "talking.mp4"
    files = (media / 'who"speaks.png', media / "voice of one.wav")
    done = client("client.py", *files, "-o", target, "--host", comfyui.url, "--graph", graph, "--fps", 4)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(target)
    assert len(play(target).frames) == frame_count(Fraction(SECONDS), 4)
    for title in ("FD2Talk UNet Sampler", "Decode Video"):
        assert title in done.stderr
    assert "100%" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["no_face.png", "speech.wav"], "No face was found"),
        (["portrait.png", "empty.wav"], "no samples|empty|no sound"),
        (["portrait.png", "speech.wav", "--fps", "500"], "fps"),
        (["portrait.png", "nowhere.wav"], "nowhere.wav"),
    ],
)
def test_the_client_says_what_the_host_says(
    comfyui: ComfyUIServer, media: Path, arguments: list[str], sentence: str
) -> None:
    import re

    graph = small_graph(media, "talking_portrait")
    given = [comfyui.folder("input") / name for name in arguments[:2]]
    done = client("client.py", *given, "--host", comfyui.url, "--graph", graph, *arguments[2:])
    assert done.returncode == 1
    assert re.search(sentence, done.stderr), done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_of_voices_is_rendered_and_the_portrait_encoded_once(
    comfyui: ComfyUIServer, media: Path
) -> None:
    voices, videos = media / "voices", media / "videos"
    voices.mkdir()
    for index, seconds in enumerate((0.5, 1.0)):
        write_wav(voices / f"voice {index}.wav", speech(seconds), 16000)
    (voices / "broken.wav").write_bytes(b"RIFF this is not sound")
    (voices / "notes.txt").write_text("not a voice", encoding="utf-8")
    graph = small_graph(media, "batch_of_voices")
    options = ("-o", videos, "--host", comfyui.url, "--graph", graph)

    done = client("render_folder.py", media / 'who"speaks.png', voices, *options)
    assert done.returncode == 1, "one voice is broken"
    assert "broken.wav" in done.stderr.splitlines()[-1]
    assert sorted(file.name for file in videos.iterdir()) == ["voice 0.mp4", "voice 1.mp4"]
    for index, seconds in enumerate((0.5, 1.0)):
        video = play(videos / f"voice {index}.mp4")
        assert len(video.frames) == frame_count(Fraction(seconds), FPS)
        assert lag(video.sound.mean(axis=0), speech(seconds).numpy())[0] == 0
    # its own last step is told, and the host's end of the node
    assert len(re.findall(r"Encode Reference Portrait +\[#{30}\] 100%", done.stderr)) <= 2

    last = max(comfyui.get("/history").values(), key=lambda entry: entry["prompt"][0])
    (cached,) = [data["nodes"] for kind, data in last["status"]["messages"] if kind == "execution_cached"]
    assert id_of(last["prompt"][2], "EncodeReference") in cached

    (voices / "broken.wav").unlink()
    again = client("render_folder.py", media / 'who"speaks.png', voices, *options)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("was there") == 2

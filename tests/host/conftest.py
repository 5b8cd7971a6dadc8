"""A real ComfyUI for the tests, started once, with this pack in it and networks made from a seed."""

from __future__ import annotations

import copy
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from fd2talk_core import configs
from fd2talk_core.face.model import default_face_model
from fd2talk_core.networks.checkpoint import CheckpointInfo, save_checkpoint
from scripts.comfyui import ComfyUIServer, error_of
from scripts.environment import COMFYUI, CURRENT_FRONTEND, FRONTEND, ROOT
from tests.host.media import speech, write_wav

SET = "seeded.safetensors"
FPS = 8.0
SECONDS = 1.0
NETWORKS = ("audio_encoder", "expression", "pose", "autoencoder", "unet")


CHOICE = """
class Choice:
    RETURN_TYPES, FUNCTION, CATEGORY = ("COMBO",), "choose", "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"name": ("STRING", {})}}

    def choose(self, name):
        return (name,)


NODE_CLASS_MAPPINGS = {"TestChoice": Choice}
"""
"""A node of another pack that sets a combo of ours."""


def unavailable(reason: str) -> None:
    """Skip on a user's machine; in continuous integration what is missing is a failure."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason} (CI is set, so this is not skipped)")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def seeded_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``models/fd2talk`` with one untrained file a network."""
    folder = tmp_path_factory.mktemp("models")
    face_model = default_face_model().name
    for index, network in enumerate(NETWORKS):
        info = CheckpointInfo(face_model="" if network == "audio_encoder" else face_model, resolution=256)
        save_checkpoint(configs.build(network, "tiny", seed=index), folder / network / SET, info)
    return folder


@pytest.fixture(scope="session")
def comfyui(tmp_path_factory: pytest.TempPathFactory, seeded_models: Path) -> Iterator[ComfyUIServer]:
    """The host, over HTTP. A second models folder is known to it through extra_model_paths.yaml alone."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "fd2talk" / "unet").mkdir(parents=True)
    shutil.copy(seeded_models / "unet" / SET, elsewhere / "fd2talk" / "unet" / "from_extra_paths.safetensors")
    paths = elsewhere / "extra_model_paths.yaml"
    paths.write_text(f"shared:\n  base_path: {elsewhere}\n  fd2talk: fd2talk/\n", encoding="utf-8")
    base = tmp_path_factory.mktemp("comfyui")
    server = _host(base, seeded_models, "--extra-model-paths-config", str(paths))
    (server.folder("custom_nodes") / "choice.py").write_text(CHOICE, encoding="utf-8")
    with server:
        yield server


@pytest.fixture(scope="session")
def current_comfyui(tmp_path_factory: pytest.TempPathFactory, seeded_models: Path) -> Iterator[ComfyUIServer]:
    """A second host, which serves a current frontend in place of its own."""
    if not (FRONTEND / "index.html").exists():
        unavailable(f"{CURRENT_FRONTEND} is not in {FRONTEND}; `python scripts/test.py` fetches it")
    base = tmp_path_factory.mktemp("current_comfyui")
    with _host(base, seeded_models, "--front-end-root", str(FRONTEND)) as server:
        yield server


def _host(base: Path, models: Path, *arguments: str) -> ComfyUIServer:
    if not (COMFYUI / "main.py").exists():
        unavailable(f"ComfyUI is not in {COMFYUI}; `python scripts/test.py` fetches it")
    shutil.copytree(models, base / "models" / "fd2talk")
    threads = int(os.environ.get("OMP_NUM_THREADS", 2))
    server = ComfyUIServer(base, threads=threads, arguments=arguments)
    _write_inputs(server.folder("input"))
    return server


def _write_inputs(folder: Path) -> None:
    portrait = Image.open(ROOT / "example_inputs" / "portrait.png").convert("RGB")
    portrait.thumbnail((384, 384))
    # the graphs' own examples at the size of a test: the pack leaves alone what is there already
    for name in ("portrait.png", "fd2talk_portrait.png"):
        portrait.save(folder / name)
    Image.new("RGB", (256, 256), (90, 120, 160)).save(folder / "no_face.png")
    Image.new("RGB", (32, 32), (200, 150, 120)).save(folder / "tiny.png")
    for name in ("speech.wav", "fd2talk_speech.wav"):
        write_wav(folder / name, speech(SECONDS), 16000)
    write_wav(folder / "one_sample.wav", torch.tensor([0.25]), 16000)
    write_wav(folder / "silence_stereo.wav", torch.zeros(2, 24000), 96000)
    write_wav(folder / "empty.wav", torch.zeros(0), 16000)
    (folder / "corrupt.wav").write_bytes(b"RIFF\x00\x00this is not sound")


@pytest.fixture
def graph() -> dict:
    """``workflows/api/talking_portrait.json`` as users have it, with the untrained networks and few steps."""
    text = (ROOT / "workflows" / "api" / "talking_portrait.json").read_text(encoding="utf-8")
    return small(json.loads(text))


def small(graph: dict) -> dict:
    """A graph in API format at the size of a test."""
    graph = copy.deepcopy(graph)
    for node in graph.values():
        inputs = node["inputs"]
        for name in ("encoder", "checkpoint", "autoencoder"):
            if name in inputs:
                inputs[name] = SET
        if "steps" in inputs:
            inputs["steps"] = 2
        if node["class_type"] == "LoadAudioWav2Vec":
            inputs["fps"] = FPS
    return graph


def node_of(graph: dict, class_type: str) -> dict:
    """The inputs of the only node of a class."""
    (node,) = [node for node in graph.values() if node["class_type"] == class_type]
    return node["inputs"]


def id_of(graph: dict, class_type: str) -> str:
    """The id of the only node of a class."""
    (name,) = [name for name, node in graph.items() if node["class_type"] == class_type]
    return name


class Watcher:
    """The host's websocket: what it tells a page while a prompt runs."""

    def __init__(self, server: ComfyUIServer) -> None:
        import websocket

        self.server = server
        url = server.url.replace("http", "ws") + f"/ws?clientId={server.client.client_id}"
        self.socket = websocket.create_connection(url, timeout=120)
        self.messages: list[tuple[float, str, dict]] = []
        self.pictures: list[bytes] = []

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def follow(self, prompt_id: str, each: Callable[[str, dict], None] | None = None) -> dict:
        """Read messages until the prompt has ended; returns its history entry."""
        while True:
            message = self.socket.recv()
            if isinstance(message, bytes):
                self.pictures.append(message)
                continue
            message = json.loads(message)
            kind, data = message["type"], message.get("data", {})
            if data.get("prompt_id", prompt_id) != prompt_id:
                continue
            self.messages.append((time.monotonic(), kind, data))
            if each:
                each(kind, data)
            if kind in ("execution_success", "execution_error", "execution_interrupted"):
                return self.server.wait(prompt_id)

    def run(self, graph: dict) -> dict:
        """Queue a graph and follow it; returns its outputs.

        Raises:
            RuntimeError: with the message of the node that failed.
        """
        self.messages.clear()
        self.pictures.clear()
        entry = self.follow(self.server.queue(graph))
        if entry["status"]["status_str"] != "success":
            raise RuntimeError(error_of(entry))
        return entry["outputs"]

    def executed(self) -> set[str]:
        """Ids of the nodes that ran rather than being taken from the cache."""
        return {data["node"] for _, kind, data in self.messages if kind == "executing" and data.get("node")}


@pytest.fixture
def watcher(comfyui: ComfyUIServer) -> Iterator[Watcher]:
    with Watcher(comfyui) as watcher:
        yield watcher

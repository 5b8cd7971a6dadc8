"""What newer hosts do that this one does not: videos cut or cropped, and cards too small for all models.

The pack's own host boundary runs in a child process, with the host's modules; a stand-in takes the place of
what this host lacks.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fd2talk_core.formats.video import VideoWriter
from scripts.environment import COMFYUI, ROOT
from tests.host.conftest import unavailable

pytestmark = pytest.mark.host

FRAMES, FPS, RATE = 10, 10.0, 16000

BEGIN = """
import importlib, json, sys, types
host_folder, pack, argument = sys.argv[1:]
sys.path.insert(0, host_folder)
sys.argv[1:] = ["--cpu"]
import comfy.options
comfy.options.enable_args_parsing()  # before anything looks for a card
import utils.extra_config
import torch

# the nodes' packages without what they run when they are imported, and a server that does not serve
for name, folder in (("pack", pack), ("pack.nodes", f"{pack}/nodes")):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [folder]
sys.modules["server"] = types.ModuleType("server")
sys.modules["server"].PromptServer = type("PromptServer", (), {})
host = importlib.import_module("pack.nodes.host")
"""

VIDEO = """
from comfy_api.v0_0_2 import Input, InputImpl

class Cut(InputImpl.VideoFromFile):
    "As VideoFromFile of newer hosts: it starts at 0.3 s and lasts 0.4 s."
    def get_active_trim_window(self):
        return 0.3, 0.4

class Cropped(Cut):
    "The same, and only its upper left quarter."
    def get_dimensions(self):
        return tuple(side // 2 for side in super().get_dimensions())

    def get_components(self):
        whole = super().get_components()
        height, width = (side // 2 for side in whole.images.shape[1:3])
        whole.images = whole.images[3:7, :height, :width]
        return whole

class Listed(Input.Video):
    "Several videos behind each other, which is no file."
    def __init__(self, file):
        self.files = [InputImpl.VideoFromFile(file)] * 2
    def get_components(self):
        first, last = (file.get_components() for file in self.files)
        first.images = torch.cat([first.images, last.images])
        return first
    def save_to(self, *_, **__):
        raise NotImplementedError

def brightness(pictures):
    scale = {torch.uint8: 255}
    return [round(float(one.float().mean()) / scale.get(one.dtype, 1), 2) for one in pictures]

told = {}
for kind in (InputImpl.VideoFromFile, Cut, Cropped, Listed):
    frames, count, fps = host.frames_of(kind(argument))
    footage, about = host.footage_of(kind(argument))
    size = list(next(iter(footage.span(0))).shape[:2])
    told[kind.__name__] = [brightness(frames), count, fps, brightness(footage.span(0)), about, size]
told["sound"] = host.sound_of(Cut(argument))[0].shape[1]
print(json.dumps(told))
"""

MODELS = """
import comfy.model_management as management
from comfy.model_patcher import ModelPatcher

CARD = torch.device("cpu", 0)  # a device of its own for the host, which keeps account of it
told, loaded = {}, management.current_loaded_models

def on_card():
    return sum(model.model_loaded_memory() for model in loaded)

def free(device=None, torch_free_too=False):
    left = room - on_card()
    return (left, left) if torch_free_too else left

host.register_folders()
management.get_torch_device = lambda: CARD
management.get_free_memory = free
management.minimum_inference_memory = lambda: 0
management.extra_reserved_memory = lambda: 0
host.WORKING_MEMORY.clear()

def load(name):
    network = host.load_network(name, "tiny")
    (model,) = [entry for entry in loaded if getattr(entry.model.model, "network", None) is network]
    told.setdefault(name, []).append([model.model_loaded_memory() / model.model_memory(), len(loaded)])
    return network, model

room = 1 << 40
unet, model = load("unet")
room = model.model_memory() * 1.5
load("autoencoder")  # does not fit beside it
again, model = load("unet")
told["read once"] = again is unet
stranger = torch.nn.Sequential(torch.nn.Linear(256, int(room * 0.6) // 1024))
stranger = ModelPatcher(stranger, CARD, torch.device("cpu"))
management.load_models_gpu([stranger], force_full_load=True)  # another pack's model takes a part of it
told["pushed out"] = model.model is None or model.model_loaded_memory() < model.model_memory()
load("unet")
management.unload_all_models()  # what a POST to /free leads to
told["freed"] = [len(loaded), on_card()]
load("unet")
print(json.dumps(told))
"""


def in_host(script: str, argument: object = "") -> dict:
    if not (COMFYUI / "main.py").exists():
        unavailable(f"ComfyUI is not in {COMFYUI}; `python scripts/test.py` fetches it")
    command = [sys.executable, "-c", BEGIN + script, str(COMFYUI), str(ROOT), str(argument)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=COMFYUI, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_cut_a_cropped_and_a_joined_video_are_read_as_they_are(tmp_path: Path) -> None:
    """The frames' brightness counts them: 0 in the first, 0.09 more in each."""
    path = tmp_path / "counted.mp4"
    sound = torch.sin(torch.arange(RATE) / 20)[None] / 4
    shades = torch.arange(FRAMES)[:, None, None, None] * 0.09
    with VideoWriter(path, FPS, (sound, RATE)) as writer:
        writer.write(shades.expand(FRAMES, 64, 96, 3))
    told = in_host(VIDEO, path)
    every = [pytest.approx(0.09 * index, abs=0.03) for index in range(FRAMES)]
    whole, part = [64, 96], every[3:7]
    assert told["VideoFromFile"] == [every, FRAMES, FPS, every, FRAMES, whole]
    assert told["Cut"] == [part, 4, FPS, part, 4, whole]
    assert told["Cropped"] == [part, 4, FPS, part, 4, [32, 48]]
    assert told["Listed"] == [every * 2, 2 * FRAMES, FPS, every * 2, 2 * FRAMES, whole]
    assert told["sound"] == 0.4 * RATE


def test_networks_come_and_go_as_the_host_needs_its_memory() -> None:
    """Whole on the card when a node runs, off it for others' models and when freed; read from disk once."""
    told = in_host(MODELS)
    assert told["unet"] == [[1.0, 1]] + [[1.0, pytest.approx(1, abs=1)]] * 3
    assert told["autoencoder"][0][0] == 1.0
    assert told["read once"] and told["pushed out"]
    assert told["freed"] == [0, 0]

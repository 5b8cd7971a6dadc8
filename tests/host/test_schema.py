"""What the host tells its pages of our nodes, held to a snapshot: saved graphs rely on the sockets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.comfyui import PACK_NAME, ComfyUIServer
from scripts.environment import COMFYUI, ROOT
from scripts.graphs import WIDGETS

pytestmark = pytest.mark.host

SNAPSHOT = Path(__file__).with_name("schema_snapshot.json")
PAPER_NODES = {
    "LoadAudioWav2Vec",
    "ExpDiT",
    "PoseDiT",
    "Coeff3DMMPreview",
    "EncodeReference",
    "FD2TalkUNetSampler",
    "DecodeFrames",
}


@pytest.fixture(scope="module")
def nodes(comfyui: ComfyUIServer) -> dict[str, dict]:
    everything = comfyui.get("/object_info")
    return {name: info for name, info in everything.items() if info["category"].startswith("FD2Talk")}


def inputs_of(info: dict) -> dict[str, list]:
    return {**info["input"].get("required", {}), **info["input"].get("optional", {})}


def test_the_host_has_the_seven_nodes_and_the_further_ones_are_named_after_us(nodes: dict) -> None:
    assert nodes.keys() >= PAPER_NODES
    assert {"FD2TalkDecodeVideo", "FD2TalkLoadCoefficients", "FD2TalkSaveCoefficients"} <= nodes.keys()
    assert all(name.startswith("FD2Talk") for name in nodes.keys() - PAPER_NODES)
    assert all(info["python_module"] == f"custom_nodes.{PACK_NAME}" for info in nodes.values())


def test_everything_has_a_tooltip(nodes: dict) -> None:
    for name, info in nodes.items():
        assert len(info["description"]) > 20, name
        for socket, (_, options) in inputs_of(info).items():
            assert len(options.get("tooltip", "")) > 10, f"{name}.{socket}"
        assert len(info["output_tooltips"]) == len(info["output"])
        assert all(tooltip and len(tooltip) > 10 for tooltip in info["output_tooltips"]), name


def test_types_that_a_page_may_edit_are_sockets_only(nodes: dict) -> None:
    """A page that learns to edit a type makes a widget of it, which shifts every stored value behind."""
    sockets = {"IMAGE", "MASK", "AUDIO", "VIDEO", "LATENT"}
    kinds = {kind for info in nodes.values() for kind, _ in inputs_of(info).values()}
    foreign = {kind for kind in kinds - WIDGETS - sockets if not kind.startswith("FD2TALK_")}
    assert {"BOUNDING_BOX", "FACE_LANDMARKS", "CURVE"} <= foreign
    for name, info in nodes.items():
        for socket, (kind, options) in inputs_of(info).items():
            assert kind not in foreign or options.get("forceInput") is True, f"{name}.{socket}"


def test_the_schema_is_the_one_that_users_have_graphs_for(nodes: dict) -> None:
    """A change here breaks saved graphs. If it is meant, run with FD2TALK_UPDATE_SNAPSHOT=1 and say so."""
    now = {name: summary(info) for name, info in sorted(nodes.items())}
    if os.environ.get("FD2TALK_UPDATE_SNAPSHOT"):
        SNAPSHOT.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")
    assert now == json.loads(SNAPSHOT.read_text(encoding="utf-8"))


def summary(info: dict) -> dict:
    """Names, order, types, defaults and ranges; not words, and not lists of files."""
    inputs = {}
    for category, sockets in info["input"].items():
        if category == "hidden":
            continue
        for name, (kind, options) in sockets.items():
            kept = {
                key: options[key]
                for key in ("default", "min", "max", "step", "advanced", "forceInput")
                if key in options
            }
            if name not in ("checkpoint", "encoder", "autoencoder", "audio_file", "motion_file", "keys_file"):
                kept.update({"options": options["options"]} if "options" in options else {})
            inputs[name] = [category, kind, kept]
    return {
        "inputs": inputs,
        "outputs": [list(pair) for pair in zip(info["output_name"], info["output"], strict=True)],
        "output_node": info["output_node"],
    }


def test_checkpoints_of_every_folder_are_offered(nodes: dict) -> None:
    options = inputs_of(nodes["FD2TalkUNetSampler"])["checkpoint"][1]["options"]
    assert options == ["tiny", "from_extra_paths.safetensors", "seeded.safetensors"]
    assert "speech.wav" in inputs_of(nodes["LoadAudioWav2Vec"])["audio_file"][1]["options"]


def test_every_node_has_a_help_page_and_translations_name_real_nodes(
    nodes: dict, comfyui: ComfyUIServer
) -> None:
    import urllib.request

    for name in nodes:
        with urllib.request.urlopen(f"{comfyui.url}/extensions/{PACK_NAME}/docs/{name}/en.md") as page:
            assert page.read().startswith(b"# "), name
    for path in (ROOT / "locales").glob("*/nodeDefs.json"):
        assert json.loads(path.read_text(encoding="utf-8")).keys() <= nodes.keys(), path


def test_the_template_browser_shows_the_workflow(comfyui: ComfyUIServer) -> None:
    assert "talking_portrait" in comfyui.get("/workflow_templates")[PACK_NAME]
    served = comfyui.get(f"/api/workflow_templates/{PACK_NAME}/talking_portrait.json")
    assert served == json.loads((ROOT / "workflows" / "talking_portrait.json").read_text(encoding="utf-8"))


def test_the_pack_loads_quickly(comfyui: ComfyUIServer) -> None:
    (line,) = [line for line in comfyui.log.read_text().splitlines() if line.endswith(f"/{PACK_NAME}")]
    assert float(line.split()[0]) < 1.0, line


ALIASES = """
import dataclasses, importlib, sys, types
host, pack = sys.argv[1:]
sys.path.insert(0, host)
sys.argv[1:] = ["--cpu"]
from comfy_api.v0_0_2 import io

# the packages without what they run when they are imported, which needs a host that has started
for name, folder in (("pack", pack), ("pack.nodes", f"{pack}/nodes")):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [folder]
types = importlib.import_module("pack.nodes.types")
given = {"node_id": "Node", "inputs": [], "outputs": [], "search_aliases": ["lip sync"]}
print(types.schema(**given).node_id)

@dataclasses.dataclass
class Newer(io.Schema):
    search_aliases: list = dataclasses.field(default_factory=list)

io.Schema = Newer
print(types.schema(**given).search_aliases)
"""


def test_search_words_are_given_to_hosts_that_have_a_field_for_them() -> None:
    """This host has none; newer ones do, which a schema with that field stands for."""
    command = [sys.executable, "-c", ALIASES, str(COMFYUI), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["Node", "['lip sync']"]

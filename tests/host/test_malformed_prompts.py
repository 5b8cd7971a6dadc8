"""What anyone may post: graphs whose values are of another type or size are refused, or fail in a sentence.

``FD2TALK_PROMPTS=2000 pytest tests/host/test_malformed_prompts.py`` posts more of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fd2talk_core.face.names import ARKIT_NAMES, OPEN_FACE_MODEL
from fd2talk_core.formats.sequences import save_motion
from fd2talk_core.motion.coefficients import CoefficientSequence
from scripts.comfyui import ComfyUIServer

pytestmark = pytest.mark.host

PROMPTS = int(os.environ.get("FD2TALK_PROMPTS", "80"))
SCHEMA = json.loads(Path(__file__).with_name("schema_snapshot.json").read_text(encoding="utf-8"))
ODD = [
    *(float("nan"), float("inf"), -1e308, 1e308, 10**40, -1, 0, True, None, "", "25", "x", "x" * 5000),
    *("a\0b", "\ud800", "../x", "[[[[", [], {}, [1, 2, 3], ["pose", 0], {"a": 1}),
]
MOTION = {"FD2TALK_EXPRESSION": ["face", 0], "FD2TALK_POSE": ["pose", 0]}
FACE = "a face.json"
"""In the host's input folder."""
POSE = {"pitch": 0, "yaw": 9, "roll": 0, "x": 0, "y": 0, "z": 0, "seconds": 0.2, "fps": 25}


def widgets(node: str) -> dict[str, object]:
    """The inputs of a node as a new one has them, with motion at its sockets."""
    values = {}
    for name, (need, kind, options) in SCHEMA[node]["inputs"].items():
        if kind in MOTION:
            values[name] = MOTION[kind]
        elif "default" in options:
            values[name] = options["default"]
        elif need == "required":
            values[name] = (options.get("options") or [0])[0]
    return values


def quick() -> list[str]:
    """Nodes that need no network: what they are given decides, and not what they compute for minutes."""
    slow = {"AUTOENCODER", "FD2TALK_REFERENCE", "FD2TALK_AUDIO", "LATENT", "VIDEO", "IMAGE", "FACE_LANDMARKS"}
    needed = {
        node: {kind for need, kind, _ in entry["inputs"].values() if need == "required"}
        for node, entry in SCHEMA.items()
    }
    return [node for node in SCHEMA if node.startswith("FD2Talk") and not needed[node] & slow]


def prompts() -> Iterator[tuple[str, dict]]:
    rng = random.Random(0)
    nodes = quick()
    for _ in range(PROMPTS):
        node = rng.choice([*nodes, "LoadAudioWav2Vec"])
        inputs = widgets(node)
        for name in rng.sample(sorted(inputs), min(len(inputs), rng.choice((1, 1, 2)))):
            inputs[name] = rng.choice(ODD)
        graph = {
            "pose": {"class_type": "FD2TalkConstantPose", "inputs": POSE},
            "face": {"class_type": "FD2TalkLoadCoefficients", "inputs": {"motion_file": FACE, "fps": 0}},
        }
        graph["odd"] = {"class_type": node, "inputs": inputs}
        if not SCHEMA[node]["output_node"]:
            kinds = [kind for _, kind in SCHEMA[node]["outputs"]]
            taken = {
                socket: ["odd", kinds.index(kind)]
                for socket, kind in (("expression", "FD2TALK_EXPRESSION"), ("pose", "FD2TALK_POSE"))
                if kind in kinds
            }
            if not taken:
                continue
            save = {**taken, "filename_prefix": "odd/motion", "format": "json"}
            graph["save"] = {"class_type": "FD2TalkSaveCoefficients", "inputs": save}
        yield f"{node} {inputs}", {name: entry for name, entry in graph.items() if used(name, graph)}


def used(name: str, graph: dict) -> bool:
    """Whether a node is taken by another, or is looked at itself."""
    links = [value for node in graph.values() for value in node["inputs"].values()]
    return name in ("odd", "save") or any(isinstance(link, list) and link[:1] == [name] for link in links)


def test_odd_values_are_refused_or_told(comfyui: ComfyUIServer) -> None:
    face = CoefficientSequence("expression", torch.rand(5, 52), 25, OPEN_FACE_MODEL, ARKIT_NAMES)
    save_motion(comfyui.folder("input") / FACE, face)
    outcomes = {"refused": 0, "failed": 0, "ran": 0}
    for what, graph in prompts():
        answer = comfyui.post("/prompt", {"prompt": graph, "client_id": "odd"})
        if "prompt_id" not in answer or answer.get("node_errors"):
            outcomes["refused"] += 1
            told = [
                error["details"]
                for node in (answer.get("node_errors") or {}).values()
                for error in node["errors"]
                if error["type"] == "exception_during_validation"
            ]
            assert not told, (what, told)
        if "prompt_id" not in answer:
            continue
        entry = comfyui.wait(answer["prompt_id"], 60)
        failures = [data for kind, data in entry["status"]["messages"] if kind == "execution_error"]
        for failure in failures:
            kind, message = failure["exception_type"], failure["exception_message"].strip()
            assert kind.endswith("FD2TalkError"), (what, kind, message)
            assert message and "\n" not in message and len(message) < 1500, (what, message)
        outcomes["failed" if failures else "ran"] += 1
    print(f"\n{outcomes}")
    assert outcomes["refused"] and outcomes["failed"]


BODIES = [
    b"",
    b"{",
    b"[1]",
    b"5",
    b"[" * 100_000,
    b'{"prompt": 5}',
    b'{"prompt": {"1": 5}}',
    b"\xff",
    b'{"prompt": {}}',
]


@pytest.mark.parametrize("number", range(len(BODIES)))
def test_the_host_outlives_what_is_no_graph(comfyui: ComfyUIServer, number: int) -> None:
    with contextlib.suppress(RuntimeError):  # the host's own words
        comfyui.client.ask("/prompt", BODIES[number])
    assert comfyui.get("/system_stats")

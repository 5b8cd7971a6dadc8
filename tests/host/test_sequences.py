"""Motion files and edits in a real ComfyUI: what an artist's graph does is what the core's functions do."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from fd2talk_core.face.names import ARKIT_NAMES
from fd2talk_core.formats.sequences import load_motion, save_motion
from fd2talk_core.motion import editing as edit
from fd2talk_core.motion.coefficients import CoefficientSequence
from scripts.comfyui import ComfyUIServer

pytestmark = pytest.mark.host

FACE_MODEL = "anny-arkit52"
FORMATS = ("safetensors", "npz", "json", "csv")


def face(frames: int = 60, seed: int = 0, fps: float = 25.0) -> CoefficientSequence:
    values = torch.rand(frames, 52, generator=torch.Generator().manual_seed(seed))
    return CoefficientSequence("expression", values, fps, FACE_MODEL, ARKIT_NAMES)


def head(frames: int = 60, seed: int = 3, fps: float = 25.0) -> CoefficientSequence:
    return edit.idle_motion(frames, fps, seed)


@pytest.fixture(scope="module")
def files(comfyui: ComfyUIServer) -> Path:
    """Motion in the host's input folder."""
    folder = comfyui.folder("input")
    save_motion(folder / "take.json", face(), head())
    save_motion(folder / "other.npz", face(seed=1), head(seed=4))
    save_motion(folder / "nod.json", pose=head(seed=5))
    save_motion(folder / "good.csv", face(), head())
    lines = (folder / "good.csv").read_text().splitlines()
    lines[16] = lines[16].replace("61,", "61,oops", 1)
    (folder / "bad.csv").write_text("\n".join(lines))
    (folder / "cut.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
    return folder


def load(name: str, fps: float = 0.0) -> dict:
    return {"class_type": "FD2TalkLoadCoefficients", "inputs": {"motion_file": name, "fps": fps}}


def save(expression: list | None = None, pose: list | None = None, ending: str = "safetensors") -> dict:
    wires = {"expression": expression, "pose": pose}
    return {
        "class_type": "FD2TalkSaveCoefficients",
        "inputs": {
            "filename_prefix": "sequences/test",
            "format": ending,
            **{name: wire for name, wire in wires.items() if wire},
        },
    }


def saved(comfyui: ComfyUIServer, outputs: dict, node: str = "save") -> Path:
    (result,) = outputs[node]["motion"]
    path = comfyui.path_of(result)
    assert path.is_file() and outputs[node]["text"] == [f"sequences/{path.name}"]
    return path


@pytest.mark.parametrize("ending", FORMATS)
def test_load_and_save(comfyui: ComfyUIServer, files: Path, ending: str) -> None:
    outputs = comfyui.run({"load": load("take.json"), "save": save(["load", 0], ["load", 1], ending)})
    motion = load_motion(saved(comfyui, outputs))
    assert torch.equal(motion.expression.values, face().values) and motion.expression.fps == 25
    assert torch.allclose(motion.pose.values[:, :3], head().values[:, :3], atol=1e-5)
    if ending != "csv":
        assert torch.equal(motion.pose.values, head().values)


BOTH = {"expression": ["one", 0], "pose": ["one", 1]}
EDITS = {
    "FD2TalkScaleMotion": (
        {
            "mouth": 1.5,
            "brows": 0.5,
            "eyes": 1.0,
            "cheeks": 0.0,
            "rotation": 2.0,
            "shift": 0.5,
            "about": "mean",
        },
        lambda e, p: (
            edit.scale(e, {"mouth": 1.5, "brows": 0.5, "cheeks": 0.0}, "mean"),
            edit.scale(p, {"rotation": 2.0, "shift": 0.5}, "mean"),
        ),
    ),
    "FD2TalkOffsetMotion": (
        {
            "pitch": 5,
            "yaw": -10,
            "roll": 3,
            "x": 0.1,
            "y": 0.2,
            "z": -0.3,
            "coefficient": "mouthSmileLeft",
            "amount": 0.25,
        },
        lambda e, p: (
            edit.offset(e, {"mouthSmileLeft": 0.25}),
            edit.offset(
                p,
                {
                    "pitch": math.radians(5),
                    "yaw": math.radians(-10),
                    "roll": math.radians(3),
                    "x": 0.1,
                    "y": 0.2,
                    "z": -0.3,
                },
            ),
        ),
    ),
    "FD2TalkSmoothMotion": (
        {"seconds": 0.2, "keep_mouth": True},
        lambda e, p: (edit.smooth(e, 0.2, True), edit.smooth(p, 0.2)),
    ),
    "FD2TalkHoldStill": (
        {"start": 0.4, "end": 1.2, "at": "mean", "amount": 0.75, "blend": 0.2, "keep_mouth": True},
        lambda e, p: tuple(edit.hold_still(s, 0.4, 1.2, at="mean", amount=0.75, blend=0.2) for s in (e, p)),
    ),
    "FD2TalkRetime": (
        {"fps": 30.0, "frames": 100, "method": "stretch"},
        lambda e, p: tuple(edit.retime(s, fps=30, num_frames=100) for s in (e, p)),
    ),
    "FD2TalkTrim": (
        {"start": 0.5, "end": 1.5},
        lambda e, p: (edit.trim(e, 0.5, 1.5), edit.trim(p, 0.5, 1.5)),
    ),
    "FD2TalkLoop": ({"seconds": 6.0}, lambda e, p: (edit.loop(e, 150), edit.loop(p, 150))),
}


@pytest.mark.parametrize("node", EDITS)
def test_an_edit_node_is_its_function(comfyui: ComfyUIServer, files: Path, node: str) -> None:
    widgets, function = EDITS[node]
    graph = {
        "one": load("take.json"),
        "edit": {"class_type": node, "inputs": {**BOTH, **widgets}},
        "save": save(["edit", 0], ["edit", 1]),
    }
    motion = load_motion(saved(comfyui, comfyui.run(graph)))
    for got, expected in zip((motion.expression, motion.pose), function(face(), head()), strict=True):
        assert got.fps == expected.fps
        assert torch.equal(got.values, expected.values)


def test_two_sequences_become_one(comfyui: ComfyUIServer, files: Path) -> None:
    graph = {
        "one": load("take.json"),
        "two": load("other.npz"),
        "splice": {
            "class_type": "FD2TalkSplice",
            "inputs": {
                "first_expression": ["one", 0],
                "second_expression": ["two", 0],
                "first_pose": ["one", 1],
                "second_pose": ["two", 1],
                "blend": 0.4,
            },
        },
        "face": {
            "class_type": "FD2TalkMixExpression",
            "inputs": {
                "first_expression": ["one", 0],
                "second_expression": ["two", 0],
                "mouth": 1.0,
                "brows": 0.0,
                "eyes": 0.5,
                "cheeks": 0.0,
            },
        },
        "head": {
            "class_type": "FD2TalkMixPose",
            "inputs": {
                "first_pose": ["one", 1],
                "second_pose": ["two", 1],
                "pitch": 1.0,
                **dict.fromkeys(("yaw", "roll", "x", "y", "z"), 0.0),
            },
        },
        "save": save(["splice", 0], ["splice", 1]),
        "mixed": save(["face", 0], ["head", 0]),
    }
    outputs = comfyui.run(graph)
    spliced, mixed = load_motion(saved(comfyui, outputs)), load_motion(saved(comfyui, outputs, "mixed"))
    assert torch.equal(spliced.pose.values, edit.splice(head(), head(seed=4), 0.4).values)
    assert spliced.expression.num_frames == 110
    assert torch.equal(
        mixed.expression.values, edit.mix(face(), face(seed=1), {"mouth": 1, "eyes": 0.5}).values
    )
    assert torch.equal(mixed.pose.values, edit.mix(head(), head(seed=4), {"pitch": 1}).values)


def test_eyes_and_poses_from_nothing(comfyui: ComfyUIServer, files: Path) -> None:
    blinks = {"seed": 0, "per_minute": 17, "strength": 1.0, "replace_existing": True}
    angles = {"pitch": 0, "yaw": 20, "roll": 0, "x": 0, "y": 0, "z": 0.5}
    graph = {
        "one": load("take.json"),
        "look": {"class_type": "FD2TalkLookAt", "inputs": {"expression": ["one", 0], "yaw": 12, "pitch": 0}},
        "blink": {
            "class_type": "FD2TalkAddBlinks",
            "inputs": {"expression": ["look", 0], "times": "0.5, 1.7", **blinks},
        },
        "still": {"class_type": "FD2TalkConstantPose", "inputs": {**angles, "seconds": 2.4, "fps": 25}},
        "idle": {
            "class_type": "FD2TalkIdleMotion",
            "inputs": {"seed": 3, "amount": 1.0, "speed": 1.0, "seconds": 2.4, "fps": 25},
        },
        "save": save(["blink", 0], ["still", 0]),
        "drift": save(pose=["idle", 0]),
    }
    outputs = comfyui.run(graph)
    motion = load_motion(saved(comfyui, outputs))
    expected = edit.look_at(face(), math.radians(12), 0)
    expected = edit.add_blinks(expected, times=[0.5, 1.7], replace_existing=True)
    assert torch.equal(motion.expression.values, expected.values)
    assert torch.equal(
        motion.pose.values, edit.constant_pose(60, 25, (0, math.radians(20), 0), (0, 0, 0.5)).values
    )
    assert torch.equal(load_motion(saved(comfyui, outputs, "drift")).pose.values, head().values)


def test_what_is_not_there_is_told_where_it_is_used(watcher, comfyui: ComfyUIServer, files: Path) -> None:
    outputs = watcher.run({"load": load("nod.json"), "save": save(pose=["load", 1])})
    assert torch.equal(load_motion(saved(comfyui, outputs)).pose.values, head(seed=5).values)
    said = []
    graph = {"load": load("nod.json"), "save": save(["load", 0], ["load", 1])}
    watcher.follow(
        comfyui.queue(graph), lambda kind, data: said.append(data) if kind == "execution_error" else None
    )
    (error,) = said
    assert error["node_id"] == "save"
    assert "nod.json holds no expression, only a pose" in error["exception_message"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bad.csv", "bad.csv: line 17: EyeBlinkLeft is 'oops"),
        ("cut.safetensors", "cut.safetensors: it is not a safetensors file"),
    ],
)
def test_a_bad_file_is_told_by_name(comfyui: ComfyUIServer, files: Path, name: str, expected: str) -> None:
    with pytest.raises(RuntimeError, match=expected):
        comfyui.run({"load": load(name), "save": save(pose=["load", 1])})


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        ({"load": load("../../secret.json"), "save": save(pose=["load", 1])}, "outside the host's"),
        ({"load": load("nowhere.json"), "save": save(pose=["load", 1])}, "There is no file 'nowhere.json'"),
        ({"save": save()}, "connect an expression, a pose or both"),
        (
            {
                "one": load("take.json"),
                "blink": {
                    "class_type": "FD2TalkAddBlinks",
                    "inputs": {
                        "expression": ["one", 0],
                        "times": "1, soon",
                        "seed": 0,
                        "per_minute": 17,
                        "strength": 1,
                        "replace_existing": False,
                    },
                },
                "save": save(["blink", 0]),
            },
            "'soon' is not a time in seconds",
        ),
    ],
)
def test_what_can_be_refused_before_running_is(
    comfyui: ComfyUIServer, files: Path, graph: dict, expected: str
) -> None:
    with pytest.raises(ValueError, match=expected):
        comfyui.queue(graph)


def test_only_what_depends_on_a_changed_file_runs_again(watcher, comfyui: ComfyUIServer, files: Path) -> None:
    def graph() -> dict:
        smooth = {"seconds": 0.1, "keep_mouth": True}
        return {
            "face": load("take.json"),
            "head": load("swap.json"),
            "calm_face": {
                "class_type": "FD2TalkSmoothMotion",
                "inputs": {"expression": ["face", 0], **smooth},
            },
            "calm_head": {"class_type": "FD2TalkSmoothMotion", "inputs": {"pose": ["head", 1], **smooth}},
            "save": save(["calm_face", 0], ["calm_head", 1]),
        }

    save_motion(files / "swap.json", pose=head(seed=6))
    watcher.run(graph())
    save_motion(files / "swap.json", pose=head(seed=7))
    outputs = watcher.run(graph())
    assert watcher.executed() == {"head", "calm_head", "save"}
    assert torch.equal(
        load_motion(saved(comfyui, outputs)).pose.values, edit.smooth(head(seed=7), 0.1).values
    )


@pytest.mark.parametrize(
    ("node", "widgets", "expected"),
    [
        ("FD2TalkTrim", {"start": 0.0, "end": 1.0}, "connect an expression, a pose or both"),
        ("FD2TalkSplice", {"blend": 0.1}, "connect two expressions, two poses or both"),
    ],
)
def test_an_edit_of_nothing_says_so(comfyui: ComfyUIServer, node: str, widgets: dict, expected: str) -> None:
    with pytest.raises(RuntimeError, match=expected):
        comfyui.run({"edit": {"class_type": node, "inputs": widgets}, "save": save(["edit", 0])})


def test_half_a_splice_is_refused(comfyui: ComfyUIServer, files: Path) -> None:
    half = {"first_pose": ["one", 1], "blend": 0.1}
    graph = {
        "one": load("take.json"),
        "join": {"class_type": "FD2TalkSplice", "inputs": half},
        "save": save(pose=["join", 1]),
    }
    with pytest.raises(ValueError, match="Only one pose is connected"):
        comfyui.queue(graph)

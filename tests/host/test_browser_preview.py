"""Motion seen and touched in the page: the preview plays, its curves are drawn, an edit changes its curve."""

from __future__ import annotations

import base64
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fd2talk_core.face.names import ARKIT_NAMES
from fd2talk_core.formats.sequences import load_motion, save_motion
from fd2talk_core.motion.coefficients import CoefficientSequence
from fd2talk_core.motion.editing import add_blinks, idle_motion
from fd2talk_core.motion.pose_curve import parse_keyframes, pose_from_keyframes
from scripts.comfyui import ComfyUIServer
from tests.host.media import play, speech, write_wav
from tests.host.test_browser import VIDEOS, browser, complaints, opened, page, shoot  # noqa: F401, fixtures

pytestmark = [pytest.mark.host, pytest.mark.browser]

FPS = 25.0
SECONDS = 4.0
FACE_MODEL = "anny-arkit52"

GRAPH = {
    "1": {"class_type": "FD2TalkLoadCoefficients", "inputs": {"motion_file": "talk.json", "fps": 0.0}},
    "2": {"class_type": "LoadAudio", "inputs": {"audio": "talk.wav"}},
    "3": {
        "class_type": "FD2TalkScaleMotion",
        "inputs": {
            "expression": ["1", 0],
            "pose": ["1", 1],
            "mouth": 1.0,
            "brows": 1.0,
            "eyes": 1.0,
            "cheeks": 1.0,
            "rotation": 1.0,
            "shift": 1.0,
            "about": "rest",
        },
    },
    "4": {
        "class_type": "Coeff3DMMPreview",
        "inputs": {
            "expression": ["3", 0],
            "pose": ["3", 1],
            "audio": ["2", 0],
            "view": "front",
            "size": 192,
            "write_glb": True,
        },
    },
    "5": {"class_type": "Preview3D", "inputs": {"model_file": ["4", 1]}},
}

CANVAS = """(id) => app.graph.getNodeById(id).widgets.find((widget) => widget.name === "fd2talk_curves")
  ?.element.querySelector("canvas")"""


@pytest.fixture(scope="module")
def talk(comfyui: ComfyUIServer) -> Path:
    """A clip of motion and sound in the host's input folder."""
    folder = comfyui.folder("input")
    frames = round(FPS * SECONDS)
    time = (torch.arange(frames) + 0.5) / FPS
    values = torch.zeros(frames, 52)
    values[:, ARKIT_NAMES.index("jawOpen")] = 0.3 * (1 - torch.cos(2 * torch.pi * 2 * time))
    values[:, ARKIT_NAMES.index("mouthSmileLeft")] = 0.4
    face = CoefficientSequence("expression", values, FPS, FACE_MODEL, ARKIT_NAMES)
    save_motion(
        folder / "talk.json", add_blinks(face, times=[1.0, 3.1]), idle_motion(frames, FPS, 3, 3.0, 3.0)
    )
    write_wav(folder / "talk.wav", speech(SECONDS), 16000)
    return folder


def picture_of(page: Any, node: int) -> np.ndarray:  # noqa: F811
    """``[H, W, 4]``: what is drawn on a node's canvas of curves."""
    page.wait_for_function(f"(id) => ({CANVAS})(id)?.width > 0", arg=node)
    page.wait_for_timeout(500)
    data = page.evaluate(f"(id) => ({CANVAS})(id).toDataURL()", node)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data.split(",")[1]))).convert("RGBA")).astype(
        int
    )


def pixels(picture: np.ndarray, color: str) -> np.ndarray:
    """``[H, W]`` bool: pixels of a colour such as ``#59c2ff``."""
    wanted = [int(color[place : place + 2], 16) for place in (1, 3, 5)]
    return (np.abs(picture[..., :3] - wanted).max(-1) < 24) & (picture[..., 3] > 200)


def run(page: Any, comfyui: ComfyUIServer, start: str = "() => app.queuePrompt(0)") -> None:  # noqa: F811
    """Queue the graph in the page, by a script, and wait until the page has been told of the end."""
    page.evaluate(
        "() => { window.ended = 0; app.api.addEventListener('execution_success', () => window.ended++); }"
    )
    page.evaluate(start)
    page.wait_for_function("() => window.ended > 0", timeout=240_000)


MOUTH, PITCH, YAW, ROLL, BLINKS = "#ffb454", "#59c2ff", "#aad94c", "#f07178", "#d2a6ff"


def test_the_preview_plays_with_its_curves_under_it_and_an_edit_changes_them(
    page: Any,  # noqa: F811
    comfyui: ComfyUIServer,
    talk: Path,
) -> None:
    page.evaluate("(graph) => app.loadApiJson(graph, 'preview')", GRAPH)
    page.evaluate("() => { app.canvas.ds.scale = 0.8; app.canvas.ds.offset = [40, 60]; }")
    run(page, comfyui)
    page.wait_for_function(f"() => ({VIDEOS})().length >= 1")
    assert complaints(page) == []

    # the video has the sound, and plays
    (length,) = page.evaluate(f"() => ({VIDEOS})().map((video) => video.duration)")
    assert length == pytest.approx(SECONDS, abs=0.1)
    history = comfyui.get("/history?max_items=1")
    (outputs,) = [entry["outputs"] for entry in history.values()]
    played = play(comfyui.path_of(outputs["4"]["images"][0]))
    assert len(played.frames) == round(FPS * SECONDS)
    assert played.sound.shape[1] / played.sound_rate == pytest.approx(SECONDS, abs=0.1)
    page.evaluate(f"async () => {{ const [video] = ({VIDEOS})(); video.muted = true; await video.play(); }}")
    page.wait_for_function(f"() => ({VIDEOS})()[0].currentTime > 0.3")

    # every curve is drawn in its colour along the whole canvas
    before = {node: picture_of(page, node) for node in (1, 3, 4)}
    for node, picture in before.items():
        for name, color in {"mouth": MOUTH, "pitch": PITCH, "yaw": YAW, "blinks": BLINKS}.items():
            columns = pixels(picture, color).any(axis=0).mean()
            assert columns > 0.3, f"{name} in node {node}: {columns:.0%} of the columns"

    # the playhead follows the video
    page.evaluate(f"() => {{ const [video] = ({VIDEOS})(); video.pause(); video.currentTime = 1.0; }}")
    page.wait_for_timeout(700)
    early = playhead(picture_of(page, 4))
    page.evaluate(f"() => {{ ({VIDEOS})()[0].currentTime = 3.1; }}")
    page.wait_for_timeout(700)
    late = playhead(picture_of(page, 4))
    assert (early, late) == pytest.approx((1.0 / SECONDS, 3.1 / SECONDS), abs=0.02)
    shown = page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll("[data-curve] span")]
             .filter((span) => span.textContent)
             .map((span) => [span.parentElement.dataset.curve, span.textContent]))"""
    )
    assert float(shown["blinks"]) > 0.9, "the eyes are shut at 3.1 s"

    # a name can be left out, and another put in
    press = "() => document.querySelector('[data-curve=yaw]').click()"
    page.evaluate(press)
    first = page.evaluate(
        """() => app.graph._nodes.map((node) => node.properties["fd2talk curves"]).find((names) => names)"""
    )
    assert first == ["mouth opening", "pitch", "roll", "blinks"]
    page.evaluate(press)
    shoot(page, "preview.png")

    # thrice the motion of the head: other curves after the next run, and the loaded file's are what they were
    page.evaluate(
        """() => {
             const { widgets } = app.graph.getNodeById(3);
             widgets.find((widget) => widget.name === "rotation").value = 3.0;
           }"""
    )
    run(page, comfyui)
    page.wait_for_timeout(1500)
    after = {node: picture_of(page, node) for node in (1, 3, 4)}
    assert complaints(page) == []
    for node in (3, 4):
        was, now = (pixels(pictures[node], MOUTH) for pictures in (before, after))
        assert was.shape == now.shape and (was & now).sum() > 0.7 * was.sum(), "the mouth is as it was"
        was, now = (pixels(pictures[node], YAW) for pictures in (before, after))
        assert (was & now).sum() < 0.7 * was.sum(), "the head is not"
    assert (pixels(before[1], YAW) == pixels(after[1], YAW)).mean() > 0.999


def playhead(picture: np.ndarray) -> float:
    """Where the white line stands, as a share of the clip; the margins of curves.js are 8 pixels."""
    white = (picture[..., :3].min(-1) > 240) & (picture[..., 3] > 200)
    column = float(white.sum(axis=0).argmax())
    margin = 8 * 2  # drawn at twice the size, to be sharp when zoomed
    return (column - margin) / (picture.shape[1] - 2 * margin)


def test_the_hosts_3d_viewer_shows_the_glb(page: Any, comfyui: ComfyUIServer, talk: Path) -> None:  # noqa: F811
    with page.expect_response(lambda answer: ".glb" in answer.url, timeout=240_000) as fetched:
        page.evaluate("(graph) => app.loadApiJson(graph, 'preview')", GRAPH)
        page.evaluate("() => app.queuePrompt(0)")
    assert fetched.value.ok and fetched.value.body()[:4] == b"glTF"
    page.wait_for_timeout(3000)
    assert complaints(page) == []
    shoot(page, "preview_3d.png")


POSE_CURVE = {
    "1": {
        "class_type": "FD2TalkPoseCurve",
        "inputs": {"keyframes": '{"yaw": [[0, 0], [4, 0]]}', "seconds": 4.0, "fps": FPS},
    },
    "2": {"class_type": "FD2TalkSaveCoefficients", "inputs": {"filename_prefix": "drawn", "format": "json"}},
}
POSE_CURVE["2"]["inputs"]["pose"] = ["1", 0]


def test_a_pose_is_drawn_by_hand(page: Any, comfyui: ComfyUIServer) -> None:  # noqa: F811
    page.evaluate("(graph) => app.loadApiJson(graph, 'drawn')", POSE_CURVE)
    page.wait_for_timeout(2000)  # the page moves the graph into view once more
    editor = page.locator(".fd2talk-curves", has=page.locator("[data-axis=yaw]")).locator("canvas")
    box = editor.bounding_box()

    def at(seconds: float, degrees: float) -> tuple[float, float]:
        edge = 6 * page.evaluate("() => app.canvas.ds.scale")  # points at the ends are whole
        x = edge + seconds / 4 * (box["width"] - 2 * edge)
        return box["x"] + x, box["y"] + edge + (0.5 - degrees / 90) * (box["height"] - 2 * edge)

    def drawn() -> dict:
        widgets = "app.graph.getNodeById(1).widgets"
        return json.loads(page.evaluate(f"() => {widgets}.find(({{ name }}) => name === 'keyframes').value"))

    page.mouse.click(*at(1, 20))  # a point is added
    page.mouse.move(*at(1, 20))  # and moved
    page.mouse.down()
    page.mouse.move(*at(2, -30), steps=4)
    page.mouse.up()
    (start, moved, end) = drawn()["yaw"]
    assert (start, end) == ([0, 0], [4, 0]) and moved == pytest.approx([2, -30], abs=1)
    page.mouse.click(*at(3, 10))
    page.mouse.click(*at(3, 10), button="right")  # and removed
    assert drawn() == {"yaw": [start, moved, end]}
    page.locator("[data-axis=pitch]").click()
    page.mouse.click(*at(1, 15))
    assert [point[1] for point in drawn()["pitch"]] == pytest.approx([15], abs=1)

    run(page, comfyui)
    assert complaints(page) == []
    columns = pixels(picture_of(page, 1), YAW).any(axis=0).mean()
    assert columns > 0.3, "what was drawn is shown as the node's motion"
    (outputs,) = [entry["outputs"] for entry in comfyui.get("/history?max_items=1").values()]
    pose = load_motion(comfyui.path_of(outputs["2"]["motion"][0])).pose
    expected = pose_from_keyframes(parse_keyframes(json.dumps(drawn())), round(4 * FPS), FPS)
    torch.testing.assert_close(pose.values, expected.values)
    assert pose.values[:, 1].min() == pytest.approx(math.radians(moved[1]), abs=0.02)
    shoot(page, "pose_curve.png")

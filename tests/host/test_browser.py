"""The page, as an artist sees it: a headless Chromium drags in the workflow, runs it, and the video plays."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.comfyui import ComfyUIServer
from scripts.environment import ROOT
from tests.host.conftest import FPS, SET, unavailable

pytestmark = [pytest.mark.host, pytest.mark.browser]

WORKFLOW = ROOT / "workflows" / "talking_portrait.json"
PICTURE = "FD2TALK_KEEP_PICTURES"
"""Environment variable: a folder that the screenshots are kept in (``docs`` for the README's)."""

SHRINK = """([set, fps, tiny]) => {
  for (const node of app.graph._nodes) {
    for (const widget of node.widgets ?? []) {
      if (["encoder", "checkpoint", "autoencoder"].includes(widget.name) && !tiny) widget.value = set;
      if (widget.name === "steps") widget.value = tiny ? widget.value : 1;
      if (widget.name === "fps" && node.type === "LoadAudioWav2Vec" && !tiny) widget.value = fps;
    }
  }
}"""

VIDEOS = """() => [...document.querySelectorAll("video")].filter(
  (video) => video.readyState >= 2 && video.duration > 0
)"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        unavailable("Chromium is not installed; `python scripts/test.py` installs it where it may")
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, comfyui: ComfyUIServer) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": 1700, "height": 1050})
    page.set_default_timeout(120_000)
    page.broken = []
    page.on("pageerror", lambda error: page.broken.append(str(error)))
    comfyui.post("/settings", {"Comfy.TutorialCompleted": True, "Comfy.Minimap.Visible": False})
    page.goto(comfyui.url)
    page.wait_for_function("() => !!(window.app && window.app.graph)")
    # the page loads a default graph of its own last
    page.wait_for_function(
        "() => app.extensionManager?.setting && LiteGraph.registered_node_types.LoadAudioWav2Vec"
    )
    page.wait_for_timeout(2000)
    yield page
    page.close()


def load(page: Any, graph: dict, shipped: bool = False) -> None:
    page.evaluate("(graph) => app.loadGraphData(graph)", graph)
    page.evaluate(SHRINK, [SET, FPS, shipped])


def complaints(page: Any) -> list[str]:
    """What the page complains of: error toasts, dialogs about missing nodes, broken scripts."""
    toasts = page.locator(".p-toast-message-error, .p-toast-message-warn").all_inner_texts()
    dialogs = [text for text in page.locator(".p-dialog").all_inner_texts() if text.strip()]
    return [*toasts, *dialogs, *page.broken]


def nodes_of(page: Any) -> dict[str, dict]:
    """Type of each node, whether it is registered, and its widgets by name."""
    return page.evaluate(
        """() => Object.fromEntries(app.graph._nodes.map((node) => [node.type, {
             known: node.type in LiteGraph.registered_node_types,
             errors: node.has_errors === true,
             widgets: Object.fromEntries((node.widgets ?? []).map((widget) => [widget.name, widget.value])),
           }]))"""
    )


def keep(page: Any, name: str) -> None:
    """Keep a picture of the whole graph when asked to."""
    folder = os.environ.get(PICTURE)
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.evaluate("() => { app.canvas.ds.scale = 0.8; app.canvas.ds.offset = [50, 90]; }")
        page.evaluate("() => app.graph.setDirtyCanvas(true, true)")
        page.wait_for_timeout(1000)
        page.screenshot(path=str(Path(folder) / name))


def test_the_workflow_runs_in_the_page_and_its_video_plays(page: Any, comfyui: ComfyUIServer) -> None:
    graph = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    load(page, graph)
    nodes = nodes_of(page)
    assert {node["type"] for node in graph["nodes"]} == nodes.keys()
    assert all(node["known"] for node in nodes.values())
    assert complaints(page) == []

    page.evaluate("() => app.queuePrompt(0)")
    page.wait_for_function(f"() => ({VIDEOS})().length >= 2", timeout=240_000)
    assert complaints(page) == []
    assert not any(node["errors"] for node in nodes_of(page).values())
    lengths = page.evaluate(f"() => ({VIDEOS})().map((video) => video.duration)")
    assert lengths == pytest.approx([1.0] * len(lengths), abs=0.2), "the mesh preview and the saved video"
    page.evaluate(
        f"async () => {{ for (const video of ({VIDEOS})()) {{ video.muted = true; await video.play(); }} }}"
    )
    page.wait_for_function(f"() => ({VIDEOS})().every((video) => video.currentTime > 0.2)")
    keep(page, "workflow.png")


def test_the_api_workflow_is_what_the_page_would_post(page: Any) -> None:
    load(page, json.loads(WORKFLOW.read_text(encoding="utf-8")), shipped=True)
    posted = page.evaluate("async () => (await app.graphToPrompt()).output")
    given = json.loads((WORKFLOW.parent / "api" / WORKFLOW.name).read_text(encoding="utf-8"))

    def essence(prompt: dict) -> dict:
        return {name: (node["class_type"], without_defaults(node["inputs"])) for name, node in prompt.items()}

    def without_defaults(inputs: dict) -> dict:
        return {name: value for name, value in inputs.items() if value != ""}

    notes = {name for name, node in posted.items() if node["class_type"] == "MarkdownNote"}
    assert essence({name: node for name, node in posted.items() if name not in notes}) == essence(given)


def test_a_recording_is_uploaded_with_the_nodes_button(
    page: Any, comfyui: ComfyUIServer, tmp_path: Path
) -> None:
    recording = tmp_path / "from_the_page.wav"
    shutil.copy(comfyui.folder("input") / "one_sample.wav", recording)
    load(page, json.loads(WORKFLOW.read_text(encoding="utf-8")))
    with page.expect_file_chooser() as chooser:
        page.evaluate(
            """() => app.graph._nodes.find((node) => node.type === "LoadAudioWav2Vec")
                 .widgets.find((widget) => widget.type === "button").callback()"""
        )
    chooser.value.set_files(recording)
    page.wait_for_function(
        """() => app.graph._nodes.find((node) => node.type === "LoadAudioWav2Vec")
             .widgets.some((widget) => widget.value === "from_the_page.wav")"""
    )
    assert (comfyui.folder("input") / "from_the_page.wav").read_bytes() == recording.read_bytes()
    assert complaints(page) == []

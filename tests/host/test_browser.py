"""The page, as an artist sees it: a headless Chromium drags in the workflow, runs it, and the video plays."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.comfyui import PACK_NAME, ComfyUIServer
from scripts.environment import ROOT
from tests.host.conftest import FPS, SET, unavailable

pytestmark = [pytest.mark.host, pytest.mark.browser]

NAMES = sorted(path.stem for path in (ROOT / "workflows" / "api").glob("*.json"))
WORKFLOW = ROOT / "workflows" / "talking_portrait.json"
PICTURE = "FD2TALK_KEEP_PICTURES"
"""Environment variable: a folder that the screenshots are kept in."""

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


TOASTS = (
    ".p-toast-message-error, .p-toast-message-warn, [data-testid=error-overlay], "
    "[data-testid=toast-viewport] [role=alert]"
)
"""How a page says that something is wrong: the first two of the host's own, the others of a current one."""


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


@pytest.fixture(scope="module")
def opened(browser: Any, comfyui: ComfyUIServer) -> Iterator[Any]:
    """The page, opened once; ``page`` gives it to a test."""
    page = open_page(browser, comfyui)
    yield page
    page.close()


def open_page(browser: Any, server: ComfyUIServer, **settings: Any) -> Any:
    """A host's page, ready for a graph; what breaks in it is listed in ``page.broken``."""
    page = browser.new_page(viewport={"width": 1700, "height": 1050})
    page.set_default_timeout(120_000)
    page.broken = []
    page.on("pageerror", lambda error: page.broken.append(str(error)))
    server.post("/settings", {"Comfy.TutorialCompleted": True, "Comfy.Minimap.Visible": False, **settings})
    page.goto(server.url)
    wait_until_open(page)
    return page


def wait_until_open(page: Any) -> None:
    page.wait_for_function("() => !!(window.app && window.app.graph)")
    # the page loads a default graph of its own last
    page.wait_for_function(
        "() => app.extensionManager?.setting && LiteGraph.registered_node_types.LoadAudioWav2Vec"
    )
    page.wait_for_timeout(2000)


@pytest.fixture
def page(opened: Any) -> Any:
    """The open page, with an empty graph and without old complaints."""
    opened.evaluate("() => { app.extensionManager.toast.removeAll(); app.graph.clear(); }")
    opened.wait_for_function("() => !document.querySelector('.p-toast-message, .p-dialog')")
    opened.broken.clear()
    return opened


def load(page: Any, graph: dict, shipped: bool = False) -> None:
    page.evaluate("(graph) => app.loadGraphData(graph)", graph)
    page.evaluate(SHRINK, [SET, FPS, shipped])


def complaints(page: Any) -> list[str]:
    """What the page complains of: error toasts, dialogs about missing nodes, broken scripts."""
    toasts = page.locator(TOASTS).all_inner_texts()
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
    page.evaluate("() => { app.canvas.ds.scale = 0.8; app.canvas.ds.offset = [50, 90]; }")
    page.evaluate("() => app.graph.setDirtyCanvas(true, true)")
    shoot(page, name)


def shoot(page: Any, name: str) -> None:
    """Keep a picture of the page as it is when asked to."""
    folder = os.environ.get(PICTURE)
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
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


DROP = """([name, text]) => {
  const files = new DataTransfer();
  files.items.add(new File([text], name, { type: "application/json" }));
  const place = { bubbles: true, cancelable: true, clientX: 1500, clientY: 900 };
  const canvas = document.querySelector("#graph-canvas");
  for (const kind of ["dragenter", "dragover", "drop"])
    canvas.dispatchEvent(new DragEvent(kind, { ...place, dataTransfer: files }));
}"""


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_dragged_in_is_what_the_api_form_posts(page: Any, name: str) -> None:
    """Dropped as a file: no missing node or complaint, notes shown, and what is posted is the API form."""
    text = (ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8")
    page.evaluate(DROP, [f"{name}.json", text])
    page.wait_for_function(f"() => app.graph._nodes.length === {len(json.loads(text)['nodes'])}")
    page.wait_for_timeout(300)
    assert all(node["known"] for node in nodes_of(page).values())
    assert complaints(page) == []
    assert page.locator(".comfy-markdown").count() >= 1

    posted = page.evaluate("async () => (await app.graphToPrompt()).output")
    given = json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text(encoding="utf-8"))
    assert essence(posted) == essence(given)


def essence(prompt: dict) -> dict:
    """What counts in an API prompt: notes are of the page alone, and so are widgets that are buttons.

    This host's pages lack the widgets that newer ones have within another one (``format.codec``). In a viewer
    of meshes they post the picture that it shows.
    """
    buttons = ("upload", "audioUI", "video-preview")
    return {
        name: (
            node["class_type"],
            {
                key: value
                for key, value in node["inputs"].items()
                if key not in buttons
                and "." not in key
                and (node["class_type"], key) != ("Preview3D", "image")
            },
        )
        for name, node in prompt.items()
        if node["class_type"] != "MarkdownNote"
    }


def test_the_blueprint_is_one_node_to_drop_in(page: Any, comfyui: ComfyUIServer) -> None:
    """Found by searching, as a user does, wired to a portrait and a recording, and run."""
    page.evaluate(DROP_INPUTS)
    page.mouse.dblclick(1000, 880)
    search = page.locator(".comfy-vue-node-search-container input").first
    search.fill("Talking portrait")
    page.locator(".p-autocomplete-option", has_text="Talking portrait").first.click()
    page.wait_for_function("() => app.graph._nodes.some((node) => node.isSubgraphNode?.())")
    page.wait_for_function("() => !document.querySelector('.p-dialog')")
    assert complaints(page) == []
    widgets = page.evaluate(WIRE, [SET, FPS])
    assert widgets == [
        "fps",
        "face_index",
        "seed",
        "expression_intensity",
        "style",
        "style_strength",
        "head_motion",
        "steps",
        "paste_back",
    ]
    keep(page, "blueprint.png")
    page.evaluate("() => app.queuePrompt(0)")
    page.wait_for_function(f"() => ({VIDEOS})().length >= 1", timeout=240_000)
    lengths = page.evaluate(f"() => ({VIDEOS})().map((video) => video.duration)")
    assert lengths == pytest.approx([1.0], abs=0.2)
    assert complaints(page) == []


DROP_INPUTS = """() => {
  for (const [type, widget, value] of [["LoadImage", "image", "portrait.png"],
      ["LoadAudio", "audio", "speech.wav"], ["SaveVideo", "filename_prefix", "fd2talk/blueprint"]]) {
    const node = LiteGraph.createNode(type);
    node.pos = [40 + 320 * app.graph._nodes.length, 60];
    app.graph.add(node);
    node.widgets.find((candidate) => candidate.name === widget).value = value;
  }
  app.canvas.ds.scale = 1;
  app.canvas.ds.offset = [60, 60];
}"""

WIRE = """([set, fps]) => {
  const find = (type) => app.graph._nodes.find((node) => node.type === type);
  const talking = app.graph._nodes.find((node) => node.isSubgraphNode?.());
  const slot = (sockets, name) => sockets.findIndex((socket) => socket.name === name);
  find("LoadImage").connect(0, talking, slot(talking.inputs, "portrait"));
  find("LoadAudio").connect(0, talking, slot(talking.inputs, "audio"));
  talking.connect(slot(talking.outputs, "video"), find("SaveVideo"), 0);
  for (const node of talking.subgraph.nodes)
    for (const widget of node.widgets ?? [])
      if (["encoder", "checkpoint", "autoencoder"].includes(widget.name)) widget.value = set;
  const set_to = { fps, steps: 1 };
  for (const widget of talking.widgets) if (widget.name in set_to) widget.value = set_to[widget.name];
  return talking.widgets.map((widget) => widget.name);
}"""


def test_the_template_browser_shows_every_workflow_with_its_picture(page: Any) -> None:
    page.evaluate("() => app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.get_by_text(PACK_NAME, exact=False).first.click()
    for name in NAMES:
        page.get_by_role("heading", name=name, exact=True).scroll_into_view_if_needed()
        page.wait_for_function(
            """(name) => [...document.querySelectorAll("img")].some(
              (image) => image.alt.startsWith(name) && image.complete && image.naturalWidth > 0)""",
            arg=name,
        )
    shoot(page, "templates.png")
    page.get_by_role("heading", name="two_people", exact=True).click()
    count = len(json.loads((ROOT / "workflows" / "two_people.json").read_text(encoding="utf-8"))["nodes"])
    page.wait_for_function(f"() => app.graph._nodes.length === {count}")
    page.wait_for_function("() => !document.querySelector('.p-dialog')")
    assert complaints(page) == []


def test_the_help_panel_opens_for_each_node(page: Any, comfyui: ComfyUIServer) -> None:
    """Through the button that the page shows over a chosen node; the panel then holds the node's own page."""
    everything = comfyui.get("/object_info")
    ours = [name for name, info in everything.items() if info["category"].startswith("FD2Talk")]
    assert len(ours) > 20
    for name in ours:
        page.evaluate(
            """(name) => {
              app.graph.clear();
              const node = LiteGraph.createNode(name);
              node.pos = [300, 200];
              app.graph.add(node);
              app.canvas.ds.scale = 1;
              app.canvas.ds.offset = [300, 100];
              app.canvas.deselectAll();
              app.canvas.selectNode(node);
            }""",
            name,
        )
        page.locator("[data-testid=info-button]").click()
        title = (ROOT / "web" / "docs" / name / "en.md").read_text(encoding="utf-8").splitlines()[0]
        panel = page.locator(".node-help-content")
        panel.get_by_role("heading", name=title.lstrip("# "), exact=True).first.wait_for()
        assert panel.locator("li").count() + panel.locator("p").count() >= 3, name
        if name == "FD2TalkUNetSampler":
            shoot(page, "help.png")
    assert complaints(page) == []


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

"""The page of today's hosts in both of its renderers, and what of ours has to outlive an undo in any page."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scripts.environment import ROOT
from tests.host.test_browser import (
    NAMES,
    VIDEOS,
    browser,  # noqa: F401, a fixture
    complaints,
    essence,
    load,
    open_page,
    shoot,
    wait_until_open,
)
from tests.host.test_browser_preview import YAW, pixels, run

pytestmark = [pytest.mark.host, pytest.mark.browser]

CURRENT = ("current, classic canvas", "current, Nodes 2.0")
PAGES = ("the host's own", *CURRENT)


@pytest.fixture(scope="module", params=PAGES)
def opened(request: pytest.FixtureRequest, browser: Any) -> Iterator[Any]:  # noqa: F811
    """A page of one kind, opened once for all tests of it; ``page.server`` is its host."""
    own = request.param == PAGES[0]
    server = request.getfixturevalue("comfyui" if own else "current_comfyui")
    settings = {
        "Comfy.VueNodes.Enabled": request.param == CURRENT[1],
        "Comfy.OnboardingCoachmarks.Seen": ["appMode"],
    }
    page = open_page(browser, server, **settings)
    assert page.evaluate("() => LiteGraph.vueNodesMode === true") == (request.param == CURRENT[1])
    page.server, page.kind = server, request.param
    yield page
    page.close()


@pytest.fixture
def page(opened: Any) -> Any:
    """The open page, without old complaints."""
    opened.evaluate(
        """() => {
             const { toast } = app.extensionManager;
             (toast.removeAll ?? toast.dismissAll)();
             app.graph.clear();
           }"""
    )
    opened.broken.clear()
    return opened


only_current = pytest.mark.parametrize("opened", CURRENT, indirect=True)
only_nodes_2 = pytest.mark.parametrize("opened", CURRENT[1:], indirect=True)


def of_page(name: str) -> dict:
    return json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))


OVERLAPS = """() => {
  const boxes = app.graph.nodes.map((node) => [node.title, ...node.getBounding()]);
  const apart = ([, x, y, w, h], [, u, v, s, t]) => x + w <= u || u + s <= x || y + h <= v || v + t <= y;
  return boxes.flatMap((one, index) => boxes.slice(0, index).filter((other) => !apart(one, other))
    .map((other) => [other[0], one[0]]));
}"""


def overlaps(page: Any) -> list[list[str]]:
    """Titles of nodes that lie over each other, in the size that the page draws them in."""
    page.evaluate("() => { app.canvas.ds.scale = 0.5; app.canvas.ds.offset = [120, 150]; }")
    page.evaluate("() => app.graph.setDirtyCanvas(true, true)")
    page.wait_for_timeout(1000)
    return page.evaluate(OVERLAPS)


@only_current
@pytest.mark.parametrize("name", NAMES)
def test_a_current_page_posts_what_the_api_form_holds(page: Any, name: str) -> None:
    page.evaluate("(graph) => app.loadGraphData(graph)", of_page(name))
    page.wait_for_timeout(500)
    posted = page.evaluate("async () => (await app.graphToPrompt()).output")
    given = json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text(encoding="utf-8"))
    assert essence(posted) == essence(given)
    assert overlaps(page) == []
    assert complaints(page) == []
    shoot(page, f"{name}, {page.kind}.png")


@only_current
def test_the_workflow_runs_in_a_current_page(page: Any) -> None:
    load(page, of_page("talking_portrait"))
    run(page, page.server)
    page.wait_for_function(f"() => ({VIDEOS})().length >= 2", timeout=60_000)
    lengths = page.evaluate(f"() => ({VIDEOS})().map((video) => video.duration)")
    assert lengths == pytest.approx([1.0] * len(lengths), abs=0.2), "the mesh preview and the saved video"
    assert overlaps(page) == []
    assert complaints(page) == []
    shoot(page, f"talking_portrait has run, {page.kind}.png")


@only_current
def test_what_nodes_show_of_a_motion_has_room(page: Any) -> None:
    """The graph with the most curves above each other, run without the frames."""
    load(page, of_page("custom_pose"))
    page.evaluate(
        """(fps) => {
             for (const node of app.graph.nodes) {
               if (/Sampler|DecodeVideo|SaveVideo/.test(node.type)) node.mode = 2;
               if (node.type === "FD2TalkLoadCoefficients")
                 node.widgets.find(({ name }) => name === "fps").value = fps;
             }
           }""",
        10 + CURRENT.index(page.kind),  # what the host has cached of the other page's run it tells nobody
    )
    run(page, page.server)
    page.wait_for_function("() => document.querySelectorAll('.fd2talk-motion').length >= 4")
    assert overlaps(page) == []
    shoot(page, f"custom_pose has run, {page.kind}.png")


TOGGLE_APP = "() => app.extensionManager.command.execute('Comfy.ToggleLinear')"
RUN_APP = "() => document.querySelector('[data-testid=linear-run-button-icon]').closest('button').click()"
CONTROLS = "[data-testid=app-mode-widget-item] [data-testid=builder-widget-label]"


@only_nodes_2
@pytest.mark.parametrize("name", NAMES)
def test_app_mode_shows_what_a_graph_is_for(page: Any, name: str) -> None:
    """The files, mood, seeds, amount of motion and the video of each, and for one that its button runs it."""
    graph = of_page(name)
    nodes = {node["id"]: node for node in graph["nodes"]}
    offered = graph["extra"]["linearData"]
    (output,) = [nodes[number]["type"] for number in offered["outputs"]]
    saved = "SaveVideo" in {node["type"] for node in graph["nodes"]}
    assert output == ("SaveVideo" if saved else "Coeff3DMMPreview")
    labels = [
        socket["label"]
        for number, widget in offered["inputs"]
        for socket in nodes[number]["inputs"]
        if socket["name"] == widget
    ]
    assert len(labels) >= 5 and len(set(labels)) == len(labels)
    moods = [number for number, widget in offered["inputs"] if widget == "style"]
    assert moods == [number for number, node in nodes.items() if node["type"] == "ExpDiT"]

    load(page, graph)
    page.evaluate(TOGGLE_APP)
    try:
        page.locator(CONTROLS).nth(len(labels) - 1).wait_for()
        assert page.locator(CONTROLS).all_inner_texts() == labels
        shoot(page, f"{name}, app mode.png")
        if name == "batch_of_voices":
            # what it shows comes from a list of jobs that this host lacks
            before = page.server.get("/history").keys()
            run(page, page.server, RUN_APP)
            (done,) = [entry for key, entry in page.server.get("/history").items() if key not in before]
            assert [file for made in done["outputs"].values() for file in made["images"]]
    finally:
        page.evaluate(TOGGLE_APP)


UPLOADS = """() => {
  const node = app.graph.nodes.find((node) => node.type === "LoadAudioWav2Vec");
  const drawn = document.querySelector(`[data-node-id="${node.id}"]`);
  if (!drawn) return node.widgets.filter(({ type }) => type === "button").length;
  const ours = [...drawn.querySelectorAll("button")].filter(({ textContent }) => /upload/.test(textContent));
  return ours.length + drawn.querySelectorAll("input[type=file]").length;
}"""


def test_there_is_one_button_to_upload_a_recording(page: Any) -> None:
    page.evaluate("(graph) => app.loadGraphData(graph)", of_page("talking_portrait"))
    page.wait_for_timeout(1000)
    assert page.evaluate(UPLOADS) == 1


DRAWN = {
    "1": {
        "class_type": "FD2TalkPoseCurve",
        "inputs": {"keyframes": '{"yaw": [[0, 0], [1, 30]]}', "seconds": 1.0, "fps": 8.0},
    },
    "2": {"class_type": "Coeff3DMMPreview", "inputs": {"pose": ["1", 0], "view": "front", "size": 64}},
}
CANVASES = """() => [...document.querySelectorAll(".fd2talk-motion canvas")]
  .filter((canvas) => canvas.isConnected && canvas.clientWidth > 0 && canvas.width > 300)"""


def shown(page: Any) -> list[np.ndarray]:
    """``[50]`` each: the height of the yaw, as a share, along each canvas of curves that can be seen."""
    page.wait_for_timeout(500)
    data = page.evaluate(f"() => ({CANVASES})().map((canvas) => canvas.toDataURL())")
    pictures = [Image.open(io.BytesIO(base64.b64decode(one.split(",")[1]))).convert("RGBA") for one in data]
    drawn = [pixels(np.asarray(picture).astype(int), YAW) for picture in pictures]
    return [np.array([height(part) for part in np.array_split(curve, 50, axis=1)]) for curve in drawn]


def height(drawn: np.ndarray) -> float:
    """Of what is drawn in a part of a canvas, as a share of it; not a number where nothing is."""
    return np.nonzero(drawn)[0].mean() / len(drawn) if drawn.any() else np.nan


def both_nodes_show_the_yaw(page: Any) -> np.ndarray:
    """``[2, 50]``: heights as in :func:`shown`."""
    page.wait_for_function(f"() => ({CANVASES})().length === 2")
    curves = np.stack(shown(page))
    assert (np.isfinite(curves).mean(axis=1) > 0.8).all()
    return curves


def keyframes(page: Any) -> dict:
    """What the page would post."""
    posted = page.evaluate("async () => (await app.graphToPrompt()).output")
    return json.loads(posted["1"]["inputs"]["keyframes"])


EDGE = 6
"""Pixels of the editor's canvas beyond the clip's ends and the axis' limits."""


def place_of(page: Any, seconds: float, degrees: float) -> tuple[float, float]:
    """On the screen, in the drawn pose of one second, whose axis reaches from -45 to 45 degrees."""
    box = page.locator(".fd2talk-pose canvas").bounding_box()
    edge = EDGE * page.evaluate("() => app.canvas.ds.scale")
    x = box["x"] + edge + seconds * (box["width"] - 2 * edge)
    return x, box["y"] + edge + (0.5 - degrees / 90) * (box["height"] - 2 * edge)


def click_at(page: Any, seconds: float, degrees: float) -> None:
    page.mouse.click(*place_of(page, seconds, degrees))
    page.wait_for_timeout(500)


def drag(page: Any, seconds: float, degrees: float, to: float, beside: float) -> None:
    """Take a point some pixels beside its middle, straight up or down to other degrees."""
    (x, y), (_, end) = place_of(page, seconds, degrees), place_of(page, seconds, to)
    page.mouse.move(x + beside, y)
    page.mouse.down()
    page.mouse.move(x + beside, end, steps=3)
    page.mouse.up()


def draw_the_pose(page: Any) -> None:
    """Open the graph of a drawn pose and its preview in a tab of its own."""
    page.evaluate("() => app.extensionManager.command.execute('Comfy.NewBlankWorkflow')")
    page.evaluate("(graph) => app.loadApiJson(graph, 'drawn')", DRAWN)
    page.wait_for_timeout(2000)  # the page moves the graph into view once more
    page.evaluate("() => { app.canvas.ds.scale = 1; app.canvas.ds.offset = [120, 120]; }")
    page.evaluate("() => app.graph.setDirtyCanvas(true, true)")
    page.wait_for_timeout(500)


def test_the_drawn_poses_ends_are_whole_and_the_graph_moves_under_it(page: Any) -> None:
    """What is pressed, turned and dragged over the editor: its end points, the wheel, the middle button."""
    draw_the_pose(page)
    drag(page, 1, 30, to=-45, beside=5)
    drag(page, 0, 0, to=45, beside=-5)
    assert keyframes(page) == {"yaw": [[0, 45], [1, -45]]}
    (dots,) = page.evaluate(
        """() => [...document.querySelectorAll(".fd2talk-pose canvas")].map((canvas) => canvas.toDataURL())"""
    )
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(dots.split(",")[1]))).convert("RGBA"))
    yaw = pixels(drawn.astype(int), YAW)
    assert yaw.any() and not (yaw[0].any() or yaw[-1].any() or yaw[:, 0].any() or yaw[:, -1].any())

    view = "() => [app.canvas.ds.scale, ...app.canvas.ds.offset]"
    before = page.evaluate(view)
    x, y = place_of(page, 0.5, 20)
    page.mouse.move(x, y)
    page.mouse.wheel(0, -200)
    page.wait_for_function("(scale) => app.canvas.ds.scale > scale", arg=before[0])
    zoomed = page.evaluate(view)
    page.mouse.down(button="middle")
    page.mouse.move(x + 90, y + 30, steps=3)
    page.mouse.up(button="middle")
    page.wait_for_function(f"(left) => ({view})()[1] > left + 50", arg=zoomed[1])
    assert keyframes(page) == {"yaw": [[0, 45], [1, -45]]}


def test_no_two_widgets_of_a_node_have_one_name(page: Any) -> None:
    """Nodes 2.0 stores a widget's value under its name."""
    named = page.evaluate(
        """() => Object.entries(LiteGraph.registered_node_types)
             .filter(([, { nodeData }]) => nodeData?.category?.startsWith("FD2Talk"))
             .map(([type]) => [type, (LiteGraph.createNode(type).widgets ?? []).map(({ name }) => name)])"""
    )
    assert len(named) > 20
    for node, names in named:
        assert len(set(names)) == len(names), node


def test_curves_and_the_drawn_pose_outlive_undo_tabs_and_a_reload(page: Any) -> None:
    draw_the_pose(page)
    start, end = keyframes(page)["yaw"]
    click_at(page, 0.3, -20)
    once = keyframes(page)
    assert len(once["yaw"]) == 3
    run(page, page.server)
    before = both_nodes_show_the_yaw(page)

    click_at(page, 0.7, 40)
    assert len(keyframes(page)["yaw"]) == 4
    page.evaluate("() => { window.replaced = app.graph.getNodeById(1); }")
    page.evaluate("() => app.extensionManager.command.execute('Comfy.Undo')")
    page.wait_for_function("() => app.graph.getNodeById(1) && app.graph.getNodeById(1) !== window.replaced")
    page.wait_for_timeout(500)
    assert keyframes(page) == once
    assert np.nanmax(abs(both_nodes_show_the_yaw(page) - before)) < 0.04

    click_at(page, 0.6, -40)
    assert [point[1] for point in keyframes(page)["yaw"]] == pytest.approx([0, -20, -40, 30], abs=2)
    run(page, page.server)
    after = both_nodes_show_the_yaw(page)
    assert (np.nanmax(abs(after - before), axis=1) > 0.1).all()

    page.evaluate("() => app.extensionManager.command.execute('Comfy.NewBlankWorkflow')")
    page.wait_for_function("() => app.graph.nodes.length === 0")
    assert shown(page) == []
    page.evaluate("() => app.extensionManager.command.execute('Workspace.PreviousOpenedWorkflow')")
    page.wait_for_function("() => app.graph.nodes.length === 2")
    both_nodes_show_the_yaw(page)

    page.reload()
    wait_until_open(page)
    page.wait_for_function("() => app.graph.nodes.length === 2")
    both_nodes_show_the_yaw(page)
    page.wait_for_function(f"() => ({VIDEOS})().length >= 1")
    assert complaints(page) == []

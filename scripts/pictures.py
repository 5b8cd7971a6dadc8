"""``python scripts/pictures.py [NAME ...] [--run]``: picture each workflow as the page shows it.

Writes ``workflows/NAME.jpg``, which the host's template browser shows beside the name, and
``docs/workflow.png`` for the README. With ``--run`` each graph is run first, so that its previews and videos
are in the picture.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)

from scripts.comfyui import ComfyUIServer  # noqa: E402
from scripts.environment import ROOT, install_debian_packages, prepare, python, say  # noqa: E402

SCALE, MARGIN = 0.8, 24
THUMBNAIL = 800
"""Pixels across, in the template browser."""

BARE_PAGE = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Minimap.Visible": False,
    "Comfy.UseNewMenu": "Disabled",
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.Graph.CanvasMenu": False,
}
"""The host's settings under which nothing lies over the graph."""

RUN_FPS = 5
"""Frames a second that the graphs are run with: a picture shows only one of them."""

SET_FPS = """(fps) => {
  for (const node of app.graph._nodes)
    if (node.type === "LoadAudioWav2Vec") node.widgets.find((widget) => widget.name === "fps").value = fps;
}"""

SHOW = """([scale, left, top]) => {
  app.canvas.ds.scale = scale;
  app.canvas.ds.offset = [left, top];
  app.graph.setDirtyCanvas(true, true);
}"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python scripts/pictures.py", description=__doc__)
    parser.add_argument("names", nargs="*", help="workflows; all when none is named")
    parser.add_argument("--run", action="store_true", help="run each graph before it is pictured")
    parser.add_argument("--threads", type=int, help="processor threads for ComfyUI")
    options = parser.parse_args()
    if Path(sys.prefix) != python().parent.parent and not _has_playwright():
        prepare("test")
        install_debian_packages()
        raise SystemExit(f"Now run it with that environment: {python()} scripts/pictures.py")

    from playwright.sync_api import sync_playwright

    names = options.names or [path.stem for path in sorted((ROOT / "workflows" / "api").glob("*.json"))]
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with (
        ComfyUIServer(ROOT / "demo" / "comfyui", threads=options.threads) as server,
        sync_playwright() as play,
    ):
        server.post("/settings", BARE_PAGE)
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for name in names:
            picture(browser, server, name, options.run)
            say(f"pictured {name}")
        browser.close()
    return 0


def picture(browser, server: ComfyUIServer, name: str, run: bool) -> None:
    """Open one workflow in the page and keep what is seen of it."""
    from PIL import Image

    graph = json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
    boxes = [group["bounding"] for group in graph["groups"]]
    width = max(box[0] + box[2] for box in boxes)
    height = max(box[1] + box[3] for box in boxes)
    view = {"width": round(width * SCALE) + 2 * MARGIN, "height": round(height * SCALE) + 2 * MARGIN}
    page = browser.new_page(viewport=view)
    page.set_default_timeout(120_000)
    page.goto(server.url)
    page.wait_for_function("() => !!(window.app && window.app.graph)")
    page.wait_for_function("() => LiteGraph.registered_node_types.LoadAudioWav2Vec")
    page.wait_for_timeout(3000)
    page.add_style_tag(content=".comfy-menu { display: none !important }")
    page.evaluate("(graph) => app.loadGraphData(graph)", graph)
    if run:
        page.evaluate(SET_FPS, RUN_FPS)
        before = len(server.get("/history"))
        page.evaluate("() => app.queuePrompt(0)")
        while len(server.get("/history")) == before:
            page.wait_for_timeout(500)
        page.evaluate(SET_FPS, 25)
    page.evaluate(SHOW, [SCALE, MARGIN / SCALE, MARGIN / SCALE])
    page.wait_for_timeout(2500)
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    page.close()
    if name == "talking_portrait":
        shot.save(ROOT / "docs" / "workflow.png", optimize=True)
    shot.thumbnail((THUMBNAIL, THUMBNAIL))
    shot.save(ROOT / "workflows" / f"{name}.jpg", quality=88)


def _has_playwright() -> bool:
    import importlib.util

    return importlib.util.find_spec("playwright") is not None


if __name__ == "__main__":
    sys.exit(main())

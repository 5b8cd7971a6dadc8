"""The first minute of a new user: nothing lies in the host's input folder, and the first run works."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.comfyui import ComfyUIServer
from scripts.environment import COMFYUI, ROOT
from tests.host.conftest import SET, unavailable
from tests.host.test_browser import (  # noqa: F401, a fixture
    DROP,
    SHRINK,
    VIDEOS,
    browser,
    complaints,
    nodes_of,
    open_page,
    shoot,
)

pytestmark = pytest.mark.host

EXAMPLES = {
    f"fd2talk_{file.name}": file.read_bytes()
    for file in (ROOT / "example_inputs").iterdir()
    if file.suffix != ".md"
}
FPS = 2.0
SECONDS = 5.3
"""Of the example speech."""


@pytest.fixture(scope="module")
def new_host(tmp_path_factory: pytest.TempPathFactory, seeded_models: Path) -> Iterator[ComfyUIServer]:
    """A host whose input folder is empty."""
    if not (COMFYUI / "main.py").exists():
        unavailable(f"ComfyUI is not in {COMFYUI}; `python scripts/test.py` fetches it")
    base = tmp_path_factory.mktemp("new")
    shutil.copytree(seeded_models, base / "models" / "fd2talk")
    server = ComfyUIServer(base, threads=2)
    assert not list(server.folder("input").iterdir())
    with server:
        yield server


def test_the_hosts_loaders_offer_the_examples_of_every_graph(new_host: ComfyUIServer) -> None:
    lying = {file.name: file.read_bytes() for file in new_host.folder("input").iterdir() if file.is_file()}
    assert lying == EXAMPLES
    assert new_host.log.read_text(encoding="utf-8").count("[FD2Talk] Put the example inputs") == 1
    everything = new_host.get("/object_info")
    named = 0
    for path in (ROOT / "workflows" / "api").glob("*.json"):
        for node in json.loads(path.read_text(encoding="utf-8")).values():
            info = everything[node["class_type"]]["input"]
            for name, (kind, *options) in {**info["required"], **info.get("optional", {})}.items():
                value = node["inputs"].get(name)
                if not isinstance(value, str) or not value.startswith("fd2talk_"):
                    continue
                assert value in (options[0]["options"] if kind == "COMBO" else kind), f"{path.stem}: {value}"
                named += 1
    assert named > 10


@pytest.mark.browser
def test_the_workflow_dropped_into_a_new_hosts_page_gives_a_video(
    browser: Any,  # noqa: F811
    new_host: ComfyUIServer,
) -> None:
    page = open_page(browser, new_host)
    text = (ROOT / "workflows" / "talking_portrait.json").read_text(encoding="utf-8")
    page.evaluate(DROP, ["talking_portrait.json", text])
    page.wait_for_function(f"() => app.graph._nodes.length === {len(json.loads(text)['nodes'])}")
    # the portrait is seen before anything runs
    page.wait_for_function(
        """() => app.graph._nodes.find((node) => node.type === "LoadImage").imgs?.[0]?.naturalWidth === 512"""
    )
    assert complaints(page) == []
    shoot(page, "first_minute.png")
    # a user waits for the networks that ship; the test takes untrained ones and few frames
    page.evaluate(SHRINK, [SET, FPS, False])
    page.locator("[data-testid=queue-button], .comfyui-queue-button button").first.click()
    page.wait_for_function(f"() => ({VIDEOS})().length >= 2", timeout=400_000)
    assert complaints(page) == []
    assert not any(node["errors"] for node in nodes_of(page).values())
    lengths = page.evaluate(f"() => ({VIDEOS})().map((video) => video.duration)")
    assert lengths == pytest.approx([SECONDS] * 2, abs=0.5)
    page.evaluate(
        f"async () => {{ for (const video of ({VIDEOS})()) {{ video.muted = true; await video.play(); }} }}"
    )
    page.wait_for_function(f"() => ({VIDEOS})().every((video) => video.currentTime > 0.2)")
    page.close()


PUT = """
import asyncio, logging, sys
from pathlib import Path

base, pack = map(Path, sys.argv[1:])
sys.argv = ["main.py", "--cpu", "--base-directory", str(base)]
sys.path.insert(0, ".")
import comfy.options

comfy.options.enable_args_parsing()
import utils.extra_config
import folder_paths, nodes

assert folder_paths.get_input_directory() == str(base / "input")
said = []
handler = logging.Handler()
handler.emit = lambda record: said.append((record.levelname, record.getMessage()))
logging.getLogger().setLevel(logging.INFO)
logging.getLogger().addHandler(handler)
assert asyncio.run(nodes.load_custom_node(str(pack)))
(host,) = [module for name, module in sys.modules.items() if name.endswith("ComfyUI-FD2Talk.nodes.host")]
host.list_input_files("audio")
first = [line for line in said if "example inputs" in line[1]]
said.clear()
host.put_examples(base / "a file" / "input")
print(repr((first, said)))
"""


def test_the_users_own_files_stay_and_a_folder_that_takes_none_costs_one_line(tmp_path: Path) -> None:
    if not (COMFYUI / "main.py").exists():
        unavailable(f"ComfyUI is not in {COMFYUI}; `python scripts/test.py` fetches it")
    (tmp_path / "input").mkdir()
    own = tmp_path / "input" / "fd2talk_portrait.png"
    own.write_bytes(b"the user's own")
    (tmp_path / "a file").touch()
    pack = tmp_path / "ComfyUI-FD2Talk"
    pack.symlink_to(ROOT, target_is_directory=True)
    done = subprocess.run(
        [sys.executable, "-c", PUT, tmp_path, pack], cwd=COMFYUI, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    first, refused = ast.literal_eval(done.stdout.splitlines()[-1])
    assert own.read_bytes() == b"the user's own"
    assert {file.name for file in own.parent.iterdir()} == EXAMPLES.keys()
    ((level, line),) = first
    assert level == "INFO" and "fd2talk_speech.wav" in line and "fd2talk_portrait.png" not in line
    ((level, line),) = refused
    assert level == "WARNING" and "cannot be put into the input folder" in line

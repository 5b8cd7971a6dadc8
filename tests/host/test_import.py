"""The pack by itself: imported without ComfyUI it loads nothing heavy, opens no socket and writes no file."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.environment import ROOT

SCRIPT = """
import sys, time
sys.dont_write_bytecode = True
import torch
deeds = []

def watch(event, arguments):
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        deeds.append(f"wrote {arguments[0]}")
    if event.startswith(("socket.connect", "socket.getaddrinfo", "socket.bind", "subprocess", "os.system")):
        deeds.append(event)
    if event in ("os.mkdir", "os.rename", "os.remove"):
        deeds.append(f"{event} {arguments[0]}")

sys.addaudithook(watch)
import importlib.util

started = time.process_time()  # what else the machine does is no cost of ours
spec = importlib.util.spec_from_file_location("pack", sys.argv[1] + "/__init__.py",
                                              submodule_search_locations=[sys.argv[1]])
pack = importlib.util.module_from_spec(spec)
sys.modules["pack"] = pack
spec.loader.exec_module(pack)
for module in sys.argv[2:]:
    importlib.import_module("pack." + module)
seconds = time.process_time() - started
unwanted = {"transformers", "diffusers", "comfy", "folder_paths", "comfy_api"}
heavy = sorted(unwanted & sys.modules.keys())
print(repr((seconds, deeds, heavy, sorted(pack.__all__), hasattr(pack, "NODE_CLASS_MAPPINGS"))))
"""


def core_of_the_nodes() -> list[str]:
    """Modules of the core that the nodes import as the host loads them, and not when a node runs."""
    modules = set()
    for path in (ROOT / "nodes").glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and node.level == 2:
                files = {f"{node.module}.{alias.name}" for alias in node.names}
                parts = {name for name in files if (ROOT / f"{name.replace('.', '/')}.py").exists()}
                modules |= parts or {node.module}
    assert "fd2talk_core.networks.checkpoint" in modules
    return sorted(modules)


def test_importing_the_pack_does_nothing_but_import() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(ROOT), *core_of_the_nodes()],
        capture_output=True,
        text=True,
        cwd="/",
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    seconds, deeds, heavy, exported, old_style = ast.literal_eval(done.stdout)
    assert deeds == []
    assert heavy == []
    assert exported == ["WEB_DIRECTORY", "comfy_entrypoint"]
    assert not old_style
    assert seconds < 1.0


OLDER = """
import asyncio, sys, types
from importlib.util import module_from_spec, spec_from_file_location
sys.dont_write_bytecode = True
root, lacks = sys.argv[1:]
for name in ("comfy_api", "comfy_api.latest"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = []
spec = spec_from_file_location("pack", root + "/__init__.py", submodule_search_locations=[root])
pack = module_from_spec(spec)
sys.modules["pack"] = pack
spec.loader.exec_module(pack)
if lacks == "a package":
    sys.modules["torch"] = None
    sys.modules["comfy_api.v0_0_2"] = types.ModuleType("comfy_api.v0_0_2")
    for name in ("ComfyExtension", "InputImpl", "io", "ui"):
        setattr(sys.modules["comfy_api.v0_0_2"], name, None)
try:
    asyncio.run(pack.comfy_entrypoint())
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(
    ("lacks", "said"),
    [
        ("the version", "RuntimeError FD2Talk needs ComfyUI 0.3.75 or newer: update ComfyUI"),
        ("a package", "ModuleNotFoundError"),
    ],
)
def test_an_older_host_is_told_what_is_needed(lacks: str, said: str) -> None:
    """And what else is missing is told as it is."""
    command = [sys.executable, "-c", OLDER, str(ROOT), lacks]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=120)
    assert done.stdout.startswith(said), done.stdout + done.stderr


def test_the_floor_is_stated_once_and_the_api_has_a_version() -> None:
    """``comfy_api.latest`` moves with the host; a version stays."""
    floor = re.search(r'^requires-comfyui = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text(), re.M)[1]
    assert f"ComfyUI {floor} or newer" in (ROOT / "__init__.py").read_text()
    for path in (ROOT / "nodes").glob("*.py"):
        assert "comfy_api.latest" not in path.read_text(encoding="utf-8"), path


def imports_of(path: Path) -> set[str]:
    """Top-level names that a file imports absolutely."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("folder", ["fd2talk_core", "nodes"])
def test_the_pack_finds_itself_under_whatever_name_the_host_gives_it(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        assert not imports_of(path) & {"fd2talk_core", "nodes", "training", "scripts"}, path


def test_the_core_knows_no_host_and_only_one_file_knows_its_insides() -> None:
    insides = {"comfy", "folder_paths", "execution", "server", "comfy_execution"}
    for path in (ROOT / "fd2talk_core").rglob("*.py"):
        assert not imports_of(path) & (insides | {"comfy_api"}), path
    for path in (ROOT / "nodes").glob("*.py"):
        if path.name != "host.py":
            assert not imports_of(path) & insides, path


def test_requirements_are_the_declared_dependencies() -> None:
    declared = re.search(r"^dependencies = \[\n(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.M | re.S)
    wanted = re.findall(r'^ +"([^"]+)", # .{10,}$', declared[1], re.M)
    assert len(wanted) == declared[1].count("\n"), "each dependency stands on a line with the reason for it"
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == wanted
    assert not [line for line in wanted if re.match(r"(torch|numpy)\b.*[=<~]=", line) and "==" in line]

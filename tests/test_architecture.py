"""The rooms of the core and the direction in which data passes through them; no circle among its files."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORE = "fd2talk_core"

ALLOWED = {
    "face": {"face"},
    "audio": {"audio", "networks"},
    "networks": {"networks"},
    "motion": {"motion", "face", "audio", "networks"},
    "frames": {"frames", "face", "motion", "networks"},
    "formats": {"formats", "face", "motion"},
    "marks": {"marks", "formats"},
    "live": {"live", "face", "audio", "networks", "motion", "frames", "marks"},
}
"""By room, the rooms that its files may import. What lies beside the rooms (imaging, timing, progress,
errors) serves all of them; the pipeline and the command line use all of them."""

OUTSIDE = {"nodes", "training", "scripts", "comfy", "comfy_api", "folder_paths", "server"}


def modules() -> dict[str, Path]:
    """Module names of the core and their files."""
    found = {}
    for path in sorted((ROOT / CORE).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(module: str, path: Path, known: set[str]) -> set[str]:
    """What a file imports, wherever in it, as names of modules; of the core, the file and not its package."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            target = ".".join([*base, *([node.module] if node.module else [])])
            names = {f"{target}.{alias.name}" for alias in node.names}
            found |= {name if name in known else target for name in names}
    return found - {module}


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    files = modules()
    return {module: imports_of(module, path, set(files)) for module, path in files.items()}


def test_rooms_import_only_what_the_data_has_passed(graph: dict[str, set[str]]) -> None:
    wrong = []
    for module, imported in graph.items():
        room = module.split(".")[1] if module.count(".") >= 2 else ""
        for other in imported:
            inside = other.split(".")
            in_room = room in ALLOWED and inside[0] == CORE and len(inside) > 2
            if in_room and inside[1] not in ALLOWED[room]:
                wrong.append(f"{module} imports {other}")
    assert wrong == []


def test_rooms_do_not_import_what_uses_them(graph: dict[str, set[str]]) -> None:
    live = {module for module in graph if module.startswith(f"{CORE}.live")}
    above = {f"{CORE}.pipeline", f"{CORE}.__main__", f"{CORE}.benchmark", *live}
    wrong = [f"{module} imports {above & imported}" for module, imported in graph.items() if above & imported]
    assert [line for line in wrong if not line.startswith(tuple(above))] == []


def test_the_core_knows_no_host_and_no_training(graph: dict[str, set[str]]) -> None:
    known = {name.split(".")[0] for imported in graph.values() for name in imported}
    assert known & OUTSIDE == set()


def test_no_circle_among_the_files(graph: dict[str, set[str]]) -> None:
    """Imports within functions and for type checkers count too: a circle is one wherever it is closed."""
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module in done:
            return
        for other in graph.get(module, ()):
            if other in graph and other.count(".") > 0:
                visit(other, (*path, module))
        done.add(module)

    for module in graph:
        visit(module, ())

"""What an installed wheel brings: the method and its files, and no top-level name that is not ours."""

from __future__ import annotations

from glob import glob
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.filterwarnings("ignore")
def test_a_wheel_holds_the_core_alone_and_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    setuptools = pytest.importorskip("setuptools")
    from setuptools.config.pyprojecttoml import apply_configuration

    monkeypatch.chdir(ROOT)
    wheel = apply_configuration(setuptools.Distribution({"src_root": str(ROOT)}), ROOT / "pyproject.toml")
    assert {name.partition(".")[0] for name in wheel.packages} == {"fd2talk_core"}
    assert not wheel.py_modules
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "fd2talk_core").rglob("*.py")}
    assert {".".join(folder.parts) for folder in folders} <= set(wheel.packages)
    core = ROOT / "fd2talk_core"
    patterns = wheel.package_data["fd2talk_core"]
    files = {name for pattern in patterns for name in glob(pattern, root_dir=core, recursive=True)}
    wanted = {"configs/tiny.json", "weights/face_model.safetensors", "weights/tiny/unet.safetensors"}
    assert wanted <= {name.replace("\\", "/") for name in files}

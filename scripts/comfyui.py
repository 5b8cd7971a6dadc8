"""A real, headless ComfyUI with this pack in it: started, asked over HTTP, and stopped again.

Standard library only, so that the demo and the tests share it; how it is asked is ``workflows/client.py``'s.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from workflows.client import ComfyUI

from .environment import COMFYUI, ROOT

PACK_NAME = "ComfyUI-FD2Talk"


class ComfyUIServer:
    """The host, with a base folder of its own (input, output, models, custom_nodes).

    Args:
        base: folder that the host reads and writes; made when absent.
        python: interpreter that has the host's packages.
        threads: processor threads for torch, or None for its own choice.
        port: or None for a free one.
    """

    def __init__(
        self,
        base: Path,
        python: Path | str = sys.executable,
        threads: int | None = None,
        port: int | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        self.base = base
        self.python = python
        self.threads = threads
        self.port = port or _free_port()
        self.arguments = arguments
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = ComfyUI(self.url)
        self.log = base / "server.log"
        self._process: subprocess.Popen | None = None

    def folder(self, name: str) -> Path:
        """``input``, ``output``, ``temp`` or ``models/...`` of the host."""
        path = self.base / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def __enter__(self) -> ComfyUIServer:
        pack = self.folder("custom_nodes") / PACK_NAME
        if not pack.exists():
            pack.symlink_to(ROOT, target_is_directory=True)
        for name in ("input", "output", "models"):
            self.folder(name)
        command = [self.python, "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(self.port)]
        command += ["--base-directory", str(self.base), "--disable-auto-launch", "--disable-api-nodes"]
        command += ["--database-url", "sqlite:///:memory:", *self.arguments]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}
        if self.threads:
            environment["OMP_NUM_THREADS"] = str(self.threads)
        with self.log.open("w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                command, cwd=COMFYUI, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.close()
            raise
        return self

    def _wait_until_ready(self, seconds: float = 600) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            with contextlib.suppress(OSError, RuntimeError):  # it does not listen yet
                self.get("/system_stats")
                return
            time.sleep(0.3)
        raise RuntimeError(f"ComfyUI did not start; the end of its log:\n{self.log.read_text()[-4000:]}")

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until_closed(self) -> None:
        """Return when the host ends by itself."""
        self._process.wait()

    def close(self) -> None:
        """Stop the host."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def get(self, path: str) -> dict:
        """A GET answered in JSON."""
        return self.client.call(path)

    def post(self, path: str, body: dict) -> dict:
        """A POST answered in JSON; a refusal is returned as it is, with its ``error`` and ``node_errors``."""
        return self.client.ask(path, body)[1]

    def queue(self, graph: dict) -> str:
        """Queue a graph in API format; returns the prompt's id.

        Raises:
            ValueError: with the host's own words, when it refuses the graph or a part of it.
        """
        answer = self.post("/prompt", {"prompt": graph, "client_id": self.client.client_id})
        if "prompt_id" not in answer or answer.get("node_errors"):
            raise ValueError(json.dumps(answer, indent=1))
        return answer["prompt_id"]

    def wait(self, prompt_id: str, seconds: float = 300) -> dict:
        """The history entry of a prompt, once it has ended (well or not)."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            history = self.get(f"/history/{prompt_id}")
            if prompt_id in history:
                return history[prompt_id]
            time.sleep(0.1)
        raise TimeoutError(f"The prompt did not end in {seconds} s.")

    def run(self, graph: dict, seconds: float = 300) -> dict:
        """Queue a graph and wait; returns its outputs by node.

        Raises:
            RuntimeError: with the message of the node that failed.
        """
        entry = self.wait(self.queue(graph), seconds)
        if entry["status"]["status_str"] != "success":
            raise RuntimeError(error_of(entry))
        return entry["outputs"]

    def path_of(self, result: dict) -> Path:
        """The file on disk of one saved result of a node."""
        return self.base / result["type"] / result["subfolder"] / result["filename"]


def error_of(entry: dict) -> str:
    """What the failed node said, from a history entry."""
    for name, message in entry["status"]["messages"]:
        if name == "execution_error":
            return message["exception_message"].strip()
        if name == "execution_interrupted":
            return "interrupted"
    return "no error was reported"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

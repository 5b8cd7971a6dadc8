#!/usr/bin/env python3
"""A portrait and a voice to a running ComfyUI, its progress on the terminal, the MP4 back.

    python workflows/client.py portrait.png speech.wav -o talking.mp4 --host http://127.0.0.1:8188

It needs nothing but Python 3.10: upload, queue, follow the websocket, fetch. Use it as a module, or copy it.
"""

from __future__ import annotations

import argparse
import base64
import json
import mimetypes
import os
import shutil
import socket
import ssl
import struct
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path

GRAPHS = Path(__file__).resolve().parent / "api"
SECONDS = 60
"""That the host may take to begin an answer."""


class ComfyUI:
    """A running ComfyUI.

    Args:
        host: its address, such as ``http://127.0.0.1:8188``.
    """

    def __init__(self, host: str = "http://127.0.0.1:8188") -> None:
        self.host = host.rstrip("/")
        self.client_id = uuid.uuid4().hex

    def upload(self, file: Path | str) -> str:
        """Put a file into the host's input folder; returns the name that it has there.

        A file of the same name with other content is not replaced: the host then chooses another name.
        """
        file, boundary = Path(file), uuid.uuid4().hex
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        # quotes and line ends would end the header early; the host answers with the name that it took
        name = file.name.replace('"', "_").replace("\r", "_").replace("\n", "_")
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
            f"Content-Type: {kind}\r\n\r\n"
        )
        body = head.encode() + file.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        answer = self.call("/upload/image", body, f"multipart/form-data; boundary={boundary}")
        return "/".join(part for part in (answer["subfolder"], answer["name"]) if part)

    def render(
        self,
        graph: dict,
        target: Path | str,
        progress: Callable[[str, float], None] = lambda title, part: None,
    ) -> Path:
        """Run a graph in API format and fetch the video that it saves.

        Args:
            graph: a file of ``workflows/api``, with its inputs set.
            target: where the video is written.
            progress: called with a node's title and the part of it that is done, 0 to 1.

        Raises:
            RuntimeError: with the host's own words, when it refuses the graph or a node fails.
        """
        # the socket is opened first: what is told before somebody listens is lost
        with WebSocket(f"{self.host}/ws?clientId={self.client_id}") as listening:
            job = self.call("/prompt", {"prompt": graph, "client_id": self.client_id})
            if job.get("node_errors"):
                raise RuntimeError(sentence_of(job))
            for message in listening.messages():
                kind, data = message["type"], message.get("data", {})
                if data.get("prompt_id") != job["prompt_id"]:
                    continue
                if kind == "progress":
                    progress(graph[data["node"]]["_meta"]["title"], data["value"] / max(data["max"], 1))
                elif kind == "execution_error":
                    title = graph[data["node_id"]]["_meta"]["title"]
                    raise RuntimeError(f"{title}: {data['exception_message'].strip()}")
                elif kind == "execution_interrupted":
                    raise RuntimeError("The host was told to stop this job.")
                elif kind == "execution_success":
                    break
        # the host tells of the end a moment before it writes down what was made
        while not (history := self.call(f"/history/{job['prompt_id']}")):
            time.sleep(0.05)
        entry = history[job["prompt_id"]]
        saved = [
            file
            for output in entry["outputs"].values()
            for file in output.get("images", [])
            if file["type"] == "output" and file["filename"].endswith(".mp4")
        ]
        if not saved:
            raise RuntimeError("The graph saved no video; it needs a SaveVideo node.")
        place = f"{self.host}/view?{urllib.parse.urlencode(saved[0])}"
        with urllib.request.urlopen(place, timeout=SECONDS) as video:
            target = Path(target)
            target.parent.mkdir(parents=True, exist_ok=True)
            # an earlier video stays until the new one is here, whole
            partial = target.with_name(f".{uuid.uuid4().hex}.part")
            try:
                with partial.open("wb") as file:
                    shutil.copyfileobj(video, file)
                    file.flush()
                    os.fsync(file.fileno())
                partial.replace(target)
            finally:
                partial.unlink(missing_ok=True)
        return target

    def call(self, path: str, body: dict | bytes | None = None, kind: str = "application/json") -> dict:
        """What the host answers, in JSON: to a GET, or to a POST of the body.

        Raises:
            RuntimeError: with the host's own words, when it refuses.
        """
        status, answer = self.ask(path, body, kind)
        if status >= 400:
            raise RuntimeError(sentence_of(answer))
        return answer

    def ask(
        self, path: str, body: dict | bytes | None = None, kind: str = "application/json"
    ) -> tuple[int, dict]:
        """As :meth:`call`, with the HTTP status in place of an error.

        Raises:
            RuntimeError: when the answer is no JSON, as that of something else than ComfyUI.
        """
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        request = urllib.request.Request(self.host + path, data, {"Content-Type": kind})
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                status, text = answer.status, answer.read()
        except urllib.error.HTTPError as refusal:
            status, text = refusal.code, refusal.read()
        try:
            return status, json.loads(text or b"{}")
        except ValueError:
            shown = text[:200].decode(errors="replace")
            raise RuntimeError(f"{self.host}{path} answered {status} and no JSON: {shown}") from None


class WebSocket:
    """As much of RFC 6455 as listening takes."""

    def __init__(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        secure = parts.scheme in ("https", "wss")
        self.socket = socket.create_connection((parts.hostname, parts.port or (443 if secure else 80)))
        if secure:
            self.socket = ssl.create_default_context().wrap_socket(
                self.socket, server_hostname=parts.hostname
            )
        self.stream = self.socket.makefile("rb")
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        status = self.stream.readline().decode(errors="replace").strip()
        if " 101 " not in status + " ":
            raise RuntimeError(f"{url} does not speak WebSocket; it answered {status!r}.")
        while self.stream.readline().strip():
            pass  # the headers of the answer

    def __enter__(self) -> WebSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()
        self.socket.close()

    def messages(self):
        """Every text message, as the JSON that it holds; live pictures (binary) are left out."""
        text = b""
        while True:
            first, second = self._read(2)
            length = second & 127
            if length > 125:
                length = int.from_bytes(self._read(2 if length == 126 else 8), "big")
            content, opcode, last = self._read(length), first & 15, first & 128
            if opcode == 8:
                raise RuntimeError("The host closed the connection.")
            if opcode == 9:
                self._send(10, content)  # a ping is answered, or the host hangs up
            if opcode == 1 or (opcode == 0 and text):
                text += content
                if last:
                    yield json.loads(text)
                    text = b""

    def _read(self, count: int) -> bytes:
        content = self.stream.read(count)
        if len(content) < count:
            raise RuntimeError("The host closed the connection.")
        return content

    def _send(self, opcode: int, content: bytes) -> None:
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(content))
        self.socket.sendall(struct.pack("BB", 128 | opcode, 128 | len(content)) + mask + masked)


def sentence_of(refusal: dict) -> str:
    """What the host says about a graph that it does not take."""
    told = [
        f"{node['class_type']}: {error['message']}: {error['details']}"
        for node in refusal.get("node_errors", {}).values()
        for error in node["errors"]
    ]
    error = refusal.get("error", {})
    return "; ".join(told) or (error if isinstance(error, str) else error.get("message", str(refusal)))


def load_graph(name: str) -> dict:
    """A graph of ``workflows/api`` by its name, or any file in API format by its path."""
    path = Path(name) if name.endswith(".json") else GRAPHS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))


def set_inputs(graph: dict, kind: str, **inputs: object) -> None:
    """Set inputs of the first node of a kind.

    Raises:
        RuntimeError: when the graph has no such node.
    """
    node = next((node for node in graph.values() if node["class_type"] == kind), None)
    if node is None:
        raise RuntimeError(f"The graph has no {kind} node.")
    node["inputs"].update(inputs)


def show(title: str, part: float) -> None:
    """One line of progress that is written over by the next."""
    bar = "#" * round(part * 30)
    print(
        f"\r{title:<34.34} [{bar:<30}] {part:4.0%}", end="" if part < 1 else "\n", file=sys.stderr, flush=True
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("portrait", type=Path, help="a picture file")
    parser.add_argument("voice", type=Path, help="a sound or video file")
    parser.add_argument("-o", "--output", type=Path, default=Path("talking.mp4"), help="the video to write")
    parser.add_argument("--host", default="http://127.0.0.1:8188", help="address of the running ComfyUI")
    parser.add_argument(
        "--graph", default="talking_portrait", help="a name in workflows/api, or a .json file"
    )
    parser.add_argument("--fps", type=float, help="frames per second; the graph's own when left out")
    options = parser.parse_args()
    for given in (options.portrait, options.voice):
        if given.exists() and options.output.exists() and given.samefile(options.output):
            print(f"{options.output} is an input; name another output.", file=sys.stderr)
            return 1
    comfyui = ComfyUI(options.host)
    try:
        graph = load_graph(options.graph)
        rate = {"fps": options.fps} if options.fps else {}
        set_inputs(graph, "LoadImage", image=comfyui.upload(options.portrait))
        set_inputs(graph, "LoadAudioWav2Vec", audio_file=comfyui.upload(options.voice), **rate)
        print(comfyui.render(graph, options.output, show))
    except (RuntimeError, OSError) as error:
        print(f"{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

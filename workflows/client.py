#!/usr/bin/env python3
"""A portrait and a voice to a running ComfyUI, its progress on the terminal, the MP4 back.

    python workflows/client.py portrait.png speech.wav -o talking.mp4 --host http://127.0.0.1:8188

It needs nothing but Python 3.10: upload, queue, follow the websocket, fetch. Use it as a module, or copy it.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import http.client
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
from collections.abc import Callable, Iterator
from pathlib import Path

GRAPHS = Path(__file__).resolve().parent / "api"
SECONDS = 60
"""That the host may take to begin an answer."""
SILENCE = 600
"""Seconds without a word on the websocket, after which the host is asked whether it still lives."""
LARGEST_MESSAGE = 64 << 20
"""Bytes of a message of the websocket."""


class ClientError(RuntimeError):
    """What went wrong, in one sentence."""


def trouble(error: Exception) -> str:
    """What went wrong, in words, whichever library tells it."""
    if isinstance(error, TimeoutError):
        return "the host does not answer"
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, Exception):
        return trouble(error.reason)
    return getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__


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

        Raises:
            ClientError: when there is no such file, or the host does not take it.
        """
        file, boundary = Path(file), uuid.uuid4().hex
        if not file.is_file():
            raise ClientError(f"There is no file {file}.")
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        # quotes and line ends would end the header early; the host answers with the name that it took
        name = file.name.replace('"', "_").replace("\r", "_").replace("\n", "_")
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
            f"Content-Type: {kind}\r\n\r\n"
        )
        body = head.encode() + file.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        answer = self.call("/upload/image", body, f"multipart/form-data; boundary={boundary}")
        with understood(self.host):
            return "/".join(part for part in (answer.get("subfolder", ""), answer["name"]) if part)

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
            ClientError: with the host's own words, when it refuses the graph or a node fails.
        """
        # the socket is opened first: what is told before somebody listens is lost
        with WebSocket(f"{self.host}/ws?clientId={self.client_id}") as listening, understood(self.host):
            job = self.call("/prompt", {"prompt": graph, "client_id": self.client_id})
            if job.get("node_errors"):
                raise ClientError(sentence_of(job))
            for message in listening.messages(lambda: self.is_waiting(job["prompt_id"])):
                kind, data = message.get("type"), message.get("data", {})
                if data.get("prompt_id") != job["prompt_id"]:
                    continue
                if kind == "progress":
                    progress(title_of(graph, data["node"]), data["value"] / max(data["max"], 1))
                elif kind == "execution_error":
                    title = title_of(graph, data["node_id"])
                    raise ClientError(f"{title}: {data['exception_message'].strip()}")
                elif kind == "execution_interrupted":
                    raise ClientError("The host was told to stop this job.")
                elif kind == "execution_success":
                    break
            # the host tells of the end a moment before it writes down what was made
            patience = time.monotonic() + SECONDS
            while not (history := self.call(f"/history/{job['prompt_id']}")):
                if time.monotonic() > patience:
                    raise ClientError(f"{self.host} does not know what became of its job.")
                time.sleep(0.05)
            saved = [
                file
                for output in history[job["prompt_id"]]["outputs"].values()
                for file in output.get("images", [])
                if file["type"] == "output" and file["filename"].endswith(".mp4")
            ]
        if not saved:
            raise ClientError("The graph saved no video; it needs a SaveVideo node.")
        place = f"{self.host}/view?{urllib.parse.urlencode(saved[0])}"
        target = Path(target)
        # an earlier video stays until the new one is here, whole
        partial = target.with_name(f".{uuid.uuid4().hex}.part")
        try:
            with urllib.request.urlopen(place, timeout=SECONDS) as video:
                target.parent.mkdir(parents=True, exist_ok=True)
                with partial.open("wb") as file:
                    shutil.copyfileobj(video, file)
                    file.flush()
                    os.fsync(file.fileno())
                partial.replace(target)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ClientError(f"{target} cannot be fetched ({trouble(error)}).") from error
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
        return target

    def is_waiting(self, job: str) -> bool:
        """Whether the host still has a job before it, or at hand."""
        queue = self.call("/queue")
        jobs = [*queue.get("queue_running", []), *queue.get("queue_pending", [])]
        return any(job in entry for entry in jobs if isinstance(entry, list))

    def call(self, path: str, body: dict | bytes | None = None, kind: str = "application/json") -> dict:
        """What the host answers, in JSON: to a GET, or to a POST of the body.

        Raises:
            ClientError: with the host's own words, when it refuses.
        """
        status, answer = self.ask(path, body, kind)
        if not isinstance(answer, dict):
            raise ClientError(f"{self.host}{path} answered {type(answer).__name__} in place of an object.")
        if status >= 400:
            raise ClientError(sentence_of(answer))
        return answer

    def ask(
        self, path: str, body: dict | bytes | None = None, kind: str = "application/json"
    ) -> tuple[int, dict]:
        """As :meth:`call`, with the HTTP status in place of an error.

        Raises:
            ClientError: when the answer is no JSON, as that of something else than ComfyUI.
        """
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        try:
            request = urllib.request.Request(self.host + path, data, {"Content-Type": kind})
            try:
                with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                    status, text = answer.status, answer.read(LARGEST_MESSAGE)
            except urllib.error.HTTPError as refusal:
                status, text = refusal.code, refusal.read(LARGEST_MESSAGE)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ClientError(
                f"{self.host} cannot be reached ({trouble(error)}): is it a ComfyUI?"
            ) from error
        try:
            return status, json.loads(text or b"{}")
        except (ValueError, RecursionError):
            shown = text[:200].decode(errors="replace")
            raise ClientError(f"{self.host}{path} answered {status} and no JSON: {shown}") from None


class WebSocket:
    """As much of RFC 6455 as listening takes."""

    def __init__(self, url: str) -> None:
        try:
            self._connect(url)
        except (OSError, ValueError) as error:
            raise ClientError(f"{url} cannot be reached ({trouble(error)}).") from error

    def _connect(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        secure = parts.scheme in ("https", "wss")
        address = (parts.hostname or "", parts.port or (443 if secure else 80))
        self.socket = socket.create_connection(address, timeout=SECONDS)
        if secure:
            self.socket = ssl.create_default_context().wrap_socket(
                self.socket, server_hostname=parts.hostname
            )
        self.pending = b""
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        while b"\r\n\r\n" not in self.pending:
            if len(self.pending) > 1 << 16:
                break
            self._receive()
        head, _, self.pending = self.pending.partition(b"\r\n\r\n")
        status = head.partition(b"\r\n")[0][:100].decode(errors="replace").strip()
        if " 101 " not in status + " ":
            raise ClientError(f"{url} does not speak WebSocket; it answered {status!r}.")

    def __enter__(self) -> WebSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def messages(self, goes_on: Callable[[], bool]) -> Iterator[dict]:
        """Every text message, as the JSON object that it holds; live pictures (binary) are left out.

        Args:
            goes_on: asked after :data:`SILENCE`: whether there is anything to wait for.

        Raises:
            ClientError: when the host is gone, or speaks something else.
        """
        text = b""
        while True:
            first, second = self._read(2, goes_on)
            length = second & 127
            if length > 125:
                length = int.from_bytes(self._read(2 if length == 126 else 8, goes_on), "big")
            if length > LARGEST_MESSAGE:
                raise ClientError(
                    f"The host announces a message of {length:,} bytes; ComfyUI sends none such."
                )
            content, opcode, last = self._read(length, goes_on), first & 15, first & 128
            if opcode == 8:
                raise ClientError("The host closed the connection.")
            if opcode == 9:
                self._send(10, content)  # a ping is answered, or the host hangs up
            if opcode == 1 or (opcode == 0 and text):
                text += content
                if len(text) > LARGEST_MESSAGE:
                    raise ClientError("The host sends a message without an end.")
                if last:
                    message = json.loads(text)
                    if isinstance(message, dict) and isinstance(message.get("data", {}), dict):
                        yield message
                    text = b""

    def _read(self, count: int, goes_on: Callable[[], bool]) -> bytes:
        silent_since = time.monotonic()
        while len(self.pending) < count:
            try:
                self._receive()
            except TimeoutError:
                if time.monotonic() - silent_since < SILENCE:
                    continue
                if not goes_on():
                    raise ClientError("The host has lost its job.") from None
            except OSError as error:
                raise ClientError(f"The host closed the connection ({trouble(error)}).") from error
            silent_since = time.monotonic()
        content, self.pending = self.pending[:count], self.pending[count:]
        return content

    def _receive(self) -> None:
        received = self.socket.recv(1 << 16)
        if not received:
            raise ClientError("The host closed the connection.")
        self.pending += received

    def _send(self, opcode: int, content: bytes) -> None:
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(content))
        self.socket.sendall(struct.pack("BB", 128 | opcode, 128 | len(content)) + mask + masked)


@contextlib.contextmanager
def understood(host: str) -> Iterator[None]:
    """An answer of another form than ComfyUI's is told as that."""
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise ClientError(
            f"{host} does not answer as ComfyUI does ({type(error).__name__}: {error})."
        ) from error


def title_of(graph: dict, node: str) -> str:
    """What a page calls a node of the graph, or of one that a node has put in its place."""
    entry = graph.get(node, {})
    return entry.get("_meta", {}).get("title") or entry.get("class_type") or str(node)


def sentence_of(refusal: dict) -> str:
    """What the host says about a graph that it does not take."""
    try:
        told = [
            f"{node['class_type']}: {error['message']}: {error['details']}"
            for node in (refusal.get("node_errors") or {}).values()
            for error in node["errors"]
        ]
        error = refusal.get("error", {})
        return "; ".join(told) or (error if isinstance(error, str) else error.get("message", str(refusal)))
    except (AttributeError, KeyError, TypeError):
        return f"The host refuses, and says {str(refusal)[:300]}"


def load_graph(name: str) -> dict:
    """A graph of ``workflows/api`` by its name, or any file in API format by its path.

    Raises:
        ClientError: when there is none, or it is in another format.
    """
    path = Path(name) if name.endswith(".json") else GRAPHS / f"{name}.json"
    try:
        graph = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ClientError(f"The graph {path} cannot be read ({trouble(error)}).") from error
    nodes = graph.values() if isinstance(graph, dict) else [None]
    if not all(isinstance(node, dict) and isinstance(node.get("inputs"), dict) for node in nodes):
        raise ClientError(f"{path} is no graph in API format: export it from the page's menu as API.")
    return graph


def set_inputs(graph: dict, kind: str, **inputs: object) -> None:
    """Set inputs of the first node of a kind.

    Raises:
        ClientError: when the graph has no such node.
    """
    node = next((node for node in graph.values() if node.get("class_type") == kind), None)
    if node is None:
        raise ClientError(f"The graph has no {kind} node.")
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
    return ended(_talk, parser.parse_args())


def ended(work: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    """Do a command's work; what goes wrong is one sentence on the terminal, and the exit status is 1."""
    try:
        return work(options)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    except ClientError as error:
        print(error, file=sys.stderr)
    except (OSError, ValueError) as error:
        name = getattr(error, "filename", None)
        print(f"{name}: {trouble(error)}." if name else f"{trouble(error)}.", file=sys.stderr)
    return 1


def _talk(options: argparse.Namespace) -> int:
    for given in (options.portrait, options.voice):
        if given.exists() and options.output.exists() and given.samefile(options.output):
            print(f"{options.output} is an input; name another output.", file=sys.stderr)
            return 1
    comfyui = ComfyUI(options.host)
    graph = load_graph(options.graph)
    rate = {"fps": options.fps} if options.fps else {}
    set_inputs(graph, "LoadImage", image=comfyui.upload(options.portrait))
    set_inputs(graph, "LoadAudioWav2Vec", audio_file=comfyui.upload(options.voice), **rate)
    print(comfyui.render(graph, options.output, show))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The script that talks to a host: whatever answers, or does not, is told in one sentence."""

from __future__ import annotations

import importlib
import json
import socket
import struct
import subprocess
import sys
import threading
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "workflows"))
import client  # noqa: E402

HTML = b"<!doctype html><title>Sign in</title>"


Answer = Callable[[str, socket.socket], object]
"""Is given the first line of a request, and the connection to answer on."""


@contextmanager
def host(answer: Answer) -> Iterator[str]:
    """A server that answers the first line of each request as it is told."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=one, args=(connection,), daemon=True).start()

    def one(connection: socket.socket) -> None:
        with connection:
            head = b""
            while b"\r\n\r\n" not in head:
                if not (received := connection.recv(1 << 16)):
                    return
                head += received
            try:
                answer(head.split(b"\r\n")[0].decode(), connection)
            except OSError:
                return

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        listening.close()


def http(connection: socket.socket, content: bytes, status: str = "200 OK") -> None:
    connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content)


def text_frame(content: bytes) -> bytes:
    short = len(content) < 126
    return b"\x81" + (bytes([len(content)]) if short else struct.pack("!BH", 126, len(content))) + content


UPGRADE = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


def speaking(*messages: object, history: object = None, raw: bytes = b"") -> Answer:
    """A host that takes the graph and then says this on the websocket."""

    def answer(line: str, connection: socket.socket) -> None:
        if " /ws" in line:
            connection.sendall(UPGRADE + raw)
            for message in messages:
                connection.sendall(text_frame(json.dumps(message).encode()))
        elif " /prompt" in line:
            http(connection, b'{"prompt_id": "1"}')
        elif " /history" in line:
            http(connection, json.dumps(history).encode())
        else:
            http(connection, b"{}")

    return answer


DONE = {"type": "execution_success", "data": {"prompt_id": "1"}}
ANSWERS = {
    "html": lambda line, connection: http(connection, HTML),
    "html as an error": lambda line, connection: http(connection, HTML, "502 Bad Gateway"),
    "nothing": lambda line, connection: None,
    "no http": lambda line, connection: connection.sendall(b"SSH-2.0-OpenSSH\r\n"),
    "cut short": lambda line, connection: connection.sendall(
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"
    ),
    "a list": lambda line, connection: http(connection, b"[1]"),
    "deep": lambda line, connection: http(connection, b"[" * 100_000),
    "other json": lambda line, connection: http(connection, b'{"a": 1}'),
    "odd errors": lambda line, connection: http(connection, b'{"error": 5, "node_errors": [1]}', "400 Bad"),
    "odd nodes": lambda line, connection: http(connection, b'{"node_errors": {"1": 5}}', "400 Bad"),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_what_is_no_comfyui_is_told(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.wav").write_bytes(b"x")
    with host(ANSWERS[kind]) as url, pytest.raises(client.ClientError) as told:
        client.ComfyUI(url).upload(tmp_path / "a.wav")
    assert "\n" not in str(told.value) and len(str(told.value)) < 500


SPOKEN = {
    "no websocket": lambda line, connection: http(connection, b'{"prompt_id": "1"}'),
    "an endless head": lambda line, connection: connection.sendall(
        b"HTTP/1.1 101 x\r\n" + b"a: b\r\n" * 2**15
    ),
    "no json": speaking(raw=text_frame(b"<html>")),
    "deep json": speaking(raw=text_frame(b"[" * 60_000)),
    "a huge message": speaking(raw=struct.pack("!BBQ", 0x81, 127, 1 << 60)),
    "closed": speaking(raw=b"\x88\x00"),
    "cut": speaking(raw=b"\x81"),
    "odd progress": speaking({"type": "progress", "data": {"prompt_id": "1"}}),
    "odd error": speaking({"type": "execution_error", "data": {"prompt_id": "1", "node_id": "9"}}),
    "no outputs": speaking(DONE, history={"1": {}}),
    "odd outputs": speaking(DONE, history={"1": {"outputs": {"9": {"images": [5]}}}}),
    "no video": speaking(DONE, history={"1": {"outputs": {}}}),
    "another history": speaking(DONE, history={"2": {}}),
    "a list for history": speaking(DONE, history=[1]),
}


@pytest.mark.parametrize("kind", SPOKEN)
def test_a_host_that_speaks_otherwise_is_told(tmp_path: Path, kind: str) -> None:
    with host(SPOKEN[kind]) as url, pytest.raises(client.ClientError) as told:
        client.ComfyUI(url).render({"9": {"class_type": "X", "inputs": {}}}, tmp_path / "a.mp4")
    assert "\n" not in str(told.value) and not list(tmp_path.iterdir())


def test_messages_of_no_form_are_passed_over(tmp_path: Path) -> None:
    odd = ({"type": 5}, [1], 5, {"data": {}}, {"type": "progress", "data": 7})
    answer = speaking(*odd, DONE, history={"1": {"outputs": {}}})
    with host(answer) as url, pytest.raises(client.ClientError, match="saved no video"):
        client.ComfyUI(url).render({}, tmp_path / "a.mp4")


def test_a_silent_host_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "SECONDS", 0.2)
    monkeypatch.setattr(client, "SILENCE", 0.3)
    pause = threading.Event()
    (tmp_path / "a.wav").write_bytes(b"x")
    with host(lambda *_: pause.wait(20)) as url, pytest.raises(client.ClientError, match="not answer"):
        client.ComfyUI(url).upload(tmp_path / "a.wav")

    def silent(line: str, connection: socket.socket) -> None:
        speaking()(line, connection)
        if " /ws" in line:
            pause.wait(20)

    with host(silent) as url, pytest.raises(client.ClientError, match="lost its job"):
        client.ComfyUI(url).render({}, tmp_path / "a.mp4")
    pause.set()


def test_a_host_that_works_in_silence_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "SECONDS", 0.1)
    monkeypatch.setattr(client, "SILENCE", 0.2)
    asked = threading.Event()

    def slow(line: str, connection: socket.socket) -> None:
        if " /queue" in line:
            asked.set()
            http(connection, b'{"queue_running": [[0, "1"]], "queue_pending": []}')
            return
        speaking(history={"1": {"outputs": {}}})(line, connection)
        if " /ws" in line:
            assert asked.wait(20)
            connection.sendall(text_frame(json.dumps(DONE).encode()))

    with host(slow) as url, pytest.raises(client.ClientError, match="saved no video"):
        client.ComfyUI(url).render({}, tmp_path / "a.mp4")


@pytest.mark.parametrize("content", ["", "[1]", "[" * 100_000, '{"1": 5}', '{"1": {}}', "\udcff"])
def test_a_graph_of_another_form_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "graph.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(client.ClientError, match=r"graph\.json"):
        client.load_graph(str(tmp_path / "graph.json"))
    with pytest.raises(client.ClientError, match="nowhere"):
        client.load_graph("nowhere")


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("client.py", ["nowhere.png", "a.wav"]),
        ("client.py", ["a.wav", "a.wav", "--host", "http://127.0.0.1:1"]),
        ("client.py", ["a.wav", "a.wav", "--host", "gopher:/x"]),
        ("client.py", ["a.wav", "a.wav", "--host", "http://[::1"]),
        ("client.py", ["a.wav", "a.wav", "--graph", "nowhere"]),
        ("render_folder.py", ["a.wav", ".", "--host", "http://127.0.0.1:1"]),
        ("render_folder.py", ["a.wav", "nowhere"]),
    ],
)
def test_the_scripts_show_no_traceback(tmp_path: Path, script: str, arguments: list[str]) -> None:
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(bytes(64))
    line = [sys.executable, str(ROOT / "workflows" / script), *arguments]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "Traceback" not in done.stderr and done.stderr.count("\n") == 1


def test_several_hosts_share_a_folder_of_voices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.syspath_prepend(str(ROOT / "workflows"))
    script = importlib.import_module("render_folder")
    met = threading.Barrier(2, timeout=30)
    made: dict[str, list[str]] = {"one": [], "two": []}

    class Host:
        def __init__(self, address: str) -> None:
            self.address = address

        def upload(self, file: Path) -> str:
            return file.name

        def render(self, graph: dict, target: Path, show: object) -> Path:
            if not made[self.address]:
                met.wait()  # both are at work at the same time
            made[self.address].append(target.name)
            if target.stem == "c":
                raise script.ClientError("no face")
            return target

    monkeypatch.setattr(script, "ComfyUI", Host)
    monkeypatch.setattr(script, "load_graph", lambda name: {})
    monkeypatch.setattr(script, "set_inputs", lambda graph, node, **inputs: None)
    for name in "abcde":
        (tmp_path / f"{name}.wav").touch()
    options = ["portrait.png", str(tmp_path), "-o", str(tmp_path), "--host", "one", "--host", "two"]
    monkeypatch.setattr(sys, "argv", ["render_folder.py", *options])
    assert script.main() == 1, "one voice failed"
    assert sorted(made["one"] + made["two"]) == [f"{name}.mp4" for name in "abcde"]
    assert made["one"] and made["two"]

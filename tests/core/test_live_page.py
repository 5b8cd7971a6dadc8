"""The live avatar's page: who may talk to it, and what a real browser shows and hears."""

from __future__ import annotations

import asyncio
import os
import shutil
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.live.avatar import LiveFrame
from fd2talk_core.live.page import LivePage, _serve, packed, serve
from tests.host.conftest import unavailable
from tests.host.media import write_wav

aiohttp = pytest.importorskip("aiohttp")
RATE = 24_000
PICTURE = "FD2TALK_KEEP_PICTURES"
"""Environment variable: a folder that the screenshots are kept in."""


class Echo:
    """An avatar that says what is pushed at once, and shows a bar that is green meanwhile."""

    fps, sample_rate = 12.5, RATE

    def __init__(self) -> None:
        self.closed, self.number, self.deeds = False, 0, []
        self.still = torch.zeros(64, 96, 3, dtype=torch.uint8)
        self.held = np.zeros(0, np.int16)
        self.began = time.monotonic()
        self.lock = threading.Lock()

    def push_audio(self, data: bytes, sample_rate: int) -> None:
        if len(data) % 2:
            raise FD2TalkError("The sound has an odd number of bytes.")
        with self.lock:
            self.held = np.concatenate([self.held, np.frombuffer(data, "<i2")])

    def end_of_speech(self) -> None:
        self.deeds.append("end")

    def clear(self) -> None:
        with self.lock:
            self.deeds.append("clear")
            self.held = self.held[:0]

    def close(self) -> None:
        self.closed = True

    def __iter__(self) -> Echo:
        return self

    def __next__(self) -> LiveFrame:
        if self.closed:
            raise StopIteration
        time.sleep(max(0.0, self.began + self.number / self.fps - time.monotonic()))
        with self.lock:
            samples, self.held = self.held[:1920], self.held[1920:]
        sound = torch.zeros(1920)
        sound[: len(samples)] = torch.from_numpy(samples / np.float32(32768))
        picture = torch.full((64, 96, 3), 30, dtype=torch.uint8)
        picture[:, : 8 + self.number % 80, 1 if len(samples) else 2] = 220
        self.number += 1
        return LiveFrame(picture, sound, (self.number - 1) / self.fps, len(samples) > 0)


@contextmanager
def served() -> Iterator[tuple[str, Echo]]:
    """The page in a thread of its own."""
    avatar, told, there = Echo(), [], threading.Event()

    def said(line: str) -> None:
        told.append(line.rpartition(" ")[2])
        there.set()

    page = LivePage(avatar)  # type: ignore[arg-type]
    thread = threading.Thread(target=lambda: asyncio.run(_serve(page, 0, said)))
    thread.start()
    try:
        assert there.wait(60)
        yield told[0], avatar
    finally:
        avatar.close()
        thread.join()


def test_a_message_holds_picture_and_sound() -> None:
    sound = torch.tensor([0.0, 0.5, -1.0, 1.0])
    message = packed(LiveFrame(torch.zeros(8, 8, 3, dtype=torch.uint8), sound, 1.25, True))
    assert struct.unpack_from("<dII", message) == (1.25, 4, 1)
    assert np.frombuffer(message, "<i2", 4, 16).tolist() == [0, 16384, -32768, 32767]
    assert message[24:26] == b"\xff\xd8"
    assert len(packed(LiveFrame(None, sound, 1.25))) == 24


def test_pages_of_other_places_are_refused_and_bad_sound_is_told() -> None:
    async def talk(address: str) -> None:
        async with aiohttp.ClientSession() as session:
            for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}):
                assert (await session.get(address, headers=headers)).status == 403
                with pytest.raises(aiohttp.WSServerHandshakeError):
                    await session.ws_connect(f"{address}/live", headers=headers)
            page = await session.get(address)
            assert page.status == 200 and "FD2Talk live" in await page.text()
            async with session.ws_connect(f"{address}/live") as first:
                assert await first.receive_json() == {"sample_rate": RATE, "fps": 12.5}
                assert len(await first.receive_bytes()) > 100, "a picture, before there is a frame"
                await first.send_bytes(b"odd")
                while (message := await first.receive()).type is not aiohttp.WSMsgType.TEXT:
                    pass
                assert "odd number" in message.json()["error"]
                async with session.ws_connect(f"{address}/live") as second:
                    assert await second.receive_json()
                    while (message := await first.receive()).type is aiohttp.WSMsgType.BINARY:
                        pass
                    assert "taken over" in str(message.extra)

    with served() as (address, _):
        asyncio.run(talk(address))


def test_a_port_that_is_taken_is_told() -> None:
    with served() as (address, _), pytest.raises(FD2TalkError, match="cannot be served"):
        serve(Echo(), int(address.rpartition(":")[2]))  # type: ignore[arg-type]


@pytest.mark.browser
def test_a_browser_shows_it_and_is_heard(tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        unavailable("Chromium is not installed; `python scripts/test.py` installs it where it may")
    from playwright.sync_api import sync_playwright

    voice = 0.3 * torch.sin(torch.arange(3 * RATE) / 20)[None]
    write_wav(tmp_path / "voice.wav", voice, RATE)
    flags = ["--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required"]
    flags += ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    with served() as (address, avatar), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page(viewport={"width": 720, "height": 760})
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
        page.set_default_timeout(120_000)
        page.goto(address)
        page.wait_for_function("fd2talk.seen > 3")
        assert page.evaluate("[face.width, face.height]") == [96, 64]
        page.set_input_files("#file", tmp_path / "voice.wav")
        page.wait_for_function("fd2talk.speaking")
        wait_for(lambda: "end" in avatar.deeds)
        keep(page, "live_page.png")
        page.click("#stop")
        page.wait_for_function("!fd2talk.speaking")
        assert avatar.deeds[-1] == "clear"
        page.click("#microphone")
        page.wait_for_function("microphone.getAttribute('aria-pressed') === 'true'")
        page.wait_for_function("fd2talk.speaking")
        page.click("#microphone")
        wait_for(lambda: avatar.deeds[-1] == "end")
        browser.close()
    assert complaints == []


def wait_for(holds: Any) -> None:
    until = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)


def keep(page: Any, name: str) -> None:
    if folder := os.environ.get(PICTURE):
        page.screenshot(path=str(Path(folder) / name))

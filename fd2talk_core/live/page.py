"""The local page: sound in by a microphone or a file, frames and sound out over one websocket.

Needs the packages of the extra ``live``. Only this machine is listened to, and only the page itself may talk:
pages of other places, which a browser would let connect to 127.0.0.1, are refused.
"""

from __future__ import annotations

import asyncio
import io
import json
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image

from ..errors import FD2TalkError
from ..files import reason_of
from .avatar import LiveAvatar, LiveFrame
from .sound import to_pcm

if TYPE_CHECKING:
    from aiohttp import web

PAGE = Path(__file__).with_name("page.html")
HOST = "127.0.0.1"
QUALITY = 88
"""Of JPEG."""
LARGEST_MESSAGE = 1 << 20
INSTALL = "install it by: pip install 'fd2talk[live]', or pip install aiohttp"

Sink = Callable[[LiveFrame], None]
"""What else is given each frame, such as a virtual camera."""


def serve(
    avatar: LiveAvatar, port: int, sinks: Sequence[Sink] = (), said: Callable[[str], None] = print
) -> None:
    """Serve the page until the program is stopped.

    Args:
        port: 0 takes any that is free.
        said: told the address once the page is there.

    Raises:
        FD2TalkError: when aiohttp is not installed, or the port is taken.
    """
    try:
        import aiohttp  # noqa: F401
    except ImportError as error:
        raise FD2TalkError(f"The page needs the package aiohttp; {INSTALL}.") from error
    try:
        asyncio.run(_serve(LivePage(avatar, sinks), port, said))
    except OSError as error:
        raise FD2TalkError(f"The page cannot be served at port {port} ({reason_of(error)}).") from error
    finally:
        avatar.close()


async def _serve(page: LivePage, port: int, said: Callable[[str], None]) -> None:
    from aiohttp import web

    runner = web.AppRunner(page.application())
    await runner.setup()
    try:
        site = web.TCPSite(runner, HOST, port)
        await site.start()
        bound = runner.addresses[0][1]
        page.origins = {f"http://{name}:{bound}" for name in (HOST, "localhost")}
        said(f"The avatar waits at http://{HOST}:{bound}")
        await page.live()
    finally:
        await runner.cleanup()


class LivePage:
    """One avatar and who looks at it.

    Args:
        avatar: whose frames are shown.
        sinks: see :data:`Sink`.

    Attributes:
        origins: addresses of the page, from which it may talk.
    """

    def __init__(self, avatar: LiveAvatar, sinks: Sequence[Sink] = ()) -> None:
        self.avatar, self.sinks = avatar, sinks
        self.origins: set[str] = set()
        self._viewer: web.WebSocketResponse | None = None

    def application(self) -> web.Application:
        """What aiohttp serves."""
        from aiohttp import web

        application = web.Application()
        application.add_routes([web.get("/", self._page), web.get("/live", self._talk)])
        return application

    async def live(self) -> None:
        """Hand on frames as they are due; without a viewer they pass unseen."""
        frames = iter(self.avatar)
        while not self.avatar.closed:
            message = await asyncio.to_thread(self._next, frames)
            viewer = self._viewer
            if viewer is None or viewer.closed or message is None:
                continue
            try:
                await asyncio.wait_for(viewer.send_bytes(message), timeout=2.0)
            except (ConnectionError, asyncio.TimeoutError):
                self._viewer = None

    def _next(self, frames: Iterator[LiveFrame]) -> bytes | None:
        """The next frame as a message; None where nobody looks."""
        frame = next(frames, None)
        if frame is None:
            return None
        for sink in self.sinks:
            sink(frame)
        return packed(frame) if self._viewer is not None else None

    async def _page(self, request: web.Request) -> web.StreamResponse:
        from aiohttp import web

        self._refuse_strangers(request)
        return web.Response(text=PAGE.read_text(encoding="utf-8"), content_type="text/html")

    async def _talk(self, request: web.Request) -> web.StreamResponse:
        from aiohttp import WSMsgType, web

        self._refuse_strangers(request)
        socket = web.WebSocketResponse(max_msg_size=LARGEST_MESSAGE, heartbeat=20)
        await socket.prepare(request)
        if self._viewer is not None and not self._viewer.closed:
            await self._viewer.close(message=b"Another page has taken over.")
        await socket.send_str(json.dumps({"sample_rate": self.avatar.sample_rate, "fps": self.avatar.fps}))
        # on a slow machine it may be long before the next picture
        await socket.send_bytes(packed(LiveFrame(self.avatar.still, torch.zeros(0), 0.0)))
        self._viewer = socket
        try:
            async for message in socket:
                try:
                    if message.type == WSMsgType.BINARY:
                        await asyncio.to_thread(self.avatar.push_audio, message.data, self.avatar.sample_rate)
                    elif message.data == "end":
                        self.avatar.end_of_speech()
                    elif message.data == "clear":
                        await asyncio.to_thread(self.avatar.clear)
                except FD2TalkError as error:
                    await socket.send_str(json.dumps({"error": str(error)}))
        finally:
            if self._viewer is socket:
                self._viewer = None
                self.avatar.clear()
        return socket

    def _refuse_strangers(self, request: web.Request) -> None:
        """Another site's script may send its user's browser here, by this address or by a name of its own."""
        from aiohttp import web

        origin = request.headers.get("Origin", f"http://{request.host}")
        if {origin, f"http://{request.host}"} - self.origins:
            raise web.HTTPForbidden(text="This page talks to itself alone.")


def packed(frame: LiveFrame) -> bytes:
    """A frame as the page takes it: timestamp (float64), number of samples (uint32), whether it is speech
    (uint32), the samples (int16), and a JPEG unless the frame was dropped; all little-endian."""
    sound = to_pcm(frame.audio).astype("<i2").tobytes()
    picture = io.BytesIO()
    if frame.frame is not None:
        Image.fromarray(frame.frame.numpy()).save(picture, "JPEG", quality=QUALITY)
    head = struct.pack("<dII", frame.timestamp, len(sound) // 2, frame.speech)
    return head + sound + picture.getvalue()

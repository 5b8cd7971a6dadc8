"""The live avatar in a Pipecat pipeline, between the speech service and the transport's output.

>>> avatar = PipecatAvatar(LiveAvatar("portrait.png"))
>>> Pipeline([transport.input(), stt, llm, tts, avatar, transport.output()])

Sound of the speech service goes in; pictures come out all the time, and the sound with those that speak.
Needs the package of the extra ``pipecat``.
"""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    Frame,
    InterruptionFrame,
    OutputImageRawFrame,
    StartFrame,
    TTSAudioRawFrame,
    TTSStoppedFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

from .avatar import LiveAvatar
from .sound import to_pcm

_LOOKS = 0.02
"""Seconds between two looks at whether all has been said."""


class PipecatAvatar(FrameProcessor):
    """
    Args:
        avatar: that speaks; it is started with the pipeline, and closed with it.
    """

    def __init__(self, avatar: LiveAvatar, **options: Any) -> None:
        super().__init__(**options)
        self.avatar = avatar
        self._showing: asyncio.Task | None = None

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Take what is to be said, and hand everything else on."""
        await super().process_frame(frame, direction)
        if isinstance(frame, TTSAudioRawFrame):
            samples = np.frombuffer(frame.audio, np.int16).reshape(-1, frame.num_channels).T
            await asyncio.to_thread(self.avatar.push_audio, samples, frame.sample_rate)
            return
        if isinstance(frame, TTSStoppedFrame):
            self.avatar.end_of_speech()
        elif isinstance(frame, InterruptionFrame):
            await asyncio.to_thread(self.avatar.clear)
        elif isinstance(frame, EndFrame):
            self.avatar.end_of_speech()
            while self.avatar.speaking and not self.avatar.closed:
                await asyncio.sleep(_LOOKS)
            await self._stop()
        elif isinstance(frame, CancelFrame):
            await self._stop()
        await self.push_frame(frame, direction)
        if isinstance(frame, StartFrame) and self._showing is None:
            self._showing = self.create_task(self._show())

    async def cleanup(self) -> None:
        """Close the avatar."""
        await self._stop()
        await super().cleanup()

    async def _stop(self) -> None:
        if self._showing is not None:
            await self.cancel_task(self._showing)
            self._showing = None
        await asyncio.to_thread(self.avatar.close)

    async def _show(self) -> None:
        avatar = iter(self.avatar)
        while (live := await asyncio.to_thread(next, avatar, None)) is not None:
            if live.frame is not None:
                height, width = live.frame.shape[:2]
                pixels = live.frame.numpy().tobytes()
                await self.push_frame(OutputImageRawFrame(image=pixels, size=(width, height), format="RGB"))
            if live.speech:
                sound = to_pcm(live.audio).tobytes()
                await self.push_frame(
                    TTSAudioRawFrame(audio=sound, sample_rate=self.avatar.sample_rate, num_channels=1)
                )

"""The live avatar as the face of a LiveKit agent: a ``VideoGenerator`` for its ``AvatarRunner``.

>>> generator = LiveKitAvatar(LiveAvatar("portrait.png", sample_rate=24_000))
>>> runner = AvatarRunner(room, audio_recv=receiver, video_gen=generator, options=generator.options)

Needs the package of the extra ``livekit``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
from livekit import rtc
from livekit.agents.voice.avatar import AudioSegmentEnd, AvatarOptions, VideoGenerator

from .avatar import LiveAvatar
from .sound import to_pcm


class LiveKitAvatar(VideoGenerator):
    """
    Args:
        avatar: that speaks; it is started when frames are asked for.
    """

    def __init__(self, avatar: LiveAvatar) -> None:
        self.avatar = avatar

    @property
    def options(self) -> AvatarOptions:
        """Of the tracks that a runner publishes."""
        height, width = self.avatar.still.shape[:2]
        return AvatarOptions(
            video_width=width,
            video_height=height,
            video_fps=self.avatar.fps,
            audio_sample_rate=self.avatar.sample_rate,
            audio_channels=1,
        )

    async def push_audio(self, frame: rtc.AudioFrame | AudioSegmentEnd) -> None:
        """Say something; its end is told by an ``AudioSegmentEnd``."""
        if isinstance(frame, AudioSegmentEnd):
            self.avatar.end_of_speech()
            return
        samples = np.frombuffer(frame.data, np.int16).reshape(-1, frame.num_channels).T
        # it waits while a minute of speech waits
        await asyncio.to_thread(self.avatar.push_audio, samples, frame.sample_rate)

    async def clear_buffer(self) -> None:
        """Be silent at once."""
        await asyncio.to_thread(self.avatar.clear)

    async def __aiter__(self) -> AsyncIterator[rtc.VideoFrame | rtc.AudioFrame | AudioSegmentEnd]:
        """Pictures, also while nothing is said; sound while something is; the end of each speech."""
        avatar = iter(self.avatar)
        while (live := await asyncio.to_thread(next, avatar, None)) is not None:
            if live.frame is not None:
                height, width = live.frame.shape[:2]
                yield rtc.VideoFrame(width, height, rtc.VideoBufferType.RGB24, live.frame.numpy().tobytes())
            if live.speech:
                sound = to_pcm(live.audio)
                yield rtc.AudioFrame(sound.tobytes(), self.avatar.sample_rate, 1, len(sound))
            if live.last:
                yield AudioSegmentEnd()

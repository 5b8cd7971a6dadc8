"""Where people use the live avatar: each adapter with its real package and no network."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.live.avatar import LiveFrame

RATE = 24_000
SPOKEN = np.arange(-960, 960, dtype=np.int16)


class Scripted:
    """An avatar whose frames are known: two of speech, one dropped, then silence for ever."""

    fps, sample_rate = 25.0, RATE

    def __init__(self) -> None:
        self.still = torch.zeros(4, 6, 3, dtype=torch.uint8)
        self.pushed: list[tuple[np.ndarray, int]] = []
        self.deeds: list[str] = []
        self.closed = False
        self.given = 0

    @property
    def speaking(self) -> bool:
        return self.given < 3

    def push_audio(self, samples: np.ndarray, sample_rate: int) -> None:
        self.pushed.append((samples, sample_rate))

    def end_of_speech(self) -> None:
        self.deeds.append("end")

    def clear(self) -> None:
        self.deeds.append("clear")

    def close(self) -> None:
        self.closed = True

    def __iter__(self) -> Iterator[LiveFrame]:
        return self

    def __next__(self) -> LiveFrame:
        if self.closed:
            raise StopIteration
        number, self.given = self.given, self.given + 1
        part = torch.from_numpy(SPOKEN).view(2, -1)[min(number, 1)] / 32768
        sound = part if number < 2 else torch.zeros(960)
        picture = None if number == 1 else self.still + number
        return LiveFrame(picture, sound, number / 25, number < 2, number == 1, None)


def test_a_livekit_runner_gets_pictures_sound_and_the_end_of_speech() -> None:
    pytest.importorskip("livekit.agents")
    from livekit import rtc
    from livekit.agents.voice.avatar import AudioSegmentEnd, VideoGenerator

    from fd2talk_core.live.livekit import LiveKitAvatar

    avatar = Scripted()
    generator = LiveKitAvatar(avatar)  # type: ignore[arg-type]
    assert isinstance(generator, VideoGenerator)
    assert (generator.options.video_width, generator.options.video_height) == (6, 4)

    async def run() -> list[Any]:
        stereo = np.stack([SPOKEN, SPOKEN[::-1]], axis=1)
        await generator.push_audio(rtc.AudioFrame(stereo.tobytes(), RATE, 2, len(SPOKEN)))
        await generator.push_audio(AudioSegmentEnd())
        await generator.clear_buffer()
        made = []
        async for item in generator:
            made.append(item)
            if len(made) == 6:
                avatar.close()
        return made

    made = asyncio.run(run())
    (samples, rate) = avatar.pushed[0]
    assert np.array_equal(samples, [SPOKEN, SPOKEN[::-1]]) and rate == RATE
    assert avatar.deeds == ["end", "clear"]
    kinds = [type(item) for item in made]
    assert kinds == [
        rtc.VideoFrame,
        rtc.AudioFrame,
        rtc.AudioFrame,
        AudioSegmentEnd,
        rtc.VideoFrame,
        rtc.VideoFrame,
    ]
    heard = np.concatenate([np.frombuffer(item.data, np.int16) for item in made[1:3]])
    assert np.array_equal(heard, SPOKEN) and made[1].sample_rate == RATE
    assert bytes(made[4].data) == bytes([2] * 72) and (made[4].width, made[4].height) == (6, 4)


def test_a_pipecat_pipeline_says_all_before_it_ends() -> None:
    pytest.importorskip("pipecat")
    from pipecat.frames.frames import (
        EndFrame,
        InterruptionFrame,
        OutputImageRawFrame,
        StartFrame,
        TextFrame,
        TTSAudioRawFrame,
        TTSStoppedFrame,
    )
    from pipecat.processors.frame_processor import FrameDirection

    from fd2talk_core.live.pipecat import PipecatAvatar

    avatar = Scripted()

    class Watched(PipecatAvatar):
        """One whose pipeline is this test."""

        passed: list[Any]

        async def push_frame(self, frame: Any, direction: Any = FrameDirection.DOWNSTREAM) -> None:
            self.passed.append(frame)

        def create_task(self, coroutine: Any, name: str | None = None) -> Any:
            return asyncio.create_task(coroutine)

        async def cancel_task(self, task: Any, timeout: float | None = 1.0) -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def run() -> list[Any]:
        processor = Watched(avatar)  # type: ignore[arg-type]
        processor.passed = []
        down = FrameDirection.DOWNSTREAM
        spoken = TTSAudioRawFrame(audio=SPOKEN.tobytes(), sample_rate=RATE, num_channels=1)
        for frame in (StartFrame(), TextFrame("hello"), spoken, TTSStoppedFrame(), InterruptionFrame()):
            await processor.process_frame(frame, down)
        await processor.process_frame(EndFrame(), down)
        return processor.passed

    passed = asyncio.run(run())
    assert np.array_equal(avatar.pushed[0][0], [SPOKEN]) and avatar.closed
    assert avatar.deeds == ["end", "clear", "end"]
    assert isinstance(passed[-1], EndFrame) and any(isinstance(frame, TextFrame) for frame in passed)
    sounds = [frame for frame in passed if isinstance(frame, TTSAudioRawFrame)]
    assert b"".join(frame.audio for frame in sounds) == SPOKEN.tobytes(), "what went in is not passed on"
    pictures = [frame for frame in passed if isinstance(frame, OutputImageRawFrame)]
    assert pictures[0].size == (6, 4) and pictures[0].image == bytes(72)


def test_a_virtual_camera_shows_what_was_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    from fd2talk_core.live.camera import CameraSink

    shown: list[np.ndarray] = []

    class Camera:
        def __init__(self, width: int, height: int, fps: float) -> None:
            assert (width, height, fps) == (6, 4, 25.0)

        def send(self, picture: np.ndarray) -> None:
            shown.append(picture)

    monkeypatch.setitem(__import__("sys").modules, "pyvirtualcam", types.SimpleNamespace(Camera=Camera))
    avatar = Scripted()
    sink = CameraSink(avatar)  # type: ignore[arg-type]
    for _ in range(3):
        sink(next(avatar))
    assert [int(picture.max()) for picture in shown] == [0, 0, 2]


def test_a_machine_without_a_virtual_camera_is_told() -> None:
    pytest.importorskip("pyvirtualcam")
    from fd2talk_core.live.camera import CameraSink

    avatar = Scripted()
    avatar.still = torch.zeros(4, 6, 3, dtype=torch.uint8)
    with pytest.raises(FD2TalkError, match="no virtual camera"):
        CameraSink(avatar)  # type: ignore[arg-type]

"""The live avatar, by a clock of its own: all sound is heard, and pictures come in time or not at all."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from fd2talk_core import configs
from fd2talk_core.audio.encoder import AudioEncoder
from fd2talk_core.audio.front import level_of
from fd2talk_core.audio.reading import read_audio
from fd2talk_core.audio.resampling import to_mono_16k
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.names import ARKIT_NAMES, OPEN_FACE_MODEL
from fd2talk_core.live.__main__ import main
from fd2talk_core.live.avatar import BUFFER_SECONDS, PATIENCE, LiveAvatar, LiveCounts, LiveEngine, LiveFrame
from fd2talk_core.live.benchmark import live_report
from fd2talk_core.live.hearing import StreamResampler, VoiceLevel
from fd2talk_core.live.motion import IdleMotion, MotionNetworks, Rows, SpeechMotion
from fd2talk_core.live.timeline import EASE_HEAD, Timeline
from fd2talk_core.motion.coefficients import mouth_mask
from fd2talk_core.motion.sampling import sample_motion
from fd2talk_core.networks.checkpoint import find_checkpoint
from fd2talk_core.timing import frame_count
from tests.core.test_pipeline import PORTRAIT, ROOT, small_pipeline

JAW = ARKIT_NAMES.index("jawOpen")
BLINK = ARKIT_NAMES.index("eyeBlinkLeft")
LOOK_OUT, LOOK_IN = (ARKIT_NAMES.index(f"eyeLook{way}Left") for way in ("Out", "In"))
RATE = 16_000


class FakeClock:
    """Time that passes when somebody waits or works."""

    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time

    def wait(self, news: threading.Condition, until: float) -> None:
        self.time = max(self.time, until)


@dataclass
class Mouth:
    """Motion that opens the mouth as far as the sound is loud; needs 0.2 s of sound after a frame."""

    fps: float = 25.0
    ended: bool = False
    heard: int = 0
    given: int = 0
    total: int = -1

    def push(self, samples: Tensor) -> None:
        self.heard += len(samples)

    def finish(self, duration: Fraction) -> None:
        self.ended, self.total = True, max(1, frame_count(duration, self.fps))

    @property
    def done(self) -> bool:
        return self.given == self.total

    @property
    def ready(self) -> bool:
        return not self.done if self.ended else self.heard >= ((self.given + 4) / self.fps + 0.2) * 16_000

    def advance(self) -> Rows:
        stop = self.total if self.ended else self.given + 4
        rows = Rows(torch.zeros(stop - self.given, len(ARKIT_NAMES)), torch.zeros(stop - self.given, 6))
        rows.expression[:, JAW] = 0.8
        self.given = stop
        return rows


@dataclass
class Painter:
    """A picture says how far the mouth is open, and takes some time."""

    clock: FakeClock
    seconds: float = 0.005
    drawn: int = 0
    by_call: float = 0.0

    def draw(self, rows: Rows) -> Tensor:
        self.clock.time += self.seconds * rows.count + self.by_call
        self.drawn += rows.count
        return (rows.expression[:, JAW, None, None, None] * 100).round().to(torch.uint8).expand(-1, 2, 2, 3)


def engine(
    fps: float = 25.0, sample_rate: int = RATE, seconds: float = 0.005, workers: int = 1
) -> LiveEngine:
    clock, size = FakeClock(), len(ARKIT_NAMES)
    timeline = Timeline(
        fps,
        sample_rate,
        IdleMotion(ARKIT_NAMES, size, fps, 0, OPEN_FACE_MODEL),
        lambda rows, anchor: rows,
        mouth_mask(ARKIT_NAMES, size),
    )
    return LiveEngine(timeline, Painter(clock, seconds), lambda number: Mouth(fps), clock, workers)


def live(
    avatar: LiveEngine, frames: int, before: Callable[[int], object] = lambda number: None
) -> list[LiveFrame]:
    """Frames as they come; before each, something is done, then all work there is time for."""
    taken = []
    for number in range(frames):
        before(number)
        while avatar.hear():
            pass
        while avatar.clock.now() < avatar.timeline.due(number) and avatar.draw():
            pass
        taken.append(avatar.take())
    return taken


def sound(frames: list[LiveFrame]) -> np.ndarray:
    return torch.cat([frame.audio for frame in frames]).numpy()


def speech(seconds: float, rate: int = RATE) -> np.ndarray:
    """16-bit noise, no sample of which is 0."""
    samples = np.random.default_rng(3).integers(1000, 20_000, round(seconds * rate))
    return samples.astype(np.int16)


def pushed_in_packets(avatar: LiveEngine, pcm: np.ndarray, rate: int = RATE) -> Callable[[int], None]:
    """Sound that is pushed as fast as it plays, 40 ms before each frame."""
    packets = np.array_split(pcm, max(1, round(len(pcm) / rate * 25)))

    def push(number: int) -> None:
        if number < len(packets):
            avatar.push_audio(packets[number], rate)
        elif number == len(packets):
            avatar.end_of_speech()

    return push


def test_all_sound_is_heard_in_order_and_as_it_was() -> None:
    pcm = speech(2.013)
    avatar = engine()
    frames = live(avatar, 90, pushed_in_packets(avatar, pcm))
    heard = sound(frames)
    begins = int(np.flatnonzero(heard)[0])
    assert np.array_equal(heard[begins : begins + len(pcm)] * 32768, pcm)
    assert not heard[begins + len(pcm) :].any() and begins < 0.6 * RATE
    assert avatar.counts.underruns == 0
    assert [frame.frame is None for frame in frames] == [True] + [False] * 89, "the first is due at once"
    speaking = [frame for frame in frames if frame.speech]
    assert [frame.last for frame in speaking] == [False] * (len(speaking) - 1) + [True]
    assert [frame.timestamp for frame in frames] == pytest.approx([number / 25 for number in range(90)])


@pytest.mark.parametrize("fps, rate", [(29.97, 22_050), (12.5, 44_100), (120.0, 8000)])
def test_sound_is_whole_at_odd_rates(fps: float, rate: int) -> None:
    pcm = speech(0.7, rate)
    avatar = engine(fps, rate)

    def push(number: int) -> None:
        if number == 0:
            avatar.push_audio(pcm, rate)
            avatar.end_of_speech()

    frames = live(avatar, round(1.5 * fps), push)
    heard = sound(frames)
    begins = int(np.flatnonzero(heard)[0])
    assert np.array_equal(heard[begins : begins + len(pcm)] * 32768, pcm)
    assert abs(len(heard) / rate - len(frames) / fps) <= 1 / rate, "sound and picture do not drift"


def test_two_utterances_follow_each_other() -> None:
    first, second = speech(0.5), speech(0.3)[::-1].copy()
    avatar = engine()
    for pcm in (first, second):
        avatar.push_audio(pcm, RATE)
        avatar.end_of_speech()
    frames = live(avatar, 60)
    heard = sound(frames)
    assert np.array_equal(heard[heard != 0] * 32768, np.concatenate([first, second]))
    assert sum(frame.last for frame in frames) == 2


def test_speech_that_nobody_ends_is_said_to_the_end() -> None:
    pcm = speech(0.5)
    avatar = engine()
    avatar.push_audio(pcm, RATE)
    heard = sound(live(avatar, round(25 * (PATIENCE + 1))))
    assert np.array_equal(heard[heard != 0] * 32768, pcm)


def test_speech_that_comes_late_leaves_a_pause_and_loses_nothing() -> None:
    pcm = speech(1.0)
    avatar = engine()

    def push(number: int) -> None:
        if number in (0, 30):
            avatar.push_audio(pcm[: RATE // 2] if number == 0 else pcm[RATE // 2 :], RATE)
        if number == 31:
            avatar.end_of_speech()

    heard = sound(live(avatar, 80, push))
    assert np.array_equal(heard[heard != 0] * 32768, pcm)
    assert avatar.counts.underruns > 5


def test_clear_is_silent_within_two_frames_and_shuts_the_mouth() -> None:
    pcm = speech(4.0)
    avatar = engine()

    def push(number: int) -> None:
        if number == 0:
            avatar.push_audio(pcm, RATE)
        if number == 40:
            avatar.clear()

    frames = live(avatar, 80, push)
    assert frames[39].audio.all() and frames[39].frame is not None and frames[39].frame.max() > 70
    faded = frames[40].audio.abs()
    assert not faded[RATE // 200 :].any() and not sound(frames[41:]).any()
    pictures = [frame.frame for frame in frames[41:]]
    assert all(picture is not None for picture in pictures[2:])
    assert max(int(picture.max()) for picture in pictures[6:] if picture is not None) == 0
    assert avatar.timeline.waiting == 0

    again = speech(0.4)
    avatar.push_audio(again, RATE)
    avatar.end_of_speech()
    later: list[LiveFrame] = []
    for _ in range(40):
        while avatar.hear() or avatar.draw():
            pass
        later.append(avatar.take())
    heard = sound(later)
    assert np.array_equal(heard[heard != 0] * 32768, again), "what is said next is not touched"


def test_a_slow_machine_drops_pictures_evenly_and_no_sound() -> None:
    pcm = speech(3.0)
    avatar = engine(seconds=0.07)
    frames = live(avatar, 120, pushed_in_packets(avatar, pcm))
    heard = sound(frames)
    assert np.array_equal(heard[heard != 0] * 32768, pcm)
    shown = [number for number, frame in enumerate(frames) if frame.frame is not None and number > 20]
    # who draws here reads as well, and so is late with both
    assert 0.2 < len(shown) / 99 < 0.6, "14 of 25 pictures can be made at most"
    assert max(np.diff(shown)) <= 6
    assert avatar.counts.dropped == sum(frame.frame is None for frame in frames)


def test_where_a_call_costs_as_much_as_a_frame_several_are_drawn_together() -> None:
    """One at a time, 16 of 25 pictures could be made; four at a time, all. Who draws here reads as well."""
    shown = {}
    for tried in (False, True):
        avatar = engine(seconds=0.018)
        assert isinstance(avatar.drawer, Painter)
        avatar.drawer.by_call = 0.045
        if tried:
            avatar.pace.saw(1, 0.063)
            avatar.pace.saw(4, 0.117)
        frames = live(avatar, 100, pushed_in_packets(avatar, speech(3.0)))
        shown[tried] = sum(frame.frame is not None for frame in frames[20:])
    assert shown[True] > 1.5 * shown[False] > 15


@pytest.mark.parametrize("workers", [2, 3])
def test_what_one_who_draws_leaves_to_others_is_drawn(workers: int) -> None:
    avatar = engine(workers=workers)
    frames = live(avatar, 90, pushed_in_packets(avatar, speech(2.0)))
    assert [frame.frame is None for frame in frames] == [True] + [False] * 89


def test_a_machine_that_was_slow_once_is_tried_again() -> None:
    avatar = engine(fps=10.0, seconds=8.0)
    painter = avatar.drawer
    assert isinstance(painter, Painter)

    def hurry(number: int) -> None:
        if number == 3:
            painter.seconds = 0.005

    frames = live(avatar, 150, hurry)
    assert painter.drawn > 20
    assert all(frame.frame is not None for frame in frames[-20:])


def test_pictures_come_again_after_speech_was_late() -> None:
    """Drawing takes longer than a frame lasts, and every second sound comes a quarter of a second late."""
    pcm = speech(8.0)
    avatar = engine(seconds=0.06)
    packets = list(np.array_split(pcm, 200))

    def push(number: int) -> None:
        if number % 25 in range(10, 16):
            return
        while packets and len(packets) > 199 - number:
            avatar.push_audio(packets.pop(0), RATE)
        if not packets and number == 210:
            avatar.end_of_speech()

    frames = live(avatar, 280, push)
    heard = sound(frames)
    spoken = heard[heard != 0] * 32768
    assert np.array_equal(spoken, pcm) and avatar.counts.underruns > 0
    shown = [frame.frame is not None for frame in frames]
    for second in range(1, 10):
        assert sum(shown[25 * second : 25 * (second + 1)]) >= 8, second


def test_who_reads_slowly_gets_no_pictures_but_all_sound() -> None:
    pcm = speech(1.0)
    avatar = engine()
    avatar.push_audio(pcm, RATE)
    avatar.end_of_speech()
    assert isinstance(avatar.clock, FakeClock)

    def stall(number: int) -> None:
        if number == 10:
            avatar.clock.time += 0.5

    frames = live(avatar, 60, stall)
    heard = sound(frames)
    assert np.array_equal(heard[heard != 0] * 32768, pcm)
    assert all(frame.frame is None for frame in frames[11:20])
    assert all(frame.frame is not None for frame in frames[30:])


def test_the_clock_waits_for_who_does_not_read_at_all() -> None:
    avatar = engine()
    assert isinstance(avatar.clock, FakeClock)
    live(avatar, 5)
    avatar.clock.time += 3600
    avatar.draw()
    assert len(avatar.timeline.queued) < 60
    before = avatar.clock.time
    avatar.take()
    avatar.take()
    assert avatar.clock.time - before == pytest.approx(0.04), "no hour of frames to be caught up with"


def test_who_waits_blinks_and_sways_for_ever() -> None:
    idle = IdleMotion(ARKIT_NAMES, len(ARKIT_NAMES), 25.0, 5, OPEN_FACE_MODEL)
    rows = Rows.join([idle.rows(number) for number in range(25 * 61)])
    shut = rows.expression[:, BLINK]
    assert 5 < int(((shut[1:] > 0.9) & (shut[:-1] <= 0.9)).sum()) < 40
    assert rows.expression.sum() > 0 and rows.expression[:, JAW].max() == 0
    gaze = rows.expression[:, LOOK_OUT] - rows.expression[:, LOOK_IN]
    quick = gaze.diff().abs() > 0.05
    assert 10 < int((quick[1:] & ~quick[:-1]).sum()) < 90, "eyes shift now and then within a minute"
    assert gaze.abs().max() < 0.9
    assert rows.pose.std(dim=0).min() > 0.005
    assert rows.pose.diff(dim=0).abs().max() < 0.02, "no jump where one stretch ends"
    late = idle.rows(25 * 3600 * 24)
    assert torch.isfinite(late.pose).all()


def test_motion_passes_from_one_to_the_other_without_a_jump() -> None:
    pcm = speech(1.0)
    avatar = engine()
    frames = live(avatar, 70, pushed_in_packets(avatar, pcm))
    open_by = [int(frame.frame.max()) for frame in frames if frame.frame is not None]
    assert max(open_by) == 80 and open_by[0] == open_by[-1] == 0
    assert max(abs(np.diff(open_by))) < 45, "a mouth opens in more than one frame"
    assert EASE_HEAD > 0.2


def test_memory_does_not_grow() -> None:
    avatar = engine(fps=5.0)
    pcm = speech(0.2)
    for number in range(300):  # a minute
        avatar.push_audio(pcm, RATE)
        if number % 25 == 24:
            avatar.end_of_speech()
        while avatar.hear() or avatar.draw():
            pass
        avatar.take()
    assert len(avatar.timeline.queued) <= 32
    assert avatar.timeline.waiting < 5 and len(avatar._speakers) < 3


class WholeLevel(VoiceLevel):
    """That of a recording which is known from the beginning."""

    def __init__(self, samples: Tensor) -> None:
        super().__init__()
        self._whole = level_of(samples)

    @property
    def value(self) -> tuple[float, float]:
        return self._whole


@pytest.fixture(scope="module")
def networks() -> MotionNetworks:
    set_of = {name: find_checkpoint(name, "tiny", []) for name in ("audio_encoder", "expression", "pose")}
    moving = [configs.load_network(name, set_of[name], OPEN_FACE_MODEL) for name in ("expression", "pose")]
    return MotionNetworks(AudioEncoder.from_pretrained(set_of["audio_encoder"]), *moving)


@pytest.mark.parametrize("seconds, least", [(0.36, 1.0), (1.5, 0.9)])
def test_motion_made_while_it_is_heard_is_that_of_the_whole(
    networks: MotionNetworks, seconds: float, least: float
) -> None:
    """All of it where the look-ahead reaches its end; else nearly so."""
    waveform, rate = read_audio(ROOT / "example_inputs" / "speech.wav")
    waveform = waveform[:, rate : rate + round(seconds * rate)]
    features = replace(networks.audio_encoder.encode(waveform, rate, 25.0), spoken=None)
    heard = to_mono_16k(waveform, rate)
    motion, made = SpeechMotion(networks, WholeLevel(heard), 3, 25.0, 0.2), []
    if least < 1:
        for packet in heard.split(800):
            motion.push(packet)
            while motion.ready:
                made.append(motion.advance())
    else:
        motion.push(heard)
    before_the_end = len(made)
    motion.finish(Fraction(waveform.shape[1], rate))
    while motion.ready:
        made.append(motion.advance())
    rows = Rows.join([part for part in made if part is not None])
    assert motion.done and before_the_end == (0 if least == 1 else 8)
    for kind, network, mine in (
        ("expression", networks.expression, rows.expression),
        ("pose", networks.pose, rows.pose),
    ):
        whole = sample_motion(network, features, seed=3, kind=kind).values
        assert mine.shape == whole.shape
        assert mine.diff(dim=0).abs().max() < 2 * whole.diff(dim=0).abs().max(), "no jump between windows"
        if least == 1:
            assert torch.allclose(mine, whole, atol=1e-4)
        elif kind == "expression":
            jaws = torch.stack([mine[:, JAW], whole[:, JAW]])
            assert torch.corrcoef(jaws)[0, 1] > least


def test_speech_in_a_style_is_that_of_the_whole(networks: MotionNetworks) -> None:
    waveform, rate = read_audio(ROOT / "example_inputs" / "speech.wav")
    waveform = waveform[:, rate : rate + round(0.36 * rate)]
    heard = to_mono_16k(waveform, rate)
    motion = SpeechMotion(networks, WholeLevel(heard), 3, 25.0, 0.2, 1.0, "happy", 0.7)
    motion.push(heard)
    motion.finish(Fraction(waveform.shape[1], rate))
    rows = motion.advance()
    features = networks.audio_encoder.encode(waveform, rate, 25.0)
    mood = {"style": "happy", "style_strength": 0.7}
    whole = sample_motion(networks.expression, features, seed=3, kind="expression", **mood).values
    assert rows is not None and torch.allclose(rows.expression, whole, atol=1e-4)
    smile = whole[:, ARKIT_NAMES.index("mouthSmileLeft")].mean()
    plain = sample_motion(networks.expression, features, seed=3, kind="expression").values
    assert smile > 0.1 + plain[:, ARKIT_NAMES.index("mouthSmileLeft")].mean()


def test_a_small_avatar_lives() -> None:
    """Threads, networks and the machine's clock: slowly, yet all sound comes out, and nobody is stuck."""
    pcm = speech(0.8)
    with LiveAvatar(PORTRAIT, small_pipeline(), fps=4.0, sample_rate=RATE, paste_back=False) as avatar:
        first = next(avatar)
        assert first.frame is not None and torch.equal(first.frame, avatar.still)
        avatar.push_audio(pcm, RATE)
        avatar.end_of_speech()
        frames = [first]
        while not frames[-1].last:
            frames.append(next(avatar))
            assert len(frames) < 400
    heard = sound(frames)
    assert np.array_equal(heard[heard != 0] * 32768, pcm)
    assert first.frame.shape == (256, 256, 3) and next(avatar, None) is None
    with pytest.raises(FD2TalkError, match="closed"):
        iter(avatar)
    with pytest.raises(FD2TalkError, match="look-ahead"):
        LiveAvatar(PORTRAIT, small_pipeline(), look_ahead=3.0)
    with pytest.raises(FD2TalkError, match="has not learned the style 'happy'"):
        LiveAvatar(PORTRAIT, small_pipeline(), style="happy")


def test_who_pushes_too_much_has_to_wait() -> None:
    avatar = engine()
    waits = []
    wait = avatar.clock.wait

    def remember(news: threading.Condition, until: float) -> None:
        waits.append(until)
        wait(news, until)
        if len(waits) == 3:
            avatar.clear()

    avatar.clock.wait = remember  # type: ignore[method-assign]
    avatar.push_audio(np.ones(round((BUFFER_SECONDS + 1) * RATE), np.int16), RATE)
    assert waits == []
    avatar.push_audio(np.ones(100, np.int16), RATE)
    assert len(waits) == 3


@pytest.mark.parametrize(
    "pcm, rate, words",
    [
        (b"abc", RATE, "3 bytes"),
        (np.zeros(0, np.int16), RATE, "empty"),
        (torch.full((10,), float("nan")), RATE, "not a finite number"),
        (torch.zeros(2, 3, 4), RATE, "shape"),
        (np.zeros(10, np.complex64), RATE, "real numbers"),
        (np.array(["a"]), RATE, "sound"),
        ("hello", RATE, "sound"),
        (np.zeros(10, np.int16), 10, "sample rate"),
    ],
)
def test_what_is_no_sound_is_refused(pcm: object, rate: int, words: str) -> None:
    avatar = engine()
    with pytest.raises(FD2TalkError) as error:
        avatar.push_audio(pcm, rate)  # type: ignore[arg-type]
    assert words in str(error.value)
    live(avatar, 3)


def test_another_rate_within_an_utterance_is_refused() -> None:
    avatar = engine()
    avatar.push_audio(speech(0.1), RATE)
    with pytest.raises(FD2TalkError, match="end the speech first"):
        avatar.push_audio(speech(0.1), 8000)
    avatar.end_of_speech()
    avatar.push_audio(speech(0.1), 8000)


@pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 24_000, 44_100, 48_000])
def test_resampling_in_pieces_is_resampling_the_whole(rate: int) -> None:
    samples = torch.randn(rate // 3, generator=torch.Generator().manual_seed(1))
    resampler = StreamResampler(rate, 16_000)
    for _ in range(2):  # one recording after another
        pieces = [*(resampler.push(piece) for piece in samples.split(777)), resampler.finish()]
        assert torch.allclose(torch.cat(pieces), to_mono_16k(samples[None], rate), atol=2e-6)


def test_a_voice_is_known_by_its_level_soon() -> None:
    level = VoiceLevel()
    syllables = torch.randn(16_000, generator=torch.Generator().manual_seed(2))
    syllables *= 1.4 * torch.linspace(0, 20, 16_000).sin()
    for loud in (0.01, 0.2):
        for _ in range(300):
            level.add(syllables * loud)
        assert level.value[1] ** 0.5 == pytest.approx(loud, rel=0.1)
    level = VoiceLevel()
    level.add(torch.zeros(100))
    assert 0.01 < level.value[1] ** 0.5 < 0.1, "a moment of silence says nothing of a voice"


class Spoken:
    """An avatar that says ten packets, each in one frame and 0.3 s after it came; two frames are dropped."""

    fps, sample_rate = 20.0, RATE

    def __init__(self) -> None:
        self.clock, self.counts = FakeClock(), LiveCounts(underruns=1)
        self.packets: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()

    def __enter__(self) -> Spoken:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def push_audio(self, pcm: np.ndarray, rate: int) -> None:
        assert rate == RATE and pcm.dtype == np.int16
        self.packets.put(pcm)

    def end_of_speech(self) -> None:
        pass

    def __iter__(self) -> Iterator[LiveFrame]:
        while True:
            packet = self.packets.get(timeout=30)
            self.counts.frames += 1
            dropped = self.counts.frames % 5 == 0
            self.counts.dropped += dropped
            picture = None if dropped else torch.zeros(2, 2, 3, dtype=torch.uint8)
            heard = torch.from_numpy(packet / np.float32(32768))
            yield LiveFrame(picture, heard, 0.0, True, self.counts.frames == 10, self.clock.time - 0.3)


def test_the_benchmark_tells_what_it_saw() -> None:
    report = live_report(Spoken(), (torch.rand(1, 3 * RATE), RATE), 0.5)  # type: ignore[arg-type]
    assert (report.frames, report.dropped, report.underruns) == (10, 2, 1)
    assert report.latency == pytest.approx((0.3, 0.3)) and report.drift == pytest.approx(0)
    assert report.unsaid == 0
    assert "dropped frames: 2 of 10" in str(report) and "95th percentile 0.30 s" in str(report)


def test_the_command_names_what_it_cannot_use(capsys: pytest.CaptureFixture[str]) -> None:
    for line, words in (
        (["nobody.png", "--benchmark"], "nobody.png"),
        (["--benchmark", "--compare"], "one measure at a time"),
        (["--benchmark", "--camera"], "leave it out"),
        (["--port", "70000"], "65535"),
        (["--benchmark", "--minutes", "0"], "minutes"),
        (["--compare", "--speech", "nowhere.wav"], "nowhere.wav"),
    ):
        assert main(line) == 2
        assert words in capsys.readouterr().err

"""Values of another type or size than expected, and files of odd names, are told in one sentence."""

from __future__ import annotations

import errno
import inspect
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from fd2talk_core import FD2TalkPipeline, configs
from fd2talk_core.__main__ import main
from fd2talk_core.audio.encoder import AudioEncoder
from fd2talk_core.audio.reading import read_audio
from fd2talk_core.audio.resampling import to_mono_16k
from fd2talk_core.checks import check_choice, check_number, check_type, check_whole, checked, shown
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.landmarks import FaceLandmarker, check_picture
from fd2talk_core.face.model import default_face_model
from fd2talk_core.face.names import ARKIT_NAMES
from fd2talk_core.files import replacing, writing
from fd2talk_core.formats.sequences import load_motion, save_motion
from fd2talk_core.formats.video import VideoWriter
from fd2talk_core.formats.video_frames import VideoFrames
from fd2talk_core.frames.decoding import decode_frames
from fd2talk_core.frames.reference import encode_reference
from fd2talk_core.imaging import read_image
from fd2talk_core.motion import editing
from fd2talk_core.motion.coefficients import CoefficientSequence
from fd2talk_core.motion.tracking import track_from_landmarks
from fd2talk_core.networks.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint
from fd2talk_core.networks.motion_transformer import MotionTransformer
from fd2talk_core.terminal import TRACEBACK, run_command
from fd2talk_core.timing import check_fps, frame_count

from .test_hostile_sizes import changed, wav

POSE = CoefficientSequence("pose", torch.zeros(5, 6), 25, "anny-arkit52")
EXPRESSION = CoefficientSequence("expression", torch.zeros(5, 52), 25, "anny-arkit52", ARKIT_NAMES)
ODD = [
    *("x", "25", b"x", float("nan"), float("inf"), -1e300, 10**40, True, None, [], {}, [1, 2], object()),
    *(1j, torch.zeros(0), torch.tensor(1.5), np.array("x"), "\ud800", "a\0b", "x" * 10_000, POSE),
]


def sentence(function: Callable, *arguments: Any, **named: Any) -> str:
    with pytest.raises(FD2TalkError) as caught:
        function(*arguments, **named)
    told = str(caught.value)
    assert told.endswith((".", ".)", "?")) and "\n" not in told and len(told) < 1200, told
    told.encode()  # what cannot be printed would be a traceback of its own
    return told


# What a value may be


def test_a_number_is_no_word_and_no_truth() -> None:
    assert check_number(np.float32(0.5), "x", 0, 1) == 0.5 and check_whole(4.0, "x", 1, 9) == 4
    assert sentence(check_number, "25", "x", 0, 100) == "x is '25', but a number from 0 to 100 is needed."
    for value in ("25", True, None, [1], float("nan"), 1j, torch.tensor(1.0)):
        sentence(check_number, value, "x")
    for value in (1.5, "1", False, None, float("inf"), float("nan")):
        sentence(check_whole, value, "x")
    assert "'a' or 'b'" in sentence(check_choice, ["a"], "x", ("a", "b"))
    assert len(sentence(check_number, "y" * 10**6, "x")) < 200
    assert "\\ud800" in sentence(check_number, "\ud800", "x")


def test_annotations_are_kept() -> None:
    @checked
    def call(
        a: int, b: float | None = None, c: tuple[float, ...] = (), d: dict[str, int] | None = None
    ) -> int:
        return a

    assert call(1, 2, (3.0, 4), {"x": 5}) == call(1.0) == 1
    assert sentence(call, "1") == "a is '1', but a whole number is needed."
    assert sentence(call, 1, "2") == "b is '2', but a number is needed."
    assert "a list of which each is a number" in sentence(call, 1, 2, ("3",))
    assert "a whole number by name" in sentence(call, 1, d={"x": "y"})
    with pytest.raises(TypeError):  # a mistake of the caller's, not of a user
        call()


def test_a_value_that_fails_at_everything_is_shown() -> None:
    class Hostile:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    assert "Hostile" in shown(Hostile())
    assert "Hostile" in sentence(check_type, Hostile(), "x", float)


EDITS = [
    name
    for name, function in vars(editing).items()
    if inspect.isfunction(function) and function.__module__ == editing.__name__ and name[0] != "_"
]


@pytest.mark.parametrize("name", EDITS)
def test_every_edit_takes_or_refuses_any_value(name: str) -> None:
    function = getattr(editing, name)
    defaults = {"factors": 1.0, "amounts": {}, "weights": 0.5, "num_frames": 5, "fps": 25, "seed": 0}
    defaults |= {"per_minute": 10.0, "duration": 2.0, "seconds": 0.1, "yaw": 0.1, "pitch": 0.1, "text": "1 2"}
    defaults |= {
        "times": None,
        "first": POSE,
        "second": POSE,
        "expression": EXPRESSION,
        "sequence": POSE,
        "pose": POSE,
    }
    parameters = inspect.signature(function).parameters
    for parameter in parameters:
        for value in ODD:
            given = {
                other: value if other == parameter else defaults[other]
                for other, declared in parameters.items()
                if other == parameter or declared.default is inspect.Parameter.empty
            }
            try:
                function(**given)
            except FD2TalkError as error:
                str(error).encode()


@pytest.mark.parametrize("fps", ["25", [25], None, float("nan"), True, 0, -1, 121, "x", 1j])
def test_a_frame_rate_is_a_number(fps: object) -> None:
    assert "fps is" in sentence(check_fps, fps)
    assert "fps is" in sentence(CoefficientSequence, "pose", torch.zeros(2, 6), fps, "x")


def test_a_duration_is_a_number() -> None:
    for seconds in (float("nan"), float("inf"), "1", -1, None):
        assert "duration in seconds is" in sentence(frame_count, seconds, 25)


# The pipeline


@pytest.fixture(scope="module")
def pipeline() -> FD2TalkPipeline:
    return FD2TalkPipeline.from_pretrained("tiny")


VALUES = {
    "fps": ["25", [25], float("nan"), True, 0],
    "seed": ["1", 1.5, None, True],
    "motion_steps": ["4", 2.5, 0, -1, 10**9, []],
    "guidance": ["1", None, float("nan"), 1e30],
    "expression_intensity": ["1", None, float("inf")],
    "pose_intensity": ["1", None, 1e30],
    "no_face": [3, "skip", None],
    "margin": ["1", float("nan"), None],
    "size": ["128", 128.5, 2**40, -1, 100, 33],
    "face_index": ["0", 1.5, None, -1],
    "motion_mode": [3, ["x"], None, "x"],
    "frame_steps": ["4", 1.5, []],
    "eta": ["0", float("nan"), None, 2],
    "detail": ["1", float("nan"), None, 2],
    "paste_back": ["no", None, 3],
    "progress": [3, "x"],
    "driving": [3, "nowhere.mp4", "a\0b"],
    "motion": [5, (POSE,), (None, None), (POSE, POSE)],
    "missing_faces": [3],
    "style": [3, None, "bored", ["happy"]],
    "style_strength": ["1", None, float("nan"), 1.5, -0.1],
}


@pytest.mark.parametrize("name", VALUES)
def test_the_pipeline_names_the_argument(pipeline: FD2TalkPipeline, name: str) -> None:
    voice = (torch.zeros(1, 1600), 16_000)
    for value in VALUES[name]:
        given = {"motion_steps": 1, "no_face": "whole_image", name: value}
        sentence(pipeline, torch.full((128, 128, 3), 0.5), voice, **given)


@pytest.mark.parametrize(
    "image", [5, [1], None, np.zeros((99, 99, 3)), Image.new("RGB", (99, 99)), b"x", "", "\0"]
)
def test_an_image_is_a_tensor_or_a_file(pipeline: FD2TalkPipeline, image: object) -> None:
    sentence(pipeline, image, (torch.zeros(1, 1600), 16_000))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.bool, torch.complex64])
def test_pixels_are_floats_or_bytes(dtype: torch.dtype) -> None:
    sentence(check_picture, torch.zeros(99, 99, 3, dtype=dtype))


VOICES = [
    *(5, [torch.zeros(1, 100), 16_000], (torch.zeros(1, 100),), torch.zeros(1, 100)),
    *((torch.zeros(1, 100), "16000"), (np.zeros((1, 100)), 16_000), (torch.zeros(1, 100), 10**9 + 7)),
    *((torch.zeros(1, 100, dtype=torch.complex64), 16_000), (torch.zeros(1, 0), 16_000), "nowhere.wav"),
]


@pytest.mark.parametrize("voice", VOICES)
def test_a_voice_is_a_waveform_or_a_file(pipeline: FD2TalkPipeline, voice: object) -> None:
    sentence(pipeline, torch.full((128, 128, 3), 0.5), voice, no_face="whole_image")


@pytest.mark.parametrize("device", ["tpu9", "cuda:99", "meta", "", 3, None, ["cpu"], "c" * 500])
def test_an_unknown_device_is_named(pipeline: FD2TalkPipeline, device: object) -> None:
    assert "evice" in sentence(pipeline.to, device)


def test_a_rate_of_nearly_nothing_is_no_clip(tmp_path: Path) -> None:
    (tmp_path / "years.json").write_text(json.dumps({"fps": 1e-9, "pose": [[0] * 6] * 2}))
    pose = load_motion(tmp_path / "years.json").require("pose")
    assert "frames" in sentence(pose.resample, 25, frame_count(pose.duration, 25))


# Names of files


NAMES = [5, ["a"], None, b"abc", "x" * 300 + "{}", "a\0b{}", "a\ud800{}", "y" * 100_000 + "{}", "\n\x1b{}"]
READERS = {
    "picture": (read_image, ".png"),
    "sound": (read_audio, ".wav"),
    "video": (VideoFrames, ".mp4"),
    "motion": (load_motion, ".json"),
    "checkpoint": (lambda name: load_checkpoint(name, MotionTransformer), ".safetensors"),
    "encoder": (AudioEncoder.from_pretrained, ""),
    "set": (lambda name: find_checkpoint("pose", name), ""),
    "face model": (type(default_face_model()).load, ".safetensors"),
    "written motion": (lambda name: save_motion(name, pose=POSE), ".json"),
    "written video": (lambda name: VideoWriter(name, 25), ".mp4"),
    "pipeline": (FD2TalkPipeline.from_pretrained, ""),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("number", range(len(NAMES)))
def test_odd_names_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str, number: int
) -> None:
    monkeypatch.chdir(tmp_path)
    function, ending = READERS[reader]
    name = NAMES[number]
    name = name.format(ending) if isinstance(name, str) else name
    if reader.startswith("written") and name == f"\n\x1b{ending}":
        return  # odd, but a file system takes it
    if reader == "face model" and name is None:
        return  # stands for the one that ships
    sentence(function, name)


# Pictures, sound and numbers that were wrong without a word


@pytest.mark.parametrize(
    ("mode", "value"),
    [(np.uint16, 32_768), (np.int32, 32_768), (np.float32, 0.5)],
)
def test_grey_of_more_than_8_bits_keeps_its_brightness(tmp_path: Path, mode: type, value: float) -> None:
    path = tmp_path / ("grey.png" if mode is np.uint16 else "grey.tif")
    Image.fromarray(np.full((80, 70), value, mode)).save(path)
    assert torch.allclose(read_image(path), torch.tensor(0.5), atol=1e-4) and read_image(path).shape == (
        80,
        70,
        3,
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -3.0, 255.0])
def test_a_floating_point_picture_lies_in_0_to_1(tmp_path: Path, value: float) -> None:
    Image.fromarray(np.full((80, 80), value, np.float32)).save(tmp_path / "grey.tif")
    sentence(read_image, tmp_path / "grey.tif")


def test_pcm_integers_are_heard_as_loud_as_they_are(tmp_path: Path) -> None:
    wave = 0.25 * torch.sin(torch.arange(16_000) * 0.05)[None]
    for name, sound in (("a", wave), ("b", (wave * 32_768).to(torch.int16))):
        with VideoWriter(tmp_path / f"{name}.mp4", 25, (sound, 16_000)) as writer:
            writer.write(torch.zeros(25, 64, 64, 3))
    one, other = (read_audio(tmp_path / f"{name}.mp4")[0] for name in "ab")
    assert (one - other).abs().max() < 0.03 and one.abs().max() < 0.3


def test_sound_that_is_no_number_is_not_written(tmp_path: Path) -> None:
    sound = torch.full((1, 16_000), float("nan"))
    with (
        pytest.raises(FD2TalkError, match="not a finite number"),
        VideoWriter(tmp_path / "a.mp4", 25, (sound, 16_000)) as writer,
    ):
        writer.write(torch.zeros(25, 64, 64, 3))
    assert not list(tmp_path.iterdir())


def raw_aac(path: Path, seconds: float) -> Path:
    with av.open(str(path), "w", format="adts") as file:
        stream = file.add_stream("aac", rate=44_100, layout="mono")
        samples = 0.3 * np.sin(np.arange(round(44_100 * seconds)) * 0.05)
        frame = av.AudioFrame.from_ndarray(samples.astype(np.float32)[None], format="fltp", layout="mono")
        frame.sample_rate = 44_100
        frame.pts = 0
        resampler = av.AudioResampler(stream.format, "mono", 44_100, stream.frame_size)
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("seconds", [0.5, 1.0, 3.3])
def test_raw_aac_is_as_long_as_it_was(tmp_path: Path, seconds: float) -> None:
    """A raw stream states no length; what an encoder puts before and behind is less than a frame of video."""
    waveform, rate = read_audio(raw_aac(tmp_path / "voice.aac", seconds))
    assert -0.001 <= waveform.shape[1] / rate - seconds < 0.03
    # in time, too: the encoder's delay is not heard
    wave = 0.3 * torch.sin(torch.arange(8000) * 0.05)
    lags = [float(torch.dot(waveform[0, lag : lag + 8000], wave)) for lag in range(0, 60)]
    assert max(range(60), key=lambda lag: lags[lag]) < 2


@pytest.mark.parametrize("value", [1e20, -1e20, 1e5])
def test_numbers_that_no_face_has_are_no_motion(tmp_path: Path, value: float) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"fps": 25, "pose": [[0] * 6, [value] * 6]}))
    assert "at frame 1" in sentence(load_motion, tmp_path / "a.json")


def test_latents_that_are_no_numbers_are_no_frames(pipeline: FD2TalkPipeline) -> None:
    picture = torch.full((128, 128, 3), 0.5)
    reference = encode_reference(
        picture, pipeline.autoencoder, pipeline.landmarker, pipeline.face_model, no_face="whole_image"
    )
    for bad in (float("nan"), float("inf"), 1e30):
        latents = torch.zeros(3, *reference.latent.shape)
        latents[1, 0, 0, 0] = bad
        assert "frame 1" in sentence(decode_frames, pipeline.autoencoder, latents, reference)
    for other in (None, [1], torch.zeros(1, *reference.latent.shape, dtype=torch.complex64)):
        sentence(decode_frames, pipeline.autoencoder, other, reference)


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64, torch.float8_e4m3fn])
def test_weights_are_floating_point(tmp_path: Path, dtype: torch.dtype) -> None:
    path = changed(
        tmp_path,
        "expression",
        lambda _, tensors: tensors.update({k: v.to(dtype) for k, v in tensors.items()}),
    )
    if dtype == torch.float8_e4m3fn:
        assert load_checkpoint(path, MotionTransformer).config.kind == "expression"
    else:
        assert "expression.safetensors holds" in sentence(load_checkpoint, path, MotionTransformer)


def test_a_pose_checkpoint_is_no_expression(tmp_path: Path) -> None:
    for network in ("expression", "pose", "autoencoder", "unet", "audio_encoder"):
        source = "pose" if network == "expression" else network
        path = find_checkpoint(source, "tiny")
        (tmp_path / f"{network}.safetensors").write_bytes(path.read_bytes())
    assert "expression.safetensors predicts the pose" in sentence(
        FD2TalkPipeline.from_pretrained, str(tmp_path)
    )


# The host's face landmarks


def host_face(**changes: Any) -> dict:
    points = torch.rand(478, 2, generator=torch.Generator().manual_seed(0)) * 100
    return {"landmarks_xy": points.numpy(), "bbox_xyxy": [0, 0, 100, 100], "blendshapes": {}, **changes}


BAD_LANDMARKS = [
    *(None, 5, "x", [], {}, {"frames": None}, {"frames": "x"}, {"frames": [5]}, {"frames": ["x"]}),
    *({"frames": [[5]]}, {"frames": [[{}]]}, {"frames": [[None]]}, {"frames": [{"landmarks_xy": 1}]}),
    {"frames": [[host_face(landmarks_xy="x")]]},
    {"frames": [[host_face(landmarks_xy=np.zeros((478, 2)))]]},
    {"frames": [[host_face(landmarks_xy=np.full((478, 2), np.nan))]]},
    {"frames": [[host_face(landmarks_xy=np.full((478, 2), 1e30))]]},
    {"frames": [[host_face(landmarks_xy=[[1, 2], [3]])]]},
    {"frames": [[host_face(landmarks_xy=np.zeros((477, 2)))]]},
    {"frames": [[host_face(blendshapes=[1, 2])]]},
    {"frames": [[host_face(blendshapes={"jawOpen": "x"})]]},
    {"frames": [[host_face(blendshapes={"jawOpen": float("nan")})]]},
    {"frames": [[host_face(score=None)]]},
    {"frames": [[host_face(score=float("nan"))]]},
]


@pytest.mark.parametrize("number", range(len(BAD_LANDMARKS)))
def test_malformed_face_landmarks_are_told(number: int) -> None:
    sentence(track_from_landmarks, BAD_LANDMARKS[number])


def test_face_landmarks_of_the_host_are_taken() -> None:
    assert track_from_landmarks({"frames": [[host_face()], []]}).found.tolist() == [True, False]


# What the system says


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (PermissionError(errno.EACCES, "Permission denied"), "not permitted"),
        (OSError(errno.EROFS, "Read-only file system"), "read-only"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "quota"),
        (
            Exception('Error: IoError(Os { code: 28, kind: StorageFull, message: "No space" })'),
            "disk is full",
        ),
    ],
)
def test_what_the_system_says_becomes_a_sentence(tmp_path: Path, error: Exception, words: str) -> None:
    def fail(_: object) -> None:
        raise error

    with (
        pytest.raises(FD2TalkError, match=f"a.json cannot be written .*{words}"),
        replacing(tmp_path / "a.json"),
    ):
        fail(None)
    with pytest.raises(FD2TalkError, match=words), writing("a.json"):
        fail(None)
    assert not list(tmp_path.iterdir())


def test_a_fault_of_ours_is_not_blamed_on_the_disk(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "a.json"):
        1 / 0  # noqa: B018


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk here is always full")
def test_a_checkpoint_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fd2talk_core.networks import checkpoint

    def full(*_: object) -> None:
        with open("/dev/full", "wb", buffering=0) as file:
            file.write(b"x")

    monkeypatch.setattr(checkpoint, "save_file", full)
    network = configs.build("lip_expert", "tiny")
    told = sentence(save_checkpoint, network, tmp_path / "a.safetensors", checkpoint.CheckpointInfo())
    assert "the disk is full" in told and not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_no_permission_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "may be written" in sentence(save_motion, tmp_path / "a.json", pose=POSE)


# The command line


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (FD2TalkError("It is bad."), 2, "It is bad."),
        (KeyboardInterrupt(), 130, "Stopped"),
        (OSError(errno.ENOSPC, "No space", "a.mp4"), 2, "a.mp4: the disk is full."),
        (MemoryError(), 2, "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 2, "not enough memory"),
        (ZeroDivisionError("division\nby zero"), 1, "The program has a fault (ZeroDivisionError"),
    ],
)
def test_a_command_ends_in_a_sentence(
    capsys: pytest.CaptureFixture, error: BaseException, status: int, words: str
) -> None:
    def work() -> None:
        raise error

    assert run_command(work) == status
    told = capsys.readouterr().err
    assert words in told and told.count("\n") == 1 and "Traceback" not in told


def test_who_wants_a_traceback_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TRACEBACK, "1")
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: 1 // 0)


@pytest.mark.parametrize(
    "options",
    [
        ["--fps", "nan"],
        ["--device", "tpu9"],
        ["--size", "100000"],
        ["--weights", "no\x1bwhere"],
        ["--weights", "x" * 5000],
        ["--driving", "nowhere.mp4"],
        ["--margin", "1e9"],
    ],
)
def test_the_command_line_tells_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture, options: list[str]
) -> None:
    Image.new("RGB", (99, 99)).save(tmp_path / "face.png")
    voice = wav(tmp_path / "voice.wav", 16_000)
    line = [str(tmp_path / "face.png"), str(voice), "-o", str(tmp_path / "a.mp4"), "--no-face", "whole_image"]
    assert main([*line, *options]) == 2
    told = capsys.readouterr().err
    assert "Traceback" not in told and told.rstrip().endswith(".") and not (tmp_path / "a.mp4").exists()


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_ctrl_c_while_it_starts_shows_no_traceback(tmp_path: Path) -> None:
    """Before anything is done, while torch is being imported."""
    Image.new("RGB", (99, 99)).save(tmp_path / "face.png")
    line = [sys.executable, "-X", "importtime", "-m", "fd2talk_core", "face.png", "voice.wav"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        line,
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        # tests that run in the background of a shell hand on that interrupts are ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    for text in process.stderr:
        if "numpy" in text:
            break
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGINT) and "Traceback" not in told


def test_a_landmarker_of_nothing_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.task").write_bytes(b"PK")
    for name in (tmp_path / "a.task", tmp_path / "none.task", tmp_path):
        sentence(FaceLandmarker.load, name)


def test_a_waveform_is_checked_wherever_it_comes_in() -> None:
    for waveform in (None, [0.0], np.zeros(9), torch.zeros(9, dtype=torch.bool), torch.zeros(2, 3, 4)):
        sentence(to_mono_16k, waveform, 16_000)
    for rate in ("16000", None, float("nan"), 44_100.5, True):
        assert "sample rate is" in sentence(to_mono_16k, torch.zeros(9), rate)


def test_who_has_read_enough_of_a_command_s_output_sees_no_traceback() -> None:
    told = (
        "from fd2talk_core.terminal import run_command; raise SystemExit(run_command(lambda: 'x' * 1000000))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", told], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(3) == "xxx"
        process.stdout.close()
        assert process.stderr.read() == "" and process.wait(60) == 0

"""Damaged files for every reader: each is read, or refused in one sentence, in bounded time and memory.

    python -m tests.fuzzing --minutes 20 --seed 7            # every reader in turn
    python -m tests.fuzzing --minutes 5 --only mp4 npz

The damage is a function of the seed, the reader and the number of the case; what is found is told with them,
and ``--case`` repeats it.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image

from fd2talk_core import configs
from fd2talk_core.audio.encoder import AudioEncoder
from fd2talk_core.audio.reading import read_audio
from fd2talk_core.audio.resampling import to_mono_16k
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.landmarks import FaceLandmarker
from fd2talk_core.face.model import SHIPPED_FILE, FaceModel, default_face_model
from fd2talk_core.formats.lip_keys import load_lip_keys
from fd2talk_core.formats.sequences import load_motion, save_motion
from fd2talk_core.formats.video import VideoWriter
from fd2talk_core.formats.video_frames import VideoFrames
from fd2talk_core.imaging import read_image
from fd2talk_core.motion.coefficients import CoefficientSequence
from fd2talk_core.motion.editing import parse_times
from fd2talk_core.motion.pose_curve import parse_keyframes
from fd2talk_core.networks.checkpoint import CheckpointInfo, load_checkpoint, save_checkpoint
from fd2talk_core.networks.motion_transformer import MotionTransformer
from training.converters.pickles import array_of, read_notes
from training.sources import load_pictures, load_speech
from training.trainer.settings import load_section, train_settings
from training.trainer.state import RunFacts, RunState

SECONDS = 20
"""That one damaged file may take."""
MEMORY = 6 << 30
"""Bytes of address space that a run may take beside what it begins with; posix alone can bound it."""
EXTREMES = (
    b"\x00\x00\x00\x00",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\x80\x00\x00\x00",
    b"\x00\x00\xc0\x7f",
)
WORDS = (
    b"NaN",
    b"1e999",
    b"-1",
    b"null",
    b"[[",
    b"{}",
    b'"',
    b"99999999999999999999",
    b"\xff\xfe",
    b"\r",
    b",,",
)


class Hang(BaseException):
    """A file took longer than :data:`SECONDS`."""


@dataclass(frozen=True)
class Reader:
    """A kind of file, how a whole one is made, and what reads it.

    Attributes:
        ending: of its name.
        make: writes a whole one.
        read: reads it through to the end.
    """

    ending: str
    make: Callable[[Path], object]
    read: Callable[[Path], object]


# Whole files


def _motion(path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    face_model = default_face_model()
    frames = 70 if path.suffix == ".csv" else 20  # timecodes tell their rate from one second to the next
    values = torch.rand(frames, 52, generator=generator)
    names = face_model.expression_names
    save_motion(
        path,
        CoefficientSequence("expression", values, 25, face_model.name, names),
        CoefficientSequence("pose", torch.rand(frames, 6, generator=generator) / 5, 25, face_model.name),
    )


def _mat(path: Path) -> None:
    import struct
    import zlib

    numbers = np.random.default_rng(0).random((10, 70)).astype("<f8").T.tobytes()
    body = struct.pack("<IIII", 6, 8, 6, 0) + struct.pack("<IIii", 5, 8, 10, 70)
    body += struct.pack("<II", 1, 5) + b"coeff\0\0\0" + struct.pack("<II", 9, len(numbers)) + numbers
    packed = zlib.compress(struct.pack("<II", 14, len(body)) + body)
    path.write_bytes(b"MATLAB 5.0".ljust(124) + b"\x00\x01IM" + struct.pack("<II", 15, len(packed)) + packed)


def _sound(container: str, codec: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with av.open(str(path), "w", format=container) as file:
            rate = 48_000 if codec == "libopus" else 16_000
            stream = file.add_stream(codec, rate=rate, layout="mono")
            wave = (0.3 * np.sin(np.arange(rate // 4) * 0.05)).astype(np.float32)[None]
            frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = rate, 0
            resampler = av.AudioResampler(stream.format, "mono", rate, stream.frame_size or None)
            for part in (*resampler.resample(frame), *resampler.resample(None)):
                file.mux(stream.encode(part))
            file.mux(stream.encode(None))

    return make


def _video(path: Path) -> None:
    sound = (0.1 * torch.sin(torch.arange(4000) * 0.05)[None], 16_000)
    with VideoWriter(path, 25, sound) as writer:
        writer.write(torch.rand(6, 48, 64, 3, generator=torch.Generator().manual_seed(0)))


def _mkv(path: Path) -> None:
    with av.open(str(path), "w", format="matroska") as file:
        stream = file.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for _ in range(4):
            file.mux(stream.encode(av.VideoFrame(64, 48, "yuvj420p")))
        file.mux(stream.encode(None))


def _picture(kind: str) -> Callable[[Path], object]:
    pixels = np.random.default_rng(0).integers(0, 255, (72, 80, 3), dtype=np.uint8)
    return lambda path: Image.fromarray(pixels).save(path, format=kind)


def _checkpoint(path: Path) -> None:
    network = configs.build("expression", "tiny", hidden_size=16, num_heads=2, num_layers=1, condition_dim=16)
    save_checkpoint(network, path, CheckpointInfo("anny-arkit52", 25.0, 0, 8))


def _encoder(path: Path) -> None:
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    convolutions = {"conv_dim": [16, 16], "conv_stride": [20, 16], "conv_kernel": [20, 16]}
    positions = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    encoder = AudioEncoder({**shape, **convolutions, **positions}, False)
    save_checkpoint(encoder, path, CheckpointInfo(native_fps=25.0))


def _state(path: Path) -> None:
    tensors = {"net.weight": torch.rand(4, 4)}
    facts = RunFacts("toy", 0, 8, 10, 1.5, {"fit": 0.5})
    RunState(facts, tensors, tensors, tensors, {"exp_avg.net.weight": torch.rand(4, 4)}).write(path)


def _shards(path: Path, members: Callable[[int], dict[str, bytes]]) -> None:
    import tarfile

    with tarfile.open(path, "w") as tar:
        for number, key in enumerate(("heldout-a", "train-a")):
            for extension, data in members(number).items():
                header = tarfile.TarInfo(f"{key}.{extension}")
                header.size = len(data)
                tar.addfile(header, io.BytesIO(data))


def _clip(number: int) -> dict[str, bytes]:
    from training.corpus.shards import encode_arrays, encode_json, encode_wav

    motion = {"expression": np.zeros((10, 52), np.float32), "pose": np.zeros((10, 6), np.float32)}
    return {
        "wav": encode_wav(np.zeros(6400, np.float32), 16_000),
        "safetensors": encode_arrays(alpha=np.zeros(80, np.float32), **motion),
        "json": encode_json({"fps": 25.0, "phonemes": [["aa", 0.0, 0.4]]}),
    }


def _person(number: int) -> dict[str, bytes]:
    from training.corpus.shards import encode_arrays, encode_json

    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (number, 90, 60)).save(buffer, "JPEG")
    motion = {"expression": np.zeros((2, 52), np.float32), "pose": np.zeros((2, 6), np.float32)}
    return {
        "0.jpg": buffer.getvalue(),
        "1.jpg": buffer.getvalue(),
        "safetensors": encode_arrays(alpha=np.zeros(80, np.float32), **motion),
        "json": encode_json({"clip": "train-a", "clip_frames": [1, 2]}),
    }


def _pickle(path: Path) -> None:
    import pickle

    from scipy.sparse import csc_matrix

    held = {"v_template": np.eye(3), "J_regressor": csc_matrix(np.eye(2, 4))}
    path.write_bytes(pickle.dumps(held, 2))


# Reading through to the end


def _unpickle(path: Path) -> None:
    held = read_notes(path.read_bytes())
    for name, value in held.items() if isinstance(held, dict) else ():
        array_of(value, str(name)[:20])


def _hear(path: Path) -> None:
    to_mono_16k(*read_audio(path))


def _watch(path: Path) -> None:
    for number, _ in enumerate(VideoFrames(path)):
        if number > 50:
            break


def _learn_clips(path: Path) -> None:
    load_speech(path.parent, default_face_model())


def _learn_pictures(path: Path) -> None:
    for pictures in load_pictures(path.parent, default_face_model())[:2]:
        for index in range(len(pictures)):
            pictures.read(index)


def _text(parse: Callable[[str], object]) -> Callable[[Path], object]:
    return lambda path: parse(path.read_bytes().decode("utf-8", "replace"))


def _configure(path: Path) -> None:
    for stage in ("motion", "unet"):
        train_settings(load_section(path, stage))


YAML = "size: tiny\nmotion: {train: {steps: 10, seed: 1}, frames: 25}\nunet: {train: {batch_size: 4}}\n"
LIP_KEYS = (
    '{"fps": 25, "rest": {"left": [9, 20], "right": [31, 20]}, "keys": [{"frame": 3, "left": [8, null]}]}'
)
LIP_TRACK = "time,left_x,left_y,right_x,right_y\nrest,9,20,31,20\n0.5,8,19,,21\n"
KEYFRAMES = '{"yaw": [[0, 0], [1.5, 20]], "x": [[0, 0.5]]}'
READERS = {
    "png": Reader(".png", _picture("PNG"), read_image),
    "jpeg": Reader(".jpg", _picture("JPEG"), read_image),
    "webp": Reader(".webp", _picture("WEBP"), read_image),
    "tiff": Reader(".tif", _picture("TIFF"), read_image),
    "gif": Reader(".gif", _picture("GIF"), read_image),
    "bmp": Reader(".bmp", _picture("BMP"), read_image),
    "jpeg2000": Reader(".jp2", _picture("JPEG2000"), read_image),
    "wav": Reader(".wav", _sound("wav", "pcm_s16le"), _hear),
    "flac": Reader(".flac", _sound("flac", "flac"), _hear),
    "mp3": Reader(".mp3", _sound("mp3", "libmp3lame"), _hear),
    "ogg": Reader(".ogg", _sound("ogg", "libopus"), _hear),
    "aac": Reader(".aac", _sound("adts", "aac"), _hear),
    "m4a": Reader(".m4a", _sound("ipod", "aac"), _hear),
    "mp4": Reader(".mp4", _video, _watch),
    "sound of mp4": Reader(".mp4", _video, _hear),
    "mkv": Reader(".mkv", _mkv, _watch),
    "safetensors": Reader(".safetensors", _motion, load_motion),
    "npz": Reader(".npz", _motion, load_motion),
    "json": Reader(".json", _motion, load_motion),
    "csv": Reader(".csv", _motion, load_motion),
    "mat": Reader(".mat", _mat, lambda path: load_motion(path, 25)),
    "checkpoint": Reader(".safetensors", _checkpoint, lambda path: load_checkpoint(path, MotionTransformer)),
    "encoder": Reader(".safetensors", _encoder, AudioEncoder.from_pretrained),
    "face model": Reader(
        ".safetensors", lambda path: path.write_bytes(SHIPPED_FILE.read_bytes()), FaceModel.load
    ),
    "landmarker": Reader(
        ".task",
        lambda path: path.write_bytes((SHIPPED_FILE.parent / "face_landmarker.task").read_bytes()),
        FaceLandmarker.load,
    ),
    "state": Reader(".safetensors", _state, RunState.read),
    "clips": Reader("/clips-0.tar", lambda path: _shards(path, _clip), _learn_clips),
    "pictures": Reader("/frames-0.tar", lambda path: _shards(path, _person), _learn_pictures),
    "pickle": Reader(".pkl", _pickle, _unpickle),
    "yaml": Reader(".yaml", lambda path: path.write_text(YAML), _configure),
    "keyframes": Reader(".txt", lambda path: path.write_text(KEYFRAMES), _text(parse_keyframes)),
    "lip keys": Reader(".json", lambda path: path.write_text(LIP_KEYS), load_lip_keys),
    "lip track": Reader(".csv", lambda path: path.write_text(LIP_TRACK), load_lip_keys),
    "times": Reader(".txt", lambda path: path.write_text("0.5, 1.25 3e0"), _text(parse_times)),
}


# Damage


@cache
def whole(name: str) -> bytes:
    """A file as it should be."""
    with tempfile.TemporaryDirectory() as folder:
        path = _place(Path(folder), name)
        READERS[name].make(path)
        return path.read_bytes()


def damaged(name: str, seed: int, case: int) -> bytes:
    """A file with some damage, by number."""
    rng = random.Random(f"{seed} {name} {case}")
    content = bytearray(whole(name))
    # headers decide what is done with the rest, so most of the damage goes there
    reach = rng.choice((64, 512, 4096, len(content)))
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(max(1, min(reach, len(content))))
        if rng.random() < 0.15:
            at = max(0, len(content) - 1 - at)  # where archives have their directory
        match rng.randrange(8):
            case 0 | 1 if content:
                content[min(at, len(content) - 1)] ^= 1 << rng.randrange(8)
            case 2 if content:
                content[min(at, len(content) - 1)] = rng.randrange(256)
            case 3:
                content[at : at + 4] = rng.choice(EXTREMES)
            case 4:
                del content[at : at + rng.choice((1, 4, 64))]
            case 5:
                content[at:at] = content[at : at + rng.choice((1, 16, 256))]
            case 6:
                content[at : at + rng.choice((0, 1, 4))] = rng.choice(WORDS)
            case 7 if rng.random() < 0.3:
                del content[at:]
    return bytes(content)


def attempt(folder: Path, name: str, seed: int, case: int) -> bool:
    """Read one damaged file.

    Returns:
        whether it was refused.

    Raises:
        AssertionError: when it ended in anything but a result or one sentence, or took too long.
    """
    path = _place(folder, name)
    path.write_bytes(damaged(name, seed, case))
    where = f"--only {name!r} --seed {seed} --case {case}"
    try:
        with warnings.catch_warnings(), _in_time():
            warnings.simplefilter("ignore")
            READERS[name].read(path)
    except FD2TalkError as error:
        told = str(error)
        assert told and "\n" not in told and len(told) < 2000, f"{where}: no sentence: {told[:300]!r}"
        told.encode()
        return True
    except Hang:
        raise AssertionError(f"{where}: took over {SECONDS} s") from None
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{last.filename}:{last.lineno}"
        raise AssertionError(f"{where}: {type(error).__name__} at {place}: {str(error)[:300]}") from error
    return False


def _place(folder: Path, name: str) -> Path:
    ending = READERS[name].ending
    path = folder / f"{name.replace(' ', '_')}{ending}"
    path.parent.mkdir(exist_ok=True)
    return path


@contextmanager
def _in_time() -> Iterator[None]:
    if not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _bound_memory() -> None:
    """What asks for more is then told as an error here, in place of taking the machine."""
    try:
        import resource
    except ImportError:
        return
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzzing", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="of all readers together")
    parser.add_argument("--seed", type=int, default=0, help="of the damage")
    parser.add_argument("--only", nargs="+", choices=READERS, default=list(READERS), metavar="READER")
    parser.add_argument("--case", type=int, help="one case alone, to see it again")
    given = parser.parse_args()
    if Path("/proc/self/statm").exists():
        _bound_memory()
    av.logging.set_level(av.logging.PANIC)
    torch.set_num_threads(1)
    counts, findings = {}, []
    with tempfile.TemporaryDirectory() as folder:
        for name in given.only:
            until = time.monotonic() + 60 * given.minutes / len(given.only)
            cases = iter(range(10**9)) if given.case is None else iter([given.case])
            refused = done = 0
            for case in cases:
                if time.monotonic() > until and given.case is None:
                    break
                try:
                    refused += attempt(Path(folder), name, given.seed, case)
                except AssertionError as error:
                    findings.append(str(error))
                    print(f"FOUND {error}", flush=True)
                done += 1
            counts[name] = {"cases": done, "refused": refused}
            print(f"{name}: {done} files, {refused} refused", flush=True)
    print(json.dumps({"files": sum(c["cases"] for c in counts.values()), "findings": len(findings)}))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())

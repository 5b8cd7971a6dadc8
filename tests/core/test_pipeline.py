"""The whole way from a portrait and a voice to a file: constant memory, one sentence for bad input."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import av
import pytest
import torch
from PIL import Image

from fd2talk_core import configs
from fd2talk_core.__main__ import main, parse_arguments
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.formats.sequences import load_motion
from fd2talk_core.formats.video import VideoWriter
from fd2talk_core.formats.video_frames import VideoFrames
from fd2talk_core.imaging import read_image
from fd2talk_core.networks.checkpoint import SHIPPED, CheckpointInfo, save_checkpoint
from fd2talk_core.pipeline import FD2TalkPipeline
from tests.host.media import write_wav

ROOT = Path(__file__).parents[2]
PORTRAIT = ROOT / "example_inputs" / "portrait.png"
SPEECH = ROOT / "example_inputs" / "speech.wav"


def small_pipeline() -> FD2TalkPipeline:
    """Seeded networks of the shape of ``tiny``, thinned: the way is tested, not the picture."""
    autoencoder = configs.load_config("autoencoder", "tiny") | {
        "block_out_channels": [8, 8, 8],
        "encoder_blocks": [1, 1, 1],
        "decoder_blocks": [1, 1, 1],
    }
    encoder_keys = configs.load_config("unet", "tiny")["reference_encoder"].keys()
    names = ("audio_encoder", "expression", "pose")
    return FD2TalkPipeline(
        **{name: configs.build(name, "tiny") for name in names},
        autoencoder=configs.build("autoencoder", "tiny", **autoencoder),
        unet=configs.build(
            "unet",
            "tiny",
            block_out_channels=[8, 8, 8],
            attention_head_dim=8,
            reference_encoder={key: autoencoder.get(key, 32) for key in encoder_keys},
        ),
    )


@pytest.fixture(scope="module")
def pipeline() -> FD2TalkPipeline:
    return small_pipeline()


def voice(seconds: float, channels: int = 1, rate: int = 16_000) -> tuple[torch.Tensor, int]:
    generator = torch.Generator().manual_seed(0)
    return 0.1 * torch.randn(channels, round(seconds * rate), generator=generator), rate


def run(pipeline: FD2TalkPipeline, audio, **options) -> torch.Tensor:
    return pipeline(PORTRAIT, audio, motion_steps=1, frame_steps=1, **options).frames()


def test_a_portrait_and_a_voice_give_a_video_with_its_sound(
    pipeline: FD2TalkPipeline, tmp_path: Path
) -> None:
    stages = {}
    video = pipeline(
        PORTRAIT,
        SPEECH,
        fps=5,
        motion_steps=2,
        frame_steps=2,
        progress=lambda stage, done, total: stages.__setitem__(stage, (done, total)),
    )
    path = video.save(tmp_path / "talking.mp4")
    assert stages.keys() == {"audio", "expression", "pose", "portrait", "frames"}
    assert all(done == total for done, total in stages.values())
    with av.open(str(SPEECH)) as file:
        duration = float(file.streams.audio[0].duration * file.streams.audio[0].time_base)
    with av.open(str(path)) as file:
        frames = list(file.decode(video=0))
    assert len(frames) == video.num_frames == round(duration * 5) and frames[0].time == 0
    with Image.open(PORTRAIT) as portrait:
        assert (frames[0].width, frames[0].height) == portrait.size
    with av.open(str(path)) as file:
        sound = file.streams.audio[0]
        assert sound.start_time == 0 and abs(float(sound.duration * sound.time_base) - duration) < 0.1


def test_the_same_seed_gives_the_same_video_and_another_one_another(pipeline: FD2TalkPipeline) -> None:
    first, again = (run(pipeline, voice(1), fps=4, seed=7) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, run(pipeline, voice(1), fps=4, seed=8))


def test_frames_have_the_size_that_the_autoencoders_checkpoint_names() -> None:
    small = small_pipeline()
    small.autoencoder.info = CheckpointInfo(resolution=128)
    assert run(small, voice(0.08), paste_back=False).shape == (2, 128, 128, 3)


def test_the_background_is_left_alone(
    pipeline: FD2TalkPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the mark, which this machine's owner has turned off."""
    (tmp_path / ".fd2talk").mkdir()
    (tmp_path / ".fd2talk" / "marks.json").write_text('{"pixel_mark": false}')
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    frames = run(pipeline, voice(1), fps=3)
    picture = read_image(PORTRAIT)
    assert frames.shape == (3, *picture.shape)
    below_the_head = slice(320, None)
    assert torch.equal(frames[:, below_the_head], picture[below_the_head].expand(3, -1, -1, -1))
    assert not torch.equal(frames, picture.expand(3, -1, -1, -1))
    crop = run(pipeline, voice(1), fps=3, paste_back=False)
    assert crop.shape[1:] == (256, 256, 3)


@pytest.mark.parametrize(("channels", "rate"), [(1, 16_000), (1, 96_000), (2, 44_100), (8, 48_000)])
def test_any_sound_works(pipeline: FD2TalkPipeline, channels: int, rate: int) -> None:
    assert len(run(pipeline, voice(0.5, channels, rate), fps=4)) == 2


def test_silence_works(pipeline: FD2TalkPipeline) -> None:
    assert len(run(pipeline, (torch.zeros(1, 16_000), 16_000), fps=3)) == 3


# not ru_maxrss: a child process starts with its parent's, which hides its own
MEMORY = """
import re, sys, torch
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.core.test_pipeline import PORTRAIT, small_pipeline, voice
torch.set_num_threads(1)
pipeline = small_pipeline()
for seconds in (4, 16):
    pipeline(PORTRAIT, voice(seconds), fps=8, motion_steps=1, frame_steps=1).save({path!r})
    print(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_memory_does_not_grow_with_the_clip(tmp_path: Path) -> None:
    """Peak resident memory of a 16 s clip against a 4 s clip before it, from picture and sound to the MP4.

    The 96 frames between them are 288 MB as they are computed, and 72 MB as bytes.
    """
    script = MEMORY.format(root=str(ROOT), path=str(tmp_path / "talking.mp4"))
    # what is freed goes back at once: with glibc's moving threshold the same clip's peak differs by 50 MB
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "262144"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
    )
    short, long = map(float, done.stdout.split()[-2:])
    print(f"peak memory: 4 s {short:.0f} MB, 16 s {long:.0f} MB")
    assert long - short <= 32


def test_bad_files_end_the_command_line_with_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    cases = [
        ([str(PORTRAIT), str(SPEECH), "--weights", str(tmp_path / "nowhere")], "nowhere"),
        ([str(tmp_path / "broken.png"), str(SPEECH)], "broken.png"),
        ([str(PORTRAIT), str(tmp_path / "broken.png")], "broken.png"),
        ([str(PORTRAIT), str(SPEECH), "--fps", "0"], "fps is 0"),
        ([str(PORTRAIT), str(SPEECH), "--frame-steps", "0"], "steps is 0"),
    ]
    for arguments, words in cases:
        if "nowhere" not in words and not (SHIPPED / "tiny" / "unet.safetensors").exists():
            continue
        assert main([*arguments, "-o", str(tmp_path / "out.mp4")]) == 2
        told = capsys.readouterr().err
        message = told.strip().splitlines()[-1]
        assert words in message and "Traceback" not in told
        assert not (tmp_path / "out.mp4").exists()


def test_a_set_of_ones_own_may_have_a_wav2vec_folder_and_one_network_for_both_motions(
    pipeline: FD2TalkPipeline, tmp_path: Path
) -> None:
    info = CheckpointInfo(face_model=pipeline.face_model.name, resolution=256, native_fps=25.0, steps=1)
    for name in ("autoencoder", "unet"):
        save_checkpoint(getattr(pipeline, name), tmp_path / f"{name}.safetensors", info)
    heard = pipeline.audio_encoder.hidden_dim  # such a folder knows no bands
    joint = configs.build("expression", "tiny", kind="joint", coefficient_dim=58, audio_dim=heard)
    save_checkpoint(joint, tmp_path / "joint.safetensors", info)
    encoder = pipeline.audio_encoder
    encoder.model.save_pretrained(tmp_path / "audio_encoder")
    preprocessor = {"do_normalize": encoder.do_normalize, "sampling_rate": 16000}
    (tmp_path / "audio_encoder" / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    line = [str(PORTRAIT), str(SPEECH), "--weights", str(tmp_path), "--fps", "1", "--crop"]
    line += ["--motion-steps", "1", "--frame-steps", "1", "-o", str(tmp_path / "out.mp4")]
    assert main(line) == 0
    assert (tmp_path / "out.mp4").stat().st_size > 1000


def test_pictures_are_turned_upright(tmp_path: Path) -> None:
    picture = Image.new("RGB", (40, 20))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").shape == (40, 20, 3)
    with pytest.raises(FD2TalkError, match="missing.png"):
        read_image(tmp_path / "missing.png")


def test_a_higher_frame_rate_is_the_same_motion_seen_more_often(
    pipeline: FD2TalkPipeline, tmp_path: Path
) -> None:
    """Frames between two are moved, not blended from pictures."""
    sound = voice(0.4)
    usual, double, four = (pipeline.animate(sound, fps=fps, motion_steps=1) for fps in (25, 50, 100))
    assert [head.expression.num_frames for head in (usual, double, four)] == [10, 20, 40]
    left, right = usual.expression.values[:-1], usual.expression.values[1:]
    torch.testing.assert_close(double.expression.values[1:-1:2], torch.lerp(left, right, 0.25))
    torch.testing.assert_close(four.expression.values[3:-1:4], torch.lerp(left, right, 0.375))
    video = pipeline(PORTRAIT, voice(0.05), fps=120, motion_steps=1, frame_steps=1, paste_back=False)
    made = VideoFrames(video.save(tmp_path / "fast.mp4"))
    assert (made.num_frames, made.fps) == (6, 120)


def test_motion_from_a_video_or_a_file_needs_no_voice(pipeline: FD2TalkPipeline, tmp_path: Path) -> None:
    face = read_image(PORTRAIT)
    sound = voice(0.5)
    with VideoWriter(tmp_path / "driving.mp4", 8, sound) as writer:
        writer.write(torch.stack([face.roll(shift, 1) for shift in (0, 4, 8, 4)]))
    with VideoWriter(tmp_path / "silent.mp4", 8) as writer:
        writer.write(face[None].expand(2, -1, -1, -1))
    options = {"frame_steps": 1, "paste_back": False}
    driven = pipeline(PORTRAIT, driving=tmp_path / "driving.mp4", **options)
    assert driven.num_frames == 4 and driven.fps == 8
    assert driven.audio[0].shape[1] / driven.audio[1] == pytest.approx(0.5, abs=0.1)
    place = driven.motion[1].values[:, 3]
    assert place[2] > place[0]  # to the picture's right, as the face in the video went
    assert pipeline(PORTRAIT, sound, driving=tmp_path / "driving.mp4", **options).audio is sound
    assert pipeline(PORTRAIT, driving=tmp_path / "silent.mp4", **options).audio is None
    again = pipeline(PORTRAIT, motion=driven.motion, **options)
    assert again.audio is None and torch.equal(again.frames(), driven.frames())
    assert pipeline(PORTRAIT, motion=driven.motion, fps=16, **options).num_frames == 8
    with pytest.raises(FD2TalkError, match="Nothing moves the portrait"):
        pipeline(PORTRAIT)
    with pytest.raises(FD2TalkError, match="one of them"):
        pipeline(PORTRAIT, driving=tmp_path / "driving.mp4", motion=driven.motion)
    with pytest.raises(FD2TalkError, match="'happy' is for motion that is made from a voice"):
        pipeline(PORTRAIT, motion=driven.motion, style="happy")
    with pytest.raises(FD2TalkError, match="is the input"):
        driven.save(tmp_path / "driving.mp4")


def test_the_command_line_has_the_pipelines_options(
    pipeline: FD2TalkPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FD2TalkPipeline, "from_pretrained", lambda *_, **__: pipeline)
    known = set(inspect.signature(FD2TalkPipeline.__call__).parameters) - {"self", "progress"}
    offered = set(vars(parse_arguments(["portrait.png"])))
    assert known <= offered
    common = ["--frame-steps=1", "--motion-steps=1", "--crop", "--fps=4"]
    first, saved = tmp_path / "first.mp4", tmp_path / "motion.json"
    write_wav(tmp_path / "voice.wav", voice(0.5)[0], 16_000)
    assert (
        main(
            [
                str(PORTRAIT),
                str(tmp_path / "voice.wav"),
                f"--output={first}",
                f"--save-motion={saved}",
                *common,
            ]
        )
        == 0
    )
    motion = load_motion(saved)
    odd = ["--detail=0", "--eta=0.5", "--noise-mode=per_frame", "--margin=1.2"]
    second = tmp_path / "second.mp4"
    assert main([str(PORTRAIT), f"--motion={saved}", f"--output={second}", *odd, *common]) == 0
    with av.open(str(second)) as file:
        assert not file.streams.audio
        assert len(list(file.decode(video=0))) == motion.pose.num_frames
    assert main([str(PORTRAIT), f"--motion={saved}", f"--save-motion={saved}", f"--output={second}"]) == 2

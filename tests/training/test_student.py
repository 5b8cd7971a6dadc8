"""Students of few steps end where their teachers end in many."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch

sys.path[:0] = [str(Path(__file__).parent)]

import synthetic  # noqa: E402

from fd2talk_core import configs  # noqa: E402
from fd2talk_core.audio.resampling import SAMPLE_RATE  # noqa: E402
from fd2talk_core.errors import FD2TalkError  # noqa: E402
from fd2talk_core.face.model import default_face_model  # noqa: E402
from fd2talk_core.networks.checkpoint import CheckpointInfo, read_header, save_checkpoint  # noqa: E402
from fd2talk_core.networks.diffusion import (  # noqa: E402
    add_noise,
    ddim_sample,
    ddim_step,
    make_scheduler,
    sampling_timesteps,
)
from training.sources import SpeechClip, SpeechSet  # noqa: E402
from training.stages import student  # noqa: E402
from training.stages.motion import MotionOptions, MotionStage  # noqa: E402
from training.stages.student import Interval, StudentMotion  # noqa: E402
from training.stages.unet import build_unet  # noqa: E402
from training.student import main, students_table  # noqa: E402
from training.trainer import load_section  # noqa: E402


def teacher(sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
    """Something that depends on both, as a network does."""
    shape = (-1, *[1] * (sample.ndim - 1))
    return torch.tanh(sample * 0.7 + timestep.reshape(shape) / 1000)


def test_a_step_is_that_of_equation_5() -> None:
    times = sampling_timesteps(4)
    sample, x0 = torch.randn(2, 4, 3).unbind()
    now, then = torch.tensor(times[:-1]), torch.tensor(times[1:])
    found = Interval(4, 4).step(sample, x0, now, then)
    for number, (timestep, previous) in enumerate(pairwise(times)):
        expected = ddim_step(make_scheduler(), x0[number], timestep, previous, sample[number])
        torch.testing.assert_close(found[number], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("steps", "teacher_steps"), [(4, 16), (2, 4), (1, 8), (3, 3)])
def test_one_step_to_the_target_ends_where_the_teacher_ends(steps: int, teacher_steps: int) -> None:
    interval = Interval(steps, teacher_steps)
    assert interval.starts.tolist() == sampling_timesteps(steps)[:-1]
    start = interval.starts
    x0, noise = torch.randn(2, steps, 5, dtype=torch.float64).unbind()
    shown, wanted = interval.target(teacher, x0, noise, start)
    torch.testing.assert_close(shown, add_noise(x0, noise, start))
    ends = torch.tensor(sampling_timesteps(steps)[1:])
    reached = interval.step(shown, wanted, start, ends)
    times = sampling_timesteps(teacher_steps)
    for number in range(steps):
        sample = shown[number : number + 1]
        for now, then in pairwise(
            times[times.index(int(start[number])) : times.index(int(ends[number])) + 1]
        ):
            at = torch.tensor([now])
            sample = interval.step(sample, teacher(sample, at), at, torch.tensor([then]))
        torch.testing.assert_close(reached[number : number + 1], sample, rtol=1e-6, atol=1e-8)


def test_a_student_that_answers_the_target_samples_what_its_teacher_does() -> None:
    """Of two steps, whose second begins where the first one of the teacher's ends."""
    noise = torch.randn(6, 4, dtype=torch.float64)
    interval = Interval(1, 8)
    shown, wanted = interval.target(teacher, torch.zeros_like(noise), noise, interval.starts.expand(6))
    # at T the signal has all but gone, so x_T is the noise
    one = ddim_sample(lambda sample, t: wanted, shown, steps=1)
    many = ddim_sample(lambda sample, t: teacher(sample, t.expand(6)), shown, steps=8)
    torch.testing.assert_close(one, many, rtol=1e-4, atol=1e-5)


def test_steps_that_do_not_fit_are_refused() -> None:
    with pytest.raises(FD2TalkError, match="student of 3 steps cannot follow a teacher of 16"):
        Interval(3, 16)
    with pytest.raises(FD2TalkError, match="teacher's steps is 2"):
        Interval(4, 2)


def test_motion_students_start_as_their_teachers_and_say_their_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a student goes as many steps as its teacher, its copy answers just what is wanted."""
    monkeypatch.setattr(student, "MEASURED_STEPS", 3)
    clip = SpeechClip(
        name="clip",
        sound=torch.zeros(SAMPLE_RATE * 2),
        phonemes=(),
        expression=torch.rand(50, 52),
        pose=0.1 * torch.randn(50, 6),
        identity=torch.zeros(80),
        fps=25.0,
        features=torch.randn(50, 138).half(),
        encoder="tiny",
    )
    speech = SpeechSet((clip,))
    networks = {
        kind: configs.build(kind, "tiny", seed, num_layers=1, hidden_size=32)
        for seed, kind in enumerate(("expression", "pose"))
    }
    options = MotionOptions(sync_weight=0, drop_audio=0.5, held_out_clips=1, held_out_seconds=1)
    face_model = default_face_model()
    mean = torch.full((52,), 0.3)
    stage = MotionStage(networks, None, speech, speech, face_model, options)
    networks["expression"].set_normalization(mean, torch.ones(52))
    same = StudentMotion(stage, 2, 2)
    batch = same.batch(range(4), lambda index: torch.Generator().manual_seed(index))
    assert set(batch["pose_timestep"].tolist()) <= set(sampling_timesteps(2))
    torch.testing.assert_close(same(batch)["loss"], torch.zeros(()), atol=1e-6, rtol=0)
    # the teacher's own normalisation stays, and it is no part of what is trained
    torch.testing.assert_close(same.networks["expression"].coefficient_mean, mean)
    assert not any(parameter.requires_grad for parameter in same.teachers.parameters())
    fewer = StudentMotion(stage, 1, 4)
    losses = fewer(fewer.batch(range(4), lambda index: torch.Generator().manual_seed(index)))
    assert losses["loss"] > 1e-4 and losses["loss"].requires_grad
    found = fewer.validate(None)
    assert {"mouth_correlation", "teacher_mouth_correlation", "teacher_pose_range"} <= set(found)
    # a later student of the chain keeps what the first teacher reached
    known = {name: 0.5 for name in found if "teacher" not in name}
    assert StudentMotion(stage, 1, 1, known).validate(None)["teacher_lip_error"] == 0.5
    fewer.export(tmp_path, "nothing")
    assert read_header(tmp_path / "pose.safetensors")[2].steps == 1
    assert read_header(tmp_path / "expression.safetensors")[1]["free_steps"] == 0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data and a teacher that has learned nothing."""
    folder = tmp_path_factory.mktemp("students")
    synthetic.write_data(folder / "data", clips=2, people=3, size=64)
    face_model = default_face_model()
    section = load_section("smoke", "autoencoder")
    autoencoder = configs.build("autoencoder", "tiny", 0, **section["network"])
    info = CheckpointInfo(face_model=face_model.name)
    save_checkpoint(autoencoder, folder / "teacher" / "autoencoder.safetensors", info)
    unet = build_unet(load_section("smoke", "unet"), face_model, autoencoder, 64, 0)
    save_checkpoint(unet, folder / "teacher" / "unet.safetensors", CheckpointInfo(steps=50))
    return folder


def test_the_command_makes_sets_whose_headers_say_their_steps(
    world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(student, "MEASURED_STEPS", 3)
    line = ["--stage", "unet", "--config", "smoke", "--teacher", str(world / "teacher")]
    line += ["--data", str(world / "data"), "--out", str(world / "out"), "--steps", "2", "--threads", "1"]
    line += ["--students", "2", "1", "--teacher-steps", "4"]
    for change in ("held_out_pairs=2", "pictures=4", "train.batch_size=2"):
        line += ["--set", change]
    assert main(line) == 0
    told = capsys.readouterr().out
    assert "50 (first teacher)" in told
    for steps in (2, 1):
        info = read_header(world / "out" / f"unet-{steps}" / "unet.safetensors")[2]
        assert info.steps == steps and "distilled to" in info.trained_on
        assert (world / "out" / f"unet-{steps}" / "autoencoder.safetensors").is_file()
    # done ones are kept, and the same is told again
    assert main(line) == 0
    assert capsys.readouterr().out.splitlines()[-3:] == told.splitlines()[-3:]
    assert main([*line[:-6], "--students", "4", "3"]) == 2
    assert "cannot follow" in capsys.readouterr().err


def test_the_table_sets_students_beside_the_first_teacher() -> None:
    def report(psnr: float) -> dict:
        metrics = {"psnr": psnr, "ssim": 0.8, "teacher_psnr": 25.0, "teacher_ssim": 0.9}
        return {"metrics": metrics, "steps": 10, "seconds": 60.0}

    lines = students_table("unet", {4: report(24.8), 1: report(24.1)}).splitlines()
    assert lines[1].split()[-2:] == ["25.000", "0.900"]
    assert lines[2].startswith("4") and "24.800" in lines[2] and lines[3].startswith("1")

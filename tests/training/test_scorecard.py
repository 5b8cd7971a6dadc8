"""Every measure of the scorecard on a case whose answer is known."""

from __future__ import annotations

import math

import pytest
import torch

from fd2talk_core.errors import FD2TalkError
from training.measures import (
    angle_error,
    beat_alignment,
    correlation,
    flicker,
    lip_closure,
    lip_error,
    pose_diversity,
    pose_range,
    psnr,
    smooth,
    ssim,
)
from training.scorecard.__main__ import main
from training.scorecard.motion import frame_energy
from training.scorecard.table import Row, table


@pytest.fixture
def frames() -> torch.Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_a_perfect_copy_scores_perfectly(frames: torch.Tensor) -> None:
    assert psnr(frames, frames).min() > 58.9
    torch.testing.assert_close(ssim(frames, frames), torch.ones(3))
    curve = torch.rand(50)
    assert correlation(curve, curve) == pytest.approx(1)
    mouth = torch.rand(10, 7, 3)
    assert lip_error(mouth, mouth, mouth[0]) == 0


def test_a_still_mouth_scores_nothing() -> None:
    truth = torch.rand(50)
    assert correlation(torch.full((50,), 0.3), truth) == 0
    mouth, rest = torch.rand(10, 7, 3), torch.zeros(7, 3)
    assert lip_error(rest.expand_as(mouth), mouth, rest) == pytest.approx(1)
    assert lip_error(mouth / 2, mouth, rest) == pytest.approx(0.5)


def test_psnr_of_a_known_error_and_only_inside_the_mask(frames: torch.Tensor) -> None:
    assert psnr(torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), 0.1))[0] == pytest.approx(20)
    spoilt = frames.clone()
    spoilt[..., :16] = 0
    mask = torch.zeros(3, 1, 32, 32)
    mask[..., 16:] = 1
    assert psnr(spoilt, frames, mask).min() > 58.9
    assert (psnr(spoilt, frames) < 12).all()


def test_ssim_falls_with_blur(frames: torch.Tensor) -> None:
    blurred = torch.nn.functional.avg_pool2d(frames, 5, 1, 2)
    slightly = torch.lerp(frames, blurred, 0.3)
    assert (ssim(blurred, frames) < ssim(slightly, frames)).all() and (ssim(slightly, frames) < 1).all()


def test_correlation_sees_sign_and_not_scale() -> None:
    curve = torch.sin(torch.arange(100) / 7)
    assert correlation(5 * curve + 2, curve) == pytest.approx(1)
    assert correlation(-curve, curve) == pytest.approx(-1)


def test_lip_closure_of_a_mouth_that_obeys_and_of_one_that_does_not() -> None:
    phonemes, now = [], 0.0
    for name in ["aa", "iy", "b", "iy", "ao", "iy", "m", "iy"] * 2:
        phonemes.append((name, now, now + (0.12 if name == "iy" else 0.6)))
        now = phonemes[-1][2]
    time = (torch.arange(round(now * 25)) + 0.5) / 25
    names = [next(n for n, a, b in phonemes if a <= t < b) for t in time.tolist()]
    wanted = torch.tensor([{"aa": 1.0, "ao": 1.0, "b": 0.0, "m": 0.0, "iy": 0.4}[n] for n in names])
    good = lip_closure(wanted, 25, phonemes)
    assert (good.closed, good.opened, good.closures, good.openings) == (1.0, 1.0, 4, 4)
    bad = lip_closure(1 - wanted, 25, phonemes)
    assert bad.closed == 0 and bad.opened == 0


def test_diversity_is_zero_for_equal_samples_and_known_for_two() -> None:
    pose = torch.rand(20, 6)
    assert pose_diversity(torch.stack([pose, pose])) == 0
    other = pose.clone()
    other[:, :3] += 0.2
    assert pose_diversity(torch.stack([pose, other])) == pytest.approx(0.2 / math.sqrt(2), rel=1e-4)
    with pytest.raises(FD2TalkError):
        pose_diversity(pose[None])
    assert pose_range(torch.zeros(20, 6)) == 0


def test_beat_alignment_prefers_a_head_that_stops_on_the_beat() -> None:
    fps, period = 25.0, 20
    time = torch.arange(200)
    energy = (time % period == 10).float()
    on_beat, off_beat = torch.zeros(200, 6), torch.zeros(200, 6)
    # the nod turns around, so its speed is least, where the sound rises or half a period away from it
    on_beat[:, 0] = torch.cos((time - 10) * math.pi / period)
    off_beat[:, 0] = torch.sin((time - 10) * math.pi / period)
    assert beat_alignment(on_beat, energy, fps) > 0.8 > 0.3 > beat_alignment(off_beat, energy, fps)
    assert beat_alignment(torch.zeros(200, 6), energy, fps) == 0


def test_smoothing_keeps_constants_and_sums() -> None:
    torch.testing.assert_close(smooth(torch.full((40,), 2.0), 25, 0.1), torch.full((40,), 2.0))
    peak = torch.zeros(101)
    peak[50] = 1
    assert float(smooth(peak, 25, 0.1).sum()) == pytest.approx(1, abs=1e-5)


def test_flicker_and_angles_have_their_units() -> None:
    still = torch.full((4, 3, 8, 8), 0.5)
    assert flicker(still) == 0
    blinking = still.clone()
    blinking[1::2] += 1 / 255
    assert flicker(blinking) == pytest.approx(1, rel=1e-4)
    angles = torch.zeros(5, 3)
    assert angle_error(angles + math.radians(3), angles) == pytest.approx(3, rel=1e-4)
    assert angle_error(angles + 2 * math.pi - math.radians(3), angles) == pytest.approx(3, rel=1e-3)


def test_energy_of_a_tone_that_starts_halfway() -> None:
    waveform = torch.cat([torch.zeros(8000), torch.sin(torch.arange(8000) * 0.5)])
    energy = frame_energy(waveform, 25, 25.0)
    assert energy.shape == (25,)
    assert energy[:12].max() == 0 and energy[13:].min() == pytest.approx(1 / math.sqrt(2), rel=0.02)


def test_the_table_says_what_is_missed() -> None:
    rows = [Row("a", 0.95, 0.9), Row("b", 0.5, 0.3, "low"), Row("c", None, 1.0), Row("d", 2.0)]
    assert [row.met for row in rows] == [True, False, None, None]
    lines = table(rows).splitlines()
    assert "met" in lines[1] and "MISSED" in lines[2] and "–" in lines[3]


def test_a_folder_without_weights_is_a_sentence(tmp_path, capsys: pytest.CaptureFixture) -> None:
    assert main(["--weights", str(tmp_path)]) == 2
    assert "make it first" in capsys.readouterr().err
    assert main(["--weights", str(tmp_path), "--detail", "1.5"]) == 2
    assert "detail is 1.5, but a strength from 0 to 1" in capsys.readouterr().err

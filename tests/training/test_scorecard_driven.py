"""Real clips driven by their own motion."""

import json
from pathlib import Path

import pytest
import torch

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.fitting import BROWS, EYE_RIMS
from fd2talk_core.networks.checkpoint import SHIPPED
from training.scorecard.driven import (
    box_around,
    followed_by,
    part_heights,
    score_driven,
    similarity,
)
from training.scorecard.weights import Weights

ROOT = Path(__file__).parents[2]


def test_the_box_is_larger_than_its_points_and_stays_in_the_picture() -> None:
    points = torch.tensor([[10.0, 20.0], [50.0, 40.0]])
    assert box_around(points, 0.5, (100, 200)) == (slice(10, 50), slice(0, 70))
    assert box_around(points, 0.5, (45, 60)) == (slice(10, 45), slice(0, 60))


def test_similarity_is_one_for_the_same_and_falls_with_a_shift() -> None:
    picture = torch.rand(40, 50, 3, generator=torch.Generator().manual_seed(0))
    assert similarity(picture, picture) == pytest.approx(1.0)
    assert similarity(picture, picture.roll(1, dims=1)) < 0.5
    with pytest.raises(FD2TalkError, match=r"too small to compare: 50 x 5"):
        similarity(picture[:5], picture[:5])


def test_what_follows_half_as_far_has_half_the_slope() -> None:
    time = torch.linspace(0, 6, 40, dtype=torch.float64)
    still = torch.rand(1, 478, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def face(amount: float) -> torch.Tensor:
        points = still.repeat(40, 1, 1)
        points[:, [33, 133, 362, 263]] = torch.tensor([[0.0, 0], [0.3, 0], [0.7, 0], [1.0, 0]]).double()
        points[:, [10, 152]] = torch.tensor([[0.5, -1.0], [0.5, 2.0]]).double()
        points[:, list(BROWS), 1] = -0.4 - amount * 0.1 * time.sin()[:, None]
        for *_, upper, lower in EYE_RIMS:
            points[:, [upper, lower], 0] = 0.2
            points[:, upper, 1], points[:, lower, 1] = -0.1 - amount * 0.05 * time.cos(), 0.1
        return points

    turn = torch.tensor([[0.8, 0.6], [-0.6, 0.8]]).double()  # neither a turn nor a size counts
    found = followed_by(part_heights(face(1.0)), part_heights(3 * face(0.5) @ turn))
    for part in ("lids", "brows"):
        assert found[part] == pytest.approx((1.0, 0.5), abs=1e-6)
    assert found["lips"] == pytest.approx((0.0, 0.0), abs=1e-6), "lips that do not move follow nothing"


@pytest.mark.slow
def test_a_clip_that_is_followed_is_more_like_itself_than_its_first_frame(tmp_path: Path) -> None:
    clips, out = tmp_path / "clips", tmp_path / "out"
    clips.mkdir()
    (clips / "clip.mp4").write_bytes((ROOT / "example_inputs" / "driving.mp4").read_bytes())
    (clips / "broken.mp4").write_bytes(b"no video")
    text = score_driven(Weights.load(SHIPPED / "tiny"), clips, 1.2, out)
    assert "broken.mp4 left out" in text and (out / "driven.txt").read_text().strip() == text
    (clip,) = json.loads((out / "driven.json").read_text())
    assert clip["frames"] == 10
    assert clip["made"]["face"] > clip["copied"]["face"] + 0.02
    # the UNet counts, however little, and so do the networks as a whole
    assert clip["made"]["face"] != clip["without_unet"]["face"]
    assert 0 < clip["networks"]["face"] < 1
    assert clip["follows"]["brows"][0] > 0.5 and clip["follows"]["lips"][0] > 0.5


def test_without_a_clip_that_can_be_measured_one_sentence_says_so(tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(FD2TalkError, match=r"No clip .* can be measured. broken.mp4 left out"):
        score_driven(Weights.load(SHIPPED / "tiny"), tmp_path, None, tmp_path)

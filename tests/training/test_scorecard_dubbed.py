"""Real clips that are dubbed with each other's sound."""

import json
from pathlib import Path

import pytest
import torch

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.formats.video import VideoWriter
from fd2talk_core.formats.video_frames import VideoFrames
from fd2talk_core.networks.checkpoint import SHIPPED
from training.scorecard.dubbed import _Flicker, lower_face, score_dubbed
from training.scorecard.weights import Weights

ROOT = Path(__file__).parents[2]


def test_the_lower_face_begins_under_the_eyes_and_stays_in_the_picture() -> None:
    landmarks = torch.full((478, 3), 50.0)
    landmarks[145, 1], landmarks[0, 1], landmarks[152, 1] = 40.0, 60.0, 80.0
    landmarks[33, 0], landmarks[263, 0] = 20.0, 80.0
    expected = torch.zeros(200, 200, dtype=torch.bool)
    expected[46:110, 5:95] = True
    assert torch.equal(lower_face(landmarks, (200, 200)), expected)
    assert torch.equal(lower_face(landmarks, (90, 90)), expected[:90, :90])


def test_the_lower_face_tilts_as_the_head_does() -> None:
    landmarks = torch.full((478, 3), 50.0)
    landmarks[145, 1], landmarks[0, 1], landmarks[152, 1] = 40.0, 60.0, 80.0
    landmarks[33, 0], landmarks[263, 0] = 20.0, 80.0
    upright = lower_face(landmarks, (200, 200))
    # a quarter turn about the picture's middle: x, y -> 200 - y, x
    turned = torch.stack([200 - landmarks[:, 1], landmarks[:, 0]], dim=1)
    assert torch.equal(lower_face(turned, (200, 200)), upright.T.flip(1))


def test_flicker_is_what_is_made_beside_what_was_filmed() -> None:
    everything = torch.ones(4, 4, dtype=torch.bool)
    flicker = _Flicker()
    for number in range(8):
        # a steady change is none; one that comes and goes is
        own = torch.full((4, 4, 3), 0.1 * number + 0.01 * (number % 2))
        flicker.add(own, own + 0.01 * (number % 2), everything)
    assert flicker.ratio == pytest.approx(2.0, rel=1e-3)


@pytest.mark.slow
def test_clips_with_each_others_sound(tmp_path: Path) -> None:
    clips, out = tmp_path / "clips", tmp_path / "out"
    clips.mkdir()
    frames = torch.stack(list(VideoFrames(ROOT / "example_inputs" / "driving.mp4"))).float() / 255
    noise = 0.1 * torch.randn(1, 64_000, generator=torch.Generator().manual_seed(0))
    for name, part in (("one", frames), ("two", frames.flip(dims=(2,)))):
        with VideoWriter(clips / f"{name}.mp4", 25, (noise, 16_000)) as writer:
            writer.write(part)
    text = score_dubbed(Weights.load(SHIPPED / "tiny"), clips, 0.6, out)
    assert (out / "dubbed.txt").read_text().strip() == text
    rows = json.loads((out / "dubbed.json").read_text())
    assert [(row["name"], row["voice"]) for row in rows] == [("one", "two"), ("two", "one")]
    assert all(row["frames"] == 15 and row["outside"] <= 2 and row["faces"] == 1 for row in rows)


def test_what_cannot_be_measured_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    weights = Weights.load(SHIPPED / "tiny")
    with pytest.raises(FD2TalkError, match="holds one clip, but dubbing takes the sound of another"):
        score_dubbed(weights, tmp_path, None, tmp_path)
    (tmp_path / "other.mp4").write_bytes(b"no video")
    with pytest.raises(FD2TalkError, match="No clip .* can be measured. broken.mp4 with the sound of other"):
        score_dubbed(weights, tmp_path, None, tmp_path)

"""Faces are found where they are, at every size and place, and as MediaPipe itself finds them."""

from __future__ import annotations

import math
import sys
import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.landmarks import (
    MODEL_PATH,
    Face,
    FaceLandmarker,
    Square,
    _anchors,
    check_picture,
    pick_face,
    sample_square,
)
from fd2talk_core.face.names import ARKIT_NAMES

PORTRAIT = Path(__file__).parents[2] / "example_inputs" / "portrait.png"

# What the mediapipe package 0.10.21 itself finds in the portrait, in pixels.
MEDIAPIPE_LANDMARKS = {
    1: (223.5, 131.1),
    10: (226.0, 72.2),
    13: (223.3, 143.2),
    14: (223.0, 149.2),
    33: (195.3, 100.6),
    61: (202.3, 139.2),
    152: (221.4, 177.4),
    159: (202.6, 97.8),
    234: (180.9, 109.9),
    263: (255.3, 103.8),
    291: (244.5, 140.6),
    386: (248.1, 100.2),
    454: (269.8, 114.4),
    468: (203.5, 101.1),
    473: (246.0, 103.5),
}
MEDIAPIPE_BLENDSHAPES = {
    "mouthSmileLeft": 0.90,
    "mouthSmileRight": 0.90,
    "mouthUpperUpLeft": 0.47,
    "mouthUpperUpRight": 0.47,
    "eyeSquintLeft": 0.35,
    "eyeSquintRight": 0.27,
    "eyeBlinkLeft": 0.05,
    "jawOpen": 0.01,
    "mouthPucker": 0.0,
    "browDownLeft": 0.0,
}
EYE_DISTANCE = 60.1  # between the outer corners


@lru_cache
def landmarker() -> FaceLandmarker:
    return FaceLandmarker.load()


@lru_cache
def portrait() -> torch.Tensor:
    return torch.from_numpy(np.asarray(Image.open(PORTRAIT), dtype=np.float32) / 255)


def placed(*places: tuple[int, int, float], height: int = 1080, width: int = 1920) -> torch.Tensor:
    """The portrait, scaled, at (x, y) on a large soft canvas."""
    noise = torch.rand(1, 3, 12, 20, generator=torch.Generator().manual_seed(0))
    canvas = F.interpolate(noise, size=(height, width), mode="bilinear")[0] * 0.6 + 0.2
    for x, y, scale in places:
        side = round(512 * scale)
        small = F.interpolate(
            portrait().movedim(-1, 0)[None], size=(side, side), mode="bilinear", antialias=True
        )[0]
        canvas[:, y : y + side, x : x + side] = small[:, : height - y, : width - x]
    return canvas.movedim(0, -1)


def test_portrait_has_one_face_with_mediapipes_own_landmarks() -> None:
    faces = landmarker().detect(portrait())
    assert len(faces) == 1 and faces[0].score > 0.99
    found = faces[0].landmarks[list(MEDIAPIPE_LANDMARKS), :2]
    distance = (found - torch.tensor(list(MEDIAPIPE_LANDMARKS.values()))).norm(dim=1)
    assert distance.mean() < 0.015 * EYE_DISTANCE and distance.max() < 0.04 * EYE_DISTANCE


def test_blendshapes_are_mediapipes_in_arkit_order() -> None:
    scores = landmarker().detect(portrait())[0].blendshapes
    assert scores.shape == (52,) and scores.min() >= 0 and scores.max() <= 1
    for name, expected in MEDIAPIPE_BLENDSHAPES.items():
        assert scores[ARKIT_NAMES.index(name)] == pytest.approx(expected, abs=0.12), name
    assert scores[ARKIT_NAMES.index("tongueOut")] == 0


def test_detection_is_deterministic() -> None:
    first, second = (FaceLandmarker.load().detect(portrait())[0] for _ in range(2))
    assert torch.equal(first.landmarks, second.landmarks) and torch.equal(
        first.blendshapes, second.blendshapes
    )


def test_anchors_are_the_cells_of_both_grids() -> None:
    anchors = _anchors()
    fine = [((i % 16 + 0.5) * 8, (i // 16 + 0.5) * 8) for i in range(256) for _ in range(2)]
    coarse = [((i % 8 + 0.5) * 16, (i // 8 + 0.5) * 16) for i in range(64) for _ in range(6)]
    assert np.array_equal(anchors, np.array(fine + coarse, dtype=np.float32))


@pytest.mark.parametrize("scale", [0.2, 0.3, 0.7])
def test_small_face_in_a_large_picture_is_found_where_it_is(scale: float) -> None:
    x, y = 1203, 417
    faces = landmarker().detect(placed((x, y, scale)))
    assert len(faces) == 1
    expected = landmarker().detect(portrait())[0].landmarks[:, :2] * (round(512 * scale) / 512)
    error = (faces[0].landmarks[:, :2] - expected - torch.tensor([x, y])).norm(dim=1).mean()
    assert error < 0.05 * EYE_DISTANCE * scale


def test_faces_come_largest_first_and_are_picked_by_index_or_box() -> None:
    faces = landmarker().detect(placed((1200, 400, 0.5), (100, 200, 0.9)))
    assert [round(face.area, -2) for face in faces] == sorted(
        (round(face.area, -2) for face in faces), reverse=True
    )
    large, small = faces
    assert large.centre[0] < 500 and small.centre[0] > 1200
    assert pick_face(faces) is large and pick_face(faces, 1) is small and pick_face(faces, 2) is None
    assert pick_face(faces, 0, (1250, 400, 1400, 600)) is small
    assert pick_face(faces, 0, (900, 0, 1000, 50)) is None


def test_a_pattern_that_resembles_a_face_is_not_counted_beside_a_sure_one() -> None:
    sure, doubtful = (
        Face((x, 0.0, x + 9.0, 9.0), torch.zeros(478, 3), torch.zeros(52), score)
        for x, score in ((50.0, 0.99), (0.0, 0.8))
    )
    assert pick_face([doubtful, sure], 0) is sure and pick_face([doubtful, sure], 1) is None
    assert pick_face([doubtful, sure], box=(0, 0, 9, 9)) is doubtful and pick_face([doubtful]) is doubtful


@pytest.mark.parametrize("degrees", [-40, 30, 75])
def test_landmarks_turn_with_the_picture(degrees: float) -> None:
    upright = landmarker().detect(portrait())[0].landmarks[:, :2]
    angle = math.radians(degrees)
    square = Square(226.0, 125.0, 240.0, angle)
    turned = sample_square(portrait().movedim(-1, 0), square, 480).movedim(0, -1)
    found = landmarker().detect(turned)[0].landmarks[:, :2]
    cos, sin = math.cos(angle), math.sin(angle)
    back = (found - 240) / 2 @ torch.tensor([[cos, sin], [-sin, cos]]) + torch.tensor([226.0, 125.0])
    assert (back - upright).norm(dim=1).mean() < 0.04 * EYE_DISTANCE


def test_mirrored_face_has_mirrored_scores() -> None:
    plain = landmarker().detect(portrait())[0]
    mirrored = landmarker().detect(portrait().flip(1))[0]
    assert mirrored.centre[0] == pytest.approx(512 - plain.centre[0], abs=1.5)
    swap = [
        ARKIT_NAMES.index(name.replace("Left", "?").replace("Right", "Left").replace("?", "Right"))
        for name in ARKIT_NAMES
    ]
    assert (mirrored.blendshapes - plain.blendshapes[swap]).abs().mean() < 0.04


def test_pictures_without_a_face_give_none() -> None:
    noise = torch.rand(256, 256, 3, generator=torch.Generator().manual_seed(0))
    assert landmarker().detect(noise) == []
    assert landmarker().detect(portrait()[250:]) == []


def test_face_in_a_drawn_box_is_found_and_elsewhere_not() -> None:
    face = landmarker().detect_in_box(portrait(), (170, 60, 280, 190))
    assert face is not None and face.centre[0] == pytest.approx(226, abs=4)
    assert landmarker().detect_in_box(portrait(), (20, 330, 120, 430)) is None


def test_video_is_tracked_without_detecting_again_and_found_again_after_a_gap(monkeypatch) -> None:
    scans = []
    scan = FaceLandmarker._scan
    monkeypatch.setattr(FaceLandmarker, "_scan", lambda *args: scans.append(1) or scan(*args))
    frames = [portrait()[i : i + 300, 2 * i : 2 * i + 300] for i in range(8)]
    frames[4] = torch.full_like(frames[4], 0.5)
    faces = list(landmarker().detect_video(iter(frames)))
    assert [face is None for face in faces] == [i == 4 for i in range(8)]
    still = landmarker().detect(portrait())[0].landmarks[:, :2]
    scans_of_video = len(scans) - 1
    assert scans_of_video == 3  # the first frame, and both depths of the empty one
    for i in (0, 3, 5, 7):
        moved = faces[i].landmarks[:, :2] + torch.tensor([2.0 * i, float(i)])
        assert (moved - still).norm(dim=1).mean() < 0.03 * EYE_DISTANCE


def test_video_follows_the_face_that_was_chosen() -> None:
    two = placed((40, 20, 0.5), (330, 20, 0.4), height=300, width=600)
    frames = [two.roll(i, dims=1) for i in range(3)]
    small = list(landmarker().detect_video(iter(frames), face_index=1))
    assert all(face.centre[0] > 330 for face in small)
    boxed = list(landmarker().detect_video(iter(frames), box=(60.0, 20.0, 260.0, 200.0)))
    assert all(face.centre[0] < 330 for face in boxed)


def test_sampling_a_square_is_exact_on_a_ramp() -> None:
    y, x = torch.meshgrid(torch.arange(300) + 0.5, torch.arange(300) + 0.5, indexing="ij")
    ramp = torch.stack([x, y])
    for side in (20.0, 64.0, 150.0):  # enlarged, as it is, shrunk
        square = Square(140.3, 160.7, side, 0.3)
        sampled = sample_square(ramp, square, 64)
        ticks = ((torch.arange(64) + 0.5) / 64 - 0.5) * side
        cos, sin = math.cos(0.3), math.sin(0.3)
        assert torch.allclose(sampled[0], 140.3 + cos * ticks - sin * ticks[:, None], atol=2e-3)
        assert torch.allclose(sampled[1], 160.7 + sin * ticks + cos * ticks[:, None], atol=2e-3)


def test_strong_shrinking_does_not_alias() -> None:
    stripes = (torch.arange(1024) % 2).float().expand(1, 1024, 1024)
    sampled = sample_square(stripes, Square(512, 512, 1000), 100)
    assert (sampled[:, 2:-2, 2:-2] - 0.5).abs().max() < 0.06


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.full((100, 100, 3), math.nan), "not numbers"),
        (torch.zeros(63, 200, 3), "200 x 63 pixels"),
        (torch.zeros(3, 100, 100), r"shape \(3, 100, 100\)"),
        (torch.zeros(100, 100), r"shape \(100, 100\)"),
        (torch.zeros(4, 100, 100, 3), "batch of 4 pictures"),
        (torch.zeros(0, 100, 100, 3), r"shape \(0, 100, 100, 3\)"),
    ],
)
def test_bad_pictures_are_named(image: torch.Tensor, message: str) -> None:
    with pytest.raises(FD2TalkError, match=message):
        landmarker().detect(image)


def test_grey_alpha_batched_and_byte_pictures_are_taken() -> None:
    rgb = portrait()
    assert torch.equal(check_picture(torch.cat([rgb, rgb[..., :1]], dim=-1)), rgb)
    assert torch.equal(check_picture(rgb[None]), rgb)
    assert torch.allclose(check_picture((rgb * 255).round().byte()), rgb, atol=1e-6)
    assert check_picture(rgb[..., :1]).shape == rgb.shape
    assert check_picture(rgb * 2 - 0.5).min() == 0 and check_picture(rgb * 2 - 0.5).max() == 1


def test_missing_package_names_the_command(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(FD2TalkError, match="pip install ai-edge-litert"):
        FaceLandmarker.load()


def test_bad_model_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FD2TalkError, match="There is no face landmark model"):
        FaceLandmarker.load(tmp_path / "none.task")
    (tmp_path / "text.task").write_text("no zip")
    with pytest.raises(FD2TalkError, match="text.task is not"):
        FaceLandmarker.load(tmp_path / "text.task")
    with zipfile.ZipFile(MODEL_PATH) as archive, zipfile.ZipFile(tmp_path / "cut.task", "w") as copy:
        for name in archive.namelist():
            copy.writestr(name, archive.read(name)[:1000])
    with pytest.raises(FD2TalkError, match="does not load"):
        FaceLandmarker.load(tmp_path / "cut.task")

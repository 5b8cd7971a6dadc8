"""Motion read from a video is the motion it shows; frames that show no face are filled and counted."""

from __future__ import annotations

import io
import weakref
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.fitting import lip_gap
from fd2talk_core.face.landmarks import Face, FaceLandmarker
from fd2talk_core.face.lids import stop_lids
from fd2talk_core.face.model import FaceModel, apply_pose, default_face_model, project
from fd2talk_core.face.names import ARKIT_NAMES
from fd2talk_core.face.rotations import axis_angle_to_matrix, matrix_to_axis_angle, rotation_matrix
from fd2talk_core.formats.video import VideoWriter
from fd2talk_core.formats.video_frames import VideoFrames
from fd2talk_core.motion.tracking import FaceTrack, follow_face, read_motion, track_from_landmarks

PORTRAIT = Path(__file__).parents[2] / "example_inputs" / "portrait.png"
JAW = ARKIT_NAMES.index("jawOpen")
FPS = 25.0


@lru_cache
def landmarker() -> FaceLandmarker:
    return FaceLandmarker.load()


@lru_cache
def face_model() -> FaceModel:
    return default_face_model()


@lru_cache
def portrait() -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(PORTRAIT).resize((192, 192))))


@lru_cache
def motion(frames: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """β and p of a head that nods, turns, tilts and talks."""
    time = torch.arange(frames) / FPS
    expression = torch.zeros(frames, 52)
    expression[:, JAW] = 0.4 - 0.4 * torch.cos(6 * time)
    pose = torch.zeros(frames, 6)
    pose[:, 0], pose[:, 1], pose[:, 2] = 0.1 * torch.sin(4 * time), 0.35 * torch.sin(3 * time), 0.1 * time
    pose[:, 3] = 0.1 * torch.sin(3 * time)
    return expression, pose


def face(landmarks: torch.Tensor, expression: torch.Tensor) -> Face:
    (left, top), (right, bottom) = landmarks.amin(0).tolist(), landmarks.amax(0).tolist()
    return Face((left, top, right, bottom), landmarks, expression, 1.0)


@lru_cache
def faces() -> tuple[Face, ...]:
    """What a perfect landmarker sees of the motion, in pixels of a 512 x 512 video."""
    expression, pose = motion()
    model = face_model()
    identity = 0.7 * torch.randn(1, 80, generator=torch.Generator().manual_seed(0))
    vertices = apply_pose(model(identity.expand(len(pose), -1), expression), pose)
    points = project(model.landmarks(vertices), model.camera)[..., :2]
    for side in ("right", "left"):
        iris = model.triangles[model.triangle_parts == model.part_names.index(f"{side}_iris")].unique()
        centre = project(vertices[:, iris].mean(dim=1, keepdim=True), model.camera)[..., :2]
        points = torch.cat([points, centre.expand(-1, 5, -1)], dim=1)
    return tuple(face(p, e) for p, e in zip((points + 1) * 256, expression, strict=True))


def degrees_between(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """``[F]``: angle of the turn from one pose to the other."""
    turn = rotation_matrix(a[:, :3]).mT @ rotation_matrix(b[:, :3])
    return matrix_to_axis_angle(turn).norm(dim=-1).rad2deg()


def read(track: FaceTrack, **options):
    return read_motion(track, FPS, face_model(), **options)


@lru_cache
def whole():
    return read(FaceTrack.of_faces(faces()), smooth_pose=0, smooth_expression=0)


def test_known_landmarks_give_the_known_motion() -> None:
    expression, pose = motion()
    found = whole()
    assert found.missing == () and found.pose.fps == FPS and found.pose.face_model == face_model().name
    assert degrees_between(found.pose.values, pose).max() < 2
    assert (found.expression.values[:, JAW] - expression[:, JAW]).abs().max() < 0.1
    assert found.report == "The face was found in all 40 frames."


def gaps(expression: torch.Tensor) -> torch.Tensor:
    """``[F]``: how far lips of the mean face are apart, by the eyes' outer corners."""
    model = face_model()
    return lip_gap(model.landmarks(model(torch.zeros(len(expression), 80), expression))[..., :2])


UPPER_LIP = [[191, 80, 81, 82, 13, 312, 311, 310, 415], [185, 40, 39, 37, 0, 267, 269, 270, 409]]
LOWER_LIP = [[95, 88, 178, 87, 14, 317, 402, 318, 324], [146, 91, 181, 84, 17, 314, 405, 321, 375]]


def test_lips_that_meet_for_two_frames_are_shut() -> None:
    """The landmarker sees that they do, though it scores a mouth that is as open as before and after."""
    meeting, seen = range(3, 5), []
    for frame, each in enumerate(faces()):
        landmarks = each.landmarks.clone()
        if frame in meeting:
            half = (landmarks[LOWER_LIP[0]] - landmarks[UPPER_LIP[0]]) / 2
            for upper, lower in zip(UPPER_LIP, LOWER_LIP, strict=True):
                landmarks[upper] += half
                landmarks[lower] -= half
        seen.append(face(landmarks, each.blendshapes))
    before, found = (
        gaps(read(FaceTrack.of_faces(some)).expression.values) for some in (faces(), tuple(seen))
    )
    assert before[meeting].min() > 0.06
    assert found[meeting].max() < 0.02
    assert (found - before)[7:].abs().max() < 0.01


def test_smoothing_takes_jitter_and_does_not_delay() -> None:
    _, pose = motion()
    generator = torch.Generator().manual_seed(1)
    shaken = []
    for each in faces():
        turn = axis_angle_to_matrix(0.03 * torch.randn(1, 3, generator=generator))[0, :2, :2]
        middle = each.landmarks.mean(0)
        shaken.append(face((each.landmarks - middle) @ turn.T + middle, each.blendshapes))
    rough = read(FaceTrack.of_faces(shaken), smooth_pose=0).pose.values
    smooth = read(FaceTrack.of_faces(shaken), smooth_pose=0.06).pose.values
    assert degrees_between(smooth, pose).mean() < 0.7 * degrees_between(rough, pose).mean()
    late = [float((smooth[5 + lag : 35 + lag, 1] - pose[5:35, 1]).square().sum()) for lag in range(-4, 5)]
    assert late.index(min(late)) == 4


GAPS = (0, 1, 7, 20, 21, 22, 39)


def test_a_blink_of_one_frame_shuts_the_eyes() -> None:
    """Landmarks of shut lids keep a gap, here of a fifth, and a Gaussian over frames widens it."""
    model, frames = face_model(), 12
    expression = torch.zeros(frames, 52)
    blinks = [ARKIT_NAMES.index(name) for name in ("eyeBlinkLeft", "eyeBlinkRight")]
    expression[6, blinks] = 0.64
    points = project(model.landmarks(model(torch.zeros(1, 80), expression)), model.camera)[..., :2]
    points = torch.cat([points, points[:, 468 - 10 :]], dim=1)  # irises are not looked at where lids are shut
    points[:, 468:] = points[:, [33, 133, 159, 145, 33, 263, 362, 386, 374, 263]]
    track = FaceTrack.of_faces(face((p + 1) * 256, e) for p, e in zip(points, expression, strict=True))
    found = read(track).expression.values
    lids = lid_gaps(stop_lids(model, model(torch.zeros(1, 80), found)))
    assert lids[6] < 0.15 * lids[0]
    assert lids[[0, 1, 2, 3, 9, 10, 11]].min() > 0.9 * lids[0], "and eyes are open before and after"


def lid_gaps(shapes: torch.Tensor) -> torch.Tensor:
    """``[F]``, of the middle of both eyes."""
    points = face_model().landmarks(shapes)
    return (points[:, [159, 386], 1] - points[:, [145, 374], 1]).mean(dim=1).clamp_min(0)


def with_gaps() -> FaceTrack:
    return FaceTrack.of_faces(None if i in GAPS else each for i, each in enumerate(faces()))


@pytest.mark.parametrize("policy", ["hold", "interpolate"])
def test_gaps_are_filled_and_never_change_the_frame_count(policy: str) -> None:
    found = read(with_gaps(), missing=policy, smooth_pose=0, smooth_expression=0)
    assert found.missing == GAPS and found.pose.num_frames == found.expression.num_frames == 40
    assert found.report == "7 of 40 frames had no face and were filled: 0-1, 7, 20-22, 39."
    seen = [i for i in range(40) if i not in GAPS]
    assert degrees_between(found.pose.values[seen], whole().pose.values[seen]).max() < 1
    values = torch.cat([found.expression.values, found.pose.values], dim=1)
    assert torch.equal(values[0], values[2]) and torch.equal(values[1], values[2])
    assert torch.equal(values[39], values[38])
    if policy == "hold":
        assert all(torch.equal(values[i], values[19]) for i in (20, 21, 22))
    else:
        jaw = found.expression.values[:, JAW]
        assert torch.allclose(jaw[20:23], jaw[19] + (jaw[23] - jaw[19]) * torch.tensor([0.25, 0.5, 0.75]))
        assert degrees_between(found.pose.values, motion()[1])[20:23].max() < 3


def test_missing_frames_are_an_error_that_lists_them() -> None:
    message = r"No face was found in 7 of 40 frames \(0-1, 7, 20-22, 39\): cut them out, or set missing faces"
    with pytest.raises(FD2TalkError, match=message):
        read(with_gaps())
    many = FaceTrack.of_faces(each if i % 2 else None for i, each in enumerate(faces()))
    with pytest.raises(FD2TalkError, match=r"20 of 40 frames \(0, 2, 4, 6, 8, 10 and 14 more\)"):
        read(many)


def test_what_cannot_be_read_is_told() -> None:
    track = FaceTrack.of_faces(faces()[:2])
    with pytest.raises(FD2TalkError, match="'skip', but one of"):
        read(track, missing="skip")
    with pytest.raises(FD2TalkError, match="fps is 0"):
        read_motion(track, 0, face_model())
    blank = [torch.full((96, 96, 3), 0.5)] * 3
    with pytest.raises(FD2TalkError, match="No face was found in any of the 3 frames"):
        follow_face(blank, landmarker())
    with pytest.raises(FD2TalkError, match="No face lies in the box .* in any of the 3 frames"):
        follow_face(blank, landmarker(), box=(0, 0, 50, 50))
    with pytest.raises(FD2TalkError, match="Face 1 was asked for, but none of the 2 frames shows 2 faces"):
        follow_face([portrait()] * 2, landmarker(), face_index=1)
    with pytest.raises(FD2TalkError, match="no frames"):
        follow_face([], landmarker())
    with pytest.raises(FD2TalkError, match="video frame is 32 x 32"):
        follow_face([torch.zeros(32, 32, 3)], landmarker())


def test_another_face_model_is_told() -> None:
    class Deep3D:
        name, expression_dim = "bfm", 64

    with pytest.raises(FD2TalkError, match="'bfm' has 64 expression coefficients, but .* 52"):
        read_motion(FaceTrack.of_faces(faces()[:1]), FPS, Deep3D())


def test_the_one_face_that_was_chosen_is_followed_and_no_other_taken_for_it() -> None:
    both = torch.full((192, 640, 3), 90, dtype=torch.uint8)
    both[:, 20:212], both[:, 420:612] = portrait(), portrait()
    gone = both.clone()
    gone[:, :320] = 90
    track = follow_face([both, gone, gone, both], landmarker(), box=(20, 0, 212, 192))
    assert track.found.tolist() == [True, False, False, True]
    assert track.landmarks[..., 0].max() < 320


def test_a_callback_counts_frames_and_can_stop_the_work() -> None:
    counted = []
    follow_face([portrait()] * 3, landmarker(), num_frames=3, callback=lambda *done: counted.append(done[:2]))
    # before a frame is done too, while a face is looked for in all of it
    assert list(dict.fromkeys(counted)) == [(0, 3), (1, 3), (2, 3), (3, 3)]
    drawn = []

    def frames():
        for _ in range(10):
            drawn.append(1)
            yield portrait()

    def interrupt(done: int, *_) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow_face(frames(), landmarker(), callback=interrupt)
    assert len(drawn) == 2


def test_pictures_are_let_go_as_the_video_is_read() -> None:
    drawn: list[weakref.ref] = []

    def frames():
        for _ in range(6):
            picture = portrait().clone()
            drawn.append(weakref.ref(picture))
            yield picture

    alive = []
    follow_face(frames(), landmarker(), callback=lambda *_: alive.append(sum(r() is not None for r in drawn)))
    assert len(alive) >= 6 and max(alive) <= 2


def test_the_hosts_landmarks_are_taken() -> None:
    def of_host(each: Face, shift: float = 0.0) -> dict:
        left, top, right, bottom = each.box_xyxy
        return {
            "bbox_xyxy": np.array([left + shift, top, right + shift, bottom], dtype=np.float32),
            "landmarks_xy": (each.landmarks + torch.tensor([shift, 0.0])).numpy(),
            "blendshapes": {
                "_neutral": 0.0,
                **dict(zip(ARKIT_NAMES, each.blendshapes.tolist(), strict=True)),
            },
            "score": 0.9,
        }

    frames = [[of_host(each, 600.0), of_host(each)] for each in faces()]
    frames[5] = []
    frames[6] = frames[6][:1]
    track = track_from_landmarks({"frames": frames, "image_size": (512, 1200)}, box=(0, 0, 400, 512))
    assert track.found.tolist() == [i not in (5, 6) for i in range(40)]
    seen = [i for i in range(40) if i not in (5, 6)]
    assert torch.allclose(track.landmarks, torch.stack([faces()[i].landmarks for i in seen]))
    assert torch.allclose(track.blendshapes, torch.stack([faces()[i].blendshapes for i in seen]))
    with pytest.raises(FD2TalkError, match="hold no frames"):
        track_from_landmarks({"image_size": (4, 4)})
    with pytest.raises(FD2TalkError, match="No face was found in any of the 2 frames"):
        track_from_landmarks({"frames": [[], []]})
    bad = of_host(faces()[0])
    bad["landmarks_xy"] = bad["landmarks_xy"][:68]
    with pytest.raises(FD2TalkError, match=r"frame 0 has landmarks \[68, 2\], but 478"):
        track_from_landmarks({"frames": [[bad]]})


def test_a_drawn_video_read_back_has_its_head_angles(tmp_path: Path) -> None:
    """The issue asks for 5° on average: people of other shapes and looks than any that was fitted before."""
    pytest.importorskip("embreex")
    from training.corpus.appearance import random_look
    from training.corpus.clips import random_identity
    from training.corpus.pictures import photograph, random_motion
    from training.corpus.render import Person
    from training.corpus.scenery import random_place

    errors = []
    for seed in (102, 103):
        rng = np.random.default_rng(seed)
        expression, pose = (values[::8][:7] for values in random_motion(rng, 4.0))
        person, place = Person(random_look(rng), random_identity(rng)), random_place(192, rng)
        path = tmp_path / f"{seed}.mp4"
        with VideoWriter(path, 5.0) as writer:
            for each in zip(expression, pose, strict=True):
                picture = torch.from_numpy(photograph(person, place, *each, 192, rng))
                writer.write(picture[None].float() / 255)
        found = read_motion(follow_face(VideoFrames(path), landmarker()), 5.0, face_model(), smooth_pose=0)
        assert found.missing == () and found.pose.num_frames == 7
        errors.append((found.pose.values - torch.from_numpy(pose))[:, :3].abs().rad2deg())
    error = torch.cat(errors)
    pitch, yaw, roll = error.mean(0).tolist()
    print(f"mean error in degrees: {error.mean():.2f} (pitch {pitch:.2f}, yaw {yaw:.2f}, roll {roll:.2f})")
    assert error.mean() < 5


class TestVideoFrames:
    @staticmethod
    def write(path: Path, fps: float = 24.0, frames: int = 12) -> Path:
        with VideoWriter(path, fps) as writer:
            writer.write(torch.linspace(0, 1, frames)[:, None, None, None].expand(-1, 64, 96, 3))
        return path

    def test_every_frame_comes_in_order_and_again(self, tmp_path: Path) -> None:
        video = VideoFrames(self.write(tmp_path / "a.mp4"))
        assert (video.fps, video.num_frames, video.width, video.height) == (24.0, 12, 96, 64)
        for _ in range(2):
            greys = [float(frame.float().mean()) / 255 for frame in video]
            assert greys == pytest.approx([i / 11 for i in range(12)], abs=0.02)

    def test_a_file_in_memory_and_a_cut_one(self, tmp_path: Path) -> None:
        data = io.BytesIO(self.write(tmp_path / "a.mp4").read_bytes())
        cut = VideoFrames(data, start=0.125, duration=0.25)
        assert cut.num_frames == len(list(cut)) == 6
        assert float(next(iter(cut)).float().mean()) / 255 == pytest.approx(3 / 11, abs=0.02)

    def test_a_video_that_a_phone_took_upright_is_turned_upright(self, tmp_path: Path) -> None:
        """The track header then says: show me turned by a quarter, clockwise."""
        path = tmp_path / "a.mp4"
        corner = torch.zeros(1, 64, 96, 3)
        corner[:, :32, :48] = 1  # top left
        with VideoWriter(path, 24.0) as writer:
            writer.write(corner)
        plain, turned = (
            b"".join(n.to_bytes(4, "big", signed=True) for n in (*rows, 0, 1 << 30))
            for rows in ((65536, 0, 0, 0, 65536, 0, 0), (0, 65536, 0, -65536, 0, 0, 0))
        )
        head, track = path.read_bytes().split(b"tkhd", 1)
        assert plain in track
        path.write_bytes(head + b"tkhd" + track.replace(plain, turned, 1))
        (frame,) = VideoFrames(path)
        assert frame.shape == (96, 64, 3)
        assert frame[10, 50].min() > 240 and frame[10, 10].max() < 15 and frame[80, 50].max() < 15

    @pytest.mark.parametrize(("written", "read"), [(30000 / 1001, 29.97), (23.976, 23.976), (60.0, 60.0)])
    def test_rates_are_the_ones_that_people_write(self, tmp_path: Path, written: float, read: float) -> None:
        assert VideoFrames(self.write(tmp_path / "a.mp4", written)).fps == read

    def test_what_is_no_video_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "a.mp4").write_bytes(b"not a video")
        with pytest.raises(FD2TalkError, match="The file 'a.mp4' is not a video that can be read"):
            VideoFrames(tmp_path / "a.mp4")
        with pytest.raises(FD2TalkError, match="There is no file .*b.mp4"):
            VideoFrames(tmp_path / "b.mp4")
        with pytest.raises(FD2TalkError, match="'speech.wav' holds no pictures"):
            VideoFrames(PORTRAIT.with_name("speech.wav"))

"""A filmed person says other words: the mouth obeys, all else is what was filmed."""

from __future__ import annotations

import weakref
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from fd2talk_core.__main__ import main
from fd2talk_core.audio.mixing import dubbed_sound
from fd2talk_core.configs import build, load_network
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.landmarks import FaceLandmarker
from fd2talk_core.face.model import FaceModel, apply_pose, default_face_model, project
from fd2talk_core.face.names import ARKIT_NAMES
from fd2talk_core.formats.video import VideoWriter
from fd2talk_core.formats.video_frames import VideoFrames
from fd2talk_core.frames.dubbing import iter_dubbed_frames
from fd2talk_core.frames.footage import PictureFootage
from fd2talk_core.frames.lower_face import FilmedFrame, LowerFace
from fd2talk_core.frames.masking import masked_landmarks, mouth_region, shown_landmarks, without_mouth
from fd2talk_core.frames.painted_mouth import PaintedMouth
from fd2talk_core.imaging import read_image
from fd2talk_core.marks.tags import read_tags
from fd2talk_core.motion.coefficients import CoefficientSequence
from fd2talk_core.motion.dubbing import DubbedMouths, dub_mouths
from fd2talk_core.motion.filming import FilmedFace, film_face
from fd2talk_core.networks.autoencoder import FrameAutoencoder
from fd2talk_core.networks.checkpoint import SHIPPED, CheckpointInfo
from fd2talk_core.networks.unet import FrameUNet
from fd2talk_core.pipeline import FD2TalkPipeline

EXAMPLES = Path(__file__).parents[2] / "example_inputs"
JAW = ARKIT_NAMES.index("jawOpen")
FPS = 25.0
INNER_LIPS, FACE_HEIGHT = (13, 14), (10, 152)
"""MediaPipe's landmarks."""
SIDE = 512
"""Pixels of a picture that is made here."""


@lru_cache
def face_model() -> FaceModel:
    return default_face_model()


@lru_cache
def landmarker() -> FaceLandmarker:
    return FaceLandmarker.load()


@lru_cache
def pictures() -> Tensor:
    """``[12, 256, 256, 3]``: somebody who talks."""
    return torch.stack(list(islice(VideoFrames(EXAMPLES / "driving.mp4"), 12))).float() / 255


def followed(frames: Tensor, **options) -> FilmedFace:
    return film_face(iter(frames), FPS, landmarker(), face_model(), **options)


@lru_cache
def filmed() -> FilmedFace:
    return followed(pictures())


def words(frames: int, jaw: float = 0.0) -> CoefficientSequence:
    values = torch.zeros(frames, 52)
    values[:, JAW] = jaw
    return CoefficientSequence("expression", values, FPS, face_model().name, ARKIT_NAMES)


def dubbed(frames: Tensor, film: FilmedFace, spoken: CoefficientSequence, **options) -> Tensor:
    mouths = dub_mouths(film, spoken, face_model(), **options)
    return torch.cat(list(iter_dubbed_frames(PictureFootage(frames, FPS), mouths, face_model())))


def lips_apart(picture: Tensor) -> float:
    """The gap between the lips by the face's height, as the landmarker sees it."""
    points = landmarker().detect(picture)[0].landmarks[:, :2]
    upper, lower = points[list(INNER_LIPS)]
    top, chin = points[list(FACE_HEIGHT)]
    return float((upper - lower).norm() / (top - chin).norm())


@lru_cache
def a_film(frames: int = 30) -> FilmedFace:
    """Coefficients alone: a face that talks, seen from the front."""
    expression = torch.zeros(frames, 52)
    expression[:, JAW] = torch.linspace(0, 0.5, frames)
    square = torch.tensor([128.0, 128.0, 256.0]).expand(frames, 3)
    return FilmedFace(
        identity=torch.zeros(80),
        expression=expression,
        pose=torch.zeros(frames, 6),
        squares=square,
        score=torch.ones(frames),
        likeness=torch.ones(frames),
        shots=(0,),
        fps=FPS,
        face_model=face_model().name,
    )


@lru_cache
def spoken_wide() -> Tensor:
    return dubbed(pictures(), filmed(), words(12, jaw=0.7))


def test_the_mouth_obeys_the_words() -> None:
    shut = dubbed(pictures(), filmed(), words(12))
    assert filmed().score.min() > 0.9 and filmed().shots == (0,)
    for index in (3, 8):
        assert lips_apart(shut[index]) < 0.02
        assert lips_apart(spoken_wide()[index]) > lips_apart(shut[index]) + 0.04


def test_what_is_outside_the_lower_face_is_the_frame_itself() -> None:
    changed = (spoken_wide() - pictures()).abs().amax(dim=-1) * 255
    for index in (0, 6, 11):
        points = landmarker().detect(pictures()[index])[0].landmarks
        lid, lip, chin = (float(points[place, 1]) for place in (145, 0, 152))
        left, right = float(points[:, 0].min()), float(points[:, 0].max())
        room = 0.25 * (right - left)
        outside = torch.ones(256, 256, dtype=torch.bool)
        outside[
            round(lid + 0.3 * (lip - lid)) : round(chin + 2 * room), round(left - room) : round(right + room)
        ] = False
        assert changed[index][outside].max() <= 2
        assert (changed[index][~outside] > 20).sum() > 200


def test_words_that_are_the_films_own_leave_its_frames_as_they_are() -> None:
    mouths = dub_mouths(filmed(), words(12), face_model())
    same = replace(mouths, expression=mouths.film.expression[mouths.order])
    made = torch.cat(list(iter_dubbed_frames(PictureFootage(pictures(), FPS), same, face_model())))
    # but for the inside of an open mouth, which is put together anew from the frame itself
    assert (made - pictures()).abs().mean() < 1e-3


def test_of_two_people_one_is_dubbed() -> None:
    people = read_image(EXAMPLES / "two_people.png")
    faces = landmarker().detect(people)
    frames = people.expand(3, -1, -1, -1)
    for index in (0, 1):
        made = dubbed(frames, followed(frames, face_index=index), words(3, jaw=0.6))
        changed = (made[1] - people).abs().amax(dim=-1) > 0.05
        columns = changed.nonzero()[:, 1].float()
        assert len(columns) > 100
        distances = [abs(float(columns.mean()) - face.centre[0]) for face in faces[:2]]
        assert distances.index(min(distances)) == index
        other = faces[1 - index]
        left, right = round(other.box_xyxy[0]), round(other.box_xyxy[2])
        assert torch.equal(made[1][:, left:right], people[:, left:right])


def test_a_person_who_is_not_there_is_an_error() -> None:
    with pytest.raises(FD2TalkError, match="Face 3 was asked for, but none of the 2 frames shows 4 faces"):
        followed(pictures()[:2], face_index=3)
    with pytest.raises(FD2TalkError, match="No face was found in any of the 2 frames"):
        followed(torch.rand(2, 96, 96, 3))
    with pytest.raises(FD2TalkError, match="The video has no frames"):
        followed(pictures()[:0])


def test_a_cut_begins_a_shot_and_frames_without_the_face_stay_as_they_are() -> None:
    moved = torch.roll(pictures()[4:8].flip(dims=(2,)), 30, dims=2)
    empty = torch.full((3, 256, 256, 3), 0.9)
    frames = torch.cat([pictures()[:5], empty, moved])
    film = followed(frames)
    assert film.shots == (0, 5, 8)
    assert film.score[5:8].max() == 0 and film.score[:5].min() > 0.5 and film.score[8:].min() > 0.5
    mouths = dub_mouths(film, words(12, jaw=0.5), face_model())
    assert "3 without the face (5-7)" in mouths.report
    made = torch.cat(list(iter_dubbed_frames(PictureFootage(frames, FPS), mouths, face_model())))
    assert torch.equal(made[5:8], frames[5:8])
    # the words ease out beside them
    assert mouths.strength[4] < mouths.strength[1] and mouths.strength[8] < mouths.strength[11]


def test_a_hand_before_the_mouth_is_not_dubbed() -> None:
    frames = pictures().clone()
    film = filmed()
    for index in range(5, 8):
        x, y, side = film.squares[index].tolist()
        top, bottom = round(y + 0.05 * side), round(y + 0.28 * side)
        frames[index, top:bottom, round(x - 0.17 * side) : round(x + 0.17 * side)] = torch.tensor(
            [0.15, 0.12, 0.1]
        )
    mouths = dub_mouths(followed(frames), words(12, jaw=0.5), face_model())
    assert "with the mouth hidden (5-7)" in mouths.report
    assert mouths.strength[5:8].max() == 0 and mouths.strength[0] > 0.5


def test_a_profile_is_left_as_it_was_filmed() -> None:
    film = a_film()
    pose = film.pose.clone()
    pose[10:20, 1] = 1.2
    mouths = dub_mouths(replace(film, pose=pose), words(30, jaw=0.5), face_model())
    assert mouths.strength[10:20].max() == 0 and mouths.strength[0] == 1
    assert "10 with a profile (10-19)" in mouths.report
    assert torch.equal(mouths.expression[10:20], mouths.film.expression[10:20])
    with pytest.raises(FD2TalkError, match="None of the 30 frames shows the mouth .* 30 with a profile"):
        dub_mouths(replace(film, pose=pose[10:11].expand(30, 6)), words(30), face_model())


def test_lips_shut_where_the_words_shut_them_even_if_they_never_do_in_the_film() -> None:
    gaping = replace(a_film(), expression=a_film().expression + 0.3 * torch.eye(52)[JAW])
    for film in (a_film(), gaping):
        mouths = dub_mouths(film, words(30), face_model())
        gaps = face_model().mouth_opening(face_model()(film.identity[None], mouths.expression))
        assert gaps.max() < 0.03
        brows = [name.startswith(("brow", "eye")) for name in ARKIT_NAMES]
        assert torch.equal(mouths.expression[:, brows], film.expression[:, brows])


@pytest.mark.parametrize(
    ("policy", "spoken", "order"),
    [
        ({"longer_speech": "loop"}, 9, [0, 1, 2, 3, 2, 1, 0, 1, 2]),
        ({"longer_speech": "hold"}, 6, [0, 1, 2, 3, 3, 3]),
        ({"longer_speech": "cut"}, 6, [0, 1, 2, 3]),
        ({"shorter_speech": "cut"}, 3, [0, 1, 2]),
        ({"shorter_speech": "rest"}, 3, [0, 1, 2, 3]),
        ({"longer_speech": "error", "shorter_speech": "error"}, 4, [0, 1, 2, 3]),
    ],
)
def test_lengths_that_differ(policy: dict, spoken: int, order: list[int]) -> None:
    mouths = dub_mouths(a_film(4), words(spoken, jaw=0.5), face_model(), **policy)
    assert mouths.order.tolist() == order and len(mouths.expression) == mouths.num_frames == len(order)
    if policy == {"shorter_speech": "rest"}:
        gaps = face_model().mouth_opening(face_model()(a_film().identity[None], mouths.expression))
        assert gaps[0] > 0.1 and gaps[3] < 0.03


def test_lengths_that_may_not_differ() -> None:
    with pytest.raises(FD2TalkError, match=r"speech lasts 0.24 s \(6 frames\) and the video 0.16 s .*longer"):
        dub_mouths(a_film(4), words(6), face_model(), longer_speech="error")
    with pytest.raises(FD2TalkError, match=r"\(3 frames\) and the video .*set shorter speech to 'cut'"):
        dub_mouths(a_film(4), words(3), face_model(), shorter_speech="error")
    with pytest.raises(FD2TalkError, match="policy for longer speech is 'stretch'"):
        dub_mouths(a_film(4), words(3), face_model(), longer_speech="stretch")
    other = words(4).replace(face_model="bfm")
    with pytest.raises(FD2TalkError, match="belongs to the face model 'bfm'"):
        dub_mouths(a_film(4), other, face_model())


def as_filmed(film: FilmedFace, order: list[int]) -> DubbedMouths:
    frames = torch.tensor(order)
    return DubbedMouths(film, film.expression[frames], frames, torch.zeros(len(order)), "")


def test_memory_does_not_grow_with_the_film() -> None:
    alive: set[int] = set()
    most = 0

    class Watched:
        fps = FPS

        def span(self, first: int, stop: int | None = None):
            nonlocal most
            for index in range(first, 500 if stop is None else stop):
                frame = torch.full((64, 64, 3), index / 500)
                key = id(frame)
                alive.add(key)
                weakref.finalize(frame, alive.discard, key)
                most = max(most, len(alive))
                yield frame

    order = [*range(500), *range(498, -1, -1), *range(1, 100)]
    made = iter_dubbed_frames(Watched(), as_filmed(a_film(500), order), face_model())
    values = [round(float(frame[0, 0, 0, 0]) * 500) for frame in made]
    assert values == order and most <= 60


def test_footage_that_ends_early_is_an_error() -> None:
    footage = PictureFootage(torch.zeros(5, 64, 64, 3), FPS)
    with pytest.raises(FD2TalkError, match="The video ends before frame 5"):
        list(iter_dubbed_frames(footage, as_filmed(a_film(8), list(range(8))), face_model()))


def counted_video(path: Path, times: list[float], duration: float) -> None:
    """A video whose frame i is of brightness 20 i and is shown from its time on."""
    with av.open(str(path), mode="w") as container:
        stream = container.add_stream("libx264", rate=Fraction(25))
        stream.width = stream.height = 64
        stream.pix_fmt, stream.time_base = "yuv420p", Fraction(1, 1000)
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.options = {"crf": "1", "g": "4", "bf": "0"}
        for index, time in enumerate([*times, duration]):
            grey = np.full((64, 64, 3), 20 * min(index, len(times) - 1), dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
            frame.pts, frame.time_base = round(1000 * time), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def shown(frames) -> list[int]:
    return [round(float(frame.float().mean()) / 20) for frame in frames]


def test_a_variable_frame_rate_is_read_at_a_steady_one(tmp_path: Path) -> None:
    path = tmp_path / "variable.mp4"
    times = [0.0, 0.04, 0.3, 0.34, 0.38, 0.7, 0.74]
    counted_video(path, times, 0.96)
    video = VideoFrames(path)
    instants = [(index + 0.5) / video.fps for index in range(video.num_frames)]
    due = [sum(time <= instant for time in times) - 1 for instant in instants]
    assert shown(video.span())[: len(due)] == due
    assert shown(video.span(3, 6)) == due[3:6]


def test_a_steady_video_is_read_frame_by_frame_from_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "steady.mp4"
    with VideoWriter(path, 29.97, crf=1) as writer:
        writer.write(torch.arange(11)[:, None, None, None].expand(-1, 64, 64, 3) * (20 / 255))
    video = VideoFrames(path)
    assert shown(video) == shown(video.span()) == list(range(11))
    assert shown(video.span(7, 10)) == [7, 8, 9] and shown(video.span(10)) == [10]
    cut = VideoFrames(path, start=3 / 29.97, duration=5 / 29.97)
    assert shown(cut.span()) == [3, 4, 5, 6, 7] and shown(cut.span(2, 9)) == [5, 6, 7]


def test_sound_is_as_long_as_the_pictures_with_the_films_own_underneath() -> None:
    voice = torch.full((2, 16000), 0.5)
    same, rate = dubbed_sound((voice, 16000), 25, FPS)
    assert same is voice and rate == 16000
    assert dubbed_sound((voice, 16000), 10, FPS)[0].shape == (2, 6400)
    longer = dubbed_sound((voice, 16000), 50, FPS)[0]
    assert longer.shape == (2, 32000) and longer[:, 16000:].abs().max() == 0
    own = torch.full((1, 44100), 0.4), 44100
    mixed = dubbed_sound((voice, 16000), 50, FPS, own, level=0.25)[0]
    assert torch.allclose(mixed[:, 2000:14000], torch.tensor(0.6), atol=1e-3)
    assert mixed[:, 17000:].abs().max() < 1e-3
    with pytest.raises(FD2TalkError, match="level of the original sound is 2"):
        dubbed_sound((voice, 16000), 25, FPS, own, level=2)


def test_the_pipeline_writes_a_video_as_long_as_the_new_voice(tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    with VideoWriter(film, FPS, (torch.full((1, 7680), 0.5), 16000)) as writer:
        writer.write(pictures())
    pipeline = FD2TalkPipeline.from_config()
    voice = torch.zeros(1, 9600), 16000
    video = pipeline.dub(film, voice, motion=words(15, jaw=0.5), original_sound=0.5)
    assert video.num_frames == 15 and video.report == "All 12 frames of the video can be dubbed."
    assert video.audio[0].shape == (1, 9600) and 0.2 < float(video.audio[0][0, 1000:6000].mean()) < 0.3
    made = VideoFrames(video.save(tmp_path / "dubbed.mp4"))
    assert made.num_frames == 15 and (made.width, made.height, made.fps) == (256, 256, FPS)
    assert video.marks is not None and read_tags(made.source)["fd2talk_id"] == str(video.marks.payload)
    with pytest.raises(FD2TalkError, match="one of its own inputs|is one of the inputs|input"):
        pipeline.dub(film, voice, motion=words(15)).save(film)
    with pytest.raises(FD2TalkError, match="'sad' is for motion that is made from a voice"):
        pipeline.dub(film, voice, motion=words(15), style="sad")
    with pytest.raises(FD2TalkError, match="has not learned the style 'sad'"):
        pipeline.dub(film, voice, style="sad")


def test_a_film_of_a_high_frame_rate_keeps_it(tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    with VideoWriter(film, 120) as writer:
        writer.write(pictures()[:6])
    voice = torch.zeros(1, 800), 16000
    spoken = words(6, jaw=0.5).replace(fps=120.0)
    made = FD2TalkPipeline.from_config().dub(film, voice, motion=spoken).save(tmp_path / "dubbed.mp4")
    assert (VideoFrames(made).num_frames, VideoFrames(made).fps) == (6, 120)


def test_a_voice_that_is_none_is_told() -> None:
    with pytest.raises(FD2TalkError, match="audio is None"):
        FD2TalkPipeline.from_config().dub("film.mp4", None)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["film.mp4", "--dub"], "A voice is needed to dub a video"),
        (["film.mp4", "voice.wav", "--dub", "--crop"], "--crop cannot be used with --dub"),
        (["face.png", "voice.wav", "--longer-speech=hold"], "--longer-speech can only be used with --dub"),
        (["film.mp4", "voice.wav", "--dub"], "There is no file film.mp4"),
    ],
)
def test_the_command_line_says_what_is_wrong(
    line: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line) == 2
    assert message in capsys.readouterr().err


# ---- painted by a UNet (DiffTalk Sec. 3.2) -----------------------------------------------------------------


@lru_cache
def painter() -> tuple[FrameUNet, FrameAutoencoder]:
    """An untrained UNet with a masked input, and the autoencoder that ships."""
    autoencoder = load_network("autoencoder", SHIPPED / "tiny" / "autoencoder.safetensors")
    unet = build(
        "unet",
        "tiny",
        reference_alignment="none",
        alignment_channels=0,
        reference_encoder=None,
        predict_residual=False,
        masked_input=True,
        landmarks=len(shown_landmarks(face_model())),
    )
    unet.info = CheckpointInfo(steps=2, resolution=256)
    return unet, autoencoder


def test_a_mouths_region_says_whose_it_is_and_nothing_of_what_it_does() -> None:
    film, model = filmed(), face_model()
    alpha = film.identity[None].expand(2, -1)
    region = mouth_region(model, alpha, film.pose[:2], 256)
    assert 0.03 < float(region.mean()) < 0.25
    shown = without_mouth(pictures()[:2].movedim(-1, 1), region)
    assert torch.all(shown.movedim(1, -1)[region[:, 0] == 1] == 0.5)
    assert torch.equal(
        shown[region.expand_as(shown) == 0], pictures()[:2].movedim(-1, 1)[region.expand_as(shown) == 0]
    )
    # open or shut, the lips lie in it
    lips = model.triangles[model.triangle_parts == model.part_names.index("lips")].unique()
    told = []
    for jaw in (0.0, 1.0):
        beta = torch.zeros(2, 52)
        beta[:, JAW] = jaw
        seen = project(apply_pose(model(alpha, beta), film.pose[:2])[:, lips], model.camera)[..., :2]
        inside = torch.nn.functional.grid_sample(region, seen[:, None], align_corners=False)
        assert float((inside > 0.5).float().mean()) > 0.99
        told.append(masked_landmarks(model, alpha, beta, film.pose[:2]))
    # what is told hardly knows of the jaw: eyes, brows and the nose's bridge do not go with it
    assert float((told[1] - told[0]).abs().mean()) < 0.01
    turned = masked_landmarks(model, alpha, beta, film.pose[:2] + torch.tensor([0, 0.2, 0, 0, 0, 0]))
    assert float((turned - told[1]).abs().mean()) > 0.02


def test_only_the_mouth_is_painted_and_the_rest_stays() -> None:
    frames, film = pictures()[:4], filmed()
    spoken = words(4, jaw=0.6)
    mouths = dub_mouths(film, spoken, face_model())
    footage = PictureFootage(pictures(), FPS)
    made = torch.cat(list(iter_dubbed_frames(footage, mouths, face_model(), painted_by=painter(), seed=1)))
    assert made.shape == frames.shape and made.min() >= 0 and made.max() <= 1
    changed = (made - frames).abs().amax(dim=-1)
    region = mouth_region(face_model(), film.identity[None].expand(4, -1), film.pose[:4], 256)
    for number in range(4):
        x, y, side = film.squares[number].tolist()
        # the crop's region in the picture, a pixel wider for resampling
        scaled = torch.nn.functional.interpolate(region[number, None], size=round(side), mode="bilinear")[
            0, 0
        ]
        left, top = round(x - side / 2), round(y - side / 2)
        room = torch.nn.functional.pad(scaled, (256, 256, 256, 256))
        place = room[None, None, 256 - top : 512 - top, 256 - left : 512 - left]
        outside = torch.nn.functional.max_pool2d(place, 9, 1, 4)[0, 0] == 0
        assert changed[number][outside].max() < 1e-5
        assert changed[number][~outside].mean() > 0.02
    other = torch.cat(list(iter_dubbed_frames(footage, mouths, face_model(), painted_by=painter(), seed=2)))
    assert not torch.equal(other, made)


def test_a_set_paints_mouths_or_makes_frames_of_a_portrait(tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    with VideoWriter(film, FPS) as writer:
        writer.write(pictures()[:6])
    pipeline, voice = FD2TalkPipeline.from_config(), (torch.zeros(1, 1600), 16000)
    with pytest.raises(FD2TalkError, match="trained with unet.network.masked_input"):
        pipeline.dub(film, voice, motion=words(2), painted=True)
    pipeline.unet, pipeline.autoencoder = painter()
    made = pipeline.dub(film, voice, motion=words(2, jaw=0.5), painted=True)
    assert made.frames().shape == (2, 256, 256, 3)
    spoken = words(2), CoefficientSequence("pose", torch.zeros(2, 6), FPS, face_model().name)
    with pytest.raises(FD2TalkError, match="makes none of a portrait"):
        pipeline(EXAMPLES / "portrait.png", motion=spoken).frames()
    with pytest.raises(FD2TalkError, match="needs reference_alignment 'none'"):
        build("unet", "tiny", masked_input=True)
    with pytest.raises(FD2TalkError, match="they need masked_input"):
        build("unet", "tiny", landmarks=4)
    changed = FrameUNet.from_config({**painter()[0].config, "landmarks": 4})
    with pytest.raises(FD2TalkError, match="trained with 4 landmarks"):
        PaintedMouth(changed, painter()[1], face_model(), filmed().identity, None)


def mouth_of(expression: float, clear_expression: float, picture: Tensor) -> Tensor:
    """``[n, 3]``, downward: the middle of a mouth that is made in a frame whose lips are shut, of a clearest
    frame that has the same picture.
    """

    def frame(jaw: float) -> FilmedFrame:
        coefficients = torch.zeros(52)
        coefficients[JAW] = jaw
        return FilmedFrame(picture, coefficients, torch.zeros(6), torch.tensor([SIDE / 2, SIDE / 2, SIDE]))

    wanted = frame(expression)
    lower_face = LowerFace(face_model(), torch.zeros(80), frame(clear_expression))
    made = lower_face.make(frame(0.0), wanted.expression)
    upper, lower = seen_rows(wanted.expression)[face_model().inner_lip_pairs].unbind(-1)
    return made[int(upper.amax()) + 3 : int(lower.amax()) - 2, SIDE // 2]


def seen_rows(expression: Tensor) -> Tensor:
    """``[V]``: the rows of a picture in which vertices are."""
    shape = face_model()(torch.zeros(1, 80), expression[None])
    return SIDE / 2 * (1 + project(apply_pose(shape, torch.zeros(1, 6)), face_model().camera)[0, :, 1])


@pytest.mark.parametrize("opened", [0.5, 0.8], ids=["as far as the film shows it", "farther"])
def test_a_shut_mouth_opens_to_what_the_clearest_frame_shows(opened: float) -> None:
    names, parts = face_model().part_names, face_model().triangle_parts
    teeth = face_model().triangles[parts == names.index("upper_teeth")].unique()
    white, green = torch.tensor([0.9, 0.9, 0.9]), torch.tensor([0.2, 0.6, 0.2])
    below = torch.arange(SIDE) + 0.5 > seen_rows(torch.zeros(52))[teeth].amax() + 4
    picture = torch.where(below[:, None, None], green, white).expand(SIDE, SIDE, 3).clone()

    mouth = mouth_of(opened, 0.5, picture)

    assert len(mouth) >= 20
    is_white, is_green = ((mouth - colour).abs().amax(dim=-1) < 0.05 for colour in (white, green))
    assert bool(is_white[0]) and bool(is_green[-1]), "teeth reach the lips, as bright as they were filmed"
    assert int(is_white.nonzero().amax()) < int(is_green.nonzero().amin()), "each row of teeth once"
    if opened == 0.5:
        assert int((is_white | is_green).sum()) >= len(mouth) - 3

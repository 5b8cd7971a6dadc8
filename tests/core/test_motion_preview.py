"""The mesh preview shows the motion it is given, and says what does not go together."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.model import default_face_model
from fd2talk_core.face.names import ARKIT_NAMES
from fd2talk_core.formats.gltf import write_glb
from fd2talk_core.formats.video import VideoWriter
from fd2talk_core.motion.coefficients import CoefficientSequence
from fd2talk_core.motion.curves import describe, motion_curves
from fd2talk_core.motion.editing import add_blinks, idle_motion
from fd2talk_core.motion.preview import FRAMES_AT_ONCE, FirstFrames, preview_motion

SIZE = 64


def sequence(kind: str, values: torch.Tensor, fps: float = 25.0) -> CoefficientSequence:
    return CoefficientSequence(kind, values, fps, default_face_model().name)


def pictures(expression: object, pose: object, **options: object) -> torch.Tensor:
    return torch.cat(
        list(preview_motion(default_face_model(), expression, pose, size=SIZE, **options).chunks)
    )


def reddish(picture: torch.Tensor) -> torch.Tensor:
    """Pixels of lips, tongue and mouth interior."""
    return picture[..., 0] > 1.2 * picture[..., 1]


def reds(picture: torch.Tensor) -> int:
    return int(reddish(picture).sum())


def test_an_open_jaw_shows_more_of_the_mouth_and_a_turn_moves_the_head() -> None:
    jaw = torch.zeros(2, 52)
    jaw[1, ARKIT_NAMES.index("jawOpen")] = 1
    shut, opened = pictures(sequence("expression", jaw), None)
    assert reds(opened) > 1.5 * reds(shut) > 0

    shift = torch.zeros(2, 6)
    shift[1, 3] = 0.5  # to the image's right
    # the lips, since the shoulders stay where they are
    still, moved = (reddish(frame) for frame in pictures(None, sequence("pose", shift)))
    columns = torch.arange(SIZE, dtype=torch.float32)
    before, after = ((lips.sum(0).float() @ columns) / lips.sum() for lips in (still, moved))
    expected = 0.5 * default_face_model().camera.focal / default_face_model().camera.distance * SIZE / 2
    assert after - before == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize(("fitting", "kept"), [(100, 7), (5, 5), (3, 3), (0, 1)])
def test_the_first_frames_are_kept_as_far_as_the_memory_goes(fitting: int, kept: int) -> None:
    clip = torch.rand(7, 4, 6, 3)
    first = FirstFrames(len(clip), max_bytes=fitting * clip[0].nbytes)
    for chunk in clip.split(3):
        first.add(chunk)
    assert first.kept == kept
    assert torch.equal(first.frames, clip[:kept])
    assert first.frames.untyped_storage().nbytes() == kept * clip[0].nbytes


def test_every_frame_comes_in_order_and_is_counted() -> None:
    count = FRAMES_AT_ONCE + 3
    pose = torch.zeros(count, 6)
    pose[:, 4] = torch.linspace(-0.5, 0.5, count)  # up
    calls = []
    frames = pictures(None, sequence("pose", pose), callback=lambda *call: calls.append(call))
    assert calls == [(FRAMES_AT_ONCE, count, None), (count, count, None)]
    rows = torch.arange(SIZE, dtype=torch.float32)
    lit = (frames.mean(dim=-1) > 0.2).sum(dim=2).float()
    height = (lit @ rows) / lit.sum(dim=1)
    assert (height.diff() < 0).all()


def test_a_portraits_identity_changes_the_face_and_the_view_turns_it() -> None:
    rest = sequence("expression", torch.zeros(1, 52))
    plain = pictures(rest, None)
    wide = torch.zeros(default_face_model().identity_dim)
    wide[0] = 3
    assert (pictures(rest, None, identity=wide) - plain).abs().max() > 0.1
    assert (pictures(rest, None, view="three-quarter") - plain).abs().max() > 0.1


@pytest.mark.parametrize(
    ("expression", "pose", "options", "sentence"),
    [
        (None, None, {}, "no motion to preview"),
        (3, 4, {}, "3 frames at 25 fps and the pose 4 at 25"),
        (3, 3, {"view": "behind"}, "'behind'"),
        (3, 3, {"size": 4}, "4"),
    ],
)
def test_what_does_not_go_together_is_told(
    expression: int | None, pose: int | None, options: dict, sentence: str
) -> None:
    with pytest.raises(FD2TalkError, match=sentence):
        preview_motion(
            default_face_model(),
            expression and sequence("expression", torch.zeros(expression, 52)),
            pose and sequence("pose", torch.zeros(pose, 6)),
            **options,
        )


def test_an_expression_of_another_face_model_is_refused_by_name() -> None:
    other = CoefficientSequence("expression", torch.zeros(2, 64), 25.0, "bfm09")
    with pytest.raises(FD2TalkError, match="'bfm09'.*" + default_face_model().name):
        preview_motion(default_face_model(), other, None)


@pytest.mark.slow
def test_ten_seconds_at_256_pixels_are_ready_in_four_on_two_cores(tmp_path: Path) -> None:
    """All that the node does, sound included. The wall clock is heeded where the machine is idle."""
    frames = 250
    jaw = torch.zeros(frames, 52)
    jaw[:, ARKIT_NAMES.index("jawOpen")] = torch.linspace(0, 40, frames).sin().abs() * 0.5
    model = default_face_model()
    face = add_blinks(CoefficientSequence("expression", jaw, 25.0, model.name, ARKIT_NAMES))
    head = idle_motion(frames, 25.0, 1, 3.0)
    list(preview_motion(model, face.replace(values=jaw[:16]), None).chunks)  # what is loaded once
    busy, threads = os.getloadavg()[0] > 0.5, torch.get_num_threads()
    torch.set_num_threads(2)
    wall, processor = time.perf_counter(), time.process_time()
    sound = torch.rand(1, 160000) - 0.5
    with VideoWriter(tmp_path / "preview.mp4", 25.0, (sound, 16000)) as writer:
        for chunk in preview_motion(model, face, head).chunks:
            writer.write(chunk)
    write_glb(tmp_path / "preview.glb", model, face, head)
    describe(motion_curves(face, head, model), frames, 25.0)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    torch.set_num_threads(threads)
    print(f"10 s at 256 px: {wall:.1f} s by the clock, {processor:.1f} s of processor time, busy: {busy}")
    # two cores have eight seconds in four; threads that get in each other's way count some time twice
    assert processor < (12 if busy else 8)
    assert busy or wall < 4

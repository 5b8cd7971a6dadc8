"""A voice moves a head: meshes of any length, read back by an independent reader."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from fd2talk_core.__main__ import main
from fd2talk_core.audio.reading import read_audio
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.lids import BLINKS, stop_lids
from fd2talk_core.face.model import FaceModel, default_face_model
from fd2talk_core.face.names import ARKIT_NAMES
from fd2talk_core.face.skinning import pose_on_body
from fd2talk_core.face.smoothing import smooth_deformations, smoothing_weights
from fd2talk_core.formats import mesh_sequence
from fd2talk_core.formats.gltf import METRES
from fd2talk_core.formats.mesh_sequence import write_mesh_sequence
from fd2talk_core.formats.sequences import load_motion
from fd2talk_core.motion.coefficients import CoefficientSequence
from fd2talk_core.motion.defaults import STYLES
from fd2talk_core.motion.editing import idle_motion
from fd2talk_core.motion.preview import preview_motion
from fd2talk_core.pipeline import FD2TalkPipeline, MovingHead
from tests.core.test_gltf import Glb
from tests.host.media import speech, write_wav

MINUTE, FPS = 60.0, 2.0


def face(frames: int, fps: float = 25.0) -> CoefficientSequence:
    values = torch.rand(frames, 52, generator=torch.Generator().manual_seed(1))
    return CoefficientSequence("expression", values, fps, default_face_model().name, ARKIT_NAMES)


def truth(
    expression: torch.Tensor, pose: torch.Tensor, model: FaceModel | None = None, stopped: bool = False
) -> np.ndarray:
    """Positions by Eq. 1, and in a sequence of files with lids that stop where they meet."""
    model = model or default_face_model()
    shape = model(torch.zeros(1, model.identity_dim), expression[None])
    shape = stop_lids(model, shape) if stopped else shape
    return pose_on_body(model, shape, pose[None], torch.zeros(1, 6))[0].numpy() * METRES


@pytest.fixture(scope="module")
def minute(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command makes of a voice of a minute, a GLB and its motion, and that as a PLY sequence."""
    folder = tmp_path_factory.mktemp("minute")
    write_wav(folder / "voice.wav", speech(MINUTE), 16000)
    made = ["--motion-steps=2", f"--fps={FPS:g}"]
    motion = f"--save-motion={folder / 'motion.safetensors'}"
    assert main([str(folder / "voice.wav"), "--mesh", str(folder / "head.glb"), motion, *made]) == 0
    moved = load_motion(folder / "motion.safetensors")
    MovingHead(moved.require("expression"), moved.require("pose"), default_face_model()).save(
        folder / "frames"
    )
    return folder


def test_a_minute_of_voice_opens_in_an_independent_reader_with_the_right_vertices(minute: Path) -> None:
    motion = load_motion(minute / "motion.safetensors")
    expression, pose = motion.require("expression"), motion.require("pose")
    assert expression.num_frames == pose.num_frames == MINUTE * FPS
    assert expression.values.std(dim=0).max() > 0.01, "the voice moves the face"
    glb = Glb(minute / "head.glb")
    scene = trimesh.load(minute / "head.glb", process=False)
    (rest,) = scene.geometry.values()
    count = default_face_model().num_vertices
    np.testing.assert_allclose(rest.vertices[:count], default_face_model().mean * METRES, atol=1e-6)
    described = json.loads((minute / "frames" / mesh_sequence.DESCRIPTION).read_text(encoding="utf-8"))
    assert (described["frames"], described["fps"], described["vertices"]) == (MINUTE * FPS, FPS, count)
    files = sorted((minute / "frames").glob("*.ply"))
    assert len(files) == MINUTE * FPS
    for number in (0, 61, 119):
        mesh = trimesh.load(files[number], process=False)
        moved = expression.values[number], pose.values[number]
        np.testing.assert_allclose(mesh.vertices, truth(*moved, stopped=True), atol=1e-6)
        np.testing.assert_array_equal(mesh.faces, default_face_model().triangles)
        np.testing.assert_allclose(glb.vertices(number / FPS)[:count], truth(*moved), atol=1e-5)


def test_in_a_sequence_lids_stop_where_they_meet(tmp_path: Path) -> None:
    """Of a person whose lids a whole blink drives past each other, as a GLB's shape keys do."""
    model = default_face_model()
    person = torch.randn(8, model.identity_dim, generator=torch.Generator().manual_seed(0))[0]
    shut = torch.zeros(2, 52)
    shut[1, [ARKIT_NAMES.index(name) for name in BLINKS]] = 1
    blink = CoefficientSequence("expression", shut, 25.0, model.name, ARKIT_NAMES)
    write_mesh_sequence(tmp_path / "head", model, blink, None, identity=person)
    free = model(person[None], shut)
    met = stop_lids(model, free)
    assert torch.equal(met[0], free[0]) and (met[1] - free[1]).abs().amax() > 0.01
    for number, expected in enumerate(met):
        mesh = trimesh.load(tmp_path / "head" / f"frame_{number:05}.ply", process=False)
        np.testing.assert_allclose(mesh.vertices, expected * METRES, atol=1e-6)


def test_an_obj_has_the_same_corners_and_the_parts_by_name(tmp_path: Path) -> None:
    model, expression, pose = default_face_model(), face(2), idle_motion(2, 25.0, amount=5)
    folder = write_mesh_sequence(tmp_path / "head", model, expression, pose, files="obj")
    mesh = trimesh.load(folder / "frame_00001.obj", process=False, maintain_order=True, group_material=False)
    # a reader may split a vertex where two texture coordinates meet, or order triangles by part
    found = np.concatenate(
        [part.vertices[part.faces] for part in getattr(mesh, "geometry", {"head": mesh}).values()]
    )
    by_part = model.triangles[model.triangle_parts.argsort(stable=True)]
    expected = truth(expression.values[1], pose.values[1], stopped=True)[by_part.numpy()]
    assert found.shape == expected.shape
    np.testing.assert_allclose(
        np.sort(found.reshape(-1, 9), axis=0), np.sort(expected.reshape(-1, 9), axis=0), atol=1e-6
    )
    text = (folder / "frame_00000.obj").read_text(encoding="utf-8")
    assert [line[2:] for line in text.splitlines() if line.startswith("g ")] == list(model.part_names)


@pytest.mark.parametrize("ending", ["usdc", "usda"])
def test_usd_skinned_by_its_own_library_has_the_same_vertices(tmp_path: Path, ending: str) -> None:
    pxr = pytest.importorskip("pxr", reason="usd-core is an extra")
    from pxr import Gf, Usd, UsdGeom, UsdSkel

    from fd2talk_core.formats.usd import write_usd

    expression, pose = face(3), idle_motion(3, 25.0, seed=2, amount=8)
    path = tmp_path / f"head.{ending}"
    write_usd(path, default_face_model(), expression, pose)
    assert pxr and [file.name for file in tmp_path.iterdir()] == [path.name]
    stage = Usd.Stage.Open(str(path))
    assert (stage.GetTimeCodesPerSecond(), stage.GetEndTimeCode()) == (25, 2)
    root = UsdSkel.Root.Get(stage, "/Person")
    assert UsdSkel.BakeSkinning(root, Gf.Interval(0, 2))
    points = UsdGeom.Mesh.Get(stage, "/Person/Face").GetPointsAttr()
    for frame in range(3):
        expected = truth(expression.values[frame], pose.values[frame])
        np.testing.assert_allclose(np.array(points.Get(frame)), expected, atol=1e-5)


def test_a_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    def stop(done: int, total: int, _: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_mesh_sequence(tmp_path / "head", default_face_model(), face(3), None, callback=stop)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "head").mkdir()
    write_mesh_sequence(tmp_path / "head", default_face_model(), face(3), None)
    assert len(list((tmp_path / "head").iterdir())) == 4
    with pytest.raises(FD2TalkError, match="holds something already"):
        write_mesh_sequence(tmp_path / "head", default_face_model(), face(3), None)


def test_a_sequence_that_the_disk_cannot_hold_is_refused_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mesh_sequence.shutil, "disk_usage", lambda _: type("Disk", (), {"free": 4e5}))
    with pytest.raises(FD2TalkError, match="disk has no room"):
        write_mesh_sequence(tmp_path / "head", default_face_model(), face(3), None)
    assert list(tmp_path.iterdir()) == []


def test_smoothing_stills_the_neck_and_leaves_lips_and_lids_alone() -> None:
    model = default_face_model()
    weight = smoothing_weights(model)
    assert float(weight.max()) == 1 and float(weight.min()) == 0

    def kept(part: str) -> float:
        rows = model.triangles[model.triangle_parts == model.part_names.index(part)].unique()
        moved = model.expression_basis[:, rows].norm(dim=-1)
        smoothed = smooth_deformations(model, 1.0).expression_basis[:, rows].norm(dim=-1)
        return float(smoothed.sum() / moved.sum())

    for part in ("lips", "eyelids", "lower_teeth"):
        assert kept(part) == pytest.approx(1, abs=1e-5)
    assert 0.99 > kept("skin") > kept("neck") > kept("scalp")
    assert smooth_deformations(model, 0.0) is model
    half = smooth_deformations(model, 0.5).expression_basis
    both = (model.expression_basis + smooth_deformations(model, 1.0).expression_basis) / 2
    torch.testing.assert_close(half, both)
    with pytest.raises(FD2TalkError, match="smoothing is 2"):
        smooth_deformations(model, 2)


def test_preview_glb_and_sequence_are_smoothed_alike(tmp_path: Path) -> None:
    model, expression = default_face_model(), face(1)
    from fd2talk_core.formats.gltf import write_glb

    write_glb(tmp_path / "head.glb", model, face(2), None, smoothing=1.0)
    write_mesh_sequence(tmp_path / "head", model, face(2), None, smoothing=1.0)
    moved = face(2).values[1], torch.zeros(6), smooth_deformations(model, 1.0)
    found = Glb(tmp_path / "head.glb").vertices(1 / 25)[: model.num_vertices]
    np.testing.assert_allclose(found, truth(*moved), atol=1e-5)
    mesh = trimesh.load(tmp_path / "head" / "frame_00001.ply", process=False)
    np.testing.assert_allclose(mesh.vertices, truth(*moved, stopped=True), atol=1e-6)
    pictures = [
        torch.cat(list(preview_motion(shown, expression, None, size=96, smoothing=amount).chunks))
        for shown, amount in ((model, 1.0), (smooth_deformations(model, 1.0), 0.0), (model, 0.0))
    ]
    assert torch.equal(pictures[0], pictures[1]) and not torch.equal(pictures[0], pictures[2])


def test_the_head_wears_the_face_of_a_portrait() -> None:
    pipeline = FD2TalkPipeline.from_config()
    portrait = Path(__file__).parents[2] / "example_inputs" / "portrait.png"
    head = pipeline.animate(image=portrait, motion=(face(2), idle_motion(2, 25.0)))
    assert head.identity is not None and head.identity.abs().max() > 0.1
    assert pipeline.animate(motion=(face(2), idle_motion(2, 25.0))).identity is None


def test_a_head_speaks_in_the_mood_that_it_is_asked_for() -> None:
    """With the weights that ship: each mood does what it is known by, and the head's motion stays."""
    pipeline = FD2TalkPipeline.from_pretrained("tiny")
    waveform, rate = read_audio(Path(__file__).parents[2] / "example_inputs" / "speech.wav")
    heads = {style: pipeline.animate((waveform[:, : 2 * rate], rate), style=style) for style in STYLES}

    def mean(style: str, name: str) -> float:
        return float(heads[style].expression.values[:, ARKIT_NAMES.index(name)].mean())

    for style, name in (
        ("happy", "mouthSmileLeft"),
        ("happy", "cheekSquintRight"),
        ("sad", "mouthFrownLeft"),
        ("sad", "browInnerUp"),
        ("angry", "browDownRight"),
        ("surprised", "eyeWideLeft"),
        ("surprised", "browOuterUpRight"),
    ):
        assert mean(style, name) > 0.2 + mean("neutral", name), (style, name)
    assert all(torch.equal(head.pose.values, heads["neutral"].pose.values) for head in heads.values())


@pytest.mark.parametrize(
    "line, sentence",
    [
        (["voice.wav", "--mesh", "head.glb", "--crop"], "--crop cannot be used with --mesh"),
        (["voice.wav", "--mesh", "head.glb", "--dub"], "give one of them"),
        (["voice.wav", "--mesh", "head.glb", "-o", "talk.mp4"], "--output cannot be used with --mesh"),
        (["voice.wav", "--vmc", "localhost:70000"], "HOST or HOST:PORT is needed"),
        (["face.png", "voice.wav", "--mesh-files=obj"], "--mesh-files can only be used with --mesh"),
        (["voice.wav", "--mesh", "head.fbx"], ".glb or .usdc or .usd or .usda is written"),
    ],
)
def test_what_does_not_go_together_is_refused(
    line: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line) == 2
    assert sentence in capsys.readouterr().err

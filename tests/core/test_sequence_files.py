"""Motion files: round trips to the stated precision, other people's formats, and files from strangers."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import pickle
import stat
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.names import ARKIT_NAMES
from fd2talk_core.formats import sequences as sequence_files
from fd2talk_core.formats.live_link import HEADER
from fd2talk_core.formats.sequences import load_motion, load_sequence, save_motion, save_sequence
from fd2talk_core.motion.coefficients import CoefficientSequence

RATES = (1, 12, 23.976, 24, 25, 29.97, 30, 50, 59.94, 60, 120)
EXACT = (".safetensors", ".npz", ".json")
FACE_MODEL = "anny-arkit52"


def expression(frames: int = 40, fps: float = 25.0, seed: int = 0) -> CoefficientSequence:
    values = torch.rand(frames, 52, generator=torch.Generator().manual_seed(seed))
    return CoefficientSequence("expression", values, fps, FACE_MODEL, ARKIT_NAMES)


def pose(frames: int = 40, fps: float = 25.0, seed: int = 1) -> CoefficientSequence:
    values = 0.4 * torch.randn(frames, 6, generator=torch.Generator().manual_seed(seed))
    values[:, 1].clamp_(-1.5, 1.5)
    return CoefficientSequence("pose", values, fps, FACE_MODEL)


def sentence(call, *arguments, **keywords) -> str:
    with pytest.raises(FD2TalkError) as caught:
        call(*arguments, **keywords)
    return str(caught.value)


# Round trips


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask to speak of")
@pytest.mark.parametrize("ending", [*EXACT, ".csv"])
@pytest.mark.parametrize("umask", [0o022, 0o007])
def test_the_umask_says_who_may_read_a_file(tmp_path: Path, ending: str, umask: int) -> None:
    before = os.umask(umask)
    try:
        save_motion(tmp_path / f"motion{ending}", expression(), pose())
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / f"motion{ending}").stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("ending", EXACT)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    frames=st.integers(1, 30),
    fps=st.floats(0.1, 120, allow_nan=False),
    numbers=st.lists(st.floats(-1e4, 1e4, width=32), min_size=6, max_size=6),
)
def test_every_bit_comes_back(tmp_path: Path, ending: str, frames: int, fps: float, numbers: list) -> None:
    face = expression(frames, fps)
    head = pose(frames, fps).replace(values=torch.tensor([numbers] * frames))
    save_motion(tmp_path / f"both{ending}", face, head)
    motion = load_motion(tmp_path / f"both{ending}")
    assert torch.equal(motion.expression.values, face.values)
    assert torch.equal(motion.pose.values, head.values)
    assert motion.expression.fps == motion.pose.fps == fps
    assert motion.expression.names == ARKIT_NAMES and motion.expression.face_model == FACE_MODEL


@pytest.mark.parametrize("ending", EXACT)
def test_the_face_that_recorded_motion_starts_from_comes_back(tmp_path: Path, ending: str) -> None:
    rest = torch.rand(52)
    save_motion(tmp_path / f"take{ending}", expression(5, 25.0).replace(rest=rest), pose(5, 25.0))
    motion = load_motion(tmp_path / f"take{ending}")
    assert torch.equal(motion.expression.rest, rest) and motion.pose.rest is None


@pytest.mark.parametrize("ending", EXACT)
def test_another_face_model_keeps_its_name_and_width(tmp_path: Path, ending: str) -> None:
    flame = CoefficientSequence("expression", torch.randn(7, 100), 30.0, "flame-100")
    save_sequence(tmp_path / f"flame{ending}", flame)
    loaded = load_sequence(tmp_path / f"flame{ending}")
    assert torch.equal(loaded.values, flame.values)
    assert (loaded.face_model, loaded.names, loaded.fps) == ("flame-100", (), 30.0)


@pytest.mark.parametrize("fps", RATES)
def test_live_link_csv_comes_back(tmp_path: Path, fps: float) -> None:
    face, head = expression(150, fps), pose(150, fps)
    save_motion(tmp_path / "take.csv", face, head)
    motion = load_motion(tmp_path / "take.csv")
    assert motion.expression.fps == fps
    assert torch.equal(motion.expression.values, face.values)
    assert torch.allclose(motion.pose.values[:, :3], head.values[:, :3], atol=1e-5)
    assert motion.pose.values[:, 3:].abs().max() == 0, "the format has no place for the position"


def test_long_takes_do_not_drift(tmp_path: Path) -> None:
    head = pose(8_000, 29.97)
    save_motion(tmp_path / "long.csv", pose=head)
    loaded = load_sequence(tmp_path / "long.csv", "pose")
    assert loaded.num_frames == 8_000 and loaded.fps == 29.97
    assert torch.allclose(loaded.values[:, :3], head.values[:, :3], atol=1e-5)


def test_the_csv_has_the_header_and_angles_of_the_app(tmp_path: Path) -> None:
    head = pose(3).replace(
        values=torch.tensor([[0.0, 0.3, 0, 0, 0, 0], [0.2, 0, 0, 0, 0, 0], [0, 0, 0.1, 0, 0, 0]])
    )
    face = expression(3).replace(values=torch.zeros(3, 52))
    face.values[:, ARKIT_NAMES.index("jawRight")] = 0.25
    save_motion(tmp_path / "take.csv", face, head)
    with open(tmp_path / "take.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == HEADER
    assert [row["Timecode"] for row in rows] == ["00:00:00:00.000", "00:00:00:02.400", "00:00:00:04.800"]
    assert {row["BlendShapeCount"] for row in rows} == {"61"}
    angles = [[float(row[name]) for name in ("HeadPitch", "HeadYaw", "HeadRoll")] for row in rows]
    assert np.allclose(angles, [[0, 0.3, 0], [0.2, 0, 0], [0, 0, 0.1]], atol=1e-7)
    assert float(rows[0]["JawRight"]) == 0.25 and float(rows[0]["JawLeft"]) == 0


# Live Link Face takes as a phone writes them


def write_take(path: Path, timecodes: list[str], yaw: list[float], count: list[str] | None = None) -> Path:
    with open(path, "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        for index, (timecode, angle) in enumerate(zip(timecodes, yaw, strict=True)):
            number = count[index] if count else "61"
            values = [""] * 61 if number == "0" else [0.0] * 52 + [angle] + [0.0] * 8
            writer.writerow([timecode, number, *values])
    return path


def test_the_rotation_is_unreals_order(tmp_path: Path) -> None:
    path = write_take(
        tmp_path / "t.csv", [f"10:00:00:{i:02}.000" for i in range(60)] + ["10:00:01:00.000"], [0.0] * 61
    )
    rows = path.read_text("utf-8-sig").splitlines()
    cells = rows[1].split(",")
    yaw, pitch, roll = 0.5, 0.3, 0.2
    cells[54:57] = [str(yaw), str(pitch), str(roll)]
    path.write_text("\n".join([rows[0], ",".join(cells), *rows[2:]]), "utf-8")
    loaded = load_sequence(path, "pose").values[0, :3].double()

    def turn(axis: int, angle: float) -> np.ndarray:
        matrix = np.eye(3)
        i, j = ((1, 2), (2, 0), (0, 1))[axis]
        matrix[i, i] = matrix[j, j] = math.cos(angle)
        matrix[i, j], matrix[j, i] = -math.sin(angle), math.sin(angle)
        return matrix

    theirs = turn(1, yaw) @ turn(0, pitch) @ turn(2, roll)
    ours = turn(0, loaded[0]) @ turn(1, loaded[1]) @ turn(2, loaded[2])
    assert np.allclose(theirs, ours, atol=1e-6)


def test_thirty_frames_on_the_phones_clock_of_sixty(tmp_path: Path) -> None:
    codes = [f"15:59:{58 + i // 30:02}:{i % 30 * 2:02}.417" for i in range(60)]
    loaded = load_sequence(write_take(tmp_path / "t.csv", codes, [i / 100 for i in range(60)]), "pose")
    assert loaded.fps == 30.0 and loaded.num_frames == 60
    assert torch.allclose(loaded.values[:, 1], torch.arange(60) / 100, atol=1e-6)


def test_frames_that_the_phone_dropped_or_saw_no_face_in_are_filled(tmp_path: Path) -> None:
    kept = [i for i in range(150) if i not in (40, 41, 90)]
    codes = [
        f"23:59:{58 + i // 60:02}:{i % 60:02}.000" if i < 120 else f"00:00:00:{i - 120:02}.000" for i in kept
    ]
    count = ["0" if i in (20, 21) else "61" for i in kept]
    loaded = load_sequence(write_take(tmp_path / "t.csv", codes, [i / 200 for i in kept], count), "pose")
    assert loaded.fps == 60.0 and loaded.num_frames == 150
    assert torch.allclose(loaded.values[:, 1], torch.arange(150) / 200, atol=1e-5)


def test_a_rate_that_is_given_takes_a_line_for_a_frame(tmp_path: Path) -> None:
    path = write_take(tmp_path / "t.csv", ["00:00:00:00.000"] * 5, [0.1 * i for i in range(5)])
    loaded = load_sequence(path, "pose", fps=30)
    assert loaded.num_frames == 5 and loaded.fps == 30
    assert "set fps" in sentence(load_motion, path)
    short = write_take(tmp_path / "s.csv", [f"00:00:00:{i:02}.000" for i in range(5)], [0.0] * 5)
    assert "too short" in sentence(load_motion, short)


def test_a_bad_line_17_is_called_line_17(tmp_path: Path) -> None:
    save_motion(tmp_path / "take.csv", expression(60), pose(60))
    good = (tmp_path / "take.csv").read_text().splitlines()

    def spoiled(change) -> str:
        cells = good[16].split(",")
        change(cells)
        path = tmp_path / "bad.csv"
        path.write_text("\n".join([*good[:16], ",".join(cells), *good[17:]]))
        return sentence(load_motion, path)

    assert "bad.csv: line 17: JawOpen is 'wide'" in spoiled(
        lambda c: c.__setitem__(HEADER.index("JawOpen"), "wide")
    )
    assert "line 17: HeadYaw is 'nan'" in spoiled(lambda c: c.__setitem__(HEADER.index("HeadYaw"), "nan"))
    assert "line 17: it has 62 values, but the header names 63" in spoiled(lambda c: c.pop())
    assert "line 17: the timecode is 'soon'" in spoiled(lambda c: c.__setitem__(0, "soon"))
    assert "line 17: its timecode is -" in spoiled(lambda c: c.__setitem__(0, "00:00:00:00.000"))


def test_a_csv_that_is_no_take(tmp_path: Path) -> None:
    (tmp_path / "money.csv").write_text("date,sum\n1,2\n")
    assert "no column 'Timecode'" in sentence(load_motion, tmp_path / "money.csv")
    (tmp_path / "few.csv").write_text("Timecode,EyeBlinkLeft\n00:00:00:00,1\n")
    assert "51 of ARKit's 52 blendshapes are missing" in sentence(load_motion, tmp_path / "few.csv")
    (tmp_path / "head.csv").write_text(",".join(HEADER) + "\n")
    assert "no frames" in sentence(load_motion, tmp_path / "head.csv")
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00" * 50)
    assert "UTF-8" in sentence(load_motion, tmp_path / "bytes.csv")


# Deep3D, SadTalker, DreamTalk


def deep3d_rows(frames: int = 9) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.3, (frames, 257)).astype(np.float32)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("full_3dmm", range(257)),
        ("coeff", range(257)),
        ("coeff_3dmm", [*range(80, 144), *range(224, 227), *range(254, 257)]),
    ],
)
def test_mat_files_as_scipy_writes_them(tmp_path: Path, compressed: bool, name: str, columns) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    rows = deep3d_rows()
    scipy_io.savemat(
        tmp_path / "c.mat", {name: rows[:, list(columns)], "note": "text"}, do_compression=compressed
    )
    motion = load_motion(tmp_path / "c.mat", fps=25)
    assert motion.expression.face_model == "bfm-64"
    assert np.array_equal(motion.expression.values.numpy(), rows[:, 80:144])
    assert np.array_equal(motion.pose.values[:, 3:].numpy(), rows[:, 254:257])

    def deep3d_rotation(angles: np.ndarray) -> np.ndarray:
        (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
        x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
        y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
        return z @ y @ x

    from fd2talk_core.face.rotations import rotation_matrix

    for ours, theirs in zip(motion.pose.values[:, :3], rows[:, 224:227], strict=True):
        assert np.allclose(
            rotation_matrix(ours).numpy(), deep3d_rotation(theirs.astype(np.float64)), atol=1e-5
        )


def test_mat_parts_and_pose_alone(tmp_path: Path) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    rows = deep3d_rows()
    parts = {"exp": rows[:, 80:144], "angle": rows[:, 224:227], "trans": rows[:, 254:257]}
    scipy_io.savemat(tmp_path / "parts.mat", parts)
    assert load_motion(tmp_path / "parts.mat", 25).expression.num_frames == 9
    scipy_io.savemat(tmp_path / "pose.mat", {"angle": parts["angle"]})
    assert load_sequence(tmp_path / "pose.mat", fps=25).kind == "pose"
    assert "holds no expression, only a pose" in sentence(
        load_motion(tmp_path / "pose.mat", 25).require, "expression"
    )
    scipy_io.savemat(tmp_path / "style.mat", {"coeff": rows[:, :64]})
    assert load_sequence(tmp_path / "style.mat", fps=25).kind == "expression"
    assert "does not say its frame rate; set fps" in sentence(load_motion, tmp_path / "style.mat")


def test_mat_files_that_hold_something_else(tmp_path: Path) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    cases = {
        "it holds other, but one of": {"other": np.zeros((3, 3))},
        "has 12 columns, but 64, 70, 73": {"coeff": np.zeros((3, 12))},
        "not a number at frame 2": {
            "coeff": np.where(np.arange(257 * 4).reshape(4, 257) == 600, np.nan, 0.0)
        },
        "no arrays of numbers": {"cells": np.array([1, "a"], dtype=object), "struct": {"a": 1}},
        "its parts differ in their number of frames: exp 3, angle 4": {
            "exp": np.zeros((3, 64)),
            "angle": np.zeros((4, 3)),
        },
    }
    for expected, content in cases.items():
        scipy_io.savemat(tmp_path / "x.mat", content)
        assert expected in sentence(load_motion, tmp_path / "x.mat", 25)
    (tmp_path / "x.mat").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(600))
    assert "MATLAB 7.3" in sentence(load_motion, tmp_path / "x.mat", 25)
    (tmp_path / "x.mat").write_bytes(b"hello" * 100)
    assert "not a MATLAB 5 file" in sentence(load_motion, tmp_path / "x.mat", 25)


# Choosing and refusing


def test_one_of_two_must_be_named(tmp_path: Path) -> None:
    save_motion(tmp_path / "both.npz", expression(), pose())
    assert load_sequence(tmp_path / "both.npz", "pose").kind == "pose"
    assert "say which kind" in sentence(load_sequence, tmp_path / "both.npz")
    save_motion(tmp_path / "one.npz", pose=pose())
    assert "one.npz holds no expression, only a pose" in sentence(
        load_sequence, tmp_path / "one.npz", "expression"
    )


def test_what_cannot_be_saved_is_said(tmp_path: Path) -> None:
    assert "connect an expression, a pose or both" in sentence(save_motion, tmp_path / "a.npz")
    assert "the expression given is a pose" in sentence(save_motion, tmp_path / "a.npz", expression=pose())
    assert "25 fps and the pose at 30" in sentence(
        save_motion, tmp_path / "a.npz", expression(), pose(fps=30)
    )
    assert "one of .safetensors, .npz, .json, .csv" in sentence(save_motion, tmp_path / "a.mat", expression())
    assert "40 frames and the pose 41" in sentence(save_motion, tmp_path / "a.csv", expression(), pose(41))
    bfm = CoefficientSequence("expression", torch.zeros(3, 64), 25, "bfm-64")
    assert "of the face model 'bfm-64'" in sentence(save_motion, tmp_path / "a.csv", bfm)
    assert not list(tmp_path.iterdir()), "a failed save leaves nothing behind"


def test_a_failed_save_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_motion(tmp_path / "a.npz", expression())
    before = (tmp_path / "a.npz").read_bytes()

    def full_disk(path: Path, *_: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(sequence_files.WRITERS, ".npz", full_disk)
    assert "a.npz: the disk is full" in sentence(save_motion, tmp_path / "a.npz", expression(seed=5))
    assert (tmp_path / "a.npz").read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_a_rate_that_is_given_overrides_the_files(tmp_path: Path) -> None:
    save_motion(tmp_path / "a.json", expression())
    assert load_sequence(tmp_path / "a.json", fps=50).fps == 50
    assert "fps is 0" in sentence(load_motion, tmp_path / "a.json", fps=0)


def test_json_by_hand(tmp_path: Path) -> None:
    (tmp_path / "nod.json").write_text('{"fps": 25, "pose": [[0, 0, 0, 0, 0, 0], [0.2, 0, 0, 0, 0, 0]]}')
    loaded = load_sequence(tmp_path / "nod.json")
    assert loaded.kind == "pose" and loaded.values[1, 0] == pytest.approx(0.2)
    assert json.loads((tmp_path / "nod.json").read_text())["fps"] == 25


def bare_npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def npz_with_header(shape: tuple[int, ...]) -> bytes:
    array = io.BytesIO()
    np.lib.format.write_array_header_1_0(array, {"descr": "<f4", "fortran_order": False, "shape": shape})
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("pose.npy", array.getvalue() + bytes(24))
    return buffer.getvalue()


class Bomb:
    """What a pickle could do: leave a trace on the disk."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return (open, (str(self.trace), "w"))


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    pickled = pickle.dumps(Bomb(trace))
    array = np.empty(1, dtype=object)
    array[0] = Bomb(trace)
    buffer = io.BytesIO()
    np.savez(buffer, pose=array)
    for ending in sequence_files.READERS:
        for content in (pickled, buffer.getvalue()):
            path = tmp_path / f"bomb{ending}"
            path.write_bytes(content)
            assert f"bomb{ending}: " in sentence(load_motion, path, 25)
    assert "Python objects, which are never loaded" in sentence(load_motion, tmp_path / "bomb.npz")
    assert not trace.exists()


def test_wrong_content_is_named(tmp_path: Path) -> None:
    rows = "[[0,0,0,0,0,0]]"
    cases: dict[str, tuple[bytes | str, str]] = {
        "list.json": ("[1, 2]", "it holds a list"),
        "cut.json": ('{"fps": 25,\n"pose": [[0, 0', "line 2: "),
        "norate.json": (f'{{"pose": {rows}}}', "does not say its frame rate; set fps"),
        "rate.json": (f'{{"fps": "fast", "pose": {rows}}}', "its fps is 'fast'"),
        "zero.json": (f'{{"fps": 0, "pose": {rows}}}', "fps is 0"),
        "neither.json": ('{"fps": 25}', "neither an expression nor a pose"),
        "words.json": ('{"fps": 25, "pose": [["a"]]}', "at frame 0 is not a list of numbers"),
        "true.json": ('{"fps": 25, "pose": [[true,0,0,0,0,0]]}', "at frame 0 is not a list of numbers"),
        "ragged.json": (
            '{"fps": 25, "pose": [[0,0,0,0,0,0],[1]]}',
            "has 1 values at frame 1, but 6 before it",
        ),
        "narrow.json": ('{"fps": 25, "pose": [[0,0,0]]}', "has 3 columns, but 6"),
        "empty.json": ('{"fps": 25, "pose": []}', "is needed"),
        "nan.json": ('{"fps": 25, "pose": [[0,0,NaN,0,0,0]]}', "not a number at frame 0"),
        "huge.json": ('{"fps": 25, "pose": [[0,0,1e999,0,0,0]]}', "not a number at frame 0"),
        "long.json": (f'{{"fps": 25, "pose": [[{"9" * 400},0,0,0,0,0]]}}', "beyond all floats"),
        "deep.json": ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        "other.json": (f'{{"format": "bvh", "fps": 25, "pose": {rows}}}', "its format is 'bvh'"),
        "new.json": (f'{{"version": 9, "fps": 25, "pose": {rows}}}', "its format version is 9"),
        "whose.json": (
            '{"fps": 25, "expression": [[0.5, 0.5]]}',
            "which face model its expression belongs to",
        ),
        "latin.json": (b'{"fps": "\xff"}', "not text in UTF-8"),
        "empty.npz": (b"", "it is empty"),
        "text.npz": ("hello", "not an npz file"),
        "norate.npz": (bare_npz(pose=np.zeros((2, 6))), "set fps"),
        "flat.npz": (bare_npz(pose=np.zeros(6), fps=25), "[frames, coefficients]"),
        "text2.npz": (bare_npz(pose=np.array([["a"] * 6]), fps=25), "numbers are needed"),
        "inf.npz": (bare_npz(pose=np.full((2, 6), np.inf), fps=25), "not a number at frame 0"),
        "lie.npz": (npz_with_header((1 << 40, 6)), "cut short or too long"),
        "negative.npz": (npz_with_header((-1, 6)), "cut short or too long"),
        "text.safetensors": ("hello", "not a safetensors file"),
        "lie.safetensors": (struct.pack("<Q", 1 << 60) + b"{}", "not a safetensors file"),
        "x.bvh": ("HIERARCHY", "one of .safetensors, .npz, .json, .csv, .mat"),
    }
    for name, (content, expected) in cases.items():
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        message = sentence(load_motion, path)
        assert expected in message and name in message, message
    assert "There is no motion file" in sentence(load_motion, tmp_path / "missing.json")


def test_a_checkpoint_is_not_motion(tmp_path: Path) -> None:
    save_file({"pose": torch.zeros(3, 6)}, tmp_path / "unet.safetensors", {"class": "FrameUNet"})
    assert "is it a checkpoint?" in sentence(load_motion, tmp_path / "unet.safetensors")


def test_bombs_are_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequence_files, "MAX_BYTES", 1 << 20)
    monkeypatch.setattr("fd2talk_core.formats.deep3d.MAX_BYTES", 1 << 20)
    monkeypatch.setitem(sequence_files.MAX_TEXT_BYTES, ".json", 1 << 10)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, pose=np.zeros((100_000, 6)), fps=25)
    (tmp_path / "zip.npz").write_bytes(buffer.getvalue())
    assert len(buffer.getvalue()) < 1 << 16 and "would unpack to" in sentence(
        load_motion, tmp_path / "zip.npz"
    )
    packed = zlib.compress(bytes(4 << 20))
    header = b"MATLAB 5.0".ljust(124) + b"\x00\x01IM"
    (tmp_path / "zip.mat").write_bytes(header + struct.pack("<II", 15, len(packed)) + packed)
    assert "unpack to more than" in sentence(load_motion, tmp_path / "zip.mat", 25)
    (tmp_path / "big.json").write_text(" " * 2000)
    assert "at most" in sentence(load_motion, tmp_path / "big.json")
    monkeypatch.setattr(sequence_files, "MAX_VALUES", 100)
    save_motion(tmp_path / "long.safetensors", pose=pose())
    assert "240 numbers, but at most 100" in sentence(load_motion, tmp_path / "long.safetensors")


@pytest.fixture(scope="module")
def good_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    scipy_io = pytest.importorskip("scipy.io")
    folder = tmp_path_factory.mktemp("good")
    for ending in sequence_files.WRITERS:
        save_motion(folder / f"x{ending}", expression(30), pose(30))
    scipy_io.savemat(folder / "x.mat", {"coeff_3dmm": deep3d_rows()[:, :70], "more": np.arange(5)})
    scipy_io.savemat(folder / "packed.mat", {"coeff_3dmm": deep3d_rows()[:, :70]}, do_compression=True)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_load_or_say_so(
    tmp_path: Path, good_files: dict[str, bytes], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(good_files)))
    content = bytearray(good_files[name])
    early = st.integers(0, min(len(content) - 1, 700))
    for place in data.draw(st.lists(early | st.integers(0, len(content) - 1), max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    path = tmp_path / name
    path.write_bytes(bytes(content))
    try:
        motion = load_motion(path, 25)
    except FD2TalkError as error:
        assert name in str(error)  # noqa: PT017, it need not fail
    else:
        for sequence in (motion.expression, motion.pose):
            assert sequence is None or torch.isfinite(sequence.values).all()


def test_the_open_face_model_is_the_one_that_ships() -> None:
    """Poses made here, and recordings by ARKit's names, must be taken by the networks that ship."""
    from fd2talk_core.face.model import default_face_model

    assert default_face_model().name == sequence_files.OPEN_FACE_MODEL

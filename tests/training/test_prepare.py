"""Films become shards: what is kept, why the rest is not, and that a kill costs nothing."""

from __future__ import annotations

import json
import shutil
import signal
import struct
import sys
from dataclasses import replace
from fractions import Fraction
from functools import partial
from importlib import import_module
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import scipy.io
import torch
from safetensors.torch import load
from torch import Tensor

from fd2talk_core.audio.reading import read_audio
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.model import default_face_model
from fd2talk_core.formats.video import VideoWriter
from fd2talk_core.formats.video_frames import VideoFrames
from fd2talk_core.frames.close_ups import CloseUps
from fd2talk_core.imaging import read_image
from fd2talk_core.timing import check_fps
from training.corpus.shards import read_samples
from training.evaluate.__main__ import main as evaluate
from training.prepare import cutting, packing, parts
from training.prepare.__main__ import main
from training.prepare.cutting import Clip, CutSettings, Dropped
from training.prepare.films import Film, PictureFolder, find_films
from training.prepare.packing import split_people
from training.prepare.synchrony import Timing, timing_of
from training.prepare.work import work_through

sys.path[:0] = [str(Path(__file__).parent)]

import prepare_process  # noqa: E402
import stage_process  # noqa: E402

EXAMPLES = Path(__file__).parents[2] / "example_inputs"
WEIGHTS = EXAMPLES.parent / "fd2talk_core" / "weights" / "tiny"
FRAMES = 14
SIZE = 64


def filmed(frames: int = FRAMES) -> Tensor:
    """``[frames, 256, 256, 3]`` in 0..1 of the example's driving video."""
    return torch.stack(list(islice(VideoFrames(EXAMPLES / "driving.mp4"), frames))).float() / 255


def write_film(path: Path, pictures: Tensor, sound: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    waveform, rate = read_audio(EXAMPLES / "speech.wav")
    count = round(len(pictures) * rate / 25)
    audio = (waveform[:, rate // 2 : rate // 2 + count], rate) if sound else None
    with VideoWriter(path, 25.0, audio=audio, crf=10) as writer:
        writer.write(pictures)


def turn_by_metadata(path: Path) -> None:
    """Say in the film's header that it is to be shown a quarter turned, as phones do."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40
    width = content[at + 36 : at + 40]
    matrix = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, struct.unpack(">i", width)[0], 0, 1 << 30)
    content[at : at + 36] = matrix
    path.write_bytes(content)


def write_unsteady(path: Path, pictures: Tensor) -> None:
    """A film whose frames last 20, 40 and 60 ms in turn."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=50)
        stream.width, stream.height, stream.pix_fmt = pictures.shape[2], pictures.shape[1], "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 50)
        moment = 0
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray((picture * 255).byte().numpy(), format="rgb24")
            frame.pts, frame.time_base = moment, Fraction(1, 50)
            container.mux(stream.encode(frame))
            moment += 1 + number % 3
        container.mux(stream.encode())


def prepare(source: Path, out: Path, *more: str, dataset: str = "folder") -> int:
    line = ["--dataset", dataset, "--in", source, "--out", out, "--size", SIZE, "--min-seconds", "0.4"]
    return main([str(word) for word in (*line, "--pictures", "3", "--workers", "1", *more)])


def told(out: Path) -> dict[str, dict]:
    """What each film holds, by its place."""
    films = json.loads((out / "prepared.json").read_text())["films"]
    return {film["place"]: film for film in films.values()}


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Odd films, prepared; and what the command said."""
    folder = tmp_path_factory.mktemp("odd")
    person, films = filmed(), folder / "films"
    write_film(films / "turned" / "turned.mp4", person.rot90(1, (1, 2)))
    turn_by_metadata(films / "turned" / "turned.mp4")
    write_unsteady(films / "unsteady.mp4", person)
    write_film(films / "silent.mp4", person, sound=False)
    pair = read_image(EXAMPLES / "two_people.png")
    scale = 320 / pair.shape[1]
    small = torch.nn.functional.interpolate(pair.movedim(-1, 0)[None], scale_factor=scale, mode="area")[0]
    small = small[:, : small.shape[1] // 2 * 2, : small.shape[2] // 2 * 2].movedim(0, -1)
    write_film(films / "pair.mp4", small.expand(FRAMES, -1, -1, -1))
    scenery = torch.linspace(0, 1, 128)[:, None, None].expand(FRAMES, 128, 128, 3)
    write_film(films / "empty.mp4", scenery)
    write_film(films / "short.mp4", person[:6])
    (films / "text.mp4").write_text("not a film")
    assert prepare(films, folder / "out") == 0
    return folder, (folder / "out" / "report.html").read_text(encoding="utf-8")


def test_every_odd_film_is_kept_or_dropped_for_the_right_reason(odd: tuple[Path, str]) -> None:
    films = told(odd[0] / "out")
    reasons = {place: [part["reason"] for part in film["dropped"]] for place, film in films.items()}
    assert reasons == {
        "turned/turned.mp4": [],
        "unsteady.mp4": [],
        "silent.mp4": [],
        "pair.mp4": ["several"],
        "empty.mp4": ["no_face"],
        "short.mp4": ["short"],
        "text.mp4": ["unreadable"],
    }
    (turned,), (silent,), (unsteady,) = (
        films[place]["clips"] for place in ("turned/turned.mp4", "silent.mp4", "unsteady.mp4")
    )
    assert turned["heard"] and turned["frames"] == FRAMES and turned["first"] == 0
    assert not silent["heard"] and not unsteady["heard"]
    # 14 frames of 40 ms on average are 14 frames at 25 fps
    assert abs(unsteady["frames"] - FRAMES) <= 1
    # turned upright, it is the same head in the same place as the film that was never turned
    assert turned["square"] == pytest.approx(silent["square"], abs=4)
    assert min(clip["quality"] for clip in (turned, silent, unsteady)) > 0.5


def test_the_report_shows_what_was_kept_and_dropped(odd: tuple[Path, str]) -> None:
    page = odd[1]
    for reason in ("several", "no_face", "short", "unreadable"):
        assert cutting.REASONS[reason] in page
    assert page.count("data:image/jpeg;base64,") == 6  # all but the text, of which there is nothing to see
    assert "http" not in page


def test_shards_hold_what_was_seen_and_heard(odd: tuple[Path, str]) -> None:
    out = odd[0] / "out"
    speech = [s for path in out.rglob("clips-*.tar") for s in read_samples(path)]
    assert len(speech) == 1, "two of the three films are silent"
    key, members = speech[0]
    arrays, about = load(members["safetensors"]), json.loads(members["json"])
    assert arrays["expression"].shape == (FRAMES, 52) and arrays["quality"].shape == (FRAMES,)
    assert about["speaker"] == "turned" and about["fps"] == 25.0
    assert len(members["wav"]) == 44 + 2 * 640 * FRAMES
    people = dict(s for path in out.rglob("frames-*.tar") for s in read_samples(path))
    assert len(people) == 3 and key in people
    about = json.loads(people[key]["json"])
    assert about["clip"] == key and about["clip_frames"][0] == 0 and len(about["clip_frames"]) == 3
    assert about["face_model"] == default_face_model().digest
    silent = [json.loads(m["json"])["clip"] for k, m in people.items() if k != key]
    assert silent == [None, None]
    sides = {path.parent.relative_to(out).as_posix() for path in out.rglob("frames-*.tar")}
    assert sides == {"data/train", "data/heldout", "test"}
    (video,) = (s for path in out.rglob("videos-*.tar") for s in read_samples(path))
    assert sum(name.endswith("jpg") for name in video[1]) >= FRAMES - 1
    assert not (out / "parts").exists()


def test_a_second_run_adds_only_what_is_new(odd: tuple[Path, str], tmp_path: Path, capsys) -> None:
    out, films = tmp_path / "out", tmp_path / "films"
    shutil.copytree(odd[0] / "out", out)
    shutil.copytree(odd[0] / "films", films)
    before = {path: path.read_bytes() for path in out.rglob("*.tar")}
    (films / "more.mp4").write_text("none either")
    assert prepare(films, out) == 0
    assert {path: path.read_bytes() for path in out.rglob("*.tar")} == before
    assert told(out)["more.mp4"]["dropped"][0]["reason"] == "unreadable"
    assert prepare(films, out, "--size", "128") == 2
    assert "was made with size 64 in place of 128" in capsys.readouterr().err


# ---- kills -------------------------------------------------------------------------------------------------


def run_until(folder: Path, kill_at: int = 0) -> int:
    """The exit status of a run that is killed at its n-th file, or not at all."""
    process = stage_process.context().Process(
        target=prepare_process.run, args=(folder / "films", folder / "out", kill_at)
    )
    process.start()
    process.join(120)
    return process.exitcode


def packed(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in (folder / "out").rglob("*.tar")}


def test_killed_anywhere_it_goes_on_with_no_clip_lost_and_none_twice(tmp_path: Path) -> None:
    for number in range(4):
        pictures = torch.full((4, 64, 64, 3), 0.1 * number)
        write_film(tmp_path / "films" / f"person{number % 3}" / f"{number}.mp4", pictures, sound=False)
    assert run_until(tmp_path) == 0
    whole = packed(tmp_path)
    keys = [key for path in (tmp_path / "out").rglob("frames-*.tar") for key, _ in read_samples(path)]
    assert len(keys) == len(set(keys)) == 8
    place, killed = 1, 0
    while True:
        shutil.rmtree(tmp_path / "out")
        status = run_until(tmp_path, place)
        if status == 0:
            break
        assert status == -signal.SIGKILL
        assert run_until(tmp_path) == 0
        assert packed(tmp_path) == whole, f"killed at file {place}"
        place, killed = place + 5, killed + 1
    assert killed > 3


def test_stages_learn_from_prepared_films_and_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The paper's second stage as well: estimated conditions, and a clip's first frame as the reference. What
    comes out of all of it is a set of weights that the papers' tables measure.
    """
    generator = torch.Generator().manual_seed(0)
    for number in range(3):
        pictures = torch.rand(3, 1, 8, 8, generator=generator)
        pictures = pictures.repeat_interleave(8, 2).repeat_interleave(8, 3).expand(3, 60, 64, 64)
        write_film(tmp_path / "films" / f"person{number}.mp4", pictures.permute(1, 2, 3, 0), sound=False)
    monkeypatch.setattr(parts, "cut_film", partial(prepare_process.cheap_cut, frames=30))
    shipped = default_face_model()
    monkeypatch.setattr(parts, "_tools", lambda *_: cutting.Tools(None, shipped, None, shipped))
    assert prepare(tmp_path / "films", tmp_path / "out", "--size", "128", "--videos") == 0
    weights = tmp_path / "weights"
    weights.mkdir()
    shutil.copy(WEIGHTS / "audio_encoder.safetensors", weights)
    line = ["--config", "smoke", "--data", tmp_path / "out" / "data", "--weights", weights, "--steps", "2"]
    line += ["--runs", tmp_path / "runs", "--set", "train.batch_size=2"]
    changes = {
        "motion": ["frames=12", "sync_weight=0", "held_out_clips=1", "held_out_seconds=1.0"],
        "autoencoder": ["crop=32", "held_out_pairs=2"],
        "latent_flow": [],
        "flow": ["frames=4"],
        "unet": ["condition=estimated", "reference=first", "held_out_pairs=2"],
    }
    for stage, settings in changes.items():
        more = [word for change in settings for word in ("--set", change)]
        assert import_module(f"training.{stage}").main([*map(str, line), *more]) == 0
    report = json.loads((tmp_path / "runs" / "default" / "unet" / "report.json").read_text())
    assert report["steps"] == 2 and "conditions of 6 estimated" in report["trained_on"]
    write_film(tmp_path / "clips" / "clip.mp4", filmed(5))
    words = ["--set", tmp_path / "clips", "--model", weights, "--seconds", "0.2", "--seeds", "2"]
    words += ["--out", tmp_path / "table", "--instruments", tmp_path / "none"]
    # mouth and eyes that are drawn over noise are at times taken for a face
    monkeypatch.setattr(CloseUps, "add_to", lambda self, crops, *_: crops)
    assert evaluate([str(word) for word in words]) == 0
    columns = json.loads((tmp_path / "table" / "evaluation.json").read_text())["columns"]
    assert columns["psnr"]["mean"]["made"] > 5 and columns["expression_diversity"]["mean"]["made"] > 0
    # two steps do not draw a face, and a clip without one counts
    assert columns["found"]["mean"] == {"made": 0.0, "real": 1.0}
    assert columns["lip_r"]["note"] == "needs a face in what was made"


# ---- parts -------------------------------------------------------------------------------------------------


def test_people_of_the_datasets_are_known_by_their_names(tmp_path: Path) -> None:
    names = {
        "hdtf": {
            "WDA_AdamSchiff0_000.mp4": "WDA_AdamSchiff",
            "WDA_AdamSchiff1_002.mp4": "WDA_AdamSchiff",
            "RD_Radio9_000.mp4": "RD_Radio9",
        },
        "voxceleb": {"mp4/id00012/21Ux/00001.mp4": "id00012", "id10283#Y8J#001234#001400.mp4": "id10283"},
        "folder": {"anna/one.mp4": "anna", "anna/b/two.mov": "anna", "bert.mp4": "bert"},
    }
    for dataset, people in names.items():
        for name in people:
            (tmp_path / dataset / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / dataset / name).touch()
        films = find_films(tmp_path / dataset, dataset)
        assert {film.place: film.person for film in films} == people
        assert len({film.key[:31] for film in films}) == len(films)
    (tmp_path / "none").mkdir()
    with pytest.raises(FD2TalkError, match="holds no films"):
        find_films(tmp_path / "none", "vfhq")


def test_vfhq_comes_as_folders_of_pictures(tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "Clip+_0Pg5x+P2+C0+F1537-1661"
    folder.mkdir()
    for number in range(4):
        Image.fromarray(np.full((8, 8, 3), 10 * number, np.uint8)).save(folder / f"{number:08d}.png")
    (film,) = find_films(tmp_path, "vfhq")
    assert film.person == "_0Pg5x+P2"
    pictures = PictureFolder(folder)
    assert [int(p[0, 0, 0]) for p in pictures.span()] == [0, 10, 20, 30]
    assert [int(p[0, 0, 0]) for p in pictures.span(1, 3)] == [10, 20]
    assert [int(p[0, 0, 0]) for p in pictures.span(fps=50)] == [0, 0, 10, 10, 20, 20, 30, 30]


def test_people_are_split_70_10_20_and_keep_their_side() -> None:
    names = [f"person {i}" for i in range(100)]
    people = split_people(names, {})
    counts = [sum(side == split for side in people.values()) for split in packing.SHARES]
    assert counts == [70, 10, 20]
    more = split_people([*names, *(f"other {i}" for i in range(100))], people)
    assert {name: more[name] for name in names} == people
    assert [sum(side == split for side in more.values()) for split in packing.SHARES] == [140, 20, 40]
    assert set(split_people("abc", {}).values()) == set(packing.SHARES)


def test_a_clip_ends_where_the_head_has_left_its_place() -> None:
    from fd2talk_core.face.landmarks import Face

    def at(x: float) -> Face:
        return Face((x, 0.0, x + 100, 100.0), torch.zeros(478, 3), torch.zeros(52), 1.0)

    assert cutting._overlap(at(0), at(0)) == pytest.approx(1)
    assert cutting._overlap(at(0), at(50)) == pytest.approx(1 / 3)
    assert cutting._overlap(at(0), at(200)) == 0


def test_sound_that_ends_early_cuts_the_clip_or_leaves_it_silent() -> None:
    sound = torch.ones(640 * 20)
    assert len(cutting._span(sound, 5, 10, 5)) == 6400
    assert len(cutting._span(sound, 12, 10, 5)) == 6400  # two frames may be missing
    assert len(cutting._span(sound, 10, 30, 5)) == 6400
    assert cutting._span(sound, 17, 30, 5) is None
    assert cutting._span(torch.zeros(6400), 0, 10, 5) is None


def test_coefficients_that_are_brought_take_the_place_of_ours(tmp_path: Path) -> None:
    clip = Clip(
        *(2, (0.0, 0.0, 1.0), torch.zeros(80), torch.zeros(3, 52), torch.zeros(3, 6), torch.ones(3)),
        *(None, None),
    )
    film = Film(tmp_path / "anna" / "one.mp4", "anna/one.mp4", "anna")
    basel = SimpleNamespace(name="bfm09", identity_dim=80, expression_dim=64)
    assert cutting.with_brought(clip, film, tmp_path, basel) == Dropped("no_coefficients", 2, 3)
    rows = np.random.default_rng(0).standard_normal((6, 257))
    (tmp_path / "anna").mkdir()
    scipy.io.savemat(tmp_path / "anna" / "one.mat", {"coeff": rows})
    found = cutting.with_brought(clip, film, tmp_path, basel)
    assert torch.equal(found.expression, torch.from_numpy(rows[2:5, 80:144]).float())
    assert torch.equal(found.pose[:, 3:], torch.from_numpy(rows[2:5, 254:257]).float())
    torch.testing.assert_close(found.identity, torch.from_numpy(rows[2:5, :80]).float().mean(dim=0))
    with pytest.raises(FD2TalkError, match="of another face model than"):
        cutting.with_brought(clip, film, tmp_path, default_face_model())
    with pytest.raises(FD2TalkError, match="has 6 rows, but a clip ends at frame 7"):
        cutting.with_brought(replace(clip, first=4), film, tmp_path, basel)
    with pytest.raises(FD2TalkError, match="belong together"):
        CutSettings(coefficients="somewhere")


def test_the_lip_expert_hears_what_is_shifted_and_what_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an expert that compares one number of the mouth with one of the sound."""
    import training.prepare.synchrony as synchrony

    class Expert:
        class config:
            frames = 5

    def likeness(expert: Expert, mouth: Tensor, audio: Tensor) -> Tensor:
        return -(mouth[..., 0, 0] - audio[..., 0]).abs()

    monkeypatch.setattr(synchrony, "sync_over_clip", likeness)
    track = torch.rand(120, generator=torch.Generator().manual_seed(0))
    mouth, audio = track[:100, None, None], track[:100, None]
    assert timing_of(Expert(), mouth, audio).offset == 0
    late = timing_of(Expert(), track[3:103, None, None], audio)
    assert late.offset == 3 and late.confidence > 0.2
    other = timing_of(Expert(), mouth.flip(0), audio)
    assert isinstance(other, Timing) and other.confidence < 0.1


def test_processes_do_what_one_does() -> None:
    assert sorted(work_through(abs, [-1, 2, -3], 2)) == [1, 2, 3]
    assert list(work_through(abs, [-1, 2, -3], 1)) == [1, 2, 3]
    with pytest.raises(FD2TalkError, match="fps is 0"):
        list(work_through(check_fps, [25.0, 0.0], 1))

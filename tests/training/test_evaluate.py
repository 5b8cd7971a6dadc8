"""A folder of clips becomes the papers' table."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from fd2talk_core.audio.reading import read_audio
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.crop import CropTransform
from fd2talk_core.face.landmarks import FaceLandmarker
from fd2talk_core.formats.video import VideoWriter
from fd2talk_core.networks.checkpoint import SHIPPED
from training.evaluate import bench
from training.evaluate.__main__ import main
from training.evaluate.bench import Evaluation, read_scores, write_scores
from training.evaluate.columns import BY_KEY, COLUMNS
from training.evaluate.making import FPS, MakingOptions, _inside, make_clip, read_frames
from training.evaluate.page import csv_table, html_page, text_table
from training.evaluate.scoring import CHANCE, MADE, REAL, ClipScores, Instruments, score_clip, summarise
from training.scorecard.weights import Weights

ROOT = Path(__file__).parents[2]
DRIVING = ROOT / "example_inputs" / "driving.mp4"


def scores(name: str, psnr: float, seed: int) -> ClipScores:
    generator = torch.Generator().manual_seed(seed)
    faces = torch.randn(3, 6, 4, generator=generator)
    return ClipScores(
        name,
        6,
        {MADE: {"psnr": psnr, "blinks": 0.2}, REAL: {"blinks": 0.4}, CHANCE: {"psnr": 10.0}},
        {
            "fid_made": faces[0],
            "fid_real": faces[1],
            "fid_chance": faces[2],
            "csim_real": torch.tensor([[1.0, float(seed)]]),
        },
        {"beat_align": "needs a clip with sound"},
    )


def talking_clip(path: Path) -> None:
    """Five frames of the example's driving video, with the start of the example's speech."""
    waveform, rate = read_audio(ROOT / "example_inputs" / "speech.wav")
    frames = torch.stack(read_frames(DRIVING, 0.2)).float() / 255
    with VideoWriter(path, FPS, (waveform[:, : round(len(frames) / FPS * rate)], rate)) as writer:
        writer.write(frames)


def test_means_deviations_sets_and_reasons() -> None:
    clips = [scores("a", 20.0, 0), scores("b", 24.0, 1)]
    found = summarise(clips, {"lpips": "needs AlexNet"})
    assert list(found) == [column.key for column in COLUMNS]
    assert found["psnr"].mean == {MADE: 22.0, CHANCE: 10.0} and found["psnr"].clips[MADE] == 2
    assert found["psnr"].deviation[MADE] == pytest.approx(8**0.5)
    assert found["lpips"].note == "needs AlexNet" and not found["lpips"].mean
    assert found["beat_align"].note == "needs a clip with sound"
    # one number for all frames of both clips, and the faces of two people as chance
    assert found["fid"].clips == {MADE: 12, CHANCE: 12} and found["fid"].mean[MADE] > 0
    assert found["csim"].mean[CHANCE] == pytest.approx(0.5**0.5)
    one = summarise(clips[:1], {})
    assert CHANCE not in one["csim"].mean and MADE not in one["psnr"].deviation


def test_what_is_kept_comes_back_and_only_for_the_same_making(tmp_path: Path) -> None:
    given = scores("a", 20.0, 0)
    write_scores(given, tmp_path, "key")
    found = read_scores(tmp_path, "key")
    assert (found.name, found.values, found.notes) == (given.name, given.values, given.notes)
    torch.testing.assert_close(dict(found.features), dict(given.features))
    assert read_scores(tmp_path, "another") is None and read_scores(tmp_path / "none", "key") is None
    (tmp_path / "scores.json").write_text("{")
    with pytest.raises(FD2TalkError, match="delete it to measure it anew"):
        read_scores(tmp_path, "key")


def test_the_page_and_the_tables_say_what_is_missing_and_escape_names() -> None:
    clips = [scores("<b>", 20.0, 0), scores("c", 24.0, 1)]
    columns = summarise(clips, {"lpips": BY_KEY["lpips"].needs.name})
    result = Evaluation("set", MakingOptions(), clips, ["d.mp4 left out: <no face>"], columns)
    text = text_table(result)
    assert "22.000 ± 2.828" in text and "alexnet-owt" in text and "of 12 samples" in text
    page = html_page(result)
    assert "<b>" not in page and "&lt;b&gt;" in page and "&lt;no face&gt;" in page
    assert "PSNR ↑" in page and "22.000 ± 2.828" in page and "22.000<br><small>± 2.828</small>" in page
    rows = list(csv.DictReader(csv_table(result).splitlines()))
    assert [(row["clip"], row["row"]) for row in rows[:3]] == [("<b>", REAL), ("<b>", MADE), ("<b>", CHANCE)]
    assert rows[1]["psnr"] == "20.0" and rows[-2]["clip"] == "(all)" and float(rows[-2]["psnr"]) == 22


def test_a_clip_at_another_rate_is_seen_at_25() -> None:
    from fd2talk_core.formats.video_frames import VideoFrames

    fps = VideoFrames(DRIVING).fps
    assert len(read_frames(DRIVING, 0.8)) == round(round(0.8 * fps) / fps * FPS)


def test_what_lies_beyond_the_video_is_not_inside() -> None:
    """A crop of 40 pixels around the corner of a picture: a quarter of it is there."""
    inside = _inside(CropTransform.of_square(0, 0, 40, 20), torch.zeros(100, 200, 3))
    assert inside.shape == (1, 1, 20, 20)
    assert inside[0, 0, 10:, 10:].all() and int(inside.sum()) == 100


def test_one_command_measures_a_folder_and_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    clips, out = tmp_path / "clips", tmp_path / "out"
    clips.mkdir()
    talking_clip(clips / "clip.mp4")
    (clips / "broken.mp4").write_bytes(b"no video")
    line = ["--set", str(clips), "--seconds", "0.2", "--seeds", "2", "--out", str(out)]
    line += ["--instruments", str(tmp_path / "none")]
    assert main(line) == 0
    text = capsys.readouterr().out
    assert "broken.mp4 left out" in text and "needs syncnet_v2.model from http" in text
    content = json.loads((out / "evaluation.json").read_text())
    columns = content["columns"]
    # five frames in which next to nothing moves are like the first
    assert columns["psnr"]["mean"][MADE] > 20 and columns["ssim"]["mean"][MADE] > 0.7
    assert columns["found"]["mean"] == {MADE: 1.0, REAL: 1.0}
    assert columns["lve"]["mean"][MADE] >= 0 and columns["expression_diversity"]["mean"][MADE] > 0
    for name in ("evaluation.html", "evaluation.csv", "evaluation.txt", "plots.png"):
        assert (out / name).stat().st_size > 100
    for name in ("frames.png", "curves.png", "scores.json", "features.safetensors"):
        assert (out / "clips" / "clip" / name).is_file()

    def must_not(_: object, path: Path, *others: object) -> None:
        if path.stem == "broken":
            raise FD2TalkError("is tried again")
        raise AssertionError("the clip was made a second time")

    monkeypatch.setattr(bench, "make_clip", must_not)
    assert main(line) == 0
    assert json.loads((out / "evaluation.json").read_text())["columns"] == columns


def test_a_driven_clip_needs_no_sound_and_follows_itself() -> None:
    """With the real frames in the place of made ones every measure is at its best."""
    weights = Weights.load(SHIPPED / "tiny")

    class Mirror:
        """Weights whose frames are the real ones."""

        def __getattr__(self, name: str) -> object:
            return getattr(weights, name)

        def talk(self, reference, expression, pose, mode):
            pictures = [frame.float() / 255 for frame in read_frames(DRIVING, 0.2)[: len(pose.values)]]
            crops = [reference.crop_transform.to_crop(picture).movedim(-1, 0) for picture in pictures]
            return torch.stack(crops)

    landmarker = FaceLandmarker()
    clip = make_clip(Mirror(), DRIVING, MakingOptions(seconds=0.2, driven=True), landmarker)
    assert clip.expressions is None and len(clip.made) == 5
    found = score_clip(clip, weights, Instruments({}, {}))
    assert found.values[MADE]["psnr"] > 58 and found.values[MADE]["ssim"] == pytest.approx(1)
    assert found.values[MADE]["blinks"] == found.values[REAL]["blinks"]
    assert "driven by their own" in found.notes["expression_diversity"]
    assert found.values[CHANCE]["psnr"] < 58


def test_what_cannot_be_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["--set", str(tmp_path), "--seconds", "0"]) == 2
    assert "--seconds is 0" in capsys.readouterr().err
    assert main(["--set", str(tmp_path / "none")]) == 2
    assert "There is no folder" in capsys.readouterr().err
    assert main(["--set", str(tmp_path), "--model", "nobody"]) == 2
    assert "make it first" in capsys.readouterr().err

"""What a film holds, kept in a file of its own until all films are done.

A part is ``KEY.tar`` with the clips and, written after it, ``KEY.json``, which says what they are and what
was dropped. Both appear whole or not at all, so a run that is killed at any moment goes on with the films
that have no ``KEY.json`` yet.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from fd2talk_core.audio.features import NATIVE_FPS
from fd2talk_core.audio.resampling import SAMPLE_RATE
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.fitting import LIP_AND_LID_RIMS
from fd2talk_core.face.landmarks import FaceLandmarker
from fd2talk_core.face.model import FaceModel, apply_pose, default_face_model, project
from fd2talk_core.files import check_input, replacing

from ..corpus.shards import ShardWriter, encode_arrays, encode_json, encode_picture, encode_wav
from .cutting import Clip, CutSettings, Dropped, Tools, cropped, cut_film
from .films import Film, Pictures, open_film
from .synchrony import SyncFilter

SHOWN_SIZE, SHOWN_FRAMES = 128, 5
"""Of the pictures in the report: pixels, and frames of a clip."""


@dataclass(frozen=True)
class FilmTask:
    """One film to be cut.

    Attributes:
        film: which.
        folder: of parts.
        settings: what a clip must be.
        shown: whether the report may show pictures of it.
    """

    film: Film
    folder: Path
    settings: CutSettings
    shown: bool


def part_file(folder: Path, key: str) -> Path:
    """The clips of a film."""
    return folder / f"{key}.tar"


def summary_file(folder: Path, key: str) -> Path:
    """What a film holds; it is there when the film is done."""
    return folder / f"{key}.json"


def read_summary(folder: Path, key: str) -> dict[str, Any]:
    """What :func:`cut_and_keep` has told of a film.

    Raises:
        FD2TalkError: when the file is damaged.
    """
    path = check_input(summary_file(folder, key), "summary of a film")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FD2TalkError(f"{path} is damaged; delete it to cut its film again.") from error


def shown_file(folder: Path, key: str, number: int) -> Path:
    """The picture in the report of a film's n-th result."""
    return folder.parent / "report" / f"{key}-{number:04d}.jpg"


def cut_and_keep(task: FilmTask) -> dict[str, Any]:
    """Cut a film, write its part, and tell what it holds; what is there already is only read."""
    film, folder = task.film, task.folder
    if summary_file(folder, film.key).exists():
        return read_summary(folder, film.key)
    torch.set_num_threads(1)
    tools = _tools(task.settings.sync_weights, task.settings.face_model)
    clips: list[dict[str, Any]] = []
    dropped: list[dict[str, Any]] = []
    with ShardWriter(part_file(folder, film.key)) as part:
        for number, result in enumerate(cut_film(film, task.settings, tools)):
            if isinstance(result, Clip):
                try:
                    members = _members(task, result, number, tools.labels)
                    part.write(f"{number:04d}", members)
                    clips.append(_about(result, number))
                except FD2TalkError as error:
                    # a damaged file may be read once and not again from its middle
                    result = Dropped("unreadable", result.first, result.num_frames, str(error))
            if isinstance(result, Dropped):
                dropped.append({"number": number, **vars(result)})
                if task.shown and result.frames:
                    _show(task, number, _film_frames(film, result))
    summary = {"place": film.place, "person": film.person, "clips": clips, "dropped": dropped}
    _write(summary_file(folder, film.key), encode_json(summary))
    return summary


@lru_cache(maxsize=1)
def _tools(sync_weights: str, labels: str) -> Tools:
    face_model = default_face_model()
    sync = SyncFilter(Path(sync_weights), face_model) if sync_weights else None
    return Tools(FaceLandmarker.load(), face_model, sync, FaceModel.load(labels) if labels else face_model)


def _about(clip: Clip, number: int) -> dict[str, Any]:
    return {
        "number": number,
        "first": clip.first,
        "frames": clip.num_frames,
        "square": [round(value, 3) for value in clip.square],
        "quality": round(float(clip.quality.mean()), 4),
        "heard": clip.waveform is not None,
        **({} if clip.timing is None else {"sync": vars(clip.timing)}),
    }


def _members(task: FilmTask, clip: Clip, number: int, face_model: FaceModel) -> dict[str, bytes]:
    """Pictures, motion and sound of a clip."""
    chosen = chosen_frames(clip.num_frames, task.settings.pictures)
    crops = film_crops(open_film(task.film), clip.first, clip.square, chosen, task.settings.size)
    if task.shown:
        spread = torch.linspace(0, len(chosen) - 1, min(SHOWN_FRAMES, len(chosen))).round().long().tolist()
        # brought coefficients are seen by another camera, and would lie beside the face
        ours = not task.settings.coefficients
        _show(
            task,
            number,
            [_with_points(crops[i], clip, chosen[i], face_model, ours and i % 2 == 1) for i in spread],
        )
    members = {f"{i}.jpg": encode_picture(crop.numpy()) for i, crop in enumerate(crops)}
    members["safetensors"] = encode_arrays(
        alpha=clip.identity.numpy(),
        expression=clip.expression.numpy(),
        pose=clip.pose.numpy(),
        quality=clip.quality.numpy(),
    )
    members["json"] = encode_json({"chosen": chosen, "face_model": face_model.digest})
    if clip.waveform is not None:
        members["wav"] = encode_wav(clip.waveform.numpy(), SAMPLE_RATE)
    return members


def chosen_frames(frames: int, count: int) -> list[int]:
    """The first frame of a clip and others, evenly spread."""
    return torch.linspace(0, frames - 1, min(count, frames)).round().long().tolist()


def film_crops(
    pictures: Pictures, first: int, square: Sequence[float], chosen: Sequence[int], size: int
) -> list[Tensor]:
    """Crops ``[size, size, 3]`` uint8 of frames of a clip that begins at a film's frame ``first``.

    Raises:
        FD2TalkError: when the film has become shorter.
    """
    wanted, crops = set(chosen), []
    span = pictures.span(first, first + max(chosen) + 1, fps=NATIVE_FPS)
    for number, picture in enumerate(span):
        if number in wanted:
            x, y, side = square
            crops.append(cropped(picture, (x, y, side), size))
    if len(crops) != len(wanted):
        raise FD2TalkError(f"The film ends before frame {first + max(chosen)}, which it had a moment ago.")
    return crops


def _film_frames(film: Film, dropped: Dropped) -> list[Tensor]:
    """Whole pictures of what was dropped: some from its beginning to its end."""
    places = sorted({round(share * (dropped.frames - 1)) for share in (0.1, 0.5, 0.9)})
    shown = []
    for place in places:
        at = dropped.first + place
        try:
            picture = next(open_film(film).span(at, at + 1, fps=NATIVE_FPS), None)
        except FD2TalkError:
            continue  # the report has no picture of what cannot be read
        if picture is not None:
            shown.append(picture)
    return shown


def _with_points(crop: Tensor, clip: Clip, frame: int, face_model: FaceModel, drawn: bool) -> Tensor:
    """A crop, and on it where the fitted model has lips and lids."""
    if not drawn:
        return crop
    at = slice(frame, frame + 1)
    mesh = apply_pose(face_model(clip.identity[None], clip.expression[at]), clip.pose[at])
    places = project(face_model.landmarks(mesh), face_model.camera)[0, list(LIP_AND_LID_RIMS), :2]
    picture = Image.fromarray(crop.numpy())
    draw = ImageDraw.Draw(picture)
    dot = crop.shape[0] / 200
    for x, y in ((places + 1) * crop.shape[0] / 2).tolist():
        draw.ellipse((x - dot, y - dot, x + dot, y + dot), fill=(0, 255, 120))
    return torch.from_numpy(np.array(picture))


def _show(task: FilmTask, number: int, pictures: Sequence[Tensor]) -> None:
    """Write pictures side by side for the report."""
    if not pictures:
        return
    row = []
    for picture in pictures:
        width = max(1, round(picture.shape[1] * SHOWN_SIZE / picture.shape[0]))
        row.append(Image.fromarray(picture.numpy()).resize((width, SHOWN_SIZE), Image.Resampling.LANCZOS))
    strip = Image.new("RGB", (sum(part.width for part in row), SHOWN_SIZE))
    left = 0
    for part in row:
        strip.paste(part, (left, 0))
        left += part.width
    _write(shown_file(task.folder, task.film.key, number), encode_picture(np.array(strip), quality=85))


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as partial:
        partial.write_bytes(content)

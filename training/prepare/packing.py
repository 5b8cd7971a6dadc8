"""From the parts of all films to the shards that the stages read, with every person on one side.

``prepared.json`` says which film lies in which shard. It is written before the shards are, and a shard
takes its place whole: whenever a run is killed, the next one writes the shards that are missing, and no clip
is lost or comes twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from safetensors.numpy import load

from fd2talk_core.audio.features import NATIVE_FPS
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.files import check_input, reason_of, replacing

from ..corpus.shards import ShardWriter, encode_arrays, encode_json, encode_picture, read_samples
from .films import Film, open_film
from .parts import film_crops, part_file, shown_file, summary_file

CLIPS_PER_SHARD = 64
SHARES = {"train": 0.7, "heldout": 0.1, "test": 0.2}
"""Of the people. The stages train on the first and choose weights by the second; the third is for measuring
alone.
"""
PLACES = {"train": "data/train", "heldout": "data/heldout", "test": "test"}
"""Folders of the shards: the stages are given ``data``, so that what is in ``test`` cannot be trained on."""


@dataclass(frozen=True)
class Prepared:
    """``prepared.json``.

    Attributes:
        settings: that the films were cut with; another run must have the same.
        people: the side of each person.
        films: what each film holds, by its key.
        shards: keys of films by ``SPLIT/NUMBER``.
    """

    settings: dict[str, Any]
    people: dict[str, str] = field(default_factory=dict)
    films: dict[str, dict[str, Any]] = field(default_factory=dict)
    shards: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, settings: dict[str, Any]) -> Prepared:
        """What an earlier run has prepared; nothing where there was none.

        Raises:
            FD2TalkError: when it was another kind of run, or the file is damaged.
        """
        if not path.exists():
            return cls(settings)
        try:
            prepared = cls(**json.loads(check_input(path, "list").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise FD2TalkError(
                f"{path} cannot be read ({reason_of(error)}); give another --out folder."
            ) from error
        differing = sorted(
            name for name in settings.keys() | prepared.settings.keys()
            if settings.get(name) != prepared.settings.get(name)
        )  # fmt: skip
        if differing:
            raise FD2TalkError(
                f"{path} was made with {differing[0]} {prepared.settings.get(differing[0])!r} in place of "
                f"{settings.get(differing[0])!r}; give the same, or another --out folder."
            )
        return prepared

    def write(self, path: Path) -> None:
        with replacing(path) as partial:
            partial.write_bytes(encode_json(vars(self)))

    def added(self, films: dict[str, dict[str, Any]]) -> Prepared:
        """With further films: their people have a side, and they lie in shards of their own."""
        talking = {key: film for key, film in films.items() if film["clips"]}
        people = split_people((film["person"] for film in talking.values()), self.people)
        shards = dict(self.shards)
        for split in SHARES:
            number = sum(name.startswith(f"{split}/") for name in shards)
            group: list[str] = []
            clips = 0
            for key in sorted(key for key, film in talking.items() if people[film["person"]] == split):
                group.append(key)
                clips += len(talking[key]["clips"])
                if clips >= CLIPS_PER_SHARD:
                    shards[f"{split}/{number:06d}"] = group
                    number, group, clips = number + 1, [], 0
            if group:
                shards[f"{split}/{number:06d}"] = group
        return Prepared(self.settings, people, {**self.films, **films}, shards)


def split_people(names: Iterable[str], known: dict[str, str]) -> dict[str, str]:
    """The side of every person: 70 to 10 to 20, who has one keeps it, and no side stays empty if it need not.

    Args:
        names: of people, in any order, repeated or not.
        known: sides that earlier runs have given.
    """
    people = dict(known)
    counts = {split: sum(side == split for side in people.values()) for split in SHARES}
    new = sorted(set(names) - people.keys(), key=lambda name: sha256(name.encode()).hexdigest())
    for name in new:
        total = len(people) + 1
        empty = [split for split in SHARES if not counts[split]]
        lack = {split: share * total - counts[split] for split, share in SHARES.items()}
        # rounded, so that equal lacks are equal
        side = empty[0] if empty else max(SHARES, key=lambda split: round(lack[split], 9))
        people[name] = side
        counts[side] += 1
    return people


@dataclass(frozen=True)
class ShardTask:
    """One shard of each kind to be written.

    Attributes:
        out: folder of the run.
        name: ``SPLIT/NUMBER``.
        films: what lies in it, and what they hold.
        size: side of the crops.
        videos: whether what is trained on has all frames, too.
    """

    out: Path
    name: str
    films: Sequence[tuple[Film, dict[str, Any]]]
    size: int
    videos: bool = False

    def path(self, kind: str) -> Path:
        split, _, number = self.name.partition("/")
        return self.out / PLACES[split] / f"{kind}-{number}.tar"

    def kinds(self) -> list[str]:
        """Which shards it has: silent films have no speech; what is to be measured has all frames."""
        heard = any(clip["heard"] for _, film in self.films for clip in film["clips"])
        videos = ["videos"] if self.videos or self.name.startswith("test/") else []
        return [*(["clips"] if heard else []), *videos, "frames"]

    def missing(self) -> bool:
        return not all(self.path(kind).exists() for kind in self.kinds())


def pack_shard(task: ShardTask) -> str:
    """Write the shards of a task.

    Raises:
        FD2TalkError: when a part is gone.
    """
    split = task.name.partition("/")[0]
    with ExitStack() as stack:
        shards = {kind: stack.enter_context(ShardWriter(task.path(kind))) for kind in task.kinds()}
        for film, told in task.films:
            path = part_file(task.out / "parts", film.key)
            if not path.exists():
                raise FD2TalkError(
                    f"The shard {task.name} is gone, and so is {path}, of which it could be made again; give "
                    "another --out folder."
                )
            clips = {f"{clip['number']:04d}": clip for clip in told["clips"]}
            for number, members in read_samples(path):
                key = f"{split}-{film.key}-{number}"
                samples = _samples(film, clips[number], key, members, shards, task.size)
                for kind, sample in samples.items():
                    shards[kind].write(key, sample)
    return task.name


def _samples(
    film: Film, clip: dict[str, Any], key: str, members: dict[str, bytes], kinds: Iterable[str], size: int
) -> dict[str, dict[str, bytes]]:
    """What a clip gives to each kind of shard; a silent one gives no speech."""
    part = json.loads(members["json"])
    arrays, chosen = load(members["safetensors"]), part["chosen"]
    heard = "wav" in members
    about = {
        "film": film.place,
        "first_frame": clip["first"],
        "square": clip["square"],
        "quality": clip["quality"],
        "face_model": part["face_model"],
    }
    labels = {name: arrays[name][chosen] for name in ("expression", "pose", "quality")}
    own = {"clip": key if heard else None, "clip_frames": chosen if heard else None}
    samples = {
        "frames": {
            **{name: data for name, data in members.items() if name[:1].isdigit()},
            "safetensors": encode_arrays(alpha=arrays["alpha"], **labels),
            "json": encode_json({**about, **own}),
        }
    }
    whole = {name: members[name] for name in ("wav", "safetensors") if name in members}
    about |= {"fps": NATIVE_FPS, "phonemes": [], "text": "", "speaker": film.person, "sync": clip.get("sync")}
    if heard:
        samples["clips"] = {**whole, "json": encode_json(about)}
    if "videos" in kinds:
        frames = list(range(clip["frames"]))
        crops = film_crops(open_film(film), clip["first"], clip["square"], frames, size)
        pictures = {f"{i}.jpg": encode_picture(crop.numpy()) for i, crop in enumerate(crops)}
        own = {"clip": key if heard else None, "clip_frames": frames}
        samples["videos"] = {**pictures, **whole, "json": encode_json({**about, **own})}
    return samples


def clear_parts(out: Path, keys: Iterable[str]) -> None:
    """Remove the parts of films whose shards are written."""
    for key in keys:
        for path in (part_file(out / "parts", key), summary_file(out / "parts", key)):
            path.unlink(missing_ok=True)


def picture_of(out: Path, key: str, number: int) -> bytes | None:
    """What the report shows of a film's n-th result, as JPEG; None where it has no picture."""
    path = shown_file(out / "parts", key, number)
    return path.read_bytes() if path.exists() else None

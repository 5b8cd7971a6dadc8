"""Datasets over the shards of :mod:`training.corpus.shards`, read from the disk sample by sample.

The same classes serve any data in that format, made or recorded. A shard is indexed once by its headers;
what is in it is read when it is asked for, so a corpus may be larger than memory. Order, sharding over
processes and the position to resume at are :class:`SeededSampler`'s.
"""

from __future__ import annotations

import io
import json
import tarfile
import wave
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from fd2talk_core.errors import FD2TalkError

from .corpus.phonemes import PHONEME_IDS

SAMPLE_RATE = 16000


@dataclass(frozen=True)
class Sample:
    """Where the members of one sample lie: offset and size in ``path`` by extension."""

    path: Path
    key: str
    members: Mapping[str, tuple[int, int]]

    def read(self, extension: str) -> bytes:
        """One member's content.

        Raises:
            FD2TalkError: when the sample has no such member or the file is shorter than its index says.
        """
        if extension not in self.members:
            raise FD2TalkError(f"Sample {self.key} in {self.path} has no .{extension}.")
        offset, size = self.members[extension]
        with self.path.open("rb") as file:
            file.seek(offset)
            content = file.read(size)
        if len(content) != size:
            raise FD2TalkError(f"The shard {self.path} is cut short; make it again.")
        return content

    def arrays(self) -> dict[str, Tensor]:
        """The sample's tensors as float32."""
        try:
            return {name: tensor.float() for name, tensor in load(self.read("safetensors")).items()}
        except SafetensorError as error:
            raise FD2TalkError(f"The tensors of {self.key} in {self.path} are broken ({error}).") from error

    def about(self) -> dict:
        """The sample's JSON."""
        try:
            return json.loads(self.read("json"))
        except ValueError as error:
            raise FD2TalkError(f"The JSON of {self.key} in {self.path} is broken ({error}).") from error


def index_shards(folder: Path | str, pattern: str) -> list[Sample]:
    """The samples of all shards of a folder, in order.

    Raises:
        FD2TalkError: when there is no such folder or shard, or one is not a readable tar.
    """
    folder = Path(folder)
    paths = sorted(folder.rglob(pattern)) if folder.is_dir() else []
    if not paths:
        raise FD2TalkError(f"{folder} holds no shards {pattern}; make them with python -m training.corpus.")
    samples: list[Sample] = []
    for path in paths:
        found: dict[str, dict[str, tuple[int, int]]] = {}
        try:
            with tarfile.open(path, "r:") as tar:
                for header in tar:
                    if header.isfile():
                        key, _, extension = header.name.partition(".")
                        found.setdefault(key, {})[extension] = (header.offset_data, header.size)
        except (tarfile.TarError, OSError) as error:
            raise FD2TalkError(f"The shard {path} cannot be read ({error}); make it again.") from error
        samples += [Sample(path, key, members) for key, members in found.items()]
    return samples


class FramePairs(Dataset):
    """Every ordered pair of different pictures of one person.

    An item is ``reference`` and ``target`` [3, S, S] in 0..1, ``reference_expression``,
    ``target_expression`` [D_β], ``reference_pose``, ``target_pose`` [6] and ``alpha`` [D_α].
    """

    def __init__(self, folder: Path | str) -> None:
        self.samples = index_shards(folder, "frames-*.tar")
        counts = [sum(name[0].isdigit() for name in sample.members) for sample in self.samples]
        self._counts = counts
        self._ends = np.cumsum([count * (count - 1) for count in counts])
        if not self._ends[-1]:
            raise FD2TalkError(f"{folder} holds no person with two pictures.")

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        person = int(np.searchsorted(self._ends, index, side="right"))
        sample, count = self.samples[person], self._counts[person]
        reference, other = divmod(index - int(self._ends[person - 1]) if person else index, count - 1)
        target = other + (other >= reference)
        arrays = sample.arrays()
        return {
            "reference": _picture(sample, reference),
            "target": _picture(sample, target),
            "alpha": arrays["alpha"],
            "reference_expression": arrays["expression"][reference],
            "target_expression": arrays["expression"][target],
            "reference_pose": arrays["pose"][reference],
            "target_pose": arrays["pose"][target],
        }


def _picture(sample: Sample, number: int) -> Tensor:
    name = next((n for n in sample.members if n.partition(".")[0] == str(number)), f"{number}.jpg")
    try:
        with Image.open(io.BytesIO(sample.read(name))) as picture:
            pixels = np.array(picture.convert("RGB"))
    except OSError as error:
        raise FD2TalkError(f"{sample.path}: picture {number} of {sample.key} is broken ({error}).") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


class MotionClips(Dataset):
    """Every window of ``frames`` frames of every recording.

    An item is ``audio`` [N] at 16 kHz for exactly the window (silence where the recording ends before its
    last frame), ``expression`` [F, D_β], ``pose`` [F, 6], ``alpha`` [D_α] and ``phonemes`` [F], the index in
    :data:`training.corpus.phonemes.PHONEMES` of the sound at each frame's instant.
    """

    def __init__(self, folder: Path | str, frames: int) -> None:
        if frames < 1:
            raise FD2TalkError(f"A window of {frames} frames was asked for, but at least 1 is needed.")
        self.frames = frames
        self.samples, windows = [], []
        for sample in index_shards(folder, "clips-*.tar"):
            length = sample.arrays()["expression"].shape[0]
            if length >= frames:
                self.samples.append(sample)
                windows.append(length - frames + 1)
        if not windows:
            raise FD2TalkError(f"{folder} holds no recording of {frames} frames; ask for fewer.")
        self._ends = np.cumsum(windows)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        clip = int(np.searchsorted(self._ends, index, side="right"))
        first = index - (int(self._ends[clip - 1]) if clip else 0)
        sample = self.samples[clip]
        arrays, about = sample.arrays(), sample.about()
        fps = Fraction(str(about["fps"]))
        begin, end = (round(frame / fps * SAMPLE_RATE) for frame in (first, first + self.frames))
        return {
            "audio": _audio(sample, begin, end),
            "expression": arrays["expression"][first : first + self.frames],
            "pose": arrays["pose"][first : first + self.frames],
            "alpha": arrays["alpha"],
            "phonemes": frame_phonemes(about["phonemes"], self.frames, float(fps), first),
        }


def frame_phonemes(
    phonemes: list[tuple[str, float, float]], frames: int, fps: float, first: int = 0
) -> Tensor:
    """[F] the index of the phoneme at ``(i + 0.5) / fps`` for frames ``first`` .. ``first + frames - 1``;
    silence where there is none."""
    instants = (np.arange(first, first + frames) + 0.5) / fps
    if not phonemes:
        return torch.zeros(frames, dtype=torch.long)
    names = np.array([PHONEME_IDS.get(name, 0) for name, _, _ in phonemes])
    starts, ends = (np.array([row[column] for row in phonemes], float) for column in (1, 2))
    at = np.clip(np.searchsorted(starts, instants, side="right") - 1, 0, len(names) - 1)
    inside = (instants >= starts[at]) & (instants < ends[at])
    return torch.from_numpy(np.where(inside, names[at], PHONEME_IDS["sil"]))


def _audio(sample: Sample, begin: int, end: int) -> Tensor:
    try:
        with wave.open(io.BytesIO(sample.read("wav"))) as file:
            if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (SAMPLE_RATE, 1, 2):
                raise FD2TalkError(f"The sound of {sample.key} in {sample.path} is not 16 kHz, mono, 16 bit.")
            file.setpos(min(begin, file.getnframes()))
            pcm = np.frombuffer(file.readframes(end - begin), "<i2")
    except (wave.Error, EOFError) as error:
        raise FD2TalkError(f"The sound of {sample.key} in {sample.path} is broken ({error}).") from error
    return torch.from_numpy(np.pad(pcm, (0, end - begin - len(pcm))).astype(np.float32) / 32768)


class SeededSampler(Sampler[int]):
    """Indices in an order that a seed and an epoch fix, dealt out over processes; it can go on where it was.

    Every process gets the same number of indices; the few left over at the end of an epoch are dropped.
    """

    def __init__(self, length: int, *, seed: int = 0, rank: int = 0, world: int = 1) -> None:
        if not 0 <= rank < world:
            raise FD2TalkError(f"Process {rank} of {world} was asked for; ranks go from 0 to {world - 1}.")
        if length < world:
            raise FD2TalkError(f"{length} samples cannot be dealt out to {world} processes.")
        self.length, self.seed, self.rank, self.world = length, seed, rank, world
        self.epoch = self.position = 0

    def __len__(self) -> int:
        return self.length // self.world

    def __iter__(self) -> Iterator[int]:
        """The rest of the current epoch; then the next begins."""
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length)
        mine = order[self.rank :: self.world][: len(self)]
        while self.position < len(mine):
            self.position += 1
            yield int(mine[self.position - 1])
        self.epoch, self.position = self.epoch + 1, 0

    def state_dict(self) -> dict[str, int]:
        """Where this is. With a loader that reads ahead, set ``position`` to what was used, not read."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self.epoch, self.position = state["epoch"], state["position"]

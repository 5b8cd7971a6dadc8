"""Stage 2: the lip expert learns which mouth goes with which sound (FD2Talk Sec. 3.4.1, Eq. 10)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from fd2talk_core import configs
from fd2talk_core.audio.encoder import AudioEncoder
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.model import FaceModel
from fd2talk_core.networks.checkpoint import CheckpointInfo, save_checkpoint
from fd2talk_core.networks.lip_expert import LipExpert, sync_over_clip

from ..mouths import mouth_basis
from ..sources import SpeechClip, SpeechSet, face_model_of, load_speech, need_weights
from ..trainer import Stage, gathered, stage_main, stage_options, subsection


@dataclass(frozen=True)
class LipExpertOptions:
    """The section ``lip_expert`` of a configuration.

    Attributes:
        negatives: other moments of the same clip that each mouth is contrasted with.
        nearest: a moment this many frames away is the nearest that counts as another.
        reach: half of the other moments lie within this many frames, where they are hardest to tell.
        noise: standard deviation of noise on the expression coefficients, so that an estimate by the motion
            network is judged by its timing and not by being an estimate.
        held_out_seconds: length of the stretch of each held-out clip that the test takes.
        loss: ``contrastive`` (InfoNCE over the batch and the other moments), or ``binary`` (SyncNet's
            cross-entropy of P_sync; negatives are the other moments alone).
    """

    negatives: int = 6
    nearest: int = 5
    reach: int = 15
    noise: float = 0.02
    held_out_seconds: float = 8.0
    loss: str = "contrastive"

    def __post_init__(self) -> None:
        if self.loss not in ("contrastive", "binary"):
            raise FD2TalkError(f"loss is {self.loss!r}, but it is one of: contrastive, binary.")


class LipExpertStage(Stage):
    """Contrast of matching windows with other moments and other clips.

    Args:
        expert: is trained.
        speech, held_out: with audio features.
    """

    name, score = "lip_expert", "told_from_shifted"

    def __init__(
        self,
        expert: LipExpert,
        speech: SpeechSet,
        held_out: SpeechSet,
        face_model: FaceModel,
        options: LipExpertOptions,
    ) -> None:
        super().__init__({"lip_expert": expert})
        self.held_out, self.options = held_out, options
        self.face_model_name = face_model.name
        self.register_buffer("mouth_basis", mouth_basis(face_model), persistent=False)
        self.frames = expert.config.frames
        # the clip must have room for another moment on at least one side of any window
        windows = speech.windows(2 * self.frames + 2 * options.nearest)
        # all clips end to end, so that a batch is cut out of them at once; the clips themselves can go
        clips, self.windows = windows.clips, replace(windows, clips=())
        self.features = torch.cat([clip.features for clip in clips])
        self.expression = torch.cat([clip.expression for clip in clips])
        self.lengths = torch.tensor([clip.num_frames for clip in clips])
        self.starts = self.lengths.cumsum(0) - self.lengths

    def sample(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        return {name: values[0] for name, values in self.batch([index], lambda _: generator).items()}

    def batch(
        self, indices: Sequence[int], generator_of: Callable[[int], torch.Generator]
    ) -> dict[str, Tensor]:
        """Draws are a sample's own, one after another; the cutting is done for all samples together."""
        options, windows = self.options, self.windows
        number, room = len(windows), windows.frames - self.frames + 1
        # window, offset and the others' moments, from 0 to 1: a draw costs more than its numbers
        draws = torch.empty(len(indices), 2 + options.negatives)
        noises = torch.empty(len(indices), self.frames, self.expression.shape[1])
        for index, draw, noise in zip(indices, draws, noises, strict=True):
            generator = generator_of(index)
            draw.uniform_(generator=generator)
            noise.normal_(generator=generator)
        numbers, offsets = (
            (part * count).long().clamp_max(count - 1)
            for part, count in zip(draws[:, :2].double().T, (number, room), strict=True)
        )
        clips, starts = windows.place(numbers)
        starts = starts + offsets
        moments = self._others(starts, self.lengths[clips] - self.frames, draws[:, 2:])
        first, frames = self.starts[clips], torch.arange(self.frames)
        here = (first + starts)[:, None] + frames
        there = (first[:, None] + moments)[..., None] + frames
        return {
            "expression": _rows(self.expression, here) + noises * options.noise,
            "audio": _rows(self.features, here).float(),
            "others": _rows(self.features, there).float(),
        }

    def _others(self, start: Tensor, last: Tensor, draws: Tensor) -> Tensor:
        """Other moments of the clips, by draws from 0..1: near for even numbers, anywhere for odd ones.

        Args:
            start: ``[B]`` first frames of the true windows.
            last: ``[B]`` last possible first frames.
            draws: ``[B, negatives]``.

        Returns:
            ``[B, negatives]`` first frames, at least ``nearest`` away from the true ones.
        """
        start, last = start[:, None], last[:, None]
        near = torch.arange(draws.shape[1]) % 2 == 0
        reach = torch.where(near, torch.full_like(last, self.options.reach), last)
        low, high = (start - reach).clamp_min(0), torch.minimum(start + reach, last)
        before = (start - self.options.nearest - low + 1).clamp_min(0)
        after = (high - start - self.options.nearest + 1).clamp_min(0)
        choice = torch.minimum((draws.double() * (before + after)).long(), before + after - 1)
        return torch.where(choice < before, low + choice, start + self.options.nearest + choice - before)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        mouth = torch.einsum("bfc,cmx->bfmx", batch["expression"], self.mouth_basis)
        if self.options.loss == "binary":
            expert = self.networks["lip_expert"]
            return {"loss": expert.binary_loss(mouth, batch["audio"], batch["others"])}
        # the negatives of a mouth are those of the whole batch, wherever its parts are computed
        loss = self.networks["lip_expert"].contrastive_loss(
            mouth, batch["audio"], batch["others"], gather=gathered
        )
        return {"loss": loss}

    @torch.no_grad()
    def validate(self, folder: Path | None) -> dict[str, float]:
        one, second, true, shifted = [], [], [], []
        for clip in self.held_out.clips:
            result = shift_test(
                self.networks["lip_expert"],
                clip.first(self.options.held_out_seconds),
                self.mouth_basis,
                self.options.nearest,
            )
            for values, new in zip((one, second, true, shifted), result, strict=True):
                values.append(new)
        one, second, true, shifted = (torch.cat(values) for values in (one, second, true, shifted))
        if folder is not None:
            _draw_probabilities(true, shifted, folder / "probabilities.png")
        return {
            "told_from_shifted": float(second.float().mean()),
            "told_from_shifted_one_window": float(one.float().mean()),
            "true_probability": float(true.mean()),
            "shifted_probability": float(shifted.mean()),
        }

    def export(self, weights: Path, trained_on: str) -> None:
        expert = self.networks["lip_expert"]
        info = CheckpointInfo(
            face_model=self.face_model_name, native_fps=expert.config.native_fps, trained_on=trained_on
        )
        save_checkpoint(expert, weights / "lip_expert.safetensors", info)


def _rows(table: Tensor, numbers: Tensor) -> Tensor:
    """``table[numbers]``, ten times as fast."""
    return table.index_select(0, numbers.flatten()).unflatten(0, numbers.shape)


@torch.no_grad()
def shift_test(
    expert: LipExpert, clip: SpeechClip, basis: Tensor, nearest: int, span: int = 25
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Is P_sync higher for the true sound than for the sound of another moment of the clip?

    Both moments must have a moving mouth: of two silences none is the right one. Shifts are all distances
        from
    ``nearest`` to 25 frames, both ways.

    Args:
        clip: with features.
        basis: ``[D_β, M, 3]`` of :func:`~training.mouths.mouth_basis`.
        nearest: smallest shift in frames.
        span: frames over which P_sync is averaged in the second result: a second, as lip-sync scores are
            taken.

    Returns:
        whether the truth won, by single window and by ``span``, as flat bool tensors; then P_sync of true and
        of shifted windows.
    """
    mouth = torch.einsum("fc,cmx->fmx", clip.expression.to(basis), basis)
    audio = clip.features.to(basis)
    moving = mouth.diff(dim=0).norm(dim=-1).amax(dim=1)
    still = torch.nn.functional.pad(moving, (0, 1)) < 0.1 * moving.quantile(0.9)
    frames = expert.config.frames
    awake = ~(still.float().unfold(0, frames, 1).mean(dim=1) > 0.5)
    true = sync_over_clip(expert, mouth[None], audio[None])[0]
    one, second, trues, shifteds = [], [], [], []
    for shift in [s for d in range(nearest, 26) for s in (d, -d)]:
        if clip.num_frames <= abs(shift) + span + frames:
            continue
        part = slice(max(0, -shift), clip.num_frames - max(0, shift))
        moved = slice(part.start + shift, part.stop + shift)
        shifted = sync_over_clip(expert, mouth[None, part], audio[None, moved])[0]
        count = shifted.shape[0]
        here, there = awake[part.start :][:count], awake[moved.start :][:count]
        both = here & there
        same = true[part.start :][:count]
        one.append((same > shifted)[both])
        trues.append(same[both])
        shifteds.append(shifted[both])
        average = [values.unfold(0, span, span).mean(dim=1) for values in (same, shifted)]
        speaking = both.float().unfold(0, span, span).mean(dim=1) > 0.3
        second.append((average[0] > average[1])[speaking])
    if not one:
        return (torch.zeros(0, dtype=torch.bool),) * 2 + (torch.zeros(0),) * 2
    return torch.cat(one), torch.cat(second), torch.cat(trues), torch.cat(shifteds)


def _draw_probabilities(true: Tensor, shifted: Tensor, picture: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for values, label in ((true, "true pairs"), (shifted, "shifted by 5 frames or more")):
        axis.hist(values.cpu().numpy(), bins=50, range=(0, 1), density=True, alpha=0.6, label=label)
    axis.set_xlabel("P_sync (Eq. 10)")
    axis.legend()
    figure.savefig(picture, dpi=80)


def build(section: dict, data: Path, weights: Path, seed: int, folder: Path) -> tuple[LipExpertStage, str]:
    """The stage from its configuration, a data folder and the audio encoder in the weights folder."""
    options = stage_options(section, LipExpertOptions())
    face_model = face_model_of(section)
    encoder = AudioEncoder.from_pretrained(need_weights(weights, "audio_encoder", "training.audio_encoder"))
    train, held_out, words = load_speech(data, face_model)
    train, held_out = train.with_features(encoder, folder), held_out.with_features(encoder, folder)
    expert = configs.build(
        "lip_expert",
        section["size"],
        seed,
        num_mouth_vertices=mouth_basis(face_model).shape[1],
        audio_dim=encoder.feature_dim,
        face_model=face_model.name,
        native_fps=train.fps,
        **subsection(section, "network"),
    )
    return LipExpertStage(expert, train, held_out, face_model, options), words


def main(arguments: list[str] | None = None) -> int:
    return stage_main("lip_expert", build, __doc__.splitlines()[0], arguments)

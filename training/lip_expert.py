"""Stage 2: the lip expert learns which mouth goes with which sound (FD2Talk Sec. 3.4.1, Eq. 10)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fd2talk_core import configs
from fd2talk_core.audio import AudioEncoder
from fd2talk_core.checkpoint import CheckpointInfo, save_checkpoint
from fd2talk_core.face_model import FaceModel, default_face_model
from fd2talk_core.lip_expert import LipExpert, sync_over_clip

from .motion import mouth_basis
from .sources import SpeechClip, SpeechSet, load_speech, need_weights
from .trainer import Stage, stage_main, stage_options


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
    """

    negatives: int = 6
    nearest: int = 5
    reach: int = 15
    noise: float = 0.02
    held_out_seconds: float = 8.0


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
        self.speech, self.held_out, self.options = speech, held_out, options
        self.face_model_name = face_model.name
        self.register_buffer("mouth_basis", mouth_basis(face_model), persistent=False)
        self.frames = expert.config.frames
        # the clip must have room for another moment on at least one side of any window
        self.windows = speech.windows(2 * self.frames + 2 * options.nearest)

    def sample(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        options = self.options
        clip, start = self.windows.draw(generator)
        start += int(torch.randint(self.windows.frames - self.frames + 1, (), generator=generator))
        draws = torch.rand(options.negatives, generator=generator).tolist()
        moments = [self._other(clip, start, number, draw) for number, draw in enumerate(draws)]
        others = clip.features[torch.tensor(moments)[:, None] + torch.arange(self.frames)].float()
        expression = clip.expression[start : start + self.frames]
        noise = torch.randn(expression.shape, generator=generator) * options.noise
        return {"expression": expression + noise, "audio": self._audio(clip, start), "others": others}

    def _audio(self, clip: SpeechClip, start: int) -> Tensor:
        return clip.features[start : start + self.frames].float()

    def _other(self, clip: SpeechClip, start: int, number: int, draw: float) -> int:
        """Another moment of the clip, by a draw from 0..1: near for even numbers, anywhere for odd ones."""
        last = clip.num_frames - self.frames
        reach = self.options.reach if number % 2 == 0 else last
        low, high = max(0, start - reach), min(last, start + reach)
        before = max(0, start - self.options.nearest - low + 1)
        after = max(0, high - start - self.options.nearest + 1)
        choice = min(int(draw * (before + after)), before + after - 1)
        return low + choice if choice < before else start + self.options.nearest + choice - before

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        mouth = torch.einsum("bfc,cmx->bfmx", batch["expression"], self.mouth_basis)
        loss = self.networks["lip_expert"].contrastive_loss(mouth, batch["audio"], batch["others"])
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
        basis: ``[D_β, M, 3]`` of :func:`~training.motion.mouth_basis`.
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
    face_model = default_face_model()
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
        **section.get("network", {}),
    )
    return LipExpertStage(expert, train, held_out, face_model, options), words


def main(arguments: list[str] | None = None) -> int:
    return stage_main("lip_expert", build, __doc__.splitlines()[0], arguments)


if __name__ == "__main__":
    raise SystemExit(main())

"""Stage 1: a small wav2vec 2.0 learns to hear, frame by frame, which phoneme is spoken (FD2Talk Sec. 3.2).

The paper takes a large wav2vec 2.0 pre-trained on thousands of hours. This stage makes a small one of the
same architecture from labelled speech: a linear head names the phoneme of every 50 Hz frame, and is thrown
away after.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fd2talk_core import configs
from fd2talk_core.audio.encoder import AudioEncoder
from fd2talk_core.audio.features import NATIVE_FPS
from fd2talk_core.audio.resampling import SAMPLE_RATE
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.networks.checkpoint import CheckpointInfo, save_checkpoint
from fd2talk_core.waveforms import as_float

from ..corpus.augment import shift_formants
from ..sources import SpeechClip, SpeechSet, face_model_of, load_speech
from ..teacher import Teacher
from ..trainer import Stage, stage_main, stage_options, subsection
from .disturbance import among, in_room, over_line, uniform

_COLOUR_BANDS = 8


@dataclass(frozen=True)
class AudioEncoderOptions:
    """The section ``audio_encoder`` of a configuration.

    Attributes:
        seconds: length of a training clip.
        noise: part of the clips that get white noise, between 5 and 40 dB under the speech.
        gain: largest change of loudness in dB, either way.
        speed: largest change of speed, as a share either way. Pitch and formants go with it, as if another
            person spoke (Ko et al. 2015, "Audio augmentation for speech recognition").
        tone: largest weight of the sample before in a two-tap filter, either way: duller or brighter
            microphones.
        formants: largest change of the throat's resonances, as a share either way, while the pitch stays
            (Jaitly & Hinton 2013, "Vocal tract length perturbation").
        colour: dB by which the loudness of each of eight bands varies, as one deviation (Nam et al. 2022,
            "FilterAugment").
        room, line, babble: parts of the clips that are heard in a room, over a telephone line, and among
            other voices, 3 to 25 dB under the speech.
        teacher: weight of telling Whisper's states, which hears the clip as it is, see
            :class:`~training.teacher.Teacher`; 0 for no teacher.
        anchor: weight of the distance to the features that the encoder had at the start, for the sound
            before throat, room, line, voices and noise: what was learned on its features goes on working.
        kept: share of the weights at the start in those that are written, which keeps what fine-tuning
            forgets (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models").
        held_out_seconds: taken of each held-out clip.
        held_out_clips: how many are taken.
        filters: how the first convolution starts: ``random``, or ``mel``, see :func:`start_as_mel_filters`.
    """

    seconds: float = 2.0
    noise: float = 0.5
    gain: float = 12.0
    speed: float = 0.0
    tone: float = 0.0
    formants: float = 0.0
    colour: float = 0.0
    room: float = 0.0
    line: float = 0.0
    babble: float = 0.0
    teacher: float = 0.0
    anchor: float = 0.0
    kept: float = 0.0
    held_out_seconds: float = 6.0
    held_out_clips: int = 32
    filters: str = "random"

    def __post_init__(self) -> None:
        if not 0 <= self.speed < 1:
            raise FD2TalkError(f"speed is {self.speed}, but a share of at least 0 and under 1 is needed.")
        if not 0 <= self.tone < 1:
            raise FD2TalkError(f"tone is {self.tone}, but at least 0 and under 1 is needed.")
        if not 0 <= self.formants < 1:
            raise FD2TalkError(
                f"formants is {self.formants}, but a share of at least 0 and under 1 is needed."
            )
        if not 0 <= self.kept <= 1:
            raise FD2TalkError(f"kept is {self.kept}, but a share from 0 to 1 is needed.")
        if self.colour < 0:
            raise FD2TalkError(f"colour is {self.colour}, but at least 0 dB is needed.")
        if self.filters not in ("random", "mel"):
            raise FD2TalkError(f"filters is {self.filters!r}, but it is one of: random, mel.")


class _Classifier(nn.Module):
    """The encoder and the heads that are thrown away: one module, averaged and saved together."""

    def __init__(self, encoder: AudioEncoder, num_phonemes: int, lesson_size: int = 0) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.hidden_dim, num_phonemes)
        self.pupil = nn.Linear(encoder.hidden_dim, lesson_size) if lesson_size else None

    def forward(self, waveform: Tensor) -> Tensor:
        """``[B, N]`` at 16 kHz to logits ``[B, n, phonemes]`` at 50 Hz."""
        return self.head(self.encoder(waveform))


class AudioEncoderStage(Stage):
    """Cross-entropy of the phoneme at every frame.

    Args:
        encoder: is trained.
        speech, held_out: with phoneme times.
        teacher: what is to be told beside the phonemes, with the weight in ``options``.
    """

    name, score = "audio_encoder", "frame_accuracy"

    def __init__(
        self,
        encoder: AudioEncoder,
        speech: SpeechSet,
        held_out: SpeechSet,
        options: AudioEncoderOptions,
        teacher: Teacher | None = None,
    ) -> None:
        self.phonemes = sorted(
            {p[0] for part in (speech, held_out) for clip in part.clips for p in clip.phonemes}
        )
        if not self.phonemes:
            raise FD2TalkError("The data has no phoneme times, which the audio encoder is trained on.")
        lesson_size = teacher.size if teacher else 0
        super().__init__({"classifier": _Classifier(encoder, len(self.phonemes), lesson_size)})
        self.teacher = teacher
        self.earlier: AudioEncoder | None = None
        self.number = {name: i for i, name in enumerate(self.phonemes)}
        self.speech, self.held_out, self.options = speech, held_out, options
        self.windows = speech.windows(max(2, round(options.seconds * speech.fps)))
        self.num_samples = round(self.windows.frames / speech.fps * SAMPLE_RATE)

    @property
    def encoder(self) -> AudioEncoder:
        return self.networks["classifier"].encoder

    def checkpoints(self) -> dict[str, nn.Module]:
        return {"audio_encoder": self.encoder}

    def grown(self, earlier: AudioEncoder, network: AudioEncoder) -> dict[str, Tensor]:
        return with_layers_of(network, earlier)

    def start_from(self, weights: Path) -> None:
        super().start_from(weights)
        if self.options.anchor or self.options.kept:
            self.earlier = copy.deepcopy(self.encoder).requires_grad_(False)

    def targets(self, clip: SpeechClip, first: int, num_samples: int, speed: float = 1.0) -> Tensor:
        """Phoneme numbers at the instants that the encoder's outputs stand for, -100 where none is known.

        Args:
            first: the clip's sample that comes first.
            num_samples: that the encoder hears, ``speed`` of the clip's samples each.
        """
        instants = first + feature_instants(self.encoder, num_samples) * speed
        return phoneme_targets(clip.phonemes, instants, self.number)

    def sample(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        options = self.options
        clip, start = self.windows.draw(generator)
        first = round(start / clip.fps * SAMPLE_RATE)
        level, noisy, gain, change, tone = torch.rand(5, generator=generator).tolist()
        speed = 1 + options.speed * (2 * change - 1)
        heard = round(self.num_samples * speed)
        waveform = self._cut(clip, first, heard)
        sample = {"targets": self.targets(clip, first, self.num_samples, speed)}
        if self.teacher:
            instants = first + feature_instants(self.encoder, self.num_samples) * speed
            sample["lesson"] = self.teacher.at(clip.name, instants)
        if self.options.anchor:
            sample["undisturbed"] = waveform
        if options.formants or options.colour:
            share = options.formants * (2 * torch.rand((), generator=generator) - 1)
            bands = options.colour * torch.randn(_COLOUR_BANDS, generator=generator)
            waveform = shift_formants(waveform, 1 + float(share), bands)
        if options.tone:
            weight = options.tone * (2 * tone - 1)
            waveform = (waveform + weight * F.pad(waveform, (1, -1))) / (1 + weight**2) ** 0.5
        if options.babble or options.room or options.line:
            waveform = self._elsewhere(waveform, generator)
        if noisy < options.noise:
            noise = torch.randn(self.num_samples, generator=generator)
            waveform = waveform + noise * waveform.std() * 10 ** (-(5 + 35 * level) / 20)
        waveform = waveform * 10 ** (options.gain * (2 * gain - 1) / 20)
        return {"waveform": waveform, **sample}

    def _cut(self, clip: SpeechClip, first: int, heard: int) -> Tensor:
        """``heard`` samples of a clip from ``first`` on, played in the time of a training sample."""
        waveform = as_float(clip.sound[first : first + heard])
        waveform = F.pad(waveform, (0, heard - waveform.shape[0]))
        if heard != self.num_samples:
            waveform = F.interpolate(waveform[None, None], self.num_samples, mode="linear")[0, 0]
        return waveform

    def _elsewhere(self, waveform: Tensor, generator: torch.Generator) -> Tensor:
        """The sound among others, in a room, over a line: each by chance."""
        babble, room, line = torch.rand(3, generator=generator).tolist()
        if babble < self.options.babble:
            other, start = self.windows.draw(generator)
            other = self._cut(other, round(start / other.fps * SAMPLE_RATE), self.num_samples)
            waveform = among(waveform, other, uniform(3, 25, generator))
        if room < self.options.room:
            waveform = in_room(waveform, generator)
        return over_line(waveform, generator) if line < self.options.line else waveform

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        classifier, options = self.networks["classifier"], self.options
        features = classifier.encoder(batch["waveform"])
        logits = classifier.head(features).float()
        loss = F.cross_entropy(logits.flatten(0, 1), batch["targets"].flatten(), ignore_index=-100)
        right = (logits.argmax(dim=-1) == batch["targets"]).sum() / (batch["targets"] >= 0).sum().clamp_min(1)
        parts = {"accuracy": right}
        if classifier.pupil is not None:
            parts["teacher"] = F.mse_loss(classifier.pupil(features).float(), batch["lesson"].float())
            loss = loss + options.teacher * parts["teacher"]
        if options.anchor and self.earlier is not None:
            with torch.no_grad():
                kept = self.earlier(batch["undisturbed"]).float()
            parts["anchor"] = F.mse_loss(features.float(), kept) / kept.var()
            loss = loss + options.anchor * parts["anchor"]
        return {"loss": loss, **parts}

    @torch.no_grad()
    def validate(self, folder: Path | None) -> dict[str, float]:
        confusion = torch.zeros(len(self.phonemes), len(self.phonemes))
        device = next(self.encoder.parameters()).device
        for clip in self.held_out.clips[: self.options.held_out_clips]:
            clip = clip.first(self.options.held_out_seconds)
            logits = self.networks["classifier"](clip.waveform[None].to(device))[0].cpu()
            targets = self.targets(clip, 0, clip.sound.shape[0])
            known = targets >= 0
            confusion.index_put_(
                (targets[known], logits.argmax(dim=-1)[known]), torch.ones(int(known.sum())), accumulate=True
            )
        if folder is not None:
            draw_confusion(confusion, self.phonemes, folder / "confusion.png")
        recall = (
            confusion.diagonal()[confusion.sum(dim=1) > 0] / confusion.sum(dim=1)[confusion.sum(dim=1) > 0]
        )
        return {
            "frame_accuracy": float(confusion.diagonal().sum() / confusion.sum()),
            "mean_phoneme_accuracy": float(recall.mean()),
        }

    def export(self, weights: Path, trained_on: str) -> None:
        info = CheckpointInfo(native_fps=NATIVE_FPS, trained_on=trained_on)
        written = copy.deepcopy(self.encoder)
        if self.earlier is not None:
            with torch.no_grad():
                for value, before in zip(written.parameters(), self.earlier.parameters(), strict=True):
                    value.lerp_(before.to(value), self.options.kept)
        save_checkpoint(written, weights / "audio_encoder.safetensors", info)


def feature_instants(encoder: AudioEncoder, num_samples: int) -> Tensor:
    """Samples that the encoder's 50 Hz outputs stand for, ``[num_features]``."""
    return torch.arange(encoder.num_features(num_samples)) * encoder.stride + encoder.receptive_field / 2


def phoneme_targets(
    phonemes: Sequence[tuple[str, float, float]], instants: Tensor, numbers: Mapping[str, int]
) -> Tensor:
    """The number of the phoneme at each instant, -100 where none is known.

    Args:
        phonemes: ``(name, start, end)`` in seconds, in order.
        instants: samples at 16 kHz, ``[n]``.
        numbers: by name.
    """
    starts = torch.tensor([p[1] for p in phonemes]) * SAMPLE_RATE
    ends = torch.tensor([p[2] for p in phonemes]) * SAMPLE_RATE
    found = torch.tensor([numbers[p[0]] for p in phonemes])
    which = (torch.searchsorted(starts, instants, right=True) - 1).clamp_min(0)
    inside = (instants >= starts[which]) & (instants < ends[which])
    return torch.where(inside, found[which], -100)


@torch.no_grad()
def start_as_mel_filters(encoder: AudioEncoder, lowest: float = 80.0, highest: float = 7600.0) -> None:
    """Let the first convolution start as band-pass filters, evenly spaced on the mel scale.

    It goes on from there like any other layer. Hours of speech teach a wav2vec 2.0 such filters (Zeghidour et
    al. 2018, "Learning filterbanks from raw speech"); minutes do not. A band takes four channels: a windowed
    sine and cosine and their opposites, so that what the activation lets through adds up to the band's
    magnitude whatever the phase.

    Args:
        lowest, highest: centres of the outer bands in Hz.
    """
    convolution = encoder.model.feature_extractor.conv_layers[0].conv
    channels, _, length = convolution.weight.shape
    bands = channels // 4
    if bands < 2:
        raise FD2TalkError(f"mel filters need 8 channels in the first convolution, but it has {channels}.")
    to_mel = torch.tensor([lowest, highest], dtype=torch.float64).div(700).log1p()
    centres = torch.linspace(*to_mel.tolist(), bands, dtype=torch.float64).expm1() * 700
    spacing = centres.diff(append=2 * centres[-1:] - centres[-2:-1])
    time = (torch.arange(length, dtype=torch.float64) - (length - 1) / 2) / SAMPLE_RATE
    # a Hann window of T seconds passes 2 / T Hz, so high bands, which stand further apart, are short
    duration = (2 / spacing).clamp(max=length / SAMPLE_RATE)[:, None]
    window = (math.pi * time / duration).cos().square() * (time.abs() < duration / 2)
    phase = 2 * math.pi * centres[:, None] * time
    # speech falls by about 6 dB an octave; equal parts of it make the filters equally loud
    loudness = centres[:, None] / centres.mean() / window.sum(dim=1, keepdim=True)
    sine, cosine = phase.sin() * window * loudness, phase.cos() * window * loudness
    filters = torch.stack([sine, -sine, cosine, -cosine], dim=1).flatten(0, 1)
    filters *= length**-0.5 / filters.norm(dim=1).mean()
    convolution.weight[: len(filters), 0] = filters.to(convolution.weight)


def with_layers_of(network: AudioEncoder, earlier: AudioEncoder) -> dict[str, Tensor]:
    """The state of a shallower encoder, with layers on top that hardly change what it hears.

    A new layer adds nothing at first: the last matrices of its attention and its feed-forward part are zero.
    Its normalisations would still flatten what the layer below scaled and shifted, so theirs scale and shift
    by the mean of that. (Layers on top of trained ones: Gong et al. 2019, "Efficient training of BERT by
    progressively stacking"; nothing added at first: Zhang et al. 2019, "Fixup initialization".)

    Args:
        network: gives the rest of the new layers.
        earlier: with at most as many layers, of the same widths.
    """
    state = earlier.state_dict()
    depth = earlier.model.config.num_hidden_layers
    if depth == network.model.config.num_hidden_layers or network.model.config.do_stable_layer_norm:
        return state
    below = earlier.model.encoder.layers[-1].final_layer_norm
    shift = below.bias.mean()
    scale = (below.weight.square().mean() + below.bias.var()).sqrt()
    for key, value in network.state_dict().items():
        _, found, rest = key.partition("encoder.layers.")
        number, _, part = rest.partition(".")
        if not found or int(number) < depth:
            continue
        if part.endswith("layer_norm.weight"):
            value = scale.expand_as(value)
        elif part.endswith("layer_norm.bias"):
            value = shift.expand_as(value)
        elif part.startswith(("attention.out_proj", "feed_forward.output_dense")):
            value = torch.zeros_like(value)
        state[key] = value.detach().clone()
    return state


def draw_confusion(confusion: Tensor, names: list[str], picture: Path) -> None:
    """Rows are the true phonemes, columns what was heard."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 8), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    axis.imshow(confusion / confusion.sum(dim=1, keepdim=True).clamp_min(1), vmin=0, vmax=1, cmap="viridis")
    axis.set_xticks(range(len(names)), names, fontsize=7, rotation=90)
    axis.set_yticks(range(len(names)), names, fontsize=7)
    axis.set_xlabel("heard")
    axis.set_ylabel("spoken")
    figure.savefig(picture, dpi=80)


def build(section: dict, data: Path, weights: Path, seed: int, folder: Path) -> tuple[AudioEncoderStage, str]:
    """The stage from its configuration and a data folder."""
    options = stage_options(section, AudioEncoderOptions())
    train, held_out, words = load_speech(data, face_model_of(section))
    encoder = configs.build("audio_encoder", section["size"], seed, **subsection(section, "network"))
    if options.filters == "mel":
        start_as_mel_filters(encoder)
    teacher = Teacher.of(train, kept=folder) if options.teacher else None
    words += "; taught by Whisper base" if teacher else ""
    return AudioEncoderStage(encoder, train, held_out, options, teacher), words


def main(arguments: list[str] | None = None) -> int:
    return stage_main("audio_encoder", build, __doc__.splitlines()[0], arguments)

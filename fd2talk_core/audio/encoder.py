"""Audio in, features per video frame out (FD2Talk Sec. 3.2: wav2vec 2.0).

A recording of any rate and length becomes mono at 16 kHz, then wav2vec 2.0 features at 50 Hz, then features
on the motion networks' frame grid. Everything runs in pieces, yet gives what the whole file at once would
give, but for the transformer's attention span.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional

from ..checks import checked
from ..errors import FD2TalkError
from ..files import check_input, check_path, reason_of, shown_path
from ..metering import stage
from ..networks.building import check_weights, outline_of, state_shapes
from ..progress import Callback
from ..timing import check_fps, frame_count
from ..waveforms import check_waveform
from .bands import band_levels
from .features import NATIVE_FPS, AudioFeatures
from .front import (
    ConvolutionFront,
    block_powers,
    feature_count,
    noise_floor,
    receptive_field_of,
    stride_of,
)
from .pauses import spoken_frames
from .resampling import SAMPLE_RATE, to_mono_16k

if TYPE_CHECKING:
    from transformers import Wav2Vec2Config


WINDOW_SECONDS = 10
CONTEXT_SECONDS = 1
"""The transformer hears this much around a window on each side and keeps the window alone."""


CONFIG_FIELDS = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act"),
    *("layer_norm_eps", "initializer_range", "do_stable_layer_norm", "vocab_size"),
    *("hidden_dropout", "activation_dropout", "attention_dropout", "feat_proj_dropout", "layerdrop"),
    *("feat_extract_norm", "feat_extract_activation", "conv_dim", "conv_stride", "conv_kernel", "conv_bias"),
    *("num_conv_pos_embeddings", "num_conv_pos_embedding_groups", "adapter_attn_dim", "add_adapter"),
    *("apply_spec_augment", "mask_time_prob", "mask_time_length", "mask_time_min_masks"),
    *("mask_feature_prob", "mask_feature_length", "mask_feature_min_masks"),
)
"""What is taken of a ``config.json``: the network's shape and its training noise. Attention implementation,
number type, quantization and code to be fetched are never a file's to choose."""


def known_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a wav2vec 2.0 configuration that are in :data:`CONFIG_FIELDS`."""
    return {name: config[name] for name in CONFIG_FIELDS if name in config}


class AudioEncoder(nn.Module):
    """wav2vec 2.0 in pieces (transformers' ``Wav2Vec2Model``).

    Args:
        config: a ``Wav2Vec2Config`` as a mapping (the ``config.json`` of a Hugging Face folder).
        do_normalize: whether the model was trained on waveforms of zero mean and unit variance. It stands in
            its ``preprocessor_config.json``; its size does not tell.
        name: shown in messages.
        bands: edges in Hz of bands whose levels stand beside the features
            (:func:`~fd2talk_core.audio.bands.band_levels`); none by default, as in the paper.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        do_normalize: bool,
        name: str = "wav2vec2",
        bands: Sequence[float] = (),
    ) -> None:
        super().__init__()
        from transformers import Wav2Vec2Config, Wav2Vec2Model

        try:
            # the implementation is chosen here: a file may name code to be fetched for it
            hf_config = Wav2Vec2Config(**known_fields(config), attn_implementation="sdpa")
        except Exception as error:  # transformers raises kinds of its own for a field of the wrong type
            reason = " ".join(str(error).split())
            raise FD2TalkError(f"The configuration of {name!r} is no wav2vec 2.0's: {reason}") from error
        if hf_config.add_adapter:
            raise FD2TalkError(
                f"The audio encoder {name!r} has an adapter, which changes its frame rate: unsupported."
            )
        self.model = Wav2Vec2Model(hf_config)
        self.do_normalize = bool(do_normalize)
        self.name = name
        self.bands = _check_bands(bands, name)
        self.stride, self.receptive_field = _check_front(hf_config, name)

    # -- files --

    @property
    def config(self) -> dict[str, Any]:
        """Constructor arguments, as JSON; what a checkpoint file keeps."""
        return {
            "config": known_fields(self.model.config.to_diff_dict()),
            "do_normalize": self.do_normalize,
            "name": self.name,
            **({"bands": list(self.bands)} if self.bands else {}),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> AudioEncoder:
        """Untrained, from :attr:`config`."""
        return cls(**config)

    @classmethod
    def from_pretrained(cls, path: Path | str) -> AudioEncoder:
        """Load a Hugging Face folder of any wav2vec 2.0 model, or one of our own checkpoint files.

        Args:
            path: a folder with config.json, preprocessor_config.json and *.safetensors, or a .safetensors
                file.

        Raises:
            FD2TalkError: naming what is missing or wrong.
        """
        path = check_path(path, "The audio encoder")
        if os.path.isdir(path):  # False, too, for a name that no folder can have
            return cls._from_folder(path)
        from ..networks.checkpoint import load_checkpoint

        return load_checkpoint(path, cls)

    @classmethod
    def _from_folder(cls, folder: Path) -> AudioEncoder:
        config = _read_json(folder / "config.json", "which says how the model is built")
        if config.get("model_type") != "wav2vec2":
            raise FD2TalkError(
                f"{folder.name} holds a {config.get('model_type')!r} model, but a 'wav2vec2' model is needed."
            )
        if not any(folder.glob("*.safetensors")):
            pickled = any(folder.glob("*.bin"))
            raise FD2TalkError(
                f"{folder.name} holds no .safetensors weights"
                + (
                    ": its .bin file can run code when opened, so it is not read; convert it."
                    if pickled
                    else "."
                )
            )
        preprocessor = _read_json(
            folder / "preprocessor_config.json", "which says whether the model expects normalised audio"
        )
        if not isinstance(preprocessor.get("do_normalize"), bool):
            raise FD2TalkError(
                f"{folder.name}/preprocessor_config.json does not say do_normalize: true or false."
            )
        if preprocessor.get("sampling_rate", SAMPLE_RATE) != SAMPLE_RATE:
            raise FD2TalkError(
                f"{folder.name} expects audio at {preprocessor['sampling_rate']} Hz, but 16000 is supported."
            )
        try:
            weights = _weights_of(folder)
            outline = outline_of(
                lambda: cls(config, preprocessor["do_normalize"], folder.name), weights.shapes
            )
            weights.check(outline.model)
            encoder = cls(config, preprocessor["do_normalize"], folder.name)
            wanted = encoder.model.state_dict()
            found = {name: weights.read(name) for name in weights.places}
        except Exception as error:  # a stranger's values reach every line of a constructor
            raise FD2TalkError(
                f"{shown_path(folder.name)} cannot be loaded as a wav2vec 2.0 model ({reason_of(error)})."
            ) from error
        # absent from models fine-tuned without masking, and unused outside pre-training
        missing = sorted(wanted.keys() - found.keys() - {"masked_spec_embed"})
        if missing:
            raise FD2TalkError(
                f"{folder.name} lacks weights of a wav2vec 2.0 model, among them {missing[0]!r}."
            )
        encoder.model.load_state_dict(found, strict=False)
        encoder.requires_grad_(False)
        return encoder.train(False)

    # -- whole clips, with gradients: training --

    @property
    def feature_dim(self) -> int:
        """D_a, bands included."""
        return self.hidden_dim + max(len(self.bands) - 1, 0)

    @property
    def hidden_dim(self) -> int:
        """Width of wav2vec 2.0's own features, which :meth:`forward` gives."""
        return self.model.config.hidden_size

    def num_features(self, num_samples: int) -> int:
        """50 Hz features that ``num_samples`` at 16 kHz give, at least 1 (short audio is padded)."""
        return feature_count(self.model.config, num_samples)

    def normalize(self, waveform: Tensor) -> Tensor:
        """Zero mean and unit variance over the last axis, if this model wants it; mere noise stays quieter
        (:func:`~fd2talk_core.audio.front.noise_floor`).
        """
        if not self.do_normalize:
            return waveform
        mean = waveform.mean(dim=-1, keepdim=True)
        floor = noise_floor(block_powers(waveform))[..., None]
        variance = torch.maximum(waveform.var(dim=-1, unbiased=False, keepdim=True), floor)
        return (waveform - mean) / (variance + 1e-7).sqrt()

    def forward(self, waveform: Tensor) -> Tensor:
        """wav2vec 2.0's features of whole clips at once: ``[B, N]`` at 16 kHz to ``[B, num_features(N),
        hidden_dim]`` at 50 Hz.
        """
        waveform = self.normalize(waveform)
        waveform = functional.pad(waveform, (0, max(0, self.receptive_field - waveform.shape[-1])))
        return self.model(waveform).last_hidden_state

    def to_frames(self, features: Tensor, num_frames: int, native_fps: float = NATIVE_FPS) -> Tensor:
        """Features at 50 Hz to the instants (i + 0.5) / native_fps: linear between centres, ends held.

        Args:
            features: ``[..., n, D_a]``; number j hears samples 320 j to 320 j + 400 (the base model's
                numbers), so it stands for the instant at sample 320 j + 200.
        """
        centre = self.receptive_field / 2
        instant = (torch.arange(num_frames, dtype=torch.float64) + 0.5) * (SAMPLE_RATE / native_fps)
        position = ((instant - centre) / self.stride).clamp(0, features.shape[-2] - 1)
        left = position.floor().long().clamp(max=max(features.shape[-2] - 2, 0))
        right = (left + 1).clamp(max=features.shape[-2] - 1)
        weight = (position - left).to(features)[:, None]
        return torch.lerp(features[..., left, :], features[..., right, :], weight)

    # -- clips of any length, in pieces: inference --

    @checked
    @torch.no_grad()
    @stage("audio")
    def encode(
        self,
        waveform: Tensor,
        sample_rate: int,
        fps: float,
        callback: Callback | None = None,
    ) -> AudioFeatures:
        """Features of a recording of any length and rate, in memory that hardly grows with it.

        Args:
            waveform: ``[N]``, ``[C, N]`` or ``[1, C, N]``.
            sample_rate: Hz.
            fps: of the video to be made, over 0 and at most 120.
            callback: ``(done, total, None)`` after each window.

        Raises:
            FD2TalkError: for audio that is empty or not finite, or an fps out of range.
        """
        check_fps(fps)
        waveform = check_waveform(waveform, sample_rate)
        duration = Fraction(waveform.shape[1], int(sample_rate))
        heard = to_mono_16k(waveform, sample_rate)
        count = max(1, frame_count(duration, NATIVE_FPS))
        frames = self.to_frames(self.encode_16k(heard, callback), count)
        spoken = spoken_frames(heard, count, NATIVE_FPS)
        return AudioFeatures(frames, duration, float(fps), self.name, spoken=spoken)

    @torch.no_grad()
    def encode_16k(
        self,
        waveform: Tensor,
        callback: Callback | None = None,
        level: tuple[float, float] | None = None,
    ) -> Tensor:
        """``[N]`` at 16 kHz to ``[num_features(N), D_a]`` at 50 Hz, on the CPU.

        Two passes: the first gathers the statistics of the whole file that the waveform normalisation and a
        group-normed front need; the second runs the convolutions and, in windows, the transformer.

        Args:
            level: mean and variance to normalise by in place of the waveform's own, for a part of a longer
                recording.
        """
        training = self.training
        self.train(False)
        try:
            front = ConvolutionFront(self.model, waveform, self.do_normalize, level)
            hidden = self._encode_windows(front, callback)
        finally:
            self.train(training)
        if not self.bands:
            return hidden
        heard = band_levels(waveform.cpu(), self.bands, self.receptive_field // 2, self.stride, len(hidden))
        return torch.cat([hidden, heard], dim=1)

    def _encode_windows(self, front: ConvolutionFront, callback: Callback | None) -> Tensor:
        total, second = front.num_features, SAMPLE_RATE // self.stride
        context, length = CONTEXT_SECONDS * second, WINDOW_SECONDS * second
        windows = 1 if total <= length + 2 * context else -(-total // length)
        # windows of one length, since a short last one would hear little but its context
        bounds = [total * i // windows for i in range(windows + 1)]
        out = torch.empty(total, self.hidden_dim)
        held, held_from = front(0, 0), 0
        for index, (start, stop) in enumerate(pairwise(bounds)):
            low, high = max(start - context, 0), min(stop + context, total)
            # what the window before has convolved already is kept for this one's context
            fresh = front(held_from + held.shape[0], high)
            held, held_from = torch.cat([held[low - held_from :], fresh]), low
            hidden = self.model.encoder(held[None]).last_hidden_state[0]
            out[start:stop] = hidden[start - low : stop - low].float().cpu()
            if callback is not None:
                callback(index + 1, windows, None)
        return out


def _check_bands(bands: Sequence[float], name: str) -> tuple[float, ...]:
    edges = tuple(float(edge) for edge in bands)
    rising = all(low < high for low, high in pairwise(edges))
    if edges and not (len(edges) > 1 and rising and edges[0] >= 0 and edges[-1] <= SAMPLE_RATE / 2):
        raise FD2TalkError(
            f"The bands of {name!r} are bounded by {list(edges)}, but at least two rising frequencies from 0 "
            f"to {SAMPLE_RATE // 2} Hz are needed."
        )
    return edges


def _check_front(config: Wav2Vec2Config, name: str) -> tuple[int, int]:
    """Stride and receptive field of the convolutions, in samples.

    Raises:
        FD2TalkError: when they step by nothing, or by more than a second.
    """
    steps = [*config.conv_stride, *config.conv_kernel]
    if min(steps, default=0) < 1:
        raise FD2TalkError(f"The convolutions of {name!r} have a stride or kernel under 1: {steps}.")
    stride, field = stride_of(config), receptive_field_of(config)
    if max(stride, field) > SAMPLE_RATE:
        raise FD2TalkError(
            f"The convolutions of {name!r} step by {stride:,} samples and hear {field:,}, but at most "
            f"{SAMPLE_RATE:,} (a second) make sense."
        )
    return stride, field


@dataclass(frozen=True)
class _FolderWeights:
    """The tensors of ``model.safetensors``, or of its parts ``model-00001-of-00002.safetensors``.

    Attributes:
        shapes: of all tensors, by the names that they have there.
        files: where each is.
        places: the names of a bare model, and those of their tensors.
    """

    shapes: dict[str, list[int]]
    files: dict[str, Path]
    places: dict[str, str] = field(default_factory=dict)

    def check(self, model: nn.Module) -> None:
        """Find the weights that a bare model wants, by its own names: a recogniser's have a prefix, and files
        older than torch's parametrizations call the two parts of a normalised weight ``weight_g`` and
        ``weight_v``.

        Raises:
            FD2TalkError: for a tensor of another shape.
        """
        wanted = state_shapes(model)
        for given, shape in self.shapes.items():
            name = given.removeprefix("wav2vec2.")
            if name not in wanted:
                name = name.replace("weight_g", "parametrizations.weight.original0")
                name = name.replace("weight_v", "parametrizations.weight.original1")
            if name in wanted:
                if list(shape) != wanted[name]:
                    raise FD2TalkError(
                        f"{self.files[given].name} does not fit config.json: {given} is {list(shape)}, "
                        f"expected {wanted[name]}."
                    )
                self.places[name] = given

    def read(self, name: str) -> Tensor:
        """The weight that a bare model calls so."""
        given = self.places[name]
        with safe_open(self.files[given], framework="pt") as file:
            tensor = file.get_tensor(given)
        check_weights(shown_path(self.files[given].name), given, tensor)
        return tensor


def _weights_of(folder: Path) -> _FolderWeights:
    whole = folder / "model.safetensors"
    files = [whole] if whole.is_file() else sorted(folder.glob("model-*-of-*.safetensors"))
    if not files:
        raise FileNotFoundError("it has no model.safetensors")
    shapes, places = {}, {}
    for path in files:
        with safe_open(check_input(path, "file"), framework="pt") as file:
            for name in file.keys():  # noqa: SIM118, not a dict
                shapes[name], places[name] = file.get_slice(name).get_shape(), path
    return _FolderWeights(shapes, places)


def _read_json(path: Path, purpose: str) -> dict[str, Any]:
    if not path.is_file():
        raise FD2TalkError(f"{path.parent.name} has no {path.name}, {purpose}: download it with the weights.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FD2TalkError(
            f"{shown_path(path.parent.name)}/{path.name} cannot be read ({reason_of(error)})."
        ) from error
    if not isinstance(content, dict):
        raise FD2TalkError(f"{path.parent.name}/{path.name} is not a JSON object.")
    return content

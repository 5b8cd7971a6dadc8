"""Audio in, features per video frame out (FD2Talk Sec. 3.2: wav2vec 2.0).

A recording of any rate and length becomes mono at 16 kHz, then wav2vec 2.0 features at 50 Hz, then features
on the motion networks' frame grid. Everything runs in pieces, yet gives what the whole file at once would
give, but for the transformer's attention span.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import FD2TalkError
from ..motion.coefficients import check_fps, frame_count

if TYPE_CHECKING:
    import av

    from ..networks.diffusion import Callback

SAMPLE_RATE = 16_000
"""Of every wav2vec 2.0 model."""

NATIVE_FPS = 25.0
"""Frame grid of the motion networks."""

WINDOW_SECONDS = 10
CONTEXT_SECONDS = 1
"""The transformer hears this much around a window on each side and keeps the window alone."""

FRONT_SECONDS = 4
"""Audio that goes through the convolutions at a time: base-size activations stay under 100 MB."""

RESAMPLE_SECONDS = 10


# --- reading and resampling ---------------------------------------------------------------------------------


def read_audio(path: Path | str) -> tuple[Tensor, int]:
    """Decode the first audio stream of any container.

    Returns:
        waveform ``[C, N]`` float32 and its sample rate, both as recorded.

    Raises:
        FD2TalkError: naming the file, when it is missing, holds no audio, or cannot be decoded.
    """
    import av

    path = Path(path)
    if not path.is_file():
        raise FD2TalkError(f"There is no audio file {path}.")
    pieces: list[Tensor] = []
    try:
        # a playlist may name other places to read from: nothing but this file is opened, and no network
        with av.open(str(path), options={"protocol_whitelist": "file"}) as container:
            if not container.streams.audio:
                raise FD2TalkError(
                    f"{path.name} holds no audio stream; give a sound file or a video with sound."
                )
            stream = container.streams.audio[0]
            # interleaved, since PyAV reads beyond its eight pointers when more channels come as planes
            to_float = av.AudioResampler(format="flt")
            for frame in container.decode(stream):
                # a decoder may double the rate that the header names (HE-AAC)
                sample_rate = frame.sample_rate
                pieces.extend(map(_samples, to_float.resample(frame)))
            pieces.extend(map(_samples, to_float.resample(None)))
    except FD2TalkError:
        raise
    except (av.FFmpegError, OSError, ValueError) as error:
        raise FD2TalkError(f"{path.name} cannot be decoded as audio ({error}).") from error
    if not pieces:
        raise FD2TalkError(f"{path.name} holds an audio stream without a single sample.")
    return _join(pieces), sample_rate


def _samples(frame: av.AudioFrame) -> Tensor:
    """``[C, n]`` of an interleaved frame."""
    return torch.from_numpy(frame.to_ndarray()).view(-1, frame.layout.nb_channels).T


def _join(pieces: list[Tensor]) -> Tensor:
    """Concatenate ``[C, n]`` pieces along time, freeing each once copied: the peak is one recording, not
    two."""
    waveform = torch.empty(pieces[0].shape[0], sum(piece.shape[1] for piece in pieces))
    pieces.reverse()
    start = 0
    while pieces:
        piece = pieces.pop()
        waveform[:, start : start + piece.shape[1]] = piece
        start += piece.shape[1]
    return waveform


def check_waveform(waveform: Tensor, sample_rate: int) -> Tensor:
    """The waveform as ``[C, N]``, or one sentence on what is wrong with it.

    Args:
        waveform: ``[N]``, ``[C, N]`` or ``[1, C, N]``, float in -1..1 or PCM integers.
        sample_rate: Hz.
    """
    if sample_rate != int(sample_rate) or sample_rate < 1:
        raise FD2TalkError(
            f"The audio's sample rate is {sample_rate}, but a whole number of Hz over 0 is needed."
        )
    if waveform.ndim == 3 and waveform.shape[0] == 1:
        waveform = waveform[0]
    if waveform.ndim == 1:
        waveform = waveform[None]
    if waveform.ndim != 2:
        raise FD2TalkError(
            f"The audio has shape {tuple(waveform.shape)}, but one clip of [channels, samples] is needed."
        )
    if 0 in waveform.shape:
        raise FD2TalkError(f"The audio is empty (shape {tuple(waveform.shape)}): give at least one sample.")
    if waveform.is_complex() or waveform.dtype == torch.bool:
        raise FD2TalkError(f"The audio is of type {waveform.dtype}, but float or integer samples are needed.")
    return waveform


def _mono(waveform: Tensor, start: int, stop: int) -> Tensor:
    """Samples ``start..stop`` as mono float32, zeros beyond either end."""
    length = waveform.shape[1]
    piece = waveform[:, max(start, 0) : max(min(stop, length), 0)].detach().cpu()
    if not piece.is_floating_point():
        span = torch.iinfo(piece.dtype)
        middle = 128 if piece.dtype == torch.uint8 else 0
        piece = (piece.double() - middle) / (span.max - middle + 1)
    if not torch.isfinite(piece).all():
        bad = int((~torch.isfinite(piece)).any(dim=0).nonzero()[0]) + max(start, 0)
        raise FD2TalkError(
            f"The audio holds a value that is not a finite number at sample {bad}: export it again."
        )
    mono = piece.float().mean(dim=0)
    before, after = min(max(-start, 0), stop - start), min(max(stop - length, 0), stop - start)
    return functional.pad(mono, (before, after)) if before or after else mono


def to_mono_16k(waveform: Tensor, sample_rate: int) -> Tensor:
    """Average the channels and resample to 16 kHz.

    Args:
        waveform: ``[N]``, ``[C, N]`` or ``[1, C, N]``; float in -1..1 or PCM integers, which are scaled to
            it.
        sample_rate: Hz, any whole number.

    Returns:
        ``[ceil(N * 16000 / sample_rate)]`` float32 on the CPU; sample n stands for the instant n / 16000.

    Raises:
        FD2TalkError: for empty audio, a value that is not finite, or a sample rate under 1.
    """
    waveform = check_waveform(waveform, sample_rate)
    resampler = BandlimitedResampler(int(sample_rate), SAMPLE_RATE)
    total = -(-waveform.shape[1] * SAMPLE_RATE // int(sample_rate))
    out = torch.empty(total)
    step = max(1, RESAMPLE_SECONDS * SAMPLE_RATE // resampler.outputs) * resampler.outputs
    for start in range(0, total, step):
        piece = resampler(lambda a, b: _mono(waveform, a, b), start, min(step, total - start))
        out[start : start + piece.shape[0]] = piece
    return out


class BandlimitedResampler:
    """Windowed-sinc resampling by a rational factor (Smith, Digital Audio Resampling), any piece at a time.

    Output n lies at input position n · orig / new. Outputs come in blocks that all lie alike relative to
    their input, so one filter bank serves all blocks as one matrix product.

    Args:
        orig, new: sample rates, Hz.
        zeros: zero crossings of the sinc on either side; 16 with the Kaiser window gives a stop band of -80
            dB.
        rolloff: cut-off relative to the lower Nyquist frequency.
        beta: of the Kaiser window.
    """

    PHASES = 160
    """Outputs per matrix product: enough to be one product, few enough that their inputs overlap."""

    def __init__(
        self, orig: int, new: int, zeros: int = 16, rolloff: float = 0.94, beta: float = 8.6
    ) -> None:
        divisor = math.gcd(orig, new)
        self.inputs, self.outputs = orig // divisor, new // divisor
        repeat = max(1, self.PHASES // self.outputs)
        self.inputs, self.outputs = self.inputs * repeat, self.outputs * repeat
        self.banks = [] if orig == new else [self._bank(p, zeros, rolloff, beta) for p in self._groups()]

    def _groups(self) -> Iterator[range]:
        for first in range(0, self.outputs, self.PHASES):
            yield range(first, min(first + self.PHASES, self.outputs))

    def _bank(self, phases: range, zeros: int, rolloff: float, beta: float) -> tuple[range, int, Tensor]:
        """The outputs of a block that it makes, its first input, and its filters ``[inputs, outputs]``."""
        cutoff = rolloff * min(1.0, self.outputs / self.inputs)
        reach = zeros / cutoff
        position = torch.tensor([p * self.inputs / self.outputs for p in phases], dtype=torch.float64)
        first = math.floor(position[0].item() - reach)
        last = math.ceil(position[-1].item() + reach)
        distance = torch.arange(first, last + 1, dtype=torch.float64)[:, None] - position
        taper = torch.special.i0(beta * (1 - (distance / reach) ** 2).clamp(min=0).sqrt())
        filters = torch.where(distance.abs() <= reach, torch.sinc(cutoff * distance) * taper, 0.0)
        # each filter sums to 1, so that a constant stays itself at every phase
        return phases, first, (filters / filters.sum(dim=0)).float()

    def __call__(self, read: Any, start: int, count: int) -> Tensor:
        """Outputs ``start .. start + count``.

        Args:
            read: ``(first, last) -> [last - first]`` input samples, which may lie beyond the ends.
            start: a multiple of ``self.outputs``.
        """
        if not self.banks:
            return read(start, start + count)
        blocks = -(-count // self.outputs)
        origin = start // self.outputs * self.inputs
        low = min(first for _, first, _ in self.banks)
        high = max(first + filters.shape[0] for _, first, filters in self.banks)
        samples = read(origin + low, origin + (blocks - 1) * self.inputs + high)
        out = torch.empty(blocks, self.outputs)
        for phases, first, filters in self.banks:
            windows = samples[first - low :].unfold(0, filters.shape[0], self.inputs)[:blocks]
            out[:, phases.start : phases.stop] = windows @ filters
        return out.flatten()[:count]


# --- features -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AudioFeatures:
    """What the motion networks hear: FD2TALK_AUDIO.

    Attributes:
        features: ``[F_native, D_a]`` float32 on the CPU; row i is the sound at (i + 0.5) / native_fps
            seconds.
        duration: seconds, exact: samples / sample rate of the recording.
        fps: frame rate of the video to be made.
        encoder: name of the network that made them.
        native_fps: frame grid of the motion networks.
    """

    features: Tensor
    duration: Fraction
    fps: float
    encoder: str
    native_fps: float = NATIVE_FPS

    def __post_init__(self) -> None:
        check_fps(self.fps)
        if self.features.ndim != 2 or 0 in self.features.shape:
            raise FD2TalkError(
                f"The audio features have shape {tuple(self.features.shape)}, "
                "but [frames, channels] is needed."
            )
        if not torch.isfinite(self.features).all():
            raise FD2TalkError(f"The audio encoder {self.encoder!r} gave a value that is not a number.")
        if self.num_native_frames != max(1, frame_count(self.duration, self.native_fps)):
            raise FD2TalkError(
                f"{self.num_native_frames} audio features were given for {float(self.duration):.3f} s at "
                f"{self.native_fps:g} a second."
            )

    @property
    def num_native_frames(self) -> int:
        """F_native: length of the motion networks' sequences."""
        return self.features.shape[0]

    @property
    def num_frames(self) -> int:
        """F = round(duration · fps), frames of the video; at least one, so that a click makes a picture."""
        return max(1, frame_count(self.duration, self.fps))


class AudioEncoder(nn.Module):
    """wav2vec 2.0 in pieces (transformers' ``Wav2Vec2Model``).

    Args:
        config: a ``Wav2Vec2Config`` as a mapping (the ``config.json`` of a Hugging Face folder).
        do_normalize: whether the model was trained on waveforms of zero mean and unit variance. It stands in
            its ``preprocessor_config.json``; its size does not tell.
        name: shown in messages.
    """

    def __init__(self, config: Mapping[str, Any], do_normalize: bool, name: str = "wav2vec2") -> None:
        super().__init__()
        from transformers import Wav2Vec2Config, Wav2Vec2Model

        hf_config = Wav2Vec2Config.from_dict(dict(config))
        if hf_config.add_adapter:
            raise FD2TalkError(
                f"The audio encoder {name!r} has an adapter, which changes its frame rate: unsupported."
            )
        self._set(Wav2Vec2Model(hf_config), do_normalize, name)

    def _set(self, model: nn.Module, do_normalize: bool, name: str) -> None:
        self.model = model
        self.do_normalize = bool(do_normalize)
        self.name = name
        config = model.config
        self.stride = math.prod(config.conv_stride)
        self.receptive_field = 1
        for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
            self.receptive_field = (self.receptive_field - 1) * stride + kernel

    # -- files --

    @property
    def config(self) -> dict[str, Any]:
        """Constructor arguments, as JSON; what a checkpoint file keeps."""
        return {
            "config": self.model.config.to_diff_dict(),
            "do_normalize": self.do_normalize,
            "name": self.name,
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
        path = Path(path)
        if path.is_dir():
            return cls._from_folder(path)
        from ..networks.checkpoint import load_checkpoint

        return load_checkpoint(path, cls)

    @classmethod
    def _from_folder(cls, folder: Path) -> AudioEncoder:
        from transformers import Wav2Vec2Model

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
            model, info = Wav2Vec2Model.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
        except Exception as error:  # transformers and safetensors raise many kinds for a broken folder
            raise FD2TalkError(f"{folder.name} cannot be loaded as a wav2vec 2.0 model ({error}).") from error
        # absent from models fine-tuned without masking, and unused outside pre-training
        missing = sorted(set(info["missing_keys"]) - {"masked_spec_embed"})
        if missing:
            raise FD2TalkError(
                f"{folder.name} lacks weights of a wav2vec 2.0 model, among them {missing[0]!r}."
            )
        encoder = cls.__new__(cls)
        nn.Module.__init__(encoder)
        encoder._set(model.float(), preprocessor["do_normalize"], folder.name)
        encoder.requires_grad_(False)
        return encoder.train(False)

    # -- whole clips, with gradients: training --

    @property
    def feature_dim(self) -> int:
        """D_a."""
        return self.model.config.hidden_size

    def num_features(self, num_samples: int) -> int:
        """50 Hz features that ``num_samples`` at 16 kHz give, at least 1 (short audio is padded)."""
        return max(1, (num_samples - self.receptive_field) // self.stride + 1)

    def normalize(self, waveform: Tensor) -> Tensor:
        """Zero mean and unit variance over the last axis, if this model wants it."""
        if not self.do_normalize:
            return waveform
        mean = waveform.mean(dim=-1, keepdim=True)
        return (waveform - mean) / (waveform.var(dim=-1, unbiased=False, keepdim=True) + 1e-7).sqrt()

    def forward(self, waveform: Tensor) -> Tensor:
        """Features of whole clips at once: ``[B, N]`` at 16 kHz to ``[B, num_features(N), D_a]`` at 50 Hz."""
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

    @torch.no_grad()
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
        features = self.encode_16k(to_mono_16k(waveform, sample_rate), callback)
        frames = self.to_frames(features, max(1, frame_count(duration, NATIVE_FPS)))
        return AudioFeatures(frames, duration, float(fps), self.name)

    @torch.no_grad()
    def encode_16k(self, waveform: Tensor, callback: Callback | None = None) -> Tensor:
        """``[N]`` at 16 kHz to ``[num_features(N), D_a]`` at 50 Hz, on the CPU.

        Two passes: the first gathers the statistics of the whole file that the waveform normalisation and a
        group-normed front need; the second runs the convolutions and, in windows, the transformer.
        """
        training = self.training
        self.train(False)
        try:
            return self._encode_windows(ConvolutionFront(self, waveform), callback)
        finally:
            self.train(training)

    def _encode_windows(self, front: ConvolutionFront, callback: Callback | None) -> Tensor:
        total, second = front.num_features, SAMPLE_RATE // self.stride
        context, length = CONTEXT_SECONDS * second, WINDOW_SECONDS * second
        windows = 1 if total <= length + 2 * context else -(-total // length)
        # windows of one length, since a short last one would hear little but its context
        bounds = [total * i // windows for i in range(windows + 1)]
        out = torch.empty(total, self.feature_dim)
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


class ConvolutionFront:
    """wav2vec 2.0's convolutions on any stretch of a file, equal to those on the whole file.

    A convolution is local, but the waveform's normalisation and the group norm of base-style models (each
    channel over all time) are not. Their statistics are gathered here, over the whole file.

    Args:
        encoder: whose front it is.
        waveform: ``[N]`` mono at 16 kHz.
    """

    def __init__(self, encoder: AudioEncoder, waveform: Tensor) -> None:
        self.extractor = encoder.model.feature_extractor
        self.projection = encoder.model.feature_projection
        self.stride, self.receptive_field = encoder.stride, encoder.receptive_field
        self.num_features = encoder.num_features(waveform.shape[0])
        parameter = next(encoder.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self.waveform = waveform
        self.mean, self.scale = 0.0, 1.0
        if encoder.do_normalize:
            double = [piece.double() for piece in waveform.split(FRONT_SECONDS * SAMPLE_RATE)]
            self.mean = sum(float(piece.sum()) for piece in double) / waveform.shape[0]
            variance = sum(float((piece - self.mean).square().sum()) for piece in double) / waveform.shape[0]
            self.scale = (variance + 1e-7) ** -0.5
        first = self.extractor.conv_layers[0]
        self.group_statistics = (
            self._first_layer_statistics(first) if encoder.model.config.feat_extract_norm == "group" else None
        )

    def _samples(self, start: int, stop: int) -> Tensor:
        """Normalised samples; zeros after the end (audio shorter than one receptive field)."""
        piece = (self.waveform[start:stop] - self.mean) * self.scale
        return functional.pad(piece, (0, stop - start - piece.shape[0]))

    def _first_layer_statistics(self, layer: nn.Module) -> tuple[Tensor, Tensor]:
        """Mean and variance ``[C]`` over the whole file of the first convolution's channels.

        A channel is a weighted sum of the samples under its kernel, so both follow from the mean and
        covariance of
        those samples: ten numbers and a hundred, for a second pass that costs next to nothing.
        """
        kernel, stride = layer.conv.kernel_size[0], layer.conv.stride[0]
        length = max(self.waveform.shape[0], self.receptive_field)
        outputs = (length - kernel) // stride + 1
        total = torch.zeros(kernel, dtype=torch.float64)
        product = torch.zeros(kernel, kernel, dtype=torch.float64)
        step = FRONT_SECONDS * SAMPLE_RATE // stride
        for start in range(0, outputs, step):
            stop = min(start + step, outputs)
            samples = self._samples(start * stride, (stop - 1) * stride + kernel).double()
            patches = samples.unfold(0, kernel, stride)
            total += patches.sum(dim=0)
            product += patches.T @ patches
        mean = total / outputs
        covariance = product / outputs - torch.outer(mean, mean)
        weight = layer.conv.weight[:, 0].detach().cpu().double()
        bias = 0.0 if layer.conv.bias is None else layer.conv.bias.detach().cpu().double()
        variance = torch.einsum("ci,ij,cj->c", weight, covariance, weight).clamp(min=0)
        return (weight @ mean + bias).to(self.device, self.dtype), variance.to(self.device, self.dtype)

    def __call__(self, start: int, stop: int) -> Tensor:
        """Projected features ``start..stop`` of the file, ``[stop - start, hidden]``."""
        step = FRONT_SECONDS * SAMPLE_RATE // self.stride
        pieces = [self._piece(low, min(low + step, stop)) for low in range(start, stop, step)]
        if not pieces:
            return torch.empty(
                0, self.projection.projection.out_features, device=self.device, dtype=self.dtype
            )
        return torch.cat(pieces)

    def _piece(self, start: int, stop: int) -> Tensor:
        samples = self._samples(start * self.stride, (stop - 1) * self.stride + self.receptive_field)
        hidden = samples.to(self.device, self.dtype)[None, None]
        for index, layer in enumerate(self.extractor.conv_layers):
            if index == 0 and self.group_statistics is not None:
                mean, variance = self.group_statistics
                norm = layer.layer_norm
                hidden = functional.batch_norm(
                    layer.conv(hidden), mean, variance, norm.weight, norm.bias, training=False, eps=norm.eps
                )
                hidden = layer.activation(hidden)
            else:
                hidden = layer(hidden)
        return self.projection(hidden.transpose(1, 2))[0][0]


def _read_json(path: Path, purpose: str) -> dict[str, Any]:
    if not path.is_file():
        raise FD2TalkError(f"{path.parent.name} has no {path.name}, {purpose}: download it with the weights.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FD2TalkError(f"{path.parent.name}/{path.name} cannot be read ({error}).") from error
    if not isinstance(content, dict):
        raise FD2TalkError(f"{path.parent.name}/{path.name} is not a JSON object.")
    return content

"""The convolutional front of wav2vec 2.0 over long recordings, in two streaming passes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from .resampling import SAMPLE_RATE

if TYPE_CHECKING:
    from transformers import Wav2Vec2Config, Wav2Vec2Model

FRONT_SECONDS = 4
"""Audio that goes through the convolutions at a time: base-size activations stay under 100 MB."""

BLOCK = SAMPLE_RATE // 50
"""Samples whose power is taken together."""
QUIET_SHARE = 0.05
"""Of the blocks: so many are a recording's quietest moments."""
HEADROOM = 32.0
"""A voice has at least so many times (15 dB) the power of those, or it is noise."""
LEAST_BLOCKS = 50
"""In a second or more somebody who speaks is quiet once."""
DIGITAL_SILENCE = 1e-9
"""Power under which a block is no room's noise: 16-bit steps have as much."""


def stride_of(config: Wav2Vec2Config) -> int:
    """Samples from one feature to the next."""
    return math.prod(config.conv_stride)


def receptive_field_of(config: Wav2Vec2Config) -> int:
    """Samples that one feature is computed from."""
    field = 1
    for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
        field = (field - 1) * stride + kernel
    return field


def feature_count(config: Wav2Vec2Config, num_samples: int) -> int:
    """Features of a recording; at least one, since what is shorter than a receptive field is padded to it."""
    return max(1, (num_samples - receptive_field_of(config)) // stride_of(config) + 1)


class ConvolutionFront:
    """wav2vec 2.0's convolutions on any stretch of a file, equal to those on the whole file.

    A convolution is local, but the waveform's normalisation and the group norm of base-style models (each
    channel over all time) are not. Their statistics are gathered here, over the whole file.

    Args:
        model: whose front it is.
        waveform: ``[N]`` mono at 16 kHz.
        do_normalize: bring the waveform to zero mean and unit variance first, as the model was trained.
        level: mean and variance to do this by, where the waveform is a part of something longer.
    """

    def __init__(
        self,
        model: Wav2Vec2Model,
        waveform: Tensor,
        do_normalize: bool,
        level: tuple[float, float] | None = None,
    ) -> None:
        self.extractor = model.feature_extractor
        self.projection = model.feature_projection
        self.stride, self.receptive_field = stride_of(model.config), receptive_field_of(model.config)
        self.num_features = feature_count(model.config, waveform.shape[0])
        parameter = next(model.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self.waveform = waveform
        self.mean, self.scale = 0.0, 1.0
        if do_normalize:
            self.mean, variance = level_of(waveform) if level is None else level
            self.scale = (variance + 1e-7) ** -0.5
        first = self.extractor.conv_layers[0]
        self.group_statistics = (
            self._first_layer_statistics(first) if model.config.feat_extract_norm == "group" else None
        )

    def _samples(self, start: int, stop: int) -> Tensor:
        """Normalised samples; zeros after the end (audio shorter than one receptive field)."""
        piece = (self.waveform[start:stop] - self.mean) * self.scale
        return functional.pad(piece, (0, stop - start - piece.shape[0]))

    def _first_layer_statistics(self, layer: nn.Module) -> tuple[Tensor, Tensor]:
        """Mean and variance ``[C]`` over the whole file of the first convolution's channels.

        A channel is a weighted sum of the samples under its kernel, so both follow from the mean and
        covariance of those samples: ten numbers and a hundred, for a second pass that costs next to nothing.
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


def level_of(waveform: Tensor) -> tuple[float, float]:
    """Mean and variance that ``[N]`` is normalised by; the latter not under :func:`noise_floor`."""
    pieces = waveform.split(FRONT_SECONDS * SAMPLE_RATE)
    mean = sum(float(piece.double().sum()) for piece in pieces) / waveform.shape[0]
    variance = sum(float((piece.double() - mean).square().sum()) for piece in pieces) / waveform.shape[0]
    powers = torch.cat([block_powers(piece.double()) for piece in pieces])
    return mean, max(variance, float(noise_floor(powers)))


def block_powers(waveform: Tensor) -> Tensor:
    """``[..., N // 320]``: the variance of each 20 ms of ``[..., N]`` at 16 kHz."""
    count = waveform.shape[-1] // BLOCK
    blocks = waveform[..., : count * BLOCK].unflatten(-1, (count, BLOCK))
    # piece by piece: of an hour it would be half a gigabyte
    powers = [
        (some - some.mean(dim=-1, keepdim=True)).square().mean(dim=-1)
        for some in blocks.split(FRONT_SECONDS * SAMPLE_RATE // BLOCK, dim=-2)
    ]
    return torch.cat(powers, dim=-1)


def noise_floor(powers: Tensor) -> Tensor:
    """The least variance by which a recording is normalised; 0 where less than a second of it sounds.

    A voice swells and pauses, so its quietest moments lie 15 dB or more under its mean, while the noise of a
    room hardly changes. Normalised to unit variance such noise would be as loud as any voice, and a mouth
    that hears it hangs open; 10 dB lower an encoder takes it for the silence that it is.

    Args:
        powers: ``[..., n]`` of :func:`block_powers`.

    Returns:
        ``[...]``.
    """
    sounding = powers > DIGITAL_SILENCE
    enough = sounding.sum(dim=-1) >= LEAST_BLOCKS
    if not enough.any():
        return torch.zeros_like(enough, dtype=powers.dtype)
    quietest = powers.masked_fill(~sounding, math.nan).nanquantile(QUIET_SHARE, dim=-1)
    return torch.where(enough, HEADROOM * quietest, 0.0)

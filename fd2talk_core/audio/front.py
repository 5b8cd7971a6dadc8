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
            self.mean, variance = _level_of(waveform) if level is None else level
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


def _level_of(waveform: Tensor) -> tuple[float, float]:
    """Mean and variance of ``[N]``."""
    double = [piece.double() for piece in waveform.split(FRONT_SECONDS * SAMPLE_RATE)]
    mean = sum(float(piece.sum()) for piece in double) / waveform.shape[0]
    return mean, sum(float((piece - mean).square().sum()) for piece in double) / waveform.shape[0]

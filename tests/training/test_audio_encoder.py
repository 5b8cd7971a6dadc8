"""How the audio encoder starts."""

from __future__ import annotations

import torch

from fd2talk_core import configs
from fd2talk_core.audio import SAMPLE_RATE
from training.audio_encoder import start_as_mel_filters


def test_the_first_convolution_starts_as_bands_evenly_spaced_in_mel() -> None:
    encoder = configs.build("audio_encoder", "tiny", 0)
    start_as_mel_filters(encoder, 200.0, 6000.0)
    filters = encoder.model.feature_extractor.conv_layers[0].conv.weight[:, 0].detach()
    sine, opposite, cosine = filters[::4], filters[1::4], filters[2::4]
    assert torch.equal(opposite, -sine)
    spectra = torch.fft.rfft(sine, 8192).abs()
    peaks = spectra.argmax(dim=1) * SAMPLE_RATE / 8192
    mel = 2595 * torch.log10(1 + peaks / 700)
    wanted = torch.linspace(2595 * 0.10914446, 2595 * 0.98116547, len(mel))  # of 200 and 6000 Hz
    torch.testing.assert_close(mel, wanted, atol=12.0, rtol=0)
    # sine and cosine are a quadrature pair: they do not see each other
    assert (sine * cosine).sum(dim=1).abs().max() < 1e-3 * filters.square().sum(dim=1).max()

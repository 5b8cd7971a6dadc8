"""PBNet: head pose and blinks from audio by a variational autoencoder (DAWN Sec. 3.4, Eq. 8, 9).

An alternative to PoseDiT: one pass of a decoder in place of a diffusion's steps, and lids beside the head.
Its layers are those of :class:`~fd2talk_core.networks.motion_transformer.MotionTransformer`; what stands in
their condition beside the audio is the state that the clip starts from.
"""

from __future__ import annotations

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from ..errors import FD2TalkError
from .attention import rotary_positions
from .motion_transformer import POSE_DIM, MotionLayer, Normalizing, check_heads

BLINK_NAMES = ("eyeBlinkLeft", "eyeBlinkRight")
STATE_DIM = POSE_DIM + len(BLINK_NAMES)
"""Of ρ: three angles, three shifts, two lids."""


class PoseBlinkNetwork(Normalizing, ModelMixin, ConfigMixin):
    """A transformer VAE over sequences of ρ, pose and lids relative to their start (DAWN Eq. 8, 9).

    Args:
        audio_dim: D_a, size of an audio feature.
        latent_dim: C_h, size of the latent code of a frame.
        hidden_size: width; a multiple of ``2 * num_heads``.
        num_layers: of the encoder and of the decoder.
        num_heads: attention heads.
        condition_dim: size of the projected audio and start.
        alignment_window: frames of audio on either side that a frame hears; None for all.
        attention_window: frames on either side that self-attention sees (DAWN: 200).
        feed_forward_mult: width of the feed-forward relative to ``hidden_size``.
        native_fps: the frame grid that it was trained on.
        face_model: name of the face model whose pose and lids it predicts.
        kind: what it takes the place of.
    """

    @register_to_config
    def __init__(
        self,
        audio_dim: int = 768,
        latent_dim: int = 16,
        hidden_size: int = 256,
        num_layers: int = 3,
        num_heads: int = 4,
        condition_dim: int = 256,
        alignment_window: int | None = 3,
        attention_window: int | None = 200,
        feed_forward_mult: int = 4,
        native_fps: float = 25.0,
        face_model: str = "",
        kind: str = "pose",
    ) -> None:
        super().__init__()
        check_heads(hidden_size, num_heads)
        if kind != "pose":
            raise FD2TalkError(f"kind is {kind!r}, but this network predicts the pose.")
        shape = (
            hidden_size,
            condition_dim,
            num_heads,
            alignment_window,
            attention_window,
            feed_forward_mult,
            0.0,
        )
        self.condition = nn.Linear(audio_dim + STATE_DIM, condition_dim)
        self.encoder_in = nn.Linear(STATE_DIM, hidden_size)
        self.encoder = nn.ModuleList(MotionLayer(*shape) for _ in range(num_layers))
        self.encoder_out = nn.Sequential(nn.LayerNorm(hidden_size), nn.Linear(hidden_size, 2 * latent_dim))
        self.decoder_in = nn.Linear(latent_dim, hidden_size)
        self.decoder = nn.ModuleList(MotionLayer(*shape) for _ in range(num_layers))
        self.decoder_out = nn.Sequential(nn.LayerNorm(hidden_size), nn.Linear(hidden_size, STATE_DIM))
        self.register_normalization(STATE_DIM)

    def encode(self, start: Tensor, change: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Eq. 8: μ and log σ of the latent code.

        Args:
            start: ρ_src ``[B, 8]``, normalised.
            change: Δρ ``[B, F, 8]``, a difference of normalised states.
            audio: ``[B, F, D_a]``.

        Returns:
            two of ``[B, F, C_h]``.
        """
        hidden = self._layers(self.encoder, self.encoder_in(change), start, audio)
        mean, log_deviation = self.encoder_out(hidden).chunk(2, dim=-1)
        return mean, log_deviation

    def decode(self, latent: Tensor, start: Tensor, audio: Tensor) -> Tensor:
        """Eq. 9: Δρ ``[B, F, 8]`` from h ``[B, F, C_h]``."""
        return self.decoder_out(self._layers(self.decoder, self.decoder_in(latent), start, audio))

    def forward(self, start: Tensor, change: Tensor, audio: Tensor, noise: Tensor) -> tuple[Tensor, ...]:
        """Δρ as it is rebuilt, μ and log σ; ``noise [B, F, C_h]`` is that of the resampling."""
        mean, log_deviation = self.encode(start, change, audio)
        return self.decode(mean + log_deviation.exp() * noise, start, audio), mean, log_deviation

    def _layers(self, layers: nn.ModuleList, hidden: Tensor, start: Tensor, audio: Tensor) -> Tensor:
        frames = hidden.shape[1]
        condition = self.condition(torch.cat([audio, start[:, None].expand(-1, frames, -1)], dim=-1))
        head_dim = self.config.hidden_size // self.config.num_heads
        rotary = rotary_positions(frames, head_dim, hidden.device)
        for layer in layers:
            hidden = layer(hidden, condition, rotary)
        return hidden


def divergence(mean: Tensor, log_deviation: Tensor) -> Tensor:
    """L_KL of DAWN Sec. 3.4: from N(μ, σ) to the standard normal, summed over C_h and averaged otherwise."""
    terms = 0.5 * (mean.square() + (2 * log_deviation).exp() - 1) - log_deviation
    return terms.sum(dim=-1).mean()

"""The lip expert: does this mouth say this sound? (FD2Talk Sec. 3.4.1, Eq. 10 and 11).

Two small encoders, of five frames of mouth-vertex motion and of the audio at the same frames, are pre-trained
by contrast; frozen, they steer the expression transformer through L_sync.

Mouth motion is the mouth's vertices minus the same identity's neutral mouth, in face-model units. Since Eq. 1
is linear, it is B_exp β on those vertices, free of who speaks.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional

from ..errors import FD2TalkError

COSINE_EPS = 1e-8
"""ε of Eq. 10."""

PROBABILITY_FLOOR = 1e-6
"""P_sync is held above this in Eq. 11, where the logarithm of 0 would be infinite."""


class WindowEncoder(nn.Module):
    """Embeds a window of frames: each frame alone, which overlapping windows share, then all together.

    The embedding has no negative entry, as in Wav2Lip's SyncNet, so that the cosine of two is a probability:
    Eq. 10 is then in [0, 1] as it stands, and Eq. 11 defined. The layer norm before it keeps half of the
    entries alive.
    """

    def __init__(self, frame_dim: int, frames: int, hidden_size: int, embed_dim: int) -> None:
        super().__init__()
        self.frame = nn.Sequential(
            nn.Linear(frame_dim, hidden_size), nn.GELU(), nn.Linear(hidden_size, hidden_size)
        )
        self.window = nn.Sequential(
            nn.LayerNorm(frames * hidden_size),
            nn.Linear(frames * hidden_size, 2 * hidden_size),
            nn.GELU(),
            nn.Linear(2 * hidden_size, embed_dim),
            nn.LayerNorm(embed_dim),
            nn.ReLU(),
        )

    def forward(self, frames: Tensor) -> Tensor:
        """``[..., frames, frame_dim]`` to ``[..., embed_dim]``."""
        return self.window(self.frame(frames).flatten(-2))

    def slide(self, clip: Tensor, frames: int, stride: int) -> Tensor:
        """Every window of ``clip [B, F, frame_dim]``: ``[B, windows, embed_dim]``."""
        windows = self.frame(clip).unfold(1, frames, stride)  # [B, windows, hidden, frames]
        return self.window(windows.transpose(2, 3).flatten(-2))


class LipExpert(ModelMixin, ConfigMixin):
    """Eq. 10 and 11 of FD2Talk.

    Args:
        num_mouth_vertices: M of the face model.
        audio_dim: D_a.
        frames: window length, 5 in the paper's source for it (Wav2Lip).
        hidden_size: width of the encoders.
        embed_dim: size of the embeddings v and a.
        motion_scale: mouth motion is multiplied by this on the way in; 20 brings the usual 5 mm to 1.
        face_model: name of the face model whose mouth it knows.
        native_fps: frame rate of its windows.
    """

    @register_to_config
    def __init__(
        self,
        num_mouth_vertices: int,
        audio_dim: int = 768,
        frames: int = 5,
        hidden_size: int = 256,
        embed_dim: int = 256,
        motion_scale: float = 20.0,
        face_model: str = "",
        native_fps: float = 25.0,
    ) -> None:
        super().__init__()
        self.motion_encoder = WindowEncoder(num_mouth_vertices * 3, frames, hidden_size, embed_dim)
        self.audio_encoder = WindowEncoder(audio_dim, frames, hidden_size, embed_dim)
        # the inverse temperature of the contrast, learned as in CLIP
        self.log_scale = nn.Parameter(torch.tensor(10.0).log())

    def embed_motion(self, mouth: Tensor) -> Tensor:
        """v: mouth motion ``[B, frames, M, 3]`` to ``[B, embed_dim]``, no entry below 0."""
        return self.motion_encoder(mouth.flatten(-2) * self.config.motion_scale)

    def embed_audio(self, audio: Tensor) -> Tensor:
        """a: audio features ``[B, frames, D_a]`` to ``[B, embed_dim]``, no entry below 0."""
        return self.audio_encoder(audio)

    def forward(self, mouth: Tensor, audio: Tensor) -> Tensor:
        """P_sync ``[B]`` of windows ``[B, frames, M, 3]`` and ``[B, frames, D_a]``."""
        return sync_probability(self.embed_motion(mouth), self.embed_audio(audio))

    def contrastive_loss(
        self,
        mouth: Tensor,
        audio: Tensor,
        other_audio: Tensor | None = None,
        gather: Callable[[Tensor], Tensor] = lambda embeddings: embeddings,
    ) -> Tensor:
        """InfoNCE in both directions over a batch of matching windows.

        Args:
            mouth: ``[B, frames, M, 3]``
            audio: ``[B, frames, D_a]``; window b belongs to mouth b, every other is a negative.
            other_audio: ``[B, K, frames, D_a]`` further negatives of each mouth: other moments of its own
                clip, by which the expert learns timing and not merely who speaks.
            gather: brings the embeddings ``[B, ...]`` of a batch together that several processes share, whose
                windows are each other's negatives.
        """
        v, a = gather(self.embed_motion(mouth)), gather(self.embed_audio(audio))
        others = None if other_audio is None else gather(self.embed_audio(other_audio))
        return info_nce(v, a, others, self.log_scale.exp().clamp(max=100))

    def binary_loss(self, mouth: Tensor, audio: Tensor, other_audio: Tensor) -> Tensor:
        """Binary cross-entropy of P_sync, as SyncNet is trained in Wav2Lip: matching windows count as much as
        others.

        Args:
            mouth, audio, other_audio: as :meth:`contrastive_loss`.
        """
        v = self.embed_motion(mouth)
        true = sync_probability(v, self.embed_audio(audio))
        other = sync_probability(v[:, None], self.embed_audio(other_audio))
        # a cosine may be over 1 by rounding, and a logarithm of 0 is infinite
        true, other = (p.clamp(PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR) for p in (true, other))
        return (-true.log().mean() - (1 - other).log().mean()) / 2


def info_nce(v: Tensor, a: Tensor, others: Tensor | None, scale: Tensor) -> Tensor:
    """InfoNCE in both directions (van den Oord et al. 2018) of matching embeddings.

    Args:
        v, a: ``[B, E]``; row b of one belongs to row b of the other, every other is a negative.
        others: ``[B, K, E]`` further negatives of each row of ``v``.
        scale: what cosines are multiplied by.
    """
    v, a = functional.normalize(v, dim=-1), functional.normalize(a, dim=-1)
    logits = scale * v @ a.T
    labels = torch.arange(v.shape[0], device=v.device)
    backward = functional.cross_entropy(logits.T, labels)
    if others is not None:
        others = functional.normalize(others, dim=-1)
        logits = torch.cat([logits, scale * torch.einsum("be,bke->bk", v, others)], dim=1)
    return (functional.cross_entropy(logits, labels) + backward) / 2


def sync_probability(v: Tensor, a: Tensor, eps: float = COSINE_EPS) -> Tensor:
    """FD2Talk Eq. 10: v · a / max(‖v‖₂ ‖a‖₂, ε) of embeddings ``[..., E]``, giving ``[...]``."""
    return (v * a).sum(dim=-1) / (v.norm(dim=-1) * a.norm(dim=-1)).clamp(min=eps)


def sync_loss(probability: Tensor) -> Tensor:
    """FD2Talk Eq. 11: the mean of -log P_sync over any shape.

    A probability of 0 (embeddings with nothing in common) counts as :data:`PROBABILITY_FLOOR`.
    """
    return -probability.clamp(min=PROBABILITY_FLOOR).log().mean()


def sync_over_clip(expert: LipExpert, mouth: Tensor, audio: Tensor, stride: int = 1) -> Tensor:
    """P_sync of every window of a clip: ``[B, F, M, 3]`` and ``[B, F, D_a]`` to ``[B, windows]``.

    Raises:
        FD2TalkError: when the clip is shorter than a window, or mouth and audio differ in length.
    """
    frames = expert.config.frames
    if mouth.shape[1] != audio.shape[1] or mouth.shape[1] < frames:
        raise FD2TalkError(
            f"The lip expert compares {frames} frames at a time, but was given {mouth.shape[1]} frames of "
            f"mouth and {audio.shape[1]} of audio."
        )
    motion = mouth.flatten(-2) * expert.config.motion_scale
    v = expert.motion_encoder.slide(motion, frames, stride)
    a = expert.audio_encoder.slide(audio, frames, stride)
    return sync_probability(v, a)


def sync_loss_over_clip(expert: LipExpert, mouth: Tensor, audio: Tensor, stride: int = 1) -> Tensor:
    """L_sync of Eq. 12: Eq. 11 over every window of a clip; see :func:`sync_over_clip`."""
    return sync_loss(sync_over_clip(expert, mouth, audio, stride))

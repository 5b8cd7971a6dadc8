"""Audio features on the motion networks' own frame grid."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from ..errors import FD2TalkError
from ..timing import check_fps, frame_count

NATIVE_FPS = 25.0
"""Frame grid of the motion networks."""


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
        spoken: ``[F_native]`` bool, in which frames somebody speaks
            (:func:`~fd2talk_core.audio.pauses.spoken_frames`); None where that is not known.
    """

    features: Tensor
    duration: Fraction
    fps: float
    encoder: str
    native_fps: float = NATIVE_FPS
    spoken: Tensor | None = None

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
        if self.spoken is not None and self.spoken.shape != self.features.shape[:1]:
            raise FD2TalkError(
                f"{tuple(self.spoken.shape)} frames are said to be spoken or not, but there are "
                f"{self.num_native_frames} audio features."
            )

    @property
    def num_native_frames(self) -> int:
        """F_native: length of the motion networks' sequences."""
        return self.features.shape[0]

    @property
    def num_frames(self) -> int:
        """F = round(duration · fps), frames of the video; at least one, so that a click makes a picture."""
        return max(1, frame_count(self.duration, self.fps))

    def on_frames(self, count: int) -> Tensor:
        """``[count, D_a]``: what is heard in each frame of a video of so many frames.

        Raises:
            FD2TalkError: when the video is of another length than the sound.
        """
        if abs(count - self.num_frames) > 1:
            raise FD2TalkError(
                f"The audio features are of {self.num_frames} frames, but the motion has {count}: make both "
                "from one sound."
            )
        if count == self.num_native_frames:
            return self.features
        along = self.features.T[None]
        return torch.nn.functional.interpolate(along, size=count, mode="linear", align_corners=False)[0].T

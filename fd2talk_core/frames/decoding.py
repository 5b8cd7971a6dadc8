"""Decoding: latents become pictures, and pictures go back into the whole (FD2Talk Sec. 3.3, Eq. 13).

    latents -> decode -> blend -> close-ups -> paste -> frames

Only the first stage is the paper's. The blend mixes a frame of what the latents show and of the portrait
itself; close-ups draw over it what the mesh knows better. They and the mask of the paste need the clip's
motion, and a network whose checkpoint says that its frames stand for themselves is decoded without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import check_tensor, checked
from ..errors import FD2TalkError
from ..metering import stage
from ..networks.autoencoder import FrameAutoencoder, few_at_once
from ..networks.precision import fast_math
from ..progress import Callback
from .background import Background
from .batches import in_batches
from .blending import BlendedPortrait
from .close_ups import CloseUps
from .compositing import head_mask, paste_back
from .defaults import DEFAULT_DETAIL
from .portrait_motion import PortraitMotion
from .reference import Reference
from .workers import side_by_side, worker_count

LARGEST_LATENT = 1e4
"""Latents of pictures have unit variance."""

DECODED_TOGETHER = {"cuda": 16, "mps": 4}
"""Frames that are decoded together."""

IN_FLIGHT, LEAST_TOGETHER, MOST_TOGETHER = 32, 4, 16
"""The same on a processor's cores, each of which has a batch of its own: this many on all cores together, for
the memory that they take, but not so few a core that the interpreter, which one thread at a time may use,
keeps the others waiting."""

PIXELS_TOGETHER = 1 << 24
"""Of the frames that are made together, unless a single one has more."""


def decode_frames(
    autoencoder: FrameAutoencoder, latents: Tensor | Iterator[Tensor], reference: Reference, **options: object
) -> Tensor:
    """All frames at once, ``[F, H, W, 3]`` in 0..1; arguments as :func:`iter_decoded_frames`."""
    return torch.cat(list(iter_decoded_frames(autoencoder, latents, reference, **options)))


@checked
def iter_decoded_frames(
    autoencoder: FrameAutoencoder,
    latents: Tensor | Iterator[Tensor],
    reference: Reference,
    *,
    motion: PortraitMotion | None = None,
    paste_back: bool = True,
    background: Tensor | Iterable[Tensor] | None = None,
    detail: float = DEFAULT_DETAIL,
    frames_per_batch: int | None = None,
    callback: Callback | None = None,
) -> Iterator[Tensor]:
    """Pictures of latents, 𝓓([x, J]), a few frames at a time. A frame like the one before it is not made
    again.

    Args:
        autoencoder: the one that made the reference's latent.
        latents: ``[F, d, h, w]``, or chunks of it as :func:`fd2talk_core.frames.denoising.iter_latents` gives
            them.
        reference: the portrait.
        motion: that the latents were made with: paste back only what moves, with the portrait's own detail.
            Without it the whole crop is pasted, its edge faded.
        paste_back: put the crops back into the whole picture.
        background: what they are put into in place of the portrait's own picture: one picture
            ``[1, H, W, 3]``, or one a frame, together or one at a time; so a second person speaks in the
            frames of the first.
        detail: how far the portrait itself is shown where the decoder's blend believes it, and how far mouth
            and eyes are drawn anew, 0..1; see :class:`fd2talk_core.frames.blending.BlendedPortrait` and
            :class:`fd2talk_core.frames.close_ups.CloseUps`. Needs the motion.
        frames_per_batch: None goes by the device. When memory runs out, the batch is halved.
        callback: called with the frames done and to do (of chunks that are still being made: those that have
            come).

    Returns:
        an iterator of ``[n, H, W, 3]`` float32 in 0..1 on the CPU.

    Raises:
        FD2TalkError: when the latents do not fit the reference or the motion.
    """
    if frames_per_batch is not None and frames_per_batch < 1:
        raise FD2TalkError(f"frames_per_batch is {frames_per_batch}, but at least 1 is needed.")
    if not 0 <= detail <= 1:
        raise FD2TalkError(f"detail is {detail}, but a strength between 0 and 1 is needed.")
    whole = len(latents) if isinstance(latents, Tensor) else None
    if whole is not None:
        _check_latents(latents, reference)
        if motion is not None and motion.num_frames != whole:
            raise FD2TalkError(f"There are {whole} latents, but the motion is of {motion.num_frames} frames.")
    behind = None
    if background is not None:
        if not paste_back:
            raise FD2TalkError("A background was given, but the frames are to be crops: set paste back.")
        behind = Background(background, reference, whole)
    if motion is not None:
        motion.face_model  # noqa: B018  says at once when there is no mesh of this face model
    decoder = FrameDecoder(autoencoder, reference, motion, paste_back, behind, detail)
    chunks = iter([latents]) if whole is not None else latents
    height, width = reference.picture.shape[:2] if paste_back else reference.crop.shape[:2]
    fitting = max(1, PIXELS_TOGETHER // (height * width))
    batch = frames_per_batch or min(_decoded_together(autoencoder.device), fitting)
    return decoder.frames(chunks, batch, callback)


def _decoded_together(device: torch.device) -> int:
    if device.type == "cpu":
        return min(max(IN_FLIGHT // worker_count(device), LEAST_TOGETHER), MOST_TOGETHER)
    return DECODED_TOGETHER.get(device.type, 2)


@dataclass(frozen=True, eq=False)
class _Batch:
    """Some frames of a clip that are yet to be drawn.

    Attributes:
        frames: their numbers.
        latents: ``[n, d, h, w]``.
        new: ``[n]`` bool, which are unlike the frame before them.
    """

    frames: range
    latents: Tensor
    new: Tensor


@dataclass(frozen=True, eq=False)
class _Drawn:
    """Frames as far as they are made without what lies behind them.

    Attributes:
        pictures: ``[n, H, W, 3]``, whole pictures, or crops that are yet to be pasted into a background.
        masks: ``[n, m, m]``, of those crops.
    """

    pictures: Tensor
    masks: Tensor | None = None

    @classmethod
    def join(cls, parts: Sequence[_Drawn]) -> _Drawn:
        """One after the other."""
        if len(parts) == 1:
            return parts[0]
        masks = None if parts[0].masks is None else torch.cat([part.masks for part in parts])
        return cls(torch.cat([part.pictures for part in parts]), masks)

    def select(self, index: Tensor | slice) -> _Drawn:
        """Some of the frames, or a frame more than once."""
        return _Drawn(self.pictures[index], None if self.masks is None else self.masks[index])


class FrameDecoder:
    """One clip on its way from latents to frames; arguments as :func:`iter_decoded_frames`. The stages stand
    in the order in which they run.
    """

    @torch.no_grad()
    def __init__(
        self,
        autoencoder: FrameAutoencoder,
        reference: Reference,
        motion: PortraitMotion | None,
        paste_back: bool,
        background: Background | None,
        detail: float,
    ) -> None:
        self.autoencoder, self.reference, self.motion = autoencoder, reference, motion
        self.paste_back, self.background, self.strength = paste_back, background, detail
        self.latent = reference.latent[None].to(autoencoder.device, autoencoder.dtype)
        self.blended: BlendedPortrait | None = None
        self.close_ups: CloseUps | None = None
        self.last: _Drawn | None = None
        self.arrived = 0

    @torch.no_grad()
    def frames(self, chunks: Iterator[Tensor], batch: int, callback: Callback | None) -> Iterator[Tensor]:
        """``[n, H, W, 3]`` at a time. Several batches are drawn at once, and put together in order."""
        workers, parts = worker_count(self.autoencoder.device), self._batches(chunks, batch)
        for part, drawn in side_by_side(self._draw_new, parts, workers, self._look_at_portrait):
            pictures = self._place(part, drawn)
            if callback is not None:
                callback(part.frames.stop, self.arrived, None)
            yield pictures

    @torch.no_grad()
    def _look_at_portrait(self) -> None:
        """What the later stages need of it."""
        if self.motion is None or not self.strength:
            return
        if self.autoencoder.portrait_blend is not None:
            with stage("blend"):
                self.blended = BlendedPortrait.of(
                    self.autoencoder,
                    self.reference,
                    self.motion.face_model,
                    self.strength,
                    self.paste_back,
                )
        with stage("close-ups"):
            self.close_ups = CloseUps(self._shown, self.motion.face_model)

    def _batches(self, chunks: Iterator[Tensor], size: int) -> Iterator[_Batch]:
        """The clip's frames as their latents come."""
        before = None
        for chunk in chunks:
            _check_latents(chunk, self.reference)
            first, self.arrived = self.arrived, self.arrived + len(chunk)
            for latents in chunk.split(size):
                frames = range(first, first + len(latents))
                first = frames.stop
                rows = latents.flatten(1).cpu()
                if self.motion is not None:
                    rows = torch.cat([rows, self.motion.coefficients(frames).to(rows)], dim=1)
                new = torch.ones(len(rows), dtype=torch.bool)
                new[1:] = (rows[1:] != rows[:-1]).any(dim=1)
                if before is not None:
                    new[0] = bool((rows[0] != before).any())
                before = rows[-1]
                yield _Batch(frames, latents, new)

    def _draw_new(self, batch: _Batch) -> tuple[_Batch, _Drawn | None]:
        """The new frames of a batch, as many together as fit the memory; None when there are none."""
        chosen = batch.new.nonzero()[:, 0].tolist()
        made = in_batches(
            chosen,
            len(chosen),
            lambda some: self._draw([batch.frames[index] for index in some], batch.latents[list(some)]),
        )
        parts = [drawn for _, drawn in made]
        return batch, _Drawn.join(parts) if parts else None

    def _place(self, batch: _Batch, drawn: _Drawn | None) -> Tensor:
        """``[n, H, W, 3]``: new frames or the one before them again, pasted into the background."""
        if not batch.new.all():
            known = [part for part in (self.last, drawn) if part is not None]
            drawn = _Drawn.join(known).select(batch.new.cumsum(0) - int(self.last is None))
        self.last = drawn.select(slice(-1, None))
        if self.background is None:
            return drawn.pictures
        behind = self.background.take(batch.frames.start, batch.frames.stop)
        return self._paste(drawn.pictures, drawn.masks, behind)

    @torch.no_grad()
    def _draw(self, frames: Sequence[int], latents: Tensor) -> _Drawn:
        """Every stage, up to the paste into the portrait's own picture."""
        crops = self._decode(latents)
        masks = None
        if self.motion is not None:
            flow = self.motion.field(frames)
            if self.blended is not None:
                crops = self.blended.add_to(crops, flow)
            if self.close_ups is not None:
                mesh, pose = self.motion.mesh(frames), self.motion.pose[list(frames)]
                crops = self.close_ups.add_to(crops, mesh, pose, self.strength)
            if self.blended is not None:
                crops, masks = crops[..., :3], crops[..., 3]
            elif self.paste_back:
                masks = head_mask(self.reference, flow)
        if self.paste_back and self.background is None:
            return _Drawn(self._paste(crops, masks))
        return _Drawn(crops, masks)

    @property
    def _shown(self) -> Reference:
        """The portrait as finely as the frames show it."""
        return self.reference if self.blended is None else self.blended.reference

    @stage("decoder")
    def _decode(self, latents: Tensor) -> Tensor:
        """𝓓([x, J]) as ``[n, S, S, 3]``."""
        with fast_math(self.autoencoder.device):
            decoded = few_at_once(
                lambda part: self.autoencoder.decode(part, self.latent), latents.to(self.latent)
            )
        return decoded.movedim(1, -1).float().cpu()

    @stage("paste")
    def _paste(self, crops: Tensor, masks: Tensor | None, background: Tensor | None = None) -> Tensor:
        """Crops ``[n, S, S, 3]`` in the whole picture, ``[n, H, W, 3]``."""
        return paste_back(crops, self._shown, mask=masks, background=background)


def _check_latents(latents: Tensor, reference: Reference) -> None:
    check_tensor(latents, "The latents")
    if latents.ndim != 4 or latents.shape[1:] != reference.latent.shape or not len(latents):
        raise FD2TalkError(
            f"The latents have shape {tuple(latents.shape)}, but [frames, "
            f"{', '.join(map(str, reference.latent.shape))}] is needed to decode them beside this reference."
        )
    if not latents.abs().max() <= LARGEST_LATENT:  # NaN is not either
        bad = ~(latents.flatten(1).abs().amax(dim=1) <= LARGEST_LATENT)
        raise FD2TalkError(
            f"The latent of frame {int(bad.nonzero()[0])} holds a value that is not a number, or is over "
            f"{LARGEST_LATENT:g}: check what made it."
        )

"""Making frames: the UNet denoises latents, the decoder turns them into pictures (FD2Talk Sec. 3.3).

Frames are made in batches that fit the memory and handed on as they are done, so that the length of a clip
costs no memory. What a frame becomes depends on the seed, its number and its motion alone, never on its
batch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import FD2TalkError
from ..face.model import FaceModel, default_face_model
from ..motion.coefficients import CoefficientSequence, MotionMode, apply_to_portrait
from ..networks.autoencoder import FrameAutoencoder
from ..networks.diffusion import NoiseMode, ddim_sample, frame_noise, sampling_timesteps
from ..networks.unet import ConditionCache, FrameUNet
from ..progress import Callback
from .backdrop import Backdrop
from .close_ups import CloseUps
from .compositing import head_mask
from .compositing import paste_back as paste_into_picture
from .conditioning import align_reference
from .correspondence import Correspondence, reference_flow
from .detail import DEFAULT_DETAIL, PortraitDetail
from .reference import Reference

DEFAULT_STEPS = 8
"""For a network that recommends no number of steps."""

LARGEST_BATCH = {"cpu": 16, "cuda": 64, "mps": 16}
"""Frames denoised together at most: beyond these nothing is gained."""

FIELD_SIZE = 192
"""Cells a side of a :class:`MotionField`: the displacement is smooth but where a jaw ends before the neck."""

DECODED_TOGETHER = {"cpu": 2, "cuda": 16, "mps": 4}
"""The decoder's large pictures leave a processor's cache soon: there batches make it slower."""

_MEMORY_SHARE = 0.25
_UNKNOWN_MEMORY = 2 << 30
_LIVE_MAPS = 40
"""Maps of the UNet's finest level that are alive at once, skips and attention included (measured, rounded
up).
"""


def sample_latents(
    unet: FrameUNet,
    reference: Reference,
    expression: CoefficientSequence,
    pose: CoefficientSequence,
    **options: object,
) -> Tensor:
    """The latents of a whole clip, ``[F, d, h, w]`` float32 on the CPU; arguments as :func:`iter_latents`."""
    return torch.cat(list(iter_latents(unet, reference, expression, pose, **options)))


def iter_latents(
    unet: FrameUNet,
    reference: Reference,
    expression: CoefficientSequence,
    pose: CoefficientSequence,
    *,
    seed: int,
    steps: int | None = None,
    eta: float = 0.0,
    noise_mode: NoiseMode = "shared",
    frames_per_batch: int | None = None,
    motion_mode: MotionMode = "relative",
    face_model: FaceModel | None = None,
    callback: Callback | None = None,
) -> Iterator[Tensor]:
    """The latents of a clip in order, a few frames at a time.

    Frames that have the same motion as an earlier one are not denoised again where all frames share their
    noise: they would come out the same.

    Args:
        unet: θ_unet.
        reference: the portrait.
        expression, pose: β and p, F frames each at one frame rate.
        seed: of the noise.
        steps: DDIM steps; None takes what the checkpoint recommends.
        eta: 0 is DDIM, 1 is DDPM.
        noise_mode: ``"shared"``: every frame starts from one noise (and with eta is given one ε a step), so
            that frames that are made one by one do not flicker; ``"per_frame"``: the paper's.
        frames_per_batch: None goes by the memory at hand. When memory runs out, the batch is halved.
        motion_mode: see :func:`fd2talk_core.motion.coefficients.apply_to_portrait`.
        face_model: whose coefficients these are; None takes the one that ships.
        callback: called after each denoising step with the steps done and to do, counted over frames, and x̃₀
            of the frames at work.

    Returns:
        an iterator of ``[n, d, h, w]`` float32 on the CPU.

    Raises:
        FD2TalkError: at once, when the inputs do not fit each other or an argument is out of range.
    """
    if steps is None:
        steps = getattr(getattr(unet, "info", None), "steps", 0) or DEFAULT_STEPS
    sampling_timesteps(steps)
    if not 0 <= eta <= 1:
        raise FD2TalkError(f"eta is {eta}, but a number from 0 (deterministic) to 1 is needed.")
    if frames_per_batch is not None and frames_per_batch < 1:
        raise FD2TalkError(f"frames_per_batch is {frames_per_batch}, but at least 1 is needed.")
    if reference.latent.shape[0] != unet.config.latent_channels:
        raise FD2TalkError(
            f"The reference's latent has {reference.latent.shape[0]} channels and the UNet was made for "
            f"{unet.config.latent_channels}: encode the portrait with the autoencoder of the UNet's set."
        )
    face_model = face_model or default_face_model()
    _check_face_models(unet, reference, expression, pose, face_model)
    motion = apply_to_portrait(expression, pose, reference.expression, reference.pose, motion_mode)
    job = _Job(unet, reference, *motion, face_model, seed, steps, eta, noise_mode, callback)
    return job.run(frames_per_batch or automatic_batch(unet, reference.latent.shape))


@dataclass(eq=False)
class _Job:
    """One clip on its way through the UNet."""

    unet: FrameUNet
    reference: Reference
    expression: Tensor
    pose: Tensor
    face_model: FaceModel
    seed: int
    steps: int
    eta: float
    noise_mode: NoiseMode
    callback: Callback | None
    done: int = field(default=0, init=False)

    def run(self, batch: int) -> Iterator[Tensor]:
        first = self._first_alike()
        distinct = [frame for frame, earliest in enumerate(first) if frame == earliest]
        last_use = {earliest: frame for frame, earliest in enumerate(first)}
        latents: dict[int, Tensor] = {}
        following = 0
        appearance = self._appearance()
        work = lambda frames: self._denoise(frames, appearance, len(distinct))  # noqa: E731
        for frames, made in in_batches(distinct, batch, work):
            latents.update(zip(frames, made, strict=True))
            while following < len(first) and first[following] in latents:
                chunk = []
                while following < len(first) and first[following] in latents and len(chunk) < batch:
                    source = first[following]
                    chunk.append(latents[source])
                    if last_use[source] == following:
                        del latents[source]
                    following += 1
                yield torch.stack(chunk)

    def _first_alike(self) -> list[int]:
        """For each frame, the first one that comes out the same."""
        if self.noise_mode != "shared":
            return list(range(len(self.pose)))
        seen: dict[bytes, int] = {}
        rows = torch.cat([self.expression, self.pose], dim=1).numpy()
        return [seen.setdefault(row.tobytes(), frame) for frame, row in enumerate(rows)]

    @torch.no_grad()
    def _appearance(self) -> tuple[Tensor, tuple]:
        """x ``[1, d, h, w]`` and φ₂'s keys and values, once for the clip."""
        latent = self.reference.latent[None].to(self.unet.device, self.unet.dtype)
        return latent, self.unet.reference_keys_values(latent)

    @torch.no_grad()
    def _denoise(self, frames: Sequence[int], appearance: tuple[Tensor, tuple], distinct: int) -> Tensor:
        unet, reference = self.unet, self.reference
        latent, reference_cache = appearance
        expression, pose = self.expression[list(frames)], self.pose[list(frames)]
        motion = torch.cat([expression, pose], dim=1).to(latent)
        cache = ConditionCache(unet.motion_keys_values(motion), reference_cache)
        warped = align_reference(
            unet,
            self.face_model,
            latent,
            reference.crop.movedim(-1, 0),
            reference.identity,
            reference.expression,
            reference.pose,
            expression,
            pose,
        )

        def noise(step: int | None = None) -> Tensor:
            return frame_noise(self.seed, frames, latent.shape[1:], self.noise_mode, step)

        def report(step: int, _: int, preview: Tensor | None) -> None:
            if self.callback is not None:
                self.callback(self.done + step * len(frames), distinct * self.steps, preview)

        made = ddim_sample(
            lambda sample, timestep: unet(sample, timestep, None, latent, warped, cache),
            noise().to(latent),
            steps=self.steps,
            eta=self.eta,
            noise_fn=noise,
            callback=report,
        )
        self.done += self.steps * len(frames)
        return made.float().cpu()


@dataclass(frozen=True, eq=False)
class MotionField:
    """Where every place of a clip's frames lies in the portrait, drawn a few frames at a time as they are
    decoded.

    Attributes:
        reference: the portrait.
        face_model: whose coefficients these are.
        expression, pose: ``[F, D_β]`` and ``[F, 6]``, as the frames were rendered with.
    """

    reference: Reference
    face_model: FaceModel
    expression: Tensor
    pose: Tensor

    @classmethod
    def of_motion(
        cls,
        reference: Reference,
        expression: CoefficientSequence,
        pose: CoefficientSequence,
        motion_mode: MotionMode = "relative",
        face_model: FaceModel | None = None,
    ) -> MotionField:
        """The field of a clip that :func:`iter_latents` makes from the same arguments.

        Raises:
            FD2TalkError: when the reference was fitted with another face model.
        """
        face_model = face_model or default_face_model()
        if reference.face_model != face_model.name:
            raise FD2TalkError(
                f"The reference was fitted with the face model {reference.face_model!r}, not "
                f"{face_model.name!r}."
            )
        motion = apply_to_portrait(expression, pose, reference.expression, reference.pose, motion_mode)
        return cls(reference, face_model, *motion)

    @property
    def num_frames(self) -> int:
        return len(self.pose)

    def draw(self, start: int, stop: int) -> Correspondence:
        """The correspondence of some frames, :data:`FIELD_SIZE` cells a side."""
        portrait = (self.reference.identity, self.reference.expression, self.reference.pose)
        motion = (self.expression[start:stop].cpu(), self.pose[start:stop].cpu())
        return reference_flow(self.face_model, *portrait, *motion, FIELD_SIZE, supersample=1)


def decode_frames(
    autoencoder: FrameAutoencoder, latents: Tensor | Iterator[Tensor], reference: Reference, **options: object
) -> Tensor:
    """All frames at once, ``[F, H, W, 3]`` in 0..1; arguments as :func:`iter_decoded_frames`."""
    return torch.cat(list(iter_decoded_frames(autoencoder, latents, reference, **options)))


def iter_decoded_frames(
    autoencoder: FrameAutoencoder,
    latents: Tensor | Iterator[Tensor],
    reference: Reference,
    *,
    paste_back: bool = True,
    background: Tensor | Iterable[Tensor] | None = None,
    field: MotionField | None = None,
    detail: float = DEFAULT_DETAIL,
    frames_per_batch: int | None = None,
    callback: Callback | None = None,
) -> Iterator[Tensor]:
    """Pictures of latents, 𝓓([x, J]), a few frames at a time. A frame like the one before it is not decoded
    again.

    Args:
        autoencoder: the one that made the reference's latent.
        latents: ``[F, d, h, w]``, or chunks of it as :func:`iter_latents` gives them.
        reference: the portrait.
        paste_back: put the crops back into the whole picture.
        background: what they are put into in place of the portrait's own picture: one picture
            ``[1, H, W, 3]``, or one a frame, together or one at a time; so a second person speaks in the
            frames of the first.
        field: of the same clip: paste back only what moves, with the portrait's own detail. Without it the
            whole crop is pasted, its edge faded.
        detail: how much of the fine detail that the autoencoder loses is taken from the portrait, and how far
            mouth and eyes are drawn anew, 0..1; see :class:`fd2talk_core.frames.detail.PortraitDetail` and
            :class:`fd2talk_core.frames.close_ups.CloseUps`. Needs the field.
        frames_per_batch: None goes by the device. When memory runs out, the batch is halved.
        callback: called with the frames done and to do (of chunks that are still being made: those that have
            come).

    Returns:
        an iterator of ``[n, H, W, 3]`` float32 in 0..1 on the CPU.

    Raises:
        FD2TalkError: when the latents do not fit the reference.
    """
    if frames_per_batch is not None and frames_per_batch < 1:
        raise FD2TalkError(f"frames_per_batch is {frames_per_batch}, but at least 1 is needed.")
    whole = isinstance(latents, Tensor)
    if whole:
        _check_latents(latents, reference)
    batch = frames_per_batch or DECODED_TOGETHER.get(autoencoder.device.type, 2)
    chunks = iter([latents]) if whole else latents
    if whole and field is not None and field.num_frames != len(latents):
        raise FD2TalkError(
            f"There are {len(latents)} latents, but the motion field is of {field.num_frames} frames."
        )
    if not 0 <= detail <= 1:
        raise FD2TalkError(f"detail is {detail}, but a strength between 0 and 1 is needed.")
    backdrop = None
    if background is not None:
        if not paste_back:
            raise FD2TalkError("A background was given, but the frames are to be crops: set paste back.")
        backdrop = Backdrop(background, reference, len(latents) if whole else None)
    return _decode_chunks(
        autoencoder, chunks, reference, paste_back, backdrop, field, detail, batch, callback
    )


@torch.no_grad()
def _decode_chunks(
    autoencoder: FrameAutoencoder,
    chunks: Iterator[Tensor],
    reference: Reference,
    paste_back: bool,
    backdrop: Backdrop | None,
    field: MotionField | None,
    detail: float,
    batch: int,
    callback: Callback | None,
) -> Iterator[Tensor]:
    portrait = reference.latent[None].to(autoencoder.device, autoencoder.dtype)
    fine = None
    if field is not None and detail:
        fine = PortraitDetail.of(autoencoder, reference, field.face_model, detail, paste_back)
        close_ups = CloseUps(fine.reference, field.face_model)
    previous: tuple[Tensor, Tensor] | None = None
    done = expected = 0
    for latents in chunks:
        _check_latents(latents, reference)
        first, expected = expected, expected + len(latents)

        def work(frames: Sequence[int], latents: Tensor = latents, first: int = first) -> Tensor:
            nonlocal previous
            part = latents[frames[0] : frames[-1] + 1]
            decoded, previous = _decode_distinct(autoencoder, part, portrait, previous)
            behind = None if backdrop is None else backdrop.take(first + frames[0], first + frames[-1] + 1)
            if field is None:
                return paste_into_picture(decoded, reference, background=behind) if paste_back else decoded
            shown = slice(first + frames[0], first + frames[-1] + 1)
            flow = field.draw(shown.start, shown.stop)
            if fine is not None:
                decoded = fine.add_to(decoded, flow)
                motion = (field.expression[shown].cpu(), field.pose[shown].cpu())
                decoded = close_ups.add_to(decoded, *motion, strength=detail)
            if not paste_back:
                return decoded
            return paste_into_picture(
                decoded,
                reference if fine is None else fine.reference,
                mask=head_mask(reference, flow),
                background=behind,
            )

        for frames, pictures in in_batches(range(len(latents)), batch, work):
            done += len(frames)
            if callback is not None:
                callback(done, expected, None)
            yield pictures


def _decode_distinct(
    autoencoder: FrameAutoencoder, latents: Tensor, portrait: Tensor, previous: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Pictures ``[n, S, S, 3]``, and the last latent with its picture for the batch that follows."""
    if previous is not None:
        latents = torch.cat([previous[0][None].to(latents), latents])
    new = torch.ones(len(latents), dtype=torch.bool)
    new[1:] = (latents[1:] != latents[:-1]).flatten(1).any(dim=1).cpu()
    if previous is not None:
        new[0] = False
    pictures = [previous[1][None]] if previous is not None else []
    if new.any():
        decoded = autoencoder.decode(latents[new].to(portrait), portrait)
        pictures.append(decoded.movedim(1, -1).float().cpu())
    offset = 1 if previous is not None else 0
    every = torch.cat(pictures)[new.cumsum(0) - 1 + offset]
    return every[offset:], (latents[-1], every[-1])


def in_batches(
    items: Sequence[int], batch: int, work: Callable[[Sequence[int]], Tensor]
) -> Iterator[tuple[Sequence[int], Tensor]]:
    """Do work on items a batch at a time; when memory runs out, go on from there with batches of half the
    size.

    Args:
        items: what to work on, in order.
        batch: how many together.
        work: gives a tensor of one row an item.

    Returns:
        an iterator of the items of each batch and the result.

    Raises:
        FD2TalkError: when the memory does not suffice for a single item.
    """
    start = 0
    while start < len(items):
        part = items[start : start + batch]
        made = None
        try:
            made = work(part)
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            if len(part) == 1:
                raise FD2TalkError(
                    "There is not enough memory for a single frame: "
                    "close other programs or take a smaller network."
                ) from error
        if made is None:
            # outside the handler, so that the failed batch's tensors are gone
            batch = max(1, len(part) // 2)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            continue
        yield part, made
        start += len(part)


def _is_out_of_memory(error: RuntimeError) -> bool:
    if isinstance(error, torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return any(sign in text for sign in ("not enough memory", "out of memory", "can't allocate memory"))


def automatic_batch(unet: FrameUNet, latent_shape: Sequence[int]) -> int:
    """Frames to denoise together, by the memory at hand."""
    device = unet.device
    _, height, width = latent_shape
    finest = height * width * unet.config.block_out_channels[0] * unet.dtype.itemsize
    fitting = int(_free_memory(device) * _MEMORY_SHARE / (finest * _LIVE_MAPS))
    return max(1, min(fitting, LARGEST_BATCH.get(device.type, 16)))


def _free_memory(device: torch.device) -> int:
    """Bytes."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "cpu" and "SC_AVPHYS_PAGES" in getattr(os, "sysconf_names", {}):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return _UNKNOWN_MEMORY


def _check_face_models(
    unet: FrameUNet,
    reference: Reference,
    expression: CoefficientSequence,
    pose: CoefficientSequence,
    face_model: FaceModel,
) -> None:
    made_for = getattr(getattr(unet, "info", None), "face_model", "")
    for name, other in (
        ("expression belongs to", expression.face_model),
        ("pose belongs to", pose.face_model),
        ("UNet was trained for", made_for),
        ("mesh is of", face_model.name if unet.config.reference_alignment != "none" else ""),
    ):
        if other and other != reference.face_model:
            raise FD2TalkError(
                f"The {name} the face model {other!r}, but the portrait was fitted with "
                f"{reference.face_model!r}: they must be the same."
            )


def _check_latents(latents: Tensor, reference: Reference) -> None:
    if latents.ndim != 4 or latents.shape[1:] != reference.latent.shape or not len(latents):
        raise FD2TalkError(
            f"The latents have shape {tuple(latents.shape)}, but [frames, "
            f"{', '.join(map(str, reference.latent.shape))}] is needed to decode them beside this reference."
        )

"""What the mouth of a filmed person does in place of what it did (DiffTalk Sec. 3.2).

A fitted mouth is never quite neutral when its lips are shut, so new words are put on top of the person's own
shut mouth: what moves is a difference, and lips that the sound shuts are shut as they were filmed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import FD2TalkError
from ..face.model import FaceModel
from ..face.rotations import rotation_matrix
from ..imaging import smoothstep
from ..timing import frame_count
from .coefficients import CoefficientSequence, mouth_mask
from .defaults import LONGER_POLICIES, SHORTER_POLICIES, LongerPolicy, ShorterPolicy
from .filming import FilmedFace
from .tracking import frame_ranges

SHUT_SHARE = 0.1
"""Of the frames that show the face, those with the least open mouths are taken to be shut."""

SHUT_GAP = 0.045
"""Face-model units (4.5 mm) between fitted inner lips, over which not even those are shut."""

STIFFNESS = 0.02
"""Units of gap that count as much as a coefficient's change by 1."""

OPENING = ("jawOpen", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthUpperUpLeft", "mouthUpperUpRight")
CLOSING = (*OPENING, "mouthClose", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper")
"""Coefficients that part lips, and those by which a fit's gap between shut lips is taken out."""

PROFILE = (0.75, 1.0)
"""Radians between face and camera, from where a mouth is made less and where it is left as it was filmed."""

CONFIDENT = 0.8
"""Score of a face under which its mouth is left as it was filmed."""

HIDDEN = 0.7
"""How like itself a mouth must look, beside how like itself it usually does: else something stands
before it."""

EASE = 0.12
"""Seconds over which new words give way to what was filmed, and come back."""


@dataclass(frozen=True, eq=False)
class DubbedMouths:
    """A filmed person with new words, F frames.

    Attributes:
        film: as it was filmed, its shut lips shut.
        expression: ``[F, D_β]``, what is to be shown.
        order: ``[F]``, which frame of the film each is made of.
        strength: ``[F]`` in 0..1, how far the words replace what was filmed.
        report: one sentence for the artist.
    """

    film: FilmedFace
    expression: Tensor
    order: Tensor
    strength: Tensor
    report: str

    @property
    def num_frames(self) -> int:
        return len(self.order)


@torch.no_grad()
def dub_mouths(
    film: FilmedFace,
    words: CoefficientSequence,
    face_model: FaceModel,
    *,
    longer_speech: LongerPolicy = "loop",
    shorter_speech: ShorterPolicy = "cut",
) -> DubbedMouths:
    """Give a filmed person other words.

    Args:
        film: the person.
        words: an expression, resampled to the film's frame rate; its mouth is taken.
        face_model: of both.
        longer_speech: what happens where the words are longer than the film: ``"loop"`` plays it there and
            back, ``"hold"`` keeps its last frame, ``"cut"`` ends with it.
        shorter_speech: where they are shorter: ``"cut"`` ends with them, ``"rest"`` goes on with shut lips.

    Raises:
        FD2TalkError: when a policy is none or is ``"error"`` and applies, the words are of another face
            model, or no frame of the film shows the mouth.
    """
    if words.kind != "expression":
        raise FD2TalkError(f"An expression is needed to dub a video, but a {words.kind} was given.")
    if words.face_model and words.face_model != film.face_model:
        raise FD2TalkError(
            f"The expression belongs to the face model {words.face_model!r}, but the video was fitted with "
            f"{film.face_model!r}: they must be the same."
        )
    words = words.resample(film.fps, max(frame_count(words.duration, film.fps), 1))
    order = _order(film.num_frames, words.num_frames, film.fps, longer_speech, shorter_speech)
    usable, report = _usable(film)
    strength = _eased(usable, round(EASE * film.fps))
    mouth = mouth_mask(words.names, words.values.shape[1])
    rest = _shut_mouth(film, usable, face_model) * mouth
    closed = _closing(face_model, film.identity, rest)
    film = replace(film, expression=film.expression + closed)
    rest = rest + closed * mouth

    spoken = words.values if words.rest is None else words.values - words.rest
    if len(order) > len(spoken):
        silent = spoken.new_zeros(len(order) - len(spoken), spoken.shape[1])
        spoken = torch.cat([_faded_out(spoken, round(EASE * film.fps)), silent])
    spoken = spoken[: len(order)]
    own = film.expression[order]
    wanted = torch.where(mouth, rest + spoken, own)
    strength = strength[order]
    return DubbedMouths(film, torch.lerp(own, wanted, strength[:, None]), order, strength, report)


def _order(film: int, words: int, fps: float, longer: str, shorter: str) -> Tensor:
    """Which frame of the film each frame of the dubbed video is made of."""
    for name, policy, known in (
        ("longer speech", longer, LONGER_POLICIES),
        ("shorter speech", shorter, SHORTER_POLICIES),
    ):
        if policy not in known:
            raise FD2TalkError(f"The policy for {name} is {policy!r}, but one of {known} is needed.")
    policy = longer if words > film else shorter
    if words != film and policy == "error":
        other = "'loop', 'hold' or 'cut'" if words > film else "'cut' or 'rest'"
        raise FD2TalkError(
            f"The speech lasts {words / fps:.2f} s ({words} frames) and the video {film / fps:.2f} s ({film} "
            f"frames): make them equally long, or set {'longer' if words > film else 'shorter'} speech to "
            f"{other}."
        )
    if words > film and longer == "loop":
        step = torch.arange(words) % max(2 * (film - 1), 1)
        return torch.where(step < film, step, 2 * (film - 1) - step)
    if words > film and longer == "hold":
        return torch.arange(words).clamp(max=film - 1)
    return torch.arange(film if words < film and shorter == "rest" else min(film, words))


def _usable(film: FilmedFace) -> tuple[Tensor, str]:
    """``[F]`` in 0..1, how far each frame of the film can be given a mouth, and a sentence on the rest."""
    angle = rotation_matrix(film.pose[:, :3])[:, 2, 2].clamp(-1, 1).acos()
    aside = smoothstep((angle - PROFILE[0]) / (PROFILE[1] - PROFILE[0]))
    found = film.score > 0
    hidden = found & ((film.score < CONFIDENT) | (film.likeness < HIDDEN))
    reasons = {
        "without the face": ~found,
        "with a profile": found & (aside >= 1),
        "with the mouth hidden": hidden & (aside < 1),
    }
    usable = torch.where(found & ~hidden, 1 - aside, torch.zeros_like(aside))
    left = {name: where.nonzero()[:, 0].tolist() for name, where in reasons.items() if bool(where.any())}
    told = "; ".join(f"{len(frames)} {name} ({frame_ranges(frames)})" for name, frames in left.items())
    if not (usable > 0).any():
        raise FD2TalkError(
            f"None of the {film.num_frames} frames shows the mouth well enough to be dubbed: {told}."
        )
    if not told:
        return usable, f"All {film.num_frames} frames of the video can be dubbed."
    return usable, f"Of {film.num_frames} frames of the video some stay as they were filmed: {told}."


def _eased(usable: Tensor, reach: int) -> Tensor:
    """``[F]`` at most as large, without steps."""
    size = 2 * max(reach, 1) + 1
    least = -F.max_pool1d(-usable[None], size, stride=1, padding=size // 2)
    padded = F.pad(least, (size // 2, size // 2), mode="replicate")
    return torch.minimum(F.avg_pool1d(padded, size, stride=1)[0], usable)


def _faded_out(values: Tensor, frames: int) -> Tensor:
    frames = min(max(frames, 1), len(values))
    fade = smoothstep(torch.arange(frames, 0, -1) / (frames + 1))
    return torch.cat([values[: len(values) - frames], values[len(values) - frames :] * fade[:, None]])


def _shut_mouth(film: FilmedFace, usable: Tensor, face_model: FaceModel) -> Tensor:
    """``[D_β]``: the person's expression with shut lips, as it is fitted."""
    shown = film.expression[usable > 0]
    gaps = torch.cat(
        [face_model.mouth_opening(face_model(film.identity[None], some)) for some in shown.split(64)]
    )
    rest = shown[gaps <= gaps.quantile(SHUT_SHARE)].median(dim=0).values
    opening = torch.tensor([name in OPENING for name in face_model.expression_names])
    for share in torch.linspace(1, 0, 11):  # someone who never shuts the mouth
        shut = torch.where(opening, share * rest, rest)
        if face_model.mouth_opening(face_model(film.identity[None], shut[None])) < SHUT_GAP:
            break
    return shut


def _closing(face_model: FaceModel, identity: Tensor, shut: Tensor) -> Tensor:
    """``[D_β]`` to be added to a person's fits, so that lips which are shut, β ``[D_β]``, are so in the mesh:
    the least change that closes the gap.
    """
    upper, lower = face_model.inner_lip_pairs.unbind(-1)
    shape = face_model(identity[None], shut[None])[0]
    gap = (shape[upper] - shape[lower])[:, 1]
    basis = (face_model.expression_basis[:, upper] - face_model.expression_basis[:, lower])[..., 1]
    basis = basis * torch.tensor([name in CLOSING for name in face_model.expression_names])[:, None]
    normal = basis @ basis.T + STIFFNESS**2 * torch.eye(len(basis))
    return torch.linalg.solve(normal, -basis @ gap)

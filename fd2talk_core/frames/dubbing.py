"""A filmed video whose speaker says something else, frame by frame (DiffTalk Sec. 3.2).

Frames are read, made and handed on one at a time: the length of a video costs no memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import torch
from torch import Tensor

from ..errors import FD2TalkError
from ..face.model import FaceModel
from ..motion.dubbing import DubbedMouths
from ..networks.autoencoder import FrameAutoencoder
from ..networks.unet import FrameUNet
from ..progress import Callback
from .footage import Footage
from .lower_face import FilmedFrame, LowerFace
from .painted_mouth import PaintedMouth

CANDIDATES = 5
"""Frames with an open mouth, of which the one that shows most of its teeth is the clearest."""

APART = 0.3
"""Seconds between them."""

READ_BACK = 24
"""Frames that are held while a video is read backwards."""


def iter_dubbed_frames(
    footage: Footage,
    mouths: DubbedMouths,
    face_model: FaceModel,
    *,
    painted_by: tuple[FrameUNet, FrameAutoencoder] | None = None,
    seed: int = 0,
    callback: Callback | None = None,
) -> Iterator[Tensor]:
    """The frames of a dubbed video in order.

    Args:
        footage: that the mouths' film was made of.
        mouths: what is to be shown.
        face_model: of the mouths' coefficients.
        painted_by: networks that paint the mouths (:class:`~fd2talk_core.frames.painted_mouth.PaintedMouth`);
            without, the film's own lower face is moved.
        seed: of what is painted.
        callback: called after each frame with the frames done and to do; what it raises ends the work.

    Returns:
        an iterator of ``[1, H, W, 3]`` in 0..1.

    Raises:
        FD2TalkError: while it is read, when the footage has too few frames, or the networks paint no mouths.
    """
    lower_face: LowerFace | PaintedMouth | None = None
    for number, picture in enumerate(_in_order(footage, mouths.order.tolist())):
        picture = _as_float(picture)
        strength = float(mouths.strength[number])
        if strength:
            if lower_face is None:
                who = face_model, mouths.film.identity, _clearest(footage, mouths, face_model)
                lower_face = PaintedMouth(*painted_by, *who, seed) if painted_by else LowerFace(*who)
            frame = _filmed(mouths, int(mouths.order[number]), picture)
            picture = lower_face.make(frame, mouths.expression[number], strength)
        yield picture[None]
        if callback is not None:
            callback(number + 1, mouths.num_frames, None)


def _filmed(mouths: DubbedMouths, index: int, picture: Tensor) -> FilmedFrame:
    film = mouths.film
    return FilmedFrame(picture, film.expression[index], film.pose[index], film.squares[index])


def _clearest(footage: Footage, mouths: DubbedMouths, face_model: FaceModel) -> FilmedFrame:
    """The frame that shows most of the person's teeth."""
    film = mouths.film
    usable = torch.zeros(film.num_frames)
    usable[mouths.order] = mouths.strength
    chosen: list[int] = []
    whole = (usable >= usable.amax()).nonzero()[:, 0]
    gaps = torch.cat(
        [
            face_model.mouth_opening(face_model(film.identity[None], film.expression[some]))
            for some in whole.split(64)
        ]
    )
    for place in gaps.argsort(descending=True).tolist():
        index = int(whole[place])
        if all(abs(index - other) >= APART * film.fps for other in chosen):
            chosen.append(index)
        if len(chosen) == CANDIDATES:
            break
    best, most = None, -1.0
    for index in sorted(chosen):
        picture = next(footage.span(index, index + 1), None)
        if picture is None:
            raise _too_few(index)
        frame = _filmed(mouths, index, _as_float(picture))
        shown = LowerFace(face_model, film.identity, frame).teeth_shown
        if shown > most:
            best, most = frame, shown
    assert best is not None  # there is a usable frame
    return best


def _in_order(footage: Footage, order: list[int]) -> Iterator[Tensor]:
    """Frames by their numbers, read in runs forward, backward or of one frame."""
    start = 0
    while start < len(order):
        step = order[start + 1] - order[start] if start + 1 < len(order) else 1
        stop = start + 1
        while stop < len(order) and order[stop] - order[stop - 1] == step:
            stop += 1
        run = order[start:stop]
        if step == -1:
            read = _backward(footage, run[-1], run[0] + 1)
        elif step == 0:
            read = (frame for frame in footage.span(run[0], run[0] + 1) for _ in run)
        else:
            read = footage.span(run[0], run[-1] + 1)
        missing = deque(run)
        for frame in read:
            yield frame
            missing.popleft()
        if missing:
            raise _too_few(missing[0])
        start = stop


def _backward(footage: Footage, first: int, stop: int) -> Iterator[Tensor]:
    while stop > first:
        begin = max(first, stop - READ_BACK)
        yield from reversed(list(footage.span(begin, stop)))
        stop = begin


def _too_few(index: int) -> FD2TalkError:
    return FD2TalkError(f"The video ends before frame {index}, which it had when it was read first.")


def _as_float(picture: Tensor) -> Tensor:
    picture = picture.float() / 255 if picture.dtype == torch.uint8 else picture.cpu().float()
    return picture[..., :3]

"""One person through a filmed video, shot by shot: what dubbing has to know of every frame.

Each shot is followed and fitted by itself, since after a cut nothing stands where it stood; the identity is
one. Of a frame no more than its coefficients is kept once its part of the shot is fitted, so that a long
video costs little memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from itertools import groupby, islice
from operator import itemgetter

import torch
from torch import Tensor

from ..errors import FD2TalkError
from ..face.crop import Box
from ..face.landmarks import Face, FaceLandmarker
from ..face.model import FaceModel
from ..face.names import ARKIT_NAMES, POSE_NAMES
from ..progress import Callback
from .coefficients import CoefficientSequence
from .editing import smooth
from .tracking import SMOOTH_EXPRESSION, SMOOTH_POSE, FaceFitter, FaceTrack, face_look, no_such_face

FITTED_TOGETHER = 250
"""Frames of a shot whose looks are held at once, 16 kB each."""

CUT, CUT_BY_USUAL = 0.1, 4.0
"""Mean difference of two frames' brightness in 0..1 that may be a cut, and by how much it then exceeds what
is usual between frames."""
CUT_SIZE = 32
"""About as many samples a side of a frame tell a cut."""


@dataclass(frozen=True, eq=False)
class FilmedFace:
    """One person in the F frames of a video.

    Attributes:
        identity: ``[D_α]``.
        expression: ``[F, D_β]``.
        pose: ``[F, 6]``, in the crop of its frame.
        squares: ``[F, 3]``: centre x, y and side in pixels of the crop that a frame's coefficients are in.
        score: ``[F]`` in 0..1, how surely the frame shows the face; 0 where it was not found.
        likeness: ``[F]``, how like itself the mouth looks, beside how it usually does in its shot: far
            under 1 where something stands before it.
        shots: first frames of the shots.
        fps: frames per second.
        face_model: name of the face model of the coefficients.
    """

    identity: Tensor
    expression: Tensor
    pose: Tensor
    squares: Tensor
    score: Tensor
    likeness: Tensor
    shots: tuple[int, ...]
    fps: float
    face_model: str

    @property
    def num_frames(self) -> int:
        return len(self.pose)


@torch.no_grad()
def film_face(
    frames: Iterable[Tensor],
    fps: float,
    landmarker: FaceLandmarker,
    face_model: FaceModel,
    *,
    face_index: int = 0,
    box: Box | None = None,
    num_frames: int = 0,
    callback: Callback | None = None,
) -> FilmedFace:
    """Follow one person through a video.

    Args:
        frames: pictures ``[H, W, 3]``, uint8 or float in 0..1, one at a time.
        fps: frames per second.
        landmarker: finds the faces.
        face_model: is fitted; ARKit's.
        face_index: which face, 0 for the largest, counted anew in each shot.
        box: left, top, right, bottom in pixels: the face that overlaps it most in a shot is meant instead.
        num_frames: how many are expected, for the callback.
        callback: called after each frame with the frames done and to do; what it raises ends the work.

    Raises:
        FD2TalkError: when there are no frames, a frame cannot be used, or none shows such a face.
    """
    parts: list[_Part] = []
    shots: list[int] = []
    done = 0
    identity: Tensor | None = None
    for _, shot in groupby(numbered_by_shot(frames), key=itemgetter(0)):
        shots.append(done)
        of_shot: list[_Part] = []
        fitter: FaceFitter | None = None
        for track, scores in _followed(map(itemgetter(1), shot), landmarker, face_index, box):
            if track.found.any():
                fitter = fitter or FaceFitter(track, face_model, identity)
                identity = fitter.identity
            of_shot.append(_fitted(track, scores, fitter, face_model))
            done += track.num_frames
            if callback is not None:
                callback(done, max(num_frames, done), None)
        parts.append(_smoothed(_Part.join(of_shot), fps, face_model))
    if not done:
        raise FD2TalkError("The video has no frames.")
    if identity is None:
        raise FD2TalkError(no_such_face(done, face_index, box))
    whole = _Part.join(parts)
    return FilmedFace(
        identity,
        whole.expression,
        whole.pose,
        whole.squares,
        whole.score,
        whole.likeness,
        tuple(shots),
        fps,
        face_model.name,
    )


@dataclass(frozen=True, eq=False)
class _Part:
    """Some frames in order; fields as in :class:`FilmedFace`."""

    expression: Tensor
    pose: Tensor
    squares: Tensor
    score: Tensor
    likeness: Tensor

    @classmethod
    def join(cls, parts: list[_Part]) -> _Part:
        """One after the other."""
        names = [field.name for field in fields(cls)]
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def _followed(
    frames: Iterator[Tensor], landmarker: FaceLandmarker, face_index: int, box: Box | None
) -> Iterator[tuple[FaceTrack, Tensor]]:
    """The face of a shot, some frames at a time, and its scores."""
    shown: list[Tensor] = []

    def remembered() -> Iterator[Tensor]:
        for frame in frames:
            shown[:] = [frame]
            yield frame

    found = landmarker.detect_video(remembered(), face_index=face_index, box=box)
    while True:
        scores: list[float] = []
        part = _scored(islice(found, FITTED_TOGETHER), scores)
        track = FaceTrack.of_faces(part, lambda face: face_look(shown[0], face))
        if not track.num_frames:
            return
        yield track, torch.tensor(scores)


def _fitted(track: FaceTrack, scores: Tensor, fitter: FaceFitter | None, face_model: FaceModel) -> _Part:
    """Frames of a shot; those that do not show the face have the last values before, or the first after."""
    count = track.num_frames
    expression, pose = torch.zeros(count, face_model.expression_dim), torch.zeros(count, 6)
    squares, likeness = torch.zeros(count, 3), torch.ones(count)
    if fitter is not None:
        left, top, right, bottom = fitter.transform.box
        squares[:] = torch.tensor([(left + right) / 2, (top + bottom) / 2, right - left])
        if track.found.any():
            seen = track.found.nonzero()[:, 0]
            fitted = fitter.fit(track)
            likeness_seen = fitter.likeness(track, *fitted)
            fitted = fitter.with_lips(track, *fitted), fitted[1]
            last = (torch.searchsorted(seen, torch.arange(count), right=True) - 1).clamp(min=0)
            expression, pose, likeness = (part[last] for part in (*fitted, likeness_seen))
    return _Part(expression, pose, squares, scores, likeness)


def _smoothed(part: _Part, fps: float, face_model: FaceModel) -> _Part:
    """A whole shot."""
    expression = CoefficientSequence("expression", part.expression, fps, face_model.name, ARKIT_NAMES)
    pose = CoefficientSequence("pose", part.pose, fps, face_model.name, POSE_NAMES)
    found = part.score > 0
    usual = part.likeness[found].median() if found.any() else torch.tensor(1.0)
    return replace(
        part,
        expression=smooth(expression, SMOOTH_EXPRESSION).values,
        pose=smooth(pose, SMOOTH_POSE).values,
        likeness=part.likeness / usual.clamp_min(1e-3),
    )


def _scored(faces: Iterable[Face | None], scores: list[float]) -> Iterator[Face | None]:
    for face in faces:
        scores.append(0.0 if face is None else face.score)
        yield face


def numbered_by_shot(frames: Iterable[Tensor]) -> Iterator[tuple[int, Tensor]]:
    """Every frame with the number of its shot."""
    shot, usual = 0, 0.0
    last: Tensor | None = None
    for frame in frames:
        step = max(1, min(frame.shape[:2]) // CUT_SIZE)
        small = frame[step // 2 :: step, step // 2 :: step].float().mean(dim=-1)
        small = small / 255 if frame.dtype == torch.uint8 else small
        if last is not None:
            change = float((small - last).abs().mean()) if small.shape == last.shape else 1.0
            if change > max(CUT, CUT_BY_USUAL * usual):
                shot += 1
            else:
                usual = 0.9 * usual + 0.1 * change
        last = small
        yield shot, frame

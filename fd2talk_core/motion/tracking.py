"""Expression β and pose p read from a driving video: one face followed, fitted, filled and smoothed.

Where the pictures are at hand, the fit to the landmarks is refined by the face's own look: that of the first
frame is looked for in all others, so that nothing drifts.

The whole video is seen through one square crop, framed where its head stands most of the time, as the face
model's camera would frame a portrait: so t says how far the head has moved from its usual place, and a head
at rest has t near 0. Frames without a face are filled by a policy that never changes their number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..checks import check_amount, check_whole, checked, shown
from ..errors import FD2TalkError, NoFaceError
from ..face.crop import Box, frame_head
from ..face.fitting import (
    IDENTITY_FRAMES,
    SHUT_LIP_ITERATIONS,
    SHUT_LIP_SIGMA,
    eye_openings,
    fit_landmarks,
    fit_lips,
    lip_gap,
    refine_fit,
)
from ..face.landmarks import (
    NUM_LANDMARKS,
    Face,
    FaceLandmarker,
    Square,
    check_picture,
    nearest_face,
    pick_face,
    sample_square,
)
from ..face.lids import BLINKS, shut_lids
from ..face.model import FaceModel
from ..face.names import ARKIT_NAMES, MOUTH_NAMES, POSE_NAMES
from ..face.photometry import LEVELS, LOOK_SIZE, SURFACES, Looks, PhotometricTerm
from ..face.rotations import interpolate_pose, matrix_to_axis_angle, rotation_matrix
from ..imaging import smoothstep
from ..progress import Callback
from ..timing import check_fps
from .coefficients import CoefficientSequence
from .defaults import MISSING_POLICIES, MissingPolicy
from .editing import smooth

SMOOTH_POSE = 0.02
SMOOTH_EXPRESSION = 0.02
"""Standard deviations in seconds: what jitter is left is faster than heads and lips."""

LOOK_MARGIN = 1.5
"""Side of the square that is kept of a frame, by the face's longer side."""

LARGEST_TURN = 0.4
"""Radians by which the first frame may be turned from the usual one for its look to be looked for in all."""

OPENING_FRAMES = 64
"""Frames that tell how far open a person's eyes usually are."""
SHUT = 0.2
"""Of an eye's usual opening, what the landmarks of shut lids keep."""
BLINKING = (0.3, 0.6)
"""How far lids are closed by their landmarks, from where those count beside the fit, which seldom shuts an
eye, to where it is shut as far as they say."""

SHUT_LIPS = (0.015, 0.1)
"""How far lips are apart by the eyes' outer corners, up to where they are shut for certain, and from where
their landmarks do not count beside the fit, which leaves shut lips apart."""

BLINK = 0.3
"""How far above its median a lid's weight lies in a blink."""

MAX_TRACKED = 200_000
"""Frames, two hours at 25 fps: of each, some kilobytes are kept."""
LARGEST_PLACE = 1e6
SMALLEST_FACE = 4
"""Pixels: where landmarks lie, and over how many they are spread."""

_FITTED_TOGETHER = 256
_REFINED_TOGETHER = 16
_LISTED_GAPS = 6
_IS_BLINK = [name in BLINKS for name in ARKIT_NAMES]
_IS_MOUTH = [name in MOUTH_NAMES for name in ARKIT_NAMES]


@dataclass(frozen=True, eq=False)
class FaceTrack:
    """One face through a video, as a landmarker sees it.

    Attributes:
        landmarks: ``[n, 478, 2]`` pixels, of the frames that show the face.
        blendshapes: ``[n, 52]`` scores in 0..1, in the order of ARKIT_NAMES.
        found: ``[F]`` bool, which frames those are.
        looks: of the n frames, squares in pixels; None where only landmarks are known.
    """

    landmarks: Tensor
    blendshapes: Tensor
    found: Tensor
    looks: Looks | None = None

    def __post_init__(self) -> None:
        seen = int(self.found.sum())
        if self.landmarks.shape != (seen, NUM_LANDMARKS, 2) or self.blendshapes.shape != (seen, 52):
            raise FD2TalkError(
                f"A face track of {seen} seen frames needs landmarks [{seen}, {NUM_LANDMARKS}, 2] and scores "
                f"[{seen}, 52], not {list(self.landmarks.shape)} and {list(self.blendshapes.shape)}."
            )

        if self.looks is not None and len(self.looks) != seen:
            raise FD2TalkError(f"A face track of {seen} seen frames has {len(self.looks)} looks of them.")

    @property
    def num_frames(self) -> int:
        return len(self.found)

    @classmethod
    def of_faces(
        cls, faces: Iterable[Face | None], look: Callable[[Face], tuple[Tensor, Tensor]] | None = None
    ) -> FaceTrack:
        """The track of one face a frame, None where there is none.

        Args:
            look: gives ``[LOOK_SIZE, LOOK_SIZE]`` and ``[3]`` of a face as soon as it is seen, see
                :class:`~fd2talk_core.face.photometry.Looks`.
        """
        landmarks, blendshapes, found, looks = [], [], [], []
        for face in faces:
            found.append(face is not None)
            if face is not None:
                landmarks.append(face.landmarks[:, :2].float())
                blendshapes.append(face.blendshapes.float())
                if look is not None:
                    looks.append(look(face))
        return cls(
            torch.stack(landmarks) if landmarks else torch.zeros(0, NUM_LANDMARKS, 2),
            torch.stack(blendshapes) if blendshapes else torch.zeros(0, 52),
            torch.tensor(found, dtype=torch.bool),
            Looks(*map(torch.stack, zip(*looks, strict=True))) if looks else None,
        )


@dataclass(frozen=True, eq=False)
class DrivingMotion:
    """What was read from a video.

    Attributes:
        expression, pose: F frames each, as many as the video.
        missing: numbers of the frames that showed no face and were filled.
    """

    expression: CoefficientSequence
    pose: CoefficientSequence
    missing: tuple[int, ...]

    @property
    def report(self) -> str:
        """One sentence for the artist."""
        frames = self.pose.num_frames
        if not self.missing:
            return f"The face was found in all {frames} frames."
        filled = frame_ranges(self.missing)
        return f"{len(self.missing)} of {frames} frames had no face and were filled: {filled}."


@checked
def follow_face(
    frames: Iterable[Tensor],
    landmarker: FaceLandmarker,
    *,
    face_index: int = 0,
    box: Box | None = None,
    num_frames: int = 0,
    callback: Callback | None = None,
) -> FaceTrack:
    """Find one face in every frame; of each frame no more than a small square around the face is kept.

    Args:
        frames: pictures ``[H, W, 3]`` in 0..1, one at a time, all of one size.
        landmarker: finds the faces.
        face_index: which face, 0 for the largest, in the first frame that has so many.
        box: left, top, right, bottom in pixels: the face that overlaps it most is followed instead.
        num_frames: how many are expected, for the callback.
        callback: called after each frame with the frames done and to do; what it raises ends the work.

    Raises:
        FD2TalkError: when there are no frames or a frame cannot be used.
        NoFaceError: when no frame shows such a face.
    """
    seen: list[Tensor] = []

    def remembered() -> Iterator[Tensor]:
        for frame in frames:
            seen[:] = [frame]
            yield frame

    done = 0

    def tell(*_: object) -> None:
        """Also while a face is looked for in a frame, which a large one takes long."""
        if callback is not None:
            callback(done, max(num_frames, done), None)

    def counted(faces: Iterable[Face | None]) -> Iterator[Face | None]:
        nonlocal done
        for face in faces:
            done += 1
            check_amount(done, MAX_TRACKED, "The driving video has over {} frames", "cut it")
            tell()
            yield face

    check_whole(face_index, "The face index", 0)
    found = landmarker.detect_video(remembered(), face_index=face_index, box=box, callback=tell)
    track = FaceTrack.of_faces(counted(found), lambda face: face_look(seen[0], face))
    if not track.num_frames:
        raise FD2TalkError("The driving video has no frames.")
    if not track.found.any():
        raise NoFaceError(no_such_face(track.num_frames, face_index, box))
    return track


def track_from_landmarks(
    found: Mapping[str, Any], *, face_index: int = 0, box: Box | None = None
) -> FaceTrack:
    """The track of one face in the host's FACE_LANDMARKS.

    Args:
        found: ``{"frames": [[face, ...], ...]}``; a face has ``landmarks_xy`` ``[478, 2]`` in pixels,
            ``bbox_xyxy`` and ``blendshapes``, a score by MediaPipe's name.
        face_index, box: as :func:`follow_face`.

    Raises:
        FD2TalkError: when it is something else.
        NoFaceError: when no frame shows such a face.
    """
    frames = found.get("frames") if isinstance(found, Mapping) else None
    if not isinstance(frames, Sequence) or not frames:
        raise FD2TalkError("The face landmarks hold no frames: connect the output of a face landmark node.")
    faces: list[Face | None] = []
    last: Face | None = None
    alone = False
    for number, frame in enumerate(frames):
        present = sorted(
            (_host_face(face, number) for face in _host_frame(frame)), key=lambda face: -face.area
        )
        if last is None:
            face, alone = pick_face(present, face_index, box), len(present) == 1
        else:
            face = nearest_face(present, last, alone and len(present) == 1)
        last = face or last
        faces.append(face)
    track = FaceTrack.of_faces(faces)
    if not track.found.any():
        raise NoFaceError(no_such_face(track.num_frames, face_index, box))
    return track


@torch.no_grad()
def read_motion(
    track: FaceTrack,
    fps: float,
    face_model: FaceModel,
    *,
    missing: MissingPolicy = "error",
    smooth_pose: float = SMOOTH_POSE,
    smooth_expression: float = SMOOTH_EXPRESSION,
    callback: Callback | None = None,
) -> DrivingMotion:
    """Expression and pose of a followed face.

    Args:
        track: F frames.
        fps: frames per second.
        face_model: is fitted: one identity for the whole video, β and p for each frame.
        missing: frames without a face: ``"error"``; ``"hold"`` the last one before; ``"interpolate"`` between
            the last before and the first after. Before the first and after the last face both hold.
        smooth_pose, smooth_expression: standard deviation in seconds of a Gaussian that delays nothing (see
            :func:`~fd2talk_core.motion.editing.smooth`); 0 leaves the values as they were read.
        callback: called with the fitted frames done and to do.

    Raises:
        FD2TalkError: when fps or the policy is none, the face model is not ARKit's, or frames without a face
            are an error.
    """
    check_fps(fps)
    if missing not in MISSING_POLICIES:
        raise FD2TalkError(
            f"The policy for missing faces is {missing!r}, but one of {MISSING_POLICIES} is needed."
        )
    if face_model.expression_dim != len(ARKIT_NAMES):
        raise FD2TalkError(
            f"The face model {face_model.name!r} has {face_model.expression_dim} expression coefficients, "
            f"but the landmarker scores ARKit's {len(ARKIT_NAMES)}: motion can be read for an ARKit face "
            "model only."
        )
    if not track.found.any():
        raise NoFaceError(no_such_face(track.num_frames, 0, None))
    gaps = tuple((~track.found).nonzero()[:, 0].tolist())
    if gaps and missing == "error":
        raise FD2TalkError(
            f"No face was found in {len(gaps)} of {track.num_frames} frames ({frame_ranges(gaps)}): cut them "
            "out, or set missing faces to 'hold' or 'interpolate'."
        )
    expression, pose = FaceFitter(track, face_model).fit(track, callback)
    shut = lips_shut(track.landmarks)[:, None]
    before, after, weight = _neighbours(track.found, missing)
    filled = (
        CoefficientSequence(
            "expression",
            torch.lerp(expression[before], expression[after], weight),
            fps,
            face_model.name,
            ARKIT_NAMES,
        ),
        CoefficientSequence(
            "pose", interpolate_pose(pose[before], pose[after], weight), fps, face_model.name, POSE_NAMES
        ),
    )
    expression, pose = smooth(filled[0], smooth_expression), smooth(filled[1], smooth_pose)
    shut = torch.lerp(shut[before], shut[after], weight)[:, 0]
    values = with_closures(filled[0].values, expression.values, shut).clamp(0, 1)
    return DrivingMotion(expression.replace(values=values, rest=_rest(values)), pose, gaps)


class FaceFitter:
    """Fits β and p of one face; its identity, crop and look are taken from a first part of its track.

    Args:
        track: some frames that show the face.
        face_model: is fitted.
        identity: ``[D_α]``, when the person is known already.

    Attributes:
        transform: the crop that the fits are in, framed where the head stands most of that time.
        identity: ``[D_α]``.
    """

    def __init__(self, track: FaceTrack, face_model: FaceModel, identity: Tensor | None = None) -> None:
        self.face_model = face_model
        usual = _usual(track.landmarks)
        self.transform, _ = frame_head(_face(track.landmarks[usual], track.blendshapes[usual]), face_model)
        if identity is None:
            spread = _spread(track, IDENTITY_FRAMES)
            ndc = self.transform.points_to_ndc(track.landmarks[spread])
            identity = fit_landmarks(ndc, face_model, track.blendshapes[spread]).identity
        self.identity = identity
        self.term = self._photometric_term(track, usual)
        self.opened = self._usual_opening(track)

    def fit(self, track: FaceTrack, callback: Callback | None = None) -> tuple[Tensor, Tensor]:
        """β ``[n, D_β]`` and p ``[n, 6]`` of the frames that show the face, this or another part of them."""
        seen = len(track.landmarks)
        looks = None if self.term is None else self._in_crop(track.looks)
        expressions, poses = [], []
        together = _FITTED_TOGETHER if looks is None else _REFINED_TOGETHER
        for start in range(0, seen, together):
            part = slice(start, start + together)
            ndc = self.transform.points_to_ndc(track.landmarks[part])
            fit = fit_landmarks(ndc, self.face_model, track.blendshapes[part], self.identity)
            if looks is not None:
                for level in LEVELS:
                    fit = refine_fit(ndc, self.face_model, fit, self.term.at(looks[part], level))
            closed = self._closed(ndc, fit.expression, fit.pose)
            expression = shut_lids(self.face_model, self.identity, fit.expression, closed)
            expressions.append(self._with_shut_lips(ndc, expression, fit.pose))
            poses.append(fit.pose)
            if callback is not None:
                callback(min(start + together, seen), seen, None)
        return torch.cat(expressions), torch.cat(poses)

    def _usual_opening(self, track: FaceTrack) -> Tensor:
        """``[2]``: how far this person's eyes are open in most frames."""
        spread = _spread(track, OPENING_FRAMES)
        ndc = self.transform.points_to_ndc(track.landmarks[spread])
        fit = fit_landmarks(ndc, self.face_model, track.blendshapes[spread], self.identity)
        return self._openings(ndc, fit.expression, fit.pose).median(dim=0).values.clamp_min(1e-6)

    def _openings(self, ndc: Tensor, expression: Tensor, pose: Tensor) -> Tensor:
        return eye_openings(ndc, self.face_model, self.identity, expression, pose)

    def _closed(self, ndc: Tensor, expression: Tensor, pose: Tensor) -> Tensor:
        """``[n, 2]`` in 0..1: how far lids are shut for certain."""
        opened = self._openings(ndc, expression, pose) / self.opened
        closed = ((1 - opened) / (1 - SHUT)).clamp(0, 1)
        least, most = BLINKING
        return closed * smoothstep((closed - least) / (most - least))

    def _with_shut_lips(self, ndc: Tensor, expression: Tensor, pose: Tensor) -> Tensor:
        """``[n, D_β]``: lips as close as their landmarks where those are shut; where a mouth is open, what it
        looks like tells more.
        """
        shut = lips_shut(ndc)
        some = shut > 0
        if not some.any():
            return expression
        own, limits = expression[some], (SHUT_LIP_SIGMA, (0.0, 1.0), SHUT_LIP_ITERATIONS)
        closer = fit_lips(ndc[some], self.face_model, self.identity, own, pose[some], *limits)
        return expression.index_put((some,), torch.lerp(own, closer, shut[some, None]))

    def with_lips(self, track: FaceTrack, expression: Tensor, pose: Tensor) -> Tensor:
        """``[n, D_β]``: fits whose lips lie closer to the landmarks', see
        :func:`~fd2talk_core.face.fitting.fit_lips`.
        """
        ndc = self.transform.points_to_ndc(track.landmarks)
        return fit_lips(ndc, self.face_model, self.identity, expression, pose)

    def likeness(self, track: FaceTrack, expression: Tensor, pose: Tensor) -> Tensor:
        """``[n]`` in 0..1: how like itself the mouth looks in the frames that show it, fitted so; 1 if
        that is not known.
        """
        if self.term is None:
            return torch.ones(len(pose))
        return self.term.likeness(self._in_crop(track.looks), expression, pose)

    def _photometric_term(self, track: FaceTrack, usual: int) -> PhotometricTerm | None:
        """How the face looks in the first frame, or in the usual one where the first is turned away from it;
        None where that is not known.
        """
        if track.looks is None or not set(SURFACES) <= set(self.face_model.part_names):
            return None
        ndc = self.transform.points_to_ndc(track.landmarks[[0, usual]])
        known = fit_landmarks(ndc, self.face_model, track.blendshapes[[0, usual]], self.identity)
        # motion is played from its first frame on, unless that one shows too little of the face
        turned = rotation_matrix(known.pose[:1, :3]).mT @ rotation_matrix(known.pose[1:, :3])
        key = int(matrix_to_axis_angle(turned).norm() > LARGEST_TURN)
        look = self._in_crop(track.looks)[[(0, usual)[key]]]
        return PhotometricTerm(self.face_model, self.identity, known.expression[key], known.pose[key], look)

    def _in_crop(self, looks: Looks) -> Looks:
        """Looks whose squares are in pixels, in the units of the fit."""
        centres = self.transform.points_to_ndc(looks.squares[:, :2])
        sides = looks.squares[:, 2:] * (self.transform.scale * 2 / self.transform.size)
        return Looks(looks.brightness, torch.cat([centres, sides], dim=1))


def face_look(frame: Tensor, face: Face) -> tuple[Tensor, Tensor]:
    """What is kept of a frame ``[H, W, 3]``: ``[LOOK_SIZE, LOOK_SIZE]`` and ``[3]``, as
    :class:`~fd2talk_core.face.photometry.Looks` has them.
    """
    left, top, right, bottom = face.box_xyxy
    square = Square((left + right) / 2, (top + bottom) / 2, LOOK_MARGIN * max(right - left, bottom - top))
    picture = check_picture(frame).movedim(-1, 0)
    brightness = sample_square(picture, square, LOOK_SIZE).mean(dim=0)
    return (brightness * 255).round().byte(), torch.tensor([square.x, square.y, square.side])


def _spread(track: FaceTrack, count: int) -> Tensor:
    """Numbers of at most so many seen frames, spread over all."""
    seen = len(track.landmarks)
    return torch.linspace(0, seen - 1, min(seen, count)).round().long().unique()


def with_closures(values: Tensor, smoothed: Tensor, shut: Tensor) -> Tensor:
    """The smoothed ``[F, 52]`` with its blinks as deep as they were, and its lips where those are ``shut``
    ``[F]`` in 0..1: they last no longer than jitter.
    """
    least, most = BLINKING
    share = torch.tensor(_IS_BLINK) * smoothstep((values - least) / (most - least))
    share = torch.where(torch.tensor(_IS_MOUTH), shut[:, None], share)
    return torch.lerp(smoothed, values, share)


def lips_shut(landmarks: Tensor) -> Tensor:
    """``[n]`` in 0..1: how surely the lips of landmarks ``[n, 468 or 478, 2]`` are shut."""
    least, most = SHUT_LIPS
    return smoothstep((most - lip_gap(landmarks)) / (most - least))


def _rest(values: Tensor) -> Tensor:
    """The first of ``[F, 52]``, without a blink that the clip may start with."""
    first, usual = values[0], values.median(dim=0).values
    return torch.where(torch.tensor(_IS_BLINK) & (first > usual + BLINK), usual, first)


def _usual(landmarks: Tensor) -> int:
    """The frame whose face stands and measures most like the median of all."""
    low, high = landmarks.amin(dim=1), landmarks.amax(dim=1)
    boxes = torch.cat([(low + high) / 2, high - low], dim=1)
    return int((boxes - boxes.median(dim=0).values).norm(dim=1).argmin())


def _face(landmarks: Tensor, blendshapes: Tensor) -> Face:
    (left, top), (right, bottom) = landmarks.amin(dim=0).tolist(), landmarks.amax(dim=0).tolist()
    return Face((left, top, right, bottom), landmarks, blendshapes, 1.0)


def _neighbours(found: Tensor, missing: MissingPolicy) -> tuple[Tensor, Tensor, Tensor]:
    """For each of F frames the seen frames before and after (numbered among the seen), and the weight
    ``[F, 1]`` of the one after.
    """
    seen = found.nonzero()[:, 0]
    frames = torch.arange(len(found))
    before = (torch.searchsorted(seen, frames, right=True) - 1).clamp(min=0)
    after = torch.searchsorted(seen, frames).clamp(max=len(seen) - 1)
    span = (seen[after] - seen[before]).clamp(min=1)
    weight = ((frames - seen[before]).float() / span).clamp(0, 1)
    if missing == "hold":
        weight = torch.zeros_like(weight)
    return before, after, weight[:, None]


def _host_frame(frame: Any) -> Sequence[Any]:
    """The faces of a frame, of which there may be none."""
    if not isinstance(frame, Sequence) or isinstance(frame, str):
        raise FD2TalkError(f"A frame of the face landmarks is {shown(frame)}, but a list of faces is needed.")
    return frame


def _host_face(face: Mapping[str, Any], frame: int) -> Face:
    try:
        landmarks = torch.as_tensor(face["landmarks_xy"], dtype=torch.float32)
        scores = torch.tensor([float(face["blendshapes"].get(name, 0.0)) for name in ARKIT_NAMES])
        score = float(face.get("score", 1.0))
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise FD2TalkError(
            f"A face in frame {frame} of the face landmarks is {shown(face)}, but landmarks_xy and "
            "blendshapes are needed: connect the output of a face landmark node."
        ) from error
    fits = landmarks.shape == (NUM_LANDMARKS, 2) and bool((landmarks.abs() < LARGEST_PLACE).all())
    if not fits or (landmarks.amax(dim=0) - landmarks.amin(dim=0)).min() < SMALLEST_FACE:
        raise FD2TalkError(
            f"A face in frame {frame} has landmarks {list(landmarks.shape)}, but {NUM_LANDMARKS} points of "
            "MediaPipe's face mesh in pixels, spread over a face, are needed."
        )
    if not torch.isfinite(scores).all() or not math.isfinite(score):
        raise FD2TalkError(f"A face in frame {frame} of the face landmarks has a score that is not a number.")
    return replace(_face(landmarks, scores.clamp(0, 1)), score=score)


def no_such_face(frames: int, face_index: int, box: Box | None) -> str:
    if box is not None:
        return f"No face lies in the box {tuple(map(round, box))} in any of the {frames} frames."
    if face_index:
        return (
            f"Face {face_index} was asked for, but none of the {frames} frames shows {face_index + 1} faces."
        )
    return (
        f"No face was found in any of the {frames} frames: the head should be seen from the front and be "
        "larger than 64 pixels."
    )


def frame_ranges(frames: Sequence[int]) -> str:
    """``3, 5-9, ...`` from frame numbers in order."""
    runs: list[list[int]] = []
    for frame in frames:
        if runs and frame == runs[-1][1] + 1:
            runs[-1][1] = frame
        else:
            runs.append([frame, frame])
    words = [str(first) if first == last else f"{first}-{last}" for first, last in runs[:_LISTED_GAPS]]
    rest = len(runs) - _LISTED_GAPS
    return ", ".join(words) + (f" and {rest} more" if rest > 0 else "")

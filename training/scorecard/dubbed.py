"""Real clips that are dubbed with the sound of the next: does the mouth follow, and does all else stay?

The frames are compared as they are made, before a video codec changes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.landmarks import FaceLandmarker, check_picture
from fd2talk_core.formats.video_frames import VideoFrames
from fd2talk_core.frames.dubbing import iter_dubbed_frames
from fd2talk_core.motion.dubbing import dub_mouths
from fd2talk_core.motion.filming import film_face
from fd2talk_core.motion.sampling import sample_motion

from .clips import ClipBench, MotionSettings, keep_scores, list_clips, measure_each, read_clip
from .synchrony import lip_gaps, synchrony
from .weights import Weights

LOWER_LID, UPPER_LIP, CHIN, OUTER_CORNERS = 145, 0, 152, (33, 263)
"""MediaPipe's landmarks; the last are those of the eyes."""

TOP = 0.3
"""Of the way from the lower lid to the upper lip, where the lower face begins."""

BESIDE, UNDER = 0.25, 0.5
"""Of the face's width, how much further than the face the lower face reaches."""


@dataclass(frozen=True)
class DubbedClip:
    """What was seen of one clip with the sound of another.

    Attributes:
        sync_r, lag, null_deviation: how the made mouth follows that of the clip whose sound was taken, see
            :class:`~training.scorecard.synchrony.Synchrony`.
        portrait: ``sync_r`` of that clip's own first frame, which the sound moves as it moves any portrait;
            lips are read from the mesh.
        obeys: correlation of the made lips' gap with what was to be shown.
        own: correlation of the made lips' gap with that of the clip as it was filmed.
        outside: largest difference outside the lower face, of 255.
        flicker: how far the lower face's pixels leave the mean of the frames before and after, by how far the
            clip's own do.
        faces: share of made frames that show a face.
        frames: that were made.
    """

    name: str
    voice: str
    sync_r: float
    portrait: float
    lag: int
    null_deviation: float
    obeys: float
    own: float
    outside: float
    flicker: float
    faces: float
    frames: int


def score_dubbed(weights: Weights, folder: Path, seconds: float | None, out: Path) -> str:
    """The table of all clips of a folder, each with the sound of the next; also written to ``dubbed.json``
    and ``dubbed.txt`` in ``out``.

    Args:
        seconds: of each clip, from its start; None takes as much as both have.

    Raises:
        FD2TalkError: when there are not two clips, or none can be measured.
    """
    paths = list_clips(folder)
    if len(paths) < 2:
        raise FD2TalkError(f"{folder} holds one clip, but dubbing takes the sound of another: add a second.")
    pairs = zip(paths, [*paths[1:], paths[0]], strict=True)
    clips, left_out = measure_each(
        folder,
        (
            (f"{path.name} with the sound of {voice.name}", partial(dub_clip, weights, path, voice, seconds))
            for path, voice in pairs
        ),
    )
    return keep_scores(out, "dubbed", clips, "\n".join([dubbed_table(clips), *left_out]))


def dub_clip(weights: Weights, path: Path, voice: Path, seconds: float | None) -> DubbedClip:
    """Dub one clip with the sound of another, and compare."""
    landmarker, face_model = FaceLandmarker(), weights.face_model
    film = VideoFrames(path, duration=seconds or 0.0)
    other = read_clip(voice, landmarker, seconds)
    heard = weights.audio_encoder.encode(*other.audio, film.fps)
    words = sample_motion(weights.expression, heard, kind="expression", seed=0)
    filmed = film_face(film.span(), film.fps, landmarker, face_model)
    mouths = dub_mouths(filmed, words, face_model, longer_speech="cut", shorter_speech="cut")
    wanted = torch.cat(
        [
            face_model.mouth_opening(face_model(filmed.identity[None], some))
            for some in mouths.expression.split(64)
        ]
    )
    own_faces, made_faces, outside, flicker = [], [], 0.0, _Flicker()
    finder, own_finder = _Finder(landmarker), _Finder(FaceLandmarker())
    made_frames = iter_dubbed_frames(film, mouths, face_model)
    for frame, made in zip(film.span(), chain.from_iterable(made_frames), strict=False):
        own = check_picture(frame)
        own_faces.append(own_finder.find(own))
        made_faces.append(finder.find(made))
        if own_faces[-1] is None:
            flicker.forget()
            continue
        inside = lower_face(own_faces[-1], own.shape[:2])
        changed = (made - own).abs().amax(dim=-1)
        outside = max(outside, 255 * float(changed.masked_fill(inside, 0).max()))
        flicker.add(own, made, inside)
    gaps = lip_gaps(made_faces)
    at, filmed_at = _middles(gaps, film.fps), _middles(other.lips, other.fps)
    real = np.interp(at, filmed_at, np.nan_to_num(other.lips, nan=np.nanmean(other.lips)))
    followed = synchrony(real, gaps, film.fps)
    bench = ClipBench(weights, [other])
    return DubbedClip(
        path.stem,
        voice.stem,
        followed.r,
        bench.follow(0, bench.motion(0, 0, MotionSettings())).r,
        followed.lag,
        followed.null_deviation,
        synchrony(wanted.numpy(), gaps, film.fps, max_lag=0).r,
        synchrony(lip_gaps(own_faces), gaps, film.fps, max_lag=0).r,
        outside,
        flicker.ratio,
        float(np.mean([face is not None for face in made_faces])),
        len(gaps),
    )


def lower_face(landmarks: Tensor, size: Sequence[int]) -> Tensor:
    """``[H, W]`` bool: where a lower face may be made anew, a rectangle that tilts as the eyes do.

    Args:
        landmarks: ``[478, 2 or 3]`` pixels, of the frame as it was filmed.
        size: height and width of the picture.
    """
    points = landmarks[:, :2]
    right_eye, left_eye = points[list(OUTER_CORNERS)]
    across = (left_eye - right_eye) / (left_eye - right_eye).norm().clamp_min(1e-6)
    axes = torch.stack([across, torch.stack([-across[1], across[0]])], dim=1)
    sides, heights = (points @ axes).unbind(dim=1)
    lid, lip, chin = heights[[LOWER_LID, UPPER_LIP, CHIN]]
    left, right = sides.aminmax()
    rows, columns = (torch.arange(length) + 0.5 for length in size)
    places = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1) @ axes
    beside = BESIDE * (right - left)
    return (
        (places[..., 0] > left - beside)
        & (places[..., 0] < right + beside)
        & (places[..., 1] > lid + TOP * (lip - lid))
        & (places[..., 1] < chin + UNDER * (right - left))
    )


def dubbed_table(clips: Sequence[DubbedClip]) -> str:
    """One line a clip."""
    lines = [
        f"{'clip':20}{'sound of':20}{'sync_r':>8}{'portrait':>10}{'lag':>5}{'null sd':>9}{'obeys':>7}"
        f"{'own':>7}{'outside':>9}{'flicker':>9}{'faces':>7}{'frames':>8}"
    ]
    lines += [
        f"{clip.name[:19]:20}{clip.voice[:19]:20}{clip.sync_r:8.3f}{clip.portrait:10.3f}"
        f"{clip.lag:5d}{clip.null_deviation:9.3f}{clip.obeys:7.3f}{clip.own:7.3f}{clip.outside:9.2f}{clip.flicker:9.2f}{clip.faces:7.0%}"
        f"{clip.frames:8d}"
        for clip in clips
    ]
    return "\n".join(lines)


def _middles(curve: np.ndarray, fps: float) -> np.ndarray:
    """Seconds of the frames of a curve."""
    return (np.arange(len(curve)) + 0.5) / fps


class _Finder:
    """Follows a face through frames that come one at a time."""

    def __init__(self, landmarker: FaceLandmarker) -> None:
        self.given: list[Tensor] = []
        self.found = landmarker.detect_video(iter(self.given.pop, None))

    def find(self, picture: Tensor) -> Tensor | None:
        """``[478, 3]``, None without a face."""
        self.given.append(picture)
        face = next(self.found)
        return None if face is None else face.landmarks


class _Flicker:
    """Mean absolute second difference in time over the lower face, of what was made and what was filmed."""

    def __init__(self) -> None:
        self.before: list[tuple[Tensor, Tensor]] = []
        self.of_made = self.of_own = 0.0

    def forget(self) -> None:
        """The next frame does not follow the last one."""
        self.before = []

    def add(self, own: Tensor, made: Tensor, inside: Tensor) -> None:
        """A frame as it was filmed and as it was made, ``[H, W, 3]``, and where its lower face is
        ``[H, W]``.
        """
        self.before = [*self.before[-2:], (own, made)]
        if len(self.before) == 3:
            for name, place in (("of_own", 0), ("of_made", 1)):
                first, middle, last = (pair[place][inside] for pair in self.before)
                change = float((first - 2 * middle + last).abs().mean())
                setattr(self, name, getattr(self, name) + change)

    @property
    def ratio(self) -> float:
        """1 where both flicker alike; nan for a film that stands still."""
        return self.of_made / self.of_own if self.of_own else float("nan")

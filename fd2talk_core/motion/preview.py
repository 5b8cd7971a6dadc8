"""Motion on a bare mesh, before any frame is made: the face model (Eq. 1) moved by β and p, lit like clay."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import checked
from ..errors import FD2TalkError
from ..face.lids import stop_lids
from ..face.model import FaceModel, apply_pose, project
from ..face.palette import preview_colours
from ..face.rasterizer import shade
from ..face.skinning import pose_on_body
from ..face.smoothing import smooth_deformations
from ..progress import Callback
from .coefficients import CoefficientSequence

VIEWS = {"front": 0.0, "three-quarter": math.radians(-40)}
"""Where the camera stands: how far the posed head is turned about the vertical axis."""

FRAMES_AT_ONCE = 8
RENDERERS = 4
"""At most as many chunks are drawn side by side: torch leaves a second core idle on work this small."""


@dataclass(frozen=True)
class MotionPreview:
    """A preview whose pictures are made as they are read.

    Attributes:
        chunks: pictures ``[n, size, size, 3]`` in 0..1, to be read once.
        num_frames: F of the motion.
        fps: of the motion.
    """

    chunks: Iterator[Tensor]
    num_frames: int
    fps: float


class FirstFrames:
    """The first frames of a clip, kept while all of them pass by: as many as fit into some memory.

    Args:
        num_frames: F of the clip.
        max_bytes: the memory; one frame is kept in any case.
    """

    def __init__(self, num_frames: int, max_bytes: int) -> None:
        self.num_frames = num_frames
        self.max_bytes = max_bytes
        self.kept = 0
        self._frames: Tensor | None = None

    def add(self, chunk: Tensor) -> None:
        """The next pictures ``[n, H, W, 3]`` of the clip."""
        if self._frames is None:
            fitting = self.max_bytes // (chunk[0].numel() * chunk.element_size())
            # allocated whole, since pieces joined at the end would need twice the memory
            self._frames = chunk.new_empty(min(self.num_frames, max(1, fitting)), *chunk.shape[1:])
        taken = chunk[: len(self._frames) - self.kept]
        self._frames[self.kept : self.kept + len(taken)] = taken
        self.kept += len(taken)

    @property
    def frames(self) -> Tensor:
        """``[kept, H, W, 3]``.

        Raises:
            FD2TalkError: when no picture was added.
        """
        if self._frames is None:
            raise FD2TalkError("No frame was drawn, so there is no preview.")
        return self._frames[: self.kept]


@checked
def preview_motion(
    face_model: FaceModel,
    expression: CoefficientSequence | None,
    pose: CoefficientSequence | None,
    *,
    identity: Tensor | None = None,
    view: str = "front",
    size: int = 256,
    smoothing: float = 0.0,
    callback: Callback | None = None,
) -> MotionPreview:
    """The face model, moved.

    Args:
        expression: F frames of β, or None for a resting face.
        pose: F frames of p, or None for a still head.
        identity: ``[D_id]``, α of a portrait, or None for the mean face.
        view: one of :data:`VIEWS`.
        size: side of the pictures in pixels.
        smoothing: of deformations away from lips and eyes, see
            :func:`~fd2talk_core.face.smoothing.smooth_deformations`.
        callback: ``(done, total, None)`` after each chunk.

    Raises:
        FD2TalkError: when there is no motion, the two differ in length or rate, or are of another face model.
    """
    motion, alpha, betas, poses = whole_motion(face_model, expression, pose, identity)
    if view not in VIEWS:
        raise FD2TalkError(f"The view is {view!r}, but one of {list(VIEWS)} is needed.")
    if size < 16:
        raise FD2TalkError(f"The preview size is {size}, but at least 16 pixels are needed.")
    face_model = smooth_deformations(face_model, smoothing)
    chunks = _render(face_model, alpha, betas, poses, VIEWS[view], size, callback)
    return MotionPreview(chunks, motion.num_frames, motion.fps)


def agreed_motion(
    face_model: FaceModel, expression: CoefficientSequence | None, pose: CoefficientSequence | None
) -> CoefficientSequence:
    """Either of the two, which are known to fit each other then: their length and rate are those of the clip.

    Raises:
        FD2TalkError: when there is no motion, the two differ in length or rate, or are of another face model.
    """
    motion = expression or pose
    if motion is None:
        raise FD2TalkError("There is no motion to preview: connect an expression, a pose, or both.")
    if expression and expression.face_model != face_model.name:
        raise FD2TalkError(
            f"The expression belongs to the face model {expression.face_model!r}, but the preview shows "
            f"{face_model.name!r}."
        )
    if expression and pose and (expression.num_frames, expression.fps) != (pose.num_frames, pose.fps):
        raise FD2TalkError(
            f"The expression has {expression.num_frames} frames at {expression.fps:g} fps and the pose "
            f"{pose.num_frames} at {pose.fps:g}: retime one of them."
        )
    return motion


def whole_motion(
    face_model: FaceModel,
    expression: CoefficientSequence | None,
    pose: CoefficientSequence | None,
    identity: Tensor | None,
) -> tuple[CoefficientSequence, Tensor, Tensor, Tensor]:
    """:func:`agreed_motion`, and all coefficients: α ``[D_α]``, β ``[F, D_β]``, p ``[F, 6]``. What is not
    given is at rest, and the mean face's.
    """
    motion = agreed_motion(face_model, expression, pose)
    alpha = torch.zeros(face_model.identity_dim) if identity is None else identity.detach().cpu().float()
    betas = expression.values if expression else torch.zeros(motion.num_frames, face_model.expression_dim)
    return motion, alpha, betas, pose.values if pose else torch.zeros(motion.num_frames, 6)


def _render(
    face_model: FaceModel,
    identity: Tensor,
    betas: Tensor,
    poses: Tensor,
    turn: float,
    size: int,
    callback: Callback | None,
) -> Iterator[Tensor]:
    colors = preview_colours(face_model)
    around = poses.new_tensor([[0.0, turn, 0.0, 0.0, 0.0, 0.0]])
    alpha = identity[None]

    @torch.no_grad()
    def draw(start: int) -> Tensor:
        part = slice(start, start + FRAMES_AT_ONCE)
        shape = stop_lids(face_model, face_model(alpha, betas[part]))
        posed = apply_pose(
            pose_on_body(face_model, shape, poses[part], torch.zeros(1, 6)), around.expand(len(shape), -1)
        )
        projected = project(posed, face_model.camera)
        # one sample a pixel: a preview has to be ready before one has finished thinking about it
        return shade(posed, projected, face_model.triangles, size, colors=colors, supersample=1)

    workers = max(1, min(RENDERERS, torch.get_num_threads()))
    waiting: deque[Future[Tensor]] = deque()
    done = 0
    with ThreadPoolExecutor(workers) as pool:
        try:
            for start in range(0, len(betas), FRAMES_AT_ONCE):
                waiting.append(pool.submit(draw, start))
                # no further ahead than is being drawn, so that memory does not grow with the length
                if len(waiting) > workers:
                    yield waiting.popleft().result()
                    done += FRAMES_AT_ONCE
                    if callback:
                        callback(done, len(betas), None)
            while waiting:
                yield waiting.popleft().result()
                done = min(done + FRAMES_AT_ONCE, len(betas))
                if callback:
                    callback(done, len(betas), None)
        finally:
            for future in waiting:
                future.cancel()

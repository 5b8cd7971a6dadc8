"""Fitting identity α, expression β and pose p of the face model to landmarks found in pictures.

The maximum of the posterior of Eq. 1 seen through the camera: landmark errors are Gaussian, α has a unit
prior, β is drawn to the landmarker's blendshape scores. Solved by damped Gauss-Newton steps in closed form,
all frames at once. A video's frames can be fitted closer than its landmarks are placed: what the face looks
like in one frame is looked for in the others (:mod:`fd2talk_core.face.photometry`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import FD2TalkError
from .model import FaceModel, project, projection_slopes
from .names import MOUTH_NAMES
from .rotations import euler_angles, rotation_matrix

NUM_LANDMARKS = 468
LANDMARK_SIGMA = 0.008
"""Of a landmark's position, in half widths of the picture: a pixel at 256."""
EXPRESSION_SIGMA = 0.25
EXPRESSION_SIGMA_SCORED = 0.12
"""Of an expression coefficient about 0, and about the landmarker's score."""
IDENTITY_FRAMES = 12
"""Frames that a video's identity is fitted to; more do not make it better."""
DAMPING = 1e-3
FRAMES_AT_ONCE = 64
"""Frames solved together: each takes about 2 MB while it is."""

# fmt: off
FACE_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176,
    149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)
# fmt: on
"""MediaPipe's landmarks on the face's outline: they slide over the skin as the head turns, so they count
less."""
FACE_OVAL_WEIGHT = 0.1

# fmt: off
LIP_AND_LID_RIMS = (
    61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 185, 40, 39, 37, 0, 267, 269, 270, 409,
    78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 191, 80, 81, 82, 13, 312, 311, 310, 415,
    33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246,
    263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466,
)
# fmt: on
"""MediaPipe's landmarks on the rims of lips and lids, which count more: pictures are cut there."""
LIP_AND_LID_WEIGHT = 10.0

# fmt: off
BROWS = (
    107, 66, 105, 63, 70, 55, 65, 52, 53, 46, 336, 296, 334, 293, 300, 285, 295, 282, 283, 276,
)
# fmt: on
"""MediaPipe's landmarks along the upper and the lower edge of the right brow, and of the left one."""
BROW_WEIGHT, REFINED_BROW_WEIGHT = 4.0, 16.0
"""What they count, and beside a photometric term, which takes hair before a brow for it."""

NUM_LIP_LANDMARKS = 40
"""The first of them are the lips'."""
LIP_SIGMA, LIP_EXPRESSION_SIGMA = 0.004, 0.3
"""Of a lip's landmark in half widths of the picture, and of a coefficient about its fit."""
LIP_RANGE = (-0.5, 1.5)
LIP_ITERATIONS = 2
SHUT_LIP_SIGMA, SHUT_LIP_ITERATIONS = 0.1, 8
"""Of a coefficient about its fit, and steps, where landmarks show shut lips and nothing goes beyond 0..1."""

INNER_LIPS = ((13, 82, 312), (14, 87, 317))
"""Landmarks along the middle of the upper lip's inner rim, and those under them."""

IRISES = (468, 473)
"""MediaPipe's landmarks at the centres of the irises, the person's right and left."""
IRIS_WEIGHT = 10.0
EYE_RIMS = ((33, 133, 159, 145), (263, 362, 386, 374))
"""Of each eye the outer and inner corner and the middle of the upper and the lower lid."""
EYE_OPENING = (0.06, 0.16)
"""Height of an eye by its width, from where its iris says nothing to where it counts."""
LIDS = (((160, 159, 158), (144, 145, 153)), ((387, 386, 385), (373, 374, 380)))
"""Landmarks on the upper lid of the right and the left eye, and those under them."""
GAZE_SIGMA = 0.5
"""Of an eye's look about the landmarker's score, which tells gazes badly, where irises are known."""

GAZE_PAIRS = (
    ({"eyeLookOutLeft": 1, "eyeLookInLeft": -1, "eyeLookOutRight": 1, "eyeLookInRight": -1}, (2.0, 0.15)),
    ({"eyeLookUpLeft": 1, "eyeLookDownLeft": -1, "eyeLookUpRight": -1, "eyeLookDownRight": 1}, (0.3, 0.3)),
)
"""What two eyes that look at one thing keep near 0, and its standard deviation below and above: eyes turn
towards each other at what is near, and hardly ever apart, nor one up and one down."""

REFINED_LANDMARK_SIGMA = 0.03
"""As LANDMARK_SIGMA, beside a photometric term: landmarks are placed less closely than pictures tell."""

ExtraTerm = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Of β ``[N, D_β]`` and p ``[N, 6]``: what is added to the normal equations, ``[N, K, K]`` and ``[N, K]``."""


@dataclass(frozen=True)
class FaceFit:
    """A fitted face.

    Attributes:
        identity: ``[D_α]``, one person for all frames.
        expression: ``[N, D_β]`` in 0..1.
        pose: ``[N, 6]``.
        error: ``[N]``, root mean square landmark error in half widths of the picture.
    """

    identity: Tensor
    expression: Tensor
    pose: Tensor
    error: Tensor


@torch.no_grad()
def fit_landmarks(
    landmarks_ndc: Tensor,
    face_model: FaceModel,
    blendshapes: Tensor | None = None,
    identity: Tensor | None = None,
    iterations: int = 12,
) -> FaceFit:
    """Fit the face model to MediaPipe's landmarks.

    Args:
        landmarks_ndc: ``[N, 468 or 478, 2 or 3]``, u and v in -1..1 over the square crop, v down. Depth is
            not used; the irises of 478 say where the eyes look.
        face_model: whose camera took the crop.
        blendshapes: ``[N, D_β]``, the landmarker's scores in the face model's order.
        identity: ``[D_α]``, when the person is known already.
        iterations: Gauss-Newton steps.

    Raises:
        FD2TalkError: for landmarks of another shape or that are not numbers.
    """
    landmarks = _checked(landmarks_ndc)
    if blendshapes is not None:
        wanted = (len(landmarks), face_model.expression_dim)
        if blendshapes.shape != wanted or not torch.isfinite(blendshapes).all():
            raise FD2TalkError(f"Blendshape scores {list(wanted)} are needed, not {list(blendshapes.shape)}.")
    if identity is not None and identity.shape != (face_model.identity_dim,):
        raise FD2TalkError(
            f"An identity [{face_model.identity_dim}] is needed, not {list(identity.shape)}; "
            f"it belongs to another face model than {face_model.name}."
        )
    problem = _Problem(face_model, landmarks, blendshapes)
    frames = torch.arange(len(landmarks))
    pose = problem.first_pose()
    if identity is None:
        chosen = torch.linspace(0, len(frames) - 1, min(len(frames), IDENTITY_FRAMES)).round().long().unique()
        alpha = problem.fit_identity(chosen, pose[chosen], iterations)
    else:
        alpha = identity.double().cpu()
    parts = [problem.fit_motion(some, alpha, pose[some], iterations) for some in frames.split(FRAMES_AT_ONCE)]
    expression, pose, error = (torch.cat(part).float() for part in zip(*parts, strict=True))
    return FaceFit(alpha.float(), expression, pose, error)


@torch.no_grad()
def refine_fit(
    landmarks_ndc: Tensor, face_model: FaceModel, fit: FaceFit, term: ExtraTerm, iterations: int = 4
) -> FaceFit:
    """Fit the motion again with a further term, the landmarks counting less.

    Args:
        landmarks_ndc: as :func:`fit_landmarks`.
        face_model: that was fitted.
        fit: where it starts; its expression is what β is drawn to.
        term: added to every step's normal equations.
        iterations: Gauss-Newton steps.

    Returns:
        the fit with another expression and pose; its error is again that of the landmarks.
    """
    problem = _Problem(face_model, _checked(landmarks_ndc), fit.expression, REFINED_BROW_WEIGHT)
    problem.weight *= (LANDMARK_SIGMA / REFINED_LANDMARK_SIGMA) ** 2
    frames = torch.arange(len(landmarks_ndc))
    expression, pose, error = problem.fit_motion(
        frames, fit.identity.double(), fit.pose.double(), iterations, term
    )
    return FaceFit(fit.identity, expression.float(), pose.float(), error.float())


@torch.no_grad()
def fit_lips(
    landmarks_ndc: Tensor,
    face_model: FaceModel,
    identity: Tensor,
    expression: Tensor,
    pose: Tensor,
    sigma: float = LIP_EXPRESSION_SIGMA,
    bounds: tuple[float, float] = LIP_RANGE,
    iterations: int = LIP_ITERATIONS,
) -> Tensor:
    """A fitted expression whose lips lie closer to the landmarks': what stands on a lip's other side is a
    tooth.

    Args:
        landmarks_ndc: as :func:`fit_landmarks`.
        face_model: that was fitted; an ARKit one.
        identity, expression, pose: the fit, ``[D_α]``, ``[N, D_β]`` and ``[N, 6]``.
        sigma: standard deviation of a coefficient about its fit.
        bounds: of the coefficients; by default they go a little beyond 0..1 where that is closest.
        iterations: Gauss-Newton steps.

    Returns:
        ``[N, D_β]``, changed in the coefficients of the mouth alone.
    """
    problem = _Problem(face_model, _checked(landmarks_ndc), None)
    lips = torch.tensor(LIP_AND_LID_RIMS[:NUM_LIP_LANDMARKS])
    mouth = torch.tensor([name in MOUTH_NAMES for name in face_model.expression_names])
    identity, fitted, pose = identity.double(), expression.double(), pose.double()
    stiff = torch.eye(int(mouth.sum()), dtype=torch.float64) * (LIP_SIGMA / sigma) ** 2
    changed = fitted.clone()
    for _ in range(iterations):
        residual, rotation, _, by_point = problem.linearize(problem.target, identity, changed, pose)
        by_turned = (by_point @ rotation[:, None])[:, lips]
        basis = problem.expression_basis[mouth][:, lips]
        jacobian = torch.einsum("nlux,dlx->nlud", by_turned, basis).flatten(1, 2)
        missing = residual.unflatten(1, (-1, 2))[:, lips].flatten(1)
        own = changed[:, mouth]
        right = (jacobian.mT @ missing[..., None])[..., 0] + (fitted[:, mouth] - own) @ stiff
        free = _free(own, right, bounds)
        step = torch.linalg.solve(_of_free(jacobian.mT @ jacobian + stiff, free), right * free)
        changed[:, mouth] = (own + step).clamp(*bounds)
    return changed.float()


def lip_gap(landmarks_ndc: Tensor) -> Tensor:
    """``[N]``: how far the lips of landmarks ``[N, 468 or 478, 2]`` are apart, by the eyes' outer corners."""
    (right, *_), (left, *_) = EYE_RIMS
    width = (landmarks_ndc[:, right] - landmarks_ndc[:, left]).norm(dim=-1)
    return _gap(landmarks_ndc, *INNER_LIPS) / width.clamp_min(1e-6)


@torch.no_grad()
def eye_openings(
    landmarks_ndc: Tensor, face_model: FaceModel, identity: Tensor, expression: Tensor, pose: Tensor
) -> Tensor:
    """How far the landmarks of eyes are open, by those of the fitted mesh without a blink.

    Args:
        landmarks_ndc, face_model, identity, expression, pose: as :func:`fit_lips`.

    Returns:
        ``[N, 2]`` of the right and the left eye; what it is in most frames is this person's open eye.
    """
    blinks = torch.tensor([name.startswith("eyeBlink") for name in face_model.expression_names])
    problem = _Problem(face_model, _checked(landmarks_ndc), None)
    opened = torch.where(blinks, 0, expression.double())
    mesh = problem.points(identity.double(), opened, pose.double())
    seen, wide = (
        torch.stack([_gap(points, upper, lower) for upper, lower in LIDS], dim=1)
        for points in (problem.target, mesh)
    )
    return (seen / wide.clamp_min(1e-6)).float()


def _gap(points: Tensor, upper: tuple[int, ...], lower: tuple[int, ...]) -> Tensor:
    """``[N]``, mean distance of some of the points ``[N, L, 2]`` from others."""
    return (points[:, list(upper)] - points[:, list(lower)]).norm(dim=-1).mean(dim=-1)


def _checked(landmarks_ndc: Tensor) -> Tensor:
    """``[N, 468 or 478, 2]`` in double precision on the CPU."""
    if landmarks_ndc.ndim != 3 or landmarks_ndc.shape[1] < NUM_LANDMARKS or landmarks_ndc.shape[2] < 2:
        raise FD2TalkError(f"Landmarks [N, 468, 2] are needed, not {list(landmarks_ndc.shape)}.")
    landmarks = landmarks_ndc[..., :2].double().cpu()
    if not len(landmarks) or not torch.isfinite(landmarks).all():
        raise FD2TalkError("The landmarks are empty or not numbers, so no face can be fitted to them.")
    return landmarks


class _Problem:
    """The face model's landmarks as functions of the unknowns, in double precision on the CPU.

    Args:
        landmarks: ``[N, 468 or 478, 2]``, checked.
        scores: ``[N, D_β]``, what β is drawn to.
        brow_weight: what the landmarks of the brows count.

    Attributes:
        target: ``[N, L, 2]``, the landmarks that are fitted: MediaPipe's 468, and the centres of the irises
            where landmarks and face model have them.
        weight: ``[N, 2 L]``, of their residuals.
    """

    def __init__(
        self,
        face_model: FaceModel,
        landmarks: Tensor,
        scores: Tensor | None,
        brow_weight: float = BROW_WEIGHT,
    ) -> None:
        corners = face_model.triangles[face_model.mediapipe_triangles].cpu()
        weights = face_model.mediapipe_barycentric.double().cpu()
        irises = _iris_vertices(face_model) if landmarks.shape[1] > max(IRISES) else ()

        def at_landmarks(basis: Tensor) -> Tensor:
            basis = basis.double().cpu()
            on_skin = torch.einsum("dlcx,lc->dlx", basis[:, corners], weights)
            centres = [basis[:, iris].mean(dim=1, keepdim=True) for iris in irises]
            return torch.cat([on_skin, *centres], dim=1)

        self.camera = face_model.camera
        self.mean = at_landmarks(face_model.mean[None])[0]
        self.identity_basis = at_landmarks(face_model.identity_basis)
        self.expression_basis = at_landmarks(face_model.expression_basis)
        on_skin = torch.ones(NUM_LANDMARKS, dtype=torch.float64)
        on_skin[list(FACE_OVAL)] = FACE_OVAL_WEIGHT
        on_skin[list(LIP_AND_LID_RIMS)] = LIP_AND_LID_WEIGHT
        on_skin[list(BROWS)] = brow_weight
        self.target = landmarks[:, :NUM_LANDMARKS]
        weight = on_skin.expand(len(landmarks), -1)
        size = (len(landmarks), face_model.expression_dim)
        self.prior = torch.zeros(size, dtype=torch.float64)
        self.prior_weight = torch.full(size[1:], EXPRESSION_SIGMA**-2, dtype=torch.float64)
        self.gaze_pairs: list[tuple[Tensor, tuple[float, float]]] = []
        if scores is not None:
            self.prior = scores.double().cpu().clamp(0, 1).expand(size).clone()
            self.prior_weight[:] = EXPRESSION_SIGMA_SCORED**-2
        if irises:
            self.target = torch.cat([self.target, landmarks[:, list(IRISES)]], dim=1)
            weight = torch.cat([weight, IRIS_WEIGHT * _eyes_opened(landmarks)], dim=1)
            gaze = [name.startswith("eyeLook") for name in face_model.expression_names]
            self.prior_weight[torch.tensor(gaze)] = GAZE_SIGMA**-2
            for signs, sigmas in GAZE_PAIRS:
                row = [signs.get(name, 0) for name in face_model.expression_names]
                self.gaze_pairs.append((torch.tensor(row, dtype=torch.float64), sigmas))
        self.weight = (weight / LANDMARK_SIGMA**2).repeat_interleave(2, dim=1)

    def shape(self, identity: Tensor, expression: Tensor) -> Tensor:
        """Eq. 1 at the landmarks: ``[N, L, 3]``."""
        of_identity = torch.einsum("d,dlx->lx", identity, self.identity_basis)
        return self.mean + of_identity + torch.einsum("nd,dlx->nlx", expression, self.expression_basis)

    def points(self, identity: Tensor, expression: Tensor, pose: Tensor) -> Tensor:
        """Projected landmarks ``[N, L, 2]``."""
        turned = self.shape(identity, expression) @ rotation_matrix(pose[:, :3]).mT
        return project(turned + pose[:, None, 3:], self.camera)[..., :2]

    def first_pose(self) -> Tensor:
        """A pose from the affine map that best takes the mean face to the landmarks."""
        target = self.target
        centre = self.mean.mean(0)
        affine = torch.linalg.lstsq(
            (self.mean - centre).expand(len(target), -1, -1), target - target.mean(1, True)
        )
        rows = affine.solution.mT * torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
        scale = rows.norm(dim=-1).mean(-1).clamp_min(1e-6)
        u, _, vt = torch.linalg.svd(rows, full_matrices=False)
        first, second = (u @ vt).unbind(1)
        rotation = torch.stack([first, second, torch.linalg.cross(first, second)], dim=1)
        depth = self.camera.focal / scale
        middle = target.mean(1) * (depth / self.camera.focal)[:, None]
        place = torch.stack([middle[:, 0], -middle[:, 1], self.camera.distance - depth], dim=-1)
        return torch.cat([euler_angles(rotation), place - (rotation @ centre)], dim=-1)

    def linearize(self, target: Tensor, identity: Tensor, expression: Tensor, pose: Tensor):
        """Residuals ``[N, 2 L]``, the rotation, and what a shift of each point does: ``[N, L, 2, 3]``."""
        rotation = rotation_matrix(pose[:, :3])
        turned = self.shape(identity, expression) @ rotation.mT
        world = turned + pose[:, None, 3:]
        by_point = projection_slopes(world, self.camera)
        seen = project(world, self.camera)[..., :2]
        return (target - seen).flatten(1), rotation, turned, by_point

    def motion_system(
        self,
        frames: Tensor,
        identity: Tensor,
        expression: Tensor,
        pose: Tensor,
        term: ExtraTerm | None = None,
    ):
        """The damped normal equations of [β, p] of some frames, and what they were made of.

        Returns:
            normal ``[n, K, K]``, right side ``[n, K]``, Jacobian ``[n, 2 L, K]``, residual ``[n, 2 L]``, and
            what a shift of each point before its turn does, ``[n, L, 2, 3]``.
        """
        residual, rotation, turned, by_point = self.linearize(self.target[frames], identity, expression, pose)
        axes = torch.eye(3, dtype=torch.float64).expand(*turned.shape[:2], 3, 3)
        turn = -torch.linalg.cross(turned[:, :, None].expand_as(axes), axes)
        by_turned = by_point @ rotation[:, None]
        of_turn = by_point @ turn.mT
        of_expression = torch.einsum("nlux,dlx->nlud", by_turned, self.expression_basis)
        jacobian = torch.cat([of_expression, of_turn, by_point], dim=-1).flatten(1, 2)
        size = expression.shape[1]
        weighted = (jacobian * self.weight[frames, :, None]).mT
        normal = weighted @ jacobian
        right = (weighted @ residual[..., None])[..., 0]
        if term is not None:
            more, more_right = term(expression, pose)
            normal, right = normal + more, right + more_right
        diagonal = normal.diagonal(dim1=-2, dim2=-1)
        diagonal += DAMPING * diagonal
        diagonal[:, :size] += self.prior_weight
        right[:, :size] += self.prior_weight * (self.prior[frames] - expression)
        for pair, (below, above) in self.gaze_pairs:
            apart = expression @ pair
            pull = torch.where(apart > 0, above**-2, below**-2)
            normal[:, :size, :size] += pull[:, None, None] * torch.outer(pair, pair)
            right[:, :size] -= (pull * apart)[:, None] * pair
        free = F.pad(_free(expression, right[:, :size], (0, 1)), (0, 6), value=1)
        return _of_free(normal, free), right * free, jacobian * free[:, None], residual, by_turned

    def fit_motion(
        self,
        frames: Tensor,
        identity: Tensor,
        pose: Tensor,
        iterations: int,
        term: ExtraTerm | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Expression, pose and error of some frames, with a known identity."""
        expression = self.prior[frames].clone()
        for _ in range(iterations):
            normal, right, *_ = self.motion_system(frames, identity, expression, pose, term)
            expression, pose = self.apply(torch.linalg.solve(normal, right), expression, pose)
        residual = (self.target[frames] - self.points(identity, expression, pose))[:, :NUM_LANDMARKS]
        return expression, pose, (residual**2).sum(-1).mean(-1).sqrt()

    def apply(self, change: Tensor, expression: Tensor, pose: Tensor) -> tuple[Tensor, Tensor]:
        """Move [β, p] by a solution ``[N, D_β + 6]`` of the normal equations."""
        size = expression.shape[1]
        turned_by = torch.linalg.matrix_exp(_skew(change[:, size : size + 3])) @ rotation_matrix(pose[:, :3])
        moved = torch.cat([euler_angles(turned_by), pose[:, 3:] + change[:, size + 3 :]], dim=-1)
        return (expression + change[:, :size]).clamp(0, 1), moved

    def fit_identity(self, frames: Tensor, pose: Tensor, iterations: int) -> Tensor:
        """α from some frames, solved together with their expressions and poses (by the Schur complement)."""
        identity = torch.zeros(len(self.identity_basis), dtype=torch.float64)
        expression = self.prior[frames].clone()
        eye = torch.eye(len(identity), dtype=torch.float64)
        for _ in range(iterations):
            system = self.motion_system(frames, identity, expression, pose)
            normal, right, jacobian, residual, by_turned = system
            of_identity = torch.einsum("nlux,dlx->nlud", by_turned, self.identity_basis).flatten(1, 2)
            weighted = (of_identity * self.weight[frames, :, None]).mT
            cross = weighted @ jacobian
            eliminated = torch.linalg.solve(normal, torch.cat([cross.mT, right[..., None]], dim=-1))
            # frames of one person repeat their errors, so together they count as one
            own = (weighted @ of_identity - cross @ eliminated[..., :-1]).mean(0) + eye
            wanted = (weighted @ residual[..., None] - cross @ eliminated[..., -1:])[..., 0].mean(
                0
            ) - identity
            change = torch.linalg.solve(own, wanted)
            identity = identity + change
            expression, pose = self.apply(
                eliminated[..., -1] - eliminated[..., :-1] @ change, expression, pose
            )
        return identity


def _free(values: Tensor, right: Tensor, bounds: tuple[float, float]) -> Tensor:
    """``[N, K]``: 0 for what is at an end of its range and pushed outward, to be left out of a step; 1 for
    the others.
    """
    least, most = bounds
    held = ((values <= least) & (right < 0)) | ((values >= most) & (right > 0))
    return (~held).to(values)


def _of_free(normal: Tensor, free: Tensor) -> Tensor:
    """Normal equations ``[N, K, K]`` of those that are free, the others staying."""
    return normal * free[:, :, None] * free[:, None] + torch.diag_embed(1 - free)


def _iris_vertices(face_model: FaceModel) -> tuple[Tensor, ...]:
    """Vertices of the right and the left iris, none when the face model has no such parts."""
    names = face_model.part_names
    irises = ("right_iris", "left_iris")
    if not set(irises) <= set(names):
        return ()
    parts = face_model.triangle_parts.cpu()
    return tuple(face_model.triangles.cpu()[parts == names.index(iris)].unique() for iris in irises)


def _eyes_opened(landmarks: Tensor) -> Tensor:
    """``[N, 2]`` in 0..1 of the right and the left eye: how far it shows its iris."""
    closed, opened = EYE_OPENING
    shares = []
    for rim in EYE_RIMS:
        outer, inner, upper, lower = landmarks[:, list(rim)].unbind(dim=1)
        shares.append((upper - lower).norm(dim=-1) / (outer - inner).norm(dim=-1).clamp_min(1e-9))
    return ((torch.stack(shares, dim=1) - closed) / (opened - closed)).clamp(0, 1)


def _skew(axis_angle: Tensor) -> Tensor:
    """``[N, 3]`` to the matrices ``[N, 3, 3]`` whose exponentials are the rotations."""
    x, y, z = axis_angle.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))

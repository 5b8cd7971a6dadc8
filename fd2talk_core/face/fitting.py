"""Fitting identity α, expression β and pose p of the face model to landmarks found in pictures.

The maximum of the posterior of Eq. 1 seen through the camera: landmark errors are Gaussian, α has a unit
prior, β is drawn to the landmarker's blendshape scores. Solved by damped Gauss-Newton steps in closed form,
all frames at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import FD2TalkError
from .model import FaceModel, project
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
        landmarks_ndc: ``[N, 468 or 478, 2 or 3]``, u and v in -1..1 over the square crop, v down. Irises and
            depth are not used.
        face_model: whose camera took the crop.
        blendshapes: ``[N, D_β]``, the landmarker's scores in the face model's order.
        identity: ``[D_α]``, when the person is known already.
        iterations: Gauss-Newton steps.

    Raises:
        FD2TalkError: for landmarks of another shape or that are not numbers.
    """
    if landmarks_ndc.ndim != 3 or landmarks_ndc.shape[1] < NUM_LANDMARKS or landmarks_ndc.shape[2] < 2:
        raise FD2TalkError(f"Landmarks [N, 468, 2] are needed, not {list(landmarks_ndc.shape)}.")
    target = landmarks_ndc[:, :NUM_LANDMARKS, :2].double().cpu()
    if not len(target) or not torch.isfinite(target).all():
        raise FD2TalkError("The landmarks are empty or not numbers, so no face can be fitted to them.")
    if blendshapes is not None:
        wanted = (len(target), face_model.expression_dim)
        if blendshapes.shape != wanted or not torch.isfinite(blendshapes).all():
            raise FD2TalkError(f"Blendshape scores {list(wanted)} are needed, not {list(blendshapes.shape)}.")
    if identity is not None and identity.shape != (face_model.identity_dim,):
        raise FD2TalkError(
            f"An identity [{face_model.identity_dim}] is needed, not {list(identity.shape)}; "
            f"it belongs to another face model than {face_model.name}."
        )
    problem = _Problem(face_model, blendshapes, len(target))
    pose = problem.first_pose(target)
    if identity is None:
        chosen = torch.linspace(0, len(target) - 1, min(len(target), IDENTITY_FRAMES)).round().long().unique()
        alpha = problem.fit_identity(target, pose, chosen, iterations)
    else:
        alpha = identity.double().cpu()
    parts = [
        problem.fit_motion(target[i : i + FRAMES_AT_ONCE], alpha, pose[i : i + FRAMES_AT_ONCE], i, iterations)
        for i in range(0, len(target), FRAMES_AT_ONCE)
    ]
    expression, pose, error = (torch.cat(part).float() for part in zip(*parts, strict=True))
    return FaceFit(alpha.float(), expression, pose, error)


class _Problem:
    """The face model's landmarks as functions of the unknowns, in double precision on the CPU."""

    def __init__(self, face_model: FaceModel, scores: Tensor | None, frames: int) -> None:
        corners = face_model.triangles[face_model.mediapipe_triangles].cpu()
        weights = face_model.mediapipe_barycentric.double().cpu()

        def at_landmarks(basis: Tensor) -> Tensor:
            return torch.einsum("dlcx,lc->dlx", basis.double().cpu()[:, corners], weights)

        self.camera = face_model.camera
        self.mean = at_landmarks(face_model.mean[None])[0]
        self.identity_basis = at_landmarks(face_model.identity_basis)
        self.expression_basis = at_landmarks(face_model.expression_basis)
        self.weight = torch.ones(NUM_LANDMARKS, dtype=torch.float64)
        self.weight[list(FACE_OVAL)] = FACE_OVAL_WEIGHT
        self.weight[list(LIP_AND_LID_RIMS)] = LIP_AND_LID_WEIGHT
        self.weight = (self.weight / LANDMARK_SIGMA**2).repeat_interleave(2)
        size = (frames, face_model.expression_dim)
        self.prior = torch.zeros(size, dtype=torch.float64)
        self.prior_weight = EXPRESSION_SIGMA**-2
        if scores is not None:
            self.prior = scores.double().cpu().clamp(0, 1).expand(size).clone()
            self.prior_weight = EXPRESSION_SIGMA_SCORED**-2

    def shape(self, identity: Tensor, expression: Tensor) -> Tensor:
        """Eq. 1 at the landmarks: ``[N, 468, 3]``."""
        of_identity = torch.einsum("d,dlx->lx", identity, self.identity_basis)
        return self.mean + of_identity + torch.einsum("nd,dlx->nlx", expression, self.expression_basis)

    def points(self, identity: Tensor, expression: Tensor, pose: Tensor) -> Tensor:
        """Projected landmarks ``[N, 468, 2]``."""
        turned = self.shape(identity, expression) @ rotation_matrix(pose[:, :3]).mT
        return project(turned + pose[:, None, 3:], self.camera)[..., :2]

    def first_pose(self, target: Tensor) -> Tensor:
        """A pose from the affine map that best takes the mean face to the landmarks."""
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
        """Residuals ``[N, 936]``, the rotation, and what a shift of each point does: ``[N, 468, 2, 3]``."""
        rotation = rotation_matrix(pose[:, :3])
        turned = self.shape(identity, expression) @ rotation.mT
        world = turned + pose[:, None, 3:]
        x, y, z = world.unbind(-1)
        depth = self.camera.distance - z
        slope = self.camera.focal / depth
        zero = torch.zeros_like(slope)
        by_point = torch.stack(
            [
                torch.stack([slope, zero, slope * x / depth], dim=-1),
                torch.stack([zero, -slope, -slope * y / depth], dim=-1),
            ],
            dim=-2,
        )
        seen = torch.stack([slope * x, -slope * y], dim=-1)
        return (target - seen).flatten(1), rotation, turned, by_point

    def motion_system(
        self, target: Tensor, identity: Tensor, expression: Tensor, pose: Tensor, prior: Tensor
    ):
        """The damped normal equations of [β, p] of each frame, and what they were made of.

        Returns:
            normal ``[N, K, K]``, right side ``[N, K]``, Jacobian ``[N, 936, K]``, residual ``[N, 936]``, and
            what a shift of each point before its turn does, ``[N, 468, 2, 3]``.
        """
        residual, rotation, turned, by_point = self.linearize(target, identity, expression, pose)
        axes = torch.eye(3, dtype=torch.float64).expand(*turned.shape[:2], 3, 3)
        turn = -torch.linalg.cross(turned[:, :, None].expand_as(axes), axes)
        by_turned = by_point @ rotation[:, None]
        of_turn = by_point @ turn.mT
        of_expression = torch.einsum("nlux,dlx->nlud", by_turned, self.expression_basis)
        jacobian = torch.cat([of_expression, of_turn, by_point], dim=-1).flatten(1, 2)
        size = expression.shape[1]
        weighted = (jacobian * self.weight[:, None]).mT
        normal = weighted @ jacobian
        right = (weighted @ residual[..., None])[..., 0]
        diagonal = normal.diagonal(dim1=-2, dim2=-1)
        diagonal += DAMPING * diagonal
        diagonal[:, :size] += self.prior_weight
        right[:, :size] += self.prior_weight * (prior - expression)
        # a coefficient at an end of its range that is pushed outward is left out of the step
        held = ((expression <= 0) & (right[:, :size] < 0)) | ((expression >= 1) & (right[:, :size] > 0))
        free = torch.cat([~held, held.new_ones(len(held), 6)], dim=1).double()
        normal = normal * free[:, :, None] * free[:, None] + torch.diag_embed(1 - free)
        return normal, right * free, jacobian * free[:, None], residual, by_turned

    def step(
        self, target: Tensor, identity: Tensor, expression: Tensor, pose: Tensor, prior: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One damped step of expression and pose, each frame by itself."""
        normal, right, *_ = self.motion_system(target, identity, expression, pose, prior)
        return self.apply(torch.linalg.solve(normal, right), expression, pose)

    def fit_motion(
        self, target: Tensor, identity: Tensor, pose: Tensor, first: int, iterations: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Expression, pose and error of the frames from ``first`` on, with a known identity."""
        prior = self.prior[first : first + len(target)]
        expression = prior.clone()
        for _ in range(iterations):
            expression, pose = self.step(target, identity, expression, pose, prior)
        residual = target - self.points(identity, expression, pose)
        return expression, pose, (residual**2).sum(-1).mean(-1).sqrt()

    def apply(self, change: Tensor, expression: Tensor, pose: Tensor) -> tuple[Tensor, Tensor]:
        """Move [β, p] by a solution ``[N, D_β + 6]`` of the normal equations."""
        size = expression.shape[1]
        turned_by = torch.linalg.matrix_exp(_skew(change[:, size : size + 3])) @ rotation_matrix(pose[:, :3])
        moved = torch.cat([euler_angles(turned_by), pose[:, 3:] + change[:, size + 3 :]], dim=-1)
        return (expression + change[:, :size]).clamp(0, 1), moved

    def fit_identity(self, target: Tensor, pose: Tensor, chosen: Tensor, iterations: int) -> Tensor:
        """α from some frames, solved together with their expressions and poses (by the Schur complement)."""
        target, pose, prior = target[chosen], pose[chosen], self.prior[chosen]
        identity = torch.zeros(len(self.identity_basis), dtype=torch.float64)
        expression = prior.clone()
        eye = torch.eye(len(identity), dtype=torch.float64)
        for _ in range(iterations):
            system = self.motion_system(target, identity, expression, pose, prior)
            normal, right, jacobian, residual, by_turned = system
            of_identity = torch.einsum("nlux,dlx->nlud", by_turned, self.identity_basis).flatten(1, 2)
            weighted = (of_identity * self.weight[:, None]).mT
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


def _skew(axis_angle: Tensor) -> Tensor:
    """``[N, 3]`` to the matrices ``[N, 3, 3]`` whose exponentials are the rotations."""
    x, y, z = axis_angle.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))

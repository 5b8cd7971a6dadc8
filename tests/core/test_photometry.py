"""The photometric term: a face's own look places it more closely than landmarks do."""

from functools import lru_cache

import torch

from fd2talk_core.face.fitting import FaceFit, fit_landmarks, refine_fit
from fd2talk_core.face.model import apply_pose, default_face_model, project
from fd2talk_core.face.photometry import LEVELS, LOOK_SIZE, Looks, PhotometricTerm
from fd2talk_core.face.rasterizer import rasterize

FRAMES = 4
SIDE = 1.2
"""Of the square that is looked at, in half widths of the crop."""
BIAS = 0.02
"""Of landmarks, in half widths: 2.5 pixels at 256."""


@lru_cache
def clip() -> tuple[torch.Tensor, ...]:
    """Identity, expression and pose of a few frames, their landmarks with errors, and their looks."""
    model, generator = default_face_model(), torch.Generator().manual_seed(3)
    identity = 0.5 * torch.randn(model.identity_dim, generator=generator)
    expression = torch.zeros(FRAMES, model.expression_dim)
    for name, weights in (("jawOpen", (0, 0.3, 0.1, 0.4)), ("mouthSmileLeft", (0, 0.2, 0.5, 0.0))):
        expression[:, model.expression_names.index(name)] = torch.tensor(weights)
    pose = torch.zeros(FRAMES, 6)
    pose[1:, :3] = torch.tensor([[0.05, 0.12, 0.02], [-0.08, -0.1, 0.05], [0.02, 0.06, -0.06]])
    posed = apply_pose(model(identity[None], expression), pose)
    places = project(model.landmarks(posed), model.camera)[..., :2]
    places = places + BIAS * torch.randn(FRAMES, 1, 2, generator=generator)
    places = places + 0.3 * BIAS * torch.randn(places.shape, generator=generator)

    # brightness that belongs to the surface, seen at the size of a look
    brightness = torch.rand(1, model.num_vertices, 1, generator=generator)
    seen = project(posed, model.camera) * torch.tensor([2 / SIDE, 2 / SIDE, 1.0])
    raster = rasterize(seen, model.triangles, LOOK_SIZE, cull_back_faces=True)
    looks = torch.where(raster.covered, raster.interpolate(brightness, model.triangles)[..., 0], 0.5)
    squares = torch.tensor([0.0, 0.0, SIDE]).expand(FRAMES, 3)
    return identity, expression, pose, places, Looks((looks * 255).round().byte(), squares)


def error(fit: FaceFit, expression: torch.Tensor, pose: torch.Tensor) -> torch.Tensor:
    """``[n]``: how far landmarks of the fitted mesh lie from the true ones, in half widths."""
    model = default_face_model()

    def at(e: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        return project(model.landmarks(apply_pose(model(fit.identity[None], e), p)), model.camera)[..., :2]

    return (at(fit.expression, fit.pose) - at(expression, pose)).norm(dim=-1).mean(dim=-1)


def refined(light: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Errors by landmarks alone, and after the refinement, of the frames that move."""
    identity, expression, pose, places, looks = clip()
    changed = looks.brightness.clone()
    changed[1:] = (changed[1:].float() * light).round().byte()
    looks = Looks(changed, looks.squares)
    model = default_face_model()
    fit = fit_landmarks(places, model, expression, identity)
    before = error(fit, expression, pose)
    term = PhotometricTerm(model, identity, expression[0], pose[0], looks[[0]])
    for level in LEVELS:
        fit = refine_fit(places, model, fit, term.at(looks, level))
    return before[1:], error(fit, expression, pose)[1:]


def test_the_look_places_a_face_more_closely_than_landmarks() -> None:
    before, after = refined()
    assert (after < 0.4 * before).all(), (before, after)


def test_light_may_change() -> None:
    before, after = refined(light=0.7)
    assert (after < 0.5 * before).all(), (before, after)


def test_slopes_are_those_of_the_residual() -> None:
    """The gradient that the term gives is the change of its own squared error."""
    identity, expression, pose, _, looks = clip()
    term = PhotometricTerm(default_face_model(), identity, expression[0], pose[0], looks[[0]])
    level = term.at(looks[1:2], LEVELS[0])

    def cost(p: torch.Tensor) -> float:
        _, right = level(expression[1:2], p)
        return right[0, 52:].double()

    # at the true place the force is small against the force a hundredth of a unit beside it
    shifted = pose[1:2].clone()
    shifted[0, 3] += 0.05
    assert cost(shifted)[3] < -5 * cost(pose[1:2])[3].abs()

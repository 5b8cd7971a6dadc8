"""The mesh's sides end where the portrait's face ends."""

from __future__ import annotations

from copy import copy

import pytest
import torch
from torch import Tensor

from fd2talk_core.face.lids import shape_of
from fd2talk_core.face.model import FaceModel, apply_pose, default_face_model, project
from fd2talk_core.face.outline import fit_outline
from fd2talk_core.face.rasterizer import rasterize
from fd2talk_core.face.state import FaceState

SIZE = 256


@pytest.fixture(scope="module")
def face() -> FaceModel:
    return default_face_model()


@pytest.fixture(scope="module")
def person(face: FaceModel) -> FaceState:
    pose = torch.tensor([0.0, 0.15, 0.05, 0.0, 0.0, 0.0])
    return FaceState(torch.zeros(face.identity_dim), torch.zeros(face.expression_dim), pose, face.name)


def drawn(face: FaceModel, person: FaceState, width: float = 1.0) -> Tensor:
    """``[S, S]`` bool: where the head, without its ears, is seen, narrowed."""
    seen = project(
        apply_pose(shape_of(face, person, person.expression[None]), person.pose[None]), face.camera
    )
    seen[..., 0] *= width
    ears = face.triangle_parts == face.part_names.index("ears")
    return rasterize(seen, face.triangles[~ears], SIZE, cull_back_faces=True).covered[0]


def portrait(skin: Tensor) -> Tensor:
    """Skin under a light from one side, before a wall."""
    light = torch.linspace(0.7, 1, SIZE)[None, :, None]
    wall = torch.tensor([0.2, 0.3, 0.5]).expand(SIZE, SIZE, 3)
    return torch.where(skin[..., None], torch.tensor([0.9, 0.7, 0.6]) * light, wall)


def sides(mask: Tensor) -> Tensor:
    """``[n, 2]``: first and last pixel of the rows from under the eyes to the mouth."""
    rows = mask[SIZE // 2 + 8 : SIZE // 2 + 40]
    return torch.stack([rows.float().argmax(dim=1), SIZE - rows.flip(1).float().argmax(dim=1)], dim=1).float()


def refitted(face: FaceModel, person: FaceState, crop: Tensor) -> FaceState:
    offsets = fit_outline(face, person, crop)
    return FaceState(person.identity, person.expression, person.pose, person.face_model, offsets)


def test_a_mesh_that_is_too_wide_is_drawn_in(face: FaceModel, person: FaceState) -> None:
    skin = drawn(face, person, 0.92)
    before = (sides(drawn(face, person)) - sides(skin)).abs()
    after = (sides(drawn(face, refitted(face, person, portrait(skin)))) - sides(skin)).abs()
    assert before.mean() > 3
    assert after.mean() < 2 and after.max() < 4


def test_a_mesh_that_fits_stays(face: FaceModel, person: FaceState) -> None:
    skin = drawn(face, person)
    after = sides(drawn(face, refitted(face, person, portrait(skin)))) - sides(skin)
    assert after.abs().max() <= 3  # it ends a hundredth of the half width within the skin
    offsets = fit_outline(face, person, portrait(skin))
    still = torch.cat(
        [
            face.triangles[face.triangle_parts == face.part_names.index(part)].unique()
            for part in ("eyelids", "upper_teeth", "tongue", "left_eye", "neck", "scalp")
        ]
    )
    assert offsets[still].norm(dim=1).quantile(0.9) < 1e-3 and offsets.norm(dim=1).max() < 0.06


def test_hair_before_a_cheek_is_none_of_its_edges(face: FaceModel, person: FaceState) -> None:
    skin = drawn(face, person, 0.8)
    after = sides(drawn(face, refitted(face, person, portrait(skin)))) - sides(drawn(face, person))
    assert after.abs().median() <= 1


def test_a_face_model_without_parts_has_no_outline(face: FaceModel, person: FaceState) -> None:
    crop = portrait(drawn(face, person))
    bare = copy(face)
    bare.part_names = ()
    assert fit_outline(face, person, crop) is not None and fit_outline(bare, person, crop) is None

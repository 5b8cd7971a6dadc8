"""The mesh's sides end where the portrait's face ends."""

from __future__ import annotations

from copy import copy
from dataclasses import replace

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


def refitted(face: FaceModel, person: FaceState, skin: Tensor, shown: Tensor) -> FaceState:
    """The face in a portrait whose person is ``shown``, of whom so much is skin."""
    offsets = fit_outline(face, person, portrait(skin), shown.float())
    return replace(person, offsets=offsets)


@pytest.mark.parametrize(("width", "hair"), [(0.92, False), (0.92, True), (0.87, False)])
def test_a_mesh_that_is_too_wide_is_drawn_in(
    face: FaceModel, person: FaceState, width: float, hair: bool
) -> None:
    """Before the wall, and by less before the dark under somebody's hair."""
    skin = drawn(face, person, width)
    shown = drawn(face, person) if hair else skin
    before = (sides(drawn(face, person)) - sides(skin)).abs()
    after = (sides(drawn(face, refitted(face, person, skin, shown))) - sides(skin)).abs()
    assert before.mean() > 3
    assert after.mean() < 0.6 * before.mean() and after.quantile(0.9) < 5


def test_a_mesh_that_fits_stays(face: FaceModel, person: FaceState) -> None:
    skin = drawn(face, person)
    fitted = refitted(face, person, skin, skin)
    after = sides(drawn(face, fitted)) - sides(skin)
    assert after.abs().max() <= 3  # it ends a hundredth of the half width within the skin
    still = torch.cat(
        [
            face.triangles[face.triangle_parts == face.part_names.index(part)].unique()
            for part in ("eyelids", "upper_teeth", "tongue", "left_eye", "neck", "scalp")
        ]
    )
    moved = fitted.offsets.norm(dim=1)
    assert moved[still].quantile(0.9) < 1e-3 and moved.max() < 0.06


def test_hair_before_a_cheek_is_none_of_its_edges(face: FaceModel, person: FaceState) -> None:
    fitted = refitted(face, person, drawn(face, person, 0.8), drawn(face, person))
    after = sides(drawn(face, fitted)) - sides(drawn(face, person))
    assert after.abs().median() <= 1


def test_a_face_model_without_parts_has_no_outline(face: FaceModel, person: FaceState) -> None:
    skin = drawn(face, person)
    bare = copy(face)
    bare.part_names = ()
    assert refitted(face, person, skin, skin).offsets is not None
    assert refitted(bare, person, skin, skin).offsets is None

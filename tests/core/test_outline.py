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


def drawn(
    face: FaceModel, person: FaceState, width: float = 1.0, skull: float = 1.0, with_ears: bool = False
) -> Tensor:
    """``[S, S]`` bool: where the head is seen, narrowed, and lower above the eyes."""
    seen = project(
        apply_pose(shape_of(face, person, person.expression[None]), person.pose[None]), face.camera
    )
    seen[..., 0] *= width
    eyes = seen[
        :, face.triangles[face.triangle_parts == face.part_names.index("left_eye")].unique(), 1
    ].mean()
    above = seen[..., 1] - eyes
    seen[..., 1] = eyes + torch.where(above < 0, skull, 1.0) * above
    ears = face.triangle_parts == face.part_names.index("ears")
    shown = face.triangles if with_ears else face.triangles[~ears]
    return rasterize(seen, shown, SIZE, cull_back_faces=True).covered[0]


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
    skin = drawn(face, person, with_ears=True)
    fitted = refitted(face, person, skin, skin)
    after = sides(drawn(face, fitted)) - sides(drawn(face, person))
    assert after.abs().max() <= 3  # it ends a hundredth of the half width within the skin
    still = torch.cat(
        [
            face.triangles[face.triangle_parts == face.part_names.index(part)].unique()
            for part in ("eyelids", "upper_teeth", "tongue", "left_eye", "neck", "scalp")
        ]
    )
    moved = fitted.offsets.norm(dim=1)
    assert moved[still].quantile(0.9) < 1e-3 and moved.max() < 0.06


@pytest.mark.parametrize("turn", [0.0, 0.35])
def test_a_skull_that_is_higher_than_the_person_is_drawn_in(
    face: FaceModel, person: FaceState, turn: float
) -> None:
    """In the portrait, and where a turn brings out what that hides."""
    shown = drawn(face, person, skull=0.92)
    fitted = refitted(face, person, drawn(face, person), shown)
    pose = person.pose + torch.tensor([0.0, turn, 0.0, 0.0, 0.0, 0.0])
    lower, before, after = (
        drawn(face, replace(who, pose=pose), skull=skull)[: SIZE // 3].float().sum()
        for who, skull in ((person, 0.92), (person, 1.0), (fitted, 1.0))
    )
    assert before - lower > 400
    assert abs(after - lower) < 0.35 * (before - lower)


def test_a_skull_stays_where_the_matte_misses_most_of_the_hair(face: FaceModel, person: FaceState) -> None:
    shown = drawn(face, person, skull=0.6)
    fitted = refitted(face, person, drawn(face, person), shown)
    top = [drawn(face, who).any(dim=1).float().argmax() for who in (person, fitted)]
    assert abs(top[0] - top[1]) <= 1


def test_hair_before_a_cheek_is_none_of_its_edges(face: FaceModel, person: FaceState) -> None:
    fitted = refitted(face, person, drawn(face, person, 0.8), drawn(face, person))
    after = sides(drawn(face, fitted)) - sides(drawn(face, person))
    assert after.abs().median() <= 1


def test_an_ear_under_hair_is_laid_flat_and_a_bare_one_stays(face: FaceModel, person: FaceState) -> None:
    skin, bare = drawn(face, person), drawn(face, person, with_ears=True)
    right = torch.arange(SIZE) >= SIZE // 2
    fitted = refitted(face, person, torch.where(right, bare, skin), bare)
    ears = face.triangles[face.triangle_parts == face.part_names.index("ears")].unique()
    rim = torch.isin(ears, face.triangles[face.triangle_parts != face.part_names.index("ears")].unique())
    shown = face.mean[ears, 0] > 0
    x = (face.mean + fitted.offsets)[ears, 0].abs()
    assert x[~shown].max() < face.mean[ears[rim], 0].abs().max() + 0.01
    assert x[shown].max() == pytest.approx(float(face.mean[ears, 0].max()), abs=0.01)
    own = bare & ~skin
    kept = own & drawn(face, fitted, with_ears=True)
    assert kept[:, ~right].sum() < 0.3 * own[:, ~right].sum()
    assert kept[:, right].sum() > 0.9 * own[:, right].sum()


def test_a_face_model_without_parts_has_no_outline(face: FaceModel, person: FaceState) -> None:
    skin = drawn(face, person)
    bare = copy(face)
    bare.part_names = ()
    assert refitted(face, person, skin, skin).offsets is not None
    assert refitted(bare, person, skin, skin).offsets is None

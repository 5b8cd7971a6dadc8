"""What a person wears is told from their skin, their hair and the wall."""

from __future__ import annotations

from copy import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fd2talk_core.face.clothes import find_clothes
from fd2talk_core.face.landmarks import FaceLandmarker
from fd2talk_core.face.lids import shape_of
from fd2talk_core.face.matte import person_matte
from fd2talk_core.face.model import FaceModel, apply_pose, default_face_model, project
from fd2talk_core.face.parts import named_part
from fd2talk_core.face.rasterizer import rasterize
from fd2talk_core.face.state import FaceState
from fd2talk_core.frames.reference import crop_portrait
from fd2talk_core.imaging import pixel_centers, read_image

SIZE = 128
EXAMPLES = Path(__file__).parents[2] / "example_inputs"
SKIN, WALL = torch.tensor([0.85, 0.62, 0.52]), torch.tensor([0.5, 0.6, 0.5])
COLLAR = 0.62
"""Half heights from the picture's middle: the throat is seen down to there."""


@pytest.fixture(scope="module")
def face() -> FaceModel:
    return default_face_model()


@pytest.fixture(scope="module")
def person(face: FaceModel) -> FaceState:
    return FaceState(
        torch.zeros(face.identity_dim), torch.zeros(face.expression_dim), torch.zeros(6), face.name
    )


def drawn(
    face: FaceModel, person: FaceState, hair: Tensor, coat: Tensor, long_hair: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """A portrait ``[1, 3, n, n]``, its matte ``[1, 1, n, n]``, and where the coat is, ``[n, n]`` bool."""
    shape = shape_of(face, person, person.expression[None])
    raster = rasterize(
        project(apply_pose(shape, person.pose[None]), face.camera),
        face.triangles,
        SIZE,
        cull_back_faces=True,
    )
    body, neck, scalp = (
        part[0]
        for part in (
            raster.covered,
            raster.look_up(named_part(face, "neck"), False),
            raster.look_up(named_part(face, "scalp"), False),
        )
    )
    u, v = pixel_centers(SIZE, shape).unbind(-1)
    worn = neck & (v > COLLAR)
    strands = (u.abs() > 0.38) & (u.abs() < 0.6) & (v > -0.3) & (v < 0.9)
    worn &= ~(strands & long_hair)
    head_hair = scalp | (strands & long_hair & ~(body & ~neck))
    light = (1 - 0.35 * (neck & (v < COLLAR)).float())[..., None]  # the chin's shadow
    picture = torch.where(body[..., None], SKIN * light, WALL)
    picture = torch.where(worn[..., None], coat, picture)
    picture = torch.where(head_hair[..., None], hair, picture)
    matte = (body | head_hair).float()[None, None]
    return picture.movedim(-1, 0)[None], matte, worn


@pytest.mark.parametrize("coat", [(0.1, 0.1, 0.2), (0.95, 0.95, 0.95), (0.2, 0.5, 0.3)])
def test_a_coat_is_found_and_nothing_else(
    face: FaceModel, person: FaceState, coat: tuple[float, float, float]
) -> None:
    picture, matte, worn = drawn(face, person, torch.tensor([0.35, 0.22, 0.12]), torch.tensor(coat))
    far = find_clothes(face, person, picture, matte)[0, 0]
    found = far == 0
    assert worn.sum() > 1000
    assert (found & worn).sum() > 0.95 * worn.sum()
    assert (found & ~worn).sum() < 0.02 * worn.sum()
    middle = SIZE // 2
    assert far[middle, middle] == pytest.approx(COLLAR, abs=0.05), "half widths"


def test_an_astronaut_s_collar_is_found_in_her_photograph(face: FaceModel) -> None:
    portrait = crop_portrait(read_image(EXAMPLES / "portrait.png"), FaceLandmarker.load(), face)
    matte = person_matte(portrait.crop)[None, None]
    far = find_clothes(face, portrait.face, portrait.crop.movedim(-1, 0)[None], matte)[0, 0]
    u, v = pixel_centers(SIZE, far).unbind(-1)
    assert (far == 0)[(u.abs() < 0.3) & (v > 0.65)].float().mean() > 0.9, "the black collar"
    assert not (far == 0)[v < 0.2].any(), "face, hair and wall"


def test_where_hair_falls_over_a_coat_of_its_colour_it_is_taken_for_hair(
    face: FaceModel, person: FaceState
) -> None:
    dark = torch.tensor([0.12, 0.1, 0.1])
    picture, matte, _ = drawn(face, person, dark, dark, long_hair=True)
    assert find_clothes(face, person, picture, matte) is None


def test_bare_shoulders_are_no_clothes(face: FaceModel, person: FaceState) -> None:
    picture, matte, _ = drawn(face, person, torch.tensor([0.12, 0.1, 0.1]), SKIN)
    assert find_clothes(face, person, picture, matte) is None


def test_a_face_model_without_parts_knows_none(face: FaceModel, person: FaceState) -> None:
    bare = copy(face)
    bare.part_names = ()
    picture = torch.rand(1, 3, SIZE, SIZE)
    assert find_clothes(bare, person, picture, torch.ones(1, 1, SIZE, SIZE)) is None

"""Hair that a turn brings out has strands as those beside it, not drawn out to ribs, nor has a cheek ribs."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fd2talk_core.face.model import FaceModel, apply_pose, default_face_model, project
from fd2talk_core.face.parts import under_hair
from fd2talk_core.face.rasterizer import rasterize
from fd2talk_core.frames.correspondence import Correspondence, reference_flow, room_in_hair
from fd2talk_core.frames.texture import Texture
from fd2talk_core.imaging import displace, resize

SIZE = 256


@pytest.fixture(scope="module")
def face() -> FaceModel:
    return default_face_model()


@pytest.fixture(scope="module")
def identity(face: FaceModel) -> Tensor:
    return torch.zeros(face.identity_dim)


@pytest.fixture
def person(face: FaceModel, identity: Tensor) -> Tensor:
    """``[1, 1, S, S]``: no wider than the mesh, as those with close hair are."""
    points = project(face(identity[None], torch.zeros(1, face.expression_dim)), face.camera)
    return rasterize(points, face.triangles, SIZE, cull_back_faces=True).covered[:, None].float()


def turned(face: FaceModel, identity: Tensor, yaw: float, person: Tensor) -> Correspondence:
    pose = torch.zeros(1, 6)
    pose[0, 1] = yaw
    still = torch.zeros(1, face.expression_dim)
    flow = reference_flow(face, identity, still[0], torch.zeros(6), still, pose, 64)
    return flow.within_hair(room_in_hair(person))


def strands_moved(flow: Correspondence, person: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``[1, 3, S, S]``: hair of which no pixel tells its neighbour's colour, moved, without and with its
    texture; and ``[S, S]``, how far it is drawn out.
    """
    portrait = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.4
    enlarged = flow.enlarged(SIZE)
    moved = displace(portrait, enlarged.pixels)
    made, drawn_out = moved.clone(), enlarged.drawn_out[0]
    assert drawn_out is not None
    Texture.of(portrait, person).add_to(made, enlarged.pixels[0], drawn_out)
    return moved, made, resize(drawn_out[None, 2:3], SIZE)[0, 0]


def least_contrast(picture: Tensor, where: Tensor) -> float:
    """The mean squared slope in the direction in which a picture ``[1, 3, S, S]`` changes least, place by
    place: none along a rib."""
    down, across = torch.gradient(picture.mean(dim=1), dim=(1, 2))
    products = torch.stack([across * across, down * down, across * down], dim=1)
    xx, yy, xy = F.avg_pool2d(products, 9, stride=1, padding=4)[0]
    least = (xx + yy) / 2 - (((xx - yy) / 2) ** 2 + xy**2).sqrt()
    return float(least[where].mean())


def scalp_of(face: FaceModel, identity: Tensor, yaw: float) -> Tensor:
    """``[S, S]`` bool: the scalp in a turned head."""
    pose = torch.zeros(1, 6)
    pose[0, 1] = yaw
    vertices = apply_pose(face(identity[None], torch.zeros(1, face.expression_dim)), pose)
    raster = rasterize(project(vertices, face.camera), face.triangles, SIZE, cull_back_faces=True)
    return raster.look_up(under_hair(face), False)[0]


@pytest.mark.parametrize("yaw", [0.4, -0.4])
def test_hair_that_a_turn_brings_out_has_no_ribs(
    face: FaceModel, identity: Tensor, person: Tensor, yaw: float
) -> None:
    flow = turned(face, identity, yaw, person)
    drawn_out, made, share = strands_moved(flow, person)
    scalp = scalp_of(face, identity, yaw)
    brought_out, beside = scalp & (share > 0.9), scalp & (share < 0.05)
    assert brought_out.sum() > 200 and beside.sum() > 200
    shown = least_contrast(made, beside)
    assert least_contrast(drawn_out, brought_out) < 0.2 * shown
    assert least_contrast(made, brought_out) > 0.4 * shown
    assert torch.equal(made[..., share == 0], drawn_out[..., share == 0])
    # its colour stays what hair is drawn out to, so it goes on from what is beside it
    apart = F.avg_pool2d((made - drawn_out).mean(dim=1), 31, stride=1)
    assert apart.abs().max() < 0.02


@pytest.mark.parametrize("yaw", [0.4, -0.4])
def test_a_cheek_that_a_turn_brings_out_has_no_ribs(
    face: FaceModel, identity: Tensor, person: Tensor, yaw: float
) -> None:
    """What is drawn out of it is smooth, and nothing in the middle of the face is."""
    flow = turned(face, identity, yaw, person)
    drawn_out, made, share = strands_moved(flow, person)
    assert flow.cheeks is not None
    cheek = (resize(flow.cheeks, SIZE)[0, 0] > 0.9) & (share > 0.9)
    assert cheek.sum() > 200
    assert made[0, :, cheek].std(dim=1).max() < 0.5 * drawn_out[0, :, cheek].std(dim=1).min()
    # from the eyes to the mouth
    middle = (slice(100, 160), slice(142, 172)) if yaw > 0 else (slice(100, 160), slice(84, 114))
    assert torch.equal(made[(..., *middle)], drawn_out[(..., *middle)])


def test_a_head_that_does_not_turn_shows_its_own_hair(
    face: FaceModel, identity: Tensor, person: Tensor
) -> None:
    moved, made, _ = strands_moved(turned(face, identity, 0.0, person), person)
    assert (made - moved).abs().max() < 0.02


def test_the_wall_is_no_part_of_hair(person: Tensor) -> None:
    """A bright wall does not shine into the smooth part of dark hair, nor has it a texture."""
    portrait = torch.where(person > 0.5, 0.1, 1.0).expand(1, 3, -1, -1).contiguous()
    smooth, fine = Texture.of(portrait, person).layers.split(3, dim=1)
    assert torch.allclose(smooth, portrait, atol=1e-4)
    assert fine.abs().max() < 1e-4


def test_a_cap_s_edge_stays_an_edge_where_it_is_drawn_out() -> None:
    """It is no texture, which would be blurred there, and shown once more."""
    portrait = torch.zeros(1, 3, SIZE, SIZE)
    portrait[..., SIZE // 2 :] = 1
    drawn_out, fine = Texture.of(portrait, torch.ones(1, 1, SIZE, SIZE)).layers.split(3, dim=1)
    assert (drawn_out.diff(dim=-1).amax() > 0.8) and fine.abs().max() < 0.1

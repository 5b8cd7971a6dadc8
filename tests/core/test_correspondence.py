"""The correspondence against independent geometry: where a surface point was, seen by the same camera."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fd2talk_core import configs
from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.model import FaceModel, apply_pose, default_face_model, project
from fd2talk_core.face.names import ARKIT_NAMES
from fd2talk_core.face.parts import below_the_eyes, under_hair
from fd2talk_core.face.rasterizer import Raster, rasterize
from fd2talk_core.face.skinning import head_weight, pose_on_body
from fd2talk_core.frames.conditioning import align_reference, paint_mouth
from fd2talk_core.frames.correspondence import (
    HAIR_BEHIND,
    Correspondence,
    _astray,
    _plane_displacement,
    reference_flow,
    room_in_hair,
    unstretched,
    warp_reference,
)
from fd2talk_core.imaging import distance_to, length_of, pixel_centers, resize
from fd2talk_core.networks.unet import MASK_NAMES


@pytest.fixture(scope="module")
def face() -> FaceModel:
    return default_face_model()


@pytest.fixture(scope="module")
def identity(face: FaceModel) -> Tensor:
    return torch.randn(face.identity_dim, generator=torch.Generator().manual_seed(2)) * 0.7


def still(face: FaceModel, frames: int = 1) -> tuple[Tensor, Tensor]:
    return torch.zeros(frames, face.expression_dim), torch.zeros(frames, 6)


def flow_from_still(
    face: FaceModel, identity: Tensor, expression: Tensor, pose: Tensor, size: int, **options
):
    rest, upright = still(face)
    return reference_flow(face, identity, rest[0], upright[0], expression, pose, size, **options)


@pytest.mark.parametrize("size", [32, 64])
def test_unchanged_coefficients_give_the_identity(face: FaceModel, identity: Tensor, size: int) -> None:
    expression, pose = still(face, 2)
    expression[1, ARKIT_NAMES.index("jawOpen")], pose[1, 1] = 0.5, 0.3
    flow = reference_flow(face, identity.expand(2, -1), expression, pose, expression, pose, size)
    assert (flow.grid - pixel_centers(size, flow.grid)).abs().max() < 1e-4
    assert flow.masks.shape == (2, len(MASK_NAMES), size, size)
    coverage, visible = flow.masks[:, 0], flow.masks[:, 1]
    assert 0.15 < coverage.mean() < 0.6
    assert visible.sum() > 0.97 * coverage.sum()


def test_a_shift_is_a_constant_displacement_on_the_face(face: FaceModel, identity: Tensor) -> None:
    """A plane parallel to the picture at depth z moves by focal · t / z; the head lies around the camera's
    distance, so each place's own depth says its shift.
    """
    expression, pose = still(face)
    pose[0, 3:5] = torch.tensor([0.15, -0.1])
    flow = flow_from_still(face, identity, expression, pose, 64, supersample=1)
    vertices = apply_pose(face(identity[None], expression), pose)
    raster = rasterize(project(vertices, face.camera), face.triangles, 64, cull_back_faces=True)
    displacement = (flow.grid - pixel_centers(64, flow.grid))[0]
    # rows above the neck, which blends into shoulders that stay, and not the skull's rim, which is continued
    inside = F.avg_pool2d(raster.covered.float(), 3, stride=1, padding=1)[0] == 1
    head = inside & (torch.arange(64) < 36)[:, None]
    shift = face.camera.focal * torch.tensor([-0.15, -0.1]) / raster.depth[0][head][:, None]
    assert head.sum() > 300
    torch.testing.assert_close(displacement[head], shift, atol=2e-4, rtol=0)
    assert (displacement[head] - displacement[head].mean(dim=0)).abs().max() < 0.02


def paint(
    face: FaceModel, identity: Tensor, expression: Tensor, pose: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """A head whose colours are a function of the surface, on shoulders that stay: ``[F, 3, s, s]``."""
    vertices = pose_on_body(face, face(identity[None], expression), pose, torch.zeros(1, 6))
    raster = rasterize(project(vertices, face.camera), face.triangles, size * 2, cull_back_faces=True)
    place = raster.interpolate(face(identity[None], torch.zeros(1, face.expression_dim)), face.triangles)
    colors = 0.5 + 0.4 * torch.sin(place * 9 + torch.tensor([0.0, 1.0, 2.0]))
    picture = torch.where(raster.covered[..., None], colors, torch.tensor([0.3, 0.5, 0.7]))
    return F.avg_pool2d(picture.movedim(-1, 1), 2), raster.covered


def test_a_textured_head_warped_is_the_head_rendered(face: FaceModel, identity: Tensor) -> None:
    expression, pose = still(face, 4)
    expression[0, ARKIT_NAMES.index("jawOpen")] = 0.6
    expression[1, ARKIT_NAMES.index("mouthSmileLeft")] = 0.9
    pose[2, :3] = torch.tensor([0.1, 0.25, 0.05])
    pose[3] = torch.tensor([-0.1, -0.2, 0.1, 0.15, 0.1, 0.0])
    before, _ = paint(face, identity, *still(face), 128)
    truth, _ = paint(face, identity, expression, pose, 128)
    flow = flow_from_still(face, identity, expression, pose, 128, supersample=1)
    # what a turn brings out under the hair goes with the hair, not with the skull
    vertices = pose_on_body(face, face(identity[None], expression), pose, torch.zeros(1, 6))
    raster = rasterize(project(vertices, face.camera), face.triangles, 128, cull_back_faces=True)
    skin = ~raster.look_up(under_hair(face), False)[:, None]
    known = ((flow.masks[:, 1:2] > 0.99) & skin).expand_as(truth)
    warped = warp_reference(before, flow.grid)
    for frame in range(4):
        error = (warped[frame] - truth[frame])[known[frame]].square().mean()
        copied = (before[0] - truth[frame])[known[frame]].square().mean()
        decibel, baseline = -10 * error.log10(), -10 * copied.log10()
        print(f"frame {frame}: warped {decibel:.1f} dB, copied {baseline:.1f} dB")
        assert decibel > 28 and decibel > baseline + 5


def test_frames_of_several_people_and_one_by_one_are_the_same(face: FaceModel) -> None:
    """A batch is only a batch."""
    generator = torch.Generator().manual_seed(1)
    people = torch.randn(3, face.identity_dim, generator=generator) * 0.5
    expression = torch.rand(3, face.expression_dim, generator=generator) * 0.2
    rest = torch.rand(3, face.expression_dim, generator=generator) * 0.2
    pose, upright = (torch.randn(3, 6, generator=generator) * 0.1 for _ in range(2))
    together = reference_flow(face, people, rest, upright, expression, pose, 32)
    for frame in range(3):
        one = slice(frame, frame + 1)
        alone = reference_flow(
            face, people[frame], rest[frame], upright[frame], expression[one], pose[one], 32
        )
        torch.testing.assert_close(alone.grid, together.grid[one], atol=1e-5, rtol=0)
        torch.testing.assert_close(alone.masks, together.masks[one])


def test_a_hidden_side_is_not_visible(face: FaceModel, identity: Tensor) -> None:
    """Turning the head by 40° shows a cheek that the portrait does not."""
    expression, pose = still(face)
    pose[0, 1] = math.radians(40)
    flow = flow_from_still(face, identity, expression, pose, 64)
    hidden = flow.masks[0, 0] - flow.masks[0, 1]
    # the face turns to the image's right, so what comes into sight does so on the left
    assert hidden[:40, :32].sum() > 20 and hidden[:40, :32].sum() > 3 * hidden[:40, 32:].sum()


def test_an_opened_mouth_is_not_filled_with_lips(face: FaceModel, identity: Tensor) -> None:
    expression, pose = still(face)
    opened = expression.clone()
    opened[0, ARKIT_NAMES.index("jawOpen")] = 0.7
    flow = flow_from_still(face, identity, opened, pose, 128, supersample=1)
    mouth = flow.masks[0, 2] > 0.5
    assert mouth.sum() > 30
    hidden = flow.hidden_mouth.sum(dim=1)[0]
    assert hidden[mouth].mean() > 0.9 and hidden[~mouth].max() == 0
    assert flow.masks[0, 1][mouth].mean() < 0.1
    white = paint_mouth(torch.ones(1, 3, 128, 128), flow.hidden_mouth)
    assert white[0, :, mouth].mean() < 0.75 and (white[0, :, ~mouth] == 1).float().mean() > 0.99
    # a portrait whose mouth is open already shows its own teeth
    same = reference_flow(face, identity, opened[0], pose[0], opened, pose, 128, supersample=1)
    assert same.hidden_mouth.sum() < 0.15 * same.masks[:, 2].sum()


def test_the_background_stays_and_hair_moves_along(face: FaceModel, identity: Tensor) -> None:
    expression, pose = still(face)
    pose[0, 3] = 0.15
    displacement = flow_from_still(face, identity, expression, pose, 64).grid - pixel_centers(
        64, torch.empty(0)
    )
    shift = -face.camera.focal * 0.15 / face.camera.distance
    covered = flow_from_still(face, identity, expression, pose, 64).masks[0, 0] > 0
    far = distance_to(covered[None])[0] * 2 / 64
    top = (torch.arange(64) < 30)[:, None].expand(64, 64)
    near = (far > 0) & (far < 0.45) & top
    assert near.sum() > 50
    torch.testing.assert_close(
        displacement[0][near], torch.tensor([shift, 0.0]).expand(int(near.sum()), 2), atol=0.02, rtol=0
    )
    # and further away it fades
    corner = far == far.max()
    assert far.max() > 0.6 and displacement[0][corner].abs().max() < 0.9 * abs(shift)
    # nothing is folded: along every row, places keep their order
    u = displacement[0, ..., 0] + pixel_centers(64, torch.empty(0))[..., 0]
    assert (u.diff(dim=1)[~covered[:, 1:] & ~covered[:, :-1]] > 0).all()


def test_shoulders_stay_under_a_turning_head(face: FaceModel, identity: Tensor) -> None:
    weight = head_weight(face)
    lowest = face.mean[:, 1].argmin()
    highest = face.mean[:, 1].argmax()
    assert weight[lowest] == 0 and weight[highest] == 1 and ((weight > 0.2) & (weight < 0.8)).any()
    vertices = face(identity[None], torch.zeros(1, face.expression_dim))
    pose, body = (
        torch.tensor([[0.1, 0.4, 0.0, 0.1, 0.0, 0.0]]),
        torch.tensor([[0.0, 0.1, 0.0, 0.0, 0.0, 0.0]]),
    )
    posed = pose_on_body(face, vertices, pose, body)
    torch.testing.assert_close(posed[0, lowest], apply_pose(vertices, body)[0, lowest])
    torch.testing.assert_close(posed[0, highest], apply_pose(vertices, pose)[0, highest])
    torch.testing.assert_close(pose_on_body(face, vertices, pose, pose), apply_pose(vertices, pose))


def test_what_is_moved_as_it_is_is_not_stretched() -> None:
    grid = pixel_centers(24, torch.zeros(1))[None]
    for moved in (grid, grid + 0.3, grid.flip(2), 0.9 * grid):
        assert unstretched(moved, 0.2, 0.5).min() == 1


def test_places_that_the_portrait_shows_on_less_room_are_stretched() -> None:
    grid = pixel_centers(24, torch.zeros(1))[None].repeat(3, 1, 1, 1)
    grid[..., 0] *= torch.tensor([0.15, 0.35, 0.6])[:, None, None]
    found = unstretched(grid, 0.2, 0.5)[:, 0, 12, 12]
    torch.testing.assert_close(found, torch.tensor([0.0, 0.5, 1.0]))


def test_distances_are_exact() -> None:
    """Against every pair of cells."""
    mask = torch.rand(2, 9, 13, generator=torch.Generator().manual_seed(0)) < 0.05
    assert mask.flatten(1).any(dim=1).all()
    cells = torch.stack(torch.meshgrid(torch.arange(9.0), torch.arange(13.0), indexing="ij"), dim=-1)
    for frame in range(2):
        wanted = torch.cdist(cells.reshape(-1, 2), cells[mask[frame]]).amin(dim=1).view(9, 13)
        torch.testing.assert_close(distance_to(mask)[frame], wanted)
    assert distance_to(torch.zeros(1, 4, 4, dtype=torch.bool)).isinf().all()


def test_a_head_out_of_the_picture_leaves_it_as_it_is(face: FaceModel, identity: Tensor) -> None:
    expression, pose = still(face)
    pose[0, 3] = 30.0
    far = reference_flow(face, identity, expression[0], pose[0], expression, pose, 16)
    assert torch.isfinite(far.grid).all() and far.masks.max() == 0
    torch.testing.assert_close(far.grid[0], pixel_centers(16, far.grid))


@pytest.mark.parametrize("alignment", ["warp", "warp_image"])
def test_alignment_gives_the_unet_its_input(face: FaceModel, identity: Tensor, alignment: str) -> None:
    """With nothing moved, the moved reference is the reference, in both forms."""
    autoencoder = configs.build("autoencoder", "tiny")
    changes = {} if alignment == "warp_image" else {"reference_alignment": "warp", "reference_encoder": None}
    unet = configs.build("unet", "tiny", **changes)
    assert unet.config.reference_alignment == alignment
    if alignment == "warp_image":
        unet.set_reference_encoder(autoencoder.encoder)
    crop = F.interpolate(torch.rand(1, 3, 16, 16), size=128, mode="bilinear")
    crop = F.interpolate(crop, size=256)  # the encoder is given what is moved by patches of 2 x 2 pixels
    with torch.no_grad():
        latent = autoencoder.encode(crop)
    expression, pose = still(face, 5)
    rest, upright = still(face)
    aligned = align_reference(unet, face, latent, crop, identity, rest[0], upright[0], expression, pose)
    assert aligned.shape == (5, 16 + unet.config.alignment_channels, 32, 32)
    assert unet.config.alignment_channels == len(MASK_NAMES)
    torch.testing.assert_close(aligned[:, :16], latent.expand(5, -1, -1, -1), atol=1e-3, rtol=1e-3)
    assert aligned[:, 16:].min() >= 0 and aligned[:, 16:].max() <= 1


def test_the_plain_form_is_given_nothing(face: FaceModel, identity: Tensor) -> None:
    unet = configs.build(
        "unet", "tiny", reference_alignment="none", reference_encoder=None, alignment_channels=0
    )
    expression, pose = still(face)
    latent, crop = torch.randn(16, 32, 32), torch.rand(3, 256, 256)
    assert (
        align_reference(unet, face, latent, crop, identity, expression[0], pose[0], expression, pose) is None
    )


def test_wrong_coefficients_are_named(face: FaceModel, identity: Tensor) -> None:
    expression, pose = still(face, 3)
    with pytest.raises(FD2TalkError, match=f"expression has shape .3, 64.*{face.name}"):
        flow_from_still(face, identity, torch.zeros(3, 64), pose, 16)
    with pytest.raises(FD2TalkError, match="identity has shape .2, 80"):
        flow_from_still(face, identity.expand(2, -1), expression, pose, 16)


def turned(face: FaceModel, identity: Tensor, yaw: float, size: int):
    expression, pose = still(face)
    pose[0, 1] = yaw
    return flow_from_still(face, identity, expression, pose, size, supersample=1)


def test_a_cheek_that_was_turned_away_counts_as_hidden(face: FaceModel, identity: Tensor) -> None:
    """By finite differences of the grid, where it is smooth: what the portrait has half as wide is seen, what
    it has a fifth as wide is not.
    """
    flow = turned(face, identity, 0.5, 128)
    covered = flow.masks[:, :1] == 1
    inside = F.max_pool2d((~covered).float(), 5, stride=1, padding=2) == 0
    stretched = inside & (unstretched(flow.grid, 0.2, 0.3) == 0)
    whole = inside & (unstretched(flow.grid, 0.7, 0.8) == 1)
    visible = flow.masks[:, 1:2]
    pose = torch.zeros(1, 6)
    pose[0, 1] = 0.5
    vertices = apply_pose(face(identity[None], torch.zeros(1, face.expression_dim)), pose)
    raster = rasterize(project(vertices, face.camera), face.triangles, 128, cull_back_faces=True)
    below = raster.look_up(below_the_eyes(face), 0.0)[:, None]
    cheek = stretched & (below > 0.95)
    assert cheek.sum() > 10 and whole.sum() > 500
    assert visible[cheek].mean() < 0.15 and visible[whole].mean() > 0.9


@pytest.mark.parametrize("yaw", [0.5, -0.5])
def test_the_edge_of_a_turned_head_moves_as_what_is_beside_it(
    face: FaceModel, identity: Tensor, yaw: float
) -> None:
    """An ear behind the cheek is a cell or two wide there: it does not flicker from row to row."""
    flow = turned(face, identity, yaw, 128).within_hair(hair_everywhere())
    covered = flow.masks[:, :1] == 1
    displacement = flow.displacement
    own = F.avg_pool2d(torch.cat([displacement * covered, covered.float()], dim=1), 5, stride=1, padding=2)
    near = own[:, :2] / own[:, 2:]
    edge = covered & (F.max_pool2d((~covered).float(), 3, stride=1, padding=1) == 1)
    edge[:, :, 70:] = False  # the jaw before the neck is an edge
    apart = (displacement - near).abs().amax(dim=1, keepdim=True)[edge]
    assert edge.sum() > 100
    assert apart.quantile(0.8) < 0.025


@pytest.mark.parametrize("yaw", [0.35, -0.35])
def test_beside_a_turned_cheek_is_what_was_beside_it(face: FaceModel, identity: Tensor, yaw: float) -> None:
    """On the far side less of the strip that the turn hides, and on the near side no cheek once more."""
    size = 128
    flow = turned(face, identity, yaw, size)
    portrait = turned(face, identity, 0.0, size).masks[:, :1]
    covered = flow.masks[:, :1] == 1
    beside = (F.max_pool2d(covered.float(), 3, stride=1, padding=1) == 1) & ~covered
    rows, columns = torch.arange(size)[:, None], torch.arange(size)
    beside &= (rows > 0.5 * size) & (rows < 0.66 * size)  # under the eyes and over the neck
    skin = F.grid_sample(portrait, flow.grid, align_corners=False)
    far, near = (skin[beside & ((columns > size // 2) == side)] for side in (yaw > 0, yaw < 0))
    assert min(len(far), len(near)) > 20
    assert far.mean() < 0.7 and near.mean() < 0.15


@pytest.mark.parametrize("yaw", [0.35, -0.35])
def test_beside_a_shoulder_nothing_goes_with_the_head_above_it(
    face: FaceModel, identity: Tensor, yaw: float
) -> None:
    """Hair that hangs down there would be waved."""
    size = 128
    flow = turned(face, identity, yaw, size)
    rows = torch.arange(size)[:, None]
    shoulder = ((flow.masks[:, :1] == 1) & (rows > 0.8 * size)).float()
    own = F.avg_pool2d(torch.cat([flow.displacement * shoulder, shoulder], dim=1), 9, stride=1, padding=4)
    beside = (own[:, 2:] > 0) & (flow.masks[:, :1] == 0)
    apart = length_of(flow.displacement - own[:, :2] / own[:, 2:].clamp_min(1e-6))[beside]
    assert len(apart) > 30
    assert apart.mean() < 0.012  # 0.023 as the head would have it


def test_a_plane_behind_the_ears_goes_along_with_the_head(face: FaceModel) -> None:
    """Points of it, by the camera alone."""
    poses = torch.tensor([[0.1, 0.3, 0.05, 0.05, 0.0, 0.1], [-0.1, 0.1, 0.0, 0.0, 0.05, -0.2]])
    portrait = torch.tensor([[0.05, -0.1, 0.1, 0.0, 0.1, 0.0]])
    displacement, share = _plane_displacement(face, portrait, poses, 64)
    assert torch.equal(share, torch.ones(2, 1, 1, 1))
    ears = face.triangles[face.triangle_parts == face.part_names.index("ears")].unique()
    depth = float(face.mean[ears, 2].mean()) - HAIR_BEHIND
    points = torch.tensor([[x, y, depth] for x in (-1.2, 0.0, 1.2) for y in (-0.8, 0.6, 0.9)])[None]
    there, here = (
        project(apply_pose(points.expand(len(p), -1, -1), p), face.camera)[..., :2] for p in (poses, portrait)
    )
    found = there + F.grid_sample(displacement, there[:, None], align_corners=False)[:, :, 0].mT
    assert (there - here).norm(dim=-1).mean() > 0.05
    torch.testing.assert_close(found, here.expand_as(found), atol=2e-4, rtol=0)


@pytest.mark.parametrize("yaw", [1.2, math.pi / 2, 2.5, math.pi])
def test_a_head_far_from_the_camera_s_axis_goes_by_no_plane(
    face: FaceModel, identity: Tensor, yaw: float
) -> None:
    """Seen along itself it would be anywhere."""
    flow = turned(face, identity, yaw, 64)
    assert flow.displacement.isfinite().all() and flow.displacement.abs().max() < 1.5
    _, share = _plane_displacement(face, torch.zeros(1, 6), torch.tensor([[0, yaw, 0, 0, 0, 0]]), 64)
    assert share.max() < 0.2


def hair_everywhere() -> Tensor:
    return room_in_hair(torch.ones(1, 1, 128, 128))


def brought_out(face: FaceModel, identity: Tensor, yaw: float) -> tuple[Tensor, Raster]:
    """``[1, 128, 128]`` bool, the scalp in a turned head that the portrait hides; and the portrait."""
    pose = torch.zeros(1, 6)
    pose[0, 1] = yaw
    still_vertices = face(identity[None], torch.zeros(1, face.expression_dim))
    vertices = apply_pose(still_vertices, pose)
    raster = rasterize(project(vertices, face.camera), face.triangles, 128, cull_back_faces=True)
    scalp = raster.look_up(under_hair(face), False)
    places = project(raster.interpolate(still_vertices, face.triangles), face.camera)
    portrait = rasterize(project(still_vertices, face.camera), face.triangles, 128, cull_back_faces=True)
    cell = ((places[..., :2] + 1) * 64).long().clamp(0, 127)
    behind = places[..., 2] > portrait.depth[0][cell[..., 1], cell[..., 0]] + 0.2
    return scalp & raster.covered & behind, portrait


def test_hair_over_a_turned_skull_is_what_the_portrait_shows_beside_its_own(
    face: FaceModel, identity: Tensor
) -> None:
    """Nothing of it is painted, and where hair is thick it moves as the scalp beside it does."""
    flow = turned(face, identity, 0.4, 128)
    scalp, _ = brought_out(face, identity, 0.4)
    assert scalp.sum() > 50
    assert (flow.masks[:, 1][scalp] == 1).all()
    displacement = flow.within_hair(hair_everywhere()).displacement
    apart = (displacement - F.avg_pool2d(displacement, 5, stride=1, padding=2)).abs().amax(dim=1)
    assert apart[scalp].quantile(0.9) < 0.01


@pytest.mark.parametrize("yaw", [0.3, -0.3, -0.4])
def test_hair_is_no_saw_where_the_portrait_looks_along_the_skull(
    face: FaceModel, identity: Tensor, yaw: float
) -> None:
    """Between the scalp that the portrait shows and the one it hides no cell strays from its neighbours."""
    flow = turned(face, identity, yaw, 128).within_hair(hair_everywhere())
    scalp, _ = brought_out(face, identity, yaw)
    inside = F.max_pool2d((flow.masks[:, :1] < 1).float(), 7, stride=1, padding=3) == 0
    border = (F.max_pool2d(scalp[:, None].float(), 7, stride=1, padding=3) > 0) & inside
    displacement = flow.displacement
    near = F.avg_pool2d(displacement, 3, stride=1, padding=1)
    apart = (displacement - near).abs().amax(dim=1, keepdim=True)[border]
    assert border.sum() > 50
    assert apart.max() < 0.01


@pytest.mark.parametrize(("margin", "least"), [(0, 0.99), (3, 0.9)])
def test_thin_hair_over_a_turned_skull_is_not_the_wall(
    face: FaceModel, identity: Tensor, margin: int, least: float
) -> None:
    """A person who is no wider than the mesh, or by so many cells narrower than the fit has it."""
    flow = turned(face, identity, 0.4, 128)
    scalp, portrait = brought_out(face, identity, 0.4)
    person = portrait.covered[:, None].float()
    person = 1 - F.max_pool2d(1 - person, 2 * margin + 1, stride=1, padding=margin)
    grid = flow.within_hair(room_in_hair(person)).grid
    shown = F.grid_sample(person, grid, align_corners=False)[:, 0]
    assert shown[scalp].mean() > least
    beside = F.grid_sample(person, (grid + flow.onward.movedim(1, -1)), align_corners=False)[:, 0]
    assert beside[scalp].mean() < 0.7  # going on as the scalp beside it does would leave the hair


def test_a_jaw_s_edge_stays_sharp_when_the_displacement_is_enlarged(
    face: FaceModel, identity: Tensor
) -> None:
    """Each place goes with the jaw or with the neck, none with a mean of the two, along one line."""
    expression, pose = still(face)
    pose[0, 0], pose[0, 1] = -0.25, 0.3
    flow = flow_from_still(face, identity, expression, pose, 96, supersample=1)
    assert (flow.edges > 0).sum() > 15 and (flow.edges < 0).sum() > 15
    size = 4 * 96
    sharp, plain = flow.enlarged(size).pixels, resize(flow.displacement, size)
    steps = [part.diff(dim=-2).abs().amax(dim=1) for part in (sharp, plain)]
    jump = float(steps[0].max())
    assert jump > 0.02  # in one pixel; bilinear enlargement spreads it over four
    assert float(steps[1].max()) < 0.5 * jump
    away = F.max_pool2d(resize((flow.edges != 0).float(), size), 17, stride=1, padding=8) == 0
    assert torch.equal(sharp[away.expand_as(sharp)], plain[away.expand_as(plain)])
    both = replace(flow, grid=flow.grid.repeat(2, 1, 1, 1), edges=torch.cat([flow.edges, -flow.edges]))
    assert torch.equal(both.enlarged(size).pixels[:1], sharp)  # a batch is only a batch
    assert flow.enlarged(8).pixels.shape == (1, 2, 8, 8)
    lone = torch.zeros_like(flow.edges)
    lone[..., 40, 40], lone[..., 41, 40] = 1, -1
    assert replace(flow, edges=lone).enlarged(8).pixels.isfinite().all()  # smaller than a pixel
    none = replace(flow, edges=None)
    assert torch.equal(none.enlarged(size).pixels, plain)


def test_pixels_beside_an_edge_are_mixed_and_no_others(face: FaceModel, identity: Tensor) -> None:
    expression, pose = still(face)
    pose[0, 0], pose[0, 1] = -0.25, 0.3
    flow = flow_from_still(face, identity, expression, pose, 96, supersample=1)
    size = 3 * 96
    picture = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))

    def smoothed(field: Correspondence, pictures: Tensor) -> Tensor:
        made = pictures.clone()
        field.enlarged(size).smooth(0, made[0])
        return made

    mixed = smoothed(flow, picture)
    changed = (mixed != picture).any(dim=1, keepdim=True)
    near = F.max_pool2d(resize((flow.edges != 0).float(), size), 3, stride=1, padding=1) > 0
    assert not (changed & ~near).any()
    length = 3 * int((flow.edges > 0).sum())  # in pixels, as an edge is a cell wide
    assert 0.5 * length < int(changed.sum()) < 3 * length
    sides = resize((flow.edges > 0).float() - (flow.edges < 0).float(), size).sign()
    stairs = smoothed(flow, sides)
    assert (stairs[near] != sides[near]).any() and stairs.abs().max() <= 1
    assert torch.equal(smoothed(replace(flow, edges=None), picture), picture)
    # the flow is the processor's, the pictures are wherever the networks are
    assert smoothed(flow, picture.to("meta")).device.type == "meta"


def test_cells_beside_the_rim_that_are_far_from_those_further_in_stray() -> None:
    """Two cells of a temple, through which a row meets what is behind it."""
    displacement = torch.full((1, 2, 64, 64), 0.1)
    within = torch.zeros(1, 64, 64, dtype=torch.bool)
    within[:, 10:50, 10:50] = True
    displacement[:, 0, 20:22, 10] += 0.06
    displacement[:, 0, 30, 30] += 0.06  # deep inside a face it may be a lip
    displacement[:, 0, 40, 10] += 0.03  # a steep cheek
    astray = _astray(displacement, within)
    assert astray.nonzero().tolist() == [[0, 20, 10], [0, 21, 10]]


@pytest.mark.parametrize("yaw", [0.3, -0.3])
def test_clothes_stay_under_a_head_that_turns(face: FaceModel, identity: Tensor, yaw: float) -> None:
    """And what is between them and the head is stretched, not folded."""
    size = 128
    flow = turned(face, identity, yaw, size)
    v = pixel_centers(size, flow.grid)[..., 1]
    collar = 0.62
    kept, stays = flow.with_still((collar - v).clamp_min(0)[None, None])
    assert stays is not None
    clothes = (v > collar)[None, None] & (flow.head == 0)
    assert clothes.sum() > 1000
    assert length_of(flow.displacement)[clothes].max() > 0.02
    beside_the_head = F.max_pool2d(flow.head, 7, stride=1, padding=3) > 0
    assert length_of(kept.displacement)[clothes & ~beside_the_head].max() < 1e-6
    assert stays[clothes & ~beside_the_head].min() == 1 and stays[flow.head == 1].max() == 0
    unmoved = flow.head == 1
    torch.testing.assert_close(*(part.displacement.movedim(1, -1)[unmoved[:, 0]] for part in (kept, flow)))
    down = kept.grid[:, 1:, :, 1] - kept.grid[:, :-1, :, 1]
    throat = ~(F.max_pool2d(flow.head, 5, stride=1, padding=2) > 0)[:, 0, 1:]
    assert down[throat].min() > 0


def test_nothing_stays_where_no_clothes_are_seen(face: FaceModel, identity: Tensor) -> None:
    flow = turned(face, identity, 0.3, 64)
    kept, stays = flow.with_still(None)
    assert kept is flow and stays is None

"""The rasteriser against a ray caster in double precision, and the properties of a picture."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fd2talk_core.errors import FD2TalkError
from fd2talk_core.face.rasterizer import CANDIDATES_AT_ONCE, rasterize, shade, vertex_normals


def random_mesh(seed: int, batch: int = 2, vertices: int = 40, triangles: int = 60) -> tuple[Tensor, Tensor]:
    """Triangles that overlap, pierce each other, and reach out of the picture."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(batch, vertices, 3, generator=generator) * 2.4 - 1.2
    places[..., 2] = torch.rand(batch, vertices, generator=generator) * 3 + 1
    corners = [torch.randperm(vertices, generator=generator)[:3] for _ in range(triangles)]
    return places, torch.stack(corners)


def cast_rays(
    vertices: Tensor, triangles: Tensor, height: int, width: int, cull: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Every pixel's ray against every triangle: the point on the ray is corners · c with c ≥ 0.

    Works in space (x = u z, y = v z) and not on the screen, so perspective comes from the geometry itself.
    The last result says where that is no matter of rounding: no edge and no second triangle within a hair.
    """
    u, v, z = vertices.double().unbind(-1)
    corners = torch.stack([u * z, v * z, z], dim=-1)[triangles].mT
    columns = (torch.arange(width).double() * 2 + 1) / width - 1
    rows = (torch.arange(height).double() * 2 + 1) / height - 1
    ray = torch.stack(
        [columns.expand(height, -1), rows[:, None].expand(-1, width), torch.ones(height, width)], -1
    )
    scaled = torch.linalg.solve(corners, ray.reshape(-1, 1, 3, 1).expand(-1, len(triangles), -1, -1))[..., 0]
    hit = (scaled >= 0).all(dim=-1)
    if cull:
        hit &= torch.linalg.det(corners) < 0
    depths = torch.where(hit, 1 / scaled.sum(dim=-1), torch.inf)
    depth, nearest = depths.min(dim=1)
    second = depths.scatter(1, nearest[:, None], torch.inf).amin(dim=1)
    weights = scaled / scaled.sum(dim=-1, keepdim=True)
    clear = (weights.abs() > 1e-5).all(dim=-1).all(dim=-1) & ((second - depth > 1e-5) | depth.isinf())
    chosen = scaled.gather(1, nearest[:, None, None].expand(-1, 1, 3))[:, 0]
    return torch.where(depth.isinf(), -1, nearest), chosen / chosen.sum(dim=-1, keepdim=True), depth, clear


@pytest.mark.parametrize("cull", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_agrees_with_a_ray_caster(seed: int, cull: bool) -> None:
    vertices, triangles = random_mesh(seed)
    raster = rasterize(vertices, triangles, (23, 31), cull_back_faces=cull)
    assert raster.covered.float().mean() > 0.5
    for frame in range(2):
        triangle, barycentric, depth, clear = cast_rays(vertices[frame], triangles, 23, 31, cull)
        assert clear.float().mean() > 0.98
        assert torch.equal(raster.triangle[frame].flatten()[clear], triangle[clear])
        hit = (triangle >= 0) & clear
        torch.testing.assert_close(
            raster.barycentric[frame].reshape(-1, 3)[hit], barycentric[hit].float(), atol=1e-4, rtol=0
        )
        torch.testing.assert_close(
            raster.depth[frame].flatten()[clear], depth[clear].float(), atol=1e-4, rtol=1e-5
        )


def test_neighbouring_triangles_leave_no_hole() -> None:
    """A fan of slivers over the whole picture, whose edges pass through pixel centres."""
    count = 64
    angle = torch.arange(count) * (2 * torch.pi / count)
    ring = torch.stack([angle.cos() * 2, angle.sin() * 2, torch.ones(count)], dim=-1)
    vertices = torch.cat([torch.tensor([[0.0, 0.0, 1.0]]), ring])
    around = torch.arange(count)
    triangles = torch.stack([torch.zeros_like(around), around + 1, (around + 1) % count + 1], dim=-1)
    assert rasterize(vertices[None], triangles, 33).covered.all()


def test_any_number_of_candidates_at_once_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    vertices, triangles = random_mesh(5)
    whole = rasterize(vertices, triangles, 40)
    for limit in (1, 1000):
        monkeypatch.setattr("fd2talk_core.face.rasterizer.CANDIDATES_AT_ONCE", limit)
        parts = rasterize(vertices, triangles, 40)
        assert torch.equal(parts.triangle, whole.triangle) and torch.equal(parts.depth, whole.depth)
    assert limit < CANDIDATES_AT_ONCE


def test_frames_do_not_see_each_other() -> None:
    vertices, triangles = random_mesh(3, batch=4)
    together = rasterize(vertices, triangles, 17)
    for frame in range(4):
        alone = rasterize(vertices[frame : frame + 1], triangles, 17)
        assert torch.equal(alone.triangle[0], together.triangle[frame])


def test_interpolation_is_perspective_correct() -> None:
    """On a slanted plane, the places that pixels see are those of the plane's own equation."""
    corners = torch.tensor([[-3.0, -2.0, 4.0], [3.0, -2.0, 4.0], [0.0, 6.0, 14.0]])
    screen = torch.stack(
        [corners[:, 0] / corners[:, 2], corners[:, 1] / corners[:, 2], corners[:, 2]], dim=-1
    )
    raster = rasterize(screen[None], torch.tensor([[0, 1, 2]]), 32)
    found = raster.interpolate(corners[None], torch.tensor([[0, 1, 2]]))[raster.covered]
    centre = (torch.arange(32) * 2 + 1) / 32 - 1
    ray = torch.stack(torch.meshgrid(centre, centre, indexing="xy"), dim=-1)[None][raster.covered]
    # z = 6.5 + 1.25 y on the plane, y = v z along the ray
    depth = 6.5 / (1 - 1.25 * ray[:, 1])
    assert raster.covered.sum() > 50
    torch.testing.assert_close(found[:, 2], depth, rtol=1e-4, atol=0)
    torch.testing.assert_close(found[:, 0], ray[:, 0] * depth, rtol=1e-3, atol=1e-4)


def test_what_is_behind_the_viewer_is_not_drawn() -> None:
    vertices = torch.tensor([[[-1.0, -1.0, -2.0], [1.0, -1.0, -2.0], [0.0, 1.0, -2.0]]])
    raster = rasterize(vertices, torch.tensor([[0, 1, 2]]), 8)
    assert not raster.covered.any() and raster.depth.isinf().all() and (raster.barycentric == 0).all()


def test_wrong_vertices_are_named() -> None:
    with pytest.raises(FD2TalkError, match=r"\(5, 3\)"):
        rasterize(torch.zeros(5, 3), torch.tensor([[0, 1, 2]]), 8)


def octahedron() -> tuple[Tensor, Tensor]:
    vertices = torch.tensor([[1.0, 0, 0], [-1.0, 0, 0], [0, 1.0, 0], [0, -1.0, 0], [0, 0, 1.0], [0, 0, -1.0]])
    triangles = [[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]]
    return vertices[None], torch.tensor(triangles)


def test_normals_point_outward() -> None:
    vertices, triangles = octahedron()
    torch.testing.assert_close(vertex_normals(vertices, triangles), vertices)


def test_shading_is_lit_from_the_upper_left() -> None:
    vertices, triangles = octahedron()
    depth = 5 - vertices[..., 2]
    projected = torch.stack([vertices[..., 0] * 4 / depth, -vertices[..., 1] * 4 / depth, depth], dim=-1)
    picture = shade(vertices, projected, triangles, 64, background=(0.0, 0.0, 1.0))
    assert picture.shape == (1, 64, 64, 3) and picture.min() >= 0 and picture.max() <= 1
    torch.testing.assert_close(picture[0, 0, 0], torch.tensor([0.0, 0.0, 1.0]))
    assert picture[0, 24, 24].mean() > picture[0, 40, 40].mean() + 0.1
    red = shade(vertices, projected, triangles, 64, colors=torch.tensor([[1.0, 0, 0]]).expand(8, 3))
    assert red[0, 32, 32, 0] > 0.2 and red[0, 32, 32, 1:].max() == 0

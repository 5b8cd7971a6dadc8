"""Means and maxima over windows, beside the pooling that they stand in for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fd2talk_core.imaging import largest_around, mean_around, shrink, soften


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 4), (16, 33)])
@pytest.mark.parametrize("reach", [0, 1, 2, 5])
def test_windows_are_those_of_pooling(size: tuple[int, int], reach: int) -> None:
    planes = torch.randn(3, 2, *size, generator=torch.Generator().manual_seed(0))
    before = planes.clone()
    wide = {"kernel_size": 2 * reach + 1, "stride": 1, "padding": reach}
    for padded in (False, True):
        pooled = F.avg_pool2d(planes, **wide, count_include_pad=padded)
        torch.testing.assert_close(mean_around(planes, reach, padded=padded), pooled)
    assert torch.equal(largest_around(planes, reach), F.max_pool2d(planes, **wide))
    assert torch.equal(planes, before)


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_blocks_are_those_of_pooling(factor: int) -> None:
    planes = torch.rand(2, 5, 24, 12, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(shrink(planes, factor), F.avg_pool2d(planes, factor))


def test_a_whole_mask_stays_whole() -> None:
    """To the bit: places that are covered are told by 1."""
    whole = torch.ones(2, 1, 9, 5)
    assert torch.equal(soften(whole), whole) and torch.equal(
        shrink(whole[..., :8, :4], 4), whole[..., :2, :1]
    )


def test_softening_is_differentiated() -> None:
    planes = torch.rand(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(soften, (planes,))

"""Visibility groups equal dense attention under the mask they stand for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from wamkit.nn.attention import BIDIRECTIONAL, FIRST_FRAME_CAUSAL, attend, visibility_matrix


@pytest.mark.parametrize("visibility", [FIRST_FRAME_CAUSAL, BIDIRECTIONAL])
@pytest.mark.parametrize("future", [0, 9])
def test_groups_equal_the_mask(visibility, future):
    sizes = {"present": 5, "future": future}
    q, k, v = torch.randn(3, 2, 4, 5 + future, 8)
    dense = F.scaled_dot_product_attention(q, k, v, attn_mask=visibility_matrix(visibility, sizes))
    assert torch.allclose(attend(q, k, v, visibility, sizes), dense, atol=1e-6)


def test_the_present_does_not_see_the_future():
    sizes = {"present": 3, "future": 4}
    q, k, v = torch.randn(3, 1, 1, 7, 8)
    before = attend(q, k, v, FIRST_FRAME_CAUSAL, sizes)
    k[:, :, 3:], v[:, :, 3:] = 9.0, 9.0
    after = attend(q, k, v, FIRST_FRAME_CAUSAL, sizes)
    assert torch.equal(before[:, :, :3], after[:, :, :3])
    assert not torch.allclose(before[:, :, 3:], after[:, :, 3:])

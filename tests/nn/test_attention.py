"""Visibility groups equal dense attention under the mask they stand for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from wamkit.nn.attention import FIRST_FRAME_CAUSAL, KV, attend, cut, visibility_matrix

EVERYTHING = (("present", ("present", "future")), ("future", ("present", "future")))


def grouped(q, k, v, visibility, sizes):
    keys, values = cut(k, sizes), cut(v, sizes)
    out = attend(cut(q, sizes), {group: KV(keys[group], values[group]) for group in sizes}, visibility)
    return torch.cat(list(out.values()), dim=2)


@pytest.mark.parametrize("visibility", [FIRST_FRAME_CAUSAL, EVERYTHING])
def test_groups_equal_the_mask(visibility):
    sizes = {"present": 5, "future": 9}
    q, k, v = torch.randn(3, 2, 4, 14, 8)
    dense = F.scaled_dot_product_attention(q, k, v, attn_mask=visibility_matrix(visibility, sizes))
    assert torch.allclose(grouped(q, k, v, visibility, sizes), dense, atol=1e-6)


def test_the_present_does_not_see_the_future():
    sizes = {"present": 3, "future": 4}
    q, k, v = torch.randn(3, 1, 1, 7, 8)
    before = grouped(q, k, v, FIRST_FRAME_CAUSAL, sizes)
    k[:, :, 3:], v[:, :, 3:] = 9.0, 9.0
    after = grouped(q, k, v, FIRST_FRAME_CAUSAL, sizes)
    assert torch.equal(before[:, :, :3], after[:, :, :3])
    assert not torch.allclose(before[:, :, 3:], after[:, :, 3:])


def test_a_group_that_was_computed_before_is_as_good_as_one_computed_now():
    sizes = {"present": 3, "future": 4}
    q, k, v = torch.randn(3, 1, 1, 7, 8)
    keys, values = cut(k, sizes), cut(v, sizes)
    kv = {group: KV(keys[group], values[group]) for group in sizes}
    alone = attend({"future": cut(q, sizes)["future"]}, kv, FIRST_FRAME_CAUSAL)
    assert torch.equal(alone["future"], grouped(q, k, v, FIRST_FRAME_CAUSAL, sizes)[:, :, 3:])


def test_a_group_whose_keys_are_missing_is_an_error():
    q = torch.randn(1, 1, 2, 8)
    with pytest.raises(KeyError, match="present"):
        attend({"future": q}, {"future": KV(q, q)}, FIRST_FRAME_CAUSAL)

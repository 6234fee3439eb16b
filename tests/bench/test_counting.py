"""Work is attributed to the innermost span, and a product's FLOP are two for each multiplication."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from wamkit.bench.counting import OUTSIDE, work, work_by_span
from wamkit.nn.fused_ops import linear_gelu
from wamkit.spans import Span


def test_products_masks_and_bytes() -> None:
    a, b = torch.empty(3, 4, device="meta"), torch.empty(4, 5, device="meta")
    found = work(lambda: (a @ b).add_(1).t())
    assert (found.operations, found.flops) == (2, 2 * 3 * 4 * 5)
    assert found.bytes == 4 * (12 + 20 + 15 + 15 + 15)
    q, k = torch.empty(1, 2, 3, 8, device="meta"), torch.empty(1, 2, 6, 8, device="meta")
    mask = torch.ones(3, 6, dtype=torch.bool, device="meta")
    assert work(lambda: F.scaled_dot_product_attention(q, k, k)).operations == 1
    masked = work(lambda: F.scaled_dot_product_attention(q, k, k, attn_mask=mask))
    assert (masked.operations, masked.flops) == (4, 4 * 2 * 3 * 6 * 8)


def test_a_product_of_our_own_is_counted_too() -> None:
    x, weight, bias = (torch.empty(shape, device="meta") for shape in ((1, 3, 4), (5, 4), (5,)))
    found = work(lambda: linear_gelu(x, weight, bias))
    assert (found.operations, found.flops) == (1, 2 * 3 * 4 * 5)


def test_a_part_is_its_innermost_span() -> None:
    x = torch.empty(2, device="meta")

    def ask() -> None:
        x.add(1)
        with Span("codec"):
            x.add(1)
            with Span("images"):
                x.add(1).add(1)
            x.add(1)

    found = {name: of.operations for name, of in work_by_span(ask).items()}
    assert found == {OUTSIDE: 1, "codec": 2, "images": 2}

"""With remembered shapes, tensors without memory are what they are without, however often they are asked for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from wamkit.bench.shapes import RememberedShapes, result
from wamkit.nn.fused_ops import add_norm_, normalize_

X = torch.empty(2, 3, 4, device="meta")
WEIGHT, BIAS = torch.empty(5, 4, device="meta"), torch.empty(5, device="meta")
ROW = torch.empty(4, device="meta")
FLOOR = torch.empty((), device="meta")

DONE: dict[str, Callable[[], object]] = {
    "a product": lambda: F.linear(X, WEIGHT, BIAS),
    "a norm": lambda: F.layer_norm(X, (4,)),
    "a view of a new tensor": lambda: (X + 1).transpose(0, 1),
    "several": lambda: torch.var_mean(X, dim=-1),
    "a list": lambda: torch.split_with_sizes_copy(X, [1, 2], dim=1),
    "of our own": lambda: add_norm_(X.clone(), X, ROW, ROW, ROW, 1e-6),
    "of another kind": lambda: X.to(torch.bfloat16) @ ROW.to(torch.bfloat16),
    "written in place": lambda: X.clone().mul_(2).copy_(X),
    "made": lambda: torch.full_like(X, 3, dtype=torch.int64),
    "a whole number": lambda: torch.add(torch.empty(3, dtype=torch.int64, device="meta"), 1),
    "a number": lambda: torch.add(torch.empty(3, dtype=torch.int64, device="meta"), 1.0),
    "on the processor": lambda: torch.arange(3) * 2,
}


def same(found: object, expected: object) -> None:
    if isinstance(expected, Tensor):
        assert isinstance(found, Tensor) and found.is_meta == expected.is_meta
        assert (found.shape, found.stride(), found.dtype) == (
            expected.shape,
            expected.stride(),
            expected.dtype,
        )
        assert expected.is_meta or torch.equal(found, expected)
    else:
        for one, other in zip(found, expected, strict=True):  # type: ignore[call-overload]
            same(one, other)


@pytest.mark.parametrize("what", DONE)
@torch.inference_mode()
def test_it_is_the_same_and_computed_once(what: str) -> None:
    expected = DONE[what]()
    with RememberedShapes():
        same(DONE[what](), expected)
        before = result.cache_info().misses
        same(DONE[what](), expected)
    assert result.cache_info().misses == before


@torch.inference_mode()
def test_what_is_written_in_place_is_the_argument() -> None:
    with RememberedShapes():
        for _ in range(2):
            x = X.clone()
            assert x.mul_(2) is x and torch.add(X, X, out=x) is x and normalize_(x, FLOOR) is x


def test_numbers_are_not_read() -> None:
    with RememberedShapes(), pytest.raises(RuntimeError, match="meta tensor"):
        X.sum().item()
    with pytest.raises(RuntimeError, match="broadcast"), RememberedShapes():
        X + torch.empty(7, device="meta")

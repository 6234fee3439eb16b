"""Packed linear layers give what the layers give, and only those are packed that gain."""

from __future__ import annotations

import contextvars
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from wamkit.nn import packed
from wamkit.nn.packed import PackedLinear, pack, packing, product_gelu, product_plus


@pytest.fixture(autouse=True)
def _all_gain(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(packed, "WORTH", 1)
    with packing():
        yield


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(40,), (7, 40), (2, 33, 40), (2, 0, 40)])
def test_the_same_products(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(40, 24).to(dtype), torch.randn(shape).to(dtype)
    with torch.inference_mode():
        plain, other = layer(x), torch.randn(*shape[:-1], 24).to(dtype)
        bare = F.linear(x, layer.weight) + other
        assert isinstance(pack(layer), PackedLinear)
        torch.testing.assert_close(pack(layer)(x), plain)
        torch.testing.assert_close(product_gelu(layer)(x), F.gelu(plain, approximate="tanh"))
        if len(shape) == 2 and dtype == torch.float32:
            torch.testing.assert_close(product_plus(layer.weight)(x, other), bare)


def test_a_copy_that_shares_the_rest() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.LayerNorm(8), nn.Sequential(nn.Linear(8, 4)))
    made, x = pack(model), torch.randn(3, 8)
    with torch.inference_mode():
        torch.testing.assert_close(made(x), model(x))
    assert made[1].weight is model[1].weight and type(model[0]) is nn.Linear
    assert [name for name, _ in made.named_parameters()] == ["1.weight", "1.bias"]
    for parameter in model.parameters():
        parameter.data.zero_()  # what was packed stays as it was
    with torch.inference_mode():
        assert made[0](x).abs().max() > 0


def test_what_does_not_gain_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    class Special(nn.Linear):
        pass

    special, meta, double = Special(4, 4), nn.Linear(4, 4, device="meta"), nn.Linear(4, 4).double()
    assert all(pack(layer) is layer for layer in (special, meta, double))
    monkeypatch.setattr(packed, "WORTH", 17)
    small = nn.Linear(4, 4)
    assert pack(small) is small


def test_only_where_it_is_asked_for() -> None:
    layer = nn.Linear(4, 4)
    assert isinstance(pack(layer), PackedLinear)
    assert contextvars.Context().run(pack, layer) is layer

"""Products whose inputs are made twice: the values, gradients and memory of the plain way."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wamkit.nn.lora import LoRALinear, applied
from wamkit.nn.products import GELU, GIVEN, Input, normed
from wamkit.nn.rms import rms_normed


def plain_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    u = F.layer_norm(x, x.shape[-1:], eps=1e-6).unflatten(1, (scale.shape[1], -1))
    return (u * scale[:, :, None] + shift[:, :, None]).flatten(1, 2)


INPUTS = {
    "given": (GIVEN, lambda x: x, 0),
    "gelu": (GELU, lambda x: F.gelu(x, approximate="tanh"), 0),
    "norm, a row per sample and run": (normed(1e-6), plain_norm, 2),
    "norm, a row for all": (normed(1e-6), plain_norm, 1),
}


def layer(out: int, lora: bool) -> nn.Linear:
    made = LoRALinear(6, out, rank=2, alpha=3.0) if lora else nn.Linear(6, out)
    if isinstance(made, LoRALinear):
        nn.init.normal_(made.lora_up.weight)
        made.weight.requires_grad_(False)
        made.bias.requires_grad_(False)
    return made.double()


def plainly(layer: nn.Linear, x: Tensor) -> Tensor:
    y = F.linear(x, layer.weight, layer.bias)
    return y + layer.scale * layer.lora_up(layer.lora_down(x)) if isinstance(layer, LoRALinear) else y


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("lora", [False, True])
def test_values_and_gradients_are_those_of_the_plain_way(name: str, lora: bool) -> None:
    made, plain, batch = INPUTS[name]
    sources = [torch.randn(2, 4, 6, dtype=torch.float64, requires_grad=True)]
    sources += [torch.randn(batch, 2, 6, dtype=torch.float64, requires_grad=True) for _ in range(2) if batch]
    layers = [layer(5, lora), layer(3, lora)]
    leaves = [*sources, *(p for one in layers for p in one.parameters() if p.requires_grad)]

    def gradients(found: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(sum(y.square().sum() for y in found), leaves)

    expected = tuple(plainly(one, plain(*sources)) for one in layers)
    found = applied(made, sources, layers)
    for a, b in zip((*found, *gradients(found)), (*expected, *gradients(expected)), strict=True):
        torch.testing.assert_close(a, b)
    with torch.no_grad():
        for a, b in zip(applied(made, sources, layers), expected, strict=True):
            torch.testing.assert_close(a, b)


def test_an_rms_norm_has_the_gradient_of_the_plain_one() -> None:
    x = torch.randn(2, 3, 6, dtype=torch.float32, requires_grad=True)
    weight = torch.randn(6)
    (found,) = torch.autograd.grad((rms_normed(x, 1e-6) * weight).square().sum(), x)
    (expected,) = torch.autograd.grad((F.rms_norm(x, (6,), eps=1e-6) * weight).square().sum(), x)
    torch.testing.assert_close(found, expected)


def kept(made: Input, x: Tensor, layers: list[nn.Linear]) -> int:
    """Bytes that autograd keeps beside the weights."""
    own, found = {id(p) for one in layers for p in one.parameters()}, {}

    def keep(tensor: Tensor) -> Tensor:
        base = tensor if tensor._base is None else tensor._base
        if id(base) not in own:
            found[id(base)] = base
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        applied(made, (x,), layers)
    return sum(tensor.nbytes for tensor in found.values())


def test_the_result_of_gelu_is_not_kept() -> None:
    x = torch.randn(2, 4, 6, dtype=torch.float64, requires_grad=True)
    assert kept(GELU, x, [layer(5, lora=False)]) == x.nbytes


def test_frozen_weights_get_no_gradient_and_none_is_computed() -> None:
    x, frozen = torch.randn(2, 4, 6, dtype=torch.float64, requires_grad=True), layer(5, lora=True)
    applied(GIVEN, (x,), [frozen])[0].sum().backward()
    assert frozen.weight.grad is None and frozen.lora_up.weight.grad is not None

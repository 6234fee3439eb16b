"""Low-rank adaptation of Linear layers: y = W x + b + (alpha / rank) Up(Down(x)).

A LoRALinear is a Linear with two more matrices; the keys `weight` and `bias` stay. It replaces named layers of a
model, whose code does not know about it. Light-WAM spec 1.5.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wamkit.nn.products import GIVEN, Factors, Input, compute_dtype, products

M = TypeVar("M", bound=nn.Module)

AT_ONCE = 2**18
"""Numbers of a weight that are summed together."""


class LoRALinear(nn.Linear):
    """A Linear with a trainable low-rank addition; the addition is zero at the start (Up = 0)."""

    def __init__(self, in_features: int, out_features: int, rank: int, alpha: float) -> None:
        super().__init__(in_features, out_features)
        self.scale = alpha / rank
        self.lora_down = nn.Linear(in_features, rank, bias=False)
        self.lora_up = nn.Linear(rank, out_features, bias=False)
        nn.init.kaiming_uniform_(self.lora_down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.lora_up.weight)

    def forward(self, x: Float[Tensor, "... i"]) -> Float[Tensor, "... o"]:
        return products(GIVEN, (x,), (factors(self),))[0]

    def merged(self) -> nn.Linear:
        """A plain frozen Linear of weight W + (alpha / rank) Up Down: summed in float32, then cast to W's dtype.

        The bias is shared.
        """
        with torch.device("meta"):  # draws no random numbers
            plain = nn.Linear(self.in_features, self.out_features)
        parts = [total.to(self.weight.dtype) for _, total in total_rows(self, torch.float32)]
        plain.weight, plain.bias = nn.Parameter(torch.cat(parts), requires_grad=False), self.bias
        return plain


def factors(layer: nn.Linear) -> Factors:
    """What a layer multiplies with and adds, as `products` takes it."""
    if isinstance(layer, LoRALinear):
        return layer.weight, layer.bias, layer.lora_down.weight, layer.scale * layer.lora_up.weight
    return layer.weight, layer.bias


@torch.no_grad()
def total_rows(layer: nn.Linear, dtype: torch.dtype) -> Iterator[tuple[slice, Float[Tensor, "r i"]]]:
    """The weight of a layer with its low-rank addition, if it has one, summed in `dtype`; some rows at a time, which
    a processor's cache holds, and which rows they are."""
    count = max(AT_ONCE // layer.in_features, 1)
    down = layer.lora_down.weight.to(dtype) if isinstance(layer, LoRALinear) else None
    for start in range(0, layer.out_features, count):
        rows = slice(start, start + count)
        total = layer.weight[rows].to(dtype, copy=True)
        if isinstance(layer, LoRALinear) and down is not None:
            total += layer.scale * (layer.lora_up.weight[rows].to(dtype) @ down)
        yield rows, total


def applied(made: Input, sources: Sequence[Tensor], layers: Sequence[nn.Module]) -> tuple[Tensor, ...]:
    """Every layer applied to the input that is made of `sources`; where gradients are wanted, by `products`."""
    if torch.is_grad_enabled():
        return products(made, sources, [factors(cast(nn.Linear, layer)) for layer in layers])
    x, _ = made.make(compute_dtype(sources[0]), *sources)
    return tuple(layer(x) for layer in layers)


def add_lora(model: nn.Module, names: tuple[str, ...], rank: int, alpha: float) -> None:
    """Replace every named Linear of `model` by a LoRALinear that keeps its weights."""
    for name in names:
        parent, _, child = name.rpartition(".")
        base = cast(nn.Linear, model.get_submodule(name))
        with torch.device(base.weight.device):
            lora = LoRALinear(base.in_features, base.out_features, rank, alpha).to(base.weight.dtype)
        lora.weight, lora.bias = base.weight, base.bias
        setattr(model.get_submodule(parent), child, lora)


def merge_lora(model: M) -> M:
    """A copy of `model` in which every LoRALinear is the plain Linear it amounts to; `model` stays as it is.

    All tensors but the merged weights are shared with `model`: to be made once the model lies where it is used.
    """
    return copy_with(
        model, {layer: layer.merged() for layer in model.modules() if isinstance(layer, LoRALinear)}
    )


def copy_with(model: M, replaced: Mapping[nn.Module, nn.Module]) -> M:
    """A copy of `model` that has other modules in place of some and shares all other tensors with it."""
    # What deepcopy finds in its memo it does not copy: tensors stand for themselves.
    memo: dict[int, object] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    memo |= {id(old): new for old, new in replaced.items()}
    return copy.deepcopy(model, memo)

"""Weights of large products in eight bits: half the memory of bfloat16, at the price of its last bits.

Each row of a weight matrix has a scale of its own, so that its largest number is the largest that eight bits hold.
int8: weights alone; a product is of the numbers they stand for, in the precision of its input.
float8: inputs too, each token by its own scale, for GPUs that multiply eight bits (Hopper, Ada and later).

What it costs is measured, not promised: docs/serve.md has the error of actions beside that of bfloat16 alone. Products
that are no Linear layer of the network (attention's stacked projections of nn.MultiheadAttention, convolutions, tables)
stay as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Literal, Protocol, TypeVar, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from wamkit_client.types import BadInput

from wamkit.nn.lora import LoRALinear

P = TypeVar("P")
Kind = Literal["int8", "float8"]

SMALLEST = 32 * 32
"""Numbers of a weight matrix, below which nothing is gained."""
FLOAT8 = torch.float8_e4m3fn
EIGHT_BITS_FROM = (8, 9)
"""The compute capability from which CUDA devices multiply float8."""


class Quantised(nn.Linear):
    """A Linear layer whose weights are kept in eight bits. bits [out in]; scale, of each row [out].

    Whoever reads `weight` gets what the bits stand for.
    """

    bits: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear, kind: torch.dtype, largest: float) -> None:
        nn.Module.__init__(self)  # not nn.Linear's, which makes weights
        self.out_features, self.in_features = linear.weight.shape
        weight = linear.weight.detach().float()
        scale = weight.abs().amax(dim=1).clamp(min=1e-12) / largest
        scaled = weight / scale[:, None]
        self.register_buffer("bits", (scaled if kind.is_floating_point else scaled.round()).to(kind))
        self.register_buffer("scale", scale.to(linear.weight.dtype))
        self.bias = linear.bias

    @property
    def weight(self) -> Float[Tensor, "o i"]:  # type: ignore[override]
        """In the precision of the layer it was made of."""
        return self.bits.to(self.scale.dtype) * self.scale[:, None]

    def forward(self, x: Float[Tensor, "... i"]) -> Float[Tensor, "... o"]:
        return _biased(F.linear(x, self.bits.to(x.dtype)) * self.scale.to(x.dtype), self.bias)


class Quantised8(Quantised):
    """One whose inputs are rounded to eight bits too."""

    def forward(self, x: Float[Tensor, "... i"]) -> Float[Tensor, "... o"]:
        rows = x.flatten(0, -2)
        scale = rows.abs().amax(dim=1, keepdim=True).float().clamp(min=1e-12) / torch.finfo(FLOAT8).max
        product = PRODUCTS[x.device.type](
            (rows / scale).to(FLOAT8), self.bits, scale, self.scale.float()[None], x.dtype
        )
        return _biased(product.unflatten(0, x.shape[:-1]), self.bias)


class Product(Protocol):
    """x [r i] and weight [o i] in float8, their scales [r 1] and [1 o] in float32 -> x weight^T in `dtype`."""

    def __call__(
        self, x: Tensor, weight: Tensor, x_scale: Tensor, weight_scale: Tensor, dtype: torch.dtype
    ) -> Tensor:
        """See above."""


def _multiplied_in_eight_bits(
    x: Tensor, weight: Tensor, x_scale: Tensor, weight_scale: Tensor, dtype: torch.dtype
) -> Tensor:
    product = torch._scaled_mm(x, weight.t(), x_scale, weight_scale, out_dtype=torch.bfloat16)
    return product.to(dtype)  # with a scale per row the kernel has no other output


def _multiplied(
    x: Tensor, weight: Tensor, x_scale: Tensor, weight_scale: Tensor, dtype: torch.dtype
) -> Tensor:
    return (F.linear(x.float(), weight.float()) * x_scale * weight_scale).to(dtype)


PRODUCTS: Mapping[str, Product] = {"cuda": _multiplied_in_eight_bits, "cpu": _multiplied, "meta": _multiplied}


def _biased(x: Tensor, bias: Tensor | None) -> Tensor:
    return x if bias is None else x + bias


def _int8(linear: nn.Linear) -> nn.Module:
    return Quantised(linear, torch.int8, 127.0)


def _float8(linear: nn.Linear) -> nn.Module:
    # the kernel takes multiples of 16
    return linear if any(n % 16 for n in linear.weight.shape) else _float8_of(linear)


def _float8_of(linear: nn.Linear) -> nn.Module:
    return Quantised8(linear, FLOAT8, torch.finfo(FLOAT8).max)


MADE: Mapping[Kind, Any] = {"int8": _int8, "float8": _float8}


def quantised(policy: P, kind: Kind) -> P:
    """A copy of `policy` whose Linear layers keep their weights in eight bits, LoRA merged; `policy` stays as it is.

    All other tensors are shared with it. A layer at a time is quantised, so that no second copy is held.
    """
    module = cast(nn.Module, policy)
    # what deepcopy finds in its memo it does not copy
    memo: dict[int, object] = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    for layer in module.modules():
        if type(layer) in (nn.Linear, LoRALinear) and cast(nn.Linear, layer).weight.numel() >= SMALLEST:
            merged = layer.merged() if isinstance(layer, LoRALinear) else layer
            memo[id(layer)] = MADE[kind](merged)
    return copy.deepcopy(policy, memo)


def expect_eight_bits(device: torch.device) -> None:
    """BadInput where `device` cannot multiply float8."""
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else (0, 0)
    if capability < EIGHT_BITS_FROM:
        raise BadInput(
            f"eval.engine float8: needs a CUDA device of compute capability {EIGHT_BITS_FROM[0]}.{EIGHT_BITS_FROM[1]} "
            f"(Ada, Hopper) or later, got {device.type}; choose small, or fast"
        )

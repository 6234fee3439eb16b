"""Weights of large products in eight bits: half the memory of bfloat16, at the price of its last bits.

Each row of a weight matrix has a scale of its own, so that its largest number is the largest that eight bits hold.
int8, float8_weights: weights alone; a product is of the numbers they stand for, in the precision of its input.
int8_inputs: inputs too, each token by its own scale, for processors that multiply eight bits (VNNI).
float8: inputs too, each token by its own scale, for GPUs that multiply eight bits (Hopper, Ada and later).

What it costs is measured, not promised: docs/serve.md has the error of actions beside that of bfloat16 alone. Products
that are no Linear layer of the network (attention's stacked projections of nn.MultiheadAttention, convolutions, tables)
stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, Protocol, TypeVar, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from wamkit_client.types import BadInput

from wamkit.nn.lora import LoRALinear, copy_with
from wamkit.taking import SHARED, Take

M = TypeVar("M", bound=nn.Module)
Kind = Literal["int8", "int8_inputs", "float8_weights", "float8"]

SMALLEST = 32 * 32
"""Numbers of a weight matrix, below which nothing is gained."""
AT_ONCE = 2**18
"""Numbers that are rounded together: a processor's cache holds them in float32."""
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
        parts = linear.weight.detach().split(max(AT_ONCE // self.in_features, 1))
        bits, scales = zip(*(_rounded(rows.float(), kind, largest) for rows in parts), strict=True)
        self.register_buffer("bits", torch.cat(bits))
        self.register_buffer("scale", torch.cat(scales).to(linear.weight.dtype))
        self.bias = linear.bias

    @property
    def weight(self) -> Float[Tensor, "o i"]:  # type: ignore[override]
        """In the precision of the layer it was made of."""
        return self.bits.to(self.scale.dtype) * self.scale[:, None]

    def forward(self, x: Float[Tensor, "... i"]) -> Float[Tensor, "... o"]:
        return _biased(F.linear(x, self.bits.to(x.dtype)) * self.scale.to(x.dtype), self.bias)


def _rounded(rows: Float[Tensor, "r i"], kind: torch.dtype, largest: float) -> tuple[Tensor, Tensor]:
    scale = rows.abs().amax(dim=1).clamp(min=1e-12) / largest
    scaled = rows / scale[:, None]
    return (scaled if kind.is_floating_point else scaled.round()).to(kind), scale


class Quantised8(Quantised):
    """One whose inputs are rounded to eight bits too."""

    def forward(self, x: Float[Tensor, "... i"]) -> Float[Tensor, "... o"]:
        rows = x.flatten(0, -2)
        scale = rows.abs().amax(dim=1, keepdim=True).float().clamp(min=1e-12) / torch.finfo(FLOAT8).max
        product = PRODUCTS[x.device.type](
            (rows / scale).to(FLOAT8), self.bits, scale, self.scale.float()[None], x.dtype
        )
        return _biased(product.unflatten(0, x.shape[:-1]), self.bias)


class QuantisedInt8(Quantised):
    """One whose inputs are rounded to eight bits too, and products are of integers."""

    def forward(self, x: Float[Tensor, "... i"]) -> Float[Tensor, "... o"]:
        rows = x.flatten(0, -2)
        scale = rows.abs().amax(dim=1, keepdim=True).float().clamp(min=1e-12) / 127
        product = torch._int_mm((rows / scale).round().to(torch.int8), self.bits.t())
        scaled = (product * scale * self.scale.float()).to(x.dtype)
        return _biased(scaled.unflatten(0, x.shape[:-1]), self.bias)


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


def _int8_inputs(linear: nn.Linear) -> nn.Module:
    return QuantisedInt8(linear, torch.int8, 127.0)


def _float8_weights(linear: nn.Linear) -> nn.Module:
    return Quantised(linear, FLOAT8, torch.finfo(FLOAT8).max)


def _float8(linear: nn.Linear) -> nn.Module:
    # the kernel takes multiples of 16
    if any(n % 16 for n in linear.weight.shape):
        return linear
    return Quantised8(linear, FLOAT8, torch.finfo(FLOAT8).max)


MADE: Mapping[Kind, Callable[[nn.Linear], nn.Module]] = {
    "int8": _int8,
    "int8_inputs": _int8_inputs,
    "float8_weights": _float8_weights,
    "float8": _float8,
}


def quantising(take: Take, kind: Kind) -> Take:
    """Layers that are large in eight bits, once a pass has made of them what it makes."""
    return Take(
        part=take.part,
        layer=lambda layer: quantised(layer, kind),
        network=lambda network: quantised(network, kind, take),
    )


def quantised(network: M, kind: Kind, take: Take = SHARED) -> M:
    """A copy of `network` whose Linear layers keep their weights in eight bits, LoRA merged.

    A layer at a time is taken and quantised, so that no second copy is held; all other tensors are taken at the end.
    """
    replaced: dict[nn.Module, nn.Module] = {
        layer: MADE[kind](_merged(take.part(layer))) for layer in _large_layers(network)
    }
    return cast(M, take.part(copy_with(network, replaced)))


def _large_layers(module: nn.Module) -> list[nn.Linear]:
    """A low-rank addition is part of its layer."""
    layers = [layer for layer in module.modules() if type(layer) in (nn.Linear, LoRALinear)]
    additions = {part for layer in layers for part in layer.children()}
    large = (cast(nn.Linear, layer) for layer in layers if layer not in additions)
    return [layer for layer in large if layer.weight.numel() >= SMALLEST]


def _merged(layer: nn.Linear) -> nn.Linear:
    return layer.merged() if isinstance(layer, LoRALinear) else layer


def expect_multiplies(device: torch.device, kind: Kind) -> None:
    """BadInput where `device` cannot multiply so."""
    if kind == "int8_inputs" and device.type == "cuda":
        raise BadInput("eval.engine int8: is made for processors; choose small or float8 on a GPU")
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else (0, 0)
    if kind == "float8" and capability < EIGHT_BITS_FROM:
        raise BadInput(
            f"eval.engine float8: needs a CUDA device of compute capability {EIGHT_BITS_FROM[0]}.{EIGHT_BITS_FROM[1]} "
            f"(Ada, Hopper) or later, got {device.type}; choose small, or fast"
        )

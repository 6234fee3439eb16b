"""Elementwise parts of transformer blocks and of the video codec for acting: each is one kernel on CUDA, and one
operation wherever a device is given operations one by one.

On the processor they are composed of torch's own operations and called as they are: finding a registered operation
costs as much there as the arithmetic of a small policy. Everywhere else they are operations `wamkit::...`, which can be
captured in a graph and counted on the meta device. Their CUDA kernels (nn/fused_kernels.py) are imported
with the first tensor that lies on such a device. Compilers fuse what is composed, of real numbers only (`real`).
Nothing here has a gradient.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from torch import Tensor, nn


def add_norm_(
    x: Float[Tensor, "b s d"],
    y: Float[Tensor, "b s d"],
    gate: Float[Tensor, " d"],
    scale: Float[Tensor, " d"],
    shift: Float[Tensor, " d"],
    eps: float,
) -> Float[Tensor, "b s d"]:
    """x += gate y, in place; returns the layer norm of the sum, times scale, plus shift."""
    do = composed_add_norm_ if x.is_cpu else torch.ops.wamkit.add_norm_
    return do(x, y, gate, scale, shift, eps)


def place_heads_(
    out: Float[Tensor, "b 3 s n e"],
    qkv: Float[Tensor, "b s three_n_e"],
    norm: Float[Tensor, "3 n_e"],
    floor: Float[Tensor, ""],
    rotary: Complex[Tensor, "s 3 1 half"],
) -> None:
    """Write queries, keys and values of self-attention to `out`, by head.

    q and k are divided by hypot(length over all heads, floor); then all three are multiplied by their row of `norm`
    and rotated, channel pair by channel pair, in float32. v's row of norm and its rotations are ones.
    """
    do = composed_place_heads_ if out.is_cpu else torch.ops.wamkit.place_heads_
    do(out, qkv, norm, floor, rotary)


def normalize_(x: Float[Tensor, "*rows d"], floor: Float[Tensor, ""]) -> Float[Tensor, "*rows d"]:
    """x / hypot(|x|, floor) along the last axis, in place; the length is taken in floor's dtype.

    A root-mean-square norm is sqrt(d) times this with floor sqrt(d eps), times its weight.
    """
    if x.is_cpu:
        composed_normalize_(x, floor)
    else:
        torch.ops.wamkit.normalize_(x, floor)
    return x


def linear_gelu(
    x: Float[Tensor, "b s d"], weight: Float[Tensor, "f d"], bias: Float[Tensor, " f"]
) -> Float[Tensor, "b s f"]:
    """GELU (its tanh form) of a linear layer."""
    do = composed_linear_gelu if x.is_cpu else torch.ops.wamkit.linear_gelu
    return do(x, weight, bias)


def gelu_of(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    """GELU (its tanh form) of what a layer gives; a plain linear one does both at once."""
    if type(layer) is nn.Linear:
        return lambda x: linear_gelu(x, layer.weight, layer.bias)
    return lambda x: F.gelu(layer(x), approximate="tanh")


def unit_silu(x: Float[Tensor, "*rows d"], scale: Float[Tensor, " d"]) -> Float[Tensor, "*rows d"]:
    """SiLU of `x / |x|` along the last axis, times scale; of zeros, zeros."""
    do = composed_unit_silu if x.is_cpu else torch.ops.wamkit.unit_silu
    return do(x, scale)


# of torch's own operations


def composed_add_norm_(
    x: Tensor, y: Tensor, gate: Tensor, scale: Tensor, shift: Tensor, eps: float
) -> Tensor:
    """See `add_norm_`."""
    return torch.layer_norm(x.addcmul_(gate, y), scale.shape, scale, shift, eps)


def composed_place_heads_(out: Tensor, qkv: Tensor, norm: Tensor, floor: Tensor, rotary: Tensor) -> None:
    """See `place_heads_`."""
    b, _, s, n, e = out.shape
    rows = qkv.view(b, s, 3, n * e)
    composed_normalize_(rows[:, :, :2], floor)
    # v is multiplied and rotated too, by ones: one operation for all three costs less than two for q and k. The
    # product with `norm` is float32, as rotation has to be; writing to `out` rounds.
    pairs = (rows * norm).view(b, s, 3, n, e // 2, 2)
    rotated = rotate_(pairs, rotary)
    out.copy_(rotated.view(b, s, 3, n, e).transpose(1, 2))


def rotate_(pairs: Float[Tensor, "*rows half 2"], rotary: Complex[Tensor, "*_ half"]) -> Tensor:
    """Pairs times complex numbers; pairs may be overwritten."""
    return _rotate.get()(pairs, rotary)


def rotate_complex(pairs: Float[Tensor, "*rows half 2"], rotary: Complex[Tensor, "*_ half"]) -> Tensor:
    """See `rotate_`: one operation, in place."""
    torch.view_as_complex(pairs).mul_(rotary)
    return pairs


def rotate_real(pairs: Float[Tensor, "*rows half 2"], rotary: Complex[Tensor, "*_ half"]) -> Tensor:
    """See `rotate_`: several operations on real numbers."""
    (x, y), (cos, sin) = pairs.unbind(-1), torch.view_as_real(rotary).unbind(-1)
    return torch.stack([x * cos - y * sin, x * sin + y * cos], dim=-1)


_rotate: ContextVar[Callable[[Tensor, Tensor], Tensor]] = ContextVar("rotate", default=rotate_complex)


@contextmanager
def real() -> Iterator[None]:
    """Within it nothing is complex, for compilers that cannot fuse that."""
    before = _rotate.set(rotate_real)
    try:
        yield
    finally:
        _rotate.reset(before)


def composed_normalize_(x: Tensor, floor: Tensor) -> None:
    """See `normalize_`."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=floor.dtype)
    x.div_(length.hypot_(floor))


def composed_linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See `linear_gelu`."""
    return F.gelu(F.linear(x, weight, bias), approximate="tanh")


def composed_unit_silu(x: Tensor, scale: Tensor) -> Tensor:
    """See `unit_silu`."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min_(SMALLEST_LENGTH)
    return F.silu((x / length).mul_(scale), inplace=True)


SMALLEST_LENGTH = 1e-12


# registered; without a kernel of its own a device runs what is composed

LIBRARY = torch.library.Library("wamkit", "DEF")
OPERATIONS: dict[str, tuple[str, Callable[..., Any]]] = {
    "add_norm_": (
        "(Tensor(a!) x, Tensor y, Tensor gate, Tensor scale, Tensor shift, float eps) -> Tensor",
        composed_add_norm_,
    ),
    "place_heads_": (
        "(Tensor(a!) out, Tensor(b!) qkv, Tensor norm, Tensor floor, Tensor rotary) -> ()",
        composed_place_heads_,
    ),
    "normalize_": ("(Tensor(a!) x, Tensor floor) -> ()", composed_normalize_),
    "linear_gelu": ("(Tensor x, Tensor weight, Tensor bias) -> Tensor", composed_linear_gelu),
    "unit_silu": ("(Tensor x, Tensor scale) -> Tensor", composed_unit_silu),
}


def _kernel(name: str) -> Callable[..., Any]:
    def run(*args: Any) -> Any:
        return getattr(importlib.import_module("wamkit.nn.fused_kernels"), name)(*args)

    return run


for _name, (_schema, _composed) in OPERATIONS.items():
    LIBRARY.define(_name + _schema)
    LIBRARY.impl(_name, _composed, "CompositeExplicitAutograd")
    LIBRARY.impl(_name, _kernel(_name), "CUDA")

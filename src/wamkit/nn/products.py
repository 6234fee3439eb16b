"""Linear layers on an input that is made twice, forward and backward, so that it is not kept in between.

Between its products a transformer does cheap work: it norms, modulates, applies GELU. Plain autograd keeps every result
of that. `products` keeps what an input was made of, and makes the input again when gradients ask for it.
A layer with a low-rank addition (nn/lora.py) is one product of widened matrices, y = [x | x D^T] [W | s U]^T + b, and
backward dx = [dy | dy s U] [W ; D], whose second part is added into the first: that moves less memory than putting the
matrices side by side. Nothing is computed for what is frozen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Factors = tuple[Tensor, ...]
"""W [o i] and b [o] of a layer; where it has a low-rank addition also D [r i] and s U [o r]."""


@dataclass(frozen=True)
class Input:
    """How the input x [b s i] of products is made from its sources.

    make: dtype, sources -> x in that dtype, and what is kept. again: what was kept -> x.
    back: which sources need a gradient, what was kept, dx -> the gradients.
    """

    make: Callable[..., tuple[Tensor, tuple[Tensor, ...]]]
    again: Callable[..., Tensor]
    back: Callable[..., tuple[Tensor | None, ...]]


def products(made: Input, sources: Sequence[Tensor], layers: Sequence[Factors]) -> tuple[Tensor, ...]:
    """Every layer applied to the input that is made of `sources`; under autocast in the precision it asks for."""
    dtype = compute_dtype(sources[0])
    lengths = tuple(map(len, layers))
    factors = (factor.to(dtype) for layer in layers for factor in layer)
    found: tuple[Tensor, ...] = _Products.apply(made, dtype, len(sources), lengths, *sources, *factors)
    return found


def compute_dtype(x: Tensor) -> torch.dtype:
    """What products with x are computed in: x's own precision, under autocast the one that it asks for."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if kind != "meta" and torch.is_autocast_enabled(kind) else x.dtype


class _Products(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, made: Input, dtype: torch.dtype, count: int, lengths: tuple[int, ...], *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        x, kept = made.make(dtype, *tensors[:count])
        shape, x = x.shape[:-1], _rows(x)
        found, lows = [], []
        for weight, bias, *addition in _apart(tensors[count:], lengths):
            y = torch.addmm(bias, x, weight.T)
            for down, up in _pairs(addition):
                lows.append(x @ down.T)
                y.addmm_(lows[-1], up.T)
            found.append(y.unflatten(0, shape))
        ctx.made, ctx.count, ctx.lengths, ctx.kept = made, count, lengths, len(kept)
        ctx.save_for_backward(*kept, *tensors[count:], *lows)
        return tuple(found)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        saved = ctx.saved_tensors  # to be read once: every reading makes anew what was not kept
        kept, rest = saved[: ctx.kept], saved[ctx.kept :]
        layers, lows = _apart(rest, ctx.lengths), iter(rest[sum(ctx.lengths) :])
        asked = ctx.needs_input_grad[4:]
        of_sources, of_layers = asked[: ctx.count], _apart(asked[ctx.count :], ctx.lengths)
        x = ctx.made.again(*kept)
        shape, x = x.shape, _rows(x)
        terms: list[tuple[Tensor, Tensor]] = []  # whose products add up to dx
        found: list[Tensor | None] = []
        for gradient, (weight, _, *addition), needed in zip(gradients, layers, of_layers, strict=True):
            dy = _rows(gradient)
            terms.append((dy, weight))
            found += [dy.T @ x if needed[0] else None, dy.sum(0) if needed[1] else None]
            for down, up in _pairs(addition):
                dlow = dy @ up
                terms.append((dlow, down))
                found += [dlow.T @ x, dy.T @ next(lows)]
        back: tuple[Tensor | None, ...] = (None,) * ctx.count
        if any(of_sources):
            (dy, weight), *more = terms
            dx = dy @ weight
            for dy, weight in more:
                dx.addmm_(dy, weight)
            back = ctx.made.back(of_sources, *kept, dx.view(shape))
        return (None, None, None, None, *back, *found)


def _rows(x: Tensor) -> Tensor:
    """All tokens of a batch below each other, [b s d] -> [bs d]."""
    return x.flatten(0, -2)


def _apart(flat: Sequence[Any], lengths: Sequence[int]) -> Iterator[tuple[Any, ...]]:
    begin = 0
    for length in lengths:
        yield tuple(flat[begin : begin + length])
        begin += length


def _pairs(addition: Sequence[Tensor]) -> Sequence[Sequence[Tensor]]:
    """The low-rank additions of a layer: one (D, s U) or none."""
    return (addition,) if addition else ()


# inputs: x itself


def _make_given(dtype: torch.dtype, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    x = x.to(dtype)
    return x, (x,)


GIVEN = Input(_make_given, again=lambda x: x, back=lambda needed, x, dx: (dx,))


# GELU (tanh) of x


def _make_gelu(dtype: torch.dtype, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    x = x.to(dtype)
    return _gelu(x), (x,)


def _gelu(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def _back_gelu(needed: Sequence[bool], x: Tensor, dx: Tensor) -> tuple[Tensor | None, ...]:
    return (torch.ops.aten.gelu_backward(dx, x, approximate="tanh"),)


GELU = Input(_make_gelu, again=_gelu, back=_back_gelu)


# the layer norm of x


def normed(eps: float) -> Input:
    """The layer norm of x [b s d] times `scale` plus `shift`, [. r d] each: a row for each of r runs of tokens."""
    return Input(partial(_make_normed, eps), _modulated, _back_normed)


def _make_normed(
    eps: float, dtype: torch.dtype, x: Tensor, scale: Tensor, shift: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    x = x.to(torch.promote_types(x.dtype, scale.dtype))
    norm, _, rstd = torch.native_layer_norm(x, x.shape[-1:], None, None, eps)
    return _modulated(norm, rstd, scale, shift).to(dtype), (norm.to(dtype), rstd, scale, shift)


def _modulated(norm: Tensor, rstd: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    by_run = norm.unflatten(1, (scale.shape[1], -1))  # b r s/r d
    u = torch.addcmul(shift[:, :, None], by_run, scale[:, :, None]).flatten(1, 2)
    return u.to(norm.dtype)


def _back_normed(
    needed: Sequence[bool], norm: Tensor, rstd: Tensor, scale: Tensor, shift: Tensor, du: Tensor
) -> tuple[Tensor | None, ...]:
    runs = (scale.shape[1], -1)
    du = du.unflatten(1, runs)  # b r s/r d
    dscale = (du * norm.unflatten(1, runs)).sum(2).sum_to_size(scale.shape) if needed[1] else None
    dshift = du.sum(2).sum_to_size(shift.shape) if needed[2] else None
    if not needed[0]:
        return None, dscale, dshift
    dnorm = (du * scale[:, :, None]).flatten(1, 2).to(rstd.dtype)
    # Norming rows that have mean 0 and deviation 1 already has the same gradient, up to what they were divided by.
    mean, one = torch.zeros_like(rstd), torch.ones_like(rstd)
    dx, _, _ = torch.ops.aten.native_layer_norm_backward(
        dnorm, norm.to(rstd.dtype), dnorm.shape[-1:], mean, one, None, None, [True, False, False]
    )
    return dx.mul_(rstd), dscale, dshift

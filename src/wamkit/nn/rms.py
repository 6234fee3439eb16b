"""The root-mean-square norm of a row, whose backward pass needs nothing but its result.

Plain autograd keeps the row in float32 and what it was multiplied with; here the result, in the precision of the row,
and one number for each row are kept.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def rms_normed(x: Float[Tensor, "... d"], eps: float) -> Float[Tensor, "... d"]:
    """x / sqrt(mean(x^2) + eps) of every row, computed in float32, in x's dtype."""
    normed: Tensor = _Normed.apply(x, eps)
    return normed


class _Normed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        wide = x.float()
        inverse = (wide.square().mean(-1, keepdim=True) + eps).rsqrt()
        normed = (wide * inverse).to(x.dtype)
        ctx.save_for_backward(normed, inverse)
        return normed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        normed, inverse = ctx.saved_tensors
        along = (gradient * normed).mean(-1, keepdim=True, dtype=torch.float32)
        return torch.addcmul(gradient, normed, along, value=-1).mul_(inverse).to(normed.dtype), None

"""The sinusoidal code of a scalar: flow time and the index of an action step both enter networks this way."""

from __future__ import annotations

import torch
from jaxtyping import Float, Real
from torch import Tensor


def sinusoid(x: Real[Tensor, "..."], dim: int) -> Float[Tensor, "... {dim}"]:
    """[cos(x w_0..), sin(x w_0..)], w_i = 10000^(-2i/dim); evaluated in float64, returned as float32."""
    half = dim // 2
    frequency = 10000.0 ** (-torch.arange(half, dtype=torch.float64, device=x.device) / half)
    angle = x.double()[..., None] * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=-1).float()

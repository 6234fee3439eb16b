"""The sinusoidal code of a scalar: flow time and the index of an action step both enter networks this way."""

from __future__ import annotations

import torch
from jaxtyping import Float, Real
from torch import Tensor

from wamkit.nn.tables import Tables


class Sinusoid(Tables):
    """x -> [cos(x w_0..), sin(x w_0..)], w_i = 10000^(-2i/dim); evaluated in float64, returned as float32."""

    frequency: Tensor

    def __init__(self, dim: int) -> None:
        half = dim // 2
        index = torch.arange(half, dtype=torch.float64, device="cpu")
        super().__init__(frequency=10000.0 ** (-index / half))

    def forward(self, x: Real[Tensor, "..."]) -> Float[Tensor, "... dim"]:
        angle = x.double()[..., None] * self.frequency
        return torch.cat([angle.cos(), angle.sin()], dim=-1).float()

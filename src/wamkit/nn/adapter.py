"""A bottleneck residual adapter: A(x) = x + gamma Up(GELU(Down(LN(x)))). Light-WAM spec 1.6."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Adapter(nn.Module):
    """Identity at the start: Up's weight and bias are zero."""

    def __init__(self, width: int, dim: int, gamma: float) -> None:
        super().__init__()
        self.gamma = gamma
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.down = nn.Linear(width, dim)
        self.up = nn.Linear(dim, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Float[Tensor, "b s d"]) -> Float[Tensor, "b s d"]:
        return x + self.gamma * self.up(F.gelu(self.down(self.norm(x)), approximate="tanh"))

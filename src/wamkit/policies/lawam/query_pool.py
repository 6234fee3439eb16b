"""The policy's guess of the latent action, read from the prior's latent queries (LaWAM spec 2.2).

One learned query looks at them once. The guess is normed, the teacher's latent action that it is compared with is not.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

HEADS = 8


class QueryPool(nn.Module):
    """Hidden states of the latent queries -> latent action. hidden_dim: their width. code: dimensions of the action."""

    def __init__(self, hidden_dim: int, code: int) -> None:
        super().__init__()
        self.query = nn.Parameter(0.02 * torch.randn(1, 1, code))
        self.query_norm, self.hidden_norm = nn.LayerNorm(code), nn.LayerNorm(hidden_dim)
        self.attention = nn.MultiheadAttention(
            code, HEADS, kdim=hidden_dim, vdim=hidden_dim, batch_first=True
        )
        self.ffn = nn.Sequential(
            nn.LayerNorm(code), nn.Linear(code, 4 * code), nn.GELU(), nn.Linear(4 * code, code)
        )
        self.norm = nn.LayerNorm(code)

    def forward(self, hidden: Float[Tensor, "b q d"]) -> Float[Tensor, "b e"]:
        query = self.query.expand(len(hidden), -1, -1)
        seen = self.hidden_norm(hidden)
        query = query + self.attention(self.query_norm(query), seen, seen, need_weights=False)[0]
        return self.norm(query + self.ffn(query))[:, 0]

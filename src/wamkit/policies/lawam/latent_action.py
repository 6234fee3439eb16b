"""The latent action: what a small code says of the change between two frames (LaWAM paper 3.1, spec 1.2, 1.3).

An inverse-dynamics encoder reads the features of both frames and writes one vector; a bottleneck makes a normal
distribution of it, whose mean is the latent action. It knows features [b s d] and nothing about where they come from.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from wamkit_client.types import BadInput

from wamkit.bounds import AT_LEAST_1, Bound, check
from wamkit.nn.tables import Tables
from wamkit.policies.lawam.positions import PositionLayout, grid_code


@dataclass(frozen=True)
class LatentSize:
    """Structure of the inverse-dynamics encoder and of LaWM; the published large model by default.

    width, heads, ffn: of the layers of both. inverse_layers, world_layers: how many each has (the paper says 24 for
    LaWM, the released weights have 12). code: dimensions of a latent action. positions: how position codes of axes
    are put together; released weights have them overlapped, which loses information; new models concatenate them.
    """

    width: int = 1024
    heads: int = 16
    ffn: int = 4096
    inverse_layers: int = 24
    world_layers: int = 12
    code: int = 32
    positions: PositionLayout = "overlapped"

    def __post_init__(self) -> None:
        check("policy.latent", self, BOUNDS)
        if self.width % self.heads:
            raise BadInput(f"policy.latent.heads: {self.heads} do not divide the width {self.width}")


BOUNDS = {
    "width": Bound("a multiple of 8, at least 8", lambda width: width >= 8 and width % 8 == 0),
    **dict.fromkeys(("heads", "ffn", "inverse_layers", "world_layers", "code"), AT_LEAST_1),
}
SIZES = {
    "large": LatentSize(),
    "base": LatentSize(768, 12, 2304, inverse_layers=12, world_layers=6, positions="concatenated"),
    "tiny": LatentSize(128, 4, 512, inverse_layers=2, world_layers=3, positions="concatenated"),
}
"""Published (spec 1.2, 1.9) but for "tiny", which trains on a CPU."""


@dataclass(frozen=True)
class Code:
    """A normal distribution of latent actions with a diagonal covariance."""

    mu: Float[Tensor, "b e"]
    logvar: Float[Tensor, "b e"]

    def sample(self, noise: Float[Tensor, "b e"]) -> Float[Tensor, "b e"]:
        """The latent action that standard normal noise stands for."""
        return self.mu + noise * torch.exp(self.logvar / 2)

    def kl(self) -> Float[Tensor, "b e"]:
        """Divergence from the standard normal distribution, per dimension, in nats."""
        return (self.mu.square() + self.logvar.exp() - 1 - self.logvar) / 2


class FirstLook(nn.Module):
    """The learned query attends to the patches once, before it joins them.

    The query goes into the attention as it is; the norm of the sum is the new residual stream.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.context_norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.ffn = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(
        self, query: Float[Tensor, "b 1 w"], patches: Float[Tensor, "b s w"]
    ) -> Float[Tensor, "b 1 w"]:
        context = self.context_norm(patches)
        found, _ = self.attention(query, context, context, need_weights=False)
        x = self.norm(query + found)
        return x + self.ffn(x)


class InverseDynamics(nn.Module):
    """Features of two frames -> one vector. All patches of both frames see each other, the query sees all of them.

    features_dim: of a patch. grid: rows and columns of patches.
    """

    def __init__(self, size: LatentSize, features_dim: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid
        self.input = nn.Linear(features_dim, size.width)
        self.queries = nn.Parameter(torch.randn(1, 1, size.width))
        self.look = FirstLook(size.width, size.heads)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                size.width, size.heads, size.ffn, dropout=0.0, batch_first=True, norm_first=True
            )
            for _ in range(size.inverse_layers)
        )
        self.output = nn.Linear(size.width, size.code)
        positions = grid_code((2, *grid), size.width, size.positions).flatten(0, 2)
        self.tables = Tables(positions=positions, visible=_query_only_looks(len(positions)))

    def forward(self, pair: Float[Tensor, "b 2 s d"]) -> Float[Tensor, "b e"]:
        patches = self.input(pair.flatten(1, 2)) + self.tables.get_buffer("positions")
        query = self.look(self.queries.expand(len(pair), -1, -1), patches)
        x = torch.cat([patches, query], dim=1)
        hidden = ~self.tables.get_buffer("visible")  # torch's encoder layers mask where this is True
        for layer in cast(Iterable[nn.TransformerEncoderLayer], self.layers):
            x = layer(x, src_mask=hidden)
        return self.output(x[:, -1])


def _query_only_looks(patches: int) -> Tensor:
    """Who sees whom among patches and the query behind them, bool [s, s]: the query is seen by itself alone."""
    visible = torch.ones(patches + 1, patches + 1, dtype=torch.bool, device="cpu")
    visible[:-1, -1] = False
    return visible


class Bottleneck(nn.Module):
    """A vector -> the distribution of latent actions."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(code)
        self.mu = nn.Linear(code, code)
        self.logvar = nn.Linear(code, code)

    def forward(self, node: Float[Tensor, "b e"]) -> Code:
        h = self.norm(node)
        return Code(self.mu(h).float(), self.logvar(h).float().clamp(-10, 10))


class Teacher(nn.Module):
    """The frozen half of stage 1 that says which latent action stage 2 should predict: the mean, never a sample."""

    def __init__(self, size: LatentSize, features_dim: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.inverse = InverseDynamics(size, features_dim, grid)
        self.bottleneck = Bottleneck(size.code)
        self.requires_grad_(False)

    def forward(self, pair: Float[Tensor, "b 2 s d"]) -> Float[Tensor, "b e"]:
        return self.distribution(pair).mu

    @torch.no_grad()
    def distribution(self, pair: Float[Tensor, "b 2 s d"]) -> Code:
        """What the mean is of."""
        code: Code = self.bottleneck(self.inverse(pair))
        return code

"""LaWM: features now and a latent action -> features at the horizon (LaWAM paper 3.1, spec 1.5), and the state head
that helps train it (spec 1.6).

The prediction is complete, not a change of the present features. It knows nothing about images or actions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from wamkit.nn.tables import Tables
from wamkit.policies.lawam.latent_action import LatentSize
from wamkit.policies.lawam.positions import grid_code
from wamkit.policies.lawam.robot_linear import RobotLinear


class Block(nn.Module):
    """Self-attention and FFN; the latent action shifts, scales and gates both. A new block is the identity."""

    def __init__(self, width: int, heads: int, ffn: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ffn = nn.Sequential(nn.Linear(width, ffn), nn.GELU(), nn.Linear(ffn, width))
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Float[Tensor, "b s w"], action: Float[Tensor, "b w"]) -> Float[Tensor, "b s w"]:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(action)[:, None].chunk(6, dim=-1)
        y = self.norm(x) * (1 + scale1) + shift1
        x = x + gate1 * self.attention(y, y, y, need_weights=False)[0]
        return x + gate2 * self.ffn(self.norm(x) * (1 + scale2) + shift2)


class LatentWorldModel(nn.Module):
    """See the module docstring. features_dim: of a patch. grid: rows and columns of patches."""

    def __init__(self, size: LatentSize, features_dim: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid
        self.input = nn.Linear(features_dim, size.width)
        self.code = nn.Linear(size.code, size.width)
        self.blocks = nn.ModuleList(Block(size.width, size.heads, size.ffn) for _ in range(size.world_layers))
        self.output = nn.Linear(size.width, features_dim)
        self.norm = nn.LayerNorm(features_dim)
        self.tables = Tables(positions=grid_code(grid, size.width, size.positions).flatten(0, 1))

    def forward(self, u: Float[Tensor, "b s d"], z: Float[Tensor, "b e"]) -> Float[Tensor, "b s d"]:
        dtype = self.input.weight.dtype  # features are float32 whatever the weights act in
        x = self.input(u.to(dtype)) + self.tables.get_buffer("positions").to(dtype)
        action = F.silu(self.code(z.to(dtype)))
        for block in cast(Iterable[Block], self.blocks):
            x = block(x, action)
        return self.norm(self.output(x))


class StateHead(nn.Module):
    """A latent action and the robot's state -> how the state changes until the horizon; dropped after training.

    robots: rows of the tables. state_dim: of the widest robot.
    """

    def __init__(self, size: LatentSize, robots: int, state_dim: int) -> None:
        super().__init__()
        width = size.width
        self.code = nn.Linear(size.code, width)
        self.state = nn.ModuleList([RobotLinear(robots, state_dim, width), RobotLinear(robots, width, width)])
        self.change = nn.ModuleList(
            [RobotLinear(robots, 2 * width, width), RobotLinear(robots, width, state_dim)]
        )

    def forward(
        self, z: Float[Tensor, "b e"], state: Float[Tensor, "b p"], robot: Int[Tensor, " b"]
    ) -> Float[Tensor, "b p"]:
        """state: unit range. The change lies in [-1, 1]."""
        code = self.code(z)
        seen = self.state[1](self.state[0](state, robot).relu(), robot)
        both = torch.cat([code, seen], dim=-1)
        return self.change[1](self.change[0](both, robot).relu(), robot).tanh()

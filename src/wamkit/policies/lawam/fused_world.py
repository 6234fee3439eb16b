"""LaWM in fewer operations: the features of `LatentWorldModel`, sooner. Fourteen operations a block, most in place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from wamkit.nn.attention import join_heads
from wamkit.policies.lawam.world_model import Block, LatentWorldModel


class FusedWorld:
    """`LatentWorldModel.forward`, for weights that do not change any more; all of them are shared with it."""

    @torch.no_grad()
    def __init__(self, world: LatentWorldModel) -> None:
        self.input, self.code, self.output, self.norm = world.input, world.code, world.output, world.norm
        self.positions = world.tables.get_buffer("positions").to(world.input.bias.dtype)
        self.blocks = [FusedBlock(block) for block in cast(Iterable[Block], world.blocks)]

    @torch.inference_mode()
    def __call__(self, u: Float[Tensor, "b s d"], z: Float[Tensor, "b e"]) -> Float[Tensor, "b s d"]:
        """Features at the horizon."""
        dtype = self.positions.dtype  # features are float32 whatever the weights act in
        x = self.input(u.to(dtype)).add_(self.positions)
        action = F.silu(self.code(z.to(dtype)))
        for block in self.blocks:
            block.run(x, action)
        later: Tensor = self.norm(self.output(x))
        return later


class FusedBlock:
    """A block as acting needs it."""

    def __init__(self, block: Block) -> None:
        self.eps, self.attention, self.ffn = block.norm.eps, block.attention, block.ffn
        self.modulation = block.modulation

    def run(self, x: Float[Tensor, "b s w"], action: Float[Tensor, "b w"]) -> None:
        """Changes x."""
        rows = self.modulation(action).unflatten(-1, (6, 1, -1))
        rows[:, 1::3].add_(1)  # scales
        shift1, scale1, gate1, shift2, scale2, gate2 = rows.unbind(dim=1)
        attention = self.attention
        qkv = F.linear(self._normed(x, scale1, shift1), attention.in_proj_weight, attention.in_proj_bias)
        q, k, v = qkv.unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind()
        seen = join_heads(F.scaled_dot_product_attention(q, k, v))
        x.addcmul_(gate1, attention.out_proj(seen))
        x.addcmul_(gate2, self.ffn(self._normed(x, scale2, shift2)))

    def _normed(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return torch.addcmul(shift, F.layer_norm(x, x.shape[2:], eps=self.eps), scale)

"""The trunk of LaWAM's action expert: layers that look at the prior's tokens, at each other, at the world, in turns
(paper 3.3, spec 2.4).

The flow time shifts and scales what enters attention, and nothing else. Keys and values of what the cross-attention
layers look at do not depend on the chunk: they are made once per query. It knows nothing about robots, units or flow
matching.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, cast

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from wamkit.nn.attention import join_heads, split_heads

PERIOD = 4  # prior, self, world, self

Drop = Callable[[Tensor], Tensor]
"""What becomes of a branch [b k d] while training: dropout. Otherwise `keep`."""


def keep(x: Tensor) -> Tensor:
    """No dropout."""
    return x


class Seen(NamedTuple):
    """Keys and values of some tokens, and which of them exist; None: all."""

    k: Float[Tensor, "b n s e"]
    v: Float[Tensor, "b n s e"]
    valid: Bool[Tensor, "b 1 1 s"] | None


class Layer(nn.Module):
    """Attention to some tokens, and an MLP. seen: their width."""

    def __init__(self, width: int, heads: int, ffn: int, seen: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, eps=1e-5, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.q, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.k, self.v = nn.Linear(seen, width), nn.Linear(seen, width)
        self.up, self.down = nn.Linear(width, ffn), nn.Linear(ffn, width)

    def ask(
        self, x: Float[Tensor, "b r k d"], time: Float[Tensor, "b r d"], due: Float[Tensor, "b k d"]
    ) -> Float[Tensor, "b r k d"]:
        """What attention is asked with. The code of physical time is added here, in every layer, as in the released
        code; the paper adds it to the tokens once.
        """
        scale, shift = self.modulate(time[:, :, None])
        return self.norm(x) * (1 + scale) + shift + due[:, None]

    def modulate(self, time: Float[Tensor, "*b d"]) -> tuple[Tensor, Tensor]:
        """Scale and shift [*b d]."""
        scale, shift = self.modulation(time).chunk(2, dim=-1)
        return scale, shift

    def look(self, tokens: Float[Tensor, "b s c"], valid: Bool[Tensor, "b 1 1 s"] | None) -> Seen:
        """Keys and values."""
        return Seen(split_heads(self.k(tokens), self.heads), split_heads(self.v(tokens), self.heads), valid)

    def forward(
        self, x: Float[Tensor, "b r k d"], asked: Float[Tensor, "_ s d"], seen: Seen, drop: Drop
    ) -> Float[Tensor, "b r k d"]:
        """asked: of all tokens of x, those together that look at the same."""
        q = split_heads(self.q(asked), self.heads)
        attended = F.scaled_dot_product_attention(q, seen.k, seen.v, attn_mask=seen.valid)
        x = x + drop(self.out(join_heads(attended)).view(x.shape))
        inner = F.gelu(self.up(self.norm(x)), approximate="tanh")
        return x + drop(self.down(drop(inner)))


class AlternateDiT(nn.Module):
    """See the module docstring. context_dim: width of what the cross-attention layers look at."""

    def __init__(self, width: int, heads: int, ffn: int, layers: int, context_dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            Layer(width, heads, ffn, width if i % 2 else context_dim) for i in range(layers)
        )
        self.last_norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.last_modulation = nn.Linear(width, 2 * width)
        self.last = nn.Linear(width, width)

    def context(
        self,
        prior: Float[Tensor, "b l c"],
        prior_valid: Bool[Tensor, "b l"],
        world: Float[Tensor, "b s c"],
    ) -> tuple[Seen, ...]:
        """Keys and values for every cross-attention layer, which are every second one."""
        sources = (prior, prior_valid[:, None, None]), (world, None)
        cross = cast(Iterable[Layer], self.layers[::2])
        return tuple(layer.look(*sources[i % len(sources)]) for i, layer in enumerate(cross))

    def forward(
        self,
        x: Float[Tensor, "b r k d"],
        time: Float[Tensor, "b r d"],
        due: Float[Tensor, "b k d"],
        valid: Bool[Tensor, "b k"],
        context: tuple[Seen, ...],
        drop: Drop,
    ) -> Float[Tensor, "b r k d"]:
        """Of r chunks of each sample, which do not see each other. time: embedded flow time. due: the code of physical
        time. valid: which action tokens exist."""
        keys = valid.repeat_interleave(x.shape[1], dim=0)[:, None, None]
        cross, alone = (cast(Iterable[Layer], self.layers[first::2]) for first in (0, 1))
        for looking, own, seen in zip(cross, alone, context, strict=True):
            x = looking(x, looking.ask(x, time, due).flatten(1, 2), seen, drop)
            asked = own.ask(x, time, due).flatten(0, 1)
            x = own(x, asked, own.look(asked, keys), drop)
        scale, shift = self.last_modulate(time[:, :, None])
        return self.last(self.last_norm(x) * (1 + scale) + shift)

    def last_modulate(self, time: Float[Tensor, "*b d"]) -> tuple[Tensor, Tensor]:
        """Scale and shift [*b d] at the end; its weights have them in the opposite order, as the released ones."""
        shift, scale = self.last_modulation(time).chunk(2, dim=-1)
        return scale, shift

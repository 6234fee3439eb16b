"""The action expert without computing anything twice: the chunks of `ActionExpert.sample`, sooner (LaWAM spec 8).

Computed once, since it depends on the weights alone: the modulation of every layer at each of the sampler's times. All
samples of a batch share these times, so a modulation row is one vector, and a norm with its modulation is one layer
norm that has that row as its weights. Stacked once: weights that are applied to the same input.
Computed once per query, since it depends on the observation alone: keys and values of the prior's tokens and of the
features, each by one product for all layers; what the code of physical time adds to all queries, keys and values
(W (y + code) = W y + W code), by another, for any mix of control rates; the matrices of each row's robot.
What is left of a step is ten operations a layer, on the tokens of a chunk without its padding. A token that does not
exist is seen by no other, so it needs no zeros on the way, only at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from wamkit.flow import Steering, unsteered
from wamkit.nn.attention import join_heads
from wamkit.nn.packed import pack, product_plus
from wamkit.nn.stack import stack
from wamkit.policies.lawam.action_expert import TIMES, ActionExpert, Condition, Velocity, guided
from wamkit.policies.lawam.alternate_dit import Layer
from wamkit.policies.lawam.robot_linear import Matrices

Row = tuple[Tensor, Tensor]
"""1 + scale and shift of a time, [d] each: the weights of a layer norm."""


class Keys(NamedTuple):
    """Keys and values [b n s e]. bias: 0 where they exist, else -inf [b 1 1 s]; None: all exist."""

    k: Tensor
    v: Tensor
    bias: Tensor | None


@dataclass(frozen=True)
class QueryState:
    """What is kept during a query, for b chunks of k tokens.

    due: by layer, what is added to the projections of its input [b*k out]: biases and physical time. seen: by pair of
    layers, what the first one looks at. own_bias: that of the chunk's keys. robot: matrices of the tokens' encoder (2)
    and decoder (2).
    """

    due: tuple[Tensor, ...]
    seen: tuple[Keys, ...]
    own_bias: Float[Tensor, "b 1 1 k"]
    robot: tuple[Matrices, ...]


class FusedLayer:
    """A layer as acting needs it. weight: what its queries are made with, in self-attention keys and values too."""

    def __init__(self, layer: Layer, weight: Float[Tensor, "out d"], rows: Sequence[Row]) -> None:
        self.eps, self.projected, self.rows = layer.norm.eps, product_plus(weight), rows
        # the layers that are used as they are, one by one: a reference to the layer would keep its q, k and v
        self.out, self.up, self.down = map(pack, (layer.out, layer.up, layer.down))

    def project(
        self, x: Float[Tensor, "bk d"], step: int, due: Float[Tensor, "bk out"]
    ) -> Float[Tensor, "bk out"]:
        """What the layer looks with."""
        scale, shift = self.rows[step]
        return self.projected(F.layer_norm(x, scale.shape, scale, shift, self.eps), due)

    def finish(self, x: Float[Tensor, "bk d"], q: Float[Tensor, "b n k e"], keys: Keys) -> None:
        """Attention, and everything after it, added to x."""
        attended = F.scaled_dot_product_attention(q, keys.k, keys.v, attn_mask=keys.bias)
        x += self.out(join_heads(attended).flatten(0, 1))
        inner = self.up(F.layer_norm(x, x.shape[1:], eps=self.eps))
        x += self.down(F.gelu(inner, approximate="tanh"))


class FusedExpert:
    """`ActionExpert.sample` for weights that do not change any more.

    The expert is left as it is: weights that are stacked are copied, 15 % of them, and all others are shared with
    it. Nothing here refers to the originals of what was copied. To be made again when weights change, or move to
    another device or dtype.
    """

    @torch.no_grad()
    def __init__(self, expert: ActionExpert, steps: int, guidance: float = 1.0) -> None:
        grid, trunk = TIMES.grid(steps), expert.trunk
        self.strides, self.guidance, self.heads = grid.strides.tolist(), guidance, expert.size.heads
        self.physical_time, self.hidden, self.null_subgoal = (
            expert.physical_time,
            expert.hidden,
            expert.null_subgoal,
        )
        self.encoder, self.decoder, self.last = expert.encoder, expert.decoder, trunk.last
        self.dtype = expert.null_subgoal.dtype
        layers = list(cast(Iterable[Layer], trunk.layers))
        cross, own = layers[::2], layers[1::2]
        time = expert.embed_time(grid.times[:-1].to(expert.null_subgoal.device))
        asking = [
            part for one, two in zip(cross, own, strict=True) for part in ([one.q], [two.q, two.k, two.v])
        ]
        self.weight, self.bias = stack([*chain(*asking)])
        self.widths = [len(self.weight[0]) * len(part) for part in asking]
        fused = [
            FusedLayer(layer, weight, rows_of(*layer.modulate(time)))
            for layer, weight in zip(layers, self.weight.split(self.widths), strict=True)
        ]
        self.pairs = list(zip(fused[::2], fused[1::2], strict=True))
        self.last_rows, self.last_eps = rows_of(*trunk.last_modulate(time)), trunk.last_norm.eps
        # of the layers that look at the prior, and of those that look at the world
        self.prior, self.world = (
            stack([linear for layer in cross[first::2] for linear in (layer.k, layer.v)]) for first in (0, 1)
        )

    @torch.inference_mode()
    def sample(
        self, noise: Float[Tensor, "b _ a"], condition: Condition, steer: Steering = unsteered
    ) -> Float[Tensor, "b k a"]:
        """Chunks in unit range, of as many tokens as the condition has; 0 at tokens that do not exist.

        noise: may have more tokens, as the plain sampler's has; the same ones are used.
        """
        velocity = guided(self.velocity_of, self.null_subgoal, condition, self.guidance)
        x = noise[:, : condition.valid.shape[1]]
        for step, stride in enumerate(self.strides):
            x = torch.add(x, steer(x, velocity(x, step), step), alpha=stride)
        return x * condition.valid[..., None]

    def velocity_of(self, condition: Condition) -> Velocity[int]:
        """Velocities at the sampler's steps."""
        state = self.begin(condition)
        return lambda x, step: self.velocity(x, step, state)

    @torch.inference_mode()
    def begin(self, condition: Condition) -> QueryState:
        """Everything of a query that does not depend on the noisy chunk."""
        hidden = self.hidden(condition.hidden.to(self.dtype))
        world = torch.cat([condition.now, condition.subgoal], dim=1).to(self.dtype)
        prior = self._keys(hidden, *self.prior, self._bias(condition.hidden_valid))
        seen = zip(prior, self._keys(world, *self.world, None), strict=True)
        due = self.physical_time(condition.hz, condition.valid.shape[1]).to(self.dtype)
        return QueryState(
            due=F.linear(due.flatten(0, 1), self.weight, self.bias).split(self.widths, dim=-1),
            seen=tuple(chain(*seen)),
            own_bias=self._bias(condition.valid),
            robot=tuple(
                linear.of(condition.robot)
                for mlp in (self.encoder, self.decoder)
                for linear in (mlp.first, mlp.second)
            ),
        )

    def velocity(self, x: Float[Tensor, "b k a"], step: int, state: QueryState) -> Float[Tensor, "b k a"]:
        """Velocities at one of the sampler's steps."""
        into, encode, decode, out = state.robot
        tokens = encode(self.encoder.activation(into(x.to(self.dtype)))).flatten(0, 1)
        due = iter(state.due)
        for (cross, own), keys in zip(self.pairs, state.seen, strict=True):
            (q,) = self._heads(cross.project(tokens, step, next(due)), len(x))
            cross.finish(tokens, q, keys)
            q, k, v = self._heads(own.project(tokens, step, next(due)), len(x))
            own.finish(tokens, q, Keys(k, v, state.own_bias))
        scale, shift = self.last_rows[step]
        tokens = self.last(F.layer_norm(tokens, scale.shape, scale, shift, self.last_eps))
        return out(self.decoder.activation(decode(tokens.unflatten(0, x.shape[:2])))).float()

    def _heads(self, x: Float[Tensor, "bk out"], batch: int) -> tuple[Tensor, ...]:
        """Queries, or queries, keys and values: [b n k e] each."""
        width = self.weight.shape[1]
        parts = x.view(batch, -1, x.shape[1] // width, self.heads, width // self.heads)
        return parts.permute(2, 0, 3, 1, 4).unbind()

    def _keys(
        self, tokens: Float[Tensor, "b s c"], weight: Tensor, bias: Tensor, exist: Tensor | None
    ) -> list[Keys]:
        """Of all layers that look at these tokens, by one product. exist: their bias."""
        width = self.weight.shape[1]
        made = F.linear(tokens, weight, bias).unflatten(-1, (-1, 2, self.heads, width // self.heads))
        by_layer = made.permute(2, 3, 0, 4, 1, 5).contiguous()  # layer kv b n s e
        return [Keys(k, v, exist) for k, v in (each.unbind() for each in by_layer.unbind())]

    def _bias(self, valid: Bool[Tensor, "b s"]) -> Float[Tensor, "b 1 1 s"]:
        zeros = torch.zeros(valid.shape, dtype=self.dtype, device=valid.device)
        return zeros.masked_fill(~valid, float("-inf"))[:, None, None]


def rows_of(scale: Float[Tensor, "r d"], shift: Float[Tensor, "r d"]) -> list[Row]:
    """By time."""
    return list(zip((1 + scale).unbind(), shift.unbind(), strict=True))

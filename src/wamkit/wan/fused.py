"""Wan blocks for acting: nothing is computed twice, the weights do not change any more (Fast-WAM spec 6.4).

Computed once, since it depends on the weights alone: the modulation of every block at each of the network's times. All
samples of a batch share these times, so a modulation row is one vector, and a norm with its modulation is one layer
norm that has that row as its weights. Stacked once: weights that are applied to the same input.
What is left of a pass is 24 operations a block. One product makes queries, keys and values; they are normed, rotated
and written together into one buffer per block, each group behind those that it looks at. So whatever a group sees is
one slice of one buffer: nothing is concatenated or masked.

It knows nothing about latents, actions or samplers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, Protocol, cast

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from torch import Tensor, nn

from wamkit.nn.attention import Visibility, join_heads, split_heads
from wamkit.nn.rope import GridRotary, LineRotary
from wamkit.nn.sinusoid import Sinusoid
from wamkit.nn.stack import stack
from wamkit.wan.block import Block, Rows, embed_times


class Network(Protocol):
    """What networks of Wan blocks share: `WanDiT`, and the action model of Fast-WAM."""

    sinusoid: Sinusoid
    text_embedding: nn.Sequential
    time_embedding: nn.Sequential
    time_projection: nn.Sequential
    blocks: nn.ModuleList


@dataclass(frozen=True)
class Slot:
    """Where a group lies in the buffers, and how its q, k and v are rotated. It sees all up to its own end."""

    start: int
    end: int
    rotary: Complex[Tensor, "s 3 1 half"]


Layout = Mapping[str, Slot]


class Seen(NamedTuple):
    """What cross-attention of a block looks at: normed keys and values [b n s e].

    bias: [b 1 1 s], what is added to scores: the logarithm of how many rows a key stands for, -inf for no row at all;
        None for nothing.
    """

    k: Tensor
    v: Tensor
    bias: Tensor | None


@dataclass(frozen=True)
class QueryState:
    """What is kept during a query. buffers: per block q, k, v [b 3 rows n e] of all groups, each in its slot.

    context: per group and block, the text as that group's network sees it.
    """

    layout: Layout
    buffers: tuple[Tensor, ...]
    context: Mapping[str, tuple[Seen, ...]]


class FusedBlock:
    """A block as acting needs it. modulation: what the network adds to the block's own, by time.

    rows: by time (shift, 1 + scale, gate) of self-attention and of the MLP, [d] each.
    """

    def __init__(self, block: Block, modulation: Float[Tensor, "r 6 d"]) -> None:
        attention, cross = block.self_attn, block.cross_attn
        self.eps, self.heads = block.norm1.eps, attention.heads
        self.weight, self.bias = stack((attention.q, attention.k, attention.v))
        # the layers that are used as they are, one by one: a reference to the block would keep its q, k and v
        self.out, self.cross_q, self.cross_out = attention.o, cross.q, cross.o
        self.cross_norm, self.ffn = block.norm3, block.ffn
        # normalize_ divides by the length, an RMS norm by the length / sqrt(width); v is not normed
        q, k = (norm.weight.to(modulation.dtype) for norm in (attention.norm_q, attention.norm_k))
        self.norm = torch.stack([len(q) ** 0.5 * q, len(k) ** 0.5 * k, torch.ones_like(q)])
        self.floor = modulation.new_tensor((len(q) * attention.norm_q.eps) ** 0.5)
        rows = block.modulation + modulation
        rows[:, [1, 4]] += 1  # scales
        self.rows: tuple[Rows, ...] = tuple(row.unbind() for row in rows.to(self.weight.dtype).unbind())

    def project(self, x: Float[Tensor, "b s d"], time: int, slot: Slot, buffer: Tensor) -> None:
        """Queries, keys and values of self-attention, written to the slot."""
        shift, scale, *_ = self.rows[time]
        u = F.layer_norm(x, shift.shape, scale, shift, self.eps)
        qkv = F.linear(u, self.weight, self.bias).unflatten(-1, (3, -1))
        normalize_(qkv[..., :2, :], self.floor)
        # v is multiplied and rotated too, by ones: one operation for all three costs less than two for q and k. The
        # product with `norm` is float32, as rotation has to be; writing to the buffer rounds.
        pairs = (qkv * self.norm).unflatten(-1, (self.heads, -1, 2))
        torch.view_as_complex(pairs).mul_(slot.rotary)
        buffer[:, :, slot.start : slot.end].copy_(pairs.flatten(-2).transpose(1, 2))

    def finish(
        self, x: Float[Tensor, "b s d"], time: int, slot: Slot, buffer: Tensor, context: Seen
    ) -> Float[Tensor, "b s d"]:
        """Self-attention over all up to the slot's end, and everything after it."""
        _, _, gate1, shift2, scale2, gate2 = self.rows[time]
        q, k, v = buffer[:, :, : slot.end].transpose(2, 3).unbind(1)
        attended = F.scaled_dot_product_attention(q[:, :, slot.start :], k, v)
        x = torch.addcmul(x, gate1, self.out(join_heads(attended)))

        q = split_heads(normalize_(self.cross_q(self.cross_norm(x)), self.floor), self.heads)
        seen = F.scaled_dot_product_attention(q, context.k, context.v, context.bias)
        x.add_(self.cross_out(join_heads(seen)))

        u = F.layer_norm(x, shift2.shape, scale2, shift2, self.eps)
        return torch.addcmul(x, gate2, self.ffn(u))


def run_blocks(
    x: Float[Tensor, "b s d"], layers: Iterable[tuple[FusedBlock, Tensor, Seen]], time: int, slot: Slot
) -> Float[Tensor, "b s d"]:
    """Blocks on the tokens of a group, each with its buffer and what its cross-attention looks at."""
    for block, buffer, context in layers:
        block.project(x, time, slot, buffer)
        x = block.finish(x, time, slot, buffer, context)
    return x


class FusedContext:
    """Text and other tokens beside it as cross-attention of every block sees them: keys and values by one product."""

    def __init__(self, text_embedding: nn.Module, blocks: Sequence[Block]) -> None:
        self.text_embedding = text_embedding
        cross = [block.cross_attn for block in blocks]
        self.blocks, self.heads = len(cross), cross[0].heads
        self.weight, self.bias = stack([layer for each in cross for layer in (each.k, each.v)])
        # Scores are (q w_q) . (k w_k): the keys, made once per query, carry both norms' weights.
        norms = [each.norm_q.weight.double() * each.norm_k.weight.double() for each in cross]
        dtype, width = torch.promote_types(self.weight.dtype, torch.float32), norms[0].numel()
        self.norm = (width * torch.stack(norms)).to(dtype)
        self.floor = self.norm.new_tensor((width * cross[0].norm_k.eps) ** 0.5)

    def __call__(self, context: Float[Tensor, "b l text"]) -> tuple[Seen, ...]:
        """By block; every row is looked at."""
        return seen(self.keys_values(self.text_embedding(context.to(self.weight.dtype))))

    def keys_values(self, embedded: Float[Tensor, "b l d"]) -> Float[Tensor, "blocks 2 b n l e"]:
        """Normed keys, and values."""
        kv = F.linear(embedded, self.weight, self.bias).unflatten(-1, (self.blocks, 2, -1))
        normalize_(kv[..., 0, :], self.floor).mul_(self.norm)
        return kv.unflatten(-1, (self.heads, -1)).permute(2, 3, 0, 4, 1, 5).contiguous()


def seen(kv: Float[Tensor, "blocks 2 b n s e"], bias: Tensor | None = None) -> tuple[Seen, ...]:
    """By block."""
    return tuple(Seen(each[0], each[1], bias) for each in kv.unbind())


class FusedNetwork:
    """The blocks of one network at flow times `times`."""

    def __init__(self, network: Network, times: Float[Tensor, " r"]) -> None:
        self.time, modulation = modulation_at(network, times)
        blocks = list(cast(Iterable[Block], network.blocks))
        self.blocks = [FusedBlock(block, modulation) for block in blocks]
        self.context = FusedContext(network.text_embedding, blocks)

    def run(
        self, x: Float[Tensor, "b s d"], group: str, time: int, state: QueryState
    ) -> Float[Tensor, "b s d"]:
        """All blocks on the tokens of a group at the flow time of that number."""
        return self._run(x, group, time, state, len(self.blocks))

    def prefill(self, x: Float[Tensor, "b s d"], group: str, time: int, state: QueryState) -> None:
        """Write keys and values of a group to its slot. The last block's output is not computed."""
        x = self._run(x, group, time, state, len(self.blocks) - 1)
        self.blocks[-1].project(x, time, state.layout[group], state.buffers[-1])

    def _run(self, x: Tensor, group: str, time: int, state: QueryState, stop: int) -> Tensor:
        layers = zip(self.blocks, state.buffers, state.context[group], strict=True)
        return run_blocks(x, islice(layers, stop), time, state.layout[group])


def modulation_at(
    network: Network, times: Float[Tensor, " r"]
) -> tuple[Float[Tensor, "r d"], Float[Tensor, "r 6 d"]]:
    """Embedded times, and what they add to the modulation of every block, in float32 at least."""
    dtype = torch.promote_types(next(network.text_embedding.parameters()).dtype, torch.float32)
    embedding, projection = (
        deepcopy(mlp).to(dtype) for mlp in (network.time_embedding, network.time_projection)
    )
    time = embed_times(network.sinusoid, embedding, times[None], dtype)[0]
    return time, projection(time).unflatten(-1, (6, -1))


def lay_out(
    sees: Visibility, frames: int, rows: int, columns: int, steps: int, video: GridRotary, action: LineRotary
) -> Layout:
    """The slot of every group, directly behind those it looks at. frames: how many are imagined, 0 for none.

    A clean copy of the imagined future takes the slot of the noisy one, which is not needed any more by then.
    """
    imagined = video([range(1, 1 + frames)], rows, columns)
    tables = {
        "present": video([range(1)], rows, columns),
        "future": imagined,
        "given": imagined,
        "action": action(steps),
    }
    found: dict[str, Slot] = {}
    for group, (*seen, itself) in sees:
        start = 0
        for other in seen:
            assert found[other].start == start, f"{group} sees {seen}, which do not lie side by side"
            start = found[other].end
        assert itself == group, f"{group} sees {itself} last"
        found[group] = slot_at(start, tables[group])
    return found


def slot_at(start: int, table: Float[Tensor, "s half 2"]) -> Slot:
    """Of a group whose tokens are rotated as a rotary table says (nn/rope.py)."""
    rotary = torch.view_as_complex(table)
    rotaries = torch.stack([rotary, rotary, torch.ones_like(rotary)], dim=1)[:, :, None]  # s 3 1 e/2
    return Slot(start, start + len(rotary), rotaries)


def normalize_(x: Float[Tensor, "..."], floor: Float[Tensor, ""]) -> Float[Tensor, "..."]:
    """x / hypot(|x|, floor) along the last axis, in place; the length is taken in floor's dtype.

    A root-mean-square norm is sqrt(width) times this with floor sqrt(width eps), times its weight.
    """
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=floor.dtype)
    return x.div_(torch.hypot(length, floor))

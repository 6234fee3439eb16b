"""Wan blocks for acting: nothing is computed twice, the weights do not change any more (Fast-WAM spec 6.4).

Computed once, since it depends on the weights alone: the modulation of every block at each of the network's times. All
samples of a batch share these times, so a modulation row is one vector, and a norm with its modulation is one layer
norm that has that row as its weights. Stacked once: weights that are applied to the same input.
What is left of a pass is 13 operations a block, or 24 on a processor (nn/fused_ops.py). One product makes queries,
keys and values; they are normed, rotated and written together into one buffer per block, each group behind those that
it looks at. So whatever a group sees is one slice of one buffer: nothing is concatenated or masked.

It knows nothing about latents, actions or samplers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import NamedTuple, Protocol, cast

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from torch import Tensor, nn

from wamkit.nn.attention import Visibility, join_heads, split_heads
from wamkit.nn.fused_ops import add_norm_, normalize_, place_heads_
from wamkit.nn.packed import pack, product_gelu
from wamkit.nn.rope import GridRotary, LineRotary
from wamkit.nn.sinusoid import Sinusoid
from wamkit.nn.stack import stacked
from wamkit.taking import SHARED, Take
from wamkit.wan.block import Attention, Block, Rows, embed_times


class Network(Protocol):
    """What networks of Wan blocks share: `WanDiT`, and the action model of Fast-WAM."""

    sinusoid: Sinusoid
    text_embedding: nn.Sequential
    time_embedding: nn.Sequential
    time_projection: nn.Sequential
    blocks: nn.ModuleList


@dataclass(frozen=True)
class Place:
    """A group in the buffer of one block. qkv: its own; q [b n s e]: its queries; k, v: all that it sees."""

    qkv: Float[Tensor, "b 3 s n e"]
    q: Tensor
    k: Tensor
    v: Tensor
    rotary: Complex[Tensor, "s 3 1 half"]


@dataclass(frozen=True)
class Slot:
    """Where a group lies in the buffers, and how its q, k and v are rotated. It sees all up to its own end."""

    start: int
    end: int
    rotary: Complex[Tensor, "s 3 1 half"]

    def of(self, buffer: Float[Tensor, "b 3 rows n e"]) -> Place:
        """The group in a buffer."""
        q, k, v = buffer[:, :, : self.end].transpose(2, 3).unbind(1)
        return Place(buffer[:, :, self.start : self.end], q[:, :, self.start :], k, v, self.rotary)


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
    """What is kept during a query, per group and block: its place in the block's buffer, and the text as it sees it.

    A buffer has q, k, v [b 3 rows n e] of all groups, each in its slot.
    """

    places: Mapping[str, tuple[Place, ...]]
    context: Mapping[str, tuple[Seen, ...]]


class FusedBlock:
    """A block as acting needs it.

    A layer norm follows every sum and is made with it. So a block begins with its input normed already, and ends with
    the first norm of the next one.
    rows: by time (shift, 1 + scale, gate) of self-attention and of the MLP, and (shift, 1 + scale) of the next block's
    self-attention, [d] each.
    """

    def __init__(self, block: Block, rows: Float[Tensor, "r 8 d"], take: Take) -> None:
        attention, cross, dtype = block.self_attn, block.cross_attn, block.norm3.weight.dtype
        self.eps, self.heads = block.norm1.eps, attention.heads
        self.qkv = pack(take.layer(stacked((attention.q, attention.k, attention.v))))
        # the layers that are used as they are, one by one: a reference to the block would keep its q, k and v
        self.out, self.cross_q, self.cross_out = (
            pack(take.layer(layer)) for layer in (attention.o, cross.q, cross.o)
        )
        self.cross_norm = block.norm3
        self.widen, self.narrow = product_gelu(take.layer(block.ffn[0])), pack(take.layer(block.ffn[2]))
        # normalize_ divides by the length, an RMS norm by the length / sqrt(width); v is not normed
        q, k = (norm.weight.to(rows.dtype) for norm in (attention.norm_q, attention.norm_k))
        self.norm = torch.stack([len(q) ** 0.5 * q, len(k) ** 0.5 * k, torch.ones_like(q)])
        self.floor = rows.new_tensor((len(q) * attention.norm_q.eps) ** 0.5)
        self.rows: tuple[Rows, ...] = tuple(row.unbind() for row in rows.to(dtype).unbind())
        self.ungated = torch.ones_like(self.rows[0][0])

    def enter(self, x: Float[Tensor, "b s d"], rows: Rows) -> Float[Tensor, "b s d"]:
        """Normed, as the block begins with."""
        shift, scale, *_ = rows
        return F.layer_norm(x, shift.shape, scale, shift, self.eps)

    def project(self, u: Float[Tensor, "b s d"], place: Place) -> None:
        """Queries, keys and values of self-attention, written to their place."""
        place_heads_(place.qkv, self.qkv(u), self.norm, self.floor, place.rotary)

    def finish(
        self, x: Float[Tensor, "b s d"], rows: Rows, place: Place, context: Seen
    ) -> Float[Tensor, "b s d"]:
        """Self-attention and everything after it: x becomes the block's output. Returns that, normed for the next."""
        _, _, gate1, shift2, scale2, gate2, shift, scale = rows
        attended = self.out(join_heads(F.scaled_dot_product_attention(place.q, place.k, place.v)))
        cross = self.cross_norm
        u = add_norm_(x, attended, gate1, cross.weight, cross.bias, self.eps)

        q = split_heads(normalize_(self.cross_q(u), self.floor), self.heads)
        seen = F.scaled_dot_product_attention(q, context.k, context.v, context.bias)
        u = add_norm_(x, self.cross_out(join_heads(seen)), self.ungated, scale2, shift2, self.eps)

        return add_norm_(x, self.narrow(self.widen(u)), gate2, scale, shift, self.eps)


class Layer(NamedTuple):
    """A block at one flow time (a row of its `rows`), and what it looks at."""

    block: FusedBlock
    rows: Rows
    place: Place
    context: Seen


def blockwise(x: Float[Tensor, "b s d"], layers: Sequence[Layer]) -> Iterator[None]:
    """Blocks on the tokens of a group, which x becomes: it is written over.

    Stops wherever keys and values of a block lie in their place. What is not asked for is not computed.
    """
    u = layers[0].block.enter(x, layers[0].rows)
    for block, rows, place, context in layers:
        block.project(u, place)
        yield
        u = block.finish(x, rows, place, context)


def run_blocks(x: Float[Tensor, "b s d"], layers: Sequence[Layer]) -> Float[Tensor, "b s d"]:
    """`blockwise` without a stop; returns x, which is written over."""
    for _ in blockwise(x, layers):
        pass
    return x


def fuse(
    blocks: Iterable[Block], rows: Sequence[Float[Tensor, "r 8 d"]], text_embedding: nn.Module, take: Take
) -> tuple[list[FusedBlock], FusedContext]:
    """Blocks that follow each other, and text as they see it. rows: see FusedBlock.

    The next block is asked for when one has been copied.
    """
    fused: list[FusedBlock] = []
    looks: list[Look] = []
    for block, own in zip(blocks, rows, strict=True):
        fused.append(FusedBlock(block, own, take))
        looks.append(Look.of(block.cross_attn))
    return fused, FusedContext(text_embedding, looks, take)


def own_rows(blocks: Iterable[Block], like: nn.Module) -> list[Float[Tensor, "1 6 d"]]:
    """The modulation of each block itself, where the weights of `like` are."""
    weight = next(like.parameters())
    return [block.modulation.to(weight) for block in blocks]


def rows_by_time(
    own: Sequence[Float[Tensor, "1 6 d"]], modulation: Float[Tensor, "r 6 d"]
) -> list[Float[Tensor, "r 8 d"]]:
    """The rows of blocks with these modulations of their own: with what the network adds to them, by time, and those
    of the norm that follows.

    No block follows the last; its output is normed without modulation, and nobody looks at that.
    """
    rows = [each + modulation for each in own]
    for each in rows:
        each[:, [1, 4]] += 1  # scales
    plain = torch.zeros_like(modulation[:, :2])
    plain[:, 1] = 1
    following = [*(each[:, :2] for each in rows[1:]), plain]
    return [torch.cat(pair, dim=1) for pair in zip(rows, following, strict=True)]


class Look(NamedTuple):
    """How a block looks at text. kv: makes its keys and values, a copy. norm: the weights of both norms, [k]."""

    kv: nn.Linear
    norm: Tensor
    eps: float
    heads: int

    @classmethod
    def of(cls, cross: Attention) -> Look:
        """Scores are (q w_q) . (k w_k): the keys, made once per query, carry both norms' weights."""
        norm = cross.norm_q.weight.double() * cross.norm_k.weight.double()
        return cls(stacked((cross.k, cross.v)), norm, cross.norm_k.eps, cross.heads)


class FusedContext:
    """Text and other tokens beside it as cross-attention of every block sees them: keys and values by one product."""

    def __init__(self, text_embedding: nn.Module, looks: Sequence[Look], take: Take = SHARED) -> None:
        self.text_embedding = text_embedding
        self.blocks, self.heads = len(looks), looks[0].heads
        self.dtype = looks[0].kv.weight.dtype
        self.kv = take.layer(stacked([look.kv for look in looks]))
        dtype, width = torch.promote_types(self.dtype, torch.float32), len(looks[0].norm)
        self.norm = (width * torch.stack([look.norm for look in looks])).to(dtype)
        self.floor = self.norm.new_tensor((width * looks[0].eps) ** 0.5)

    def __call__(self, context: Float[Tensor, "b l text"]) -> tuple[Seen, ...]:
        """By block; every row is looked at."""
        return seen(self.keys_values(self.text_embedding(context.to(self.dtype))))

    def keys_values(self, embedded: Float[Tensor, "b l d"]) -> Float[Tensor, "blocks 2 b n l e"]:
        """Normed keys, and values."""
        kv = self.kv(embedded).unflatten(-1, (self.blocks, 2, -1))
        normalize_(kv[..., 0, :], self.floor).mul_(self.norm)
        return kv.unflatten(-1, (self.heads, -1)).permute(2, 3, 0, 4, 1, 5).contiguous()


def seen(kv: Float[Tensor, "blocks 2 b n s e"], bias: Tensor | None = None) -> tuple[Seen, ...]:
    """By block."""
    return tuple(Seen(each[0], each[1], bias) for each in kv.unbind())


class FusedNetwork:
    """The blocks of one network at flow times `times`."""

    def __init__(self, network: Network, times: Float[Tensor, " r"], take: Take = SHARED) -> None:
        text_embedding, blocks = (
            take.part(network.text_embedding),
            list(cast(Iterable[Block], network.blocks)),
        )
        self.time, modulation = modulation_at(network, times, take)
        rows = rows_by_time(own_rows(blocks, text_embedding), modulation)
        self.blocks, self.context = fuse(map(take.part, blocks), rows, text_embedding, take)

    def blockwise(
        self, x: Float[Tensor, "b s d"], group: str, time: int, state: QueryState
    ) -> Iterator[None]:
        """All blocks on the tokens of a group at the flow time of that number (see `blockwise`)."""
        seen = zip(self.blocks, state.places[group], state.context[group], strict=True)
        return blockwise(x, [Layer(block, block.rows[time], place, text) for block, place, text in seen])


def modulation_at(
    network: Network, times: Float[Tensor, " r"], take: Take = SHARED
) -> tuple[Float[Tensor, "r d"], Float[Tensor, "r 6 d"]]:
    """Embedded times, and what they add to the modulation of every block, in float32 at least."""
    embedding, projection = map(take.part, (network.time_embedding, network.time_projection))
    like = next(embedding.parameters())
    dtype = torch.promote_types(like.dtype, torch.float32)
    embedding, projection = (deepcopy(mlp).to(dtype) for mlp in (embedding, projection))
    time = embed_times(take.part(network.sinusoid), embedding, times[None].to(like.device), dtype)[0]
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

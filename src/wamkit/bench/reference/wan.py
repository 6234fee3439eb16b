"""The released Wan blocks, operation for operation, on the weights of ours (wan/block.py): what the twins are made of.

Written from their description (Light-WAM spec 1.3-1.5 and 6.1, Fast-WAM spec 1.2-1.4 and 6): the text is embedded and
projected to keys and values at every call, time is embedded anew, per token, and added to every block's modulation,
norms are single operations, tokens turn in complex float64, and both attentions get masks that hide nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wamkit.nn.attention import KV, join_heads
from wamkit.nn.lora import LoRALinear
from wamkit.tree import tree_map
from wamkit.types import Actor, Query
from wamkit.wan.block import EMBEDDED_TIME_SCALE, Attention, Block, RMSNorm, TransformerSize
from wamkit.wan.dit import WanDiT

Rows = tuple[Tensor, ...]


@dataclass(frozen=True)
class Conditions:
    """What the blocks of one pass share: modulation [., s or 1, 6, d], context [b l d], rotation [s 1 e/2] complex128.

    mask: of self-attention, all True where nothing is hidden. context_mask: of attention to the context; all True.
    """

    modulation: Tensor
    context: Tensor
    rotation: Tensor
    mask: Tensor
    context_mask: Tensor


class Conditioned(Protocol):
    """A network of Wan blocks: the video model, or an action model built like it."""

    text_embedding: nn.Sequential
    time_embedding: nn.Sequential
    time_projection: nn.Sequential

    @property
    def size(self) -> TransformerSize:
        """Of its blocks."""


def embed(network: WanDiT, present: Tensor) -> tuple[Tensor, Tensor]:
    """One frame [b c 1 h w] as tokens [b s d], and their rotation."""
    patches = network.patch_embedding(present.to(network.patch_embedding.weight.dtype))
    return patches.flatten(2).transpose(1, 2).contiguous(), complex_table(
        network.rotary([range(1)], *patches.shape[3:])
    )


def conditions(network: Conditioned, t: Tensor, context: Tensor, rotation: Tensor, keys: int) -> Conditions:
    """t: flow times [s] of the tokens, or [1] of all. keys: how many tokens self-attention looks at."""
    half, dtype = network.size.time_dim // 2, t.dtype
    frequency = 10000.0 ** (-torch.arange(half, dtype=torch.float64, device=t.device) / half)
    angle = torch.outer((t * EMBEDDED_TIME_SCALE).double(), frequency)
    time = network.time_embedding(torch.cat([angle.cos(), angle.sin()], dim=-1).to(dtype))
    context = network.text_embedding(context.to(dtype))
    modulation = network.time_projection(time).unflatten(-1, (6, -1))[None]
    every, every_row = (
        torch.ones(1, 1, 1, length, dtype=torch.bool, device=t.device) for length in (keys, context.shape[1])
    )
    return Conditions(modulation, context, rotation, every, every_row)


def run(block: Block, x: Tensor, given: Conditions, before: Sequence[KV]) -> tuple[Tensor, KV]:
    """A block on tokens that see themselves and what was kept before; its tokens, and their keys and values."""
    rows = modulation(block, given)
    q, own = project(block, x, rows, given)
    k, v = (
        torch.cat([*rest, mine], dim=2) if rest else mine for mine, *rest in zip(own, *before, strict=True)
    )
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=given.mask)
    return finish(block, x, attended, rows, given), own


def modulation(block: Block, given: Conditions) -> Rows:
    """(shift, scale, gate) of self-attention and of the MLP."""
    return (block.modulation + given.modulation).unbind(-2)


def project(block: Block, x: Tensor, rows: Rows, given: Conditions) -> tuple[Tensor, KV]:
    """Queries [b n s e] of self-attention, and keys and values."""
    shift, scale, *_ = rows
    u, attention = block.norm1(x) * (1 + scale) + shift, block.self_attn
    q = rotate(rms(attention.norm_q, linear(attention.q, u)), given.rotation, attention.heads)
    return q, KV(
        rotate(rms(attention.norm_k, linear(attention.k, u)), given.rotation, attention.heads),
        heads(linear(attention.v, u), attention.heads),
    )


def finish(block: Block, x: Tensor, attended: Tensor, rows: Rows, given: Conditions) -> Tensor:
    """What follows self-attention."""
    _, _, gate1, shift, scale, gate2 = rows
    x = x + out(block.self_attn, attended) * gate1
    x = x + look_at_context(block.cross_attn, block.norm3(x), given)
    u = block.norm2(x) * (1 + scale) + shift
    first, gelu, second = block.ffn
    return x + linear(second, gelu(linear(first, u))) * gate2


def look_at_context(attention: Attention, x: Tensor, given: Conditions) -> Tensor:
    """Cross-attention with its keys and values made anew."""
    q = heads(rms(attention.norm_q, linear(attention.q, x)), attention.heads)
    k = heads(rms(attention.norm_k, linear(attention.k, given.context)), attention.heads)
    v = heads(linear(attention.v, given.context), attention.heads)
    return out(attention, F.scaled_dot_product_attention(q, k, v, attn_mask=given.context_mask))


def out(attention: Attention, x: Tensor) -> Tensor:
    """The heads [b n s e] together, projected."""
    return linear(attention.o, join_heads(x))


def linear(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer; a low-rank addition by products of its own."""
    if not isinstance(layer, LoRALinear):
        return cast(Tensor, layer(x))
    low: Tensor = layer.lora_up(layer.lora_down(x))
    return F.linear(x, layer.weight, layer.bias) + layer.scale * low


def rms(norm: RMSNorm, x: Tensor) -> Tensor:
    """The norm in single operations."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + norm.eps)).to(x.dtype) * norm.weight


def rotate(x: Tensor, rotation: Tensor, number: int) -> Tensor:
    """Channel pairs [b s n e] as complex numbers in float64, turned, and back; then by head."""
    pairs = torch.view_as_complex(x.unflatten(-1, (number, -1, 2)).double())
    return torch.view_as_real(pairs * rotation).flatten(-2).to(x.dtype).transpose(1, 2)


def heads(x: Tensor, number: int) -> Tensor:
    """[b s (n e)] -> [b n s e]."""
    return x.unflatten(-1, (number, -1)).transpose(1, 2)


def complex_table(table: Tensor) -> Tensor:
    """(cos, sin) [s e/2 2] -> [s 1 e/2] complex128."""
    return torch.view_as_complex(table.double())[:, None]


def one_by_one(answer: Actor) -> Actor:
    """Every row of a query asked alone, as released servers do."""

    def each(query: Query) -> Tensor:
        return torch.cat([answer(row(query, i)) for i in range(len(query.embodiment))])

    return each


def row(query: Query, i: int) -> Query:
    """The query of one observation."""
    one = slice(i, i + 1)
    return replace(
        query,
        inputs=tree_map(lambda x: x[one], query.inputs),
        embodiment=query.embodiment[one],
        hz=query.hz[one],
        generators=query.generators[one],
        previous=tree_map(lambda x: x[one], query.previous),
        instructions=query.instructions[one],
    )

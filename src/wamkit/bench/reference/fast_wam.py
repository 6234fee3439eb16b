"""The work that the released Fast-WAM does for one chunk, on our modules' weights: the twin the fast sampler is
measured against. Written from its description (Fast-WAM spec 1.2-1.4, 3.1, 6), for variants that imagine nothing.

Every step embeds the text and projects it to keys and values again, embeds the time again and adds it to every block's
modulation, norms in single operations, turns in complex float64, and hands masks that hide nothing to both attentions.
Time and sample are rounded to the weights' dtype. The present's pass has a time for every token and runs every block
to its end. In float32 the chunk is that of policies/fast_wam/sampling.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from wamkit.flow import Grid
from wamkit.nn.attention import KV
from wamkit.policies.fast_wam.action_dit import ActionDiT
from wamkit.policies.fast_wam.sampling import Networks, Noise, Sample
from wamkit.wan.block import EMBEDDED_TIME_SCALE, Attention, Block, RMSNorm
from wamkit.wan.dit import PATCH, WanDiT


@dataclass(frozen=True)
class Conditions:
    """What the blocks of one pass share: modulation [1, s or 1, 6, d], context [b l d], rotation [s 1 e/2] complex128.

    The masks, of self-attention and of attention to the context, are all True.
    """

    modulation: Tensor
    context: Tensor
    rotation: Tensor
    mask: Tensor
    context_mask: Tensor


@torch.inference_mode()
def sample(policy: Networks, present: Tensor, context: Tensor, noise: Noise, steps: int) -> Sample:
    """present [b c 1 h w], context [b l text] -> a chunk."""
    memory = prefill(policy.dit, present, context)
    return Sample(
        act(policy.action, memory, context, noise.action, policy.grid("action", steps)), noise.video
    )


@torch.inference_mode()
def prefill(network: WanDiT, present: Tensor, context: Tensor) -> list[KV]:
    """Keys and values of the present in every block."""
    dtype = network.patch_embedding.weight.dtype
    x = network.patch_embedding(present.to(dtype)).flatten(2).transpose(1, 2).contiguous()
    grid = (present.shape[3] // PATCH, present.shape[4] // PATCH)
    rotation = complex_table(network.rotary([range(1)], *grid))
    t = torch.zeros(x.shape[1], dtype=dtype, device=x.device)
    given = conditions(network, t, context, rotation, keys=x.shape[1])
    memory = []
    for block in cast(Iterable[Block], network.blocks):
        x, kv = run(block, x, given, before=())
        memory.append(kv)
    return memory


@torch.inference_mode()
def act(network: ActionDiT, memory: list[KV], context: Tensor, noise: Tensor, grid: Grid) -> Tensor:
    """The chunk, from keys and values of the present."""
    dtype, keys = network.head.weight.dtype, memory[0].k.shape[2] + noise.shape[1]
    rotation = complex_table(network.rotary(noise.shape[1]))
    x = noise.to(dtype)
    grid = grid.to(x.device)
    for t, stride in zip(grid.times[:-1], grid.strides, strict=True):
        tokens = network.action_encoder(x)
        given = conditions(network, t[None].to(dtype), context, rotation, keys)
        for block, known in zip(cast(Iterable[Block], network.blocks), memory, strict=True):
            tokens, _ = run(block, tokens, given, before=(known,))
        x = x + network.head(tokens) * stride.to(dtype)
    return x.float()


def conditions(
    network: WanDiT | ActionDiT, t: Tensor, context: Tensor, rotation: Tensor, keys: int
) -> Conditions:
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
    shift1, scale1, gate1, shift2, scale2, gate2 = (block.modulation + given.modulation).unbind(-2)
    u = block.norm1(x) * (1 + scale1) + shift1
    attention = block.self_attn
    q = rotate(rms(attention.norm_q, attention.q(u)), given.rotation, attention.heads)
    own = KV(
        rotate(rms(attention.norm_k, attention.k(u)), given.rotation, attention.heads),
        heads(attention.v(u), attention.heads),
    )
    k, v = (
        torch.cat([*rest, mine], dim=2) if rest else mine for mine, *rest in zip(own, *before, strict=True)
    )
    x = x + attention.join(F.scaled_dot_product_attention(q, k, v, attn_mask=given.mask)) * gate1
    x = x + look_at_context(block.cross_attn, block.norm3(x), given)
    u = block.norm2(x) * (1 + scale2) + shift2
    return x + block.ffn(u) * gate2, own


def look_at_context(attention: Attention, x: Tensor, given: Conditions) -> Tensor:
    """Cross-attention with its keys and values made anew."""
    q = heads(rms(attention.norm_q, attention.q(x)), attention.heads)
    k = heads(rms(attention.norm_k, attention.k(given.context)), attention.heads)
    v = heads(attention.v(given.context), attention.heads)
    return attention.join(F.scaled_dot_product_attention(q, k, v, attn_mask=given.context_mask))


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

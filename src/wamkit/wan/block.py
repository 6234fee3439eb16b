"""Wan's transformer block, of which both the video model and the action model of Fast-WAM are made.

A block is split around self-attention (`project`, `finish`), so that networks can attend to each other and keys and
values can be cached. Attention width (heads x head_dim) and model width are independent. Parameter names are the
original Wan names. Spec: Light-WAM 1.4, Fast-WAM 1.2-1.4. It knows nothing about latents, actions or losses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from wamkit.bounds import AT_LEAST_1, EVEN, POSITIVE, Bound, check
from wamkit.nn.attention import KV, Visibility, attend, cut, join_groups, join_heads, split_heads
from wamkit.nn.lora import applied
from wamkit.nn.products import GELU, GIVEN, normed
from wamkit.nn.rms import rms_normed
from wamkit.nn.rope import rotate
from wamkit.nn.sinusoid import Sinusoid

EMBEDDED_TIME_SCALE = 1000.0  # the networks were trained on times 0..1000

Rows = tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class TransformerSize:
    """Everything that fixes the shape of the blocks and of what conditions them.

    width, ffn: of a token, and inside the feed-forward part. heads, head_dim: of the attention. layers: blocks.
    text_dim: width of context rows. time_dim: width of the time sinusoid. eps: of the norms.
    """

    width: int
    ffn: int
    heads: int
    head_dim: int
    layers: int
    text_dim: int
    time_dim: int = 256
    eps: float = 1e-6

    def __post_init__(self) -> None:
        check("policy.size", self, BOUNDS)


BOUNDS = {
    **dict.fromkeys(("width", "ffn", "heads", "layers", "text_dim"), AT_LEAST_1),
    "head_dim": Bound(
        "an even number with an even third, rounded down (3-D rotary positions), such as 32 or 128",
        lambda channels: channels > 0 and channels % 2 == 0 and channels // 3 % 2 == 0,
    ),
    "time_dim": EVEN,
    "eps": POSITIVE,
}


@dataclass(frozen=True)
class Stream:
    """The tokens that enter the blocks of one network, and what conditions them.

    tokens: [b s d]. grid: (frames, rows, columns) of a clip, (steps,) of a chunk.
    sizes: tokens of each visibility group, in order.
    time [. r d], modulation [. r 6 d]: a row for each of r runs of equally many tokens (the frames of a clip; one run
        for a chunk); leading dimension 1 or b.
    context: [b l d]. context_mask: [b 1 1 l], True = may attend; None = all may. rope: [s e/2 2].
    """

    tokens: Tensor
    grid: tuple[int, ...]
    sizes: Mapping[str, int]
    time: Tensor
    modulation: Tensor
    context: Tensor
    context_mask: Tensor | None
    rope: Tensor


def beside(one: Stream, other: Stream) -> Stream:
    """The tokens of two streams, whose groups have different names, in one; both have the context of the first."""
    runs = [stream.tokens.shape[1] // stream.modulation.shape[1] for stream in (one, other)]
    rows = [run // gcd(*runs) for run in runs]  # all runs are as long as the shortest that divides both
    return Stream(
        tokens=torch.cat([one.tokens, other.tokens], dim=1),
        grid=(one.tokens.shape[1] + other.tokens.shape[1],),
        sizes={**one.sizes, **other.sizes},
        time=_joined_rows([one.time, other.time], rows),
        modulation=_joined_rows([one.modulation, other.modulation], rows),
        context=one.context,
        context_mask=one.context_mask,
        rope=torch.cat([one.rope, other.rope]),
    )


def _joined_rows(parts: Sequence[Float[Tensor, "_ _ *rest"]], times: Sequence[int]) -> Tensor:
    """Below each other, every row of a part as often as `times` says."""
    b = max(map(len, parts))
    rows = [part.expand(b, *part.shape[1:]) for part in parts]
    return torch.cat([part.repeat_interleave(n, dim=1) for part, n in zip(rows, times, strict=True)], dim=1)


class RMSNorm(nn.Module):
    """Root-mean-square norm over the full width, in float32, cast back before the weight (Wan)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Float[Tensor, "b s d"]) -> Float[Tensor, "b s d"]:
        return rms_normed(x, self.eps) * self.weight


class Attention(nn.Module):
    """Projections of self- or cross-attention. q and k are normed over the full width, before heads are split."""

    def __init__(self, size: TransformerSize) -> None:
        super().__init__()
        inner = size.heads * size.head_dim
        self.heads = size.heads
        self.q = nn.Linear(size.width, inner)
        self.k = nn.Linear(size.width, inner)
        self.v = nn.Linear(size.width, inner)
        self.o = nn.Linear(inner, size.width)
        self.norm_q = RMSNorm(inner, size.eps)
        self.norm_k = RMSNorm(inner, size.eps)

    def context(self, x: Float[Tensor, "b l d"]) -> KV:
        """Keys and values of cross-attention. The keys are multiplied with the weights of both norms: so the queries,
        which are not rotated, need not be, and one tensor less is kept of them."""
        k, v = applied(GIVEN, (x,), (self.k, self.v))
        return KV(split_heads(self.norm_k(k) * self.norm_q.weight, self.heads), split_heads(v, self.heads))

    def join(self, x: Float[Tensor, "b n s e"]) -> Float[Tensor, "b s d"]:
        """Put the heads together and project out."""
        return self.o(join_heads(x))


class Block(nn.Module):
    """Self-attention and MLP, modulated by time; cross-attention to the context, unmodulated."""

    def __init__(self, size: TransformerSize) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(size.width, eps=size.eps, elementwise_affine=False)
        self.self_attn = Attention(size)
        self.norm3 = nn.LayerNorm(size.width, eps=size.eps)
        self.cross_attn = Attention(size)
        self.norm2 = nn.LayerNorm(size.width, eps=size.eps, elementwise_affine=False)
        self.ffn = nn.Sequential(
            nn.Linear(size.width, size.ffn), nn.GELU(approximate="tanh"), nn.Linear(size.ffn, size.width)
        )
        self.modulation = nn.Parameter(torch.randn(1, 6, size.width) / size.width**0.5)

    def forward(
        self, x: Float[Tensor, "b s d"], stream: Stream, visibility: Visibility
    ) -> Float[Tensor, "b s d"]:
        rows = self.rows(stream)
        q, kv = self.project(x, rows, stream)
        return self.finish(x, attend(q, kv, visibility), rows, stream)

    def rows(self, stream: Stream) -> Rows:
        """(shift, 1 + scale, gate) of self-attention and of the MLP, each [. r d]."""
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.modulation + stream.modulation).unbind(-2)
        return shift1, 1 + scale1, gate1, shift2, 1 + scale2, gate2

    def project(
        self, x: Float[Tensor, "b s d"], rows: Rows, stream: Stream
    ) -> tuple[dict[str, Tensor], dict[str, KV]]:
        """Queries, and keys and values, of self-attention by group."""
        shift, scale, *_ = rows
        attention = self.self_attn
        layers = (attention.q, attention.k, attention.v)
        q, k, v = applied(normed(self.norm1.eps), (x, scale, shift), layers)
        q, k = (
            rotate(split_heads(norm(y), attention.heads), stream.rope)
            for norm, y in ((attention.norm_q, q), (attention.norm_k, k))
        )
        by_group = [cut(y, stream.sizes) for y in (q, k, split_heads(v, attention.heads))]
        return by_group[0], {group: KV(by_group[1][group], by_group[2][group]) for group in stream.sizes}

    def finish(
        self,
        x: Float[Tensor, "b s d"],
        attended: Mapping[str, Tensor],
        rows: Rows,
        stream: Stream,
    ) -> Float[Tensor, "b s d"]:
        """Everything after self-attention. attended: by group; those of other networks are ignored."""
        _, _, gate1, shift2, scale2, gate2 = rows
        joined = join_groups([attended[group] for group in stream.sizes])
        x = add_gated(x, self.self_attn.join(joined), gate1)

        cross, affine = self.cross_attn, (self.norm3.weight[None, None], self.norm3.bias[None, None])
        (q,) = applied(normed(self.norm3.eps), (x, *affine), (cross.q,))
        q = split_heads(rms_normed(q, cross.norm_q.eps), cross.heads)
        k, v = cross.context(stream.context)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=stream.context_mask)
        x = x + cross.join(seen)

        (hidden,) = applied(normed(self.norm2.eps), (x, scale2, shift2), (self.ffn[0],))
        (out,) = applied(GELU, (hidden,), (self.ffn[2],))
        return add_gated(x, out, gate2)


@torch.no_grad()
def open_gates(blocks: nn.ModuleList) -> None:
    """Add one to both gates of every block."""
    for block in cast(Iterable[Block], blocks):
        block.modulation[:, [2, 5]] += 1


def text_mlp(size: TransformerSize) -> nn.Sequential:
    """Context rows -> width."""
    return nn.Sequential(
        nn.Linear(size.text_dim, size.width), nn.GELU(approximate="tanh"), nn.Linear(size.width, size.width)
    )


def time_mlp(size: TransformerSize) -> nn.Sequential:
    """Time sinusoid -> width."""
    return nn.Sequential(nn.Linear(size.time_dim, size.width), nn.SiLU(), nn.Linear(size.width, size.width))


def time_rows(size: TransformerSize) -> nn.Sequential:
    """Embedded time -> the six rows of a block's modulation."""
    return nn.Sequential(nn.SiLU(), nn.Linear(size.width, 6 * size.width))


def embed_times(
    sinusoid: Sinusoid, mlp: nn.Sequential, times: Float[Tensor, "_ r"], dtype: torch.dtype
) -> Float[Tensor, "_ r d"]:
    """Flow times in [0, 1] through the time MLP; the sinusoid is evaluated in float64, whatever the model's dtype."""
    return mlp(sinusoid(times * EMBEDDED_TIME_SCALE).to(dtype))


def add_gated(
    x: Float[Tensor, "b s d"], y: Float[Tensor, "b s d"], gate: Float[Tensor, "_ r d"]
) -> Float[Tensor, "b s d"]:
    """x + gate y, run by run."""
    runs = (gate.shape[1], -1)
    return torch.addcmul(x.unflatten(1, runs), y.unflatten(1, runs), gate[:, :, None]).flatten(1, 2)


def modulate(
    x: Float[Tensor, "b s d"], shift: Float[Tensor, "_ r d"], scale: Float[Tensor, "_ r d"]
) -> Float[Tensor, "b s d"]:
    """x (1 + scale) + shift, run by run."""
    x = x.unflatten(1, (shift.shape[1], -1))  # b r s/r d
    return (x * (1 + scale[:, :, None]) + shift[:, :, None]).flatten(1, 2)

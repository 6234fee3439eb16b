"""The state-fusion expert with its pooling folded: the same chunks with a seventh of the arithmetic (spec 6.4).

Queries are weights, so attention needs no keys: a score is a token times one vector, W_k^T q. What is the same for all
tokens (the bias of keys, that of the token norm) drops out of the softmax. Tokens are averaged before they become
values, so the projection of values is applied to one vector per head and not to every token; the learned merge of the
queries is applied to their attention weights. The codes of the steps are a table.
Weights are folded in float64 and rounded once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from wamkit.nn.packed import pack
from wamkit.policies.light_wam.state_fusion import LearnedQueryPooler, StateFusionActionExpert, States


class FoldedExpert:
    """`StateFusionActionExpert.forward`, for weights that do not change any more and at most `horizon` steps.

    The expert is left as it is: what is folded is copied (at full size 15 million numbers, 4 %), and all other weights
    are shared with it. Nothing here refers to the originals of what was folded.
    """

    @torch.no_grad()
    def __init__(self, expert: StateFusionActionExpert, horizon: int) -> None:
        poolers = list(cast(Iterable[LearnedQueryPooler], expert.poolers))
        self.pool = FoldedPooling(poolers)
        self.pooled_norms = [pooler.output_norm for pooler in poolers]
        self.compressors = list(map(pack, expert.compressors))
        self.fused_norm, self.fused_proj = expert.fused_norm, pack(expert.fused_proj)
        self.readers, self.trunk = pack(expert.readers), pack(expert.trunk)
        self.steps = expert.steps(horizon)
        self.output_norm, self.output = expert.output_norm, expert.output

    def __call__(self, states: States, horizon: int) -> Float[Tensor, "b k a"]:
        """The first `horizon` steps of a chunk, in unit range."""
        taps, proprio = states[: len(self.compressors)], states[len(self.compressors) :]
        parts = zip(self.compressors, self.pooled_norms, self.pool(torch.stack(taps)), strict=True)
        levels = [compress(norm(pooled)) for compress, norm, pooled in parts]
        x = self.fused_proj(self.fused_norm(torch.cat(levels, dim=-1)))
        for reader, state in zip(self.readers, proprio, strict=True):
            x = x + reader(state.to(x.dtype))
        for block in self.trunk:
            x = x + block(x)
        chunk: Tensor = self.output(self.output_norm(x[:, None] + self.steps[:horizon]))
        return chunk


class FoldedPooling:
    """`LearnedQueryPooler` of every level up to its output norm, all levels at once.

    sought: what a head's query is multiplied with tokens as [levels d heads*queries]. merge: the queries of a head to
    one [levels heads*queries heads]. value: [levels heads d e]. out, bias: of the output projection, with the bias of
    the values in it [levels d d], [levels 1 d].
    """

    def __init__(self, poolers: Sequence[LearnedQueryPooler]) -> None:
        self.eps = poolers[0].token_norm.eps
        dtype = poolers[0].queries.dtype
        folded = zip(*(_fold(pooler) for pooler in poolers), strict=True)
        self.sought, self.merge, self.value, self.out, self.bias = (
            torch.stack(parts).to(dtype) for parts in folded
        )

    def __call__(self, states: Float[Tensor, "levels b s d"]) -> Float[Tensor, "levels b d"]:
        levels, b, s, d = states.shape
        heads = self.value.shape[1]
        x = F.layer_norm(states, (d,), eps=self.eps)
        scores = torch.bmm(x.flatten(1, 2), self.sought).unflatten(1, (b, s))
        weights = torch.bmm(scores.softmax(dim=2).flatten(1, 2), self.merge)  # levels b*s heads
        # what each head sees, still a token; then, as its value
        seen = torch.bmm(weights.view(levels * b, s, heads).mT, x.flatten(0, 1))
        seen = seen.view(levels, b, heads, d).transpose(1, 2).reshape(levels * heads, b, d)
        values = torch.bmm(seen, self.value.flatten(0, 1)).view(levels, heads, b, -1)
        return torch.baddbmm(self.bias, values.transpose(1, 2).reshape(levels, b, d), self.out)


def _fold(pooler: LearnedQueryPooler) -> tuple[Tensor, ...]:
    """What FoldedPooling holds of a level, in float64."""
    attention, heads = pooler.attention, pooler.attention.num_heads
    scale, shift = pooler.token_norm.weight.double(), pooler.token_norm.bias.double()
    q, k, v = attention.in_proj_weight.double().chunk(3)
    q_bias, _, v_bias = attention.in_proj_bias.double().chunk(3)
    asked = (pooler.queries.double() @ q.T + q_bias).unflatten(1, (heads, -1))  # queries heads e
    sought = torch.einsum("qhe,hed->dhq", asked, k.unflatten(0, (heads, -1))) / asked.shape[2] ** 0.5
    out = attention.out_proj.weight.double()
    mixed = pooler.merge_logits.double().softmax(0)[:, None]
    return (
        (scale[:, None, None] * sought).flatten(1),
        torch.block_diag(*[mixed] * heads),
        (scale * v).unflatten(0, (heads, -1)).mT,
        out.T,
        (attention.out_proj.bias.double() + out @ (v @ shift + v_bias))[None],
    )

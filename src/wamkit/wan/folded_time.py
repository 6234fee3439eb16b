"""Flow time folded into the weights: a Wan block at one time is a plain transformer block.

Where a network only ever sees one flow time, every scale and shift behind a norm, and every gate before a sum, is a
constant: scale and shift go into the layer that follows, the gate into the layer before. So do the weights of norms.
All of it in float64, low-rank additions included, and rounded once. Spec: Light-WAM 6.4.
"""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wamkit.nn.adapter import Adapter
from wamkit.nn.lora import copy_with, merge_lora, total_weight
from wamkit.wan.block import Block


@torch.no_grad()
def fold_time(block: Block, modulation: Float[Tensor, "1 6 d"]) -> Block:
    """A block that does at modulation zero what `block` does at `modulation`; `block` stays as it is.

    Its own modulation is gates of one, weights of its norms are one, its low-rank additions are merged.
    """
    rows = (block.modulation + modulation)[0].double()
    shift1, scale1, gate1, shift2, scale2, gate2 = rows.unbind()
    own, cross, norm = block.self_attn, block.cross_attn, block.norm3
    first, second = cast(nn.Linear, block.ffn[0]), cast(nn.Linear, block.ffn[2])
    folded: dict[nn.Module, nn.Module] = {
        **{layer: fold(layer, 1 + scale1, shift1) for layer in (own.q, own.k, own.v)},
        own.o: fold_gate(own.o, gate1),
        norm: bare(norm),
        cross.q: fold(cross.q, norm.weight, norm.bias),
        first: fold(first, 1 + scale2, shift2),
        second: fold_gate(second, gate2),
    }
    made = merge_lora(copy_with(block, folded))
    gates = torch.zeros_like(block.modulation)
    gates[:, [2, 5]] = 1
    made.modulation = nn.Parameter(gates, requires_grad=False)
    return made


@torch.no_grad()
def fold_adapter(adapter: Adapter) -> Adapter:
    """The same adapter; its norm has no weights, its gamma is one."""
    norm = adapter.norm
    folded: dict[nn.Module, nn.Module] = {
        norm: bare(norm),
        adapter.down: fold(adapter.down, norm.weight, norm.bias),
        adapter.up: fold_gate(adapter.up, torch.full_like(norm.weight, adapter.gamma)),
    }
    made = copy_with(adapter, folded)
    made.gamma = 1.0
    return made


def fold(layer: nn.Linear, scale: Float[Tensor, " i"], shift: Float[Tensor, " i"]) -> nn.Linear:
    """Of x what `layer` is of scale x + shift."""
    weight = total_weight(layer, torch.float64)
    return _linear(weight * scale.double(), layer.bias.double() + weight @ shift.double(), layer)


def fold_gate(layer: nn.Linear, gate: Float[Tensor, " o"]) -> nn.Linear:
    """`layer`, times `gate`."""
    weight = total_weight(layer, torch.float64)
    return _linear(gate.double()[:, None] * weight, gate.double() * layer.bias.double(), layer)


def bare(norm: nn.LayerNorm) -> nn.LayerNorm:
    """With weights of one and zero."""
    made = nn.LayerNorm(norm.normalized_shape, norm.eps).to(norm.weight.device, norm.weight.dtype)
    return made.requires_grad_(False)


def _linear(weight: Tensor, bias: Tensor, like: nn.Linear) -> nn.Linear:
    with torch.device("meta"):  # draws no random numbers
        made = nn.Linear(like.in_features, like.out_features)
    dtype = like.weight.dtype
    made.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
    made.bias = nn.Parameter(bias.to(dtype), requires_grad=False)
    return made

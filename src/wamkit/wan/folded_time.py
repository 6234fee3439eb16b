"""Flow time folded into the weights: a Wan block at one time is a plain transformer block.

Where a network only ever sees one flow time, every scale and shift behind a norm, and every gate before a sum, is a
constant: scale and shift go into the layer that follows, the gate into the layer before. So do the weights of norms.
All of it, low-rank additions included, in twice as many bits as weights have, and rounded once. Spec: Light-WAM 6.4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wamkit.nn.adapter import Adapter
from wamkit.nn.lora import LoRALinear, copy_with, total_rows
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
    low_rank = {layer for layer in block.modules() if isinstance(layer, LoRALinear)}
    made = copy_with(block, folded | {layer: layer.merged() for layer in low_rank - {*folded}})
    made.modulation = nn.Parameter(gates_of_one(block.modulation), requires_grad=False)
    return made


def gates_of_one(like: Float[Tensor, "_ 6 d"]) -> Float[Tensor, "_ 6 d"]:
    """The modulation of a folded block: no shift, no scale."""
    gates = torch.zeros_like(like)
    gates[:, [2, 5]] = 1
    return gates


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
    wide = WIDER[layer.weight.dtype]
    scale, shift, bias = scale.to(wide), shift.to(wide), layer.bias.to(wide)

    def changed(rows: slice, weight: Tensor) -> Folded:
        added = bias[rows] + weight @ shift
        return weight.mul_(scale), added

    return _folded(layer, wide, changed)


def fold_gate(layer: nn.Linear, gate: Float[Tensor, " o"]) -> nn.Linear:
    """`layer`, times `gate`."""
    wide = WIDER[layer.weight.dtype]
    gate, bias = gate.to(wide), layer.bias.to(wide)
    return _folded(layer, wide, lambda rows, weight: (weight.mul_(gate[rows, None]), gate[rows] * bias[rows]))


WIDER = {torch.bfloat16: torch.float32, torch.float32: torch.float64, torch.float64: torch.float64}
"""What weights of a precision are folded in."""

Folded = tuple[Tensor, Tensor]
"""Rows of a weight, and of a bias."""


def _folded(layer: nn.Linear, wide: torch.dtype, change: Callable[[slice, Tensor], Folded]) -> nn.Linear:
    """change: rows of the total weight, which it may write over -> those of the folded layer."""
    with torch.device("meta"):  # draws no random numbers
        made = nn.Linear(layer.in_features, layer.out_features)
    dtype = layer.weight.dtype
    parts = [[x.to(dtype) for x in change(*each)] for each in total_rows(layer, wide)]
    made.weight, made.bias = (
        nn.Parameter(torch.cat(part), requires_grad=False) for part in zip(*parts, strict=True)
    )
    return made


def bare(norm: nn.LayerNorm) -> nn.LayerNorm:
    """With weights of one and zero."""
    made = nn.LayerNorm(norm.normalized_shape, norm.eps).to(norm.weight.device, norm.weight.dtype)
    return made.requires_grad_(False)

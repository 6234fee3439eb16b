"""Blocks of vision transformers, and rotations, as acting needs them.

Queries, keys and values are made by one product. Channels of queries and keys that are rotated together lie side by
side, which leaves the products of the two as they are: a rotation is one complex product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from torch import Tensor

from wamkit.nn.attention import join_heads
from wamkit.nn.fused_ops import rotate_


class FusedViTBlock:
    """Attention among the tokens of an image, then an MLP, each with a norm before it.

    weights, biases: of queries, keys and values, which are copied. All other layers are used as they are, and come one
    by one: a reference to the block would keep its queries, keys and values.
    """

    def __init__(
        self,
        heads: int,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor],
        norms: tuple[Any, Any],
        out: Any,
        mlp: Any,
    ) -> None:
        self.heads = heads
        self.weight, self.bias = (
            torch.cat([in_pairs(q, heads), in_pairs(k, heads), v]) for q, k, v in (weights, biases)
        )
        self.norm1, self.norm2 = norms
        self.out, self.mlp = out, mlp

    def run(self, x: Float[Tensor, "n s d"], rotation: Complex[Tensor, "s 1 half"]) -> None:
        """Changes x."""
        qkv = F.linear(self.norm1(x), self.weight, self.bias).unflatten(-1, (3 * self.heads, -1))
        qk, v = qkv.tensor_split([2 * self.heads], dim=2)
        q, k = turned(qk, rotation).to(v.dtype).chunk(2, dim=2)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        x += self.out(join_heads(F.scaled_dot_product_attention(q, k, v)))
        x += self.mlp(self.norm2(x))


def in_pairs(x: Float[Tensor, "nd *o"], heads: int) -> Float[Tensor, "nd *o"]:
    """Of each head, number i next to number i + e / 2, with which it is rotated."""
    return x.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def rotation(angles: Float[Tensor, "s e"]) -> Complex[Tensor, "s e//2"]:
    """Of the pairs of `in_pairs`; angles: of all numbers, so each of them twice."""
    half = angles.chunk(2, dim=-1)[0]
    return torch.polar(torch.ones_like(half), half)


def turned(x: Float[Tensor, "b s n e"], rotation: Complex[Tensor, "s 1 half"]) -> Float[Tensor, "b s n e"]:
    """Rotated, in float32; x may be overwritten."""
    pairs = x.float().unflatten(-1, (-1, 2))
    return rotate_(pairs, rotation).flatten(-2)

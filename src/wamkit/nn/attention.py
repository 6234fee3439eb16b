"""Multi-head attention in which visibility is a list of (query group <- key groups), never a boolean mask.

A sequence consists of named groups of tokens. Each query group is one dense attention call over the keys it may see,
so flash kernels stay available and nothing invisible is computed. Groups may come from different networks, or from an
earlier call whose keys and values were cached.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Visibility = tuple[tuple[str, tuple[str, ...]], ...]

# Wan-based world action models: the present frame never looks at the future (Light-WAM spec 2.2, Fast-WAM spec 2).
FIRST_FRAME_CAUSAL: Visibility = (("present", ("present",)), ("future", ("present", "future")))


class KV(NamedTuple):
    """Keys and values of some tokens, [b n s e] each; keys are normed and rotated already."""

    k: Tensor
    v: Tensor


def cut(x: Float[Tensor, "b n s e"], sizes: Mapping[str, int]) -> dict[str, Tensor]:
    """The parts of a sequence by group; `sizes` in sequence order."""
    return dict(zip(sizes, x.split(list(sizes.values()), dim=2), strict=True))


def split_heads(x: Float[Tensor, "b s ne"], heads: int) -> Float[Tensor, "b n s e"]:
    """Channels of each head apart."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(x: Float[Tensor, "b n s e"]) -> Float[Tensor, "b s ne"]:
    """The inverse of `split_heads`."""
    return x.transpose(1, 2).flatten(2)


def attend(
    q: Mapping[str, Tensor], kv: Mapping[str, KV], visibility: Visibility
) -> dict[str, Float[Tensor, "b n s e"]]:
    """Attention of every group in `q` over the groups of its row of `visibility`, all of which must be in `kv`."""
    sees = dict(visibility)
    return {group: _dense(query, [kv[name] for name in sees[group]]) for group, query in q.items()}


def _dense(q: Float[Tensor, "b n s e"], seen: list[KV]) -> Float[Tensor, "b n s e"]:
    k, v = map(join_groups, zip(*seen, strict=True))
    return F.scaled_dot_product_attention(q, k, v)


def join_groups(parts: Sequence[Float[Tensor, "b n _ e"]]) -> Float[Tensor, "b n s e"]:
    """The inverse of `cut`; one group is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=2)


def only(visibility: Visibility, groups: Container[str]) -> Visibility:
    """A visibility restricted to `groups`, as queries and as keys."""
    return tuple(
        (query, tuple(key for key in seen if key in groups)) for query, seen in visibility if query in groups
    )


def visibility_matrix(visibility: Visibility, sizes: Mapping[str, int]) -> Tensor:
    """A visibility as a dense mask: bool [s, s], True = may attend. For tests."""
    names = [name for name, size in sizes.items() for _ in range(size)]
    sees = dict(visibility)
    return torch.tensor([[key in sees[query] for key in names] for query in names])

"""Multi-head attention in which visibility is a list of (query group <- key groups), never a boolean mask.

A sequence is cut into named groups of consecutive tokens. Each query group is one dense attention call over the
keys it may see, so the flash kernels stay available and nothing invisible is computed.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Visibility = tuple[tuple[str, tuple[str, ...]], ...]

# Wan-based world action models: the present frame never looks at the future (Light-WAM spec 2.2).
FIRST_FRAME_CAUSAL: Visibility = (("present", ("present",)), ("future", ("present", "future")))
BIDIRECTIONAL: Visibility = (("present", ("present", "future")), ("future", ("present", "future")))


def attend(
    q: Float[Tensor, "b n s e"],
    k: Float[Tensor, "b n s e"],
    v: Float[Tensor, "b n s e"],
    visibility: Visibility,
    sizes: Mapping[str, int],
) -> Float[Tensor, "b n s e"]:
    """Self-attention where every group of `sizes` (in sequence order, may be empty) sees the groups of its row."""
    starts, start = {}, 0
    for name, size in sizes.items():
        starts[name] = start
        start += size

    def pick(x: Tensor, groups: tuple[str, ...]) -> Tensor:
        parts = [x.narrow(2, starts[g], sizes[g]) for g in groups if sizes[g]]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)

    out = [
        F.scaled_dot_product_attention(pick(q, (queries,)), pick(k, keys), pick(v, keys))
        for queries, keys in visibility
        if sizes[queries]
    ]
    return out[0] if len(out) == 1 else torch.cat(out, dim=2)


def visibility_matrix(visibility: Visibility, sizes: Mapping[str, int]) -> Tensor:
    """The dense twin of a visibility: bool [s, s], True = may attend. For tests and pictures."""
    names = [name for name, size in sizes.items() for _ in range(size)]
    sees = dict(visibility)
    return torch.tensor([[key in sees[query] for key in names] for query in names])

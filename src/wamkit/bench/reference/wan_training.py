"""How the released programs train a Wan network: a clip whose tokens each have their own flow time, under a dense mask.

Written from their description (Light-WAM spec 1.4, 2.2 and 6.1; Fast-WAM spec 1.2, 1.5, 2): time, its six rows of
modulation and the head's two are made for every token, though all tokens of a frame have the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from wamkit.bench.reference.wan import Conditions, complex_table
from wamkit.nn.attention import Visibility
from wamkit.wan.block import EMBEDDED_TIME_SCALE
from wamkit.wan.dit import WanDiT, fold


@dataclass(frozen=True)
class Clip:
    """tokens: before the blocks [b s d]. time: embedded, of every token [b s d]. grid: frames, rows, columns."""

    tokens: Tensor
    time: Tensor
    grid: tuple[int, ...]
    given: Conditions


def embed_clip(
    network: WanDiT, latents: Tensor, times: Tensor, context: Tensor, positions: Sequence[range], mask: Tensor
) -> Clip:
    """latents [b c t h w] of frames at `positions` and flow times [b t]. mask: of self-attention [s s]."""
    patches = network.patch_embedding(latents.to(network.patch_embedding.weight.dtype))
    grid, x = tuple(patches.shape[2:]), patches.flatten(2).transpose(1, 2).contiguous()
    parts = x.split([grid[1] * grid[2] * len(at) for at in positions], dim=1)
    skipped = [network.skip(part, parts[0]) for part in parts]
    x = torch.cat(
        [later if at.start else now for now, later, at in zip(parts, skipped, positions, strict=True)], 1
    )
    code = network.sinusoid(times.repeat_interleave(grid[1] * grid[2], dim=1) * EMBEDDED_TIME_SCALE)
    time = network.time_embedding(code.to(x.dtype))
    embedded = network.text_embedding(context.to(x.dtype))
    given = Conditions(
        modulation=network.time_projection(time).unflatten(-1, (6, -1)),
        context=embedded,
        rotation=complex_table(network.rotary(positions, *grid[1:])),
        mask=mask,
        context_mask=every_row(embedded),
    )
    return Clip(x, time, grid, given)


def head(network: WanDiT, tokens: Tensor, clip: Clip) -> Tensor:
    """Velocity [b c t h w] of the tokens that the blocks made of a clip."""
    shift, scale = (network.head.modulation + clip.time[..., None, :]).unbind(-2)
    patches = network.head.head(network.head.norm(tokens) * (1 + scale) + shift)
    return fold(patches, clip.grid)


def every_row(context: Tensor) -> Tensor:
    """The mask of attention to the context, which hides nothing."""
    return torch.ones(1, 1, 1, context.shape[1], dtype=torch.bool, device=context.device)


def dense(visibility: Visibility, sizes: Mapping[str, int], device: torch.device) -> Tensor:
    """Which of the groups' tokens see which, as a mask [s s]; True: seen. sizes: in the order of the sequence."""
    ends = [*accumulate(sizes.values())]
    spans = {name: slice(end - sizes[name], end) for name, end in zip(sizes, ends, strict=True)}
    mask = torch.zeros(ends[-1], ends[-1], dtype=torch.bool, device=device)
    for query, seen in visibility:
        for key in seen:
            mask[spans[query], spans[key]] = True
    return mask

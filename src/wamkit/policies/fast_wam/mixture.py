"""Networks of the same depth that attend to each other: in every layer each computes its own queries, keys and values,
attention runs over the groups of all of them, and each continues with its own tokens (Fast-WAM spec 1.4).

Visibility is by group, evaluated as dense attention calls; there is no mask. Keys and values of groups that no longer
change (the present frame, an imagined future) are computed once, by `prefill`, and read from a KVCache after that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from torch import Tensor, nn

from wamkit.nn.attention import KV, Visibility, attend
from wamkit.nn.layers import Layers
from wamkit.wan.block import Block, Stream

KVCache = tuple[dict[str, KV], ...]  # per layer: keys and values by group


def empty_cache(blocks: nn.ModuleList) -> KVCache:
    """A cache without groups."""
    return tuple({} for _ in blocks)


def run_together(
    parts: Sequence[tuple[nn.ModuleList, Stream]], visibility: Visibility, cache: KVCache
) -> tuple[Tensor, ...]:
    """Final tokens [b s d] of every network. parts: blocks and stream of each. cache: groups outside the streams."""
    streams = [stream for _, stream in parts]
    first = cast(Layers, parts[0][0])

    def step(number: int, *tokens: Tensor) -> tuple[Tensor, ...]:
        layer = [cast(Block, blocks[number]) for blocks, _ in parts]
        found: tuple[Tensor, ...] = first.call(_layer, layer, tokens, streams, visibility, cache[number])
        return found

    return first.run(step, range(len(first)), tuple(stream.tokens for stream in streams))


def _layer(
    layer: Sequence[Block],
    tokens: Sequence[Tensor],
    streams: Sequence[Stream],
    visibility: Visibility,
    before: Mapping[str, KV],
) -> tuple[Tensor, ...]:
    """The block of every network."""
    rows = [block.rows(stream) for block, stream in zip(layer, streams, strict=True)]
    q: dict[str, Tensor] = {}
    kv = dict(before)
    # Everyone projects before anyone attends: a network's queries need the others' keys of the same layer.
    for block, x, row, stream in zip(layer, tokens, rows, streams, strict=True):
        own_q, own_kv = block.project(x, row, stream)
        q, kv = q | own_q, kv | own_kv
    attended = attend(q, kv, visibility)
    return tuple(
        block.finish(x, attended, row, stream)
        for block, x, row, stream in zip(layer, tokens, rows, streams, strict=True)
    )


def prefill(blocks: nn.ModuleList, stream: Stream, visibility: Visibility, cache: KVCache) -> KVCache:
    """A new cache that also has the groups of `stream`. The last block's output is not computed: nothing reads it."""
    x, layers = stream.tokens, []
    for number, (block, before) in enumerate(zip(_blocks(blocks), cache, strict=True), start=1):
        rows = block.rows(stream)
        q, kv = block.project(x, rows, stream)
        layers.append(before | kv)
        if number < len(blocks):
            x = block.finish(x, attend(q, layers[-1], visibility), rows, stream)
    return tuple(layers)


def _blocks(blocks: nn.ModuleList) -> Iterable[Block]:
    return cast(Iterable[Block], blocks)

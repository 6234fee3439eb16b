"""What a video model says of a noised future behind a clean present, without computing anything twice: the future
frames of `WanDiT.forward`, sooner, for weights that do not change any more (wan/fused.py).

The present sees itself alone and the future sees both, so the present goes first, and stops where its keys and values
lie in the last block's buffer. It knows nothing about latents' meaning or samplers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from wamkit.nn.adapter import Adapter
from wamkit.nn.lora import merge_lora
from wamkit.taking import SHARED
from wamkit.wan.block import Block
from wamkit.wan.dit import PATCH, PRESENT, Frames, WanDiT, fold, future
from wamkit.wan.fused import (
    Layer,
    Seen,
    Slot,
    blockwise,
    fuse,
    modulation_at,
    own_rows,
    rows_by_time,
    run_blocks,
    slot_at,
)

CLEAN = -1  # the last row of every block is that of time 0


class FusedDenoiser:
    """`dit` at flow times `times`, with its low-rank additions and adapters. Weights that are multiplied together are
    copied side by side, block by block; the others are shared with it."""

    @torch.no_grad()
    def __init__(self, dit: WanDiT, times: Float[Tensor, " r"]) -> None:
        self.size, self.rotary, self.skip = dit.size, dit.rotary, dit.skip
        self.patch_embedding, self.head = dit.patch_embedding, dit.head.head
        time, modulation = modulation_at(dit, torch.cat([times, torch.zeros(1)]))
        blocks = list(cast(Iterable[Block], dit.blocks))
        rows = rows_by_time(own_rows(blocks, dit.text_embedding), modulation)
        self.blocks, self.context = fuse(map(merge_lora, blocks), rows, dit.text_embedding, SHARED)
        self.segments = _segments(list(dit.adapters))
        head = dit.head.modulation + time[:, None]  # r 2 d
        head[:, 1] += 1  # scale
        self.head_rows = [row.unbind() for row in head.to(self.patch_embedding.weight.dtype).unbind()]
        self._slots: dict[tuple[int, int, int], tuple[Slot, Slot]] = {}  # by grid of the future

    @torch.inference_mode()
    def __call__(
        self,
        present: Float[Tensor, "b c 1 h w"],
        noised: Float[Tensor, "b c f h w"],
        step: int,
        seen: Sequence[Seen],
    ) -> Float[Tensor, "b c f h w"]:
        """What is predicted of the future at the flow time of that number. seen: `context` of each row, by block."""
        now = self._tokens(present)
        later = self.skip(self._tokens(noised), now)
        grid = (noised.shape[2], noised.shape[3] // PATCH, noised.shape[4] // PATCH)
        first, second = self._slots_of(grid, future(noised))
        each = (len(self.blocks), len(now), 3, second.end, self.size.heads, self.size.head_dim)
        buffers = now.new_empty(each).unbind()
        self._remember(now, self._layers(CLEAN, first, buffers, seen))
        x = self._through(later, self._layers(step, second, buffers, seen))
        shift, scale = self.head_rows[step]
        return fold(self.head(F.layer_norm(x, shift.shape, scale, shift, self.size.eps)), grid).float()

    def _tokens(self, latents: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b s d"]:
        tokens = self.patch_embedding(latents.to(self.patch_embedding.weight.dtype))
        return tokens.flatten(2).transpose(1, 2).contiguous()  # blocks write over them

    def _slots_of(self, grid: tuple[int, int, int], frames: Frames) -> tuple[Slot, Slot]:
        if grid not in self._slots:
            first = slot_at(0, self.rotary([PRESENT.positions], *grid[1:]))
            self._slots[grid] = first, slot_at(first.end, self.rotary([frames.positions], *grid[1:]))
        return self._slots[grid]

    def _layers(self, step: int, slot: Slot, buffers: Sequence[Tensor], seen: Sequence[Seen]) -> list[Layer]:
        each = zip(self.blocks, buffers, seen, strict=True)
        return [Layer(block, block.rows[step], slot.of(buffer), text) for block, buffer, text in each]

    def _through(self, x: Float[Tensor, "b s d"], layers: Sequence[Layer]) -> Float[Tensor, "b s d"]:
        for part, adapter in self.segments:
            x = adapter(run_blocks(x, layers[part]))
        return x

    def _remember(self, x: Float[Tensor, "b s d"], layers: Sequence[Layer]) -> None:
        """Keys and values of every block; nothing looks at what comes after."""
        *before, (last, _) = self.segments
        for part, adapter in before:
            x = adapter(run_blocks(x, layers[part]))
        deque(islice(blockwise(x, layers[last]), len(layers[last])), maxlen=0)


def _segments(adapters: Sequence[nn.Module]) -> list[tuple[slice, nn.Module]]:
    """Blocks up to each adapter, with it; and those after the last, with nothing."""
    ends = [number for number, adapter in enumerate(adapters) if isinstance(adapter, Adapter)]
    ends = sorted({*ends, len(adapters) - 1})
    starts = [0, *(end + 1 for end in ends)]
    return [(slice(start, end + 1), adapters[end]) for start, end in zip(starts, ends, strict=False)]

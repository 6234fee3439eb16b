"""Acting without computing anything twice: the chunks of `LightWAM.act`, sooner (spec 6.4).

The action pass looks at the present frame at flow time 0, always, and its context is an instruction that is repeated
query after query, and one token of the robot's state. So blocks are fused (wan/fused.py), time becomes part of their
weights (wan/folded_time.py), and of an instruction keys and values are kept (wan/kept_text.py). Nothing here refers to
weights that were copied, to blocks after the last tap, or to the video head.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from wamkit.data.normalize import Normalizer
from wamkit.nn.adapter import Adapter
from wamkit.nn.lora import merge_lora
from wamkit.policies.fused_context import Context, EveryRow, KeptRows
from wamkit.policies.wan_encoder import Proprio
from wamkit.spans import Span
from wamkit.types import Query
from wamkit.wan.block import Block
from wamkit.wan.dit import PATCH, PRESENT, WanDiT
from wamkit.wan.folded_time import fold_adapter, fold_time
from wamkit.wan.fused import FusedContext, Layer, Seen, Slot, fuse, modulation_at, run_blocks, slot_at

States = tuple[Tensor, ...]
"""Adapted states of the taps, [b s d] each."""

Expert = Callable[[States, int], Tensor]
"""States and a number of steps -> a chunk of so many steps in unit range."""

NEEDS: Mapping[str, tuple[str, ...]] = {
    "merged_lora": (),
    "fused_blocks": ("merged_lora",),
    "folded_time": ("fused_blocks",),
    "kept_text": ("fused_blocks",),
    "folded_expert": (),
}
"""The passes in their order, and what each builds on."""


class Look(Protocol):
    """What is seen of an observation. A query is prepared first, for which the host may be asked; looking is work of
    the device alone, on tensors whose shapes depend on nothing but batch and length of the instructions."""

    def prepare(self, query: Query) -> Query:
        """With everything in its inputs that `states` takes."""

    def states(self, query: Query) -> States:
        """Of a prepared query."""


@dataclass(frozen=True)
class FusedActor:
    """`LightWAM.act` of a fused look."""

    look: Look
    expert: Expert
    normalizer: Normalizer
    horizon: int

    def __call__(self, query: Query) -> Float[Tensor, "b k a"]:
        return self.compute(self.prepare(query))

    @torch.inference_mode()
    def prepare(self, query: Query) -> Query:
        """With everything in its inputs that `compute` takes; the instructions are looked up."""
        return self.look.prepare(query)

    @torch.inference_mode()
    def compute(self, query: Query) -> Float[Tensor, "b k a"]:
        """The answer to a prepared query."""
        return answer(query, self.look.states, self.expert, self.normalizer, self.horizon)


def answer(
    query: Query, look: Callable[[Query], States], expert: Expert, normalizer: Normalizer, horizon: int
) -> Float[Tensor, "b k a"]:
    """One chunk per row, physical units, of the steps that are used."""
    with Span("blocks"):
        states = look(query)
    with Span("expert"):
        unit = expert(states, min(query.steps, horizon))
    return normalizer.to_physical("action", unit.float(), query.embodiment)


@dataclass(frozen=True)
class Stack:
    """What of the video model acting needs. adapters: by the block that they follow, ascending.

    modulation: what time adds to that of every block.
    """

    blocks: Sequence[Block]
    adapters: Mapping[int, Adapter]
    modulation: Float[Tensor, "1 6 d"]


@torch.no_grad()
def merged(dit: WanDiT, taps: Sequence[int]) -> Stack:
    """Up to the last tap, without low-rank additions."""
    now = torch.zeros(1, device=dit.patch_embedding.weight.device)
    blocks, adapters = _parts(dit, taps)
    return Stack([merge_lora(block) for block in blocks], adapters, modulation_at(dit, now)[1])


@torch.no_grad()
def folded(dit: WanDiT, taps: Sequence[int]) -> Stack:
    """`merged`, with time 0 and the weights of norms in the layers beside them."""
    now = torch.zeros(1, device=dit.patch_embedding.weight.device)
    blocks, adapters = _parts(dit, taps)
    modulation = modulation_at(dit, now)[1]
    return Stack(
        [fold_time(block, modulation) for block in blocks],
        {layer: fold_adapter(adapter) for layer, adapter in adapters.items()},
        torch.zeros_like(modulation),
    )


def _parts(dit: WanDiT, taps: Sequence[int]) -> tuple[list[Block], dict[int, Adapter]]:
    blocks = list(cast(Iterable[Block], dit.blocks))
    adapters = {layer: cast(Adapter, dit.adapters[layer]) for layer in taps}
    return blocks[: max(taps) + 1], adapters


class FusedLook:
    """`LightWAM.look`, context and all, for weights that do not change any more."""

    @torch.no_grad()
    def __init__(self, dit: WanDiT, stack: Stack, context: Context[tuple[Seen, ...]]) -> None:
        self.context, self.adapters = context, stack.adapters
        self.blocks = fuse(stack.blocks, stack.modulation)
        self.rotary, self.size = dit.rotary, dit.size
        self.patch, self.bias = dit.patch_embedding.weight.flatten(1), dit.patch_embedding.bias
        self._slots: dict[tuple[int, int], Slot] = {}  # by grid of a canvas; a policy has one

    def prepare(self, query: Query) -> Query:
        """See `Look`."""
        return self.context.prepare(query)

    def states(self, query: Query) -> States:
        """See `Look`."""
        x, slot = self.tokens(query.inputs["present"])
        text, size = self.context.seen(query), self.size
        # every block writes over it
        place = slot.of(x.new_empty(len(x), 3, x.shape[1], size.heads, size.head_dim))
        found, start = [], 0
        for tap, adapter in self.adapters.items():
            part = slice(start, tap + 1)
            seen = zip(self.blocks[part], text[part], strict=True)
            layers = [Layer(block, block.rows[0], place, rows) for block, rows in seen]
            found.append(adapter(run_blocks(x, layers)))
            x = found[-1].clone()  # blocks write over their tokens
            start = tap + 1
        return tuple(found)

    def tokens(self, present: Float[Tensor, "b c 1 h w"]) -> tuple[Float[Tensor, "b s d"], Slot]:
        """One for each patch, and how they are rotated."""
        patches = present[:, :, 0].unflatten(3, (-1, PATCH)).unflatten(2, (-1, PATCH))  # b c rows 2 columns 2
        patches = patches.permute(0, 2, 4, 1, 3, 5).flatten(3).to(self.patch.dtype)
        rows, columns = grid = patches.shape[1], patches.shape[2]
        if grid not in self._slots:
            self._slots[grid] = slot_at(0, self.rotary([PRESENT.positions], rows, columns))
        return F.linear(patches.flatten(1, 2), self.patch, self.bias), self._slots[grid]


def fused_look(
    dit: WanDiT, proprio: Proprio, normalizer: Normalizer, taps: Sequence[int], passes: Collection[str]
) -> FusedLook:
    """With those of these passes that are about it."""
    stack = (folded if "folded_time" in passes else merged)(dit, taps)
    rows = KeptRows if "kept_text" in passes else EveryRow
    return FusedLook(dit, stack, rows(FusedContext(dit.text_embedding, stack.blocks), proprio, normalizer))

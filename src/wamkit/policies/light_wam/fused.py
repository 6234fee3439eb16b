"""Acting without computing anything twice: the chunks of `LightWAM.act`, sooner (spec 6.4).

The action pass looks at the present frame at flow time 0, always, and its context is an instruction that is repeated
query after query, and one token of the robot's state. So blocks are fused (wan/fused.py), time becomes part of their
weights (wan/folded_time.py), and of an instruction keys and values are kept (wan/kept_text.py). Nothing here refers to
weights that were copied, to blocks after the last tap, or to the video head.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from wamkit.data.normalize import Normalizer
from wamkit.nn.adapter import Adapter
from wamkit.nn.lora import merge_lora
from wamkit.policies.fused_context import Context, EveryRow, KeptRows
from wamkit.policies.light_wam.state_fusion import States, proprio_states
from wamkit.spans import Span
from wamkit.taking import Take
from wamkit.types import Query
from wamkit.wan.block import Block
from wamkit.wan.dit import PATCH, PRESENT, WanDiT
from wamkit.wan.folded_time import fold_adapter, fold_time, gates_of_one
from wamkit.wan.fused import (
    FusedBlock,
    Layer,
    Seen,
    Slot,
    fuse,
    modulation_at,
    own_rows,
    rows_by_time,
    run_blocks,
    slot_at,
)

if TYPE_CHECKING:
    from wamkit.policies.light_wam.policy import LightWAM

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
    """What of the video model acting needs, up to the last tap; blocks are made one by one, when they are asked for.

    rows: see wan/fused.FusedBlock. adapters: by the block that they follow, ascending.
    """

    blocks: Iterable[Block]
    rows: Sequence[Float[Tensor, "1 8 d"]]
    adapters: Mapping[int, Adapter]


def merged(dit: WanDiT, taps: Sequence[int], text_embedding: nn.Module, take: Take) -> Stack:
    """Without low-rank additions."""
    blocks, modulation = _blocks(dit, taps), modulation_at(dit, torch.zeros(1), take)[1]
    rows = rows_by_time(own_rows(blocks, text_embedding), modulation)
    return Stack(map(merge_lora, map(take.part, blocks)), rows, _adapters(dit, taps, take))


def folded(dit: WanDiT, taps: Sequence[int], text_embedding: nn.Module, take: Take) -> Stack:
    """`merged`, with time 0 and the weights of norms in the layers beside them."""
    blocks, modulation = _blocks(dit, taps), modulation_at(dit, torch.zeros(1), take)[1]
    gates = gates_of_one(modulation)
    return Stack(
        (fold_time(take.part(block), modulation) for block in blocks),
        rows_by_time([gates] * len(blocks), torch.zeros_like(modulation)),
        {layer: fold_adapter(adapter) for layer, adapter in _adapters(dit, taps, take).items()},
    )


def _blocks(dit: WanDiT, taps: Sequence[int]) -> list[Block]:
    return list(cast(Iterable[Block], dit.blocks))[: max(taps) + 1]


def _adapters(dit: WanDiT, taps: Sequence[int], take: Take) -> dict[int, Adapter]:
    return {layer: take.part(cast(Adapter, dit.adapters[layer])) for layer in taps}


class FusedLook:
    """`LightWAM.states` for weights that do not change any more. beside: what the expert takes beside the taps."""

    def __init__(
        self,
        dit: WanDiT,
        blocks: Sequence[FusedBlock],
        adapters: Mapping[int, Adapter],
        context: Context[tuple[Seen, ...]],
        beside: Callable[[Query], States],
        take: Take,
    ) -> None:
        self.context, self.blocks, self.adapters, self.beside = context, blocks, adapters, beside
        self.rotary, self.size = take.part(dit.rotary), dit.size
        embedding = take.part(dit.patch_embedding)
        self.patch, self.bias = embedding.weight.flatten(1), embedding.bias
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
        return (*found, *self.beside(query))

    def tokens(self, present: Float[Tensor, "b c 1 h w"]) -> tuple[Float[Tensor, "b s d"], Slot]:
        """One for each patch, and how they are rotated."""
        patches = present[:, :, 0].unflatten(3, (-1, PATCH)).unflatten(2, (-1, PATCH))  # b c rows 2 columns 2
        patches = patches.permute(0, 2, 4, 1, 3, 5).flatten(3).to(self.patch.dtype)
        rows, columns = grid = patches.shape[1], patches.shape[2]
        if grid not in self._slots:
            self._slots[grid] = slot_at(0, self.rotary([PRESENT.positions], rows, columns))
        return F.linear(patches.flatten(1, 2), self.patch, self.bias), self._slots[grid]


@torch.no_grad()
def fused_look(policy: LightWAM, normalizer: Normalizer, passes: Collection[str], take: Take) -> FusedLook:
    """With those of these passes that are about it. normalizer: as it acts."""
    dit, taps = policy.dit, policy.config.adapters.layers
    text_embedding = take.part(dit.text_embedding)
    stack = (folded if "folded_time" in passes else merged)(dit, taps, text_embedding, take)
    blocks, context = fuse(stack.blocks, stack.rows, text_embedding, take)
    proprio = take.part(policy.proprio_encoder)
    text = (KeptRows if "kept_text" in passes else EveryRow)(context, proprio, normalizer)
    beside = partial(proprio_states, policy.config.expert, normalizer)
    return FusedLook(dit, blocks, stack.adapters, text, beside, take)

"""The fused sampler in two pieces, functions of tensors alone that are compiled once: looking at the present frame, and
an Euler step of the chunk, which is done ten times.

What differs from step to step, modulation and stride, is given to the piece.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from wamkit_client.types import BadInput

from wamkit.flow import Steering, unsteered
from wamkit.nn.wavefront import walked
from wamkit.policies.base import Function
from wamkit.policies.continuing import pull_tree, steering_of
from wamkit.policies.fast_wam.acting import SampledActor
from wamkit.policies.fast_wam.fused import FusedSampler, SeenBy, grid
from wamkit.policies.fast_wam.sampling import Noise, Sample
from wamkit.spans import Span
from wamkit.tree import Tree
from wamkit.wan.fused import Layer, QueryState, Seen, Slot, run_blocks, slot_at


@dataclass(frozen=True)
class FusedActor(SampledActor[SeenBy]):
    """A SampledActor of `fused`, also by pieces (a PiecewiseActor of policies/base.py)."""

    fused: FusedSampler

    def remade(self, remake: Callable[[Function], Function]) -> FusedActor:
        """By pieces. BadInput for variants that imagine while they act."""
        if self.fused.imagines != "nothing":
            raise BadInput(
                "eval.engine: compiled: this variant of Fast-WAM imagines while it acts, which is not divided into "
                "pieces; choose exact"
            )
        return replace(self, sampler=Pieces(self.fused, remake))


class Pieces:
    """`FusedSampler.answer` of a variant that imagines nothing. remake: what is done to either piece."""

    @torch.no_grad()
    def __init__(self, sampler: FusedSampler, remake: Callable[[Function], Function]) -> None:
        self.sampler = sampler
        by_block = [torch.stack([torch.stack(row) for row in block.rows]) for block in sampler.action.blocks]
        count = len(sampler.action_strides)
        self.rows = torch.stack(by_block, dim=1)[:count]  # steps blocks 8 d
        self.strides = self.rows.new_tensor(sampler.action_strides, dtype=torch.float32)
        self._slots: dict[tuple[int, int], Slot] = {}  # of the chunk, by rows before it and its own
        self._look, self._step = remake(self.look), remake(self.step)

    @torch.inference_mode()
    def __call__(
        self, present: Float[Tensor, "b c 1 h w"], seen: SeenBy, noise: Noise, steer: Steering = unsteered
    ) -> Sample:
        """A chunk for every row."""
        text = {network: _tree(blocks) for network, blocks in seen.items()}
        with Span("blocks"):
            kept = self._look({"present": present, "text": text["video"], "action": noise.action})["kept"]
        x = noise.action
        with Span("expert"):
            each = zip(self.rows, self.sampler.action_times[:-1], self.strides, strict=True)
            for step, (rows, t, stride) in enumerate(each):
                given = {"x": x, "rows": rows, "t": t, "stride": stride, "kept": kept, "text": text["action"]}
                x = self._step(given | pull_tree(steer, step))["x"]
        return Sample(x, noise.video)

    def look(self, given: Tree) -> Tree:
        """present [b c 1 h w], the text as the video's blocks see it, and the chunk, of which only the shape counts
        -> kept [blocks b 2 s n e]: keys and values of the present frame."""
        sampler, present = self.sampler, given["present"]
        slot = sampler.layout(0, *grid(present), given["action"].shape[1])["present"]
        size = sampler.size
        shape = (len(present), 3, slot.end, size.heads, size.head_dim)
        buffers = [present.new_empty(shape, dtype=sampler.dtype) for _ in range(size.layers)]
        places = tuple(map(slot.of, buffers))
        state = QueryState({"present": places}, {"present": _seen(given["text"])})
        walked(sampler.encode("present", sampler.tokens(present), state))
        return {"kept": torch.stack([buffer[:, 1:] for buffer in buffers])}

    def step(self, given: Tree) -> Tree:
        """x [b k a], rows [blocks 8 d], t [1] and stride [] of the step, kept of `look`, and the text as the actions'
        blocks see it; what it is steered by, if it is -> x one step on."""
        sampler, x, kept = self.sampler, given["x"], given["kept"]
        slot = self._slot(kept.shape[3], x.shape[1])
        layers = []
        each = zip(sampler.action.blocks, given["rows"], kept, _seen(given["text"]), strict=True)
        for block, rows, before, text in each:
            buffer = before.new_empty(len(x), 3, slot.end, *before.shape[3:])
            buffer[:, 1:, : slot.start] = before
            layers.append(Layer(block, rows.unbind(), slot.of(buffer), text))
        tokens = run_blocks(sampler.action_encoder(x.to(sampler.dtype)), layers)
        velocity = sampler.velocity(tokens, x, given["t"])
        return {"x": x + given["stride"] * steering_of(given)(x, velocity, 0)}

    def _slot(self, start: int, steps: int) -> Slot:
        if (start, steps) not in self._slots:
            self._slots[start, steps] = slot_at(start, self.sampler.rotaries[1](steps))
        return self._slots[start, steps]


def _tree(blocks: tuple[Seen, ...]) -> Tree:
    """What blocks see, as a tree; all have the same bias, or none."""
    kv, bias = {str(i): {"k": each.k, "v": each.v} for i, each in enumerate(blocks)}, blocks[0].bias
    return {"kv": kv} if bias is None else {"kv": kv, "bias": bias}


def _seen(text: Tree) -> tuple[Seen, ...]:
    """The inverse of `_tree`."""
    return tuple(Seen(each["k"], each["v"], text.get("bias")) for each in text["kv"].values())

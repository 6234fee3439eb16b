"""Work of a CUDA device that is recorded once and replayed as one launch: a CUDA graph for each batch size and shape.

What is recorded repeats the same operations on the same memory. So inputs are copied into tensors that stay, results
are copied out, and nothing may happen on the host in between: what a policy needs the host for (noise, looking up an
instruction) is its actor's `prepare`, and only `compute` is recorded (StagedActor of policies/base.py). Batches are
filled up to one of BUCKETS, so that a few recordings serve all; the answers to what was filled up are dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import cast

import torch
from torch import Tensor
from wamkit_client.types import BadInput

from wamkit.io.progress import bar
from wamkit.policies.base import Function, StagedActor
from wamkit.tree import Tree, tree_leaves, tree_map, tree_of
from wamkit.types import ActingEncoder, Actor, Query

BUCKETS = (1, 2, 4, 8, 16)
"""Batch sizes that are recorded; larger ones are multiples of the last."""
WARM_UP = 3
"""Runs before a recording, in which kernels are chosen, caches filled and memory is found."""
KEPT = 24
"""Recordings that are kept, those used last: a few lengths of instructions in every bucket."""

Recorder = Callable[[Function, Tree], Function]
"""Of a function, and of an example of what it is given: another that does the same for trees of the same shapes."""


class CudaGraphs:
    """Records on a CUDA device. All recordings share memory, since their results are copied out."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.pool = device, torch.cuda.graph_pool_handle()

    def __call__(self, function: Function, example: Tree) -> Function:
        """BadInput where `function` waits for the host or needs its numbers."""
        inputs = {name: x.to(self.device, copy=True) for name, x in tree_leaves(example).items()}
        given = tree_of(inputs)
        with bar("warm up", WARM_UP + 1, unit="runs") as advance:
            beside = torch.cuda.Stream()
            beside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(beside):
                for _ in range(WARM_UP):
                    function(given)
                    advance()
            torch.cuda.current_stream().wait_stream(beside)
            graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(graph, pool=self.pool):
                    result = function(given)
            except RuntimeError as error:
                raise BadInput(
                    f"eval.engine: a query waits for the host, so it cannot be recorded as a CUDA graph ({error}); "
                    "choose exact"
                ) from error
            advance()
        return replaying(graph.replay, inputs, result)


def replaying(replay: Callable[[], object], inputs: Mapping[str, Tensor], result: Tree) -> Function:
    """What copies to `inputs`, calls `replay`, which writes to `result`, and returns a copy of that."""

    def run(tree: Tree) -> Tree:
        for name, x in tree_leaves(tree).items():
            inputs[name].copy_(_pinned(x, inputs[name].device), non_blocking=True)
        replay()
        return tree_map(torch.clone, result)

    return run


class Replayed:
    """`function` of a tree of tensors, recorded at the first call with each shape and replayed from then on.

    function: does the same operations for all trees of the same shapes and the same second argument.
    """

    def __init__(self, function: Callable[[Tree, Hashable], Tree], record: Recorder) -> None:
        self.function, self.record = function, record
        self._recorded: dict[Hashable, Function] = {}

    def __call__(self, tree: Tree, about: Hashable = ()) -> Tree:
        """What `function` gives, in tensors of the caller's own."""
        shape = (about, tuple((name, x.shape, x.dtype) for name, x in tree_leaves(tree).items()))
        if shape not in self._recorded:
            self._recorded[shape] = self.record(lambda given: self.function(given, about), tree)
        recording = self._recorded[shape] = self._recorded.pop(shape)  # used last
        for oldest in list(self._recorded)[:-KEPT]:
            del self._recorded[oldest]
        return recording(tree)


def _pinned(x: Tensor, device: torch.device) -> Tensor:
    """Where a copy to `device` is one that nobody waits for."""
    return x.pin_memory() if device.type == "cuda" and x.device.type == "cpu" else x


class ReplayedEncoder:
    """An encoder of single frames whose work on the device is replayed."""

    def __init__(self, encoder: ActingEncoder, record: Recorder) -> None:
        self.prepare, self.text = encoder.prepare, encoder.text
        self._replayed = Replayed(lambda prepared, about: encoder.frames(prepared), record)

    def frames(self, prepared: Tree) -> Tree:
        """As the encoder's."""
        return self._replayed(prepared)


class ReplayedActor:
    """A staged actor whose work on the device is replayed."""

    def __init__(self, actor: StagedActor, record: Recorder) -> None:
        def compute(tree: Tree, about: Hashable) -> Tree:
            return {"chunk": actor.compute(Query(**tree, generators=(), steps=cast(int, about)))}

        self.prepare, self._replayed = actor.prepare, Replayed(compute, record)

    def __call__(self, query: Query) -> Tensor:
        return self.compute(self.prepare(query))

    def compute(self, query: Query) -> Tensor:
        """As the actor's."""
        tensors = {name: getattr(query, name) for name in ("inputs", "embodiment", "hz", "previous")}
        chunk: Tensor = self._replayed(tensors, query.steps)["chunk"]
        return chunk


def expect_staged(actor: Actor) -> StagedActor:
    """BadInput for an actor that needs the host in the middle of its work."""
    if isinstance(actor, StagedActor):
        return actor
    raise BadInput(
        "eval.engine: this policy's actor does not say what of a query is work of the device alone (prepare and "
        "compute), so it cannot be recorded as a CUDA graph; choose exact"
    )


def bucket(rows: int) -> int:
    """The batch size that so many rows are filled up to."""
    largest = BUCKETS[-1]
    return next((size for size in BUCKETS if rows <= size), -(-rows // largest) * largest)

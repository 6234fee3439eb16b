"""Recorded and replayed queries answer as those that are computed anew.

Without a CUDA device, operations are recorded and done again on the same tensors, which is what a CUDA graph does: what
comes from the host is repeated as it was when it was recorded. tests/cuda has the real graphs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from wamkit_client.types import BadInput

from tests.infer.test_properties import CONTINUES, CPU, POLICIES, answers, continuing, engine_of, same
from tests.policies.tiny_policy import encoder_of
from wamkit.infer.engine import Engine
from wamkit.infer.graphs import KEPT, Replayed, bucket, replaying
from wamkit.policies.base import Function
from wamkit.tree import Tree, tree_of
from wamkit.tree import tree_leaves as leaves_of

NAMES = ("light_wam", "fast_wam, fast", "fast_wam, joint", "lawam")


class Tape(TorchDispatchMode):
    """Every operation, with what it was given and gave."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        self.calls.append((operation, args, kwargs or {}, result))
        return result

    def replay(self) -> dict[int, Tensor]:
        """All of them again; what each tensor of then is now, by its id."""
        now: dict[int, Tensor] = {}

        def today(x: Any) -> Any:
            return now.get(id(x), x)

        for operation, args, kwargs, before in self.calls:
            after = operation(*tree_map(today, args), **tree_map(today, kwargs))
            pairs = zip(tree_leaves(before), tree_leaves(after), strict=True)
            now |= {id(old): new for old, new in pairs}
        return now


def taped(function: Function, example: Tree) -> Function:
    """As a CUDA graph: a run that warms up, and one that is recorded."""
    inputs = {name: x.clone() for name, x in leaves_of(example).items()}
    function(tree_of(inputs))
    with Tape() as tape:
        result = function(tree_of(inputs))

    def replay() -> None:
        now = tape.replay()
        for x in result.values():
            x.copy_(now.get(id(x), x))

    return replaying(replay, inputs, result)


def graphed(name: str, **changes: Any) -> Engine[Any]:
    engine = engine_of(name, "exact", **changes)
    engine._replay(taped)
    return engine


@pytest.mark.parametrize("name", NAMES)
def test_replayed_queries_answer_as_computed_ones(name: str) -> None:
    """Other images, instructions, noise, sizes of batch and of images than when it was recorded."""
    plain, fast = engine_of(name, "exact"), graphed(name)
    for seeds in ([1], [2], [3, 4], [5, 6, 7], [9, 8], [1]):
        same(answers(fast, seeds), answers(plain, seeds))
    same(answers(fast, [1, 2], (48, 40)), answers(plain, [1, 2], (48, 40)))
    same(answers(fast, [3]), answers(plain, [3]))


@pytest.mark.parametrize("name", NAMES)
def test_the_whole_answer_is_new(name: str) -> None:
    """Two answers of one recording do not share memory."""
    fast = graphed(name)
    first = answers(fast, [1])
    before = first.copy()
    answers(fast, [2])
    assert np.array_equal(first, before)


@pytest.mark.parametrize("name", CONTINUES)
def test_chunks_that_continue_others_are_recorded_once(name: str) -> None:
    """However much is left over, and whatever the delay."""
    plain, recorded = engine_of(name, "exact"), []
    fast = engine_of(name, "exact")
    fast._replay(lambda function, example: (recorded.append(example), taped(function, example))[1])
    for left, delay, programs in ((0, 0, 1), (2, 2, 2), (5, 0, 2), (4, 7, 2), (0, 3, 2)):
        asked = continuing(plain, 1, left, delay)
        (found,), (expected,) = fast.act([asked]), plain.act([asked])
        same(found.actions, expected.actions)
        chunks = [leaves_of(example) for example in recorded if "hz" in example]
        assert len(chunks) == programs and not any("previous" in leaf for leaf in chunks[0])


def test_buckets() -> None:
    assert [bucket(rows) for rows in (1, 2, 3, 5, 9, 16, 17, 40)] == [1, 2, 4, 8, 16, 16, 32, 48]


def test_recordings_are_bounded() -> None:
    made = []

    def record(function: Function, example: Tree) -> Function:
        made.append(function)
        return taped(function, example)

    double = Replayed(lambda tree, about: {"y": 2 * tree["x"]}, record)
    for size in (*range(1, KEPT + 5), KEPT + 4, 1):
        x = torch.randn(size)
        assert torch.equal(double({"x": x})["y"], 2 * x)
    assert len(made) == KEPT + 5 and len(double._recorded) == KEPT


def test_an_actor_that_needs_the_host_is_refused() -> None:
    policy = POLICIES["light_wam"]()
    engine = Engine(encoder_of(policy), policy.eval(), CPU, "plain")  # whose actor is `act`
    with pytest.raises(BadInput, match="cannot be recorded as a CUDA graph; choose exact"):
        engine._replay(taped)

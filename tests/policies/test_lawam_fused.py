"""LaWAM's fast expert gives the plain expert's chunks, with half of the official operations or fewer."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.policies.full_width import META, asked, expert_on, flops, operations, without_padding
from tests.policies.test_lawam_expert import SIZE, condition, noise, rows, tiny_expert
from wamkit.bench.counting import Operations
from wamkit.bench.reference.lawam import sample as official
from wamkit.policies.lawam.action_expert import ActionExpert, Condition, ExpertSize
from wamkit.policies.lawam.fused import FusedExpert
from wamkit.policies.lawam.physical_time import CLOCKS

LONGEST = 8  # actions in a chunk of 0.4 s at the highest of the rates


def unpadded(given: Condition) -> Condition:
    return replace(given, valid=given.valid[:, :LONGEST])


def assert_same(fast: Tensor, plain: Tensor) -> None:
    assert fast.shape == plain.shape
    assert (fast - plain).abs().max() <= 1e-5 * plain.abs().max()


@pytest.mark.parametrize("time_code", CLOCKS)
@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize(("hz", "steps"), [((20,), 1), ((20,), 10), ((20, 10, 5), 4), ((5, 20, 15), 10)])
def test_chunks_are_those_of_the_plain_expert(
    time_code: str, guidance: float, hz: tuple[float, ...], steps: int
) -> None:
    expert, given = tiny_expert(time_code), condition(hz)
    plain = expert.sample(noise(len(hz)), given, steps, guidance)
    fast = FusedExpert(expert, steps, guidance).sample(noise(len(hz)), unpadded(given))
    assert_same(fast, plain[:, :LONGEST])
    assert not plain[:, LONGEST:].any()


def test_one_expert_answers_queries_of_any_size() -> None:
    fast, given = FusedExpert(tiny_expert(), 3), condition()
    together = fast.sample(noise(3), unpadded(given))
    assert_same(fast.sample(noise(3), given)[:, :LONGEST], together)  # with padding
    for part in (slice(0, 1), slice(1, 3)):
        assert_same(fast.sample(noise(3)[part], unpadded(rows(given, part))), together[part])
    length = int(given.hidden_valid[1].sum())
    last = rows(given, slice(1, 3))
    bare = replace(last, hidden=last.hidden[:, :length], hidden_valid=last.hidden_valid[:, :length])
    assert_same(fast.sample(noise(3)[1:], unpadded(bare)), together[1:])


def test_what_was_copied_is_freed_with_the_expert_and_all_else_is_shared() -> None:
    expert, given = tiny_expert(), unpadded(condition())
    before = {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in expert.state_dict().items()}
    fast = FusedExpert(expert, 3)
    chunk = fast.sample(noise(3), given)
    after = expert.state_dict()
    assert all(
        after[name].data_ptr() == where and torch.equal(after[name], x) for name, (where, x) in before.items()
    )
    copied = [
        weakref.ref(layer.get_submodule(name).weight) for layer in expert.trunk.layers for name in "qkv"
    ]
    shared = [weakref.ref(layer.up.weight) for layer in expert.trunk.layers]
    del expert, after
    gc.collect()
    assert not any(weight() is not None for weight in copied)
    assert all(weight() is not None for weight in shared)
    assert_same(fast.sample(noise(3), given), chunk)


def test_bfloat16_stays_close() -> None:
    expert, given = expert_on(torch.device("cpu"), torch.float32, SIZE), unpadded(condition())
    given = replace(
        given, hidden=torch.randn(3, 7, 2048), now=torch.randn(3, 256, 768), subgoal=torch.randn(3, 256, 768)
    )
    exact = FusedExpert(expert, 10).sample(noise(3), given)
    rounded = FusedExpert(expert.bfloat16(), 10).sample(noise(3), given)
    assert rounded.dtype == torch.float32
    assert (rounded - exact).abs().max() < 0.02 * exact.abs().max()


# operations; how many there are depends on depth, not on width, so most are counted on a narrow network

NARROW = replace(ExpertSize(), width=64, ffn=96, layers=4)


@pytest.fixture(scope="module")
def narrow() -> ActionExpert:
    return expert_on(META, torch.bfloat16, NARROW)


def test_the_official_twin_gives_the_same_chunks() -> None:
    expert, given = tiny_expert(), condition()
    assert_same(official(expert, noise(3), given, 10), expert.sample(noise(3), given, 10))


def test_half_of_the_official_operations(narrow: ActionExpert) -> None:
    x, given = asked(narrow)
    given_short = without_padding(given)
    fast = FusedExpert(narrow, 10)
    ours = operations(lambda: fast.sample(x, given_short))
    assert 2 * ours <= operations(lambda: official(narrow, x, given, 10))
    state = fast.begin(given_short)
    with torch.inference_mode(), Operations() as step:
        fast.velocity(x[:, :8], 0, state)
    assert not {"boolean mask", "cat.default", "clone.default"} & step.counts.keys()
    assert step.counts["attention"] == NARROW.layers
    assert step.total() == 10 * NARROW.layers + 10  # encoder, last norm, decoder; to bfloat16 and back


def test_a_seventh_of_the_official_multiply_adds_on_libero() -> None:
    """At full width; depth hardly matters (benchmarks/results has full depth)."""
    expert = expert_on(META, torch.bfloat16, replace(ExpertSize(), layers=4))
    x, given = asked(expert)
    fast = FusedExpert(expert, 10)
    ours = flops(lambda: fast.sample(x, without_padding(given)))
    assert 7 * ours <= flops(lambda: official(expert, x, given, 10))


def test_at_full_size_15_percent_of_the_weights_are_copied() -> None:
    expert = expert_on(META, torch.bfloat16)
    fast = FusedExpert(expert, 10)
    copied = sum(x.numel() for x in (fast.weight, fast.bias, *fast.prior, *fast.world))
    assert copied / sum(p.numel() for p in expert.parameters()) == pytest.approx(0.15, abs=0.005)

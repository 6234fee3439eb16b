"""The model of N ranks: bytes by the collectives' own arithmetic, time that falls as it must."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from tests.tiny_dataset import RUN
from wamkit.bench.scaling import H100, Step, cost, counts, memory_of_rank, step_of

STEP = Step(flops=4.5e12, samples=1024, trained=4 * 441_000_000)


def test_bytes_are_those_of_rings() -> None:
    assert cost("ddp", STEP, 1).sent == cost("fsdp", STEP, 1).sent == 0
    assert cost("ddp", STEP, 2).sent == STEP.trained
    assert cost("ddp", STEP, 8).sent == round(2 * 7 / 8 * STEP.trained)
    assert cost("fsdp", STEP, 8).sent == round(3 * 7 / 8 * STEP.trained)
    inside, between = 3 * 7 / 8 * STEP.trained, 2 * 3 / 4 * STEP.trained / 8
    assert cost("hybrid", STEP, 32).sent == round(inside + between)


@pytest.mark.parametrize("kind", ["ddp", "fsdp", "hybrid"])
def test_a_fixed_batch_gains_less_and_less(kind: str) -> None:
    found = [cost(kind, STEP, ranks) for ranks in counts(1024)]  # type: ignore[arg-type]
    assert found[0].efficiency == 1
    assert all(one.seconds > other.seconds * 0.99 for one, other in pairwise(found[:6]))
    assert found[-1].efficiency < 0.5 and found[3].efficiency > 0.99
    assert found[0].compute == pytest.approx(STEP.flops * 1024 / H100.flops)


def test_what_is_divided_takes_less_memory() -> None:
    run = replace(RUN, train=replace(RUN.train, batch_size=8, average_decay=0.9))
    one = memory_of_rank(run, 1)
    whole = memory_of_rank(run, 4)
    sharded = memory_of_rank(replace(run, train=replace(run.train, parallel="fsdp")), 4)
    assert whole.optimizer == one.optimizer and whole.activations < one.activations / 3
    assert sharded.optimizer == one.optimizer // 4 and sharded.average == one.average // 4
    assert sharded.total < whole.total
    assert step_of(run).samples == 8 and step_of(run).trained == one.gradients


def test_counts() -> None:
    assert list(counts(1)) == [1] and list(counts(12)) == [1, 2, 4, 8, 12]

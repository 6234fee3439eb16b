"""Halves of a batch side by side: what one pass over the batch finds, the same every time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.policies.tiny_lawam import batch as lawam_batch
from tests.policies.tiny_lawam import tiny_lawam
from tests.policies.tiny_lawam_world import tiny_world
from tests.policies.tiny_policy import batch_of, tiny_config, tiny_policy
from tests.train.tiny import CONFIG
from wamkit.train.halves import at_once, side_by_side
from wamkit.train.loop import TrainConfig, how_to_learn, initial_state, optimize

Found = tuple[dict[str, Tensor], dict[str, Tensor | None]]


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def step(threads: int, objective: str, config: TrainConfig = CONFIG) -> Found:
    """Scalars and gradients of a step on a machine of so many cores."""
    torch.set_num_threads(threads)
    policy = tiny_policy(tiny_config(objective=objective))
    config = replace(config, clip_norm="none")
    scalars = optimize(policy, batch_of(policy, 4), 0, initial_state(policy, config), config)
    return scalars, {name: parameter.grad for name, parameter in policy.named_parameters()}


@pytest.mark.parametrize(
    "objective", ["cotrain", "action_only"]
)  # the second leaves the video head without gradients
def test_halves_find_what_the_whole_does(objective: str) -> None:
    (whole, gradients), (scalars, found) = step(1, objective), step(2, objective)
    assert torch.get_num_threads() == 2
    for name, value in whole.items():
        assert scalars[name].item() == pytest.approx(value.item(), rel=1e-5)
    for name, expected in gradients.items():
        own = found[name]
        if expected is None or own is None:
            assert expected is own, name
        else:
            assert torch.allclose(own, expected, atol=1e-6 * float(whole["grad_norm"])), name


def test_halves_are_the_same_every_time() -> None:
    (one, first), (two, second) = step(2, "cotrain"), step(2, "cotrain")
    assert all(torch.equal(one[name], two[name]) for name in one)
    for name, gradient in first.items():
        other = second[name]
        assert gradient is other is None or (other is not None and torch.equal(other, gradient)), name


def test_parts_of_a_batch_may_have_halves_too() -> None:
    parts = replace(CONFIG, accumulation=2)
    whole, found = step(1, "cotrain")[0], step(2, "cotrain", parts)[0]
    for name, value in whole.items():
        assert found[name].item() == pytest.approx(value.item(), rel=1e-5)


def test_where_there_are_halves() -> None:
    torch.set_num_threads(2)
    policy = tiny_policy(tiny_config())
    batch = batch_of(policy, 4)
    assert how_to_learn(policy, batch, CONFIG) is side_by_side
    assert how_to_learn(policy, batch, replace(CONFIG, accumulation=4)) is at_once  # one sample has none
    assert how_to_learn(policy, batch, replace(CONFIG, compile=True)) is at_once
    assert how_to_learn(policy, batch.to(torch.device("meta")), CONFIG) is at_once
    torch.set_num_threads(1)
    assert how_to_learn(policy, batch, CONFIG) is at_once


def test_lawam_has_halves_where_its_samples_have_equally_many_targets() -> None:
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        policy, batch = tiny_lawam(), lawam_batch(4)
        found.append(optimize(policy, batch, 0, initial_state(policy, CONFIG), CONFIG))
    for name, value in found[0].items():
        assert found[1][name].item() == pytest.approx(value.item(), rel=1e-5)
    assert policy.separable(batch) and tiny_world().separable(batch)
    assert not tiny_lawam(subgoal="shuffled").separable(batch)
    other = replace(batch, embodiment=torch.tensor([0, 0, 1, 0]))
    assert not policy.separable(other) and not tiny_world().separable(other)
    batch.valid[1, -1] = False
    assert not policy.separable(batch)


def test_an_error_in_a_half_is_raised() -> None:
    torch.set_num_threads(2)
    policy = tiny_policy(tiny_config())
    batch = batch_of(policy, 4)
    state = initial_state(policy, CONFIG)
    with pytest.raises(ValueError, match="expected"):
        optimize(lambda part, draws: {}, batch, 0, state, CONFIG)

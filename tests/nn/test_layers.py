"""Blocks that are computed again: the same losses and gradients to the last bit, and less is kept."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.policies import tiny_fast_wam as fast
from tests.policies import tiny_policy as light
from tests.policies.tiny_policy import batch_of, draws
from wamkit.nn.layers import recompute
from wamkit.policies.light_wam.policy import LoRATuning
from wamkit.stages.kept import activations

POLICIES: dict[str, Callable[[], nn.Module]] = {
    "light_wam": lambda: light.tiny_policy(light.tiny_config()),
    "light_wam, LoRA": lambda: light.tiny_policy(light.tiny_config(LoRATuning(rank=2))),
    "fast_wam": lambda: fast.tiny_policy(fast.tiny_config()),
}


def gradients(policy: nn.Module) -> dict[str, Tensor]:
    """And losses."""
    losses = policy(batch_of(policy), draws())
    torch.stack(list(losses.values())).sum().backward()
    found = {name: p.grad for name, p in policy.named_parameters() if p.grad is not None}
    return found | {f"loss/{name}": loss.detach() for name, loss in losses.items()}


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("group", [1, 2])
def test_recomputed_blocks_give_the_same_gradients(name: str, group: int) -> None:
    policy = POLICIES[name]()
    expected = gradients(POLICIES[name]())
    recompute(policy, group)
    found = gradients(policy)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], x) for name, x in expected.items())


@pytest.mark.parametrize("name", POLICIES)
def test_less_is_kept(name: str) -> None:
    policy = POLICIES[name]()
    whole = activations(policy, batch_of(policy), "fp32")
    recompute(policy, 1)
    assert activations(policy, batch_of(policy), "fp32") < 0.7 * whole

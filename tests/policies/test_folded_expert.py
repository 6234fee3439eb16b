"""The state-fusion expert with its pooling folded gives the plain expert's chunks."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from tests.policies.tiny_policy import query_of, tiny_config, tiny_policy
from wamkit.bench.counting import Operations
from wamkit.policies.light_wam.folded_expert import FoldedExpert
from wamkit.policies.light_wam.policy import LoRATuning
from wamkit.policies.light_wam.state_fusion import StateFusionActionExpert, StateFusionConfig

LEVELS, HORIZON = 3, 32
TINY = StateFusionConfig(queries=5, heads=4, level_dim=12, trunk_dim=20, step_dim=8)
SHALLOW = StateFusionConfig(level_dim=64, trunk_dim=96)  # pooling at full size


def expert_of(config: StateFusionConfig, width: int) -> StateFusionActionExpert:
    """Random weights, biases and norms too, large enough that the queries look at few tokens."""
    torch.manual_seed(0)
    expert = StateFusionActionExpert(config, width, LEVELS, 14)
    for parameter in expert.parameters():
        torch.nn.init.normal_(parameter, std=0.05 if parameter.ndim > 1 else 0.5)
    return expert.requires_grad_(False)


def states_of(width: int, rows: int = 2, tokens: int = 30) -> tuple[Tensor, ...]:
    return torch.randn(LEVELS, rows, tokens, width, generator=torch.Generator().manual_seed(1)).unbind()


def error(chunk: Tensor, expected: Tensor) -> float:
    return ((chunk.float() - expected).square().mean() / expected.square().mean()).sqrt().item()


@pytest.mark.parametrize(("config", "width"), [(TINY, 24), (SHALLOW, 1536)])
def test_chunks_are_those_of_the_plain_expert(config: StateFusionConfig, width: int) -> None:
    expert, states = expert_of(config, width), states_of(width)
    expected, fast = expert(states, HORIZON), FoldedExpert(expert, HORIZON)
    assert (fast(states, HORIZON) - expected).abs().max() <= 1e-5 * expected.abs().max()
    alone = fast(tuple(state[1:] for state in states), HORIZON)
    assert (alone - expected[1:]).abs().max() <= 1e-5 * expected.abs().max()
    executed = fast(states, 7)  # only the steps that are executed
    assert (executed - expected[:, :7]).abs().max() <= 1e-5 * expected.abs().max()


def test_bfloat16_is_no_further_from_float32_than_the_plain_expert() -> None:
    states = tuple(state.bfloat16() for state in states_of(1536, tokens=48))
    rounded = expert_of(SHALLOW, 1536).bfloat16()
    exact = expert_of(SHALLOW, 1536)
    exact.load_state_dict(rounded.state_dict())
    expected = exact(tuple(state.float() for state in states), HORIZON)
    plain, folded = (each(states, HORIZON) for each in (rounded, FoldedExpert(rounded, HORIZON)))
    assert error(folded, expected) <= 1.5 * error(plain, expected)


def test_what_was_folded_is_freed_with_the_expert_and_all_else_is_shared() -> None:
    expert, states = expert_of(TINY, 24), states_of(24)
    fast = FoldedExpert(expert, HORIZON)
    chunk = fast(states, HORIZON)
    folded = [weakref.ref(pooler.attention.in_proj_weight) for pooler in expert.poolers]
    shared = [weakref.ref(mlp.fc2.weight) for mlp in expert.compressors]
    del expert
    gc.collect()
    assert not any(weight() is not None for weight in folded)
    assert all(weight() is not None for weight in shared)
    assert torch.equal(fast(states, HORIZON), chunk)


def test_a_seventh_of_the_arithmetic_at_full_size() -> None:
    """RoboTwin: 480 tokens, 24 of 32 steps executed (19.6 GFLOP in the official code)."""
    with torch.device("meta"):
        expert = StateFusionActionExpert(StateFusionConfig(), 1536, LEVELS, 14)
        states = torch.empty(LEVELS, 1, 480, 1536, dtype=torch.bfloat16).unbind()
    # the sinusoid's frequencies have values wherever a network is built; here they follow its weights
    expert = expert.to("meta").bfloat16().requires_grad_(False)
    fast = FoldedExpert(expert, HORIZON)
    with FlopCounterMode(display=False) as flops:
        fast(states, 24)
    assert flops.get_total_flops() < 2.95e9
    with torch.inference_mode(), Operations() as operations:
        fast(states, 24)
    assert operations.total() <= 36
    copied = sum(x.numel() for x in vars(fast.pool).values() if isinstance(x, Tensor)) + fast.steps.numel()
    assert copied / sum(p.numel() for p in expert.parameters()) < 0.05


@pytest.mark.parametrize("passes", [("folded_expert",), ("merged_lora", "folded_expert")])
def test_the_policy_acts_alike_with_it(passes: tuple[str, ...]) -> None:
    policy = tiny_policy(tiny_config(LoRATuning(rank=3, alpha=6.0)))
    expected = policy.act(query_of(policy))
    chunk = policy.actor(passes)(query_of(policy))
    assert (chunk - expected).abs().max() <= 1e-5 * expected.abs().max()

"""An expert that reads the proprio itself, beside what the video model saw of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from wamkit_client.types import BadInput

from tests.policies.tiny_policy import (
    SPEC,
    batch_of,
    draws,
    query_of,
    tiny_config,
    tiny_normalizer,
    tiny_policy,
)
from wamkit.draws import Draws
from wamkit.policies.light_wam.policy import LightWAM, LightWAMConfig
from wamkit.policies.light_wam.state_fusion import StateFusionConfig

PUBLISHED = tiny_config().expert


def config_of(hidden: float = 0.0, **changes: object) -> LightWAMConfig:
    return tiny_config(expert=replace(PUBLISHED, reads_proprio=True, proprio_hidden=hidden), **changes)


def with_proprio(policy: LightWAM, value: float) -> torch.Tensor:
    query = query_of(policy)
    return policy.act(replace(query, inputs=query.inputs | {"proprio": torch.full((3, 3), value)}))


def test_the_chunk_follows_the_proprio_where_the_video_model_is_not_told_it() -> None:
    for config, follows in ((tiny_config(), False), (config_of(), True)):
        policy = tiny_policy(config)
        policy.proprio_encoder.weight.data.zero_()
        assert torch.equal(with_proprio(policy, 0.0), with_proprio(policy, 5.0)) is not follows


def test_it_reads_unit_proprio_and_a_one() -> None:
    policy = tiny_policy(config_of())
    query = query_of(policy)
    unit = policy.normalizer.to_unit("proprio", query.inputs["proprio"], query.embodiment)
    *taps, read = policy.states(query)
    assert len(taps) == 2 and torch.equal(read, torch.cat([unit, torch.ones(3, 1)], dim=1))
    assert len(tiny_policy(tiny_config()).states(query)) == 2


def test_the_published_expert_has_no_weights_for_it() -> None:
    added = tiny_policy(config_of()).state_dict().keys() - tiny_policy(tiny_config()).state_dict().keys()
    assert added == {f"expert.readers.0.{layer}.{w}" for layer in ("fc1", "fc2") for w in ("weight", "bias")}


@pytest.mark.parametrize("objective", ["cotrain", "cotrain_one_pass", "action_only"])
def test_training_moves_what_it_reads_with(objective: str) -> None:
    policy = tiny_policy(config_of(objective=objective))
    policy(batch_of(policy), draws())["action"].backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in policy.expert.readers.parameters())


def test_a_share_of_the_samples_is_not_given_it() -> None:
    policy = tiny_policy(config_of(hidden=0.25))
    states = (torch.randn(4096, 5, 32), torch.ones(4096, 4))
    of_step = Draws.of_step(0, 0, torch.device("cpu"), 0, 4096, 4096)
    taps, read = policy.expert.hide_proprio(states, of_step)
    assert taps is states[0]
    hidden = (read == 0).all(dim=1)
    assert ((read == 1).all(dim=1) ^ hidden).all()
    assert 0.22 < hidden.float().mean() < 0.28
    part = Draws.of_step(0, 0, torch.device("cpu"), 100, 50, 4096)
    again = policy.expert.hide_proprio(tuple(state[100:150] for state in states), part)[1]
    assert torch.equal(again, read[100:150])  # however the batch is divided


def test_what_is_hidden_changes_no_other_draw_and_nothing_in_acting() -> None:
    whole, hiding = tiny_policy(config_of()), tiny_policy(config_of(hidden=0.9))
    batch = batch_of(whole)
    losses, with_hidden = whole(batch, draws()), hiding(batch, draws())
    assert torch.equal(losses["video"], with_hidden["video"])
    assert not torch.equal(losses["action"], with_hidden["action"])
    assert torch.equal(whole.act(query_of(whole)), hiding.act(query_of(hiding)))


def test_a_robot_without_proprio_has_nothing_to_read() -> None:
    with pytest.raises(BadInput, match=r"policy.expert.reads_proprio: expected false .*proprio_dim is 0"):
        config_of().build(replace(SPEC, proprio_dim=0), tiny_normalizer())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"proprio_hidden": 0.5}, "proprio_hidden: expected 0.0 of an expert that does not read the proprio"),
        (
            {"reads_proprio": True, "proprio_hidden": 1.0},
            "proprio_hidden: expected a number from 0 to below 1",
        ),
    ],
)
def test_wrong_values_are_named(changes: dict[str, object], named: str) -> None:
    with pytest.raises(BadInput, match=f"policy.expert.{named}"):
        StateFusionConfig(**changes)

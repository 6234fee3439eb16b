"""Parameter groups, schedule and moving average against their definitions and torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.train.tiny import TinyPolicy
from wamkit.train.optim import (
    MovingAverage,
    Schedule,
    check_groups,
    optimizer_groups,
    trained_parameters,
)
from wamkit.types import Group


def names(policy: nn.Module, group: dict[str, object]) -> set[str]:
    own = {id(parameter): name for name, parameter in policy.named_parameters()}
    return {own[id(parameter)] for parameter in group["params"]}  # type: ignore[attr-defined]


def test_only_matrices_decay() -> None:
    policy = TinyPolicy()
    decayed, others = optimizer_groups(policy, policy.parameter_groups(), 0.1, "matrices", ("query_tokens",))
    assert names(policy, decayed) == {"video_head.weight", "action_head.weight"}
    assert decayed["weight_decay"] == 0.1
    assert names(policy, others) == {
        "query_tokens",
        "norm.weight",
        "norm.bias",
        "video_head.bias",
        "action_head.bias",
    }
    assert others["weight_decay"] == 0.0


def test_the_official_recipe_is_one_group() -> None:
    policy = TinyPolicy()
    (group,) = optimizer_groups(policy, policy.parameter_groups(), 0.01, "all", ("query_tokens",))
    assert names(policy, group) == set(trained_parameters(policy))
    assert group["weight_decay"] == 0.01


def test_decay_acts_where_it_should() -> None:
    policy = TinyPolicy()
    before = {name: parameter.detach().clone() for name, parameter in policy.named_parameters()}
    groups = optimizer_groups(policy, policy.parameter_groups(), 0.5, "matrices", ("query_tokens",))
    optimizer = torch.optim.AdamW(groups, lr=0.1)
    for parameter in trained_parameters(policy).values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in policy.named_parameters():
        factor = 0.95 if name in ("video_head.weight", "action_head.weight") else 1.0
        torch.testing.assert_close(parameter, before[name] * factor)


def test_groups_must_cover_everything_trained_once() -> None:
    policy = TinyPolicy()
    weights = list(trained_parameters(policy).values())
    check_groups(policy, [{"params": weights}])
    with pytest.raises(ValueError, match=r"norm.weight in 0 groups"):
        check_groups(policy, [{"params": [w for w in weights if w is not policy.norm.weight]}])
    with pytest.raises(ValueError, match=r"norm.weight in 2 groups"):
        check_groups(policy, [{"params": weights}, {"params": [policy.norm.weight]}])
    with pytest.raises(ValueError, match="2 parameters that are frozen"):
        check_groups(policy, [{"params": weights + list(policy.backbone.parameters())}])


def test_a_shared_parameter_is_in_one_group() -> None:
    policy = TinyPolicy()
    policy.second_head = policy.video_head
    decayed, _ = optimizer_groups(policy, policy.parameter_groups(), 0.1, "matrices", ())
    assert len(decayed["params"]) == 3  # type: ignore[arg-type]


def test_schedule_equals_torch() -> None:
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=2e-4)
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1e-3, total_iters=20)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=80, eta_min=2e-6)
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, cosine], milestones=[20])
    ours = Schedule(2e-4, warmup_steps=20, steps=100, first=1e-3, final=0.01)
    for step in range(101):
        expected = optimizer.param_groups[0]["lr"]
        assert ours.rate(step) == pytest.approx(expected, rel=1e-9), step
        optimizer.step()
        schedule.step()


def test_schedule_without_warmup_starts_at_the_peak() -> None:
    assert Schedule(1e-3, warmup_steps=0, steps=10, first=1e-3, final=0.0).rate(0) == 1e-3


def test_a_constant_schedule_stays_at_its_peak() -> None:
    schedule = Schedule(1e-3, warmup_steps=4, steps=100, first=0.0, final=0.1, shape="constant")
    assert [schedule.rate(step) for step in (0, 2, 4, 50, 100)] == [0.0, 5e-4, 1e-3, 1e-3, 1e-3]


def test_groups_scale_rate_and_decay() -> None:
    policy = TinyPolicy()
    every = trained_parameters(policy)
    heads = {name: parameter for name, parameter in every.items() if "head" in name}
    rest = {name: parameter for name, parameter in every.items() if name not in heads}
    wanted = [Group(heads, learning_rate=0.1, decay=0.0), Group(rest)]
    groups = optimizer_groups(policy, wanted, 0.5, "all", ())
    assert [(group["lr_scale"], group["weight_decay"]) for group in groups] == [(0.1, 0.0), (1.0, 0.5)]
    assert [names(policy, group) for group in groups] == [set(heads), set(rest)]
    with pytest.raises(ValueError, match=r"action_head.weight in 0 groups"):
        optimizer_groups(policy, [Group(rest)], 0.5, "all", ())


def test_moving_average_follows_its_formula() -> None:
    policy = TinyPolicy()
    average = MovingAverage(policy, 0.5)
    expected = policy.query_tokens.detach().clone()
    for step in range(20):
        with torch.no_grad():
            policy.query_tokens.normal_()
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * policy.query_tokens.detach()
    torch.testing.assert_close(average.tensors["query_tokens"], expected)
    assert average.tensors.keys() == trained_parameters(policy).keys()


def test_moving_average_with_decay_zero_holds_nothing() -> None:
    average = MovingAverage(TinyPolicy(), 0.0)
    average.update(0)
    assert not average.tensors

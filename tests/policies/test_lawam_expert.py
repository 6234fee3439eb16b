"""LaWAM's action expert: padding, shared contexts, control rates, dropout, counts."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor
from wamkit_client.types import BadInput

from wamkit.draws import Draws
from wamkit.flow import integrate
from wamkit.policies.lawam.action_expert import (
    TIMES,
    ActionExpert,
    Condition,
    ExpertSize,
    action_loss,
    bucket,
)
from wamkit.policies.lawam.physical_time import PhysicalTime, TimeCode, tokens_of, valid_tokens
from wamkit.policies.lawam.query_pool import QueryPool

SIZE = ExpertSize(width=32, heads=4, ffn=48, layers=8, tokens=50, action_dim=6, time_dim=16)
HIDDEN, FEATURES, PATCHES, ROBOTS = 20, 12, 9, 5
HZ = (5, 10, 15, 20, 25, 30, 50)


def tiny_expert(time_code: TimeCode = "seconds") -> ActionExpert:
    torch.manual_seed(0)
    expert = ActionExpert(SIZE, HIDDEN, FEATURES, PATCHES, ROBOTS, time_code)
    for parameter in expert.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return expert.eval()


def condition(hz: tuple[float, ...] = (20, 10, 5), tokens: int = 50, seed: int = 0) -> Condition:
    """One row for each control rate, of chunks of 0.4 s."""
    b, length = len(hz), 7
    torch.manual_seed(seed)
    rates = torch.tensor(hz, dtype=torch.float32)
    return Condition(
        hidden=torch.randn(b, length, HIDDEN),
        hidden_valid=torch.arange(length) < torch.tensor([length, *[length - 3] * (b - 1)])[:, None],
        now=torch.randn(b, PATCHES, FEATURES),
        subgoal=torch.randn(b, PATCHES, FEATURES),
        hz=rates,
        valid=valid_tokens(0.4, rates, tokens),
        robot=torch.arange(b) + 1,
    )


def rows(given: Condition, index: slice) -> Condition:
    return Condition(**{field.name: getattr(given, field.name)[index] for field in fields(given)})


def noise(b: int, tokens: int = 50) -> Tensor:
    return torch.randn(b, 50, SIZE.action_dim, generator=torch.Generator().manual_seed(1))[:, :tokens]


def close(ours: Tensor, expected: Tensor) -> bool:
    return torch.allclose(ours, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


# sizes


def test_parameters_are_the_published_ones() -> None:
    with torch.device("meta"):
        expert = ActionExpert(ExpertSize(), 2048, 768, 256, 32)
        pool = QueryPool(2048, 32)
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in expert.named_children()}
    assert counts["hidden"] == 1_575_168
    assert counts["encoder"] == 34_668_544
    assert counts["decoder"] == 34_636_800
    assert counts["time"] + counts["trunk"] == 235_328_512
    assert expert.null_subgoal.numel() == 196_608
    assert sum(p.numel() for p in expert.parameters()) == 306_405_632
    assert sum(p.numel() for p in pool.parameters()) == 145_920


@pytest.mark.parametrize(
    ("wrong", "says"),
    [({"layers": 6}, "multiple of 4"), ({"heads": 3}, "do not divide"), ({"dropout": 1.0}, "below 1")],
)
def test_a_size_that_cannot_be(wrong: dict[str, float], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        replace(SIZE, **wrong)


# physical time


@pytest.mark.parametrize("seconds", [0.4, 1.2])
def test_the_code_counts_tokens_as_the_paper_does(seconds: float) -> None:
    assert [tokens_of(seconds, hz) for hz in HZ] == [round(seconds * hz + 1e-6) for hz in HZ]
    on_device = valid_tokens(seconds, torch.tensor([float(hz) for hz in HZ]), 60).sum(1)
    assert on_device.tolist() == [tokens_of(seconds, hz) for hz in HZ]


def test_more_tokens_than_there_may_be() -> None:
    with pytest.raises(BadInput, match="a chunk of 60 actions: LaWAM's tokens end at 50"):
        PhysicalTime(8, 50, "seconds")(torch.tensor([50.0]), tokens_of(1.2, 50))


def test_the_same_moment_has_the_same_code_at_any_rate() -> None:
    hz = torch.tensor([20.0, 10.0])
    seconds, index, none = (PhysicalTime(8, 50, clock)(hz, 8) for clock in ("seconds", "index", "none"))
    assert torch.equal(seconds[0, :8:2], seconds[1, :4])
    assert torch.equal(index[0], index[1])
    assert torch.equal(index[0], seconds[0])
    assert not none.any()


def test_without_the_code_actions_have_no_order() -> None:
    given, x, t = condition((20,), tokens=8), noise(1, 8), torch.tensor([0.3])
    order = torch.arange(7, -1, -1)
    for clock, ordered in (("none", False), ("index", True), ("seconds", True)):
        expert = tiny_expert(clock)
        turned = expert(x[:, order], t, given)[:, order]
        assert close(turned, expert(x, t, given)) != ordered


# flow


def test_buckets_of_every_sampler_are_those_of_whole_numbers() -> None:
    for steps in range(1, 301):
        expected = [min(int(k / steps * 1000), 999) for k in range(steps)]
        assert bucket(TIMES.grid(steps).times[:-1]).tolist() == expected


def test_the_loss_passes_over_padding_and_human_video() -> None:
    predicted = noise(2, 4).requires_grad_()
    target, valid = torch.zeros_like(predicted), torch.zeros(2, 4, 6, dtype=torch.bool)
    valid[:, :3, :2] = True
    robot = torch.tensor([0, 3])
    loss = action_loss(predicted, target, valid, robot)
    assert torch.allclose(loss, predicted[1, :3, :2].square().mean())
    assert action_loss(predicted, target, valid, torch.zeros_like(robot)) == 0


# padding and what is shared


def test_padded_tokens_change_nothing() -> None:
    expert, padded = tiny_expert(), condition()
    short = replace(padded, valid=padded.valid[:, :8])
    whole = expert.sample(noise(3), padded, 4)
    assert not whole[:, 8:].any()
    assert close(expert.sample(noise(3, 8), short, 4), whole[:, :8])


def test_a_row_is_the_same_in_any_batch() -> None:
    expert, given = tiny_expert(), condition()
    together = expert.sample(noise(3), given, 4)
    for i in range(3):
        row = slice(i, i + 1)
        alone = rows(given, row)
        assert close(expert.sample(noise(3)[row], alone, 4), together[row])
        count = int(alone.hidden_valid.sum())
        bare = replace(alone, hidden=alone.hidden[:, :count], hidden_valid=alone.hidden_valid[:, :count])
        assert close(expert.sample(noise(3)[row], bare, 4), together[row])


def test_contexts_made_once_are_those_of_every_step() -> None:
    expert, given = tiny_expert(), condition()
    kept = given.valid[..., None]
    with torch.no_grad():
        again = integrate(noise(3) * kept, lambda x, t: expert(x, t, given) * kept, TIMES.grid(5))
    assert close(expert.sample(noise(3), given, 5), again)


def test_guidance() -> None:
    expert, given = tiny_expert(), condition()
    null = replace(given, subgoal=expert.null_subgoal.expand(3, -1, -1))
    kept = given.valid[..., None]
    for scale in (1.0, 0.0, 3.0):
        with torch.no_grad():
            start = noise(3) * kept
            with_it, without = (expert(start, torch.zeros(3), each) for each in (given, null))
        expected = (start + without + scale * (with_it - without)) * kept
        assert close(expert.sample(noise(3), given, 1, guidance=scale), expected)


# dropout


def test_dropout_is_of_training_and_of_the_sample() -> None:
    expert, given = tiny_expert(), condition()
    draws = [Draws.of(torch.Generator().manual_seed(7), 3) for _ in range(3)]
    x, t = noise(3), torch.full((3,), 0.5)
    expected = expert(x, t, given)
    assert torch.equal(expert(x, t, given, expert.dropout(draws[0])), expected)
    expert.train()
    first, second = (expert(x, t, given, expert.dropout(each)) for each in draws[:2])
    assert torch.equal(first, second)
    assert not close(first, expected)
    part = Draws(draws[2].generators, 1, 2, 3)  # the last two rows of the same global batch
    rest = slice(1, 3)
    assert close(expert(x[rest], t[rest], rows(given, rest), expert.dropout(part)), first[rest])


def test_dropout_keeps_the_mean() -> None:
    expert = tiny_expert().train()
    drop = expert.dropout(Draws.of(torch.Generator().manual_seed(7), 1))
    dropped = drop(torch.ones(1, 100, 400))
    assert dropped.unique().tolist() == [0.0, 1.25]
    assert dropped.mean() == pytest.approx(1, abs=0.01)

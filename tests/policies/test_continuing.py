"""Guided real-time chunking: a chunk continues what is left of the previous one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from wamkit_client.types import BadInput

from tests.policies import tiny_lawam
from tests.policies.tiny_fast_wam import tiny_config, tiny_policy
from tests.policies.tiny_policy import query_of, seeded
from wamkit.data.normalize import Normalizer, Stats
from wamkit.flow import Grid, Shift, integrate, unsteered
from wamkit.policies.continuing import Continuing, Pull, RealTimeChunking
from wamkit.policies.fast_wam.fused import NEEDS
from wamkit.policies.lawam.acting import PASSES
from wamkit.policies.lawam.action_expert import TIMES as LAWAM_TIMES
from wamkit.tree import Tree
from wamkit.types import Query

GOLDEN: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "data" / "real_time_chunking.json").read_text()
)
MIX, DRIFT, NOISE, PREVIOUS = (torch.tensor(GOLDEN[name]) for name in ("mix", "drift", "noise", "previous"))
LEFT = len(PREVIOUS)


def network(x: Tensor, t: Tensor) -> Tensor:
    """The golden file's, of time 1 at noise and 0 at data."""
    return torch.tanh(x @ MIX + t[0] * DRIFT)


def pull(chunking: RealTimeChunking, delay: int, grid: Grid) -> Pull:
    share = chunking.shares(torch.tensor([LEFT]), torch.tensor([delay]), len(NOISE))[..., None]
    to = torch.zeros(1, *NOISE.shape)
    to[:, :LEFT] = PREVIOUS
    return Pull(to, share, torch.stack([grid.reach, chunking.weights(grid)], dim=-1))


def backwards(case: dict[str, Any]) -> Tensor:
    """As LaWAM counts time, from noise at 0 to data at 1: the velocity has the other sign."""
    grid = replace(LAWAM_TIMES, sample_shift=case["shift"]).grid(case["steps"])
    steer = pull(chunking_of(case), case["delay"], grid)
    return integrate(NOISE[None], lambda x, t: -network(x, 1 - t), grid, steer)


def forwards(case: dict[str, Any]) -> Tensor:
    grid = Shift(sample=case["shift"]).times("float32").grid(case["steps"])
    return integrate(NOISE[None], network, grid, pull(chunking_of(case), case["delay"], grid))


def chunking_of(case: dict[str, Any]) -> RealTimeChunking:
    return RealTimeChunking(case["schedule"], case["horizon"] / LEFT, case["max_weight"])


@pytest.mark.parametrize("sampled", [forwards, backwards])
@pytest.mark.parametrize(
    "case", GOLDEN["cases"], ids=lambda case: "-".join(map(str, list(case.values())[:-1]))
)
def test_chunks_are_those_of_lerobot(case: dict[str, Any], sampled: Any) -> None:
    (found,) = sampled(case)
    np.testing.assert_allclose(found, case["chunk"], rtol=0, atol=2e-5)


@pytest.mark.parametrize("schedule", ["exponential", "linear"])
def test_shares_of_every_row(schedule: Any) -> None:
    """1 up to the delay, which is no more than what is left; 0 from where nothing is left; falling in between."""
    left, delay = torch.tensor([0, 5, 5, 5, 8]), torch.tensor([3, 0, 2, 9, 3])
    shares = RealTimeChunking(schedule).shares(left, delay, 8)
    for row, n, d in zip(shares, left, delay, strict=True):
        held = min(n, d)
        torch.testing.assert_close(row[:held], torch.ones(held))
        assert (row[n:] == 0).all()
        assert (row[held:n].diff() < 0).all() and (row[held:n] < 1).all() and (row[held:n] > 0).all()
    linear = RealTimeChunking("linear")
    assert linear.shares(left, delay, 8)[4].tolist() == pytest.approx(
        [1, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]
    )
    half = replace(linear, until=0.5).shares(left, delay, 8)
    assert half[2].tolist() == pytest.approx([1, 1, 0.5, 0, 0, 0, 0, 0])
    assert half[3].tolist() == half[3].round().tolist() and half[3].sum() == 5  # never before the delay


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 100])
@pytest.mark.parametrize(
    "times", [Shift(sample=1.0).times("float32"), Shift().times("bfloat16"), LAWAM_TIMES], ids=str
)
def test_weights_are_finite_and_a_step_never_goes_beyond(times: Any, steps: int) -> None:
    grid = times.grid(steps)
    weights = RealTimeChunking(max_weight=1e6).weights(grid)
    assert weights.isfinite().all()
    gone = weights * grid.strides
    assert (gone > 0).all() and (gone <= 1 + 1e-6).all()
    assert gone[0] == pytest.approx(1.0)  # of noise, nothing is kept


@pytest.mark.parametrize("steps", [1, 10, 300])
def test_previous_actions_that_count_in_full_are_the_chunk(steps: int) -> None:
    """As nearly as the last step comes to them; those that do not count are the network's own."""
    grid, chunking = LAWAM_TIMES.grid(steps), RealTimeChunking(max_weight=1e6)
    free = integrate(NOISE[None], lambda x, t: -network(x, 1 - t), grid)[0]
    (held,) = integrate(NOISE[None], lambda x, t: -network(x, 1 - t), grid, pull(chunking, LEFT, grid))
    assert torch.equal(held[LEFT:], free[LEFT:])
    (short,) = 1 - (chunking.weights(grid) * grid.strides)[-1:].abs()
    missed = (held[:LEFT] - PREVIOUS).abs().max() / (free[:LEFT] - PREVIOUS).abs().max()
    assert missed <= 1.1 * short + 1e-5 and short < {1: 1e-5, 10: 0.1, 300: 0.005}[steps]


def test_what_has_no_meaning_is_not_seen() -> None:
    """A rotation of zeros is none; where nothing is left over, the numbers do not matter."""
    turns = np.random.default_rng(0).normal(size=(50, 4))
    stats = {"arm": {"action": Stats.of(turns / np.linalg.norm(turns, axis=1, keepdims=True))}}
    rules = {"arm": {"action": dict.fromkeys(range(4), "quaternion")}}
    normalizer = Normalizer.fit(stats, {"action": "min_max"}, rules)
    continuing = Continuing.of(RealTimeChunking(), normalizer, LAWAM_TIMES.grid(3))
    steers = []
    for beyond in (0.0, 7.0, float("nan")):
        actions = torch.full((2, 6, 4), beyond)
        actions[0, :2] = torch.tensor([1.0, 0, 0, 0])
        given = {"actions": actions, "left": torch.tensor([2, 0]), "delay": torch.tensor([1, 0])}
        steer = continuing(Query({}, torch.zeros(2, dtype=torch.long), torch.ones(2), (), given), (8, 5))
        assert isinstance(steer, Pull) and steer.to.shape == (2, 8, 5)
        steers.append(steer(torch.ones(2, 8, 5), torch.full((2, 8, 5), 0.5), 1))
    assert torch.equal(steers[0], steers[1]) and torch.equal(steers[0], steers[2])
    assert torch.equal(steers[0][1], torch.full((8, 5), 0.5))


def test_settings_are_checked() -> None:
    for changes, said in (
        ({"until": 1.1}, "until: expected a number from 0 to 1"),
        ({"max_weight": 0}, "max_weight"),
    ):
        with pytest.raises(BadInput, match=f"policy.chunking.{said}"):
            RealTimeChunking(**changes)


VARIANTS = ("fast", "joint", "idm", "no_video")
POLICIES = (*VARIANTS, "lawam")


def policy_of(name: str, **changes: Any) -> nn.Module:
    made = (
        tiny_lawam.tiny_lawam if name == "lawam" else lambda **c: tiny_policy(tiny_config(variant=name, **c))
    )
    return made(sample_steps=6, **changes).eval()


def asked(policy: Any, previous: Tree, seeds: tuple[int, ...] = (0, 1, 2)) -> Query:
    made = tiny_lawam.query(3) if policy.config.kind == "lawam" else query_of(policy, 3)
    return replace(made, generators=seeded(seeds), previous=previous)


def left_over(policy: Any, left: tuple[int, ...], delay: tuple[int, ...]) -> Tree:
    """Actions as the policy would answer with other noise."""
    with torch.no_grad():
        chunks = policy.act(asked(policy, {}, (7, 8, 9)))
    exists = torch.arange(chunks.shape[1]) < torch.tensor(left)[:, None]
    return {"actions": chunks * exists[..., None], "left": torch.tensor(left), "delay": torch.tensor(delay)}


@pytest.mark.parametrize("name", POLICIES)
def test_a_chunk_continues_the_previous_one(name: str) -> None:
    """It is nearer to it than the chunk of the same noise that is told of none, and nearest in what is executed."""
    policy: Any = policy_of(name)
    horizon = policy.data.horizon
    previous = left_over(policy, (horizon - 1,) * 3, (2,) * 3)
    free, told = (policy.act(asked(policy, given)).detach() for given in ({}, previous))
    was, now = ((x - previous["actions"]).abs()[:, : horizon - 1].mean((0, 2)) for x in (free, told))
    assert (now[:2] < 0.3 * was[:2]).all() and (now < was).all()


@pytest.mark.parametrize("name", POLICIES)
def test_rows_do_not_know_of_each_other(name: str) -> None:
    """A row without a previous chunk is answered, to the last bit, as if no row had one."""
    policy: Any = policy_of(name)
    horizon = policy.data.horizon
    rows = left_over(policy, (0, horizon, 2), (0, horizon + 3, 1))
    free, mixed = policy.act(asked(policy, {})), policy.act(asked(policy, rows))
    assert torch.equal(mixed[0], free[0]) and not torch.equal(mixed[1], free[1])
    for row in (1, 2):
        others = {key: x[[row] * 3] for key, x in rows.items()}
        torch.testing.assert_close(policy.act(asked(policy, others))[row], mixed[row], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", POLICIES)
def test_every_pass_continues_it_alike(name: str) -> None:
    policy: Any = policy_of(name, chunking=RealTimeChunking("linear", 0.8, 6.0))
    passes = tuple(PASSES) if name == "lawam" else tuple(NEEDS)
    previous = left_over(policy, (0, policy.data.horizon, 3), (0, 1, 2))
    plain = policy.act(asked(policy, previous)).detach()
    for count in range(1, len(passes) + 1):
        found = policy.actor(passes[:count])(asked(policy, previous))
        torch.testing.assert_close(found, plain, rtol=0, atol=1e-5 * plain.abs().max().item())


def test_without_a_previous_chunk_nothing_is_computed_for_it() -> None:
    policy: Any = policy_of("fast")
    assert policy.continuing(policy.normalizer)(asked(policy, {}), (1, 1)) is unsteered

"""One episode: how it ends, what is asked, what is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from wamkit_client.envs.base import Task, project
from wamkit_client.rollout import Episode, EpisodeConfig, Outcome, rollout
from wamkit_client.types import ActionChunk, BadInput, Observation, Policy

from tests.client.toy import STEP, Reacher, Sleeper, Toy, ToyConfig


def toy() -> Toy:
    return ToyConfig().make(Task("reach", "please reach"))


def test_success_ends_an_episode() -> None:
    outcome = rollout(Reacher(), toy(), 1, EpisodeConfig(replan_steps=4, max_steps=40))
    assert outcome.success
    assert outcome.steps == pytest.approx(outcome.initial_state.vector[0] / STEP, abs=1)
    assert outcome.queries == -(-outcome.steps // 4)


def test_the_step_limit_ends_an_episode() -> None:
    outcome = rollout(Sleeper(), toy(), 1, EpisodeConfig(replan_steps=4, max_steps=10))
    assert (outcome.success, outcome.steps, outcome.queries) == (False, 10, 3)


def test_the_simulators_own_limit_ends_an_episode() -> None:
    outcome = rollout(Sleeper(), toy(), 1, EpisodeConfig(replan_steps=6, max_steps=1000))
    assert (outcome.success, outcome.steps) == (False, Toy.max_steps)


def test_a_policy_is_reset_and_asked_as_often_as_said() -> None:
    policy = Reacher()
    outcome = rollout(policy, toy(), 2, EpisodeConfig(replan_steps=2, max_steps=40))
    assert policy.resets == 1 and policy.batches == [1] * outcome.queries


def test_impossible_configs_are_refused() -> None:
    with pytest.raises(BadInput, match="at least 1"):
        EpisodeConfig(replan_steps=1, max_steps=0)


def test_a_chunk_of_another_robot_is_refused() -> None:
    episode = Episode(toy(), 0, EpisodeConfig(replan_steps=1, max_steps=5))
    episode.next_query()
    episode.answer(ActionChunk(np.zeros((2, 7))))
    with pytest.raises(BadInput, match=r"shape \(7,\), expected \(1,\)"):
        episode.next_query()


def test_a_recording_holds_every_step_and_query(tmp_path: Path) -> None:
    env, path = toy(), tmp_path / "episode.npz"
    episode = Episode(env, 5, EpisodeConfig(replan_steps=4, max_steps=40, record=True))
    policy = Reacher()
    while observation := episode.next_query():
        episode.answer(policy.act([observation])[0])
    episode.save(str(path))
    steps, queries = episode.outcome.steps, episode.outcome.queries
    with np.load(path, allow_pickle=False) as kept:
        assert kept["view_eye"].shape == (steps + 1, 16, 16, 3)
        assert kept["display"].shape == (steps + 1, 20, 30, 3)
        assert (kept["display"][:, 0, 0, 0] == np.arange(steps + 1)).all()
        assert kept["action"].shape == (steps, 1) and kept["proprio"].shape == (steps + 1, 1)
        moved = kept["proprio"][:-1] + STEP * np.clip(kept["action"], -1, 1)
        np.testing.assert_allclose(kept["proprio"][1:], moved, atol=1e-6)
        assert kept["query_step"].tolist() == list(range(0, steps, 4))
        assert kept["query_chunk"].shape == (queries, 6, 1) and kept["query_path"].shape == (queries, 6, 2)
        start = kept["proprio"][4, 0]
        expected = 10 * (start + STEP * np.cumsum(kept["query_chunk"][1, :, 0])) + 5
        np.testing.assert_allclose(kept["query_path"][1, :, 0], expected, rtol=1e-5)
        assert bool(kept["success"])
    assert list(tmp_path.iterdir()) == [path]


def test_recording_changes_nothing() -> None:
    outcomes = [
        rollout(Reacher(), toy(), 7, EpisodeConfig(replan_steps=3, max_steps=40, record=record))
        for record in (False, True)
    ]
    assert outcomes[0] == outcomes[1]


def test_points_behind_a_camera_have_no_pixel() -> None:
    matrix = np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]])
    pixels = project(matrix, np.array([[2.0, 4.0, 2.0], [2.0, 4.0, -2.0]]))
    np.testing.assert_allclose(pixels[0], [1, 2])
    assert np.isnan(pixels[1]).all()


class Counter(Policy):
    """Of its chunk q, action i is (10 q + i) / 1000: too little to get anywhere."""

    def __init__(self) -> None:
        self.asked: list[Observation] = []

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        self.asked += observations
        first = 10 * len(self.asked)
        return [ActionChunk(np.arange(first, first + 8, dtype=np.float32)[:, None] / 1000)]


HOLD = [0.0] * 3
LATENCY = {  # executor: when it asks, what is executed
    "sync": ([0, 7, 14], [*HOLD, 10, 11, 12, 13, *HOLD, 20, 21, 22, 23, *HOLD, 30]),
    "async": ([0, 4, 8, 12, 16], [*HOLD, 10, 11, 12, 13, 23, 24, 25, 26, 33, 34, 35, 36, 43, 44, 45]),
    "guided": ([0, 4, 8, 12, 16], [*HOLD, 10, 11, 12, 13, 23, 24, 25, 26, 33, 34, 35, 36, 43, 44, 45]),
}


@pytest.mark.parametrize("executor", LATENCY)
def test_a_delay_is_control_steps_between_a_query_and_its_answer(tmp_path: Path, executor: str) -> None:
    config = EpisodeConfig(4, 18, record=True, executor=executor, delay_ms=300)
    episode, policy = Episode(toy(), 5, config), Counter()
    while observation := episode.next_query():
        episode.answer(policy.act([observation])[0])
    episode.save(str(tmp_path / "episode.npz"))
    asked_at, executed = LATENCY[executor]
    with np.load(tmp_path / "episode.npz") as kept:
        assert kept["query_step"].tolist() == asked_at
        assert np.round(1000 * kept["action"].ravel(), 3).tolist() == executed
        assert len(kept["query_chunk"]) == episode.outcome.queries == len(policy.asked)
        start = kept["proprio"][asked_at[1], 0]  # a path begins where the query saw the hand
        assert kept["query_path"][1, 0, 0] == pytest.approx(10 * (start + STEP * 0.02) + 5)
    assert [seen.delay for seen in policy.asked[:2]] == ([0, 3] if executor == "guided" else [3, 3])
    assert policy.asked[0].previous.size == 0
    left = [np.round(1000 * seen.previous.ravel(), 3).tolist() for seen in policy.asked[1:3]]
    assert left == ([[11, 12, 13, 14, 15, 16, 17], [24, 25, 26, 27]] if executor == "guided" else [[], []])
    assert [(seen.episode, seen.step) for seen in policy.asked] == [("reach_5", step) for step in asked_at]
    assert outcome_of(config) == episode.outcome


def outcome_of(config: EpisodeConfig) -> Outcome:
    """Without a recording, and driven by `rollout`."""
    return rollout(Counter(), toy(), 5, replace(config, record=False))


def test_without_delay_it_does_not_matter_who_waits() -> None:
    outcomes = [
        rollout(Reacher(), toy(), 3, EpisodeConfig(4, 40, executor=executor))
        for executor in ("sync", "async", "guided")
    ]
    assert outcomes[0] == outcomes[1] == outcomes[2] and outcomes[0].success


def test_an_episode_says_how_it_was_executed() -> None:
    """At 10 Hz: the robot holds three steps at the beginning, and moves on while it asks for every other chunk."""
    seen = outcome_of(EpisodeConfig(4, 18, executor="async", delay_ms=300)).smoothness
    assert (seen.idle_s, seen.holds, seen.largest_staleness_ms) == (0.3, 1, 600)
    assert seen.staleness_ms == pytest.approx(100 * np.mean([3, 4, 5, 6] * 3 + [3, 4, 5]), abs=1e-3)
    executed = np.array(LATENCY["async"][1]) / 1000
    path = STEP * np.cumsum(executed)[3:]  # it begins with the first action
    assert seen.jerk == pytest.approx(10**3 * np.sqrt((np.diff(path, 3) ** 2).mean()), rel=1e-4)
    waiting = outcome_of(EpisodeConfig(4, 18, executor="sync", delay_ms=300)).smoothness
    assert (waiting.idle_s, waiting.holds) == (0.9, 3)


@pytest.mark.parametrize(("ms", "steps"), [(0, 0), (1, 1), (100, 1), (101, 2), (300, 3)])
def test_a_delay_is_rounded_up_to_control_steps(ms: float, steps: int) -> None:
    assert EpisodeConfig(4, 40, delay_ms=ms).delay_steps(hz=10) == steps


def test_an_unknown_executor_is_refused() -> None:
    with pytest.raises(
        BadInput, match="executor 'realtime' is unknown; expected one of sync, async, ensemble"
    ):
        EpisodeConfig(4, 40, executor="realtime")

"""Jerk against the closed form, and what is counted in an episode of holds and acts."""

from __future__ import annotations

import numpy as np
import pytest
from wamkit_client.chunk import Act, Hold
from wamkit_client.smoothness import Pace, jerk


def test_the_jerk_of_a_cubic_is_six_times_its_coefficient_whatever_the_rate() -> None:
    for hz in (20.0, 80.0):
        time = np.arange(40) / hz
        path = np.stack([2 * time**3 + time, 1.5 * time**3, 0 * time], axis=1)
        assert jerk(path, hz) == pytest.approx(6 * 2.5, rel=1e-6)


def test_a_uniform_motion_has_none_and_a_jump_has_much() -> None:
    time = np.arange(30)[:, None] / 20
    assert jerk(time, 20) == pytest.approx(0, abs=1e-6)
    # a step of 1 cm: third differences 0.01, -0.02, 0.01 among 27
    jump = 0.01 * (np.arange(30)[:, None] > 15)
    assert jerk(jump, 20) == pytest.approx(20**3 * 0.01 * np.sqrt(6 / 27), rel=1e-6)


def test_what_is_not_known_has_no_jerk() -> None:
    assert jerk(np.zeros((3, 2)), 20) is None
    assert jerk(np.full((9, 3), np.nan), 20) is None


def test_an_episode_of_holds_and_acts() -> None:
    pace, action = Pace(20), np.zeros(2)
    for decision in (Hold(), Hold(), Act(action, 2), Act(action, 3), Hold(), Act(action, 7.5)):
        pace.take(decision)
    path = np.zeros((6, 3))
    path[2:, 0] = [1, 2, 3, 4]  # uniform, once it has begun
    seen = pace.smoothness(path)
    assert (seen.jerk, seen.idle_s, seen.holds) == (0.0, 0.15, 2)
    assert seen.staleness_ms == pytest.approx(50 * 12.5 / 3, abs=1e-3)
    assert seen.largest_staleness_ms == 375.0


def test_an_episode_that_never_moved() -> None:
    pace = Pace(10)
    pace.take(Hold())
    seen = pace.smoothness(np.zeros((1, 3)))
    assert (seen.jerk, seen.idle_s, seen.holds, seen.staleness_ms) == (None, 0.1, 1, None)

"""Limits of actions: what passes, what is changed, and how it is counted."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest
from wamkit_client.limits import Limited, Limiter, Limits
from wamkit_client.types import BadInput

NAMES = ("pan", "gripper")
LIMITS = Limits(NAMES, (-1.0, 0.0), (1.0, 1.0), (0.3, inf))


def test_a_range_and_a_speed() -> None:
    limit = Limiter(LIMITS, np.zeros(2))
    asked = [(0.2, 0.0), (0.9, 1.5), (2.0, 1.0), (2.0, 0.5)]
    told = [limit(np.array(action, np.float32)) for action in asked]
    np.testing.assert_allclose(told, [(0.2, 0), (0.5, 1), (0.8, 1), (1.0, 0.5)], atol=1e-6)
    assert told[0].dtype == np.float32
    pan, gripper = limit.report()
    assert (pan.name, pan.clamped, pan.slowed) == ("pan", 2, 2)
    assert (pan.clamped_by, pan.slowed_by) == pytest.approx((1.0, 0.4))
    assert gripper == Limited("gripper", 1, 0.5, 0, 0.0)


def test_changes_count_from_what_somebody_else_told_the_robot() -> None:
    limit = Limiter(LIMITS, np.array([0.9, 0]))
    limit.begin(np.array([-0.5, 0]))
    np.testing.assert_allclose(limit(np.array([0.9, 0])), [-0.2, 0], atol=1e-6)


def test_a_robot_outside_of_its_range_returns_at_its_speed() -> None:
    limit = Limiter(LIMITS, np.array([2.0, 0]))
    assert [round(float(limit(np.array([1.5, 0]))[0]), 6) for _ in range(5)] == [1.7, 1.4, 1.1, 1.0, 1.0]


def test_rounding_is_no_change() -> None:
    """A policy that moves exactly as fast as allowed, in float32."""
    limit = Limiter(LIMITS, np.zeros(2))
    for step in range(1, 4):
        limit(np.array([0.3 * step, 1.0]).astype(np.float32))
    limit(np.array([1.0, 1.0], np.float32))
    assert [(one.clamped, one.slowed) for one in limit.report()] == [(0, 0), (0, 0)]


def test_nothing_is_limited_unless_said() -> None:
    limit = Limiter(Limits.none(NAMES), np.zeros(2))
    np.testing.assert_array_equal(limit(np.array([1e9, -1e9])), np.array([1e9, -1e9], np.float32))


@pytest.mark.parametrize("action", [np.array([np.nan, 0]), np.array([0, inf]), np.zeros(3), np.zeros((1, 2))])
def test_what_is_no_action_is_refused(action: np.ndarray) -> None:
    limit = Limiter(LIMITS, np.zeros(2))
    with pytest.raises(BadInput, match=r"expected 2 finite numbers \(pan, gripper\)"):
        limit(action)


@pytest.mark.parametrize(
    ("low", "high", "change", "said"),
    [
        ((0.0,), (1.0, 1.0), (1.0, 1.0), "low has 1 numbers"),
        ((0.0, 0.0), (1.0, 1.0), (1.0,), "largest_change has 1 numbers"),
        ((0.0, 1.0), (1.0, 1.0), (1.0, 1.0), "limits of gripper: from 1 to 1"),
        ((0.0, 0.0), (1.0, 1.0), (0.0, 1.0), "limits of pan"),
        ((float("nan"), 0.0), (1.0, 1.0), (1.0, 1.0), "limits of pan"),
    ],
)
def test_impossible_limits_are_refused(low: tuple, high: tuple, change: tuple, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        Limits(NAMES, low, high, change)

"""The line that says where a robot is after its actions."""

from __future__ import annotations

import numpy as np

from wamkit.analysis.motion import Motion


def moving(seed: int, steps: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """One number is pushed by the first action, one goes halfway to the second, one is always zero."""
    rng = np.random.default_rng(seed)
    actions = rng.normal(size=(steps, 2)).astype(np.float32)
    proprio = np.zeros((steps + 1, 3), np.float32)
    for t, (push, place) in enumerate(actions):
        proprio[t + 1] = proprio[t] + [0.5 * push - 0.1, 0.5 * (place - proprio[t, 1]), 0]
    return proprio, actions


def test_a_linear_robot_is_told_exactly() -> None:
    motion = Motion.fit([moving(0), moving(1)])
    proprio, actions = moving(2)
    after = motion.after(proprio[3], actions[3:20])
    assert after.dtype == np.float32 and np.allclose(after, proprio[20], atol=1e-4)
    assert np.array_equal(motion.after(proprio[3], actions[:0]), proprio[3])


def test_an_action_after_the_last_image_counts_for_nothing() -> None:
    proprio, actions = moving(0)
    longer = np.concatenate([actions, np.full((1, 2), 100, np.float32)])
    assert np.array_equal(Motion.fit([(proprio, actions)]).weights, Motion.fit([(proprio, longer)]).weights)


def test_numbers_that_never_change_are_left_alone() -> None:
    still = np.ones((10, 3), np.float32), np.zeros((9, 2), np.float32)
    motion = Motion.fit([still])
    assert np.allclose(motion.after(still[0][0], still[1]), 1, atol=1e-5)


def test_a_policy_without_proprio_has_none() -> None:
    motion = Motion.fit([(np.zeros((10, 0), np.float32), np.ones((9, 2), np.float32))])
    assert motion.after(np.zeros(0, np.float32), np.ones((4, 2), np.float32)).shape == (0,)

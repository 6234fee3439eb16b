"""RoboTwin's words in ours: layouts, quaternions, observations."""

from __future__ import annotations

import numpy as np
import pytest
from wamkit_client.envs.robotwin.conventions import (
    TASKS,
    Layout,
    RoboTwinConfig,
    for_simulator,
    from_simulator,
    layout_of,
)
from wamkit_client.types import BadInput

from wamkit.recipes.robotwin import ACTIONS


def test_layouts_are_told_by_their_names() -> None:
    assert layout_of(ACTIONS.names) == Layout("joint", 6)
    poses = Layout("ee", 7)
    assert layout_of(poses.names) == poses and poses.names[3:8] == (
        "left_qw",
        "left_qx",
        "left_qy",
        "left_qz",
        "left_gripper",
    )
    franka = Layout("joint", 7)  # sixteen numbers too
    assert layout_of(franka.names) == franka and len(franka.names) == len(poses.names)
    for names in (ACTIONS.names[:-1], ACTIONS.names[7:] + ACTIONS.names[:7], ("x",), ()):
        with pytest.raises(BadInput, match="are not RoboTwin's"):
            layout_of(names)


@pytest.mark.parametrize(("shape", "word"), [(Layout("joint", 6), "qpos"), (Layout("ee", 7), "ee")])
def test_actions_reach_the_simulator_in_its_order(shape: Layout, word: str) -> None:
    row = np.arange(1, len(shape.names) + 1, dtype=np.float32)
    vector, said = for_simulator(shape.action(row))
    assert said == word
    if word == "ee":
        for first in (3, 11):
            row[first : first + 4] /= np.linalg.norm(row[first : first + 4])
    np.testing.assert_allclose(vector, row, rtol=1e-6)
    with pytest.raises(BadInput, match="an action has shape"):
        shape.action(row[:-1])


def test_no_direction_is_refused() -> None:
    with pytest.raises(BadInput, match="is no direction"):
        Layout("ee", 7).action(np.zeros(16, np.float32))


def test_an_observation_without_joints_says_what_to_switch_on() -> None:
    with pytest.raises(BadInput, match="no 'endpose'; switch it on in the task config's data_type"):
        from_simulator({"observation": {}, "joint_action": {}})
    assert from_simulator({"observation": {}, "joint_action": {}, "endpose": {}}) == {
        "vision": {},
        "state": {},
    }


def test_the_protocol() -> None:
    assert len(set(TASKS)) == 50 and sorted(TASKS) == list(TASKS)
    env = RoboTwinConfig("demo_clean")
    assert env.first_seed == 4_300_000 and RoboTwinConfig.from_json(env.to_json()) == env
    with pytest.raises(BadInput, match="--robotwin"):
        env.prepare()

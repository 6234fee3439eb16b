"""A policy asked at a lower rate: its actions divided, which is the inverse of composing them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from wamkit_client.types import ActionChunk, BadInput, Observation, Policy

from tests.policies.tiny_policy import SPEC
from wamkit.data.actions import ActionSpace
from wamkit.data.composed import composed
from wamkit.eval.evaluate import EvalConfig
from wamkit.infer.divided import Divided, divided

SPACE = ActionSpace(
    ("dx", "rx", "ry", "rz", "x", "gripper"),
    ("delta", "rotation", "rotation", "rotation", "absolute", "gripper"),
)


def test_parts_do_what_the_whole_does():
    actions = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    parts = divided(actions, 4, SPACE)
    assert parts.shape == (20, 6) and np.allclose(parts[:4, 4:], actions[0, 4:])
    assert np.allclose(parts[:4, 0], actions[0, 0] / 4)
    back = composed(torch.from_numpy(parts), 4, SPACE, radians=1.0).numpy()
    assert np.allclose(back, actions, atol=1e-5)
    assert np.array_equal(divided(actions, 1, SPACE), actions)


def test_the_policy_is_asked_as_the_other_robot():
    asked = []

    class Ones(Policy):
        def act(self, observations):
            asked.extend(o.embodiment for o in observations)
            return [ActionChunk(np.ones((3, 2), np.float32), displacements=(0,)) for _ in observations]

    robots = {"robot-5hz": replace(SPEC, hz=5.0, frame_times=(0.0, 0.4, 0.8, 1.2, 1.6))}
    slow = Divided(Ones(), robots, "robot-5hz", ActionSpace(("x", "grip"), ("delta", "gripper")), SPEC.hz)
    (chunk,) = slow.act([Observation({}, np.zeros(3, np.float32), "slide it", "robot")])
    assert asked == ["robot-5hz"] and chunk.actions.tolist() == [[0.5, 1.0]] * 6
    assert chunk.displacements == (0,)


def test_what_cannot_be_divided():
    with pytest.raises(BadInput, match=r"eval\.robot: 'slow' is not of the policy's mixture; it has none"):
        Divided(Policy(), {}, "slow", SPACE, 10.0)
    robots = {"slow": replace(SPEC, hz=4.0, frame_times=(0.0, 0.5), chunk_seconds=0.5)}
    with pytest.raises(BadInput, match="acts at 4 Hz, which does not divide the 10 Hz"):
        Divided(Policy(), robots, "slow", SPACE, 10.0)
    with pytest.raises(
        BadInput, match=r"goes with eval\.executor sync and eval\.delay_ms 0 alone, got async and 50"
    ):
        EvalConfig(robot="slow", executor="async", delay_ms=50)

"""Policies without a model."""

from __future__ import annotations

import numpy as np
import pytest
from wamkit_client.bringup import DummyPolicy, ReplayPolicy
from wamkit_client.types import BadInput, Observation

SEEN = Observation({}, np.zeros(2, np.float32), "wave", "arm")


def test_a_dummy_says_the_same_to_everybody() -> None:
    policy = DummyPolicy(np.array([0.0, 1.0]), horizon=3)
    for chunk in policy.act([SEEN, SEEN]):
        np.testing.assert_array_equal(chunk.actions, [[0, 1]] * 3)
        assert chunk.actions.dtype == np.float32
        chunk.actions[:] = 9
    assert policy.act([SEEN])[0].actions.max() == 1


def test_a_recording_is_played_once_from_its_beginning() -> None:
    recorded = np.arange(14.0).reshape(7, 2)
    policy = ReplayPolicy(recorded, executed=3, after=np.array([0.0, 13.0]))
    for _ in range(2):
        chunks = [policy.act([SEEN])[0] for _ in range(3)]
        played = np.concatenate([chunk.actions for chunk in chunks])
        np.testing.assert_array_equal(played, [*recorded, [0, 13], [0, 13]])
        assert [chunk.info["step"] for chunk in chunks] == [0, 3, 6]
        with pytest.raises(BadInput, match="over after 7 actions; a reset begins it again"):
            policy.act([SEEN])
        policy.reset()
    with pytest.raises(BadInput, match="one robot, and was asked about 2"):
        policy.act([SEEN, SEEN])

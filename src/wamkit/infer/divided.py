"""A policy asked at a lower rate than its robot runs at: each of its actions is divided among several control steps.

The inverse of data at a lower rate (data/composed.py): displacements and turns are divided into equal parts, everything
else is held (LaWAM spec 6.7).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from wamkit_client.types import ActionChunk, BadInput, Observation, Policy

from wamkit.data.actions import RELATIVE, ActionSpace
from wamkit.types import DataSpec


def divided(actions: np.ndarray, by: int, space: ActionSpace) -> np.ndarray:
    """[k, a] -> [k * by, a]: for each action `by` of them that do the same."""
    share = np.array([by if kind in RELATIVE else 1 for kind in space.kinds], np.float32)
    return np.repeat(actions / share, by, axis=0)


class Divided(Policy):
    """A policy as it acts for `robot`, one of `robots`, its mixture, in the steps of a robot at `hz`.

    space: what its actions mean. Raises BadInput for a robot that it does not know, or at no part of that rate.
    """

    def __init__(
        self, policy: Policy, robots: Mapping[str, DataSpec], robot: str, space: ActionSpace, hz: float
    ) -> None:
        if robot not in robots:
            known = ", ".join(robots) or "none, since it was not trained on a mixture of robots"
            raise BadInput(f"eval.robot: {robot!r} is not of the policy's mixture; it has {known}")
        rate = robots[robot].hz
        self.by = round(hz / rate)
        if self.by < 1 or abs(self.by * rate - hz) > 1e-6:
            raise BadInput(
                f"eval.robot: {robot!r} acts at {rate:g} Hz, which does not divide the {hz:g} Hz of the environment"
            )
        self.policy, self.robot, self.space = policy, robot, space

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        """One chunk per observation, in control steps of the environment."""
        if any(len(observation.previous) for observation in observations):
            raise BadInput(
                "eval.robot: what is left of a chunk is known in the environment's steps, not in the robot's; use the "
                "executor sync without a delay, or act as the environment's robot"
            )
        asked = [replace(observation, embodiment=self.robot) for observation in observations]
        chunks = self.policy.act(asked)
        return [replace(chunk, actions=divided(chunk.actions, self.by, self.space)) for chunk in chunks]

    def reset(self) -> None:
        """As the policy."""
        self.policy.reset()

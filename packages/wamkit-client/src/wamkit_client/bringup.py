"""Policies without a model, to bring up a robot: one that always says the same, one that plays a recorded episode."""

from __future__ import annotations

from typing import List, Sequence

import numpy as np

from wamkit_client.types import ActionChunk, BadInput, Observation, Policy


class DummyPolicy(Policy):
    """Answers every observation with `action` [a], `horizon` times.

    Which action keeps a robot still only its owner knows: zeros do for displacements, and not for joint targets.
    """

    def __init__(self, action: np.ndarray, horizon: int) -> None:
        self._actions = np.repeat(np.asarray(action, np.float32)[None], horizon, 0)

    def act(self, observations: Sequence[Observation]) -> List[ActionChunk]:
        return [ActionChunk(self._actions.copy()) for _ in observations]

    def reset(self) -> None:
        """No-op: every answer is the same."""


class ReplayPolicy(Policy):
    """Plays the actions [t, a] of a recorded episode to one robot, whatever it sees.

    executed: how many actions a chunk has, all of which the robot must execute before it asks again: executor "sync".
    after: [a], what keeps the robot still after the last action; it fills the last chunk up. `info` says at which
    `step` of the recording a chunk begins. There is no further chunk before `reset`.
    """

    def __init__(self, actions: np.ndarray, executed: int, after: np.ndarray) -> None:
        self._length, self._executed = len(actions), executed
        rest = np.repeat(np.asarray(after, np.float32)[None], executed - 1, 0)
        self._actions = np.concatenate([np.asarray(actions, np.float32), rest])
        self._step = 0

    def act(self, observations: Sequence[Observation]) -> List[ActionChunk]:
        """The next chunk. BadInput after the last one, and for several robots at once."""
        if len(observations) != 1:
            raise BadInput(f"a recording moves one robot, and was asked about {len(observations)} at once")
        step = self._step
        if step >= self._length:
            raise BadInput(f"the recording is over after {self._length} actions; a reset begins it again")
        self._step += self._executed
        return [ActionChunk(self._actions[step : self._step].copy(), {"step": step})]

    def reset(self) -> None:
        """From the first action on."""
        self._step = 0

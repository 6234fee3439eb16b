"""When to ask for a chunk and which action runs now: execute `replan_steps` actions of a chunk, then ask again.

Knows arrays only: no policy, no environment, no clock.
"""

from __future__ import annotations

import numpy as np

from wamkit_client.types import ActionChunk, BadInput


class ChunkExecutor:
    """Synchronous execution: the robot waits while the policy thinks.

    needs_chunk: True at the beginning and whenever `replan_steps` actions of the chunk have been taken.
    """

    def __init__(self, replan_steps: int) -> None:
        if replan_steps < 1:
            raise BadInput(f"replan_steps is {replan_steps}, expected at least 1")
        self._replan_steps = replan_steps
        self._actions = np.zeros((0, 0), np.float32)
        self._taken = replan_steps

    @property
    def needs_chunk(self) -> bool:
        return self._taken == self._replan_steps

    def give(self, chunk: ActionChunk) -> None:
        """A fresh chunk, actions [k, a]; BadInput when k < replan_steps, for other shapes, NaN or infinity."""
        actions = np.asarray(chunk.actions)
        if actions.ndim != 2:
            raise BadInput(f"a chunk has shape {actions.shape}, expected [k, a]: one row per control step")
        if len(actions) < self._replan_steps:
            raise BadInput(
                f"a chunk has {len(actions)} actions but replan_steps is {self._replan_steps}; "
                f"set replan_steps to {len(actions)} or less"
            )
        if not np.isfinite(actions).all():
            raise BadInput("a chunk holds NaN or infinity: the policy's output is broken")
        self._actions, self._taken = actions, 0

    def next_action(self) -> np.ndarray:
        """The action [a] to execute now."""
        if self.needs_chunk:
            raise RuntimeError("next_action without a chunk; give one while needs_chunk is True")
        action: np.ndarray = self._actions[self._taken]
        self._taken += 1
        return action

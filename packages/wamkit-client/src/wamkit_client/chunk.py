"""Which action a robot executes now, and when its policy is asked for the next chunk.

An executor is asked once per control step and answers Act, Hold or Ask. Ask says that a query is due; asked again in
the same step it then answers Act or Hold, so that the robot can move while the policy thinks. Whoever drives the robot
gives the chunk when it arrives. Knows arrays only: no policy, no environment, no clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Type, Union

import numpy as np

from wamkit_client.types import ActionChunk, BadInput


@dataclass(frozen=True)
class Act:
    """Execute `action` [a] in this control step."""

    action: np.ndarray


@dataclass(frozen=True)
class Hold:
    """There is nothing to execute: keep still in this control step."""


@dataclass(frozen=True)
class Ask:
    """Ask the policy about what the robot sees now.

    prefix: [n, a], n <= delay, actions that are executed before the answer arrives, whatever it is.
    delay: control steps from now until the answer is expected.
    """

    prefix: np.ndarray
    delay: int


class Executor:
    """replan_steps: actions executed of every chunk.  delay: control steps from a query to its answer.

    needed: actions that every chunk must have.  BadInput for impossible numbers.
    """

    def __init__(self, replan_steps: int, delay: int = 0) -> None:
        if replan_steps < 1 or delay < 0:
            raise BadInput(
                f"replan_steps is {replan_steps} and the delay {delay} steps, expected at least 1 and at least 0"
            )
        self._replan_steps, self._delay = replan_steps, delay
        self.needed = replan_steps
        self._plan = np.zeros((0, 0), np.float32)  # [n, a]: what may still be executed of the newest chunk
        self._waiting = False  # for the answer to a query

    def next(self) -> Union[Act, Hold, Ask]:
        """What happens in this control step."""
        raise NotImplementedError

    def give(self, chunk: ActionChunk) -> None:
        """The answer to the last Ask. BadInput as of `checked`."""
        raise NotImplementedError

    def _take(self) -> Union[Act, Hold]:
        if not len(self._plan):
            return Hold()
        action, self._plan = self._plan[0], self._plan[1:]
        return Act(action)


class SyncExecutor(Executor):
    """The robot waits while the policy thinks: a query follows the last of `replan_steps` actions."""

    def next(self) -> Union[Act, Hold, Ask]:
        if len(self._plan) or self._waiting:
            return self._take()
        self._waiting = True
        return Ask(self._plan, self._delay)

    def give(self, chunk: ActionChunk) -> None:
        self._plan, self._waiting = checked(chunk, self.needed)[: self._replan_steps], False


class AsyncExecutor(Executor):
    """The robot goes on with its chunk while the policy thinks (naive asynchronous execution).

    A query precedes the last of `replan_steps` actions by `delay` steps. Of its answer one action is dropped for every
    action executed since, because their time has passed. While an answer is late, the robot goes on with what the
    present chunk has beyond `replan_steps`, and then holds.
    """

    def __init__(self, replan_steps: int, delay: int = 0) -> None:
        super().__init__(replan_steps, delay)
        if delay > replan_steps:
            raise BadInput(
                f"the delay is {delay} steps but replan_steps is {replan_steps}: answers would come later than they "
                f"are needed; set replan_steps to {delay} or more"
            )
        self.needed = replan_steps + delay
        self._until_query = 0  # actions to execute before the next query
        self._passed = 0  # actions executed since the last query

    def next(self) -> Union[Act, Hold, Ask]:
        due = self._until_query <= 0 or not len(self._plan)
        if due and not self._waiting:
            self._waiting, self._passed = True, 0
            return Ask(self._plan[: self._delay], self._delay)
        decision = self._take()
        if isinstance(decision, Act):
            self._passed += 1
            self._until_query -= 1
        return decision

    def give(self, chunk: ActionChunk) -> None:
        self._plan = checked(chunk, self.needed)[self._passed :]
        self._waiting, self._until_query = False, self._replan_steps - self._delay


EXECUTORS: Dict[str, Type[Executor]] = {"sync": SyncExecutor, "async": AsyncExecutor}


def checked(chunk: ActionChunk, needed: int) -> np.ndarray:
    """The actions [k, a] of a chunk. BadInput when k < needed, for other shapes, NaN or infinity."""
    actions = np.asarray(chunk.actions)
    if actions.ndim != 2:
        raise BadInput(f"a chunk has shape {actions.shape}, expected [k, a]: one row per control step")
    if len(actions) < needed:
        raise BadInput(
            f"a chunk has {len(actions)} actions, expected at least {needed} (replan_steps, and the delay of an "
            f"asynchronous executor); lower replan_steps by {needed - len(actions)} or more"
        )
    if not np.isfinite(actions).all():
        raise BadInput("a chunk holds NaN or infinity: the policy's output is broken")
    return actions

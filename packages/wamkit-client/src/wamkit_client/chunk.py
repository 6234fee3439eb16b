"""Which action a robot executes now, and when its policy is asked for the next chunk.

An executor is asked once per control step and answers Act, Hold or Ask. Ask says that a query is due; asked again in
the same step it then answers Act or Hold, so that the robot can move while the policy thinks. Whoever drives the robot
gives the chunk when it arrives, before the step that it arrives for. Knows arrays and control steps only: no policy, no
environment, no clock.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Deque, Dict, List, Literal, Type, Union

import numpy as np

from wamkit_client.types import WHOLE, ActionChunk, BadInput

DECAY = 0.01
"""Of the weights of temporal ensembling, as ACT has it (arXiv 2304.13705, algorithm 2)."""
COUNTED, SHARE = 32, 0.9
"""The expected delay: no more than this share of the last answers took longer."""
NOTHING = np.zeros((0, 0), np.float32)


@dataclass(frozen=True)
class Act:
    """Execute `action` [a] in this control step. age: control steps since the observation it was computed from, the
    weighted mean where it was computed from several."""

    action: np.ndarray
    age: float


@dataclass(frozen=True)
class Hold:
    """There is nothing to execute: keep still in this control step."""


@dataclass(frozen=True)
class Ask:
    """Ask the policy about what the robot sees now.

    previous: [n, a], what is left of the present chunk from now on, for a policy that continues it; its first `delay`
    rows are executed whatever the answer is. n = 0: nothing to continue.
    delay: control steps from now until the answer is expected to be used.
    """

    previous: np.ndarray
    delay: int


class Delays:
    """How many control steps answers take. expected: what is said before one was counted, afterwards what was measured.

    The first answer is not counted: a policy compiles and warms up while it is made.
    """

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self._answers = 0
        self._last: Deque[int] = deque(maxlen=COUNTED)

    def add(self, steps: int) -> None:
        """An answer took this many control steps."""
        self._answers += 1
        if self._answers > 1:
            self._last.append(steps)
            self.expected = sorted(self._last)[math.ceil(SHARE * len(self._last)) - 1]


class Executor:
    """replan_steps: actions executed of every chunk.

    delay: control steps that an answer is expected to take, until some have been measured.
    decay: of the weights of an ensemble, which no other executor has.
    needed: actions that every chunk must have.  wanted: how many of its actions are used at most.
    BadInput for impossible numbers.
    """

    wanted = WHOLE

    def __init__(self, replan_steps: int, delay: int = 0, decay: float = DECAY) -> None:
        if replan_steps < 1 or delay < 0:
            raise BadInput(
                f"replan_steps is {replan_steps} and the delay {delay} steps, expected at least 1 and at least 0"
            )
        if not math.isfinite(decay):
            raise BadInput(f"the ensemble's decay is {decay}, expected a finite number")
        self.needed = replan_steps
        self._replan_steps, self._decay = replan_steps, decay
        self._delays = Delays(delay)
        self.reset()

    def reset(self) -> None:
        """A new episode begins: nothing is planned. The measured delays are kept."""
        self._step = 0  # control steps of the episode so far
        self._waiting = False  # for the answer to a query
        self._asked = 0  # the step of the last query
        self._executed: List[np.ndarray] = []  # actions since the last query

    def next(self) -> Union[Act, Hold, Ask]:
        """What happens in this control step."""
        if not self._waiting and self._due():
            self._waiting, self._asked, self._executed = True, self._step, []
            return self._question()
        decision = self._decide()
        self._step += 1
        if isinstance(decision, Act):
            self._executed.append(decision.action)
        return decision

    def give(self, chunk: ActionChunk) -> None:
        """The answer to the last Ask. BadInput as of `checked`."""
        actions = checked(chunk, self.needed)
        self._delays.add(self._step - self._asked)
        self._waiting = False
        self._take(actions, list(chunk.displacements))

    def _due(self) -> bool:
        """Whether the policy is to be asked now, if it is not thinking already."""
        raise NotImplementedError

    def _question(self) -> Ask:
        return Ask(NOTHING, self._delays.expected)

    def _decide(self) -> Union[Act, Hold]:
        raise NotImplementedError

    def _take(self, actions: np.ndarray, displacements: List[int]) -> None:
        """The actions [k, a] of the answer have arrived; those dimensions of them are displacements."""
        raise NotImplementedError


class _OneChunk(Executor):
    """Executes one chunk at a time."""

    def reset(self) -> None:
        super().reset()
        self._plan = NOTHING  # [n, a]: what may still be executed of the newest chunk
        self._seen = 0  # the step of the observation that it was computed from

    def _decide(self) -> Union[Act, Hold]:
        if not len(self._plan):
            return Hold()
        action, self._plan = self._plan[0], self._plan[1:]
        return Act(action, self._step - self._seen)


class SyncExecutor(_OneChunk):
    """The robot waits while the policy thinks: a query follows the last of `replan_steps` actions."""

    def __init__(self, replan_steps: int, delay: int = 0, decay: float = DECAY) -> None:
        super().__init__(replan_steps, delay, decay)
        self.wanted = replan_steps

    def _due(self) -> bool:
        return not len(self._plan)

    def _take(self, actions: np.ndarray, displacements: List[int]) -> None:
        self._plan, self._seen = actions[: self._replan_steps], self._asked


class AsyncExecutor(_OneChunk):
    """The robot goes on with its chunk while the policy thinks (naive asynchronous execution).

    A query precedes the last of `replan_steps` actions by the expected delay. Of its answer one action is dropped for
    every action executed since, because their time has passed. Where actions are displacements, the robot is then not
    where the answer takes it to be: what the executed ones lack of the dropped ones is spread over the next
    `replan_steps`, so that the robot arrives where the answer leads. While an answer is late, it goes on with what the
    present chunk has beyond `replan_steps`, and then holds. BadInput for a delay beyond `replan_steps`.
    """

    def __init__(self, replan_steps: int, delay: int = 0, decay: float = DECAY) -> None:
        super().__init__(replan_steps, delay, decay)
        if delay > replan_steps:
            raise BadInput(
                f"the delay is {delay} steps but replan_steps is {replan_steps}: answers would come later than they "
                f"are needed; set replan_steps to {delay} or more"
            )
        self.needed = replan_steps + delay

    def reset(self) -> None:
        super().reset()
        self._begun = 0  # the step from which the present chunk is executed

    def _due(self) -> bool:
        before = self._replan_steps - self._delays.expected
        return not len(self._plan) or self._step - self._begun >= before

    def _take(self, actions: np.ndarray, displacements: List[int]) -> None:
        passed = len(self._executed)
        plan = actions[passed:].copy()
        if passed and len(plan):
            lacking = actions[:passed, displacements].sum(0) - np.sum(self._executed, axis=0)[displacements]
            plan[: self._replan_steps, displacements] += lacking / min(len(plan), self._replan_steps)
        self._plan, self._seen, self._begun = plan, self._asked, self._step


class GuidedExecutor(AsyncExecutor):
    """As AsyncExecutor, for a policy that continues the present chunk (real-time chunking, arXiv 2506.07339).

    It is told all that is left of it. The delay never exceeds what is left, and nothing is made up beyond: a row of
    zeros would stand for an action.
    """

    def _question(self) -> Ask:
        return Ask(self._plan, min(self._delays.expected, len(self._plan)))


@dataclass(frozen=True)
class _Given:
    """actions [k, a], of which the first is that of the `begins`-th action of the episode; seen: step of the
    observation."""

    actions: np.ndarray
    begins: int
    seen: int


class EnsembleExecutor(Executor):
    """Temporal ensembling as of ACT: an action is the mean of what all chunks say that cover its time.

    The oldest chunk has the weight 1, the i-th after it exp(-decay i); 0: all weigh the same, below 0 the newest most.
    The policy is asked every `replan_steps` actions (ACT: 1), or as soon as it has answered. While an answer is late,
    older chunks go on, and then the robot holds. Numbers are averaged one by one: not meant for quaternions.
    """

    def __init__(self, replan_steps: int, delay: int = 0, decay: float = DECAY) -> None:
        super().__init__(replan_steps, delay, decay)
        self.needed = max(replan_steps, delay) + delay

    def reset(self) -> None:
        super().reset()
        self._now = 0  # actions executed in this episode
        self._chunks: List[_Given] = []  # the oldest first

    def _due(self) -> bool:
        return not self._covering() or len(self._executed) >= self._replan_steps

    def _covering(self) -> List[_Given]:
        """The chunks that have an action for now."""
        self._chunks = [given for given in self._chunks if self._now < given.begins + len(given.actions)]
        return self._chunks

    def _decide(self) -> Union[Act, Hold]:
        covering = self._covering()
        if not covering:
            return Hold()
        weights = np.exp(-self._decay * np.arange(len(covering)))
        weights /= weights.sum()
        said = np.stack([given.actions[self._now - given.begins] for given in covering])
        age = float(weights @ [self._step - given.seen for given in covering])
        self._now += 1
        return Act((weights @ said).astype(said.dtype), age)

    def _take(self, actions: np.ndarray, displacements: List[int]) -> None:
        self._chunks.append(_Given(actions, self._now - len(self._executed), self._asked))


ExecutorName = Literal["sync", "async", "ensemble", "guided"]
EXECUTORS: Dict[str, Type[Executor]] = {
    "sync": SyncExecutor,
    "async": AsyncExecutor,
    "ensemble": EnsembleExecutor,
    "guided": GuidedExecutor,
}


def checked(chunk: ActionChunk, needed: int) -> np.ndarray:
    """The actions [k, a] of a chunk. BadInput when k < needed, for other shapes, NaN or infinity."""
    actions = np.asarray(chunk.actions)
    if actions.ndim != 2:
        raise BadInput(f"a chunk has shape {actions.shape}, expected [k, a]: one row per control step")
    if len(actions) < needed:
        raise BadInput(
            f"a chunk has {len(actions)} actions, expected at least {needed} (replan_steps, and the delay of an "
            f"executor that does not wait); lower replan_steps by {needed - len(actions)} or more"
        )
    if not np.isfinite(actions).all():
        raise BadInput("a chunk holds NaN or infinity: the policy's output is broken")
    return actions

"""The loop that drives a robot: at a fixed rate it observes, asks the policy, and acts on its chunks within limits.

The policy is asked from a thread of its own (background.py); which action is due, an executor decides (chunk.py); what
the robot is told at most, limits.py. The loop knows one robot and its clock. Whether people are near is not its
business: an emergency stop is the robot's own, in hardware.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, replace
from typing import Callable, Union

import numpy as np

from wamkit_client.background import Background
from wamkit_client.chunk import Act, Ask, Executor, Hold
from wamkit_client.journal import DriveReport, Journal
from wamkit_client.limits import Limiter, Limits
from wamkit_client.rollout import Questions
from wamkit_client.signals import stop_request
from wamkit_client.types import BadInput, Observation, Policy


class Robot:
    """A robot behind three methods, all of which are called from the thread that runs the loop and should not wait."""

    def observe(self) -> Observation:
        """What it sees and measures now: its newest images, in RGB, in arrays that nobody writes to afterwards."""
        raise NotImplementedError

    def act(self, action: np.ndarray) -> None:
        """Begin to execute an action [a], float32, physical units: what the policy was trained on."""
        raise NotImplementedError

    def stop(self) -> np.ndarray:
        """Keep still from now on, with power, until the next `act`: the action [a] that does so.

        Called before the first action, in every control step without one, and at the end, whatever ends the episode.
        For joint targets that is the present target, for displacements zeros and the gripper as it was told.
        """
        raise NotImplementedError


class Dry(Robot):
    """A robot that observes and keeps still; the report says what it would have been told, and what limits did."""

    def __init__(self, robot: Robot) -> None:
        self._robot = robot

    def observe(self) -> Observation:
        return self._robot.observe()

    def act(self, action: np.ndarray) -> None:
        """Not executed."""
        self._robot.stop()

    def stop(self) -> np.ndarray:
        return self._robot.stop()


class Clock:
    """Seconds since anything."""

    def now(self) -> float:
        return time.monotonic()

    def wait(self, until: float) -> None:
        """Return at that time, or at once where it has passed."""
        seconds = until - self.now()
        if seconds > 0:
            time.sleep(seconds)


@dataclass(frozen=True)
class ControlConfig:
    """hz: control steps per second, the rate that the policy was trained at.  max_steps: of an episode.

    seed: of a sampling policy's noise.  BadInput for numbers that are not above 0.
    """

    hz: float
    max_steps: int
    limits: Limits
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.hz < float("inf") or self.max_steps < 1:
            raise BadInput(f"hz is {self.hz:g} and max_steps {self.max_steps}, expected numbers above 0")


def never() -> bool:
    """An episode ends at its last control step."""
    return False


class ControlLoop:
    """One episode of a robot: `run` drives it, `report` says what came of it, also where `run` raised.

    executor: keeps the delays that it has measured; the same one may serve several episodes, one after the other.
    until: asked before every control step whether the episode is over, by success for instance.
    """

    def __init__(
        self,
        robot: Robot,
        policy: Policy,
        executor: Executor,
        config: ControlConfig,
        until: Callable[[], bool] = never,
        clock: Clock = Clock(),  # noqa: B008 - has no state
    ) -> None:
        self._robot, self._policy, self._executor = robot, policy, executor
        self._config, self._until, self._clock = config, until, clock
        self._questions = Questions(config.seed, uuid.uuid4().hex, executor)
        self._journal = Journal(config.hz)
        self._limiter = Limiter(config.limits, np.zeros(len(config.limits.names)))

    def run(self) -> None:
        """Drive until the episode is over, or Ctrl-C or SIGTERM; the robot is stopped whatever happens.

        Before the first control step the policy is asked once, and reset: it warms up while the robot keeps still.
        Raises what robot and policy raise, and BadInput for a broken chunk.
        """
        self._executor.reset()
        with stop_request("the robot was stopped") as interrupted, Background(self._policy) as policy:
            try:
                self._limiter.begin(self._robot.stop())
                self._warm_up(policy, interrupted.is_set)
                self._drive(policy, interrupted.is_set)
            except BaseException as error:
                self._journal.ended = f"{type(error).__name__}: {error}"
                raise
            finally:
                self._robot.stop()

    @property
    def report(self) -> DriveReport:
        """What came of the episode so far."""
        return self._journal.report(self._limiter.report())

    @property
    def alarm(self) -> bool:
        """Whether the newest answer came with a watched policy's alarm: the scene is not what it expected."""
        return self._journal.alarm

    def _warm_up(self, policy: Background, interrupted: Callable[[], bool]) -> None:
        """Keep still until the policy has answered once, which may take it minutes."""
        policy.warm_up(replace(self._robot.observe(), steps=self._executor.wanted))
        while not interrupted():
            answer = policy.answer()
            if answer:
                self._journal.warm_up_seconds = answer.seconds
                return
            self._clock.wait(self._clock.now() + 1 / self._config.hz)
            self._limiter.begin(self._robot.stop())

    def _drive(self, policy: Background, interrupted: Callable[[], bool]) -> None:
        due = self._clock.now()
        for step in range(self._config.max_steps):
            if self._until() or interrupted():
                self._journal.ended = "interrupted" if interrupted() else "finished"
                return
            self._journal.begin(self._clock.now(), due)
            self._control_step(step, policy)
            due = self._next(due)
            self._clock.wait(due)
        self._journal.ended = "max_steps"

    def _next(self, due: float) -> float:
        """When the next control step begins. Those that were missed are omitted: a robot is not told two at once."""
        due, now = due + 1 / self._config.hz, self._clock.now()
        if now <= due:
            return due
        self._journal.overruns += 1
        return now

    def _control_step(self, step: int, policy: Background) -> None:
        answer = policy.answer()
        if answer:
            self._journal.answered(answer.chunk, answer.seconds)
            self._executor.give(answer.chunk)
        decision = self._executor.next()
        if isinstance(decision, Ask):
            policy.ask(self._question(decision, step))
            decision = self._executor.next()
        assert not isinstance(decision, Ask), "one query at a time"
        began = self._clock.now()
        action = self._tell(decision)
        self._journal.told(decision, action, self._clock.now() - began)

    def _question(self, ask: Ask, step: int) -> Observation:
        began = self._clock.now()
        seen = self._robot.observe()
        self._journal.observed(self._clock.now() - began)
        return self._questions.about(seen, ask, step)

    def _tell(self, decision: Union[Act, Hold]) -> np.ndarray:
        if isinstance(decision, Act):
            action = self._limiter(decision.action)
            self._robot.act(action)
            return action
        still = self._robot.stop()
        self._limiter.begin(still)
        return still

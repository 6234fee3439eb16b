"""What came of driving a robot for one episode: how regular its clock was, how it moved, how long the policy took."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Dict, List, Optional, Tuple, Union

import numpy as np
from numpy.typing import ArrayLike

from wamkit_client.chunk import Act, Hold
from wamkit_client.limits import Limited
from wamkit_client.smoothness import Pace, jerk
from wamkit_client.types import ActionChunk


@dataclass(frozen=True)
class Times:
    """Of `count` times, milliseconds; all 0 where there are none."""

    count: int
    p50: float
    p95: float
    p99: float
    largest: float

    @classmethod
    def of(cls, seconds: ArrayLike) -> Times:
        """Percentiles of times in seconds."""
        times = np.asarray(seconds, np.float64)
        found = 1000 * np.percentile(times, (50, 95, 99, 100)) if len(times) else np.zeros(4)
        return cls(len(times), *(round(float(value), 3) for value in found))


@dataclass(frozen=True)
class Number:
    """One dimension of what the robot was told, also in control steps in which it kept still.

    low, high: how far it went.  jerk: root mean square of its third derivative, in its unit per s^3 where it is a
    target; None for fewer than four control steps.  limited: what its limits changed.
    """

    low: float
    high: float
    jerk: Optional[float]
    limited: Limited


@dataclass(frozen=True)
class DriveReport:
    """One episode.

    ended: "max_steps", "finished", "interrupted", or the error that ended it.
    hz: asked for.  rate_hz: achieved, from the first control step to the last; 0 for fewer than two.
    late: of the beginnings of control steps.  jitter: what the time between two beginnings differs by from 1 / hz.
    overruns: control steps that took longer than 1 / hz, so that the next began late and the grid was moved.
    observe, act: the robot's own methods, whose time is taken from the control step.
    idle_s: for which the robot was told to keep still, waiting for an answer.  holds: how often it began to.
    staleness_ms: age of the observation that an executed action was computed from, the mean; None without an action.
    largest_staleness_ms: of the oldest.
    warm_up_ms: of the policy, with connecting, before the first control step.  answers: of the policy.
    warnings: what a watched policy said of its answers: {"step", "score", "threshold", "alarm"}; none of another.
    numbers: of an action, one by one; none where the robot was told nothing.
    """

    ended: str
    steps: int
    hz: float
    rate_hz: float
    late: Times
    jitter: Times
    overruns: int
    observe: Times
    act: Times
    idle_s: float
    holds: int
    staleness_ms: Optional[float]
    largest_staleness_ms: Optional[float]
    warm_up_ms: float
    answers: Times
    warnings: Tuple[Dict[str, Any], ...]
    numbers: Tuple[Number, ...]

    def to_json(self) -> str:
        """Every field, indented."""
        return json.dumps(asdict(self), indent=2)

    def summary(self) -> str:
        """A few lines for people."""
        alarms = sum(bool(said["alarm"]) for said in self.warnings)
        answers, bitten = self.answers, [number.limited for number in self.numbers if number.limited.bit]
        old = (
            f"; actions were {self.staleness_ms:.0f} ms old, at most {self.largest_staleness_ms:.0f}"
            if self.staleness_ms is not None
            else ""
        )
        lines = (
            f"{self.ended}: {self.steps} control steps at {self.rate_hz:g} of {self.hz:g} Hz",
            f"clock    jitter {self.jitter.p95:.1f} ms (p95), {self.jitter.largest:.1f} at most; "
            f"{self.overruns} overruns",
            f"robot    observe {self.observe.p95:.1f} ms, act {self.act.p95:.1f} ms (p95)",
            f"policy   {answers.count} answers, {answers.p50:.0f} ms (p50), {answers.p95:.0f} (p95), {answers.p99:.0f} "
            f"(p99); warm after {self.warm_up_ms:.0f}",
            f"waiting  {self.idle_s:.2f} s in {self.holds} holds{old}",
            *([f"warnings {alarms} alarms in {len(self.warnings)} answers"] if self.warnings else []),
            *(f"limits   {one}" for one in bitten),
        )
        return "\n".join(lines if bitten else (*lines, "limits   none was reached"))


class Journal:
    """Is told everything once, in seconds, while it happens."""

    def __init__(self, hz: float) -> None:
        self.ended = "not begun"
        self.overruns, self.warm_up_seconds = 0, 0.0
        self._hz = hz
        self._starts: List[float] = []
        self._late: List[float] = []
        self._observe: List[float] = []
        self._act: List[float] = []
        self._answers: List[float] = []
        self._warnings: List[Dict[str, Any]] = []
        self.alarm = False
        self._pace = Pace(hz)
        self._told: List[np.ndarray] = []

    def begin(self, now: float, due: float) -> None:
        """A control step."""
        self._starts.append(now)
        self._late.append(now - due)

    def observed(self, seconds: float) -> None:
        """For a question to the policy."""
        self._observe.append(seconds)

    def answered(self, chunk: ActionChunk, seconds: float) -> None:
        """The policy, after that time. `alarm`: whether with one."""
        self._answers.append(seconds)
        self._warnings += chunk.warnings
        self.alarm = any(said["alarm"] for said in chunk.warnings)

    def told(self, decision: Union[Act, Hold], action: np.ndarray, seconds: float) -> None:
        """The robot was told an action [a] in this control step, which took it that time."""
        self._act.append(seconds)
        self._pace.take(decision)
        self._told.append(np.asarray(action))

    def report(self, limits: Tuple[Limited, ...]) -> DriveReport:
        """Of the control steps so far. limits: what Limiter.report says."""
        starts = np.array(self._starts)
        between = np.diff(starts)
        motion = self._pace.smoothness(np.zeros((0, 3)))  # where the hand is, nobody here knows
        return DriveReport(
            ended=self.ended,
            steps=len(starts),
            hz=self._hz,
            rate_hz=round(float(1 / between.mean()), 3) if len(between) else 0.0,
            late=Times.of(self._late),
            jitter=Times.of(np.abs(between - 1 / self._hz)),
            overruns=self.overruns,
            observe=Times.of(self._observe),
            act=Times.of(self._act),
            idle_s=motion.idle_s,
            holds=motion.holds,
            staleness_ms=motion.staleness_ms,
            largest_staleness_ms=motion.largest_staleness_ms,
            warm_up_ms=round(1000 * self.warm_up_seconds, 3),
            answers=Times.of(self._answers),
            warnings=tuple(self._warnings),
            numbers=self._numbers(limits),
        )

    def _numbers(self, limits: Tuple[Limited, ...]) -> Tuple[Number, ...]:
        told = np.array(self._told).reshape(-1, len(limits))
        if not len(told):
            return ()
        return tuple(
            Number(float(one.min()), float(one.max()), jerk(one[:, None], self._hz), limited)
            for one, limited in zip(told.T, limits)
        )

"""How an episode was executed: how smoothly, how long the robot stood still, how old what it acted on was.

The jerk is that of the path that was asked for: positions after each action, as commanded, in metres. They are known
without an image and without a sensor's noise, and a jump between two chunks is in them whole, where an arm's inertia
hides it. Every control step from the first action on is counted, also those in which the robot held. Knows arrays and
control steps only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Optional, Union

import numpy as np

from wamkit_client.chunk import Act, Hold

DIFFERENCES = 3


@dataclass(frozen=True)
class Smoothness:
    """jerk: root mean square of the third derivative of the path, m/s^3; None where the path is not known, or shorter
    than four steps from the first action on.

    idle_s: seconds for which the robot held, waiting for an answer. holds: how often it began to.
    staleness_ms: age of what an executed action was computed from, the mean over all actions; None without one.
    largest_staleness_ms: of the oldest one.
    """

    jerk: Optional[float]
    idle_s: float
    holds: int
    staleness_ms: Optional[float]
    largest_staleness_ms: Optional[float]


class Pace:
    """Counts what was done in each control step of an episode. hz: control steps per second."""

    def __init__(self, hz: float) -> None:
        self._hz = hz
        self._ages: List[float] = []
        self._idle = self._holds = 0
        self._before = 0  # steps before the first action
        self._holding = False

    def take(self, decision: Union[Act, Hold]) -> None:
        """What is done in this control step."""
        holding = isinstance(decision, Hold)
        self._holds += holding and not self._holding
        self._idle += holding
        self._holding = holding
        if isinstance(decision, Act):
            self._ages.append(decision.age)
        self._before += not self._ages

    def smoothness(self, path: np.ndarray) -> Smoothness:
        """Of the episode so far. path: [t, 3], the commanded position after each control step in metres, NaN where that
        is not known."""
        ages = 1000 / self._hz * np.array(self._ages)
        return Smoothness(
            jerk(path[self._before :], self._hz),
            round(self._idle / self._hz, 6),
            self._holds,
            round(float(ages.mean()), 3) if len(ages) else None,
            round(float(ages.max()), 3) if len(ages) else None,
        )


def jerk(path: np.ndarray, hz: float) -> Optional[float]:
    """Root mean square over time of the length of the third derivative of a path [t, d] that has `hz` points in a
    second, in its unit per s^3; None for fewer than four points, and where one is NaN."""
    third = np.diff(np.asarray(path, np.float64), DIFFERENCES, axis=0) * hz**DIFFERENCES
    if not len(third) or np.isnan(third).any():
        return None
    return round(float(np.sqrt((third**2).sum(axis=1).mean())), 6)

"""What a robot is told at most: a range for every number of an action, and a largest change per control step.

A limit that changes an action hides a fault of the policy or of its observations, so every change is counted.
Knows arrays only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Sequence, Tuple

import numpy as np

from wamkit_client.types import BadInput


@dataclass(frozen=True)
class Limits:
    """Of actions [a], physical units; infinity where there is no limit.

    names: one word per dimension.  low, high: the smallest and the largest value.
    largest_change: between the actions of two control steps. Of targets it limits speed, of displacements acceleration.
    Raises BadInput for other numbers of dimensions, an empty range, NaN, or a change that is not above 0.
    """

    names: Tuple[str, ...]
    low: Tuple[float, ...]
    high: Tuple[float, ...]
    largest_change: Tuple[float, ...]

    def __post_init__(self) -> None:
        for field in ("low", "high", "largest_change"):
            values = vars(self)[field]
            if len(values) != len(self.names):
                raise BadInput(
                    f"limits: {field} has {len(values)} numbers, expected one for each of {', '.join(self.names)}"
                )
        for name, low, high, change in zip(self.names, self.low, self.high, self.largest_change):
            if not low < high or not change > 0:
                raise BadInput(
                    f"limits of {name}: from {low:g} to {high:g}, at most {change:g} per step; expected low < high and "
                    "a change above 0 (infinity: no limit)"
                )

    @classmethod
    def none(cls, names: Sequence[str]) -> Limits:
        """Nothing is limited."""
        wide = (math.inf,) * len(names)
        return cls(tuple(names), (-math.inf,) * len(names), wide, wide)


@dataclass(frozen=True)
class Limited:
    """How often limits changed one dimension, in control steps, and by how much at most, in its unit.

    clamped: into its range.  slowed: to the largest change, after that.
    """

    name: str
    clamped: int
    clamped_by: float
    slowed: int
    slowed_by: float

    @property
    def bit(self) -> bool:
        """Whether anything was changed."""
        return self.clamped + self.slowed > 0

    def __str__(self) -> str:
        clamped = f"clamped in {self.clamped} control steps, by {self.clamped_by:.3g} at most"
        slowed = f"slowed in {self.slowed}, by {self.slowed_by:.3g} at most"
        return f"{self.name} " + "; ".join([clamped] * (self.clamped > 0) + [slowed] * (self.slowed > 0))


class Limiter:
    """Applies limits to one action after the other, beginning at `still`: the action [a] that moves nothing."""

    def __init__(self, limits: Limits, still: np.ndarray) -> None:
        self._names = limits.names
        self._low, self._high, self._change = (
            np.array(values, np.float64) for values in (limits.low, limits.high, limits.largest_change)
        )
        self._clamped, self._slowed = _Count(len(self._names)), _Count(len(self._names))
        self.begin(still)

    def begin(self, still: np.ndarray) -> None:
        """The robot was told this action [a] by somebody else: changes count from here. BadInput as of `__call__`."""
        self._last = self._checked(still)

    def __call__(self, action: np.ndarray) -> np.ndarray:
        """The allowed action next to this one [a], float32. BadInput for another shape, NaN or infinity.

        The change is limited last: a robot that is outside of its range returns at that speed.
        """
        asked = self._checked(action)
        inside = np.clip(asked, self._low, self._high)
        slow = np.clip(inside, self._last - self._change, self._last + self._change)
        self._clamped.add(asked, inside)
        self._slowed.add(inside, slow)
        self._last = slow
        return slow.astype(np.float32)

    def report(self) -> Tuple[Limited, ...]:
        """One for each dimension."""
        clamped, slowed = self._clamped, self._slowed
        counts = zip(self._names, clamped.often, clamped.most, slowed.often, slowed.most)
        return tuple(Limited(name, int(a), float(b), int(c), float(d)) for name, a, b, c, d in counts)

    def _checked(self, action: np.ndarray) -> np.ndarray:
        values = np.asarray(action, np.float64)
        if values.shape != (len(self._names),) or not np.isfinite(values).all():
            raise BadInput(
                f"an action {values.tolist()!s:.200} of shape {list(values.shape)}, expected {len(self._names)} finite "
                f"numbers ({', '.join(self._names)})"
            )
        return values


class _Count:
    """Of changes to actions [a], how many there were, beyond rounding, and how large the largest was."""

    def __init__(self, dims: int) -> None:
        self.often, self.most = np.zeros(dims, int), np.zeros(dims)

    def add(self, before: np.ndarray, after: np.ndarray) -> None:
        self.often += ~np.isclose(before, after, rtol=1e-6, atol=1e-9)
        self.most = np.maximum(self.most, np.abs(after - before))

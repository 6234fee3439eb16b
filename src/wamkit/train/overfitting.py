"""The early warning of overfitting: a policy gets worse on held-out episodes while it gets better on its own.

A function of the rows that a run leaves (metrics.jsonl, held_out.jsonl); it knows no policy and no dataset.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum, nan

from wamkit.train.rows import Row

LASTING = 3
"""So many measurements in a row must be worse than the best one,"""
MARGIN = 0.05
"""each by this share of it at least."""

NAMES = {"action_error": "action error", "loss": "loss"}
"""What is judged: the first of these that the rows have."""


@dataclass(frozen=True)
class Overfitting:
    """What was seen. measure: a key of NAMES.

    best, value: on held-out episodes, at best_step and at step, the latest measurement. loss_then, loss_now: the
    training loss, mean over the steps before each of the two.
    """

    measure: str
    best_step: int
    best: float
    step: int
    value: float
    loss_then: float
    loss_now: float

    def __str__(self) -> str:
        return (
            f"overfitting: on held-out episodes the {NAMES[self.measure]} was {self.best:.4f} at step "
            f"{self.best_step} and is {self.value:.4f} at step {self.step}, while the training loss fell from "
            f"{self.loss_then:.4f} to {self.loss_now:.4f}; train on more episodes, with augmentation, or for fewer "
            f"steps (--train.steps {self.best_step})"
        )


def overfitting(held_out: Sequence[Row], training: Sequence[Row]) -> Overfitting | None:
    """Whether a run overfits at the last row of `held_out`. None where it does not, or cannot be told yet.

    It does where the last LASTING measurements are all worse than the best one by MARGIN, and the training loss fell
    between the best one and now. held_out, training: the rows of held_out.jsonl and metrics.jsonl, by step.
    """
    if len(held_out) <= LASTING:
        return None
    measure = next(name for name in NAMES if name in held_out[-1])
    values = [row[measure] for row in held_out]
    at = values.index(min(values))
    if any(value < values[at] * (1 + MARGIN) for value in values[-LASTING:]):
        return None
    then, now = (_loss(training, held_out, place) for place in (at, len(held_out) - 1))
    if not now < then:
        return None
    step, best_step = (int(held_out[place]["step"]) for place in (-1, at))
    return Overfitting(measure, best_step, values[at], step, values[-1], then, now)


def news(held_out: Sequence[Row], training: Sequence[Row]) -> str:
    """The warning in words where the last row of `held_out` is the first at which the run overfits; "" elsewhere."""
    found = overfitting(held_out, training)
    before = (overfitting(held_out[:count], training) for count in range(len(held_out)))
    return str(found) if found and not any(before) else ""


def _loss(training: Sequence[Row], held_out: Sequence[Row], place: int) -> float:
    """Mean training loss between a measurement and the one before it; of the last row, where there is none between."""
    steps = [row["step"] for row in training]
    end = bisect_right(steps, held_out[place]["step"])
    first = bisect_right(steps, held_out[place - 1]["step"]) if place else 0
    rows = training[min(first, max(end - 1, 0)) : end]
    return fsum(row["loss"] for row in rows) / len(rows) if rows else nan

"""How each group of a training sequence is noised (Fast-WAM spec 3.2, 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from wamkit.draws import Draws
from wamkit.flow import TIMES, Shift, TimePrecision, interpolate, sample_times


class Schedule(Protocol):
    """The part of a policy's config that says how training sequences are noised."""

    @property
    def video_shift(self) -> Shift:
        """Of the times of the future, and of the condition."""

    @property
    def action_shift(self) -> Shift:
        """Of the times of the chunk."""

    @property
    def time_precision(self) -> TimePrecision:
        """How times are rounded."""

    @property
    def given_noise(self) -> float:
        """Probability that the condition is noised."""


@dataclass(frozen=True)
class Noised:
    """A group of a training sequence: x at flow time t [b], and the velocity there (zero where x is clean)."""

    x: Tensor
    t: Tensor
    velocity: Tensor

    def rows(self, index: Tensor) -> Noised:
        """Some samples of the batch."""
        return Noised(self.x[index], self.t[index], self.velocity[index])


def clean(x: Tensor) -> Noised:
    """The present frame, at time 0."""
    return Noised(x, torch.zeros(len(x), device=x.device), torch.zeros_like(x))


def noised_action(x: Tensor, draws: Draws, schedule: Schedule) -> Noised:
    """Noised at a time of its own per sample."""
    t = sample_times(schedule.action_shift.train, draws, x.device)
    return _at(t, x, draws, schedule)


def noised_video(x: Tensor, draws: Draws, schedule: Schedule) -> Noised:
    """Noised at a time of its own per sample."""
    return _at(sample_times(schedule.video_shift.train, draws, x.device), x, draws, schedule)


def clean_or_noised(x: Tensor, draws: Draws, schedule: Schedule) -> Noised:
    """The condition of IDM: noised with probability `given_noise`, else clean at time 0."""
    t = sample_times(schedule.video_shift.train, draws, x.device)
    noised = draws.uniform(x.device) < schedule.given_noise
    return _at(torch.where(noised, t, 0.0), x, draws, schedule)


def _at(t: Float[Tensor, " b"], x: Tensor, draws: Draws, schedule: Schedule) -> Noised:
    t, share = TIMES[schedule.time_precision](t)
    noisy, velocity = interpolate(x, draws.normal(x), share)
    return Noised(noisy, t, velocity)


NOISE: Mapping[str, Callable[[Tensor, Draws, Schedule], Noised]] = {
    "action": noised_action,
    "future": noised_video,
    "given": clean_or_noised,
    "present": lambda x, draws, schedule: clean(x),
}

"""How each group of a training sequence is noised (Fast-WAM spec 3.2, 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from wamkit.draws import Draws
from wamkit.flow import FlowTimes, Noised


class Schedule(Protocol):
    """The part of a policy's config that says how training sequences are noised."""

    @property
    def video_times(self) -> FlowTimes:
        """Of the future, and of the condition."""

    @property
    def action_times(self) -> FlowTimes:
        """Of the chunk."""

    @property
    def given_noise(self) -> float:
        """Probability that the condition is noised."""


def clean(x: Tensor) -> Noised:
    """The present frame: at time 0, which is data, with velocity 0."""
    return Noised(x, torch.zeros(len(x), device=x.device), torch.zeros_like(x))


def noised(x: Tensor, draws: Draws, times: FlowTimes) -> Noised:
    """Noised at a time of its own per sample."""
    t = times.draw(draws, x.device)
    return times.noised(x, draws.normal(x), t)


def clean_or_noised(x: Tensor, draws: Draws, schedule: Schedule) -> Noised:
    """The condition of IDM: noised with probability `given_noise`, else clean at time 0."""
    times = schedule.video_times
    t = times.draw(draws, x.device)
    is_noised = draws.uniform(x.device) < schedule.given_noise
    return times.noised(x, draws.normal(x), torch.where(is_noised, t, 0.0))


NOISE: Mapping[str, Callable[[Tensor, Draws, Schedule], Noised]] = {
    "action": lambda x, draws, schedule: noised(x, draws, schedule.action_times),
    "future": lambda x, draws, schedule: noised(x, draws, schedule.video_times),
    "given": clean_or_noised,
    "present": lambda x, draws, schedule: clean(x),
}

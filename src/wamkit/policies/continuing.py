"""Guided real-time chunking: a sampled chunk continues what is left of the previous one, so that a robot need not stop
while its policy thinks (arXiv 2506.07339).

In every Euler step the velocity is corrected by how far the chunk that the sampler is heading for is from the previous
actions, with a weight that depends on the noise level:

    v' = v + weight * share * (previous - x1)        x1 = x + reach * v        (the sign of v is that of LaWAM's time)

The paper multiplies the difference by the network's Jacobian. Here that is the identity, as in LeRobot's code (0.6.1),
so that no backward pass is needed. Two things differ from LeRobot: a step never goes beyond the previous actions, as it
would with fewer steps than `max_weight`; and shares end where what is left over ends, and never before the delay.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from wamkit.bounds import FRACTION, POSITIVE, check
from wamkit.data.normalize import Normalizer
from wamkit.flow import Grid, Steering, unsteered
from wamkit.tree import Tree
from wamkit.types import Query

Schedule = Literal["exponential", "linear"]
FALLS: Mapping[Schedule, Callable[[Tensor], Tensor]] = {
    "exponential": lambda share: share * torch.expm1(share) / math.expm1(1),
    "linear": lambda share: share,
}
"""From 1 to 0, of a share that falls in equal steps (paper, equation 5)."""


@dataclass(frozen=True)
class RealTimeChunking:
    """How firmly a chunk continues the previous one; of no effect unless a robot sends what is left of that
    (`--eval.executor guided`).

    schedule: how the share of the previous actions falls, from 1 for those that are executed before the answer arrives
    to 0 for the last one. until: the part of what is left over that counts at all. max_weight: of the correction.
    """

    schedule: Schedule = "exponential"
    until: float = 1.0
    max_weight: float = 10.0

    def __post_init__(self) -> None:
        check("policy.chunking", self, {"until": FRACTION, "max_weight": POSITIVE})

    def shares(
        self, left: Int[Tensor, " b"], delay: Int[Tensor, " b"], steps: int
    ) -> Float[Tensor, "b steps"]:
        """Of each action of a chunk. left: how many actions are left over. delay: so many of them are executed
        whatever comes; more than are left mean all of them."""
        held = torch.minimum(delay, left)[:, None]
        end = torch.maximum((self.until * left).ceil().long()[:, None], held)
        step = torch.arange(steps, device=left.device)
        return FALLS[self.schedule](((end - step) / (end - held + 1)).clamp(0, 1))

    def weights(self, grid: Grid) -> Float[Tensor, " n"]:
        """Of the correction in each step of a sampler, with the sign of its strides. At noise and at data, where the
        paper's formula is infinite, it is `max_weight`; it is also no more than leads to the previous actions."""
        level = grid.reach.double().abs().clamp(max=1)  # a shifted time may be rounded to more
        formula = (level**2 + (1 - level) ** 2) / (level * (1 - level))
        most = grid.strides.double().abs().reciprocal().clamp(max=self.max_weight)
        return (torch.minimum(formula, most) * grid.strides.sign()).float()


@dataclass(frozen=True)
class Pull:
    """Steers a sampler towards actions.

    to: these, in unit range; 0 where there are none. share: of each step, 0..1. steps: `Grid.reach` and
    `RealTimeChunking.weights` of each step of the sampler.
    """

    to: Float[Tensor, "b k a"]
    share: Float[Tensor, "b k 1"]
    steps: Float[Tensor, "n 2"]

    def __call__(self, x: Tensor, velocity: Tensor, step: int) -> Tensor:
        """The corrected velocity."""
        reach, weight = self.steps[step].unbind()
        return velocity + weight * self.share * (self.to - (x + reach * velocity))


@dataclass(frozen=True)
class Continuing:
    """What a query's previous actions mean to a sampler. steps: as of Pull."""

    chunking: RealTimeChunking
    normalizer: Normalizer
    steps: Float[Tensor, "n 2"]

    @classmethod
    def of(cls, chunking: RealTimeChunking, normalizer: Normalizer, grid: Grid) -> Continuing:
        """With the sampler's times."""
        steps = torch.stack([grid.reach, chunking.weights(grid)], dim=-1)
        return cls(chunking, normalizer, steps.to(normalizer.dimensions("action").device))

    def __call__(self, query: Query, shape: tuple[int, int]) -> Steering:
        """For chunks of that shape, actions and dimensions, no smaller than the query's. Rows of the query that have
        nothing left over are not steered."""
        if not query.previous:
            return unsteered
        actions = query.previous["actions"]
        more = shape[1] - actions.shape[2], shape[0] - actions.shape[1]
        share = self.chunking.shares(query.previous["left"], query.previous["delay"], shape[0])[..., None]
        unit = F.pad(self.normalizer.to_unit("action", actions, query.embodiment), (0, more[0], 0, more[1]))
        # what fills up may have no meaning, such as a rotation of zeros
        return Pull(unit.masked_fill(share == 0, 0.0), share, self.steps)


def pull_tree(steer: Steering, step: int) -> Tree:
    """What of it is given to a program that is the same at every step; nothing where there is none."""
    if not isinstance(steer, Pull):
        return {}
    return {"pull": {"to": steer.to, "share": steer.share, "steps": steer.steps[step : step + 1]}}


def steering_of(given: Tree) -> Steering:
    """The inverse of `pull_tree`, for step 0."""
    return Pull(**given["pull"]) if "pull" in given else unsteered

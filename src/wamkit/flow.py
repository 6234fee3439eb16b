"""Flow matching: time, interpolation, what a network predicts, loss weight, Euler steps. Knows no network.

Time t in [0, 1] runs from one end to the other: x_t = (1 - t) start + t end, velocity = end - start. Published systems
differ in which end is data and in how training draws times; a `FlowTimes` is one such convention. Times are kept in
float32 whatever the model's dtype; a run may round them as published ones did.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from wamkit_client.types import BadInput

from wamkit.draws import Draws

TimePrecision = Literal["float32", "bfloat16"]
Predicts = Literal["velocity", "clean"]

BUMP_MINIMUM = math.exp(-0.5)  # of exp(-2 (t - 1/2)^2) over [0, 1]
GRID = 1000  # points of the shifted grid that the bump is averaged over
NEARLY_DATA = 0.3
"""Noise level below which an error of predicted data counts no more than at it."""

T = TypeVar("T", float, Tensor)


@dataclass(frozen=True)
class Shift:
    """How far flow times lean towards noise (`shift`); 1 leaves them uniform.

    train: when training. sample: when sampling.
    Both are part of what a policy was trained and published with. Raises BadInput unless both are above 0.
    """

    train: float = 5.0
    sample: float = 5.0

    def __post_init__(self) -> None:
        for name, by in (("train", self.train), ("sample", self.sample)):
            if not 0 < by < math.inf:
                raise BadInput(
                    f"shift.{name}: flow times shift by a number above 0, got {by}; published: 5, or 1 for none"
                )

    def times(self, precision: TimePrecision, predicts: Predicts = "velocity") -> FlowTimes:
        """The flow times of Light-WAM and Fast-WAM."""
        return FlowTimes(Shifted(self.train), self.sample, precision=precision, predicts=predicts)


@dataclass(frozen=True)
class Grid:
    """Times of an Euler sampler as networks get them, from noise to data [n + 1], and the stride of each step [n]."""

    times: Tensor
    strides: Tensor

    def to(self, device: torch.device) -> Grid:
        """The same grid on `device`."""
        return Grid(self.times.to(device), self.strides.to(device))

    @property
    def reach(self) -> Tensor:
        """How far data is at the beginning of each step [n]: x + reach * velocity is where a sampler is heading."""
        return self.times[-1] - self.times[:-1]


class Steering(Protocol):
    """What becomes of the velocity of an Euler step (policies/continuing.py)."""

    def __call__(self, x: Tensor, velocity: Tensor, step: int) -> Tensor:
        """The velocity that is followed from x in step number `step`."""


def unsteered(x: Tensor, velocity: Tensor, step: int) -> Tensor:
    """The velocity as it is."""
    return velocity


@dataclass(frozen=True)
class Noised:
    """x at flow time t [b], as the network gets it, and what the network is to predict there."""

    x: Tensor
    t: Tensor
    target: Tensor

    def rows(self, index: Tensor) -> Noised:
        """Some samples of the batch."""
        return Noised(self.x[index], self.t[index], self.target[index])


def shift(u: T, by: float) -> T:
    """Uniform u in [0, 1] -> [0, 1], denser near 1 for by > 1, near 0 for by < 1."""
    return by * u / (1 + (by - 1) * u)


@dataclass(frozen=True)
class Shifted:
    """Uniform noise levels, shifted towards noise (Light-WAM code, spec 2.1; Fast-WAM 3.1)."""

    by: float

    def levels(self, u: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Uniform numbers -> noise levels, 0 = data."""
        return shift(u, self.by)

    def weight(self, level: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """A bump around 1/2, zero at both ends, mean 1 over the levels of training."""
        return (torch.exp(-2 * (level - 0.5) ** 2) - BUMP_MINIMUM) / (bump_mean(self.by) + 1e-10)


@dataclass(frozen=True)
class Beta:
    """Noise levels 1 - longest (1 - Beta(a, 1)): dense near noise, never quite data (LaWAM spec 2.7)."""

    a: float = 1.5
    longest: float = 0.999

    def levels(self, u: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Uniform numbers -> noise levels, 0 = data. Beta(a, 1) has the distribution function x^a, inverted here."""
        return 1 - self.longest * (1 - u ** (1 / self.a))

    def weight(self, level: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """All levels count alike."""
        return torch.ones_like(level)


@dataclass(frozen=True)
class FlowTimes:
    """The flow times of one network: how training draws them, which end is data, and where a sampler steps.

    drawn: noise levels in training. sample_shift: of the sampler's times, towards noise. data_at: the time of data,
    0 (Light-WAM, Fast-WAM) or 1 (LaWAM); noise is at the other end. precision: how times are rounded.
    predicts: what the network says of x_t, a row of PREDICTIONS.
    """

    drawn: Shifted | Beta
    sample_shift: float = 1.0
    data_at: Literal[0, 1] = 0
    precision: TimePrecision = "float32"
    predicts: Predicts = "velocity"

    def draw(self, draws: Draws, device: torch.device) -> Float[Tensor, " b"]:
        """One training time per sample, not rounded yet."""
        return self._level(self.drawn.levels(draws.uniform(device)))

    def noised(
        self, x: Float[Tensor, "b *rest"], noise: Float[Tensor, "b *rest"], t: Float[Tensor, " b"]
    ) -> Noised:
        """x at time t, rounded."""
        t, mixed = TIMES[self.precision](t)
        start, end = (x, noise) if self.data_at == 0 else (noise, x)
        noisy, velocity = interpolate(start, end, mixed)
        return Noised(noisy, t, PREDICTIONS[self.predicts].target(x, velocity))

    def weight(self, t: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Of the loss of a sample at time t."""
        return PREDICTIONS[self.predicts].weight(self.drawn, self._level(t))

    def velocity(
        self, predicted: Float[Tensor, "b *rest"], x: Float[Tensor, "b *rest"], t: Float[Tensor, " _"]
    ) -> Float[Tensor, "b *rest"]:
        """Of x at time t, by what a network predicts there. t is not that of data."""
        return PREDICTIONS[self.predicts].velocity(self, predicted, x, t)

    def grid(self, steps: int) -> Grid:
        """Times from noise to data, shifted; times and strides are rounded."""
        # shift leans towards 1; towards 0 it is 1 - shift(1 - u, s) = shift(u, 1 / s), here without rounding 1 - u
        by = self.sample_shift if self.data_at == 0 else 1 / self.sample_shift
        times = shift(torch.linspace(1 - self.data_at, self.data_at, steps + 1), by)
        strides = times.diff().to(getattr(torch, self.precision)).float()
        return Grid(TIMES[self.precision](times)[0], strides)

    def _level(self, t: Tensor) -> Tensor:
        """The noise level at a time, and the time of a noise level: it is its own inverse."""
        return t if self.data_at == 0 else 1 - t


def _velocity_of_clean(times: FlowTimes, clean: Tensor, x: Tensor, t: Tensor) -> Tensor:
    left = (times.data_at - t).reshape(-1, *[1] * (x.ndim - 1))  # from x to data
    return (clean - x) / left


@dataclass(frozen=True)
class Prediction:
    """What a network says of x_t. All kinds determine each other; errors count differently, by noise level.

    target: by data and velocity. weight: of the squared error, by the distribution of noise levels and the level.
    velocity: by flow times, what was predicted, x_t, and t.
    """

    target: Callable[[Tensor, Tensor], Tensor]
    weight: Callable[[Shifted | Beta, Tensor], Tensor]
    velocity: Callable[[FlowTimes, Tensor, Tensor, Tensor], Tensor]


PREDICTIONS: Mapping[Predicts, Prediction] = {
    "velocity": Prediction(
        target=lambda data, velocity: velocity,
        weight=lambda drawn, level: drawn.weight(level),
        velocity=lambda times, predicted, x, t: predicted,
    ),
    # An error of the data is `level` times that of the velocity it stands for, so all levels count alike: also pure
    # noise, where sampling begins and where the published weight of a velocity is 0.
    "clean": Prediction(
        target=lambda data, velocity: data,
        weight=lambda drawn, level: level.clamp(min=NEARLY_DATA) ** -2,
        velocity=_velocity_of_clean,
    ),
}


def noise_like(x: Float[Tensor, "..."], generator: torch.Generator) -> Float[Tensor, "..."]:
    """Standard normal noise of x's shape; drawn on the generator's device, so a seed means the same everywhere."""
    return torch.randn(x.shape, generator=generator, device=generator.device).to(x)


def noise_rows(
    shape: tuple[int, ...], generators: Sequence[torch.Generator], device: torch.device
) -> Float[Tensor, "b *shape"]:
    """Standard normal noise, each row from its own generator: a row is the same in any batch."""
    rows = [torch.randn(shape, generator=generator, device=generator.device) for generator in generators]
    return torch.stack(rows).to(device)


def interpolate(
    start: Float[Tensor, "b *rest"], end: Float[Tensor, "b *rest"], t: Float[Tensor, " b"]
) -> tuple[Float[Tensor, "b *rest"], Float[Tensor, "b *rest"]]:
    """x_t, and the velocity that a model should predict there."""
    t = t.reshape(-1, *[1] * (start.ndim - 1))
    return (1 - t) * start + t * end, end - start


@lru_cache(maxsize=8)
def bump_mean(by: float) -> float:
    """Mean of the bump above its minimum, over the shifted grid."""
    times = [shift(1 - k / GRID, by) for k in range(GRID)]
    return math.fsum(math.exp(-2 * (t - 0.5) ** 2) - BUMP_MINIMUM for t in times) / GRID


def integrate(
    x: Float[Tensor, "b *rest"],
    velocity: Callable[[Tensor, Tensor], Tensor],
    grid: Grid,
    steer: Steering = unsteered,
) -> Float[Tensor, "b *rest"]:
    """Euler steps from noise x to data; velocity(x_t, t [b]) is the model."""
    grid = grid.to(x.device)
    for step, (t, stride) in enumerate(zip(grid.times[:-1], grid.strides, strict=True)):
        x = x + stride * steer(x, velocity(x, t.expand(len(x))), step)
    return x


def bfloat16_times(t: Float[Tensor, " b"]) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """As the published code rounds them, which counts time to 1000: multiples of 4 above 512 (Light-WAM spec 2.1).

    Time is embedded and weighs the loss in float32; interpolation rounds it once more.
    """
    rounded = (1000 * t).bfloat16().float() / 1000
    return rounded, rounded.bfloat16().float()


# precision -> flow times as the network and the loss get them, and as x_t is interpolated with them
TIMES: Mapping[TimePrecision, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "float32": lambda t: (t, t),
    "bfloat16": bfloat16_times,
}

"""Flow matching: time, interpolation, velocity, loss weight, Euler steps. Knows no network.

Time t in [0, 1]: 0 = data, 1 = noise. x_t = (1 - t) x + t noise, velocity = noise - x.
Times are drawn uniformly and shifted towards noise by s (Light-WAM code, spec 2.1; Fast-WAM 3.1):
t = s u / (1 + (s - 1) u). Kept in float32 whatever the model's dtype; a run may round them as published ones did.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from wamkit_client.types import BadInput

from wamkit.draws import Draws

TimePrecision = Literal["float32", "bfloat16"]

BUMP_MINIMUM = math.exp(-0.5)  # of exp(-2 (t - 1/2)^2) over [0, 1]
GRID = 1000  # points of the shifted grid that the bump is averaged over

T = TypeVar("T", float, Tensor)


@dataclass(frozen=True)
class Shift:
    """How far flow times lean towards noise, when training and when sampling: s above; 1 leaves them uniform.

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


@dataclass(frozen=True)
class Grid:
    """Times of an Euler sampler as the network gets them, from 1 down to 0 [n + 1], and the stride of each step [n]."""

    times: Tensor
    strides: Tensor

    def to(self, device: torch.device) -> Grid:
        """The same grid on `device`."""
        return Grid(self.times.to(device), self.strides.to(device))


def shift(u: T, by: float) -> T:
    """Uniform u in [0, 1] -> flow time in [0, 1], denser near 1 for by > 1."""
    return by * u / (1 + (by - 1) * u)


def sample_times(by: float, draws: Draws, device: torch.device) -> Float[Tensor, " b"]:
    """One training time per sample, shifted."""
    return shift(draws.uniform(device), by)


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
    x: Float[Tensor, "b *rest"], noise: Float[Tensor, "b *rest"], t: Float[Tensor, " b"]
) -> tuple[Float[Tensor, "b *rest"], Float[Tensor, "b *rest"]]:
    """The noisy sample x_t and the velocity a model should predict there."""
    t = t.reshape(-1, *[1] * (x.ndim - 1))
    return (1 - t) * x + t * noise, noise - x


def loss_weight(t: Float[Tensor, "..."], by: float) -> Float[Tensor, "..."]:
    """w(t): a bump around t = 1/2, zero at both ends, mean 1 under `sample_times` with the same shift."""
    return (torch.exp(-2 * (t - 0.5) ** 2) - BUMP_MINIMUM) / (bump_mean(by) + 1e-10)


@lru_cache(maxsize=8)
def bump_mean(by: float) -> float:
    """Mean of the bump above its minimum, over the shifted grid."""
    times = [shift(1 - k / GRID, by) for k in range(GRID)]
    return math.fsum(math.exp(-2 * (t - 0.5) ** 2) - BUMP_MINIMUM for t in times) / GRID


def euler_grid(steps: int, by: float, precision: TimePrecision = "float32") -> Grid:
    """The sampling grid from noise to data, shifted; times and strides rounded as `precision` says."""
    times = shift(torch.linspace(1, 0, steps + 1), by)
    strides = times.diff().to(getattr(torch, precision)).float()
    return Grid(TIMES[precision](times)[0], strides)


def integrate(
    x: Float[Tensor, "b *rest"], velocity: Callable[[Tensor, Tensor], Tensor], grid: Grid
) -> Float[Tensor, "b *rest"]:
    """Euler from noise x (t = 1) to data (t = 0); velocity(x_t, t [b]) is the model."""
    grid = grid.to(x.device)
    for t, stride in zip(grid.times[:-1], grid.strides, strict=True):
        x = x + stride * velocity(x, t.expand(len(x)))
    return x


def bfloat16_times(t: Float[Tensor, " b"]) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """As the published code rounds them, which counts time to 1000: multiples of 4 above 512 (Light-WAM spec 2.1).

    Time is embedded and weighs the loss in float32; the share of noise is rounded once more.
    """
    rounded = (1000 * t).bfloat16().float() / 1000
    return rounded, rounded.bfloat16().float()


# precision -> flow times as the network and the loss get them, and the share of noise in what is noised
TIMES: Mapping[TimePrecision, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "float32": lambda t: (t, t),
    "bfloat16": bfloat16_times,
}

"""Flow matching: time, interpolation, velocity, loss weight, Euler steps. Knows no network.

Time t in [0, 1]: 0 = data, 1 = noise. x_t = (1 - t) x + t noise, velocity = noise - x.
Times are drawn uniformly and shifted towards noise (Light-WAM code, spec 2.1; Fast-WAM 3.1):
t = s u / (1 + (s - 1) u) with s = 5. Kept in float32 whatever the model's dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

SHIFT = 5.0
# The bump exp(-2 (t - 1/2)^2) over the 1000-point shifted grid: its minimum, and the mean above that minimum,
# so that the weight is 1 on average over training times.
BUMP_MINIMUM = math.exp(-0.5)
BUMP_MEAN = 0.18949555359518494


def shift(u: Float[Tensor, "..."], by: float = SHIFT) -> Float[Tensor, "..."]:
    """Uniform u in [0, 1] -> flow time in [0, 1], denser near 1 for by > 1."""
    return by * u / (1 + (by - 1) * u)


def sample_times(count: int, generator: torch.Generator, device: torch.device) -> Float[Tensor, "{count}"]:
    """One training time per sample."""
    return shift(torch.rand(count, generator=generator, device=generator.device)).to(device)


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


def loss_weight(t: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """w(t): a bump around t = 1/2, zero at both ends, mean 1 under `sample_times`."""
    return (torch.exp(-2 * (t - 0.5) ** 2) - BUMP_MINIMUM) / (BUMP_MEAN + 1e-10)


def euler_times(steps: int) -> Float[Tensor, " grid"]:
    """The sampling grid from 1 down to 0."""
    return shift(torch.linspace(1, 0, steps + 1))


def integrate(
    x: Float[Tensor, "b *rest"], velocity: Callable[[Tensor, Tensor], Tensor], steps: int
) -> Float[Tensor, "b *rest"]:
    """Euler from noise x (t = 1) to data (t = 0); velocity(x_t, t [b]) is the model."""
    times = euler_times(steps).to(x.device)
    for t, t_next in pairwise(times):
        x = x + (t_next - t) * velocity(x, t.expand(len(x)))
    return x

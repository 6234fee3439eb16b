"""How alike two sets of patch features are: cosines, on all patches and on those that move; mean and interval.

A static background dominates the mean over a whole image, so every number is also given for moving patches alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

MOVING = 0.2
"""Share of an image's patches that count as moving: those least alike the present (LaWAM spec 6.5)."""

PATCHES = ("all", "moving")
DRAWS = 1000
"""Of a bootstrap interval."""


@dataclass(frozen=True)
class Mean:
    """A mean over trajectories and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


def cosine(a: Float[Tensor, "*n s d"], b: Float[Tensor, "*n s d"]) -> Float[Tensor, "*n s"]:
    """Of each patch."""
    return F.cosine_similarity(a.float(), b.float(), dim=-1)


def moving(still: Float[Tensor, "*n s"]) -> Bool[Tensor, "*n s"]:
    """The patches that change most; still: how alike the later image is to the present one, patch by patch."""
    count = ceil(MOVING * still.shape[-1])
    lowest = still.topk(count, dim=-1, largest=False).indices
    return torch.zeros_like(still, dtype=torch.bool).scatter(-1, lowest, True)


def averaged(alike: Float[Tensor, "*n s"], still: Float[Tensor, "*n s"]) -> dict[str, Float[Tensor, "*n"]]:
    """The mean over each set of PATCHES."""
    mask = moving(still)
    return {"all": alike.mean(-1), "moving": (alike * mask).sum(-1) / mask.sum(-1)}


def interval(values: Sequence[float], seed: int) -> Mean:
    """Of at least one number, one per trajectory; the trajectories are drawn anew with replacement."""
    numbers = np.asarray(values, np.float64)
    chosen = np.random.default_rng(seed).integers(0, len(numbers), (DRAWS, len(numbers)))
    low, high = np.percentile(numbers[chosen].mean(axis=1), (2.5, 97.5))
    return Mean(float(numbers.mean()), float(low), float(high))

"""Features as maps over an image: how alike each patch is to an anchor, and three principal components (spec 6.6).

Raw numbers; how they are drawn, the report says (report/feature_maps.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from wamkit_client.types import BadInput

COMPONENTS, STEEPNESS = 3, 1.5


def anchor_index(anchor: tuple[int, int], grid: tuple[int, int]) -> int:
    """The patch of that row and column. BadInput where the grid has none."""
    row, column = anchor
    if not (0 <= row < grid[0] and 0 <= column < grid[1]):
        raise BadInput(
            f"--anchor {row},{column}: this model's grid is {grid[0]} rows of {grid[1]} patches; name a row from 0 to "
            f"{grid[0] - 1} and a column from 0 to {grid[1] - 1}"
        )
    return row * grid[1] + column


def alike_to(anchor: Float[Tensor, " d"], features: Float[Tensor, "n s d"]) -> Float[Tensor, "n s"]:
    """Cosine of every patch to the anchor."""
    return F.normalize(features.float(), dim=-1) @ F.normalize(anchor.float(), dim=0)


@dataclass(frozen=True)
class Components:
    """Principal components of features. axes: orthonormal; deviation: of the features along each."""

    mean: Float[Tensor, " d"]
    axes: Float[Tensor, "d 3"]
    deviation: Float[Tensor, " 3"]

    @classmethod
    def fit(cls, features: Float[Tensor, "n d"]) -> Components:
        """Of at least three patches; the sign of each axis makes its largest entry positive."""
        mean = features.float().mean(0)
        centred = features.float() - mean
        eigenvalues, vectors = torch.linalg.eigh(centred.T.double() @ centred.double() / len(features))
        axes = vectors[:, -COMPONENTS:].flip(1)
        largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
        deviation = eigenvalues[-COMPONENTS:].flip(0).clamp(min=1e-12).sqrt()
        return cls(mean, (axes * largest.sign()).float(), deviation.float())

    def colours(self, features: Float[Tensor, "*n d"]) -> Float[Tensor, "*n 3"]:
        """RGB in [0, 1]."""
        return torch.sigmoid(STEEPNESS * (features.float() - self.mean) @ self.axes / self.deviation)

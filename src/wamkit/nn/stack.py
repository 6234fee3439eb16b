"""Linear layers that are applied to the same input, as one product."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn


def stack(layers: Sequence[nn.Linear]) -> tuple[Float[Tensor, "out d"], Float[Tensor, " out"]]:
    """Copies of weights and biases, one below the other."""
    return torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers])


def stacked(layers: Sequence[nn.Linear]) -> nn.Linear:
    """A layer whose output is theirs, side by side."""
    with torch.device("meta"):  # draws no random numbers
        made = nn.Linear(layers[0].in_features, sum(layer.out_features for layer in layers))
    made.weight, made.bias = (nn.Parameter(x, requires_grad=False) for x in stack(layers))
    return made

"""What LaWAM is measured by: errors of predicted features, of the robot's state, of actions (LaWAM spec 1.6, 1.7, 2.7).

Everything in float32, whatever the networks compute in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

FeatureLoss = Literal["smooth_l1", "squared"]
THRESHOLD = 0.1  # of "smooth_l1": squared below, linear above


# Mean over everything. The paper has "squared", as the published base model; the published large one "smooth_l1".
FEATURE_LOSSES: Mapping[FeatureLoss, Callable[[Tensor, Tensor], Tensor]] = {
    "smooth_l1": lambda predicted, target: F.smooth_l1_loss(
        predicted.float(), target.float(), beta=THRESHOLD
    ),
    "squared": lambda predicted, target: F.mse_loss(predicted.float(), target.float()),
}


def squared_error(
    predicted: Float[Tensor, "..."], target: Float[Tensor, "..."], counts: Bool[Tensor, "..."]
) -> Float[Tensor, ""]:
    """Mean over the numbers of the whole batch that count; 0, with gradients, where there are none."""
    error = (predicted.float() - target.float()).square() * counts
    return error.sum() / counts.sum().clamp(min=1)

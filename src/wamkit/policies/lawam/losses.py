"""What stage 1 is measured by: the loss of predicted features and of the robot's state (LaWAM spec 1.6, 1.7).

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


def state_loss(
    predicted: Float[Tensor, "b p"], target: Float[Tensor, "b p"], valid: Bool[Tensor, "b p"]
) -> Float[Tensor, ""]:
    """Mean squared error over the valid dimensions of the whole batch; 0, with gradients, where there are none."""
    error = (predicted.float() - target.float()).square() * valid
    return error.sum() / valid.sum().clamp(min=1)

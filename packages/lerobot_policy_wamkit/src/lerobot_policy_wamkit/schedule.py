"""wamkit's schedule of the learning rate (wamkit/train/optim.py) as one of LeRobot's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from lerobot.optim.schedulers import LRSchedulerConfig
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from wamkit_client.types import BadInput

if TYPE_CHECKING:
    from wamkit.train.optim import Shape


@LRSchedulerConfig.register_subclass("wamkit")
@dataclass
class WamkitSchedulerConfig(LRSchedulerConfig):
    """Linear warm-up from `first` of the peak, then `shape` ("cosine" or "constant") down to `final` of it."""

    num_warmup_steps: int
    first: float
    final: float
    shape: str

    def build(self, optimizer: Optimizer, num_training_steps: int) -> LambdaLR:
        """Of factors on the rates that `optimizer` has. BadInput where the warm-up would not end."""
        from wamkit.train.optim import Schedule

        if self.num_warmup_steps > num_training_steps:
            raise BadInput(
                f"the recipe warms up for {self.num_warmup_steps} steps, and --steps is {num_training_steps}; give "
                "more, or a recipe file with another train.warmup_steps"
            )
        shape = cast("Shape", self.shape)
        factors = Schedule(1.0, self.num_warmup_steps, num_training_steps, self.first, self.final, shape)
        return LambdaLR(optimizer, factors.rate)

"""What the training of LaWAM's policy starts from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from wamkit.io.hub import local
from wamkit.io.tensors import load_strict
from wamkit.io.weights import run_weights

if TYPE_CHECKING:
    from wamkit.policies.lawam.policy import LaWAM


@dataclass(frozen=True)
class FromStage1:
    """The prior starts as `start` says, the world model as stage 1 left it; the rest keeps its random weights."""

    kind: Literal["stage1"] = "stage1"

    def initialize(self, policy: LaWAM) -> None:
        """Raises BadInput naming what is missing."""
        policy.config.start.initialize(policy.prior)
        policy.config.stage1(policy.data).fill({"world": policy.world})


@dataclass(frozen=True)
class FromRun:
    """All that is trained starts as another run of this kind left it, the action expert too. path: its directory."""

    path: str = "weights/lawam_pretrain"
    kind: Literal["run"] = "run"

    def initialize(self, policy: LaWAM) -> None:
        """Raises BadInput naming what is missing or does not fit."""
        policy.load_frozen()
        frozen = [re.escape(name) for name, p in policy.named_parameters() if not p.requires_grad]
        load_strict(policy, run_weights(local(self.path)), self.path, fresh=frozen)

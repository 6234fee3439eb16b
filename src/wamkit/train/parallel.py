"""A policy trained by several processes, each with its share of every batch. The policy does not know.

replicated ("ddp"): every rank has all weights, and gradients of those that learn are averaged in buckets while the
backward pass goes on.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from wamkit.draws import Draws
from wamkit.train import checkpoint
from wamkit.train.checkpoint import State
from wamkit.train.halves import Learn, at_once
from wamkit.train.ranks import ALONE, Ranks
from wamkit.train.sharded import Saving, ShardedSaving
from wamkit.types import Batch, Trainable

Forward = Callable[[Batch, Draws], dict[str, Tensor]]
Kind = Literal["ddp"]


class Parallel:
    """One process: nothing is done to the policy."""

    ranks: Ranks = ALONE

    def share(self, module: nn.Module) -> None:
        """Divide weights among the ranks, in place, before there is an optimizer of them."""

    def forward(self, module: nn.Module, call: Forward) -> Forward:
        """What computes the losses of this rank's samples. call: what does alone: `module`, or what is compiled."""
        return call

    def part(self, forward: Forward, last: bool) -> AbstractContextManager[object]:
        """One of the parts that a batch goes through the policy in. last: gradients are complete after it."""
        return nullcontext()

    def learn(self, alone: Learn) -> Learn:
        """How gradients of a part are computed. alone: how one process would."""
        return alone

    def saving(self, run_dir: Path, state: State, keep_last: int) -> Saving:
        """What writes checkpoints."""
        return Saving(run_dir, state, keep_last)

    def write_weights(self, run_dir: Path, state: State) -> None:
        """The weights of a finished run."""
        checkpoint.write_weights(run_dir, state)

    def losses(self, policy: Trainable, batch: Batch, found: dict[str, Tensor]) -> dict[str, Tensor]:
        """A rank's losses such that their mean over the ranks is that of all their samples."""
        return found


class Replicated(Parallel):
    """See the module docstring."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks

    def forward(self, module: nn.Module, call: Forward) -> Forward:
        """See Parallel. All ranks have the same weights already (agreement.py); frozen ones are not looked at."""
        whole = call if isinstance(call, nn.Module) else module
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", FutureWarning
            )  # its new name broadcasts buffers, those of frozen parts too
            return nn.parallel.DistributedDataParallel(
                whole,
                broadcast_buffers=False,
                init_sync=False,
                find_unused_parameters=True,  # which of them have no gradient may differ from step to step
                gradient_as_bucket_view=True,
            )

    def saving(self, run_dir: Path, state: State, keep_last: int) -> Saving:
        """See Parallel."""
        return ShardedSaving(self.ranks, run_dir, state, keep_last)

    def write_weights(self, run_dir: Path, state: State) -> None:
        """See Parallel."""
        if self.ranks.writes:
            super().write_weights(run_dir, state)

    def part(self, forward: Any, last: bool) -> AbstractContextManager[object]:
        """See Parallel. Gradients are averaged once, after the last part."""
        return nullcontext() if last else forward.no_sync()

    def learn(self, alone: Learn) -> Learn:
        """See Parallel. Gradients are averaged where backward() leaves them."""
        return at_once

    def losses(self, policy: Trainable, batch: Batch, found: dict[str, Tensor]) -> dict[str, Tensor]:
        """See Parallel."""
        counts = policy.targets(batch)
        if not counts:
            return found
        own = torch.stack([count.float() for count in counts.values()])
        total = self.ranks.sum(own).clamp(min=1)
        shares = dict(zip(counts, own * self.ranks.share.count / total, strict=True))
        return {name: loss * shares.get(name, 1.0) for name, loss in found.items()}


SINGLE = Parallel()
KINDS: Mapping[Kind, Callable[[Ranks], Parallel]] = {"ddp": Replicated}


def parallel(kind: Kind, ranks: Ranks) -> Parallel:
    """What a rank does."""
    return KINDS[kind](ranks) if ranks.share.count > 1 else SINGLE

"""How a policy does on episodes that it is not trained on: its losses, and the error of the actions it predicts.

The samples are encoded once and noise is drawn for their places, so that the rows of a run differ by the policy alone.
A row has "step", "loss" (weighted total), "loss/<name>" for each loss and, of a policy that acts, "action_error": the
mean absolute error of predicted chunks in unit range, over every action that is a target and every dimension of its
robot. It does not know which episodes are held out (data/hold_out.py), nor when it is asked (train/loop.py).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from wamkit_client.types import BadInput

from wamkit.data.normalize import Normalizer
from wamkit.data.samples import Samples, read_all
from wamkit.draws import Draws
from wamkit.train.rows import Row
from wamkit.tree import Tree, tree_map
from wamkit.types import Batch, Policy, Query, Trainable

FILE = "held_out.jsonl"
MOST = 64
"""Samples that are measured at most."""
SEED = 7
"""Of the noise; the same for all runs and at every measurement."""


@dataclass(frozen=True)
class Part:
    """Samples that go through the policy at a time.

    first: the place of the first of them among all. batch: whole clips, for the losses. observed: what the encoder
    makes of the first frames alone, and "proprio", for acting.
    """

    first: int
    batch: Batch
    observed: Tree

    def query(self, device: torch.device) -> Query:
        """What a policy is asked about them."""
        return Query(
            inputs=tree_map(lambda x: x.to(device), self.observed),
            embodiment=self.batch.embodiment.to(device),
            hz=self.batch.hz.to(device),
            generators=[
                torch.Generator().manual_seed(self.first + row) for row in range(len(self.batch.ids))
            ],
        )


@dataclass(frozen=True)
class HeldOut:
    """Samples of held-out episodes, encoded, on the CPU. to_unit: actions [b k a] of these robots -> unit range."""

    parts: tuple[Part, ...]
    to_unit: Callable[[Tensor, Tensor], Tensor]

    @property
    def count(self) -> int:
        """How many samples."""
        return sum(len(part.batch.ids) for part in self.parts)

    @torch.no_grad()
    def measure(self, policy: Trainable, step: int, device: torch.device, precision: str) -> Row:
        """The row of step `step`. The policy, which is on `device`, is left as it was, in training mode.

        Losses are means over samples. Parts need nothing of each other: several processes may share them.
        Raises BadInput where a number is not finite.
        """
        module = cast(nn.Module, policy).eval()
        weights, losses, errors = policy.loss_weights, [], []
        try:
            for part in self.parts:
                batch = part.batch.to(device)
                draws = Draws.of_step(SEED, 0, device, part.first, len(batch.ids), self.count)
                with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                    found = policy(batch, draws)
                    losses.append(torch.stack([found[name] for name in weights]).double() * len(batch.ids))
                    if isinstance(policy, Policy):
                        errors.append(self._errors(policy.act(part.query(device)), part.batch))
        finally:
            module.train()
        means = (torch.stack(losses).sum(0) / self.count).tolist()
        total = math.fsum(weight * mean for weight, mean in zip(weights.values(), means, strict=True))
        row: Row = {"step": step, "loss": total}
        row |= {f"loss/{name}": mean for name, mean in zip(weights, means, strict=True)}
        if errors:
            row["action_error"] = torch.cat(errors).mean().item()
        _expect_finite(row)
        return row

    def _errors(self, predicted: Tensor, batch: Batch) -> Tensor:
        """Of every action and dimension that counts, [n] in unit range."""
        unit = [
            self.to_unit(actions, batch.embodiment) for actions in (predicted.float().cpu(), batch.actions)
        ]
        return (unit[0] - unit[1]).abs()[batch.valid].double()

    def due(self, done: int, steps: int, every: int) -> bool:
        """Whether to measure after `done` of `steps` steps."""
        return bool(self.parts and every) and (done % every == 0 or done == steps)


NOTHING = HeldOut((), lambda actions, embodiment: actions)


def read_held_out(
    clips: Samples,
    observations: Samples,
    sizes: Sequence[int],
    policy: Trainable,
    normalizer: Normalizer,
    part_size: int,
) -> HeldOut:
    """MOST samples at most, as many of every source, evenly over its episodes.

    clips: the samples of held-out episodes, one source after the other, `sizes` of each; observations: the same, of
    which the first frame alone is encoded. part_size: how many are encoded and measured at a time.
    """
    share = max(MOST // max(len(sizes), 1), 1)
    starts = np.cumsum([0, *sizes])
    chosen = [start + i for start, size in zip(starts, sizes, strict=False) for i in evenly(size, share)]
    parts = []
    for first in range(0, len(chosen), part_size):
        numbers = [int(number) for number in chosen[first : first + part_size]]
        batch = read_all(clips, numbers).batch(policy.embodiment)
        parts.append(Part(first, batch, read_all(observations, numbers).inputs))
    own = copy.deepcopy(normalizer).cpu()  # the policy's goes to another device with it
    return HeldOut(tuple(parts), partial(own.to_unit, "action"))


def evenly(count: int, most: int) -> list[int]:
    """At most that many of 0 .. count - 1, at equal distances, none of them at either end unless there are few."""
    return sorted({int((place + 0.5) * count / most) for place in range(most)}) if count else []


def sentence(row: Row) -> str:
    """A row as the log line."""
    shown = {name.removeprefix("loss/").replace("_", " "): x for name, x in row.items() if name != "step"}
    numbers = ", ".join(f"{name} {value:.4f}" for name, value in shown.items())
    return f"held out at step {row['step']:.0f}: {numbers}"


def _expect_finite(row: Row) -> None:
    if not all(map(math.isfinite, row.values())):
        raise BadInput(
            f"not finite on held-out episodes: {sentence(row)}. Earlier checkpoints are good. Look at these episodes "
            "(wamkit data check), lower train.learning_rate or use train.precision fp32, then run again; "
            "--train.held-out-every 0 measures nothing"
        )

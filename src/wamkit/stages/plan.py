"""`wamkit train --plan`: what a run will be, before anything is allocated.

The policy is built on torch's meta device (shapes without memory), so the full-size model is counted exactly on a
laptop; what is kept for backward is counted in stages/kept.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import nn

from wamkit.config import Run
from wamkit.data.normalize import Normalizer, Stats
from wamkit.nn.frozen import store_frozen_linears
from wamkit.nn.layers import recompute
from wamkit.recipes import earlier
from wamkit.stages.kept import activations
from wamkit.types import Batch, Policy, Trainable

EMBODIMENT = "plan"


@dataclass(frozen=True)
class Part:
    """One row of the parameter table. deployed: parameters that acting loads."""

    name: str
    parameters: int
    trainable: int
    deployed: int


@dataclass(frozen=True)
class Memory:
    """Bytes per kind of a training step on one device.

    average: the moving average of the weights. activations: kept for backward.
    """

    weights: int
    gradients: int
    optimizer: int
    average: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.average + self.activations


def meta_policy(run: Run) -> Trainable:
    """The policy of a run, without memory."""
    with torch.device("meta"):
        policy = run.policy.build(run.data, stand_in_normalizer(run))
    return cast(Trainable, cast(nn.Module, policy).to("meta"))


def stand_in_normalizer(run: Run) -> Normalizer:
    """That of a run without data, of one robot."""
    fields = {"action": run.data.action_dim, "proprio": run.data.proprio_dim}
    stats = {robot_of(run): {name: Stats.of(np.zeros((2, dim))) for name, dim in fields.items()}}
    return run.normalization.fit(stats, {robot_of(run): run.actions})


def robot_of(run: Run) -> str:
    """Of a run without data."""
    return (*run.policy.known_robots, EMBODIMENT)[0]


def parts(run: Run, policy: Trainable) -> list[Part]:
    """Parameters by part, in the order of the specification's table; every parameter is in exactly one part.

    The encoder's networks come after the policy's, and then what else an earlier stage trained: a teacher, for example.
    """
    groups: dict[str, list[nn.Parameter]] = {title: [] for title, _ in policy.parts}
    for name, parameter in cast(nn.Module, policy).named_parameters():
        groups[next(title for title, belongs in policy.parts if belongs(name))].append(parameter)
    acts = isinstance(policy, Policy)
    with torch.device("meta"):
        encoders = run.policy.encoder_modules()
    counts = [_part(title, group, acts) for title, group in groups.items()]
    counts += [
        _part(title, module.requires_grad_(False).parameters(), acts) for title, module in encoders.items()
    ]
    titles = {part.name for part in counts}
    before = (part for one in earlier(run.recipe) for part in parts(one, meta_policy(one)))
    counts += [Part(part.name, part.parameters, 0, 0) for part in before if part.name not in titles]
    return [part for part in counts if part.parameters]


def _part(name: str, parameters: Iterable[nn.Parameter], deployed: bool) -> Part:
    sizes = [(p.numel(), p.requires_grad) for p in parameters]
    size = sum(count for count, _ in sizes)
    return Part(name, size, sum(count for count, trains in sizes if trains), size * deployed)


def memory(run: Run, policy: Trainable) -> Memory:
    """Weights as they are built, in bf16 runs but for frozen Linears (as training does, which changes `policy`); AdamW
    holds two moments per trained number, in its dtype. Training from a latent cache holds no encoder."""
    module = cast(nn.Module, policy)
    if run.train.precision == "bf16":
        store_frozen_linears(module, torch.bfloat16)
    recompute(module, run.train.checkpoint_blocks)
    weights = sum(p.nbytes for p in module.parameters())
    trained = sum(p.nbytes for p in module.parameters() if p.requires_grad)
    kept = activations(module, meta_batch(run), run.train.precision)
    return Memory(weights, trained, 2 * trained, trained if run.train.average_decay > 0 else 0, kept)


def meta_batch(run: Run) -> Batch:
    """`example_batch` without memory."""
    with torch.device("meta"):
        return example_batch(run)


def example_batch(run: Run) -> Batch:
    """What goes through the policy at a time, in the run's shapes: zeros, all of it valid."""
    b, data = run.train.part_size, run.data
    frame_proprio = (
        {"frame_proprio": torch.zeros(b, len(data.frame_times), data.proprio_dim)}
        if data.frame_proprio
        else {}
    )
    return Batch(
        inputs=run.policy.example_inputs(data, b)
        | {
            "proprio": torch.zeros(b, data.proprio_dim),
            "frame_is_pad": torch.zeros(b, len(data.frame_times), dtype=torch.bool),
        }
        | frame_proprio,
        actions=torch.zeros(b, data.horizon, data.action_dim),
        valid=torch.ones(b, data.horizon, data.action_dim, dtype=torch.bool),
        embodiment=torch.zeros(b, dtype=torch.int64),
        hz=torch.full((b,), data.hz),
        ids=("",) * b,
    )

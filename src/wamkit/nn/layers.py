"""Layers that are run one after the other, where asked for in groups that keep only what they are given.

A group computes everything else again in the backward pass (activation checkpointing): less memory for more work, and
the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

State = tuple[Tensor, ...]
Step = Callable[..., State]  # number of a layer, state -> state


class Layers(nn.ModuleList):
    """group: how many layers are computed again at a time; 0: none, everything is kept."""

    group = 0

    def run(self, step: Step, count: int, state: State) -> State:
        """`step` with the number of each of the first `count` layers."""
        if not self.group or not torch.is_grad_enabled():
            return _run(step, range(count), *state)
        for first in range(0, count, self.group):
            numbers = range(first, min(first + self.group, count))
            state = checkpoint(_run, step, numbers, *state, use_reentrant=False, preserve_rng_state=False)
        return state


def _run(step: Step, numbers: range, *state: Tensor) -> State:
    for number in numbers:
        state = step(number, *state)
    return state


def recompute(module: nn.Module, group: int) -> None:
    """Set the group of all Layers of `module`."""
    for part in module.modules():
        if isinstance(part, Layers):
            part.group = group

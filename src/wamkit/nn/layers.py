"""Layers that are run one after the other, where asked for in groups that keep only what they are given.

A group computes everything else again in the backward pass (activation checkpointing): less memory for more work, and
the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

State = tuple[Tensor, ...]
Step = Callable[..., State]
"""Number of a layer, state -> state."""


def _as_it_is(function: Callable[..., Any], *given: Any) -> Any:
    return function(*given)


class Layers(nn.ModuleList):
    """group: how many layers are computed again at a time; 0: none, everything is kept.
    call: how a step calls the function of its layer: as it is, or compiled (train/compiled.py)."""

    group = 0
    call: Callable[..., Any] = staticmethod(_as_it_is)

    def run(self, step: Step, numbers: range, state: State) -> State:
        """`step` with each of these numbers of layers."""
        if not self.group or not torch.is_grad_enabled():
            return _run(step, numbers, *state)
        for first in numbers[:: self.group]:
            own = range(first, min(first + self.group, numbers.stop))
            state = checkpoint(_run, step, own, *state, use_reentrant=False, preserve_rng_state=False)
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

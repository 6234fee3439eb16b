"""Gradients of some rows of a batch: of all of them at once, or of both halves side by side, each in its own thread.

On a CPU, two threads that work on samples of their own wait for each other once in a step. Where every operation is
divided among them they wait thousands of times, and a small policy spends half of its time so. It does not know the
policy, whose losses must be means over samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch
from torch import Tensor, nn

Losses = Callable[[range], tuple[Tensor, Tensor]]
"""Of these rows of a batch: the total, and what is told of them, without gradients."""

Learn = Callable[[Losses, range, Sequence[nn.Parameter], int], Tensor]
"""Adds the gradients of the total, divided by a number of parts, to those of the trained parameters. Returns what is
told."""


def at_once(losses: Losses, rows: range, trained: Sequence[nn.Parameter], parts: int) -> Tensor:
    """All rows in one pass."""
    total, told = losses(rows)
    (total / parts).backward()
    return told


def side_by_side(losses: Losses, rows: range, trained: Sequence[nn.Parameter], parts: int) -> Tensor:
    """Both halves at the same time; the gradients are summed in their order, so that they are the same every time."""

    def learned(half: range) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        total, told = losses(half)
        # Not backward(), which would add to the parameters' gradients as the other thread does.
        return told, torch.autograd.grad(total / (2 * parts), trained, allow_unused=True)

    middle, threads = len(rows) // 2, max(torch.get_num_threads() // 2, 1)
    found = list(_pool(threads).map(learned, (rows[:middle], rows[middle:])))
    for parameter, *gradients in zip(trained, *(own for _, own in found), strict=True):
        for gradient in gradients:
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
    return torch.stack([told for told, _ in found]).mean(0)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Two threads that last: new ones would ask for their memory anew in every step."""
    return ThreadPoolExecutor(2, "half", torch.set_num_threads, (threads,))

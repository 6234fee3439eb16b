"""How many threads of the processor answer a query soonest.

Threads share a product and wait for each other after it. Products of a small network are done in the time that takes:
with two threads the small presets are two to three times slower than with one, and twenty times on a busy machine.
From matrices of some 500 by 500 on, about a hundred tokens at a time, threads gain. Measured by widths of a network.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn

ONE_THREAD_BELOW = 50_000_000
"""Weights of a policy. The small presets have 4 million, the smallest published policy 1800."""


def fastest(policy: Any, available: int) -> int:
    """How many of the available threads `policy` is to use on a processor."""
    weights = sum(parameter.numel() for parameter in cast(nn.Module, policy).parameters())
    return available if weights >= ONE_THREAD_BELOW else 1


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Within it, products are shared by so many threads; afterwards by as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)

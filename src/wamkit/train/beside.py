"""Work that goes on beside training, in processes of its own: it is told of every step, and must not delay it.

It does not know what the work is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from wamkit.train.checkpoint import State

AfterStep = Callable[[int, State], None]
"""Called with the steps done and the state after the last of them."""

Beside = Callable[[], AbstractContextManager[AfterStep]]
"""Entered before the first step and left after the last one; by an exception where training is stopped."""


@contextmanager
def nothing() -> Iterator[AfterStep]:
    """No such work."""
    yield lambda done, state: None

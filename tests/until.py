"""Waiting for what another thread or process does, however slow the machine is."""

from __future__ import annotations

import time
from collections.abc import Callable

SECONDS = 300.0


def until(holds: Callable[[], object]) -> None:
    """Return when it holds. AssertionError after SECONDS: a test that waits in vain fails, and does not hang."""
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"not within {SECONDS:g} s"
        time.sleep(0.005)

"""Ctrl-C and SIGTERM reach a whole process group, but only the parent decides what they mean.

A child is started with both signals blocked, so that they cannot interrupt its imports; then it ignores them for good.
It ends when its parent closes the connection or is gone.
"""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import Iterator

STOPPING = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def held_back() -> Iterator[None]:
    """Block both signals: a process started meanwhile inherits that; in this one they are delivered afterwards."""
    former = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def ignore() -> None:
    """In the child: drop signals that are pending or will come."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)

"""Ctrl-C and SIGTERM, and SIGHUP, as events that long work checks between two steps, not as exceptions at any point.

An exception inside a callback of a library may be printed and dropped; an event is not lost.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from threading import Event

from wamkit_client import signals

from wamkit.io.files import AGAIN


def stopped(kept: str) -> KeyboardInterrupt:
    """The exception that ends stopped work; the command line prints it. kept: what has been saved, as a clause."""
    return KeyboardInterrupt(f"{kept}; {AGAIN}")


def stop_request(kept: str, more: Sequence[signal.Signals] = ()) -> AbstractContextManager[Event]:
    """An event that Ctrl-C, SIGTERM or one of `more` sets; a second signal interrupts at once. kept: see `stopped`."""
    return signals.stop_request(str(stopped(kept)), more)


@contextmanager
def reload_request() -> Iterator[Event]:
    """An event that SIGHUP sets, where it would end the process otherwise. In the main thread."""
    reload = Event()
    former = signal.signal(signal.SIGHUP, lambda number, frame: reload.set())
    try:
        yield reload
    finally:
        signal.signal(signal.SIGHUP, former)

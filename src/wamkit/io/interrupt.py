"""Ctrl-C and SIGTERM, and SIGHUP, as events that long work checks between two steps, not as exceptions at any point.

An exception inside a callback of a library may be printed and dropped; an event is not lost.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, current_thread, main_thread

from wamkit.io.files import AGAIN


def stopped(kept: str) -> KeyboardInterrupt:
    """The exception that ends stopped work; the command line prints it. kept: what has been saved, as a clause."""
    return KeyboardInterrupt(f"{kept}; {AGAIN}")


@contextmanager
def stop_request(kept: str) -> Iterator[Event]:
    """An event that Ctrl-C or SIGTERM sets; a second signal interrupts at once. kept: see `stopped`."""
    stop = Event()

    def request(number: int, frame: object) -> None:
        if stop.is_set():
            raise stopped(kept)
        stop.set()

    if current_thread() is not main_thread():  # only the main thread may handle signals
        yield stop
        return
    former = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextmanager
def reload_request() -> Iterator[Event]:
    """An event that SIGHUP sets, where it would end the process otherwise. In the main thread."""
    reload = Event()
    former = signal.signal(signal.SIGHUP, lambda number, frame: reload.set())
    try:
        yield reload
    finally:
        signal.signal(signal.SIGHUP, former)

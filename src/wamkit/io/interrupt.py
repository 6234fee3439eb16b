"""Ctrl-C and SIGTERM as a question that long work answers between two steps, not as an exception anywhere inside.

An exception may be raised inside a library's callback, where it is printed and forgotten; an event is not lost.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, current_thread, main_thread

from wamkit.io.files import AGAIN


def stopped(kept: str) -> KeyboardInterrupt:
    """What ends work that was asked to stop; the command line prints its words. kept: what is not lost."""
    return KeyboardInterrupt(f"{kept}; {AGAIN}")


@contextmanager
def stop_request(kept: str) -> Iterator[Event]:
    """An event that Ctrl-C or SIGTERM sets; a second one interrupts at once. kept: as of `stopped`."""
    stop = Event()

    def ask(number: int, frame: object) -> None:
        if stop.is_set():
            raise stopped(kept)
        stop.set()

    if current_thread() is not main_thread():  # only the main thread may handle signals
        yield stop
        return
    former = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)

"""Ctrl-C and SIGTERM as an event that is checked between two steps, not as an exception at any point."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from threading import Event, current_thread, main_thread
from typing import Iterator, Sequence


@contextmanager
def stop_request(message: str, more: Sequence[signal.Signals] = ()) -> Iterator[Event]:
    """An event that the first signal sets; the second raises KeyboardInterrupt(message).

    more: signals besides these two.

    Only the main thread may handle signals: in another the event is never set.
    """
    stop = Event()

    def request(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt(message)
        stop.set()

    if current_thread() is not main_thread():
        yield stop
        return
    former = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM, *more)}
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)

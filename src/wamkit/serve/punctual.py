"""A websocket whose messages have to arrive within a time: whoever sends them byte by byte does not hold a place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.frames import CloseCode, Frame, Opcode

LAST_WORDS = 1.0
"""Seconds in which the other end may still read why."""
DATA = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)


class PunctualConnection(ServerConnection):
    """Ends (1008) where a message takes longer than so many seconds from its first byte to its last.

    late: is told. A beginning that comes together with the end of the message before it counts from its next bytes on;
    how much that may be is what one read from the socket returns.
    """

    def __init__(self, *args: Any, seconds: float, late: Callable[[], None], **more: Any) -> None:
        super().__init__(*args, **more)
        self._seconds, self._late = seconds, late
        self._events = 0  # frames, and the handshake before them
        self._continued = False  # whether the last frame was not the last of its message
        self._clock: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        before = self._events
        super().data_received(data)
        if self._events > before and not self._continued:
            self._stop_clock()
        elif self._clock is None:
            self._clock = self.loop.call_later(self._seconds, self._end)

    def process_event(self, event: Any) -> None:
        super().process_event(event)
        self._events += 1
        if isinstance(event, Frame) and event.opcode in DATA:
            self._continued = not event.fin

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        super().connection_lost(exc)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _end(self) -> None:
        self._late()
        reason = f"a message took longer than {self._seconds:g} s to arrive"
        self.protocol.fail(CloseCode.POLICY_VIOLATION, reason)
        self.send_data()
        self.loop.call_later(LAST_WORDS, self.transport.abort)

"""What is under way at all ports of a server, and how much of it each key may cause. Knows no transport."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Coroutine
from typing import Literal

from wamkit.serve.dialects.base import Client, Dialect, Service
from wamkit.serve.doors import Meter
from wamkit.serve.refusals import Reason, Refused

Own = set[asyncio.Task[None]]
"""Messages of one connection that are under way."""


class Traffic:
    """For the server's event loop. stopping: whether new messages are refused."""

    def __init__(self, service: Service) -> None:
        self.service, self.stopping = service, False
        self._numbers = itertools.count()
        self._meters: dict[str, Meter] = {}
        self._waiting = 0  # bytes of messages under way
        self._pending: Own = set()

    def client(self, dialect: Dialect) -> Client:
        """A new connection."""
        return Client(self.service, next(self._numbers), dialect)

    def expect_room(self, owner: str, own: Own, size: int) -> None:
        """Count a message of so many bytes. Refused where its key, its connection or all together ask too much."""
        limits = self.service.limits
        self._meters.setdefault(owner, Meter(limits.rate)).count()
        if self.stopping:
            raise Refused("stopping", "the server ends; connect again")
        if len(own) >= limits.pending or self._waiting + size > limits.waiting_bytes:
            wrong = f"too much is waiting; ask at most {limits.pending} things at a time, and again later"
            raise Refused("busy", wrong)

    def begin(self, answer: Coroutine[None, None, None], own: Own, size: int) -> None:
        """Have a message of so many bytes answered."""

        def end(task: asyncio.Task[None]) -> None:
            own.discard(task)
            self._pending.discard(task)
            self._waiting -= size

        self._waiting += size
        task = asyncio.create_task(answer)
        own.add(task)
        self._pending.add(task)
        task.add_done_callback(end)  # a callback, because a task may be cancelled before it has begun

    def ended(self, client: Client, arrived: float, refused: Reason | Literal[""]) -> None:
        """A message that came then (of time.perf_counter) was answered, or refused."""
        seconds = time.perf_counter() - arrived
        client.total_ms = 1000 * seconds
        if refused:
            self.service.watch.refused(client.dialect.name, refused)
        else:
            self.service.watch.answered(client.dialect.name, seconds)

    async def drain(self) -> None:
        """Wait for what is under way, for `limits.drain_seconds` at most."""
        self.stopping = True
        if self._pending:
            await asyncio.wait(self._pending, timeout=self.service.limits.drain_seconds)

"""In which order queries are answered, and which of them by one call of the policy.

All policies of a server share one worker thread, because they share one device. While it computes, queries wait here,
at most `capacity` of them; what waits together and fits together is asked together. A query is given up when its client
has gone, when its deadline passes, and when a newer one of the same robot comes.

Everything but the policy runs in the event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from math import inf

from wamkit_client.types import ActionChunk, Observation, Policy

from wamkit.serve.refusals import Refused
from wamkit.serve.served import Served
from wamkit.serve.watch import NOBODY, Timing, Watch
from wamkit.spans import Clock, watching

AWAKE = 1.0
"""Seconds after its last query for which a robot may be waited for."""
SUPERSEDED = (
    "a newer observation of the same robot took its place; name robots by the key 'robot' where one connection serves "
    "several"
)


@dataclass(frozen=True)
class Answer:
    """One chunk per observation."""

    chunks: list[ActionChunk]
    timing: Timing


@dataclass(frozen=True, eq=False)
class _Query:
    served: Served
    observations: Sequence[Observation]
    robot: Hashable
    deadline: float
    arrived: float = field(default_factory=time.monotonic)
    answer: asyncio.Future[Answer] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def fits(self) -> Hashable:
        """What queries that are asked together have in common."""
        kinds = {
            (o.embodiment, o.steps, *((name, x.shape) for name, x in o.images.items()))
            for o in self.observations
        }
        return id(self.served), frozenset(kinds)


class Scheduler:
    """`run` while it is to answer.

    window: seconds for which a query waits for those of other robots, which must have asked within the last second:
    a robot that is alone waits for nobody. most: observations of one call. capacity: queries that may wait.
    watch: is told of every call.
    """

    def __init__(
        self,
        window: float = 0.002,
        most: int = 16,
        capacity: int = 256,
        watch: Watch = NOBODY,
    ) -> None:
        self.window, self.most, self.capacity, self._watch = window, most, capacity, watch
        self._worker = ThreadPoolExecutor(1, "policy")
        self._waiting: dict[Hashable, _Query] = {}  # by robot, in the order of arrival
        self._awake: dict[Hashable, float] = {}  # when a robot asked last, in that order
        self._arrival = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Queries that wait for the worker."""
        return len(self._waiting)

    async def ask(
        self, served: Served, observations: Sequence[Observation], robot: Hashable, deadline: float = inf
    ) -> Answer:
        """Chunks for the observations, which are answered by one call.

        robot: whose they are; they take the place of older ones that still wait. deadline: on the monotonic clock.
        Raises Refused, and what the policy raises.
        """
        if robot in self._waiting:
            self._refuse(self._waiting[robot], Refused("superseded", SUPERSEDED))
        elif len(self._waiting) >= self.capacity:
            raise Refused("busy", f"{self.capacity} queries are waiting; ask again later")
        query = _Query(served, observations, robot, deadline)
        self._waiting[robot] = query
        self._awake.pop(robot, None)
        self._awake[robot] = query.arrived
        self._let_sleep()
        self._arrival.set()
        try:
            return await query.answer
        finally:  # also when nobody waits any more
            self._forget(query)

    async def in_turn(self, work: Callable[[], None]) -> None:
        """Run something else in the worker, between two calls."""
        await asyncio.get_running_loop().run_in_executor(self._worker, work)

    async def run(self) -> None:
        """Answer until cancelled; the call that runs then is waited for."""
        try:
            while True:
                await self._gather()
                batch = self._take()
                if batch:
                    await self._answer(batch)
        finally:
            self._worker.shutdown(cancel_futures=True)

    async def _gather(self) -> None:
        """Wait for a query, and within the window for those that may come."""
        while not self._waiting:
            self._arrival.clear()
            await self._arrival.wait()
        until = next(iter(self._waiting.values())).arrived + self.window
        while (left := until - time.monotonic()) > 0 and self._may_come():
            self._arrival.clear()
            try:
                await asyncio.wait_for(self._arrival.wait(), left)
            except TimeoutError:
                return

    def _may_come(self) -> bool:
        """Whether there is room for a query of a robot that asked lately."""
        self._let_sleep()
        return len(self._waiting) < self.most and not self._awake.keys() <= self._waiting.keys()

    def _let_sleep(self) -> None:
        """Forget robots that have not asked lately."""
        since = time.monotonic() - AWAKE
        while self._awake and next(iter(self._awake.values())) < since:
            del self._awake[next(iter(self._awake))]

    def _take(self) -> list[_Query]:
        """The oldest query and those that fit to it; those whose time has passed are refused."""
        now, batch, size = time.monotonic(), list[_Query](), 0
        for query in list(self._waiting.values()):
            if query.answer.done():  # its client has gone
                del self._waiting[query.robot]
            elif query.deadline < now:
                self._refuse(
                    query, Refused("late", "its deadline passed while it waited; the server is busy")
                )
            elif not batch or (query.fits == batch[0].fits and size + len(query.observations) <= self.most):
                batch.append(query)
                size += len(query.observations)
                del self._waiting[query.robot]
        return batch

    def _refuse(self, query: _Query, error: Exception) -> None:
        self._forget(query)
        if not query.answer.done():  # its client may have gone
            query.answer.set_exception(error)

    def _forget(self, query: _Query) -> None:
        if self._waiting.get(query.robot) is query:  # and not a newer one
            del self._waiting[query.robot]

    async def _answer(self, batch: list[_Query]) -> None:
        """One call for all. Where it fails, one for each, so that only the guilty are told."""
        begin = time.monotonic()
        served = batch[0].served
        observations = [o for query in batch for o in query.observations]
        try:
            chunks, parts = await self._call(served.policy, observations)
        except Exception as error:
            if len(batch) == 1:
                self._refuse(batch[0], error)
            else:
                for query in batch:
                    await self._answer([query])
            return
        called, size = time.monotonic() - begin, len(observations)
        for query in batch:
            own, chunks = chunks[: len(query.observations)], chunks[len(query.observations) :]
            if not query.answer.done():
                query.answer.set_result(Answer(own, Timing(begin - query.arrived, called, size, parts)))
        first = Timing(begin - batch[0].arrived, called, size, parts)
        self._watch.called(served.name, first, self.waiting)

    async def _call(
        self, policy: Policy, observations: Sequence[Observation]
    ) -> tuple[list[ActionChunk], dict[str, float]]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._worker, partial(_act, policy, observations))


def _act(policy: Policy, observations: Sequence[Observation]) -> tuple[list[ActionChunk], dict[str, float]]:
    clock = Clock()
    with watching(clock):
        chunks = policy.act(observations)
    return chunks, clock.seconds

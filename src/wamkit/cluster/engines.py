"""Policies on the GPUs of a cluster: each answers the simulators of many nodes, one query after the other or together.

It knows a policy by its `act` alone.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import ray
from ray.exceptions import RayError, RayTaskError
from wamkit_client.types import ActionChunk, BadInput, Observation, Policy

from wamkit.cluster.alike import Needs
from wamkit.cluster.connect import this_node

MOST = 16
"""Observations of one call."""
AT_ONCE = 1000
"""Queries that may wait for one engine."""
RESTART_SECONDS = 2.0


@dataclass(frozen=True)
class Loaded:
    """A policy, and the name of what it computes on."""

    policy: Policy
    device: str


class Engine:
    """An actor with a GPU of its own. most: observations of one call."""

    def __init__(self, make: Callable[[], Loaded], needs: Needs, most: int) -> None:
        self._refused = ""
        try:
            with needs.met(this_node()):
                loaded = make()
                loaded.policy.reset()
                self._device, self._answers = loaded.device, Answers(loaded.policy, most)
        except BadInput as error:
            self._refused = str(error)

    async def device(self) -> str:
        """What it computes on. BadInput where the node is not like the others, or the policy cannot be made."""
        if self._refused:
            raise BadInput(self._refused)
        return self._device

    async def act(self, observation: Observation) -> ActionChunk:
        """Of the policy, after queries that came before."""
        return await self._answers.to(observation)


class Answers:
    """Queries answered in a thread: those that wait together by one call of the policy, `most` of them."""

    def __init__(self, policy: Policy, most: int) -> None:
        self._policy, self._most = policy, most
        self._thread = ThreadPoolExecutor(1, "policy")
        self._waiting: deque[tuple[Observation, asyncio.Future[ActionChunk]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def to(self, observation: Observation) -> ActionChunk:
        """Raises what the policy raises."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[ActionChunk] = loop.create_future()
        self._waiting.append((observation, answer))
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._answer())
        return await answer

    async def _answer(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
            observations = [observation for observation, _ in batch]
            try:
                chunks = await loop.run_in_executor(self._thread, self._policy.act, observations)
            except Exception as error:
                for _, answer in batch:
                    answer.set_exception(error)
            else:
                for (_, answer), chunk in zip(batch, chunks, strict=True):
                    answer.set_result(chunk)


class Asking(Policy):
    """The engines, seen from a simulator: all queries of an episode go to one of them.

    Where it is lost, RayError ends the episode, and the next one asks another.
    """

    def __init__(self, engines: Sequence[Any]) -> None:
        self._engines, self._lost = engines, 0

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        try:
            found: list[ActionChunk] = ray.get([self._ask(observation) for observation in observations])
        except RayTaskError as error:
            raise error.cause from None
        except RayError:
            self._lost += 1
            time.sleep(RESTART_SECONDS)  # it comes back where there is another GPU
            raise
        return found

    def _ask(self, observation: Observation) -> Any:
        number = crc32(observation.episode.encode()) + self._lost
        return self._engines[number % len(self._engines)].act.remote(observation)

    def reset(self) -> None:
        """No-op: the engines are shared."""


@contextmanager
def engines(
    make: Callable[[], Loaded], needs: Needs, count: int, most: int
) -> Iterator[tuple[list[Any], str]]:
    """So many, once all are ready, and the names of what they compute on. BadInput as of Engine.device."""
    kind = ray.remote(Engine).options(num_gpus=1, num_cpus=0, max_restarts=-1, max_concurrency=AT_ONCE)
    found = [kind.remote(make, needs, most) for _ in range(count)]
    try:
        try:
            devices = ray.get([engine.device.remote() for engine in found])
        except RayTaskError as error:
            raise error.cause from None
        yield found, ", ".join(sorted(set(devices)))
    finally:
        for engine in found:
            ray.kill(engine)


def free_gpus() -> int:
    """GPUs that nobody uses; 1 where others use all of them, 0 where the cluster has none."""
    if not ray.cluster_resources().get("GPU", 0):
        return 0
    return max(1, int(ray.available_resources().get("GPU", 0)))

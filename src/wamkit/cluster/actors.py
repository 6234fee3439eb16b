"""Jobs done by Ray actors: a job whose actor or node is lost is begun again by another.

An actor is made once and then does one job after the other; it knows nothing of the jobs. Who asked for a job keeps
what comes of it, so a job that was begun twice counts once.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from wamkit_client.types import BadInput

from wamkit.cluster.alike import Needs
from wamkit.cluster.connect import first_line, this_node
from wamkit.io.jobs import Outcome, failed
from wamkit.io.progress import warn

LOST = 5
"""Times that the actor of one job may be lost."""
WAITED = 60.0
"""Seconds without any actor, after which the reason is said."""

Work = Callable[..., Any]
"""What an actor does: called with the arguments of a job."""


@dataclass(frozen=True)
class Kind:
    """What actors are made of. make: gives their work, on their node. resources: of each, as Ray's options."""

    make: Callable[[], Work]
    needs: Needs
    resources: Mapping[str, float]


class Place:
    """An actor."""

    def __init__(self) -> None:
        self._work: Work = _not_made

    def prepare(self, make: Callable[[], Work], needs: Needs) -> None:
        """To be called first. BadInput, naming the node, where it is not like the others or the work cannot be made."""
        with needs.met(this_node()):
            self._work = make()

    def run(self, *given: Any) -> Any:
        """Do a job."""
        return self._work(*given)


def _not_made(*given: Any) -> Any:
    raise RuntimeError("an actor was asked before it was made")


@dataclass(frozen=True)
class _Job:
    name: Hashable
    given: tuple[Any, ...]


class Actors:
    """io.jobs.Workers on a cluster; `actors` makes it. As many as asked for begin work as the cluster has room."""

    def __init__(self, kind: Kind, count: int) -> None:
        self._kind = kind
        self._starting: dict[Any, Any] = {}  # answer of `prepare` -> actor
        self._running: dict[Any, tuple[Any, _Job]] = {}  # answer of `run` -> actor and job
        self._idle: list[Any] = []
        self._again: deque[_Job] = deque()
        self._lost: Counter[Hashable] = Counter()
        self._waited = 0.0  # seconds without work
        self._died = 0  # actors in a row that were lost while they were made
        for _ in range(count):
            self._start()

    def free(self) -> int:
        return len(self._idle)

    def begin(self, name: Hashable, *given: Any) -> None:
        self._begin(_Job(name, given))

    def ended(self, seconds: float) -> list[tuple[Hashable, Outcome]]:
        answers = [*self._starting, *self._running]
        if not answers:
            time.sleep(seconds)
            return []
        first, _ = ray.wait(answers, num_returns=1, timeout=seconds, fetch_local=False)
        ready, _ = ray.wait(answers, num_returns=len(answers), timeout=0, fetch_local=False)
        self._say_why_nothing_happens(0.0 if first or self._running or self._idle else seconds)
        found: list[tuple[Hashable, Outcome]] = []
        for answer in ready:
            found += self._prepared(answer) if answer in self._starting else self._done(answer)
        while self._again and self._idle:
            self._begin(self._again.popleft())
        return found

    def close(self) -> None:
        """End all actors, whatever they do."""
        for actor in (*self._starting.values(), *self._idle, *(actor for actor, _ in self._running.values())):
            ray.kill(actor)

    def _start(self) -> None:
        actor = ray.remote(Place).options(max_restarts=0, **self._kind.resources).remote()
        self._starting[actor.prepare.remote(self._kind.make, self._kind.needs)] = actor

    def _begin(self, job: _Job) -> None:
        actor = self._idle.pop()
        self._running[actor.run.remote(*job.given)] = (actor, job)

    def _prepared(self, answer: Any) -> list[tuple[Hashable, Outcome]]:
        actor = self._starting.pop(answer)
        try:
            ray.get(answer)
        except RayTaskError as error:
            ray.kill(actor)
            raise error.cause from None
        except RayError as error:
            self._died += 1
            if self._died == LOST:
                raise BadInput(
                    f"workers were lost {LOST} times in a row before they could begin ({first_line(error)}); look at "
                    "the memory of the nodes, and at Ray's logs"
                ) from None
            self._start()
        else:
            self._died = 0
            self._idle.append(actor)
        return []

    def _done(self, answer: Any) -> list[tuple[Hashable, Outcome]]:
        actor, job = self._running.pop(answer)
        try:
            value = ray.get(answer)
        except RayTaskError as error:
            self._idle.append(actor)
            if isinstance(error.cause, RayError):  # what it asked in turn was lost
                return self._lose(job, error.cause)
            return [(job.name, failed(error.cause))]
        except RayError as error:
            ray.kill(actor)  # it may be alive, and only out of reach
            self._start()
            return self._lose(job, error)
        self._idle.append(actor)
        return [(job.name, lambda: value)]

    def _lose(self, job: _Job, error: RayError) -> list[tuple[Hashable, Outcome]]:
        """It is begun again, unless that has been of no use several times."""
        self._lost[job.name] += 1
        reason = first_line(error)
        if self._lost[job.name] == LOST:
            raise BadInput(
                f"{job.name}: lost with its worker {LOST} times ({reason}); look at the memory of the nodes, and "
                "at Ray's logs"
            )
        warn(f"{job.name}: its worker is lost ({reason}); another begins it again")
        self._again.append(job)
        return []

    def _say_why_nothing_happens(self, seconds: float) -> None:
        before = self._waited
        self._waited = self._waited + seconds if seconds else 0.0
        if before < WAITED <= self._waited:
            wanted = ", ".join(f"{name} {amount:g}" for name, amount in self._kind.resources.items())
            warn(
                f"nothing has begun for {WAITED:g} s: the cluster has no free place for a worker ({wanted}); other "
                "work holds it, or no node has that much. Waiting"
            )


def room() -> tuple[dict[str, float], int]:
    """What each that computes needs, a GPU where the cluster has any; and for how many there is room, at least 1."""
    name, resources = (
        ("GPU", {"num_gpus": 1.0, "num_cpus": 0.0})
        if ray.cluster_resources().get("GPU", 0)
        else ("CPU", {"num_cpus": 1.0})
    )
    return resources, max(1, int(ray.available_resources().get(name, 0)))


@contextmanager
def actors(kind: Kind, count: int) -> Iterator[Actors]:
    """`count` of a kind, which are ended in any case."""
    found = Actors(kind, count)
    try:
        yield found
    finally:
        found.close()

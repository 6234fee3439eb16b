"""Jobs done by Ray tasks, for those that take long and have nothing in common; a lost one is begun again by Ray."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from wamkit_client.types import BadInput

from wamkit.cluster.alike import Needs
from wamkit.cluster.connect import first_line, this_node
from wamkit.io.jobs import Outcome, kept

LOST = 5
"""Times that a task may be lost."""
END_SECONDS = 60.0
"""For what was interrupted to keep what it has."""


class Tasks:
    """io.jobs.Workers on a cluster, `count` at a time; `tasks` makes it."""

    def __init__(
        self, work: Callable[..., Any], needs: Needs, resources: Mapping[str, float], count: int
    ) -> None:
        self._work, self._needs, self._count = work, needs, count
        self._task = ray.remote(_do).options(max_retries=LOST, **resources)
        self._running: dict[Any, Hashable] = {}

    def free(self) -> int:
        return self._count - len(self._running)

    def begin(self, name: Hashable, *given: Any) -> None:
        self._running[self._task.remote(self._work, self._needs, *given)] = name

    def ended(self, seconds: float) -> list[tuple[Hashable, Outcome]]:
        ready, _ = ray.wait(list(self._running), num_returns=1, timeout=seconds)
        return [(self._running.pop(answer), kept(partial(_value, answer))) for answer in ready]

    def close(self) -> None:
        """Interrupt what still runs, as Ctrl-C does, and wait until it has ended."""
        answers = list(self._running)
        for answer in answers:
            ray.cancel(answer)
        if answers:
            ray.wait(answers, num_returns=len(answers), timeout=END_SECONDS)


def _do(work: Callable[..., Any], needs: Needs, *given: Any) -> Any:
    with needs.met(this_node()):
        return work(*given)


def _value(answer: Any) -> Any:
    try:
        return ray.get(answer)
    except RayTaskError as error:
        raise error.cause from None
    except RayError as error:
        raise BadInput(
            f"lost with its node {LOST} times ({first_line(error)}); look at the memory of the nodes, and at Ray's logs"
        ) from None


@contextmanager
def tasks(
    work: Callable[..., Any], needs: Needs, resources: Mapping[str, float], count: int
) -> Iterator[Tasks]:
    """`count` at a time, each `work` called with what a job is given; what runs in the end is interrupted."""
    found = Tasks(work, needs, resources, count)
    try:
        yield found
    finally:
        found.close()

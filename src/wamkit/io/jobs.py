"""Jobs that are done somewhere, several at a time: in processes of this machine, or in actors of a cluster.

What comes of a job does not depend on who does it. Nothing here knows what the jobs are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from threading import Event
from typing import Any, Protocol

Outcome = Callable[[], Any]
"""What a job returned; raises what it raised."""
PAUSE = 0.5
"""Seconds between two looks at whether the work is to stop."""


class Workers(Protocol):
    """Those that do jobs, each one at a time."""

    def free(self) -> int:
        """How many jobs more can be begun now."""

    def begin(self, name: Hashable, *given: Any) -> None:
        """Begin a job, whose name no other has; there is a free worker."""

    def ended(self, seconds: float) -> list[tuple[Hashable, Outcome]]:
        """Jobs that have ended since, by name. Waits for the first, no longer than `seconds`; then []."""


def kept(work: Callable[[], Any]) -> Outcome:
    """Do it now, and keep what it returned or raised."""
    try:
        value = work()
    except Exception as error:
        return failed(error)
    return lambda: value


def failed(error: Exception) -> Outcome:
    """Of a job that raised it."""

    def outcome() -> Any:
        raise error

    return outcome


def done(workers: Workers, jobs: Mapping[Hashable, tuple[Any, ...]], stop: Event) -> Iterator[Any]:
    """What comes of every job, as they end; no more of them once `stop` is set. Raises what a job raised."""
    queue, left = deque(jobs.items()), len(jobs)
    while left and not stop.is_set():
        while queue and workers.free():
            name, given = queue.popleft()
            workers.begin(name, *given)
        for _, outcome in workers.ended(PAUSE):
            left -= 1
            yield outcome()

"""Named parts of a query, for whoever measures one.

    with Span("blocks"): ...            in what is measured
    with watching(clock): engine.act()  where it is measured

While nobody watches, a span costs well under a microsecond. Spans may lie in each other: what a part takes is what its
innermost span takes. Watching is a matter of one thread.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

PARTS = ("images", "codec", "text", "blocks", "expert", "copy")
"""Of a query: views to a canvas, its latents (or features), context with its keys and values, the large networks, what
makes actions of their states, and the actions' way back to the host."""


class Watcher(Protocol):
    """Is told when a span begins and ends."""

    def enter(self, name: str) -> None:
        """A span begins."""

    def leave(self) -> None:
        """The span that began last ends."""


class Clock:
    """A Watcher. seconds: by span, what it took without those inside it. now: what time it is, in seconds."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._now, self._open, self._since = now, list[str](), 0.0

    def enter(self, name: str) -> None:
        """A span begins."""
        self._count()
        self._open.append(name)

    def leave(self) -> None:
        """It ends."""
        self._count()
        self._open.pop()

    def _count(self) -> None:
        now = self._now()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now


_watchers: list[Watcher] = []


class Span:
    """`with Span("blocks"): ...`"""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        for watcher in _watchers:
            watcher.enter(self.name)

    def __exit__(self, *error: object) -> None:
        for watcher in _watchers:
            watcher.leave()


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """`watcher` is told of the spans inside."""
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)

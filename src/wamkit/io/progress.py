"""How long work shows that it advances: a live bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Advance = Callable[..., None]
LINE_EVERY_SECONDS = 10.0
console = Console(highlight=False)


MESSAGE_LENGTH = 3000


def shortened(message: str, length: int = MESSAGE_LENGTH) -> str:
    """A message of at most some `length` characters: of what is huge its beginning and its end."""
    surplus = len(message) - length
    if surplus <= 0:
        return message
    end = length // 4
    return f"{message[: length - end]} [... {surplus} more characters ...] {message[-end:]}"


@contextmanager
def bar(description: str, total: int, unit: str = "", done: int = 0) -> Iterator[Advance]:
    """Yield `advance(n=1, note="")` for a job of `total` units of which `done` were finished earlier.

    The time left counts only what this run did, so that resumed work is not flattered.
    """
    show = _live if console.is_terminal else _lines
    with show(description, total, unit, done) as advance:
        yield advance


@contextmanager
def _live(description: str, total: int, unit: str, done: int) -> Iterator[Advance]:
    columns = (
        TextColumn("[bold]{task.description:<9}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[note]}"),
    )
    with Progress(*columns, console=console, speed_estimate_period=120) as progress:
        task = progress.add_task(description, total=total, completed=done, note="")

        def advance(n: int = 1, note: str = "") -> None:
            progress.advance(task, n)
            if note:
                progress.update(task, note=note)

        yield advance


@contextmanager
def _lines(description: str, total: int, unit: str, done: int) -> Iterator[Advance]:
    start = last = time.monotonic()
    count, text = done, ""

    def say() -> None:
        elapsed = time.monotonic() - start
        fresh = count - done
        left = f"{(total - count) * elapsed / fresh:.0f} s left" if fresh else "time left unknown"
        console.print(
            f"{description:<9} {count}/{total} {unit}  {elapsed:.0f} s, {left}  {text}", soft_wrap=True
        )

    def advance(n: int = 1, note: str = "") -> None:
        nonlocal count, last, text
        count, text = count + n, note or text
        if time.monotonic() - last >= LINE_EVERY_SECONDS:
            last = time.monotonic()
            say()

    yield advance
    say()


def say(line: str) -> None:
    """A line as it is: it is not wrapped, and brackets in it are no markup."""
    console.print(shortened(line), soft_wrap=True, markup=False)


def command(*words: object) -> str:
    """A command to be copied into a shell, also where paths have spaces."""
    return shlex.join(map(str, words))


def announce(simulator: Mapping[str, Any], warnings: Iterable[str]) -> None:
    """What a simulator runs with (its facts), and what a reader must not overlook, one line each."""
    versions = ", ".join(f"{name} {version}" for name, version in simulator["versions"].items())
    say(f"simulator: {simulator['simulator']}: {versions}")
    for line in warnings:
        warn(line)


def warn(line: str) -> None:
    """What a reader must not overlook, and what stops nothing."""
    console.print(shortened(f"warning: {line}"), style="bold yellow", soft_wrap=True, markup=False)

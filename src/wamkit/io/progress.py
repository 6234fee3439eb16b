"""What commands print: progress (a live bar on a terminal, a line every ten seconds in a log), messages, warnings."""

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
MESSAGE_LENGTH = 3000
console = Console(highlight=False)


def shortened(message: str, length: int = MESSAGE_LENGTH) -> str:
    """A message of about `length` characters at most: the beginning and the end of a longer one."""
    surplus = len(message) - length
    if surplus <= 0:
        return message
    end = length // 4
    return f"{message[: length - end]} [... {surplus} more characters ...] {message[-end:]}"


@contextmanager
def bar(description: str, total: int, unit: str = "", done: int = 0) -> Iterator[Advance]:
    """Yield `advance(n=1, note="")` for a job of `total` units, `done` of them finished by an earlier run.

    The time left is estimated from the units of this run only.
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
    """Print a line as it is: not wrapped, brackets are not markup."""
    console.print(shortened(line), soft_wrap=True, markup=False)


def command(*words: object) -> str:
    """A command quoted for a shell."""
    return shlex.join(map(str, words))


def announce(simulator: Mapping[str, Any], warnings: Iterable[str]) -> None:
    """Print what a simulator runs with (its facts) and its warnings."""
    versions = ", ".join(f"{name} {version}" for name, version in simulator["versions"].items())
    say(f"simulator: {simulator['simulator']}: {versions}")
    for line in warnings:
        warn(line)


def warn(line: str) -> None:
    """Print a warning; nothing is stopped."""
    console.print(shortened(f"warning: {line}"), style="bold yellow", soft_wrap=True, markup=False)

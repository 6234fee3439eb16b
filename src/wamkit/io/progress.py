"""What commands print: progress (a live bar on a terminal, a line every ten seconds in a log), messages, warnings."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
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


NO_RATES: Mapping[str, int] = MappingProxyType({})


@contextmanager
def bar(
    description: str, total: int, unit: str = "", done: int = 0, rates: Mapping[str, int] = NO_RATES
) -> Iterator[Advance]:
    """Yield `advance(n=1, note="")` for a job of `total` units, `done` of them finished by an earlier run.

    rates: of what the throughput is told, and how many of it are in a unit: {"steps": 1, "samples": 64}. It and the
    time left are estimated from the units of this run only.
    """
    show = _live if console.is_terminal else _lines
    with show(description, total, unit, done, rates) as advance:
        yield advance


def throughput(units: int, seconds: float, rates: Mapping[str, int]) -> str:
    """ "1.52 steps/s, 97.3 samples/s": of `units` that took `seconds`; rates as in `bar`. "" of none, or no time."""
    if not units or seconds <= 0:
        return ""
    speeds = {name: units * size / seconds for name, size in rates.items()}
    return ", ".join(
        f"{speed:.0f} {name}/s" if speed >= 100 else f"{speed:.3g} {name}/s" for name, speed in speeds.items()
    )


def duration(seconds: float) -> str:
    """ "45 s", "12 min", "3 h 5 min": to the nearest second, minute from ten minutes on."""
    if seconds < 600:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


@contextmanager
def _live(description: str, total: int, unit: str, done: int, rates: Mapping[str, int]) -> Iterator[Advance]:
    columns = (
        TextColumn("[bold]{task.description:<9}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("[dim]{task.fields[note]}"),
    )
    start, count = time.monotonic(), 0
    with Progress(*columns, console=console, speed_estimate_period=120) as progress:
        task = progress.add_task(description, total=total, completed=done, note="", rate="")

        def advance(n: int = 1, note: str = "") -> None:
            nonlocal count
            count += n
            progress.update(task, advance=n, rate=throughput(count, time.monotonic() - start, rates))
            if note:
                progress.update(task, note=note)

        yield advance


@contextmanager
def _lines(description: str, total: int, unit: str, done: int, rates: Mapping[str, int]) -> Iterator[Advance]:
    start = last = time.monotonic()
    count, text = done, ""

    def say() -> None:
        elapsed = time.monotonic() - start
        fresh = count - done
        left = f"{duration((total - count) * elapsed / fresh)} left" if fresh else "time left unknown"
        told = ", ".join(filter(None, [duration(elapsed), left, throughput(fresh, elapsed, rates)]))
        console.print(f"{description:<9} {count}/{total} {unit}  {told}  {text}", soft_wrap=True)

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

"""How a command that failed ends: one line on standard error and an exit status."""

from __future__ import annotations

import os
import select
import sys
from contextlib import suppress
from typing import Any

from rich.console import Console
from wamkit_client.types import BadInput

from wamkit.io.files import AGAIN, DISK_ERRORS, explained
from wamkit.io.progress import shortened


def report(error: BaseException) -> int:
    """Print what went wrong; the exit status. Raises `error` itself where it is a bug, so that its traceback shows."""
    if isinstance(error, BadInput):
        return _print(f"error: {error}", "red", 2)
    if isinstance(error, KeyboardInterrupt):
        return _print(f"interrupted. {str(error) or AGAIN}", "", 130)
    if isinstance(error, OSError):
        reader_left = isinstance(error, BrokenPipeError) and _has_no_reader(sys.stdout)
        _discard_unprinted(sys.stdout)
        if reader_left:
            return 1
        if error.errno in DISK_ERRORS:
            return _print(f"error: {explained(error)}", "red", 2)
    raise error


def _print(message: str, style: str, status: int) -> int:
    """The last line of a command; the status says the same where it cannot be printed."""
    with suppress(OSError):
        Console(stderr=True, highlight=False).print(
            shortened(message), soft_wrap=True, markup=False, style=style
        )
    _discard_unprinted(sys.stderr)
    return status


def _has_no_reader(stream: Any) -> bool:
    """Whether the other end of a pipe is closed."""
    poll = select.poll()
    poll.register(stream.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _discard_unprinted(stream: Any) -> None:
    """Empty the buffer of a stream that takes nothing more, or the interpreter would complain at exit."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())

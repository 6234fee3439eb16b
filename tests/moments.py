"""A signal at a chosen moment of a process's work, however fast the machine is: no one has to look in time."""

from __future__ import annotations

import os
import signal
import sys
from fnmatch import fnmatch
from pathlib import Path

EVENTS = ("open", "os.link", "os.mkdir", "os.rename")


def signal_at(place: str, number: signal.Signals) -> None:
    """This process sends itself the signal when it is about to open, link, make or rename to a path like "*/name".

    Once, and not from processes that it starts. SIGSTOP makes it wait there for SIGCONT.
    """
    seen: list[str] = []

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in EVENTS and not seen and any(fnmatch(str(path), place) for path in arguments[:2]):
            seen.append(event)
            os.kill(os.getpid(), number)

    sys.addaudithook(hook)


def has_stopped(process: int) -> bool:
    """Whether a process of that number waits for SIGCONT."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "T"

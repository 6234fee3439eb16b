"""Sharing jobs between several processes or machines that have one folder in common and nothing else.

A claim is a file that exactly one process manages to create. The claim of a dead owner is never removed by another
process: the next owner creates the following generation (`name.claim-1` after `name.claim-0`), so that two processes
that both find an owner dead cannot both take over. One listing of a folder tells all of its claims.
It does not know about the jobs.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from wamkit.io.files import create_file

STALE_AFTER_SECONDS = 1800.0


def claimed_jobs(names: Iterable[str]) -> dict[str, int]:
    """The jobs that have a claim, with the newest generation of each. names: of the folder's files."""
    found: dict[str, int] = {}
    for entry in names:
        name, _, generation = entry.rpartition(".claim-")
        if name and generation.isdecimal():
            found[name] = max(found.get(name, 0), int(generation))
    return found


@dataclass(frozen=True)
class Claim:
    """The right to do job `name` in `folder`; `generation` counts the owners that died before."""

    folder: Path
    name: str
    generation: int

    @classmethod
    def take(
        cls, folder: Path, name: str, newest: int = -1, stale_after: float = STALE_AFTER_SECONDS
    ) -> Claim | None:
        """A claim, or None while a living process has the job.

        newest: generation of the job's newest claim (`claimed_jobs`), -1 where it has none. An owner on this host
        lives as long as its process; on another host, while the claim was refreshed in the last `stale_after` seconds.
        Raises OSError (disk full).
        """
        if newest >= 0 and _lives(_path(folder, name, newest), stale_after):
            return None
        claim = cls(folder, name, newest + 1)
        owner = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": _started(os.getpid()),
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        return claim if create_file(claim.path, json.dumps(owner).encode()) else None

    @property
    def path(self) -> Path:
        return _path(self.folder, self.name, self.generation)

    def refresh(self) -> None:
        """Tell other hosts that the owner lives. No-op for a claim that was lost."""
        if self.held():
            os.utime(self.path)

    def held(self) -> bool:
        """False once another process has taken over the job because this one seemed dead."""
        return self.path.exists() and not _path(self.folder, self.name, self.generation + 1).exists()

    def release(self, done: bool) -> None:
        """Give the job back; where it is `done`, remove the claims of all earlier owners too."""
        for generation in range(0 if done else self.generation, self.generation + 1):
            _path(self.folder, self.name, generation).unlink(missing_ok=True)


def _path(folder: Path, name: str, generation: int) -> Path:
    return folder / f"{name}.claim-{generation}"


def _lives(path: Path, stale_after: float) -> bool:
    try:
        with path.open() as file:
            text, age = file.read(), time.time() - os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return True  # released or finished just now; the next look tells
    try:
        owner = json.loads(text)
        if owner["host"] == socket.gethostname():
            return bool(_started(owner["pid"]) == owner["started"])
    except (ValueError, LookupError, TypeError):
        pass  # created but not written yet (`create_file` without links): judged by its age
    return age < stale_after


def _started(pid: int) -> str:
    """When process `pid` started (clock ticks since boot), "" when dead: process numbers are used again."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    state, *rest = stat.rpartition(")")[2].split()
    return "" if state in "ZX" else rest[18]

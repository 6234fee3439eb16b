"""What becomes of all ranks when one fails: they end, and the user is told once, by the rank that noticed first.

A rank that dies cannot say so, and the others would wait for it. So every rank shows that it lives by a counter in a
store that all reach, and looks at the counter of the next one. It does not know what the ranks do.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wamkit_client.types import BadInput

from wamkit.io.files import AGAIN
from wamkit.train.ranks import Agreed

PATIENCE = 15.0
"""Seconds without a sign of life after which a rank counts as dead. torchrun kills what is left 30 s after a death."""
EVERY = 1.0
GRACE = 5.0
"""Seconds that a rank has for ending by itself once another has failed."""
FAILED = "failed"
LOST = re.compile(r"gloo|nccl|connection|broken pipe|timed out|socket|recv|store", re.IGNORECASE)
"""What errors of a rank say that waits for another one."""


class Watch:
    """Of one of `count` ranks. store: one that no other thread uses. tell: prints a sentence for the user."""

    def __init__(
        self, store: Any, rank: int, count: int, tell: Callable[[str], None], patience: float = PATIENCE
    ) -> None:
        self._store, self.rank, self.count, self._tell, self._patience = store, rank, count, tell, patience
        self._next = (rank + 1) % count
        self._lock, self._failed, self._ended = threading.Lock(), threading.Event(), threading.Event()
        self._store.set(_home(rank), f"{_where()} {os.getpid()}")
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)

    @contextmanager
    def over(self) -> Iterator[None]:
        """Work of this rank. One rank's error leaves it as it is; the others end silently, by SystemExit."""
        self._thread.start()
        try:
            yield
            with self._lock:  # that this process ends is no failure
                self._store.set(_left(self.rank), "")
        except (SystemExit, GeneratorExit):
            raise
        except BaseException as error:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun ends those that are left
            if isinstance(error, RuntimeError) and LOST.search(str(error)):
                self._failed.wait(self._patience + GRACE)
            if self._failed.is_set() or not self._is_first():
                raise SystemExit(_status(error)) from None
            raise self._named(error) from error
        finally:
            self._ended.set()
            self._thread.join()

    def _named(self, error: BaseException) -> BaseException:
        """The error, with the rank that has it where the others do not."""
        if isinstance(error, BadInput) and not isinstance(error, Agreed):
            return BadInput(f"rank {self.rank} of {self.count} ({socket.gethostname()}): {error}")
        return error

    def _is_first(self) -> bool:
        """Whether no other rank has failed before; from now on this one has."""
        with self._lock:
            first: bytes = self._store.compare_set(FAILED, "", str(self.rank))
        return first == str(self.rank).encode()

    def _look(self) -> None:
        beat, seen = -1, time.monotonic()
        while not self._ended.wait(EVERY):
            try:
                with self._lock:
                    self._store.add(_beat(self.rank), 1)
                    found, failed = self._store.add(_beat(self._next), 0), self._store.check([FAILED])
                    begun, left = (self._store.check([of(self._next)]) for of in (_home, _left))
                    home = self._store.get(_home(self._next)).decode() if begun else ""
            except RuntimeError as error:
                self._tell(f"rank {self.rank} has lost the connection to the first node ({error}); {AGAIN}")
                return self._end()
            if failed:
                return self._end()
            if found != beat or left or not begun:
                beat, seen = found, time.monotonic()
                continue
            silent = time.monotonic() - seen > self._patience
            if silent or _has_died(home):
                if self._is_first():
                    self._tell(self._died(home, silent))
                return self._end()

    def _died(self, home: str, silent: bool) -> str:
        why = f"gives no sign of life for {self._patience:g} s" if silent else "has died"
        return (
            f"rank {self._next} of {self.count} ({home.split(maxsplit=1)[0]}) {why}: killed (did memory run out?), or "
            "its machine is gone. All ranks end, the newest checkpoint is kept. With torchrun --max-restarts they go "
            f"on by themselves; else {AGAIN}"
        )

    def _end(self) -> None:
        """The main thread may wait for a rank that does not answer: the process ends without it if need be."""
        self._failed.set()
        if not self._ended.wait(GRACE):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)


def _beat(rank: int) -> str:
    return f"beat {rank}"


def _home(rank: int) -> str:
    return f"home {rank}"


def _left(rank: int) -> str:
    return f"left {rank}"


def _where() -> str:
    """This machine, as its processes see it."""
    return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"


def _has_died(home: str) -> bool:
    """Whether a process of this machine is no more; of another machine it is not known."""
    where, _, number = home.rpartition(" ")
    if where != _where():
        return False
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def _status(error: BaseException) -> int:
    """The exit status of a rank whose error is told by another."""
    return 130 if isinstance(error, KeyboardInterrupt) else 2 if isinstance(error, BadInput) else 1

"""Commands in processes of their own without the seconds of their imports: forked from a server that has imported.

A process runs what the command line would, in its folder, with empty standard input and without the suite's checks of
shapes. It shares nothing with others but modules that were imported and not used. Where the start of a process is what
is tested, or its death, use `subprocess`.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.moments import has_stopped, signal_at
from tests.until import SECONDS, until

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(
    ["torch._dynamo", "wamkit.commands.parsing", "wamkit.stages.demo", "wamkit.report.run_page"]
)


@dataclass(frozen=True)
class Done:
    """Exit status (-n: ended by signal n), and what the process and its children printed."""

    status: int
    out: str
    err: str


class Running:
    """A process that runs `wamkit WORDS`, `python SCRIPT WORDS` or `python -m MODULE WORDS` in a folder.

    at: "" or the path at which it sends itself the signal `number` (moments.py).
    """

    def __init__(
        self, words: Sequence[str], folder: Path, at: str = "", number: signal.Signals = signal.SIGSTOP
    ) -> None:
        self.words = words
        self._printed = tempfile.TemporaryDirectory()
        self._out, self._err = (Path(self._printed.name) / name for name in ("out", "err"))
        for path in (self._out, self._err):
            path.touch()
        given = (words, folder, dict(os.environ), self._out, self._err, at, number)
        self._process = context.Process(target=_run, args=given)
        self._process.start()

    def until_stopped(self) -> None:
        """Return when it has stopped at its place. AssertionError where it ends, or does not stop."""
        assert self._process.pid is not None
        number = self._process.pid

        def stopped() -> bool:
            assert self._process.is_alive(), self._err.read_text()
            return has_stopped(number)

        until(stopped)

    def send(self, number: signal.Signals) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def end(self) -> Done:
        """Wait for it. AssertionError if it takes longer than SECONDS."""
        self._process.join(SECONDS)
        status = self._process.exitcode
        if status is None:
            self._process.kill()
            raise AssertionError(
                f"{' '.join(self.words)}: no end after {SECONDS:g} s\n{self._err.read_text()}"
            )
        return Done(status, self._out.read_text(), self._err.read_text())


def command(words: Sequence[str], folder: Path) -> Done:
    """Run it to its end."""
    return Running(words, folder).end()


def _run(
    words: Sequence[str],
    folder: Path,
    variables: dict[str, str],
    out: Path,
    err: Path,
    at: str,
    number: signal.Signals,
) -> None:
    gc.freeze()  # what was imported before is not searched for garbage
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    for path, stream in ((Path(os.devnull), sys.stdin), (out, sys.stdout), (err, sys.stderr)):
        file = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(file, stream.fileno())
    if at:
        signal_at(at, number)
    match words:
        case ["wamkit", *rest]:
            from wamkit.cli import main

            sys.exit(main(rest))
        case ["python", "-m", module, *rest]:
            sys.argv[1:] = rest
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case ["python", script, *rest]:
            sys.argv = [script, *rest]
            sys.path.insert(0, str(Path(script).parent))
            runpy.run_path(script, run_name="__main__")

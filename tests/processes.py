"""Commands in processes of their own without the seconds of their imports: forked from a server that has imported.

A process runs what the command line would, in its folder, with empty standard input and without the suite's checks of
shapes. It shares nothing with others but modules that were imported and not used. Where the start of a process is what
is tested, or its death, use `subprocess`.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SECONDS = 300
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["torch._dynamo", "wamkit.commands.parsing", "wamkit.stages.demo", "wamkit.report.run_page"]
)


@dataclass(frozen=True)
class Done:
    """Exit status, and what the process and its children printed."""

    status: int
    out: str
    err: str


def command(words: Sequence[str], folder: Path) -> Done:
    """Run `wamkit WORDS`, `python SCRIPT WORDS` or `python -m MODULE WORDS` in a folder.

    AssertionError if it takes longer than SECONDS.
    """
    with tempfile.TemporaryDirectory() as printed:
        out, err = Path(printed) / "out", Path(printed) / "err"
        process = _context.Process(target=_run, args=(words, folder, dict(os.environ), out, err))
        process.start()
        process.join(SECONDS)
        if process.exitcode is None:
            process.kill()
            raise AssertionError(f"{' '.join(words)}: no end after {SECONDS} s\n{err.read_text()}")
        return Done(process.exitcode, out.read_text(), err.read_text())


def _run(words: Sequence[str], folder: Path, variables: dict[str, str], out: Path, err: Path) -> None:
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    for path, stream in ((Path(os.devnull), sys.stdin), (out, sys.stdout), (err, sys.stderr)):
        file = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(file, stream.fileno())
    match words:
        case ["wamkit", *rest]:
            from wamkit.cli import main

            sys.exit(main(rest))
        case ["python", "-m", module, *rest]:
            sys.argv[1:] = rest
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case ["python", script, *rest]:
            sys.argv, sys.path[0] = [script, *rest], str(Path(script).parent)
            runpy.run_path(script, run_name="__main__")

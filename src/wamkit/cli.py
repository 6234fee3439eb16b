"""The command line: which commands there are, and what their errors look like.

Nothing heavy is imported before a command runs, so that `wamkit --help` answers at once. Values of a recipe are
changed by their path: `wamkit train metaworld3 ... --train.steps 2000 --policy.objective action_only`.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from contextlib import suppress
from typing import Annotated, Any

import tyro
from rich.console import Console
from tyro.conf import subcommand
from wamkit_client.types import BadInput

from wamkit.commands.converting import Convert
from wamkit.commands.data import Data
from wamkit.commands.inspecting import Inspect
from wamkit.commands.overrides import split_overrides
from wamkit.commands.running import Collect, Compare, Demo, Encode, Eval, Report, Train
from wamkit.io.files import AGAIN, DISK_ERRORS, explained
from wamkit.io.progress import shortened

Command = (
    Annotated[Demo, subcommand("demo")]
    | Annotated[Collect, subcommand("collect")]
    | Annotated[Data, subcommand("data")]
    | Annotated[Encode, subcommand("encode")]
    | Annotated[Train, subcommand("train")]
    | Annotated[Eval, subcommand("eval")]
    | Annotated[Report, subcommand("report")]
    | Annotated[Compare, subcommand("compare")]
    | Annotated[Inspect, subcommand("inspect")]
    | Annotated[Convert, subcommand("convert")]
)


def main() -> None:
    """Entry point of `wamkit`. Exit status: 0 done, 1 problems found, 2 bad input or a failing disk, 130 interrupted.

    Where whoever reads the output has gone (`wamkit ... | head`), it ends without a word and with status 1.
    """
    # Threads that spin while they wait starve the simulators and loaders beside them (three times slower, measured).
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    _open_streams()
    sys.exit(run_command(sys.argv[1:]))


def _open_streams() -> None:
    """Give closed ones (`>&-`) a place, or the next file opened would get what is printed; print what ASCII has not."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if vars(sys)[name] is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - until the end of the process
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]


def run_command(args: list[str]) -> int:
    """Parse and run one command; its exit status. SystemExit where the parser has answered."""
    try:
        try:
            return _run(args)
        finally:
            sys.stdout.flush()
    except BadInput as error:
        return _say(f"error: {error}", "red", 2)
    except KeyboardInterrupt as interrupt:
        return _say(f"interrupted. {str(interrupt) or AGAIN}", "", 130)
    except OSError as error:
        gone = isinstance(error, BrokenPipeError) and _has_no_reader(sys.stdout)
        _drop_unprinted(sys.stdout)
        if gone:
            return 1
        if error.errno not in DISK_ERRORS:
            raise
        return _say(f"error: {explained(error)}", "red", 2)


def _run(args: list[str]) -> int:
    own, overrides = split_overrides(args)
    command = tyro.cli(
        Command,
        args=own,
        prog="wamkit",
        description="Train, measure and run World Action Models. Start with: wamkit demo",
        config=(tyro.conf.OmitArgPrefixes,),
    )
    return command(overrides)


def _has_no_reader(stream: Any) -> bool:
    """Whether a pipe's other end is closed."""
    asked = select.poll()
    asked.register(stream.fileno(), 0)
    return any(event & select.POLLERR for _, event in asked.poll(0))


def _drop_unprinted(stream: Any) -> None:
    """Where a stream takes nothing more: what it still holds, about which the interpreter's end would complain."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _say(message: str, style: str, status: int) -> int:
    """The last words of a command; the status says the same where they cannot be printed."""
    with suppress(OSError):
        Console(stderr=True, highlight=False).print(
            shortened(message), soft_wrap=True, markup=False, style=style
        )
    _drop_unprinted(sys.stderr)
    return status


if __name__ == "__main__":
    main()

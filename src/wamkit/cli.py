"""The entry point of `wamkit`: the process, one command, its exit status.

Everything else is imported inside `main`: that takes half a second, in which Ctrl-C should end as it does later.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout


def main(args: Sequence[str] | None = None) -> int:
    """Run one command. args: its words; None: those of this process.

    Returns the exit status: 0 done, 1 problems found, 2 bad input or a failing disk, 130 interrupted; 1 without a
    message where whoever reads the output has left (`wamkit ... | head`). Raises SystemExit where the parser answers.
    """
    try:
        # Threads that spin while they wait slow simulators and loaders beside them (three times, measured).
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        if "TORCHELASTIC_RUN_ID" in os.environ:  # one of many processes, each of which would warn
            os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
        _open_streams()
        from wamkit.commands.parsing import parse
        from wamkit.commands.references import found

        try:
            words = found(sys.argv[1:] if args is None else args)
            with _told_once():
                command, overrides = parse(words)
            return command(overrides)
        finally:
            sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        from wamkit.commands.errors import report

        return report(error)


@contextmanager
def _told_once() -> Iterator[None]:
    """Of the processes that torchrun starts on a machine, all with the same words, one says what is wrong with them."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        yield
        return
    from wamkit_client.types import BadInput

    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        try:
            yield
        except BadInput as error:
            raise SystemExit(2) from error


def _open_streams() -> None:
    """Replace closed streams (`>&-`), or the next opened file would receive what is printed; never fail on ASCII."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if vars(sys)[name] is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - until the end of the process
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]


if __name__ == "__main__":
    sys.exit(main())

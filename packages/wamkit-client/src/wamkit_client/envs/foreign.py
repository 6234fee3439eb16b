"""A process with another Python, for a simulator whose packages conflict with the policy's.

The other interpreter runs this file. Both sides talk over a socket that is its standard input: no other process can
connect, wrapper scripts pass it on, and either side notices at once when the other is gone. Of environments it knows
only where they are served (envs/vector.py).
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from threading import Thread
from typing import Any, Dict, Tuple

from wamkit_client.envs.signals import held_back
from wamkit_client.types import BadInput

PYTHON_VARIABLE = "WAMKIT_SIMULATOR_PYTHON"
START_SECONDS = 60.0
END_SECONDS = 10.0  # for the rest of its stderr, once it has ended
READY = b"ready"
_KEPT = 4000  # bytes of its stderr
_STDERR = 2


class ForeignProcess:
    """A subprocess with those methods of a multiprocessing process that EnvProcess uses.

    Its stderr is copied to ours, and the end of it is kept. OSError where it cannot be started.
    """

    def __init__(self, python: str, channel: Connection) -> None:
        command = [python, "-m", __name__]
        self._process = subprocess.Popen(
            command, env=_environment(), stdin=channel.fileno(), stderr=subprocess.PIPE
        )
        self._said = b""
        self._relay = Thread(target=self._pass_on, name="simulator-stderr", daemon=True)
        self._relay.start()

    @property
    def exitcode(self) -> Any:
        return self._process.poll()

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()

    def join(self, timeout: float = START_SECONDS) -> None:
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return

    def last_line(self) -> str:
        """The last line of its stderr, once it has ended."""
        self._relay.join(END_SECONDS)
        lines = self._said.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it wrote nothing to stderr"

    def _pass_on(self) -> None:
        stream: Any = self._process.stderr
        with stream:
            for chunk in iter(lambda: stream.read1(_KEPT), b""):
                self._said = (self._said + chunk)[-_KEPT:]
                with suppress(OSError):  # ours is closed or full; the pipe must be emptied all the same
                    os.write(_STDERR, chunk)


def start_foreign(python: str) -> Tuple[ForeignProcess, Connection]:
    """Start `python` as a host of environments.

    BadInput if it has no wamkit-client, is no Python, ends before it is ready, or takes longer than START_SECONDS.
    """
    ours, theirs = Pipe()
    try:
        with held_back():
            process = ForeignProcess(python, theirs)
    except OSError as error:
        ours.close()
        raise _refusal(python, str(error)) from None
    finally:
        theirs.close()
    problem = _problem(process, ours)
    if problem:
        process.kill()
        process.join()
        ours.close()
        raise _refusal(python, problem)
    return process, ours


def _problem(process: ForeignProcess, connection: Connection) -> str:
    """Why it cannot be used; "" when it is ready."""
    try:
        if not connection.poll(START_SECONDS):
            return f"not ready after {START_SECONDS:.0f} s"
        if connection.recv_bytes(len(READY)) == READY:
            return ""
    except (EOFError, ConnectionResetError):
        process.join(END_SECONDS)
        return f"it ended with status {process.exitcode}: {process.last_line()}"
    except OSError:
        pass  # a message longer than READY
    return "it answers, but not as wamkit-client does; is it another version?"


def _refusal(python: str, problem: str) -> BadInput:
    return BadInput(
        f"{PYTHON_VARIABLE}={python}: cannot host a simulator ({problem}); expected a Python in whose "
        "environment wamkit-client is installed: pip install wamkit-client"
    )


def _environment() -> Dict[str, str]:
    """Ours, without the variables that would make another interpreter import our packages."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


def _accept_newer_arrays() -> None:
    """Let NumPy 1 read arrays pickled by NumPy 2, which has renamed its modules."""
    import numpy

    if int(numpy.__version__.split(".")[0]) < 2:
        from importlib import import_module

        for name in ("", ".multiarray", ".numeric"):
            sys.modules["numpy._core" + name] = import_module("numpy.core" + name)


def main() -> None:
    """Serve environments to whoever started this process."""
    connection = Connection(os.dup(sys.stdin.fileno()))
    # A simulator that asks a question must not read our messages: its standard input is empty.
    os.dup2(os.open(os.devnull, os.O_RDONLY), sys.stdin.fileno())
    from wamkit_client.envs.vector import serve

    _accept_newer_arrays()
    connection.send_bytes(READY)
    serve(connection, connection.recv())


if __name__ == "__main__":
    main()

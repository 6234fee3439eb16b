"""Environments in processes of their own: several at once, and a crash that stays where it happened.

An EnvProcess hosts one environment at a time and runs functions on it. Processes are spawned, never forked (a graphics
context does not survive a fork); they ignore Ctrl-C and SIGTERM, which the parent handles, and end when the parent is
gone. They run this interpreter, or that of WAMKIT_SIMULATOR_PYTHON: one in which the simulator and, of wamkit, only
this package are installed. Knows nothing about policies or episodes.
"""

from __future__ import annotations

import multiprocessing
import os
import time
import traceback
from contextlib import contextmanager
from multiprocessing import resource_tracker, util
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple, Union

from wamkit_client.envs.base import Env, EnvConfig, Task
from wamkit_client.envs.foreign import PYTHON_VARIABLE, ForeignProcess, start_foreign
from wamkit_client.envs.signals import held_back, ignore
from wamkit_client.types import BadInput, NotSaved

CLOSE_SECONDS = 10.0
ANSWER_SECONDS = 120.0


class EnvCrashed(RuntimeError):
    """The environment raised an exception or its process died, as the message says. The next job gets a fresh one."""


class Host:
    """The state of a process: one environment, and `notes` that jobs leave for later jobs of the same episode."""

    def __init__(self, config: EnvConfig) -> None:
        self.config = config
        self._env: Optional[Env] = None
        self.notes: Dict[str, Any] = {}

    def env(self, task: Task) -> Env:
        """The environment of `task`; a fresh one if the last job had another task."""
        if self._env is None or self._env.task != task:
            self.close()
            self._env = self.config.make(task)
        return self._env

    def close(self) -> None:
        self.notes = {}
        env, self._env = self._env, None
        if env is not None:
            env.close()


Job = Callable[..., Any]


class EnvProcess:
    """One spawned process: `send(job, *args)`, then `receive()`. A job is a module-level function job(host, *args).

    To wait for several processes, use `ended`, or multiprocessing.connection.wait on `connection`.
    """

    def __init__(self, config: EnvConfig) -> None:
        self._config = config
        self._process: Union[SpawnProcess, ForeignProcess]
        self._sent = 0.0  # when the present job began, by the monotonic clock
        self._start()

    def _start(self) -> None:
        python = os.environ.get(PYTHON_VARIABLE, "")
        if python:
            self._process, self.connection = start_foreign(python)
            self.connection.send(self._config)
            return
        self._config.prepare()  # in the parent: children inherit the platform it chooses
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, self._config), daemon=True)
        resource_tracker.ensure_running()  # its start would unblock the signals that are held back below
        with held_back():
            process.start()
        util.Finalize(
            None, process.kill, exitpriority=0
        )  # else exit would wait for it, and it ignores SIGTERM
        self._process = process
        theirs.close()

    def send(self, job: Job, *args: Any) -> None:
        """Start `job(host, *args)`, after replacing a process that died since the last job.

        If it dies during the call, `receive` says so.
        """
        if not self._process.is_alive():
            self._end()
            self._start()
        self._sent = time.monotonic()
        try:
            self.connection.send((job, args))
        except (BrokenPipeError, ConnectionResetError):
            return

    def remaining(self, seconds: float) -> float:
        """How much is left of the `seconds` that the present job may take; 0 when they have passed."""
        return max(0.0, self._sent + seconds - time.monotonic())

    def receive(self, seconds: float = ANSWER_SECONDS) -> Any:
        """The job's result. EnvCrashed when it raised, died or took longer than `seconds`; BadInput and NotSaved as
        the job raised them."""
        try:
            if not self.connection.poll(self.remaining(seconds)):
                self._process.kill()
                self._process.join()
                raise EnvCrashed(f"the environment gave no answer for {seconds:.0f} s and was ended")
            kind, value = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join(CLOSE_SECONDS)
            raise EnvCrashed(f"the environment's process died (exit code {self._process.exitcode})") from None
        if kind == "bad input":
            raise BadInput(value)
        if kind == "not saved":
            raise NotSaved(*value)
        if kind == "crash":
            raise EnvCrashed(value)
        return value

    def close(self) -> None:
        """End the process; it frees its graphics context first."""
        self._end()

    def _end(self) -> None:
        self.connection.close()
        self._process.join(CLOSE_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def ended(processes: Sequence[EnvProcess], seconds: float, block: bool = True) -> List[EnvProcess]:
    """Processes whose `receive` will not wait, in the order given: the job is done, the process died, or time is up.

    block: wait until there is one.
    """
    patience = min(process.remaining(seconds) for process in processes) if block and processes else 0.0
    ready = wait([process.connection for process in processes], patience)
    return [process for process in processes if process.connection in ready or not process.remaining(seconds)]


@contextmanager
def env_processes(config: EnvConfig, count: int) -> Iterator[List[EnvProcess]]:
    """`count` processes, which are always closed."""
    processes: List[EnvProcess] = []
    try:
        for _ in range(count):
            processes.append(EnvProcess(config))
        yield processes
    finally:
        for process in processes:
            process.close()


def describe(config: EnvConfig) -> Tuple[Dict[str, Any], List[str]]:
    """Facts and warnings of the simulator in the Python that environments run in."""
    if not os.environ.get(PYTHON_VARIABLE, ""):
        return config.facts(), config.warnings()
    with env_processes(config, 1) as (process,):
        process.send(facts_and_warnings)
        facts, warnings = process.receive()
        return facts, warnings


def facts_and_warnings(host: Host) -> Tuple[Dict[str, Any], List[str]]:
    """`describe`, as a job."""
    return host.config.facts(), host.config.warnings()


def serve(connection: Connection, config: EnvConfig) -> None:
    """Run the jobs that arrive until the other end closes."""
    ignore()
    host = Host(config)
    try:
        while True:
            try:
                job, args = connection.recv()
            except (EOFError, ConnectionResetError):
                return
            connection.send(_answer(host, job, args))
    except BrokenPipeError:
        return  # the parent is gone
    finally:
        host.close()


def _answer(host: Host, job: Job, args: Any) -> Any:
    try:
        return "result", job(host, *args)
    except BadInput as error:
        return "bad input", str(error)
    except NotSaved as error:
        return "not saved", (error.errno, error.strerror, error.filename)
    except Exception as error:  # a simulator may raise anything, and all of it is a crash
        host.close()
        return "crash", f"{type(error).__name__}: {error}\n{traceback.format_exc()}"

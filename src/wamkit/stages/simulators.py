"""Where simulators are: in processes of this machine, or on a cluster. Each does jobs on its environment.

A job is a module-level function job(host, *given), as of wamkit_client/envs/vector.py.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from wamkit_client.envs.base import EnvConfig
from wamkit_client.envs.foreign import PYTHON_VARIABLE
from wamkit_client.envs.libero.install import ASSETS_VARIABLE
from wamkit_client.envs.vector import EnvProcess, env_processes, facts_and_warnings
from wamkit_client.types import BadInput

from wamkit.io.differences import differing
from wamkit.io.jobs import Outcome, Workers, kept

Facts = Mapping[str, Any]
Simulators = Callable[[EnvConfig, Facts, int], AbstractContextManager[Workers]]
"""So many at a time, of an environment with these facts (EnvConfig.facts)."""

PASSED_ON = (PYTHON_VARIABLE, ASSETS_VARIABLE, "MUJOCO_GL", "PYOPENGL_PLATFORM")
"""Environment variables of this process that its simulators have, wherever they are."""
DAY = 86400.0


class Processes:
    """Processes of this machine as io.jobs.Workers."""

    def __init__(self, processes: Sequence[EnvProcess]) -> None:
        self._idle = list(processes)
        self._busy: dict[Any, tuple[EnvProcess, Hashable]] = {}

    def free(self) -> int:
        return len(self._idle)

    def begin(self, name: Hashable, *given: Any) -> None:
        process = self._idle.pop()
        process.send(*given)
        self._busy[process.connection] = (process, name)

    def ended(self, seconds: float) -> list[tuple[Hashable, Outcome]]:
        found = []
        for connection in wait(list(self._busy), seconds):
            process, name = self._busy.pop(connection)
            found.append((name, kept(process.receive)))
            self._idle.append(process)
        return found


@contextmanager
def in_processes(env: EnvConfig, facts: Facts, count: int) -> Iterator[Workers]:
    """As Simulators; the facts are this machine's."""
    with env_processes(env, count) as processes:
        yield Processes(processes)


class Simulator:
    """One on a node of a cluster, in a process of its own there. Called with a job, it returns what that does.

    settings: of PASSED_ON. BadInput where the node's simulator has other facts.
    """

    def __init__(self, env: EnvConfig, facts: Facts, settings: Mapping[str, str]) -> None:
        os.environ.update(settings)
        self.process = EnvProcess(env)
        there, _ = self(facts_and_warnings)
        for name, ours, theirs in differing(plain(facts), plain(there)):
            raise BadInput(
                f"its simulator has {name} = {theirs}, this machine's {ours}; results would depend on the node: "
                "install and set up the same on both"
            )

    def __call__(self, job: Callable[..., Any], *given: Any) -> Any:
        self.process.send(job, *given)
        return self.process.receive(DAY)


def plain(facts: Facts) -> dict[str, Any]:
    """As JSON has them."""
    found: dict[str, Any] = json.loads(json.dumps(facts))
    return found


def settings() -> dict[str, str]:
    """Those of PASSED_ON that are set."""
    return {name: os.environ[name] for name in PASSED_ON if name in os.environ}


@contextmanager
def on_cluster(address: str, env: EnvConfig, facts: Facts, count: int) -> Iterator[Workers]:
    """As Simulators, each on a processor of a Ray cluster. BadInput as of cluster.connect.connected."""
    from wamkit.cluster.connect import connected

    python = os.environ.get(PYTHON_VARIABLE, "")
    with connected(address, [Path(python)] if python else []) as needs:
        from wamkit.cluster.actors import Kind, actors

        make = partial(Simulator, env, facts, settings())
        with actors(Kind(make, needs, {"num_cpus": 1}), count) as workers:
            yield workers


def simulators(address: str) -> Simulators:
    """On the Ray cluster at the address; "": in processes of this machine."""
    return partial(on_cluster, address) if address else in_processes

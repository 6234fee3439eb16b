"""LIBERO in tests: `make libero` installs it; without it these tests are skipped, saying so."""

from __future__ import annotations

from typing import Any

import pytest
from wamkit_client.envs.base import Env, Task
from wamkit_client.envs.libero import plus, pro
from wamkit_client.envs.libero.install import find_installation
from wamkit_client.envs.vector import EnvProcess, Job
from wamkit_client.types import BadInput


def _missing(suite: str) -> str:
    try:
        find_installation().bddl(suite, "")
    except BadInput as error:
        return str(error)
    return ""


def _needs(suite: str) -> pytest.MarkDecorator:
    missing = _missing(suite)
    return pytest.mark.skipif(bool(missing), reason=missing or "LIBERO is here")


needs_libero = _needs("libero_object")
needs_libero_plus = pytest.mark.skipif(
    bool(_missing("libero_object")) or not (plus.folder() / plus.TASK_LIST).is_file(),
    reason="LIBERO or LIBERO-Plus is missing: make libero",
)
needs_libero_pro = _needs(pro.SUITES[1])  # of changed objects: these must be among the assets


class InThisProcess(EnvProcess):
    """Stands in for a process with an environment that is here already: jobs are done when they are asked for."""

    def __init__(self, env: Env) -> None:
        self._env, self._job = env, (_nothing, ())

    def env(self, task: Task) -> Env:
        """As a Host."""
        assert task == self._env.task
        return self._env

    def send(self, job: Job, *args: Any) -> None:
        self._job = job, args

    def receive(self, seconds: float = 0.0) -> Any:
        job, args = self._job
        return job(self, *args)


def _nothing(host: Any) -> None:
    """Before the first job."""

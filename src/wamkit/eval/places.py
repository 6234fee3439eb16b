"""Where the episodes of an evaluation are run; which place it is makes no difference to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager, contextmanager
from threading import Event
from typing import Any

from wamkit_client.envs.base import EnvConfig
from wamkit_client.envs.vector import env_processes
from wamkit_client.fleet import EpisodeJob, EpisodeResult, run_episodes
from wamkit_client.types import Policy

Run = Callable[[Sequence[EpisodeJob], AbstractSet[str], Event], Iterator[EpisodeResult]]
"""Results as episodes end. Jobs, keys of states that none may begin from, and what stops it: see run_episodes."""
Place = Callable[[EnvConfig, Mapping[str, Any], int, float, bool], AbstractContextManager[Run]]
"""Opened with the environment, its facts, how many at a time, `answer_seconds` and `batched` (EvalConfig)."""


def beside(policy: Policy) -> Place:
    """Processes of this machine, and the policy in this one."""

    @contextmanager
    def place(
        env: EnvConfig, facts: Mapping[str, Any], count: int, answer_seconds: float, batched: bool
    ) -> Iterator[Run]:
        with env_processes(env, count) as environments:

            def run(
                jobs: Sequence[EpisodeJob], demonstrated: AbstractSet[str], stop: Event
            ) -> Iterator[EpisodeResult]:
                return run_episodes(policy, environments, jobs, demonstrated, answer_seconds, stop, batched)

            yield run

    return place

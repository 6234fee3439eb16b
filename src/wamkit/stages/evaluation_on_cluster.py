"""A run directory measured on a Ray cluster: simulators on its processors, the policy on its GPUs.

Where a cluster has no GPU, every simulator has the policy beside it: one of the two computes at a time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any

import torch
from wamkit_client.envs.base import EnvConfig
from wamkit_client.envs.foreign import PYTHON_VARIABLE
from wamkit_client.fleet import EpisodeJob, EpisodeResult, run_episodes
from wamkit_client.suites import Suite
from wamkit_client.types import BadInput, Policy

from wamkit.cluster.actors import Kind, actors
from wamkit.cluster.alike import Needs
from wamkit.cluster.connect import connected
from wamkit.cluster.engines import MOST, Asking, Loaded, engines, free_gpus
from wamkit.config import Run, load_normalizer
from wamkit.eval.evaluate import evaluate_at
from wamkit.eval.places import Place
from wamkit.eval.places import Run as Episodes
from wamkit.io.files import replace_file, sha256
from wamkit.io.jobs import done
from wamkit.io.weights import WEIGHTS
from wamkit.stages.evaluation import acting_as, demonstrated, expect_fit, policy_facts
from wamkit.stages.run import best_device, device_name
from wamkit.stages.simulators import Facts, Simulator, settings

CPU = torch.device("cpu")


def measured(address: str, run_dir: Path, asked: Run, suite: Suite, out: Path) -> dict[str, Any]:
    """Results of the run directory, acting as `asked` says, on the suite. Every node must see the directory."""
    expect_fit(asked, suite, load_normalizer(run_dir).index)
    facts = policy_facts(run_dir, asked, CPU)
    with on_cluster(address, run_dir, asked) as (place, device):
        facts |= {"device": device}
        return evaluate_at(place, suite, asked.eval, out, facts, demonstrated(run_dir))


@contextmanager
def on_cluster(address: str, run_dir: Path, asked: Run) -> Iterator[tuple[Place, str]]:
    """Where the run directory is measured, acting as `asked` says, and the name of what its policy computes on."""
    python = [Path(os.environ[PYTHON_VARIABLE])] if PYTHON_VARIABLE in os.environ else []
    make = partial(_loaded, run_dir.absolute(), asked, sha256(run_dir / WEIGHTS))
    with (
        connected(address, [run_dir, *python]) as needs,
        _asked(make, needs, asked) as (policy, device),
    ):
        yield partial(_players, needs, policy), device


def _loaded(run_dir: Path, asked: Run, weights: str, device: torch.device | None = None) -> Loaded:
    """On a node. BadInput where its run directory has other weights."""
    if sha256(run_dir / WEIGHTS) != weights:
        raise BadInput(f"{run_dir / WEIGHTS} has other weights than here; give a folder that all nodes share")
    there = device or best_device()
    return Loaded(acting_as(run_dir, asked, there)[1], device_name(there))


@contextmanager
def _asked(
    make: Callable[..., Loaded], needs: Needs, asked: Run
) -> Iterator[tuple[Callable[[], Policy], str]]:
    """What gives a simulator its policy, and the name of what that computes on."""
    gpus = min(free_gpus(), asked.eval.processes)
    if not gpus:
        yield partial(_policy, make), device_name(CPU)
        return
    with engines(make, needs, gpus, MOST if asked.eval.batched else 1) as (found, device):
        yield partial(Asking, found), device


def _policy(make: Callable[..., Loaded]) -> Policy:
    return make(device=CPU).policy


@dataclass(frozen=True)
class Played:
    """An episode, and its .npz file (b"": it was not recorded)."""

    result: EpisodeResult
    recording: bytes


class Player:
    """A simulator that runs episodes with its policy, on a node."""

    def __init__(
        self, env: EnvConfig, facts: Facts, environ: Mapping[str, str], policy: Callable[[], Policy]
    ) -> None:
        self._simulator, self._policy, self._calls = Simulator(env, facts, environ), policy(), 0

    def __call__(self, job: EpisodeJob, states: AbstractSet[str], seconds: float) -> Played:
        with TemporaryDirectory() as folder:
            file = Path(folder) / "episode.npz"
            here = replace(job, recording=str(file))
            [result] = run_episodes(self._policy, [self._simulator.process], [here], states, seconds)
            recording = file.read_bytes() if file.exists() else b""
        calls = tuple(self._calls + call for call in result.query_call)
        self._calls += len(calls)
        return Played(replace(result, query_call=calls), recording)


@contextmanager
def _players(
    needs: Needs,
    policy: Callable[[], Policy],
    env: EnvConfig,
    facts: Facts,
    count: int,
    seconds: float,
    batched: bool,
) -> Iterator[Episodes]:
    """As eval.places.Place."""
    make = partial(Player, env, facts, settings(), policy)
    with actors(Kind(make, needs, {"num_cpus": 1}), count) as workers:

        def run(jobs: Sequence[EpisodeJob], states: AbstractSet[str], stop: Event) -> Iterator[EpisodeResult]:
            named = {f"{job.task.name}, seed {job.seed}": job for job in jobs}
            given: dict[Hashable, tuple[Any, ...]] = {
                name: (job, states, seconds) for name, job in named.items()
            }
            for played in done(workers, given, stop):
                result = played.result
                if played.recording:
                    path = named[f"{result.task}, seed {result.seed}"].recording
                    replace_file(Path(path), played.recording)
                yield result

        yield run

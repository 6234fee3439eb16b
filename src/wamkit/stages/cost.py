"""What a query and a training step of several policies cost on this machine, measured in turns.

Other work on a machine slows all of them alike when they take turns, so their ratios hold where single times do not.
Training changes the weights of the engines it is given. It knows no datasets and no files.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from wamkit_client.types import Observation

from wamkit.infer.engine import Engine
from wamkit.io.progress import bar
from wamkit.train.loop import TrainConfig, initial_state, optimize
from wamkit.types import Batch

WARM_UP, QUERY_ROUNDS, STEP_ROUNDS = 1, 15, 5


@dataclass(frozen=True)
class Cost:
    """Medians. query_ms: one observation to a chunk. step_seconds: forward, backward and optimizer, batch at hand."""

    query_ms: float
    step_seconds: float


def measure(
    engines: Mapping[str, Engine[Any]],
    configs: Mapping[str, TrainConfig],
    observation: Observation,
    batch: Batch,
) -> dict[str, Cost]:
    """By name; all policies are in memory at once. `batch` lies on the engines' device."""
    queries = {name: partial(engine.act, [observation]) for name, engine in engines.items()}
    with bar("measure", (2 * WARM_UP + QUERY_ROUNDS + STEP_ROUNDS) * len(engines), unit="calls") as advance:
        query_seconds = in_turns(queries, QUERY_ROUNDS, advance)
        steps = {name: training(engine, configs[name], batch) for name, engine in engines.items()}
        step_seconds = in_turns(steps, STEP_ROUNDS, advance)
    return {
        name: Cost(round(1000 * query_seconds[name], 3), round(step_seconds[name], 4)) for name in engines
    }


def in_turns(
    jobs: Mapping[str, Callable[[], object]], rounds: int, advance: Callable[[], object]
) -> dict[str, float]:
    """Median seconds of each job over `rounds` rounds, after rounds that warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(WARM_UP + rounds):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            seconds[name].append(time.perf_counter() - start)
            advance()
    return {name: median(measured[WARM_UP:]) for name, measured in seconds.items()}


def training(engine: Engine[Any], config: TrainConfig, batch: Batch) -> Callable[[], object]:
    """A step of training as the run did it; returns when the device has done it."""
    state = initial_state(engine.policy, config)
    forward = torch.compile(state.module) if config.compile else state.module

    def step() -> None:
        optimize(forward, batch, 0, state, config)
        if batch.actions.device.type == "cuda":
            torch.cuda.synchronize(batch.actions.device)

    return step

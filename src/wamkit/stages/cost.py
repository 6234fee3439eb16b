"""What a query and a training step of several policies cost on this machine, measured in turns.

Other work on a machine slows all of them alike when they take turns, so their ratios hold where single times do not.
Training changes the weights of the networks it is given. It knows no datasets and no files.
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
from wamkit.train.loop import TrainConfig, forward_of, initial_state, optimize
from wamkit.types import Batch, Trainable

WARM_UP, QUERY_ROUNDS, STEP_ROUNDS = 1, 15, 5


@dataclass(frozen=True)
class Acting:
    """An engine and what it is asked."""

    engine: Engine[Any]
    observation: Observation


@dataclass(frozen=True)
class Learning:
    """A network (changed by training), how it is trained, and a batch of its own samples where the network is."""

    network: Trainable
    config: TrainConfig
    batch: Batch


@dataclass(frozen=True)
class Seconds:
    """Medians, by name. queries: one observation to a chunk. steps: forward, backward and optimizer, batch at hand."""

    queries: Mapping[str, float]
    steps: Mapping[str, float]


def measure(acting: Mapping[str, Acting], learning: Mapping[str, Learning]) -> Seconds:
    """By name; all networks are in memory at once."""
    queries = {name: partial(own.engine.act, [own.observation]) for name, own in acting.items()}
    calls = (WARM_UP + QUERY_ROUNDS) * len(acting) + (WARM_UP + STEP_ROUNDS) * len(learning)
    with bar("measure", calls, unit="calls") as advance:
        query_seconds = in_turns(queries, QUERY_ROUNDS, advance)
        steps = {name: training(own) for name, own in learning.items()}
        return Seconds(query_seconds, in_turns(steps, STEP_ROUNDS, advance))


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


def training(asked: Learning) -> Callable[[], object]:
    """A step of training as the run did it; returns when the device has done it."""
    state, batch = initial_state(asked.network, asked.config), asked.batch
    forward = forward_of(state.module, asked.config)

    def step() -> None:
        optimize(forward, batch, 0, state, asked.config)
        if batch.actions.device.type == "cuda":
            torch.cuda.synchronize(batch.actions.device)

    return step

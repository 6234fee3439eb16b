"""Seconds of several ways to do the same, taken in turns: other work on the machine then slows all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import numpy as np
import torch

from wamkit.bench.counting import OUTSIDE
from wamkit.io.progress import bar
from wamkit.spans import Clock, Span, watching

WARM_UP = 2
RESAMPLES = 2000
"""Bootstrap samples behind the interval of a ratio."""

Job = Callable[[int], object]
"""One of the ways, given the number of the round; what is asked in a round differs from the round before."""


@dataclass(frozen=True)
class Seconds:
    """Of one way: all rounds, on the wall and of all processor threads; on the device where that is CUDA, else ()."""

    wall: tuple[float, ...]
    cpu: tuple[float, ...]
    device: tuple[float, ...]

    @property
    def summary(self) -> dict[str, float]:
        """Of the wall's: "min", "p5", "median", "p95", "p99", "n"; "cpu_median"; "device_median" where there is one."""
        p5, p50, p95, p99 = np.percentile(self.wall, (5, 50, 95, 99)).tolist()
        own = {"min": min(self.wall), "p5": p5, "median": p50, "p95": p95, "p99": p99, "n": len(self.wall)}
        device = {"device_median": median(self.device)} if self.device else {}
        return own | {"cpu_median": median(self.cpu)} | device


def repeated(do: Callable[[], object]) -> Job:
    """The same in every round."""
    return lambda number: do()


def in_turns(jobs: Mapping[str, Job], rounds: int, device: torch.device, about: str) -> dict[str, Seconds]:
    """Every way once per round, after WARM_UP rounds that do not count. about: for the bar."""
    taken: dict[str, list[tuple[float, float, float]]] = {name: [] for name in jobs}
    with bar(about, (WARM_UP + rounds) * len(jobs), unit="calls") as advance:
        for number in range(WARM_UP + rounds):
            for name, job in jobs.items():
                taken[name].append(once(job, number, device))
                advance()
    found = {name: list(zip(*each[WARM_UP:], strict=True)) for name, each in taken.items()}
    cuda = device.type == "cuda"
    return {name: Seconds(wall, cpu, own if cuda else ()) for name, (wall, cpu, own) in found.items()}


def once(job: Job, number: int, device: torch.device) -> tuple[float, float, float]:
    """Seconds of one call: wall, processor, device (0 but on CUDA)."""
    if device.type != "cuda":
        begin, cpu = time.perf_counter(), time.process_time()
        job(number)
        return time.perf_counter() - begin, time.process_time() - cpu, 0.0
    torch.cuda.synchronize(device)
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin, cpu = time.perf_counter(), time.process_time()
    first.record()
    job(number)
    last.record()
    torch.cuda.synchronize(device)
    taken = time.perf_counter() - begin, time.process_time() - cpu
    return *taken, first.elapsed_time(last) / 1e3


@dataclass(frozen=True)
class Ratio:
    """Of two medians, and its 95 % interval by the bootstrap over rounds."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f}-{self.high:.2f})"


def ratio(slow: Sequence[float], fast: Sequence[float]) -> Ratio:
    """How many times `fast` is as fast. Rounds of equal number were taken together and are drawn together."""
    pairs = np.array([slow, fast])
    draws = np.random.default_rng(0).integers(pairs.shape[1], size=(RESAMPLES, pairs.shape[1]))
    medians = np.median(pairs[:, draws], axis=2)  # 2 resamples
    low, high = np.percentile(medians[0] / medians[1], (2.5, 97.5)).tolist()
    return Ratio(float(np.median(slow) / np.median(fast)), low, high)


def by_span(job: Job, rounds: int, device: torch.device) -> dict[str, float]:
    """Median seconds of each span of a call; OUTSIDE: of what lies in none.

    Each waits for the device: their sum is larger than what a call takes without.
    """
    found: list[dict[str, float]] = []
    for number in range(rounds):
        clock = Clock(partial(_now, device))
        with watching(clock), Span(OUTSIDE):
            job(number)
        found.append(clock.seconds)
    return {name: median(each[name] for each in found) for name in found[0]}


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()

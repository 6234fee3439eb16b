"""What a piece of work costs that has a process to itself: seconds of its steps, and memory.

Memory is told apart into anonymous (must stay in memory) and file-backed (mapped weight files; the system takes it back
when it needs it).
"""

from __future__ import annotations

import multiprocessing
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

GIB = 2**30


@dataclass(frozen=True)
class Cost:
    """Seconds by step, wall and of processor, and bytes: before the work (Python, torch, imports) and at its peak.

    started: seconds from asking for the process to the beginning of the work. gpu: bytes of a GPU at most, by step; {}
    without one.
    """

    seconds: dict[str, float]
    cpu_seconds: dict[str, float]
    started: float
    before: int
    peak: int
    peak_anonymous: int
    peak_file: int
    gpu: dict[str, int]


class Steps:
    """`with steps("load"): ...` takes the time of a step, and its memory on a GPU."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.cpu_seconds: dict[str, float] = {}
        self.gpu: dict[str, int] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """See above."""
        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        begin, cpu = time.perf_counter(), time.process_time()
        yield
        if cuda:
            torch.cuda.synchronize()
            self.gpu[name] = torch.cuda.max_memory_allocated()
        self.seconds[name], self.cpu_seconds[name] = time.perf_counter() - begin, time.process_time() - cpu


def in_own_process(do: Callable[..., None], *given: Any) -> Cost:
    """`do(*given, steps)` in a fresh interpreter, whose peaks nobody else has raised."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_begun, time.time(), do, *given).result()


def _begun(asked: float, do: Callable[..., None], *given: Any) -> Cost:
    return cost(do, *given, started=time.time() - asked)


def cost(do: Callable[..., None], *given: Any, started: float = 0.0) -> Cost:
    """`do(*given, steps)` in this process; its peaks are right where nothing larger ran here before."""
    before, peaks, over, steps = resident(), {"RssAnon": 0, "RssFile": 0}, threading.Event(), Steps()

    def watch() -> None:
        while not over.wait(0.02):
            now = resident()
            peaks.update({name: max(peak, now[name]) for name, peak in peaks.items()})

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        do(*given, steps)
    finally:
        over.set()
        watcher.join()
    return Cost(
        steps.seconds,
        steps.cpu_seconds,
        started,
        before=before["VmRSS"],
        peak=resident()["VmHWM"],
        peak_anonymous=peaks["RssAnon"],
        peak_file=peaks["RssFile"],
        gpu=steps.gpu,
    )


def resident() -> dict[str, int]:
    """Bytes in memory now (VmRSS = RssAnon + RssFile + shared) and at most so far (VmHWM)."""
    status = Path("/proc/self/status").read_text()
    return {
        name: 1024 * int(kb)
        for name, kb in re.findall(r"^(VmHWM|VmRSS|RssAnon|RssFile):\s+(\d+) kB", status, re.M)
    }

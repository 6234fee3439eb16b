"""Which kernels of a GPU a query is made of, and how long they are busy: its time if nothing waited for the host."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile

from wamkit.bench.timing import Job

QUERIES = 5  # a profile of the official work has twenty thousand kernels per query


@dataclass(frozen=True)
class Kernel:
    """Of one query: how often it is started, and its seconds in all."""

    name: str
    count: float
    seconds: float


def kernels_of(job: Job, device: torch.device) -> list[Kernel]:
    """Of a query, the one that takes longest first; nothing on a processor."""
    if device.type != "cuda":
        return []
    with profile(activities=[ProfilerActivity.CUDA]) as trace:
        for number in range(QUERIES):
            job(number)
        torch.cuda.synchronize(device)
    found = [
        Kernel(row.key, row.count / QUERIES, row.self_device_time_total / 1e6 / QUERIES)
        for row in trace.key_averages()
        if row.self_device_time_total > 0
    ]
    return sorted(found, key=lambda kernel: -kernel.seconds)

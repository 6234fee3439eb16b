"""Rows of a comparison on a Ray cluster: each trains and is measured on one node, on a GPU of it, else a processor.

Every node sees datasets, cache and the comparison's folder; files there say what is finished, and locks who works on
what, as among processes without Ray.
"""

from __future__ import annotations

from dataclasses import replace
from threading import Event

import torch

from wamkit.cluster.actors import room
from wamkit.cluster.connect import connected
from wamkit.cluster.tasks import Tasks, tasks
from wamkit.io.interrupt import stop_request, stopped
from wamkit.io.jobs import PAUSE
from wamkit.io.progress import bar
from wamkit.io.weights import WEIGHTS
from wamkit.stages import compare
from wamkit.stages.rows import ROWS, Comparison, Row
from wamkit.stages.run import best_device

KEPT = "finished rows, and the newest checkpoint of the others, are kept"


def work(address: str, asked: Comparison) -> None:
    """Do what is left of the rows, or try: another process may be at some. BadInput as of `compare`."""
    here = replace(
        asked,
        datasets=tuple(path.absolute() for path in asked.datasets),
        cache=asked.cache.absolute(),
        out=asked.out.absolute(),
    )
    jobs = [job for job in compare.needed(here) if not _finished(job, here)]
    if not jobs:
        return
    paths = [*here.datasets, here.out / ROWS]
    with stop_request(KEPT) as stop, connected(address, paths, told=True) as needs:
        resources, count = room()
        with tasks(_work, needs, resources, min(count, len(jobs))) as workers:
            _spread(workers, jobs, here, "num_gpus" in resources, stop)


def _spread(workers: Tasks, jobs: list[Row], asked: Comparison, gpu: bool, stop: Event) -> None:
    """Each job once, after what it starts from."""
    running: set[str] = set()
    total = len(jobs)
    with bar("compare", total, "rows") as advance:
        while jobs or running:
            for job in list(jobs):
                waits = any(
                    before.name in running or before.name in {other.name for other in jobs}
                    for before in job.before
                )
                if workers.free() and not waits:
                    jobs.remove(job)
                    running.add(job.name)
                    workers.begin(job.name, job, asked, gpu)
            for name, outcome in workers.ended(PAUSE):
                outcome()
                running.remove(str(name))
                advance(1, str(name))
            if stop.is_set():
                raise stopped(KEPT)


def _finished(job: Row, asked: Comparison) -> bool:
    return asked.finished(job) if job in asked.rows else (job.folder / WEIGHTS).exists()


def _work(job: Row, asked: Comparison, gpu: bool) -> None:
    compare.work(job, asked, best_device() if gpu else torch.device("cpu"))

"""Episodes per second of 1, 2 and 4 workers, on a Ray cluster of this machine and in its processes, in turns.

    python -m benchmarks.cluster pretrained/metaworld3 --out benchmarks/results

The same episodes in both ways. Counted from when every worker has ended its first one, so that starting processes is
not part of it; that is told beside it. Only an idle machine with as many cores as workers says what coordination costs.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any

from ray.cluster_utils import Cluster
from wamkit_client.fleet import EpisodeJob
from wamkit_client.suites import Suite, suite

from wamkit.config import Run, load_acting, load_run
from wamkit.eval.places import Place, beside
from wamkit.io.provenance import machine, revision, versions
from wamkit.stages.evaluation_on_cluster import CPU, on_cluster

WORKERS = (1, 2, 4)
NODE = {"object_store_memory": 200 * 2**20, "include_dashboard": False}


def rate(place: Place, asked: Run, measured: Suite, workers: int) -> dict[str, float]:
    """Episodes per second once all workers work, and seconds until each has ended an episode."""
    began, ends = time.perf_counter(), []
    facts = measured.env.facts()
    with TemporaryDirectory() as folder:
        jobs = [
            EpisodeJob(task, seed, asked.eval.episode(measured.max_steps, record=False), f"{folder}/none")
            for task in measured.tasks
            for seed in range(measured.first_seed, measured.first_seed + measured.episodes)
        ]
        opened = measured.env, facts, workers, asked.eval.answer_seconds, asked.eval.batched
        with place(*opened) as run:
            for _ in run(jobs, frozenset(), Event()):
                ends.append(time.perf_counter())
    whole = len(ends) - workers
    return {
        "episodes_per_second": whole / (ends[-1] - ends[workers - 1]),
        "start_seconds": ends[workers - 1] - began,
    }


def measure(run_dir: Path, measured: Suite, rounds: int) -> list[dict[str, Any]]:
    """Medians of every way and number of workers."""
    run = load_run(run_dir)
    here = beside(load_acting(run, run_dir, CPU))
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": max(WORKERS)})
    try:
        for _ in range(rounds):
            for workers in WORKERS:
                asked = replace(run, eval=replace(run.eval, processes=workers))
                found.setdefault(("processes", workers), []).append(rate(here, asked, measured, workers))
                with on_cluster(cluster.address, run_dir, asked) as (place, _):
                    found.setdefault(("ray", workers), []).append(rate(place, asked, measured, workers))
    finally:
        cluster.shutdown()
    return [
        {"way": way, "workers": workers}
        | {name: round(median(one[name] for one in each), 3) for name in each[0]}
        for (way, workers), each in found.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--suite", default="metaworld3")
    parser.add_argument("--episodes", type=int, default=8, help="per task")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    asked = parser.parse_args()
    chosen = replace(suite(asked.suite), episodes=asked.episodes)
    rows = measure(asked.run, chosen, asked.rounds)
    told = {
        "command": f"python -m benchmarks.cluster {asked.run} --suite {asked.suite} --episodes {asked.episodes} "
        f"--rounds {asked.rounds}",
        "revision": revision(),
        "versions": versions(),
        "machine": machine(),
        "rows": rows,
    }
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "cluster.json").write_text(json.dumps(told, indent=1))
    for row in rows:
        print(", ".join(f"{name} {value}" for name, value in row.items()))


if __name__ == "__main__":
    main()

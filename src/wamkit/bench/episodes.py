"""How fast episodes go by in closed loop: simulator, policy and all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from wamkit.config import Run
from wamkit.stages.evaluation import evaluate


@dataclass(frozen=True)
class Episodes:
    """seconds: of all of it. steps: of control. latency: of a query, as evaluation measures it, in milliseconds."""

    episodes: int
    seconds: float
    steps: int
    latency: dict[str, float]


def measure(run_dir: Path, run: Run, suite: str, episodes: int) -> Episodes:
    """A short evaluation, whose results are not kept. episodes: per task."""
    with TemporaryDirectory() as folder:
        found = evaluate(run_dir, run, suite, episodes, Path(folder))
    steps = sum(episode["steps"] for episode in found["episodes"])
    return Episodes(len(found["episodes"]), found["seconds"], steps, found["latency"])

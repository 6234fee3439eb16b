"""What closed-loop evaluation beside training costs a training step: the same steps with and without it, in turns.

    python -m benchmarks.evaluation_beside_training metaworld3 --dataset demo/dataset --cache demo/cache

It says how many cores there are, and how many of them training keeps busy: the cost is that of sharing these.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from wamkit.cli import main

STEPS, TURNS = 60, 2
EVERY = STEPS // 3  # the second and third of them begin while the first is under way, and are left out


def step_seconds(words: list[str], out: Path, every: int) -> list[float]:
    """Seconds per step in each row of the log but the first, of a training with an evaluation every `every` steps."""
    asked = {"steps": STEPS, "warmup-steps": 1, "log-every": 5, "save-every": STEPS, "evaluate-every": every}
    values = [word for name, value in asked.items() for word in (f"--train.{name}", str(value))]
    if main(["train", *words, *values, "--train.evaluate-episodes", "5", "--out", str(out)]):
        sys.exit("training failed")
    rows = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return [1 / row["steps_per_second"] for row in rows if row["step"] > EVERY]


def measure(words: list[str]) -> None:
    """Print both medians and their ratio."""
    seconds: dict[int, list[float]] = {0: [], EVERY: []}
    with TemporaryDirectory() as folder:
        for turn in range(TURNS):
            for every in seconds:
                seconds[every] += step_seconds(words, Path(folder) / f"{turn}_{every}", every)
    alone, beside = (statistics.median(found) for found in seconds.values())
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(
        f"{alone:.3f} s per step alone, {beside:.3f} s beside an evaluation: {100 * (beside / alone - 1):+.1f} %"
    )


if __name__ == "__main__":
    measure(sys.argv[1:])

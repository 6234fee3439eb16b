"""`wamkit demo`: every stage in order on one machine, from nothing to a page with videos.

Running it again resumes: each stage knows what it has finished. `stages.json` has the wall time of each stage, summed
over all runs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from wamkit_client.suites import suite as find_suite
from wamkit_client.types import BadInput

from wamkit.config import Run
from wamkit.data.check import check
from wamkit.eval.evaluate import RESULTS, read_results
from wamkit.io.files import replace_text
from wamkit.io.progress import command, console, say
from wamkit.io.records import read_record
from wamkit.stages import run as stages
from wamkit.stages.collect import CollectConfig, collect
from wamkit.stages.tables import results_table

TIMES = "stages.json"


def demo(run: Run, out: Path, episodes: int) -> int:
    """Run every stage into `out` and return the exit status. Raises BadInput as the stages do."""
    wanted = CollectConfig(episodes=episodes)
    out.mkdir(parents=True, exist_ok=True)
    suite = find_suite(run.suite)
    device = stages.best_device()
    dataset, cache, run_dir = out / "dataset", out / "cache", out / "run"
    results_dir = run_dir / "eval" / run.suite

    def checked() -> None:
        problems = check(dataset)
        if problems:
            raise BadInput("\n".join(str(problem) for problem in problems))

    todo: dict[str, Callable[[], object]] = {
        "collect": lambda: collect(suite, dataset, wanted),
        "check": checked,
        "encode": lambda: stages.encode(run, [dataset], cache, device),
        "train": lambda: stages.train(run, [dataset], cache, run_dir, device),
        "evaluate": lambda: stages.evaluate(run_dir, run, run.suite, 0, results_dir),
        "report": lambda: stages.report(
            run_dir, [dataset], results_dir, run_dir / "report.html", _times(out)
        ),
    }
    for number, (name, stage) in enumerate(todo.items(), start=1):
        console.print(f"[bold]{number}/{len(todo)} {name}[/bold]")
        _timed(out, name, stage)

    times = _times(out)
    console.print(results_table(read_results(results_dir / RESULTS)))
    console.print("time: " + ", ".join(f"{name} {seconds:.0f} s" for name, seconds in times.items()))
    say(f"page: {run_dir / 'report.html'}")
    say("next:")
    recipes, data = (run.recipe, f"{run.recipe}_no_video"), ("--dataset", dataset, "--cache", cache)
    for words in (
        ("eval", run_dir, "--like", results_dir / RESULTS, "--out", run_dir / "eval" / "again"),
        ("compare", *recipes, *data, "--out", out / "comparison"),
        ("train", "libero_spatial", "--plan"),
    ):
        say(f"  {command('wamkit', *words)}")
    return 0


def _times(out: Path) -> dict[str, float]:
    path = out / TIMES
    remedy = "remove it; it holds nothing but the wall times of the stages"
    times = read_record(path, dict, remedy) if path.exists() else {}
    return times


def _timed(out: Path, name: str, stage: Callable[[], object]) -> None:
    """Run a stage and add its wall time to that of earlier, interrupted runs."""
    start = time.monotonic()
    try:
        stage()
    finally:
        times = _times(out)
        times[name] = round(times.get(name, 0.0) + time.monotonic() - start, 1)
        replace_text(out / TIMES, json.dumps(times, indent=1))

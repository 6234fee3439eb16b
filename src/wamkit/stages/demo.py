"""`wamkit demo`: every stage in order on one machine, from nothing to a page with videos.

Running it again resumes: each stage knows what it has finished. `stages.json` has the wall time of each stage, summed
over all runs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from wamkit_client.suites import suite as find_suite
from wamkit_client.types import BadInput

from wamkit.config import Run, build_encoder
from wamkit.data.check import check
from wamkit.eval.evaluate import RESULTS, read_results
from wamkit.io.files import replace_text
from wamkit.io.progress import command, console, say
from wamkit.io.records import read_record
from wamkit.stages import run as stages
from wamkit.stages.collect import CollectConfig, collect
from wamkit.stages.evaluation import evaluate, results_folder
from wamkit.stages.report import report
from wamkit.stages.tables import results_table

TIMES = "stages.json"


def demo(
    run: Run, demonstrated: str, other: str, out: Path, episodes: int, earlier: Sequence[Run] = ()
) -> int:
    """Run every stage into `out` and return the exit status. Raises BadInput as the stages do.

    demonstrated: the suite in which experts are recorded; `run` is measured in its own. other: a recipe that `run` may
    be compared with. earlier: the stages that are trained before it, in order.
    """
    wanted = CollectConfig(episodes=episodes)
    out.mkdir(parents=True, exist_ok=True)
    suite = find_suite(demonstrated)
    device = stages.best_device()
    dataset, run_dir = out / "dataset", out / "run"
    results_dir = results_folder(run_dir, run.suite)

    def checked() -> None:
        problems = check(dataset)
        if problems:
            raise BadInput("\n".join(str(problem) for problem in problems))

    todo: dict[str, Callable[[], object]] = {
        "collect": lambda: collect(suite, dataset, wanted),
        "check": checked,
    }
    for number, before in enumerate(earlier, start=1):
        folder = out / f"stage{number}"
        todo |= _training(before, dataset, folder, f" stage {number}", device)
        run = replace(run, policy=run.policy.started_from(folder / "run"))
    todo |= _training(run, dataset, out, "", device)
    todo |= {
        "evaluate": lambda: evaluate(run_dir, run, run.suite, 0, results_dir),
        "report": lambda: report(
            run_dir,
            run_dir / "report.html",
            datasets=[dataset],
            results_dir=results_dir,
            stage_seconds=_times(out),
        ),
    }
    for number, (name, work) in enumerate(todo.items(), start=1):
        console.print(f"[bold]{number}/{len(todo)} {name}[/bold]")
        _timed(out, name, work)

    times = _times(out)
    console.print(results_table(read_results(results_dir / RESULTS)))
    console.print("time: " + ", ".join(f"{name} {seconds:.0f} s" for name, seconds in times.items()))
    say(f"page: {run_dir / 'report.html'}")
    say("next:")
    data = ("--dataset", dataset, "--cache", (out / "stage1" if earlier else out) / "cache")
    for words in (
        ("eval", run_dir, "--like", results_dir / RESULTS, "--out", run_dir / "eval" / "again"),
        ("compare", run.recipe, other, *data, "--out", out / "comparison"),
        ("train", "libero_spatial", "--plan"),
    ):
        say(f"  {command('wamkit', *words)}")
    return 0


def _training(
    run: Run, dataset: Path, folder: Path, stage: str, device: torch.device
) -> dict[str, Callable[[], object]]:
    """What is left until `folder` has a trained run, by name. One that augments its images encodes as it trains."""
    cache = stages.NO_FILE if stages.augments(run, build_encoder(run)) else folder / "cache"
    encoding: dict[str, Callable[[], object]] = {}
    if cache != stages.NO_FILE:
        encoding = {f"encode{stage}": lambda: stages.encode(run, [dataset], cache, device)}
    return encoding | {f"train{stage}": lambda: stages.train(run, [dataset], cache, folder / "run", device)}


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

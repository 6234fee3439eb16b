"""`wamkit analyse execution`: runs evaluated with every executor at every delay, as a record and a page.

Each cell is an evaluation of its own, in OUT/<run>/<executor>_<delay>ms: a killed one resumes, a finished one is only
read.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wamkit_client.chunk import ExecutorName
from wamkit_client.types import BadInput

from wamkit.config import Run, check_together
from wamkit.eval.evaluate import RESULTS
from wamkit.io.progress import say
from wamkit.io.records import write_record
from wamkit.report.execution import Cell, Execution, write_execution_page
from wamkit.report.rates import crashes
from wamkit.report.results import MOTION, RATE
from wamkit.stages.evaluation import evaluate
from wamkit.stages.pairing import pair, solved

RECORD, PAGE = "execution.json", "execution.html"


@dataclass(frozen=True)
class Grid:
    """runs: by their directories, as they act. suite: "": that of the first run. episodes: per task, 0 for the suite's
    own. delays: milliseconds."""

    runs: dict[Path, Run]
    executors: Sequence[ExecutorName]
    delays: Sequence[float]
    out: Path
    suite: str = ""
    episodes: int = 0


@dataclass(frozen=True)
class _Job:
    """One evaluation. run: as it acts."""

    name: str
    directory: Path
    run: Run
    out: Path

    @property
    def words(self) -> str:
        """What it is."""
        return f"{self.name}, {self.run.eval.executor}, delay {self.run.eval.delay_ms:g} ms"


def execution(asked: Grid, command: str) -> Execution:
    """Evaluate what is missing of the grid; write execution.json and execution.html into `asked.out`.

    Raises BadInput, before anything is evaluated, for a delay that an executor cannot bridge with a run's chunks, runs
    of one name and where there is nothing to do; and as of `evaluate`.
    """
    suite = asked.suite or next(iter(asked.runs.values())).suite
    if not suite:
        raise BadInput("the first run has no suite; name one with --suite")
    done = []
    jobs = _jobs(asked)
    for number, job in enumerate(jobs, 1):
        say(f"{number} of {len(jobs)}: {job.words}")
        done.append(evaluate(job.directory, job.run, suite, asked.episodes, job.out))
    first = {job.name: results for job, results in reversed(list(zip(jobs, done, strict=True)))}
    cells = [_cell(asked.out, job, results, first[job.name]) for job, results in zip(jobs, done, strict=True)]
    steps = {job.name: job.run.eval.replan_steps for job in jobs}
    crashed = [
        crash for job, results in zip(jobs, done, strict=True) for crash in crashes(job.words, results)
    ]
    record = Execution(command, done[0]["suite"], steps, cells, crashed)
    asked.out.mkdir(parents=True, exist_ok=True)
    write_record(asked.out / RECORD, record)
    write_execution_page(asked.out / PAGE, record)
    return record


def _jobs(asked: Grid) -> list[_Job]:
    for what, given in (("run", asked.runs), ("executor", asked.executors), ("delay", asked.delays)):
        if not given or len(set(given)) < len(given):
            raise BadInput(
                f"expected at least one {what}, each once; got {', '.join(map(str, given)) or 'none'}"
            )
    names = run_names(list(asked.runs))
    jobs = []
    for (directory, run), executor, delay in itertools.product(
        asked.runs.items(), asked.executors, sorted(asked.delays)
    ):
        setting = replace(run.eval, executor=executor, delay_ms=delay)
        acting = replace(run, eval=setting)
        try:
            check_together(run, acting)
        except BadInput as error:
            raise BadInput(f"{names[directory]}, {executor} with a delay of {delay:g} ms: {error}") from None
        folder = asked.out / names[directory] / f"{executor}_{delay:g}ms"
        jobs.append(_Job(names[directory], directory, acting, folder))
    return jobs


def run_names(runs: Sequence[Path]) -> dict[Path, str]:
    """What runs are called: as their directories, with those above where these have the same name."""
    whole = {directory: directory.resolve().parts for directory in runs}
    for depth in range(1, max(map(len, whole.values())) + 1):
        names = {directory: "_".join(parts[-depth:]) for directory, parts in whole.items()}
        if len(set(names.values())) == len(runs):
            return names
    raise BadInput("expected every run directory once")


def _cell(out: Path, job: _Job, results: dict[str, Any], first: dict[str, Any]) -> Cell:
    setting = job.run.eval
    return Cell(
        run=job.name,
        executor=setting.executor,
        delay_ms=setting.delay_ms,
        total=RATE.validate_python(results["total"]),
        smoothness=MOTION.validate_python(results["smoothness"]),
        query_ms=results["latency"]["median_ms"],
        results=str((job.out / RESULTS).relative_to(out)),
        weights=results["policy"]["weights"],
        pair=pair("the first", solved(first), f"{setting.executor}_{setting.delay_ms:g}ms", solved(results)),
    )

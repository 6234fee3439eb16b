"""`wamkit analyse robustness`: policies on a suite as it is, and with every axis of robustness at every strength.

Each cell is an evaluation of its own, in OUT/<policy>/<suite>+<axis>_<strength>: a killed one resumes, a finished one
is only read. The axes and their strengths are those of the simulator (wamkit_client/envs/*/perturbations.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from wamkit_client.client import RemotePolicy
from wamkit_client.envs.perturbations import UNPERTURBED
from wamkit_client.suites import Suite
from wamkit_client.suites import suite as find_suite
from wamkit_client.types import BadInput

from wamkit.config import Run
from wamkit.eval.evaluate import RESULTS
from wamkit.io.progress import say
from wamkit.io.records import write_record
from wamkit.report.rates import Crash, crashes
from wamkit.report.results import RATE
from wamkit.report.robustness import Axis, Cell, Robustness, write_robustness_page
from wamkit.stages.evaluation import chosen, loaded
from wamkit.stages.execution import run_names
from wamkit.stages.pairing import pair, solved
from wamkit.stages.served import Told, measured

RECORD, PAGE = "robustness.json", "robustness.html"
Measure = Callable[[Suite, Path], dict[str, Any]]


@dataclass(frozen=True)
class Subject:
    """A policy. run: as it acts. load: what measures it on suites; called when its turn comes."""

    run: Run
    load: Callable[[], Measure]


@dataclass(frozen=True)
class Grid:
    """subjects: by name. suite: "": that of the first run. axes: (): all that the simulator has. episodes: per task, 0
    for the suite's own. tasks: some of the suite's."""

    subjects: Mapping[str, Subject]
    out: Path
    suite: str = ""
    axes: Sequence[str] = ()
    episodes: int = 0
    tasks: tuple[str, ...] = ()


def of_runs(runs: Mapping[Path, Run]) -> dict[str, Subject]:
    """Run directories, as they act."""
    names = run_names(list(runs))
    return {names[path]: Subject(run, partial(loaded, path, run)) for path, run in runs.items()}


def of_server(remote: RemotePolicy, told: Told, run: Run) -> dict[str, Subject]:
    """The policy of a server, asked as `run` says."""
    return {"served": Subject(run, lambda: partial(measured, remote, told, run))}


def robustness(asked: Grid, command: str) -> Robustness:
    """Evaluate what is missing of the grid; write robustness.json and robustness.html into `asked.out`.

    Raises BadInput, before anything is evaluated, for axes that the simulator does not have and a suite in which
    something goes wrong already; and as of the evaluations.
    """
    first = next(iter(asked.subjects.values())).run
    name = asked.suite or first.suite
    if not name:
        raise BadInput("the first run has no suite; name one with --suite")
    suite = find_suite(name)
    axes = _axes(suite, asked.axes)
    done = [each for subject in asked.subjects for each in _cells(asked, subject, suite, axes)]
    protocol = chosen(first, name, asked.episodes, asked.tasks).to_json()
    crashed = [crash for _, own in done for crash in own]
    record = Robustness(command, protocol, axes, [cell for cell, _ in done], crashed)
    asked.out.mkdir(parents=True, exist_ok=True)
    write_record(asked.out / RECORD, record)
    write_robustness_page(asked.out / PAGE, record)
    return record


def _axes(suite: Suite, asked: Sequence[str]) -> dict[str, Axis]:
    """The axes by name, in the simulator's order."""
    if suite.env.perturbation != UNPERTURBED:
        raise BadInput(f"--suite {suite.name}: expected a suite as it is; choose perturbations with --axes")
    known = {name: kind for name, kind in suite.env.perturbations.items() if kind.from_reset}
    if not known:
        raise BadInput(
            f"{suite.env.simulator} has no axes of robustness; suites of Meta-World and LIBERO have"
        )
    for word in asked:
        if word not in known:
            raise BadInput(f"--axes {word}: expected some of {', '.join(known)}")
    return {
        name: Axis(kind.about, kind.unit, kind.strengths)
        for name, kind in known.items()
        if name in asked or not asked
    }


def _cells(asked: Grid, name: str, suite: Suite, axes: Mapping[str, Axis]) -> list[tuple[Cell, list[Crash]]]:
    """One policy's with what crashed in them, the unperturbed one first."""
    subject = asked.subjects[name]
    levels = [(axis, level) for axis, own in axes.items() for level in range(1, len(own.strengths) + 1)]
    words = {"": ("", 0)} | {f"{axis}_{level}": (axis, level) for axis, level in levels}
    cells: list[tuple[Cell, list[Crash]]] = []
    measure = subject.load()
    for number, (word, (axis, level)) in enumerate(words.items(), 1):
        about = word or "as it is"
        say(f"{name}, {number} of {len(words)}: {about}")
        whole = f"{suite.name}+{word}" if word else suite.name
        own = chosen(subject.run, whole, asked.episodes, asked.tasks)
        out = asked.out / name / own.name
        results = measure(own, out)
        if not cells:
            usual = solved(results)
        cell = Cell(
            policy=name,
            axis=axis,
            level=level,
            strength=own.env.perturbation.strength if axis else 0.0,
            total=RATE.validate_python(results["total"]),
            alarmed=results["warnings"]["alarmed"] if results["config"]["warn"] else None,
            results=str((out / RESULTS).relative_to(asked.out)),
            weights=results["policy"]["weights"],
            pair=pair(suite.name, usual, own.name, solved(results)),
        )
        cells.append((cell, crashes(f"{name}, {about}", results)))
    return cells

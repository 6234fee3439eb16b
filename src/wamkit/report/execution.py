"""The page and record of `wamkit analyse execution`: what latency costs a policy, by the executor that bears it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from wamkit.io.provenance import machine, revision, versions
from wamkit.report.comparison import COLOURS
from wamkit.report.facts import Facts, facts
from wamkit.report.page import Header, Section, write_page
from wamkit.report.plots import VARIABLES, Curve, curves
from wamkit.report.rates import Crash, crashed, rate_curves, told
from wamkit.report.results import Motion, Pair, Rate

DELAY = "delay in ms"


@dataclass(frozen=True)
class Cell:
    """A policy measured with an executor at a delay. results: the file, beside the record. weights: their sha256.

    pair: the test of it against the first executor at the least delay, episode by episode; None where no episode was
        measured with both.
    """

    run: str
    executor: str
    delay_ms: float
    total: Rate
    smoothness: Motion
    query_ms: float | None
    results: str
    weights: str
    pair: Pair | None


@dataclass(frozen=True)
class Execution:
    """execution.json. suite: the protocol. replan_steps: by run. crashes: of all cells."""

    command: str
    suite: dict[str, Any]
    replan_steps: dict[str, int]
    cells: list[Cell]
    crashes: list[Crash] = field(default_factory=list)
    revision: str = field(default_factory=revision)
    versions: dict[str, str] = field(default_factory=versions)
    machine: dict[str, Any] = field(default_factory=machine)
    format: str = "wamkit-execution-1"

    @property
    def runs(self) -> list[str]:
        """In the order that they were named in."""
        return list(dict.fromkeys(cell.run for cell in self.cells))

    @property
    def executors(self) -> list[str]:
        """In the order that they were asked for."""
        return list(dict.fromkeys(cell.executor for cell in self.cells))


@dataclass(frozen=True)
class ExecutionOf:
    """One run's. colours: as CSS, by executor."""

    cells: list[Cell]
    colours: dict[str, str]
    plots: list[Markup]


def write_execution_page(out: Path, record: Execution) -> None:
    """Write the page, whole or not at all."""
    first, hardest = record.cells[0], max(record.cells, key=lambda cell: cell.delay_ms).delay_ms
    late = [cell for cell in record.cells if cell.run == first.run and cell.delay_ms == hardest]
    delayed = ", ".join(f"{cell.executor} {told(cell.total)}" for cell in late)
    header = Header(
        f"wamkit analyse execution: {', '.join(record.runs)}",
        f"{first.run} with {first.executor} at {first.delay_ms:g} ms: {told(first.total)} solved; with a delay of "
        f"{hardest:g} ms: {delayed}",
        f"Suite {record.suite['name']} with {record.suite['episodes']} episodes per task. The delay is the time from a "
        "query to its answer; meanwhile the robot holds or goes on, as its executor decides.",
    )
    software = {"revision": record.revision, **record.versions}
    groups = {"software": software, "machine": record.machine, "replanned after": record.replan_steps}
    folded = {f"{cell.run} {cell.executor} {cell.delay_ms:g} ms": asdict(cell) for cell in record.cells}
    sections = [_of(record, run) for run in record.runs]
    write_page(
        out, header, [*sections, *crashed(record.crashes), facts(Facts(groups, folded, {}, record.command))]
    )


def _of(record: Execution, run: str) -> Section:
    cells = [cell for cell in record.cells if cell.run == run]
    colours = dict(zip(record.executors, COLOURS, strict=False))
    rates = [
        (colour, [(cell.delay_ms, cell.total) for cell in cells if cell.executor == executor])
        for executor, colour in colours.items()
    ]
    jerks = [(cell, cell.smoothness.jerk) for cell in cells if cell.smoothness.jerk is not None]
    plots = rate_curves("episodes solved, in percent", rates, DELAY)
    plots += [_plot("jerk, m/s³", jerks, colours)] if jerks else []
    css = {name: VARIABLES[colour] for name, colour in colours.items()}
    return Section(f"run{record.runs.index(run)}", run, "execution", ExecutionOf(cells, css, plots))


def _plot(name: str, points: Sequence[tuple[Cell, float]], colours: dict[str, str]) -> Markup:
    """A curve for each executor, over the delay."""
    drawn = []
    for executor, colour in colours.items():
        own = [(cell.delay_ms, value) for cell, value in points if cell.executor == executor]
        drawn += [Curve([x for x, _ in own], [y for _, y in own], colour)] if own else []
    return curves(name, drawn, DELAY)

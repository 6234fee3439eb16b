"""The page and record of `wamkit analyse robustness`: what policies solve when something is otherwise, axis by axis."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from wamkit.io.provenance import machine, revision, versions
from wamkit.report.comparison import COLOURS
from wamkit.report.facts import Facts, facts
from wamkit.report.page import Header, Section, write_page
from wamkit.report.plots import VARIABLES
from wamkit.report.rates import Crash, crashed, rate_curves, told
from wamkit.report.results import Pair, Rate


@dataclass(frozen=True)
class Axis:
    """about, unit: in words. strengths: of the levels 1, 2 and so on."""

    about: str
    unit: str
    strengths: tuple[float, ...]


@dataclass(frozen=True)
class Cell:
    """A policy on the suite with an axis at a strength; axis "", level 0: as it is.

    alarmed: episodes with an alarm, of a watched policy; None of another one. results: the file, beside the record.
    weights: their sha256. pair: the test of it against the suite as it is, episode by episode; None where no episode
    was measured in both.
    """

    policy: str
    axis: str
    level: int
    strength: float
    total: Rate
    alarmed: int | None
    results: str
    weights: str
    pair: Pair | None


@dataclass(frozen=True)
class Robustness:
    """robustness.json. suite: the protocol. axes: by name. cells: by policy, the unperturbed one first. crashes: of all
    cells."""

    command: str
    suite: dict[str, Any]
    axes: dict[str, Axis]
    cells: list[Cell]
    crashes: list[Crash] = field(default_factory=list)
    revision: str = field(default_factory=revision)
    versions: dict[str, str] = field(default_factory=versions)
    machine: dict[str, Any] = field(default_factory=machine)
    format: str = "wamkit-robustness-1"

    @property
    def policies(self) -> list[str]:
        """In the order that they were named in."""
        return list(dict.fromkeys(cell.policy for cell in self.cells))

    def of(self, policy: str) -> list[Cell]:
        """One policy's cells."""
        return [cell for cell in self.cells if cell.policy == policy]


@dataclass(frozen=True)
class Curves:
    """A figure for each axis that was measured. colours: as CSS, by policy."""

    colours: dict[str, str]
    plots: list[Markup]


@dataclass(frozen=True)
class Table:
    """One policy's."""

    axes: dict[str, Axis]
    cells: list[Cell]

    @property
    def watched(self) -> bool:
        """Whether its world model was asked for warnings."""
        return any(cell.alarmed is not None for cell in self.cells)


def write_robustness_page(out: Path, record: Robustness) -> None:
    """Write the page, whole or not at all."""
    header = Header(
        f"wamkit analyse robustness: {', '.join(record.policies)}",
        _headline(record),
        f"{record.suite['episodes']} episodes for each of {len(record.suite['tasks'])} tasks in every cell, from the "
        "same initial states. An axis holds from the first image of an episode to its end.",
    )
    software = {"revision": record.revision, **record.versions}
    folded = {f"{cell.policy} {cell.axis}_{cell.level}": asdict(cell) for cell in record.cells if cell.axis}
    tables = [
        Section(f"policy{number}", policy, "robustness", Table(record.axes, record.of(policy)))
        for number, policy in enumerate(record.policies)
    ]
    shown = Facts({"software": software, "machine": record.machine}, folded, {}, record.command)
    write_page(out, header, [_curves(record), *tables, *crashed(record.crashes), facts(shown)])


def _headline(record: Robustness) -> str:
    """How the first policy does as it is, and where it does worst."""
    first, *others = record.of(record.policies[0])
    headline = f"{first.policy} in {record.suite['name']} as it is: {told(first.total)}"
    known = [(cell.total.rate, number) for number, cell in enumerate(others) if cell.total.rate is not None]
    if not known:
        return f"{headline}; nothing else was measured"
    worst = others[min(known)[1]]
    axis = record.axes[worst.axis]
    return f"{headline} solved; {told(worst.total)} where it does worst: {axis.about} ({worst.strength:g}; {axis.unit})"


def _curves(record: Robustness) -> Section:
    colours = {policy: COLOURS[number % len(COLOURS)] for number, policy in enumerate(record.policies)}
    plots = [plot for axis in record.axes for plot in _plot(record, axis, colours)]
    css = {policy: VARIABLES[colour] for policy, colour in colours.items()}
    return Section("axes", "By axis", "robustness_axes", Curves(css, plots))


def _plot(record: Robustness, axis: str, colours: dict[str, str]) -> list[Markup]:
    """A curve for each policy, over the strength."""
    shown = [
        (colour, [(cell.strength, cell.total) for cell in record.of(policy) if cell.axis in ("", axis)])
        for policy, colour in colours.items()
    ]
    return rate_curves(f"{axis}: episodes solved, in percent", shown, record.axes[axis].unit)

"""The page and record of `wamkit analyse robustness`: what policies solve when something is otherwise, axis by axis."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from wamkit.io.provenance import machine, revision, versions
from wamkit.report.comparison import COLOURS
from wamkit.report.facts import Facts, facts
from wamkit.report.page import Header, Section, percent, write_page
from wamkit.report.plots import VARIABLES, Curve, curves
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
    weights: their sha256. pair: the test of it against the suite as it is, episode by episode.
    """

    policy: str
    axis: str
    level: int
    strength: float
    total: Rate
    alarmed: int | None
    results: str
    weights: str
    pair: Pair


@dataclass(frozen=True)
class Robustness:
    """robustness.json. suite: the protocol. axes: by name. cells: by policy, the unperturbed one first."""

    command: str
    suite: dict[str, Any]
    axes: dict[str, Axis]
    cells: list[Cell]
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
    """A figure for each axis. colours: as CSS, by policy."""

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
    first, *others = record.of(record.policies[0])
    worst = min(others, key=lambda cell: cell.total.rate or 0.0)
    header = Header(
        f"wamkit analyse robustness: {', '.join(record.policies)}",
        f"{first.policy} solves {percent(first.total.rate or 0.0)} of {record.suite['name']} as it is, and "
        f"{percent(worst.total.rate or 0.0)} where it does worst: {record.axes[worst.axis].about} "
        f"({worst.strength:g}; {record.axes[worst.axis].unit})",
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
    write_page(out, header, [_curves(record), *tables, facts(shown)])


def _curves(record: Robustness) -> Section:
    colours = {policy: COLOURS[number % len(COLOURS)] for number, policy in enumerate(record.policies)}
    plots = [_plot(record, axis, colours) for axis in record.axes]
    css = {policy: VARIABLES[colour] for policy, colour in colours.items()}
    return Section("axes", "By axis", "robustness_axes", Curves(css, plots))


def _plot(record: Robustness, axis: str, colours: dict[str, str]) -> Markup:
    """A curve for each policy, over the strength."""
    drawn = []
    for policy, colour in colours.items():
        own = [cell for cell in record.of(policy) if cell.axis in ("", axis)]
        strengths = [cell.strength for cell in own]
        drawn.append(Curve(strengths, [100 * (cell.total.rate or 0.0) for cell in own], colour))
    return curves(f"{axis}: episodes solved, in percent", drawn, record.axes[axis].unit)

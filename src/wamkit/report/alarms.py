"""The page and record of `wamkit analyse warning`: what a world model noticed of what went wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from wamkit.io.provenance import machine, revision, versions
from wamkit.report.facts import Facts, facts
from wamkit.report.page import Header, Section, percent, write_page
from wamkit.report.plots import BLUE, ORANGE, Curve, curves
from wamkit.report.rates import NOT_MEASURED, Crash, crashed
from wamkit.report.results import Rate

Tree = Mapping[str, Any]


@dataclass(frozen=True)
class Score:
    """How well one tells perturbed episodes from others. episodes: of each. interval: 95 %, bootstrap over episodes."""

    episodes: int
    auroc: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Kind:
    """One perturbation. reached: episodes in which it was seen. noticed: those with an alarm from then on.

    median_delay: seconds from the perturbation to the first alarm; None without one. scores: by name.
    curves: of each episode, seconds since the perturbation and the warning's score.
    """

    suite: str
    solved: Rate
    reached: int
    noticed: int
    noticed_interval: tuple[float, float]
    median_delay: float | None
    scores: dict[str, Score]
    curves: list[list[tuple[float, float]]]

    @property
    def name(self) -> str:
        """Without the suite."""
        return self.suite.partition("+")[2]

    @property
    def told(self) -> str:
        """How many were noticed, in words."""
        return f"{self.noticed} of {self.reached}" if self.reached else NOT_MEASURED


@dataclass(frozen=True)
class Alarms:
    """alarms.json. episodes, alarmed, solved: without perturbation. false_alarms, ahead, threshold: of the calibration.

    seconds: after a perturbation, in which scores are compared. scores: what they are, by name. crashes: of all
    evaluations.
    """

    command: str
    suite: dict[str, Any]
    policy: dict[str, Any]
    false_alarms: float
    ahead: float
    threshold: float
    seconds: float
    episodes: int
    alarmed: int
    alarmed_interval: tuple[float, float]
    solved: Rate
    kinds: list[Kind]
    scores: dict[str, str]
    crashes: list[Crash] = field(default_factory=list)
    revision: str = field(default_factory=revision)
    versions: dict[str, str] = field(default_factory=versions)
    machine: dict[str, Any] = field(default_factory=machine)
    format: str = "wamkit-alarms-1"


@dataclass(frozen=True)
class AlarmsPage:
    """plots: one for each kind that was measured."""

    record: Alarms
    plots: list[Markup]


def write_alarms_page(out: Path, record: Alarms) -> None:
    """Write the page, whole or not at all."""
    noticed = ", ".join(f"{kind.name} {kind.told}" for kind in record.kinds)
    header = Header(
        f"wamkit analyse warning: {record.policy['recipe']}",
        f"Noticed: {noticed}",
        f"{_usual(record)}; the threshold was calibrated for {percent(record.false_alarms)} of episodes like those of "
        f"its calibration. Compared with what was expected {_ahead(record.ahead)} Suite {record.suite['name']}.",
    )
    software = {"revision": record.revision, **record.versions}
    groups = {"policy": record.policy}
    plots = [_plot(record, kind) for kind in record.kinds if kind.curves]
    write_page(
        out,
        header,
        [
            Section("alarms", "Alarms", "alarms", AlarmsPage(record, plots)),
            *crashed(record.crashes),
            facts(Facts({"software": software, "machine": record.machine}, groups, {}, record.command)),
        ],
    )


def _usual(record: Alarms) -> str:
    """How often it alarmed where nothing went wrong."""
    if not record.episodes:
        return "Nothing was measured without a perturbation"
    low, high = record.alarmed_interval
    return (
        f"An alarm in {record.alarmed} of {record.episodes} episodes in which nothing went wrong (95 % interval "
        f"{percent(low)} to {percent(high)})"
    )


def _ahead(seconds: float) -> str:
    return f"{seconds:g} s before, or earlier." if seconds else "last."


def _plot(record: Alarms, kind: Kind) -> Markup:
    """A line for each episode, and the threshold."""
    moments = [x for curve in kind.curves for x, _ in curve]
    begin, end = min(moments), max(moments)
    lines = [
        Curve([x - begin for x, _ in curve], [y for _, y in curve], BLUE, alpha=0.5) for curve in kind.curves
    ]
    level = Curve([0.0, end - begin], [record.threshold] * 2, ORANGE)
    moment = f"{kind.name}: seconds; it happens at {-begin:.2g}"
    return curves(f"score in {kind.name}", [level, *lines], moment, log=True)
